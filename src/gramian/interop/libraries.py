"""To and from other libraries: models trained elsewhere, and factors for a vector database.

A model that came over a bridge predicts what the other library predicts. For fold-in it solves a new user's row with
the regularization given, since the other library's own fold-in, if there is one, is another computation.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from gramian.core.file_format import written_whole
from gramian.core.history import History
from gramian.core.parameters import check_choice, check_number
from gramian.data.ids import Id
from gramian.data.ratings import Ratings
from gramian.errors import DataError, GramianError
from gramian.kernels.arrays import Array
from gramian.models.als import ALS
from gramian.models.factor_model import FactorModel

__all__ = ["approximate_recall", "export_factors", "from_implicit", "from_spark", "from_surprise"]

RowIds = Sequence[Id] | Array | pl.Series
FORMATS = ("parquet", "arrow")


class SurpriseRatings(Protocol):
    """What is needed of a ``surprise.Trainset``: its ratings, and ids for its codes and back."""

    def all_ratings(self) -> Iterable[tuple[int, int, float]]: ...
    def to_raw_uid(self, iuid: int, /) -> Id: ...
    def to_raw_iid(self, iiid: int, /) -> Id: ...
    def to_inner_uid(self, ruid: Id, /) -> int: ...
    def to_inner_iid(self, riid: Id, /) -> int: ...


class SurpriseModel(Protocol):
    """What is needed of a fitted ``surprise.SVD``: factors and biases of users and items."""

    trainset: SurpriseRatings
    pu: Array
    qi: Array
    bu: Array
    bi: Array


class ImplicitModel(Protocol):
    """What is needed of a fitted factor model of ``implicit``: arrays, or matrices of its own on a GPU."""

    user_factors: object
    item_factors: object


def from_surprise(algorithm: SurpriseModel, *, regularization: float = 10.0) -> FactorModel:
    r"""The Gramian model of a fitted ``surprise.SVD``: :math:`\mu + b_u + b_i + q_i^\top p_u`.

    Args:
        algorithm: A ``surprise.SVD`` after ``fit``; its training set is taken over, with the original ids.
        regularization: λ for folding in somebody new.

    Raises:
        DataError: It is not a fitted SVD.
    """
    rows: SurpriseRatings | None = getattr(algorithm, "trainset", None)
    if rows is None or any(not hasattr(algorithm, name) for name in ("pu", "qi", "bu", "bi")):
        raise DataError(f"A fitted surprise.SVD is needed: got {type(algorithm).__name__}; fit it first.")
    if hasattr(algorithm, "yj"):
        raise DataError("A surprise.SVDpp has an implicit part that this model has not; give a surprise.SVD.")
    biased = bool(getattr(algorithm, "biased", True))
    triples = [(rows.to_raw_uid(user), rows.to_raw_iid(item), value) for user, item, value in rows.all_ratings()]
    table = pl.DataFrame(triples, schema=["user", "item", "rating"], orient="row", infer_schema_length=None)
    ratings = Ratings.from_frame(table)
    users = [rows.to_inner_uid(user) for user in ratings.user_ids.ids.to_list()]
    items = [rows.to_inner_iid(item) for item in ratings.item_ids.ids.to_list()]
    recipe = ALS(factors=algorithm.pu.shape[1], regularization=regularization, dtype="float64", biases=biased)
    parameters = {
        f"{side}_rows": _with_bias(factors[codes], bias[codes]) if biased else np.asarray(factors[codes], np.float64)
        for side, factors, bias, codes in (
            ("user", algorithm.pu, algorithm.bu, users),
            ("item", algorithm.qi, algorithm.bi, items),
        )
    }
    return recipe.model(ratings, parameters, History())


def from_implicit(
    source: str | os.PathLike[str] | ImplicitModel,
    ratings: Ratings,
    *,
    users: RowIds | None = None,
    items: RowIds | None = None,
    regularization: float = 0.01,
) -> FactorModel:
    """The Gramian model of a factor model of ``implicit`` (ALS, BPR, LMF): the inner product of its factors.

    Its scores are no ratings: they say how likely somebody is to take an item, around 0 to 1 for ALS. Recommendations
    and neighbours are the other library's; ``predict`` needs ``clip=False``; errors on ratings mean nothing.

    Args:
        source: A fitted model, or the ``.npz`` file that its ``save`` wrote.
        ratings: What it was trained on, which it does not keep; for what somebody has seen, and titles.
        users, items: The id of each row of its factors, in their order; the ids of the ratings in their order if not
            given, which is right for a matrix of ``ratings.user_codes`` and ``ratings.item_codes``.
        regularization: For folding in somebody new, who is then solved for as one of explicit ratings.

    Raises:
        DataError: It is no such model, the file cannot be read, or ids of the ratings have no row.
    """
    rows = _implicit_rows(source)
    made = {}
    for side, factors, ids, given in (
        ("user", rows[0], ratings.user_ids.ids, users),
        ("item", rows[1], ratings.item_ids.ids, items),
    ):
        named = ids if given is None else pl.Series(given)
        if len(named) != len(factors):
            raise DataError(
                f"There must be an id per row of the {side} factors: found {len(named)} ids and {len(factors)} rows; "
                f"give {side}s=[…], in the order of the rows."
            )
        made[f"{side}_rows"] = _rows_of(ids, named, factors, side, "implicit")
    width = made["user_rows"].shape[1]
    recipe = ALS(factors=width, biases=False, regularization=regularization)
    return recipe.model(ratings, made, History())


def _implicit_rows(source: str | os.PathLike[str] | ImplicitModel) -> tuple[Array, Array]:
    """User and item factors, on the processor, of a model or of its file."""
    if isinstance(source, str | os.PathLike):
        try:
            with np.load(source, allow_pickle=False) as saved:
                found = [saved[f"{side}_factors"] for side in ("user", "item")]
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"The file {str(source)!r} is not a factor model that implicit saved: {error}; name the .npz file."
            ) from None
    else:
        found = [getattr(source, f"{side}_factors", None) for side in ("user", "item")]
        if any(factors is None for factors in found):
            raise DataError(f"A fitted factor model of implicit is needed: got {type(source).__name__}; fit it first.")
        found = [factors.to_numpy() if hasattr(factors, "to_numpy") else factors for factors in found]
    users, items = (np.asarray(factors, np.float32) for factors in found)
    if users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1]:
        raise DataError(f"The factors do not fit together: found {users.shape} of users and {items.shape} of items.")
    if not (np.isfinite(users).all() and np.isfinite(items).all()):
        raise DataError("The factors of the implicit model must be finite: found NaN or infinity.")
    return users, items


def from_spark(folder: str | os.PathLike[str], ratings: Ratings, *, regularization: float = 0.1) -> FactorModel:
    """The Gramian model of a saved Spark ``ALSModel``: the inner product of its factors.

    Args:
        folder: What ``model.write().save`` made: ``userFactors`` and ``itemFactors`` are Parquet folders inside.
        ratings: The ratings it was trained on, which Spark does not keep; ids are the integers that Spark had.
        regularization: Spark's ``regParam``, for folding in somebody new; weighted by counts, as there.

    Raises:
        DataError: The folders cannot be read, or users or items of the ratings are not in them.
    """
    users = _spark_rows(Path(folder) / "userFactors", ratings.user_ids.ids, "user")
    items = _spark_rows(Path(folder) / "itemFactors", ratings.item_ids.ids, "item")
    if users.shape[1] != items.shape[1]:
        raise DataError(
            f"The factors do not fit together: found {users.shape[1]} of users and {items.shape[1]} of items."
        )
    recipe = ALS(factors=users.shape[1], biases=False, weighting="count", regularization=regularization)
    return recipe.model(ratings, {"user_rows": users, "item_rows": items}, History())


def _spark_rows(folder: Path, ids: pl.Series, what: str) -> Array:
    """The factors of these ids, in their order."""
    if not any(folder.glob("*.parquet")):
        raise DataError(f"There are no Parquet files in {str(folder)!r}: name the folder of a saved ALSModel.")
    try:
        table = pl.read_parquet(folder / "*.parquet").select(pl.col("id").cast(ids.dtype), "features")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"The factors in {str(folder)!r} cannot be read: {str(error).splitlines()[0]}.") from error
    return _rows_of(ids, table["id"], np.array(table["features"].to_list(), np.float32), what, "Spark")


def _rows_of(ids: pl.Series, named: pl.Series, factors: Array, what: str, library: str) -> Array:
    """The rows of these ids, in their order, of factors whose rows have the names given."""
    if named.n_unique() != len(named):
        raise DataError(f"Every row must have an id of its own: an id of the {what}s is repeated.")
    places = pl.DataFrame({"id": named, "place": np.arange(len(named))})
    try:
        found = pl.DataFrame({"id": ids}).join(places, on="id", how="left", maintain_order="left")
    except pl.exceptions.PolarsError:
        raise DataError(
            f"The ids of the {what}s must be of the kind that the ratings have: found {named.dtype} and {ids.dtype}."
        ) from None
    lost = found.filter(pl.col("place").is_null())
    if lost.height:
        raise DataError(
            f"The {library} model lacks {lost.height} of {len(ids)} {what}s, for example {lost['id'][0]!r}: give the "
            "ratings that it was trained on."
        )
    return factors[found["place"].to_numpy()]


def _with_bias(factors: Array, biases: Array) -> Array:
    return np.column_stack([factors, biases]).astype(np.float64)


def export_factors(model: FactorModel, folder: str | os.PathLike[str], *, format: str = "parquet") -> dict[str, Path]:
    """Write ``users.parquet`` and ``items.parquet`` with ``id``, ``vector`` and, of items, ``title``.

    ``format="arrow"`` writes Arrow IPC files (``users.arrow``), which can be mapped into memory, instead of Parquet.

    The inner product of a user's and an item's vector orders items as :meth:`FactorModel.recommend` does: an item's
    bias is the last number of its vector, beside a 1 of the user's. What is the same for all items of a user, μ and
    the user's bias, is left out. A vector database needs the inner product, not the cosine, for its metric.

    Raises:
        DataError: The folder cannot be made or written.
        ParameterError: The format is another.
    """
    check_choice("format", format, FORMATS, "export_factors")
    if not isinstance(model, FactorModel):
        raise DataError(f"A model with factors is needed: got {type(model).__name__}.")
    home = Path(folder)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"The folder {str(home)!r} cannot be made: {error.strerror or error}.") from None
    users, items = _search_vectors(model)
    tables = {"users": _vectors(model.user_ids.ids, users), "items": _vectors(model.item_ids.ids, items)}
    if model.ratings.titles is not None:
        tables["items"] = tables["items"].with_columns(model.ratings.titles.alias("title"))
    made = {}
    for name, table in tables.items():
        made[name] = home / f"{name}.{format}"
        with written_whole(made[name]) as temporary:
            if format == "parquet":
                table.write_parquet(temporary)
            else:
                table.write_ipc(temporary, compat_level=pl.CompatLevel.oldest())  # which every reader of Arrow knows
    return made


def approximate_recall(model: FactorModel, n: int = 10, *, users: int = 1000) -> float:
    """The share of the exact top n that usearch's approximate index finds, over the first ``users`` users.

    Raises:
        GramianError: usearch is not installed.
    """
    check_number("n", n, low=1, high=len(model.item_rows), whole=True, owner="approximate_recall")
    check_number("users", users, low=1, whole=True, owner="approximate_recall")
    try:
        from usearch.index import Index
    except ImportError:
        raise GramianError("This needs usearch, which is not installed: pip install 'gramian[ann]'.") from None
    queries, items = _search_vectors(model)
    queries = queries[:users]
    index = Index(ndim=items.shape[1], metric="ip", dtype="f32")
    index.add(np.arange(len(items)), items)
    found = np.atleast_2d(index.search(queries, n).keys)
    exact = np.argpartition(-(queries @ items.T), n - 1, axis=1)[:, :n]
    shared = [len(np.intersect1d(one, other)) for one, other in zip(found, exact, strict=True)]
    return float(np.mean(shared) / n)


def _search_vectors(model: FactorModel) -> tuple[Array, Array]:
    """User and item vectors whose inner product orders the items of a user as the predictions do."""
    ones = np.ones((len(model.user_rows), 1), model.user_rows.dtype)
    users = np.hstack([model.user_factors, ones]).astype(np.float32)
    return users, np.hstack([model.item_factors, model.item_biases[:, None]]).astype(np.float32)


def _vectors(ids: pl.Series, vectors: Array) -> pl.DataFrame:
    return pl.DataFrame({"id": ids, "vector": pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))})
