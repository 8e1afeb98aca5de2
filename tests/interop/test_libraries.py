"""Bridges: the same predictions on the other side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import Run
from pyarrow import ipc

import gramian as gm
from gramian.interop.libraries import approximate_recall, export_factors, from_implicit, from_spark, from_surprise

SAVED = Path(__file__).parents[1] / "saved"  # what Spark itself wrote
SURPRISE_CASTS = "ignore:.*:DeprecationWarning"


@pytest.mark.filterwarnings(SURPRISE_CASTS)
@pytest.mark.parametrize("biased", [True, False])
def test_a_surprise_model_predicts_the_same_here(frame, biased):
    surprise = pytest.importorskip("surprise")
    rows = surprise.Dataset.load_from_df(frame.select("user", "item", "rating").to_pandas(), surprise.Reader())
    theirs = surprise.SVD(n_factors=3, n_epochs=4, biased=biased, random_state=0).fit(rows.build_full_trainset())
    model = from_surprise(theirs)
    pairs = frame.select("user", "item").head(20)
    expected = [theirs.predict(user, item, clip=False).est for user, item in pairs.iter_rows()]
    assert model.predict(pairs["user"], pairs["item"], clip=False) == pytest.approx(expected, abs=1e-6)
    assert model.recommend_for({11: 5.0}, 3).height == 3
    with pytest.raises(gm.DataError, match="implicit part"):
        from_surprise(surprise.SVDpp(n_epochs=1).fit(rows.build_full_trainset()))
    with pytest.raises(gm.DataError, match=r"fitted surprise\.SVD"):
        from_surprise(surprise.SVD())


@pytest.mark.filterwarnings("ignore:OpenBLAS:RuntimeWarning")
@pytest.mark.parametrize("kind", ["als.AlternatingLeastSquares", "bpr.BayesianPersonalizedRanking"])
def test_a_model_of_implicit_recommends_the_same_here(ratings, tmp_path, kind):
    implicit = pytest.importorskip("implicit")
    from scipy.sparse import csr_matrix

    matrix = csr_matrix((ratings.values, (ratings.user_codes, ratings.item_codes)))
    module, name = kind.split(".")
    theirs = getattr(getattr(implicit, module), name)(factors=4, iterations=5, random_state=0, num_threads=1)
    theirs.fit(matrix, show_progress=False)
    theirs.save(tmp_path / "saved.npz")
    for source in (theirs, tmp_path / "saved.npz"):
        model = from_implicit(source, ratings)
        for code in range(5):
            items, scores = theirs.recommend(code, matrix[code], N=5)
            ours = model.recommend(ratings.user_ids.take([code])[0], 5)
            assert ours["item"].to_list() == ratings.item_ids.take(items).to_list()
            assert ours["score"].to_numpy() == pytest.approx(scores, rel=1e-4, abs=1e-5)
    # rows of its own order, with ids that the ratings lack
    named = [*ratings.user_ids.ids.to_list()[::-1]]
    turned = SimpleRows(theirs.user_factors[::-1], theirs.item_factors)
    again = from_implicit(turned, ratings, users=named)
    assert again.user_rows.tobytes() == model.user_rows.tobytes()
    with pytest.raises(gm.DataError, match="an id per row"):
        from_implicit(theirs, ratings, users=[1, 2])
    with pytest.raises(gm.DataError, match="repeated"):
        from_implicit(theirs, ratings, users=[named[0], *named[:-1]], items=None)
    with pytest.raises(gm.DataError, match="of the kind"):
        from_implicit(theirs, ratings, users=[str(name) for name in named])


@dataclass
class SimpleRows:
    """Factors in another order."""

    user_factors: np.ndarray
    item_factors: np.ndarray


def test_what_is_no_model_of_implicit_is_refused(ratings, tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    (tmp_path / "text.npz").write_text("no zip")
    for source in (tmp_path / "other.npz", tmp_path / "text.npz", tmp_path / "absent.npz"):
        with pytest.raises(gm.DataError, match="is not a factor model"):
            from_implicit(source, ratings)
    with pytest.raises(gm.DataError, match="fit it first"):
        from_implicit(gm.ALS(), ratings)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_exported_vectors_order_items_as_recommend_does(ratings, tmp_path, kind):
    model = gm.ALS(factors=3, epochs=3).fit(ratings)
    paths = export_factors(model, tmp_path / "vectors", format=kind)
    read = {"parquet": pl.read_parquet, "arrow": lambda path: pl.from_arrow(ipc.open_file(path).read_all())}[kind]
    users, items = (read(paths[name]) for name in ("users", "items"))
    scores = items["vector"].to_numpy() @ users["vector"].to_numpy()[0]
    best = items["id"].to_numpy()[np.argsort(-scores, kind="stable")[:5]]
    wanted = model.recommend(users["id"][0], 5, exclude_seen=False)
    assert best.tolist() == wanted["item"].to_list()
    with pytest.raises(gm.ParameterError, match="format"):
        export_factors(model, tmp_path, format="csv")
    with pytest.raises(gm.DataError, match="factors"):
        export_factors(gm.Popularity().fit(ratings), tmp_path)


def test_a_model_that_spark_saved_predicts_the_same_here(tmp_path):
    known = pl.read_csv(SAVED / "spark-als-predictions.csv")
    ratings = gm.Ratings.from_frame(known.select("user", "item", "rating"))
    model = from_spark(SAVED / "spark-als", ratings)
    assert model.predict(known["user"], known["item"], clip=False) == pytest.approx(known["prediction"], rel=1e-5)
    with pytest.raises(gm.DataError, match="no Parquet"):
        from_spark(tmp_path / "elsewhere", ratings)
    other = gm.Ratings.from_frame(pl.DataFrame({"user": [1], "item": [7], "rating": [3.0]}))
    with pytest.raises(gm.DataError, match="lacks 1 of 1 users"):
        from_spark(SAVED / "spark-als", other)


def test_the_approximate_index_finds_nearly_what_is_best(wide_ratings):
    pytest.importorskip("usearch")
    model = gm.ALS(factors=8, epochs=3).fit(wide_ratings)
    assert 0.95 < approximate_recall(model, 10) <= 1
    with pytest.raises(gm.ParameterError):
        approximate_recall(model, 0)


@pytest.mark.filterwarnings("ignore:OpenBLAS:RuntimeWarning")
def test_convert_and_export_on_the_command_line(run: Run, tmp_path) -> None:
    known = pl.read_csv(SAVED / "spark-als-predictions.csv")
    known.select("user", "item", "rating").write_csv(tmp_path / "r.csv")
    assert run("convert", "spark", str(SAVED / "spark-als"), "r.csv", "-o", "s.gramian")[0] == 0
    assert gm.load(tmp_path / "s.gramian").n_factors == 3
    code, out, err = run("export", "s.gramian", "vectors", "--format", "arrow", "--recall", "5")
    assert code == 0
    assert out.startswith("recall@5")
    assert err.count(".arrow") == 2
    for words, sentence in {
        ("convert", "surprise", "x", "r.csv"): "'implicit', 'spark'",
        ("convert", "implicit", "x.npz", "r.csv"): "is not a factor model",
        ("export", "s.gramian", "v", "--format", "csv"): "'parquet', 'arrow'",
    }.items():
        code, _, err = run(*words)
        assert code == 2
        assert sentence in err
