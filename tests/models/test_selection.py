"""The best n of many scores: what a full sort gives, ties and missing ones too."""

from __future__ import annotations

import numpy as np
import pytest

from gramian.models.selection import GROUP, best_pairs, top_n


@pytest.mark.parametrize("columns", [7, 4 * 10 * GROUP - 1, 4 * 10 * GROUP, 9001])
@pytest.mark.parametrize("n", [1, 10, 200])
@pytest.mark.parametrize("kind", ["different", "ties", "few", "none"])
def test_the_best_pairs_are_those_of_a_sort(columns, n, kind) -> None:
    rng = np.random.default_rng(columns + n)
    scores = rng.normal(3, 1, (5, columns)).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores)
    if kind == "few":
        scores[1:4, 4:] = -np.inf
    if kind == "none":
        scores[2] = -np.inf
    rows, found, exact = best_pairs(scores, n, lambda row, column: scores[row, column])
    for row in range(5):
        order = np.lexsort((np.arange(columns), -scores[row]))
        expected = order[scores[row, order] > -np.inf][:n]
        assert found[rows == row].tolist() == expected.tolist()
        assert exact[rows == row].tolist() == scores[row, expected].tolist()
        assert top_n(scores[row], n).tolist() == expected.tolist()
