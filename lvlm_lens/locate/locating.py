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

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..data import Sample
from ..errors import DataError
from ..inference import wilson_bounds
from ..progress import each, part
from ..stats.groups import sample_words, share_excess, share_interval
from ..stats.onset import rises
from ..stats.strength import measure_scalar_strength, measure_strength
from ..stats.threshold import FALSE_POSITIVES, above_threshold
from .blocks import as_blocks
from .curve import Curve, curve_from_draws
from .evidence import Evidence
from .nuisance import nuisance_features
from .probe import LinearProbe, fold_curve
from .roles import REQUIRED, LayerRoles, Role, find_role, order_test
from .statistics import Resampling, permute_labels, weighted_auroc, weighted_mean

ROLE_NAMES = ("perception", "semantics", "expression")


@dataclass(frozen=True)
class Located:
    """What :func:`locate_roles` returns.

    Attributes:
        curves: :class:`~lvlm_lens.locate.curve.Curve` by name.
        roles: :class:`~lvlm_lens.locate.roles.LayerRoles`.
        order_test: which of perception and semantics begins first, blind to their strengths
            (:func:`~lvlm_lens.locate.roles.order_test`).
        quadrants: one row a quadrant of image, text and joint label: counts and shares of items that
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


def harm_labels(samples: Sequence[Sample]) -> np.ndarray:
    """Joint labels as 1 (unsafe), 0 (safe), -1 (unknown), int64 ``[n]``."""
    return np.asarray([-1 if sample.harmful is None else sample.harmful for sample in samples], dtype=np.int64)


def group_names(samples: Sequence[Sample]) -> np.ndarray:
    """Group of each sample; a sample without one is its own group."""
    return np.asarray([sample.group or f"id:{sample.id}" for sample in samples])


def joint_items(samples: Sequence[Sample]) -> np.ndarray:
    """Items whose harm neither words nor picture tell alone, bool ``[n]``: those that semantics is measured on.

    An item with a picture counts where both its picture and its words are labelled safe, or where it stands in a
    matched pair (a harmful and a harmless item that share the words or the picture) and neither part is labelled
    unsafe.  A pair rules out one modality only; the other one is ruled out by its baseline, which has to be beaten.
    An item that has nothing but a joint label does not count: a probe over such items is the perception probe again.
    """
    by_id = {sample.id: sample for sample in samples}
    paired: set[str] = set()
    for sample in samples:
        other = by_id.get(sample.counterfactual or "")
        if other is None or {sample.harmful, other.harmful} != {0, 1}:
            continue
        if sample.text == other.text or sample.images == other.images:
            paired |= {sample.id, other.id}

    def counts(sample: Sample) -> bool:
        labels = {sample.label_image, sample.label_text}
        return bool(sample.images) and (labels == {"safe"} or (sample.id in paired and "unsafe" not in labels))

    return np.asarray([counts(sample) for sample in samples], dtype=bool)


def _why_no_joint_items(samples: Sequence[Sample]) -> str:
    """What the data lack for semantics, with the columns that would make it possible."""
    if not any(sample.images for sample in samples):
        return "no item has a picture, so nothing needs picture and words together"
    if all(sample.label_image == "unknown" or sample.label_text == "unknown" for sample in samples):
        return (
            "nothing says which items need picture and words together; give a label of the picture and one of the "
            "words (columns label_image and label_text), or matched pairs (column counterfactual: the id of the item "
            "that shares the words or the picture and has the other label)"
        )
    return "in every item the picture or the words are unsafe by themselves; add items that are unsafe only together"


def locate_roles(
    evidence: Evidence,
    twin: Evidence | None = None,
    *,
    labels: np.ndarray | None = None,
    probe: LinearProbe | None = None,
    random_state: int = 0,
) -> Located:
    """Measure the three curves and read the roles off them.

    Args:
        evidence: of the model, from :func:`~lvlm_lens.locate.evidence.gather`.
        twin: of its random-weight twin on the same samples; without it every role says that it was not
            compared.
        labels: 1, 0 or -1 a sample instead of the joint labels (shuffled ones, for a check).
        probe: settings of the probes (folds, C, permutations, replicates).
        random_state: seed of folds, shuffles and bootstrap.

    Raises:
        DataError: one class only, or too few groups for the folds.
    """
    labels = harm_labels(evidence.samples) if labels is None else np.asarray(labels)
    known = labels >= 0
    notes = [] if known.all() else [f"{int((~known).sum())} items without a joint label were left out of the curves"]
    _check_labels(labels[known])
    if twin is not None:
        twin = _same_samples(twin, evidence)
    settings = (probe or LinearProbe()).get_params()
    settings["random_state"] = random_state
    used = evidence.rows(known)
    used_twin = None if twin is None else twin.rows(known)
    y, groups = labels[known], group_names(used.samples)

    with part(0.0, 0.45, "perception"):
        perception, perception_probe = _probed("perception", used, used_twin, y, groups, settings)
    both = joint_items(used.samples)
    with part(0.45, 0.85, "semantics"):
        semantics, semantics_probe, why = _semantics(used, used_twin, y, groups, both, settings)
    with part(0.85, 0.92, "expression"):
        expression = _expression(used, used_twin, y, groups, perception_probe.fold_, settings)
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


def _check_labels(labels: np.ndarray) -> None:
    counts = Counter(labels.tolist())
    if len(counts) < 2:
        only = {0: "safe", 1: "unsafe"}.get(next(iter(counts), -1), "unknown")
        raise DataError(
            f"all {len(labels)} labelled items are {only}; locating needs harmful and harmless items "
            "(give a label column, or add a contrast set)"
        )


def _same_samples(twin: Evidence, evidence: Evidence) -> Evidence:
    """The twin's rows in the order of the model's samples."""
    at = {sample.id: row for row, sample in enumerate(twin.samples)}
    missing = [sample.id for sample in evidence.samples if sample.id not in at]
    if missing:
        raise DataError(f"the twin was not run on {len(missing)} samples, e.g. {missing[0]!r}")
    return twin.rows([at[sample.id] for sample in evidence.samples])


def text_features(samples: Sequence[Sample]) -> np.ndarray:
    """TF-IDF of words and word pairs of the users' words, float32 ``[n, features]``: the text-only baseline."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), max_features=4000, sublinear_tf=True)
    texts = [sample.text for sample in samples]
    try:
        return vectorizer.fit_transform(texts).toarray().astype(np.float32)
    except ValueError:  # no word of two letters anywhere: characters instead
        return TfidfVectorizer(analyzer="char", ngram_range=(1, 3)).fit_transform(texts).toarray().astype(np.float32)


def baseline_features(evidence: Evidence) -> dict[str, np.ndarray]:
    """Features of the unimodal and input baselines; a picture's features are zero where there is none."""
    features = {
        "text_only": text_features(evidence.samples),
        "nuisance": nuisance_features(evidence.samples, evidence.tokens),
        "input_embedding": evidence.embedding,
    }
    if evidence.image is not None and np.isfinite(evidence.image).any():
        features["image_only"] = np.nan_to_num(evidence.image, nan=0.0)
    return features


def _probed(
    name: str, evidence: Evidence, twin: Evidence | None, y: np.ndarray, groups: np.ndarray, settings: dict[str, Any]
) -> tuple[Curve, LinearProbe]:
    with part(0.0, 0.5):
        fitted = LinearProbe(**settings).fit(evidence, y, groups, name)
    curve = fitted.curve_
    with part(0.5, 0.8, "baselines"):
        features = baseline_features(evidence)
        for key in each(list(features)):
            curve = curve.with_baseline(key, fitted.baseline(features[key]))
    if twin is not None:
        with part(0.8, 1.0, "twin"):
            other = LinearProbe(**{**settings, "permutations": 0}).fit(twin, y, groups, fold=fitted.fold_)
        curve = curve.with_baseline("random_twin", other.curve_)
    return replace(curve, meta={**curve.meta, "depth": evidence.depth, "sample": sample_words(y, groups)}), fitted


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


def _semantics(
    evidence: Evidence,
    twin: Evidence | None,
    y: np.ndarray,
    groups: np.ndarray,
    both: np.ndarray,
    settings: dict[str, Any],
) -> tuple[Curve | None, LinearProbe | None, str]:
    """The joint-concept curve, or why there is none."""
    if not both.any():
        return None, None, _why_no_joint_items(evidence.samples)
    try:
        _check_labels(y[both])
        curve, fitted = _probed(
            "semantics", evidence.rows(both), None if twin is None else twin.rows(both), y[both], groups[both], settings
        )
    except DataError as error:
        return None, None, f"the joint concept cannot be measured: {error}"
    return curve, fitted, ""


def with_rise(
    curve: Curve, activations: Any, labels: np.ndarray, groups: np.ndarray, fold: np.ndarray, seed: int
) -> Curve:
    """A probe's curve with its onsets; ``activations [n, block, d]``, or what :func:`~.blocks.as_blocks` takes."""
    source = as_blocks(activations)
    sign = np.where(np.asarray(labels) > 0, 1, -1)
    strength = measure_strength((source.block(block) for block in source.blocks), sign, groups, fold, seed=seed)
    return replace(curve, rise=rises(strength, seed=seed)[0])


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


def _expression(
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


def share(count: int, total: int) -> dict[str, float | int | None]:
    """A proportion with its Wilson 95 % interval (``None`` where there is nothing to count)."""
    if not total:
        return {"count": 0, "n": 0, "value": None, "low": None, "high": None}
    low, high = wilson_bounds(count, total)
    return {"count": count, "n": total, "value": count / total, "low": low, "high": high}


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
    """One row a quadrant, harmful ones first: shares perceived, refused, and perceived but not refused.

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
