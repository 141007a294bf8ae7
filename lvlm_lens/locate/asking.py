"""Registered measures asked of one model, and each one's own reading of its role.

What a measure found is kept in a folder as soon as it is there (``NAME.safetensors``: curves with their draws, tables),
so that a run that was stopped goes on at the measure where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import LensError
from ..measures.draws import load_measured, save_measured
from ..measures.registry import MEASURES
from ..measures.spec import Measured, MeasureSpec, measure
from ..measures.study import Study
from ..stats.curve import Curve
from .roles import Role, find_role

Asked = tuple[dict[str, Measured], dict[str, str]]


def ask_measures(
    study: Study,
    names: Sequence[str],
    folder: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Asked:
    """Compute measures, or read what was kept.

    Args:
        study: the model on its data.
        names: of registered measures.
        folder: where findings are kept; ``None`` keeps nothing.
        progress: called with (done, all).

    Returns:
        What could be measured, and why the others could not, both by name.
    """
    measured: dict[str, Measured] = {}
    reasons: dict[str, str] = {}
    for number, name in enumerate(names):
        spec = MEASURES[name]
        file = None if folder is None or spec.cost == "free" else folder / f"{name}.safetensors"
        if file is not None and file.is_file():
            measured[name] = load_measured(file)
        else:
            try:
                measured[name] = measure(spec, study)
            except LensError as error:
                reasons[name] = str(error)
            else:
                if file is not None:
                    save_measured(file, measured[name])
        progress(number + 1, len(names))
    return measured, reasons


def read_role(spec: MeasureSpec, curve: Curve, study: Study) -> Role:
    """A measure's own reading of its role off its curve; where the data do not allow the role, that it is so."""
    assert spec.role is not None, f"{spec.name} speaks for no role"
    located = study.located.roles[spec.role]
    if not located.measurable:
        return located
    expected = tuple(key for key in spec.expected if study.pictures or key != "image_only")
    return find_role(spec.role, curve, expected)


def read_roles(study: Study, measured: Mapping[str, Measured]) -> dict[str, Role]:
    """:func:`read_role` of every measure that speaks for one."""
    return {
        name: read_role(MEASURES[name], found.curve, study)
        for name, found in measured.items()
        if MEASURES[name].role is not None
    }
