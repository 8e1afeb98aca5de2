"""Peers: each library in an environment of its own, made when first needed, and run as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import gramian as gm
from page import HERE

HOME = HERE / ".peers"
LONGEST = 1800  # seconds that one process may take
# Variables that make OpenBLAS use the code of another processor than this one.
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
BLAS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Peer:
    """A system to be measured.

    Attributes:
        label: What the tables call it.
        script: Its file in ``peers/``.
        packages: What pip installs for it; empty for what runs in this environment.
        flags: Arguments that choose a variant.
        how: How it was set, for the page.
    """

    label: str
    script: str
    packages: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    how: str = ""


def run(peer: Peer, folder: Path, *arguments: object) -> dict[str, Any]:
    """What the peer's script reports, or ``{"error": reason}``: a peer that fails is no end of the run."""
    try:
        python = _interpreter(peer)
        command = [python, HERE / "peers" / peer.script, folder, *arguments, *peer.flags]
        return _run([str(part) for part in command])
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {LONGEST} s"}
    except subprocess.CalledProcessError as failed:
        said = [line for line in (failed.stderr or "").splitlines() if line.strip()]
        print(f"{peer.label} failed:\n{failed.stderr}", file=sys.stderr, flush=True)
        return {"error": said[-1].strip()[:160] if said else f"ended with {failed.returncode}"}


def run_here(script: Path) -> dict[str, Any]:
    """What a script of ours reports, run in this environment as the peers are run in theirs."""
    return _run([sys.executable, str(script)], blas_threads=os.cpu_count() or 1)


def _run(command: list[str], blas_threads: int = 1) -> dict[str, Any]:
    """Rows are shared out to threads by the libraries, so BLAS gets one thread: two levels of threads fight."""
    clean = {name: value for name, value in os.environ.items() if name not in SLOWING}
    clean |= dict.fromkeys(BLAS, str(blas_threads))
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True, timeout=LONGEST)
    return json.loads(done.stdout.splitlines()[-1])


def _interpreter(peer: Peer) -> Path:
    """The python of the peer's environment, which is made and filled if it is not there."""
    if not peer.packages:
        return Path(sys.executable)
    home = HOME / peer.packages[0]
    python, done = home / "bin" / "python", home / "done"
    wanted = " ".join(peer.packages)
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {wanted} …", file=sys.stderr, flush=True)
        quiet = {"capture_output": True, "text": True, "check": True}
        subprocess.run([sys.executable, "-m", "venv", str(home)], **quiet)  # type: ignore[call-overload]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *peer.packages], **quiet)  # type: ignore[call-overload]
        done.write_text(wanted)
    return python


def write_columns(folder: Path, users: Any, items: Any, values: Any) -> None:
    """Codes from 0 and ratings, as arrays that every peer can load, and as Parquet for Spark."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pl.DataFrame({"user": users, "item": items, "rating": values})
    for column in table:
        np.save(folder / f"{column.name}.npy", column.to_numpy())
    table.write_parquet(folder / "ratings.parquet")


def write_ratings(folder: Path, ratings: gm.Ratings) -> None:
    """All ratings, ordered by user."""
    write_columns(folder, ratings.user_codes, ratings.item_codes, ratings.values)
