r"""Probabilistic matrix factorization: the same model, said in probabilities.

Ratings are normal around the prediction, and rows are normal around zero:

.. math::
    r_{ij} \sim N(\mu + b_i + c_j + w_i^\top u_j,\ \sigma^2), \qquad
    w_i, u_j \sim N(0, \alpha^{-1} I), \qquad b_i, c_j \sim N(0, \alpha_b^{-1})

``estimate="mle"`` maximizes the likelihood of the n ratings (a sum over Ω; some write a product there),

.. math:: \log p(R \mid W, U) = -\tfrac n2 \log(2\pi\sigma^2) - \tfrac1{2\sigma^2} \sum_\Omega (r_{ij} - \hat r_{ij})^2

and ``"map"`` the posterior, up to the constant log p(R):

.. math::
    \log p(W, U, b, c \mid R) = \log p(R \mid \cdot)
    + \tfrac{(N+M)K}2 \log\tfrac{\alpha}{2\pi} - \tfrac\alpha2 \left(\|W\|_F^2 + \|U\|_F^2\right)
    + \tfrac{N+M}2 \log\tfrac{\alpha_b}{2\pi} - \tfrac{\alpha_b}2 \left(\|b\|^2 + \|c\|^2\right)

Times :math:`-2\sigma^2` this is the objective of :class:`gramian.ALS` with :math:`\lambda = \sigma^2 \alpha` and
:math:`\lambda_b = \sigma^2 \alpha_b` (with 0 for ``"mle"``), and it is solved by the same half-sweeps.

**Estimating σ², α and α_b.** Before every epoch, from the rows so far, each in closed form given the rest:

.. math::
    \sigma^2 = \tfrac1n \sum_\Omega (r_{ij} - \tilde r_{ij})^2, \qquad
    \alpha_b = \frac{N + M}{\|\tilde b\|^2 + \|\tilde c\|^2}, \qquad
    \alpha = \frac1\sigma \left(\sqrt{n/N} + \sqrt{n/M}\right)

The tilde is a draw of each side's rows from their posterior given the other side. With the fitted rows instead, σ²
would be too small by what was fitted to noise, and the bias's α would grow without end: rows that are shrunk look
as if their prior were narrower. For the factors even the draws do not help: the paper's closed form
:math:`\alpha = (N+M)K / (\|W\|_F^2 + \|U\|_F^2)` has no maximum but α = ∞ with W = U = 0, and with draws it overfits,
since a fit to one value of U knows nothing of U's own uncertainty. So α is the least that keeps pure noise out:
:math:`\lambda = \sigma(\sqrt{n/N} + \sqrt{n/M})` is the size of the largest singular value of a matrix with n cells
of noise σ, at random places (Candès & Plan 2010), and :math:`\lambda = \sigma^2\alpha` is what MAP takes off every
singular value (:mod:`gramian.models.softimpute`).

Against collapse, σ is never below a thousandth of the ratings' standard deviation, and λ_b never above n.
Under ``"mle"`` σ² is the mean squared residual of the fitted rows, as maximum likelihood has it.

Sources: Salakhutdinov & Mnih 2007; Candès & Plan 2010.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from gramian.core.file_format import Arrays
from gramian.core.history import History
from gramian.core.parameters import Range, param
from gramian.data.table import RatingsTable
from gramian.engine import local
from gramian.engine.rows import Penalty
from gramian.errors import FormatError
from gramian.models.als import AlternatingRecipe
from gramian.models.factor_model import FactorModel, SideSettings, checked_rows
from gramian.models.recipe import Epoch

__all__ = ["PMF", "PMFModel", "Precisions"]

ESTIMATE = "estimate"


class Precisions(NamedTuple):
    """σ, the factors' prior precision α, and the biases' α_b."""

    noise_std: float
    prior_precision: float
    bias_precision: float


@dataclass(frozen=True, kw_only=True)
class PMF(AlternatingRecipe[Arrays]):
    """Probabilistic matrix factorization, by maximum likelihood or maximum a posteriori.

    See the head of this module for the model. By default nothing needs tuning: the noise and the precisions are
    estimated from the training ratings. The history has ``log_likelihood``, ``noise_std`` and, under ``"map"``,
    ``log_posterior``, ``prior_precision`` and ``bias_precision`` as that epoch used them; with fixed ones the
    log-posterior never falls.

    Raises:
        ParameterError: A field is outside its range.
    """

    name: ClassVar[str] = "pmf"
    distributed: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | tuple[Any, ...]]] = {"factors": Range(4, 64, whole=True)}

    factors: int = param(32, "latent features K", low=1, high=512)
    estimate: str = param("map", "map: the most probable rows given the ratings; mle: the likeliest, without priors",
                          choices=("map", "mle"))  # fmt: skip
    noise_std: float | str = param(ESTIMATE, "σ of a rating around its prediction, or estimate", low=1e-6, high=1e6,
                                   word=ESTIMATE)  # fmt: skip
    prior_precision: float | str = param(ESTIMATE, "1/variance of the factors under map, or estimate", low=1e-6,
                                         high=1e6, word=ESTIMATE)  # fmt: skip
    bias_precision: float | None = param(None, "1/variance of the biases under map; as prior_precision, or "
                                         "estimated with it, if not given", low=1e-6, high=1e6,
                                         optional=True)  # fmt: skip
    biases: bool = param(True, "a bias per user and item, and the global mean")
    epochs: int = param(15, "passes over both sides", low=1)
    patience: int | None = param(None, "stop after so many epochs without a better validation error", low=1,
                                 optional=True)  # fmt: skip
    seed: int = param(0, "of the random start, and of the draws that estimates need", low=0)
    dtype: str = param("float32", "precision of the factors", choices=("float32", "float64"))
    n_jobs: int | None = param(None, "threads; all cores if not given", low=1, optional=True)

    @property
    def side(self) -> SideSettings:
        """What does not depend on the scales."""
        return self._side(Precisions(1.0, 1.0, 1.0))

    def _side(self, scales: Precisions) -> SideSettings:
        """How a row is solved: Λ = σ²·precision, or 0."""
        variance = scales.noise_std**2 if self.estimate == "map" else 0.0
        lambdas = np.full(self.factors, variance * scales.prior_precision)
        if self.biases:
            lambdas = np.append(lambdas, variance * scales.bias_precision)
        return SideSettings(self.biases, Penalty(np.diag(lambdas)), centred=self.biases, n_jobs=self.n_jobs)

    def start(self, ratings: RatingsTable) -> Arrays:
        """Item factors from N(0, 1/K), biases 0, and the users' best rows for these."""
        items = self.random_items(ratings, self.factors, self.seed, self.dtype)
        noise = _noise_floor(ratings, ratings.variance**0.5)
        scales = self._given(Precisions(noise, _noise_precision(ratings, noise), min(4.0, len(ratings)) / noise**2))
        users, _ = self.sweep(ratings, items, users=True, side=self._side(scales))
        return {"user_rows": users, "item_rows": items, "scales": np.array(scales)}

    def epoch(self, ratings: RatingsTable, arrays: Arrays, number: int) -> Epoch[Arrays]:
        """New estimates, where some are wanted; items given the users, then users given the new items."""
        scales = self._estimated(ratings, arrays, number)
        side = self._side(scales)
        items, singular_items = self.sweep(ratings, arrays["user_rows"], users=False, side=side)
        users, singular_users = self.sweep(ratings, items, users=True, side=side)
        made = {"user_rows": users, "item_rows": items}
        record = self.record(ratings, made, singular_items + singular_users, side)
        if self.estimate == "mle" and self.noise_std == ESTIMATE:
            scales = scales._replace(noise_std=_noise_floor(ratings, float(record["train_rmse"])))
        record |= self._probabilities(made, scales, len(ratings), float(record["train_rmse"]))
        return Epoch({**made, "scales": np.array(scales)}, record)

    def model(self, ratings: RatingsTable, arrays: Arrays, history: History) -> PMFModel:
        """The factor model of these rows and scales."""
        users, items = checked_rows(self, ratings, arrays, self.factors + self.biases)
        found = arrays.get("scales")
        if found is None or found.shape != (3,) or not (np.isfinite(found).all() and (found > 0).all()):
            raise FormatError(f"The scales of {self.name} are missing or not 3 positive numbers; use another copy.")
        scales = Precisions(*np.asarray(found, np.float64).tolist())
        return PMFModel(self, ratings, history, users, items, self.offset(ratings), self._side(scales), scales)

    def _given(self, estimated: Precisions) -> Precisions:
        """The scales asked for, and the estimates of the rest."""
        noise, prior, bias = estimated
        if not isinstance(self.noise_std, str):
            noise = self.noise_std
        if not isinstance(self.prior_precision, str):
            prior = bias = self.prior_precision
        return Precisions(noise, prior, bias if self.bias_precision is None else self.bias_precision)

    def _estimated(self, ratings: RatingsTable, arrays: Arrays, number: int) -> Precisions:
        """Noise and precisions from the rows so far; see the head of the module."""
        before = Precisions(*arrays["scales"].tolist())
        if self.estimate == "mle" or ESTIMATE not in (self.noise_std, self.prior_precision):
            return before
        side = self._side(before)
        users, items = (
            self.sweep(ratings, arrays[other], users=users, side=side, spread=before.noise_std, draw=draw)[0]
            for other, users, draw in (
                ("item_rows", True, (self.seed, number, 0)),
                ("user_rows", False, (self.seed, number, 1)),
            )
        )
        intercepts = side.intercepts(self.offset(ratings))
        squared = local.squared_errors(ratings.by_user, users, items, intercepts, self.n_jobs)
        noise = _noise_floor(ratings, float(np.sqrt(squared / len(ratings))))
        noise = noise if isinstance(self.noise_std, str) else self.noise_std
        size = sum(float(np.sum(np.square(rows[:, self.factors :], dtype=np.float64))) for rows in (users, items))
        most = len(ratings) / noise**2
        bias = min((len(users) + len(items)) / size, most) if size > 0 else most
        return self._given(Precisions(noise, _noise_precision(ratings, noise), bias))

    def _probabilities(self, arrays: Arrays, scales: Precisions, n: int, error: float) -> dict[str, float | int]:
        """Log-likelihood and log-posterior, and the scales where they are estimated."""
        variance = scales.noise_std**2
        likelihood = float(-0.5 * n * (np.log(2 * np.pi * variance) + error**2 / variance))
        made: dict[str, float | int] = {"log_likelihood": likelihood}
        if self.estimate == "mle":
            return made | {"noise_std": scales.noise_std}
        made["log_posterior"] = likelihood + self._log_prior(arrays, scales)
        kept = 3 if self.biases else 2
        return made | dict(list(scales._asdict().items())[:kept])

    def _log_prior(self, arrays: Arrays, scales: Precisions) -> float:
        total = 0.0
        for rows in (arrays["user_rows"], arrays["item_rows"]):
            for part, precision in (
                (rows[:, : self.factors], scales.prior_precision),
                (rows[:, self.factors :], scales.bias_precision),
            ):
                squares = float(np.sum(np.square(part, dtype=np.float64)))
                total += 0.5 * (part.size * np.log(precision / (2 * np.pi)) - precision * squares)
        return float(total)


def _noise_floor(ratings: RatingsTable, noise: float) -> float:
    """σ, but at least a thousandth of the ratings' standard deviation; 10⁻⁶ where that is 0."""
    return max(noise, 1e-3 * ratings.variance**0.5 or 1e-6)


def _noise_precision(ratings: RatingsTable, noise: float) -> float:
    """α = (√(n/N) + √(n/M)) / σ: the least that keeps pure noise out of the factors."""
    n = len(ratings)
    return float((np.sqrt(n / ratings.n_users) + np.sqrt(n / ratings.n_items)) / noise)


@dataclass(frozen=True, eq=False, repr=False)
class PMFModel(FactorModel):
    """A factor model that knows how far ratings scatter around its predictions.

    Attributes:
        scales: σ, α and α_b, given or estimated.
    """

    scales: Precisions

    @property
    def noise_std(self) -> float:
        """σ: the standard deviation of a rating around its prediction."""
        return self.scales.noise_std

    def arrays(self) -> Arrays:
        """The parameters by name."""
        return {**super().arrays(), "scales": np.array(self.scales)}
