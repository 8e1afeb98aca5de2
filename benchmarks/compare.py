"""Gramian and its peers on one set of synthetic ratings: seconds per iteration, share of sgemm, memory.

    python benchmarks/compare.py [--quick] [--peers implicit,lenskit]

Every measurement is a process of its own with two threads, and Gramian is measured again after every peer, so that
a drift of the machine shows. The ratings and the environments of the peers are made when they are needed.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gramian as gm
from environments import Peer, run, run_here, write_ratings
from page import HERE, options, synthetic, write_section
from speed import operations

FACTORS = (16, 32, 64, 128)
GRAMIAN = Peer("Gramian", "gramian_als.py")
CG = ("--cg",)
PEERS = [
    Peer("implicit, exact", "implicit_als.py", ("implicit", "threadpoolctl"), how="`use_cg=False`, `num_threads=2`"),
    Peer("implicit, CG", "implicit_als.py", ("implicit", "threadpoolctl"), CG, "`use_cg=True`: three steps"),
    Peer("LensKit", "lenskit_als.py", ("lenskit",), how="`BiasedMFScorer`, exact, two threads of its own pool"),
    Peer("cmfrec, exact", "cmfrec_als.py", ("cmfrec", "threadpoolctl"), how="`use_cg=False`, `use_float=True`"),
    Peer("cmfrec, CG", "cmfrec_als.py", ("cmfrec", "threadpoolctl"), CG, "`use_cg=True`: three steps"),
    Peer("Spark MLlib", "spark_als.py", ("pyspark", "numpy"), how="`local[2]`, exact, 10 blocks, 10 GB of heap"),
]


@dataclass
class Results:
    """What was measured at one K: Gramian before and after every peer, the peers, and sgemm's speed."""

    gramian: list[dict[str, Any]] = field(default_factory=list)
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)
    sgemm: list[float] = field(default_factory=list)


def measure(folder: Path, factors: int, peers: list[Peer]) -> Results:
    """All systems in turn."""
    made = Results()
    for peer in [None, *peers]:
        if peer is not None:
            made.peers[peer.label] = run(peer, folder, factors)
            print(f"K={factors} {peer.label}: {made.peers[peer.label]}", flush=True)
        made.gramian.append(run(GRAMIAN, folder, factors, *([] if made.gramian else ["--epoch"])))
        print(f"K={factors} Gramian: {made.gramian[-1]}", flush=True)
    made.sgemm.append(run_here(HERE / "machine.py")["sgemm"])
    return made


def rows(ratings: gm.Ratings, factors: int, made: Results) -> Iterator[str]:
    """The rows of one K: the ratio is to the Gramian measured just before and just after."""
    work, limit = operations(ratings, factors) / 1e9, max(made.sgemm)

    def row(name: str, seconds: float, peak: float, *, exact: bool = True, ratio: str = "1") -> str:
        speed = f"{work / seconds:.1f} | {work / seconds / limit:.1%}" if exact else "– | –"
        return f"| {factors} | {name} | {seconds:.3g} | {speed} | {ratio} | {peak / 2**30:.2f} |"

    own = [result["seconds"] for result in made.gramian]
    peak = max(result["peak"] for result in made.gramian)
    yield row(f"**Gramian**, exact ({min(own):.3g} to {max(own):.3g})", statistics.median(own), peak)
    whole = made.gramian[0]["epoch"]
    yield row(
        "Gramian, whole epoch with biases and objective", whole, peak, ratio=f"{whole / statistics.median(own):.2f}"
    )
    for place, (label, result) in enumerate(made.peers.items()):
        if "error" in result:
            yield f"| {factors} | {label} | failed: {result['error']} | – | – | – | – |"
            continue
        ratio = f"**{result['seconds'] / statistics.mean(own[place : place + 2]):.1f}**"
        name = f"{label} ({result['version']})"
        yield row(name, result["seconds"], result["peak"], exact="CG" not in label, ratio=ratio)


def table(ratings: gm.Ratings, peers: list[Peer], factors: tuple[int, ...]) -> Iterator[str]:
    """The whole table, and what the machine does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ratings(folder, ratings)
        before = run_here(HERE / "machine.py")
        all_made = {K: measure(folder, K, peers) for K in factors}
    speeds = [before["sgemm"], *(made.sgemm[-1] for made in all_made.values())]
    yield (
        f"Two-thread sgemm {min(speeds):.0f} to {max(speeds):.0f} GFLOP/s ({before['blas']}); "
        f"memory {before['copy']:.0f} GB/s copied; {ratings!r}.\n"
    )
    yield "| K | system | seconds per iteration | GFLOP/s | share of sgemm | times Gramian's | peak memory, GiB |"
    yield "|---|---|---|---|---|---|---|"
    for K, made in all_made.items():
        made.sgemm.extend(speeds)
        yield from rows(ratings, K, made)


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--peers", help="only those whose name begins so, separated by commas; nothing is written")
    asked = parser.parse_args()
    chosen = [peer for peer in PEERS if not asked.peers or peer.label.lower().startswith(tuple(asked.peers.split(",")))]
    quick = asked.quick or bool(asked.peers)
    made_ratings = synthetic(asked.quick)
    write_section("peers", table(made_ratings, chosen, (16, 32) if asked.quick else FACTORS), quick=quick)
    write_section("peers set", [f"- {peer.label}: {peer.how}" for peer in PEERS], quick=quick)
