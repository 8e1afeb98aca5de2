"""implicit's AlternatingLeastSquares: exact (Cholesky), or with three steps of conjugate gradient."""

from __future__ import annotations

from common import THREADS, arguments, load_csr, measured, report
from implicit.cpu.als import AlternatingLeastSquares

asked = arguments("--cg")
matrix = load_csr(asked.folder)
model = AlternatingLeastSquares(
    factors=asked.factors, use_cg=asked.cg, iterations=1, num_threads=THREADS, random_state=0
)


def iterate() -> float:
    """One more iteration from the factors so far; implicit says its seconds."""
    said: list[float] = []
    model.fit(matrix, show_progress=False, callback=lambda number, seconds, loss: said.append(seconds))
    return said[0]


report("implicit", measured(iterate))
