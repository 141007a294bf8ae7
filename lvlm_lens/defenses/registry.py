"""Defences by name, for the command line and for sweeps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import UsageError, near_matches
from ..lens import LVLM
from ..models.adapters import is_adapter
from ..plugins import announced
from ..train.folder import RECORD, read_training
from ..train.registry import make_method
from .base import Defense
from .coca import CoCA
from .detectors import NEARSIDE, FirstTokenProbe, RefusalDirection, SafetyHeads, VLMGuard
from .ecso import ECSO
from .hiddendetect import HiddenDetect
from .prompting import AdaShieldS, SafetyPrompt, SelfReminder
from .safevlm import SafeVLMDefense
from .sasa import SASA
from .shiftdc import ShiftDC
from .sia import SIA
from .ssui_icl import SSUIInContext
from .trained import Trained

DEFENSES: dict[str, type[Defense]] = {
    kind.name: kind
    for kind in (
        SASA,
        FirstTokenProbe,
        HiddenDetect,
        NEARSIDE,
        VLMGuard,
        SafetyHeads,
        RefusalDirection,
        SafetyPrompt,
        SelfReminder,
        AdaShieldS,
        SSUIInContext,
        SIA,
        ECSO,
        CoCA,
        ShiftDC,
    )
}
"""Every defence of this package by name."""

TRAINED: dict[str, type[Trained]] = {"safevlm": SafeVLMDefense}
"""Training methods whose defence is more than the model with the adapter on."""


def every_defense() -> dict[str, type[Defense]]:
    """Every defence by name; a name of ours always means ours."""
    return {**announced("lvlm_lens.defenses"), **DEFENSES}


def make_defense(name: str, **options: Any) -> Defense:
    """A defence by name with its constructor's options.

    Raises:
        UsageError: no such defence (with near matches), or an option it does not have.
    """
    key = name.strip().lower().replace("-", "_")
    every = every_defense()
    if key not in every and Path(name.strip()).expanduser().is_dir():
        raise UsageError(
            f"folder {name.strip()!r} holds no trained defence: neither a finished training nor a PEFT adapter; a "
            "training that was stopped there is finished by the same `lvlm-lens train` command"
        )
    if key not in every:
        raise UsageError(f"no defence {name!r}; there are: {', '.join(every)}{near_matches(key, every)}")
    known = every[key]().get_params(deep=False)
    for option in options:
        if option not in known:
            raise UsageError(
                f"defence {key!r} has no option {option!r}; it has {', '.join(known)}{near_matches(option, known)}"
            )
    return every[key](**options)


def make_defenses(names: str | Iterable[str | Defense], model: LVLM | None = None) -> list[Defense]:
    """Defences from ``"a,b"``, ``"all"`` or a list; ``all`` leaves out those that ``model`` cannot take.

    A word that is the folder of a training (or of a PEFT adapter) is the defence that was trained there.

    Raises:
        UsageError: an unknown name, or none at all.
    """
    items: list[str | Defense] = list(names.split(",")) if isinstance(names, str) else list(names)
    made: list[Defense] = []
    for item in items:
        if isinstance(item, Defense):
            made.append(item)
        elif item.strip().lower() == "all":
            every = [kind() for kind in every_defense().values()]
            made += [d for d in every if model is None or model.takes_images or "pictures" not in d.needs]
        elif item.strip() and item.strip().lower().replace("-", "_") not in DEFENSES and is_trained(item.strip()):
            made.append(trained_defense(item.strip()))
        elif item.strip():
            made.append(make_defense(item))
    if not made:
        raise UsageError(f"no defence was named; there are: {', '.join(DEFENSES)}, or all")
    return made


def is_trained(word: str) -> bool:
    """Whether a word on the command line is a folder of a training or of an adapter."""
    path = Path(word).expanduser()
    return path.is_dir() and (is_adapter(path) or (path / RECORD).is_file())


def trained_defense(folder: str | Path) -> Defense:
    """The defence that a folder is: its method's own, or the adapter alone."""
    path = Path(folder).expanduser()
    if not (path / RECORD).is_file():
        return Trained(str(folder))
    method = read_training(path).method
    own = TRAINED[method](str(folder)) if method in TRAINED else make_method(method).defense(path)
    assert own is None or isinstance(own, Defense)
    return Trained(str(folder)) if own is None else own
