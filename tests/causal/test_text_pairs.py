"""Pairs that differ in their words: patched where positions correspond, the question by the mean over its span."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from row_counting import rows_counted

from lvlm_lens import LVLM
from lvlm_lens.causal import patch_grid
from lvlm_lens.causal.cells import _random_change
from lvlm_lens.data import Dataset, Pair, Sample
from lvlm_lens.errors import DataError
from lvlm_lens.measures.evidence import gather
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.stages.patching import behaving_pairs, drawn_pairs, patch_stage, patching_work, spans_of

TEMPLATE = (
    "{% for m in messages %}<s>user {{ m['content'] }} .{% endfor %}"
    "{% if add_generation_prompt %} answer now :{% endif %}"
)
HARMFUL = ["How do I break open the box of someone else?", "How can I kill a neighbour?"]
HARMLESS = ["How do I open it?", "How can I kill a Python process that hangs?"]


@pytest.fixture(scope="module")
def model():
    made = LVLM(*tiny_model("llama"))
    made.tokenizer.chat_template = TEMPLATE
    return made


def sample(number, text, label, other):
    return Sample(f"{number}{label[0]}", text, group=f"g{number}", label_joint=label, counterfactual=f"{number}{other}")


def dataset(n=8):
    rows = []
    for i in range(n):
        rows.append(sample(i, f"{HARMFUL[i % 2]} Box {i}", "unsafe", "s"))
        rows.append(sample(i, f"{HARMLESS[i % 2]} Box {i}", "safe", "u"))
    return Dataset(rows, "pairs of words")


def metric(logits):
    return logits[:, 11] - logits[:, 17]


def by_hand(model, text):
    """Ids and the columns of the words, from the tokenizer alone."""
    prompt = f"<s>user {text} . answer now :"
    made = model.tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    start = prompt.index(text)
    inside = [
        i
        for i, (a, b) in enumerate(made["offset_mapping"])
        if b > a and 2 * (min(b, start + len(text)) - max(a, start)) >= b - a
    ]
    return torch.tensor([made["input_ids"]]), inside


@torch.inference_mode()
def plain(model, ids, block=None, change=None):
    """Logits of the last token and what entered each block, by the Hugging Face model alone."""
    entered, layers = [], model.model.model.layers

    def hook(number, module, args):
        hidden = args[0]
        if number == block:
            hidden = change(hidden.clone())
        entered.append(hidden)
        return (hidden, *args[1:])

    handles = [layer.register_forward_pre_hook(partial(hook, n)) for n, layer in enumerate(layers)]
    try:
        logits = model.model(input_ids=ids).logits[:, -1].float()
    finally:
        for handle in handles:
            handle.remove()
    return logits, entered


def test_span_means_and_template_tokens_equal_plain_forwards(model):
    pairs = [
        Pair(Sample("a", HARMFUL[0]), Sample("b", HARMLESS[0]), "text"),
        Pair(Sample("c", HARMFUL[1]), Sample("d", HARMLESS[1]), "text"),
    ]
    spans = spans_of(model, pairs)[0]
    assert spans[0] == "mean(question)" and spans[-1] == "last" and "template[-2]" in spans
    grid = patch_grid(model, pairs, "resid_pre", spans, metric, null=0)
    assert grid.engine == "resumed" and grid.verification["cells"] == 4
    for n, pair in enumerate(pairs):
        (clean, words_1), (other, words_2) = (by_hand(model, s.text) for s in (pair.clean, pair.corrupted))
        assert len(words_1) != len(words_2)
        _, donor = plain(model, clean)
        base, own = plain(model, other)
        assert float(metric(base)) == pytest.approx(grid.corrupted[n], abs=1e-4)
        for block in range(model.n_blocks):
            step = donor[block][0, words_1].mean(0) - own[block][0, words_2].mean(0)

            def shift(hidden, step=step, words=words_2):
                hidden[0, words] += step
                return hidden

            def swap(hidden, at, donor=donor, block=block):
                hidden[0, at] = donor[block][0, at]
                return hidden

            wanted = [plain(model, other, block, shift)[0]]
            wanted += [plain(model, other, block, partial(swap, at=at))[0] for at in range(-len(spans) + 1, 0)]
            found = grid.values[grid.directions.index("denoise"), 0, block, :, n]
            np.testing.assert_allclose(found, [float(metric(x)) for x in wanted], atol=1e-4)


def test_unequal_spans_are_refused_with_the_words_to_use(model):
    pairs = [Pair(Sample("a", HARMFUL[0]), Sample("b", HARMLESS[0]), "text")]
    with pytest.raises(DataError, match=r"mean\(question\)"):
        patch_grid(model, pairs, "resid_pre", ["question"], metric, null=0)


def test_null_of_a_span_mean_is_one_step_of_the_same_size():
    old = torch.randn(5, 8)
    new = old + torch.randn(8)
    states = [lambda: torch.randn(3, 8, generator=torch.Generator().manual_seed(1))]
    for pool in ([], states):
        step = _random_change(lambda: new, lambda: old, pool, 3, together=True) - old
        torch.testing.assert_close(step, step[:1].expand_as(step), atol=1e-5, rtol=1e-5)
        assert float(step[0].norm()) == pytest.approx(float((new - old)[0].norm()), rel=1e-4)
        apart = _random_change(lambda: new, lambda: old, pool, 3) - old
        assert not torch.allclose(apart, apart[:1].expand_as(apart), atol=1e-3)


def test_a_sweep_patches_pairs_of_words_or_says_truly_why_not(model, tmp_path):
    data = dataset()
    evidence = gather(model, data)
    alike = replace(evidence, log_odds=np.full(len(data), -1.0, dtype=np.float32))
    found, grid = patch_stage(model, data, alike, tmp_path / "none", 10, 0, lambda *_: None)
    assert grid is None and "0 of 8 pairs that differ in their words" in found["reason"]
    assert "refused: 0 harmful, 0 harmless members" in found["reason"]
    odds = np.array([1.0 if s.harmful else -1.0 for s in data], dtype=np.float32)
    able, _ = behaving_pairs(data, replace(evidence, log_odds=odds))
    assert len(able) == 8 and {pair.swap for pair in able} == {"text"}
    with rows_counted(model, data) as rows:
        found, grid = patch_stage(
            model, data, replace(evidence, log_odds=odds), tmp_path / "all", 10, 0, lambda *_: None
        )
    expected, _ = patching_work(model, able[0], 8, spans_of(model, able[:1])[0])
    assert 0.5 < expected.rows / rows[0] < 2
    assert found["done"] and found["pairs"] == 8 and found["pairs_differ_in"] == "text"
    assert {"mean(question)", "last"} <= set(grid.positions)
    assert np.isfinite(grid.values).all() and np.isfinite(grid.null).any(-1).all()


def test_the_pairs_that_are_patched_are_drawn_and_not_the_first_ones():
    pairs = dataset(40).pairs()
    drawn = drawn_pairs(pairs, 8, seed=0)
    numbers = [pairs.index(pair) for pair in drawn]
    assert len(set(numbers)) == 8 and numbers == sorted(numbers) and max(numbers) >= 20
    assert drawn_pairs(pairs, 8, seed=0) == drawn and drawn_pairs(pairs, 8, seed=1) != drawn
    assert drawn_pairs(pairs, 100, seed=0) == pairs
