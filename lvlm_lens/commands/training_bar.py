"""The bar of a training: steps, loss, time left; on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def training_bar(
    title: str, quiet: bool
) -> Iterator[tuple[Callable[[int, int, Mapping[str, float]], None], Callable[[str], None]]]:
    """``progress(done, total, logged)`` and ``say(line)`` of a training."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # its bar for loading weights would tear ours
    if quiet:
        yield (lambda done, total, logged: None), (lambda line: None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task(title, total=None, loss="-")

        def progress(done: int, total: int, logged: Mapping[str, float]) -> None:
            loss = logged.get("loss", logged.get("train_loss"))
            bar.update(task, completed=done, total=total)
            if loss is not None:
                bar.update(task, loss=f"{loss:.4f}")

        yield progress, lambda line: console.print(f"{title}: {line}", style="dim")
