"""What this machine is and can do: its name, a large matrix product, and a copy of much memory.

python benchmarks/machine.py        # prints one line of JSON
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

THREADS = 2


def description() -> str:
    """One line about the processor and the versions that matter."""
    import numba

    import gramian as gm

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


def least_seconds(run: Callable[[], object], runs: int = 5) -> float:
    """The shortest of several runs."""
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def sgemm_speed(threads: int = THREADS, size: int = 3072) -> float:
    """GFLOP/s of a square single-precision matrix product."""
    from threadpoolctl import threadpool_limits

    a, b = np.random.default_rng(0).random((2, size, size), np.float32)
    with threadpool_limits(threads):
        return 2 * size**3 / least_seconds(lambda: a @ b) / 1e9


def copy_speed(threads: int = THREADS, megabytes: int = 512) -> float:
    """GB/s, read and written, of a copy far larger than the caches, each thread copying its share."""
    source = np.ones((threads, megabytes * 250_000 // threads), np.float32)
    target = np.empty_like(source)

    def copy() -> None:
        list(pool.map(np.copyto, target, source))

    with ThreadPoolExecutor(threads) as pool:
        return 2 * source.nbytes / least_seconds(copy) / 1e9


def blas_kernel() -> str:
    """Which BLAS NumPy multiplies with, and for which processor it is written."""
    from threadpoolctl import threadpool_info

    libraries = [f"{lib['internal_api']} {lib.get('architecture', '')}" for lib in threadpool_info()]
    return ", ".join(sorted({name.strip() for name in libraries if name.startswith(("openblas", "mkl"))}))


if __name__ == "__main__":
    print(json.dumps({"sgemm": sgemm_speed(), "copy": copy_speed(), "blas": blas_kernel()}))
