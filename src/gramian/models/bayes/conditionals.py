"""A user's row given a draw of everything else: what each rating adds to it, and what another rating would tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gramian.data.ids import Codes
from gramian.engine.rows import Intercepts
from gramian.kernels.arrays import Array
from gramian.models.bayes.state import State

__all__ = ["Targets", "contributions", "expected_drops", "user_given"]


class Targets(NamedTuple):
    """A user's ratings as a draw explains them: the codes of the items, and what each is to explain."""

    items: Codes
    targets: Array


def _design(rows: Array, biased: bool) -> Array:
    """V: rows in float64, with 1 in the place of the bias."""
    V = rows.astype(np.float64)
    if biased:
        V[:, -1] = 1.0
    return V


def _left(draw: State, rated: Targets, intercepts: Intercepts) -> Array:
    """t: what is left of the targets without μ and the items' biases."""
    biases = draw.item_rows[rated.items, -1] if intercepts.biased else 0.0
    return np.asarray(rated.targets - intercepts.offset - biases)


def user_given(draw: State, rated: Targets, intercepts: Intercepts) -> tuple[Array, Array]:
    """Mean and covariance of a user's row, given a draw of everything else: A⁻¹y and A⁻¹."""
    V, t = _design(draw.item_rows[rated.items], intercepts.biased), _left(draw, rated, intercepts)
    covariance = np.linalg.inv(draw.users.precision + draw.noise_precision * V.T @ V)
    y = draw.users.precision @ draw.users.mean + draw.noise_precision * V.T @ t
    return covariance @ y, covariance


def expected_drops(draws: Sequence[State], rated: Sequence[Targets], about: Codes, intercepts: Intercepts) -> Array:
    """(M,): by how much a rating of each item would lower a user's mean predictive variance over the items ``about``.

    ``rated`` are the user's ratings as each draw explains them. See
    :meth:`gramian.models.bayes.posterior.BayesianModel.ask_next` for the equation.
    """
    size = len(draws[0].item_rows)
    cross, own, first, second = np.zeros((size, len(about)), np.float32), *np.zeros((3, size))
    for draw, given in zip(draws, rated, strict=True):
        mean, covariance = user_given(draw, given, intercepts)
        V = _design(draw.item_rows, intercepts.biased)
        spread = V @ covariance
        cross += spread.astype(np.float32) @ V[about].astype(np.float32).T
        own += np.einsum("jc,jc->j", spread, V)
        expected = V @ mean + (draw.item_rows[:, -1] if intercepts.biased else 0.0)
        first += expected
        second += expected**2
    cross[about, np.arange(len(about))] = 0.0  # what it tells about its own item is not about the user
    others = np.full(size, len(about))
    others[about] -= 1
    S = len(draws)
    variance = own / S + second / S - (first / S) ** 2
    noise = float(np.mean([1 / draw.noise_precision for draw in draws]))
    shared = np.square(cross / S, dtype=np.float64).sum(axis=1) / np.maximum(others, 1)
    return np.asarray(shared / (noise + variance))


def contributions(draw: State, rated: Targets, item: int, intercepts: Intercepts) -> Array:
    r"""The terms of :math:`(u, 0)^\top A^{-1} \alpha \sum_j v_j t_j`: what each rating adds through the factors."""
    V = _design(draw.item_rows[rated.items], intercepts.biased)
    target = draw.item_rows[item].astype(np.float64)
    if intercepts.biased:
        target[-1] = 0.0
    _, covariance = user_given(draw, rated, intercepts)
    terms: Array = V @ (covariance @ target) * _left(draw, rated, intercepts) * draw.noise_precision
    return terms
