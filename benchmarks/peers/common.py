"""What every measured process shares. It runs in each peer's environment: only NumPy is there for sure."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2
MOST, ENOUGH = 3, 10.0  # an iteration is measured three times, or until ten seconds are used up
EPOCHS = (1, 3, 6, 12, 20, 30)  # fits of gradient descent
Columns = tuple[Any, Any, Any]


def arguments(*flags: str) -> argparse.Namespace:
    """The folder of the ratings, the number of factors, and flags."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("factors", type=int)
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    return parser.parse_args()


def sampling_arguments() -> argparse.Namespace:
    """The folder with the parts ``train`` and ``test``, the number of factors, and the sweeps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("factors", "burn_in", "draws"):
        parser.add_argument(name, type=int)
    parser.add_argument("--noise-by-user", action="store_true", help="of Gramian's")
    return parser.parse_args()


def load(folder: Path) -> Columns:
    """User codes, item codes and ratings, ordered by user."""
    users, items, values = (np.load(folder / f"{name}.npy") for name in ("user", "item", "rating"))
    return users, items, values


def load_csr(folder: Path) -> Any:
    """The ratings as a SciPy matrix, users × items."""
    from scipy.sparse import csr_matrix

    users, items, values = load(folder)
    return csr_matrix((values, (users, items)))


def load_parts(folder: Path) -> tuple[Columns, Columns, tuple[int, int]]:
    """The training and the test ratings, whose codes belong together, and how many users and items there are."""
    train, test = load(folder / "train"), load(folder / "test")
    return train, test, (max(train[0].max(), test[0].max()) + 1, max(train[1].max(), test[1].max()) + 1)


def clipped_rmse(train: Columns, test: Columns, predicted: Any) -> float:
    """The error of predictions cut off at the ends of the scale."""
    cut = np.clip(predicted, train[2].min(), train[2].max())
    return float(np.sqrt(np.mean((cut - test[2]) ** 2)))


def measured(iterate: Callable[[], object]) -> list[float]:
    """Seconds of one iteration, several times; ``iterate`` may return them itself."""
    seconds: list[float] = []
    while len(seconds) < MOST and sum(seconds) < ENOUGH:
        began = time.perf_counter()
        said = iterate()
        seconds.append(said if isinstance(said, float) else time.perf_counter() - began)
    return seconds


def descent_arguments() -> argparse.Namespace:
    """The folder with the parts ``train`` and ``test``, the number of factors, the error to be reached, and λ."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("factors", type=int)
    for name in ("target", "regularization", "bias_regularization"):
        parser.add_argument(name, type=float)
    return parser.parse_args()


def report_descent(
    package: str, fit: Callable[[int], Any], error: Callable[[Any], float], target: float, **more: Any
) -> None:
    """Report seconds per epoch, the least test error, and the fit that first reached the target."""
    fit(1)  # what is compiled at first use
    times, errors, reached = {}, {}, None
    for epochs in EPOCHS:
        began = time.perf_counter()
        model = fit(epochs)
        times[epochs] = time.perf_counter() - began
        errors[epochs] = error(model)
        if errors[epochs] <= target and reached is None:
            reached = epochs
    each = [(times[more] - times[few]) / (more - few) for few, more in (EPOCHS[:2], EPOCHS[1:3], EPOCHS[2:4])]
    said = {"rmse": min(errors.values()), "errors": errors, "reached": reached, "times": times}
    report(package, each, mean_seconds=sorted(each)[1], **said, **more)


def fit_difference(fit: Callable[[int], object]) -> list[float]:
    """Seconds of one iteration: a fit of some iterations less a fit of none, which has all the preparation."""

    def timed(iterations: int) -> float:
        began = time.perf_counter()
        fit(iterations)
        return time.perf_counter() - began

    none = timed(0)
    one = timed(1) - none
    return [one] if one > ENOUGH / MOST else [one, (timed(MOST) - none) / MOST]


def peak_memory() -> int:
    """Bytes: the largest resident memory that this process and its living children had, added up."""
    own, peak = str(Path("/proc/self").resolve().name), 0
    if not Path("/proc/self/status").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    parents = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        parents[status.parent.name] = (fields["PPid"].strip(), int(fields.get("VmHWM", "0 kB").split()[0]) * 1024)
    for process, (_, memory) in parents.items():
        ancestor = process
        while ancestor in parents and ancestor != own:
            ancestor = parents[ancestor][0]
        peak += memory if ancestor == own else 0
    return peak


def report(package: str, seconds: list[float], **more: Any) -> None:
    """One line of JSON: the last that a measured process prints."""
    made = {"seconds": min(seconds), "iterations": len(seconds), "peak": peak_memory(), "version": version(package)}
    print(json.dumps(made | more), flush=True)
