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
from gramian.core.plain import Plain
from gramian.data.pairs import Pairs
from gramian.data.table import LocalTable, RatingsTable
from gramian.engine.rows import Intercepts
from gramian.errors import DivergenceError, FormatError, ParameterError
from gramian.kernels.arrays import Array
from gramian.models.bayes import gibbs
from gramian.models.bayes.bundles import Beginning, Setup
from gramian.models.bayes.chains import Kept, Sampling, Seen, Watch, n_bytes, parts_of, thinned
from gramian.models.bayes.features import FeatureTable, table_of
from gramian.models.bayes.posterior import BayesianModel
from gramian.models.bayes.state import SIDES, Key, RowPrior, State
from gramian.models.bayes.terms.collection import AnyTerm, Terms
from gramian.models.bayes.terms.ordinal import Ordinal
from gramian.models.bayes.terms.side_information import SideInformation
from gramian.models.bayes.terms.time_factors import TimeFactors
from gramian.models.bayes.terms.time_offsets import TimeOffsets
from gramian.models.bayes.terms.user_noise import UserNoise
from gramian.models.bayes.traces import TRACED_PAIRS, trace_names, trace_scalars
from gramian.models.recipe import Epoch, Recipe

__all__ = ["BPMF"]

MAP_SWEEPS = 5  # of alternating least squares, before the first draw
MAP_REGULARIZATION = 3.0  # a start of about the width that chains settle at, so that burn-in is short
WATCHED_PAIRS = 1000
STRENGTH = 2.0  # β₀


@dataclass(frozen=True, kw_only=True)
class BPMF(Recipe[BayesianModel, Sampling]):
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

    def to_dict(self) -> Plain:
        """As of :class:`Recipe`; a table of features is there by its digest and names."""
        made = {field.name: getattr(self, field.name) for field in fields(self)}
        tables = {name: value.to_dict() for name, value in made.items() if isinstance(value, FeatureTable)}
        return {"name": self.name, **made, **tables}

    def to_resume(self) -> Plain:
        """As of :class:`Recipe`; a burn-in that is a share of the draws may not change with them."""
        return {**super().to_resume(), "burn_in": self.dropped}

    @property
    def dropped(self) -> int:
        """How many sweeps are burn-in."""
        return self.draws // 5 if self.burn_in is None else self.burn_in

    # ---- what is known beside the ratings ---------------------------------------------------------

    def terms(self, ratings: RatingsTable, arrays: Arrays | None = None) -> Terms:
        """The terms that the settings ask for, made for these ratings; what a file knows of them comes in ``arrays``.

        A recipe of your own with one more term adds it here, ``Terms((*super().terms(ratings, arrays), MyTerm(…)))``,
        and is made known by :func:`gramian.register`.

        Raises:
            DataError: The ratings do not have what a term needs.
            FormatError: Nor do the arrays.
        """
        made: list[AnyTerm] = []
        made += SideInformation.asked(self.implicit, (self.user_features, self.item_features), ratings)
        if self.time is not None:
            offsets = TimeOffsets.of_setting(self.time, ratings, arrays)
            made += [offsets]
            made += [TimeFactors.beside(offsets, ratings.variance or 1.0)] if self.drift else []
        made += [UserNoise(ratings.n_users)] if self.noise == "by_user" else []
        made += [Ordinal.of_ratings(ratings, arrays)] if self.likelihood == "ordinal" else []
        return Terms(tuple(made))

    def check_distributed(self) -> None:
        """As of :class:`Recipe`; most terms need all ratings here."""
        super().check_distributed()
        for kind in (SideInformation, TimeFactors, TimeOffsets, UserNoise, Ordinal):
            for name, without in {} if kind.distributed else kind.settings.items():
                if getattr(self, name) != without:
                    raise ParameterError(
                        f"The {name!r} parameter of {type(self).__name__} must be {without!r} on Spark."
                    )

    # ---- the chains -----------------------------------------------------------------------------

    def _hyper(self, ratings: RatingsTable, terms: Terms) -> gibbs.Hyperprior:
        variance = ratings.variance or 1.0
        scale = np.full(self.factors + self.biases, self.prior_scale * variance**0.5)
        scale[self.factors :] = self.prior_scale * variance
        alpha = self.noise_precision
        if alpha is None and terms.observation is not None and terms.observation.fixes_noise:
            alpha = 1 / variance
        return gibbs.Hyperprior(scale, STRENGTH, 1.0, variance, alpha)

    def _setup(self, ratings: RatingsTable) -> Setup:
        return Setup(Intercepts(self.biases, ratings.global_mean), self.n_jobs)

    def start_chain(self, ratings: RatingsTable, terms: Terms, chain: int) -> State:
        """The state before the first sweep."""
        K, D = self.factors, self.factors + self.biases
        variance = ratings.variance or 1.0
        rng = np.random.default_rng([self.seed, chain])
        users, items = np.zeros((ratings.n_users, D), self.dtype), np.zeros((ratings.n_items, D), self.dtype)
        width = variance**0.25 / np.sqrt(K)
        users[:, :K] = 0.1 * width * rng.standard_normal((ratings.n_users, K))
        items[:, :K] = width * rng.standard_normal((ratings.n_items, K))
        # λ of the factors, whose square is a rating, goes with the scale; that of the biases does not
        prior = RowPrior(np.zeros(D), MAP_REGULARIZATION * np.diag([variance**0.5] * K + [1.0] * self.biases))
        if self.init == "map":
            how, setup = gibbs.RowDraw(prior, 1.0, None), self._setup(ratings)
            with _divergence(f"Chain {chain} diverged before its first sweep"):
                for _ in range(MAP_SWEEPS):
                    users, _ = gibbs.draw_rows(ratings.by_user, items, how, setup)
                    items, _ = gibbs.draw_rows(ratings.by_item, users, how, setup)
        else:
            items[:, :K] *= 0.1
        state = State(users, items, prior, prior, self.noise_precision or 1 / variance)
        return terms.started(state, self._beginning(ratings))

    def _beginning(self, ratings: RatingsTable) -> Beginning:
        D, variance = self.factors + self.biases, ratings.variance or 1.0
        return Beginning(ratings.n_users, ratings.n_items, self.factors, D, variance, self.dtype)

    def start(self, ratings: RatingsTable) -> Sampling:
        """Every chain before its first sweep."""
        terms = self.terms(ratings)
        if not isinstance(ratings, LocalTable):
            terms.check_distributed(type(self).__name__)
        return Sampling(
            terms=terms,
            ratings=gibbs.BothWays.of(ratings, terms),
            offset=ratings.global_mean,
            chains=tuple(self.start_chain(ratings, terms, c) for c in range(self.chains)),
            traces=np.empty((0, self.chains, len(trace_names(self.biases, terms)))),
            watch=None if self.stop_when is None else Watch.begun(WATCHED_PAIRS),
        )

    def epoch(self, ratings: RatingsTable, state: Sampling, number: int) -> Epoch[Sampling]:
        """One sweep of every chain."""
        terms, hyper, setup = state.terms, self._hyper(ratings, state.terms), self._setup(ratings)
        chains, traces, kept = [], [], {}
        for c, chain in enumerate(state.chains):
            with _divergence(f"Chain {c} diverged in sweep {number}"):
                chains.append(gibbs.sweep(chain, state.ratings, terms, hyper, Key(self.seed, c, number), setup))
                if not (np.isfinite(chains[c].squared) and 0 < chains[c].state.noise_precision < np.inf):
                    raise FloatingPointError
            draw = terms.shown(chains[c].state)
            traces.append(self._trace(ratings, terms, draw))
            if number > self.dropped:
                kept[number, c] = terms.compacted(draw, self.keep_dtype, self.n_jobs)
        made = replace(
            state,
            chains=tuple(swept.state for swept in chains),
            traces=np.concatenate([state.traces, np.array(traces)[None]]),
            kept=self._keep(state, kept, number),
        )
        if made.watch is not None and number > self.dropped:
            made = replace(made, watch=self._watched(ratings, made, made.watch, number - self.dropped))
        return Epoch(made, self._record(ratings, made, chains))

    def _record(self, ratings: RatingsTable, state: Sampling, chains: list[gibbs.Swept]) -> dict[str, float | int]:
        _, squared, singular = zip(*chains, strict=True)
        noise = state.traces[-1, :, 0].mean()
        made = {"train_rmse": float(np.sqrt(np.mean(squared) / len(ratings))), "noise_std": float(noise)}
        made |= {"minimum_norm_rows": sum(singular)} if any(singular) else {}
        return made | state.terms.record(state.chains)

    def _keep(self, state: Sampling, new: Kept, number: int) -> Kept:
        """What is kept with the draws of a sweep, thinned until it fits into memory."""
        if not new:
            return state.kept
        room = int(self.memory * 2**30 // max(1, n_bytes(state.terms, list(new.values()))))
        return thinned(state.kept, new, number - self.dropped, self.dropped, room)

    # ---- seen while sampling --------------------------------------------------------------------

    def _trace(self, ratings: RatingsTable, terms: Terms, draw: State) -> list[float]:
        """What :func:`gramian.models.bayes.traces.trace_names` names."""
        predicted = self._predicted(ratings, terms, draw, self._random_pairs(ratings, TRACED_PAIRS))
        return trace_scalars(draw, self.biases, terms) + list(predicted.tolist())

    def _random_pairs(self, ratings: RatingsTable, count: int) -> Pairs:
        rng = np.random.default_rng(self.seed)
        users = rng.integers(ratings.n_users, size=count, dtype=np.int32)
        return Pairs(users, rng.integers(ratings.n_items, size=count, dtype=np.int32))

    def _predicted(self, ratings: RatingsTable, terms: Terms, draw: State, pairs: Pairs) -> Array:
        """What a draw predicts, free."""
        return self._of_draws(ratings, terms, (draw,)).score_pairs(pairs.users, pairs.items)

    def _watched(self, ratings: RatingsTable, state: Sampling, watch: Watch, count: int) -> Watch:
        """With what the chains predict now of 1000 pairs."""
        pairs, terms = self._random_pairs(ratings, WATCHED_PAIRS), state.terms
        parts = [
            np.clip(self._predicted(ratings, terms, terms.shown(chain), pairs), *ratings.scale)
            for chain in state.chains
        ]
        return watch.after(np.mean(parts, axis=0), count)

    def settled(self, state: Sampling) -> bool:
        """Whether the mean of the watched predictions has moved by no more than ``stop_when``."""
        change = None if state.watch is None else state.watch.change
        return self.stop_when is not None and change is not None and change <= self.stop_when

    def validated(
        self, ratings: RatingsTable, state: Sampling, history: History, validation: RatingsTable
    ) -> tuple[Sampling, float]:
        """The RMSE of the mean of all draws after burn-in so far, kept or not; during burn-in, of the last one."""
        number, seen = len(history) + 1, state.seen
        model = self._of_draws(ratings, state.terms, tuple(state.terms.shown(chain) for chain in state.chains))
        if seen is None:
            seen = Seen(*model.codes_of(validation), np.zeros(len(validation)))
        predicted = model.predict_codes(Pairs(seen.users, seen.items, validation.times))
        if number > self.dropped:
            seen = seen._replace(total=seen.total + predicted)
            predicted = seen.total / (number - self.dropped)
        return replace(state, seen=seen), float(np.sqrt(np.mean((predicted - validation.values) ** 2)))

    # ---- the model ------------------------------------------------------------------------------

    def to_arrays(self, state: Sampling) -> Arrays:
        """As of :class:`Recipe`."""
        return state.to_arrays()

    def from_arrays(self, ratings: RatingsTable, arrays: Arrays) -> Sampling:
        """As of :class:`Recipe`."""
        return Sampling.from_arrays(self.terms(ratings), ratings, arrays)

    def _of_draws(self, ratings: RatingsTable, terms: Terms, draws: tuple[State, ...]) -> BayesianModel:
        mean, traces = ratings.global_mean, np.empty((0, 0, 0))
        return BayesianModel(self, ratings, History(), draws, mean, self.biases, terms, traces, 0)

    def finished(self, ratings: RatingsTable, state: Sampling, history: History) -> BayesianModel:
        """The posterior of the kept draws."""
        return BayesianModel(
            self, ratings, history, state.draws, state.offset, self.biases, state.terms, state.traces, self.dropped
        )

    def model(self, ratings: RatingsTable, arrays: Arrays, history: History) -> BayesianModel:
        """The posterior of the draws in a file.

        Raises:
            FormatError: The arrays do not fit together.
        """
        recipe = self._with_content(arrays)
        try:
            terms = recipe.terms(ratings, arrays)
        except KeyError as error:
            raise FormatError(
                f"The parameters of {self.name} do not fit: {error} is missing; use another copy."
            ) from None
        known = terms.arrays()
        rest = {name: array for name, array in arrays.items() if name not in known}
        count = sum(name.endswith(".rest") for name in rest)
        names, shapes = trace_names(self.biases, terms), terms.shapes(self._beginning(ratings))
        wanted: dict[str, tuple[int, ...]] = {"traces": (len(history), self.chains, len(names)), "offset": (1,)}
        wanted |= {f"draw{s:05d}.{part}": shape for s in range(count) for part, shape in shapes.items()}
        _check_arrays(self.name, rest, wanted)
        parts = parts_of(rest)
        draws = tuple(terms.unpacked(parts[f"draw{s:05d}"]) for s in range(count))
        if not draws or not terms.are_sound(draws):
            raise FormatError(
                f"The draws of {self.name} do not fit: there are none, or a noise precision or one of the rows is not "
                "positive; use another copy of the file."
            )
        mean = float(rest["offset"][0])
        return BayesianModel(recipe, ratings, history, draws, mean, self.biases, terms, rest["traces"], self.dropped)

    def _with_content(self, arrays: Arrays) -> BPMF:
        """This recipe with the tables that a model file holds, where it was read from one."""
        tables = {f"{side}_features": getattr(self, f"{side}_features") for side in SIDES}
        return replace(self, **{
            name: table if table is None or table.ids is not None else table.with_arrays(name, arrays)
            for name, table in tables.items()
        })  # fmt: skip


def _check_arrays(name: str, arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise FormatError unless these arrays are there, of these shapes, floats, and finite."""
    if arrays.keys() != shapes.keys() or len(shapes) == 0:
        odd = sorted(arrays.keys() ^ shapes.keys())
        raise FormatError(f"The parameters of {name} do not fit: {odd[:1]} is missing or strange; use another copy.")
    for key, shape in shapes.items():
        array = arrays[key]
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise FormatError(
                f"The parameter {key!r} of {name} does not fit: found {array.dtype} of shape {array.shape} for finite "
                f"numbers of shape {shape}; use another copy of the file."
            )


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
