"""Has a chain converged, and how many independent draws is it worth? Asked of ArviZ, which is an extra.

pip install gramian[bayes]
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from gramian.errors import DataError, GramianError
from gramian.kernels.arrays import Array

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["as_datatree", "diagnostics"]

LEAST_DRAWS = 4  # of each chain; what R-hat needs to be split in two


def diagnostics(traces: Array, names: list[str]) -> pl.DataFrame:
    """Rank-normalized split R-hat and effective sample sizes (Vehtari et al. 2021) of what was followed.

    Args:
        traces: (draws, chains, quantities), burn-in left out.
        names: Of the quantities.

    Returns:
        A table: ``quantity``, ``mean``, ``std``, ``r_hat`` (1.01 or less is good; with one chain it compares the
        chain's halves), ``ess_bulk``, ``ess_tail`` and ``mcse_mean``, the sampling error of the mean.

    Raises:
        DataError: There are fewer than four draws of each chain after burn-in.
        GramianError: ArviZ is not installed.
    """
    stats = _library("arviz_stats.base").array_stats
    if len(traces) < LEAST_DRAWS:
        raise DataError(
            f"Convergence cannot be judged: found {len(traces)} sweeps after burn-in, of {LEAST_DRAWS} at least; "
            "raise draws."
        )
    where: dict[str, Any] = {"chain_axis": 0, "draw_axis": 1}
    chains = np.swapaxes(traces, 0, 1)
    if len(chains) == 1:
        half = len(traces) // 2
        chains = np.stack([chains[0, -2 * half : -half], chains[0, -half:]])
    return pl.DataFrame(
        {
            "quantity": names,
            "mean": traces.mean(axis=(0, 1)),
            "std": traces.std(axis=(0, 1)),
            "r_hat": stats.rhat(chains, **where),
            "ess_bulk": stats.ess(chains, method="bulk", **where),
            "ess_tail": stats.ess(chains, method="tail", prob=(0.05, 0.95), **where),
            "mcse_mean": stats.mcse(chains, method="mean", **where),
        }
    )


def as_datatree(traces: Array, names: list[str]) -> xr.DataTree:
    """The traces as ArviZ's data structure: the group ``posterior`` with one (chain, draw) variable for each name."""
    chains = np.swapaxes(traces, 0, 1)
    return _library("arviz_base").from_dict({"posterior": {name: chains[:, :, k] for k, name in enumerate(names)}})


def _library(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise GramianError(
            "ArviZ is needed for the diagnostics of chains: it is not installed; run pip install 'gramian[bayes]'."
        ) from None
