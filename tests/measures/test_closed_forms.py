"""Measures on Gaussians whose population value is known in closed form."""

import numpy as np
import pytest
from scipy.stats import norm

from lvlm_lens.measures.label_cka import LabelCKA
from lvlm_lens.measures.linear_probe import LinearProbe
from lvlm_lens.stats.cka import cka


def test_the_probe_reaches_the_auroc_of_two_gaussians_block_by_block():
    # equal covariances: the best linear reading has AUROC Phi(d / sqrt 2), d the Mahalanobis distance
    rng = np.random.default_rng(0)
    y = np.arange(3000) % 2
    shape = np.diag([1.0, 2.0, 0.5, 1.0]) @ np.linalg.qr(rng.standard_normal((4, 4)))[0]  # noise is not isotropic
    shift = np.array([0.3, 0.8, 0.2, 0.0])
    distance = np.linalg.norm(np.linalg.solve(shape.T, shift))
    scales = np.array([0.0, 0.5, 1.0])
    x = rng.standard_normal((3000, 3, 4)) @ shape + y[:, None, None] * scales[:, None] * shift
    curve = LinearProbe(C=1.0, permutations=20, replicates=200).fit(x, y).curve_
    expected = norm.cdf(scales * distance / np.sqrt(2))
    assert curve.value == pytest.approx(expected, abs=0.025)
    assert (curve.low <= expected + 0.01).all() and (expected - 0.01 <= curve.high).all()


@pytest.mark.parametrize("shared, more", [(4, 4), (3, 24)])
def test_cka_of_a_shared_part_is_the_population_value(shared, more):
    # y holds x and `more` independent dimensions: |cov(x, y)| / sqrt(|cov x| |cov y|) = sqrt(k / (k + m))
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1200, shared))
    y = (
        np.concatenate([x, rng.standard_normal((1200, more))], 1)
        @ np.linalg.qr(rng.standard_normal((shared + more,) * 2))[0]
    )
    assert cka(x @ x.T, y @ y.T) == pytest.approx(np.sqrt(shared / (shared + more)), abs=0.03)


def test_cka_with_labels_is_the_population_value():
    # covariance I + (d/2)^2 e e', one-hot labels of variance 1/4: (d^2 / 8) / (|covariance| / 2)
    rng = np.random.default_rng(2)
    y = np.arange(1200) % 2
    x = rng.standard_normal((1200, 1, 6))
    x[:, 0, 0] += 2.0 * y
    covariance = np.sqrt(5 + (1 + 1.0) ** 2)
    fitted = LabelCKA(replicates=20, permutations=10).fit(x, y)
    assert fitted.curve_.value[0] == pytest.approx((4 / 8) / (covariance / 2), abs=0.05)  # its standard error is 0.017
