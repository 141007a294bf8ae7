"""One file a kind of run: from the plain results in its folder to the sections of a page.

A kind is told by the file that its command writes last.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import RunFolderError
from ..folder import ReportFolder
from ..parts import Page
from . import adapter, compare, evaluate, patch, reproduce, sasa, selftest, sweep, train

VIEWS: dict[str, tuple[str, Callable[[ReportFolder], Page]]] = {
    "result.json": ("sweep or locate", sweep.page),
    "evaluation.json": ("evaluate", evaluate.page),
    "sasa.json": ("sasa", sasa.page),
    "comparison.json": ("compare", compare.page),
    "reproduced.json": ("reproduce", reproduce.page),
    "selftest.json": ("selftest", selftest.page),
    "adapter.json": ("patch", adapter.page),
    "cells.csv": ("patch", patch.page),
    "training.json": ("train", train.page),
}
"""By the file that marks a finished run: its command and its view."""


def view_of(folder: ReportFolder) -> Page:
    """The page of whatever kind of run the folder holds.

    Raises:
        RunFolderError: no finished run is there, or a file lacks what its kind holds.
    """
    found = VIEWS if folder.only is None else {folder.only: ("selftest", lambda f: selftest.page(f, str(f.only)))}
    for name, (command, view) in found.items():
        if folder.file(name) is None:
            continue
        try:
            return view(folder)
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise RunFolderError(
                f"{name} in {str(folder.path)!r} is not what `lvlm-lens {command.split()[0]}` writes ({what}); "
                "run the command again, or remove the file"
            ) from error
    begun = "; a run was begun there: the same command continues it" if folder.file("run.json") is not None else ""
    raise RunFolderError(
        f"{str(folder.path)!r} holds no finished run (none of {', '.join(VIEWS)}){begun}. "
        "Give the folder that sweep, locate, patch, sasa, evaluate, compare, reproduce, selftest or train wrote"
    )
