"""Every model and the libraries next door on one split: error, time and memory in one row.

    python benchmarks/judge.py --ml-100k FOLDER [--quick] [--peers myFM]

Everything as it comes, with its defaults; samplers make as many sweeps as Gramian's at the same K. Every row is a
process of its own with two threads, measured by the same code (`peers/whole.py`). Errors and the paired test are
computed here, from the predictions. With ``--quick``, some of the bundled ratings, and nothing is written.
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
from gramian.metrics.significance import paired_test, rmse_error
from gramian.registry import family
from page import options, write_section

SAMPLER = gm.BPMF()
BURN_IN = SAMPLER.draws // 5 if SAMPLER.burn_in is None else SAMPLER.burn_in
SURPRISE = ("scikit-surprise", "pandas")
PEERS = [
    *(
        Peer(f"Surprise {name}", "whole_surprise.py", SURPRISE, ("--model", kind))
        for name, kind in (("SVD", "SVD"), ("SVD++", "SVDpp"), ("KNNBasic", "KNNBasic"), ("KNNBaseline", "KNNBaseline"))
    ),
    Peer("LensKit BiasedMF", "whole_lenskit.py", ("lenskit",)),
    Peer("myFM", "whole_myfm.py", ("myfm",)),
    Peer("SMURFF BPMF", "whole_smurff.py", ("smurff",)),
]


def published_fold(folder: Path, number: int = 1) -> tuple[Any, Any]:
    """The rows of a published fold of MovieLens 100K, users, items, ratings; ids less one are codes."""
    parts = []
    for part in ("base", "test"):
        rows = np.loadtxt(folder / f"u{number}.{part}", dtype=np.int64)
        users, items, values = rows[np.lexsort((rows[:, 1], rows[:, 0])), :3].T
        parts.append((users - 1, items - 1, values.astype(np.float32)))
    return parts[0], parts[1]


def few_bundled() -> tuple[Any, Any]:
    """A random fifth of some bundled users' ratings for the test."""
    ratings = gm.load_dataset("movielens-small")
    ratings = ratings.take(ratings.user_codes < 100)
    test = random_rows(len(ratings), 0.2, 0)
    train, held = ((ratings.user_codes[rows], ratings.item_codes[rows], ratings.values[rows]) for rows in (~test, test))
    return train, held


def measured(systems: list[Peer], train: Any, test: Any, draws: int) -> dict[str, dict[str, Any]]:
    """What every system reports, with its predictions cut off at the ends of the scale, as Gramian's are."""
    made = {}
    burn_in = BURN_IN * draws // SAMPLER.draws
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, columns in (("train", train), ("test", test)):
            write_columns(folder / part, *columns)
        for system in systems:
            found = run(system, folder, SAMPLER.factors, burn_in, draws - burn_in)
            if "error" not in found:
                predicted = np.clip(np.load(folder / "predicted.npy"), train[2].min(), train[2].max())
                found |= {"loss": np.square(predicted - test[2].astype(float))}
                found["rmse"], found["standard_error"] = rmse_error(test[2], predicted, test[0])
            made[system.label] = found
            print(f"{system.label}: { {k: v for k, v in found.items() if k != 'loss'} }", flush=True)
    return made


def table(train: Any, test: Any, draws: int, peers: list[Peer]) -> Iterator[str]:
    """One row per system, least error first."""
    own = [Peer(f"**{type(recipe).__name__}**", "whole_gramian.py", (), ("--model", recipe.name))
           for recipe in family()]  # fmt: skip
    found = measured([*own, *peers], train, test, draws)
    ended = {label: one for label, one in found.items() if "error" not in one}
    best = min(ended, key=lambda label: ended[label]["rmse"])
    yield f"{len(train[0]):,} ratings to learn from, {len(test[0]):,} to be measured on.\n"
    yield "| system | RMSE ± s.e. | p against the best | seconds to fit | µs per pair | MiB added by the fit | in all |"
    yield "|---|---|---|---|---|---|---|"
    for label in sorted(ended, key=lambda label: ended[label]["rmse"]):
        one = ended[label]
        p = paired_test(one["loss"], ended[best]["loss"], test[0]).p_value
        version = f" ({one['version']})" if not label.startswith("**") else ""
        yield (
            f"| {label}{version} | {one['rmse']:.4f} ± {one['standard_error']:.4f} | "
            f"{'–' if label == best else '< 0.0001' if p < 1e-4 else f'{p:.4f}'} | {one['seconds']:.3g} | "
            f"{'–' if one['predict_us'] is None else format(one['predict_us'], '.3g')} | "
            f"{'–' if one['added'] is None else format(one['added'] / 2**20, '.0f')} | {one['peak'] / 2**20:.0f} |"
        )
    for label in found.keys() - ended.keys():
        yield f"| {label} | failed: {found[label]['error']} | – | – | – | – | – |"


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--peers", help="only peers whose names have one of these in them, separated by commas")
    asked = parser.parse_args()
    names = None if asked.peers is None else [name.strip().lower() for name in asked.peers.split(",")]
    wanted = [peer for peer in PEERS if names is None or any(name in peer.label.lower() for name in names)]
    if asked.quick:
        write_section("judged", table(*few_bundled(), 20, wanted), quick=True)
    elif asked.ml_100k:
        write_section("judged", table(*published_fold(asked.ml_100k), SAMPLER.draws, wanted))
    else:
        print("no --ml-100k: the table of models and libraries is not made")
