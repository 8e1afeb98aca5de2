"""Measure the time of an epoch and the accuracy, and write them into benchmarks/README.md.

    python benchmarks/run.py                          # the bundled ratings
    python benchmarks/run.py --ml-100k FOLDER         # and MovieLens 100K with its folds u1 … u5

With ``--quick``, the time of an epoch alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import gramian as gm
from accuracy import DRAWS, folds_of, measure, random_splits
from calibration import bundled_splits, table, u1_split
from epoch import epoch_times
from machine import description
from page import options, write_section


def epoch_table(sets: dict[str, gm.Ratings]) -> Iterator[str]:
    """Seconds per epoch at K = 10 on each set."""
    yield "| ratings | NumPy listing, s | ALS, one thread, s | ALS, all threads, s | listing / one | listing / all |"
    yield "|---|---|---|---|---|---|"
    for name, ratings in sets.items():
        t = epoch_times(ratings)
        one, every = t["one thread"], t["all threads"]
        yield (
            f"| {name} | {t['listing']:.4f} | {one:.4f} | {every:.4f} | "
            f"{t['listing'] / one:.1f} | {t['listing'] / every:.1f} |"
        )


def accuracy_table(splits: Iterator[tuple[str, gm.Ratings, gm.Ratings]]) -> Iterator[str]:
    """Test RMSE of each split, and the mean."""
    yield f"| split | Baseline | ALS | BPMF | ALS chosen on validation | BPMF chosen on validation, {DRAWS} draws |"
    yield "|---|---|---|---|---|---|"
    rows = []
    for seed, (name, train, test) in enumerate(splits):
        errors, als, bayes, seconds = measure(name, train, test, seed)
        rows.append(errors)
        chosen = f"K={als.factors}, λ={als.regularization:g}, λ_b={als.bias_regularization:g}, {als.epochs} epochs"
        cells = " | ".join(f"{error:.4f}" for error in errors)
        yield f"| {name} | {cells} | {chosen} | K={bayes.factors}, width {bayes.prior_scale:g}, {seconds:.1f} s |"
    cells = " | ".join(f"**{error:.4f}**" for error in np.mean(rows, axis=0))
    yield f"| **mean** | {cells} | | |"


if __name__ == "__main__":
    asked = options(__doc__).parse_args()
    folder, quick = asked.ml_100k, asked.quick
    bundled = gm.load_dataset("movielens-small")
    sets = {"movielens-small (bundled)": bundled}
    if folder:
        sets["movielens-100k"] = gm.load_dataset("movielens-100k", path=folder)
    write_section("machine", [description()], quick=quick)
    write_section("epoch", epoch_table(sets), quick=quick)
    if not quick:
        sure = [gm.Baseline(), gm.ALS(), gm.BPMF()]
        write_section("calibration bundled", table(sure, bundled_splits()))
        write_section("accuracy bundled", accuracy_table(random_splits(bundled)))
        if folder:
            write_section("calibration u1", table(sure, u1_split(folder)))
            write_section("accuracy folds", accuracy_table(folds_of(folder)))
