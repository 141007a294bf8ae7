"""First stage: the model and the data, checked against each other, and what makes a run this run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..activations.loop import first_reasons
from ..config import SweepConfig
from ..data import Dataset, Sample
from ..data.dataset import Problem
from ..data.matching import balanced
from ..data.registry import load_dataset
from ..errors import DataError, LensError, context
from ..lens import LVLM
from ..measures.items import harm_labels
from ..measures.nuisance import nuisance_features
from ..models.loading import source
from ..provenance import dataset_hash
from ..storage.runfolder import RunFolder


def load_inputs(config: SweepConfig, need_labels: bool = True) -> tuple[LVLM, Dataset]:
    """The model and the data of a configuration, checked against each other.

    ``need_labels`` asks for harmful and harmless items both.
    """
    data = load_dataset(
        config.dataset,
        root=config.root,
        split=config.split,
        subset=config.subset,
        limit=config.limit,
        seed=config.seed,
        strict=config.strict,
        **dict(config.columns),  # type: ignore[arg-type]
    )
    if not len(data):
        raise DataError(f"data set {config.dataset!r} gave no usable sample; {left_out(data) or 'it is empty'}")
    labels = harm_labels(data.samples)
    if need_labels and len(set(labels[labels >= 0].tolist())) < 2:
        raise DataError(
            f"{left_out(data, '; ')}data set {config.dataset!r} has one class only ({int((labels == 1).sum())} "
            f"harmful, {int((labels == 0).sum())} harmless of {len(data)} items); locating needs both"
        )
    if config.backbone is not None:
        source(config.backbone)  # a name that is nothing is said now, not when the model has been read
    model = LVLM.from_pretrained(config.model, device=config.device or best_device(), **config.loading)
    model.encoder.special_tokens = config.special_tokens
    if not model.takes_images:
        data = in_words_only(data, config.strict)
    if config.match == "nuisance":
        tokens = np.array([len(model.encoder.tokenizer(sample.text)["input_ids"]) for sample in data])
        data = balanced(data, nuisance_features(data.samples, tokens), "length, picture size and brightness")
    escaped = [sample.id for sample in data if model.encoder.special.find(sample.text)]
    if escaped and config.special_tokens == "escape":
        note = f"special tokens were escaped in {len(escaped)} samples, e.g. {escaped[:3]}"
        data = Dataset(data, data.name, data.problems, [*data.notes, note])
    return model, data


def in_words_only(data: Dataset, strict: bool = False) -> Dataset:
    """The data for a model that takes text only: pictures said in words, items without such words left out by name."""
    kept, problems = [], list(data.problems)
    for sample in data:
        try:
            kept.append(sample.without_images())
        except DataError as error:
            if strict:
                raise
            problems.append(Problem(sample.id, f"{error}, and the model takes text only"))
    made = Dataset(kept, data.name, problems, data.notes)
    if not kept:
        raise DataError(f"data set {data.name!r} has nothing for a model that takes text only; {left_out(made)}")
    return made


@contextmanager
def naming_left_out(data: Dataset) -> Iterator[None]:
    """Put what was left out before any error raised inside: too few samples of a class have a reason."""
    if not data.problems:
        yield
        return
    with context(left_out(data)):
        yield


def left_out(data: Dataset, end: str = "") -> str:
    """How many records were left out and the first three reasons, or nothing; ``end`` follows where there is a text."""
    if not data.problems:
        return ""
    total = len(data) + len(data.problems)
    reasons = first_reasons(str(problem) for problem in data.problems)
    return f"{len(data.problems)} of {total} records were left out ({reasons}){end}"


def best_device() -> str:
    """``cuda`` where there is one, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


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


def claim_folder(folder: Path, schema: str, config: SweepConfig, model: LVLM, data: Dataset) -> RunFolder:
    """The run folder, made this run's own; one made before an option existed was made with the option's default."""
    home = RunFolder(folder)
    home.claim(run_identity(schema, config, model, data), SweepConfig().to_dict())
    return home


def _readable(data: Dataset) -> Iterator[Sample]:
    """Samples with pictures that are there; a broken one is reported later, by name, not here."""
    for sample in data:
        try:
            for source in sample.images:
                _ = source.key
        except LensError:
            continue
        yield sample


def without_broken(data: Dataset, broken: Mapping[str, str]) -> Dataset:
    """The samples that the model could read; the others become problems, by id and reason."""
    found = [Problem(sample_id, reason) for sample_id, reason in sorted(broken.items())]
    return Dataset(
        [sample for sample in data if sample.id not in broken], data.name, [*data.problems, *found], data.notes
    )


def describe_data(config: SweepConfig, data: Dataset, broken: Mapping[str, str]) -> dict[str, Any]:
    """The data set as the result names it: what was read of it, the hash of all, and every record that was left out."""
    everything = without_broken(data, broken)
    problems = [str(problem) for problem in everything.problems]
    summary = everything.summary()
    summary |= {
        "name": config.dataset,
        "hash": dataset_hash(_readable(data)),
        "harmful": int((harm_labels(everything.samples) == 1).sum()),
        "harmless": int((harm_labels(everything.samples) == 0).sum()),
        "pairs": len(everything.pairs()),
        "problems": len(problems),
        "left_out": left_out(everything),
        "problem_list": problems,
        "notes": list(data.notes),
    }
    return summary
