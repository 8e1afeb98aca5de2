"""Measure everything that benchmarks/README.md states, and write it there.

    python benchmarks/run.py                          # the bundled ratings
    python benchmarks/run.py --ml-100k FOLDER         # and MovieLens 100K with its folds u1 … u5

`make bench` does the first; `make bench ML100K=FOLDER` the second.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import gramian as gm
from accuracy import folds_of, measure, random_splits
from calibration import bundled_splits, table, u1_split
from epoch import epoch_times

PAGE = Path(__file__).parent / "README.md"


def machine() -> str:
    """One line about the processor and the versions that matter."""
    import numba

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        flags = re.search(r"flags\s*:\s*(.+)", info.read_text())
        model = (found[1] if found else model) + (", AVX-512" if flags and "avx512f" in flags[1] else "")
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}, "
        f"NumPy {np.__version__}, Numba {numba.__version__}, Gramian {gm.__version__}"
    )


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
    yield "| split | Baseline | ALS | ALS chosen on validation |"
    yield "|---|---|---|---|"
    rows = []
    for seed, (name, train, test) in enumerate(splits):
        errors, als = measure(name, train, test, seed)
        rows.append(errors)
        chosen = f"K={als.factors}, λ={als.regularization:g}, λ_b={als.bias_regularization:g}, {als.epochs} epochs"
        yield f"| {name} | {errors[0]:.4f} | {errors[1]:.4f} | {chosen} |"
    mean = np.mean(rows, axis=0)
    yield f"| **mean** | **{mean[0]:.4f}** | **{mean[1]:.4f}** | |"


def write_section(name: str, lines: Iterator[str]) -> None:
    """Replace what stands between the markers of a section of the page."""
    text = "\n".join(lines)
    print(f"\n{name}\n{text}", flush=True)
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    page = PAGE.read_text()
    before, rest = page.split(begin)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ml-100k", type=Path, help="a MovieLens 100K folder")
    folder = parser.parse_args().ml_100k
    bundled = gm.load_dataset("movielens-small")
    sets = {"movielens-small (bundled)": bundled}
    if folder:
        sets["movielens-100k"] = gm.load_dataset("movielens-100k", path=folder)
    write_section("machine", iter([machine()]))
    write_section("epoch", epoch_table(sets))
    sure = [gm.Baseline(), gm.ALS()]
    write_section("calibration bundled", table(sure, bundled_splits()))
    write_section("accuracy bundled", accuracy_table(random_splits(bundled)))
    if folder:
        write_section("calibration u1", table(sure, u1_split(folder)))
        write_section("accuracy folds", accuracy_table(folds_of(folder)))
