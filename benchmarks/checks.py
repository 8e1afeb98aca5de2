"""What must not depend on threads, precision or solver.

    python benchmarks/checks.py [--quick] [--ml-100k FOLDER] [--goodbooks FOLDER] [--movietweetings FOLDER]

Bits of the factors over threads and repeated runs; float32 against float64; and how soon the approximate solvers
come within 0.1 % of the exact solver's error.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import gramian as gm
from machine import THREADS
from page import SETS, options, write_section

REPEATS = 20
SOLVERS = ("exact", "cg", "block")
EPOCHS = 15
CLOSE = 1.001
LAMBDAS = (2, 4, 8, 12, 20, 30, 50)


@dataclass(frozen=True)
class Split:
    """A named training and test part."""

    name: str
    train: gm.Ratings
    test: gm.Ratings


def splits(folders: dict[str, Path]) -> list[Split]:
    """The bundled set and those given: random tenths (a fifth of the small ones) as test, seed 0; u1 of ML 100K."""
    made = [Split("movielens-small", *gm.load_dataset("movielens-small").split(0.2, seed=0))]
    for option, folder in folders.items():
        if option == "ml_100k":
            parts = [gm.read_ratings(folder / f"u1.{part}") for part in ("base", "test")]
            made.append(Split("movielens-100k, u1", *parts))
        else:
            made.append(Split(SETS[option], *gm.load_dataset(SETS[option], path=folder).split(0.1, seed=0)))
    return made


def digest(model: gm.Model) -> str:
    """A hash of all factors and biases, bit by bit."""
    total = hashlib.sha256()
    for name, array in sorted(model.arrays().items()):
        total.update(name.encode() + array.tobytes())
    return total.hexdigest()


def bits_table(quick: bool) -> Iterator[str]:
    """Distinct hashes over threads and repeated runs: 1 is right."""
    size, repeats = (100_000, 3) if quick else (1_000_000, REPEATS)
    ratings = gm.synthetic_ratings(
        n_users=size // 125, n_items=size // 500, n_ratings=size, seed=0, times=False
    ).ratings
    yield f"| K | solver | different results of 1, 2 and 4 threads | different results of {repeats} runs, 2 threads |"
    yield "|---|---|---|---|"
    for K in (10, 32, 64, 128):
        for solver in SOLVERS if K == 128 else SOLVERS[:1]:
            recipe = gm.ALS(factors=K, epochs=2, solver=solver)
            threads = {digest(replace(recipe, n_jobs=n).fit(ratings)) for n in (1, 2, 4)}
            runs = {digest(replace(recipe, n_jobs=THREADS).fit(ratings)) for _ in range(repeats)}
            yield f"| {K} | {solver} | {len(threads)} | {len(runs | threads)} |"


def precision_table(data: list[Split]) -> Iterator[str]:
    """Test RMSE of both precisions."""
    yield "| ratings | K | float32 | float64 | difference |"
    yield "|---|---|---|---|---|"
    for split in data:
        for K in (10, 32, 64):
            single, double = (
                gm.ALS(factors=K, dtype=dtype).fit(split.train).evaluate(split.test)["rmse"]
                for dtype in ("float32", "float64")
            )
            yield f"| {split.name} | {K} | {single:.6f} | {double:.6f} | {abs(single - double):.1e} |"


def chosen_lambda(train: gm.Ratings) -> float:
    """The λ of the least validation error on a tenth of the training ratings, at K = 64."""
    part, validation = train.split(0.1, seed=0)
    errors = {
        value: gm.ALS(factors=64, regularization=value, epochs=EPOCHS).fit(part).evaluate(validation)["rmse"]
        for value in LAMBDAS
    }
    return min(errors, key=lambda value: errors[value])


def trained(recipe: gm.ALS, split: Split, goal: float | None) -> tuple[list[float], float]:
    """Test RMSE after each epoch, to the last or until ``goal`` is reached; and the median seconds per epoch."""
    errors: list[float] = []
    seconds = [0.0]
    for model in recipe.iterate(split.train):
        errors.append(model.evaluate(split.test)["rmse"])
        seconds = model.history.column("seconds")
        if goal is not None and errors[-1] <= goal and len(errors) > 2:
            break
    return errors, statistics.median(seconds)


def solver_rows(split: Split, factors: int, regularization: float) -> Iterator[str]:
    """The exact solver's final error, and the epochs and seconds in which each solver comes close to it."""
    recipe = gm.ALS(factors=factors, regularization=regularization, epochs=EPOCHS, n_jobs=THREADS)
    goal = None
    for solver in SOLVERS:
        errors, seconds = trained(replace(recipe, solver=solver, epochs=2 * EPOCHS if goal else EPOCHS), split, goal)
        goal = goal or CLOSE * errors[-1]
        reached = next((epoch for epoch, error in enumerate(errors, 1) if error <= goal), None)
        epochs = f"{reached} | {reached * seconds:.3g}" if reached else f"not in {len(errors)} | –"
        print(split.name, factors, solver, [round(error, 4) for error in errors], flush=True)
        of = f"{split.name} | {factors} | {regularization:g} | {solver}"
        yield f"| {of} | {errors[-1]:.4f} | {epochs} | {seconds:.3g} |"


def solver_table(data: list[Split], factors: tuple[int, ...]) -> Iterator[str]:
    """All sets, sizes and solvers."""
    yield (
        "| ratings | K | λ | solver | test RMSE | epochs to within 0.1 % of exact's last | seconds to there | "
        "seconds per epoch |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for split in data:
        regularization = chosen_lambda(split.train)
        for K in factors:
            yield from solver_rows(split, K, regularization)


if __name__ == "__main__":
    asked = options(__doc__).parse_args()
    quick = asked.quick
    data = splits({name: getattr(asked, name) for name in SETS if getattr(asked, name)})
    write_section("bits", bits_table(quick), quick=quick)
    write_section("precision", precision_table(data), quick=quick)
    write_section("solvers", solver_table(data[:1] if quick else data, (256,) if quick else (256, 512)), quick=quick)
