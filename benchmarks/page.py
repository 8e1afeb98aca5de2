"""The page of results, and what the measuring commands share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import gramian as gm

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
# Folders with copies of sets that do not come with the package: the option, and the name for `load_dataset`.
SETS = {"ml_100k": "movielens-100k", "goodbooks": "goodbooks", "movietweetings": "movietweetings"}


def write_section(name: str, lines: Iterable[str], *, quick: bool = False) -> None:
    """Replace what stands between the markers of a section of the page; only print it where ``quick``."""
    text = "\n".join(lines)
    print(f"\n{name}\n{text}", flush=True)
    if quick:
        return
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    before, rest = PAGE.read_text().split(begin)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def options(about: str | None) -> argparse.ArgumentParser:
    """The options that every command takes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything; nothing is written")
    for option, name in SETS.items():
        parser.add_argument(f"--{option.replace('_', '-')}", type=Path, help=f"a folder with a copy of {name}")
    return parser


def synthetic(quick: bool) -> gm.Ratings:
    """A set as large and as skewed as MovieLens 20M's training part; a tenth of it where ``quick``."""
    if quick:
        return gm.synthetic_ratings(n_users=40_000, n_items=8_000, n_ratings=1_740_000, seed=0, times=False).ratings
    return gm.synthetic_ratings(n_users=138_493, n_items=26_744, n_ratings=17_400_000, seed=0, times=False).ratings
