"""The refusal log-odds of the logit lens: how far the decision can already be read as the words it will become.

No training at all.  The lens is nostalgebraist's, the refusal log-odds are those of arXiv 2406.11717; AUROC of harmful
against harmless items [own].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..stats.auroc import weighted_auroc
from ..stats.choice import fold_curve
from ..stats.curve import Curve, curve_from_draws
from ..stats.groups import sample_words
from ..stats.onset import rises
from ..stats.resampling import Resampling, permute_labels
from ..stats.strength import measure_scalar_strength
from .linear_probe import LinearProbe
from .nuisance import nuisance_features
from .spec import Measured, MeasureSpec

if TYPE_CHECKING:
    from .evidence import Evidence
    from .study import Study


def lens_curve(
    scores: np.ndarray,
    blocks: Sequence[int],
    y: np.ndarray,
    groups: np.ndarray,
    fold: np.ndarray,
    settings: Mapping[str, Any],
    null: bool = True,
) -> Curve:
    """AUROC by block of scores ``[n, block]`` that need no training, with its best value and its onsets.

    Pairs are compared across folds; the folds serve the choice of a block only.
    """
    seed = settings["random_state"]
    weights = Resampling(groups, settings["replicates"], seed).weights()
    shuffles = list(permute_labels(y, groups, settings["permutations"], seed + 1)) if null else []
    curve = curve_from_draws(
        "expression",
        blocks,
        weighted_auroc(scores, y)[0],
        weighted_auroc(scores, y, weights),
        np.stack([weighted_auroc(scores, row)[0] for row in shuffles]) if null else None,
        unit="AUROC",
        n=len(y),
        meta={"measure": "lens_refusal_log_odds", "sample": sample_words(y, groups)},
    )
    inside = fold_curve("", blocks, scores, y, fold, weights, [(scores, row) for row in shuffles])
    strength = measure_scalar_strength(scores, y > 0, groups, seed)
    return replace(curve, best=inside.best, rise=rises(strength, seed=seed)[0])


def expression_curve(
    evidence: Evidence,
    twin: Evidence | None,
    y: np.ndarray,
    groups: np.ndarray,
    fold: np.ndarray,
    settings: dict[str, Any],
) -> Curve:
    """AUROC of the lens's refusal log-odds, by block."""

    curve = lens_curve(evidence.lens_log_odds, evidence.blocks, y, groups, fold, settings)
    curve = replace(curve, meta={**curve.meta, "depth": evidence.depth, "refusal_ids": list(evidence.refusal_ids)})
    settings = {**settings, "permutations": 0}
    length = LinearProbe(**settings).fit(nuisance_features(evidence.samples, evidence.tokens), y, groups, fold=fold)
    plain = length.curve_
    curve = curve.with_baseline("nuisance", float(plain.value[0]), float(plain.low[0]), float(plain.high[0]))
    if twin is None:
        return curve
    return curve.with_baseline(
        "random_twin", lens_curve(twin.lens_log_odds, twin.blocks, y, groups, fold, settings, null=False)
    )


def _compute(study: Study) -> Measured:
    return Measured(study.located.curves["expression"])


SPEC = MeasureSpec(
    "lens_log_odds",
    "expression",
    "free",
    "logit lens; refusal log-odds of arXiv 2406.11717; AUROC [own]",
    "AUROC of the lens's refusal log-odds",
    _compute,
    default=True,
    planted="refusal",
)
