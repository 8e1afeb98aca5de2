"""Ratings made from a known truth, to see what a model recovers of it.

The rating of user *i* for item *j* at time *t* (τ runs from 0 to 1 over the period) is

    r_ij = μ + b_i + c_j + d_j (τ(t) − ½) + w_i·u_j + ε,      ε ~ N(0, noise²)

then rounded to the steps of the scale and cut off at its ends. Which pairs are rated is decided by the user's
activity (how many), the item's popularity p_j, and, for ``selection`` s > 0, by taste:

    P(next item of user i is j) ∝ p_j · σ(s z_ij),    z_ij = (c_j + w_i·u_j) / its standard deviation
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.core.parameters import check_number
from gramian.core.plain import Plain
from gramian.data.ids import IdMap
from gramian.data.ratings import Ratings
from gramian.errors import ParameterError, UnknownIdError
from gramian.kernels.arrays import Array
from gramian.kernels.csr import csr_from_sorted

__all__ = ["Synthetic", "synthetic_ratings"]

Floats = npt.NDArray[np.float64]
Scale = tuple[float, float, float]

PERIOD = (1_420_070_400, 1_577_836_800)  # 2015-01-01 to 2020-01-01
BLOCK_CELLS = 1 << 25  # users × items marked at a time: 32 MiB of booleans
DENSE_CELLS = 1 << 21  # users × items weighed at a time, where drawing one by one takes too long
ROUNDS = 24  # of drawing one by one
OWNER = "synthetic_ratings"
RANGES: dict[str, tuple[float | None, float | None, bool]] = {  # lowest, highest, whole number
    "n_users": (1, None, True),
    "n_items": (1, None, True),
    "n_ratings": (1, None, True),
    "factors": (0, None, True),
    "seed": (0, None, True),
    "mean": (None, None, False),
    **dict.fromkeys(("noise", "user_bias", "item_bias", "factor_scale", "selection", "drift"), (0, None, False)),
    **dict.fromkeys(("popularity_skew", "activity_skew"), (0, 5, False)),
}


@dataclass(frozen=True, eq=False, repr=False)
class Synthetic:
    """Ratings and the truth they were made from.

    The arrays of the truth are in the order of the ids 0 … n − 1. Users and items that got no rating are not in
    ``ratings``, so codes there can differ: ``truth.item_biases[truth.ratings.item_ids.ids.to_numpy()]`` is
    aligned with the codes.

    Attributes:
        ratings: The ratings, with integer ids.
        user_factors: W, users × factors.
        item_factors: U, items × factors.
        user_biases: b, one per user.
        item_biases: c, one per item, in the middle of the period.
        global_mean: μ.
        noise: The standard deviation of ε, before rounding.
        item_drift: d, how much each item's bias changes from the start of the period to its end.
        period: The start and end of the period, Unix seconds; None where there are no times.
        scale: (lowest, highest, step), or None where nothing was rounded.
    """

    ratings: Ratings
    user_factors: Floats
    item_factors: Floats
    user_biases: Floats
    item_biases: Floats
    global_mean: float
    noise: float
    item_drift: Floats
    period: tuple[int, int] | None
    scale: Scale | None

    def expected(self, users: npt.ArrayLike, items: npt.ArrayLike, times: npt.ArrayLike | None = None) -> Floats:
        """The rating without noise, rounding and cut-off: μ + b_i + c_j + d_j (τ(t) − ½) + w_i·u_j.

        Args:
            users: User ids, 0 … users − 1, one or many.
            items: Item ids, as many.
            times: Unix seconds, as many. Not given: the middle of the period.

        Raises:
            UnknownIdError: An id is outside the truth.
        """
        i, j = _known(users, len(self.user_biases), "user"), _known(items, len(self.item_biases), "item")
        made = self.global_mean + self.user_biases[i] + self.item_biases[j]
        made += np.einsum("...k,...k->...", self.user_factors[i], self.item_factors[j])
        if times is None or self.period is None:
            return made
        start, end = self.period
        return made + self.item_drift[j] * ((np.asarray(times, np.float64) - start) / (end - start) - 0.5)

    def __repr__(self) -> str:
        return f"Synthetic({self.ratings!r}, factors={self.user_factors.shape[1]}, noise={self.noise:g})"


def synthetic_ratings(  # noqa: PLR0913 - its options are the user's
    n_users: int = 1000,
    n_items: int = 500,
    n_ratings: int = 50_000,
    *,
    factors: int = 5,
    noise: float = 0.5,
    mean: float = 3.5,
    user_bias: float = 0.4,
    item_bias: float = 0.5,
    factor_scale: float = 0.6,
    popularity_skew: float = 1.2,
    activity_skew: float = 1.0,
    selection: float = 0.0,
    scale: Scale | None = (0.5, 5.0, 0.5),
    drift: float = 0.0,
    times: bool = True,
    seed: int = 0,
) -> Synthetic:
    """Make ratings from a known truth (the equations stand at the head of this module).

    Args:
        n_users, n_items: How many there are, from 1.
        n_ratings: How many distinct pairs are rated, exactly; 1 … n_users · n_items. Every user gets one at
            least, where there are as many ratings as users; an item may get none.
        factors: K, the number of latent features, from 0.
        noise: The standard deviation of ε, from 0.
        mean: μ.
        user_bias, item_bias: The standard deviations of the biases b and c, from 0.
        factor_scale: The standard deviation of w_i·u_j, from 0, whatever K is.
        popularity_skew, activity_skew: The standard deviations of the logarithms of the items' popularity and the
            users' activity, 0 … 5. 0: all alike; about 1: as in MovieLens 100K.
        selection: s, from 0: how strongly users prefer to rate what they like. An item one standard deviation above
            the user's average is rated e^s times as readily as one that far below it. Ratings are then missing not
            at random, and their mean lies above μ.
        scale: (lowest, highest, step) to which ratings are rounded and at which they are cut off; None for neither.
        drift: The standard deviation over items of d, the change of an item's bias over the period, from 0.
        times: Whether ratings have times (Unix seconds of the years 2015 to 2019; a user joins at some moment
            and rates most soon after). ``drift`` needs them.
        seed: From 0; the same seed gives the same ratings, bit for bit.

    Returns:
        The ratings and the truth; ids are 0 … n − 1.

    Raises:
        ParameterError: An argument is outside its range, or there are more ratings than pairs.

    Memory stays near that of the ratings: pairs are drawn for a block of users at a time.
    """
    _check(dict(locals()))
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal
    spread = np.sqrt(factor_scale / np.sqrt(factors)) if factors else 0.0
    W, U = (spread * normal((n, factors)) for n in (n_users, n_items))
    b, c, d = user_bias * normal(n_users), item_bias * normal(n_items), drift * normal(n_items)
    counts = _activity(n_users, n_items, n_ratings, activity_skew, rng)
    log_popularity = popularity_skew * normal(n_items)
    liking = selection / max(float(np.hypot(item_bias, factor_scale if factors else 0.0)), 1e-12)
    choice = _Choice(log_popularity, liking * c, liking * W, U)

    columns: list[tuple[Array, ...]] = []
    for users, items in choice.pairs(counts, rng):
        value = float(mean) + b[users] + c[items] + np.einsum("nk,nk->n", W[users], U[items])
        moment = _moments(users, rng) if times else np.empty(0)
        if drift:
            value += d[items] * (moment - 0.5)
        value = _on_scale(value + noise * normal(len(value)), scale)
        columns.append((users.astype(np.int32), items.astype(np.int32), value.astype(np.float32), _seconds(moment)))
    ratings = _assemble(columns, n_users, n_items, times)
    period = PERIOD if times else None
    rounded = None if scale is None else (float(scale[0]), float(scale[1]), float(scale[2]))
    return Synthetic(ratings, W, U, b, c, float(mean), float(noise), d, period, rounded)


def _check(given: Plain) -> None:
    """Raise ParameterError for the first argument that is outside its range, or does not fit the others."""
    for name, (low, high, whole) in RANGES.items():
        check_number(name, given[name], low=low, high=high, whole=whole, owner=OWNER)
    n_users, n_items, n_ratings, drift = (given[name] for name in ("n_users", "n_items", "n_ratings", "drift"))
    if n_ratings > n_users * n_items:
        raise ParameterError(
            f"The 'n_ratings' parameter of {OWNER} is more than there are pairs; got {n_ratings} for "
            f"{n_users} × {n_items} = {n_users * n_items}; ask for fewer."
        )
    if drift and not given["times"]:
        raise ParameterError(f"The 'drift' parameter of {OWNER} needs times=True; got {drift!r} without times.")
    if given["scale"] is not None:
        _check_scale(given["scale"])


def _check_scale(scale: object) -> None:
    if isinstance(scale, tuple | list) and len(scale) == 3:
        low, high, step = (check_number("scale", value, owner=OWNER) for value in scale)
        steps = (high - low) / step if step > 0 else 0.0
        if steps >= 1 and abs(steps - round(steps)) < 1e-6:
            return
    raise ParameterError(
        f"The 'scale' parameter of {OWNER} must be (lowest, highest, step) with a whole number of steps between "
        f"them, or None; got {scale!r}."
    )


def _known(ids: npt.ArrayLike, n: int, what: str) -> Array:
    places = np.asarray(ids)
    places = places if places.size else places.astype(np.int64)
    outside = (places < 0) | (places >= n) if places.dtype.kind in "iu" else np.ones(places.shape, bool)
    if outside.any():
        raise UnknownIdError(
            f"The truth knows no such {what}: got {places[outside].flat[0]!r}; ids are whole numbers, 0 to {n - 1}."
        )
    return places


# ---- who rates how much ---------------------------------------------------------------------------------


def _activity(n_users: int, n_items: int, n_ratings: int, skew: float, rng: np.random.Generator) -> Array:
    """How many items each user rates: proportional to a lognormal weight, at most all, in sum ``n_ratings``."""
    weights = np.exp(skew * rng.standard_normal(n_users))
    least = 1.0 if n_ratings >= n_users else 0.0
    low, high = 0.0, n_items / float(weights.min())
    for _ in range(100):  # the factor at which the counts, each kept between its bounds, sum to n_ratings
        middle = (low + high) / 2
        enough = np.clip(middle * weights, least, n_items).sum() >= n_ratings
        low, high = (low, middle) if enough else (middle, high)
    shares = np.clip(high * weights, least, n_items)
    counts = np.floor(shares).astype(np.int64)
    missing = n_ratings - int(counts.sum())
    open_places = np.flatnonzero(counts < n_items)
    largest = open_places[np.argsort(-(shares - counts)[open_places], kind="stable")]
    counts[largest[: max(missing, 0)]] += 1
    return counts


# ---- who rates what -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Choice:
    """The weights by which users pick items: popularity · σ(tilt_j + taste_i·U_j); σ is left out where all are 0."""

    log_popularity: Floats
    tilt: Floats
    taste: Floats
    item_factors: Floats

    @property
    def selective(self) -> bool:
        return bool(self.tilt.any() or self.taste.any())

    def pairs(self, counts: Array, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
        """Distinct pairs for a block of users at a time, in the order of (user, item)."""
        n_items = len(self.log_popularity)
        popularity = np.exp(self.log_popularity - self.log_popularity.max())
        cumulative = np.cumsum(popularity)
        step = max(1, BLOCK_CELLS // n_items)
        for first in range(0, len(counts), step):
            wanted = counts[first : first + step]
            users, items = np.divmod(np.flatnonzero(self._mark(first, wanted, cumulative, rng)), n_items)
            yield users + first, items

    def _mark(self, first: int, wanted: Array, cumulative: Floats, rng: np.random.Generator) -> Array:
        """A flat map of the block, true where a user rates an item.

        Items are drawn one after the other, a repeated one drawn anew: that is sampling without replacement, its
        weights renormalized each time. Users whom this would take too long get the rest in one go, which has the
        same distribution: the largest of log-weight + Gumbel noise among the items still free.
        """
        n_items = len(cumulative)
        marked = np.zeros(len(wanted) * n_items, bool)
        lacking = wanted.copy()
        for _ in range(ROUNDS):
            users = np.repeat(np.arange(len(wanted)), lacking)
            items = np.searchsorted(cumulative, rng.random(len(users)) * cumulative[-1], side="right")
            items = np.minimum(items, n_items - 1)
            if self.selective:
                kept = rng.random(len(users)) < _sigmoid(self._liking(first + users, items))
                users, items = users[kept], items[kept]
            cells = users * n_items + items
            fresh = np.unique(cells[~marked[cells]])
            marked[fresh] = True
            lacking = lacking - np.bincount(fresh // n_items, minlength=len(wanted))
            if not lacking.any():
                return marked
        short = np.flatnonzero(lacking)
        table = marked.reshape(len(wanted), n_items)
        step = max(1, DENSE_CELLS // n_items)
        for users in (short[k : k + step] for k in range(0, len(short), step)):
            self._fill(table, users, first, lacking, rng)
        return marked

    def _fill(self, table: Array, users: Array, first: int, lacking: Array, rng: np.random.Generator) -> None:
        keys = self.log_popularity + rng.gumbel(size=(len(users), table.shape[1]))
        if self.selective:
            liking = self.tilt + self.taste[first + users] @ self.item_factors.T
            keys -= np.logaddexp(0.0, -liking)
        keys[table[users]] = -np.inf
        for row, user in enumerate(users):
            table[user, np.argpartition(keys[row], -lacking[user])[-lacking[user] :]] = True

    def _liking(self, users: Array, items: Array) -> Floats:
        liking: Floats = self.tilt[items] + np.einsum("nk,nk->n", self.taste[users], self.item_factors[items])
        return liking


def _sigmoid(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -x))


# ---- when, and how much ---------------------------------------------------------------------------------


def _moments(users: Array, rng: np.random.Generator) -> Floats:
    """τ of each rating of a block: a user joins at a moment drawn evenly, and rates most soon after."""
    if not len(users):
        return np.empty(0)
    joined = rng.random(int(users[-1] - users[0]) + 1)[users - users[0]]
    moments: Floats = joined + (1 - joined) * rng.random(len(users)) ** 2
    return moments


def _seconds(moment: Floats) -> npt.NDArray[np.int64]:
    start, end = PERIOD
    return (start + np.floor(moment * (end - start))).astype(np.int64)


def _on_scale(values: Floats, scale: Scale | None) -> Floats:
    if scale is None:
        return values
    low, high, step = scale
    return np.clip(low + step * np.round((values - low) / step), low, high)


def _assemble(columns: list[tuple[Array, ...]], n_users: int, n_items: int, times: bool) -> Ratings:
    """The table of all blocks; users and items without ratings are left out."""
    users, items, values, moments = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    user_ids, item_ids = (IdMap(pl.int_range(n, dtype=pl.Int64, eager=True)) for n in (n_users, n_items))
    by_user = csr_from_sorted(users, items, values, n_users)
    made = Ratings(user_ids, item_ids, by_user, moments if times else None)
    everyone = len(np.unique(users)) == n_users and len(np.unique(items)) == n_items
    return made if everyone else made.take(np.ones(len(values), bool))
