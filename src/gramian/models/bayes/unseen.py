r"""Users and items without ratings: what a posterior knows of them is the prior of their side.

Per draw it has the mean row :math:`m` and the covariance :math:`\Lambda^{-1}`. Where a side has features, the mean is
:math:`m + \beta^\top f`. Of features that are not known, f is the mean :math:`\bar f` over the rows in training, and
the covariance has :math:`\operatorname{Cov}(\beta^\top f)` of those rows as well: an id in no table may have any of
them; one in a table, or somebody new with ratings, any of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gramian.data.ids import Codes
from gramian.errors import ParameterError
from gramian.kernels.arrays import Array
from gramian.models.bayes.features import implicit_sets, side_features
from gramian.models.bayes.state import Draw, knowing, prior_variance, rows_of
from gramian.models.bayes.terms.side_information import Features, Strangers
from gramian.models.fold_in import FoldingModel, one_row
from gramian.models.predictive import UncertainModel

__all__ = ["KnownByFeatures"]


@dataclass(frozen=True, eq=False, repr=False)
class KnownByFeatures(FoldingModel, UncertainModel):
    """Draws of a factor model, and the rows of pairs, of which a side may have no ratings.

    Codes of ids that only a table of features knows are −2 − their place in it: known, though without ratings.

    Attributes:
        draws: The kept draws, oldest first.
        global_mean: μ, subtracted from every rating.
        biased: Whether the last of the D columns of a row is a bias.
    """

    draws: tuple[Draw, ...]
    global_mean: float
    biased: bool

    def _rows(self, draw: Draw, users: Codes, items: Codes) -> tuple[Array, Array]:
        """The rows of pairs of codes."""
        of_users, of_items = self._strangers
        return (
            rows_of(draw.user_rows, users, draw.users, of_users),
            rows_of(draw.item_rows, items, draw.items, of_items),
        )

    def _unknown_variance(self, draw: Draw, users: Codes, items: Codes, cells: Sequence[Array] | None) -> Array:
        """Of the mean of pairs given a draw, at cells in time: what is not known of the rows of strangers."""
        variance = np.zeros(len(users))
        kinds = 3 * users.clip(-2, 0) + items.clip(-2, 0)
        for kind in np.unique(kinds[kinds < 0]):
            strange = np.flatnonzero(kinds == kind)
            pairs = users[strange], items[strange]
            spreads = self._spread(draw, 0, int(pairs[0][0])), self._spread(draw, 1, int(pairs[1][0]))
            rows = self._rows(draw, *pairs)
            if cells is not None and draw.time is not None and draw.time.drift is not None:
                rows[0][:, : draw.time.drift.rows.shape[1]] += draw.time.drift.of(cells[0][strange])
            variance[strange] = prior_variance(draw, *pairs, self.biased, rows, spreads)
        return variance

    @cached_property
    def _strangers(self) -> list[Strangers | None]:
        """What is known of users and of items that were not in training."""
        tables = [getattr(self.recipe, f"{side}_features", None) for side in ("user", "item")]
        return [
            None if known is None else Strangers(
                known.mean, known.count - (0 if table is None else len(table.names)),
                None if table is None else table.matrix, known.some,
            )
            for known, table in zip(self._features, tables, strict=True)
        ]  # fmt: skip

    def _spread(self, draw: Draw, side: int, code: int) -> Array | None:
        """Of one of the draws, the variance of what is not known of a stranger's features: all, or those of sets."""
        known = self._strangers[side]
        if code >= 0 or known is None or (code < -1 and known.first == 0):
            return None
        return self._spread_of(draw, side, slice(None) if code == -1 else slice(known.first))

    def _spread_of(self, draw: Draw, side: int, lacking: slice) -> Array | None:
        known, link = self._strangers[side], (draw.users, draw.items)[side].link
        if known is None or link is None:
            return None
        key = id(link.coefficients), lacking.start, lacking.stop
        if key not in self._spreads:
            self._spreads[key] = known.spread(link, lacking)
        return self._spreads[key]

    @cached_property
    def _spreads(self) -> dict[Any, Array]:
        return {}

    @property
    def _features(self) -> tuple[Features | None, Features | None]:
        return side_features(self.recipe, self.ratings) if hasattr(self.recipe, "implicit") else (None, None)

    def _found(self, values: Any, what: str) -> Codes:
        codes = super()._found(values, what)
        table = getattr(self.recipe, f"{what}_features", None)
        if table is None or table.ids is None or not len(codes) or int(codes.min()) >= 0:
            return codes
        places = table.ids.codes(values, what)
        return np.where((codes < 0) & (places >= 0), -2 - places, codes).astype(np.int32)

    def has_features(self, user: Any) -> bool:
        """Whether the table of users has this id."""
        table = getattr(self.recipe, "user_features", None)
        return table is not None and table.ids is not None and user is not None and user in table.ids

    def _draws_of_new(self, items: Codes, features: Any) -> tuple[Draw, ...]:
        """What is not known of somebody's features is their mean, and its spread makes the prior wider."""
        known, table = self._strangers[0], getattr(self.recipe, "user_features", None)
        if features is not None and table is None:
            raise ParameterError("Features of somebody new need a model with user_features; this one has none.")
        if known is None:
            return self.draws
        sets = None
        if len(items):
            sets = implicit_sets(one_row(items, np.ones(len(items), np.float32)), self.ratings.n_items)
        told = None
        if features is not None and table is not None:
            told = table.row(features) if isinstance(features, Mapping) else table.row_of(features)
        values, lacking = known.completed(sets, told)
        row = one_row(np.flatnonzero(values).astype(np.int32), values[values != 0])
        return tuple(
            knowing(draw, row, None if lacking is None else self._spread_of(draw, 0, lacking)) for draw in self.draws
        )

    def _setting(self, name: str) -> Any:
        return getattr(self.recipe, name, 0 if name == "seed" else None)
