r"""A predictive distribution of ratings on steps: for every pair, the mean over the draws of the steps' probabilities.

.. math::
    P(r \ge v_k) = \frac1S \sum_{s=1}^S \Phi\!\left(\frac{m_s - \gamma_{sk}}{\sigma_s}\right)

Draw *s* has a latent mean :math:`m_s`, a noise :math:`\sigma_s` and cuts :math:`\gamma_{sk}` between the levels
:math:`v_{k-1}` and :math:`v_k`. Where an interval is asked for, a level is spread evenly over all that rounds to it,
as a rating on a grid is: the quantiles of whole levels would hold more than they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gramian.errors import ParameterError

__all__ = ["StepMixture"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class StepMixture:
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
        away = self.levels - self.mean()[:, None]
        return np.sqrt(np.einsum("nk,nk->n", self.probabilities, np.square(away)))

    # ---- the distribution -----------------------------------------------------------------------

    def cdf(self, x: npt.ArrayLike) -> Array:
        """(n,): F(x), at one x or at one per pair, each level spread over what rounds to it; exact at the edges."""
        at = np.broadcast_to(np.asarray(x, np.float64), (len(self),))
        k = np.clip(np.searchsorted(self.edges, at, side="right") - 1, 0, len(self.levels) - 1)
        part = np.clip((at - self.edges[k]) / (self.edges[k + 1] - self.edges[k]), 0, 1)
        rows = np.arange(len(self))
        return self._cumulative[rows, k] + part * self.probabilities[rows, k]

    def quantile(self, p: npt.ArrayLike) -> Array:
        """(n,): the x with F(x) = p, for one p in (0, 1) or one per pair.

        Raises:
            ParameterError: p is outside (0, 1).
        """
        p = np.broadcast_to(np.asarray(p, np.float64), (len(self),))
        if not ((p > 0) & (p < 1)).all():
            raise ParameterError("The 'p' parameter of quantile must be a number in (0, 1); got another.")
        k = np.sum(self._cumulative[:, 1:-1] <= p[:, None], axis=1)
        rows = np.arange(len(self))
        chance = self.probabilities[rows, k]
        part = np.divide(p - self._cumulative[rows, k], chance, out=np.full(len(self), 0.5), where=chance > 0)
        return self.edges[k] + np.clip(part, 0, 1) * (self.edges[k + 1] - self.edges[k])

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
