"""A model that is larger than its device: parts on disk, brought in block by block, and the same numbers."""

import json

import numpy as np
import pytest

from lvlm_lens.activations.store import ActivationStore
from lvlm_lens.cli import main

AWAY = json.dumps({"": "cpu", "model.language_model.layers": "disk"})
HEAD_TOO = json.dumps({"": "cpu", "model.language_model.layers": "disk", "lm_head": "disk"})


def test_a_capture_through_a_device_map_is_the_plain_one(tmp_path):
    words = ["capture", "--limit", "24", "--batch-size", "8", "--sites", "resid_post,z,mlp_out", "--logits", "--quiet"]
    for name, more in {"plain": [], "away": ["--device-map", HEAD_TOO]}.items():
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
    chunks = [
        {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name / "arrays").rglob("*")
         if path.is_file()}
        for name in ("plain", "away")
    ]  # fmt: skip
    assert len(chunks[0]) == len(chunks[1]) > 3 * 12  # three sites of twelve blocks
    for name, content in chunks[0].items():
        assert "logits" in name or chunks[1][name] == content, name
    # the head's weights lie in a mapped file at another alignment, and its sums are rounded in another order
    plain, away = (ActivationStore.open(str(tmp_path / name)).logits for name in ("plain", "away"))
    np.testing.assert_allclose(away, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_sweep_through_a_device_map_finds_the_same(tmp_path):
    words = ["sweep", "--limit", "60", "--pairs", "2", "--no-sasa", "--no-defenses", "--replicates", "100", "--quiet"]
    for name, more in (("plain", []), ("away", ["--device-map", AWAY])):
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
    plain, away = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("plain", "away"))
    for part in ("curves", "roles", "quadrants", "backbone"):
        assert plain[part] == away[part], part
    assert plain["causal"]["cells_table"] == away["causal"]["cells_table"]
