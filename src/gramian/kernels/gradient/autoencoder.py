r"""An autoencoder on sparse rows: what a batch costs follows its ratings, not the width of the network.

A sample s has centred ratings :math:`x_e` at columns :math:`j_e`. With rows :math:`A_j` of the first layer and rows
:math:`V_j` (the bias :math:`c_j` last) of the output layer,

.. math::
    z_s = a + \sum_e x_e A_{j_e}, \qquad h_s = \phi(z_s), \qquad \epsilon_e = x_e^* - h_s^\top V_{j_e} - c_{j_e}

where x is x* after dropout. Of the loss :math:`\frac1n \sum_e \epsilon_e^2 + \lambda(\|A\|^2 + \|V\|^2)` the negative
gradients are sums over the entries of a column,

.. math::
    g_{V_j} = \sum_{e: j_e = j} \tfrac2n \epsilon_e h_{s_e} - 2\lambda V_j, \qquad
    g_{A_j} = \sum_{e: j_e = j} x_e\, \delta_{s_e} - 2\lambda A_j

with :math:`\delta_s` the negative gradient for :math:`z_s`. So one pass by samples and one by columns do it; each row
is written by one thread, in a fixed order of sums. A column without a rating in the batch is not moved.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gramian.kernels.gradient.descent import move
from gramian.kernels.residuals import dot
from gramian.kernels.vector.compiled import borrowing, compiled

__all__ = ["encode", "move_columns", "move_flat", "residuals"]


@borrowing
def encode(indptr: Any, indices: Any, values: Any, kernel: Any, bias: Any, out: Any, start: int, stop: int) -> None:
    """The sums z of the samples ``start`` … ``stop``; inputs that are 0 are passed over."""
    for s in range(start, stop):
        row = out[s]
        for k in range(len(bias)):
            row[k] = bias[k]
        for e in range(indptr[s], indptr[s + 1]):
            x = values[e]
            if x != 0:
                weights = kernel[indices[e]]
                for k in range(len(bias)):
                    row[k] += x * weights[k]


@borrowing
def residuals(
    indptr: Any, indices: Any, values: Any, hidden: Any, rows: Any, scale: float,
    errors: Any, back: Any, start: int, stop: int,
) -> float:  # fmt: skip
    """Σ ε² of the samples; writes scale · ε of each entry, and Σ scale · ε V of each sample into ``back``."""
    H, total = hidden.shape[1], 0.0
    factor = rows.dtype.type(scale)
    for s in range(start, stop):
        h, mine = hidden[s], back[s]
        for k in range(H):
            mine[k] = 0
        for e in range(indptr[s], indptr[s + 1]):
            weights = rows[indices[e]]
            error = values[e] - dot(h, weights, H) - weights[H]
            total += np.float64(error) ** 2
            error *= factor
            errors[e] = error
            for k in range(H):
                mine[k] += error * weights[k]
    return total


@compiled
def move_columns(
    starts: Any, columns: Any, samples: Any, coefficients: Any, partner: Any, rows: Any, state: Any, shrink: Any,
    biased: bool, rule: int, rate: float, beta: float, start: int, stop: int,
) -> None:  # fmt: skip
    """Move the rows of ``columns[start:stop]``; entries ``starts[c]:starts[c + 1]`` are those of column c.

    The direction is Σ coefficient · partner's row, 1 for the bias, less ``shrink`` · row for all but the bias.
    """
    D = rows.shape[1]
    H = D - 1 if biased else D
    gradient = np.empty(D, rows.dtype)
    eta, beta = rows.dtype.type(rate), rows.dtype.type(beta)
    for c in range(start, stop):
        j = columns[c]
        row, less = rows[j], shrink[j]
        for k in range(H):
            gradient[k] = -less * row[k]
        if biased:
            gradient[H] = 0
        for e in range(starts[c], starts[c + 1]):
            x = coefficients[e]
            if x != 0:
                sample = partner[samples[e]]
                for k in range(H):
                    gradient[k] += x * sample[k]
                if biased:
                    gradient[H] += x
        move(rule, row, state[j], gradient, eta, beta)


@borrowing
def move_flat(row: Any, state: Any, gradient: Any, rule: int, rate: float, beta: float) -> None:
    """Move one array, laid out flat."""
    move(rule, row, state, gradient, row.dtype.type(rate), row.dtype.type(beta))
