"""The engine against plain forwards with hooks: every family, every site, both paddings, one and two pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lvlm_lens import LVLM
from lvlm_lens.activations.sites import Site, tap
from lvlm_lens.causal.cells import PER_HEAD, SiteAxis, build_cell
from lvlm_lens.data import ImageObject, Sample
from lvlm_lens.errors import SiteError
from lvlm_lens.interventions.cell import Cell, Write, full
from lvlm_lens.interventions.engine import resume
from lvlm_lens.interventions.reach import obstacle, suffix_starts
from lvlm_lens.interventions.recording import last_logits, record
from lvlm_lens.models.tiny import TINY, tiny_model

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "z", "pattern")
RUN_IN_FULL = {"linear", "per_layer_inputs", "shared_kv", "cross_attention", "chunked"}


def picture(rng: np.random.Generator) -> ImageObject:
    return ImageObject(Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)))


def samples(model: LVLM, side: str, pictures: int, seed: int) -> list[Sample]:
    rng = np.random.default_rng(seed)
    texts = ("Can my toddler play with this?", "hello there", "may I take it on a plane, please?")
    count = pictures if model.takes_images else 0
    return [Sample(f"{side}{i}", text, tuple(picture(rng) for _ in range(count))) for i, text in enumerate(texts)]


def available(model: LVLM) -> list[str]:
    found = []
    for name in SITES:
        try:
            for block in range(model.n_blocks):
                tap(Site(name, block), model.anatomy)
        except SiteError:
            continue
        found.append(name)
    return found


def run_resumed(model: LVLM, recording, cells: list[Cell], max_tokens: int = 16384) -> torch.Tensor:
    out = torch.full((len(cells), model.anatomy.vocab_size), torch.nan)
    for some, logits in resume(model, recording, cells, max_tokens):
        out[some] = logits
    return out


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", sorted(TINY))
def test_resumed_equals_plain_forward(family: str, padding: str) -> None:
    """Random cells of every site and window, spans and single tokens, of donors and random directions."""
    model = LVLM(*tiny_model(family))
    pictures = 2 if padding == "right" and model.anatomy.family.several_images else 1
    encoded = [model.encode(samples(model, side, pictures, seed), padding) for seed, side in enumerate("cr")]
    names = available(model)
    assert {"resid_pre", "resid_post"} <= set(names)
    sites = [Site(name, block) for name in names for block in range(model.n_blocks)]
    every = [list(range(model_layout.length)) for model_layout in encoded[0].layouts]
    flow = model.anatomy.family.flow
    donor = record(model, encoded[0], sites, every, low=None)
    recipient = record(model, encoded[1], sites, every, low=0)
    reason = obstacle(model, recipient)
    if reason is not None:  # patch_grid runs such a family in full and says so
        assert flow & RUN_IN_FULL, f"{family} is not resumed: {reason}"
        return
    rng = np.random.default_rng(len(family))
    for name in names:
        cells = []
        for number in range(8):
            row = int(rng.integers(3))
            layout = encoded[1].layouts[row]
            if number % 4 == 0 and layout.images:
                columns = layout.images[-1]
            else:
                size = int(rng.choice([1, 1, 3]))
                columns = tuple(sorted(int(c) for c in rng.choice(layout.attended, size, replace=False)))
            first, width = int(rng.integers(model.n_blocks)), int(rng.choice([1, 1, 2, 3]))
            head = 1 if name in PER_HEAD and name not in "kv" and number % 3 == 0 else None
            blocks = range(first, min(first + width, model.n_blocks))
            random_from = recipient if number == 5 else None
            cells.append(build_cell(SiteAxis(name, head), blocks, row, columns, donor, columns, random_from, number))
        fast = run_resumed(model, recipient, cells, max_tokens=int(rng.choice([64, 16384])))
        plain = full(model, encoded[1], cells)
        scale = max(1.0, float(plain.abs().max()))
        assert float((fast - plain).abs().max()) <= 1e-5 * scale, name
        moved = (plain - recipient.logits[[cell.row for cell in cells]]).abs().max()
        assert float(moved) > 1e-6, f"{name}: no cell changed anything, so nothing was tested"


def test_full_is_a_plain_hugging_face_forward() -> None:
    """``full`` itself against a hook written by hand on the Hugging Face block."""
    model = LVLM(*tiny_model("llava"))
    clean, corrupted = (model.encode(samples(model, side, 1, seed)[:1]) for seed, side in enumerate("cr"))
    block, column = 1, clean.layouts[0].last - 1
    with torch.no_grad():
        donor = model.model(**clean.inputs, output_hidden_states=True).hidden_states[block + 1][0, column]

    def hook(module: torch.nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[0, column] = donor
        return output

    handle = model.model.model.language_model.layers[block].register_forward_hook(hook)
    with torch.no_grad():
        by_hand = model.model(**corrupted.inputs).logits[0, -1]
    handle.remove()
    cell = Cell(0, (Write(Site("resid_post", block), (column,), lambda: donor[None]),))
    recording = record(model, corrupted)
    assert torch.allclose(full(model, corrupted, [cell])[0], by_hand, atol=1e-6)
    assert torch.allclose(run_resumed(model, recording, [cell])[0], by_hand, atol=1e-5)
    assert not torch.allclose(recording.logits[0], by_hand, atol=1e-4)


def test_recording_does_not_change_the_model_and_keeps_its_logits() -> None:
    model = LVLM(*tiny_model("llava"))
    encoded = model.encode(samples(model, "c", 1, 0))
    before = model.logits(encoded)
    recording = record(model, encoded, [Site("resid_post", 0)], low=3)
    assert torch.allclose(recording.logits, before, atol=1e-6)
    assert torch.equal(model.logits(encoded), before)
    assert recording.left[0].shape[1] == encoded.length - 3 and len(recording.left) == model.n_blocks + 1


def test_suffix_starts_follow_the_masks() -> None:
    """A block of tokens that see each other starts at its first token; plain causal ones at themselves."""
    from lvlm_lens.interventions.recording import Recording

    length = 6
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    seen[1:4, 1:4] = True
    rec = Recording(1, length, [length - 1], torch.ones(1, length, dtype=torch.bool), 0)
    rec.calls = {0: {"attention_mask": None}, 1: {"attention_mask": seen[None, None]}}
    assert suffix_starts(rec).tolist() == [[0, 1, 1, 1, 4, 5]]
    rec.calls = {0: {"attention_mask": torch.zeros(1, 1, length, length)}}  # a prefix model: everything sees everything
    assert suffix_starts(rec).tolist() == [[0] * length]


def test_a_patch_of_its_own_values_changes_nothing() -> None:
    model = LVLM(*tiny_model("llava"))
    encoded = model.encode(samples(model, "c", 1, 0))
    every = [list(range(encoded.length))] * len(encoded)
    sites = [Site(name, block) for name in SITES for block in range(model.n_blocks)]
    recording = record(model, encoded, sites, every)
    cells = [
        build_cell(SiteAxis(name), [block], row, (encoded.layouts[row].last,), recording, (encoded.layouts[row].last,))
        for name in SITES
        for block in range(model.n_blocks)
        for row in range(len(encoded))
    ]
    fast = run_resumed(model, recording, cells)
    expected = recording.logits[[cell.row for cell in cells]]
    assert float((fast - expected).abs().max()) < 1e-5


def test_bfloat16_is_close() -> None:
    tiny, processor = tiny_model("llava")
    model = LVLM(tiny.to(torch.bfloat16), processor)
    encoded = [model.encode(samples(model, side, 1, seed)) for seed, side in enumerate("cr")]
    every = [list(range(encoded[0].length))] * 3
    donor = record(model, encoded[0], [Site("resid_post", 1)], every, low=None)
    recipient = record(model, encoded[1])
    cells = [build_cell(SiteAxis("resid_post"), [1], row, (30,), donor, (30,)) for row in range(3)]
    fast, plain = run_resumed(model, recipient, cells), full(model, encoded[1], cells)
    assert float((fast - plain).abs().max()) <= 0.1 * max(1.0, float(plain.abs().max()))
    assert torch.equal(last_logits(model, encoded[1]), model.logits(encoded[1]))
