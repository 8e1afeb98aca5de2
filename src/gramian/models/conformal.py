r"""Split-conformal intervals: coverage that holds for any model, from ratings held out of its training.

Of calibration ratings :math:`r_1 … r_n` and predictions :math:`\hat r`, the scores are

.. math::
    s_k = \frac{|r_k - \hat r_k|}{\hat\sigma_k}, \qquad
    q = s_{(\lceil (n+1)\,\text{level} \rceil)}, \qquad
    \text{interval} = \hat r \pm q\,\hat\sigma

with :math:`\hat\sigma` the predictive standard deviation of a model that has one, else 1. If the next pair is
exchangeable with the calibration pairs, its rating falls into the interval with a probability of at least
``level``, and at most ``level`` + 1/(n + 1) where no scores tie: for every n, whatever the model and whatever the
distribution. With groups (Mondrian), this holds within every group.

The coverage is that of *pairs drawn like the calibration ratings*: not of every single user, and not of next
year's ratings where the calibration is a random part of this year's.

Sources: Vovk, Gammerman & Shafer 2005; Lei, G'Sell, Rinaldo, Tibshirani & Wasserman 2018. Written out here
because it is one sort: the libraries for it wrap scikit-learn estimators on feature matrices.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from gramian.core.file_format import Arrays
from gramian.core.parameters import check_choice, check_level, check_number
from gramian.data.groups import BY, group_edges, group_names, group_of, training_counts
from gramian.data.ids import Codes
from gramian.data.ratings import Ratings
from gramian.errors import DataError, DataWarning, FormatError, ParameterError
from gramian.kernels.arrays import Array
from gramian.models.calibration import Calibration, calibration
from gramian.models.interval_model import Forecast, IntervalModel
from gramian.models.model import Model, Times, check_ratings_given, pair_times
from gramian.models.predictive import UncertainModel

__all__ = ["Conformal", "conformal", "conformal_quantile"]


def conformal_quantile(scores: Array, level: float) -> float:
    r"""The :math:`\lceil (n+1)\,\text{level} \rceil`-th smallest of n **sorted** scores; ∞ where n is too small."""
    # rounding: (99 + 1)·0.28 must be 28, not 28.000000000000004
    k = math.ceil((len(scores) + 1) * level - 1e-9)
    return float(scores[k - 1]) if k <= len(scores) else math.inf


@dataclass(frozen=True, eq=False, repr=False)
class Conformal(IntervalModel):
    """A model with conformal intervals; everything else it does as the model does.

    Attributes:
        model: The model inside.
        scores: The calibration scores, sorted within each group.
        ends: (groups,), where each group's scores end.
        edges: (groups,), the training counts at which groups begin.
        by: What groups go by: ``"activity"``, ``"popularity"``, or None for one group of all.
    """

    model: Model
    scores: Array
    ends: Array
    edges: Array
    by: str | None

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        """The model's."""
        return self.model.score_pairs(users, items)

    def score_block(self, users: Codes) -> Array:
        """The model's."""
        return self.model.score_block(users)

    def arrays(self) -> Arrays:
        """The model's."""
        return self.model.arrays()

    def _predict_codes(self, users: Codes, items: Codes, unknown: str, clip: bool, times: Times | None = None) -> Array:
        return self.model._predict_codes(users, items, unknown, clip, times)

    def recommend(self, users: Any = None, n: int = 10, **options: Any) -> pl.DataFrame:
        """The model's, with its options."""
        return self.model.recommend(users, n, **options)

    def __getattr__(self, name: str) -> Any:
        """What the model has beyond :class:`Model`: ``recommend_for`` and ``explain``, say."""
        if name.startswith("_") or name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    def update(self, new_ratings: Ratings) -> Model:
        """Refused: an updated model makes other errors than those that were calibrated."""
        raise ParameterError(
            "A conformal model cannot be updated, since its intervals belong to the model as it is: "
            "update its .model, and calibrate that with gm.conformal on ratings held out."
        )

    # ---- intervals ------------------------------------------------------------------------------

    def predict_interval(
        self,
        users: Any,
        items: Any,
        level: float = 0.9,
        *,
        clip: bool = True,
        times: Any = None,
        unknown: str = "fallback",
    ) -> Array:
        """An interval for each pair's rating that holds it with a probability of at least ``level``.

        Args:
            users: User ids, as in :meth:`predict`.
            items: Item ids, as in :meth:`predict`.
            level: The probability, in (0, 1), over pairs drawn like the calibration ratings. It needs
                n ≥ level/(1 − level) calibration ratings (in each group): with fewer the interval is
                infinite (the whole scale, clipped), and a warning says so.
            clip: Whether to clip both ends to the scale of the training ratings.
            times: As in :meth:`predict`.
            unknown: As in :meth:`predict`.

        Returns:
            A float array (n, 2): lower and upper end.

        Raises:
            ParameterError: ``level`` is outside (0, 1).
        """
        check_level("level", level, "predict_interval")
        user_codes, item_codes = self._pair_codes(users, items, unknown)
        centre, (half,) = self.half_widths(user_codes, item_codes, [level], pair_times(times, len(user_codes)))
        ends = np.column_stack([centre - half, centre + half])
        if clip:
            np.clip(ends, *self.scale, out=ends)
        if unknown == "nan":
            ends[(user_codes < 0) | (item_codes < 0)] = np.nan
        return ends

    def half_widths(
        self, users: Codes, items: Codes, levels: Sequence[float], times: Times | None = None, depth: int = 4
    ) -> tuple[Array, Array]:
        """The middles (n,) and the half widths (levels, n) of the intervals of pairs of codes; −1 is unknown."""
        centre, scale = _centre_and_scale(self.model, users, items, times)
        groups = self.groups(users, items)
        half = np.empty((len(levels), len(users)))
        for k, level in enumerate(levels):
            half[k] = self._quantiles(level, depth)[groups] * scale
        return centre, half

    def groups(self, users: Codes, items: Codes) -> Array:
        """The group of each pair, from 0."""
        if self.by is None:
            return np.zeros(len(users), np.int64)
        return group_of(self.edges, training_counts(self.ratings, users, items, self.by))

    def _quantiles(self, level: float, depth: int) -> Array:
        """The score quantile of each group, after a warning where one is infinite."""
        parts = np.split(self.scores, self.ends[:-1])
        quantiles = np.array([conformal_quantile(part, level) for part in parts])
        if np.isinf(quantiles).any():
            few = int(np.argmax(np.isinf(quantiles)))
            where = "" if self.by is None else f" of {self.by} {group_names(self.edges)[few]}"
            text = (
                f"There are too few calibration ratings{where} for level {level:g}: found {len(parts[few])}, needed "
                f"{math.ceil(level / (1 - level) - 1e-9)}; the interval is infinite there (clipped, the whole scale)."
            )
            warnings.warn(text, DataWarning, stacklevel=depth)
        return quantiles

    def forecast(self, users: Codes, items: Codes, times: Times | None, values: Array, levels: list[float]) -> Forecast:
        """As of :class:`IntervalModel`: intervals alone, no distribution."""
        centre, half = self.half_widths(users, items, levels, times, depth=5)
        lower, upper = np.clip(centre - half, *self.scale), np.clip(centre + half, *self.scale)
        made = Forecast.empty(len(levels), len(values))
        return made._replace(lower=lower, upper=upper, spread=half[len(levels) // 2])

    def calibration(self, test: Ratings, **options: Any) -> Calibration:
        """How well the intervals hold on ``test``; see :func:`gramian.calibration`."""
        return calibration(self, test, **options)

    # ---- kept in a file -------------------------------------------------------------------------

    def content(self) -> tuple[Arrays, dict[str, Any]]:
        """The model's content, with the scores."""
        arrays, metadata = self.model.content()
        own = {"conformal.scores": self.scores, "conformal.ends": self.ends, "conformal.edges": self.edges}
        return {**arrays, **own}, {**metadata, "kind": "conformal", "by": self.by}

    @classmethod
    def from_content(cls, model: Model, arrays: Arrays, metadata: dict[str, Any]) -> Conformal:
        """The conformal model around a model read from a file.

        Raises:
            FormatError: The scores are missing or do not fit.
        """
        by = metadata.get("by")
        scores, ends, edges = (arrays.get(f"conformal.{name}", np.empty(0)) for name in ("scores", "ends", "edges"))
        sound = (
            (by is None or by in BY)
            and scores.dtype == np.float64
            and ends.dtype == edges.dtype == np.int64
            and scores.ndim == ends.ndim == edges.ndim == 1
            and len(ends) == len(edges) > 0
            and bool(np.isfinite(scores).all())
            and bool((np.diff(ends, prepend=0) >= 0).all() and ends[-1] == len(scores))
        )
        if not sound:
            raise FormatError("The calibration scores in the model file do not fit together; use another copy.")
        return _wrapped(model, scores, ends, edges, by)

    def __repr__(self) -> str:
        by = "" if self.by is None else f", {len(self.ends)} groups by {self.by}"
        return f"<conformal intervals from {len(self.scores):,} ratings{by} on {self.model!r}>"


def conformal(model: Model, ratings: Ratings, *, by: str | None = None, groups: int = 4) -> Conformal:
    """Give any model intervals with a finite-sample guarantee, from ratings it was not trained on.

    Args:
        model: A trained model. One that knows its uncertainty keeps it: its intervals stay wider where it is
            less sure, and are stretched to hold what they say. Others get the same width everywhere.
        ratings: Calibration ratings: a random part of the ratings, held out of the training; some thousand
            make the coverage precise (the chance in it has a standard deviation of √(level(1−level)/n)).
        by: Calibrate apart (Mondrian) by how many training ratings the user has, ``"activity"``, or the item,
            ``"popularity"``: coverage then holds within every group, at the price of fewer ratings for each.
        groups: About how many groups, by quantiles over the training ratings; used with ``by``.

    Returns:
        A :class:`Conformal`: ``predict_interval``, ``calibration``, ``save``, and all that the model does.

    Raises:
        DataError: There are no calibration ratings, or some were in the training.
    """
    check_ratings_given(ratings, "calibrate")
    if by is not None:
        check_choice("by", by, BY, "conformal")
    check_number("groups", groups, low=1, whole=True, owner="conformal")
    inner = model.model if isinstance(model, Conformal) else model
    seen = inner.count_seen(ratings)
    if seen:
        raise DataError(
            f"Calibration ratings must be held out: {seen:,} of {len(ratings):,} were in the training, where errors "
            "are smaller; split the ratings before the fit, and calibrate on the part left out."
        )
    users, items = inner.codes_of(ratings)
    centre, scale = _centre_and_scale(inner, users, items, ratings.times)
    scores = np.abs(ratings.values - centre) / scale
    edges = np.zeros(1, np.int64) if by is None else group_edges(inner.ratings, by, groups)
    labels = group_of(edges, training_counts(inner.ratings, users, items, by or BY[0]))
    order = np.lexsort((scores, labels))
    ends = np.cumsum(np.bincount(labels, minlength=len(edges)), dtype=np.int64)
    return _wrapped(inner, scores[order], ends, edges, by)


def _wrapped(model: Model, scores: Array, ends: Array, edges: Array, by: str | None) -> Conformal:
    shared = {field.name: getattr(model, field.name) for field in dataclasses.fields(Model)}
    return Conformal(**shared, model=model, scores=scores, ends=ends, edges=edges, by=by)


def _centre_and_scale(model: Model, users: Codes, items: Codes, times: Times | None) -> tuple[Array, Array]:
    """Clipped predictions, and the predictive standard deviations, or ones of a model without."""
    centre = model._predict_codes(users, items, "fallback", True, times).astype(np.float64)
    scale = np.ones(len(users))
    if isinstance(model, UncertainModel):
        for piece, mixture in model.pieces(users, items, times):
            scale[piece] = mixture.std()
    return centre, scale
