from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lvlm_lens.errors import DataError, NumericalError, UsageError
from lvlm_lens.measures.blocks import SelectedBlocks, as_blocks, iterate
from lvlm_lens.stats.curve import Baseline, Curve, curve_from_draws


@pytest.fixture
def curve() -> Curve:
    rng = np.random.default_rng(0)
    value = np.array([0.5, 0.7, np.nan])
    return curve_from_draws(
        "perception", [0, 2, 4], value, value + 0.1 * rng.standard_normal((200, 3)), 0.5 + rng.random((20, 3)),
        unit="AUROC", n=60, meta={"depth": 8},
    )  # fmt: skip


def test_round_trip_through_strict_json(curve):
    curve = curve.with_baseline("text_only", 0.6, 0.5, 0.7).with_baseline("random_twin", curve)
    data = json.loads(json.dumps(curve.to_dict(draws=True), allow_nan=False))
    assert {"name", "blocks", "value", "low", "high", "null"} <= set(data)
    back = Curve.from_dict(data)
    for key in ("value", "low", "high", "null", "null_mean", "replicates", "null_draws"):
        np.testing.assert_array_equal(getattr(back, key), getattr(curve, key))
    assert back.blocks == curve.blocks and back.unit == "AUROC" and back.n == 60 and back.meta == {"depth": 8}
    assert back.baselines["text_only"] == Baseline(0.6, 0.5, 0.7)
    np.testing.assert_array_equal(back.baselines["random_twin"].high, curve.high)
    assert Curve.from_dict(curve.without_draws().to_dict()).replicates is None


def test_interval_and_null_are_quantiles_of_the_draws(curve):
    assert curve.low[1] == pytest.approx(np.quantile(curve.replicates[:, 1], 0.025))
    assert curve.null[0] == pytest.approx(np.quantile(curve.null_draws[:, 0], 0.95))
    assert curve.peak == 2
    np.testing.assert_allclose(curve.relative_depth, [1 / 8, 3 / 8, 5 / 8])


def test_dataframe_has_a_row_a_block_and_columns_for_baselines(curve):
    frame = curve.with_baseline("text_only", 0.6, 0.5, 0.7).to_dataframe()
    assert list(frame["block"]) == [0, 2, 4] and (frame["text_only_high"] == 0.7).all()


def test_wrong_lengths_and_missing_keys_are_refused(curve):
    with pytest.raises(UsageError, match=r"shape \(2,\)"):
        Curve("x", (0, 1, 2), np.zeros(3), np.zeros(2), np.zeros(3))
    with pytest.raises(UsageError, match="blocks"):
        curve.with_baseline("random_twin", Curve("x", (0,), *[np.zeros(1)] * 3))
    with pytest.raises(DataError, match="low, high missing"):
        Curve.from_dict({"name": "x", "blocks": [0], "value": [1]})


def test_blocks_from_arrays_tensors_and_objects():
    array = np.random.default_rng(0).standard_normal((5, 3, 4))
    source = as_blocks(torch.from_numpy(array).to(torch.bfloat16), [2, 4, 6])
    assert list(source.blocks) == [2, 4, 6] and source.block(4).dtype == np.float32
    np.testing.assert_allclose(source.block(4), array[:, 1], rtol=1e-2)
    assert as_blocks(source) is source and list(as_blocks(array[:, 0]).blocks) == [0]
    chosen = SelectedBlocks(array, np.array([True, False, True, False, False]))
    np.testing.assert_allclose(chosen.block(1), array[[0, 2], 1], rtol=1e-6)


def test_nan_names_its_block_and_counts_are_compared():
    array = np.zeros((5, 3, 4))
    array[2, 1, 0] = np.inf
    with pytest.raises(NumericalError, match=r"block 1 .* 1 of 5 samples \(first: 2\)"):
        list(iterate(array))
    with pytest.raises(UsageError, match="5 samples, but 4"):
        list(iterate(array[:, :1], 4))
    with pytest.raises(UsageError, match="expected"):
        as_blocks(np.zeros(3))
