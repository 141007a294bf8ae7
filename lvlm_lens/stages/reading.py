"""Second stage: evidence of the model, its twin and its backbone, in shards that survive a kill."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..activations.loop import Progress, first_reasons
from ..config import SweepConfig, parse_blocks
from ..data import Dataset, Sample
from ..errors import DataError, LensError
from ..lens import LVLM
from ..locate.evidence import Evidence, gather
from ..locate.locating import group_names, harm_labels, quadrant_table
from ..locate.probe import LinearProbe
from ..models.loading import BACKBONES
from ..progress import each
from .work import Work

SHARD = 128
"""Samples in one shard of evidence: what a killed run can lose."""


def gather_resumable(
    model: LVLM,
    data: Dataset,
    folder: Path,
    config: SweepConfig,
    on_error: Callable[[Sample, LensError], None],
    progress: Progress = lambda done, total: None,
) -> Evidence:
    """:func:`~lvlm_lens.locate.evidence.gather` in shards that stay in the run folder."""
    blocks = parse_blocks(config.blocks, model.n_blocks)
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Evidence] = []
    reasons: list[str] = []
    for start in each(range(0, len(data), SHARD)):
        part = data[start : start + SHARD]
        file = folder / f"{start:07d}.safetensors"
        bad = folder / f"{start:07d}.errors.json"
        if not file.is_file():
            failed: list[tuple[str, str]] = []

            def note(sample: Sample, error: LensError, failed: list[tuple[str, str]] = failed) -> None:
                failed.append((sample.id, str(error)))

            try:
                gather(
                    model,
                    part,
                    config.positions,
                    blocks,
                    config.batch_size,
                    None if config.strict else note,
                    lambda done, _all, start=start: progress(start + done, len(data)),  # type: ignore[misc]
                ).save(file)
            except LensError:
                if len(failed) < len(part):
                    raise
            bad.write_text(json.dumps(failed), encoding="utf-8")
        progress(min(start + SHARD, len(data)), len(data))
        if bad.is_file():
            for sample_id, reason in json.loads(bad.read_text(encoding="utf-8")):
                reasons.append(reason)
                on_error(data[sample_id], DataError(reason))
        if file.is_file():
            shards.append(Evidence.load(file, part))
    if not shards:
        raise DataError(f"none of the {len(data)} samples could be read: {first_reasons(reasons)}")
    return Evidence.concatenate(shards)


def reading_work(items: int, twin: bool, in_words: int, backbone: bool) -> dict[str, Work]:
    """Reading the model, its twin, and the ``in_words`` items said in words (by the model, and by the backbone)."""
    readers = (1 + int(backbone)) if in_words else 0
    return {
        "reading the model": Work(rows=items),
        "reading the twin": Work(rows=items if twin else 0),
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
    items = [sample for sample in data if sample.images and sample.text_only is not None and sample.harmful is not None]
    if len({sample.harmful for sample in items}) < 2:
        return None
    in_words = Dataset([sample.without_images() for sample in items], data.name)
    by_id = {sample.id: sample for sample in items}
    found: dict[str, Any] = {"items": len(items), "name": name}
    readers = {"lvlm_in_words": model}
    if name is not None:
        readers["backbone"] = LVLM.from_pretrained(name, dtype=config.dtype, device=str(model.device))
        readers["backbone"].encoder.special_tokens = config.special_tokens
    for which, reader in readers.items():
        evidence = evidence_of(which, reader, in_words)
        probe = LinearProbe(
            folds=config.folds, permutations=20, replicates=config.replicates, random_state=config.seed
        ).fit(evidence, harm_labels(evidence.samples), group_names(evidence.samples), f"perception, {which}")
        perceived = probe.scores_[:, probe.curve_.blocks.index(probe.curve_.peak)] > 0
        shown = [by_id[sample.id] for sample in evidence.samples]
        found[which] = {
            "quadrants": quadrant_table(shown, perceived, evidence.log_odds > 0),
            "curve": probe.curve_.without_draws().to_dict(),
        }
    return found
