"""Bridges: the same predictions on the other side."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import gramian as gm
from gramian.bridges import approximate_recall, export_factors, from_spark, from_surprise


def surprise_like(frame: pl.DataFrame, factors: int = 3) -> SimpleNamespace:
    """What ``surprise.SVD`` has after a fit: inner ids in the order of first sight."""
    rng = np.random.default_rng(0)
    inner = [{raw: k for k, raw in enumerate(frame[name].unique(maintain_order=True))} for name in ("user", "item")]
    raw = [list(ids) for ids in inner]
    rows = [(inner[0][u], inner[1][i], r) for u, i, r in frame.select("user", "item", "rating").iter_rows()]
    trainset = SimpleNamespace(
        all_ratings=lambda: iter(rows), to_raw_uid=raw[0].__getitem__, to_raw_iid=raw[1].__getitem__,
        to_inner_uid=inner[0].__getitem__, to_inner_iid=inner[1].__getitem__, global_mean=frame["rating"].mean(),
    )  # fmt: skip
    sizes = [len(ids) for ids in raw]
    return SimpleNamespace(
        trainset=trainset, pu=rng.normal(0, 0.3, (sizes[0], factors)), qi=rng.normal(0, 0.3, (sizes[1], factors)),
        bu=rng.normal(0, 0.3, sizes[0]), bi=rng.normal(0, 0.3, sizes[1]),
    )  # fmt: skip


def test_a_surprise_model_predicts_the_same_here(frame):
    theirs = surprise_like(frame)
    model = from_surprise(theirs)
    for user, item in frame.select("user", "item").head(20).iter_rows():
        u, i = theirs.trainset.to_inner_uid(user), theirs.trainset.to_inner_iid(item)
        expected = theirs.trainset.global_mean + theirs.bu[u] + theirs.bi[i] + theirs.qi[i] @ theirs.pu[u]
        assert model.predict([user], [item], clip=False) == pytest.approx([expected], abs=1e-6)
    assert model.recommend_for({11: 5.0}, 3).height == 3
    with pytest.raises(gm.DataError, match=r"fitted surprise\.SVD"):
        from_surprise(SimpleNamespace())


def test_exported_vectors_order_items_as_recommend_does(ratings, tmp_path):
    model = gm.ALS(factors=3, epochs=3).fit(ratings)
    paths = export_factors(model, tmp_path / "vectors")
    users, items = (pl.read_parquet(paths[name]) for name in ("users", "items"))
    scores = items["vector"].to_numpy() @ users["vector"].to_numpy()[0]
    best = items["id"].to_numpy()[np.argsort(-scores, kind="stable")[:5]]
    wanted = model.recommend(users["id"][0], 5, exclude_seen=False)
    assert best.tolist() == wanted["item"].to_list()
    with pytest.raises(gm.DataError, match="factors"):
        export_factors(gm.Popularity().fit(ratings), tmp_path)


def test_spark_folders_become_a_model(ratings, tmp_path):
    rng = np.random.default_rng(0)
    made = {}
    for name, ids in (("userFactors", ratings.user_ids.ids), ("itemFactors", ratings.item_ids.ids)):
        made[name] = rng.normal(1, 0.3, (len(ids), 4)).astype(np.float32)
        (tmp_path / name).mkdir()
        for part, rows in enumerate(np.array_split(rng.permutation(len(ids)), 3)):  # in any order, in several files
            table = {"id": ids.gather(rows).cast(pl.Int32), "features": made[name][rows].tolist()}
            pl.DataFrame(table).write_parquet(tmp_path / name / f"part-{part}.snappy.parquet")
        (tmp_path / name / "_SUCCESS").touch()
    model = from_spark(tmp_path, ratings)
    expected = np.sum(made["userFactors"][ratings.user_codes] * made["itemFactors"][ratings.item_codes], axis=1)
    assert model.predict(ratings.users, ratings.items, clip=False) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(gm.DataError, match="no Parquet"):
        from_spark(tmp_path / "elsewhere", ratings)
    other = gm.Ratings.from_frame(pl.DataFrame({"user": [1], "item": [11], "rating": [3.0]}))
    with pytest.raises(gm.DataError, match="lacks 1 of 1 users"):
        from_spark(tmp_path, other)


def test_the_approximate_index_finds_nearly_what_is_best(wide_ratings):
    pytest.importorskip("usearch")
    model = gm.ALS(factors=8, epochs=3).fit(wide_ratings)
    assert 0.95 < approximate_recall(model, 10) <= 1
    with pytest.raises(gm.ParameterError):
        approximate_recall(model, 0)
