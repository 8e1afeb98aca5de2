r"""A predictive distribution: for every pair an equal-weight mixture of S normals, one per posterior draw.

.. math::
    F(x) = \frac1S \sum_{s=1}^S \Phi\!\left(\frac{x - m_s}{\sigma_s}\right)

Draw *s* of the parameters predicts :math:`m_s` for a pair and adds noise of standard deviation
:math:`\sigma_s`. The spread of the :math:`m_s` is how unsure the *mean* is; the mixture is how unsure the
*rating* is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gramian.errors import ParameterError
from gramian.kernels.arrays import Array

__all__ = ["NormalMixture"]

# Up to so many draws, the CRPS takes the closed form over all pairs of draws; beyond, the trapezoidal rule.
CLOSED_DRAWS = 32
# Nodes of the trapezoidal rule in units of the smallest σ, and how far out they go.
STEP, REACH = 0.8, 5.5


@dataclass(frozen=True, eq=False)
class NormalMixture:
    """The predictive distributions of n pairs; memory and time are S × n, so take pairs in pieces.

    Attributes:
        means: (S, n), what each draw predicts.
        stds: The noise of each draw, positive, of a shape that broadcasts to (S, n), such as (S, 1).

    Raises:
        ParameterError: The shapes do not fit, or a number is not finite or a std not positive.
    """

    means: Array
    stds: Array

    def __post_init__(self) -> None:
        means, stds = np.asarray(self.means, np.float64), np.asarray(self.stds, np.float64)
        fits = means.ndim == stds.ndim == 2 and all(b in (1, a) for a, b in zip(means.shape, stds.shape, strict=True))
        if not fits or len(means) == 0:
            raise ParameterError(
                "A mixture needs means of shape (S, n) and stds of shape (S, 1) or (S, n); "
                f"got {means.shape} and {stds.shape}."
            )
        if not (np.isfinite(means).all() and np.isfinite(stds).all() and (stds > 0).all()):
            raise ParameterError("A mixture needs finite means and finite, positive stds; got others.")
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "stds", np.broadcast_to(stds, (len(means), stds.shape[1])))

    @property
    def n_draws(self) -> int:
        """S."""
        return len(self.means)

    def __len__(self) -> int:
        return self.means.shape[1]

    # ---- moments --------------------------------------------------------------------------------

    def mean(self) -> Array:
        r"""(n,): :math:`\bar m = \frac1S\sum_s m_s`."""
        return self.means.mean(axis=0)

    def mean_std(self) -> Array:
        r"""(n,): the spread of the means alone, :math:`\sqrt{\frac1S\sum_s (m_s-\bar m)^2}`."""
        return self.means.std(axis=0)

    def std(self) -> Array:
        r"""(n,), by the law of total variance: :math:`\sqrt{\frac1S\sum_s\sigma_s^2 + \frac1S\sum_s(m_s-\bar m)^2}`."""
        return np.sqrt(np.square(self.stds).mean(axis=0) + self.means.var(axis=0))

    # ---- the distribution -----------------------------------------------------------------------

    def cdf(self, x: npt.ArrayLike) -> Array:
        """(n,): F(x), at one x or at one per pair."""
        from scipy.special import ndtr

        return ndtr((np.asarray(x, np.float64) - self.means) / self.stds).mean(axis=0)

    def log_density(self, x: npt.ArrayLike) -> Array:
        """(n,): log f(x), at one x or at one per pair, safe far out in the tails."""
        from scipy.special import logsumexp

        z = (np.asarray(x, np.float64) - self.means) / self.stds
        terms = -0.5 * (z * z + math.log(2 * math.pi)) - np.log(self.stds)
        return logsumexp(terms, axis=0) - math.log(self.n_draws)

    def quantile(self, p: npt.ArrayLike) -> Array:
        r"""(n,): the x with F(x) = p, for one p in (0, 1) or one per pair.

        Halley's method on :math:`\Phi^{-1}(F(x)) = \Phi^{-1}(p)`, which is a straight line for one normal and
        nearly one for a mixture, kept inside a bracket (halved where a step would leave it). The quantile of a
        mixture lies between the smallest and the largest quantile of its parts, which is the first bracket.
        Upper tails are solved as lower tails of the mirrored mixture, where p keeps its digits.

        Raises:
            ParameterError: p is outside (0, 1).
        """
        from scipy.special import ndtri

        p = np.broadcast_to(np.asarray(p, np.float64), (len(self),))
        if not ((p > 0) & (p < 1)).all():
            raise ParameterError("The 'p' parameter of quantile must be a number in (0, 1); got another.")
        side = np.where(p > 0.5, -1.0, 1.0)
        goal = ndtri(np.where(p > 0.5, 1 - p, p))
        parts = side * self.means + self.stds * goal
        low, high = parts.min(axis=0), parts.max(axis=0)
        x = np.clip(side * self.mean() + self.std() * goal, low, high)
        return side * _solved(side * self.means, self.stds, goal, low, high, x)

    def sample(self, size: int, rng: np.random.Generator, which: Array | None = None) -> Array:
        """(size, n) draws of the ratings; one row comes from one posterior draw, as one world.

        Args:
            size: How many rows.
            rng: The source of randomness.
            which: (size,), the posterior draw behind each row; drawn evenly if not given.
        """
        which = rng.integers(self.n_draws, size=size) if which is None else which
        stds = np.broadcast_to(self.stds, self.means.shape)[which]
        return self.means[which] + stds * rng.standard_normal((size, len(self)))

    # ---- scored ---------------------------------------------------------------------------------

    def crps(self, x: npt.ArrayLike) -> Array:
        r"""(n,): the continuous ranked probability score of observed x, in units of the rating; lower is better.

        .. math::
            \mathrm{CRPS} = \int \left(F(t) - 1\{t \ge x\}\right)^2 dt
                = \mathbb E|X - x| - \tfrac12\,\mathbb E|X - X'|

        :math:`\mathbb E|X-x|` is a closed form per draw. For up to 32 draws so is the second term, over all
        pairs of draws. For more it is :math:`\int F(1-F)\,dt` by the trapezoidal rule with steps of 0.8 of the
        smallest σ, whose error falls exponentially for so smooth an integrand (below 1e-6 σ).

        Source: Gneiting & Raftery 2007, eq. 21; Grimit et al. 2006 for mixtures of normals.
        """
        first = _mean_distance(np.asarray(x, np.float64) - self.means, self.stds).mean(axis=0)
        return first - (self._half_spread() if self.n_draws <= CLOSED_DRAWS else self._integrated_half_spread())

    def _half_spread(self) -> Array:
        """E|X − X'|/2 over all pairs of draws."""
        total = np.zeros(len(self))
        for mean, std in zip(self.means, self.stds, strict=True):
            total += _mean_distance(self.means - mean, np.hypot(self.stds, std)).sum(axis=0)
        return total / (2 * self.n_draws**2)

    def _integrated_half_spread(self) -> Array:
        """The same as ∫ F(1 − F)."""
        low = (self.means - REACH * self.stds).min(axis=0)
        width = (self.means + REACH * self.stds).max(axis=0) - low
        nodes = math.ceil((width / (STEP * self.stds.min(axis=0))).max(initial=1.0))
        total = np.zeros(len(self))
        for node in range(1, nodes):
            below = self.cdf(low + width * (node / nodes))
            total += below * (1 - below)
        return total * width / nodes


def _mean_distance(distance: Array, std: Array) -> Array:
    """E|Z| for Z ~ N(distance, std²): 2σφ(d/σ) + d(2Φ(d/σ) − 1)."""
    from scipy.special import erf

    z = distance / std
    return std * math.sqrt(2 / math.pi) * np.exp(-0.5 * z * z) + distance * erf(z / math.sqrt(2))


def _solved(means: Array, stds: Array, goal: Array, low: Array, high: Array, x: Array) -> Array:
    """The x with Φ⁻¹(F(x)) = goal, column by column, columns that are done left out."""
    from scipy.special import ndtr, ndtri

    out, todo = x.copy(), np.flatnonzero(high > low)
    x, goal, low, high = x[todo], goal[todo], low[todo], high[todo]
    for _ in range(200):
        if len(todo) == 0:
            break
        s = stds if stds.shape[1] == 1 else stds[:, todo]
        z = (x - means[:, todo]) / s
        g = ndtri(ndtr(z).mean(axis=0))
        low, high = np.where(g <= goal, x, low), np.where(g >= goal, x, high)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            parts = np.exp(0.5 * (g * g - z * z)) / s
            slope = parts.mean(axis=0)  # g′ = f/φ(g)
            bend = g * slope * slope - (parts * z / s).mean(axis=0)  # g″
            miss = g - goal
            step = x - 2 * miss * slope / (2 * slope * slope - miss * bend)
            # where the curve bends more than it rises, a short step does not mean a short way
            inside = (slope > 0) & (np.abs(miss * bend) <= slope * slope) & (step >= low) & (step <= high)
        step = np.where(inside, step, 0.5 * (low + high))
        out[todo] = step
        # the error left is of the order of the step's third power, or of the bracket
        near = np.where(inside, np.abs(step - x) <= 1e-4 * s.min(axis=0), high - low <= 1e-12 * (np.abs(x) + 1))
        left = ~near
        todo, x, goal, low, high = todo[left], step[left], goal[left], low[left], high[left]
    return out
