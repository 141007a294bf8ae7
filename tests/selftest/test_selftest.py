"""Constructed models: the weights hold the stated answer, and the study counts what it says it counts."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from lvlm_lens.cli import main
from lvlm_lens.config import SweepConfig
from lvlm_lens.errors import LensError, RunFolderError
from lvlm_lens.measures.registry import MEASURES
from lvlm_lens.measures.spec import Measured
from lvlm_lens.selftest import load_record, standing, trusted_measures
from lvlm_lens.selftest.constructed import build, written_directions
from lvlm_lens.selftest.items import draw_items
from lvlm_lens.selftest.plan import KINDS, SEPARATIONS, Plan, draw_plan
from lvlm_lens.selftest.study import TURNS, SelfTest, table, tabulate, untested
from lvlm_lens.selftest.trial import TESTED, Ordered, Outcome, Trial, locate, make_study, read, run_trial
from lvlm_lens.selftest.truths import asks, truth_of
from lvlm_lens.stats.auroc import auroc

EASY = Plan(
    seed=3, kind="all", depth=8, width=56, perceive=2, fuse=4, express=6, move_text=0, move_image=1, harm_from="text",
    separation=4.0, distractor=2.0, cue=None, gradual=False,
)  # fmt: skip


def changed(plan, **values):
    return Plan(**{**plan.to_dict(), **values})


@torch.inference_mode()
def last_states(model, items):
    """Block outputs at the last token from a plain transformers forward, ``[item, block, d]``."""
    encoded = model.encode(items)
    kept = []
    layers = model.model.model.language_model.layers
    hooks = [
        layer.register_forward_hook(lambda m, i, o: kept.append(o[0] if isinstance(o, tuple) else o))
        for layer in layers
    ]
    model.model(**encoded.inputs)
    for hook in hooks:
        hook.remove()
    last = torch.tensor([layout.last for layout in encoded.layouts])
    return torch.stack([state[torch.arange(len(items)), last] for state in kept], 1).numpy()


def best_direction(states, labels):
    """AUROC by block along the class-mean difference of one half of the pairs, measured on the other half."""
    half = np.arange(len(labels)) // 2 % 2 == 0
    out = []
    for block in range(states.shape[1]):
        train, test = states[half, block], states[~half, block]
        y = labels[half]
        pooled = np.cov(np.r_[train[y == 1] - train[y == 1].mean(0), train[y == 0] - train[y == 0].mean(0)].T)
        direction = np.linalg.solve(pooled + 0.05 * np.eye(len(pooled)), train[y == 1].mean(0) - train[y == 0].mean(0))
        out.append(auroc(test @ direction, labels[~half]))
    return np.array(out)


@pytest.mark.parametrize("harm_from", ["text", "image"])
def test_each_fact_is_readable_from_its_block_on_and_not_before(harm_from):
    plan = changed(EASY, harm_from=harm_from)
    items = draw_items(plan, 240)
    states = last_states(build(plan), items)
    harm = np.array([item.harmful for item in items])
    in_p = np.arange(len(items)) // 2 % 4 < 3  # pairs whose harm is in one modality
    danger, conjunction = best_direction(states[in_p], harm[in_p]), best_direction(states[~in_p], harm[~in_p])
    assert (danger[: plan.perceive] < 0.62).all() and (danger[plan.perceive :] > 0.9).all(), danger
    assert (conjunction[: plan.fuse] < 0.72).all() and (conjunction[plan.fuse :] > 0.85).all(), conjunction


def test_the_stated_separation_is_the_one_along_the_written_direction():
    plan = changed(EASY, separation=2.5, distractor=4.0, move_text=1, harm_from="image", gradual=True)
    items = draw_items(plan, 240)
    states = last_states(build(plan), items)
    harm = np.array([item.harmful for item in items])
    in_p = np.arange(len(items)) // 2 % 4 < 3
    for name, block, rows in (("p", plan.perceive, in_p), ("q", plan.fuse, ~in_p)):
        along = states[rows] @ written_directions(plan)[name]
        up, down = along[harm[rows] == 1], along[harm[rows] == 0]
        apart = (up.mean(0) - down.mean(0)) / np.sqrt((up.var(0) + down.var(0)) / 2)
        # an eighth, three quarters and all of it; the sampling error of a distance of 2.5 in 60 pairs is 0.25
        assert apart[block - 1] == pytest.approx(2.5 / 8, abs=0.6) and apart[-1] == pytest.approx(2.5, abs=0.6), name
        assert apart[block] == pytest.approx(2.5 * 0.75, abs=0.6) and abs(apart[block - 2]) < 0.45, (name, apart)


def test_the_refusal_token_rises_in_its_block_and_only_there():
    def lens(plan):
        items = draw_items(plan, 80)
        model = build(plan)
        states = last_states(model, items)
        logits = model.anatomy.lens(torch.from_numpy(states)).detach().numpy()
        word = model.tokenizer.convert_tokens_to_ids("Sorry"), model.tokenizer.convert_tokens_to_ids("Sure")
        values = logits[:, :, word[0]] - logits[:, :, word[1]]
        return auroc(values, np.array([item.harmful for item in items]))

    says = lens(EASY)
    assert (np.abs(says[: EASY.express] - 0.5) < 0.12).all() and (says[EASY.express :] > 0.9).all(), says
    silent = lens(changed(EASY, express=None, kind="no_expression"))
    assert (np.abs(silent - 0.5) < 0.12).all(), silent


@pytest.mark.parametrize("cue", [False, True])
@pytest.mark.parametrize("separation", SEPARATIONS)
def test_the_population_curve_passes_half_of_its_height_where_the_plan_says(separation, cue):
    # The best linear reading of (p + noise, q + noise, cue), with the shares that a gradual write leaves.
    rng = np.random.default_rng(0)
    n = 40_000
    in_p = rng.random(n) < 0.75
    y = np.r_[np.ones(n), np.zeros(n)].astype(int)
    p, q = np.r_[np.where(in_p, 1, -1), -np.ones(n)], np.r_[np.where(in_p, -1, 1), -np.ones(n)]
    spurious = np.where(rng.random(2 * n) < 0.7, 1, -1) * (2 * y - 1) * cue + 0.05 * rng.standard_normal(2 * n)
    noise = rng.standard_normal((2, 2 * n))

    def height(share_p, share_q):
        x = np.c_[share_p * separation / 2 * p + noise[0], share_q * separation / 2 * q + noise[1], spurious]
        within = np.cov(x[y == 1].T) + np.cov(x[y == 0].T)
        return auroc(x @ np.linalg.solve(within, x[y == 1].mean(0) - x[y == 0].mean(0)), y)

    floor, top = height(0, 0), height(1, 1)
    before = [height(0, 0), height(0.125, 0), height(0, 1), height(0.125, 1)]
    after = [height(0.75, 0), height(1, 0), height(0.75, 1)]
    assert max(before) < floor + 0.45 * (top - floor) and min(after) > floor + 0.55 * (top - floor)
    if not cue:  # the closed form of one direction
        q_only = 0.75 * 0.5 + 0.25 * norm.cdf(separation / np.sqrt(2))
        assert height(0, 1) == pytest.approx(q_only, abs=0.01)


def test_items_differ_in_one_bit_and_say_what_they_are():
    items = draw_items(EASY, 40)
    assert [item.id for item in items[:40]] == [item.id for item in draw_items(EASY, 20)]
    assert all(a.text == b.text for a, b in zip(items[:40], draw_items(EASY, 20), strict=True))
    for harmful, harmless in zip(items[::2], items[1::2], strict=True):
        assert harmful.group == harmless.group and (harmful.harmful, harmless.harmful) == (1, 0)
        assert harmless.quadrant == "SSS" and harmful.quadrant in ("SUU", "SSU")
        bits = [
            [w[: w.index(v)] + v for w in item.text.split() for v in ("yes", "no") if v in w]
            for item in (harmful, harmless)
        ]
        assert sum(a != b for a, b in zip(*bits, strict=True)) <= 1  # in the words, else in the picture
        if harmful.quadrant == "SSU":
            assert harmful.concepts["joint"] != harmless.concepts["joint"]
    words = [item.text.split() for item in items]
    slots = [[at for at, word in enumerate(row) if not word.startswith("filler")] for row in words]
    assert all(np.diff(row).min() > 1 for row in slots)  # no two bits side by side


def test_plans_cover_kinds_and_keep_their_order():
    study = SelfTest(len(TURNS), seed=5)
    assert {study.plan(number).kind for number in range(study.models)} == set(KINDS)
    for seed in range(200):
        plan = draw_plan(seed)
        facts = [block for block in (plan.perceive, plan.fuse) if block is not None]
        assert all(max(plan.move_text, plan.move_image) < block for block in facts)
        if plan.express is not None:
            assert max(facts) < plan.express < plan.depth
        if plan.gap is not None:
            assert (plan.gap < 0, plan.gap == 0) == (plan.kind == "reversed", plan.kind == "tied")
    assert draw_plan(7, "all", gap=2).gap == 2


def test_an_easy_model_is_located_and_an_empty_one_is_not():
    found = {o.measure: o for o in run_trial(EASY, (120,)).outcomes}
    asked = [name for name in TESTED if asks(MEASURES[name].planted, EASY)]
    assert set(found) == {*asked, "refusal_lens_centred"} and "perceived_not_said" not in found
    # not all: the record says which of them miss their targets on many models
    for name, block in (("linear_probe", 2), ("joint_probe", 4), ("lens_log_odds", 6), ("mean_difference", 2),
                        ("concept_probe", 4), ("refusal_lens", 6), ("trajectory", 6), ("tuned_lens", 2)):  # fmt: skip
        assert found[name].truth == block and found[name].found and abs(found[name].onset - block) <= 1, found[name]
    nothing = changed(EASY, kind="nothing", perceive=None, fuse=None, express=None, cue="text")
    trial = run_trial(nothing, (60,))
    assert {o.measure for o in trial.outcomes} == {*TESTED, "refusal_lens_centred"}
    assert not any(o.found or o.truth is not None for o in trial.outcomes), trial.outcomes
    assert Trial.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial


def test_the_registered_measures_are_run_with_what_a_sweep_has_by_default(monkeypatch):
    """The study that a trial asks is a sweep's: the same settings, and the registry's own functions."""
    settings = SweepConfig()
    part = read(EASY, 40)
    study = make_study(part, locate(part))
    for name in ("positions", "folds", "permutations", "replicates", "batch_size"):
        assert getattr(study, name) == getattr(settings, name), name
    curve = study.located.curves["perception"]
    assert curve.replicates.shape[0] == settings.replicates and len(curve.null_draws) == settings.permutations
    assert set(study.located.roles.perception.missing) == set()
    stranger = replace(MEASURES["mean_difference"], compute=lambda study: Measured(study.located.curves["expression"]))
    monkeypatch.setitem(MEASURES, "mean_difference", stranger)
    (outcome,) = run_trial(EASY, (60,), ["mean_difference"]).outcomes
    assert outcome.onset == EASY.express and outcome.truth == EASY.perceive


def test_every_registered_measure_is_tested_or_says_why_not():
    assert set(TESTED) | set(untested()) == set(MEASURES) and not set(TESTED) & set(untested())
    for name, spec in MEASURES.items():
        assert bool(spec.planted) != bool(spec.untested), name
    assert all(len(why.split()) > 5 for why in untested().values())
    assert truth_of("refused danger", changed(EASY, express=None)) is None and truth_of("refused danger", EASY) == 2
    assert untested(["linear_probe"])["joint_probe"] == "not asked"


def test_trials_are_kept_and_continued(tmp_path, monkeypatch):
    study = SelfTest(2, (30, 20), 7, tmp_path, ("linear_probe", "lens_log_odds"))
    study.claim()
    assert study.pairs == (20, 30) and study.finished() == set()
    second = study.trial(1)
    assert study.finished() == {1} and {o.pairs for o in second.outcomes} == {20, 30}
    monkeypatch.setattr("lvlm_lens.selftest.study.run_trial", None)  # what is there is not run again
    again = SelfTest(5, (20, 30), 7, tmp_path, ("linear_probe", "lens_log_odds"))  # more models continue
    again.claim()
    assert again.trial(1) == second and again.finished() == {1}
    with pytest.raises(RunFolderError, match="seed"):
        SelfTest(2, (20, 30), 8, tmp_path, ("linear_probe", "lens_log_odds")).claim()
    with monkeypatch.context() as other, pytest.raises(RunFolderError, match="code"):  # trials of other code
        other.setattr("lvlm_lens.selftest.study.CERTIFIED", ("measures",))
        again.claim()
    (tmp_path / "trials" / "0001.safetensors").write_bytes(b"half a file")
    with pytest.raises(LensError, match="0001"):
        study.trial(1)


def test_tabulation_counts_by_hand():
    def one(truth, onset, low=None, high=None):
        return Outcome("m", 50, truth, onset is not None, onset, low, high)

    rows = [one(3, 3, 3, 3), one(3, 4, 4, 5), one(3, 6, 5, 7), one(3, None), one(None, 2, 2, 2), one(None, None)]
    order = [
        Ordered(50, 2, "perception", True),
        Ordered(50, 2, None, False),
        Ordered(50, 0, None, True),
        Ordered(50, -1, "perception", True),
        Ordered(50, 4, "perception", True),
    ]
    result = tabulate([Trial(EASY, tuple(rows), tuple(order))], [50])
    row = result["measures"][0]
    assert (row["within_one_block"]["count"], row["within_one_block"]["n"]) == (2, 4)
    assert (row["inside"]["count"], row["inside"]["n"]) == (1, 3)
    assert row["error"] == pytest.approx(4 / 3) and row["width"] == pytest.approx(1.0)
    assert (row["false_alarms"]["count"], row["false_alarms"]["n"]) == (1, 2)
    assert result["standing"] == {"m": "missed", "order_test": "missed"}
    order_row = result["order_test"][0]
    assert [order_row[k]["value"] for k in ("level", "power_gap_2", "power_wider_gap")] == [0.5, 0.5, 1.0]
    text = table({**result, "models": 1, "seed": 0, "seconds": 0.0, "untested": {"n": "nothing to find"}})
    assert "MISSED: within one block, inside, false alarms" in text
    assert text.splitlines()[-1].split() == ["n", "nothing", "to", "find"]
    good = tabulate([Trial(EASY, (one(3, 3, 3, 3), one(None, None)), ())], [50])
    assert good["standing"] == {"m": "reached", "order_test": "untested"}


def test_the_record_says_where_each_measure_stands():
    record = load_record()
    assert record["models"] >= 40 and 200 in record["pairs"] and record["seed"] >= 1
    assert tabulate_again(record) == record["standing"]
    settings = SweepConfig()
    assert {key: record[key] for key in ("folds", "permutations", "replicates")} == {
        "folds": settings.folds, "permutations": settings.permutations, "replicates": settings.replicates,
    }  # fmt: skip
    variants = {name for spec in MEASURES.values() for name in spec.variants}
    assert set(record["standing"]) == {*TESTED, *variants, "order_test"}
    assert record["untested"] == untested()
    assert standing("perception") == standing("linear_probe") == record["standing"]["linear_probe"]
    assert standing("no such measure") == "untested"
    assert all(standing(name) == "reached" for name in trusted_measures())


def tabulate_again(record):
    """Standing recomputed from the recorded rows."""
    out = {}
    for row in [*record["measures"], *({"measure": "order_test", **row} for row in record["order_test"])]:
        if row["pairs"] == max(record["pairs"]):
            targets = row["targets"].values()
            out[row["measure"]] = "missed" if False in targets else "reached" if None not in targets else "untested"
    return out


def test_the_command_prints_and_writes(tmp_path, capsys):
    out = tmp_path / "study.json"
    words = ["selftest", "--models", "1", "--pairs", "40", "--seed", "7", "--out", str(out), "--quiet", "--json"]
    assert main(words) == 0
    printed, written = json.loads(capsys.readouterr().out), json.loads(out.read_text())
    assert printed["measures"] == written["measures"] and len(printed["trials"]) == 1 and "trials" not in written
    assert main(["selftest", "--pairs", "ten", "--quiet"]) == 2
    assert "--pairs" in capsys.readouterr().err
