"""Somebody new, of whose ratings a part is hidden: what the time of each added, with no draw that says it.

The row and the hidden parts are drawn in turn, given each kept draw of everything else. The chain goes on from draw to
draw (what is hidden is in units of the rating, and means the same in all of them), so a few turns for each will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gramian.engine import entries
from gramian.ids import Codes
from gramian.models import gibbs
from gramian.models.base import Array, Times
from gramian.models.draws import Draw
from gramian.models.folding import one_row
from gramian.models.times import Calendar, drawn_cells

__all__ = ["Newcomer", "fold_hidden"]

FIRST, TURNS = 6, 2  # turns for the first draw, and for each other


class Newcomer(NamedTuple):
    """Somebody's ratings: codes of the items, values, and times where they are known."""

    items: Codes
    values: Array
    times: Times | None = None


class _Hidden(NamedTuple):
    """What time adds to each rating by the item and the calendar, and by the day; the days' codes and precision."""

    known: Array
    days: Array
    day_of: Array | None


def fold_hidden(
    draws: Sequence[Draw], who: Newcomer, calendar: Calendar | None, key: tuple[int, int], how: dict[str, Any]
) -> tuple[Array, list[Array]]:
    """The row in each draw, (S, D), with the mean of the days in its bias; and what the ratings told each draw's row.

    Args:
        draws: Each with the prior of this user.
        who: The ratings.
        calendar: Of the training ratings.
        key: Seed, and the first number of a sweep that no other draw has.
        how: ``biased``, ``offset`` and ``n_jobs``.
    """
    rng = np.random.default_rng([*key])
    order = np.argsort(who.items)
    who = Newcomer(who.items[order], who.values[order], None if who.times is None else who.times[order])
    row = one_row(np.arange(len(who.items), dtype=np.int32), who.values)
    day_of = None
    if calendar is not None and who.times is not None:
        day_of = np.unique(np.floor(who.times / calendar.clock.day), return_inverse=True)[1]
    days = np.zeros(0 if day_of is None else int(day_of.max(initial=-1)) + 1)
    out, told, number = np.empty((len(draws), draws[0].item_rows.shape[1]), np.float32), [], key[1]
    for s, draw in enumerate(draws):
        hidden = _Hidden(_known(draw, who, calendar), days, day_of)
        other = draw.item_rows[who.items].astype(np.float32)
        for _ in range(TURNS if s else FIRST):
            left = (who.values - hidden.known - _by_day(hidden)).astype(np.float32)
            counters = (key[0], number, gibbs.USERS)
            x = gibbs.draw_rows(row._replace(values=left), other, draw.users, draw.noise_precision, counters, **how)[0]
            number += 1
            if day_of is not None and draw.time is not None:
                away = who.values - hidden.known - entries.predictions(row, x, other, **how)
                alpha, precision = draw.noise_precision, float(draw.time.precisions[0])
                hidden = hidden._replace(days=drawn_cells(day_of, len(days), away, None, alpha, precision, rng))
        days, out[s] = hidden.days, x[0]
        told.append(left)
        if how["biased"] and day_of is not None and len(day_of):
            out[s, -1] += _by_day(hidden).mean()
    return out, told


def _known(draw: Draw, who: Newcomer, calendar: Calendar | None) -> Array:
    """What time adds by the item and the calendar; their levels where no times are known."""
    nobody = np.full(len(who.items), -1, np.int32)
    if draw.time is None:
        return np.zeros(len(who.items))
    if calendar is None or who.times is None:
        return draw.time.usual(nobody, who.items)
    return draw.time.at(calendar.find(nobody, who.items, who.times))


def _by_day(hidden: _Hidden) -> Array:
    return np.zeros(len(hidden.known)) if hidden.day_of is None else hidden.days[hidden.day_of]
