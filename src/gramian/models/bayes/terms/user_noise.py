r"""Some people are noisier than others: a noise precision for each user, around a common one.

.. math::
    r_{ij} \sim N(\cdot,\ (\alpha\gamma_i)^{-1}), \qquad \gamma_i \sim \text{Gamma}(\tfrac\nu2, \tfrac\nu2), \qquad
    \nu \sim \text{Gamma}(2, \tfrac1{10}) \text{ on a grid}

so that γ is 1 on average, and nearly 1 for everybody where ν is large. With the residuals e, the full conditionals are

.. math::
    \gamma_i \mid \cdot &\sim \text{Gamma}\big(\tfrac12(\nu + n_i),\
        \tfrac12(\nu + \alpha\textstyle\sum_j e_{ij}^2)\big) \\
    \alpha \mid \cdot &\sim \text{Gamma}\big(a_0 + \tfrac12|\Omega|,\
        b_0 + \tfrac12\textstyle\sum_i \gamma_i \sum_j e_{ij}^2\big) \\
    p(\nu \mid \gamma) &\propto p(\nu) \prod_i \text{Gamma}(\gamma_i; \tfrac\nu2, \tfrac\nu2)

γ are the weights ω of the half-sweep. Each draw also keeps one γ from its prior, for anybody unknown: averaged over
the draws, their predictive distribution has the heavy tails that it should.

Source: Geweke 1993 (the scale mixture); the prior of ν is that of Juárez & Steel 2010.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.data.ids import Codes
from gramian.engine.remote import RemoteRows, Weights
from gramian.kernels.csr import CSR

__all__ = ["UserNoise", "draw_user_noise", "no_difference", "of_items", "of_users"]

DEGREES = np.geomspace(1, 1000, 200)  # the grid of ν
PRIOR = 2 * np.log(DEGREES) - DEGREES / 10  # log of the prior's mass: a grid even in log ν has a factor ν more

Array = npt.NDArray[np.float64]


class UserNoise(NamedTuple):
    """γ of each user, of somebody unknown, and ν."""

    factors: Array
    stranger: float
    degrees: float

    def of(self, users: Codes) -> Array:
        """γ of codes; the stranger's for negative ones."""
        return np.where(users < 0, self.stranger, self.factors[np.maximum(users, 0)])

    def packed(self) -> Array:
        """All in one array, which :meth:`unpacked` takes apart."""
        return np.append(self.factors, [self.stranger, self.degrees])

    @classmethod
    def unpacked(cls, array: Array) -> UserNoise:
        """From one array."""
        return cls(array[:-2], float(array[-2]), float(array[-1]))

    def grown(self, users: int) -> UserNoise:
        """With 1 for users that came later."""
        return self._replace(factors=np.append(self.factors, np.ones(users - len(self.factors))))


def no_difference(users: int) -> UserNoise:
    """What a chain starts at."""
    return UserNoise(np.ones(users), 1.0, 10.0)


def of_users(noise: UserNoise | None, by_user: CSR) -> Any:
    """The weight of each rating, in the order of the users; for rows elsewhere, what makes it there."""
    return None if noise is None else _weights(noise, by_user, of_rows=True)


def of_items(noise: UserNoise | None, by_item: CSR) -> Any:
    """The same in the order of the items."""
    return None if noise is None else _weights(noise, by_item, of_rows=False)


def _weights(noise: UserNoise, rows: CSR | RemoteRows, *, of_rows: bool) -> Any:
    weights = Weights(noise.factors, of_rows)
    return weights if isinstance(rows, RemoteRows) else weights.of(0, rows)


def draw_user_noise(
    before: UserNoise,
    counts: npt.NDArray[np.int64],
    squared: npt.NDArray[Any],
    noise_precision: float,
    rng: np.random.Generator,
) -> UserNoise:  # fmt: skip
    """γ given each user's number of ratings and Σ e², then ν."""
    nu = before.degrees
    factors = rng.gamma((nu + counts) / 2) / ((nu + noise_precision * squared) / 2)
    factors = np.maximum(factors, np.finfo(np.float32).tiny)
    degrees = _drawn_degrees(factors, rng)
    stranger = max(rng.gamma(degrees / 2) / (degrees / 2), float(np.finfo(np.float32).tiny))
    return UserNoise(factors, stranger, degrees)


def _drawn_degrees(factors: Array, rng: np.random.Generator) -> float:
    """ν from its grid: n((ν/2) log(ν/2) − log Γ(ν/2)) + (ν/2) Σ(log γ − γ), and the prior."""
    from scipy.special import gammaln

    half = DEGREES / 2
    spread = float(np.sum(np.log(factors) - factors))
    log = PRIOR + len(factors) * (half * np.log(half) - gammaln(half)) + half * spread
    chance = np.cumsum(np.exp(log - log.max()))
    return float(DEGREES[np.searchsorted(chance, rng.random() * chance[-1])])
