"""How far a model's intervals and distributions can be trusted: measured on ratings that it was not trained on.

What is measured stands in :mod:`gramian.metrics.intervals`; the CRPS is that of the distributions themselves.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from gramian.core.parameters import check_level, check_number
from gramian.core.plain import Plain
from gramian.data.groups import BY, group_edges, group_names, group_of, training_counts
from gramian.data.pairs import Pairs
from gramian.data.table import RatingsTable
from gramian.errors import DataError, ParameterError
from gramian.kernels.arrays import Array
from gramian.metrics.intervals import coverage, interval_score, mean_width, pit_histogram, spearman
from gramian.models.interval_model import Forecast, IntervalModel
from gramian.models.model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LEVELS", "Calibration", "calibration", "check_intervals"]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True, eq=False)
class Calibration:
    r"""How a model's intervals and distributions held on test ratings; ``print`` shows it as text.

    Attributes:
        n: How many ratings were tested.
        level: The level of ``groups``.
        curve: A table by ``level``: ``coverage``, its standard ``error`` √(level(1−level)/n) if calibrated, mean
            ``width`` and ``interval_score``, all of intervals clipped to the scale.
        groups: A table of the coverage at ``level`` within groups: ``by`` (the user's activity or the item's
            popularity), ``ratings`` in training, ``n``, ``coverage``, its standard ``error``, ``width``.
        spearman: The rank correlation of σ with \|error\| (of a conformal model, of its unclipped width); None where
            σ is the same everywhere.
        crps: The mean CRPS of the predictive distributions; None of a model that has intervals only.
        pit: The PIT histogram, non-randomized for ratings on a grid; None of a model that has intervals only.
    """

    n: int
    level: float
    curve: pl.DataFrame
    groups: pl.DataFrame
    spearman: float | None
    crps: float | None
    pit: tuple[float, ...] | None

    def at(self, level: float) -> dict[str, float]:
        """The row of the curve at a level.

        Raises:
            ParameterError: The level was not measured.
        """
        rows = self.curve.filter((pl.col("level") - level).abs() < 1e-9)
        if rows.height == 0:
            raise ParameterError(f"The level {level!r} was not measured; found {self.curve['level'].to_list()}.")
        return rows.row(0, named=True)

    def to_dict(self) -> Plain:
        """Everything as plain nested data, ready for JSON."""
        return {
            "n": self.n,
            "level": self.level,
            "curve": self.curve.to_dicts(),
            "groups": self.groups.to_dicts(),
            "spearman": self.spearman,
            "crps": self.crps,
            "pit": None if self.pit is None else list(self.pit),
        }

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw coverage against level, the PIT histogram and the groups; returns the figure, writes it to ``path``."""
        from gramian.visuals.figures import calibration_panels

        return calibration_panels(self.to_dict(), path)

    def __str__(self) -> str:
        row = self.at(self.level)
        parts = [
            f"{self.n:,} ratings",
            f"{100 * self.level:g} % intervals hold {100 * row['coverage']:.1f} %",
            f"mean width {row['width']:.3f}",
            f"interval score {row['interval_score']:.3f}",
        ]
        parts += [] if self.crps is None else [f"CRPS {self.crps:.4f}"]
        parts += [] if self.spearman is None else [f"Spearman of σ and |error| {self.spearman:.3f}"]
        return ", ".join(parts)


def calibration(
    model: Model,
    test: RatingsTable,
    *,
    levels: Sequence[float] = LEVELS,
    level: float = 0.9,
    groups: int = 4,
    unknown: str = "fallback",
) -> Calibration:
    """Measure the intervals (and distributions) of a model on ratings it was not trained on.

    Args:
        model: A model that knows its uncertainty, or one given intervals by :func:`gramian.conformal`.
        test: The test ratings.
        levels: The levels of the curve; ``level`` is added.
        level: The level to look into groups at.
        groups: About how many groups by activity and by popularity, by quantiles over the training ratings.
        unknown: ``"fallback"`` takes test pairs with an unknown user or item in; ``"nan"`` leaves them out.

    Raises:
        ParameterError: A level is outside (0, 1), or the model has no intervals.
        DataError: Nothing is left to measure.
    """
    every = sorted({check_level("levels", one, "calibration") for one in [*levels, level]})
    check_number("groups", groups, low=1, whole=True, owner="calibration")
    sure = check_intervals(model)
    pairs, values = model.pairs_of(test, unknown), test.values.astype(np.float64)
    if unknown == "nan":
        known = ~pairs.unknown
        pairs, values = pairs.take(known), values[known]
    if len(values) == 0:
        raise DataError("Nothing is left to measure: no test pair has both a known user and a known item.")
    seen = sure.forecast(pairs, values, every)
    error = np.abs(values - model.predict_codes(pairs))
    at = every.index(level)
    ranked = spearman(seen.spread, error)
    return Calibration(
        n=len(values),
        level=level,
        curve=_curve(values, seen, every),
        groups=_groups(_Held(model.ratings, pairs, values, seen.lower[at], seen.upper[at]), level, groups),
        spearman=None if math.isnan(ranked) else ranked,
        crps=None if seen.crps is None else float(seen.crps.mean()),
        pit=None if seen.crps is None else tuple(pit_histogram(seen.below, seen.upto).tolist()),
    )


def check_intervals(model: Model) -> IntervalModel:
    """The model, where it has intervals; else it is refused in one sentence."""
    if not isinstance(model, IntervalModel):
        raise ParameterError(
            f"A model of {type(model.recipe).__name__} has no intervals of its own: take a Bayesian recipe (BPMF), or "
            "give any model intervals by conformal calibration with ratings held out of its training."
        )
    return model


def _curve(values: Array, seen: Forecast, levels: list[float]) -> pl.DataFrame:
    rows = [
        {
            "level": level,
            "coverage": coverage(values, lower, upper),
            "error": math.sqrt(level * (1 - level) / len(values)),
            "width": mean_width(lower, upper),
            "interval_score": interval_score(values, lower, upper, level),
        }
        for level, lower, upper in zip(levels, seen.lower, seen.upper, strict=True)
    ]
    return pl.DataFrame(rows)


class _Held(NamedTuple):
    """What was forecast of test pairs at one level, and what came."""

    trained: RatingsTable
    pairs: Pairs
    values: Array
    lower: Array
    upper: Array


def _groups(held: _Held, level: float, groups: int) -> pl.DataFrame:
    """Coverage and width within groups; groups without test ratings are left out."""
    rows = []
    for by in BY:
        edges = group_edges(held.trained, by, groups)
        labels = group_of(edges, training_counts(held.trained, held.pairs, by))
        for label, name in enumerate(group_names(edges)):
            inside = labels == label
            if inside.any():
                values, lower, upper = held.values[inside], held.lower[inside], held.upper[inside]
                rows.append(
                    {
                        "by": by,
                        "ratings": name,
                        "n": int(inside.sum()),
                        "coverage": coverage(values, lower, upper),
                        "error": math.sqrt(level * (1 - level) / inside.sum()),
                        "width": mean_width(lower, upper),
                    }
                )
    return pl.DataFrame(rows)
