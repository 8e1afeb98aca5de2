r"""Matrix factorization by stochastic gradient descent: the objective of ALS, one rating at a time.

The model is :math:`\hat r_{ij} = \mu + b_i + c_j + w_i^\top u_j` with the objective J of
:mod:`gramian.models.als`. There each side is solved exactly, in turn; here every rating moves the two rows that it
concerns a little way down its own share of J,

.. math::
    J_{ij} = (r_{ij} - \hat r_{ij})^2 + \frac{s_i}{n_i}\left(\lambda\|w_i\|^2 + \lambda_b b_i^2\right)
        + \frac{s_j}{n_j}\left(\lambda\|u_j\|^2 + \lambda_b c_j^2\right), \qquad J = \sum_\Omega J_{ij}

with n the row's number of ratings, and :math:`s = 1`, or n (``weighting="count"``: every rating then shrinks its rows
by the same λ, as most SGD programs do). The steps are those of :mod:`gramian.kernels.gradient.descent`; the learning
rate of epoch t = 0, 1, … is :math:`\eta`, :math:`\eta/(1 + \delta t)` or :math:`\eta e^{-\delta t}`.

AdaGrad divides by what it has summed up for the row, not for each of its numbers (Chin et al.): as good, and faster.
The ratings are worked on in blocks that share no row (:mod:`gramian.engine.grid`), in an order that depends on the
seed alone: the same seed gives the same bits on any number of threads.

The users' rows of the model are the best ones for the items that were found, which is where steps on them alone would
end: so a user who is folded in gets the row that the same ratings would have had in training.

Sources: Koren, Bell & Volinsky 2009; Chin, Zhuang, Juan & Lin 2015 (blocks; AdaGrad).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from gramian.core.file_format import Arrays
from gramian.core.parameters import Range, param
from gramian.data.table import RatingsTable
from gramian.engine import grid
from gramian.kernels.arrays import Array
from gramian.kernels.reference import DESCENT_RULES
from gramian.models.als import RidgeRecipe
from gramian.models.recipe import Epoch
from gramian.models.training import check_finite

__all__ = ["SGD"]

START = 0.1  # the size of a random row: small, so that the first epochs learn the biases


class DescentState(NamedTuple):
    """Where a descent stands: its arrays, and the ratings in the order of their blocks."""

    arrays: Arrays
    grid: grid.Grid


@dataclass(frozen=True, kw_only=True)
class SGD(RidgeRecipe[DescentState]):
    """Matrix factorization with biases by stochastic gradient descent.

    See the head of this module for the objective, which is that of :class:`gramian.ALS`: the same settings of the
    penalties mean the same. A learning rate that is too high is found out at the first loss that is not finite; the
    model of the last good epoch is then returned, with a warning that names the rate.

    Raises:
        ParameterError: A field is outside its range.
        DivergenceError: The first epoch already diverged.
    """

    name: ClassVar[str] = "sgd"
    search_space: ClassVar[Mapping[str, Range | tuple[Any, ...]]] = {
        "factors": Range(4, 64, whole=True),
        "regularization": Range(2, 60, power=1),
        "learning_rate": Range(0.02, 0.3),
        "epochs": Range(5, 40, whole=True),
    }

    optimizer: str = param("adagrad", "the rule of a step; momentum wants a lower learning rate (near 0.003)",
                           choices=DESCENT_RULES)  # fmt: skip
    learning_rate: float = param(0.1, "η; lower it when the loss jumps about, and use more epochs", low=1e-8, high=1)
    schedule: str = param("constant", "the rate of epoch t from 0: η, η/(1 + δt) or η exp(-δt)",
                          choices=("constant", "inverse", "exponential"))  # fmt: skip
    decay: float = param(0.1, "δ of the inverse and the exponential schedule", low=0)
    momentum: float = param(0.9, "β of momentum and Adam; 0 is plain gradient descent", low=0, high=0.999)
    epochs: int = param(12, "passes over the ratings", low=1)
    patience: int | None = param(None, "stop after so many epochs without a better validation error", low=1,
                                 optional=True)  # fmt: skip
    seed: int = param(0, "of the random start and the order of the ratings", low=0)
    dtype: str = param("float32", "precision of the factors", choices=("float32", "float64"))

    def rate(self, number: int) -> float:
        """The learning rate of an epoch (``number`` from 1)."""
        t = self.decay * (number - 1)
        return (
            self.learning_rate * {"constant": 1.0, "inverse": 1 / (1 + t), "exponential": math.exp(-t)}[self.schedule]
        )

    def start(self, ratings: RatingsTable) -> DescentState:
        """Factors from N(0, 0.01/K), biases 0, and a state that remembers nothing."""
        rng = np.random.Generator(np.random.Philox(self.seed))
        arrays: Arrays = {}
        for side, counts in self._counts(ratings):
            factors = START * rng.standard_normal((len(counts), self.factors)) / np.sqrt(self.factors)
            share = np.ones(len(counts)) if self.weighting == "count" else 1 / np.maximum(counts, 1)
            if self.optimizer == "adagrad":
                rows, state = grid.first_rows(factors, share, self.dtype)
            else:
                rows = np.zeros((len(counts), self.factors + self.biases), self.dtype)
                rows[:, : self.factors] = factors
                width = rows.shape[1]
                state = np.zeros((len(counts), 2 * width + 2 if self.optimizer == "adam" else width), self.dtype)
                state[:, 2 * width :] = 1
                arrays[f"{side}_share"] = share[:, None].astype(self.dtype)
            arrays |= {f"{side}_rows": rows, f"{side}_state": state}
        return self.from_arrays(ratings, arrays)

    def epoch(self, ratings: RatingsTable, state: DescentState, number: int) -> Epoch[DescentState]:
        """One pass over all ratings, the rounds of blocks in an order of its own.

        The history has the error and the objective as they were met on the way, each rating's before its own step.
        """
        made = {name: grid.aligned_copy(array) for name, array in state.arrays.items()}
        rounds = np.random.Generator(np.random.Philox([self.seed, number])).permutation(state.grid.parts)
        intercepts, rate = self.side.intercepts(self.offset(ratings)), self.rate(number)
        how = grid.Descent(self.factors, intercepts, self._penalties, self.optimizer, rate, self.momentum)
        squared, objective = grid.descend(state.grid, made, how, rounds, self.n_jobs)
        mean = squared / len(ratings)
        check_finite(mean, made, number, rate, of=f" for {self.optimizer}")
        record = {"objective": objective, "train_rmse": float(np.sqrt(mean))}
        return Epoch(state._replace(arrays=made), record)

    def to_arrays(self, state: DescentState) -> Arrays:
        """The arrays; the grid follows from the ratings."""
        return state.arrays

    def from_arrays(self, ratings: RatingsTable, arrays: Arrays) -> DescentState:
        """The arrays, with the grid of the ratings."""
        return DescentState(arrays, grid.grid_of(ratings.to_local().by_user, ratings.n_items, self.seed))

    def _counts(self, ratings: RatingsTable) -> list[tuple[str, Array]]:
        return [("user", ratings.by_user.counts), ("item", ratings.by_item.counts)]

    @property
    def _penalties(self) -> tuple[float, float]:
        """λ of the factors and of the bias."""
        precision = np.diag(self.side.penalty.precision)
        return float(precision[0]), float(precision[-1])

    def _split(self, arrays: Arrays, side: str) -> tuple[Array, Array]:
        """The factors and the biases of a side; without biases these are 0."""
        rows, state = arrays[f"{side}_rows"], arrays[f"{side}_state"]
        biases = grid.biases(state) if self.optimizer == "adagrad" else rows[:, self.factors :].sum(axis=1)
        return rows[:, : self.factors], biases

    def finish(self, ratings: RatingsTable, arrays: Arrays) -> Arrays:
        """The users' best rows for the items."""
        factors, biases = self._split(arrays, "item")
        items = np.ascontiguousarray(np.column_stack([factors, biases]) if self.biases else factors)
        return {"user_rows": self.sweep(ratings, items, users=True)[0], "item_rows": items}
