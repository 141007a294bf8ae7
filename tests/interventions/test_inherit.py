"""Cells that take over the donor's prefix, against plain forwards: every family, both paddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lvlm_lens import LVLM
from lvlm_lens.activations.sites import Site
from lvlm_lens.causal.cells import SiteAxis, build_cell
from lvlm_lens.data import ImageObject, Sample
from lvlm_lens.interventions.cell import full
from lvlm_lens.interventions.engine import resume
from lvlm_lens.interventions.inherit import Inheritance
from lvlm_lens.interventions.reach import obstacle
from lvlm_lens.interventions.recording import Recording, record
from lvlm_lens.models.encode import Encoded
from lvlm_lens.models.tiny import TINY, tiny_model

TEXTS = ("Can my toddler play with this?", "hello there")


def prompts(model: LVLM, seed: int, padding: str, texts: tuple[str, ...] = TEXTS) -> Encoded:
    rng = np.random.default_rng(seed)

    def picture() -> ImageObject:
        return ImageObject(Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)))

    return model.encode([Sample(f"{seed}-{i}", text, (picture(),)) for i, text in enumerate(texts)], padding)


def recorded(model: LVLM, encoded: Encoded, sites: list[Site]) -> Recording:
    return record(model, encoded, sites, [list(range(encoded.length))] * len(encoded), low=0)


def both(family: str, padding: str = "left") -> tuple[LVLM, list[Encoded], list[Recording], list[Site]]:
    model = LVLM(*tiny_model(family))
    sites = [Site(name, block) for name in ("resid_pre", "resid_post", "mlp_out") for block in range(model.n_blocks)]
    encoded = [prompts(model, seed, padding) for seed in (0, 1)]
    return model, encoded, [recorded(model, one, sites) for one in encoded], sites


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", sorted(TINY))
def test_taking_over_equals_plain_forward(family: str, padding: str) -> None:
    if not LVLM(*tiny_model(family)).takes_images:
        return
    model, encoded, (donor, recipient), _ = both(family, padding)
    if obstacle(model, recipient) is not None:
        return  # run in full: see test_causal_engine
    inheritance = Inheritance(donor, recipient)
    cells = []
    for row, layout in enumerate(encoded[1].layouts):
        for name in ("resid_pre", "resid_post"):
            for first, width in ((0, 1), (1, 1), (0, 2), (model.n_blocks - 1, 1)):
                blocks = range(first, min(first + width, model.n_blocks))
                columns = layout.images[0]
                made = build_cell(SiteAxis(name), blocks, row, columns, donor, columns, inheritance=inheritance)
                cells.append(made)
    fast = torch.zeros(len(cells), model.anatomy.vocab_size)
    for some, logits in resume(model, recipient, cells):
        fast[some] = logits
    plain = full(model, encoded[1], cells)
    assert float((fast - plain).abs().max()) <= 1e-5 * max(1.0, float(plain.abs().max()))
    if family == "llava":
        assert all(cell.inherits is not None for cell in cells), "a plainly causal family takes over every time"


@pytest.mark.parametrize("family", ["llava"])
def test_nothing_is_taken_over_where_the_runs_differ_before_the_span(family: str) -> None:
    model, encoded, (donor, recipient), sites = both(family)
    columns = encoded[1].layouts[0].images[0]
    inheritance = Inheritance(donor, recipient)
    assert inheritance.of("resid_post", 0, columns, columns) is not None
    assert inheritance.of("mlp_out", 0, columns, columns) is None  # the residual beside it stays the recipient's
    assert inheritance.of("resid_post", 0, columns[1:], columns[1:]) is None  # a token of the picture stays
    assert inheritance.of("resid_post", 0, columns[::2], columns[::2]) is None  # gaps stay
    assert inheritance.of("resid_post", 0, columns, tuple(c + 1 for c in columns)) is None  # from elsewhere
    longer = recorded(model, prompts(model, 0, "left", (TEXTS[0] + " Tell me, please.", TEXTS[1])), sites)
    assert Inheritance(longer, recipient).of("resid_post", 0, columns, columns) is None  # other columns mean others
    blind = record(model, encoded[0], sites, [list(range(encoded[0].length))] * 2, low=None)
    assert Inheritance(blind, recipient).of("resid_post", 0, columns, columns) is None  # keys were not kept


def test_deepstack_takes_nothing_over() -> None:
    """Qwen3-VL adds picture features between blocks: the recipient's, whatever was patched."""
    _, encoded, (donor, recipient), _ = both("qwen3_vl")
    columns = encoded[1].layouts[0].images[0]
    assert recipient.added
    assert Inheritance(donor, recipient).of("resid_post", 0, columns, columns) is None


def test_similar_pictures_in_half_precision_are_not_taken_for_equal() -> None:
    """A picture a shade lighter differs by less than coarse rounding, and yet its first token is not the donor's."""
    model = LVLM(*tiny_model("llava"))
    model.model.to(torch.bfloat16)
    sites = [Site("resid_post", block) for block in range(model.n_blocks)]
    pixels = np.random.default_rng(0).integers(60, 180, (40, 40, 3), dtype=np.uint8)
    pictures = [ImageObject(Image.fromarray(pixels + np.uint8(light))) for light in (0, 1)]
    encoded = [model.encode([Sample(f"{n}", TEXTS[0], (picture,))]) for n, picture in enumerate(pictures)]
    donor, recipient = (recorded(model, one, sites) for one in encoded)
    columns = encoded[0].layouts[0].images[0]
    assert not torch.equal(donor.keys[0], recipient.keys[0])
    inheritance = Inheritance(donor, recipient)
    assert inheritance.of("resid_post", 0, columns, columns) is not None  # all that differs is replaced
    assert inheritance.of("resid_post", 0, columns[1:], columns[1:]) is None
