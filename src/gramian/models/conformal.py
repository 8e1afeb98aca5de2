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
from gramian.core.plain import Plain
from gramian.data.columns import Frame
from gramian.data.groups import BY, group_edges, group_names, group_of, training_counts
from gramian.data.ids import Codes, Id, Ids
from gramian.data.pairs import Pairs
from gramian.data.table import RatingsTable
from gramian.errors import DataError, DataWarning, FormatError, ParameterError
from gramian.kernels.arrays import Array
from gramian.models.calibration import LEVELS, Calibration, calibration
from gramian.models.capabilities import Capabilities
from gramian.models.fold_in import FoldingModel, Given, NewUser
from gramian.models.interval_model import Forecast, IntervalModel
from gramian.models.model import Best, Model, TimesGiven, check_ratings_given
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

    @property
    def capabilities(self) -> Capabilities:
        """The model's, and intervals."""
        return self.model.capabilities._replace(intervals=True)

    def predict_codes(self, pairs: Pairs, *, unknown: str = "fallback", clip: bool = True) -> Array:
        """The model's."""
        return self.model.predict_codes(pairs, unknown=unknown, clip=clip)

    def best_codes(self, users: Codes, n: int, *, exclude_seen: bool = True, among: Array | None = None) -> Best:
        """The model's."""
        return self.model.best_codes(users, n, exclude_seen=exclude_seen, among=among)

    def recommend(self, users: Ids | None = None, n: int = 10, **options: Any) -> pl.DataFrame:  # noqa: ANN401 - the model's
        """The model's, with its options."""
        return self.model.recommend(users, n, **options)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it is of the model
        """What the model has beyond :class:`Model`: ``recommend_for`` and ``explain``, say."""
        if name.startswith("_") or name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    def update(self, new_ratings: RatingsTable) -> Model:
        """Refused: an updated model makes other errors than those that were calibrated."""
        raise ParameterError(
            "A conformal model cannot be updated, since its intervals belong to the model as it is: "
            "update its .model, and calibrate that with gm.conformal on ratings held out."
        )

    # ---- intervals ------------------------------------------------------------------------------

    def predict_interval(
        self,
        users: Ids,
        items: Ids,
        level: float = 0.9,
        *,
        clip: bool = True,
        times: TimesGiven = None,
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
        pairs = self._pairs_of(users, items, times, unknown)
        centre, (half,) = self.half_widths(pairs, [level])
        ends = np.column_stack([centre - half, centre + half])
        if clip:
            np.clip(ends, *self.scale, out=ends)
        if unknown == "nan":
            ends[pairs.unknown] = np.nan
        return ends

    def interval_codes(self, pairs: Pairs, level: float) -> Array:
        """As of :class:`IntervalModel`."""
        centre, (half,) = self.half_widths(pairs, [level])
        return np.clip(np.column_stack([centre - half, centre + half]), *self.scale)

    def half_widths(self, pairs: Pairs, levels: Sequence[float], depth: int = 4) -> tuple[Array, Array]:
        """The middles (n,) and the half widths (levels, n) of the intervals of pairs of codes; −1 is unknown."""
        centre, scale = _centre_and_scale(self.model, pairs)
        groups = self.groups(pairs)
        half = np.empty((len(levels), len(pairs)))
        for k, level in enumerate(levels):
            half[k] = self.quantiles(level, depth)[groups] * scale
        return centre, half

    def groups(self, pairs: Pairs) -> Array:
        """The group of each pair, from 0."""
        if self.by is None:
            return np.zeros(len(pairs), np.int64)
        return group_of(self.edges, training_counts(self.ratings, pairs, self.by))

    def quantiles(self, level: float, depth: int = 4) -> Array:
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

    def forecast(self, pairs: Pairs, values: Array, levels: list[float]) -> Forecast:
        """As of :class:`IntervalModel`: intervals alone, no distribution."""
        centre, half = self.half_widths(pairs, levels, depth=5)
        lower, upper = np.clip(centre - half, *self.scale), np.clip(centre + half, *self.scale)
        made = Forecast.empty(len(levels), len(values))
        return made._replace(lower=lower, upper=upper, spread=half[len(levels) // 2])

    def calibration(
        self,
        test: RatingsTable,
        *,
        levels: Sequence[float] = LEVELS,
        level: float = 0.9,
        groups: int = 4,
        unknown: str = "fallback",
    ) -> Calibration:
        """How well the intervals hold on ``test``; see :func:`gramian.calibration`."""
        return calibration(self, test, levels=levels, level=level, groups=groups, unknown=unknown)

    def new_user(
        self, ratings: Given, *, times: TimesGiven = None, who: Id | None = None, unknown: str = "fallback"
    ) -> ConformalNewUser:
        """Somebody folded into the model, with conformal intervals; arguments as of :class:`FoldingModel`.

        Raises:
            ParameterError: The model cannot take in somebody new.
        """
        if not isinstance(self.model, FoldingModel):
            name = self.model.recipe.name
            raise ParameterError(f"A model of {name!r} cannot take in somebody new; take one that can, ALS say.")
        return ConformalNewUser(self, self.model.new_user(ratings, times=times, who=who, unknown=unknown))

    def with_items(self, table: Frame) -> Conformal:
        """As of :class:`Model`."""
        return _wrapped(self.model.with_items(table), self.scores, self.ends, self.edges, self.by)

    # ---- kept in a file -------------------------------------------------------------------------

    def content(self) -> tuple[Arrays, Plain]:
        """The model's content, with the scores."""
        arrays, metadata = self.model.content()
        own = {"conformal.scores": self.scores, "conformal.ends": self.ends, "conformal.edges": self.edges}
        return {**arrays, **own}, {**metadata, "kind": "conformal", "by": self.by}

    @classmethod
    def from_content(cls, model: Model, arrays: Arrays, metadata: Plain) -> Conformal:
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


class ConformalNewUser(NewUser[FoldingModel]):
    """Somebody folded into a model with conformal intervals."""

    def __init__(self, conformal: Conformal, inner: NewUser[FoldingModel]) -> None:
        super().__init__(inner.model, inner.items, inner.values, inner.row)
        self.conformal, self.inner = conformal, inner

    def scores(self) -> Array:
        """The model's."""
        return self.inner.scores()

    def predict(self, items: Codes) -> Array:
        """The model's."""
        return self.inner.predict(items)

    def stds(self, items: Codes) -> Array:
        """The model's."""
        return self.inner.stds(items)

    def ordered(self, order: str, level: float, seed: int) -> Array:
        """The model's."""
        return self.inner.ordered(order, level, seed)

    def reasons(self, item: int) -> pl.DataFrame:
        """The model's."""
        return self.inner.reasons(item)

    def interval(self, items: Codes, level: float) -> Array:
        """Conformal intervals, as of anybody whom the training does not know."""
        check_level("level", level, "predict_interval")
        pairs = Pairs(np.full(len(items), -1, np.int32), items)
        half = self.conformal.quantiles(level)[self.conformal.groups(pairs)] * self.stds(items)
        centre = self.predict(items)
        return np.clip(np.column_stack([centre - half, centre + half]), *self.model.scale)


def conformal(model: Model, ratings: RatingsTable, *, by: str | None = None, groups: int = 4) -> Conformal:
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
    pairs = inner.pairs_of(ratings)
    centre, scale = _centre_and_scale(inner, pairs)
    scores = np.abs(ratings.values - centre) / scale
    edges = np.zeros(1, np.int64) if by is None else group_edges(inner.ratings, by, groups)
    labels = group_of(edges, training_counts(inner.ratings, pairs, by or BY[0]))
    order = np.lexsort((scores, labels))
    ends = np.cumsum(np.bincount(labels, minlength=len(edges)), dtype=np.int64)
    return _wrapped(inner, scores[order], ends, edges, by)


def _wrapped(model: Model, scores: Array, ends: Array, edges: Array, by: str | None) -> Conformal:
    shared = {field.name: getattr(model, field.name) for field in dataclasses.fields(Model)}
    return Conformal(**shared, model=model, scores=scores, ends=ends, edges=edges, by=by)


def _centre_and_scale(model: Model, pairs: Pairs) -> tuple[Array, Array]:
    """Clipped predictions, and the predictive standard deviations, or ones of a model without."""
    centre = model.predict_codes(pairs).astype(np.float64)
    scale = np.ones(len(pairs))
    if isinstance(model, UncertainModel):
        for piece, mixture in model.pieces(pairs):
            scale[piece] = mixture.std()
    return centre, scale
