"""Evidence against plain Hugging Face forwards, and the locator on shuffled labels."""

import numpy as np
import pytest
import torch

from lvlm_lens import LVLM
from lvlm_lens.data import Dataset
from lvlm_lens.errors import DataError
from lvlm_lens.locate.locating import locate_roles, quadrant_table
from lvlm_lens.measures.evidence import Evidence, gather
from lvlm_lens.measures.items import harm_labels
from lvlm_lens.measures.linear_probe import LinearProbe
from lvlm_lens.measures.trajectory import Trajectory
from lvlm_lens.measures.unembedding import unembedding_of
from lvlm_lens.models.refusal_tokens import refusal_log_odds, refusal_token_ids
from lvlm_lens.stats.resampling import permute_labels

FAST = LinearProbe(permutations=20, replicates=200)


@pytest.fixture(scope="module")
def some(mini_data):
    joint = [s for s in mini_data if s.group in {t.group for t in mini_data if t.quadrant == "SSU"}]
    return Dataset(joint[:120], "mini")


@pytest.fixture(scope="module")
def evidence(mini, some):
    return gather(mini, some)


def test_evidence_equals_plain_forwards(mini, some, evidence):
    ids = refusal_token_ids(mini)
    for row in (0, 57, 119):
        encoded = mini.encode(some[row])
        with torch.inference_mode():
            output = mini.model(**encoded.inputs, output_hidden_states=True)
        np.testing.assert_allclose(evidence.embedding[row], output.hidden_states[0][0].mean(0), atol=1e-5)
        for block in range(mini.n_blocks - 1):
            plain = output.hidden_states[block + 1][0, -1].numpy()
            np.testing.assert_allclose(evidence.block(block)[row], plain, atol=2e-5)
        # HF's last hidden state is after the final norm; the lens of the last block is the model's own logits
        logits = output.logits[0, -1]
        p = logits.double().softmax(-1)[ids].sum()
        assert evidence.log_odds[row] == pytest.approx(float(p.log() - (-p).log1p()), abs=1e-3)
        assert evidence.lens_log_odds[row, -1] == pytest.approx(evidence.log_odds[row], abs=1e-3)
        assert evidence.top[row] == int(logits.argmax()) == evidence.lens_top[row, -1]
        vision = mini.model.model.vision_tower(encoded.inputs["pixel_values"], output_hidden_states=True)
        np.testing.assert_allclose(evidence.image[row], vision.hidden_states[-1][0].detach().mean(0), atol=1e-5)


def test_kl_of_the_lens_equals_plain_forwards(mini, some, evidence):
    norm, head = mini.model.model.language_model.norm, mini.model.lm_head
    for row in (3, 80):
        encoded = mini.encode(some[row])
        with torch.inference_mode():
            output = mini.model(**encoded.inputs, output_hidden_states=True)
            final = output.logits[0, -1].double().log_softmax(-1)
            for block in (0, 5, 10):
                lens = head(norm(output.hidden_states[block + 1][0, -1])).double().log_softmax(-1)
                kl = float((final.exp() * (final - lens)).sum())
                assert evidence.lens_kl[row, block] == pytest.approx(kl, rel=1e-4, abs=1e-4)
        assert evidence.lens_kl[row, -1] == pytest.approx(0, abs=1e-4)


def test_trajectory_from_what_was_read_equals_reading_again(mini, evidence):
    refused = evidence.log_odds > 0
    groups = np.asarray([s.group for s in evidence.samples])
    settings = {"replicates": 100, "permutations": 10}
    again = Trajectory(unembedding_of(mini), evidence.refusal_ids, **settings).fit(evidence, refused, groups)
    read = (evidence.lens_log_odds, evidence.lens_top, evidence.lens_kl)
    found = Trajectory(unembedding_of(mini), evidence.refusal_ids, **settings)
    found.fit_readings(evidence, *read, refused, groups)
    for name in ("decision_curve_", "log_odds_curve_", "token_curve_", "kl_curve_"):
        for part in ("value", "low", "high"):
            ours, theirs = getattr(getattr(found, name), part), getattr(getattr(again, name), part)
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=f"{name} {part}")
    np.testing.assert_array_equal(found.onset_, again.onset_)


def test_refusal_log_odds_stay_finite():
    logits = torch.tensor([[200.0, 0.0, 0.0], [-200.0, 0.0, 0.0]])
    found = refusal_log_odds(logits, [0])
    expected = torch.tensor([200.0, -200.0]) - torch.log(torch.tensor(2.0))
    torch.testing.assert_close(found, expected)


def test_save_and_load(evidence, some, tmp_path):
    evidence.save(tmp_path / "e.safetensors")
    again = Evidence.load(tmp_path / "e.safetensors", some)
    assert again.samples == evidence.samples and again.blocks == evidence.blocks
    np.testing.assert_array_equal(again.resid, evidence.resid)
    halves = Evidence.concatenate([evidence.rows(range(60)), evidence.rows(range(60, 120))])
    np.testing.assert_array_equal(halves.lens_log_odds, evidence.lens_log_odds)


def test_shuffled_labels_give_no_role(mini, evidence):
    with mini.random_twin(0) as shuffled_weights:
        twin = gather(shuffled_weights, evidence.samples)
    groups = np.asarray([s.group for s in evidence.samples])
    shuffled = permute_labels(harm_labels(evidence.samples), groups, 3, seed=7)
    for labels in shuffled:
        located = locate_roles(evidence, twin, labels=labels, probe=FAST)
        assert not any(role.found for role in located.roles), str(located.roles)


def test_one_class_is_refused(evidence):
    with pytest.raises(DataError, match="all 120 labelled items are unsafe"):
        locate_roles(evidence, labels=np.ones(120, dtype=int), probe=FAST)


def test_quadrant_shares(some):
    flags = np.arange(120) % 3 == 0
    rows = {row["quadrant"]: row for row in quadrant_table(some.samples, flags, ~flags)}
    unsafe = np.asarray([s.quadrant == "SSU" for s in some])
    assert rows["SSU"]["perceived"]["count"] == int((flags & unsafe).sum())
    assert rows["SSU"]["perceived_not_refused"]["count"] == int((flags & unsafe).sum())
    cell = rows["SSU"]["refused"]
    assert cell["low"] < cell["value"] < cell["high"]


def test_text_only_backbone_has_no_picture_baseline(mini_data):
    backbone = LVLM.from_pretrained("mini-backbone")
    words = [s.without_images() for s in mini_data if s.text_only is not None][:40]
    found = gather(backbone, words)
    assert found.image is None and len(found) == 40


def test_the_lens_can_be_left_out_and_nothing_else_changes(mini, some, evidence):
    bare = gather(mini, some, lens=False)
    assert np.isnan(bare.lens_log_odds).all() and np.isnan(bare.lens_kl).all() and (bare.lens_top == -1).all()
    for name in ("resid", "log_odds", "top", "embedding", "image", "tokens"):
        np.testing.assert_array_equal(getattr(bare, name), getattr(evidence, name))
