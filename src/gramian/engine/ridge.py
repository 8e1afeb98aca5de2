r"""Draws from the posterior of a ridge regression on a sparse matrix, of many columns at once.

With F (n × f), rows Y (n × D) and the precision Λ = diag(λ) of f coefficients, each column of t (f × D) is drawn from
:math:`N(H^{-1}F^\top y,\ H^{-1})`, :math:`H = F^\top F + \Lambda`, by *noise injection* with standard normal E₁ and
E₂: :math:`Ht = F^\top(Y + E_1) + \Lambda^{1/2}E_2`. Solved for the shorter side (Bhattacharya, Chakraborty & Mallick
2016, *Fast sampling with Gaussian scale mixture priors*): with the draw before, t', or with :math:`t_0 =
\Lambda^{-1/2}E_2`, a draw from the prior,

.. math::
    H(t - t') &= F^\top(Y + E_1 - Ft') + \Lambda^{1/2}E_2 - \Lambda t' \qquad\text{where } f \le n \\
    (F\Lambda^{-1}F^\top + I)\,s &= Y + E_1 - Ft_0, \quad t = t_0 + \Lambda^{-1}F^\top s
        \qquad\text{where } n < f

so that what a rough solution leaves out stays as it was, or as the prior has it, and is not shrunk. By conjugate
gradient; FᵀF is never formed. With T the one
of F and Fᵀ that is tall, the system made one on its diagonal is :math:`S(T^\top W T + \operatorname{diag}(c))S`, and
the preconditioner in these units :math:`I + V(\Theta^{-1} - I)V^\top`: V are its leading eigenvectors where Λ = I, Θ
their eigenvalues, found once for a matrix by some steps of subspace iteration. That halves the steps.

The columns go in strips (:mod:`gramian.kernels.linear.feature_products`), each by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.engine import pool, products
from gramian.kernels.arrays import Array, aligned_rows, readonly
from gramian.kernels.csr import CSR, readonly_csr

__all__ = ["Design", "Strips", "cut", "draw", "noise", "product", "rows_of", "strips_of", "whitened"]

Strips = list[Array]  # some columns of all rows each: as many as a register has, (n, W), or one left over, (n,)
PIECE_ROWS = 2**14  # rows whose noise is drawn in one task, and by one counter
PART_ENTRIES = 2**22  # of a matrix that are multiplied in one task
# Eigenvectors of the preconditioner, where there are at least so many unknowns; of how many columns, after how many
# steps of subspace iteration.
RANK, RANK_FROM, COLUMNS, ITERATIONS = 96, 512, 128, 6


class Spectrum(NamedTuple):
    """V as :func:`gramian.kernels.linear.feature_products.step` takes it, and Θ."""

    basis: Array
    values: Array


@dataclass(frozen=True, eq=False)
class Design:
    """F, (n, f), in both orders, with the group of each of its columns; columns of a group have the same λ."""

    rows: CSR
    columns: CSR
    groups: npt.NDArray[np.int64]

    @property
    def flipped(self) -> bool:
        """Whether the rows are fewer, so that T = Fᵀ."""
        return self.rows.n_rows < len(self.groups)

    @property
    def tall(self) -> CSR:
        """T."""
        return self.columns if self.flipped else self.rows

    @property
    def unknowns(self) -> int:
        """How many columns T has."""
        return min(self.rows.n_rows, len(self.groups))

    @cached_property
    def ordered(self) -> tuple[CSR, Array]:
        """T with its rows by their lengths, so that a loop over one ends as the one before did; and their order."""
        order = np.argsort(self.tall.counts, kind="stable")
        return self.tall.take(order), order

    @cached_property
    def blocks(self) -> list[tuple[int, int]]:
        """The rows of T in blocks of about the same work."""
        return pool.blocks_of(self.tall, 16)

    @cached_property
    def squares(self) -> Array:
        """The sums of the squares in each row of F, one column for each group; or in each column of F, (f,)."""
        square = np.square(self.tall.values, dtype=np.float64)
        if not self.flipped:
            return np.bincount(self.tall.indices, square, minlength=self.unknowns)
        n_groups = int(self.groups.max(initial=-1)) + 1
        places = self.tall.indices * np.int64(n_groups) + self.groups[self.tall.row_codes()]
        return np.bincount(places, square, minlength=self.unknowns * n_groups).reshape(-1, n_groups)

    @cached_property
    def _found(self) -> list[Spectrum]:
        return []

    def spectrum(self, n_jobs: int | None = None) -> Spectrum:
        """The leading eigenvectors of the system with Λ = I, scaled to one on its diagonal; found once."""
        if not self._found:
            self._found.append(_spectrum(self, n_jobs))
        return self._found[0]

    def times(self, rows: Array, *, n_jobs: int | None = None) -> Array:
        """F times rows, (f, D)."""
        size = rows.shape[1]
        if self.flipped:
            return rows_of(turned_product(self.tall, rows, self.unknowns, n_jobs=n_jobs), size)
        return product(self.tall, cut(rows), size, n_jobs=n_jobs, blocks=self.blocks)

    def system(self, precisions: Array) -> _System:
        """The system where the groups have these precisions."""
        ones = np.ones(len(self.rows.indptr) - 1)
        own = precisions[self.groups]
        if self.flipped:
            return _System(self, 1 / own, ones, self.squares @ (1 / precisions) + 1)
        return _System(self, ones, own, self.squares + own)


class _System(NamedTuple):
    """TᵀWT + diag(c), and its diagonal."""

    design: Design
    weights: Array
    ridge: Array
    diagonal: Array


# ---- strips ----------------------------------------------------------------------------------------


def strips_of(count: int, size: int, dtype: npt.DTypeLike, make: Callable[..., Array] = np.zeros) -> Strips:
    """Zeros for so many rows and columns; the last strip may have more columns than are asked for."""
    from gramian.kernels.vector.lanes import VECTOR_BYTES

    width = VECTOR_BYTES // np.dtype(dtype).itemsize
    whole, rest = divmod(size, width)
    made = [
        aligned_rows(count + 3, width, dtype, make)[:count] for _ in range(whole + (rest > 1))
    ]  # 3: normals come by four
    return made + ([aligned_rows(count + 3, 1, dtype, make)[:count, 0]] if rest == 1 else [])


def _over(work: Callable[..., None], pieces: list[tuple[Any, ...]], cost: int, n_jobs: int | None) -> None:
    tasks: list[pool.Task] = [partial(work, *piece) for piece in pieces]
    with pool.runner(pool.thread_count(n_jobs), len(tasks), cost) as run:
        run(tasks)


def _cuts(count: int) -> list[tuple[int, int]]:
    return list(pairwise([*range(0, count, PIECE_ROWS), count])) if count else []


def _first_columns(strips: Strips) -> list[tuple[Array, int]]:
    starts = np.cumsum([0, *(_width(strip) for strip in strips[:-1])]).tolist()
    return list(zip(strips, starts, strict=True))


def _width(strip: Array) -> int:
    return strip.shape[1] if strip.ndim == 2 else 1


def cut(rows: Array) -> Strips:
    """The strips of rows, (n, D)."""
    size = rows.shape[1]
    made = strips_of(len(rows), size, rows.dtype)
    for strip, (column, count) in zip(made, _places(made, size), strict=True):
        strip.reshape(len(rows), -1)[:, :count] = rows[:, column : column + count]
    return made


def rows_of(strips: Strips, size: int) -> Array:
    """The rows of strips, (n, D)."""
    out = np.empty((len(strips[0]), size), strips[0].dtype)
    for strip, (column, count) in zip(strips, _places(strips, size), strict=True):
        out[:, column : column + count] = strip.reshape(len(out), -1)[:, :count]
    return out


# ---- noise -----------------------------------------------------------------------------------------


def noise(count: int, size: int, dtype: npt.DTypeLike, seed: int, side: int, *, n_jobs: int | None = None) -> Strips:
    """Standard normals that depend on (seed, side, row, column) alone."""
    from gramian.kernels.sampling.normals import fill_normals

    out = strips_of(count, size, dtype, np.empty)

    def fill(strip: Array, column: int, piece: int, first: int, last: int) -> None:
        flat = np.lib.stride_tricks.as_strided(strip, (-(-count // 4) * 4 * _width(strip),), (strip.itemsize,))
        place = flat[first * _width(strip) : -(-last // 4) * 4 * _width(strip)]
        fill_normals(place, _width(strip), last - first, np.uint64(seed), piece, side, column)

    pieces = [(*strip, k, *piece) for strip in _first_columns(out) for k, piece in enumerate(_cuts(count))]
    _over(fill, pieces, 50 * count * size, n_jobs)
    return out


def whitened(rows: Array, mean: Array, root: Array, seed: int, side: int, *, n_jobs: int | None = None) -> Strips:
    """(X − 1mᵀ)L + E, with E of :func:`noise`."""
    from gramian.kernels.linear import feature_products

    count, size = rows.shape
    out = noise(count, size, rows.dtype, seed, side, n_jobs=n_jobs)
    flat = readonly(rows).reshape(-1)
    parts = list(zip(cut(root.astype(rows.dtype)), cut(-(mean @ root)[None].astype(rows.dtype)), strict=True))
    pieces = [(strip, *part, *piece) for strip, part in zip(out, parts, strict=True) for piece in _cuts(count)]

    def add(strip: Array, matrix: Array, base: Array, first: int, last: int) -> None:
        feature_products.lean(strip, flat, matrix, base, size, first, last)

    _over(add, pieces, count * size**2, n_jobs)
    return out


# ---- products --------------------------------------------------------------------------------------


def product(
    matrix: CSR, strips: Strips, size: int, noise: Strips | None = None, scale: Array | None = None,
    *, n_jobs: int | None = None, blocks: list[tuple[int, int]] | None = None,
) -> Array:  # fmt: skip
    """The rows (n, ``size``) of the matrix times the strips; or a (noise + a times that), with a = ``scale``."""
    from gramian.kernels.linear import feature_products

    dtype = strips[0].dtype
    out = np.empty((matrix.n_rows, size), dtype)
    beside: list[Any] = [None] * len(strips)
    if noise is not None:
        assert scale is not None
        beside = list(map(partial(feature_products.Noise, readonly(scale, dtype)), noise))
    pieces = [
        (strip, drawn, feature_products.Tall(out.reshape(-1), size, *place), *block)
        for strip, drawn, place in zip(strips, beside, _places(strips, size), strict=True)
        for block in blocks or pool.blocks_of(matrix, _width(strips[0]))
    ]
    _over(partial(feature_products.gather, readonly_csr(matrix, dtype)), pieces, matrix.n_entries * size, n_jobs)
    return out


def turned_product(
    matrix: CSR, rows: Array | Strips, count: int, scale: Array | None = None, *, n_jobs: int | None = None
) -> Strips:
    """The transpose of the matrix, whose columns are ``count``, times ``scale`` times rows or strips."""
    from gramian.kernels.linear import feature_products

    whole = rows if isinstance(rows, np.ndarray) else None
    size = sum(map(_width, rows)) if whole is None else whole.shape[1]
    dtype = rows[0].dtype
    out = strips_of(count, size, dtype)
    a = None if scale is None else readonly(scale, dtype)
    Tall = feature_products.Tall
    if whole is None:
        tall = [Tall(rows[k].reshape(-1), _width(strip), 0, _width(strip)) for k, strip in enumerate(out)]
    else:
        tall = [Tall(whole.reshape(-1), size, *place) for place in _places(out, size)]
    pieces = [(strip, a, own, 0, matrix.n_rows) for strip, own in zip(out, tall, strict=True)]
    _over(partial(feature_products.scatter, readonly_csr(matrix, dtype)), pieces, matrix.n_entries * size, n_jobs)
    return out


def _places(strips: Strips, size: int) -> list[tuple[int, int]]:
    """The first column of each strip, and how many of so many columns it has."""
    return [(column, min(_width(strip), size - column)) for strip, column in _first_columns(strips)]


# ---- draws -----------------------------------------------------------------------------------------


def draw(
    design: Design, precisions: Array, Y: Strips, E: Strips, before: Array, *, tolerance: float, steps: int,
    n_jobs: int | None = None,
) -> Array | None:  # fmt: skip
    """t, (f, D); None where the residual is not small after so many steps.

    Args:
        design: F.
        precisions: λ of each group.
        Y: Y + E₁, n rows.
        E: E₂, f rows.
        before: Where to begin, (f, D): the draw before. It stays in what the tolerance leaves out.
        tolerance: Of the residual of a strip, relative to the right side, both in the norm of the preconditioner.
        steps: Of conjugate gradient at most.
        n_jobs: Threads; the result does not depend on them.
    """
    system, deviation, size = design.system(precisions), precisions[design.groups] ** -0.5, before.shape[1]
    if design.flipped:
        b = turned_product(design.tall, E, design.unknowns, deviation, n_jobs=n_jobs)
        for strip, seen in zip(b, Y, strict=True):
            np.subtract(seen, strip, out=strip)
        s = _solve(system, b, tolerance, steps, n_jobs)
        if s is None:
            return None
        return product(design.tall, s, size, E, deviation, n_jobs=n_jobs, blocks=design.blocks)
    start = cut(-before)
    rest = product(design.tall, start, size, Y, system.weights, n_jobs=n_jobs, blocks=design.blocks)
    b = turned_product(design.tall, rest, design.unknowns, n_jobs=n_jobs)
    for strip, normals, negative in zip(b, E, start, strict=True):
        strip += _beside(1 / deviation, strip) * normals + _beside(system.ridge, strip) * negative
    z = _solve(system, b, tolerance, steps, n_jobs)
    return None if z is None else before + rows_of(z, size)


def _beside(numbers: Array, strip: Array) -> Array:
    made = numbers.astype(strip.dtype)
    return made[:, None] if strip.ndim == 2 else made


def _solve(system: _System, b: Strips, tolerance: float, steps: int, n_jobs: int | None) -> Strips | None:
    """(TᵀWT + diag(c))⁻¹ b by conjugate gradient; ``b`` is overwritten."""
    from gramian.kernels.linear import feature_products

    dtype, n, design = b[0].dtype, len(b[0]), system.design
    tall, order = design.ordered
    spectrum = design.spectrum(n_jobs)
    preconditioner = feature_products.Preconditioner(
        readonly(system.diagonal**-0.5, dtype),
        readonly(spectrum.basis, dtype),
        readonly(1 / spectrum.values - 1, dtype),
    )
    ridge, weights = readonly(system.ridge, dtype), readonly(system.weights[order], dtype)
    size = sum(map(_width, b))
    parts = [_parts(tall, 1 + (strip.ndim == 1)) for strip in b]  # a narrow strip is half the work of a wide one
    new = partial(strips_of, size=size, dtype=dtype)
    x, p, q = new(n), new(n), new(n * max(map(len, parts)))
    room, sums = new(len(spectrum.values)), new(1)
    iterates = list(map(feature_products.Iterate, x, b, p, q, room, sums))
    multiply = partial(feature_products.normal, readonly_csr(tall, dtype), weights)

    def further(k: int) -> None:
        feature_products.step(iterates[k], len(parts[k]), ridge, preconditioner)

    def small(k: int) -> bool:
        return bool(sums[k].sum() <= tolerance**2 * lengths[k].sum())

    with pool.runner(pool.thread_count(n_jobs), len(b), steps * tall.n_entries * size) as run:
        run([partial(further, k) for k in range(len(b))])
        lengths, left = [part.copy() for part in sums], range(len(b))
        for _ in range(steps):
            left = [k for k in left if not small(k)]  # type: ignore[assignment]
            if not left:
                return x
            run([partial(multiply, p[k], q[k], n * m, *part) for k in left for m, part in enumerate(parts[k])])
            run([partial(further, k) for k in left])
    return x if all(map(small, range(len(b)))) else None


def _parts(tall: CSR, least: int = 1) -> list[tuple[int, int]]:
    """The tall rows in parts of about as many entries; how many does not depend on the threads."""
    count = max(least, tall.n_entries // PART_ENTRIES)
    goals = np.arange(1, count) * (tall.n_entries / count)
    return list(pairwise(np.unique([0, *np.searchsorted(tall.indptr, goals), tall.n_rows]).tolist()))


# ---- the preconditioner ----------------------------------------------------------------------------


def _spectrum(design: Design, n_jobs: int | None) -> Spectrum:
    """By subspace iteration from random columns: X ← the orthonormal basis of what the system makes of X."""
    from gramian.kernels.linear import dense, feature_products

    n = design.unknowns
    if n < RANK_FROM:
        return Spectrum(np.empty(0, np.float32), np.empty(0))
    system = design.system(np.ones(int(design.groups.max()) + 1))
    X = _orthonormal(rows_of(noise(n, COLUMNS, np.float32, 0, 0, n_jobs=n_jobs), COLUMNS), n_jobs)
    for _ in range(ITERATIONS):
        X = _orthonormal(_multiplied(system, X, n_jobs), n_jobs)
    made = _multiplied(system, X, n_jobs)
    squares, vectors = dense.eigen(_gram(made, n_jobs))  # of the square of the system between the columns of X
    V = products.dense_product(X, np.ascontiguousarray(vectors[:RANK].T), n_jobs=n_jobs)
    return Spectrum(V.reshape(n, -1, feature_products.GROUP).swapaxes(0, 1).reshape(-1), np.sqrt(squares[:RANK]))


def _multiplied(system: _System, X: Array, n_jobs: int | None) -> Array:
    """S(TᵀWT + diag(c))S X."""
    from gramian.kernels.linear import feature_products

    scale = (system.diagonal**-0.5).astype(X.dtype)[:, None]
    scaled = X * scale
    tall, order = system.design.ordered
    p, parts, n = cut(scaled), _parts(tall), len(X)
    q = strips_of(n * len(parts), X.shape[1], X.dtype)
    multiply = partial(feature_products.normal, readonly_csr(tall, X.dtype), readonly(system.weights[order], X.dtype))
    pieces = [(p[k], q[k], n * m, *part) for k in range(len(p)) for m, part in enumerate(parts)]
    _over(multiply, pieces, tall.n_entries * X.shape[1], n_jobs)
    total = np.add.reduce(rows_of(q, X.shape[1]).reshape(len(parts), n, -1), axis=0)
    return scale * (total + system.ridge.astype(X.dtype)[:, None] * scaled)


def _gram(X: Array, n_jobs: int | None) -> Array:
    low = products.moments(X, n_jobs=n_jobs)[1]
    return low + np.tril(low, -1).T


def _orthonormal(X: Array, n_jobs: int | None) -> Array:
    """An orthonormal basis of the columns, by the Cholesky factor of their products."""
    turn = np.linalg.inv(np.linalg.cholesky(_gram(X, n_jobs))).T
    return products.dense_product(X, np.ascontiguousarray(turn), n_jobs=n_jobs)
