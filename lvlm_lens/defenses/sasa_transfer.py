"""Where else SASA's probe is scored than where it was fitted: harm shown in pictures, another data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data import Dataset
from ..data.groups import groups_of
from ..data.limits import limited_rows
from ..errors import DataError
from ..lens import LVLM
from ..stats.resampling import Resampling
from .extraction import Extracted, extract
from .projection import Cell
from .sasa import SASA
from .sasa_map import Split, make_split, paired_gain, with_interval
from .tuned import TunedProbe

REFERENCE, MAIN = "no_projection", "sasa"


def _transfer_row(split: Split, sasa: np.ndarray, reference: np.ndarray, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "n_train": len(split.train),
        "n_test": len(split.test),
        "sasa": with_interval(split, sasa),
        "plain": with_interval(split, reference),
        "gain": paired_gain(split, sasa, reference),
    }


def conveyed_row(
    model: LVLM,
    split: Split,
    cell: Cell,
    made: Extracted,
    template: SASA,
    rows: dict[str, np.ndarray],
    replicates: int,
) -> dict[str, Any]:
    """Fit where words convey the harm, score where the picture does.

    Where items have a version in words alone, training items are taken so; else items whose words are labelled
    unsafe are trained on and items whose words are labelled safe are tested on.
    """
    name = "text-conveyed to image-conveyed harm"
    pictured = [i for i, s in enumerate(split.test) if s.images and s.label_text != "unsafe"]
    if not pictured or len(np.unique(split.y_test[pictured])) < 2:
        return {"name": name, "reason": "the test part has no harmful and harmless samples with pictures"}
    spoken = [s.without_images() for s in split.train if s.images and s.text_only is not None]
    try:
        if len(spoken) >= 10:
            how = "training items in words alone (text_only)"
            part = make_split(spoken, [split.test[i] for i in pictured], replicates, int(template.random_state))
            words = extract(model, spoken, [cell], template.features, template.batch_size, engine=made.engine)  # type: ignore[arg-type]
            train = {MAIN: words.cells[cell], REFERENCE: words.plain}
        else:
            how = "training items whose words are labelled unsafe, with all harmless ones"
            keep = [i for i, s in enumerate(split.train) if not s.harmful or s.label_text == "unsafe"]
            part = make_split(
                [split.train[i] for i in keep],
                [split.test[i] for i in pictured],
                replicates,
                int(template.random_state),
            )
            train = {key: split.parts(rows[key])[0][keep] for key in (MAIN, REFERENCE)}
    except DataError as error:
        return {"name": name, "reason": str(error)}
    groups = groups_of(part.train)
    scores = {
        key: TunedProbe()
        .fit(train[key], part.y_train, groups, int(template.random_state))
        .decision_function(split.parts(rows[key])[1][pictured])
        for key in (MAIN, REFERENCE)
    }
    return {**_transfer_row(part, scores[MAIN], scores[REFERENCE], name), "how": how}


def other_set_row(
    model: LVLM,
    other: Dataset,
    cell: Cell,
    made: Extracted,
    template: SASA,
    fitted: dict[str, TunedProbe],
    n_test: int | None,
    replicates: int,
) -> dict[str, Any]:
    """Score the fitted probes on another data set."""
    name = f"to {other.name}"
    known = [sample for sample in other if sample.harmful is not None]
    if not known or len({sample.harmful for sample in known}) < 2:
        return {"name": name, "reason": "it has no harmful and harmless labelled samples"}
    test = [known[i] for i in limited_rows(known, n_test, int(template.random_state))]
    seen = extract(model, test, [cell], template.features, template.batch_size, engine=made.engine)  # type: ignore[arg-type]
    y = np.array([int(sample.harmful or 0) for sample in test])
    part = Split(
        [], test, np.empty(0), y, Resampling(groups_of(test), replicates, int(template.random_state)).weights()
    )
    return _transfer_row(
        part,
        fitted[MAIN].decision_function(seen.cells[cell]),
        fitted[REFERENCE].decision_function(seen.plain),
        name,
    )
