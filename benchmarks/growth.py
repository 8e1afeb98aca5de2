"""How time grows with the number of ratings and with K, and how much memory a fit takes.

    python benchmarks/growth.py [--quick]

Each fit is a process of its own that reads the ratings from files. Sets grow like real ones: 125 ratings per user,
five users per item, however many ratings there are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gramian as gm
from environments import Peer, run, write_ratings
from page import HERE, options, write_section

FITS = {solver: Peer(solver, "gramian_fit.py", flags=flags) for solver, flags in
        (("exact", ()), ("cg", ("--cg",)), ("block", ("--block",)))}  # fmt: skip
SIZES = (100_000, 1_000_000, 10_000_000, 100_000_000)
FACTORS = (8, 16, 32, 64, 128, 256, 512)
APPROXIMATE = 128  # from this K on the other solvers are measured too
FIXED_K, FIXED_SIZE = 32, 1_000_000
GIB = 2**30
Results = dict[Any, dict[str, Any]]


def ratings_of(size: int) -> gm.Ratings:
    """A skewed set of this many ratings."""
    users = size // 125
    return gm.synthetic_ratings(n_users=users, n_items=users // 5, n_ratings=size, seed=0, times=False).ratings


def by_size(folder: Path, sizes: tuple[int, ...]) -> Results:
    """A fit of each number of ratings."""
    made: Results = {}
    for size in sizes:
        write_ratings(folder, ratings_of(size))
        made[size] = run(FITS["exact"], folder, FIXED_K)
        print(f"{size} ratings: {made[size]}", flush=True)
    return made


def by_factors(folder: Path, factors: tuple[int, ...]) -> Results:
    """A fit of each K with each solver."""
    made: Results = {}
    write_ratings(folder, ratings_of(FIXED_SIZE))
    for K in factors:
        for solver, peer in FITS.items():
            if solver == "exact" or K >= APPROXIMATE:
                made[K, solver] = run(peer, folder, K)
                print(f"K={K} {solver}: {made[K, solver]}", flush=True)
    return made


def size_table(made: Results) -> Iterator[str]:
    """Seconds per epoch and memory for each number of ratings."""
    yield (
        "| ratings | seconds per epoch | nanoseconds per rating | peak while reading, GiB | "
        "peak of the fit, GiB | bytes per further rating |"
    )
    yield "|---|---|---|---|---|---|"
    before = (0, 0)
    for size, result in made.items():
        seconds, peak = result["seconds"], result["peak"]
        more = f"{(peak - before[1]) / (size - before[0]):.0f}" if before[0] else "–"
        yield (
            f"| {size:,} | {seconds:.4g} | {seconds / size * 1e9:.0f} | {result['reading'] / GIB:.2f} | "
            f"{peak / GIB:.2f} | {more} |"
        )
        before = (size, peak)


def factors_table(made: Results) -> Iterator[str]:
    """Seconds per epoch for each K and solver."""
    yield f"| K | {' | '.join(FITS)} |"
    yield "|---" * (1 + len(FITS)) + "|"
    for K in sorted({K for K, _ in made}):
        cells = [f"{made[K, solver]['seconds']:.3g}" if (K, solver) in made else "–" for solver in FITS]
        yield f"| {K} | {' | '.join(cells)} |"


def draw(sizes: Results, factors: Results, path: Path) -> None:
    """Both growths on logarithmic axes."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    counts = list(sizes)
    seconds = [sizes[size]["seconds"] for size in counts]
    left.loglog(counts, seconds, "o-", label=f"ALS, K = {FIXED_K}")
    left.loglog(counts, [seconds[-1] * size / counts[-1] for size in counts], "--", color="gray", label="linear")
    left.set(xlabel="ratings", ylabel="seconds per epoch")
    for solver in FITS:
        ks = [K for K, name in factors if name == solver]
        right.loglog(ks, [factors[K, solver]["seconds"] for K in ks], "o-", label=solver, base=2)
    right.set(xlabel=f"K, at {FIXED_SIZE:,} ratings", ylabel="seconds per epoch", yscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    quick = options(__doc__).parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        grown = by_size(Path(name), SIZES[:2] if quick else SIZES)
        wide = by_factors(Path(name), (8, 16, 128) if quick else FACTORS)
        draw(grown, wide, Path(name) / "growth.png" if quick else HERE / "growth.png")
    write_section("growth ratings", size_table(grown), quick=quick)
    write_section("growth factors", factors_table(wide), quick=quick)
