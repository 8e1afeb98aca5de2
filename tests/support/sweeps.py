"""The kernel of the half-sweep called by hand, and how near it must be to its twin."""

from __future__ import annotations

import numpy as np

from gramian.kernels.sweep import half_sweep


def solve(rows, other, precision, start=0, stop=None, out=None, **options):
    out = np.full((rows.n_rows, other.shape[1]), np.nan, other.dtype) if out is None else out
    status = np.zeros(rows.n_rows, np.uint8)
    settings_ = {"biased": False, "offset": 0.0, **options}
    half_sweep.prepared(out, status, rows, other, precision, **settings_)(start, stop or rows.n_rows)
    return out, status


def assert_close(found, expected, dtype, factors):
    tolerance = (factors + 20) * 40 * np.finfo(dtype).eps
    assert np.abs(found - expected).max() <= tolerance * max(1, np.abs(expected).max())
