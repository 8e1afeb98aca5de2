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

__all__ = ["item_map", "learning_curve", "traces"]

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


def _figure(width: float, height: float, rows: int = 0) -> tuple[Figure, Any]:
    """A figure apart from pyplot, so that no window or global state is involved; with an axes, or a list of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(max(1, rows), 1, squeeze=False)[:, 0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    return figure, panels if rows else panels[0]


def _finished(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is not None:
        if not str(path).lower().endswith((".png", ".svg", ".pdf")):
            raise ParameterError(f"A picture is written as .png, .svg or .pdf; got {str(path)!r}.")
        with written_whole(path) as temporary:
            figure.savefig(temporary)
    return figure
