"""Curves with their bootstrap replicates and null draws in one safetensors file.

``result.json`` holds curves without draws (they would make it a hundred times larger); tests between runs and a
continued run need the draws, so they stand beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, LensError, RunFolderError
from ..stats.curve import Curve
from ..storage.arrays import load_arrays, save_arrays
from .spec import Measured

_DRAWS = ("replicates", "null_draws")


def save_curves(path: Path, curves: Mapping[str, Curve], about: Any = None) -> None:
    """Write curves by name, and a JSON-ready value ``about``; the file is whole under its name or not there."""
    arrays: dict[str, np.ndarray] = {"format": np.asarray([1])}
    for name, curve in curves.items():
        for kind in _DRAWS:
            drawn = getattr(curve, kind)
            if drawn is not None:
                arrays[f"{name}/{kind}"] = drawn
        for key in ("replicates", "null") if curve.best is not None else ():
            drawn = getattr(curve.best, key)
            if drawn is not None:
                arrays[f"{name}/best/{key}"] = drawn
        if curve.rise is not None:
            arrays[f"{name}/rise"] = curve.rise.draws
        for key, baseline in curve.baselines.items():
            if baseline.replicates is not None:
                arrays[f"{name}/baseline/{key}"] = baseline.replicates
    plain = {name: curve.without_draws().to_dict() for name, curve in curves.items()}
    save_arrays(path, arrays, {"curves": json.dumps(plain), "about": json.dumps(about)})


def load_curves(path: Path) -> tuple[dict[str, Curve], Any]:
    """Read what :func:`save_curves` wrote: curves with their draws, and ``about``.

    Raises:
        DataError: the file is none of these.
    """
    try:
        arrays, about = load_arrays(path)
        plain, told = json.loads(about["curves"]), json.loads(about["about"])
    except (RunFolderError, KeyError, ValueError, RecursionError) as error:
        raise DataError(f"{path} holds no curves with their draws ({error}); remove it and run again") from error
    try:
        return {name: _with_draws(name, Curve.from_dict(data), arrays) for name, data in plain.items()}, told
    except (AttributeError, KeyError, TypeError, ValueError, LensError) as error:
        raise DataError(f"{path} holds damaged curves ({error}); remove it and run again") from error


def _with_draws(name: str, curve: Curve, arrays: Mapping[str, np.ndarray]) -> Curve:
    baselines = {
        key: replace(baseline, replicates=arrays.get(f"{name}/baseline/{key}"))
        for key, baseline in curve.baselines.items()
    }
    replicates, null = (arrays.get(f"{name}/{kind}") for kind in _DRAWS)
    drawn = {key: arrays.get(f"{name}/best/{key}") for key in ("replicates", "null")}
    best = curve.best and replace(curve.best, replicates=drawn["replicates"], null=drawn["null"])
    rise = curve.rise and replace(curve.rise, draws=arrays.get(f"{name}/rise", curve.rise.draws))
    return replace(curve, baselines=baselines, replicates=replicates, null_draws=null, best=best, rise=rise)


def save_measured(path: Path, found: Measured) -> None:
    """Write a measure's curve, its other curves and its tables."""
    save_curves(path, {"curve": found.curve, **found.others}, {"tables": found.tables})


def load_measured(path: Path) -> Measured:
    """Read what :func:`save_measured` wrote."""
    curves, about = load_curves(path)
    return Measured(curves.pop("curve"), curves, about["tables"])
