"""The data doctor: what looks wrong in a table of ratings, with how often, an example, and what to do."""

from __future__ import annotations

import os
import time as clock
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.data.columns import Frame, Names
from gramian.data.ratings import Ratings
from gramian.data.raw import RawRows, finite, open_raw

__all__ = ["Finding", "check_ratings"]

Severity = Literal["error", "warning", "note"]
Floats = npt.NDArray[np.float64]

RARE = 1e-3  # a value that fewer rows than this have is rare
ENOUGH = 5  # ratings of a user, before "always the same" says something
STEPS = (1.0, 0.5, 0.25, 0.2, 0.1, 0.05, 0.01)  # of usual scales
LARGEST_GRID = 101  # values
EARLIEST = 631_152_000  # 1990-01-01
DAY = 86_400
UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong.

    Attributes:
        check: What was looked at, in a few words: ``"exact duplicates"``.
        severity: ``"error"``: the table is refused, or results would be false; ``"warning"``: probably a
            mistake, and models are fitted to it all the same; ``"note"``: normal, and good to know.
        count: How many rows, ids or users.
        example: One of them, with its line or row.
        advice: What to do.
    """

    check: str
    severity: Severity
    count: int
    example: str
    advice: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.check} ({self.count:,}): {self.example}; {self.advice}."


def check_ratings(
    source: str | os.PathLike[str] | Frame,
    *,
    against: str | os.PathLike[str] | Frame | None = None,
    user: str | int | None = None,
    item: str | int | None = None,
    rating: str | int | None = None,
    time: str | int | None = None,
    separator: str | None = None,
    header: bool | None = None,
) -> list[Finding]:
    """Look through a table of ratings for what is wrong or odd in it.

    Bad rows become findings, not exceptions, so that one look shows them all.

    Args:
        source: A file (as for :func:`gramian.read_ratings`), any dataframe, or :class:`gramian.Ratings`.
        against: A second table of the same form; ``source`` is then held to be the test set of the training set
            ``against``, and pairs that stand in both are found.
        user, item, rating, time: Column names or positions, where they are not the usual ones; of both tables.
        separator, header: Of a text file, as for :func:`gramian.read_ratings`; of both tables.

    Returns:
        The findings, errors first, then warnings, then notes; of a clean table none, or notes only.

    Raises:
        DataError: There is no table to look at: a missing or empty file, a missing column, no rows.
    """
    names: Names = {"user": user, "item": item, "rating": rating, "time": time}
    rows = open_raw(source, names, separator, header)
    findings = [*_ids(rows), *_ratings(rows), *_duplicates(rows), *_behaviour(rows), *_times(rows)]
    if isinstance(source, Ratings) and source.duplicates:
        text = "they were settled when the ratings were read"
        findings.append(Finding("repeated pairs", "note", source.duplicates, text, "see duplicates=… of the reader"))
    if against is not None:
        findings += _leakage(rows, open_raw(against, names, separator, header))
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


# ---- ids ------------------------------------------------------------------------------------------------


def _ids(rows: RawRows) -> Iterator[Finding]:
    for role in ("user", "item"):
        table = rows.table.select("row", pl.col(role).alias("id"), pl.col(f"{role}_kind").alias("kind"))
        missing = table.filter(pl.col("id").is_null())
        if missing.height:
            example = f"{rows.word} {missing['row'][0]} has none"
            yield Finding(f"missing {role} ids", "error", missing.height, example, "fill them in, or drop the rows")
        known = table.filter(pl.col("id").is_not_null())
        yield from _kinds(known, role, rows.word)
        yield from _look_alikes(known, role)


def _kinds(known: pl.DataFrame, role: str, word: str) -> Iterator[Finding]:
    """Ids that are neither integers nor text, and both kinds in one column."""
    odd = known.filter(~pl.col("kind").is_in(["integer", "text"]))
    if odd.height:
        example = f"{word} {odd['row'][0]} has {odd['id'][0]} ({odd['kind'][0]})"
        yield Finding(f"{role} ids that are neither integers nor text", "error", odd.height, example, "convert them")
    kinds = known.filter(pl.col("kind").is_in(["integer", "text"])).group_by("kind").agg(pl.len(), pl.first("id"))
    if kinds.height == 2:
        few, many = kinds.sort("len", "kind").iter_rows(named=True)
        shown = [f"{one['kind']} such as {_shown(one['id'], one['kind'])}" for one in (few, many)]
        example = " among ".join(shown)
        yield Finding(f"{role} ids of two kinds", "error", few["len"], example, "make them all integers or all text")


def _look_alikes(known: pl.DataFrame, role: str) -> Iterator[Finding]:
    """Ids that are one and the same but for type, white space, case or leading zeros."""
    if not (known["kind"] == "text").any():
        return
    different = known.select(pl.col("id", "kind").cast(pl.String)).unique().sort("id", "kind")
    key = pl.col("id").str.strip_chars().str.to_lowercase().str.replace(r"^0*(\d+?)(?:\.0+)?$", "$1").alias("key")
    groups = different.group_by(key).agg("id", "kind").filter(pl.col("id").list.len() > 1).sort("key")
    if groups.height:
        shown = " and ".join(map(_shown, groups["id"][0], groups["kind"][0]))
        advice = "if they mean the same, write them alike; they count as different now"
        yield Finding(f"{role} ids that look alike", "warning", groups.height, shown, advice)


def _shown(value: str | int, kind: str) -> str:
    return repr(value) if kind == "text" else str(value)


# ---- values ---------------------------------------------------------------------------------------------


def _ratings(rows: RawRows) -> Iterator[Finding]:
    bad = rows.table.filter(~finite("rating")).with_columns(pl.col("raw_rating").cast(pl.String))
    blank = (pl.col("raw_rating").str.strip_chars() == "").fill_null(value=True)
    empty = blank | pl.col("rating").is_nan().fill_null(value=False)
    for check, found in (
        ("missing ratings", bad.filter(empty)),
        ("ratings that are no finite numbers", bad.filter(~empty)),
    ):
        if found.height:
            example = _raw_example(found["row"][0], found["raw_rating"][0], rows.word)
            yield Finding(check, "error", found.height, example, "correct them, or drop the rows")
    good = rows.table.filter(finite("rating"))
    if good.height:
        yield from _scale(good, rows.word)


def _raw_example(row: int, raw: object, word: str) -> str:
    return f"{word} {row} has {'nothing' if raw in (None, '') else repr(raw)}"


def _scale(good: pl.DataFrame, word: str) -> Iterator[Finding]:
    """Values off the grid that nearly all others lie on, and values off the scale that nearly all others span."""
    values, counts = np.unique(good["rating"].to_numpy(), return_counts=True)
    step, anchor = _grid(values, counts), float(values[counts.argmax()])
    on_grid = _on_grid(values, step, anchor) if step else np.ones(len(values), bool)
    low, high = _ends(values[on_grid], counts[on_grid], step)
    scale = f"{low:g} to {high:g}" + (f" in steps of {step:g}" if step else "")
    inside = (values >= low) & (values <= high)
    near = on_grid & ~inside & (np.abs(values - np.clip(values, low, high)) < 1.5 * step)
    advice = "correct or drop them, or bring them to the scale"
    groups: tuple[tuple[str, Severity, npt.NDArray[np.bool_], str], ...] = (
        ("ratings off the grid", "warning", inside & ~on_grid, advice),
        ("ratings off the scale", "warning", ~inside & ~near, advice),
        ("rare ratings at the end of the scale", "note", near, "if they mark a missing rating, drop them"),
    )
    for check, severity, chosen, advice in groups:
        if chosen.any():
            row, value = good.filter(pl.col("rating").is_in(values[chosen].tolist())).select("row", "rating").row(0)
            example = f"{word} {row} has {value:g} where the others are {scale}"
            yield Finding(check, severity, int(counts[chosen].sum()), example, advice)


def _grid(values: Floats, counts: npt.NDArray[np.int64]) -> float:
    """The widest step whose grid holds nearly all rows (99.5 %, or all but one of 20 or more); 0 where none does.

    Tried are the usual steps and the gaps between the values that are not rare.
    """
    n = int(counts.sum())
    allowed = max(n // 200, 1 if n >= 20 else 0)
    common = values[counts >= RARE * n]
    if len(values) < 3 or not 2 <= len(common) <= LARGEST_GRID:
        return 0.0
    gaps = np.unique(np.round(np.diff(common), 6))
    anchor = float(values[counts.argmax()])
    for step in sorted({*STEPS, *gaps[gaps > 0].tolist()}, reverse=True):
        on = _on_grid(values, step, anchor)
        if counts[~on].sum() <= allowed and on.sum() >= 3:
            return float(step)
    return 0.0


def _on_grid(values: Floats, step: float, anchor: float) -> npt.NDArray[np.bool_]:
    places = (values - anchor) / step
    near: npt.NDArray[np.bool_] = np.abs(places - np.round(places)) < 1e-4
    return near


def _ends(values: Floats, counts: npt.NDArray[np.int64], step: float) -> tuple[float, float]:
    """The ends of the scale: without rare values on a grid, and without the few that lie farther off than it is wide.

    Where there is no grid, from the middle 99 % of the rows, widened by their own width on both sides.
    """
    if not step:
        low, high = np.quantile(np.repeat(values, counts), (0.005, 0.995), method="nearest")
        wide = 2 * (high - low) if high > low else np.inf
        outside = (values < low - wide / 2) | (values > high + wide / 2)
        return float(values[~outside].min()), float(values[~outside].max())
    n = counts.sum()
    common = counts >= RARE * n
    kept, weights = values[common], counts[common]
    while len(kept) > 3:
        gaps = np.diff(kept)
        cut = int(gaps.argmax()) + 1
        most = slice(cut) if 2 * weights[:cut].sum() > weights.sum() else slice(cut, None)
        rest, share = kept[most], weights[most].sum() / weights.sum()
        if len(rest) < 3 or share < 0.95 or gaps.max() <= rest[-1] - rest[0]:
            break
        kept, weights = rest, weights[most]
    return float(kept[0]), float(kept[-1])


# ---- pairs and people -----------------------------------------------------------------------------------


def _duplicates(rows: RawRows) -> Iterator[Finding]:
    pair, same = ["user", "item"], ["user", "item", "rating", *(["time"] if rows.timed else [])]
    repeated = rows.usable()
    repeated = repeated.filter(pl.struct(pair).is_duplicated())
    whole = repeated.filter(pl.struct(same).is_duplicated())
    excess = whole.height - _distinct(whole, same)
    if excess:
        example = _in_words(whole, same, rows.word)
        yield Finding("exact duplicates", "warning", excess, example, "drop them; the readers keep one of each")
    several = pl.col("rating").n_unique().over(pair) > 1
    conflicts = repeated.filter(several).unique([*pair, "rating"], keep="first", maintain_order=True)
    if conflicts.height:
        example = _in_words(conflicts, pair, rows.word)
        advice = "the readers keep the last; choose duplicates='mean' or 'raise' for another answer"
        yield Finding("conflicting duplicates", "warning", _distinct(conflicts, pair), example, advice)
    later = repeated.filter(~several).unique(same, keep="first", maintain_order=True)
    later = later.filter(pl.struct(pair).is_duplicated())
    if later.height:
        example = _in_words(later, pair, rows.word)
        advice = "nothing: the readers keep the last"
        count = later.height - _distinct(later, pair)
        yield Finding("ratings given again at another time", "note", count, example, advice)


def _distinct(table: pl.DataFrame, columns: list[str]) -> int:
    return table.select(columns).unique().height


def _in_words(table: pl.DataFrame, same: list[str], word: str) -> str:
    """The first two rows of a table that have the ``same`` columns alike."""
    first = table.row(0, named=True)
    group = table.filter(pl.all_horizontal(pl.col(c).eq_missing(pl.lit(first[c])) for c in same)).head(2)
    values = " and ".join(f"{value:g}" for value in group["rating"].unique(maintain_order=True))
    places = " and ".join(map(str, group["row"]))
    return f"user {first['user']} rated item {first['item']} {values} in {word}s {places}"


def _behaviour(rows: RawRows) -> Iterator[Finding]:
    usable = rows.usable()
    if usable.height == 0:
        return
    one_value = usable.height >= ENOUGH and usable["rating"].n_unique() == 1
    if one_value:
        example = f"every one is {usable['rating'][0]:g}"
        advice = "there is nothing to learn from them as ratings; are they counts of something?"
        yield Finding("ratings that are all the same", "warning", usable.height, example, advice)
    users = usable.group_by("user", maintain_order=True).agg(pl.len(), pl.max("rating"), low=pl.min("rating"))
    constant = users.filter((pl.col("len") >= ENOUGH) & (pl.col("rating") == pl.col("low")))
    if constant.height and not one_value:
        user, count, value, _ = constant.row(0)
        example = f"user {user} gave {value:g} to all of {count} items"
        advice = "they say little about taste; drop them if they are not people"
        yield Finding("users with one value for everything", "warning", constant.height, example, advice)
    for role in ("user", "item"):
        single = usable.group_by(role, maintain_order=True).len().filter(pl.col("len") == 1)
        if single.height:
            advice = "predictions for them lean on the means"
            example = f"{role} {single[role][0]}"
            yield Finding(f"{role}s with one rating only", "note", single.height, example, advice)


# ---- times ----------------------------------------------------------------------------------------------


def _times(rows: RawRows) -> Iterator[Finding]:
    if not rows.timed:
        return
    bad = rows.table.filter(~finite("time"))
    if bad.height:
        example = _raw_example(bad["row"][0], bad["raw_time"][0], rows.word)
        advice = "correct them, drop the rows, or leave the column out"
        yield Finding("times that are missing or cannot be read", "error", bad.height, example, advice)
    good = rows.table.filter(finite("time"))
    if good.height:
        yield from _dates(good, rows.word)


def _dates(good: pl.DataFrame, word: str) -> Iterator[Finding]:
    """Times in another unit than most, in the future, or before anybody rated anything on a computer."""
    now = clock.time()
    moments = good["time"].to_numpy()
    units = np.full(len(moments), -1)
    for place, size in enumerate(UNITS.values()):
        units[(moments >= EARLIEST * size) & (moments <= (now + 3650 * DAY) * size)] = place
    counts = np.bincount(units + 1, minlength=len(UNITS) + 1)
    usual = int(counts[1:].argmax())
    if counts[0] == len(moments) or counts[0] > counts[1 + usual]:
        example = f"{word} {good['row'][0]} has {moments[0]:.15g}"
        yield Finding("times that are no dates", "note", int(counts[0]), example, "they are taken as an order only")
        return
    unit, size = list(UNITS.items())[usual]
    others = (units >= 0) & (units != usual)
    seconds = moments / size
    for check, chosen, advice in (
        ("times in mixed units", others, f"bring them to {unit}, the unit of the others"),
        ("times in the future", ~others & (seconds > now + DAY), "correct them; a split by time would test on them"),
        ("times before 1990", ~others & (seconds < EARLIEST), "correct them; a 0 often marks a missing time"),
    ):
        if chosen.any():
            place = int(chosen.argmax())
            example = f"{word} {good['row'][place]} has {moments[place]:.20g} where most are {unit}"
            yield Finding(check, "warning", int(chosen.sum()), example, advice)


# ---- two tables -----------------------------------------------------------------------------------------


def _leakage(test: RawRows, train: RawRows) -> Iterator[Finding]:
    rated, known = test.usable(), train.usable()
    for role in ("user", "item"):
        ours, theirs = (set(part[f"{role}_kind"].cast(pl.String).unique()) for part in (rated, known))
        if ours and theirs and not ours & theirs:
            example = f"{' and '.join(sorted(ours))} here, {' and '.join(sorted(theirs))} there"
            advice = "convert one side: a model takes them for different ids"
            yield Finding(f"{role} ids of another kind in the other table", "error", rated.height, example, advice)
        if rated[role].dtype != known[role].dtype:
            rated, known = (part.with_columns(pl.col(role).cast(pl.String)) for part in (rated, known))
    both = rated.join(known, on=["user", "item"], how="semi", maintain_order="left")
    if both.height:
        row, user, item = both.select("row", "user", "item").row(0)
        example = f"user {user} and item {item} in {test.word} {row}"
        advice = "take them out of one side: a model has seen what it is tested on"
        yield Finding("pairs in both tables", "error", both.height, example, advice)
    if not (test.timed and train.timed and known.height):
        return
    latest = float(known["time"].max() or 0)  # type: ignore[arg-type]
    early = rated.filter(pl.col("time") < latest)
    if early.height:
        example = f"{test.word} {early['row'][0]} has {early['time'][0]:.15g}, the other table goes on to {latest:.15g}"
        advice = "normal for a random split; to measure forecasts, use split_by_time"
        yield Finding("tested before the training ends", "note", early.height, example, advice)
