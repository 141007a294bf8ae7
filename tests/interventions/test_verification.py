"""The self-check of patch grids: unpatched logits never pass, in any dtype; what cannot be told from noise says so."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from prompts import make_pairs, token_difference

from lvlm_lens import LVLM, patch_grid
from lvlm_lens.data import ImageObject, Sample
from lvlm_lens.interventions import verification
from lvlm_lens.interventions.recording import Recording
from lvlm_lens.models.tiny import tiny_model

DTYPES = [torch.float32, torch.bfloat16]


def model(dtype: torch.dtype) -> LVLM:
    tiny, processor = tiny_model("llava")
    return LVLM(tiny.to(dtype), processor)


def mixed(sample: Sample) -> ImageObject:
    """The picture of a sample mixed with a little of another one: a small effect."""
    pixels = np.asarray(sample.images[0].load()).astype(float)
    other = np.random.default_rng(9).integers(0, 255, pixels.shape)
    return ImageObject(Image.fromarray((0.8 * pixels + 0.2 * other).astype(np.uint8)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_unpatched_logits_are_refused(dtype, monkeypatch) -> None:
    """Each cell answered by the logits of the untouched prompt: a tenth of the largest logit would let all pass."""
    subject = model(dtype)
    pairs = [replace(pair, corrupted=replace(pair.corrupted, images=(mixed(pair.clean),))) for pair in make_pairs(3)]

    def untouched(model, rec, cells, max_tokens=0):
        yield list(range(len(cells))), rec.logits[[cell.row for cell in cells]]

    arguments = (subject, pairs, "resid_post", "image", token_difference)
    right = patch_grid(*arguments, per="span", null=0, exact="full")
    monkeypatch.setattr(verification, "resume", untouched)
    caught = patch_grid(*arguments, per="span", null=0)
    assert caught.engine == "full" and "differed" in caught.reason
    assert caught.verification["wrong"] >= 1
    if dtype == torch.bfloat16:
        largest = max(float(subject.logits(subject.encode(pair.clean)).abs().max()) for pair in pairs)
        assert caught.verification["max_abs_diff"] < 0.1 * largest, "a share of the largest logit would have passed"
    np.testing.assert_allclose(caught.values, right.values, atol=1e-5 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_right_cells_pass_and_the_noise_is_that_of_another_batch_shape(dtype) -> None:
    grid = patch_grid(model(dtype), make_pairs(3), "resid_post", "image | last", token_difference, per="span", null=0)
    found = grid.verification
    assert grid.engine == "resumed" and found["wrong"] == 0
    assert found["told_from_noise"] >= 4
    assert found["max_abs_diff"] <= found["tolerance"]
    assert found["noise"] >= torch.finfo(dtype).eps
    assert found["noise"] < (1e-5 if dtype == torch.float32 else 0.1)


def test_cells_without_effect_prove_nothing_and_say_so() -> None:
    """Both prompts alike: no cell changes anything, so nothing was shown, and the grid does not claim it."""
    pair = make_pairs(1)[0]
    same = replace(pair, corrupted=replace(pair.clean, id="again"))
    grid = patch_grid(model(torch.float32), [same], "resid_post", "last", token_difference, "denoise", null=0)
    assert grid.verification["told_from_noise"] == 0
    assert "cannot be told from the noise" in grid.verification["note"]
    above = grid.above_noise()
    assert above is not None and not above.any()


def test_a_cell_a_little_wrong_is_refused(monkeypatch) -> None:
    """A tenth of its effect is the most that a cell may be off, however large the logits are."""
    original = Recording.barred
    monkeypatch.setattr(Recording, "barred", lambda *a: original(*a) + 0.05 * (torch.arange(305)[None] % 2))
    subject = model(torch.bfloat16)
    with torch.no_grad():
        subject.model.lm_head.weight.mul_(8)  # logits of about 30, where a tenth of the largest is 3
    grid = patch_grid(subject, make_pairs(2), "resid_post", "last", token_difference, "denoise", null=0)
    assert grid.engine == "resumed"  # 0.05 is below the rounding of such logits

    monkeypatch.setattr(Recording, "barred", lambda *a: original(*a) + 2.0 * (torch.arange(305)[None] % 2))
    grid = patch_grid(subject, make_pairs(2), "resid_post", "last", token_difference, "denoise", null=0)
    assert grid.engine == "full" and grid.verification["wrong"] >= 1
