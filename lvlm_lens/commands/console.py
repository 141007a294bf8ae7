"""What a person sees while a command works: bars on standard error, tables at the end.

Standard output stays clean for results, so ``--json`` can be piped.  Where standard error is no terminal (a log file),
a line is written when a stage begins, at most every half minute, and when it ends.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..progress import SHARES, Listener, Tell, listening

if TYPE_CHECKING:
    from ..stages.summary import Block

__all__ = ["WIDTH", "Tell", "console", "progress_bars", "show", "simple_table"]

WIDTH = 100
"""Columns that a table may take."""
OPENING = "loading"
"""The first bar: libraries, model and data, until a stage speaks."""
_EVERY = 30.0
"""Seconds between two lines of one stage in a log."""


def console() -> Any:
    """Standard output, at most :data:`WIDTH` columns wide, without colours for words that only look like numbers."""
    from rich.console import Console

    made = Console(highlight=False)
    # a pipe has no width of its own, and rich would take 80
    return made if made.is_terminal and made.width <= WIDTH else Console(highlight=False, width=WIDTH)


def simple_table(*columns: str, title: str | None = None, right: tuple[str, ...] = ()) -> Any:
    """A table without a box whose long cells fold; columns named in ``right`` are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, title_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


@contextmanager
def progress_bars(quiet: bool) -> Iterator[Tell]:
    """A callback ``tell(stage, done, total)`` that moves one bar a stage; :mod:`lvlm_lens.progress` is heard too.

    Enter it before anything heavy is imported: its first bar turns while the libraries load.
    """
    if quiet:
        _hush()
        yield lambda stage, done, total: None
        return
    watch = _bars() if sys.stderr.isatty() else _lines()
    with watch as hear:
        hear(OPENING, 0, 0)
        _hush()
        with listening(hear):
            yield hear


def _hush() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # its bar for loading weights would tear ours


@contextmanager
def _bars() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(_count(int(task.completed), int(task.total or 0)), justify="right")

    class Left(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text("" if task.time_remaining is None else f"{_clock(task.time_remaining)} left")

    shown = Console(stderr=True)
    bars = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), Count(), TimeElapsedColumn(),
        Left(), TextColumn("{task.fields[what]}", style="dim"), console=shown, speed_estimate_period=600.0,
    )  # fmt: skip
    tasks: dict[str, Any] = {}
    furthest: dict[str, int] = {}
    ended: set[str] = set()

    def hear(stage: str, done: int, total: int, what: str = "") -> None:
        if stage != OPENING and OPENING in tasks:
            bars.remove_task(tasks.pop(OPENING))
        over = bool(total) and done >= total
        if over and stage in ended and stage not in tasks:
            return  # said twice: the line is there
        if stage not in tasks:
            tasks[stage] = bars.add_task(f"{stage:<24}", total=total or None, what="")
        if total == SHARES:  # a part that is done twice does not throw the bar back
            done = max(done, furthest.get(stage, 0))
            furthest[stage] = done
        bars.update(tasks[stage], completed=done, total=total or None, what=what)
        if over:  # finished: a line that stays, above the bars that move
            task = next(task for task in bars.tasks if task.id == tasks[stage])
            shown.print(f"  {stage:<24} {_count(done, total):>12}  {_clock(task.elapsed or 0.0)}", highlight=False)
            bars.remove_task(tasks.pop(stage))
            furthest.pop(stage, None)
            ended.add(stage)

    with bars:
        yield hear
        if OPENING in tasks:
            bars.remove_task(tasks.pop(OPENING))


@contextmanager
def _lines() -> Iterator[Listener]:
    began: dict[str, float] = {}
    ended: set[str] = set()
    last: dict[str, float] = {}

    def line(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def hear(stage: str, done: int, total: int, what: str = "") -> None:
        now = time.monotonic()
        over = bool(total) and done >= total
        if over and stage in ended and stage not in began:
            return  # said twice: the line is there
        if stage not in began:
            began[stage] = last[stage] = now
            if not over:
                line(f"{stage} ...")
                return
        spent = now - began[stage]
        if over:
            ended.add(stage)
            line(f"{stage}: done, {_clock(spent)}")
            del began[stage]
        elif now - last[stage] >= _EVERY:
            last[stage] = now
            left = f", {_clock(spent * (total - done) / done)} left" if done and total else ""
            line(f"{stage}: {_count(done, total)}{left}{', ' + what if what else ''}")

    yield hear


def _count(done: int, total: int) -> str:
    if not total:
        return ""
    return f"{100 * done // total} %" if total == SHARES else f"{done:,}/{total:,}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def show(out: Any, blocks: Sequence[Block]) -> None:
    """Print a summary's lines and tables."""
    from ..stages.summary import Line

    for block in blocks:
        if isinstance(block, Line):
            out.print(block.text, markup=False)
            continue
        made = simple_table(*block.columns, title=block.title, right=block.numbers)
        if block.caption:
            made.caption, made.caption_justify = block.caption, "left"
        for row in block.rows:
            made.add_row(*row)
        out.print(made)
