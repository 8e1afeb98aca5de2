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
    \text{AdaGrad:}&\quad s \leftarrow s + \tfrac1K\|g\|^2,\quad x \leftarrow x + \eta g / \sqrt{s + \epsilon} \\
    \text{Adam:}&\quad s \leftarrow \beta s + (1-\beta) g,\quad q \leftarrow \beta_2 q + (1-\beta_2) g^2,\quad
    x \leftarrow x + \eta \frac{s / (1-\beta^t)}{\sqrt{q / (1-\beta_2^t)} + \epsilon}

A row's state moves only when the row has a rating, and t counts those. AdaGrad's s is one number for the K factors of
a row and one for its bias, so that a step needs two roots and not K; ‖g‖² comes out of the three inner products of w
and u, and the row is read and written once.

For momentum and Adam a row is K factors and, where there are biases, the bias as the last of D columns. State rows
hold s; for Adam s, q, and the powers of both β. For AdaGrad see :data:`SMALL`.

Sources: Koren, Bell & Volinsky 2009; Duchi, Hazan & Singer 2011 (AdaGrad); Chin, Zhuang, Juan & Lin 2015 (AdaGrad by
rows); Kingma & Ba 2015 (Adam). The plain twin of both is
:func:`gramian.kernels.reference.descend`, whose state for AdaGrad is s of the factors and, with biases, of the bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gramian.kernels.compiled import borrowing, compiled, inlined
from gramian.kernels.lanes import lanes, vfill, vfma, vload, vmul, vstore, vsum
from gramian.kernels.reference import ADAM_DECAY, DESCENT_EPSILON, DESCENT_RULES
from gramian.kernels.residuals import dot

__all__ = ["BIAS", "BIAS_SHRINK", "BIAS_SUM", "SHRINK", "SMALL", "SUM", "descend", "descend_by_rows", "move"]

TINY = 1e-12
MOMENTUM = DESCENT_RULES.index("momentum")
# AdaGrad: what a row has beside its factors, in one place of memory: its bias, s of the factors and of the bias, and λ
# of the factors and of the bias for each of its ratings; SMALL numbers with the unused ones.
BIAS, SUM, BIAS_SUM, SHRINK, BIAS_SHRINK, SMALL = 0, 1, 2, 3, 4, 8


@inlined
def _momentum(row: Any, state: Any, gradient: Any, rate: Any, beta: Any) -> None:
    for k in range(len(row)):
        step = beta * state[k] + rate * gradient[k]
        state[k] = step
        row[k] += step


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


@inlined
def _move_bias(small: Any, at: int, error: Any, rate: Any, epsilon: Any) -> None:
    gradient = error - small[at + BIAS_SHRINK] * small[at + BIAS]
    total = small[at + BIAS_SUM] + gradient * gradient
    small[at + BIAS_SUM] = total
    small[at + BIAS] += rate * gradient / np.sqrt(total + epsilon)


@borrowing
def descend_by_rows(
    users: Any, items: Any, values: Any, W: Any, U: Any, user_small: Any, item_small: Any,
    width: int, factors: int, biased: bool, offset: float, rate: float,
) -> float:  # fmt: skip
    """AdaGrad with one s per row. W and U are flat, rows of ``width`` numbers, whole registers, 0 after the factors.

    ``user_small`` and ``item_small`` are flat too, SMALL numbers for each row. Returns what :func:`descend` does.
    """
    kind, step, two = W.dtype.type, lanes(W), W.dtype.type(2)
    mean, eta, epsilon, share = kind(offset), kind(rate), kind(DESCENT_EPSILON), kind(1) / kind(factors)
    total = 0.0
    for n in range(len(values)):
        w, u = np.int64(users[n]) * width, np.int64(items[n]) * width
        i, j = np.int64(users[n]) * SMALL, np.int64(items[n]) * SMALL
        x, y = vload(W, w), vload(U, u)
        products, x_squares, y_squares = vmul(x, y), vmul(x, x), vmul(y, y)
        for k in range(step, width, step):
            x, y = vload(W, w + k), vload(U, u + k)
            products, x_squares, y_squares = vfma(x, y, products), vfma(x, x, x_squares), vfma(y, y, y_squares)
        xy, xx, yy = vsum(products), vsum(x_squares), vsum(y_squares)
        error = kind(values[n]) - mean - xy
        if biased:
            error -= user_small[i + BIAS] + item_small[j + BIAS]
            _move_bias(user_small, i, error, eta, epsilon)
            _move_bias(item_small, j, error, eta, epsilon)
        total += np.float64(error) ** 2
        less_x, less_y = user_small[i + SHRINK], item_small[j + SHRINK]
        x_sum = user_small[i + SUM] + share * (error * error * yy + less_x * (less_x * xx - two * error * xy))
        y_sum = item_small[j + SUM] + share * (error * error * xx + less_y * (less_y * yy - two * error * xy))
        user_small[i + SUM], item_small[j + SUM] = x_sum, y_sum
        x_rate, y_rate = eta / np.sqrt(x_sum + epsilon), eta / np.sqrt(y_sum + epsilon)
        x_keep, x_step = vfill(W, kind(1) - x_rate * less_x), vfill(W, x_rate * error)
        y_keep, y_step = vfill(W, kind(1) - y_rate * less_y), vfill(W, y_rate * error)
        for k in range(0, width, step):
            x, y = vload(W, w + k), vload(U, u + k)
            vstore(W, w + k, vfma(x_step, y, vmul(x_keep, x)))
            vstore(U, u + k, vfma(y_step, x, vmul(y_keep, y)))
    return total
