"""One HTML file that shows a comparison to people: it needs no network, and says how to repeat what it shows."""

from __future__ import annotations

import html
import os
import warnings
from collections.abc import Iterator
from importlib.resources import files

import numpy as np
import polars as pl

from gramian.core.file_format import written_whole
from gramian.core.plain import Plain
from gramian.data.ratings import Ratings
from gramian.errors import GramianError
from gramian.evaluate.compare import Comparison
from gramian.evaluate.log import versions
from gramian.evaluate.topn import Popularity
from gramian.models.calibration import calibration
from gramian.models.factor_model import FactorModel
from gramian.models.model import Model
from gramian.models.predictive import UncertainModel
from gramian.registry import recipe_from_dict
from gramian.visuals import figures
from gramian.visuals.html import cell, grid, page, picture, raw_table, rounded, section, table, tiles

__all__ = ["report_html", "write_report"]

FEW = 6  # models whose errors are shown by group
EXAMPLES = 3  # users who are shown recommendations
SCORES = ("mae", "user_rmse", "log_loss", "ndcg", "recall")


def write_report(
    path: str | os.PathLike[str], made: Comparison, train: Ratings, test: Ratings, *, title: str = "Ratings, judged"
) -> None:
    """Write the report of a comparison; models that it did not keep and that are shown are fitted again.

    Raises:
        DataError: No model was fitted, or the file cannot be written.
    """
    page = report_html(made, train, test, title=title)
    with written_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def report_html(made: Comparison, train: Ratings, test: Ratings, *, title: str = "Ratings, judged") -> str:
    """The report as text."""
    best = made.best
    sections = [*_sections(made, train, test, best), _repeat(made, train, test)]
    style = files("gramian.evaluate").joinpath("report.css").read_text(encoding="utf-8")
    return page(title, style, [_header(made, train, test, title, best), *sections])


def _header(made: Comparison, train: Ratings, test: Ratings, title: str, best: str) -> str:
    record = _record(made, best)
    error = "" if record["error"] is None else f" ± {record['error']:.4f}"
    lines = [
        f"<h1>{html.escape(title)}</h1><p class=lead><b>{html.escape(best)}</b> has the least test RMSE of "
        f"{len(made.records)} models, <b>{record['rmse']:.4f}{error}</b>"
    ]
    bar = next((r for r in made.records if r["model"] == "baseline" and r.get("rmse")), None)
    if bar is not None and best != "baseline":
        lines.append(f", {1 - record['rmse'] / bar['rmse']:.1%} below what biases alone reach ({bar['rmse']:.4f})")
    split = f" ({html.escape(record['split'])})" if record.get("split") else ""
    lines.append(f". Learned from {len(train):,} ratings, measured on {len(test):,}{split}.</p>")
    links = "".join(f'<a href="#{name}">{word}</a>' for name, word in LINKS.items())
    return f"<header>{''.join(lines)}<nav>{links}</nav></header>"


LINKS = {
    "models": "The models",
    "errors": "How they learn, where they err",
    "lists": "Recommendations",
    "learned": "What was learned",
    "ratings": "The ratings",
    "repeat": "To repeat it",
}


def _sections(made: Comparison, train: Ratings, test: Ratings, best: str) -> Iterator[str]:
    colors = {record["model"]: figures.COLORS[n % len(figures.COLORS)] for n, record in enumerate(made.records)}
    yield _comparison(made, colors)
    yield _curves(made, colors)
    for label, model in _best_first(made, train):
        if isinstance(model, UncertainModel):
            yield _calibration(label, model, test)
            break
    yield _recommendations(best, _model(made, train, best), train)
    for label, model in _best_first(made, train):
        if isinstance(model, FactorModel) and model.n_factors > 0:
            yield _features(label, model)
            break
    yield _data(train)


def _calibration(label: str, model: UncertainModel, test: Ratings) -> str:
    measured = calibration(model, test)
    drawn = figures.calibration_figures(measured.to_dict())
    shown = grid([picture(figure, words) for words, figure in drawn.items()], "three")
    return section("sure", f"How sure is {label}?", f"<p>{html.escape(str(measured))}.</p>{shown}")


def _data(train: Ratings) -> str:
    about = train.describe()
    low, high = about.scale
    numbers = {
        "ratings": (f"{about.n_ratings:,}", f"mean {about.mean:.2f}, from {low:g} to {high:g}"),
        "users": (f"{about.n_users:,}", f"{about.ratings_per_user[2]:g} ratings at the median"),
        "items": (f"{about.n_items:,}", f"{about.ratings_per_item[2]:g} ratings at the median"),
        "filled": (f"{rounded(about.size.fill_percent, 2)} %", f"of {about.size.cells:,} cells"),
    }
    drawn = figures.rating_figures(train.values, train.by_user.counts, train.by_item.counts, train.times)
    pictures = [picture(figure, words) for words, figure in drawn.items()]
    whole = f"<details><summary>In words</summary><pre>{html.escape(str(about))}</pre></details>"
    return section("ratings", "The training ratings", tiles(numbers) + grid(pictures) + whole)


def _comparison(made: Comparison, colors: dict[str, str]) -> str:
    rows = [r for r in made.records if r.get("rmse") is not None]
    labels, seconds, rmse, errors = ([r[name] for r in rows] for name in ("model", "fit_seconds", "rmse", "error"))
    shown = picture(
        figures.error_by_seconds(labels, seconds, rmse, errors, colors=colors), "Test error against seconds"
    )
    note = (
        "<p class=note>RMSE ± its standard error, whole users drawn · p: the paired test of the squared errors "
        "against the best · by user: the mean of each user's RMSE · log loss: of the probabilities of every rating · "
        "µs: to predict a pair · MiB: how much fitting "
        "raised the memory at most. Rankings hold all items against each other; they reward what many people rate, "
        "which errors do not, so the order may differ.</p>"
    )
    return section("models", "The models", f"<div class=models>{_model_table(made)}</div>{note}{shown}")


def _model_table(made: Comparison) -> str:
    """The comparison's table, as people read it."""
    table = made.table
    k = made.records[0].get("k", "k")
    names = [
        "model",
        "RMSE",
        "p",
        "MAE",
        "by user",
        "log loss",
        f"NDCG@{k}",
        f"recall@{k}",
        "fit, s",
        "µs",
        "MiB",
        "parameters",
    ]
    rows = []
    for row in table.iter_rows(named=True):
        known = {name: row.get(name) for name in (*table.columns, "p", *SCORES)}
        error = "" if row.get("error") is None else f" <span class=pm>± {row['error']:.4f}</span>"
        exact = [f"{known[n]:.4f}" if known[n] is not None else "–" for n in SCORES]
        rows.append(
            [
                cell(row["model"]),
                "–" if known["rmse"] is None else f"{known['rmse']:.4f}{error}",
                "" if known["p"] is None else rounded(known["p"], 2),
                *exact,
                *(rounded(row.get(name)) for name in ("fit_seconds", "predict_us", "peak_mb")),
                "–" if row.get("parameters") is None else f"{row['parameters']:,}",
            ]
        )
    if all(row[2] == "" for row in rows):  # from a log, which has no errors of single ratings
        names, rows = [*names[:2], *names[3:]], [[*row[:2], *row[3:]] for row in rows]
    made_table = raw_table(names, rows, [False] + [True] * (len(names) - 1), first=True)
    failed = [r for r in made.records if r.get("reason")]
    reasons = "".join(f"<li><b>{html.escape(r['model'])}</b>: {html.escape(r['reason'])}" for r in failed)
    return made_table + (f"<h3>What failed</h3><ul>{reasons}</ul>" if failed else "")


def _curves(made: Comparison, colors: dict[str, str]) -> str:
    rows = [r for r in made.records if r.get("rmse") is not None]
    histories = {
        r["model"]: [epoch["train_rmse"] for epoch in r["history"] if epoch.get("train_rmse") is not None] for r in rows
    }
    shown = {label: values for label, values in histories.items() if values}
    ranked = sorted(rows, key=lambda r: (r["model"] != "baseline", r["rmse"]))  # more lines could not be told apart
    groups = {r["model"]: r["breakdown"] for r in ranked[:FEW]}
    which = "" if len(rows) <= FEW else ", of the best and baseline"
    pictures = [
        picture(figures.error_by_group(groups, by, colors=colors), words + which)
        for by, words in (("activity", "Test error by activity"), ("popularity", "Test error by popularity"))
    ]
    if shown:
        pictures.insert(0, picture(figures.learning_curves(shown, colors=colors), "Training error by epoch"))
    return section("errors", "How they learn, and where they err", grid(pictures, "three"))


def _features(label: str, model: FactorModel) -> str:
    cells = []
    for k in range(min(4, model.n_factors)):
        ends = [model.top_items(k, 6), model.top_items(k, 6, lowest=True)]
        name = "title" if "title" in ends[0].columns else "item"
        lists = "".join(
            f"<div>{word}<ul>{''.join(f'<li>{html.escape(str(value))}' for value in end[name])}</ul></div>"
            for word, end in zip(("one end", "the other"), ends, strict=True)
        )
        cells.append(f"<section class=card><h3>feature {k}</h3><div class=ends>{lists}</div></section>")
    text = (
        f"<p>The items at both ends of the strongest latent features of {html.escape(label)}, which nobody named.</p>"
        f"{grid(cells, 'pair features')}"
    )
    shown = picture(model.plot_item_map(), "Map of the items", vector=False, kind="map")
    return section("learned", "What was learned", text + shown)


def _recommendations(label: str, model: Model, train: Ratings) -> str:
    counts = train.by_user.counts
    order = np.argsort(counts, kind="stable")
    users = order[(np.arange(1, EXAMPLES + 1) * len(order)) // (EXAMPLES + 1)]
    cards = []
    for user in dict.fromkeys(train.user_ids.take(users).to_list()):
        liked, best = model.rated_by(user).head(5), model.recommend(user, 5)
        name = "title" if "title" in best.columns else "item"
        tables = table(liked.select(pl.col(name).cast(pl.String).alias("liked"), "rating")) + table(
            best.select(pl.col(name).cast(pl.String).alias("recommended"), pl.col("score").round(2))
        )
        cards.append(f"<section class=card><h3>user {html.escape(str(user))}</h3>{tables}</section>")
    return section("lists", f"What {label} recommends", grid(cards, "cards"))


def _repeat(made: Comparison, train: Ratings, test: Ratings) -> str:
    recipes = "\n".join(f"{record['model']}: {_python(record['recipe'])}" for record in made.records)
    about = [f"training {train.fingerprint()}", f"test {test.fingerprint()}"]
    about += [f"split {record['split']}" for record in made.records[:1] if record.get("split")]
    about += [f"{name} {text}" for name, text in versions().items()]
    text = (
        "<p>Equal fingerprints mean equal ratings; the same recipe and seed then give the same model, to the bit.</p>"
        f"<pre>{html.escape(' · '.join(about))}</pre><h3>The recipes</h3><pre>{html.escape(recipes)}</pre>"
    )
    return section("repeat", "To repeat it", text)


def _python(recipe: Plain) -> str:
    """A recipe as Python, with every field."""
    if recipe["name"] == Popularity.name:
        return "gm.Popularity()"
    try:
        return f"gm.{recipe_from_dict(recipe)!r}"
    except GramianError:  # a recipe of somebody's own
        return f"gm.recipe_from_dict({recipe!r})"


# ---- models --------------------------------------------------------------------------------------------


def _record(made: Comparison, label: str) -> Plain:
    return next(record for record in made.records if record["model"] == label)


def _model(made: Comparison, train: Ratings, label: str) -> Model:
    """The model kept, or, where the row came from a log, the same fitted again."""
    if label in made.models:
        return made.models[label]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Model = recipe_from_dict(_record(made, label)["recipe"]).fit(train)
    made.models[label] = model
    return model


def _best_first(made: Comparison, train: Ratings) -> Iterator[tuple[str, Model]]:
    """The models with their labels, each when it is wanted: one that was not kept is fitted again."""
    for record in sorted((r for r in made.records if r.get("rmse") is not None), key=lambda r: r["rmse"]):
        try:
            model = _model(made, train, record["model"])
        except GramianError:  # a recipe of somebody's own, from a log
            continue
        yield record["model"], model
