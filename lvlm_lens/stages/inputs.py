"""First stage: the model and the data, checked against each other, and what makes a run this run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from ..config import SweepConfig
from ..data import Dataset, Sample
from ..data.registry import load_dataset
from ..errors import DataError, LensError
from ..locate.locating import harm_labels
from ..models.lvlm import LVLM
from ..provenance import dataset_hash


def limited(data: Dataset, limit: int | None, seed: int) -> Dataset:
    """At most ``limit`` samples, whole groups at a time, the same ones for the same seed, in their order."""
    if limit is None or limit >= len(data):
        return data
    groups: dict[str, list[Sample]] = {}
    for sample in data:
        groups.setdefault(sample.group or f"id:{sample.id}", []).append(sample)
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    kept: set[str] = set()
    for name in names:
        if len(kept) + len(groups[name]) <= limit:
            kept.update(sample.id for sample in groups[name])
    return data.filter(lambda sample: sample.id in kept)


def load_inputs(config: SweepConfig, need_labels: bool = True) -> tuple[LVLM, Dataset]:
    """The model and the data of a configuration, checked against each other.

    ``need_labels`` asks for harmful and harmless items both.
    """
    data = load_dataset(
        config.dataset,
        root=config.root,
        split=config.split,
        subset=config.subset,
        strict=config.strict,
        **dict(config.columns),  # type: ignore[arg-type]
    )
    data = limited(data, config.limit, config.seed)
    if not len(data):
        raise DataError(f"data set {config.dataset!r} gave no usable sample; {_listed(data.problems)}")
    labels = harm_labels(data.samples)
    if need_labels and len(set(labels[labels >= 0].tolist())) < 2:
        raise DataError(
            f"data set {config.dataset!r} has one class only ({int((labels == 1).sum())} harmful, "
            f"{int((labels == 0).sum())} harmless of {len(data)} items); locating needs both"
        )
    model = LVLM.from_pretrained(config.model, device=config.device or best_device(), **config.loading)
    if not model.takes_images and any(sample.images for sample in data):
        data = Dataset([sample.without_images() for sample in data], data.name, data.problems, data.notes)
    return model, data


def best_device() -> str:
    """``cuda`` where there is one, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _listed(problems: Sequence[Any]) -> str:
    return "; ".join(str(problem) for problem in problems[:3]) or "it is empty"


_FREE = ("out", "batch_size", "device", "device_map", "measures")
"""Settings that change where and how fast a run goes, or what more is measured, not what each measure finds."""


def run_identity(schema: str, config: SweepConfig, model: LVLM, data: Dataset) -> dict[str, Any]:
    """What must be equal for a folder to be continued: settings, weights, data, dtype."""
    settings = {name: value for name, value in config.to_dict().items() if name not in _FREE}
    return {
        "schema": schema,
        "settings": settings,
        "weights_hash": model.weights_hash(),
        "dataset_hash": dataset_hash(_readable(data)),
        "dtype": str(model.dtype),
    }


def _readable(data: Dataset) -> Iterator[Sample]:
    """Samples with pictures that are there; a broken one is reported later, by name, not here."""
    for sample in data:
        try:
            for source in sample.images:
                _ = source.key
        except LensError:
            continue
        yield sample


def describe_data(config: SweepConfig, data: Dataset, broken: dict[str, str]) -> dict[str, Any]:
    """The data set as the result names it: counts, hash, and every record that was left out."""
    problems = [str(problem) for problem in data.problems]
    problems += [f"{sample_id}: {reason}" for sample_id, reason in sorted(broken.items())]
    summary = data.summary()
    summary |= {
        "name": config.dataset,
        "hash": dataset_hash(_readable(data)),
        "harmful": int((harm_labels(data.samples) == 1).sum()),
        "harmless": int((harm_labels(data.samples) == 0).sum()),
        "pairs": len(data.pairs()),
        "problems": len(problems),
        "problem_list": problems,
        "notes": list(data.notes),
    }
    return summary
