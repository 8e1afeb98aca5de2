"""The commands that move models and factors between libraries: convert and export."""

from __future__ import annotations

from typing import Annotated

import typer

from gramian.cli.arguments import READ, Reading, load_model, with_reading
from gramian.cli.options import Items, ModelPath, RatingsPath
from gramian.visuals.console import note

__all__ = ["convert", "export"]

LIBRARIES = ("implicit", "spark")


@with_reading
def convert(
    library: Annotated[str, typer.Argument(metavar="LIBRARY", help="Where it comes from: implicit or spark.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="implicit's .npz file; the folder of an ALSModel.")],
    ratings: RatingsPath,
    out: Annotated[str, typer.Option("--out", "-o", help="The model file to write.")] = "model.gramian",
    items: Items = None,
    read: Reading = READ,
) -> None:
    """Make a model file of a model that another library trained on RATINGS, without training again."""
    from gramian.core.parameters import check_choice
    from gramian.interop.libraries import from_implicit, from_spark

    check_choice("LIBRARY", library, LIBRARIES, "convert")
    table = read(ratings)
    if items is not None:
        from gramian.data.readers import read_items

        table = table.with_items(read_items(items))
    model = from_implicit(source, table) if library == "implicit" else from_spark(source, table)
    model.save(out)
    note(f"{out}: {model.n_factors} factors of {len(table.user_ids):,} users and {len(table.item_ids):,} items")


def export(
    model: ModelPath,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where users and items are written to.")],
    format: Annotated[str, typer.Option(help="parquet or arrow.")] = "parquet",
    recall: Annotated[
        int | None, typer.Option(metavar="N", help="Also say what part of the exact top N an approximate index finds.")
    ] = None,
) -> None:
    """Write the factors of a model for a vector database, which needs the inner product for its metric."""
    from gramian.interop.libraries import approximate_recall, export_factors

    trained = load_model(model)
    for path in export_factors(trained, folder, format=format).values():
        note(f"{path}")
    if recall is not None:
        found = approximate_recall(trained, recall)
        print(f"recall@{recall} of usearch's index: {found:.4f} of the exact lists, up to 1,000 users")
