"""SMURFF's BPMF: seconds per sweep, and the error of the mean prediction of the draws."""

from __future__ import annotations

import time

import numpy as np
from common import THREADS, clipped_rmse, load_parts, report, sampling_arguments
from scipy.sparse import csr_matrix
from smurff import SampledNoise, TrainSession

asked = sampling_arguments()
train, test, shape = load_parts(asked.folder)
mean = float(train[2].mean())
session = TrainSession(
    priors=["normal", "normal"], num_latent=asked.factors, burnin=asked.burn_in, nsamples=asked.draws,
    num_threads=THREADS, seed=0, verbose=0,
)  # fmt: skip
matrices = [csr_matrix((part[2].astype(np.float64) - mean, part[:2]), shape) for part in (train, test)]
session.addTrainAndTest(*matrices, noise=SampledNoise(1.0))
session.init()
seconds = []
for _ in range(asked.burn_in + asked.draws):
    began = time.perf_counter()
    session.step()
    seconds.append(time.perf_counter() - began)
made = session.getTestPredictions()
users, items = np.array([prediction.coords for prediction in made]).T
means = np.array([prediction.pred_avg for prediction in made])[np.lexsort((items, users))]  # in the order of `test`
report("smurff", seconds, mean_seconds=float(np.mean(seconds[1:])), rmse=clipped_rmse(train, test, mean + means))
