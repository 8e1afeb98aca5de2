r"""How far intervals and distributions can be trusted: free functions on plain arrays, and one for a model.

A forecast should be *calibrated* (a 90 % interval holds 90 % of the ratings) and, among calibrated ones, *sharp*
(narrow). Coverage and the PIT histogram show the first, the width the second; the interval score and the CRPS
weigh both in units of the rating, and cannot be gamed by reporting another distribution than one believes.

Sources: Dawid 1984 (PIT); Gneiting, Balabdaoui & Raftery 2007 (calibration and sharpness); Gneiting & Raftery 2007
(interval score, CRPS); Czado, Gneiting & Held 2009 (PIT of discrete data).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.errors import DataError, ParameterError
from gramian.evaluate.conformal import Conformal
from gramian.evaluate.groups import BY, group_edges, group_names, group_of, training_counts
from gramian.ids import Codes
from gramian.models.base import Array, Model, Times
from gramian.models.uncertain import UncertainModel
from gramian.parameters import check_level, check_number
from gramian.ratings import Ratings
from gramian.summary import grid_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Calibration", "calibration", "coverage", "interval_score", "mean_width", "pit_histogram", "spearman"]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
PIT_BINS = 10


# ---- on plain arrays --------------------------------------------------------------------------------


def coverage(actual: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    r"""The share of intervals that hold what came: :math:`\frac1n\sum_k 1\{l_k \le r_k \le u_k\}`."""
    r = np.asarray(actual)
    return float(np.mean((np.asarray(lower) <= r) & (r <= np.asarray(upper))))


def mean_width(lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    r"""The sharpness of intervals, :math:`\frac1n\sum_k (u_k - l_k)`, in units of the rating."""
    return float(np.mean(np.asarray(upper, np.float64) - np.asarray(lower, np.float64)))


def interval_score(actual: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike, level: float) -> float:
    r"""The mean interval score (Winkler's): the width, and a fine for every rating missed; lower is better.

    .. math::
        (u - l) + \frac{2}{\alpha}(l - r)\,1\{r < l\} + \frac{2}{\alpha}(r - u)\,1\{r > u\},
        \qquad \alpha = 1 - \text{level}

    Source: Gneiting & Raftery 2007, eq. 43.
    """
    fine = 2 / (1 - check_level("level", level, "interval_score"))
    r, low, high = (np.asarray(values, np.float64) for values in (actual, lower, upper))
    return float(np.mean((high - low) + fine * (np.maximum(low - r, 0) + np.maximum(r - high, 0))))


def pit_histogram(below: npt.ArrayLike, upto: npt.ArrayLike, bins: int = PIT_BINS) -> Array:
    r"""The histogram of the probability integral transform, flat if the distributions are calibrated.

    A hump says too wide, a U too narrow, a slope says biased. For ratings on a grid the transform of a rating is not
    a number but the whole stretch from :math:`P(R < r)` to :math:`P(R \le r)`; it is spread evenly over it
    (the non-randomized PIT: the mean of the randomized one, without its noise):

    .. math::
        \bar F(u) = \frac1n\sum_k \operatorname{clip}\!\left(\frac{u - P(R_k<r_k)}{P(R_k\le r_k)-P(R_k<r_k)},
        0, 1\right), \qquad f_b = \bar F(b/B) - \bar F((b-1)/B)

    Args:
        below: P(R < r), one per rating.
        upto: P(R ≤ r); the same for a continuous distribution.
        bins: B.

    Returns:
        (B,): the share in each bin; they sum to 1.

    Source: Dawid 1984; Czado, Gneiting & Held 2009, eq. 2.
    """
    low, high = np.asarray(below, np.float64), np.asarray(upto, np.float64)
    width = high - low
    reached = np.zeros(bins + 1)
    reached[-1] = 1.0
    for b in range(1, bins):
        u = b / bins
        part = np.divide(u - low, width, out=(low <= u).astype(np.float64), where=width > 0)
        reached[b] = np.clip(part, 0, 1).mean()
    return np.diff(reached)


def spearman(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    r"""Spearman's rank correlation, ties by mean rank; NaN where one side is constant or shorter than 2.

    Between σ and \|error\| it says whether the model knows *where* it errs. Even a perfect σ stays far below 1,
    since an error is one draw of its distribution.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(np.asarray(values, np.float64)) for values in (one, other)]
    if len(ranks[0]) < 2 or min(np.ptp(ranks[0]), np.ptp(ranks[1])) == 0:
        return math.nan
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


# ---- of a model -------------------------------------------------------------------------------------


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

    def to_dict(self) -> dict[str, Any]:
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
        from gramian.plots import calibration_panels

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
    test: Ratings,
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
    check_intervals(model)
    users, items = model.codes_of(test, unknown)
    values, times = test.values.astype(np.float64), test.times
    if unknown == "nan":
        known = (users != -1) & (items != -1)
        users, items, values = users[known], items[known], values[known]
        times = None if times is None else times[known]
    if len(values) == 0:
        raise DataError("Nothing is left to measure: no test pair has both a known user and a known item.")
    seen = _forecast(model, users, items, times, values, every)
    error = np.abs(values - model._predict_codes(users, items, "fallback", True, times))
    at = every.index(level)
    ranked = spearman(seen.spread, error)
    return Calibration(
        n=len(values),
        level=level,
        curve=_curve(values, seen, every),
        groups=_groups(model.ratings, users, items, values, seen.lower[at], seen.upper[at], level, groups),
        spearman=None if math.isnan(ranked) else ranked,
        crps=None if seen.crps is None else float(seen.crps.mean()),
        pit=None if seen.crps is None else tuple(pit_histogram(seen.below, seen.upto).tolist()),
    )


def check_intervals(model: Model) -> None:
    """Refuse a model without intervals, in one sentence."""
    if not isinstance(model, UncertainModel | Conformal):
        raise ParameterError(
            f"A model of {type(model.recipe).__name__} has no intervals of its own: take a Bayesian recipe (BPMF), or "
            "give any model intervals by conformal calibration with ratings held out of its training."
        )


class _Forecast(NamedTuple):
    """(levels, n) ends of clipped intervals; a spread per pair; and of distributions, CRPS, P(R < r) and P(R ≤ r)."""

    lower: Array
    upper: Array
    spread: Array
    below: Array
    upto: Array
    crps: Array | None = None


def _forecast(
    model: Model, users: Codes, items: Codes, times: Times | None, values: Array, levels: list[float]
) -> _Forecast:
    n = len(values)
    lower, upper = np.empty((2, len(levels), n))
    made = _Forecast(lower, upper, *np.empty((3, n)))
    low, high = model.scale
    if isinstance(model, Conformal):
        centre, half = model.half_widths(users, items, levels, times, depth=5)
        lower, upper = np.clip(centre - half, low, high), np.clip(centre + half, low, high)
        return made._replace(lower=lower, upper=upper, spread=half[len(levels) // 2])
    assert isinstance(model, UncertainModel)
    crps = np.empty(n)
    half_step = (grid_step(np.unique(model.ratings.values)) or 0.0) / 2
    for piece, mixture in model.pieces(users, items, times):
        r = values[piece]
        for k, level in enumerate(levels):
            made.lower[k, piece] = mixture.quantile((1 - level) / 2)
            made.upper[k, piece] = mixture.quantile((1 + level) / 2)
        made.spread[piece], crps[piece] = mixture.std(), mixture.crps(r)
        # a rating is what the distribution rounds to, and at the ends of the scale all beyond
        made.below[piece] = np.where((half_step > 0) & (r <= low), 0.0, mixture.cdf(r - half_step))
        made.upto[piece] = np.where((half_step > 0) & (r >= high), 1.0, mixture.cdf(r + half_step))
    np.clip(made.lower, low, high, out=made.lower)
    np.clip(made.upper, low, high, out=made.upper)
    return made._replace(crps=crps)


def _curve(values: Array, seen: _Forecast, levels: list[float]) -> pl.DataFrame:
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


def _groups(
    trained: Ratings, users: Codes, items: Codes, values: Array, lower: Array, upper: Array, level: float, groups: int
) -> pl.DataFrame:
    """Coverage and width within groups; groups without test ratings are left out."""
    rows = []
    for by in BY:
        edges = group_edges(trained, by, groups)
        labels = group_of(edges, training_counts(trained, users, items, by))
        for label, name in enumerate(group_names(edges)):
            inside = labels == label
            if inside.any():
                rows.append(
                    {
                        "by": by,
                        "ratings": name,
                        "n": int(inside.sum()),
                        "coverage": coverage(values[inside], lower[inside], upper[inside]),
                        "error": math.sqrt(level * (1 - level) / inside.sum()),
                        "width": mean_width(lower[inside], upper[inside]),
                    }
                )
    return pl.DataFrame(rows)
