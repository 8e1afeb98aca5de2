"""What is followed through every sweep of a chain: numbers that mean the same however W and U are rotated."""

from __future__ import annotations

import numpy as np

from gramian.models.bayes.state import State
from gramian.models.bayes.terms.collection import Terms

__all__ = ["TRACED_PAIRS", "trace_names", "trace_scalars"]

TRACED_PAIRS = 10


def trace_names(biased: bool, terms: Terms) -> list[str]:
    """The names of what is followed.

    ``noise_std`` α^-½; ``factor_std``, the root mean square of wᵀu over all pairs under the priors; with biases,
    the priors' ``user_bias_std`` and ``item_bias_std``; what the terms name; and ten predictions of pairs chosen at
    random.
    """
    biases = ["user_bias_std", "item_bias_std"] if biased else []
    return ["noise_std", "factor_std", *biases, *terms.trace_names, *(f"prediction_{k}" for k in range(TRACED_PAIRS))]


def trace_scalars(draw: State, biased: bool, terms: Terms) -> list[float]:
    """The values of the :func:`trace_names`, but for the predictions."""
    users, items = draw.users, draw.items
    covariances = [np.linalg.inv(prior.precision) for prior in (users, items)]
    K = len(users.mean) - biased
    seconds = [
        covariance[:K, :K] + np.outer(prior.mean[:K], prior.mean[:K])
        for covariance, prior in zip(covariances, (users, items), strict=True)
    ]
    made = [draw.noise_precision**-0.5, float(np.sqrt(np.sum(seconds[0] * seconds[1])))]
    made += [float(np.sqrt(covariance[K, K])) for covariance in covariances] if biased else []
    return made + terms.trace(draw)
