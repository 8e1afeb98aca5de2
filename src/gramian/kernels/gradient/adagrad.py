r"""AdaGrad on blocks of ratings: the steps of :mod:`gramian.kernels.gradient.descent`, four ratings at a time.

A row has one s for its K factors and one for its bias (Chin, Zhuang, Juan & Lin 2015), so that a step needs two roots
and not K + 1. With :math:`\lambda_i = \rho_i\lambda`, :math:`\lambda_{b,i} = \rho_i\lambda_b`, the error e of a rating
and the inner products of w and u,

.. math::
    \|g_{w}\|^2 = e^2\|u\|^2 + \lambda_i\left(\lambda_i\|w\|^2 - 2e\,w^\top u\right), \qquad
    w \leftarrow \Big(1 - \frac{\eta\lambda_i}{\sqrt{s + \epsilon}}\Big) w + \frac{\eta e}{\sqrt{s + \epsilon}}\,u

so a row is read for three sums, and once more for the step.

One rating after another, a processor waits: for the sums, the roots, the quotients, each time for one number. Four
ratings that share no row do not depend on each other; their sums, roots and quotients are those of one vector
(:mod:`gramian.kernels.linear.quads`). Where two of the next four share a row, the first of them goes alone. The plain
twin, rating by rating, is :func:`gramian.kernels.reference.descend`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gramian.kernels.arrays import Array
from gramian.kernels.gradient.descent import DescentSettings, RatingBlocks
from gramian.kernels.linear.quads import (
    four_codes,
    prefetch,
    qfill,
    qload,
    qsqrt,
    qstore,
    qsum,
    qtotal,
    spread,
    transpose,
    widen,
    widen_to,
)
from gramian.kernels.reference import DESCENT_EPSILON
from gramian.kernels.vector.compiled import borrowing, inlined
from gramian.kernels.vector.lanes import VECTOR_BYTES, lanes, vfill, vfma, vload, vmul, vstore, vsum

__all__ = ["BIAS", "BIAS_SUM", "SHARE", "SMALL", "SUM", "FlatSide", "descend_by_rows"]

# What a row has beside its factors: its bias, s of the factors and of the bias, and ρ.
BIAS, SUM, BIAS_SUM, SHARE, SMALL = 0, 1, 2, 3, 4
FOUR = 4
AHEAD = 16  # ratings whose rows are asked for before their turn
REGISTERS_OF_LINE = 64 // VECTOR_BYTES  # of a cache line


class FlatSide(NamedTuple):
    """What moves of one side, of one dtype.

    Attributes:
        rows: The factors, flat, (rows, K rounded up to whole cache lines), 0 after the factors.
        small: What a row has beside them, flat, (rows, SMALL).
    """

    rows: Array
    small: Array


class Constants(NamedTuple):
    """Numbers of an epoch in the dtype of the rows: each in four lanes, or alone."""

    mean: Any
    rate: Any
    bias_rate: Any
    penalty: Any
    bias_penalty: Any
    epsilon: Any
    per_factor: Any
    one: Any


@inlined
def _products(W: Any, w: int, U: Any, u: int, width: int) -> Any:
    """The lanes of wᵀu, ‖w‖² and ‖u‖²."""
    x, y = vload(W, w), vload(U, u)
    xy, xx, yy = vmul(x, y), vmul(x, x), vmul(y, y)
    for k in range(lanes(W), width, lanes(W)):
        x, y = vload(W, w + k), vload(U, u + k)
        xy, xx, yy = vfma(x, y, xy), vfma(x, x, xx), vfma(y, y, yy)
    return xy, xx, yy


@inlined
def _move(W: Any, w: int, U: Any, u: int, width: int, w_keep: Any, w_step: Any, u_keep: Any, u_step: Any) -> None:
    """The step: w ← keep · w + step · u, and u likewise."""
    for k in range(0, width, lanes(W)):
        x, y = vload(W, w + k), vload(U, u + k)
        vstore(W, w + k, vfma(w_step, y, vmul(w_keep, x)))
        vstore(U, u + k, vfma(u_step, x, vmul(u_keep, y)))


@inlined
def _differ(i: Any) -> bool:
    return (i[0] != i[1]) & (i[0] != i[2]) & (i[0] != i[3]) & (i[1] != i[2]) & (i[1] != i[3]) & (i[2] != i[3])


@inlined
def _beside(small: Any, i: Any) -> Any:
    """The biases, both s and ρ of four rows."""
    return transpose(
        qload(small, i[0] * SMALL), qload(small, i[1] * SMALL), qload(small, i[2] * SMALL), qload(small, i[3] * SMALL)
    )


@inlined
def _move_beside(small: Any, i: Any, beside: Any, error: Any, cross: Any, own: Any, partner: Any, c: Constants) -> Any:
    """Move what four rows have beside their factors: how much of these they keep, and the step, by registers."""
    bias, total, bias_total, share = beside
    less, bias_less = c.penalty * share, c.bias_penalty * share
    slope = error - bias_less * bias
    bias_total = bias_total + slope * slope
    total = total + c.per_factor * (error * error * partner + less * (less * own - cross))
    rows = transpose(bias + c.bias_rate * slope / qsqrt(bias_total + c.epsilon), total, bias_total, share)
    qstore(small, i[0] * SMALL, rows[0])
    qstore(small, i[1] * SMALL, rows[1])
    qstore(small, i[2] * SMALL, rows[2])
    qstore(small, i[3] * SMALL, rows[3])
    rate = c.rate / qsqrt(total + c.epsilon)
    return spread(small, c.one - rate * less), spread(small, rate * error)


@inlined
def _four(users: FlatSide, items: FlatSide, i: Any, j: Any, values: Any, width: int, c: Constants) -> Any:
    """Four steps at once: the errors before them, and the penalties."""
    W, U = users.rows, items.rows
    one, two = _products(W, i[0] * width, U, j[0] * width, width), _products(W, i[1] * width, U, j[1] * width, width)
    three, four = _products(W, i[2] * width, U, j[2] * width, width), _products(W, i[3] * width, U, j[3] * width, width)
    xy, xx, yy = (
        qsum(one[0], two[0], three[0], four[0]), qsum(one[1], two[1], three[1], four[1]),
        qsum(one[2], two[2], three[2], four[2]),
    )  # fmt: skip
    user, item = _beside(users.small, i), _beside(items.small, j)
    error = values - c.mean - xy - (user[BIAS] + item[BIAS])
    shrunk = user[SHARE] * (c.penalty * xx + c.bias_penalty * user[BIAS] * user[BIAS])
    shrunk = shrunk + item[SHARE] * (c.penalty * yy + c.bias_penalty * item[BIAS] * item[BIAS])
    cross = error * xy
    cross = cross + cross
    w_keep, w_step = _move_beside(users.small, i, user, error, cross, xx, yy, c)
    u_keep, u_step = _move_beside(items.small, j, item, error, cross, yy, xx, c)
    _move(W, i[0] * width, U, j[0] * width, width, w_keep[0], w_step[0], u_keep[0], u_step[0])
    _move(W, i[1] * width, U, j[1] * width, width, w_keep[1], w_step[1], u_keep[1], u_step[1])
    _move(W, i[2] * width, U, j[2] * width, width, w_keep[2], w_step[2], u_keep[2], u_step[2])
    _move(W, i[3] * width, U, j[3] * width, width, w_keep[3], w_step[3], u_keep[3], u_step[3])
    return error, shrunk


@inlined
def _move_beside_one(small: Any, at: int, error: Any, cross: Any, own: Any, partner: Any, c: Constants) -> Any:
    """The same for one row: the rate of its factors, and λ of them."""
    share, bias = small[at + SHARE], small[at + BIAS]
    less = c.penalty * share
    slope = error - c.bias_penalty * share * bias
    small[at + BIAS_SUM] += slope * slope
    small[at + BIAS] = bias + c.bias_rate * slope / np.sqrt(small[at + BIAS_SUM] + c.epsilon)
    small[at + SUM] += c.per_factor * (error * error * partner + less * (less * own - cross))
    return c.rate / np.sqrt(small[at + SUM] + c.epsilon), less


@inlined
def _one(users: FlatSide, items: FlatSide, i: int, j: int, value: float, width: int, c: Constants) -> Any:
    """One step alone."""
    W, U = users.rows, items.rows
    user, item = users.small, items.small
    products = _products(W, i * width, U, j * width, width)
    xy, xx, yy = vsum(products[0]), vsum(products[1]), vsum(products[2])
    b, d = user[i * SMALL + BIAS], item[j * SMALL + BIAS]
    error = W.dtype.type(value) - c.mean - xy - (b + d)
    shrunk = user[i * SMALL + SHARE] * (c.penalty * xx + c.bias_penalty * b * b)
    shrunk += item[j * SMALL + SHARE] * (c.penalty * yy + c.bias_penalty * d * d)
    cross = W.dtype.type(2) * error * xy
    w_rate, w_less = _move_beside_one(user, i * SMALL, error, cross, xx, yy, c)
    u_rate, u_less = _move_beside_one(item, j * SMALL, error, cross, yy, xx, c)
    w_keep, w_step = vfill(W, c.one - w_rate * w_less), vfill(W, w_rate * error)
    u_keep, u_step = vfill(W, c.one - u_rate * u_less), vfill(W, u_rate * error)
    _move(W, i * width, U, j * width, width, w_keep, w_step, u_keep, u_step)
    return np.float64(error), np.float64(shrunk)


@inlined
def _ask(rows: Any, small: Any, row: int, width: int) -> None:
    for k in range(0, width, lanes(rows) * REGISTERS_OF_LINE):
        prefetch(rows, row * width + k)
    prefetch(small, row * SMALL)


@inlined
def _ask_for(side: FlatSide, i: Any, width: int) -> None:
    """Four rows that are needed soon."""
    _ask(side.rows, side.small, i[0], width)
    _ask(side.rows, side.small, i[1], width)
    _ask(side.rows, side.small, i[2], width)
    _ask(side.rows, side.small, i[3], width)


@inlined
def _in_four_lanes(like: Any, factors: int, settings: DescentSettings) -> Constants:
    bias_rate = settings.rate if settings.biased else 0.0
    return Constants(
        qfill(like, settings.offset),
        qfill(like, settings.rate),
        qfill(like, bias_rate),
        qfill(like, settings.penalty),
        qfill(like, settings.bias_penalty),
        qfill(like, DESCENT_EPSILON),
        qfill(like, 1 / factors),
        qfill(like, 1.0),
    )


@inlined
def _alone(like: Any, factors: int, settings: DescentSettings) -> Constants:
    kind = like.dtype.type
    return Constants(
        kind(settings.offset),
        kind(settings.rate),
        kind(settings.rate) if settings.biased else kind(0),
        kind(settings.penalty),
        kind(settings.bias_penalty),
        kind(DESCENT_EPSILON),
        kind(1) / kind(factors),
        kind(1),
    )


@inlined
def _descend(
    blocks: RatingBlocks, b: int, users: FlatSide, items: FlatSide, width: int, factors: int, settings: DescentSettings
) -> Any:
    """Go through block b."""
    W, user_codes, item_codes, values = users.rows, blocks.users, blocks.items, blocks.values
    by_four, alone = _in_four_lanes(W, factors, settings), _alone(W, factors, settings)
    squares, penalties = widen(qfill(W, 0.0)), widen(qfill(W, 0.0))
    square, shrunk, n, stop = 0.0, 0.0, blocks.starts[b], blocks.starts[b + 1]
    while n < stop:
        if n + AHEAD + FOUR <= stop:
            _ask_for(users, four_codes(user_codes, n + AHEAD), width)
            _ask_for(items, four_codes(item_codes, n + AHEAD), width)
        if n + FOUR <= stop:
            i, j = four_codes(user_codes, n), four_codes(item_codes, n)
            if _differ(i) and _differ(j):
                errors, less = _four(users, items, i, j, widen_to(W, qload(values, n)), width, by_four)
                errors = widen(errors)
                squares, penalties = vfma(errors, errors, squares), penalties + widen(less)
                n += FOUR
                continue
        one_i, one_j = np.int64(user_codes[n]), np.int64(item_codes[n])
        error, one = _one(users, items, one_i, one_j, values[n], width, alone)
        square += error * error
        shrunk += one
        n += 1
    square += qtotal(squares)
    return square, square + shrunk + qtotal(penalties)


@borrowing
def _block(
    blocks: RatingBlocks, b: int, users: FlatSide, items: FlatSide, factors: int, settings: DescentSettings
) -> Any:
    """Go through block b, in a function of its own, which keeps more in registers."""
    line = lanes(users.rows) * REGISTERS_OF_LINE
    width = -(-factors // line) * line
    if width == 2 * line:  # loops over constants are unrolled
        return _descend(blocks, b, users, items, 2 * line, factors, settings)
    return _descend(blocks, b, users, items, width, factors, settings)


@borrowing
def descend_by_rows(
    blocks: RatingBlocks, numbers: Any, users: FlatSide, items: FlatSide, factors: int, settings: DescentSettings,
    sums: Any,
) -> None:  # fmt: skip
    """Go through the ratings of some blocks, as :func:`gramian.kernels.gradient.descent.descend` does."""
    for b in numbers:
        sums[b, 0], sums[b, 1] = _block(blocks, b, users, items, factors, settings)
