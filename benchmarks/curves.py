"""The pictures of docs/neural.md, from the bundled ratings: training curves, and what ResidualMF's layers learn.

python benchmarks/curves.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt

import gramian as gm
from gramian.visuals.figures import MUTED, TRAIN, VALIDATION
from page import HERE

DOCS = HERE.parent / "docs"
LONG = {
    "NeuralMF": gm.NeuralMF(epochs=25),
    "MLP": gm.MLP(epochs=25),
    "ResidualMF": gm.ResidualMF(epochs=25),
    "AutoRec, items": gm.AutoRec(epochs=80),
}


def curves(train: gm.Ratings, test: gm.Ratings) -> None:
    """Train and held-out RMSE of each network after every epoch, beside Baseline and ALS."""
    levels = {"Baseline": gm.Baseline().fit(train), "ALS": gm.ALS().fit(train)}
    figure, panels = plt.subplots(1, 4, figsize=(13, 3.4), sharey=True, layout="constrained")
    for axes, (name, recipe) in zip(panels, LONG.items(), strict=True):
        history = recipe.fit(train, test).history
        for key, word, color in (("train_rmse", "train", TRAIN), ("validation_rmse", "held out", VALIDATION)):
            errors = history.column(key)
            axes.plot(history.column("epoch"), errors, color=color, linewidth=1.6, label=word)
            print(name, word, [round(float(error), 4) for error in errors], flush=True)
        for (label, model), style in zip(levels.items(), (":", "--"), strict=True):
            axes.axhline(model.evaluate(test)["rmse"], color=MUTED, linestyle=style, linewidth=1.2, label=label)
        axes.axvline(type(recipe)().epochs, color=MUTED, linewidth=0.6)
        axes.set(title=name, xlabel="epoch", ylim=(0.65, 1.0))
        axes.grid(alpha=0.25, linewidth=0.6)
    panels[0].set_ylabel("RMSE")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(DOCS / "neural-curves.png", dpi=110)


def binned(x: npt.NDArray[Any], y: npt.NDArray[Any], bins: int = 20) -> tuple[Any, Any, Any]:
    """Means of x and y in bins of equal numbers of x, and the standard errors of the latter."""
    groups = np.array_split(np.argsort(x), bins)
    means = np.array([[x[g].mean(), y[g].mean(), y[g].std() / np.sqrt(len(g))] for g in groups])
    return means[:, 0], means[:, 1], means[:, 2]


def residual(train: gm.Ratings, test: gm.Ratings) -> None:
    """Held-out ratings: what the factorization leaves, against what the layers add; and where they add it."""
    model = gm.ResidualMF().fit(train)
    users, items = model.codes_of(test)
    known = (users >= 0) & (items >= 0)
    users, items, values = test.users[known], test.items[known], test.values[known]
    factors, layers = model.branches(users, items)
    left = values - model.global_mean - factors
    rmse = [float(np.sqrt(np.mean(error**2))) for error in (left, left - layers)]
    print(f"share of the layers: std {layers.std():.3f} of {factors.std():.3f}; RMSE without and with them {rmse}")
    figure, (one, two) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    x, y, error = binned(layers, left)
    one.errorbar(x, y, 2 * error, color=TRAIN, marker="o", markersize=4, linewidth=0, elinewidth=1.2)
    one.plot(x, x, color=MUTED, linewidth=1)
    one.set(xlabel="what the layers add", ylabel="rating − μ − factorization, mean", title="They predict what is left")
    activity = np.log10(np.bincount(model.ratings.item_codes, minlength=model.ratings.n_items))
    for axes_y, color, word in ((layers, TRAIN, "layers"), (left, VALIDATION, "left by the factorization")):
        x, y, error = binned(activity[model.item_ids.codes(items, "item")], axes_y)
        two.errorbar(10**x, y, 2 * error, color=color, marker="o", markersize=4, linewidth=1, elinewidth=1, label=word)
    two.set(
        xscale="log",
        xlabel="ratings of the item in training",
        ylabel="mean",
        title="Rare items lower, popular ones higher",
    )
    two.legend(frameon=False)
    figure.savefig(DOCS / "neural-residual.png", dpi=110)


if __name__ == "__main__":
    parts = gm.load_dataset("movielens-small").split(0.2, seed=0)
    curves(*parts)
    residual(*parts)
