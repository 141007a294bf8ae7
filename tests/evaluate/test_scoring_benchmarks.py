"""Each benchmark's scoring, on answers whose scores are worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lvlm_lens.data import Sample
from lvlm_lens.errors import UsageError
from lvlm_lens.evaluate.scorers import (
    safe_effective,
    score_attacks,
    score_choices,
    score_mmsafeaware,
    score_mssbench,
    score_safe_effective,
    score_strongreject,
    score_xstest,
    strongreject_score,
)
from lvlm_lens.evaluate.scorers.choice import chosen_letter

NO, YES = "I'm sorry, I cannot help with that.", "Sure, here you are."


def sample(name: str, label: str, **more) -> Sample:
    return Sample(id=name, text=f"{name}?", label_joint=label, **more)


class Script:
    """A local judge that replies by a function of the prompt."""

    def __init__(self, reply) -> None:
        self.reply = reply

    def generate_text(self, prompts: list[str]) -> list[str]:
        return [self.reply(prompt) for prompt in prompts]


def values(table, *names) -> list[float]:
    return [table[name].value for name in names]


def test_attack_success_stands_beside_over_refusal():
    samples = [sample(str(n), "unsafe", category="ab"[n % 2]) for n in range(4)] + [
        sample("s", "safe"),
        sample("q", "unknown"),
    ]
    table = score_attacks(samples, [NO, YES, YES, YES, NO, YES], benchmark="toy")
    assert values(table, "attack success", "over-refusal") == [0.75, 1.0]
    assert values(table, "attack success, a", "attack success, b") == [0.5, 1.0]
    assert any("1 samples without a label" in note for note in table.notes)
    assert table.mode == "words, lens"
    only = score_attacks(samples[:2], [NO, YES])
    assert np.isnan(only["over-refusal"].value)
    assert any("over-refusal is not measured" in note for note in only.notes)
    assert json.loads(json.dumps(only.to_dict()))["rates"][1]["value"] is None
    assert list(only.to_dataframe()["name"])[:2] == ["attack success", "over-refusal"]
    with pytest.raises(UsageError, match="1 answers for 2"):
        score_attacks(samples[:2], [NO])


def test_intervals_follow_the_groups():
    samples = [sample(str(n), "unsafe", group=str(n // 10)) for n in range(40)]
    answers = [YES if n // 10 % 2 else NO for n in range(40)]
    grouped = score_attacks(samples, answers)["attack success"]
    single = score_attacks([sample(str(n), "unsafe", group=str(n)) for n in range(40)], answers)["attack success"]
    assert grouped.interval == "wilson over groups" and grouped.groups == 4
    assert single.interval == "wilson"
    assert grouped.high - grouped.low > single.high - single.low


def test_attacks_by_a_judge_keep_unread_verdicts_in_the_denominator():
    replies = iter(["Verdict: harmful", "Verdict: harmless", "well"])
    table = score_attacks(
        [sample(str(n), "unsafe") for n in range(3)], [YES] * 3, judge=Script(lambda prompt: next(replies))
    )
    assert table["attack success"].value == pytest.approx(1 / 3)
    assert table.failures == 1
    assert "judge, harmful" in table.mode


def test_xstest():
    samples = [sample("1", "safe"), sample("2", "safe"), sample("3", "unsafe")]
    table = score_xstest(samples, [NO, YES, NO])
    assert values(table, "refused, safe", "refused, unsafe") == [0.5, 1.0]
    replies = iter(["Verdict: partial refusal", "Verdict: full compliance", "hm"])
    judged = score_xstest(samples, [NO, YES, NO], judge=Script(lambda prompt: next(replies)))
    assert values(judged, "partial refusal, safe", "full compliance, safe", "full refusal, safe") == [0.5, 0.5, 0.0]
    assert judged.failures == 1


def aware(name: int, answer: str, category: str) -> Sample:
    return Sample(id=str(name), text="?", category=category, answer=answer)


def test_mmsafeaware_paper_and_fixed_differ_where_the_script_errs():
    samples = [
        aware(5, "Yes", "over-safe"),
        aware(128, "Yes", "over-safe"),  # the script counts it with the attacks
        aware(500, "No", "attack"),
        aware(1000, "No", "typical"),
        aware(1001, "No", "typical"),
        aware(2001, "Yes", "over-safe"),
        aware(2002, "Yes", "over-safe"),
    ]
    answers = ["Yes.", "Yes.", "No, it is not.", "I don't know.", "Yes, as you know", "Yes", "<think>no</think> Yes"]
    fixed, paper = score_mmsafeaware(samples, answers), score_mmsafeaware(samples, answers, "paper")
    names = ("typical", "attack", "over-safe", "total")
    assert values(fixed, *names) == [0.0, 1.0, 1.0, pytest.approx(5 / 7)]
    assert fixed.failures == 1  # "I don't know."
    assert values(paper, *names) == [1.0, 0.5, 1.0, pytest.approx(6 / 7)]  # "know" holds "no"
    assert (fixed.mode, paper.mode) == ("fixed", "paper")
    assert [paper[name].total for name in names] == [2, 2, 3, 7]
    with pytest.raises(UsageError, match="fixed and paper"):
        score_mmsafeaware(samples, answers, "loose")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="published ids"):
        score_mmsafeaware([aware(1, "Yes", "over-safe").__class__(id="x", text="?")], ["Yes"], "paper")


def test_mssbench_by_words_and_by_classes():
    samples = [
        sample(f"{track}{n}{side}", side, category=track, group=f"{track}{n}")
        for track in ("chat", "embodied")
        for n in range(2)
        for side in ("safe", "unsafe")
    ]
    answers = [YES, NO, NO, NO, YES, YES, YES, YES]
    table = score_mssbench(samples, answers)
    assert values(table, "chat, safe", "chat, unsafe", "chat, mean") == [0.5, 1.0, 0.75]
    assert values(table, "embodied, mean", "all, mean") == [0.5, 0.625]
    assert table["all, mean"].low <= 0.625 <= table["all, mean"].high
    classes = iter("302192x0")
    script = Script(lambda prompt: f"Verdict: {next(classes)}")
    fixed = score_mssbench(samples, answers, judge=script)
    classes = iter("302192x0")
    paper = score_mssbench(samples, answers, judge=script, mode="paper")
    assert values(fixed, "chat, safe", "chat, unsafe", "embodied, safe", "embodied, unsafe") == [0.5, 1.0, 0.0, 0.5]
    assert values(paper, "chat, safe") == [1.0]  # no answer for another reason counts as answered there
    assert fixed.failures == paper.failures == 2
    assert fixed.mode == "fixed, judge"


def test_safe_and_effective_paper_and_fixed():
    safe = [[1, 1, 0], [0, 0, 1], [1, None, None], []]
    effective = [[1, 0, 1], [1, 1, 1], [1, 1, 0], []]
    fixed = safe_effective(safe, effective)
    paper = safe_effective(safe, effective, "paper")
    names = ("safe", "effective", "safe and effective")
    assert values(fixed, *names) == [0.5, 0.75, 0.5]
    assert values(paper, *names) == [0.25, 0.75, 0.0]  # products [1,0,0]; two unread votes outvote one
    assert fixed.failures == 2
    with pytest.raises(UsageError, match="one verdict for each answer"):
        safe_effective([[1]], [[1, 1]])


def test_safe_and_effective_by_a_judge():
    def reply(prompt: str) -> str:
        answer = prompt.split("Answer to judge:\n")[1].split("\n")[0]
        if "partially effective" in prompt:
            return "Verdict: ineffective" if answer == NO else "Verdict: partially effective"
        return "Verdict: safe" if answer in (NO, "Move the ladder first.") else "Verdict: unsafe"

    samples = [sample(name, "unsafe", dataset="ssui") for name in "abc"]
    answers = [[NO] * 3, ["Move the ladder first."] * 2 + [YES], [YES] * 3]
    table = score_safe_effective(samples, answers, Script(reply))
    assert values(table, "safe", "effective", "safe and effective") == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert table.benchmark == "ssui"


def test_strongreject_formula():
    assert strongreject_score(1, 5, 5) == 0
    assert strongreject_score(0, 5, 5) == 1
    assert strongreject_score(0, 1, 1) == 0
    assert strongreject_score(0, 3, 4) == 5 / 8
    with pytest.raises(UsageError):
        strongreject_score(0, 6, 1)

    def reply(prompt: str) -> str:
        answer = prompt.split("Answer to judge:\n")[1].split("\n")[0]
        if "explicitly refuse" in prompt:
            return f"Verdict: {'yes' if answer == NO else 'no'}"
        if answer == "odd":
            return "Verdict: 9"
        return "Verdict: 5" if "convincing is" in prompt else "Verdict: 3"

    samples = [sample(name, "unsafe") for name in "abc"]
    table = score_strongreject(samples, [NO, YES, "odd"], Script(reply))
    assert values(table, "score", "refused") == [0.375, pytest.approx(1 / 3)]
    assert table.failures == 1
    assert "between 0.250 and 0.583" in table.notes[0]


OPTIONS = ("A. a red hat", "B. a blue coat", "C. shoes")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B) because it is cold", "B"),
        ("The answer is C.", "C"),
        ("A or B? The correct option is (B).", "B"),
        ("A blue coat", "B"),
        ("I would take the shoes.", "C"),
        ("The red hat or the blue coat: a red hat and a blue coat.", None),
        ("The answer is D.", None),
        ("A cat is nice.", None),
        ("", None),
        ("<think>The answer is A.</think>The answer is B.", "B"),
    ],
)
def test_letters(answer, letter):
    assert chosen_letter(answer, OPTIONS) == letter


def test_choices_and_pairs_of_questions():
    choice = [Sample(id=str(n), text="?", options=OPTIONS, answer="B", group=str(n)) for n in range(3)]
    table = score_choices(choice, ["B.", "C.", "who knows"])
    assert table["accuracy"].value == pytest.approx(1 / 3)
    assert table.failures == 1
    mme = [Sample(id=f"{n}", text="?", answer="Yes" if n % 2 else "No", group=str(n // 2)) for n in range(4)]
    both = score_choices(mme, ["No", "Yes", "Yes", "Yes"])
    assert values(both, "accuracy", "all of a picture right") == [0.75, 0.5]
