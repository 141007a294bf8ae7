"""Rows of the audit: counts by hand, the recorded run, and that a planted rise is where it says."""

import numpy as np

from lvlm_lens.selftest.audit.case import Case, Share
from lvlm_lens.selftest.audit.plant import half_block, plant, sigmoid_rise
from lvlm_lens.selftest.audit.run import audit_rows, audit_table, load_audit


def test_a_target_is_held_against_the_share_itself():
    row = Case("order", "tie", "claimed", Share(9, 10), Share(1, 20), most=0.05)
    assert row.reached and row.target == "at most 5 %"
    assert not Case("order", "tie", "claimed", None, Share(2, 20), most=0.05).reached
    assert Case("onset", "", "", None, Share(19, 20), 0.9, 0.98).reached
    assert Case("answers", "", "", None, Share(1, 2)).reached is None
    assert Case.from_dict(row.to_dict()) == row


def test_the_record_counts_its_own_misses():
    record = load_audit()
    rows = audit_rows(record)
    assert len(rows) >= 20 and record["seed"] >= 1
    assert record["missed"] == sum(row.reached is False for row in rows)
    assert audit_table(record).count("\n") == len(rows) + 1


def test_a_planted_rise_is_where_it_says():
    assert np.interp(10, np.arange(30), sigmoid_rise(30, 10, 6)) == 0.5
    assert abs(half_block(30, 10, 6) - 10) < 0.02
    rng = np.random.default_rng(0)
    planted = plant(rng, 4000, 3 * sigmoid_rise(12, 6, 4), positives=0.25, group_size=4)
    assert abs((planted.labels > 0).mean() - 0.25) < 0.01
    apart = planted.rows[-1, planted.labels > 0, 0].mean() - planted.rows[-1, planted.labels < 0, 0].mean()
    assert abs(apart - 3 * sigmoid_rise(12, 6, 4)[-1]) < 0.2
    assert all(len(set(planted.labels[planted.groups == g])) == 1 for g in range(20))
