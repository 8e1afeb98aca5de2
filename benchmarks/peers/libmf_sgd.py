"""LIBMF by its Python binding, on ratings less their mean (it has no biases); λ chosen on validation ratings."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from common import THREADS, Columns, clipped_rmse, descent_arguments, load_parts, report_descent

with contextlib.redirect_stdout(io.StringIO()):
    from libmf import mf

asked = descent_arguments()
train, test, _ = load_parts(asked.folder)
mean = float(np.mean(train[2]))
PENALTIES, CHOOSING = (0.05, 0.1, 0.15, 0.2), 20


def fitted(part: Columns, epochs: int, penalty: float) -> Any:
    """A model; the penalty is on the squares, for every rating."""
    model = mf.MF(
        k=asked.factors, nr_threads=THREADS, nr_iters=epochs, eta=0.1, quiet=True,
        lambda_p1=0.0, lambda_q1=0.0, lambda_p2=penalty, lambda_q2=penalty,
    )  # fmt: skip
    model.fit(np.column_stack([part[0], part[1], part[2] - mean]).astype(np.float32))
    return model


def error(model: Any, part: Columns, other: Columns) -> float:
    """The RMSE; what LIBMF has no row for is predicted as the mean."""
    predicted = model.predict(np.column_stack(other[:2]).astype(np.float32)) + mean
    return clipped_rmse(part, other, np.where(np.isfinite(predicted), predicted, mean))


held = np.random.default_rng(0).random(len(train[0])) < 0.1
inner, validation = (tuple(column[mask] for column in train) for mask in (~held, held))
best = min(PENALTIES, key=lambda penalty: error(fitted(inner, CHOOSING, penalty), inner, validation))
report_descent(
    "libmf", lambda epochs: fitted(train, epochs, best), lambda model: error(model, train, test), asked.target,
    chosen=f"λ={best:g}",
)  # fmt: skip
