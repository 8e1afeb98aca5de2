"""The tables and the picture of ``records.py``, from the lines of its fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gramian.visuals.figures import MUTED, TRAIN

LEVEL = 0.9
NOISE = "noise of each user"
Lines = list[dict[str, Any]]


def read_lines(path: Path) -> Lines:
    """Every line of a file of results."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def complete(lines: Lines) -> Lines:
    """The lines of those splits and seeds that have every rung."""
    found: dict[tuple[str, str, int], Lines] = {}
    for line in lines:
        found.setdefault((line["set"], line["split"], line["seed"]), []).append(line)
    most = {name: len(rungs([line for line in lines if line["set"] == name])) for name in by_set(lines)}
    return [line for (name, *_), part in found.items() if len(part) == most[name] for line in part]


def by_set(lines: Lines) -> dict[str, Lines]:
    """The lines of each set."""
    return {name: [line for line in lines if line["set"] == name] for name in dict.fromkeys(x["set"] for x in lines)}


def rungs(lines: Lines) -> dict[str, Lines]:
    """The lines of each rung, in the order of the ladder."""
    names = dict.fromkeys(line["rung"] for line in lines)
    return {name: [line for line in lines if line["rung"] == name] for name in names}


def by_split(lines: Lines, key: str) -> Any:
    """The mean over the seeds in each split, (splits,)."""
    table = pl.DataFrame({name: [line[name] for line in lines] for name in ("split", key)})
    return table.group_by("split").agg(pl.col(key).mean()).sort("split")[key].to_numpy()


def mean_and_error(values: Any) -> tuple[float, float]:
    """The mean, and its standard error (NaN of one)."""
    values = np.asarray(values, float)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def said(values: Any, form: str = ".4f") -> str:
    """The mean with its standard error, where it has one."""
    mean, error = mean_and_error(values)
    return format(mean, form) + ("" if np.isnan(error) else f" ± {error:.4f}")


# ---- tables ----------------------------------------------------------------------------------------


def ladder(lines: Lines) -> Iterator[str]:
    """One row per rung: RMSE over the splits, the step from the rung before, intervals and probabilities."""
    yield "| what is known | RMSE | step | 90 % intervals hold | their width | log loss | RPS |"
    yield "|---|---|---|---|---|---|---|"
    before = None
    for rung, own in rungs(lines).items():
        errors = by_split(own, "rmse")
        step = "" if before is None else said(errors - before, "+.4f")
        hold, width, loss, rps = (by_split(own, key).mean() for key in ("coverage", "width", "log_loss", "rps"))
        yield (
            f"| {'' if before is None else '+ '}{rung} | {said(errors)} | {step} | {hold:.1%} | {width:.2f} | "
            f"{loss:.4f} | {rps:.4f} |"
        )
        before = errors


def each_split(lines: Lines, key: str) -> Iterator[str]:
    """Every split by itself: the mean over the seeds and its standard error."""
    splits = sorted({line["split"] for line in lines})
    yield f"| what is known | {' | '.join(splits)} |"
    yield "|---|" + "---|" * len(splits)
    for place, (rung, own) in enumerate(rungs(lines).items()):
        cells = [said([line[key] for line in own if line["split"] == split]) for split in splits]
        yield f"| {'+ ' if place else ''}{rung} | {' | '.join(cells)} |"


def groups(lines: Lines) -> Iterator[str]:
    """What 90 % intervals hold within fifths of the test ratings, without and with the noise of each user."""
    yield "| set | ordered by the user's | noise | least | | | | most | away from 90 % |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, mine in by_set(lines).items():
        own = rungs(mine)
        before = list(own)[list(own).index(NOISE) - 1]
        for key, words in (("by_noise", "spread"), ("by_count", "number of ratings")):
            for rung, kind in ((before, "one for all"), (NOISE, "of each user")):
                held = np.mean([line[key] for line in own[rung]], axis=0)
                cells = " | ".join(f"{value:.1%}" for value in held)
                yield f"| {name} | {words} | {kind} | {cells} | {np.abs(held - LEVEL).mean():.1%} |"


def page(lines: Lines) -> Iterator[str]:
    """Every table."""
    for name, mine in by_set(lines).items():
        splits, seeds = ({line[key] for line in mine} for key in ("split", "seed"))
        fits = f"{len(splits)} split{'s' * (len(splits) > 1)}, {len(seeds)} seed{'s' * (len(seeds) > 1)}"
        yield f"\n**{name}**: {fits}, K = {mine[0]['factors']}, {mine[0]['draws']} sweeps.\n"
        yield from ladder(mine)
        if len(seeds) > 1:
            for key, words in (("rmse", "RMSE"), ("log_loss", "Log loss")):
                yield f"\n{words} on each split:\n"
                yield from each_split(mine, key)
    yield f"\nShare of test ratings within {LEVEL:.0%} intervals, by fifths of them:\n"
    yield from groups(lines)


# ---- the picture -----------------------------------------------------------------------------------


def picture(lines: Lines, path: Path) -> None:
    """The ladder of every set: the RMSE of each rung, mean over the splits."""
    from matplotlib import pyplot as plt

    sets = by_set(lines)
    figure, panels = plt.subplots(1, len(sets), figsize=(4.2 * len(sets), 3.0), squeeze=False, layout="constrained")
    for axes, (name, mine) in zip(panels[0], sets.items(), strict=True):
        own = rungs(mine)
        means = [by_split(part, "rmse").mean() for part in own.values()]
        axes.plot(means, range(len(own)), color=MUTED, linewidth=1.2, zorder=1)
        axes.scatter(means, range(len(own)), color=TRAIN, s=34, zorder=2)
        for place, mean in enumerate(means):
            axes.annotate(f"{mean:.4f}", (mean, place), xytext=(8, 0), textcoords="offset points", va="center",
                          fontsize=9, color=TRAIN)  # fmt: skip
        axes.set_yticks(range(len(own)), [("+ " if place else "") + rung for place, rung in enumerate(own)])
        axes.invert_yaxis()
        axes.margins(x=0.3, y=0.12)
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_xlabel("RMSE on the test ratings")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    figure.savefig(path, dpi=110)
    plt.close(figure)
