"""The progress bar of a training, on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from gramian.core.history import History

__all__ = ["Underway", "epoch_bar"]


class Underway(Protocol):
    """What a training is at, as far as the bar looks."""

    @property
    def history(self) -> History:
        """One record for each epoch so far."""


@contextlib.contextmanager
def epoch_bar(title: str, epochs: int, done: int, shown: bool) -> Iterator[Callable[[Underway], None]]:
    """Give a function to call with the training's state after each epoch."""
    if not shown:
        yield lambda state: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[errors]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=epochs, completed=done, errors="")

        def advance(state: Underway) -> None:
            last = state.history[-1]
            names = {"train_rmse": "train RMSE", "validation_rmse": "validation RMSE"}
            errors = ", ".join(f"{word} {last[key]:.4f}" for key, word in names.items() if key in last)
            bar.update(task, completed=len(state.history), errors=errors)

        yield advance
