r"""Bayesian probabilistic matrix factorization: not the best W and U, but all that the ratings leave possible.

.. math::
    r_{ij} \sim N(\mu + b_i + c_j + w_i^\top u_j,\ \alpha^{-1}), \qquad
    (w_i, b_i) \sim N(m_u, \Lambda_u^{-1}), \quad (u_j, c_j) \sim N(m_v, \Lambda_v^{-1})

    \Lambda \sim W(W_0, D), \quad m \sim N(0, (2\Lambda)^{-1}), \qquad
    \alpha \sim \text{Gamma}(1, s^2)

with D = K + 1 (K without biases), s the standard deviation of the ratings and :math:`W_0^{-1}` diagonal:
``prior_scale`` times *s* for the factors, times :math:`s^2` for the bias. So ratings on a scale twice as wide give the
same model, twice as wide. Everything is sampled by Gibbs sweeps (:mod:`gramian.models.bayes.gibbs`); no λ is chosen.
The prediction is the mean over the draws after ``burn_in``; what the draws disagree on is how unsure it is.

Kept draws take S·(N + M)·D numbers, and with ``drift`` K more for each day of a user. Where they exceed ``memory``,
every second one is dropped, and from then on only every second one kept, and so on: what is kept is spread evenly over
the chain.

Sources: Salakhutdinov & Mnih 2008, *Bayesian Probabilistic Matrix Factorization using Markov Chain Monte Carlo*;
its setting of the priors (ν₀ = D, β₀ = 2, centre 0), with biases as one more column and α sampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from gramian.core.file_format import Arrays
from gramian.core.history import History
from gramian.core.parameters import Range, param
from gramian.data.ids import Codes
from gramian.data.ratings import Ratings
from gramian.errors import DivergenceError, ParameterError
from gramian.kernels.arrays import Array
from gramian.models.bayes import gibbs
from gramian.models.bayes.encoding import read_scales, scales_of
from gramian.models.bayes.features import FeatureTable, side_features, table_of
from gramian.models.bayes.posterior import BayesianModel
from gramian.models.bayes.state import (
    TRACED_PAIRS,
    Draw,
    check_arrays,
    check_draws,
    compacted,
    draw_shapes,
    packed,
    trace_names,
    trace_scalars,
    unpacked,
)
from gramian.models.bayes.terms.ordinal import first_cuts
from gramian.models.bayes.terms.side_information import no_link
from gramian.models.bayes.terms.time_factors import centred, no_drift
from gramian.models.bayes.terms.time_offsets import RATE, no_times
from gramian.models.bayes.terms.user_noise import no_difference
from gramian.models.recipe import Epoch, Recipe

__all__ = ["BPMF"]

SIDES = ("user", "item")
MAP_SWEEPS = 5  # of alternating least squares, before the first draw
MAP_REGULARIZATION = 3.0  # a start of about the width that chains settle at, so that burn-in is short
WATCHED_PAIRS = 1000
STRENGTH = 2.0  # β₀


@dataclass(frozen=True, kw_only=True)
class BPMF(Recipe[BayesianModel]):
    """Bayesian matrix factorization by Gibbs sampling: predictions that say how sure they are.

    See the head of this module for the model. The defaults suit ratings on any scale.

    Raises:
        ParameterError: A field is outside its range, or ``burn_in`` is not less than ``draws``.
    """

    name: ClassVar[str] = "bpmf"
    distributed: ClassVar[bool] = True
    length_field: ClassVar[str] = "draws"
    search_space: ClassVar[Mapping[str, Range | tuple[Any, ...]]] = {
        "factors": Range(8, 64, whole=True),
        "prior_scale": Range(0.1, 1.0),
        "noise": ("common", "by_user"),
        "implicit": ("none", "users", "items", "both"),
    }

    factors: int = param(32, "latent features K; more cost K² per rating and hardly overfit", low=1, high=512)
    draws: int = param(300, "sweeps of each chain, burn-in included; more lower the sampling error", low=1)
    burn_in: int | None = param(None, "first sweeps that are not kept; a fifth of the draws if not given", low=0,
                                optional=True)  # fmt: skip
    chains: int = param(1, "independent chains; from two on, convergence can be judged", low=1, high=100)
    biases: bool = param(True, "a bias per user and item, as one more column with a prior of its own")
    noise_precision: float | None = param(None, "α of one rating; sampled, with a Gamma prior, if not given",
                                          low=1e-6, optional=True)  # fmt: skip
    prior_scale: float = param(0.3, "how wide the factors are expected to be; matters little with many ratings",
                               low=1e-6)  # fmt: skip
    likelihood: str = param("normal", "normal: a rating is a number; ordinal: a step between cuts that are sampled",
                            choices=("normal", "ordinal"))  # fmt: skip
    noise: str = param("common", "common: one noise precision; by_user: one for each user, around a common one",
                       choices=("common", "by_user"))  # fmt: skip
    implicit: str = param("none", "sets of ratings as features of the prior means: the items that a user rated "
                          "(users), who rated an item (items), or both",
                          choices=("none", "users", "items", "both"))  # fmt: skip
    user_features: Any = param(None, "a table about users, as features of their prior means; none if not given",  # noqa: RUF009
                               optional=True, table=True)  # fmt: skip
    item_features: Any = param(None, "a table about items, as features of their prior means; none if not given",  # noqa: RUF009
                               optional=True, table=True)  # fmt: skip
    time: float | str | None = param(None, "offsets by time: of each user's days, each item's periods of so many days "
                                     "(or auto), and the calendar; none if not given", low=1e-6, optional=True,
                                     word="auto", option="period")  # fmt: skip
    drift: bool = param(False, "the factors of the users deviate on each of their days; alone, it also means time=auto")
    init: str = param("map", "map: from some sweeps of alternating least squares; cold: from small random numbers",
                       choices=("map", "cold"))  # fmt: skip
    memory: float = param(1.0, "GiB that kept draws may take; beyond it they are thinned", low=0)
    keep_dtype: str = param("float16", "precision of the kept draws", choices=("float16", "float32"))
    stop_when: float | None = param(None, "stop when the mean of 1000 predictions has settled to within this, root "
                                    "mean square; never if not given", low=0, optional=True)  # fmt: skip
    seed: int = param(0, "of every random number", low=0)
    dtype: str = param("float32", "precision of the sweeps", choices=("float32", "float64"))
    n_jobs: int | None = param(None, "threads; all cores if not given", low=1, optional=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for side in SIDES:
            object.__setattr__(self, f"{side}_features", table_of(getattr(self, f"{side}_features"), side))
        if self.drift and self.time is None:
            object.__setattr__(self, "time", "auto")
        if self.burn_in is not None and self.burn_in >= self.draws:
            raise ParameterError(
                f"The 'burn_in' parameter of BPMF must be less than draws, which is {self.draws}; got {self.burn_in}."
            )

    def to_dict(self) -> dict[str, Any]:
        """As of :class:`Recipe`; a table of features is there by its digest and names."""
        made = {field.name: getattr(self, field.name) for field in fields(self)}
        tables = {name: value.to_dict() for name, value in made.items() if isinstance(value, FeatureTable)}
        return {"name": self.name, **made, **tables}

    def to_resume(self) -> dict[str, Any]:
        """As of :class:`Recipe`; a burn-in that is a share of the draws may not change with them."""
        return {**super().to_resume(), "burn_in": self.dropped}

    @property
    def dropped(self) -> int:
        """How many sweeps are burn-in."""
        return self.draws // 5 if self.burn_in is None else self.burn_in

    def _hyper(self, ratings: Ratings) -> gibbs.Hyperprior:
        variance = ratings.variance or 1.0
        scale = np.full(self.factors + self.biases, self.prior_scale * variance**0.5)
        scale[self.factors :] = self.prior_scale * variance
        alpha = self.noise_precision
        if alpha is None and 0 < scales_of(self, ratings).n_levels < 3:
            alpha = 1 / variance  # two levels say nothing of a width
        return gibbs.Hyperprior(scale, STRENGTH, 1.0, variance, alpha, RATE * variance, RATE * variance**0.5)

    # ---- the chains -----------------------------------------------------------------------------

    def start_chain(self, ratings: Ratings, chain: int) -> gibbs.Chain:
        """The state before the first sweep."""
        K, D = self.factors, self.factors + self.biases
        variance = ratings.variance or 1.0
        rng = np.random.default_rng([self.seed, chain])
        users, items = np.zeros((ratings.n_users, D), self.dtype), np.zeros((ratings.n_items, D), self.dtype)
        width = variance**0.25 / np.sqrt(K)
        users[:, :K] = 0.1 * width * rng.standard_normal((ratings.n_users, K))
        items[:, :K] = width * rng.standard_normal((ratings.n_items, K))
        # λ of the factors, whose square is a rating, goes with the scale; that of the biases does not
        prior = gibbs.RowPrior(np.zeros(D), MAP_REGULARIZATION * np.diag([variance**0.5] * K + [1.0] * self.biases))
        if self.init == "map":
            how: dict[str, Any] = {"biased": self.biases, "offset": ratings.global_mean, "n_jobs": self.n_jobs}
            with _divergence(f"Chain {chain} diverged before its first sweep"):
                for _ in range(MAP_SWEEPS):
                    users, _ = gibbs.draw_rows(ratings.by_user, items, prior, 1.0, None, **how)
                    items, _ = gibbs.draw_rows(ratings.by_item, users, prior, 1.0, None, **how)
        else:
            items[:, :K] *= 0.1
        alpha = self.noise_precision or 1 / variance
        noise = no_difference(ratings.n_users) if self.noise == "by_user" else None
        links = [None if f is None else no_link(f, D, self.dtype) for f in side_features(self, ratings)]
        scales = scales_of(self, ratings)
        calendar = scales.calendar(ratings)
        drift = no_drift(calendar, K, variance**0.5, self.dtype) if calendar is not None and scales.drifting else None
        time = None if calendar is None else no_times(calendar, variance, drift)
        priors = [prior._replace(link=link) for link in links]
        cuts = None if scales.levels is None else first_cuts(scales.levels)
        return gibbs.Chain(users, items, priors[0], priors[1], alpha, noise, time, cuts)

    def start(self, ratings: Ratings) -> Arrays:
        """Every chain before its first sweep."""
        scales = scales_of(self, ratings)
        arrays: Arrays = {
            "traces": np.empty((0, self.chains, len(trace_names(self.biases, scales)))),
            "offset": np.array([ratings.global_mean]),
            **scales.arrays(),
        }
        for c in range(self.chains):
            arrays |= _named(f"chain{c}", self.start_chain(ratings, c))
        if self.stop_when is not None:
            arrays["watch.sum"] = np.zeros(WATCHED_PAIRS)
        return arrays

    def epoch(self, ratings: Ratings, arrays: Arrays, number: int) -> Epoch:
        """One sweep of every chain."""
        made, records, traces = dict(arrays), [], []
        kept: Arrays = {}
        scales, accepted = scales_of(self, ratings), 0.0
        for c in range(self.chains):
            with _divergence(f"Chain {c} diverged in sweep {number}"):
                chain, squared, singular = gibbs.sweep(
                    _chain(arrays, c), ratings.by_user, ratings.by_item, self._hyper(ratings),
                    gibbs.Key(self.seed, c, number), biased=self.biases, offset=ratings.global_mean,
                    n_jobs=self.n_jobs, features=side_features(self, ratings),
                    calendar=scales.calendar(ratings), ladder=scales.ladder(ratings),
                )  # fmt: skip
                if not (np.isfinite(squared) and 0 < chain.noise_precision < np.inf):
                    raise FloatingPointError
            made |= _named(f"chain{c}", chain)
            draw = self._shown(ratings, chain)
            traces.append(self._trace(ratings, draw))
            records.append((squared, singular))
            accepted += 0.0 if chain.cuts is None else chain.cuts.accepted / self.chains
            if number > self.dropped:
                kept |= self._kept(draw, number, c)
        made["traces"] = np.concatenate([arrays["traces"], np.array(traces)[None]])
        self._keep(made, kept, number)
        if self.stop_when is not None and number > self.dropped:
            made |= self._watched(ratings, made, number - self.dropped)
        record = self._record(ratings, made, records)
        return Epoch(made, record | ({"cuts_accepted": accepted} if scales.n_levels > 3 else {}))

    def _record(self, ratings: Ratings, arrays: Arrays, records: list[tuple[float, int]]) -> dict[str, float | int]:
        squared, singular = zip(*records, strict=True)
        noise = arrays["traces"][-1, :, 0].mean()
        made = {"train_rmse": float(np.sqrt(np.mean(squared) / len(ratings))), "noise_std": float(noise)}
        return made | ({"minimum_norm_rows": sum(singular)} if any(singular) else {})

    # ---- what is kept ---------------------------------------------------------------------------

    def _kept(self, draw: Draw, number: int, c: int) -> Arrays:
        parts = packed(compacted(draw, self.keep_dtype, self.n_jobs))
        return {f"draw{number:06d}.{c}.{part}": array for part, array in parts.items()}

    def _shown(self, ratings: Ratings, chain: gibbs.Chain) -> Draw:
        """A chain's state as a draw: where factors drift, the rows of users are those of no day in particular."""
        draw, calendar = _draw(chain), scales_of(self, ratings).calendar(ratings)
        if draw.time is None or draw.time.drift is None or calendar is None:
            return draw
        drift, users = centred(draw.time.drift, calendar, draw.user_rows)
        return draw._replace(user_rows=users, time=draw.time._replace(drift=drift))

    def _keep(self, arrays: Arrays, kept: Arrays, number: int) -> None:
        """Add what is kept of a sweep; drop draws until they fit into memory, every second one each time."""
        arrays |= kept
        after, room = number - self.dropped, self.memory * 2**30 // max(1, sum(a.nbytes for a in kept.values()))
        step, before = (_spacing(count, max(1, room)) for count in (after, after - 1))
        if step == 1:
            return
        every = [name for name in arrays if name.startswith("draw")] if step > before or after % step == 0 else kept
        for name in list(every):
            if (int(name[4:10]) - self.dropped) % step:
                del arrays[name]

    def _trace(self, ratings: Ratings, draw: Draw) -> list[float]:
        """What :func:`gramian.models.bayes.state.trace_names` names."""
        predicted = self._predicted(ratings, draw, *self._random_pairs(ratings, TRACED_PAIRS))
        return trace_scalars(draw, self.biases) + predicted.tolist()

    def _random_pairs(self, ratings: Ratings, count: int) -> tuple[Codes, Codes]:
        rng = np.random.default_rng(self.seed)
        users = rng.integers(ratings.n_users, size=count, dtype=np.int32)
        return users, rng.integers(ratings.n_items, size=count, dtype=np.int32)

    def _predicted(self, ratings: Ratings, draw: Draw, users: Codes, items: Codes) -> Array:
        """What a draw predicts, free; prior means for −1."""
        return self._model_of(ratings, [draw]).score_pairs(users, items)

    # ---- seen while sampling --------------------------------------------------------------------

    def _watched(self, ratings: Ratings, arrays: Arrays, count: int) -> Arrays:
        """The running sum over 1000 pairs; and, at each doubling of the draws, by how much their mean has moved.

        Noted at n = 8, 12, 16, 24, 32, …: the root mean square difference between the means of n and of n/2 draws.
        """
        pairs = self._random_pairs(ratings, WATCHED_PAIRS)
        draws = [self._shown(ratings, _chain(arrays, c)) for c in range(self.chains)]
        parts = [np.clip(self._predicted(ratings, draw, *pairs), *ratings.scale) for draw in draws]
        total = arrays["watch.sum"] + np.mean(parts, axis=0)
        made: Arrays = {"watch.sum": total}
        power = 1 << (count.bit_length() - 1)
        if count in (power, power + power // 2) and count >= 8:
            made[f"watch.mark{count}"] = total
            half = arrays.get(f"watch.mark{count // 2}")
            if half is not None:
                change = np.sqrt(np.mean((total / count - half / (count // 2)) ** 2))
                made["watch.change"] = np.array([change])
        return made

    def settled(self, arrays: Arrays) -> bool:
        """Whether the mean of the watched predictions has moved by no more than ``stop_when``."""
        change = arrays.get("watch.change")
        return self.stop_when is not None and change is not None and bool(change[0] <= self.stop_when)

    def validated(
        self, ratings: Ratings, arrays: Arrays, history: History, validation: Ratings
    ) -> tuple[Arrays, float]:
        """The RMSE of the mean of all draws after burn-in so far, kept or not; during burn-in, of the last one."""
        number, made = len(history) + 1, dict(arrays)
        model = self._model_of(ratings, [self._shown(ratings, _chain(arrays, c)) for c in range(self.chains)])
        if "validation.users" not in made:
            made["validation.users"], made["validation.items"] = model.codes_of(validation)
            made["validation.sum"] = np.zeros(len(validation))
        codes = made["validation.users"], made["validation.items"]
        predicted = model._predict_codes(*codes, "fallback", True, validation.times)
        if number > self.dropped:
            made["validation.sum"] = made["validation.sum"] + predicted
            predicted = made["validation.sum"] / (number - self.dropped)
        return made, float(np.sqrt(np.mean((predicted - validation.values) ** 2)))

    # ---- the model ------------------------------------------------------------------------------

    def finish(self, ratings: Ratings, arrays: Arrays) -> Arrays:
        """The kept draws, in the order of the sweeps; before the first, the state of each chain stands in."""
        draws = sorted({name.rpartition(".")[0] for name in arrays if name.startswith("draw")})
        stems = draws or [f"chain{c}" for c in range(self.chains)]
        made = {f"draw{s:05d}.{part}": a for s, stem in enumerate(stems) for part, a in _parts(arrays, stem).items()}
        return {name: arrays[name] for name in ("traces", "offset", "clock", "levels") if name in arrays} | made

    def _model_of(self, ratings: Ratings, draws: list[Draw]) -> BayesianModel:
        mean, scales = ratings.global_mean, scales_of(self, ratings)
        return BayesianModel(self, ratings, History(), tuple(draws), mean, self.biases, np.empty((0, 0, 0)), 0, scales)

    def model(self, ratings: Ratings, arrays: Arrays, history: History) -> BayesianModel:
        """The posterior of these draws.

        Raises:
            FormatError: The arrays do not fit together.
        """
        recipe = self._with_content(arrays)
        arrays = {name: array for name, array in arrays.items() if "_features." not in name}
        count = sum(name.endswith(".rest") for name in arrays)
        scales = read_scales(self, ratings, arrays)
        names = trace_names(self.biases, scales)
        wanted: dict[str, tuple[int, ...]] = {"traces": (len(history), self.chains, len(names)), "offset": (1,)}
        sizes, known = (ratings.n_users, ratings.n_items), side_features(recipe, ratings)
        wanted |= {name: array.shape for name, array in scales.arrays().items()}
        calendar, by_user = scales.calendar(ratings), self.noise == "by_user"
        drifting = self.factors if scales.drifting else 0
        shapes = draw_shapes(sizes, self.factors + self.biases, known, by_user, calendar, scales.n_levels, drifting)
        wanted |= {f"draw{s:05d}.{part}": shape for s in range(count) for part, shape in shapes.items()}
        check_arrays(self.name, arrays, wanted)
        draws = [unpacked(_parts(arrays, f"draw{s:05d}")) for s in range(count)]
        check_draws(self.name, draws)
        mean = float(arrays["offset"][0])
        return BayesianModel(
            recipe, ratings, history, tuple(draws), mean, self.biases, arrays["traces"], self.dropped, scales
        )

    def _with_content(self, arrays: Arrays) -> BPMF:
        """This recipe with the tables that a model file holds, where it was read from one."""
        tables = {f"{side}_features": getattr(self, f"{side}_features") for side in SIDES}
        return replace(self, **{
            name: table if table is None or table.ids is not None else table.with_arrays(name, arrays)
            for name, table in tables.items()
        })  # fmt: skip


def _parts(arrays: Arrays, stem: str) -> Arrays:
    """The arrays of one chain or draw."""
    start = f"{stem}."
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


@contextmanager
def _divergence(what: str) -> Iterator[None]:
    """Say that a chain has left the finite numbers, wherever in a sweep that was seen."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except (FloatingPointError, np.linalg.LinAlgError):  # the second is of a row whose system is not finite
        raise DivergenceError(
            f"{what}: its numbers are no longer finite; use dtype='float64', or check the ratings."
        ) from None


def _spacing(count: int, room: float) -> int:
    """The least power of two so that not more than ``room`` of ``count`` sweeps are its multiples."""
    step = 1
    while count // step > room:
        step *= 2
    return step


def _draw(chain: gibbs.Chain) -> Draw:
    return Draw(*chain)


def _named(stem: str, chain: gibbs.Chain) -> Arrays:
    return {f"{stem}.{part}": array for part, array in packed(_draw(chain)).items()}


def _chain(arrays: Arrays, c: int) -> gibbs.Chain:
    return gibbs.Chain(*unpacked(_parts(arrays, f"chain{c}")))
