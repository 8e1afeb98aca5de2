r"""The Normal–Wishart posterior of the rows of one side: a draw of their common mean and precision.

With rows :math:`x_1 \dots x_n \sim N(m, \Lambda^{-1})` and the prior
:math:`\Lambda \sim W(W_0, \nu_0)`, :math:`m \sim N(m_0, (\beta_0\Lambda)^{-1})`:

.. math::
    \Lambda \sim W(W_*, \nu_0 + n), \quad m \sim N(m_*, (\beta_*\Lambda)^{-1}), \qquad
    \beta_* = \beta_0 + n, \quad m_* = (\beta_0 m_0 + n\bar x)/\beta_*

    W_*^{-1} = W_0^{-1} + \sum_i (x_i - \bar x)(x_i - \bar x)^\top
        + \tfrac{\beta_0 n}{\beta_*}(\bar x - m_0)(\bar x - m_0)^\top

The Wishart draw is Bartlett's: with :math:`W_*^{-1} = TT^\top` and A lower triangular, :math:`A_{kk}^2 \sim
\chi^2_{\nu - k}`, normals below, :math:`\Lambda = T^{-\top}AA^\top T^{-1}`; then :math:`m = m_* +
TA^{-\top}z/\sqrt{\beta_*}`. Plain loops in float64, in a fixed order: a library's matrix product would round
differently with another number of its threads. The twin is :func:`gramian.kernels.reference.normal_wishart`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gramian.kernels.vector.compiled import compiled

__all__ = ["moments", "normal_wishart"]


@compiled
def moments(rows: Any, total: Any, cross: Any) -> None:
    """Total += Σ x and cross += Σ x xᵀ (its lower triangle) over the rows, in float64."""
    n, size = rows.shape
    width = (size + 7) // 8 * 8  # whole registers: no loop has a rest
    sums, block = np.zeros((width, width)), np.zeros((8, width))
    for first in range(0, n, 8):  # eight at a time, so that the sums pass through memory less often
        for k in range(8):
            for c in range(size):
                block[k, c] = rows[first + k, c] if first + k < n else 0.0
        for c in range(size):
            a0, a1, a2, a3 = block[0, c], block[1, c], block[2, c], block[3, c]
            a4, a5, a6, a7 = block[4, c], block[5, c], block[6, c], block[7, c]
            total[c] += ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7))
            for j in range((c | 7) + 1):
                low = (a0 * block[0, j] + a1 * block[1, j]) + (a2 * block[2, j] + a3 * block[3, j])
                high = (a4 * block[4, j] + a5 * block[5, j]) + (a6 * block[6, j] + a7 * block[7, j])
                sums[c, j] += low + high
    for c in range(size):
        for j in range(c + 1):
            cross[c, j] += sums[c, j]


@compiled
def _cholesky(matrix: Any) -> None:
    """The lower triangle of a positive definite matrix becomes T with TTᵀ = matrix."""
    size = matrix.shape[0]
    for c in range(size):
        for k in range(c):
            for i in range(c, size):
                matrix[i, c] -= matrix[i, k] * matrix[c, k]
        root = np.sqrt(matrix[c, c])
        for i in range(c, size):
            matrix[i, c] /= root


@compiled
def normal_wishart(
    count: int, total: Any, cross: Any, center: Any, strength: float, scale: Any, bartlett: Any, normals: Any,
    mean: Any, precision: Any,
) -> None:  # fmt: skip
    """Draw ``mean`` (D,) and ``precision`` (D, D), both written to.

    Args:
        count: n.
        total, cross: What :func:`moments` made of the rows; ``cross`` is overwritten.
        center: m₀, (D,).
        strength: β₀.
        scale: w, (D,), where W₀⁻¹ = diag(w).
        bartlett: A, (D, D), lower triangular.
        normals: z, (D,).
        mean, precision: The draw.
    """
    size = center.shape[0]
    grown = strength + count
    for c in range(size):
        mean[c] = (strength * center[c] + total[c]) / grown
    pull = strength * count / grown
    for c in range(size):
        deviation = total[c] / count - center[c]
        for j in range(c + 1):
            cross[c, j] -= total[c] * total[j] / count
            cross[c, j] += pull * deviation * (total[j] / count - center[j])
        cross[c, c] += scale[c]
    _cholesky(cross)
    root = np.empty((size, size))  # T⁻ᵀA, from the last row up
    for c in range(size - 1, -1, -1):
        for j in range(size):
            root[c, j] = bartlett[c, j] if j <= c else 0.0
        for i in range(c + 1, size):
            for j in range(size):
                root[c, j] -= cross[i, c] * root[i, j]
        for j in range(size):
            root[c, j] /= cross[c, c]
    transposed = root.T.copy()
    precision[:] = 0.0
    for k in range(size):
        for c in range(size):
            for j in range(size):
                precision[c, j] += transposed[k, c] * transposed[k, j]
    u = normals.copy()  # A⁻ᵀz
    for c in range(size - 1, -1, -1):
        u[c] /= bartlett[c, c]
        for j in range(c):
            u[j] -= bartlett[c, j] * u[c]
    for c in range(size):
        for j in range(c + 1):
            mean[c] += cross[c, j] * u[j] / np.sqrt(grown)
