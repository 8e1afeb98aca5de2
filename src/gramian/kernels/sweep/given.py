"""What the kernels of a half-sweep are given: small tuples of what always travels together."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from gramian.kernels.arrays import Array, readonly
from gramian.kernels.csr import CSR, readonly_csr

__all__ = ["AddedDraw", "Buffers", "Observed", "Prior", "RowSystem", "Shape", "SweepProblem", "nothing", "observed_of"]


class Observed(NamedTuple):
    """The ratings of the rows that are solved, and the fixed rows that they are of.

    Attributes:
        fixed: (rows of the other side, D), float32 or float64: the dtype of all arithmetic.
        indptr: (rows + 1,), int64; row *i* has the ratings ``indptr[i]`` … ``indptr[i + 1]``.
        indices: (ratings,), int32; the fixed row of each.
        values: (ratings,), of any floats.
        offset: μ, subtracted from every rating; a number of the dtype of ``fixed``.
        weights: ω, (ratings,), of the dtype of ``fixed``; empty where all are 1.
    """

    fixed: Array
    indptr: Array
    indices: Array
    values: Array
    offset: Any
    weights: Array


class Prior(NamedTuple):
    """What a row's system has before its ratings: A = sΛ + S, y = sΛm; all of the dtype of the rows.

    Attributes:
        precision: Λ, (D, D).
        linear: Λm, (1, D), or (rows, D) with one for each row.
        shared: S, (D, D); (0, 0) where there is none.
        by_count: Whether s is the row's number of ratings, and not 1.
    """

    precision: Array
    linear: Array
    shared: Array
    by_count: bool


class Shape(NamedTuple):
    """The sizes of a row's system.

    Attributes:
        size: D, the unknowns.
        factors: K: D, or D − 1 where the last unknown is a bias.
        columns: K padded to whole registers and tiles.
        biased: Whether the last unknown is a bias.
    """

    size: int
    factors: int
    columns: int
    biased: bool


class AddedDraw(NamedTuple):
    """What is added to a solution where rows are drawn: σL⁻ᵀz.

    Attributes:
        drawing: Whether they are.
        seed: uint64; the normals depend on it, on the sweep, the side and the row.
        sweep: Which sweep.
        side: Which side.
        spread: σ, of the dtype of the rows.
        first_row: The number of the first row among all.
    """

    drawing: bool
    seed: Any
    sweep: int
    side: int
    spread: Any
    first_row: int


class SweepProblem(NamedTuple):
    """What all rows of a half-sweep have in common.

    Attributes:
        observed, prior, shape, draw: Their ratings, prior, sizes, and how they are drawn.
        tolerance: Of a pivot, relative to the diagonal; of the dtype of the rows.
        few: Rows of at most so many ratings are solved by their duals; −1 for none.
    """

    observed: Observed
    prior: Prior
    shape: Shape
    draw: AddedDraw
    tolerance: Any
    few: int


class RowSystem(NamedTuple):
    """A and y of one row, flat.

    Attributes:
        slot: [matrix, columns² | y, columns | bias column, columns], of the dtype of the rows.
        totals: (A_KK, y_K), those of the bias itself.
    """

    slot: Array
    totals: Array


class Buffers(NamedTuple):
    """Where a row's ratings are gathered; flat, of the dtype of the rows.

    Attributes:
        panel: (ratings gathered at a time, columns).
        roots: (ratings gathered at a time, 2).
        two_parts: Two parts of a heavy row's sums; see :mod:`gramian.kernels.sweep.pieces`.
    """

    panel: Array
    roots: Array
    two_parts: Array


def observed_of(rows: CSR, fixed: Array, offset: float, weights: Array | None = None) -> Observed:
    """The ratings of rows, as kernels want them."""
    dtype = fixed.dtype
    given = nothing(dtype) if weights is None else readonly(weights, dtype)
    return Observed(readonly(fixed), *readonly_csr(rows), dtype.type(offset), given)


@cache
def nothing(dtype: np.dtype[Any], dimensions: int = 1) -> Array:
    """What stands for an array that is not given."""
    return readonly(np.empty((0,) * dimensions, dtype))
