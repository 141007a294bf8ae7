"""What is learnt from and what is asked never share a group, and the data set's own splits win."""

import pytest

from lvlm_lens.data import Dataset, Sample
from lvlm_lens.data.splits import test_samples as samples_to_ask
from lvlm_lens.data.splits import train_and_test


def sample(number: int, split: str = "all", label: str | None = None) -> Sample:
    label = label or ("unsafe" if number % 2 else "safe")
    return Sample(f"s{number}", f"words {number}", label_joint=label, group=f"g{number // 4}", split=split)


WHOLE = Dataset([sample(number) for number in range(80)])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_halves_share_no_group_and_hold_both_labels(seed):
    train, test = train_and_test(WHOLE, seed=seed)
    assert len(train) + len(test) == 80 and {s.id for s in train}.isdisjoint(s.id for s in test)
    assert {s.group for s in train}.isdisjoint(s.group for s in test)
    for part in (train, test):
        assert 32 <= len(part) <= 48 and sum(s.harmful or 0 for s in part) == len(part) / 2
    assert train_and_test(WHOLE, seed=seed) == (train, test)


def test_the_halves_depend_on_the_seed():
    assert train_and_test(WHOLE, seed=0) != train_and_test(WHOLE, seed=1)


def test_own_splits_win_and_unlabelled_samples_are_in_neither():
    data = Dataset([*(sample(n, "train" if n < 60 else "test") for n in range(80)), sample(80, "train", "unknown")])
    train, test = train_and_test(data)
    assert [s.id for s in [*train, *test]] == [f"s{n}" for n in range(80)] and len(train) == 60
    assert samples_to_ask(data) == test and len(samples_to_ask(WHOLE)) == 80


def test_one_split_alone_is_halved():
    train, test = train_and_test(Dataset([sample(n, "test") for n in range(80)]))
    assert train and test


def test_limits_are_of_each_part_and_take_whole_groups():
    train, test = train_and_test(WHOLE, 8, 12)
    assert (len(train), len(test)) == (8, 12)
    for part in (train, test):
        for name in {s.group for s in part}:
            assert sum(s.group == name for s in part) == 4
