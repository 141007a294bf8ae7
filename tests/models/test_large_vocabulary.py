"""A vocabulary of 200,000 tokens: no array of samples x blocks x vocabulary, and the numbers of plain forwards."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from lvlm_lens.causal import patch_grid
from lvlm_lens.data import Pair, Sample
from lvlm_lens.defenses.extraction import extract
from lvlm_lens.defenses.projection import Cell
from lvlm_lens.defenses.wide_table import check_room
from lvlm_lens.errors import UsageError
from lvlm_lens.evaluate.inside import InsideTable
from lvlm_lens.lens import LVLM
from lvlm_lens.measures.evidence import gather
from lvlm_lens.measures.unembedding import Unembedding
from lvlm_lens.models.refusal_tokens import refusal_token_ids
from lvlm_lens.models.tiny.parts import drawn, make_tokenizer, sizes

VOCABULARY, BLOCKS, ROWS = 200_000, 12, 16


class Largest(TorchDispatchMode):
    """Remembers the most entries that any result of an operation had."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for value in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(value, torch.Tensor) and not function.is_view:
                self.entries = max(self.entries, value.numel())
        return found


@pytest.fixture(scope="module")
def model():
    tokenizer = make_tokenizer()
    shape = sizes(tokenizer) | {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": BLOCKS}
    with torch.random.fork_rng():
        return LVLM(drawn(LlamaForCausalLM(LlamaConfig(**shape)), 0), tokenizer, name="large vocabulary")


@pytest.fixture(scope="module")
def samples():
    return [
        Sample(f"s{n}", f"May I take this on flight {n}?", group=f"g{n}", label_joint="unsafe" if n % 2 else "safe")
        for n in range(ROWS)
    ]


def plain(model, sample):
    """Hidden states after each block at the last token, and logits, of Hugging Face's own forward."""
    chat = [{"role": "user", "content": sample.text}]
    if model.tokenizer.chat_template:
        ids = model.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    else:
        ids = model.tokenizer(model.encode(sample).prompts, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        output = model.model(input_ids=ids, output_hidden_states=True)
    return [state[0, -1] for state in output.hidden_states[1:]], output.logits[0, -1]


def test_the_lens_goes_block_by_block(model, samples):
    with Largest() as seen:
        evidence = gather(model, samples, batch_size=ROWS)
    assert seen.entries < ROWS * BLOCKS * VOCABULARY / 2  # 38 million; one array of all blocks was one
    assert seen.entries <= max(ROWS * VOCABULARY, 2**24)
    ids = list(evidence.refusal_ids)
    norm, head = model.model.model.norm, model.model.lm_head
    for row in (0, 7):
        states, logits = plain(model, samples[row])
        final = logits.double().log_softmax(-1)
        for block in range(BLOCKS):
            # the last of Hugging Face's states is normed already
            with torch.inference_mode():
                through = logits if block == BLOCKS - 1 else head(norm(states[block]))
            lens = through.double().log_softmax(-1)
            p = lens.exp()[ids].sum()
            assert evidence.lens_log_odds[row, block] == pytest.approx(float(p.log() - (-p).log1p()), abs=1e-3)
            assert evidence.lens_top[row, block] == int(lens.argmax())
            kl = float((final.exp() * (final - lens)).sum())
            assert evidence.lens_kl[row, block] == pytest.approx(kl, rel=1e-3, abs=1e-3)


def test_a_defended_model_is_read_block_by_block(model, samples):
    class Nothing:
        name = "nothing"

        def capture(self, model, data, sites, positions):
            return model.capture(data, sites, positions)

    before = gather(model, samples, batch_size=4)
    table = InsideTable.__new__(InsideTable)  # roles of 16 items are not what this is about
    table.model, table.before = model, before
    with Largest() as seen:
        after = table._evidence(Nothing())
    assert seen.entries <= max(ROWS * VOCABULARY, 2**24)
    np.testing.assert_allclose(after.lens_log_odds, before.lens_log_odds, atol=1e-4)
    np.testing.assert_array_equal(after.lens_top, before.lens_top)


def test_a_narrow_head_is_never_widened_whole():
    torch.manual_seed(0)
    weight, rows = torch.randn(600_000, 8).bfloat16(), torch.randn(3, 8)  # more than one piece of 2^22 numbers
    with Largest() as seen:
        found = Unembedding(weight).logits(rows)
    assert seen.entries < weight.numel()
    torch.testing.assert_close(found, rows @ weight.float().T)


def test_cells_of_sasa_lie_on_disk_one_table_each(model, samples):
    many = samples * 6  # 96 rows of 200,000 logits are 73 MiB a cell
    cells = [Cell(safety=2, fused=6), Cell(safety=4, fused=9)]
    with Largest() as seen:
        made = extract(model, many, cells, batch_size=ROWS)
    assert seen.entries <= max(ROWS * VOCABULARY, 2**24)
    for table in (made.plain, *made.cells.values()):
        assert isinstance(table, np.memmap) and table.shape == (len(many), VOCABULARY)
    logits = plain(model, samples[5])[1].numpy()
    for row in (5, 5 + ROWS):
        np.testing.assert_allclose(made.plain[row], logits, atol=1e-3)
    few = extract(model, samples[:4], cells, batch_size=4)
    assert not isinstance(few.plain, np.memmap)
    for cell in cells:
        np.testing.assert_allclose(made.cells[cell][:4], few.cells[cell], atol=1e-3)
        assert np.abs(few.cells[cell] - few.plain).max() > 1e-2  # the edit does something


def test_tables_without_room_say_what_to_do():
    with pytest.raises(UsageError, match="fewer candidate blocks"):
        check_room(10**6, 262_144, 100)


def test_patched_cells_are_unembedded_in_pieces(model, samples):
    """16 blocks x pairs of cells at the last token are one wave; its logits never stand in one array."""
    pairs = [Pair(samples[n], samples[n + 1]) for n in range(0, ROWS, 2)]
    with Largest() as seen:
        grid = patch_grid(
            model, pairs, "resid_post", "last", direction="denoise", nulls=("random",), verify=1, batch_size=8
        )
    cells = BLOCKS * len(pairs)
    assert seen.entries <= max(ROWS * VOCABULARY, 2**24) < cells * VOCABULARY and grid.engine == "resumed"
    donor, _ = plain(model, pairs[3].clean)

    def put(module, args, output):
        value = (output[0] if isinstance(output, tuple) else output).clone()
        value[:, -1] = donor[4]
        return (value, *output[1:]) if isinstance(output, tuple) else value

    handle = model.model.model.layers[4].register_forward_hook(put)
    try:
        _, logits = plain(model, pairs[3].corrupted)
    finally:
        handle.remove()
    p = logits.double().softmax(-1)[refusal_token_ids(model)].sum()
    assert grid.values[0, 0, 4, 0, 3] == pytest.approx(float(p.log() - (-p).log1p()), abs=1e-3)
