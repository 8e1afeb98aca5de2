"""Every picture, drawn from plain data. Each returns its matplotlib figure and, given a path, writes it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from gramian.errors import DataError, ParameterError
from gramian.history import History
from gramian.persist import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "calibration_panels",
    "error_by_groups",
    "error_by_seconds",
    "interval_bars",
    "item_map",
    "learning_curve",
    "learning_curves",
    "rating_panels",
    "traces",
]

TRAIN, VALIDATION, MUTED = "#2563a8", "#c2571a", "#9aa5b1"


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
            axes.annotate(f"{errors[-1]:.4f}", (epochs[-1], errors[-1]), xytext=(6, 0),
                          textcoords="offset points", va="center", color=color, fontsize=9)  # fmt: skip
    axes.set_xlabel("epoch")
    axes.set_ylabel("RMSE")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.08)
    axes.legend(frameon=False)
    axes.set_title(title, fontsize=9, loc="left", wrap=True)
    return _finished(figure, path)


def item_map(
    positions: npt.NDArray[Any],
    sizes: npt.NDArray[Any],
    labels: list[str],
    labelled: npt.NDArray[Any],
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
    axes.scatter(*positions.T, s=area, color=MUTED, alpha=0.35, linewidths=0)
    axes.scatter(*positions[labelled].T, s=area[labelled], color=TRAIN, alpha=0.9, linewidths=0)
    taken: list[Any] = []
    figure.canvas.draw()
    for place, label in zip(labelled, labels, strict=True):
        _label(figure, axes, positions[place], label, taken)
    axes.set_xlabel("latent feature 0")
    axes.set_ylabel("latent feature 1")
    return _finished(figure, path)


def traces(
    values: npt.NDArray[Any], names: list[str], burn_in: int, path: str | os.PathLike[str] | None = None
) -> Figure:
    """What each sweep of each chain was at: one panel for each quantity, burn-in shaded.

    Args:
        values: (sweeps, chains, quantities).
        names: Of the quantities.
        burn_in: How many sweeps are burn-in.
        path: A file to write.
    """
    figure, panels = _figure(8.0, 1.35 * len(names) + 0.4, rows=len(names))
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


def calibration_panels(measured: dict[str, Any], path: str | os.PathLike[str] | None = None) -> Figure:
    """Coverage against level, the PIT histogram (where there is one), and coverage and width within groups.

    Args:
        measured: What :meth:`gramian.Calibration.to_dict` gives.
        path: A file to write, by its ending PNG, SVG or PDF.
    """
    pit, curve = measured["pit"], measured["curve"]
    figure, axes = _figure(9.0 if pit is None else 12.5, 4.0, 2 if pit is None else 3)
    levels = [row["level"] for row in curve]
    covered = [row["coverage"] for row in curve]
    axes[0].plot([0, 1], [0, 1], color=MUTED, linewidth=1, label="what is promised")
    axes[0].plot(levels, covered, color=TRAIN, marker="o", markersize=3.5, linewidth=1.6, label="what was seen")
    axes[0].set(xlabel="level of the interval", ylabel="share of test ratings inside", xlim=(0, 1), ylim=(0, 1))
    axes[0].legend(frameon=False)
    if pit is not None:
        axes[1].bar([(b + 0.5) / len(pit) for b in range(len(pit))], pit, width=0.92 / len(pit), color=TRAIN)
        axes[1].axhline(1 / len(pit), color=VALIDATION, linewidth=1.2)
        axes[1].set(xlabel="probability integral transform", ylabel="share of test ratings", xlim=(0, 1))
        axes[1].set_title("flat where the distributions are calibrated", fontsize=8, loc="left")
        axes[1].set_axisbelow(True)
    _group_panel(axes[-1], measured["groups"], measured["level"])
    return _finished(figure, path)


def _group_panel(axes: Any, groups: list[dict[str, Any]], level: float) -> None:
    """Coverage within groups with two standard errors, the mean width beside each point."""
    axes.axvline(level, color=MUTED, linewidth=1)
    for place, row in enumerate(reversed(groups)):
        color = TRAIN if row["by"] == "activity" else VALIDATION
        axes.errorbar(row["coverage"], place, xerr=2 * row["error"], color=color, marker="o", markersize=4, capsize=2)
        axes.annotate(f"±{row['width'] / 2:.2f}", (1.0, place), xycoords=("axes fraction", "data"), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=8, color=color)  # fmt: skip
    who = {"activity": "user", "popularity": "item"}
    names = [f"{who[row['by']]}: {row['ratings']}" for row in reversed(groups)]
    axes.set_yticks(range(len(groups)), names, fontsize=8)
    axes.set(xlabel=f"share inside the {100 * level:g} % interval", ylim=(-0.6, len(groups) - 0.4))
    axes.set_title("by training ratings; at the right, half the mean width", fontsize=8, loc="left")


def interval_bars(
    labels: list[str],
    predicted: npt.NDArray[Any],
    of_rating: npt.NDArray[Any],
    of_mean: npt.NDArray[Any],
    path: str | os.PathLike[str] | None = None,
    *,
    level: float = 0.9,
    actual: npt.NDArray[Any] | None = None,
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


def rating_panels(
    values: npt.NDArray[Any],
    per_user: npt.NDArray[Any],
    per_item: npt.NDArray[Any],
    times: npt.NDArray[Any] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """What a set of ratings looks like: the ratings, how many each user gave and each item has, and when.

    Args:
        values: The ratings.
        per_user: The number of ratings of each user.
        per_item: The number of ratings of each item.
        times: Unix seconds of each rating, where known.
        path: A file to write.
    """
    import numpy as np

    figure, axes = _figure(6.4, 9.6 if times is not None else 7.2, rows=4 if times is not None else 3)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= 40:
        axes[0].bar(distinct, counts, width=0.8 * float(np.diff(distinct).min(initial=1)), color=TRAIN)
    else:
        axes[0].hist(values, bins=40, color=TRAIN)
    axes[0].set(xlabel="rating", ylabel="ratings")
    for place, (counts, word) in enumerate(((per_user, "users"), (per_item, "items")), 1):
        edges = np.unique(np.geomspace(1, counts.max() + 1, 30).astype(int))
        axes[place].hist(counts, bins=edges, color=TRAIN)
        axes[place].set(xscale="log", xlabel=f"ratings of one of the {word}", ylabel=word)
    if times is not None:
        axes[3].hist(times.astype("datetime64[s]"), bins=40, color=TRAIN)
        axes[3].set(xlabel="time", ylabel="ratings")
    return _finished(figure, path)


def error_by_seconds(
    labels: list[str],
    seconds: list[float],
    rmse: list[float],
    errors: list[float | None],
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Test RMSE with its standard error against the seconds of a fit, one point for each label."""
    figure, axes = _figure(6.4, 4.4)
    for place, label in enumerate(labels):
        color = f"C{place % 10}"
        bar = errors[place] or 0.0
        axes.errorbar(seconds[place], rmse[place], yerr=bar, marker="o", markersize=6, color=color, capsize=3)
        short = label if len(label) <= 28 else label[:27] + "…"
        axes.annotate(short, (seconds[place], rmse[place]), xytext=(7, 4), textcoords="offset points", fontsize=9)
    axes.set(xscale="log", xlabel="seconds to fit", ylabel="test RMSE ± standard error")
    axes.margins(x=0.25)
    return _finished(figure, path)


def learning_curves(histories: dict[str, list[float]], path: str | os.PathLike[str] | None = None) -> Figure:
    """Training RMSE against the epoch, one line for each label; epochs as shares of the whole training."""
    figure, axes = _figure(6.4, 4.0)
    for label, values in histories.items():
        shares = [(epoch + 1) / len(values) for epoch in range(len(values))]
        axes.plot(shares, values, linewidth=1.6, marker="o" if len(values) < 40 else None, markersize=3, label=label)
    axes.set(xlabel="share of the epochs", ylabel="training RMSE", xlim=(0, 1.02))
    axes.legend(frameon=False, fontsize=8)
    return _finished(figure, path)


def error_by_groups(breakdowns: dict[str, list[dict[str, Any]]], path: str | os.PathLike[str] | None = None) -> Figure:
    """Test RMSE by the user's activity (above) and the item's popularity (below), one line for each label.

    Args:
        breakdowns: Of each label, the rows of :func:`gramian.breakdown`.
        path: A file to write.
    """
    figure, panels = _figure(6.4, 6.8, rows=2)
    words = {"activity": "training ratings of the user", "popularity": "training ratings of the item"}
    for axes, (by, word) in zip(panels, words.items(), strict=True):
        for label, rows in breakdowns.items():
            part = [row for row in rows if row["by"] == by]
            bars = [row["error"] or 0.0 for row in part]
            axes.errorbar([row["ratings"] for row in part], [row["rmse"] for row in part], yerr=bars, marker="o",
                          markersize=4, linewidth=1.4, capsize=2, label=label)  # fmt: skip
        axes.set(xlabel=word, ylabel="test RMSE")
    panels[0].legend(frameon=False, fontsize=8, ncols=2)
    return _finished(figure, path)


def _label(figure: Figure, axes: Any, position: npt.NDArray[Any], label: str, taken: list[Any]) -> None:
    """Write a label where it covers no other one; leave it out where there is no room."""
    short = label if len(label) <= 32 else label[:31] + "…"
    for shift, align in (((5, 3), "left"), ((-5, 3), "right"), ((5, -9), "left"), ((-5, -9), "right")):
        text = axes.annotate(short, position, xytext=shift, textcoords="offset points", fontsize=7.5, ha=align)
        box = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
        if inside and not any(box.overlaps(other) for other in taken):
            taken.append(box)
            return
        text.remove()


def _figure(width: float, height: float, panels: int = 1, rows: int = 1) -> tuple[Figure, Any]:
    """A figure apart from pyplot, so that no window or global state is involved; its axes, or an array of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, panels)
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def _finished(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is not None:
        if not str(path).lower().endswith((".png", ".svg", ".pdf")):
            raise ParameterError(f"A picture is written as .png, .svg or .pdf; got {str(path)!r}.")
        with written_whole(path) as temporary:
            figure.savefig(temporary)
    return figure
