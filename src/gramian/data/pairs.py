"""Pairs of a user and an item by their codes, and when: what everything that scores is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gramian.data.ids import Codes
from gramian.kernels.arrays import Array

__all__ = ["Pairs", "Times"]

Times = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of codes.

    Attributes:
        users: (n,), int32; −1 is somebody unknown. A model may know ids without ratings by codes below.
        items: (n,), the same of the items.
        times: (n,), when, as in the training ratings; None for no time in particular.
    """

    users: Codes
    items: Codes
    times: Times | None = None

    def __len__(self) -> int:
        return len(self.users)

    @property
    def unknown(self) -> npt.NDArray[np.bool_]:
        """(n,): which of the pairs have an unknown side."""
        return np.asarray((self.users == -1) | (self.items == -1))

    @property
    def unseen(self) -> npt.NDArray[np.bool_]:
        """(n,): which of the pairs have a side without training ratings."""
        return np.asarray((self.users < 0) | (self.items < 0))

    def take(self, which: Array | slice) -> Pairs:
        """Some of the pairs."""
        return Pairs(self.users[which], self.items[which], None if self.times is None else self.times[which])

    def cut(self, size: int) -> Iterator[tuple[slice, Pairs]]:
        """The pairs in pieces of at most ``size``, each with its place."""
        for low in range(0, len(self), size):
            piece = slice(low, low + size)
            yield piece, self.take(piece)

    @classmethod
    def of_user(cls, user: int, n_items: int) -> Pairs:
        """A user code with every item."""
        items = np.arange(n_items, dtype=np.int32)
        return cls(np.full(n_items, user, np.int32), items)
