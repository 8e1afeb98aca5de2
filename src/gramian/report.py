"""One HTML file that shows a comparison to people: it needs no network, and says how to repeat what it shows."""

from __future__ import annotations

import base64
import html
import io
import os
import warnings
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from gramian import plots
from gramian.comparing import Comparison
from gramian.errors import DataError, GramianError
from gramian.evaluate.calibration import calibration
from gramian.evaluate.records import versions
from gramian.models.base import Model
from gramian.models.factor import FactorModel
from gramian.models.uncertain import UncertainModel
from gramian.persist import written_whole
from gramian.ratings import Ratings
from gramian.zoo import recipe_from_dict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["report_html", "write_report"]

EXAMPLES = 3  # users who are shown recommendations


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
    parts = [
        _header(made, train, test, title, best),
        *_sections(made, train, test, best),
        _repeat(made, train, test),
    ]
    style = files("gramian").joinpath("report.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{style}</style></head><body><main>\n' + "\n".join(parts)
        + "\n</main></body></html>\n"
    )  # fmt: skip


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
    lines.append(f". Learned from {len(train):,} ratings, measured on {len(test):,}.</p>")
    return "<header>" + "".join(lines) + "</header>"


def _sections(made: Comparison, train: Ratings, test: Ratings, best: str) -> Iterator[str]:
    yield _data(train)
    yield _comparison(made)
    yield _curves(made)
    sure = _fitted(made, train, best, UncertainModel)
    if sure is not None:
        measured = calibration(sure[1], test)
        shown = _picture(plots.calibration_panels(measured.to_dict()), "Coverage of the intervals")
        yield _section(f"How sure is {sure[0]}?", f"<p>{html.escape(str(measured))}.</p>{shown}")
    factors = _fitted(made, train, best, FactorModel)
    if factors is not None:
        yield _features(*factors)
    yield _recommendations(best, _model(made, train, best), train)


def _data(train: Ratings) -> str:
    picture = plots.rating_panels(train.values, train.by_user.counts, train.by_item.counts, train.times)
    text = f"<pre>{html.escape(str(train.describe()))}</pre>"
    return _section("The training ratings", text + _picture(picture, "Histograms of the ratings"))


def _comparison(made: Comparison) -> str:
    rows = [r for r in made.records if r.get("rmse") is not None]
    labels, seconds, rmse, errors = ([r[name] for r in rows] for name in ("model", "fit_seconds", "rmse", "error"))
    picture = plots.error_by_seconds(labels, seconds, rmse, errors)
    note = (
        "<p class=note>error: the standard error of the RMSE, whole users drawn · p: the paired test of the squared "
        "errors against the best · predict_us: microseconds per pair · peak_mb: how much fitting raised the memory "
        "at most, MiB. The rankings hold all items against each other; they reward what many people rate, which "
        "errors do not, so the order may differ.</p>"
    )
    return _section("The models", _table(made.table) + note + _picture(picture, "Test error against seconds"))


def _curves(made: Comparison) -> str:
    rows = [r for r in made.records if r.get("rmse") is not None]
    histories = {
        r["model"]: [epoch["train_rmse"] for epoch in r["history"] if epoch.get("train_rmse") is not None] for r in rows
    }
    shown = {label: values for label, values in histories.items() if values}
    made_pictures = _picture(
        plots.error_by_groups({r["model"]: r["breakdown"] for r in rows}), "Test error by activity and popularity"
    )
    if shown:
        made_pictures = _picture(plots.learning_curves(shown), "Training error by epoch") + made_pictures
    return _section("How they learn, and where they err", f"<div class=pair>{made_pictures}</div>")


def _features(label: str, model: FactorModel) -> str:
    cells = []
    for k in range(min(4, model.n_factors)):
        ends = [model.top_items(k, 6), model.top_items(k, 6, lowest=True)]
        name = "title" if "title" in ends[0].columns else "item"
        high, low = ([html.escape(str(value)) for value in end[name]] for end in ends)
        lists = "".join(f"<ul>{''.join(f'<li>{text}' for text in texts)}</ul>" for texts in (high, low))
        cells.append(f"<section class=card><h3>feature {k}</h3><div class=ends>{lists}</div></section>")
    text = (
        f"<p>The items at both ends of the strongest latent features of {html.escape(label)}, which nobody named.</p>"
        f"<div class=cards>{''.join(cells)}</div>"
    )
    return _section("What was learned", text + _picture(model.plot_item_map(), "Map of the items", vector=False))


def _recommendations(label: str, model: Model, train: Ratings) -> str:
    counts = train.by_user.counts
    order = np.argsort(counts, kind="stable")
    users = order[(np.arange(1, EXAMPLES + 1) * len(order)) // (EXAMPLES + 1)]
    cards = []
    for user in dict.fromkeys(train.user_ids.take(users).to_list()):
        liked, best = model.rated_by(user).head(5), model.recommend(user, 5)
        name = "title" if "title" in best.columns else "item"
        tables = _table(liked.select(pl.col(name).cast(pl.String).alias("liked"), "rating")) + _table(
            best.select(pl.col(name).cast(pl.String).alias("recommended"), pl.col("score").round(2))
        )
        cards.append(f"<section class=card><h3>user {html.escape(str(user))}</h3>{tables}</section>")
    return _section(f"What {label} recommends", f"<div class=cards>{''.join(cards)}</div>")


def _repeat(made: Comparison, train: Ratings, test: Ratings) -> str:
    recipes = "\n".join(f"{record['model']}: gm.recipe_from_dict({record['recipe']!r})" for record in made.records)
    about = [f"training {train.fingerprint()}", f"test {test.fingerprint()}"]
    about += [f"{name} {text}" for name, text in versions().items()]
    text = (
        "<p>Equal fingerprints mean equal ratings; the same recipe and seed then give the same model, to the bit.</p>"
        f"<pre>{html.escape(' · '.join(about))}</pre><details open><summary>The recipes</summary>"
        f"<pre>{html.escape(recipes)}</pre></details>"
    )
    return _section("To repeat it", text)


# ---- models --------------------------------------------------------------------------------------------


def _record(made: Comparison, label: str) -> dict[str, Any]:
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


def _fitted(made: Comparison, train: Ratings, best: str, kind: type[Any]) -> tuple[str, Any] | None:
    """The best model of a kind that is worth showing."""
    ranked = sorted((r for r in made.records if r.get("rmse") is not None), key=lambda r: r["rmse"])
    for record in ranked:
        try:
            model = _model(made, train, record["model"])
        except GramianError:  # a recipe of somebody's own, from a log
            continue
        if isinstance(model, kind) and (kind is not FactorModel or model.n_factors > 0):
            return record["model"], model
    return None


# ---- pieces of HTML ------------------------------------------------------------------------------------


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>"


def _table(table: pl.DataFrame) -> str:
    numeric = [dtype.is_numeric() for dtype in table.dtypes]
    head = "".join(
        f"<th{' class=number' if number else ''}>{html.escape(name.replace('_', ' '))}"
        for name, number in zip(table.columns, numeric, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{' class=number' if number else ''}>{_cell(value)}"
                         for value, number in zip(row, numeric, strict=True))
        for row in table.iter_rows()
    )  # fmt: skip
    return f"<div class=wide><table><thead><tr>{head}</thead><tbody>{body}</tbody></table></div>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        if 0 < abs(value) < 1e-4:
            return "&lt; 0.0001"
        return f"{value:g}" if value == round(value, 2) else f"{value:.4f}" if abs(value) < 10 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else html.escape(str(value))


def _picture(figure: Figure, words: str, *, vector: bool = True) -> str:
    """The figure inside the page: SVG, sharp in print, or PNG where there are too many points for that."""
    buffer = io.BytesIO()
    kind = "svg" if vector else "png"
    try:
        figure.savefig(buffer, format=kind, metadata={"Date": None} if vector else None)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"The picture {words!r} could not be drawn: {error}.") from error
    data = base64.b64encode(buffer.getvalue()).decode()
    mime = "svg+xml" if vector else "png"
    return f'<figure><img alt="{html.escape(words)}" src="data:image/{mime};base64,{data}"></figure>'
