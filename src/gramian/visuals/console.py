"""How results look on a terminal: tables for people, JSON for programs, notes on stderr."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import warnings
from typing import TextIO

import polars as pl

from gramian.errors import GramianWarning, ParameterError

__all__ = ["give", "note", "print_json", "print_table", "show_warnings_as_notes", "terminal_width", "write_table"]

PIPE = 240


def note(text: str) -> None:
    """Print a line for people on stderr, so that stdout stays clean."""
    print(text, file=sys.stderr)


def print_json(data: object) -> None:
    """Print plain data as JSON on stdout."""
    print(json.dumps(_finite(data), default=str, allow_nan=False))


def _finite(data: object) -> object:
    """The data with null for what JSON has no number for."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def print_table(table: pl.DataFrame, title: str | None = None, *, cut: bool = False) -> None:
    """Print a table on stdout, numbers rounded and right-aligned.

    Text too long for the terminal is folded, or with ``cut`` shortened to one line.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, width=None if cut else terminal_width())
    limit = _text_width(table, console.width) if cut else None
    shown = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for name, dtype in table.schema.items():
        shown.add_column(name, justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for row in table.iter_rows():
        shown.add_row(*(_cell(value, limit) for value in row))
    console.print(shown)


def terminal_width() -> int:
    """How many characters a line has: of a pipe, which has none, many."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return PIPE if piped else shutil.get_terminal_size().columns


def _text_width(table: pl.DataFrame, width: int) -> int:
    """How wide a text may be for all columns to fit beside each other."""
    numbers = [name for name, dtype in table.schema.items() if dtype.is_numeric()]
    taken = sum(max(len(name), 6) + 2 for name in numbers)
    return max(12, (width - taken) // max(1, table.width - len(numbers)) - 2)


def _cell(value: object, limit: int | None) -> str:
    if value is None:
        return ""
    text = str(value)
    if isinstance(value, float):
        text = f"{value:g}" if value == round(value, 1) else f"{value:.4f}"
    return text if limit is None or len(text) <= limit else f"{text[: limit - 1]}…"


def write_table(table: pl.DataFrame, path: str) -> None:
    """Write a table as Parquet (by its ending) or CSV, whole or not at all."""
    from gramian.core.file_format import written_whole

    if not path.endswith((".parquet", ".pq", ".csv")):
        raise ParameterError(f"A table is written as .csv or .parquet; got {path!r}.")
    with written_whole(path) as temporary:
        if path.endswith((".parquet", ".pq")):
            table.write_parquet(temporary)
        else:
            table.write_csv(temporary)


def show_warnings_as_notes() -> None:
    """Print our own warnings as one plain line each."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, GramianWarning):
            note(f"note: {message}")
        else:
            usual(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    warnings.simplefilter("always", GramianWarning)


def give(table: pl.DataFrame, out: str | None, json: bool) -> None:
    """Print a table, print it as JSON, or write it to a file."""
    if json:
        print_json(table.to_dicts())
    elif out:
        write_table(table, out)
        note(f"{out}: {table.height:,} rows")
    else:
        print_table(table)
