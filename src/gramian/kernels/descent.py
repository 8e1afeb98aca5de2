r"""Stochastic gradient descent on one block of ratings.

For a rating with the error :math:`e = r - \mu - b_i - c_j - w_i^\top u_j`, half the negative gradient of its share
of the objective is

.. math::
    g_{w_i} = e\,u_j - \lambda_i w_i,\quad g_{u_j} = e\,w_i - \lambda_j u_j,\quad
    g_{b_i} = e - \lambda_{b,i} b_i,\quad g_{c_j} = e - \lambda_{b,j} c_j

where :math:`\lambda_i` is what the row's penalty gives to each of its ratings. Both sides move from their values
before the rating, by one of the rules

.. math::
    \text{momentum:}&\quad s \leftarrow \beta s + \eta g,\quad x \leftarrow x + s \\
    \text{AdaGrad:}&\quad s \leftarrow s + g^2,\quad x \leftarrow x + \eta g / \sqrt{s + \epsilon} \\
    \text{Adam:}&\quad s \leftarrow \beta s + (1-\beta) g,\quad q \leftarrow \beta_2 q + (1-\beta_2) g^2,\quad
    x \leftarrow x + \eta \frac{s / (1-\beta^t)}{\sqrt{q / (1-\beta_2^t)} + \epsilon}

A row's state moves only when the row has a rating, and t counts those. A row is K factors and, where there are
biases, the bias as the last of D columns. State rows hold s; for Adam s, q, and the powers of both β.

Sources: Koren, Bell & Volinsky 2009; Duchi, Hazan & Singer 2011 (AdaGrad); Kingma & Ba 2015 (Adam).
The plain twin is :func:`gramian.kernels.reference.descend`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gramian.kernels.compiled import compiled, inlined
from gramian.kernels.reference import ADAM_DECAY, DESCENT_EPSILON, DESCENT_RULES
from gramian.kernels.residuals import dot

__all__ = ["descend", "move"]

TINY = 1e-12
MOMENTUM, ADAGRAD = DESCENT_RULES.index("momentum"), DESCENT_RULES.index("adagrad")


@inlined
def _momentum(row: Any, state: Any, gradient: Any, rate: Any, beta: Any) -> None:
    for k in range(len(row)):
        step = beta * state[k] + rate * gradient[k]
        state[k] = step
        row[k] += step


@inlined
def _adagrad(row: Any, state: Any, gradient: Any, rate: Any, epsilon: Any) -> None:
    for k in range(len(row)):
        total = state[k] + gradient[k] * gradient[k]
        state[k] = total
        row[k] += rate * gradient[k] / np.sqrt(total + epsilon)


@inlined
def _adam(row: Any, state: Any, gradient: Any, rate: Any, beta: Any, beta2: Any, epsilon: Any) -> None:
    kind, D = row.dtype.type, len(row)
    one = kind(1)
    first, second, powers = state[:D], state[D : 2 * D], state[2 * D :]
    for p, decay in enumerate((beta, beta2)):  # 0 in time: numbers too small to be normal are slow
        powers[p] = powers[p] * decay if powers[p] > kind(TINY) else kind(0)
    rate = rate / (one - powers[0])
    correction = one / (one - powers[1])
    for k in range(D):
        g = gradient[k]
        mean = beta * first[k] + (one - beta) * g
        square = beta2 * second[k] + (one - beta2) * g * g
        first[k], second[k] = mean, square
        row[k] += rate * mean / (np.sqrt(square * correction) + epsilon)


@inlined
def move(rule: int, row: Any, state: Any, gradient: Any, rate: Any, beta: Any) -> None:
    """One step of a row by a rule; the gradient is the direction to go."""
    kind = row.dtype.type
    if rule == MOMENTUM:
        _momentum(row, state, gradient, rate, beta)
    elif rule == ADAGRAD:
        _adagrad(row, state, gradient, rate, kind(DESCENT_EPSILON))
    else:
        _adam(row, state, gradient, rate, beta, kind(ADAM_DECAY), kind(DESCENT_EPSILON))


@compiled
def descend(
    users: Any, items: Any, values: Any, W: Any, U: Any, user_state: Any, item_state: Any,
    user_shrink: Any, item_shrink: Any, biased: bool, offset: float, rule: int, rate: float, beta: float,
) -> float:  # fmt: skip
    """Go through the ratings in their order, moving the rows of both sides in place.

    Returns the sum of squared errors, each as it was before its own step. ``user_shrink`` and ``item_shrink``,
    (rows, 2), are λ of the factors and of the bias for each of the row's ratings.
    """
    kind, D = W.dtype.type, W.shape[1]
    K = D - 1 if biased else D
    mean, eta, beta = kind(offset), kind(rate), kind(beta)
    user_gradient, item_gradient = np.empty(D, W.dtype), np.empty(D, W.dtype)
    total = 0.0
    for n in range(len(values)):
        i, j = users[n], items[n]
        w, u = W[i], U[j]
        error = kind(values[n]) - mean - dot(w, u, K)
        if biased:
            error -= w[K] + u[K]
            user_gradient[K] = error - user_shrink[i, 1] * w[K]
            item_gradient[K] = error - item_shrink[j, 1] * u[K]
        total += np.float64(error) ** 2
        user_lambda, item_lambda = user_shrink[i, 0], item_shrink[j, 0]
        for k in range(K):
            user_gradient[k] = error * u[k] - user_lambda * w[k]
            item_gradient[k] = error * w[k] - item_lambda * u[k]
        move(rule, w, user_state[i], user_gradient, eta, beta)
        move(rule, u, item_state[j], item_gradient, eta, beta)
    return total
