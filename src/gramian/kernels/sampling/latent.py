r"""Ratings as ordered levels: the latent rating of each, and what the cut points between the steps are worth.

With a mean η and a noise σ, a rating of step *k* says that its latent rating z lies between the cuts
:math:`\gamma_k` and :math:`\gamma_{k+1}`:

.. math::
    P_k = \Phi(b) - \Phi(a), \qquad a = \frac{\gamma_k - \eta}{\sigma}, \quad b = \frac{\gamma_{k+1} - \eta}{\sigma}
    \qquad z = \eta + \sigma\,\Phi^{-1}\big(\Phi(a) + u\,(\Phi(b) - \Phi(a))\big)

u is a counter-based uniform number (see :mod:`gramian.kernels.sampling.normals`), so z depends on (seed, sweep, side,
row, place in the row) alone. Intervals on the right are mirrored, where Φ keeps its digits; Φ⁻¹ is Wichura's AS 241.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from gramian.kernels.arrays import Array, readonly
from gramian.kernels.sampling.normals import philox
from gramian.kernels.vector.compiled import compiled, inlined

__all__ = ["CutSums", "OrdinalRatings", "cut_sums", "expect_block", "latent", "ordinal", "quantile", "truncated"]

_MASK = np.uint64(0xFFFFFFFF)
_32, _8, _21, _11 = np.uint64(32), np.uint64(8), np.uint64(21), np.uint64(11)
_PLACES = np.uint64(0x80000000)  # a bit that no block of normals has in its counter
_ROOT_2, _ROOT_2_PI = math.sqrt(2.0), math.sqrt(2 * math.pi)
_TINY = 1e-280  # of a probability; beyond, the tail is exponential
NODES = 1024  # of a table of expected ratings


@inlined
def _below(x: float) -> float:
    """Φ."""
    return 0.5 * math.erfc(-x / _ROOT_2)


@inlined
def _density(x: float) -> float:
    return math.exp(-0.5 * x * x) / _ROOT_2_PI


@inlined
def _near(q: float) -> float:
    """Φ⁻¹(½ + q) for |q| ≤ 0.425."""
    r = 0.180625 - q * q
    top = (((((((2509.0809287301226727 * r + 33430.575583588128105) * r + 67265.770927008700853) * r
        + 45921.953931549871457) * r + 13731.693765509461125) * r + 1971.5909503065514427) * r
        + 133.14166789178437745) * r + 3.387132872796366608)  # fmt: skip
    low = (((((((5226.495278852854561 * r + 28729.085735721942674) * r + 39307.89580009271061) * r
        + 21213.794301586595867) * r + 5394.1960214247511077) * r + 687.1870074920579083) * r
        + 42.313330701600911252) * r + 1.0)  # fmt: skip
    return q * top / low


@inlined
def _far(p: float) -> float:
    """−Φ⁻¹(p) for p < 0.075."""
    r = math.sqrt(-math.log(p))
    if r <= 5.0:
        r -= 1.6
        top = (((((((7.7454501427834140764e-4 * r + 0.0227238449892691845833) * r + 0.24178072517745061177) * r
            + 1.27045825245236838258) * r + 3.64784832476320460504) * r + 5.7694972214606914055) * r
            + 4.6303378461565452959) * r + 1.42343711074968357734)  # fmt: skip
        low = (((((((1.05075007164441684324e-9 * r + 5.475938084995344946e-4) * r + 0.0151986665636164571966) * r
            + 0.14810397642748007459) * r + 0.68976733498510000455) * r + 1.6763848301838038494) * r
            + 2.05319162663775882187) * r + 1.0)  # fmt: skip
        return top / low
    r -= 5.0
    top = (((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r + 0.0012426609473880784386) * r
        + 0.026532189526576123093) * r + 0.29656057182850489123) * r + 1.7848265399172913358) * r
        + 5.4637849111641143699) * r + 6.6579046435011037772)  # fmt: skip
    low = (((((((2.04426310338993978564e-15 * r + 1.4215117583164458887e-7) * r + 1.8463183175100546818e-5) * r
        + 7.868691311456132591e-4) * r + 0.0148753612908506148525) * r + 0.13692988092273580531) * r
        + 0.59983220655588793769) * r + 1.0)  # fmt: skip
    return top / low


@inlined
def quantile(p: float) -> float:
    """Φ⁻¹(p) of 0 < p < 1, to about 1e-16 (Wichura 1988, AS 241)."""
    q = p - 0.5
    if abs(q) <= 0.425:
        return _near(q)
    return -_far(p) if q < 0 else _far(1.0 - p)


@inlined
def truncated(a: float, b: float, u: float) -> float:
    """A standard normal number between a and b, from a uniform one in (0, 1)."""
    mirrored = a + b > 0
    low, high = (-b, -a) if mirrored else (a, b)
    least, most = _below(low), _below(high)
    if most < _TINY:
        x = max(low, high + math.log(u) / -high)
    else:
        x = min(max(quantile(least + u * (most - least)), low), high)
    return -x if mirrored else x


class OrdinalRatings(NamedTuple):
    """Ratings as steps: rating e of row *i* is its step with noise σ_i about its mean.

    Attributes:
        indptr: (rows + 1,), int64; row *i* has the ratings ``indptr[i]`` … ``indptr[i + 1]``.
        steps: k, (ratings,), int32.
        mean: η, (ratings,), float64.
        cuts: γ, (steps + 1,), float64; the first and the last are −∞ and ∞.
        stds: σ, (rows,), float64.
    """

    indptr: Array
    steps: Array
    mean: Array
    cuts: Array
    stds: Array


def ordinal(indptr: Array, steps: Array, mean: Array, inner_cuts: Array, stds: Array) -> OrdinalRatings:
    """Ratings with the cuts between their steps."""
    cuts = np.concatenate([[-np.inf], inner_cuts, [np.inf]])
    return OrdinalRatings(readonly(indptr), readonly(steps), readonly(mean), readonly(cuts), readonly(stds))


@compiled
def latent(ordinal: OrdinalRatings, key: tuple[int, int, int], start: int, stop: int, out: Any) -> None:
    """The latent ratings of the rows ``start`` … ``stop``, into ``out``; ``key`` is the seed, the sweep, the side."""
    indptr, steps, mean, cuts = ordinal.indptr, ordinal.steps, ordinal.mean, ordinal.cuts
    seed, sweep, side = key
    k0, k1 = np.uint64(seed) & _MASK, np.uint64(seed) >> _32
    c2 = np.uint64(sweep) & _MASK
    for i in range(start, stop):
        row, std = np.uint64(i), ordinal.stds[i]
        c3 = np.uint64(side) ^ ((row >> _32) << _8)
        for e in range(indptr[i], indptr[i + 1]):
            place = np.uint64(e - indptr[i])
            w0, w1, _, _ = philox(place | _PLACES, row & _MASK, c2, c3, k0, k1)
            u = (np.float64(np.int64((w0 << _21) | (w1 >> _11))) + 0.5) * 2.0**-53
            low, high = (cuts[steps[e]] - mean[e]) / std, (cuts[steps[e] + 1] - mean[e]) / std
            out[e] = mean[e] + std * truncated(low, high, u)


class CutSums(NamedTuple):
    """Σ log P of some ratings and its derivatives by the cuts, float64.

    Attributes:
        value: Σ log P, (1,).
        slope: The first derivatives, (cuts,).
        bend: The second ones with the sign turned, (cuts,).
        beside: Those by a cut and its right neighbour, (cuts,).
    """

    value: Array
    slope: Array
    bend: Array
    beside: Array


@compiled
def cut_sums(ordinal: OrdinalRatings, start: int, stop: int, sums: CutSums) -> None:
    """Add the sums of the rows ``start`` … ``stop``."""
    indptr, steps, mean, cuts = ordinal.indptr, ordinal.steps, ordinal.mean, ordinal.cuts
    value, slope, bend, beside = sums
    for i in range(start, stop):
        std = ordinal.stds[i]
        for e in range(indptr[i], indptr[i + 1]):
            k = steps[e]
            a, b = (cuts[k] - mean[e]) / std, (cuts[k + 1] - mean[e]) / std
            chance = _below(b) - _below(a) if a + b <= 0 else _below(-a) - _below(-b)
            chance = max(chance, _TINY)
            value[0] += math.log(chance)
            left = _density(a) / (std * chance) if k > 0 else 0.0
            right = _density(b) / (std * chance) if k + 2 < cuts.shape[0] else 0.0
            if k > 0:
                slope[k] -= left
                bend[k] += left * left - left * a / std
            if k + 2 < cuts.shape[0]:
                slope[k + 1] += right
                bend[k + 1] += right * right + right * b / std
                if k > 0:
                    beside[k] += left * right


@compiled
def expect_block(scores: Any, cuts: Any, levels: Any, stds: Any, start: int, stop: int) -> None:
    """Latent means of the rows ``start`` … ``stop`` become expected ratings, by a table of a row's curve; to 1e-5.

    ``cuts`` are the inner ones, between the ``levels``.
    """
    count = cuts.shape[0]
    table = np.empty(NODES + 1)
    low, step, known = 0.0, 1.0, -1.0
    for i in range(start, stop):
        if stds[i] != known:
            known = stds[i]
            low = cuts[0] - 6.0 * known
            step = (cuts[count - 1] + 6.0 * known - low) / NODES
            for n in range(NODES + 1):
                table[n] = levels[0]
                for k in range(count):
                    table[n] += (levels[k + 1] - levels[k]) * _below((low + n * step - cuts[k]) / known)
        for j in range(scores.shape[1]):
            at = min(max((scores[i, j] - low) / step, 0.0), NODES - 1e-9)
            n = int(at)
            scores[i, j] = table[n] + (at - n) * (table[n + 1] - table[n])
