"""Every picture, drawn from plain data. Each returns its matplotlib figure and, given a path, writes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gramian.core.file_format import written_whole
from gramian.core.history import History
from gramian.core.plain import Plain
from gramian.errors import DataError, ParameterError
from gramian.kernels.arrays import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

__all__ = [
    "calibration_figures",
    "calibration_panels",
    "error_by_group",
    "error_by_seconds",
    "interval_bars",
    "item_map",
    "learning_curve",
    "learning_curves",
    "rating_figures",
    "traces",
]

# One for each model of a comparison; told apart by more than hue.
COLORS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#7f7f7f", "#bcbd22",
    "#0b3c5d", "#f4a582", "#006d2c", "#7b0041", "#c5b0d5", "#000000",
)  # fmt: skip

TRAIN, VALIDATION, MUTED = "#2563a8", "#c2571a", "#9aa5b1"
# Places for a label beside its point, the nearest first.
AROUND = tuple((x, y) for y in (4, -12, 16, -24, 28, -36, 40, -48, 52, -60) for x in (7, -7))
SMALL = (4.8, 2.9)  # inches: one of several beside each other


def learning_curve(
    history: History,
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    validation_label: str = "validation",
) -> Figure:
    """Train and, where there was one, validation RMSE against the epoch.

    Raises:
        DataError: The history has no epochs.
    """
    if len(history) == 0:
        raise DataError("There is nothing to draw: the history has no epochs.")
    figure, axes = _figure(6.4, 4.0)
    epochs = history.column("epoch")
    for key, word, color in (("train_rmse", "train", TRAIN), ("validation_rmse", validation_label, VALIDATION)):
        errors = history.column(key)
        if any(error is not None for error in errors):
            axes.plot(epochs, errors, color=color, marker="o", markersize=3.5, linewidth=1.6, label=word)
            axes.annotate(
                f"{errors[-1]:.4f}", (epochs[-1], errors[-1]), xytext=(6, 0), textcoords="offset points", va="center",
                color=color, fontsize=9,
            )  # fmt: skip
    axes.set_xlabel("epoch")
    axes.set_ylabel("RMSE")
    axes.locator_params(axis="x", integer=True)
    axes.margins(x=0.08)
    axes.legend(frameon=False)
    axes.set_title(title, fontsize=9, loc="left", wrap=True)
    return _finished(figure, path)


def item_map(
    positions: Array,
    sizes: Array,
    labels: list[str],
    labelled: Array,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Items in the plane of the two leading latent features, the popular ones labelled.

    Args:
        positions: (M, 2).
        sizes: (M,), the number of ratings: the area of a point.
        labels: One for each of ``labelled``.
        labelled: The items to label.
        path: A file to write, by its ending PNG, SVG or PDF.
    """
    figure, axes = _figure(9.0, 7.5)
    area = 4 + 60 * sizes / max(1, sizes.max())
    axes.scatter(positions[:, 0], positions[:, 1], s=area, color=MUTED, alpha=0.35, linewidths=0)
    first, second = positions[labelled].T
    axes.scatter(first, second, s=area[labelled], color=TRAIN, alpha=0.9, linewidths=0)
    taken: list[Bbox] = []
    figure.canvas.draw()
    for place, label in zip(labelled, labels, strict=True):
        x, y = positions[place].tolist()
        _label(figure, axes, (x, y), label, taken)
    axes.set_xlabel("latent feature 0")
    axes.set_ylabel("latent feature 1")
    return _finished(figure, path)


def traces(values: Array, names: list[str], burn_in: int, path: str | os.PathLike[str] | None = None) -> Figure:
    """What each sweep of each chain was at: one panel for each quantity, burn-in shaded.

    Args:
        values: (sweeps, chains, quantities).
        names: Of the quantities.
        burn_in: How many sweeps are burn-in.
        path: A file to write.
    """
    figure, panels = _panels(8.0, 1.35 * len(names) + 0.4, rows=len(names))
    sweeps = range(1, len(values) + 1)
    for k, name in enumerate(names):
        axes = panels[k]
        axes.plot(sweeps, values[:, :, k], linewidth=0.9, alpha=0.85)
        if burn_in:
            axes.axvspan(0.5, burn_in + 0.5, color=MUTED, alpha=0.25, linewidth=0)
        axes.set_title(name.replace("_", " "), fontsize=8, loc="left", pad=2)
        axes.tick_params(labelsize=7.5, labelbottom=k == len(names) - 1)
    panels[-1].set_xlabel("sweep")
    return _finished(figure, path)


def calibration_panels(measured: Plain, path: str | os.PathLike[str] | None = None) -> Figure:
    """Coverage against level, the PIT histogram (where there is one), and coverage and width within groups.

    Args:
        measured: What :meth:`gramian.Calibration.to_dict` gives.
        path: A file to write, by its ending PNG, SVG or PDF.
    """
    drawn = _calibration_drawings(measured)
    figure, panels = _panels(9.0 if len(drawn) == 2 else 12.5, 4.0, columns=len(drawn))
    for axes, draw in zip(panels, drawn.values(), strict=True):
        draw(axes)
    return _finished(figure, path)


def calibration_figures(measured: Plain) -> dict[str, Figure]:
    """The panels of :func:`calibration_panels`, each a figure of its own, by what they show."""
    made = {}
    for words, draw in _calibration_drawings(measured).items():
        made[words], axes = _figure(4.3, 3.8)
        draw(axes)
    return made


def _calibration_drawings(measured: Plain) -> dict[str, Callable[[Axes], None]]:
    pit, curve = measured["pit"], measured["curve"]

    def coverage(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, label="what is promised")
        levels, covered = ([row[name] for row in curve] for name in ("level", "coverage"))
        axes.plot(levels, covered, color=TRAIN, marker="o", markersize=3.5, linewidth=1.6, label="what was seen")
        axes.set(xlabel="level of the interval", ylabel="share of test ratings inside", xlim=(0, 1), ylim=(0, 1))
        axes.legend(frameon=False)

    def histogram(axes: Axes) -> None:
        axes.bar([(b + 0.5) / len(pit) for b in range(len(pit))], pit, width=0.92 / len(pit), color=TRAIN)
        axes.axhline(1 / len(pit), color=VALIDATION, linewidth=1.2)
        axes.set(xlabel="probability integral transform", ylabel="share of test ratings", xlim=(0, 1))
        axes.set_title("flat where the distributions are calibrated", fontsize=8, loc="left")
        axes.set_axisbelow(True)

    made = {"Coverage of the intervals": coverage}
    if pit is not None:
        made["Where ratings fall in their distributions"] = histogram
    return made | {"Coverage within groups": lambda axes: _group_panel(axes, measured["groups"], measured["level"])}


def _group_panel(axes: Axes, groups: list[Plain], level: float) -> None:
    """Coverage within groups with two standard errors, the mean width beside each point."""
    axes.axvline(level, color=MUTED, linewidth=1)
    for place, row in enumerate(reversed(groups)):
        color = TRAIN if row["by"] == "activity" else VALIDATION
        axes.errorbar(row["coverage"], place, xerr=2 * row["error"], color=color, marker="o", markersize=4, capsize=2)
        axes.annotate(
            f"±{row['width'] / 2:.2f}", (1.0, place), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", color=color, fontsize=8,
        )  # fmt: skip
    who = {"activity": "user", "popularity": "item"}
    names = [f"{who[row['by']]}: {row['ratings']}" for row in reversed(groups)]
    axes.set_yticks(range(len(groups)), names, fontsize=8)
    axes.set(xlabel=f"share inside the {100 * level:g} % interval", ylim=(-0.6, len(groups) - 0.4))
    axes.set_title("by training ratings; at the right, half the mean width", fontsize=8, loc="left")


def interval_bars(
    labels: list[str],
    predicted: Array,
    of_rating: Array,
    of_mean: Array,
    path: str | os.PathLike[str] | None = None,
    *,
    level: float = 0.9,
    actual: Array | None = None,
) -> Figure:
    """One row per item: the interval for the rating, and within it the one for the mean.

    Args:
        labels: (n,), from the top.
        predicted: (n,), the predictions.
        of_rating: (n, 2), the ends of the intervals for the rating: where will it fall?
        of_mean: (n, 2), those for the mean: what does the model believe?
        path: A file to write, by its ending PNG, SVG or PDF.
        level: The level of both.
        actual: (n,), the ratings that were given, NaN where unknown.
    """
    figure, axes = _figure(8.0, 1.3 + 0.36 * len(labels))
    places = range(len(labels))[::-1]
    axes.hlines(places, *of_rating.T, color=MUTED, linewidth=3, label=f"{100 * level:g} %: the rating")
    axes.hlines(places, *of_mean.T, color=TRAIN, linewidth=8, label=f"{100 * level:g} %: the mean")
    axes.plot(predicted, places, "o", color="white", markersize=3.5)
    if actual is not None:
        axes.plot(actual, places, "x", color=VALIDATION, markersize=7, markeredgewidth=2, label="the rating given")
    axes.set_yticks(places, [label if len(label) <= 42 else label[:41] + "…" for label in labels], fontsize=8)
    axes.set(xlabel="rating", ylim=(-0.7, len(labels) - 0.3))
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside upper right", ncols=3, fontsize=9)
    return _finished(figure, path)


def rating_figures(
    values: Array,
    per_user: Array,
    per_item: Array,
    times: Array | None = None,
) -> dict[str, Figure]:
    """What a set of ratings looks like: the ratings, how many each user gave and each item has, and when.

    Args:
        values: The ratings.
        per_user: The number of ratings of each user.
        per_item: The number of ratings of each item.
        times: Unix seconds of each rating, where known.
    """
    import numpy as np

    made = {}
    made["The ratings"], axes = _figure(*SMALL)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= 40:
        axes.bar(distinct, counts, width=0.8 * float(np.diff(distinct).min(initial=1)), color=TRAIN)
    else:
        axes.hist(values, bins=40, color=TRAIN)
    axes.set(xlabel="rating", ylabel="ratings")
    if times is not None:
        made["When they were given"], axes = _figure(*SMALL)
        axes.hist(times.astype("datetime64[s]"), bins=40, color=TRAIN)
        axes.set(xlabel="time", ylabel="ratings")
    for counts, word, title in (
        (per_user, "users", "How many a user gave"),
        (per_item, "items", "How many an item has"),
    ):
        made[title], axes = _figure(*SMALL)
        edges = np.unique(np.geomspace(1, counts.max() + 1, 30).astype(int))
        axes.hist(counts, bins=edges.tolist(), color=TRAIN)
        axes.set(xscale="log", xlabel=f"ratings of one of the {word}", ylabel=word)
    for figure in made.values():
        figure.axes[0].set_axisbelow(True)
    return made


def error_by_seconds(
    labels: list[str],
    seconds: list[float],
    rmse: list[float],
    errors: list[float | None],
    path: str | os.PathLike[str] | None = None,
    *,
    colors: Mapping[str, str] | None = None,
) -> Figure:
    """Test RMSE with its standard error against the seconds of a fit, one point for each label."""
    figure, axes = _figure(7.6, 4.4)
    for place, label in enumerate(labels):
        axes.errorbar(
            seconds[place], rmse[place], yerr=errors[place] or 0.0, color=_color(colors, label, place),
            marker="o", markersize=7, capsize=3, elinewidth=1.2,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="seconds to fit", ylabel="test RMSE ± standard error")
    axes.margins(x=0.2)
    taken: list[Bbox] = []
    figure.canvas.draw()
    for place, label in enumerate(labels):
        position, color = (seconds[place], rmse[place]), _color(colors, label, place)
        _label(figure, axes, position, label, taken, shifts=AROUND, size=9.5, color=color)
    return _finished(figure, path)


def learning_curves(
    histories: dict[str, list[float]],
    path: str | os.PathLike[str] | None = None,
    *,
    colors: Mapping[str, str] | None = None,
) -> Figure:
    """Training RMSE against the epoch, one line for each label; epochs as shares of the whole training."""
    figure, axes = _figure(5.4, 4.2)
    for place, (label, values) in enumerate(histories.items()):
        shares = [(epoch + 1) / len(values) for epoch in range(len(values))]
        marker = "o" if len(values) < 40 else None
        color = _color(colors, label, place)
        axes.plot(shares, values, linewidth=1.6, marker=marker, markersize=3, color=color, label=label)
    axes.set(xlabel="share of the epochs", ylabel="training RMSE", xlim=(0, 1.02))
    _legend_above(figure, axes)
    return _finished(figure, path)


def error_by_group(
    breakdowns: dict[str, list[Plain]],
    by: str,
    path: str | os.PathLike[str] | None = None,
    *,
    colors: Mapping[str, str] | None = None,
) -> Figure:
    """Test RMSE by the user's activity or the item's popularity, one line for each label.

    Args:
        breakdowns: Of each label, the rows of :func:`gramian.breakdown`.
        by: ``"activity"`` or ``"popularity"``.
        path: A file to write.
        colors: Of each label.
    """
    figure, axes = _figure(5.4, 4.2)
    words = {"activity": "training ratings of the user", "popularity": "training ratings of the item"}
    for place, (label, rows) in enumerate(breakdowns.items()):
        part = [row for row in rows if row["by"] == by]
        bars = [row["error"] or 0.0 for row in part]
        # side by side, so that the bars of one group can be told apart
        shift = 0.5 * ((place + 0.5) / len(breakdowns) - 0.5)
        places, errors = [k + shift for k in range(len(part))], [row["rmse"] for row in part]
        color = _color(colors, label, place)
        axes.errorbar(places, errors, yerr=bars, label=label, marker="o", markersize=4, linewidth=1, color=color)
        axes.set_xticks(range(len(part)), [row["ratings"] for row in part])
    axes.set(xlabel=words[by], ylabel="test RMSE ± standard error")
    axes.grid(axis="x", visible=False)
    _legend_above(figure, axes)
    return _finished(figure, path)


def _color(colors: Mapping[str, str] | None, label: str, place: int) -> str:
    return COLORS[place % len(COLORS)] if colors is None else colors[label]


def _legend_above(figure: Figure, axes: Axes) -> None:
    """The legend outside, where it covers no line."""
    handles, labels = axes.get_legend_handles_labels()
    short = [label if len(label) <= 18 else label[:17] + "…" for label in labels]
    figure.legend(handles, short, frameon=False, loc="outside upper left", ncols=4, fontsize=8.5, columnspacing=1.2)


def _label(
    figure: Figure,
    axes: Axes,
    position: tuple[float, float],
    label: str,
    taken: list[Bbox],
    *,
    shifts: tuple[tuple[int, int], ...] = ((5, 3), (-5, 3), (5, -9), (-5, -9)),
    size: float = 7.5,
    color: str = "black",
) -> None:
    """Write a label where it covers no other one; leave it out where there is no room."""
    short = label if len(label) <= 32 else label[:31] + "…"
    for shift in shifts:
        align = "left" if shift[0] > 0 else "right"
        text = axes.annotate(
            short, position, xytext=shift, textcoords="offset points", fontsize=size, ha=align, color=color
        )
        box = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
        if inside and not any(box.overlaps(other) for other in taken):
            taken.append(box)
            return
        text.remove()


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one panel, and its axes."""
    figure, panels = _panels(width, height)
    return figure, panels[0]


def _panels(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure apart from pyplot, so that no window or global state is involved, and the axes of its panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.subplots(rows, columns)
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25, linewidth=0.6)
    return figure, figure.axes


def _finished(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is not None:
        if not str(path).lower().endswith((".png", ".svg", ".pdf")):
            raise ParameterError(f"A picture is written as .png, .svg or .pdf; got {str(path)!r}.")
        with written_whole(path) as temporary:
            figure.savefig(temporary)
    return figure
