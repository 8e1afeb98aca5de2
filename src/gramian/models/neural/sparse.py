"""Training an autoencoder on its ratings alone: one epoch of steps; the equations are in the kernel's module.

Between the first and the last layer all is dense and small: batch × hidden units. The optimizer moves the rows of
the columns that a batch has ratings of; the penalty on such a row is raised by how seldom it is moved, so that in an
epoch it sums to what the dense network takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gramian.core.file_format import Arrays
from gramian.engine import pool
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.kernels.reference import DESCENT_RULES
from gramian.models.neural.layers import activate, slope

__all__ = ["Steps", "batches", "column_shrink", "dropped", "epoch", "first_state", "step"]


class Steps(NamedTuple):
    """How a step is made."""

    activation: str
    layers: int
    regularization: float
    optimizer: str
    rate: float
    beta: float
    n_jobs: int | None


def first_state(arrays: Arrays, optimizer: str) -> Arrays:
    """What the optimizer remembers of each array: rows of the first and last layer apart, the others flat."""
    made = {}
    for name, array in arrays.items():
        flat = array if name in ("in", "out") else array.reshape(1, -1)
        width = flat.shape[1]
        state = np.zeros((len(flat), 2 * width + 2 if optimizer == "adam" else width), array.dtype)
        state[:, 2 * width :] = 1
        made[f"state.{name}"] = state
    return made


def batches(rows: CSR, size: int, seed: int, number: int) -> Iterator[Array]:
    """The samples that have ratings, in a random order, so many at a time."""
    rng = np.random.Generator(np.random.Philox([seed, number]))
    order = rng.permutation(np.flatnonzero(rows.counts > 0))
    return (order[low : low + size] for low in range(0, len(order), size))


def dropped(values: Array, share: float, seed: int, number: int) -> Array:
    """The inputs of an epoch: a random share is 0, and the rest is larger by as much."""
    if share == 0:
        return values
    kept = np.random.Generator(np.random.Philox([seed, number, 1])).random(len(values), np.float32) >= share
    return np.where(kept, values / np.float32(1 - share), np.float32(0))


def column_shrink(counts: Array, n_batches: int, regularization: float) -> Array:
    """2λ over the probability that a batch has a rating of the column."""
    touched = -np.expm1(np.maximum(counts, 1) * np.log1p(-1 / n_batches)) if n_batches > 1 else np.ones(len(counts))
    return (2 * regularization / touched).astype(np.float32)


def epoch(
    rows: CSR, inputs: Array, arrays: Arrays, steps: Steps, picks: Iterable[Array], shrink: Array
) -> tuple[float, int]:
    """All steps of an epoch in place: the sum of squared errors as they were met, and how many ratings."""
    total, n = 0.0, 0
    noisy = rows._replace(values=inputs)
    with np.errstate(all="ignore"):  # what diverges is found by its loss
        for pick in picks:
            batch = rows.take(pick)
            total += step(batch, noisy.take(pick).values, arrays, steps, shrink)
            n += len(batch.values)
            if not np.isfinite(total):
                break
    return total, n


def step(batch: CSR, inputs: Array, arrays: Arrays, steps: Steps, shrink: Array) -> float:
    """One batch: forward, backward, and the move; the sum of squared errors before it."""
    from gramian.kernels.gradient import autoencoder

    A, V = arrays["in"], arrays["out"]
    size, H = batch.n_rows, V.shape[1] - 1
    z = np.empty((size, A.shape[1]), A.dtype)
    _split(lambda a, b: autoencoder.encode(batch.indptr, batch.indices, inputs, A, arrays["bias0"], z, a, b), batch, H,
           steps.n_jobs)  # fmt: skip
    outputs = [activate(steps.activation, z).astype(A.dtype)]
    for n in range(1, steps.layers):
        outputs.append(activate(steps.activation, outputs[-1] @ arrays[f"kernel{n}"] + arrays[f"bias{n}"]))
    errors, back = np.empty_like(inputs), np.empty((size, H), A.dtype)
    scale, sums = 2 / len(inputs), {}

    def measure(a: int, b: int) -> None:
        sums[a] = autoencoder.residuals(*batch, outputs[-1], V, scale, errors, back, a, b)

    _split(measure, batch, H, steps.n_jobs)
    gradients = {}
    delta = (back * slope(steps.activation, outputs[-1])).astype(A.dtype)
    for n in range(steps.layers - 1, 0, -1):
        kernel = arrays[f"kernel{n}"]
        gradients[f"kernel{n}"] = outputs[n - 1].T @ delta - 2 * steps.regularization * kernel
        gradients[f"bias{n}"] = delta.sum(axis=0)
        delta = ((delta @ kernel.T) * slope(steps.activation, outputs[n - 1])).astype(A.dtype)
    gradients["bias0"] = delta.sum(axis=0)
    _move_flat(gradients, arrays, steps)
    _move_columns(batch, {"out": (errors, outputs[-1]), "in": (inputs, delta)}, arrays, steps, shrink)
    return sum(sums[a] for a in sorted(sums))


def _move_flat(gradients: Arrays, arrays: Arrays, steps: Steps) -> None:
    """Move what the batch has whole gradients of."""
    from gramian.kernels.gradient import autoencoder

    rule = DESCENT_RULES.index(steps.optimizer)
    for name, gradient in gradients.items():
        flat, direction = arrays[name].reshape(-1), np.ascontiguousarray(gradient.reshape(-1), arrays[name].dtype)
        autoencoder.move_flat(flat, arrays[f"state.{name}"][0], direction, rule, steps.rate, steps.beta)


def _move_columns(
    batch: CSR, layers: Mapping[str, tuple[Array, Array]], arrays: Arrays, steps: Steps, shrink: Array
) -> None:
    """Move the rows of the first and the last layer, column by column of the batch.

    Of each layer comes a coefficient for every entry of the batch, and what it multiplies, a row for every sample.
    """
    from gramian.kernels.gradient import autoencoder

    rule = DESCENT_RULES.index(steps.optimizer)
    order, samples, columns, starts = _by_column(batch, len(arrays["in"]))
    by_column = CSR(starts, samples, batch.values)
    for name, (coefficients, partner) in layers.items():

        def work(a: int, b: int, c: Array = coefficients[order], p: Array = partner, name: str = name) -> None:
            autoencoder.move_columns(
                starts, columns, samples, c, p, arrays[name], arrays[f"state.{name}"], shrink, name == "out",
                rule, steps.rate, steps.beta, a, b,
            )  # fmt: skip

        _split(work, by_column, partner.shape[1], steps.n_jobs)


def _by_column(batch: CSR, width: int) -> tuple[Array, Array, Array, Array]:
    """The order of the entries by columns, their samples, the columns that occur, and where each begins."""
    from scipy.sparse import csr_array

    places = csr_array((np.arange(len(batch.indices)), batch.indices, batch.indptr), (batch.n_rows, width)).tocsc()
    columns = np.flatnonzero(np.diff(places.indptr))
    return places.data, places.indices, columns, np.append(places.indptr[columns], len(places.data))


def _split(work: Callable[[int, int], Any], rows: CSR, width: int, n_jobs: int | None) -> None:
    pool.over_blocks(work, rows, 4 * width, pool.thread_count(n_jobs))
