"""Pieces of HTML: sections, tables, tiles, and pictures inside the page."""

from __future__ import annotations

import base64
import html
import io
import math
from typing import TYPE_CHECKING

import polars as pl

from gramian.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["cell", "grid", "page", "picture", "raw_table", "rounded", "section", "table", "tiles"]


def page(title: str, style: str, parts: list[str]) -> str:
    """A whole document, which needs nothing from elsewhere."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{style}</style></head><body><main>\n' + "\n".join(parts)
        + "\n</main></body></html>\n"
    )  # fmt: skip


def section(name: str, title: str, content: str) -> str:
    """A part of the page under a heading, to which ``#name`` leads."""
    return f'<section id="{name}"><h2>{html.escape(title)}</h2>{content}</section>'


def tiles(figures: dict[str, tuple[str, str]]) -> str:
    """Large figures side by side: a value and a line below it for each word."""
    each = "".join(
        f"<div class=tile><b>{html.escape(value)}</b>{html.escape(word)}<small>{html.escape(more)}</small></div>"
        for word, (value, more) in figures.items()
    )
    return f"<div class=tiles>{each}</div>"


def grid(parts: list[str], kind: str = "pair") -> str:
    """Things side by side where there is room, below each other on a phone."""
    return f'<div class="{kind}">{"".join(parts)}</div>'


def table(made: pl.DataFrame, *, first: bool = False) -> str:
    """A table; ``first`` marks its first row as the one that counts."""
    numeric = [dtype.is_numeric() for dtype in made.dtypes]
    rows = [[cell(value) for value in row] for row in made.iter_rows()]
    return raw_table([html.escape(name) for name in made.columns], rows, numeric, first=first)


def raw_table(names: list[str], rows: list[list[str]], numeric: list[bool], *, first: bool = False) -> str:
    """A table of cells that are HTML already; numbers stand at the right."""
    kinds = [" class=number" if number else "" for number in numeric]
    head = "".join(f"<th{kind}>{name}" for name, kind in zip(names, kinds, strict=True))
    body = "".join(
        f"<tr{' class=first' if first and place == 0 else ''}>"
        + "".join(f"<td{kind}>{text}" for text, kind in zip(row, kinds, strict=True))
        for place, row in enumerate(rows)
    )
    return f"<div class=wide><table><thead><tr>{head}</thead><tbody>{body}</tbody></table></div>"


def cell(value: object) -> str:
    """A value as a person writes it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return rounded(value)
    return f"{value:,}" if isinstance(value, int) else html.escape(str(value))


def rounded(value: float | None, digits: int = 3) -> str:
    """A number to so many digits, without an exponent; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    if places > 5:
        return "&lt; 0.0001"
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def picture(figure: Figure, words: str, *, vector: bool = True, kind: str = "") -> str:
    """The figure inside the page: SVG, sharp in print, or PNG where there are too many points for that."""
    buffer = io.BytesIO()
    written = "svg" if vector else "png"
    try:
        figure.savefig(buffer, format=written, metadata={"Date": None} if vector else None)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"The picture {words!r} could not be drawn: {error}.") from error
    data = base64.b64encode(buffer.getvalue()).decode()
    mime = "svg+xml" if vector else "png"
    marked = f" class={kind}" if kind else ""
    return (
        f'<figure{marked}><figcaption>{html.escape(words)}</figcaption>'
        f'<img alt="{html.escape(words)}" src="data:image/{mime};base64,{data}"></figure>'
    )  # fmt: skip
