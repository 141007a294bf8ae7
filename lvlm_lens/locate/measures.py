"""The measures that only read: name, role, cost, source, and how each is computed for a model.

Perception (harmful and harmless part), semantics (picture and words become one meaning), expression (the decision
becomes words); and some that describe and speak for no role.  Not every measure votes in the consensus: one that is
known to answer another question than "from which block on" is drawn and not counted, and its line says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..activations.capture import capture
from ..data import Sample
from ..errors import DataError
from ..stats.threshold import above_by_block
from .angular_gap import AngularGap
from .blocks import SelectedBlocks
from .concept_probe import ConceptProbe
from .curve import Curve, curve_from_draws
from .difference_consistency import DifferenceConsistency
from .evidence import Evidence
from .geometry import BlockCKA, IntrinsicDimension, LabelCKA
from .lens_readability import LensReadability
from .locating import joint_items
from .mean_difference import MeanDifference
from .modality_cosine import ModalityCosine
from .refusal_lens import RefusalLens
from .shared_semantics import SharedSemantics
from .statistics import Resampling, weighted_mean
from .study import Measured, MeasureSpec, Study
from .trajectory import Trajectory
from .tuned_lens import tuned_lens_measure
from .words import answer_words

NEUTRAL = "What is in this picture?"
"""The neutral words of "the picture alone"."""

FEW = 200
"""Items whose other versions (words alone, picture alone) are run."""

_ALL = ("text_only", "image_only", "input_embedding", "random_twin")


# -- perception ---------------------------------------------------------------------------------


def _linear_probe(study: Study) -> Measured:
    return Measured(study.located.curves["perception"])


def _probe_quality(study: Study) -> Measured:
    probe = study.located.probes["perception"]
    rest = {f"probe_{metric}": probe.curve(metric) for metric in ("tpr_at_1_fpr", "ece")}
    return Measured(probe.curve("auprc"), rest)


def _mean_difference(study: Study) -> Measured:
    def fit(activations: Any, **settings: int) -> Curve:
        measure = MeanDifference(study.folds, **(study.draws | settings))
        return measure.fit(activations, study.labels, study.groups).curve_

    return Measured(study.beside(fit(study.evidence), lambda x: fit(x, permutations=1)))


def _angular_gap(study: Study) -> Measured:
    def fit(activations: Any, **settings: int) -> AngularGap:
        # the interval needs two n x n products a replicate and block: 300 of them fix it to a per cent
        draws: dict[str, Any] = study.draws | {"replicates": min(study.replicates, 300)} | settings
        return AngularGap(**draws).fit(activations, study.labels, study.groups)

    own = fit(study.evidence)
    curve = study.beside(own.curve_, lambda x: fit(x, permutations=1).curve_)
    tables = {"range": None if own.range_ is None else list(own.range_)}
    return Measured(curve, {"mean_of_angles": own.curves_["mean_of_angles"]}, tables)


def _difference_consistency(study: Study) -> Measured:
    rows, labels, names, groups = study.pairs()

    def fit(activations: Any, **settings: int) -> Curve:
        measure = DifferenceConsistency(**(study.draws | settings))
        return measure.fit(SelectedBlocks(activations, rows), labels, groups, names).curve_

    curve = fit(study.evidence)
    return Measured(study.beside(curve, lambda x: fit(x, permutations=1), ("input_embedding", "image_only")))


def _label_cka(study: Study) -> Measured:
    def fit(activations: Any, **settings: int) -> Curve:
        draws = study.draws | {"replicates": min(study.replicates, 60)} | settings
        return LabelCKA(**draws).fit(activations, study.labels, study.groups).curve_

    return Measured(study.beside(fit(study.evidence), lambda x: fit(x, permutations=2, replicates=20)))


# -- semantics ----------------------------------------------------------------------------------


def _joint_probe(study: Study) -> Measured:
    if "semantics" not in study.located.curves:
        raise DataError(study.located.roles.semantics.reason)
    return Measured(study.located.curves["semantics"])


def _concept_probe(study: Study) -> Measured:
    names = sorted({name for sample in study.samples for name in sample.concepts})
    if not names:
        raise DataError("the items name no concepts (Sample.concepts: object, activity, joint ...)")

    def fit(name: str, rows: np.ndarray, activations: Any, **settings: int) -> Curve:
        labels = [study.samples[row].concepts.get(name, "") for row in rows]
        draws: dict[str, Any] = study.draws | settings
        probe = ConceptProbe(folds=study.folds, **draws)
        return probe.fit(SelectedBlocks(activations, rows), labels, study.groups[rows], name).curve_

    everything = np.arange(len(study.samples))
    both = np.flatnonzero(joint_items(study.samples))
    main = "joint" if "joint" in names and len(both) else names[0]
    curves, refused = {}, {}
    for name in names:
        rows = both if name == "joint" and len(both) else everything
        try:
            curve = fit(name, rows, study.evidence)
            curves[name] = study.beside(
                curve,
                lambda x, name=name, rows=rows: fit(name, rows, x, permutations=1),  # type: ignore[misc]
                None if name == main else (),  # the joint one has to beat both modalities; the others describe
                None if name == main else False,
            )
        except DataError as error:  # a concept whose values never cross groups cannot be tested
            refused[name] = str(error)
    if main not in curves:
        raise DataError(f"concept {main!r} cannot be probed: {refused[main]}")
    curve = curves.pop(main)
    others = {f"concept_{name}": other for name, other in curves.items()}
    return Measured(replace(curve, meta={**curve.meta, "concept": main}), others, {"not_measured": refused})


def _lens_readability(study: Study) -> Measured:
    words, origin = answer_words(study.model, study.samples)
    settings = study.draws | {"permutations": min(study.permutations, 50)}

    def fit(rows: Any, groups: Any, lens: Any) -> Curve:
        return LensReadability(lens, words, **settings).fit(rows, None, groups).curve_

    curve = fit(study.last_blocks, study.groups, study.lens)
    if study.lens_twin is not None:
        twin, head = study.lens_twin
        curve = curve.with_baseline("random_twin", fit(twin, study.groups, head))
    others = {}
    if study.pictures:
        rows = study.some(np.flatnonzero([bool(s.images) for s in study.samples]), 32)
        shown = [study.samples[row] for row in rows]
        fewest = min(len(study.model.encode(sample).layouts[0].part("image")) for sample in shown)
        if fewest:  # none where pictures are read by cross-attention only
            states = _image_states(study, shown, fewest)
            flat = states.reshape(-1, *states.shape[2:])
            others["lens_readability_image"] = fit(flat, np.repeat(study.groups[rows], states.shape[1]), study.lens)
    return Measured(replace(curve, meta={**curve.meta, "words_from": origin}), others)


def _image_states(study: Study, shown: Sequence[Sample], fewest: int, most: int = 8) -> np.ndarray:
    """resid_post at up to ``most`` image tokens spread over the picture, ``[sample, position, block, d]``."""
    step = max(1, fewest // most)
    sites = [f"blocks.{b}.hook_resid_post" for b in study.evidence.blocks]
    where = f"image[:{min(fewest, most * step)}:{step}]"
    found = capture(study.model, shown, sites, where, batch_size=study.batch_size)
    return found["resid_post"].transpose(0, 2, 1, 3)


def _one_a_caption(study: Study) -> np.ndarray:
    """Rows with a picture and a caption, one a distinct caption: other captions must be other captions."""
    seen: dict[str, int] = {}
    for row, sample in enumerate(study.samples):
        if len(sample.images) == 1 and sample.caption:
            seen.setdefault(sample.caption, row)
    return np.asarray(sorted(seen.values()), dtype=np.int64)


def _needs_language(study: Study) -> None:
    if "needs_image" in study.model.anatomy.family.flow:
        raise DataError("this family does not run without a picture, so words alone cannot be read")


def _shared_semantics(study: Study) -> Measured:
    _needs_language(study)
    rows = _one_a_caption(study)
    if len(rows) < 8:
        raise DataError(f"{len(rows)} different captions of single pictures; at least 8 are needed")
    rows = study.some(rows, FEW)
    shown = [_version(study.samples[row], "picture", NEUTRAL, True) for row in rows]
    said = [_version(study.samples[row], "caption", f"{study.samples[row].caption}.", False) for row in rows]
    both = np.concatenate([study.states("picture alone", shown), study.states("caption alone", said)])
    kind, item = np.repeat([1, 0], len(rows)), np.tile(np.arange(len(rows)), 2)
    return Measured(SharedSemantics(**study.draws).fit(both, kind, np.tile(study.groups[rows], 2), item).curve_)


def _modality_cosine(study: Study) -> Measured:
    _needs_language(study)
    rows = np.flatnonzero([bool(sample.images) for sample in study.samples])
    if len(rows) < 8:
        raise DataError(f"{len(rows)} items with a picture; at least 8 are needed")
    rows = study.some(rows, FEW)
    whole = study.last[rows]
    kind, item = np.repeat([1, 0], len(rows)), np.tile(np.arange(len(rows)), 2)
    curves = {}
    for name, made in (
        ("words", [_version(study.samples[row], "words", study.samples[row].text, False) for row in rows]),
        ("picture", [_version(study.samples[row], "picture", NEUTRAL, True) for row in rows]),
    ):
        both = np.concatenate([whole, study.states(f"{name} alone", made)])
        curves[name] = ModalityCosine(True, **study.draws).fit(both, kind, np.tile(study.groups[rows], 2), item).curve_
    return Measured(curves["words"], {"modality_cosine_picture": curves["picture"]})


def _version(sample: Sample, kind: str, text: str, picture: bool) -> Sample:
    return replace(sample, id=f"{sample.id} ({kind})", text=text, images=sample.images if picture else ())


def _intrinsic_dimension(study: Study) -> Measured:
    curve = IntrinsicDimension(20, 3, random_state=study.seed).fit(study.evidence, None, study.groups).curve_
    return Measured(replace(curve, meta={**curve.meta, "no_null": "there are no labels to shuffle"}))


def _block_cka(study: Study) -> Measured:
    fitted = BlockCKA(min(study.replicates, 60), min(study.permutations, 20), random_state=study.seed)
    fitted.fit(study.evidence, None, study.groups)
    return Measured(fitted.curve_, tables={"matrix": fitted.matrix_.tolist()})


# -- expression ---------------------------------------------------------------------------------


def _lens_log_odds(study: Study) -> Measured:
    return Measured(study.located.curves["expression"])


def _refusal_lens(study: Study) -> Measured:
    def fit(states: Any, lens: Any, centred: bool) -> Curve:
        measure = RefusalLens(lens, study.evidence.refusal_ids, centred, **study.draws)
        return measure.fit(states, study.labels, study.groups).curve_

    curves = {}
    for centred in (True, False):
        curves[centred] = fit(study.last_blocks, study.lens, centred)
        if study.lens_twin is not None:
            curves[centred] = curves[centred].with_baseline("random_twin", fit(*study.lens_twin, centred))
    return Measured(curves[False], {"refusal_lens_centred": curves[True]})


def _trajectory(study: Study) -> Measured:
    study.needs_last_block()

    def fit(read: Evidence, lens: Any) -> Trajectory:
        measure = Trajectory(lens, study.evidence.refusal_ids, **study.draws)
        if read.lens_kl is None:
            return measure.fit(study.last_blocks if read is study.evidence else read, study.refused, study.groups)
        # the lens was read when the model ran; a second time would cost as much as many forwards
        found = (read.lens_log_odds, read.lens_top, read.lens_kl)
        return measure.fit_readings(read, *found, study.refused, study.groups)

    own = fit(study.evidence, study.lens)
    curve = own.curve_
    if study.lens_twin is not None:  # the twin's lens against the model's decisions
        curve = curve.with_baseline("random_twin", fit(*study.lens_twin).curve_)
    kl = replace(own.kl_curve_, meta={**own.kl_curve_.meta, "no_null": "a distance to the final distribution"})
    others = {"trajectory_log_odds": own.log_odds_curve_, "trajectory_kl": kl}
    return Measured(curve, others, {"onsets": own.onset_summary()})


# -- description --------------------------------------------------------------------------------


def _perceived_not_said(study: Study) -> Measured:
    """Excess share of items perceived and not refused, harmful over harmless, by block."""
    probe = study.located.probes["perception"]
    harmful, silent = study.labels == 1, ~study.refused

    def shares(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
        seen = (above_by_block(scores, labels, probe.fold_) & silent[:, None]).astype(float)
        with np.errstate(invalid="ignore"):
            return weighted_mean(seen, weights * labels) - weighted_mean(seen, weights * ~labels)

    one = np.ones((1, len(harmful)))
    weights = Resampling(study.groups, study.replicates, study.seed).weights().astype(float)
    null = [
        shares(scores, one, labels.astype(bool))[0]
        for scores, labels in zip(probe.null_scores_, probe.null_labels_, strict=True)
    ]
    value = shares(probe.scores_, one, harmful)[0]
    curve = curve_from_draws(
        "perceived_not_said", probe.blocks_, value, shares(probe.scores_, weights, harmful), np.stack(null),
        unit="excess share of items", n=len(harmful),
    )  # fmt: skip
    return Measured(curve)


MEASURES: tuple[MeasureSpec, ...] = (
    MeasureSpec("linear_probe", "perception", "free", "group-wise cross-validated logistic regression",
                "AUROC of a linear probe, harmful against harmless", _linear_probe, True, expected=_ALL),
    MeasureSpec("mean_difference", "perception", "cheap", MeanDifference.source,
                "AUROC of projections on the class-mean difference", _mean_difference, True, expected=_ALL),
    MeasureSpec("angular_gap", "perception", "cheap", AngularGap.source,
                "angle between normal and malicious prompts above that among normal ones", _angular_gap, True,
                expected=_ALL),
    MeasureSpec("difference_consistency", "perception", "cheap", DifferenceConsistency.source,
                "do the differences of matched pairs point one way?", _difference_consistency,
                expected=("input_embedding", "random_twin")),
    MeasureSpec("label_cka", "perception", "cheap", LabelCKA.source,
                "how much of the cloud's geometry is the labels'", _label_cka, expected=_ALL),
    MeasureSpec("probe_quality", None, "cheap", "average precision, TPR at 1 % FPR, expected calibration error",
                "the perception probe by other scores", _probe_quality, votes=False, expected=()),
    MeasureSpec("joint_probe", "semantics", "free", "linear probe on items that need picture and words together",
                "AUROC of the joint concept", _joint_probe, True, expected=_ALL),
    MeasureSpec("concept_probe", "semantics", "cheap", ConceptProbe.source,
                "accuracy of multinomial probes: joint, object, activity, property", _concept_probe, expected=_ALL),
    MeasureSpec("shared_semantics", "semantics", "forward", SharedSemantics.source,
                "is the run on a picture near the run on its own caption? (not counted: it peaks where the space is "
                "shared, whatever is understood there)", _shared_semantics, votes=False, expected=()),
    MeasureSpec("modality_cosine", "semantics", "forward", ModalityCosine.source,
                "what of the combined vector is the words' (the picture's) own; centred (not counted: it falls where "
                "modalities fuse)", _modality_cosine, votes=False, expected=()),
    MeasureSpec("lens_readability", "semantics", "cheap", LensReadability.source,
                "share of the lens's top tokens that are answer words (not counted: its null does not know frequent "
                "tokens)", _lens_readability, votes=False),
    MeasureSpec("intrinsic_dimension", None, "cheap", IntrinsicDimension.source,
                "two-nearest-neighbour dimension of the cloud", _intrinsic_dimension, votes=False, expected=()),
    MeasureSpec("block_cka", None, "cheap", BlockCKA.source,
                "debiased CKA of each block with the last", _block_cka, votes=False, expected=()),
    MeasureSpec("lens_log_odds", "expression", "free", "logit lens; refusal log-odds of arXiv 2406.11717; AUROC [own]",
                "AUROC of the lens's refusal log-odds", _lens_log_odds, True),
    MeasureSpec("refusal_lens", "expression", "cheap", RefusalLens.source,
                "refusal cosine of the lens, unsafe minus safe prompts (mean-centred beside it)", _refusal_lens, True),
    MeasureSpec("trajectory", "expression", "cheap", Trajectory.source,
                "does the lens already say what the model decides?", _trajectory, True),
    MeasureSpec("tuned_lens", "expression", "forward",
                "arXiv 2303.08112 [code]; ridge start after arXiv 2303.09435 [abs]; AUROC on held-out groups [own]",
                "the same through a lens trained on the model's own chats (not counted: a trained map turns perceived "
                "danger into words before the model does)", tuned_lens_measure, votes=False, expected=()),
    MeasureSpec("perceived_not_said", None, "free",
                "[own]: perceived by the probe and not refused; excess over harmless items and its null",
                "danger readable inside, and the model answers", _perceived_not_said, votes=False, expected=()),
)  # fmt: skip
"""Measures that read only, in the order of tables."""
