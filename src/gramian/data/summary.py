"""What is in a rating set: the numbers that say how large, how full and how skewed it is."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass

import numpy as np

from gramian.core.parameters import check_number
from gramian.core.plain import Plain
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR

__all__ = ["Description", "Size", "describe", "model_size"]

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Size:
    """How much of the N × M matrix the ratings fill, and what a model of K factors needs instead.

    Attributes:
        cells: N·M.
        fill_percent: Ratings per 100 cells.
        parameters: N·K + M·K, the two factor matrices (biases add N + M).
        parameters_percent: Parameters per 100 cells.
    """

    cells: int
    fill_percent: float
    parameters: int
    parameters_percent: float


def model_size(n_users: int, n_items: int, n_ratings: int, factors: int) -> Size:
    """The size table of a rating set for ``factors`` latent features."""
    check_number("factors", factors, low=0, whole=True, owner="describe")
    cells = n_users * n_items
    parameters = (n_users + n_items) * factors
    return Size(cells, 100 * n_ratings / cells, parameters, 100 * parameters / cells)


@dataclass(frozen=True)
class Description:
    """A description of a rating set; ``print`` shows it as text, :meth:`to_dict` gives plain data.

    Memory is in bytes: ``memory`` as stored (both orientations), ``dense_memory`` what a full float32
    matrix would take. Quantiles are minimum, lower quartile, median, upper quartile, maximum.
    """

    n_users: int
    n_items: int
    n_ratings: int
    duplicates: int
    mean: float
    scale: tuple[float, float]
    grid: float | None
    distinct_values: int
    times: tuple[int, int] | None
    ratings_per_user: tuple[float, ...]
    ratings_per_item: tuple[float, ...]
    memory: int
    dense_memory: int
    factors: int
    size: Size

    def to_dict(self) -> Plain:
        """The description as plain nested data, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        low, high = self.scale
        step = f" in steps of {self.grid:g}" if self.grid else f", {self.distinct_values} distinct values"
        lines = [
            f"{self.n_ratings:,} ratings by {self.n_users:,} users of {self.n_items:,} items"
            + (f" ({self.duplicates:,} repeated pairs merged)" if self.duplicates else ""),
            f"filled          {_percent(self.size.fill_percent)} % of {self.size.cells:,} cells",
            f"scale           {low:g} to {high:g}{step}, mean {self.mean:.3f}",
            f"per user        {_quantiles(self.ratings_per_user)}",
            f"per item        {_quantiles(self.ratings_per_item)}",
        ]
        if self.times:
            lines.append(f"time            {_when(self.times[0])} to {_when(self.times[1])}")
        lines += [
            f"memory          {_bytes(self.memory)} as stored, {_bytes(self.dense_memory)} as a dense matrix",
            f"K = {self.factors:<4}        {self.size.parameters:,} parameters, "
            f"{_percent(self.size.parameters_percent)} % of the matrix",
        ]
        return "\n".join(lines)


def describe(
    by_user: CSR, n_items: int, factors: int, times: tuple[int, int] | None = None, duplicates: int = 0
) -> Description:
    """Describe the ratings of compressed sparse rows of users."""
    values = by_user.values
    n_ratings = len(values)
    distinct = np.unique(values)
    per_item = np.bincount(by_user.indices, minlength=n_items)
    stored = 2 * n_ratings * 8 + 8 * (by_user.n_rows + n_items + 2) + (8 * n_ratings if times else 0)
    return Description(
        n_users=by_user.n_rows,
        n_items=n_items,
        n_ratings=n_ratings,
        duplicates=duplicates,
        mean=float(np.mean(values, dtype=np.float64)),
        scale=(float(distinct[0]), float(distinct[-1])),
        grid=grid_step(distinct),
        distinct_values=len(distinct),
        times=times,
        ratings_per_user=tuple(float(q) for q in np.quantile(by_user.counts, QUANTILES)),
        ratings_per_item=tuple(float(q) for q in np.quantile(per_item, QUANTILES)),
        memory=stored,
        dense_memory=4 * by_user.n_rows * n_items,
        factors=factors,
        size=model_size(by_user.n_rows, n_items, n_ratings, factors),
    )


def grid_step(distinct: Array) -> float | None:
    """The step of the scale if the sorted distinct values lie on an even grid of at most 100 steps."""
    if len(distinct) < 2:
        return None
    gaps = np.diff(distinct.astype(np.float64))
    step = float(gaps.min())
    steps = gaps / step
    even = np.allclose(steps, np.round(steps), atol=1e-4) and steps.sum() <= 100
    return step if even else None


def _quantiles(values: tuple[float, ...]) -> str:
    low, lower, median, upper, high = (f"{v:,.10g}" for v in values)
    return f"{median} ratings at the median, middle half {lower} to {upper}, from {low} to {high}"


def _percent(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "B" else f"{count} B"
        size /= 1024
    return f"{size:.4g} TiB"


def _when(time: int) -> str:
    """A date, if the time looks like Unix seconds between 1980 and 2100; else the number itself."""
    if 315_532_800 <= time <= 4_102_444_800:
        return datetime.datetime.fromtimestamp(time, datetime.UTC).date().isoformat()
    return str(time)
