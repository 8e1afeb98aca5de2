"""A trained model as it is for users whom it meets after its training (strong generalization)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from gramian.core.file_format import Arrays
from gramian.data.ids import Codes, Id
from gramian.data.ratings import Ratings
from gramian.errors import ParameterError
from gramian.evaluate.topn import PopularityModel
from gramian.kernels.arrays import Array
from gramian.kernels.csr import csr_from_sorted
from gramian.models.fold_in import FoldingIn, Given
from gramian.models.model import Model

__all__ = ["ColdUsers"]


@dataclass(frozen=True, eq=False, repr=False)
class ColdUsers(Model):
    """The users of some given ratings, each folded into a model; everything that judges models judges this, too.

    Its ``ratings`` are the given ones, over the items of the model: what a cold user has seen. A user without any is
    predicted as anybody new, an item unknown to the model by the global mean.

    Attributes:
        trained: The model.
        folded: For each user, then for anybody new, what gives the scores of all items.
    """

    trained: Model
    folded: tuple[Callable[[], Array], ...] = field(repr=False)

    @classmethod
    def of(cls, trained: Model, given: Ratings) -> ColdUsers:
        """Fold every user of ``given`` in.

        Raises:
            ParameterError: The model cannot take in somebody new.
        """
        items = trained.item_ids.codes(given.item_ids.ids, "item")[given.item_codes]
        known = items >= 0
        users, items, values = given.user_codes[known], items[known], given.values[known]
        order = np.lexsort((items, users))
        rows = csr_from_sorted(users[order], items[order], values[order], given.n_users)
        times = None if given.times is None else given.times[known][order]
        ratings = Ratings(given.user_ids, trained.item_ids, rows, item_table=trained.ratings.item_table)
        folded = []
        for user in range(given.n_users):
            codes, stars = rows.row(user)
            ids = trained.item_ids.take(codes).to_list()
            when = None if times is None else times[rows.indptr[user] : rows.indptr[user + 1]]
            rated = dict(zip(ids, stars.tolist(), strict=True))
            folded.append(_scorer(trained, rated, when, given.user_ids.ids[user]))
        return cls(trained.recipe, ratings, trained.history, trained, (*folded, _scorer(trained, {})))

    @property
    def scale(self) -> tuple[float, float]:
        """That of the training ratings."""
        return self.trained.scale

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        """The scores of pairs, user by user."""
        made = np.full(len(users), self.trained.ratings.global_mean)
        for user in np.unique(users):
            here = np.flatnonzero((users == user) & (items >= 0))
            made[here] = self.folded[user]()[items[here]]
        return made

    def score_block(self, users: Codes) -> Array:
        """The scores of all items."""
        return np.array([self.folded[user]() for user in users])

    def arrays(self) -> Arrays:
        """Those of the trained model."""
        return self.trained.arrays()


def _scorer(
    model: Model, rated: Given, times: Array | None = None, user: Id | None = None
) -> Callable[[], Array]:  # fmt: skip
    """What gives somebody's scores of all items, from these ratings and their times, and what a table has of the id."""
    if isinstance(model, PopularityModel):  # the same list for everyone
        return lambda: model.counts.astype(np.float64)
    if not model.capabilities.fold_in:
        raise ParameterError(
            f"A model of {type(model.recipe).__name__} cannot take in somebody new, so it has no errors on cold users."
        )
    return cast(FoldingIn, model).new_user(rated, times=times, who=user).scores
