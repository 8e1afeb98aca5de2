r"""A predictive distribution of ratings on steps: for every pair, the mean over the draws of the steps' probabilities.

.. math::
    P(r \ge v_k) = \frac1S \sum_{s=1}^S \Phi\!\left(\frac{m_s - \gamma_{sk}}{\sigma_s}\right)

Draw *s* has a latent mean :math:`m_s`, a noise :math:`\sigma_s` and cuts :math:`\gamma_{sk}` between the levels
:math:`v_{k-1}` and :math:`v_k`. Where an interval is asked for, the latent normal is drawn back to the scale of the
ratings, cut by cut to the middle between the levels: as if a rating were rounded there. Quantiles of whole levels would
hold more than they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gramian.errors import ParameterError
from gramian.kernels.arrays import Array

__all__ = ["OrdinalMixture"]


@dataclass(frozen=True, eq=False)
class OrdinalMixture:
    """The predictive distributions of n pairs; memory and time are S × n, so take pairs in pieces.

    Attributes:
        latent: (S, n), the latent mean of each draw.
        stds: The noise of each draw, positive, of a shape that broadcasts to (S, n).
        cuts: (S, L − 1), ascending.
        levels: (L,), the ratings, ascending.

    Raises:
        ParameterError: The shapes do not fit, or a number is not finite or a std not positive.
    """

    latent: Array
    stds: Array
    cuts: Array
    levels: Array

    def __post_init__(self) -> None:
        latent, stds, cuts = (np.asarray(part, np.float64) for part in (self.latent, self.stds, self.cuts))
        fits = latent.ndim == stds.ndim == cuts.ndim == 2 and cuts.shape == (len(latent), len(self.levels) - 1)
        if not fits or len(latent) == 0 or len(stds) not in (1, len(latent)):
            raise ParameterError(
                "A mixture of steps needs latent means (S, n), stds (S, 1) or (S, n) and cuts (S, L − 1); "
                f"got {latent.shape}, {stds.shape} and {cuts.shape}."
            )
        if not (np.isfinite(latent).all() and np.isfinite(stds).all() and (stds > 0).all()):
            raise ParameterError("A mixture needs finite means and finite, positive stds; got others.")
        for name, part in (("latent", latent), ("stds", stds), ("cuts", cuts)):
            object.__setattr__(self, name, part)

    @property
    def n_draws(self) -> int:
        """S."""
        return len(self.latent)

    def __len__(self) -> int:
        return self.latent.shape[1]

    # ---- probabilities --------------------------------------------------------------------------

    @cached_property
    def _parts(self) -> tuple[Array, Array]:
        """P(r ≥ v_k) for k = 1 … L − 1, (n, L − 1), and the expected rating of each draw, (S, n)."""
        from scipy.special import ndtr

        above = np.empty((len(self), len(self.levels) - 1))
        means = np.full(self.latent.shape, float(self.levels[0]))
        for k, step in enumerate(np.diff(self.levels)):
            chance = ndtr((self.latent - self.cuts[:, k, None]) / self.stds)
            above[:, k] = chance.mean(axis=0)
            means += step * chance
        return above, means

    @property
    def means(self) -> Array:
        """(S, n), the expected rating of each draw."""
        return self._parts[1]

    @cached_property
    def _cumulative(self) -> Array:
        """(n, L + 1): P(r < v_k), then 1."""
        above = self._parts[0]
        return np.column_stack([np.zeros(len(self)), 1 - above, np.ones(len(self))])

    @cached_property
    def probabilities(self) -> Array:
        """(n, L): of each level; each row sums to 1."""
        return np.maximum(np.diff(self._cumulative, axis=1), 0)

    @cached_property
    def edges(self) -> Array:
        """(L + 1,): where what rounds to a level begins and ends."""
        if len(self.levels) == 1:
            return np.array([self.levels[0] - 0.5, self.levels[0] + 0.5])
        middle = (self.levels[1:] + self.levels[:-1]) / 2
        return np.concatenate([[2 * self.levels[0] - middle[0]], middle, [2 * self.levels[-1] - middle[-1]]])

    # ---- moments --------------------------------------------------------------------------------

    def mean(self) -> Array:
        """(n,): the expected rating."""
        return self.means.mean(axis=0)

    def mean_std(self) -> Array:
        """(n,): the spread of the draws' expected ratings."""
        return self.means.std(axis=0)

    def std(self) -> Array:
        """(n,): the standard deviation of the rating."""
        deviations = self.levels - self.mean()[:, None]
        return np.sqrt(np.einsum("nk,nk->n", self.probabilities, np.square(deviations)))

    # ---- the distribution -----------------------------------------------------------------------

    def cdf(self, x: npt.ArrayLike) -> Array:
        """(n,): F(x), at one x or at one per pair; exact at the edges, P(r < v)."""
        from scipy.special import ndtr

        at = np.broadcast_to(np.asarray(x, np.float64), (len(self),))
        return ndtr(self._standard(at, slice(None))[0]).mean(axis=0)

    def quantile(self, p: npt.ArrayLike) -> Array:
        r"""(n,): the x with F(x) = p, for one p in (0, 1) or one per pair.

        Newton's method on :math:`\Phi^{-1}(F(x)) = \Phi^{-1}(p)`, which is nearly a straight line, kept inside a
        bracket: the quantile of a mixture lies between the smallest and the largest quantile of its parts.

        Raises:
            ParameterError: p is outside (0, 1).
        """
        from scipy.special import ndtr, ndtri

        p = np.broadcast_to(np.asarray(p, np.float64), (len(self),))
        if not ((p > 0) & (p < 1)).all():
            raise ParameterError("The 'p' parameter of quantile must be a number in (0, 1); got another.")
        goal = ndtri(p)
        parts = np.stack([_along(row, cuts, self.edges) for row, cuts in zip(
            self.latent + self.stds * goal, self._knots, strict=True)])  # fmt: skip
        low, high, out = parts.min(axis=0), parts.max(axis=0), parts.mean(axis=0)
        todo = np.flatnonzero(high > low)
        for _ in range(100):
            if len(todo) == 0:
                break
            z, rise = self._standard(out[todo], todo)
            g = ndtri(np.clip(ndtr(z).mean(axis=0), 1e-300, 1 - 1e-16))
            x, miss = out[todo], g - goal[todo]
            low[todo], high[todo] = np.where(miss <= 0, x, low[todo]), np.where(miss >= 0, x, high[todo])
            slope = (np.exp(0.5 * (g * g - z * z)) * rise).mean(axis=0)
            step = x - miss / np.maximum(slope, 1e-12)
            inside = (step >= low[todo]) & (step <= high[todo])
            out[todo] = np.where(inside, step, 0.5 * (low[todo] + high[todo]))
            todo = todo[np.abs(out[todo] - x) > 1e-7 * (self.edges[-1] - self.edges[0])]
        return out

    @cached_property
    def _knots(self) -> Array:
        """(S, L + 1): what the edges are on the latent scale; the outer ones lie where the next slope takes them."""
        if self.cuts.shape[1] == 0:
            return np.tile(self.edges, (self.n_draws, 1))
        ends = np.diff(self.edges)[[0, -1]]
        if self.cuts.shape[1] > 1:
            ends = np.stack([self.cuts[:, 1] - self.cuts[:, 0], self.cuts[:, -1] - self.cuts[:, -2]], axis=1)
            ends = ends * (np.diff(self.edges)[[0, -1]] / np.diff(self.edges)[[1, -2]])
        first, last = np.broadcast_to(ends, (self.n_draws, 2)).T
        return np.column_stack([self.cuts[:, 0] - first, self.cuts, self.cuts[:, -1] + last])

    def _standard(self, x: Array, some: Array | slice) -> tuple[Array, Array]:
        """(S, n): (g(x) − m)/σ of some pairs, with g from the scale of the ratings to the latent one; and its slope."""
        k = np.clip(np.searchsorted(self.edges, x, side="right") - 1, 0, len(self.levels) - 1)
        rise = (self._knots[:, k + 1] - self._knots[:, k]) / (self.edges[k + 1] - self.edges[k])
        stds = self.stds if self.stds.shape[1] == 1 else self.stds[:, some]
        z = self._knots[:, k] + rise * (x - self.edges[k]) - self.latent[:, some]
        return z / stds, rise / stds

    def sample(self, size: int, rng: np.random.Generator, which: Array | None = None) -> Array:
        """(size, n) draws of the ratings, levels all; one row comes from one posterior draw, as one world.

        Args:
            size: How many rows.
            rng: The source of randomness.
            which: (size,), the posterior draw behind each row; drawn evenly if not given.
        """
        which = rng.integers(self.n_draws, size=size) if which is None else which
        stds = np.broadcast_to(self.stds, self.latent.shape)[which]
        z = self.latent[which] + stds * rng.standard_normal((size, len(self)))
        steps = np.zeros(z.shape, np.int64)
        for cut in self.cuts[which].T:
            steps += z > cut[:, None]
        return self.levels[steps]

    # ---- scored ---------------------------------------------------------------------------------

    def crps(self, x: npt.ArrayLike) -> Array:
        r"""(n,): the ranked probability score of observed x, in units of the rating; lower is better.

        .. math:: \sum_{k=1}^{L-1} (v_k - v_{k-1}) \left(P(r \ge v_k) - 1\{x \ge v_k\}\right)^2
        """
        seen = np.asarray(x, np.float64)[..., None] >= self.levels[1:] - 1e-9
        return np.square(self._parts[0] - seen) @ np.diff(self.levels)


def _along(x: Array, knots: Array, values: Array) -> Array:
    """The piecewise linear function through (knots, values), its outer pieces going on."""
    k = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
    rise = (values[k + 1] - values[k]) / (knots[k + 1] - knots[k])
    return np.asarray(values[k] + rise * (x - knots[k]))
