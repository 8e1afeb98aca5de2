"""The smallest real Bayesian model, to test what every model with uncertainty has: one mean per item.

Item means are N(μ, τ²) around the global mean, ratings N(item mean, σ²): the posterior of an item with n ratings is
normal with precision 1/τ² + n/σ², and is drawn from exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

import gramian as gm
from gramian.core.parameters import param
from gramian.data.pairs import Pairs
from gramian.models.distributions.normal_mixture import NormalMixture
from gramian.models.predictive import UncertainModel
from gramian.models.recipe import Epoch, Recipe


@dataclass(frozen=True, kw_only=True)
class ItemMeans(Recipe["ItemMeansModel"]):
    name: ClassVar[str] = "itemmeans"

    noise: float = param(0.8, "σ", low=1e-6)
    spread: float = param(0.5, "τ", low=1e-6)
    draws: int = param(40, "S", low=1)
    seed: int = param(0, "seed", low=0)

    def start(self, ratings):
        return {}

    def epoch(self, ratings, arrays, number):
        counts = ratings.by_item.counts
        sums = np.bincount(ratings.item_codes, ratings.values, minlength=ratings.n_items)
        precision = 1 / self.spread**2 + counts / self.noise**2
        centre = (ratings.global_mean / self.spread**2 + sums / self.noise**2) / precision
        z = np.random.default_rng(self.seed).standard_normal((self.draws, ratings.n_items))
        return Epoch({"means": centre + z / np.sqrt(precision)}, {})

    def model(self, ratings, arrays, history):
        return ItemMeansModel(self, ratings, history, arrays["means"])


@dataclass(frozen=True, eq=False, repr=False)
class ItemMeansModel(UncertainModel):
    means: np.ndarray

    @property
    def n_draws(self):
        return len(self.means)

    def predictive_codes(self, pairs):
        z = np.random.default_rng(99).standard_normal((self.n_draws, 1))
        prior = self.ratings.global_mean + self.recipe.spread * z
        means = np.where(pairs.items < 0, prior, self.means[:, pairs.items])
        return NormalMixture(means, np.full((self.n_draws, 1), self.recipe.noise))

    def score_pairs(self, users, items):
        return self.predictive_codes(Pairs(users, items)).mean()

    def score_block(self, users):
        return np.tile(self.means.mean(axis=0), (len(users), 1))

    def arrays(self):
        return {"means": self.means}

    def predict_codes(self, pairs, *, unknown="fallback", clip=True):
        """The mean of the draws clipped one by one, as a sampler's predictions are."""
        means = self.predictive_codes(pairs).means
        predicted = (np.clip(means, *self.scale) if clip else means).mean(axis=0)
        return np.where(pairs.unknown, np.nan, predicted) if unknown == "nan" else predicted

    def recommend(self, users=None, n=10, *, by="mean", **options):
        return super().recommend(users, n, **options).with_columns(by=pl.lit(by))


def item_mean_ratings(n_users: int = 120, n_items: int = 60, seed: int = 0, grid: float | None = None) -> gm.Ratings:
    """Ratings from the model itself with σ = 0.8 and τ = 0.5; on a grid, rounded."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((n_users, n_items)) < 0.5)
    values = 3 + 0.5 * rng.standard_normal(n_items)[items] + 0.8 * rng.standard_normal(len(users))
    if grid is not None:
        values = np.clip(np.round(values / grid) * grid, 1, 5)
    return gm.Ratings.from_frame(pl.DataFrame({"user": users, "item": items, "rating": values}))
