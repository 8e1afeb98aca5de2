r"""A star is a step, not a real number: ratings as steps between sampled cut points (ordered probit).

.. math::
    z_{ij} \sim N(\mu + b_i + c_j + w_i^\top u_j + \dots,\ \alpha^{-1}), \qquad
    r_{ij} = v_k \iff \gamma_k < z_{ij} \le \gamma_{k+1}, \qquad \gamma_0 = -\infty,\ \gamma_L = \infty

for the L different ratings :math:`v_0 < \dots < v_{L-1}` of the training. The latent rating z is on about the scale of
the ratings: the first and the last inner cut stay in the middle between their levels, which fixes place and width of
the steps, and α is sampled as ever. (Of two levels the one cut and α stay as they are: they say nothing of a width.)
The other cuts have a flat prior between those two, in their order.

The rows, the noise and what time adds are drawn given z, as if z were the ratings; z given the rest is normal, cut off
at the cuts of its step (Albert & Chib). The cuts are drawn first in a sweep, with z integrated out (Cowles: given z
they could hardly move), by a Metropolis–Hastings step. With ℓ the log likelihood of the cuts, whose second derivatives
are tridiagonal, the proposal is one step of Newton's with the noise of its own precision,

.. math:: \gamma' \sim N\big(\gamma + H^{-1}\nabla\ell,\ H^{-1}\big), \qquad H = -\nabla^2\ell,

which with many ratings is nearly the posterior itself: nothing is tuned, and most proposals are accepted. Beside levels
of few ratings the posterior of a cut is no normal distribution; such cuts are first drawn one by one, by slice sampling
between their neighbours (Neal).

A draw gives a rating the probabilities :math:`P(r \ge v_k) = \Phi((\eta - \gamma_k)/\sigma)`; what is not known of η
otherwise (of somebody unknown, of a day) makes σ wider. The prediction is the mean of these over the draws.

Sources: Albert & Chib 1993, *Bayesian analysis of binary and polychotomous response data*; Cowles 1996, *Accelerating
Monte Carlo Markov chain convergence for cumulative-link generalized linear models*; Nandram & Chen 1996 (cuts at both
ends fixed, the noise free); Neal 2003, *Slice sampling*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.core.file_format import Arrays
from gramian.data.table import RatingsTable
from gramian.engine import entries
from gramian.errors import DataError, FormatError
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.bayes.bundles import Beginning, Chance
from gramian.models.bayes.terms.term import Observation

__all__ = ["Cuts", "Ordinal", "draw_cuts", "expected", "first_cuts", "levels_of", "steps_of"]

MOST_LEVELS = 100
FEW = 100  # ratings of a level, below which the cuts beside it are drawn one by one as well
TINY = 1e-280


class Cuts(NamedTuple):
    """The inner cuts, (L − 1,), ascending, and whether the last proposal was accepted."""

    values: npt.NDArray[np.float64]
    accepted: float = 0.0


def levels_of(ratings: RatingsTable) -> npt.NDArray[np.float64]:
    """The different ratings, ascending.

    Raises:
        DataError: There are too many to be steps.
    """
    levels = np.unique(ratings.values).astype(np.float64)
    if len(levels) > MOST_LEVELS:
        raise DataError(
            f"likelihood='ordinal' needs ratings on at most {MOST_LEVELS} steps: found {len(levels)} different "
            "ratings; round them, or use likelihood='normal'."
        )
    return levels


def steps_of(values: Array, levels: Array) -> npt.NDArray[np.int32]:
    """The step of each value: that of the nearest level."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values, side="right").astype(np.int32)


def first_cuts(levels: Array) -> Cuts:
    """What a chain starts at: in the middle between the levels."""
    return Cuts((levels[1:] + levels[:-1]) / 2)


def expected(mean: Array, cuts: Array, levels: Array, std: Array) -> Array:
    """The expected rating of latent means, Σ v P, in float64; ``std`` is one number, or one for each."""
    from scipy.special import ndtr

    out = np.full(np.shape(mean), levels[0], np.float64)
    wide = np.asarray(mean, np.float64)
    for cut, step in zip(cuts, np.diff(levels), strict=True):
        out += step * ndtr((wide - cut) / std)
    return np.clip(out, levels[0], levels[-1])


class _Proposal(NamedTuple):
    """What the likelihood says at some cuts: log likelihood, the centre of the proposal, and L Lᵀ of its precision."""

    value: float
    centre: Array
    root: Array


def draw_cuts(
    before: Cuts, by_user: CSR, steps: Array, mean: Array, stds: Array, rng: np.random.Generator,
    n_jobs: int | None = None,
) -> Cuts:  # fmt: skip
    """The cuts between the first and the last one, given the latent means (n,) and the noise of each user."""
    free = slice(1, len(before.values) - 1)
    if len(before.values) < 3:
        return before
    before = before._replace(values=_slid(before.values, by_user, steps, mean, stds, rng))
    now = _proposal(before.values, by_user, steps, mean, stds, n_jobs)
    z = rng.standard_normal(len(now.centre))
    chance = np.log(rng.random())
    values = before.values.copy()
    values[free] = now.centre + np.linalg.solve(now.root.T, z)
    if not (np.diff(values) > 0).all():
        return before._replace(accepted=0.0)
    then = _proposal(values, by_user, steps, mean, stds, n_jobs)
    gain = then.value - now.value + _log_density(then, before.values[free]) - _log_density(now, values[free])
    return Cuts(values, 1.0) if chance < gain else before._replace(accepted=0.0)


def _proposal(cuts: Array, by_user: CSR, steps: Array, mean: Array, stds: Array, n_jobs: int | None) -> _Proposal:
    value, slope, bend, beside = entries.cut_sums(by_user, steps, mean, cuts, stds, n_jobs)
    H = np.diag(bend[1:-1]) - np.diag(beside[1:-1], 1) - np.diag(beside[1:-1], -1)
    H += np.eye(len(H)) * 1e-9 * max(1.0, float(np.max(np.abs(H))))  # where the likelihood is flat, a little is enough
    root = np.linalg.cholesky(H)
    step = np.linalg.solve(root.T, np.linalg.solve(root, slope[1:-1]))
    return _Proposal(value, cuts[1:-1] + step, root)


def _slid(
    cuts: Array, by_user: CSR, steps: Array, mean: Array, stds: Array, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """The cuts, those beside a level of few ratings drawn anew one by one, given all others."""
    counts, made = np.bincount(steps, minlength=len(cuts) + 1), cuts.copy()
    rare = [k for k in range(1, len(cuts) - 1) if min(counts[k], counts[k + 1]) < FEW]
    each = np.repeat(stds, by_user.counts) if rare else stds
    for k in rare:
        lower, upper = steps == k, steps == k + 1
        parts = (mean[lower], each[lower], mean[upper], each[upper])
        low, high = made[k - 1], made[k + 1]
        least = _log_chance(made, k, parts) - rng.standard_exponential()
        before = made[k]
        while True:
            made[k] = rng.uniform(low, high)
            if low < made[k] < high and _log_chance(made, k, parts) >= least:
                break
            if not low < high:  # nothing is left but where it was
                made[k] = before
                break
            low, high = (made[k], high) if made[k] < before else (low, made[k])
    return made


def _log_chance(cuts: Array, k: int, parts: tuple[Array, Array, Array, Array]) -> float:
    """The log likelihood of cut *k*: of the ratings of the levels below and above it."""
    mean, std, next_mean, next_std = parts
    inside = _between((cuts[k - 1] - mean) / std, (cuts[k] - mean) / std)
    outside = _between((cuts[k] - next_mean) / next_std, (cuts[k + 1] - next_mean) / next_std)
    return float(np.log(inside).sum() + np.log(outside).sum())


def _between(a: Array, b: Array) -> Array:
    """Φ(b) − Φ(a), on the side where it keeps its digits."""
    from scipy.special import ndtr

    sign = np.where(a + b > 0, -1.0, 1.0)
    return np.maximum(np.abs(ndtr(sign * b) - ndtr(sign * a)), TINY)


def _log_density(at: _Proposal, cuts: Array) -> float:
    """Of the proposal, but for a constant."""
    z = at.root.T @ (cuts - at.centre)
    return float(np.sum(np.log(np.diag(at.root))) - 0.5 * z @ z)


# ---- the term --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ordinal(Observation[Cuts]):
    """Ratings that are steps.

    Attributes:
        levels: (L,), the different ratings, ascending.
        steps: (n,), the step of each training rating.
    """

    name = "cuts"
    settings: ClassVar[Mapping[str, object]] = {"likelihood": "normal"}

    levels: npt.NDArray[np.float64]
    steps: npt.NDArray[np.int32]

    @classmethod
    def of_ratings(cls, ratings: RatingsTable, arrays: Arrays | None = None) -> Ordinal:
        """The steps of these ratings; with the levels of a file, where they are read from one.

        Raises:
            DataError: The ratings are no steps.
            FormatError: The levels of the file are missing or not sound.
        """
        levels = levels_of(ratings) if arrays is None else _levels_in(arrays)
        return cls(levels, steps_of(ratings.values, levels))

    @property
    def fixes_noise(self) -> bool:
        """Two levels say nothing of a width."""
        return len(self.levels) < 3

    # ---- while sampling -------------------------------------------------------------------------

    def start(self, begin: Beginning) -> Cuts:
        """As of :class:`Term`."""
        return first_cuts(self.levels)

    def observed_at(self, places: Array | slice) -> Array:
        """The steps of some training ratings."""
        return self.steps[places]

    def observed(self, values: Array) -> Array:
        """The steps of any ratings."""
        return steps_of(values, self.levels)

    def drawn(self, value: Cuts, rows: CSR, mean: Array, stds: Array, chance: Chance) -> tuple[Cuts, Array]:
        """The cuts first, with what they hide integrated out; then what they hide."""
        cuts = draw_cuts(value, rows, self.steps, mean, stds, chance.rng, chance.n_jobs)
        return cuts, self.hidden(cuts, rows, self.steps, mean, stds, chance)

    def hidden(self, value: Cuts, rows: CSR, observed: Array, mean: Array, stds: Array, chance: Chance) -> Array:
        """Normal numbers between the cuts of their steps."""
        return entries.latent(rows, observed, mean, value.values, stds, chance.counters, chance.n_jobs)

    def cuts(self, value: Cuts) -> Array:
        """As of :class:`Observation`."""
        return value.values

    def expected(self, value: Cuts, mean: Array, std: Array) -> Array:
        """As of :class:`Observation`."""
        return expected(mean, value.values, self.levels, std)

    def expect(self, value: Cuts, scores: Array, stds: Array, n_jobs: int | None = None) -> None:
        """As of :class:`Observation`; to 1e-5."""
        if len(self.levels) == 1:
            scores[:] = self.levels[0]
            return
        entries.expect_block(scores, value.values, self.levels, stds, n_jobs)

    def trace_names(self) -> list[str]:
        """The cuts that are sampled."""
        return [f"cut_{k}" for k in range(2, len(self.levels) - 1)]

    def trace(self, value: Cuts) -> list[float]:
        """As of :class:`Term`."""
        return list(value.values[1:-1].tolist())

    def record(self, values: Sequence[Cuts]) -> dict[str, float]:
        """The share of the proposals of cuts that was accepted, where some are sampled."""
        accepted = 0.0
        for value in values:
            accepted += value.accepted / len(values)
        return {"cuts_accepted": accepted} if len(self.levels) > 3 else {}

    # ---- new ratings, files ------------------------------------------------------------------------

    def rebound(self, ratings: RatingsTable) -> Ordinal:
        """With the steps of more ratings."""
        return replace(self, steps=steps_of(ratings.values, self.levels))

    def arrays(self) -> Arrays:
        """The levels."""
        return {"levels": self.levels}

    def packed(self, value: Cuts) -> Arrays:
        """All in one array."""
        return {"cuts": np.append(value.values, value.accepted)}

    def unpacked(self, arrays: Arrays) -> Cuts:
        """From one array."""
        return Cuts(arrays["cuts"][:-1], float(arrays["cuts"][-1]))

    def shapes(self, begin: Beginning) -> dict[str, tuple[int, ...]]:
        """As of :class:`Term`."""
        return {"cuts": (len(self.levels),)}

    def is_sound(self, value: Cuts) -> bool:
        """Whether the cuts ascend."""
        return bool((np.diff(value.values) > 0).all())

    def light(self) -> Ordinal:
        """Without the steps of the training ratings."""
        return replace(self, steps=np.empty(0, np.int32))


def _levels_in(arrays: Arrays) -> npt.NDArray[np.float64]:
    levels = arrays.get("levels", np.empty(0))
    if levels.ndim != 1 or len(levels) == 0 or not np.isfinite(levels).all() or not (np.diff(levels) > 0).all():
        raise FormatError(
            f"The levels of bpmf do not fit: found {levels!r} for ascending numbers; use another copy of the file."
        )
    return levels.astype(np.float64)
