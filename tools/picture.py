"""Draw docs/house.svg: the rooms on their floors, from the import contract, and three ways of data through them."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

from floors import ROOT, floors

PICTURE = ROOT / "docs" / "house.svg"
FLOOR, LEFT, ROOM, WAY = 62, 40, 132, 232  # pixels: a floor's height, the margin, and the widths of a room and a way
INK, PALE, LINE = "#1f2933", "#f3f5f7", "#c5ccd3"


class Way(NamedTuple):
    """A way of data: its name and colour, and what happens in the rooms that it passes."""

    name: str
    colour: str
    stations: dict[str, tuple[str, str]]


WAYS = (
    Way("a training", "#1c6dd0", {
        "cli": ("gramian fit", "options become a recipe"),
        "registry": ("make_recipe", "a recipe by its name"),
        "models": ("training, als, bayes", "epochs, checkpoints, the model"),
        "data": ("Ratings", "ids to codes, rows both ways"),
        "engine": ("local", "blocks of rows on threads"),
        "kernels": ("sweep", "every row solved"),
    }),
    Way("a request", "#c2410c", {
        "serve": ("asgi, guard, routes, service", "lists asked together are one batch"),
        "models": ("best_codes, new_user", "scores, intervals, reasons"),
        "data": ("Pairs", "users, items, times by codes"),
        "engine": ("local", "somebody new: one row solved"),
        "kernels": ("sweep", "by the same half-sweep"),
    }),
    Way("on Spark", "#0f766e", {
        "cluster": ("recommend_all, fit_stored", "what a model does for everyone"),
        "models": ("training, als, bayes", "the same epochs, on the driver"),
        "data": ("SparkRatings", "blocks of rows in Parquet"),
        "engine": ("spark/spark_rows", "a step goes to every block"),
        "kernels": ("sweep", "the same bits as on one machine"),
    }),
)  # fmt: skip


def text(x: float, y: float, words: str, size: int, *, colour: str = INK, weight: str = "normal") -> str:
    """A line of text."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" font-weight="{weight}">{escape(words)}</text>'


def drawn_floors(rooms: list[list[str]], top: int) -> list[str]:
    """The floors with their rooms."""
    widest = max(map(len, rooms))
    made = []
    for height, floor in enumerate(rooms):
        y = top + height * FLOOR
        made.append(text(LEFT - 26, y + 35, str(len(rooms) - height), 13, colour="#7b8794"))
        for place, room in enumerate(floor):
            x, width = LEFT + place * ROOM, ROOM * (widest if len(floor) == 1 else 1) - 8
            made.append(
                f'<rect x="{x}" y="{y + 6}" width="{width}" height="{FLOOR - 12}" rx="4" fill="{PALE}" '
                f'stroke="{LINE}"/>'
            )
            made.append(text(x + 12, y + 36, room, 15, weight="bold"))
    return made


def drawn_way(way: Way, rooms: list[list[str]], left: int, top: int) -> list[str]:
    """A way: a line down through the floors, with a station where it stops."""
    stops = [(top + height * FLOOR + FLOOR / 2, room) for height, floor in enumerate(rooms) for room in floor
             if room in way.stations]  # fmt: skip
    first, last = stops[0][0], stops[-1][0]
    made = [
        text(left, top - 14, way.name, 15, colour=way.colour, weight="bold"),
        f'<line x1="{left + 7}" y1="{first:g}" x2="{left + 7}" y2="{last:g}" stroke="{way.colour}" stroke-width="4"/>',
    ]
    for y, room in stops:
        where, what = way.stations[room]
        made.append(f'<circle cx="{left + 7}" cy="{y:g}" r="7" fill="#ffffff" stroke="{way.colour}" stroke-width="4"/>')
        made += [text(left + 24, y - 3, where, 13, weight="bold"), text(left + 24, y + 14, what, 12)]
    return made


def picture() -> str:
    """The whole picture."""
    rooms, top = floors(), 60
    left = LEFT + ROOM * max(map(len, rooms)) + 24
    width, height = left + WAY * len(WAYS) + 10, top + FLOOR * len(rooms) + 40
    parts = drawn_floors(rooms, top)
    for place, way in enumerate(WAYS):
        parts += drawn_way(way, rooms, left + place * WAY, top)
    note = "A room imports only from floors below it."
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" role="img">',
        "<title>The rooms of Gramian on their floors, and three ways of data through them</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *parts,
        text(LEFT, height - 16, note, 13, colour="#52606d"),
        "</svg>\n",
    ])  # fmt: skip


if __name__ == "__main__":
    PICTURE.write_text(picture())
