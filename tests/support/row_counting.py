"""How many prompts a piece of code puts through the whole model, counted at its blocks."""

from contextlib import contextmanager


@contextmanager
def rows_counted(model, samples):
    """A list that holds, after the block, the rows: tokens through a block on average, over tokens of a prompt."""
    tokens, found = [], []

    def count(module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        tokens.append(hidden.shape[0] * hidden.shape[1])

    hooks = [block.register_forward_pre_hook(count, with_kwargs=True) for block in model.anatomy.blocks]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
    length = sum(len(layout.attended) for sample in samples for layout in model.encode(sample).layouts) / len(samples)
    found.append(sum(tokens) / model.n_blocks / length)
