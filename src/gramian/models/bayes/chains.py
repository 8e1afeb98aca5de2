"""Where a sampling stands between two sweeps: its chains, what was kept of them, and what is watched meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gramian.core.file_format import Arrays
from gramian.data.ids import Codes
from gramian.data.table import RatingsTable
from gramian.kernels.arrays import Array
from gramian.models.bayes.gibbs import BothWays
from gramian.models.bayes.state import State
from gramian.models.bayes.terms.collection import Terms

__all__ = ["Kept", "Sampling", "Seen", "Watch", "n_bytes", "parts_of", "thinned"]

Kept = Mapping[tuple[int, int], State]  # draws by the number of their sweep and their chain


class Watch(NamedTuple):
    """Σ over the draws of their mean predictions of some pairs; that at marked draws; and how far the mean moved."""

    total: Array
    marks: Mapping[int, Array]
    change: float | None = None

    @classmethod
    def begun(cls, count: int) -> Watch:
        """Of so many pairs, before the first draw."""
        return cls(np.zeros(count), {})

    def after(self, predicted: Array, count: int) -> Watch:
        """With one more draw, which is number ``count``.

        At each doubling of the draws it is noted by how much their mean has moved, at n = 8, 12, 16, 24, 32, …: the
        root mean square difference between the means of n and of n/2 draws.
        """
        total = self.total + predicted
        power = 1 << (count.bit_length() - 1)
        if count not in (power, power + power // 2) or count < 8:
            return self._replace(total=total)
        half, change = self.marks.get(count // 2), self.change
        if half is not None:
            change = float(np.sqrt(np.mean((total / count - half / (count // 2)) ** 2)))
        return Watch(total, {**self.marks, count: total}, change)

    def to_arrays(self) -> Arrays:
        """As named arrays."""
        made = {"watch.sum": self.total} | {f"watch.mark{count}": total for count, total in self.marks.items()}
        return made if self.change is None else {**made, "watch.change": np.array([self.change])}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Watch | None:
        """What :meth:`to_arrays` took apart; None where nothing is watched."""
        if "watch.sum" not in arrays:
            return None
        start = "watch.mark"
        marks = {int(name.removeprefix(start)): array for name, array in arrays.items() if name.startswith(start)}
        change = arrays.get("watch.change")
        return cls(arrays["watch.sum"], marks, None if change is None else float(change[0]))


class Seen(NamedTuple):
    """The validation pairs by codes, and Σ of their predictions over the sweeps after burn-in."""

    users: Codes
    items: Codes
    total: Array

    def to_arrays(self) -> Arrays:
        """As named arrays."""
        return {"validation.users": self.users, "validation.items": self.items, "validation.sum": self.total}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Seen | None:
        """What :meth:`to_arrays` took apart; None where there are no validation ratings."""
        if "validation.sum" not in arrays:
            return None
        return cls(arrays["validation.users"], arrays["validation.items"], arrays["validation.sum"])


@dataclass(frozen=True, eq=False)
class Sampling:
    """Where a sampling stands.

    Attributes:
        terms: Made for the ratings.
        ratings: Both ways.
        offset: μ.
        chains: The state of each.
        traces: (sweeps, chains, number of what is followed).
        kept: The draws that are kept.
        watch: What is watched to know when to stop, or None.
        seen: What is known of validation ratings, or None.
    """

    terms: Terms
    ratings: BothWays
    offset: float
    chains: tuple[State, ...]
    traces: Array
    kept: Kept = field(default_factory=dict)
    watch: Watch | None = None
    seen: Seen | None = None

    @property
    def draws(self) -> tuple[State, ...]:
        """The kept draws, in the order of the sweeps; before the first, the state of each chain stands in."""
        order = sorted(self.kept, key=lambda place: (place[0], str(place[1])))
        return tuple(self.kept[place] for place in order) or self.chains

    def to_arrays(self) -> Arrays:
        """As named arrays, for a checkpoint."""
        made: Arrays = {"traces": self.traces, "offset": np.array([self.offset])}
        for c, chain in enumerate(self.chains):
            made |= _named(f"chain{c}", self.terms.packed(chain))
        for (number, c), draw in self.kept.items():
            made |= _named(f"draw{number:06d}.{c}", self.terms.packed(draw))
        for part in (self.watch, self.seen):
            made |= {} if part is None else part.to_arrays()
        return made

    @classmethod
    def from_arrays(cls, terms: Terms, ratings: RatingsTable, arrays: Arrays) -> Sampling:
        """What :meth:`to_arrays` took apart; ``terms`` are made for the ratings."""
        parts = parts_of(arrays)
        chains = [terms.unpacked(parts[f"chain{c}"]) for c in range(sum(stem.startswith("chain") for stem in parts))]
        kept = {}
        for stem, own in parts.items():
            if stem.startswith("draw"):
                number, c = stem.removeprefix("draw").split(".")
                kept[int(number), int(c)] = terms.unpacked(own)
        offset, watch, seen = float(arrays["offset"][0]), Watch.from_arrays(arrays), Seen.from_arrays(arrays)
        both = BothWays.of(ratings, terms)
        return cls(terms, both, offset, tuple(chains), arrays["traces"], kept, watch, seen)


def _named(stem: str, parts: Arrays) -> Arrays:
    return {f"{stem}.{name}": array for name, array in parts.items()}


def parts_of(arrays: Arrays) -> dict[str, Arrays]:
    """The arrays by what stands before the last dot of their names, such as a chain or a draw."""
    made: dict[str, Arrays] = {}
    for name, array in arrays.items():
        stem, _, part = name.rpartition(".")
        made.setdefault(stem, {})[part] = array
    return made


# ---- thinning --------------------------------------------------------------------------------------


def n_bytes(terms: Terms, draws: Sequence[State]) -> int:
    """How much memory draws take."""
    return sum(array.nbytes for draw in draws for array in terms.packed(draw).values())


def thinned(kept: Kept, new: Kept, after: int, dropped: int, room: int) -> Kept:
    """The kept draws with new ones, of the sweep that is number ``after`` after burn-in (``dropped`` sweeps).

    Where they are more than there is room for (sweeps), every second one goes, and from then on only every second one
    comes, and so on.
    """
    every = {**kept, **new}
    step, before = (_spacing(count, max(1, room)) for count in (after, after - 1))
    if step == 1:
        return every
    asked = every if step > before or after % step == 0 else new
    return {place: draw for place, draw in every.items() if place not in asked or (place[0] - dropped) % step == 0}


def _spacing(count: int, room: int) -> int:
    """The least power of two so that not more than ``room`` of ``count`` sweeps are its multiples."""
    step = 1
    while count // step > room:
        step *= 2
    return step
