r"""Stochastic gradient descent on blocks of ratings.

For a rating with the error :math:`e = r - \mu - b_i - c_j - w_i^\top u_j`, half the negative gradient of its share
of the objective is

.. math::
    g_{w_i} = e\,u_j - \lambda_i w_i,\quad g_{u_j} = e\,w_i - \lambda_j u_j,\quad
    g_{b_i} = e - \lambda_{b,i} b_i,\quad g_{c_j} = e - \lambda_{b,j} c_j

where :math:`\lambda_i = \rho_i\lambda` and :math:`\lambda_{b,i} = \rho_i\lambda_b`: the share ρ of the row's penalty
that each of its ratings has. Both sides move from their values before the rating, by one of the rules

.. math::
    \text{momentum:}&\quad s \leftarrow \beta s + \eta g,\quad x \leftarrow x + s \\
    \text{AdaGrad:}&\quad s \leftarrow s + \tfrac1K\|g\|^2,\quad x \leftarrow x + \eta g / \sqrt{s + \epsilon} \\
    \text{Adam:}&\quad s \leftarrow \beta s + (1-\beta) g,\quad q \leftarrow \beta_2 q + (1-\beta_2) g^2,\quad
    x \leftarrow x + \eta \frac{s / (1-\beta^t)}{\sqrt{q / (1-\beta_2^t)} + \epsilon}

A row's state moves only when the row has a rating, and t counts those. AdaGrad's s is one number for the K factors of
a row and one for its bias; it has a kernel of its own, :mod:`gramian.kernels.gradient.adagrad`.

Here a row is K factors and, where there are biases, the bias as the last of D columns. State rows hold s; for Adam s,
q, and the powers of both β.

Sources: Koren, Bell & Volinsky 2009; Duchi, Hazan & Singer 2011 (AdaGrad); Chin, Zhuang, Juan & Lin 2015 (AdaGrad by
rows); Kingma & Ba 2015 (Adam). The plain twin of both is
:func:`gramian.kernels.reference.descend`, whose state for AdaGrad is s of the factors and, with biases, of the bias.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gramian.kernels.arrays import Array
from gramian.kernels.reference import ADAM_DECAY, DESCENT_EPSILON, DESCENT_RULES
from gramian.kernels.residuals import dot
from gramian.kernels.vector.compiled import compiled, inlined

__all__ = ["DescentSettings", "DescentSide", "RatingBlocks", "descend", "move"]

TINY = 1e-12
MOMENTUM = DESCENT_RULES.index("momentum")


class RatingBlocks(NamedTuple):
    """Ratings in the order of their steps, block by block.

    Attributes:
        users, items: (ratings,), int32, the row of each side.
        values: (ratings,), float32.
        starts: (blocks + 1,), int64; block *b* has the ratings ``starts[b]`` … ``starts[b + 1]``.
    """

    users: Array
    items: Array
    values: Array
    starts: Array


class DescentSide(NamedTuple):
    """What moves of one side, all of one dtype.

    Attributes:
        rows: (rows, D).
        state: What the rule keeps of each row, (rows, D) or, for Adam, (rows, 2 D + 2).
        share: ρ, (rows, 1).
    """

    rows: Array
    state: Array
    share: Array


class DescentSettings(NamedTuple):
    """The objective, and how large steps are.

    Attributes:
        biased: Whether there are biases.
        offset: μ, subtracted from every rating.
        penalty: λ of the factors.
        bias_penalty: λ of the bias.
        rate: η.
        beta: β of momentum and of Adam.
    """

    biased: bool
    offset: float
    penalty: float
    bias_penalty: float
    rate: float
    beta: float


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
    blocks: RatingBlocks, numbers: Any, users: DescentSide, items: DescentSide, settings: DescentSettings, rule: int,
    sums: Any,
) -> None:  # fmt: skip
    """Go through the ratings of some blocks in their order, moving the rows of both sides in place.

    Args:
        blocks: The ratings.
        numbers: Which blocks, (some,), int64.
        users, items: What moves.
        settings: The objective and the steps.
        rule: The number of one of ``reference.DESCENT_RULES``.
        sums: Of each of these blocks, (blocks, 2), float64, written to: the sums of squared errors and of the
            ratings' shares of the objective, each as it was before the rating's own step.
    """
    W, U, biased = users.rows, items.rows, settings.biased
    kind, D = W.dtype.type, W.shape[1]
    K = D - 1 if biased else D
    mean, eta, beta = kind(settings.offset), kind(settings.rate), kind(settings.beta)
    user_gradient, item_gradient = np.empty(D, W.dtype), np.empty(D, W.dtype)
    for b in numbers:
        squared = penalties = 0.0
        for n in range(blocks.starts[b], blocks.starts[b + 1]):
            i, j = blocks.users[n], blocks.items[n]
            w, u = W[i], U[j]
            error = kind(blocks.values[n]) - mean - dot(w, u, K)
            if biased:
                error -= w[K] + u[K]
            squared += np.float64(error) ** 2
            for row, partner, gradient, share in (
                (w, u, user_gradient, users.share[i, 0]), (u, w, item_gradient, items.share[j, 0])
            ):  # fmt: skip
                less, bias_less = share * kind(settings.penalty), share * kind(settings.bias_penalty)
                for k in range(K):
                    gradient[k] = error * partner[k] - less * row[k]
                penalties += np.float64(less * dot(row, row, K))
                if biased:
                    gradient[K] = error - bias_less * row[K]
                    penalties += np.float64(bias_less * row[K] ** 2)
            move(rule, w, users.state[i], user_gradient, eta, beta)
            move(rule, u, items.state[j], item_gradient, eta, beta)
        sums[b, 0], sums[b, 1] = squared, squared + penalties
