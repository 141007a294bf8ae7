"""The recipes' cards, verdicts, costs and command, without running any of them in earnest."""

from __future__ import annotations

import json
import math

import pytest

from lvlm_lens.cli import main
from lvlm_lens.data import Dataset, Sample
from lvlm_lens.errors import UsageError
from lvlm_lens.recipes import Effect, Outcome, Row, find_recipe, recipe_names, recipes
from lvlm_lens.recipes.check_recipe import check_card
from lvlm_lens.recipes.context import Material
from lvlm_lens.recipes.cost import ANSWER_TOKENS, TEXT_TOKENS
from lvlm_lens.recipes.page import recipe_page, summary_page
from lvlm_lens.recipes.recipe import RecipeResult, claim_verdict, paired_effect, same_model
from lvlm_lens.recipes.running import state_of

NAMES = [
    *("sasa", "safety-layers", "refusal-direction", "hiddendetect", "first-token", "xstest", "shiftdc"),
    "information-flow",
    *("siuo", "mssbench", "mmsafeaware", "ssui", "sia", "coca", "ecso", "adashield", "figstep", "mm-safetybench"),
    *("srpo", "msr-align", "rational", "safevlm", "hysac", "spa-vl", "vlguard"),
]


def test_every_paper_of_the_list_has_a_recipe():
    assert sorted(recipe_names()) == sorted(NAMES)
    assert [recipe.name for recipe in recipes()] == list(recipe_names())
    assert len({recipe.source for recipe in recipes()}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_card(name):
    check_card(find_recipe(name))


def test_names_forgive_case_and_hyphens():
    assert find_recipe("MM_SafetyBench").name == "mm-safetybench"
    assert find_recipe("safety layers").name == "safety-layers"
    with pytest.raises(UsageError, match="did you mean figstep"):
        find_recipe("figsteps")


# -- verdicts ------------------------------------------------------------------------------------


def effect(value, low, high, groups=20, **more):
    return Effect("x", value, low, high, groups, "points", **more)


@pytest.mark.parametrize(
    "effects, state",
    [
        ([effect(2, 1, 3)], "reproduced"),
        ([effect(2, -1, 5)], "not reproduced"),
        ([effect(-2, -3, -1)], "not reproduced"),
        ([effect(-2, -3, -1, expect="below")], "reproduced"),
        ([effect(2, 1, 3, bound=1.5)], "not reproduced"),
        ([effect(2, 1, 3), effect(2, -1, 3)], "not reproduced"),
        ([effect(2, 1, 3, groups=5)], "not comparable"),
        ([effect(2, math.nan, 3)], "not comparable"),
        ([effect(2, 1, 3), effect(2, 1, 3, groups=2)], "not comparable"),
        ([], "not comparable"),
    ],
)
def test_claim(effects, state):
    found = claim_verdict(Outcome([], effects))
    assert found.state == state and found.reason


def test_an_open_interval_and_a_contrary_one_are_told_apart():
    both = [effect(2, -1, 5), Effect("y", -2.0, -3.0, -1.0, 20, "points")]
    assert "x: open" in claim_verdict(Outcome([], both)).reason
    assert "y: on the other side" in claim_verdict(Outcome([], both)).reason


def test_a_claim_that_was_not_measured_says_why():
    found = claim_verdict(Outcome([], [effect(2, 1, 3)], not_measured="needs a judge"))
    assert (found.state, found.reason) == ("not comparable", "needs a judge")


def test_a_training_cut_short_tells_its_numbers_and_decides_nothing():
    whole, cut = (claim_verdict(Outcome([], [effect(2, 1, 3)], cut_short=few)) for few in ("", "4 of 300 steps"))
    assert (whole.state, cut.state) == ("reproduced", "not comparable")
    assert cut.reason == f"4 of 300 steps: {whole.reason}"


def test_caveats_stand_in_the_reason_and_change_no_state():
    plain, weak = (Outcome([], [effect(2, 1, 3)], caveats=said) for said in ((), ("one thing", "another")))
    assert claim_verdict(weak).state == claim_verdict(plain).state == "reproduced"
    assert claim_verdict(weak).reason == claim_verdict(plain).reason + "; but one thing; but another"


def test_paired_effect_is_the_mean_difference_over_groups():
    after, before = [1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]
    found = paired_effect("x", after, before, ["a", "a", "b", "c"])
    assert found.value == pytest.approx(50.0) and found.groups == 3 and not found.measured
    assert found.low <= found.value <= found.high


def material(stand_in=False, own=True, whole=True):
    return Material(Dataset([Sample("a", "words", label_joint="unsafe")]), "siuo", stand_in, own, whole)


def rows(safe, effective, both):
    values = {"safe": safe, "effective": effective, "safe and effective": both}
    return [Row(what, value, value - 2, value + 2, "%", 167) for what, value in values.items()]


@pytest.mark.parametrize(
    "model, given, judged, measured, state, said",
    [
        ("llava-1.5-7b-hf", material(), True, (21.0, 88.0, 17.0), "reproduced", "published 21.56"),
        ("llava-1.5-7b-hf", material(), True, (31.0, 88.0, 17.0), "not reproduced", "here 31"),
        ("llava-1.5-7b-hf", material(), False, (21.0, 88.0, 17.0), "not comparable", "judge"),
        ("llava-1.5-7b-hf", material(whole=False), True, (21.0, 88.0, 17.0), "not comparable", "limit"),
        ("llava-1.5-7b-hf", material(own=False), True, (21.0, 88.0, 17.0), "not comparable", "paper's data"),
        ("llava-1.5-7b-hf", material(True, False), True, (21.0, 88.0, 17.0), "not comparable", "stand-in"),
        ("mini", material(), True, (21.56, 87.43, 16.17), "not comparable", "not for mini"),
    ],
)
def test_numbers(model, given, judged, measured, state, said):
    found = find_recipe("siuo").numbers_verdict(model, given, Outcome(rows(*measured), [], scored_as_published=judged))
    assert found.state == state and said in found.reason


@pytest.mark.parametrize(
    "published, name, same",
    [
        ("LLaVA-1.5-7B", "llava-1.5-7b-hf", True),
        ("LLaVA-1.5-13B", "llava-1.5-7b-hf", False),
        ("LLaVA-1.6", "llava-v1.6-mistral-7b-hf", True),
        ("Qwen-VL", "Qwen2.5-VL-7B-Instruct", False),
        ("Qwen2.5-VL", "Qwen2.5-VL-7B-Instruct", True),
        ("Qwen-VL-Chat", "Qwen-VL-Chat", True),
        ("Gemma3-4B", "gemma-3-4b-it", True),
        ("GPT-4o", "mini", False),
        ("model not stated", "mini", False),
    ],
)
def test_same_model(published, name, same):
    assert same_model(published, name) is same


def test_the_page_cannot_be_broken_by_foreign_words():
    recipe = find_recipe("siuo")
    outcome = Outcome(rows(21.0, 88.0, 17.0), [effect(2, 1, 3)], notes=["<script>a|b</script>\nmore"])
    result = RecipeResult(
        recipe, "evil | <b>model", material(), outcome, claim_verdict(outcome),
        recipe.numbers_verdict("evil", material(), outcome),
    )  # fmt: skip
    found = {**result.to_dict(), "figures": ["comparison.png"]}
    page = recipe_page(found)
    assert "<script>" not in page and "<b>" not in page and "\\|" in page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "evil" not in summary_page([found], []) and "failed" in summary_page([], [{"name": "x", "error": "a|b"}])


# -- cost ----------------------------------------------------------------------------------------


def test_cost_counts_llava_7b_from_its_configuration():
    found = find_recipe("siuo").cost(tflops=50.0)
    d, inner, blocks, vocabulary = 4096, 11008, 32, 32064
    decoder = 2 * vocabulary * d + blocks * (4 * d * d + 3 * d * inner + 2 * d) + d
    assert 0.99 < (decoder + 0.32e9) / found["parameters"] < 1.01  # the tower and the projector hold 0.32 billion
    assert found["forwards"] == 3 * 167 and found["decoding_steps"] == 3 * 167 * ANSWER_TOKENS
    tower = 0.304e9 * 577
    flops = 2 * 3 * 167 * (decoder * (576 + TEXT_TOKENS + ANSWER_TOKENS) + tower)
    assert found["flops"] == pytest.approx(flops, rel=0.01)
    assert found["hours"] == pytest.approx(found["flops"] / 50e12 / 3600)


def test_dry_run_all_loads_no_model_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "all", "--dry-run", "--json", "--model", "no-such-model"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["recipe"] for row in found] == list(recipe_names()) and not list(tmp_path.iterdir())
    assert main(["reproduce", "information-flow", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "knockouts" in out and "TFLOP/s" in out


# -- the command's edges --------------------------------------------------------------------------


def test_list_tells_state_and_data(tmp_path, capsys):
    fixtures = tmp_path / "none"
    fixtures.mkdir()
    assert main(["reproduce", "--list", "--json", "--out", str(tmp_path / "run"), "--root", str(fixtures)]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(found) == set(NAMES) and all(row["state"] == "not run" for row in found.values())
    assert found["siuo"]["data"]["siuo"].startswith("missing siuo_gen.json")
    folder = tmp_path / "run" / "siuo"
    folder.mkdir(parents=True)
    (folder / "failed.json").write_text('{"name": "siuo", "error": "no pictures"}')
    assert state_of(tmp_path / "run", "siuo") == "failed: no pictures"
    (folder / "result.json").write_text("{")
    assert state_of(tmp_path / "run", "siuo").startswith("unreadable result.json")
    assert main(["reproduce", "--list", "--out", str(tmp_path / "run")]) == 0
    assert "safety-layers" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["ssiuo"], 2, "did you mean siuo"),
        ([], 2, "name a paper"),
        (["siuo", "--limit", "2"], 2, "at least 4"),
        (["siuo", "--dry-run", "--tflops", "0"], 2, "above 0"),
        (["siuo", "--max-new-tokens", "0"], 2, "at least 1"),
        (["siuo", "--model", "no-such-model"], 4, "no model"),
    ],
)
def test_bad_words(words, code, said, tmp_path, capsys):
    assert main(["reproduce", *words, "--quiet", "--out", str(tmp_path / "run")]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
