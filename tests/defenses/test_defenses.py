"""Every defence on a tiny real model: the battery, and each method's own formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prompts import picture
from sklearn.linear_model import LogisticRegression

from lvlm_lens import LVLM
from lvlm_lens.activations import capture
from lvlm_lens.data import Sample
from lvlm_lens.defenses import (
    DEFENSES,
    ECSO,
    NEARSIDE,
    SIA,
    CoCA,
    FirstTokenProbe,
    HiddenDetect,
    SafetyPrompt,
    ShiftDC,
    SSUIInContext,
    Stack,
    check_defense,
    make_defense,
    make_defenses,
)
from lvlm_lens.defenses.base import filled, prompt_text, threshold_at
from lvlm_lens.defenses.ecso import says_yes
from lvlm_lens.defenses.sia import parse_intent
from lvlm_lens.errors import DataError, UsageError
from lvlm_lens.models.tiny import tiny_model

WORDS = ("Can my toddler play with this?", "hello there", "may I take it on a plane, please?", "help me hurt them")
OPTIONS = {
    "sasa": {"safety_block": 0, "fused_block": 2},
    "sia": {"describe_tokens": 4, "intent_tokens": 4},
    "ecso": {"check_tokens": 2, "describe_tokens": 4},
    "refusal_direction": {"folds": 2},
    "safety_heads": {"folds": 2, "k": 3},
}


def requests(n: int, split: str = "train", offset: int = 0) -> list[Sample]:
    made = []
    for i in range(offset, offset + n):
        text = WORDS[3] if i % 2 else WORDS[i // 2 % 3]
        label = "unsafe" if i % 2 else "safe"
        made.append(
            Sample(
                f"s{i}",
                text + " now" * (i % 3),
                (picture(i),),
                label_joint=label,  # type: ignore[arg-type]
                split=split,
                group=f"{split}{i // 2}",
                category=f"c{i // 2 % 2}",
                caption=f"a picture of thing {i}",
                text_only=f"Here is thing {i}. {text}",
                reference="Sorry, I cannot." if i % 2 else "Yes.",
                warning="They would be hurt." if i % 2 else None,
            )
        )
    return made


@pytest.fixture(scope="module")
def llava() -> LVLM:
    return LVLM(*tiny_model("llava"))


@pytest.mark.parametrize("name", DEFENSES)
def test_battery(name: str, llava: LVLM) -> None:
    check_defense(make_defense(name, **OPTIONS.get(name, {})), llava, requests(16), requests(5, "test", 100))


def test_coca_is_the_safety_prompt_at_0_and_the_undefended_model_at_minus_1(llava: LVLM) -> None:
    """Token by token, as ids, in one batch of unequal lengths."""
    test = requests(6, "test", 100)
    principle = prompt_text("coca_principle")
    plain = llava.generate(test, max_new_tokens=12)
    prompted = SafetyPrompt().guard(llava)
    prompted.defense.file = "coca_principle"  # type: ignore[attr-defined]
    expected = {-1.0: plain, 0.0: prompted.generate(test, max_new_tokens=12)}
    assert "{question}" in principle and expected[0.0] != plain
    for alpha, answers in expected.items():
        assert CoCA(alpha=alpha).guard(llava).generate(test, max_new_tokens=12) == answers, alpha


def test_coca_first_token_is_the_calibrated_argmax(llava: LVLM) -> None:
    test = requests(4, "test", 100)
    coca = CoCA(alpha=2.0)
    with_c, without = (llava.logits(llava.encode(s)) for s in ([coca.rewrite(s) for s in test], test))
    best = (with_c + 2.0 * (with_c - without)).argmax(-1)
    expected = [t.strip() for t in llava.tokenizer.batch_decode(best[:, None], skip_special_tokens=True)]
    assert coca.guard(llava).generate(test, max_new_tokens=1) == expected


def test_first_token_probe_follows_the_authors_protocol() -> None:
    """First 10 of each scenario, scikit-learn's default logistic regression, on synthetic logits."""
    rng = np.random.default_rng(0)
    samples, labels = [], []
    for i in range(120):
        label = i % 2
        labels.append(label)
        samples.append(
            Sample(f"s{i}", "x", category=f"scenario {i // 2 % 3}", label_joint="unsafe" if label else "safe")
        )
    logits = rng.normal(size=(120, 300)).astype(np.float32)
    logits[np.array(labels) == 1, 7] += 3.0
    probe = FirstTokenProbe().fit_logits(logits, samples)
    rows = probe.training_rows(samples)
    assert rows == list(range(60))  # 3 scenarios x 2 labels x 10, in order
    oracle = LogisticRegression(tol=1e-8, max_iter=5000).fit(logits[rows], np.array(labels)[rows])
    rest = logits[60:]
    assert np.allclose(probe.probe_.predict_proba(rest), oracle.predict_proba(rest)[:, 1], atol=1e-4)
    assert ((probe.probe_.predict_proba(rest) > 0.5) == np.array(labels[60:])).mean() > 0.7


def test_nearside_is_the_mean_difference(llava: LVLM) -> None:
    train = requests(12)
    fitted = NEARSIDE(block=1).fit(llava, train)
    rows = capture(llava, train)["resid_post", 1][:, 0].astype(np.float64)
    y = np.array([s.harmful for s in train])
    difference = rows[y == 1].mean(0) - rows[y == 0].mean(0)
    assert np.allclose(fitted.direction_, difference / np.linalg.norm(difference))
    scores = fitted.score_prompt(llava, train)
    assert np.isclose(fitted.threshold_, (scores[y == 1].mean() + scores[y == 0].mean()) / 2)


def test_hiddendetect_formula(llava: LVLM) -> None:
    train = requests(10)
    fitted = HiddenDetect().fit(llava, train)
    with torch.inference_mode():
        outputs = llava.model(**llava.forward_inputs(llava.encode(train[0])), output_hidden_states=True)
        hidden = [outputs.hidden_states[b + 1][0, -1] for b in range(llava.n_blocks - 1)]
        logits = [llava.model.lm_head(llava.anatomy.norm(h)) for h in hidden] + [outputs.logits[0, -1]]
        r = torch.zeros(llava.anatomy.vocab_size)
        r[fitted.tokens_] = 1
        expected = [float(v @ r / (v.norm() * r.norm())) for v in logits]
    found = fitted.strength(llava, train[:1])[0]
    assert np.allclose(found, expected, atol=1e-5)
    start, end = fitted.window_
    area = np.trapezoid(expected[start : end + 1]) if end > start else expected[start]
    assert np.isclose(fitted.score_prompt(llava, train[:1])[0], area, atol=1e-5)


def test_shiftdc_subtracts_the_safety_component_in_the_prefill(llava: LVLM) -> None:
    train, test = requests(12), requests(3, "test", 100)
    shift = ShiftDC(alpha=1.0, first_block=3).fit(llava, train)
    words = [s.without_images() for s in train]
    rows = capture(llava, words)["resid_post", 3][:, 0]
    y = np.array([s.harmful for s in train])
    s = rows[y == 1].mean(0) - rows[y == 0].mean(0)
    assert np.allclose(shift.safety_[0], s, atol=1e-4)
    plain, under = capture(llava, test)["resid_post", 3][:, 0], shift.capture(llava, test)["resid_post", 3][:, 0]
    captioned = [Sample(t.id, f"{t.caption}. {t.text}") for t in test]
    m = plain - capture(llava, captioned)["resid_post", 3][:, 0]
    expected = plain - (m @ s / (s @ s))[:, None] * s
    assert np.allclose(under, expected, atol=1e-3)
    assert shift.set_params(alpha=0.0).guard(llava).generate(test, 4) == llava.generate(test, 4)
    with pytest.raises(DataError, match="text_only"):
        ShiftDC().fit(llava, [Sample(t.id, t.text, t.images, label_joint=t.label_joint) for t in train])


def test_stages_parse_and_count_failures(llava: LVLM) -> None:
    assert parse_intent("INTENT: harmful - arson. Reasoning: petrol burns") == ("harmful - arson", "petrol burns.")
    assert parse_intent("Intent: a") == ("a", "")
    assert [says_yes(t) for t in ("Yes.", " no, it", "Perhaps", "Nothing")] == [True, False, None, None]
    test = requests(3, "test", 100)
    for defense in (SIA(describe_tokens=2, intent_tokens=2), ECSO(check_tokens=2)):
        guarded = defense.guard(llava)
        assert len(guarded.generate(test, 2)) == 3
        assert sum(guarded.failures.values()) == 3  # a random model writes no labels, and neither yes nor no


def test_shots_are_of_other_groups_and_nearest_is_nearest(llava: LVLM) -> None:
    train = requests(12)
    for choice in ("random", "category", "nearest"):
        icl = SSUIInContext(k=4, choice=choice).fit(llava, train)
        for query, shots in zip(train, icl.shots(train, llava), strict=True):
            assert len(shots) == 4 and query.group not in {s.group for s in shots}
            if choice == "category":
                assert sum(s.harmful or 0 for s in shots) == 2
    rows = capture(llava, train)["resid_post", 2][:, 0]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    order = [j for j in np.argsort(-(rows[0] @ rows.T), kind="stable") if train[j].group != train[0].group]
    assert [s.id for s in icl.shots(train[:1], llava)[0]] == [train[j].id for j in order[:4]]
    with pytest.raises(DataError, match="cannot be drawn"):
        SSUIInContext(k=99).fit(llava, train)


def test_stack_and_threshold(llava: LVLM) -> None:
    train, test = requests(12), requests(5, "test", 100)
    stack = Stack([NEARSIDE(), SafetyPrompt()]).fit(llava, train)
    guarded = stack.guard(llava)
    detector = stack.defenses[0]
    flags = detector.predict(llava, test)
    prompted = SafetyPrompt().guard(llava).generate(test, 4)
    expected = ["Sorry, I cannot help with that." if flag else a for flag, a in zip(flags, prompted, strict=True)]
    assert guarded.generate(test, 4) == expected and guarded.name == "nearside + safety_prompt"
    with pytest.raises(UsageError, match="last in a stack"):
        Stack([CoCA(), SafetyPrompt()]).guard(llava).generate(test, 2)
    with pytest.raises(UsageError, match="defends nothing"):
        Stack([]).fit(llava, train)
    scores = np.arange(100.0)
    for fpr in (0.0, 0.01, 0.05):
        assert (scores >= threshold_at(scores, fpr)).mean() <= fpr
    assert (scores >= threshold_at(scores, 0.05)).sum() == 5


def test_prompts_can_be_replaced_and_are_filled_once(llava: LVLM, tmp_path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("Be good. {question} {other}", encoding="utf-8")
    sample = Sample("a", "say {question} twice")
    assert SafetyPrompt(prompt_file=file).rewrite(sample).text == "Be good. say {question} twice {other}"
    file.write_text("no place", encoding="utf-8")
    with pytest.raises(UsageError, match="no place for"):
        SafetyPrompt(prompt_file=file).rewrite(sample)
    with pytest.raises(UsageError, match="cannot be read"):
        SafetyPrompt(prompt_file=tmp_path / "none.txt").rewrite(sample)
    assert filled("{a}{b}", a="{b}", b="x") == "{b}x"


def test_names_and_models_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="did you mean"):
        make_defense("nearsid")
    with pytest.raises(UsageError, match="no option"):
        make_defense("coca", beta=1)
    text = LVLM(*tiny_model("llama"))
    for name in ("ecso", "sia", "adashield_s", "shiftdc"):
        with pytest.raises(UsageError, match="takes text only"):
            make_defense(name).fit(text, requests(4))
    names = {d.name for d in make_defenses("all", text)}
    assert "ecso" not in names and "sasa" in names
