"""Every measure: ours, one file each, and those that other packages announce."""

from __future__ import annotations

from collections.abc import Mapping

from ..plugins import announced
from . import (
    angular_gap,
    block_cka,
    concept_probe,
    difference_consistency,
    head_attribution,
    intrinsic_dimension,
    joint_probe,
    knockout_flow,
    label_cka,
    lens_log_odds,
    lens_readability,
    linear_probe,
    mean_difference,
    modality_cosine,
    perceived_not_said,
    probe_quality,
    refusal_direction,
    refusal_lens,
    scaled_blocks,
    shared_semantics,
    trajectory,
    tuned_lens,
)
from .spec import COSTS, ROLE_NAMES, MeasureSpec

_OURS: tuple[MeasureSpec, ...] = (
    linear_probe.SPEC,
    mean_difference.SPEC,
    angular_gap.SPEC,
    difference_consistency.SPEC,
    label_cka.SPEC,
    refusal_direction.SPEC,
    head_attribution.SPEC,
    scaled_blocks.SPEC,
    joint_probe.SPEC,
    concept_probe.SPEC,
    shared_semantics.SPEC,
    modality_cosine.SPEC,
    lens_readability.SPEC,
    knockout_flow.SPEC,
    lens_log_odds.SPEC,
    refusal_lens.SPEC,
    trajectory.SPEC,
    tuned_lens.SPEC,
    perceived_not_said.SPEC,
    probe_quality.SPEC,
    intrinsic_dimension.SPEC,
    block_cka.SPEC,
)

MEASURES: Mapping[str, MeasureSpec] = {
    spec.name: spec
    for role in (*ROLE_NAMES, None)
    for spec in sorted(
        (*_OURS, *announced("lvlm_lens.measures").values()), key=lambda spec: list(COSTS).index(spec.cost)
    )
    if spec.role == role
}
"""Every measure by name, role by role, those that need the fewest forwards first."""
