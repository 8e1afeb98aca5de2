"""Random half-sweeps: rows with empty and heavy ones among them, the fixed side, and a prior."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from gramian.engine.rows import Penalty
from gramian.kernels.csr import csr_from_sorted

EPSILON = {np.float32: 1.2e-7, np.float64: 2.3e-16}


def random_rows(rng, counts, n_other):
    """Rows with these numbers of ratings of ``n_other`` others, values around 3."""
    indices = [np.sort(rng.choice(n_other, count, replace=False)) for count in counts]
    values = rng.normal(3.0, 1.0, int(np.sum(counts)))
    return csr_from_sorted(np.repeat(np.arange(len(counts)), counts), np.concatenate(indices), values, len(counts))


def penalty_of(width, regularization, bias_regularization, biased, by_count=False):
    """λI, with the bias's own λ in the last place."""
    lambdas = np.full(width, float(regularization))
    if biased:
        lambdas[-1] = bias_regularization
    return Penalty(np.diag(lambdas), by_count)


def as_keywords(penalty, biased, offset):
    """The reference twin's arguments."""
    return {"biased": biased, "offset": offset, "precision": penalty.precision, "by_count": penalty.by_count}


@st.composite
def problems(draw):
    """A half-sweep: rows (empty and heavy ones among them), the other side, and a prior."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    biased, K = draw(st.booleans()), draw(st.integers(1, 40))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    n_other = draw(st.sampled_from([7, 60, 300]))
    size = st.one_of(st.integers(0, 6), st.sampled_from([0, 1, 63, 64, 65, 66, 67, 128, 129, 300]))
    counts = np.minimum(draw(st.lists(size, min_size=1, max_size=12)), n_other)
    counts[draw(st.integers(0, len(counts) - 1))] = draw(st.integers(1, min(n_other, 200)))
    other = rng.normal(0, 1 / np.sqrt(K), (n_other, K + biased)).astype(dtype)
    regularization, bias_regularization = draw(st.floats(0.05, 20)), draw(st.floats(0.05, 20))
    penalty = penalty_of(K + biased, regularization, bias_regularization, biased, draw(st.booleans()))
    offset = draw(st.floats(-2, 4))
    start = rng.normal(0, 0.5, (len(counts), K + biased)).astype(dtype)
    return random_rows(rng, counts, n_other), other, penalty, biased, offset, start
