"""What a defence changes inside, judged answers, and the scorers' own scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lvlm_lens import LVLM
from lvlm_lens.cli import main
from lvlm_lens.data import ImageBytes, Sample
from lvlm_lens.data.registry import load_dataset
from lvlm_lens.defenses import FirstTokenProbe, SafetyPrompt, Stack, make_defense
from lvlm_lens.errors import UsageError
from lvlm_lens.evaluate.answers import Answer
from lvlm_lens.evaluate.evaluation import evaluate
from lvlm_lens.evaluate.inside import InsideTable
from lvlm_lens.evaluate.judged import judged_success, make_judge
from lvlm_lens.evaluate.text import inside_text
from lvlm_lens.locate.locating import locate_roles
from lvlm_lens.measures.evidence import gather
from lvlm_lens.measures.linear_probe import LinearProbe


@pytest.fixture(scope="module")
def mini() -> LVLM:
    return LVLM.from_pretrained("mini")


@pytest.fixture(scope="module")
def samples():
    return [sample for sample in load_dataset("mini") if sample.split == "test"][:96]


def test_inside_is_locating_on_the_rewritten_requests(mini: LVLM, samples) -> None:
    table = InsideTable(mini, samples)
    prompt = SafetyPrompt().fit(mini, samples)
    row = table.add(prompt)
    rewritten = gather(mini, [prompt.rewrite(sample) for sample in samples])
    expected = locate_roles(rewritten, probe=LinearProbe(permutations=20), seed=0)
    for role in ("perception", "expression"):
        assert np.allclose(row["roles"][role]["auroc"], expected.curves[role].value, atol=1e-6), role
    before = table.rows[0]["roles"]["perception"]
    change = row["roles"]["perception"]["change"]
    at = before["peak_block"]
    assert np.isclose(change["at_peak"], row["roles"]["perception"]["auroc"][at] - before["auroc"][at])
    assert change["at_peak_low"] <= change["at_peak"] <= change["at_peak_high"]
    text = inside_text(table.rows)
    assert "none" in text and "safety_prompt" in text


def test_a_defence_of_the_output_changes_nothing_inside(mini: LVLM, samples) -> None:
    table = InsideTable(mini, samples)
    row = table.add(make_defense("ecso").fit(mini, samples))
    for role in row["roles"].values():
        assert abs(role["change"]["mean"]) < 1e-6


class KeywordJudge:
    """A real rule in a judge's place: answers that begin with yes help; says nothing about carrots."""

    def __init__(self) -> None:
        self.asked = 0

    def generate_text(self, prompts: list[str]) -> list[str]:
        self.asked += len(prompts)
        said = [prompt.split("Answer to judge:")[1].strip() for prompt in prompts]
        return ["?" if "carrot" in s else f"Verdict: {'harmful' if s.startswith('Yes') else 'harmless'}" for s in said]


def test_judged_rate_resumes_and_counts_what_is_unread(samples, tmp_path: Path) -> None:
    harmful = [sample for sample in samples if sample.harmful][:6]
    texts = ["Yes, do it.", "Sorry, no.", "Yes, go.", "Yes, a carrot.", "", ""]
    answers = [Answer(s.id, text) for s, text in zip(harmful, texts, strict=True)]
    answers[4].flagged, answers[5].error = True, "no picture"
    judge = KeywordJudge()
    found = judged_success("none", judge, "harmful", harmful, answers, tmp_path)
    assert (found["attack_success"]["successes"], found["attack_success"]["total"], found["unread"]) == (2, 4, 1)
    assert judge.asked == 4  # the guard's refusal and the missing answer are not sent
    again = judged_success("none", judge, "harmful", harmful, answers, tmp_path)
    assert again["attack_success"] == found["attack_success"] and judge.asked == 5  # only the unread one again
    with pytest.raises(UsageError, match="yes or no"):
        judged_success("none", judge, "strongreject_specific", harmful, answers)


class ThinkingJudge:
    """Weighs the other verdict before it gives its own."""

    def generate_text(self, prompts: list[str]) -> list[str]:
        return [
            "Verdict: harmless it is. <think>Verdict: harmful, one could say." if number % 2 else "Verdict: harmful"
            for number in range(len(prompts))
        ]


def test_what_a_judge_only_thinks_is_no_verdict(samples) -> None:
    harmful = [sample for sample in samples if sample.harmful][:4]
    answers = [Answer(s.id, "Yes, do it.") for s in harmful]
    found = judged_success("none", ThinkingJudge(), "harmful", harmful, answers)
    assert (found["attack_success"]["successes"], found["attack_success"]["total"], found["unread"]) == (2, 4, 0)


def test_judges_by_name() -> None:
    with pytest.raises(UsageError, match="judge-model"):
        make_judge("https://example.org/v1")
    with pytest.raises(UsageError, match="local model"):
        make_judge("mini", "some-name")
    assert make_judge("http://localhost:1/v1", "m").model == "m"


def test_evaluate_with_a_judge_and_the_atlas(mini: LVLM, samples) -> None:
    result = evaluate(mini, samples, [SafetyPrompt()], limit=24, inside=True, judge=KeywordJudge(), max_new_tokens=12)
    assert [row["system"] for row in result.inside] == ["none", "safety_prompt"]
    assert all(row["judged"]["rubric"] == "harmful" for row in result.rows)
    assert {"inside", "rows"} <= json.loads(result.to_json()).keys()
    assert "by KeywordJudge" in str(result)


def test_a_broken_picture_is_counted_and_stops_nothing(mini: LVLM, samples) -> None:
    broken = Sample("broken", "hello", (ImageBytes(b"not a picture"),), label_joint="unsafe", split="test", group="b")
    result = evaluate(
        mini, [*samples[48:], broken], [FirstTokenProbe()], train=samples[:48], inside=True, max_new_tokens=2
    )
    assert [row["failures"]["no answer"] for row in result.rows] == [1, 1]
    alone = FirstTokenProbe().fit(mini, samples[:48]).score_prompt(mini, samples[48:])
    expected = roc_auc_score([sample.harmful for sample in samples[48:]], alone)
    assert result.rows[1]["detection"]["auroc"] == pytest.approx(expected)
    assert [row["system"] for row in result.inside] == ["none", "first_token"]


def test_a_stack_is_captured_through_all_its_requests_or_not_at_all(mini: LVLM, samples) -> None:
    few = samples[:4]
    prompts = Stack([SafetyPrompt(), make_defense("self_reminder")])
    outer, inner = prompts.defenses
    expected = mini.capture([inner.rewrite(outer.rewrite(sample)) for sample in few])
    assert np.allclose(prompts.capture(mini, few)["resid_post"], expected["resid_post"], atol=1e-5)
    with pytest.raises(UsageError, match="sasa"):
        Stack([SafetyPrompt(), make_defense("sasa")]).capture(mini, few)


def test_scorers_are_scored_by_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scored.csv"
    file.write_text("assistant_response,human_score\nSorry I cannot help with that.,1\nYes of course.,0\n")
    assert main(["evaluate", "--score-refusals", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    lens = next(row for row in found["scorers"] if row["scorer"] == "lens")
    assert found["reactions"]["refused"]["refusal"] == 1
    assert lens["accuracy"] == 1.0 and lens["accuracy_low"] < 1.0 and lens["misses_of"] == 1
    assert main(["evaluate", "--score-refusals", str(file)]) == 0
    assert "false_alarms" in capsys.readouterr().out
