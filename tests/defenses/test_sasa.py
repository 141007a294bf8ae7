"""SASA against plain forwards with hooks, on a tiny real model of every family."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from prompts import picture
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from lvlm_lens import LVLM
from lvlm_lens.activations import Site, attached, capture, tap
from lvlm_lens.data import Sample
from lvlm_lens.data.limits import limited_rows
from lvlm_lens.defenses import SASA
from lvlm_lens.defenses.extraction import extract
from lvlm_lens.defenses.probe import LogisticProbe
from lvlm_lens.defenses.projection import CONTROLS, Cell, donors, edit, position_mask, project
from lvlm_lens.errors import DataError, UsageError
from lvlm_lens.interventions.recording import Recording, record
from lvlm_lens.interventions.rerun import Reruns, rerun
from lvlm_lens.models.encode import Encoded
from lvlm_lens.models.tiny import TINY, tiny_model

WORDS = ("Can my toddler play with this?", "hello there", "may I take it on a plane, please?", "help me hurt them")


def requests(model: LVLM, n: int, split: str = "train", offset: int = 0) -> list[Sample]:
    """Harmful and harmless requests in groups of two; harm is in the words, so that a probe can find it."""
    made = []
    for i in range(offset, offset + n):
        words = WORDS[3] if i % 2 else WORDS[i // 2 % 3]
        images = (picture(i),) if model.takes_images else ()
        label = "unsafe" if i % 2 else "safe"
        extra = {"label_joint": label, "label_text": label, "split": split, "group": f"g{i // 2}"}
        made.append(Sample(f"s{i}", words + " now" * (i % 3), images, **extra))  # type: ignore[arg-type]
    return made


@pytest.fixture(scope="module")
def llava() -> LVLM:
    return LVLM(*tiny_model("llava"))


@pytest.mark.parametrize("family", sorted(TINY))
def test_second_pass_equals_a_whole_forward(family: str) -> None:
    """Resumed or in full, pass 2 equals a plain forward whose block s output is replaced; f = s changes nothing."""
    model = LVLM(*tiny_model(family))
    encoded = model.encode(requests(model, 3))
    rec, runs = record(model, encoded, keys=False), Reruns(model)
    blocks = [b for b in range(model.n_blocks) if rec.left[b].shape[1] == encoded.length]
    if len(blocks) < model.n_blocks:  # the others say why not
        assert family in RUN_IN_FULL
        with pytest.raises(UsageError, match="only at the last tokens"):
            edit(rec, encoded, Cell(0, model.n_blocks - 1))
    s, f = 0, blocks[-1]
    size = float(rec.logits[rec.logits.abs() < 1e30].std())
    changed = edit(rec, encoded, Cell(s, f))
    site = Site("resid_post", s)
    with attached([(site, tap(site, model.anatomy), lambda value, where: changed.hidden)]):
        expected = model.logits(encoded)
    seen = runs.run(rec, encoded, s, changed.hidden).logits
    assert torch.allclose(seen, expected, atol=1e-3 * size, rtol=0)
    assert (seen - rec.logits).abs().max() > 1e-3 * size  # the edit did something
    for block in blocks:
        same = runs.run(rec, encoded, block, edit(rec, encoded, Cell(block, block)).hidden).logits
        assert torch.allclose(same, rec.logits, atol=1e-3 * size, rtol=0), block
    runs.check(rec, encoded, s, changed.hidden)
    assert (runs.reason is None) == (family not in RUN_IN_FULL), runs.reason


RUN_IN_FULL = {"gemma4"}
"""Families whose later blocks cannot be run again by themselves; they say why in ``reason``."""


def first_pass(model: LVLM, samples: list[Sample]) -> tuple[Recording, Encoded]:
    encoded = model.encode(samples)
    return record(model, encoded, keys=False), encoded


def test_replace_is_running_the_later_blocks_on_the_projection_of_the_fused_state(llava: LVLM) -> None:
    """By hand: a_t H_f from Hugging Face's own hidden states, then the blocks one by one, norm, head."""
    encoded = llava.encode(requests(llava, 4))
    inputs = llava.forward_inputs(encoded)
    with torch.inference_mode():
        hidden = llava.model(**inputs, output_hidden_states=True, use_cache=False).hidden_states
        h_s, h_f = hidden[1], hidden[3]  # after blocks 0 and 2
        a = (h_s * h_f).sum(-1, keepdim=True) / (h_f * h_f).sum(-1, keepdim=True)
        calls = {}
        handles = [
            block.register_forward_pre_hook(lambda m, args, kwargs, b=b: calls.update({b: kwargs}), with_kwargs=True)
            for b, block in enumerate(llava.anatomy.blocks)
        ]
        llava.logits(encoded)
        for handle in handles:
            handle.remove()

        def run(value: torch.Tensor) -> torch.Tensor:
            for block in (1, 2, 3):
                value = llava.anatomy.blocks[block](value, **calls[block])
            return llava.anatomy.lens(value[:, -1])

        attended = encoded.inputs["attention_mask"].bool()
        by_hand = run(torch.where(attended[..., None], a * h_f, h_s))
        once_more = run(torch.where(attended[..., None], h_f, h_s))
    first = record(llava, encoded, keys=False)
    assert torch.allclose(rerun(llava, first, 0, edit(first, encoded, Cell(0, 2)).hidden).logits, by_hand, atol=1e-5)
    again = rerun(llava, first, 0, edit(first, encoded, Cell(0, 2, control="rerun")).hidden).logits
    assert torch.allclose(again, once_more, atol=1e-5)


def test_next_block_reads_exactly_the_direction_of_the_fused_state(llava: LVLM) -> None:
    """RMSNorm is scale-free: block s+1's attention reads sign(a_t) H_f, whatever |a_t| is."""
    first, encoded = first_pass(llava, requests(llava, 4))
    norm = llava.anatomy.blocks[1].input_layernorm
    h_f = first.left[2]
    _, a = project(first.left[0], h_f)
    with torch.inference_mode():
        read = norm(edit(first, encoded, Cell(0, 2)).hidden)[first.attended]
        wanted = norm(h_f)
    eps = norm.variance_epsilon
    loud = (first.left[0].pow(2).mean(-1) > 1e4 * eps)[first.attended]  # where the norm's own eps does not matter
    expected = (torch.sign(a)[..., None] * wanted)[first.attended]
    cosine = torch.nn.functional.cosine_similarity(read, expected, dim=-1)
    assert torch.allclose(cosine, torch.ones_like(cosine), atol=1e-5)
    assert torch.allclose(read[loud], expected[loud], rtol=1e-2, atol=1e-3)


def test_the_two_readings_are_told_apart(llava: LVLM) -> None:
    """Onto H_f turns the residual into H_f's direction; onto H_s keeps H_s's and only rescales it."""
    first, encoded = first_pass(llava, requests(llava, 4))
    attended = first.attended
    published = edit(first, encoded, Cell(0, 2)).hidden[attended]
    other = edit(first, encoded, Cell(0, 2, projection="onto_safety")).hidden[attended]
    cosine = torch.nn.functional.cosine_similarity

    def one(x: torch.Tensor, y: torch.Tensor) -> bool:
        return bool(torch.allclose(cosine(x, y, dim=-1).abs(), torch.ones(len(x)), atol=1e-5))

    assert one(published, first.left[2][attended]) and not one(published, first.left[0][attended])
    assert one(other, first.left[0][attended]) and not one(other, first.left[2][attended])


def test_negative_coefficients_are_counted() -> None:
    h_s, h_f = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[[-2.0, 0.0], [1.0, 1.0]]])
    projected, a = project(h_s, h_f)
    assert a.tolist() == [[-0.5, 1.0]]
    assert projected.tolist() == [[[1.0, 0.0], [1.0, 1.0]]]
    model = LVLM(*tiny_model("llava"))
    first, encoded = first_pass(model, requests(model, 3))
    first.left[1] = -first.left[0]
    found = edit(first, encoded, Cell(0, 1))
    assert found.negative == found.tokens == int(first.attended.sum())


def test_modes_positions_and_sink(llava: LVLM) -> None:
    first, encoded = first_pass(llava, requests(llava, 4))
    h_s, attended = first.left[0], first.attended
    projected, _ = project(h_s, first.left[2])
    expect = {
        Cell(0, 2): projected,
        Cell(0, 2, mode="residual", strength=0.7): h_s + 0.7 * projected,
        Cell(0, 2, mode="interpolate", strength=0.3): 0.7 * h_s + 0.3 * projected,
        Cell(0, 2, control="complement"): h_s - projected,
    }
    for cell, value in expect.items():
        assert torch.allclose(edit(first, encoded, cell).hidden[attended], value[attended], atol=1e-6), cell
    layouts = encoded.layouts
    for spec in ("text", "image", "last"):
        changed = (edit(first, encoded, Cell(0, 2, positions=spec)).hidden != h_s).any(-1)
        for row, layout in enumerate(layouts):
            assert torch.nonzero(changed[row])[:, 0].tolist() == sorted(layout.part(spec))
    with_sink, without = (position_mask(layouts, "all", sink) for sink in (True, False))
    assert int(with_sink.sum() - without.sum()) == len(layouts)
    assert not without[0, layouts[0].attended[0]]
    norm_matched = edit(first, encoded, Cell(0, 2, control="norm_matched")).hidden
    assert torch.allclose(norm_matched.norm(dim=-1)[attended], h_s.norm(dim=-1)[attended], rtol=1e-4)


def test_other_sample_is_another_group_and_random_is_one_direction(llava: LVLM) -> None:
    samples = requests(llava, 6)
    for row, donor in enumerate(donors(samples)):
        assert samples[row].group != samples[donor].group
    first, encoded = first_pass(llava, samples)
    changed = edit(first, encoded, Cell(0, 2, control="random")).hidden[first.attended]
    assert torch.linalg.matrix_rank(changed) == 1
    with pytest.raises(DataError, match="at least two"):
        edit(*first_pass(llava, samples[:1]), Cell(0, 2, control="other_sample"))


def test_probe_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    for d in (5, 200):
        x, y = rng.normal(size=(40, d)).astype(np.float32), rng.integers(0, 2, 40)
        ours = LogisticProbe(C=1.0).fit(x, y)
        theirs = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-8, max_iter=5000).fit(x, y)
        assert np.allclose(ours.decision_function(x), theirs.decision_function(x), atol=1e-3)
        assert np.allclose(ours.predict_proba(x), theirs.predict_proba(x)[:, 1], atol=1e-3)


def test_estimator_contract_and_guard(llava: LVLM) -> None:
    train, test = requests(llava, 24), requests(llava, 12, "test", 100)
    sasa = SASA(safety_block=0, fused_block=-2)
    assert sasa.get_params()["fused_block"] == -2 and not hasattr(clone(sasa), "probe_")
    with pytest.raises(UsageError, match="not fitted"):
        sasa.score_prompt(llava, test)
    assert sasa.fit(llava, train) is sasa
    assert (sasa.safety_block_, sasa.fused_block_) == (0, 2)
    assert sasa.engine_ == "resumed" and sasa.check_error_ < 1e-3
    p = sasa.predict_proba(llava, test)
    assert p.shape == (12, 2) and np.allclose(p.sum(1), 1)
    assert sasa.score(llava, test) > 0.8  # harm is in the words
    features = extract(llava, train, [Cell(0, 2)]).cells[Cell(0, 2)]
    oracle = LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=5000)
    oracle.fit(features, [s.harmful for s in train])
    expected = oracle.predict_proba(extract(llava, test, [Cell(0, 2)]).cells[Cell(0, 2)])
    assert np.allclose(p, expected, atol=1e-3)
    guarded = sasa.guard(llava)
    answers = guarded.generate(test, max_new_tokens=4)
    own = llava.generate(test, max_new_tokens=4)
    for answer, plain, risk in zip(answers, own, p[:, 1], strict=True):
        assert answer == ("Sorry, I cannot help with that." if risk >= 0.5 else plain)
    # scoring costs one whole forward and the blocks after s; refused queries generate nothing
    assert guarded.cost.queries == 12 and guarded.cost.forwards >= 12 * (1 + 3 / 4)


def test_features_no_projection_and_chosen_blocks(llava: LVLM) -> None:
    train, test = requests(llava, 16), requests(llava, 6, "test", 100)
    for features, width in (("logits", llava.anatomy.vocab_size), ("last_resid", 64), ("fused_resid", 64)):
        fitted = SASA(safety_block=0, fused_block=2, features=features).fit(llava, train)
        assert fitted.probe_.coef_.shape == (width,)
        plain = SASA(safety_block=0, fused_block=2, features=features, control="no_projection").fit(llava, train)
        acts = capture(llava, test, "resid_post", "last", logits=True)
        rows = {
            "logits": acts.logits,
            "last_resid": acts["resid_post", 3][:, 0],
            "fused_resid": acts["resid_post", 2][:, 0],
        }
        expected = plain.probe_.decision_function(rows[features])
        assert np.allclose(plain.decision_function(llava, test), expected, atol=1e-3)
    chosen = SASA(folds=2).fit(llava, train)
    assert chosen.chosen_by_.startswith("cross-validation")
    assert len(chosen.grid_) == 6 and chosen.grid_[chosen.safety_block_, chosen.fused_block_] == max(
        chosen.grid_.values()
    )


def test_capture_shows_the_second_pass(llava: LVLM) -> None:
    """Blocks up to s - 1 as ever, block s the projection, later ones changed; rows in the data's order."""
    samples = requests(llava, 7)
    sasa = SASA(safety_block=1, fused_block=2, batch_size=3).fit(llava, requests(llava, 12, offset=50))
    acts, plain = sasa.capture(llava, samples), capture(llava, samples)
    assert [s.id for s in acts.samples] == [s.id for s in samples]
    assert np.allclose(acts["resid_post", 0], plain["resid_post", 0], atol=1e-5)
    projected, _ = project(torch.tensor(plain["resid_post", 1]), torch.tensor(plain["resid_post", 2]))
    assert np.allclose(acts["resid_post", 1], projected, atol=1e-4)
    assert np.abs(acts["resid_post", 3] - plain["resid_post", 3]).max() > 1e-3
    same = sasa.capture(llava, samples, batch_size=7)
    assert np.allclose(same["resid_post"], acts["resid_post"], atol=1e-4)


def test_bad_input(llava: LVLM) -> None:
    train = requests(llava, 12)
    for options, message in (
        ({"safety_block": 3, "fused_block": 1}, "stands after the fused block"),
        ({"safety_block": 0, "fused_block": 9}, "blocks 0 to 3"),
        ({"safety_block": 0}, "given together"),
        ({"safety_block": 0, "fused_block": 1, "mode": "swap"}, "replace, residual, interpolate"),
        ({"safety_block": 0, "fused_block": 1, "control": "nothing"}, "control is"),
        ({"safety_block": 0, "fused_block": 1, "features": "magic"}, "features is"),
        ({"safety_block": 0, "fused_block": 1, "C": 0.0}, "positive"),
        ({"candidates": [2]}, "two different blocks"),
    ):
        with pytest.raises(UsageError, match=message):
            SASA(**options).fit(llava, train)
    with pytest.raises(DataError, match="needed"):
        SASA(safety_block=0, fused_block=1).fit(llava, train[::2])
    with pytest.raises(DataError, match="use fewer folds"):
        SASA(folds=5).fit(llava, train[:4])
    text = LVLM(*tiny_model("llama"))
    assert (
        SASA(safety_block=0, fused_block=1).fit(text, requests(text, 12)).score(text, requests(text, 6, offset=90)) > 0
    )


def test_roles_give_the_blocks_or_say_why_not(llava: LVLM) -> None:
    from lvlm_lens.locate.roles import LayerRoles, Role

    def roles(perception: tuple[int, int], semantics: tuple[int, int], found: bool = True) -> LayerRoles:
        p, s = (
            Role(n, found, "below the null", range=r) for n, r in (("perception", perception), ("semantics", semantics))
        )
        return LayerRoles(p, s, Role("expression", False, "no"))

    fitted = SASA(roles=roles((0, 1), (1, 2))).fit(llava, requests(llava, 12))
    assert (fitted.safety_block_, fitted.fused_block_, fitted.chosen_by_) == (1, 2, "roles")
    with pytest.raises(UsageError, match="does not come before semantics"):
        SASA(roles=roles((2, 3), (1, 2))).fit(llava, requests(llava, 12))
    with pytest.raises(UsageError, match="not found"):
        SASA(roles=roles((0, 1), (1, 2), found=False)).fit(llava, requests(llava, 12))


def test_subset_keeps_groups_and_classes(llava: LVLM) -> None:
    samples = requests(llava, 60)
    for size in (2, 10, 24):
        rows = limited_rows(samples, size, 3)
        assert len(rows) == size
        assert {samples[i].harmful for i in rows} == {0, 1}
        assert len({samples[i].group for i in rows}) == size // 2


def test_every_control_has_a_meaning() -> None:
    for control in CONTROLS:
        assert replace(Cell(0, 1), control=control).control == control
