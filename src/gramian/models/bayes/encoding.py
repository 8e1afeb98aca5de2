"""What a model measures by beside its draws: how long the cells in time are, and which steps its ratings have."""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from gramian.core.file_format import Arrays
from gramian.data.ratings import Ratings
from gramian.errors import FormatError
from gramian.models.bayes.terms.ordinal import Ladder, ladder_of, levels_of
from gramian.models.bayes.terms.time_offsets import Calendar, Clock, calendar_of, clock_of

__all__ = ["Scales", "read_scales", "scales_of"]


class Scales(NamedTuple):
    """The clock of a model that knows of time, and the levels of one whose ratings are steps; else None.

    And whether factors drift.
    """

    clock: Clock | None = None
    levels: npt.NDArray[np.float64] | None = None
    drifting: bool = False

    def calendar(self, ratings: Ratings) -> Calendar | None:
        """The cells of ratings in time."""
        return None if self.clock is None else calendar_of(ratings, self.clock)

    def ladder(self, ratings: Ratings) -> Ladder | None:
        """The steps of ratings."""
        return None if self.levels is None else ladder_of(ratings, self.levels)

    @property
    def n_levels(self) -> int:
        """L, or 0."""
        return 0 if self.levels is None else len(self.levels)

    def arrays(self) -> Arrays:
        """As named arrays."""
        made: Arrays = {} if self.clock is None else {"clock": np.array(self.clock)}
        return made if self.levels is None else {**made, "levels": self.levels}


def scales_of(recipe: Any, ratings: Ratings) -> Scales:
    """What a recipe's settings mean for ratings.

    Raises:
        DataError: The ratings have no times, or are no steps.
    """
    made, key = _MADE.setdefault(ratings, {}), (recipe.time, recipe.likelihood, recipe.drift)
    if key not in made:
        clock = None if recipe.time is None else clock_of(recipe.time, ratings)
        made[key] = Scales(clock, levels_of(ratings) if recipe.likelihood == "ordinal" else None, recipe.drift)
    return made[key]


_MADE: WeakKeyDictionary[Ratings, dict[Any, Scales]] = WeakKeyDictionary()


def read_scales(recipe: Any, ratings: Ratings, arrays: Arrays) -> Scales:
    """The scales of a model file.

    Raises:
        FormatError: They are missing or not sound, or the ratings have no times to go with a clock.
    """
    lengths, levels = arrays.get("clock", np.empty(0)), arrays.get("levels", np.empty(0))
    timed, stepped = recipe.time is not None, recipe.likelihood == "ordinal"
    sound = not timed or (
        ratings.times is not None and lengths.shape == (3,) and bool((np.isfinite(lengths) & (lengths > 0)).all())
    )
    sound &= not stepped or (
        levels.ndim == 1 and len(levels) > 0 and bool(np.isfinite(levels).all() and (np.diff(levels) > 0).all())
    )
    if not sound:
        raise FormatError(
            f"The clock or the levels of {recipe.name} do not fit: found {lengths!r} and {levels!r}; use another copy "
            "of the file."
        )
    clock = Clock(*lengths.tolist()) if timed else None
    return Scales(clock, levels.astype(np.float64) if stepped else None, recipe.drift)
