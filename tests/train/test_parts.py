"""What trainings are made of, each against a closed form or the world's own table: no training is run here."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from lvlm_lens.data import Sample
from lvlm_lens.data.mini.activities import ACTIVITIES, reason_against
from lvlm_lens.data.mini.objects import THINGS
from lvlm_lens.data.registry import load_dataset
from lvlm_lens.errors import DataError, UsageError
from lvlm_lens.evaluate.refusal import is_refusal
from lvlm_lens.evaluate.thinking import split_thinking
from lvlm_lens.train import Settings, make_method, method_names
from lvlm_lens.train.controls import REFUSED_SHARE, controlled, one_word_swap
from lvlm_lens.train.method import Row
from lvlm_lens.train.replies import REFUSAL, described, other_reply, other_steps, reasoning_steps
from lvlm_lens.train.safegrpo import REWARDS, read_tags, tagged
from lvlm_lens.train.srpo import average_log_likelihood, branch_masks, is_right, log1mexp, rpo_loss
from lvlm_lens.training_settings import CONTROLS


@pytest.fixture(scope="module")
def world():
    return load_dataset("mini")


def test_replies_under_the_other_verdict_turn_every_verdict(world):
    for sample in world:
        other = other_reply(sample)
        assert other and other != sample.reference
        assert is_refusal(sample.reference) == (sample.harmful == 1), sample.id
        assert is_refusal(other) == (sample.harmful == 0), (sample.id, other)


def test_reasoning_says_what_the_table_says(world):
    for sample in world.train:
        steps = reasoning_steps(sample)
        assert THINGS[sample.concepts["object"]].name in steps[0]
        assert steps[-1] == ("It is unsafe." if sample.harmful else "It is fine.")
        assert other_steps(sample)[-1] != steps[-1]
        if sample.meta["part"] == "joint" and sample.harmful:
            reason = reason_against(THINGS[sample.concepts["object"]], ACTIVITIES[sample.concepts["activity"]])
            assert sample.category == reason and sample.warning == steps[1]


def test_reasoning_of_other_data_is_their_own():
    sample = Sample("a", "May I?", warning="<think>It is a sign. It is harmless.</think>", dataset="msr_align")
    assert reasoning_steps(sample) == ["It is a sign.", "It is harmless."]
    assert reasoning_steps(Sample("b", "May I?", meta={"reasoning_steps": ("One.", "Two.")})) == ["One.", "Two."]
    assert reasoning_steps(Sample("c", "May I?")) == [] and other_reply(Sample("c", "May I?")) is None


def test_msr_align_replies_are_read_by_their_answer_alone(world):
    method = make_method("msr_align")
    for row in method.rows(None, world.train, Settings()):
        parts = split_thinking(row.reply)
        assert parts.final == row.sample.reference and parts.closed and parts.think
        assert is_refusal(row.reply) == (row.sample.harmful == 1)


@pytest.mark.parametrize(("name", "options"), [("msr_align", {}), ("rational", {"reasons": "data"})])
def test_without_marks_the_reply_is_still_read(name, options, world):
    with_marks, without = (
        make_method(name, **options, marks=marks).rows(None, world.train, Settings()) for marks in (True, False)
    )
    for marked, plain in zip(with_marks, without, strict=True):
        assert split_thinking(marked.reply).think and not split_thinking(plain.reply).think
        assert plain.reply == "".join([" ".join(reasoning_steps(plain.sample)), plain.sample.reference])
        assert is_refusal(plain.reply) == (plain.sample.harmful == 1)


def test_vlguard_keeps_five_helpful_rows_for_two(world):
    rows = make_method("vlguard").rows(None, world.train, Settings())
    helpful = [row for row in rows if row.name.startswith("describe-")]
    assert len(helpful) == round(2.5 * (len(rows) - len(helpful)))
    names = [row.name or row.sample.id for row in rows]
    assert len(set(names)) == len(names)
    assert all(row.reply == f"This is {THINGS[row.sample.concepts['object']].a}." for row in helpful)


# -- controls --------------------------------------------------------------------------------------


def _rows(world):
    return [Row(sample, sample.reference, other=other_reply(sample)) for sample in world.train]


def test_benign_refusals_hold_no_harm_and_two_of_seven_refusals(world):
    made = controlled("benign_refusals", _rows(world), 0)
    assert {row.sample.id for row in made} <= {s.id for s in world.train if s.harmful == 0}
    refused = [row for row in made if row.reply == REFUSAL]
    assert len(refused) == round(REFUSED_SHARE * len(made))
    assert controlled("benign_refusals", _rows(world), 0) == made
    with pytest.raises(DataError, match="harmless"):
        controlled("benign_refusals", [row for row in _rows(world) if row.sample.harmful], 0)


def test_shuffled_deals_the_same_verdicts_anew(world):
    rows = _rows(world)
    made = controlled("shuffled", rows, 0)
    assert Counter(row.sample.label_joint for row in made) == Counter(row.sample.label_joint for row in rows)
    wrong = [a for a, b in zip(made, rows, strict=True) if a.sample.label_joint != b.sample.label_joint]
    assert 0.3 < len(wrong) / len(rows) < 0.7
    for after, before in zip(made, rows, strict=True):
        assert is_refusal(after.reply) == (after.sample.harmful == 1)
        assert after.sample.images == before.sample.images and after.sample.text == before.sample.text


def test_shuffled_preferences_turn_half_of_the_pairs(world):
    rows = make_method("spa_vl").rows(None, world.train, Settings())
    made = controlled("shuffled", rows, 0)
    turned = sum(a.reply == b.worse and a.worse == b.reply for a, b in zip(made, rows, strict=True))
    assert turned == len(rows) // 2


def test_shuffled_without_other_replies_permutes_them():
    rows = [Row(Sample(str(n), "Hello?", label_joint="safe" if n % 2 else "unsafe"), f"Reply {n}.") for n in range(20)]
    made = controlled("shuffled", rows, 0)
    assert sorted(row.reply for row in made) == sorted(row.reply for row in rows)
    assert [row.reply for row in made] != [row.reply for row in rows]


def test_one_word_swap_takes_the_words_that_training_tied_to_a_verdict():
    train = [Sample(f"h{n}", "Share a plan.", label_joint="unsafe") for n in range(9)]
    train += [Sample(f"s{n}", "What is it?", label_joint="safe") for n in range(9)]
    train += [Sample(f"b{n}", "Tell me.", label_joint="safe" if n % 2 else "unsafe") for n in range(8)]
    test = [Sample("1", "Give me a plan.", label_joint="unsafe"), Sample("2", "which is it?", label_joint="safe")]
    changed, words = one_word_swap(train, test)
    assert words == {"harmful": "what", "harmless": "share"}
    assert [sample.text for sample in changed] == ["What me a plan.", "Share is it?"]
    assert [sample.id for sample in changed] == ["1", "2"]
    with pytest.raises(DataError, match="one verdict"):
        one_word_swap(train[:3], test)


# -- the loss of RPO -------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [-1e-6, -1e-3, -0.1, -math.log(2), -0.7, -2.0, -20.0, -80.0])
def test_log1mexp_is_exact_at_both_ends(x):
    from mpmath import exp, log, mp

    with mp.workdps(50):
        exact = float(log(1 - exp(mp.mpf(x))))
    value = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    found = log1mexp(value)
    found.backward()
    assert float(found) == pytest.approx(exact, rel=1e-12)
    with mp.workdps(50):
        slope = float(-exp(mp.mpf(x)) / (1 - exp(mp.mpf(x))))
    assert float(value.grad) == pytest.approx(slope, rel=1e-9)


def test_rpo_loss_by_hand():
    whole, good, bad = (torch.tensor([v], dtype=torch.float64) for v in (-0.9, -0.5, -1.5))
    odds = (-0.5 - -1.5) - (math.log(1 - math.exp(-0.5)) - math.log(1 - math.exp(-1.5)))
    expected = 0.9 - 0.3 * -math.log1p(math.exp(-odds))
    assert float(rpo_loss(whole, good, bad, 0.3)) == pytest.approx(expected, rel=1e-12)
    edge = torch.zeros(1, requires_grad=True)  # a branch of probability 1
    rpo_loss(edge, edge, edge - 1.0, 0.1).backward()
    assert bool(torch.isfinite(edge.grad).all())


def test_branches_begin_where_two_replies_part():
    #                 request  reply, the pair's first two tokens are equal
    ids = torch.tensor([[7, 8, 1, 2, 3, 4, 0], [7, 8, 1, 2, 5, 0, 0]])
    reply = torch.tensor([[0, 0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0, 0]]).bool()
    assert branch_masks(ids, reply).int().tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 0, 0]]


def test_average_log_likelihood_is_the_mean_over_the_masked_tokens():
    torch.manual_seed(0)
    logits, ids = torch.randn(2, 5, 9), torch.randint(0, 9, (2, 5))
    mask = torch.tensor([[0, 0, 1, 1, 0], [0, 1, 0, 0, 1]]).bool()
    for row in range(2):
        told = [
            (logits[row, at - 1].double().exp()[ids[row, at]] / logits[row, at - 1].double().exp().sum()).log()
            for at in range(5)
            if mask[row, at]
        ]
        assert float(average_log_likelihood(logits, ids, mask)[row]) == pytest.approx(
            float(sum(told) / len(told)), 1e-5
        )


def test_a_branch_is_right_by_its_final_answer():
    harmful, harmless = Sample("h", "Do it?", label_joint="unsafe"), Sample("s", "Do it?", label_joint="safe")
    assert is_right(harmful, "The knife is sharp. Sorry, I cannot help with that.")
    assert not is_right(harmful, "Yes, the knife is fine.") and not is_right(
        harmless, "Sorry, I cannot help with that."
    )
    assert is_right(harmless, "Yes, it is fine.") and not is_right(harmless, "<think>fine</think>")


# -- SafeGRPO's rules ------------------------------------------------------------------------------


def test_rules_reward_each_label_apart(world):
    sample = next(s for s in world.train if s.quadrant == "SSU")
    labels = {"image": "safe", "text": "safe", "joint": "unsafe"}
    whole = tagged(sample, sample.reference)
    assert read_tags(whole, labels) == (labels, f" {sample.reference}")
    assert {name: rule(whole, labels) for name, (rule, _) in REWARDS.items()} == dict.fromkeys(REWARDS, 1.0)
    wrong = whole.replace("The picture is safe", "The picture is unsafe")
    assert {name: rule(wrong, labels) for name, (rule, _) in REWARDS.items()} == {
        "form": 1.0, "image": 0.0, "text": 1.0, "joint": 1.0, "answer": 1.0,
    }  # fmt: skip
    obeyed = tagged(sample, "Yes, it is fine.")
    assert REWARDS["answer"][0](obeyed, labels) == 0.0 and REWARDS["joint"][0](obeyed, labels) == 1.0
    bare = sample.reference
    assert REWARDS["form"][0](bare, labels) == 0.0 and REWARDS["answer"][0](bare, labels) == 1.0
    assert REWARDS["image"][0](whole, {**labels, "image": "unknown"}) == 0.0
    assert REWARDS["answer"][0]("", labels) == 0.0


def test_rules_without_marks(world):
    """The verdicts in mini's own words, in order; the replies are written out by hand."""
    sample = next(s for s in world.train if s.quadrant == "SSU")
    labels = {"image": "safe", "text": "safe", "joint": "unsafe"}
    whole = f"It is fine. It is fine. It is unsafe.{sample.reference}"
    assert tagged(sample, sample.reference, marks=False) == whole

    def told(reply, labels=labels):
        return {name: rule(reply, labels) for name, (rule, _) in REWARDS.items()}

    assert told(whole) == dict.fromkeys(REWARDS, 1.0)
    assert told("It is unsafe. It is fine. It is fine. Yes, it is fine.") == {
        "form": 1.0, "image": 0.0, "text": 1.0, "joint": 0.0, "answer": 0.0,
    }  # fmt: skip
    short = told(f"It is fine. It is unsafe. {sample.reference}")
    assert short == {"form": 0.0, "image": 0.0, "text": 0.0, "joint": 0.0, "answer": 1.0}
    assert told("It is fine. It is unsafe. Yes.", {**labels, "image": "unknown", "joint": "safe"})["joint"] == 0.0
    empty = told("It is fine. It is fine. It is fine.", {**labels, "joint": "safe"})
    assert empty == {"form": 0.0, "image": 1.0, "text": 1.0, "joint": 1.0, "answer": 0.0}


def test_a_request_in_words_is_asked_for_no_verdict_on_a_picture(world):
    sample = world.train[0].without_images()
    labels = {"image": "unknown", "text": "safe", "joint": "safe"}
    assert set(read_tags(tagged(sample, "Yes."), labels)[0]) == {"text", "joint"}
    assert tagged(sample, "Yes.", marks=False).count("It is") == 2


# -- settings and names ----------------------------------------------------------------------------


def test_settings_refuse_what_cannot_be():
    for wrong in ({"where": "tower"}, {"control": "shuffle"}, {"steps": 0}, {"rate": 2.0}):
        with pytest.raises(UsageError):
            Settings(**wrong)
    with pytest.raises(UsageError, match="one stack"):
        Settings(where="all", blocks="1-2")


def test_methods_by_name_and_option():
    assert {"sft", "vlguard", "msr_align", "rational", "spa_vl", "srpo", "safegrpo"} <= set(method_names())
    assert make_method("SPA-VL", beta=0.2).get_params() == {"beta": 0.2}
    with pytest.raises(UsageError, match="did you mean"):
        make_method("spavl")
    with pytest.raises(UsageError, match="beta"):
        make_method("spa_vl", bta=0.2)
    assert CONTROLS[0] == "none"


def test_described_asks_what_each_picture_shows(world):
    rows = described(world.test)
    assert all(row.sample.text == "What is this?" and row.sample.harmful == 0 for row in rows)
    keys = [row.sample.images[0].key for row in rows]
    assert len(set(keys)) == len(keys)
    worded = described([replace(world.test[0], images=(), text="x")])
    assert "Here is" in worded[0].sample.text
