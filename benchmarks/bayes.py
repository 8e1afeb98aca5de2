"""Gibbs samplers and SGD on goodbooks-10k, a random tenth held out: seconds per sweep and test RMSE.

    python benchmarks/bayes.py --goodbooks FOLDER [--quick]

All samplers make the same number of sweeps at K = 32. With ``--quick``, a few sweeps on the bundled ratings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gramian as gm
from environments import Peer, run, write_columns
from gramian.data.splits import random_rows
from page import options, write_section

FACTORS = 32
BURN_IN, DRAWS = 20, 100
GRAMIAN = Peer("Gramian BPMF", "gramian_bpmf.py")
PEERS = [
    Peer("SMURFF", "smurff_bpmf.py", ("smurff",)),
    Peer("myFM", "myfm_fm.py", ("myfm",)),
    Peer("Surprise SVD", "surprise_svd.py", ("scikit-surprise", "pandas")),
]


def write_parts(folder: Path, ratings: gm.Ratings) -> None:
    """The rows of ``ratings.split(0.1, seed=0)``, with the codes of the whole table."""
    test = random_rows(len(ratings), 0.1, 0)
    for name, mask in (("train", ~test), ("test", test)):
        columns = (ratings.user_codes[mask], ratings.item_codes[mask], ratings.values[mask])
        write_columns(folder / name, *columns)


def tuned_als(ratings: gm.Ratings) -> tuple[gm.ALS, float]:
    """ALS of the same K, its penalties chosen on a tenth of the training ratings; and its test RMSE."""
    train, test = ratings.split(0.1, seed=0)
    part, validation = train.split(0.1, seed=0)
    grid = [
        gm.ALS(factors=FACTORS, regularization=regularization, bias_regularization=bias, epochs=15)
        for regularization in (4, 6, 8, 10, 12)
        for bias in (1, 2, 4)
    ]
    als = min(grid, key=lambda recipe: recipe.fit(part).evaluate(validation)["rmse"])
    return als, float(als.fit(train).evaluate(test)["rmse"])


def table(ratings: gm.Ratings, sweeps: tuple[int, int]) -> Iterator[str]:
    """One row per system; Gramian before and after each peer."""
    with tempfile.TemporaryDirectory() as name:
        write_parts(Path(name), ratings)
        arguments = (Path(name), FACTORS, *sweeps)
        own = [run(GRAMIAN, *arguments)]
        results: dict[str, dict[str, Any]] = {}
        for peer in PEERS:
            results[peer.label] = run(peer, *arguments)
            own.append(run(GRAMIAN, *arguments))
            print(f"{peer.label}: {results[peer.label]}\nGramian: {own[-1]}", flush=True)
        results = {"Gramian BPMF, noise by user": run(GRAMIAN, *arguments, "--noise-by-user"), **results}
    mine = [result["mean_seconds"] for result in own if "error" not in result]
    yield f"{ratings!r}; {sweeps[0]} + {sweeps[1]} sweeps, K = {FACTORS}.\n"
    yield "| system | seconds per sweep | times Gramian's | peak memory, GiB | test RMSE |"
    yield "|---|---|---|---|---|"
    median = {"mean_seconds": float(np.median(mine))} if mine else {}
    for label, result in {GRAMIAN.label: own[0] | median, **results}.items():
        if "error" in result:
            yield f"| {label} | failed: {result['error']} | – | – | – |"
            continue
        ratio = f"{result['mean_seconds'] / median['mean_seconds']:.1f}" if mine else "–"
        yield (
            f"| {label} ({result['version']}) | {result['mean_seconds']:.3g} | {ratio} | "
            f"{result['peak'] / 2**30:.2f} | {result['rmse']:.4f} |"
        )
        if "chosen" in result:
            yield f"| {label} as it comes | – | – | – | {result['rmse_default']:.4f} |"
    als, error = tuned_als(ratings)
    chosen = f"λ={als.regularization:g}, λ_b={als.bias_regularization:g}"
    yield f"| Gramian ALS chosen on validation ({chosen}) | – | – | – | {error:.4f} |"


if __name__ == "__main__":
    asked = options(__doc__).parse_args()
    if asked.quick:
        write_section("samplers", table(gm.load_dataset("movielens-small"), (5, 10)), quick=True)
    elif asked.goodbooks:
        write_section("samplers", table(gm.load_dataset("goodbooks", path=asked.goodbooks), (BURN_IN, DRAWS)))
    else:
        print("no --goodbooks: the samplers are not measured")
