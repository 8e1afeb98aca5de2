"""The commands that look inside a model: ask, diagnose, similar and features."""

from __future__ import annotations

from typing import Annotated

import typer

from gramian.cli.arguments import item_id, load_model, need_draws, rated_items, typed_id
from gramian.cli.options import Count, Json, ModelPath, Out
from gramian.errors import ParameterError
from gramian.visuals.console import give, note, print_json, print_table

__all__ = ["ask", "diagnose", "features", "similar"]


def ask(
    model: ModelPath,
    user: Annotated[str | None, typer.Option(help="A user id.")] = None,
    rated: Annotated[
        list[str] | None, typer.Option("--rated", metavar="ITEM=RATING", help="Somebody new, who rated this.")
    ] = None,
    n: Count = 10,
    out: Out = None,
    json: Json = False,
) -> None:
    """Show which items' ratings would tell most about a user, or (by default) about somebody new."""
    if user is not None and rated:
        raise ParameterError("Say whom to ask: --user ID or --rated ITEM=RATING, not both.")
    trained = need_draws(load_model(model), "items to ask for")
    whom = typed_id(user, trained.user_ids) if user is not None else rated_items(trained, rated or [])
    give(trained.ask_next(whom, n), out, json)


def diagnose(
    model: ModelPath,
    plot: Annotated[str | None, typer.Option(help="Draw the traces to this PNG, SVG or PDF.")] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Show whether the chains of a Bayesian model have converged: R-hat and effective sample sizes."""
    trained = need_draws(load_model(model), "chains")
    if plot is not None:
        trained.plot_traces(plot)
        note(f"{plot}: the traces")
    give(trained.diagnostics(), out, json)


def similar(
    model: ModelPath,
    item: Annotated[str | None, typer.Option(help="An item's id, or a part of its title.")] = None,
    user: Annotated[str | None, typer.Option(help="A user's id.")] = None,
    n: Count = 10,
    out: Out = None,
    json: Json = False,
) -> None:
    """Show the nearest items to an item, or users to a user, by the angle between their factors."""
    if (item is None) == (user is None):
        raise ParameterError("Say what to compare with: one of --item ID or --user ID.")
    trained = load_model(model)
    if user is not None:
        table = trained.similar_users(typed_id(user, trained.user_ids), n)
    else:
        table = trained.similar_items(item_id(trained, str(item)), n)
    give(table, out, json)


def features(
    model: ModelPath,
    top: Annotated[int, typer.Option(help="How many items at each end.")] = 10,
    feature: Annotated[int | None, typer.Option(help="Only this feature, from 0.")] = None,
    item_map: Annotated[str | None, typer.Option("--map", help="Draw the item map to this PNG, SVG or PDF.")] = None,
    shares: Annotated[
        bool,
        typer.Option("--shares", help="How much of the factors' variance tables and sets explain, instead (bpmf)."),
    ] = False,
    json: Json = False,
) -> None:
    """Show what the latent features mean: the items at both ends of each."""
    import polars as pl

    trained = load_model(model)
    if shares:
        give(need_draws(trained, "shares of features").feature_shares(), None, json)
        return
    wanted = range(trained.n_factors) if feature is None else [feature]
    ends = {k: [trained.top_items(k, top), trained.top_items(k, top, lowest=True)] for k in wanted}
    if item_map:
        trained.plot_item_map(item_map)
        note(f"{item_map}: the item map")
    if json:
        print_json([{"feature": k, "high": high.to_dicts(), "low": low.to_dicts()} for k, (high, low) in ends.items()])
        return
    for k, both in ends.items():
        name = "title" if "title" in both[0].columns else "item"
        columns = [
            part.select(pl.col(name).alias(end), pl.col("weight").alias(f"weight {end}"))
            for part, end in zip(both, ("high", "low"), strict=True)
        ]
        print_table(pl.concat(columns, how="horizontal"), f"feature {k}")
        print()
