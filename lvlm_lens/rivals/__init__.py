"""Rival claims about where safety lives, each by its own published procedure, on one model and one data set.

:mod:`.readings` reads once what the procedures need; :mod:`.procedures` and :mod:`.newer` hold one function a claim;
:mod:`.bench` runs them beside each other with intervals and shuffled labels; :mod:`.planted` asks the same of models
whose answer is known by construction.  ``lvlm-lens rivals`` is the command.
"""

from .bench import run_rivals
from .registry import NOT_FOUND, PROCEDURES

__all__ = ["NOT_FOUND", "PROCEDURES", "run_rivals"]
