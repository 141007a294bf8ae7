"""Second stage: evidence of the model, its twin and its backbone, in shards that survive a kill."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..activations.loop import Progress, first_reasons
from ..config import SweepConfig, parse_blocks
from ..data import Dataset, Sample
from ..errors import DataError, LensError, ModelError, context
from ..lens import LVLM
from ..locate.locating import quadrant_table
from ..machine import give_back
from ..measures.evidence import Evidence, gather
from ..measures.items import group_names, harm_labels
from ..measures.linear_probe import LinearProbe
from ..measures.unembedding import Unembedding, twin_lens
from ..models.loading import BACKBONES
from ..models.placement import off_its_device
from ..progress import each
from ..stats.threshold import above_threshold
from ..storage.pieces import Pieces
from .stage import Plan, Run, Stage
from .work import Work

SHARD = 128
"""Samples in one shard of evidence: what a killed run can lose."""


IN_WORDS = ("lvlm_in_words", "backbone")
"""Who reads the items in words: for perception and the refusal, so without the lens."""


def shards_of(data: Dataset) -> list[int]:
    """Where each shard begins."""
    return list(range(0, len(data), SHARD))


def shard_name(start: int) -> str:
    """The piece of a shard."""
    return f"{start:07d}"


def read_shard(
    model: LVLM,
    data: Dataset,
    folder: Path,
    config: SweepConfig,
    start: int,
    progress: Progress | None = None,
    lens: bool = True,
) -> None:
    """Read the samples of one shard and keep them in ``folder``, with the reasons of those that cannot be read."""
    part = data[start : start + SHARD]
    failed: list[tuple[str, str]] = []
    arrays: dict[str, Any] = {}
    facts: dict[str, Any] = {}

    def note(sample: Sample, error: LensError) -> None:
        failed.append((sample.id, str(error)))

    try:
        arrays, facts = gather(
            model,
            part,
            config.positions,
            parse_blocks(config.blocks, model.n_blocks),
            config.batch_size,
            None if config.strict else note,
            None if progress is None else lambda done, _all: progress(start + done, len(data)),
            lens,
        ).to_arrays()
    except LensError:
        if len(failed) < len(part):
            raise
    Pieces(folder).put(shard_name(start), arrays, {**facts, "failed": failed})


def gather_resumable(
    model: LVLM,
    data: Dataset,
    folder: Path,
    config: SweepConfig,
    on_error: Callable[[Sample, LensError], None],
    progress: Progress = lambda done, total: None,
    lens: bool = True,
) -> Evidence:
    """:func:`~lvlm_lens.measures.evidence.gather` in shards that stay in the run folder."""
    pieces = Pieces(folder)
    shards: list[Evidence] = []
    reasons: list[str] = []
    for start in each(shards_of(data)):
        kept = pieces.get(shard_name(start))
        if kept is None:
            read_shard(model, data, folder, config, start, progress, lens)
            kept = pieces.get(shard_name(start))
            assert kept is not None
        progress(min(start + SHARD, len(data)), len(data))
        for sample_id, reason in kept.facts["failed"]:
            reasons.append(reason)
            on_error(data[sample_id], DataError(reason))
        if kept.arrays:
            shards.append(Evidence.from_arrays(kept.arrays, kept.facts["ids"], data[start : start + SHARD]))
    if not shards:
        raise DataError(f"none of the {len(data)} samples could be read: {first_reasons(reasons)}")
    return Evidence.concatenate(shards)


def items_in_words(data: Dataset) -> list[Sample]:
    """Labelled items with a picture that can also be said in words, in the order of ``data``."""
    return [sample for sample in data if sample.images and sample.text_only is not None and sample.harmful is not None]


def said_in_words(data: Dataset) -> Dataset:
    """The same items without their pictures."""
    return Dataset([sample.without_images() for sample in items_in_words(data)], data.name)


def load_backbone(config: SweepConfig, device: str) -> LVLM | None:
    """The language-only backbone of a run, or ``None`` where the model has none that is known."""
    name = config.backbone or BACKBONES.get(config.model)
    if name is None:
        return None
    backbone = LVLM.from_pretrained(name, dtype=config.dtype, device=device)
    backbone.encoder.special_tokens = config.special_tokens
    return backbone


def reading_work(items: float, shuffled: int, in_words: float, backbone: bool) -> dict[str, Work]:
    """Reading the model, its twin, and items said in words (by the model, and by the backbone).

    ``items`` and ``in_words`` count whole prompts: one that is read over the keys of a shared beginning counts
    for its part, and one in words for its length.  ``shuffled`` are the weights of the twin, 0 where none is made.
    """
    readers = (1 + int(backbone)) if in_words else 0
    return {
        "reading the model": Work(rows=items),
        "reading the twin": Work(rows=items if shuffled else 0, shuffled=shuffled),
        "reading items in words": Work(rows=readers * in_words),
    }


def locating_work(blocks: int, twin: bool, joint: bool, readers: int) -> Work:
    """Probes of perception and, where it can be measured, semantics: each with null, twin and scalar baselines."""
    curves = 1 + int(joint)
    plain = curves * (3 + (blocks if twin else 0))
    return Work(probes=curves * blocks + 0.4 * readers * blocks, probes_plain=plain)  # readers: 20 shuffles, not 50


def read_backbone(
    config: SweepConfig, model: LVLM, data: Dataset, evidence_of: Callable[[str, LVLM, Dataset], Evidence]
) -> dict[str, Any] | None:
    """The same items said in words: read by the language-only backbone, and by the LVLM itself.

    Returns ``None`` where no item has a version in words; else for each reader its ``quadrants``
    (of the item *with* its picture: shares perceived and refused) and its perception ``curve``.
    """
    name = config.backbone or BACKBONES.get(config.model)
    items = items_in_words(data)
    if len({sample.harmful for sample in items}) < 2:
        return None
    in_words = said_in_words(data)
    by_id = {sample.id: sample for sample in items}
    found: dict[str, Any] = {"items": len(items), "name": name}

    def read(which: str, reader: LVLM) -> None:
        evidence = evidence_of(which, reader, in_words)
        probe = LinearProbe(folds=config.folds, permutations=20, replicates=config.replicates, random_state=config.seed)
        labels, groups = harm_labels(evidence.samples), group_names(evidence.samples)
        probe.fit(evidence, labels, groups, f"perception, {which}", whole=False)
        perceived = above_threshold(probe.scores_, probe.labels_, probe.fold_)
        shown = [by_id[sample.id] for sample in evidence.samples]
        found[which] = {
            "quadrants": quadrant_table(shown, perceived, evidence.log_odds > 0),
            "curve": probe.curve_.without_draws().to_dict(),
        }

    read("lvlm_in_words", model)
    device = str(model.device)
    with off_its_device(model.model):  # one model on the device at a time
        backbone = load_backbone(config, device)
        if backbone is not None:
            read("backbone", backbone)
        del backbone
        gc.collect()  # its modules and hooks name one another
    return found


@dataclass(frozen=True)
class Read:
    """Evidence of the model and its twin, the twin's lens, and the items said in words."""

    evidence: Evidence
    twin: Evidence | None
    lens_of_twin: Unembedding | None
    backbone: dict[str, Any] | None


class Reading(Stage):
    """Evidence of the model, its random-weight twin and its backbone; continued at the shard where it was stopped."""

    name = "reading"
    parts = ("backbone",)

    def cost(self, plan: Plan) -> Mapping[str, Work]:
        """Forwards over all items."""
        in_words = 0.0
        if plan.in_words:
            in_words = plan.in_words * plan.share_of_words * plan.share_in_parts(said_in_words(plan.data).samples)
        items = len(plan.data) * plan.share_in_parts(plan.data.samples)
        weights = sum(weight.numel() for weight in plan.model.model.parameters())
        return reading_work(items, weights if plan.settings.twin else 0, in_words, plan.backbone)

    def run(self, run: Run) -> Mapping[str, Any]:
        """Read, or continue."""
        settings = replace(run.settings, batch_size=run.batch_size)

        def evidence_of(which: str, subject: LVLM, items: Dataset) -> Evidence:
            def on_error(sample: Sample, error: LensError) -> None:
                run.broken.setdefault(sample.id, str(error) if which == "model" else f"{which}: {error}")

            with run.timed(f"gather_{which}"), context(which):
                found = gather_resumable(
                    subject, items, run.folder / "activations" / which, settings, on_error,
                    lambda done, total: run.progress(f"reading the {which}", done, total),
                    which not in IN_WORDS,
                )  # fmt: skip
            give_back()  # before the weights are put into another order, or another model is loaded
            return found

        evidence = evidence_of("model", run.model, run.data)
        twin = lens_of_twin = None
        if settings.twin:
            try:
                with run.model.random_twin(run.seed) as shuffled:
                    twin, lens_of_twin = evidence_of("twin", shuffled, run.data), twin_lens(shuffled)
            except ModelError as error:  # quantised weights have none; the roles then say that they were not compared
                run.notes.append(f"random-weight twin: not made: {error}")
        backbone = read_backbone(settings, run.model, run.data, evidence_of)
        if backbone is None and settings.backbone is not None:
            run.notes.append(
                f"backbone {settings.backbone!r} was not read: no items of both labels have a picture and the same "
                "request in words (column text_only)"
            )
        run.found[self.name] = Read(evidence, twin, lens_of_twin, backbone)
        return {"backbone": backbone}
