"""cmfrec's CMF by alternating least squares: exact (Cholesky), or with three steps of conjugate gradient."""

from __future__ import annotations

from cmfrec import CMF
from common import THREADS, arguments, fit_difference, load, report
from scipy.sparse import coo_matrix

asked = arguments("--cg")
users, items, values = load(asked.folder)
matrix = coo_matrix((values, (users, items)))


def fit(iterations: int) -> None:
    """The model without biases or side information, and without what only predictions need."""
    CMF(
        k=asked.factors, niter=iterations, use_cg=asked.cg, finalize_chol=False, user_bias=False, item_bias=False,
        precompute_for_predictions=False, use_float=True, nthreads=THREADS,
    ).fit(matrix)  # fmt: skip


report("cmfrec", fit_difference(fit))
