"""How results look on a terminal: tables for people, JSON for programs, notes on stderr."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any, Literal

import polars as pl

from gramian.errors import GramianWarning

__all__ = ["note", "print_json", "print_table", "show_warnings_as_notes", "write_table"]


def note(text: str) -> None:
    """Print a line for people on stderr, so that stdout stays clean."""
    print(text, file=sys.stderr)


def print_json(data: Any) -> None:
    """Print plain data as JSON on stdout."""
    print(json.dumps(data, default=str))


def print_table(table: pl.DataFrame, title: str | None = None, *, cut: bool = False) -> None:
    """Print a table on stdout, numbers rounded and right-aligned; long text is folded, or cut to one line."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for name, dtype in table.schema.items():
        justify: Literal["left", "right"] = "right" if dtype.is_numeric() else "left"
        shown.add_column(name, justify=justify, overflow="ellipsis" if cut else "fold", no_wrap=cut)
    for row in table.iter_rows():
        shown.add_row(*(_cell(value) for value in row))
    console = Console(highlight=False, markup=False)
    console.print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def write_table(table: pl.DataFrame, path: str) -> None:
    """Write a table as Parquet (by its ending) or CSV, whole or not at all."""
    from gramian.persist import written_whole

    with written_whole(path) as temporary:
        if path.endswith((".parquet", ".pq")):
            table.write_parquet(temporary)
        else:
            table.write_csv(temporary)


def show_warnings_as_notes() -> None:
    """Print our own warnings as one plain line each."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, GramianWarning):
            note(f"note: {message}")
        else:
            usual(message, category, *rest, **more)

    warnings.showwarning = show
    warnings.simplefilter("always", GramianWarning)
