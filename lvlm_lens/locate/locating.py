"""The first question of the toolkit: in which blocks are danger perceived, meaning understood, words chosen?

Three curves over the blocks, all AUROC of harmful against harmless at the chosen position:

* **perception**: a linear probe on resid_post, over every labelled item;
* **semantics**: the same probe over the items that need picture and words *together*
  (:func:`joint_items`), where the words alone and the picture alone can tell little: the joint concept;
  without such items it cannot be measured, and says so;
* **expression**: the refusal log-odds of the logit lens, no training at all: how far the decision can
  already be read as the words it will become.  (AUROC [own]; the lens is nostalgebraist's, the
  refusal log-odds are those of arXiv 2406.11717.)

Each has its bootstrap interval over groups, its shuffled-label null, and its baselines: the bare
words (TF-IDF), the picture (mean of the vision tower), length, size and brightness, the mean input embedding, and the
same curve on a random-weight twin.  :func:`~lvlm_lens.locate.roles.find_role` decides what is found.

Beside them, as description: the share of items on which the lens's top token is already the
model's own first token.  It always reaches 1 at the last block, in a random network too, so it
decides no role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..data import Sample
from ..errors import DataError
from ..measures.evidence import Evidence
from ..measures.items import check_labels, group_names, harm_labels, joint_items
from ..measures.joint_probe import joint_curve
from ..measures.lens_log_odds import expression_curve
from ..measures.linear_probe import LinearProbe, probed
from ..measures.spec import ROLE_NAMES
from ..progress import part
from ..stats.curve import Curve, curve_from_draws
from ..stats.groups import share_excess, share_interval
from ..stats.onset import rises
from ..stats.resampling import Resampling, weighted_mean
from ..stats.strength import measure_strength
from ..stats.threshold import FALSE_POSITIVES, above_threshold
from .roles import REQUIRED, LayerRoles, Role, find_role, order_test


@dataclass(frozen=True)
class Located:
    """What :func:`locate_roles` returns.

    Attributes:
        curves: :class:`~lvlm_lens.stats.curve.Curve` by name.
        roles: :class:`~lvlm_lens.locate.roles.LayerRoles`.
        order_test: which of perception and semantics begins first, blind to their strengths
            (:func:`~lvlm_lens.locate.roles.order_test`).
        quadrants: one row per quadrant of image, text and joint label: counts and shares of items that
            are perceived (above a threshold for a stated false-positive rate, :mod:`lvlm_lens.stats.threshold`; empty
            where perception was not found), refused (first-token refusal log-odds above 0), and perceived but not
            refused, each also as excess over the harmless items.
        trajectories: mean lens refusal log-odds by block of refused and of answered items.
        perceived: bool by sample id, for the items with a label; empty where perception was not found.
        probes: the fitted probes of ``perception`` and ``semantics`` (where there is one).
        notes: what a reader should know (items left out and why).
    """

    curves: Mapping[str, Curve]
    roles: LayerRoles
    order_test: Mapping[str, Any]
    quadrants: Sequence[Mapping[str, Any]]
    trajectories: Mapping[str, Any]
    perceived: Mapping[str, bool] = field(default_factory=dict, repr=False)
    probes: Mapping[str, LinearProbe] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()


def locate_roles(
    evidence: Evidence,
    twin: Evidence | None = None,
    *,
    labels: np.ndarray | None = None,
    probe: LinearProbe | None = None,
    seed: int = 0,
) -> Located:
    """Measure the three curves and read the roles off them.

    Args:
        evidence: of the model, from :func:`~lvlm_lens.measures.evidence.gather`.
        twin: of its random-weight twin on the same samples; without it every role says that it was not
            compared.
        labels: 1, 0 or -1 a sample instead of the joint labels (shuffled ones, for a check).
        probe: settings of the probes (folds, C, permutations, replicates).
        seed: of folds, shuffles and bootstrap.

    Raises:
        DataError: one class only, or too few groups for the folds.
    """
    labels = harm_labels(evidence.samples) if labels is None else np.asarray(labels)
    known = labels >= 0
    notes = [] if known.all() else [f"{int((~known).sum())} items without a joint label were left out of the curves"]
    check_labels(labels[known])
    if twin is not None:
        twin = _same_samples(twin, evidence)
    settings = (probe or LinearProbe()).get_params()
    settings["random_state"] = seed
    used = evidence.rows(known)
    used_twin = None if twin is None else twin.rows(known)
    y, groups = labels[known], group_names(used.samples)

    with part(0.0, 0.45, "perception"):
        perception, perception_probe = probed("perception", used, used_twin, y, groups, settings)
    both = joint_items(used.samples)
    with part(0.45, 0.85, "semantics"):
        semantics, semantics_probe, why = joint_curve(used, used_twin, y, groups, both, settings)
    with part(0.85, 0.92, "expression"):
        expression = expression_curve(used, used_twin, y, groups, perception_probe.fold_, settings)
    with part(0.92, 1.0, "onsets"):
        fold = perception_probe.fold_
        perception, semantics = _with_rises(perception, semantics, used, y, groups, both, fold, settings)

    probes = {"perception": perception_probe}
    curves = {"perception": perception, "expression": expression, "lens_agreement": _agreement(used, groups, settings)}
    pictures = any(sample.images for sample in used.samples)
    expected = tuple(name for name in REQUIRED["perception"] if pictures or name != "image_only")
    roles = {
        "perception": find_role("perception", perception, expected),
        "expression": find_role("expression", expression),
    }
    if semantics is not None and semantics_probe is not None:
        curves["semantics"], probes["semantics"] = semantics, semantics_probe
        roles["semantics"] = find_role("semantics", semantics)
        order = order_test(perception, semantics)
        if not (roles["perception"].found and roles["semantics"].found):
            order = {**order, "conclusion": "not tested: " + _not_found(roles), "p_value": None}
    else:
        roles["semantics"] = Role("semantics", False, why, depth=evidence.depth, measurable=False)
        order = {"conclusion": "not tested: semantics cannot be measured with these data", "p_value": None}
    perceived = None
    if roles["perception"].found:
        perceived = above_threshold(perception_probe.scores_, y, perception_probe.fold_)
    return Located(
        curves={
            name: curves[name] for name in ("perception", "semantics", "expression", "lens_agreement") if name in curves
        },
        roles=LayerRoles(*(roles[name] for name in ROLE_NAMES)),
        order_test=order,
        quadrants=quadrant_table(used.samples, perceived, used.log_odds > 0),
        trajectories=_trajectories(used, groups, settings),
        perceived={}
        if perceived is None
        else {sample.id: bool(flag) for sample, flag in zip(used.samples, perceived, strict=True)},
        probes=probes,
        notes=tuple(notes),
    )


def _same_samples(twin: Evidence, evidence: Evidence) -> Evidence:
    """The twin's rows in the order of the model's samples."""
    at = {sample.id: row for row, sample in enumerate(twin.samples)}
    missing = [sample.id for sample in evidence.samples if sample.id not in at]
    if missing:
        raise DataError(f"the twin was not run on {len(missing)} samples, e.g. {missing[0]!r}")
    return twin.rows([at[sample.id] for sample in evidence.samples])


def _with_rises(
    perception: Curve,
    semantics: Curve | None,
    evidence: Evidence,
    y: np.ndarray,
    groups: np.ndarray,
    both: np.ndarray,
    fold: np.ndarray,
    settings: dict[str, Any],
) -> tuple[Curve, Curve | None]:
    """Both curves with their onsets, read in one metric and from the same draws of groups."""
    sign = np.where(y > 0, 1, -1)
    signs = [sign] if semantics is None else [sign, np.where(both, sign, 0)]
    kinds = np.asarray([sample.quadrant for sample in evidence.samples])
    rows = (evidence.resid[:, at] for at in range(len(evidence.blocks)))
    seed = settings["random_state"]
    found = rises(measure_strength(rows, signs, groups, fold, kinds, seed), seed=seed)
    return replace(perception, rise=found[0]), None if semantics is None else replace(semantics, rise=found[1])


def _agreement(evidence: Evidence, groups: np.ndarray, settings: dict[str, Any]) -> Curve:
    """Share of items whose lens top token is the model's own first token; null: another item's token."""
    seed = settings["random_state"]
    draws = Resampling(groups, settings["replicates"], seed)
    agrees = (evidence.lens_top == evidence.top[:, None]).astype(np.float64)
    rng = np.random.default_rng(seed + 1)
    null = [
        (evidence.lens_top == evidence.top[rng.permutation(len(evidence))][:, None]).mean(0)
        for _ in range(max(settings["permutations"], 20))
    ]
    return curve_from_draws(
        "lens_agreement",
        evidence.blocks,
        agrees.mean(0),
        weighted_mean(agrees, draws.weights()),
        np.stack(null),
        unit="share of items",
        n=len(evidence),
        meta={"measure": "lens_top1_agreement", "depth": evidence.depth},
    )


def _not_found(roles: Mapping[str, Role]) -> str:
    return " and ".join(name for name in ("perception", "semantics") if not roles[name].found) + " not found"


def perceived_note(perception: Role) -> str:
    """What stands beside every share of perceived items: how it was counted, or why it is not printed."""
    if perception.found:
        return (
            f"above a threshold that {FALSE_POSITIVES:.0%} of harmless items may exceed; threshold and block chosen on "
            "other folds; not refused: excess over the harmless items"
        )
    return f"not counted, because perception was {perception.absence} ({perception.reason})"


def quadrant_table(
    samples: Sequence[Sample], perceived: np.ndarray | None, refused: np.ndarray
) -> list[dict[str, Any]]:
    """One row per quadrant, harmful ones first: shares perceived, refused, and perceived but not refused.

    Args:
        samples: labelled items.
        perceived: ``[n]`` bool, or ``None`` where perception was not found: its cells are then empty.
        refused: ``[n]`` bool.

    ``perceived_excess`` and ``perceived_not_refused_excess`` are above the same share of all harmless items.  Intervals
    are over groups (:mod:`lvlm_lens.stats.groups`).
    """
    names, groups = np.asarray([sample.quadrant for sample in samples]), group_names(samples)
    harmless = harm_labels(samples) == 0
    missed = None if perceived is None else perceived & ~refused
    rows = []
    for name in sorted(set(names.tolist()), key=lambda name: (not name.endswith("U"), name)):
        here = names == name
        row: dict[str, Any] = {"quadrant": name, "n": int(here.sum()), "refused": _cell(refused[here], groups[here])}
        for key, flags in (("perceived", perceived), ("perceived_not_refused", missed)):
            row[key] = _cell(None if flags is None else flags[here], groups[here])
            row[f"{key}_excess"] = _excess(flags, here, harmless, groups)
        rows.append(row)
    return rows


def _cell(flags: np.ndarray | None, groups: np.ndarray) -> dict[str, float | int | None]:
    """A share over groups; empty where there is nothing to count."""
    if flags is None or not len(flags):
        return {"count": 0, "n": 0, "value": None, "low": None, "high": None}
    low, high = (float(x) if np.isfinite(x) else None for x in share_interval(flags, groups))
    return {"count": int(flags.sum()), "n": len(flags), "value": float(flags.mean()), "low": low, "high": high}


def _excess(
    flags: np.ndarray | None, here: np.ndarray, harmless: np.ndarray, groups: np.ndarray
) -> dict[str, float | None]:
    empty = {"value": None, "low": None, "high": None}
    if flags is None or not harmless.any():
        return dict(empty)
    found = share_excess(flags[here], flags[harmless], groups[here], groups[harmless])
    return {key: float(x) if np.isfinite(x) else None for key, x in zip(empty, found, strict=True)}


def _trajectories(evidence: Evidence, groups: np.ndarray, settings: dict[str, Any]) -> dict[str, Any]:
    """Mean lens refusal log-odds (nats) by block, of items the model refuses and items it answers."""
    refused = evidence.log_odds > 0
    found: dict[str, Any] = {"blocks": list(evidence.blocks), "unit": "nats"}
    for name, rows in (("refused", refused), ("answered", ~refused)):
        values = evidence.lens_log_odds[rows]
        if len(values) < 2 or len(np.unique(groups[rows])) < 2:
            found[name] = {"n": len(values), "value": None, "low": None, "high": None}
            continue
        draws = weighted_mean(values, Resampling(groups[rows], settings["replicates"], 0).weights())
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        found[name] = {
            "n": len(values), "value": values.mean(0).tolist(), "low": low.tolist(), "high": high.tolist()
        }  # fmt: skip
    return found
