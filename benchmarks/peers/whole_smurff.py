"""SMURFF's BPMF: ``normal`` priors, sampled noise, ratings less their mean. It predicts the test as it samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import THREADS, Columns, load_parts
from scipy.sparse import csr_matrix
from smurff import SampledNoise, TrainSession
from whole import arguments, measure

asked = arguments()
_, test, shape = load_parts(asked.folder)


def fit(part: Columns) -> Any:
    """The session after its last sweep, and the mean of the ratings."""
    mean = float(part[2].mean())
    session = TrainSession(
        priors=["normal", "normal"], num_latent=asked.factors, burnin=asked.burn_in, nsamples=asked.draws,
        num_threads=THREADS, seed=0, verbose=0,
    )  # fmt: skip
    matrices = [csr_matrix((rows[2].astype(np.float64) - mean, rows[:2]), shape) for rows in (part, test)]
    session.addTrainAndTest(*matrices, noise=SampledNoise(1.0))
    session.init()
    for _ in range(asked.burn_in + asked.draws):
        session.step()
    return session, mean


def predict(model: Any, part: Columns) -> Any:
    """The means over the draws, in the order of the pairs."""
    session, mean = model
    made = session.getTestPredictions()
    users, items = np.array([prediction.coords for prediction in made]).T
    means = np.array([prediction.pred_avg for prediction in made])
    order = np.empty(len(part[0]), int)
    order[np.lexsort((part[1], part[0]))] = np.lexsort((items, users))
    return mean + means[order]


measure("smurff", asked.folder, fit, predict, by_pair=False)
