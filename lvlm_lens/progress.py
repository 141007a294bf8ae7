"""How far a long piece of work is: said by whoever does it, heard by whoever watches.

A loop ten calls deep (the passes of SASA, answers, verdicts, the splits of a contest) needs no callback through ten
signatures: it says :func:`step`, and the command line, which listens, moves the bar of the stage that is open.  Where
nobody listens nothing happens.  Parts nest: inside ``part(0.2, 0.6)`` a step of 1 of 2 stands for 0.4 of the stage, so
that an inner loop never throws the bar of an outer one back.

    >>> seen = []
    >>> with listening(lambda stage, done, total, what="": seen.append(done)):
    ...     with stage("two systems"):
    ...         for name in each(["plain", "guarded"]):
    ...             with part(0.5, 1.0, "answers"):
    ...                 step(1, 2)
    >>> seen  # thousandths: the first system from 0 to 500, its answers from 250 to 500
    [0, 0, 250, 375, 500, 500, 500, 750, 875, 999, 999, 1000]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

Tell = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""
SHARES = 1000
"""The total that a stage told in shares is told with."""
T = TypeVar("T")


class Listener(Protocol):
    """Whoever watches: called with the stage, done, total (0: not known), and what is being done just now."""

    def __call__(self, stage: str, done: int, total: int, what: str = "") -> None:
        """Hear it."""


@dataclass(frozen=True)
class _Place:
    """Where in a stage the work is: it fills the stage from ``low`` to ``high``."""

    stage: str
    low: float = 0.0
    high: float = 1.0
    what: str = ""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_place: ContextVar[_Place | None] = ContextVar("place", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Everything said inside goes to ``listener``."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """Everything said inside goes to a plain callback, unless somebody listens already."""
    if _listener.get() is not None:
        yield
        return

    def hear(stage: str, done: int, total: int, what: str = "") -> None:
        tell(stage, done, total)

    with listening(hear):
        yield


@contextmanager
def _at(place: _Place) -> Iterator[None]:
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A stage with a bar of its own; inside another stage it is a part of that one."""
    outer, listener = _place.get(), _listener.get()
    if outer is not None or listener is None:
        yield
        return
    listener(name, 0, 0)
    with _at(_Place(name)):
        yield
        listener(name, SHARES, SHARES)


@contextmanager
def part(low: float, high: float, what: str = "") -> Iterator[None]:
    """What is done inside fills the open stage (or part) from ``low`` to ``high``, both between 0 and 1."""
    outer = _place.get()
    if outer is None:
        yield
        return
    wide = outer.high - outer.low
    said = ": ".join(word for word in (outer.what, what) if word)
    with _at(replace(outer, low=outer.low + low * wide, high=outer.low + high * wide, what=said)):
        step(0, 1)
        yield
        step(1, 1)


def step(done: int, total: int, what: str = "") -> None:
    """``done`` of ``total`` in the part that is open; ``what`` says how."""
    place, listener = _place.get(), _listener.get()
    if place is None or listener is None:
        return
    share = place.low + (place.high - place.low) * min(1.0, done / max(total, 1))
    # only the end of the stage is its end: a loop inside that is through may be followed by others
    said = ": ".join(word for word in (place.what, what) if word)
    listener(place.stage, min(round(SHARES * share), SHARES - 1), SHARES, said)


def doing(what: str) -> None:
    """What is being done just now, without a word on how far it is."""
    place, listener = _place.get(), _listener.get()
    if place is not None and listener is not None:
        listener(place.stage, round(SHARES * place.low), SHARES, what)


def each(items: Sequence[T], what: Callable[[T], str] = lambda item: "") -> Iterator[T]:
    """The items, each filling its even part of what is open; ``what`` names one."""
    for number, item in enumerate(items):
        with part(number / len(items), (number + 1) / len(items), what(item)):
            yield item
