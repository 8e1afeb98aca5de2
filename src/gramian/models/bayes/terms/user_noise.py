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

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.core.file_format import Arrays
from gramian.data.ids import Codes
from gramian.data.table import RatingsTable
from gramian.engine.rows import Rows, Weights
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.bayes.bundles import Beginning, Chance
from gramian.models.bayes.state import ITEMS
from gramian.models.bayes.terms.term import Weighting

__all__ = ["NoiseFactors", "UserNoise", "draw_factors"]

DEGREES = np.geomspace(1, 1000, 200)  # the grid of ν
PRIOR = 2 * np.log(DEGREES) - DEGREES / 10  # log of the prior's mass: a grid even in log ν has a factor ν more


class NoiseFactors(NamedTuple):
    """γ of each user, of somebody unknown, and ν."""

    factors: npt.NDArray[np.float64]
    unknown: float
    degrees: float


def draw_factors(
    before: NoiseFactors, counts: Array, squared: Array, noise_precision: float, rng: np.random.Generator
) -> NoiseFactors:
    """γ given each user's number of ratings and Σ e², then ν."""
    nu, tiny = before.degrees, float(np.finfo(np.float32).tiny)
    factors = np.maximum(rng.gamma((nu + counts) / 2) / ((nu + noise_precision * squared) / 2), tiny)
    degrees = _drawn_degrees(factors, rng)
    return NoiseFactors(factors, max(rng.gamma(degrees / 2) / (degrees / 2), tiny), degrees)


def _drawn_degrees(factors: npt.NDArray[np.float64], rng: np.random.Generator) -> float:
    """ν from its grid: n((ν/2) log(ν/2) − log Γ(ν/2)) + (ν/2) Σ(log γ − γ), and the prior."""
    from scipy.special import gammaln

    half = DEGREES / 2
    spread = float(np.sum(np.log(factors) - factors))
    log = PRIOR + len(factors) * (half * np.log(half) - gammaln(half)) + half * spread
    chance = np.cumsum(np.exp(log - log.max()))
    return float(DEGREES[np.searchsorted(chance, rng.random() * chance[-1])])


@dataclass(frozen=True, eq=False)
class UserNoise(Weighting[NoiseFactors]):
    """A noise precision αγ for each user.

    Attributes:
        n_users: N.
    """

    name = "user_noise"
    settings: ClassVar[Mapping[str, object]] = {"noise": "common"}
    distributed: ClassVar[bool] = True

    n_users: int

    def start(self, begin: Beginning) -> NoiseFactors:
        """No difference."""
        return NoiseFactors(np.ones(self.n_users), 1.0, 10.0)

    def weights(self, value: NoiseFactors, rows: Rows, side: int) -> Array | Weights:
        """As of :class:`Weighting`."""
        return rows.of_columns(value.factors) if side == ITEMS else rows.of_rows(value.factors)

    def weights_of(self, value: NoiseFactors, rows: CSR, changed: Codes, side: int) -> Array:
        """As of :class:`Weighting`."""
        return rows.of_columns(value.factors) if side == ITEMS else rows.of_rows(value.factors[changed])

    def factors(self, value: NoiseFactors, users: Codes) -> Array:
        """γ of codes; that of somebody unknown for negative ones."""
        return np.where(users < 0, value.unknown, value.factors[np.maximum(users, 0)])

    def drawn(
        self, value: NoiseFactors, counts: Array, squared: Array, noise_precision: float, chance: Chance
    ) -> NoiseFactors:
        """As of :class:`Weighting`."""
        return draw_factors(value, counts, squared, noise_precision, chance.rng)

    def rebound(self, ratings: RatingsTable) -> UserNoise:
        """For more users."""
        return replace(self, n_users=ratings.n_users)

    def grown(self, value: NoiseFactors, before: UserNoise) -> NoiseFactors:
        """With 1 for users that came later."""
        return value._replace(factors=np.append(value.factors, np.ones(self.n_users - before.n_users)))

    def packed(self, value: NoiseFactors) -> Arrays:
        """All in one array."""
        return {"user_noise": np.append(value.factors, [value.unknown, value.degrees])}

    def unpacked(self, arrays: Arrays) -> NoiseFactors:
        """From one array."""
        array = arrays["user_noise"]
        return NoiseFactors(array[:-2], float(array[-2]), float(array[-1]))

    def shapes(self, begin: Beginning) -> dict[str, tuple[int, ...]]:
        """As of :class:`Term`."""
        return {"user_noise": (self.n_users + 2,)}

    def is_sound(self, value: NoiseFactors) -> bool:
        """Whether all γ and ν are positive."""
        return bool(value.factors.min() > 0 and value.unknown > 0 and value.degrees > 0)
