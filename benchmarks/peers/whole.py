"""A whole fit and its predictions, in every environment measured alike: seconds, memory, and the predictions kept."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Columns, load_parts, report

FEW = 2000  # ratings of the fit before the measured one, so that nothing is compiled or started within that


def arguments() -> argparse.Namespace:
    """The folder with the parts ``train`` and ``test``, the model, and the sampler's K, burn-in and kept sweeps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("factors", "burn_in", "draws"):
        parser.add_argument(name, type=int)
    parser.add_argument("--model", default="", help="which of the library's")
    return parser.parse_args()


def measure(
    package: str, folder: Path, fit: Callable[[Columns], Any], predict: Callable[[Any, Columns], Any],
    *, by_pair: bool = True,
) -> None:  # fmt: skip
    """Fit, predict the test ratings into ``predicted.npy``, and report.

    ``by_pair`` says whether predicting happens in ``predict``, and not in the course of the fit.
    """
    train, test, _ = load_parts(folder)
    few = train[0] <= train[0][min(FEW, len(train[0])) - 1]  # whole users, as the ratings are ordered
    predict(fit(_part(train, few)), test)
    before = _restart_peak()
    began = time.perf_counter()
    model = fit(train)
    seconds = time.perf_counter() - began
    added = None if before is None else max(0, _memory("VmHWM") - before)
    began = time.perf_counter()
    predicted = np.asarray(predict(model, test), float)
    per_pair = (time.perf_counter() - began) / len(predicted) if by_pair else None
    np.save(folder / "predicted.npy", predicted)
    report(package, [seconds], added=added, predict_us=None if per_pair is None else 1e6 * per_pair)


def _part(columns: Columns, rows: Any) -> Columns:
    users, items, values = (column[rows] for column in columns)
    return users, items, values


def _restart_peak() -> int | None:
    """Count the peak of memory anew; the memory now, or None where the system does not tell.

    What the fit before has freed is handed back first: reusing it would hide what the measured fit takes.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _memory("VmRSS")
    except OSError:
        return None


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
