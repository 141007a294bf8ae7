"""One rule for a limit: the same samples wherever ``limit`` is written, whole groups, both classes."""

import numpy as np
import pytest

from lvlm_lens import load_dataset
from lvlm_lens.config import SweepConfig
from lvlm_lens.data import Dataset, Sample
from lvlm_lens.data.groups import groups_of
from lvlm_lens.data.limits import limited, limited_rows
from lvlm_lens.errors import UsageError
from lvlm_lens.estimate import estimate_sweep
from lvlm_lens.evaluate.evaluation import evaluate
from lvlm_lens.recipes import Context
from lvlm_lens.stages.inputs import load_inputs


def sample(number: int, label: str, group: str = "") -> Sample:
    return Sample(f"{number:03d}", f"request {number}", label_joint=label, group=group)


def test_every_command_takes_the_same_samples(mini):
    data = load_dataset("mini")
    expected = [s.id for s in limited(data, 30, 3)]
    assert [s.id for s in load_dataset("mini", limit=30, seed=3)] == expected
    assert [s.id for s in load_inputs(SweepConfig(limit=30, seed=3))[1]] == expected
    assert [s.id for s in Context(mini, limit=30, seed=3).some(data)] == expected
    assert estimate_sweep(SweepConfig(limit=30, seed=3))["samples"] == len(expected)
    test = data.test
    asked = evaluate(mini, data, [], limit=12, max_new_tokens=1, seed=3)
    assert [a.id for a in asked.answers["none"]] == [s.id for s in limited(test, 12, 3)]


def test_groups_stay_whole_and_classes_even():
    rng = np.random.default_rng(0)
    rows = [sample(i, ("safe", "unsafe")[int(rng.random() < 0.15)], f"g{i // 2}") for i in range(200)]
    for limit in (10, 41, 120):
        kept = [rows[i] for i in limited_rows(rows, limit, 1)]
        assert limit - 1 <= len(kept) <= limit
        chosen = set(groups_of(kept).tolist())
        assert len(kept) == sum(name in chosen for name in groups_of(rows).tolist())
    few = [rows[i] for i in limited_rows(rows, 20, 1)]
    assert abs(sum(s.harmful == 1 for s in few) - 10) <= 2  # three in twenty are harmful in the whole set


def test_a_counterfactual_comes_along_where_no_group_is_given():
    rows = [
        Sample(f"{i}", f"r{i}", label_joint="unsafe" if i % 2 else "safe", counterfactual=f"{i ^ 1}") for i in range(20)
    ]
    kept = {int(rows[i].id) for i in limited_rows(rows, 6, 2)}
    assert len(kept) == 6
    assert all(number ^ 1 in kept for number in kept)


def test_limits_of_one_kind_and_bad_ones():
    rows = [sample(i, "unsafe", "all") for i in range(9)]
    assert limited_rows(rows, 4) == [0, 1, 2, 3]  # no whole group fits
    assert limited_rows(rows, None) == list(range(9))
    assert limited_rows(rows, 4) == limited_rows(rows, 4)
    whole = Dataset(rows)
    assert limited(whole, 50) is whole
    with pytest.raises(UsageError, match="at least 1"):
        limited_rows(rows, 0)
