"""Metrics against answers worked out by hand, and against another library's."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import gramian as gm
from gramian.evaluate.topn import Popularity, evaluate_ranking
from gramian.metrics import prediction, ranking
from gramian.metrics.significance import bootstrap_interval, paired_test, rmse_error, standard_error

HITS = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
RELEVANT = np.array([3, 1, 2])


def test_errors_of_ratings_by_hand():
    actual, predicted = [1, 2, 3, 4], [1, 2, 4, 2]
    assert prediction.mse(actual, predicted) == 5 / 4
    assert prediction.mae(actual, predicted) == 3 / 4
    assert prediction.r2(actual, predicted) == 1 - 5 / 5
    assert math.isnan(prediction.r2([3, 3], [3, 3]))
    assert prediction.per_group_means([0, 0, 1, 4], ["b", "b", "b", "a"]).tolist() == [4, 1 / 3]


def test_ranking_by_hand():
    assert ranking.precision(HITS, 4).tolist() == [0.5, 0.25, 0]
    assert ranking.recall(HITS, RELEVANT, 4).tolist() == [2 / 3, 1, 0]
    assert ranking.hit_rate(HITS, 3).tolist() == [1, 0, 0]
    assert ranking.reciprocal_rank(HITS, 4).tolist() == [1, 0.25, 0]
    assert ranking.average_precision(HITS, RELEVANT, 4) == pytest.approx([(1 + 2 / 3) / 3, 0.25, 0])
    best = 1 + 1 / math.log2(3) + 1 / 2
    assert ranking.ndcg(HITS, RELEVANT, 4) == pytest.approx([1.5 / best, 1 / math.log2(5), 0])
    assert ranking.auc([4, 3, 2, 1], [1, 0, 1, 0]) == 0.75
    assert ranking.auc([1, 1], [1, 0]) == 0.5


def test_a_list_shorter_than_k_ends_in_misses():
    assert ranking.precision([[1]], 4).tolist() == [0.25]
    with pytest.raises(gm.DataError, match="relevant item"):
        ranking.recall([[1]], [0], 1)


def test_lists_together_by_hand():
    lists, counts = [[0, 1], [0, -1]], np.array([8, 2, 1, 1])
    assert ranking.catalogue_coverage(lists, 4) == 0.5
    assert ranking.novelty(lists, counts, 16) == (1 + 3 + 1) / 3
    assert ranking.popularity_bias(lists, counts) == pytest.approx(6 / (70 / 12))
    assert ranking.diversity(lists, np.eye(4)) == 1
    assert ranking.diversity([[0, 1]], np.ones((2, 3))) == pytest.approx(0)


def test_ndcg_and_auc_are_those_of_scikit_learn():
    learn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, relevant = rng.random((30, 50)), rng.random((30, 50)) < 0.2
    order = np.argsort(-scores, axis=1)
    hits = np.take_along_axis(relevant, order, axis=1)
    ours = ranking.ndcg(hits, relevant.sum(axis=1), 10).mean()
    assert ours == pytest.approx(learn.ndcg_score(relevant, scores, k=10), abs=1e-12)
    assert ranking.auc(scores[0], relevant[0]) == pytest.approx(learn.roc_auc_score(relevant[0], scores[0]))


RANX = """
import json, sys
import ranx
truth, run, names = json.load(sys.stdin)
print(json.dumps(ranx.evaluate(ranx.Qrels(truth), ranx.Run(run), names)))
"""


def test_ndcg_recall_precision_map_and_mrr_are_those_of_ranx():
    if importlib.util.find_spec("ranx") is None:
        pytest.skip("ranx is not installed")
    rng = np.random.default_rng(1)
    scores, relevant = rng.random((20, 40)), rng.random((20, 40)) < 0.2
    relevant[:, 0] = True
    hits = np.take_along_axis(relevant, np.argsort(-scores, axis=1), axis=1)
    counts = relevant.sum(axis=1)
    ours = {
        "ndcg@10": ranking.ndcg(hits, counts, 10),
        "recall@10": ranking.recall(hits, counts, 10),
        "precision@10": ranking.precision(hits, 10),
        "map@40": ranking.average_precision(hits, counts, 40),
        "mrr@10": ranking.reciprocal_rank(hits, 10),
        "hit_rate@10": ranking.hit_rate(hits, 10),
    }
    truth = {str(u): {str(i): 1 for i in np.flatnonzero(row)} for u, row in enumerate(relevant)}
    run = {str(u): {str(i): float(s) for i, s in enumerate(row)} for u, row in enumerate(scores)}
    theirs = subprocess.run(
        [sys.executable, "-c", RANX], input=json.dumps([truth, run, list(ours)]), capture_output=True, text=True,
        check=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"},  # compiling its loops would take a minute
    )  # fmt: skip
    found = json.loads(theirs.stdout.splitlines()[-1])
    for name, figures in ours.items():
        assert figures.mean() == pytest.approx(found[name], abs=1e-12), name


def test_standard_errors_by_hand():
    assert standard_error([1, 2, 3, 4]) == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
    # two groups that deviate by −2 and +2 in sum: √(2/1 · 8)/4
    assert standard_error([1, 2, 3, 4], [0, 0, 1, 1]) == pytest.approx(1.0)
    assert math.isnan(standard_error([1.0]))
    assert rmse_error([0, 0], [1, 1]) == (1.0, 0.0)


def test_bootstrap_agrees_with_the_standard_error():
    x = np.random.default_rng(0).normal(3, 1, 400)
    low, high = bootstrap_interval(x, 0.95)
    assert (high - low) / 2 == pytest.approx(1.96 * standard_error(x), rel=0.1)
    assert low < 3 < high


def test_the_paired_test_sees_what_two_intervals_do_not():
    rng = np.random.default_rng(0)
    hard = rng.exponential(1, 500)
    found = paired_test(hard, hard + rng.normal(0.02, 0.05, 500))
    assert found.p_value < 1e-6
    assert abs(found.mean) < standard_error(hard)
    assert paired_test(hard, hard).p_value == 1
    with pytest.raises(gm.DataError, match="pair up"):
        paired_test([1, 2], [1])


def test_the_paired_test_is_that_of_scipy_without_groups():
    from scipy.stats import ttest_rel

    a, b = np.random.default_rng(2).normal(size=(2, 50))
    assert paired_test(a, b).p_value == pytest.approx(ttest_rel(a, b).pvalue)


def test_popularity_by_hand():
    """Items by count: a 3, b 2, c 1, d 1. User 1 rated a; user 2 a, b; user 3 a, b, c; user 4 d."""
    rows = [(1, "a"), (2, "a"), (2, "b"), (3, "a"), (3, "b"), (3, "c"), (4, "d")]
    train = gm.Ratings.from_frame(
        pl.DataFrame([(u, i, 4.0) for u, i in rows], schema=["user", "item", "rating"], orient="row")
    )
    held = [(1, "c", 5.0), (1, "b", 1.0), (2, "d", 5.0), (4, "a", 5.0), (4, "z", 5.0), (3, "d", 2.0), (9, "a", 5.0)]
    test = gm.Ratings.from_frame(pl.DataFrame(held, schema=["user", "item", "rating"], orient="row"))
    found = evaluate_ranking(Popularity().fit(train), test, k=2, at_least=4)
    # lists: 1 → b, c (hit at 2, R=1) · 2 → c, d (hit at 2, R=1) · 4 → a, b (hit at 1, R=2, z unknown)
    second = 1 / math.log2(3)
    assert found.per_user["user"].to_list() == [1, 2, 4]
    assert found.figures["precision"] == 0.5
    assert found.figures["recall"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.figures["hit_rate"] == 1
    assert found.figures["mrr"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert found.figures["map"] == pytest.approx((0.5 + 0.5 + 0.5) / 3)
    assert found.figures["ndcg"] == pytest.approx((2 * second + 1 / (1 + second)) / 3)
    # of the candidates, ties one half: 1 has c before d, after b; 2 has d beside c; 4 has a before all
    assert found.figures["auc"] == pytest.approx((0.25 + 0.5 + 1) / 3)
    assert found.lists["coverage"] == 1
