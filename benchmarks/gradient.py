"""Gradient descent beside its peers, and the networks: dense against sparse, small batches against large ones.

    python benchmarks/gradient.py --goodbooks FOLDER [--quick] [--only descent,autorec,batches]

Without goodbooks-10k the bundled ratings stand in and nothing is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gramian as gm
from bayes import tuned_als, write_parts
from environments import Peer, run
from page import options, synthetic, write_section

FACTORS, MORE = 32, 1.005
HIDDEN, BATCH = 600, 256
GRAMIAN = Peer("Gramian SGD", "gramian_sgd.py")
PEERS = [
    Peer("LIBMF", "libmf_sgd.py", ("libmf", "numpy", "setuptools")),
    Peer("Surprise SVD", "surprise_sgd.py", ("scikit-surprise", "pandas")),
]


def descent_table(ratings: gm.Ratings) -> Iterator[str]:
    """Seconds per epoch, and of the fit that reaches the error of ALS and half a percent; Gramian after each peer."""
    als, error = tuned_als(ratings)
    with tempfile.TemporaryDirectory() as name:
        write_parts(Path(name), ratings)
        arguments = (Path(name), FACTORS, error * MORE, als.regularization, als.bias_regularization)
        own, results = [run(GRAMIAN, *arguments)], {}
        for peer in PEERS:
            results[peer.label] = run(peer, *arguments)
            own.append(run(GRAMIAN, *arguments))
            print(f"{peer.label}: {results[peer.label]}\nGramian: {own[-1]}", flush=True)
    fields = f"λ={als.regularization:g}, λ_b={als.bias_regularization:g}"
    yield f"{ratings!r}, a random tenth held out, K = {FACTORS}. ALS chosen on validation ({fields}): {error:.4f}.\n"
    yield "| system | seconds per epoch | times Gramian's | least test RMSE | fit to ALS + 0.5 % |"
    yield "|---|---|---|---|---|"
    median = sorted(own, key=lambda result: result["mean_seconds"])[len(own) // 2]
    for label, result in {GRAMIAN.label: median | {"chosen": fields}, **results}.items():
        if "error" in result:
            yield f"| {label} | failed: {result['error']} | – | – | – |"
            continue
        reached = result["reached"]
        time = "not in 30 epochs" if reached is None else f"{result['times'][str(reached)]:.2f} s ({reached} epochs)"
        yield (
            f"| {label} ({result['version']}; {result['chosen']}) | {result['mean_seconds']:.4f} | "
            f"{result['mean_seconds'] / median['mean_seconds']:.1f} | {result['rmse']:.4f} | {time} |"
        )


def autorec_table(ratings: gm.Ratings) -> Iterator[str]:
    """One epoch of each path, the dense one by some of its steps; each in a process of its own."""
    table = Peer("AutoRec", "gramian_autorec.py")
    yield f"{ratings!r}, users as samples, {HIDDEN} hidden units, Adam.\n"
    yield "| path | batch | steps measured | seconds per epoch | times the sparse path's | peak memory, GiB |"
    yield "|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for column, array in (("user", ratings.user_codes), ("item", ratings.item_codes), ("rating", ratings.values)):
            np.save(folder / f"{column}.npy", array)
        seconds: dict[int, float] = {}
        for path, batch, steps in (
            ("sparse", BATCH, 0), ("dense", BATCH, 12), ("sparse", 8 * BATCH, 0), ("dense", 8 * BATCH, 4),
        ):  # fmt: skip
            made = run(table, folder, HIDDEN, path, batch, steps)
            print(f"{path} {batch}: {made}", flush=True)
            if "error" in made:
                yield f"| {path} | {batch} | failed: {made['error']} | – | – | – |"
                continue
            seconds.setdefault(batch, made["mean_seconds"])
            yield (
                f"| {path} | {batch} | {made['steps']} of {made['all_steps']} | {made['mean_seconds']:.1f} | "
                f"{made['mean_seconds'] / seconds[batch]:.1f} | {made['peak'] / 2**30:.2f} |"
            )


def batches_table(ratings: gm.Ratings, epochs: int = 3) -> Iterator[str]:
    """NeuralMF with small and with large batches: the wall time, compiling included, to the small ones' best error."""
    train, test = ratings.split(0.1, seed=0)
    part, validation = train.split(0.1, seed=0)
    yield f"{ratings!r}; K = 16, λ = 8.\n"
    yield "| batch | learning rate | epochs | validation RMSE | test RMSE | seconds |"
    yield "|---|---|---|---|---|---|"
    goal = np.inf
    for batch, rate, most in ((128, 0.001, epochs), (4096, 0.01, 60), (16384, 0.02, 60)):
        recipe = gm.NeuralMF(regularization=8, batch_size=min(batch, len(part)), learning_rate=rate, epochs=most)
        spent, best = 0.0, np.inf
        for model in recipe.iterate(part, validation):
            record: dict[str, Any] = dict(model.history[-1])
            spent, best = spent + record["seconds"], min(best, record["validation_rmse"])
            if batch > 128 and best <= goal:
                break
        goal = best if batch == 128 else goal
        ended = len(model.history)
        error = model.evaluate(test)["rmse"]
        yield f"| {batch} | {rate:g} | {ended} | {best:.4f} | {error:.4f} | {spent:.1f} |"


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--only", default="descent,autorec,batches", help="only these parts, separated by commas")
    asked = parser.parse_args()
    quick = asked.quick or not asked.goodbooks
    real = gm.load_dataset("movielens-small") if quick else gm.load_dataset("goodbooks", path=asked.goodbooks)
    parts = asked.only.split(",")
    if "descent" in parts:
        write_section("descent", descent_table(real), quick=quick)
    if "batches" in parts:
        write_section("batches", batches_table(real), quick=quick)
    if "autorec" in parts:
        write_section("autorec", autorec_table(synthetic(asked.quick)), quick=asked.quick)
