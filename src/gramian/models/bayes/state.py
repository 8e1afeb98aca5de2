"""One draw of all parameters of a Bayesian factor model, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.core.file_format import Arrays
from gramian.data.ids import Codes
from gramian.engine import local
from gramian.errors import FormatError
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.bayes import gibbs
from gramian.models.bayes.encoding import Scales
from gramian.models.bayes.terms.ordinal import Cuts
from gramian.models.bayes.terms.side_information import Features, Link, Strangers
from gramian.models.bayes.terms.time_offsets import KINDS, Calendar, TimeOffsets
from gramian.models.bayes.terms.user_noise import UserNoise

__all__ = [
    "TRACED_PAIRS", "Draw", "check_arrays", "check_draws", "compact", "compacted", "compacted_prior", "contributions",
    "draw_shapes", "expected_drops", "knowing", "mean_directions", "packed", "prior_variance", "rows_of", "trace_names",
    "trace_scalars", "unpacked", "user_given",
]  # fmt: skip

TRACED_PAIRS = 10  # predictions that are followed through every sweep
HALF_RANGE = (1e-2, 6e4)  # of the largest number of an array: below, float16 loses digits; beyond, it overflows
POINT_DRAWS = 50  # so many draws are enough to find the leading directions of their mean


class Draw(NamedTuple):
    """One kept draw of all parameters; rows in float16 or float32."""

    user_rows: Array
    item_rows: Array
    users: gibbs.RowPrior
    items: gibbs.RowPrior
    noise_precision: float
    user_noise: UserNoise | None = None
    time: TimeOffsets | None = None
    cuts: Cuts | None = None


def compact(rows: Array, dtype: npt.DTypeLike, n_jobs: int | None = None) -> Array:
    """Rows in ``dtype``, but in float32 where they do not suit float16."""
    low, high = HALF_RANGE
    suits = np.dtype(dtype) != np.float16 or low <= float(max(rows.max(initial=0), -rows.min(initial=0))) <= high
    return local.converted(rows, dtype if suits else np.float32, n_jobs=n_jobs)


def compacted(draw: Draw, dtype: npt.DTypeLike, n_jobs: int | None = None) -> Draw:
    """The draw with rows and β in ``dtype`` where they suit it."""
    rows = [compact(rows, dtype, n_jobs) for rows in (draw.user_rows, draw.item_rows)]
    users, items = (compacted_prior(prior, dtype, n_jobs) for prior in (draw.users, draw.items))
    time = None if draw.time is None else draw.time.mapped(lambda part: compact(part, dtype, n_jobs))
    return Draw(rows[0], rows[1], users, items, draw.noise_precision, draw.user_noise, time, draw.cuts)


def compacted_prior(prior: gibbs.RowPrior, dtype: npt.DTypeLike, n_jobs: int | None) -> gibbs.RowPrior:
    """The prior with β in ``dtype`` where it suits it."""
    if prior.link is None:
        return prior
    return prior._replace(link=prior.link._replace(coefficients=compact(prior.link.coefficients, dtype, n_jobs)))


def packed(draw: Draw) -> Arrays:
    """A draw as named arrays: the rows, the β of a side that has one, and everything else in one of float64."""
    made: Arrays = {"user_rows": draw.user_rows, "item_rows": draw.item_rows}
    rest = [np.array([draw.noise_precision])]
    for side, prior in (("user", draw.users), ("item", draw.items)):
        rest += [prior.mean, prior.precision.ravel()]
        if prior.link is not None:
            made |= {f"{side}_link": prior.link.coefficients, f"{side}_ridge": prior.link.ridge}
    if draw.user_noise is not None:
        made["user_noise"] = draw.user_noise.packed()
    if draw.time is not None:
        made |= draw.time.packed()
    if draw.cuts is not None:
        made["cuts"] = draw.cuts.packed()
    return {**made, "rest": np.concatenate(rest)}


def unpacked(arrays: Arrays) -> Draw:
    """The draw that :func:`packed` took apart."""
    D = arrays["user_rows"].shape[1]
    noise, *parts = np.split(arrays["rest"], np.cumsum([1, D, D * D, D]))
    priors = []
    for side, k in (("user", 0), ("item", 2)):
        has = f"{side}_link" in arrays
        link = Link(arrays[f"{side}_link"], arrays[f"{side}_ridge"]) if has else None
        priors.append(gibbs.RowPrior(parts[k], parts[k + 1].reshape(D, D), link))
    by_user = UserNoise.unpacked(arrays["user_noise"]) if "user_noise" in arrays else None
    time = TimeOffsets.unpacked(arrays) if "time_precisions" in arrays else None
    cuts = Cuts.unpacked(arrays["cuts"]) if "cuts" in arrays else None
    return Draw(arrays["user_rows"], arrays["item_rows"], priors[0], priors[1], float(noise[0]), by_user, time, cuts)


def draw_shapes(
    sides: tuple[int, int],
    D: int,
    features: Sequence[Features | None],
    by_user: bool,
    calendar: Calendar | None,
    levels: int,
    drifting: int,
) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of a draw of so many users and items, and of factors that drift."""
    made: dict[str, tuple[int, ...]] = {"rest": (1 + 2 * D + 2 * D * D,)}
    made |= {} if calendar is None else TimeOffsets.shapes(calendar, drifting)
    made |= {"cuts": (levels,)} if levels else {}
    made |= {"user_noise": (sides[0] + 2,)} if by_user else {}
    for name, count, known in zip(("user", "item"), sides, features, strict=True):
        made[f"{name}_rows"] = (count, D)
        if known is not None:
            made |= {f"{name}_link": (known.count, D), f"{name}_ridge": (int(known.groups[-1]) + 1,)}
    return made


def trace_names(biased: bool, scales: Scales) -> list[str]:
    """What is followed through every sweep of a chain: numbers that mean the same however W and U are rotated.

    ``noise_std`` α^-½; ``factor_std``, the root mean square of wᵀu over all pairs under the priors; with biases,
    the priors' ``user_bias_std`` and ``item_bias_std``; with time, λ^-½ of its three kinds, and ``drift_std``, the
    root of v̄; of ratings that are steps, the cuts that are sampled; and ten predictions of pairs chosen at random.
    """
    biases = ["user_bias_std", "item_bias_std"] if biased else []
    times = [] if scales.clock is None else [f"{kind}_std" for kind in KINDS]
    times += ["drift_std"] if scales.drifting else []
    cuts = [f"cut_{k}" for k in range(2, scales.n_levels - 1)]
    return ["noise_std", "factor_std", *biases, *times, *cuts, *(f"prediction_{k}" for k in range(TRACED_PAIRS))]


def trace_scalars(draw: Draw, biased: bool) -> list[float]:
    """The values of the first of the :func:`trace_names`."""
    users, items = draw.users, draw.items
    covariances = [np.linalg.inv(prior.precision) for prior in (users, items)]
    K = len(users.mean) - biased
    seconds = [
        covariance[:K, :K] + np.outer(prior.mean[:K], prior.mean[:K])
        for covariance, prior in zip(covariances, (users, items), strict=True)
    ]
    made = [draw.noise_precision**-0.5, float(np.sqrt(np.sum(seconds[0] * seconds[1])))]
    made += [float(np.sqrt(covariance[K, K])) for covariance in covariances] if biased else []
    if draw.time is not None:
        made += (draw.time.precisions**-0.5).tolist()
        made += [] if draw.time.drift is None else [draw.time.drift.spread**0.5]
    return made + ([] if draw.cuts is None else draw.cuts.values[1:-1].tolist())


def check_arrays(name: str, arrays: Arrays, shapes: dict[str, tuple[int, ...]]) -> None:
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


def check_draws(name: str, draws: Sequence[Draw]) -> None:
    """Raise FormatError unless there is a draw, all noise precisions are positive, and those of the rows definite."""
    sound = len(draws) > 0 and all(draw.noise_precision > 0 for draw in draws)
    sound &= all(draw.user_noise is None or draw.user_noise.packed().min() > 0 for draw in draws)
    times = [draw.time for draw in draws if draw.time is not None]
    sound &= all(time.precisions.min() > 0 for time in times)
    sound &= all(time.drift is None or (time.drift.precision > 0 and time.drift.spread >= 0) for time in times)
    sound &= all(draw.cuts is None or bool((np.diff(draw.cuts.values) > 0).all()) for draw in draws)
    try:  # a Cholesky factorization, unlike eigenvalues, does not mind columns of very different size
        for draw in draws:
            np.linalg.cholesky(np.array([draw.users.precision, draw.items.precision]))
    except np.linalg.LinAlgError:
        sound = False
    if not sound:
        raise FormatError(
            f"The draws of {name} do not fit: there are none, or a noise precision or one of the rows is not "
            "positive; use another copy of the file."
        )


def rows_of(rows: Array, codes: Codes, prior: gibbs.RowPrior, strangers: Strangers | None = None) -> Array:
    """The rows of ``codes`` in float32; for negative ones, the mean of the prior, with what is known of them."""
    taken: Array = rows[np.maximum(codes, 0)].astype(np.float32)
    if len(codes) and int(codes.min()) < 0:
        new = codes < 0
        taken[new] = prior.mean
        if strangers is not None and prior.link is not None:
            taken[new] += strangers.shifts(prior.link, codes[new])
    return taken


def knowing(draw: Draw, known: CSR | None, spread: Array | None = None) -> Draw:
    """The draw as it is for one new user with these features (one row): the mean of the prior is theirs.

    ``spread`` (D, D) is the variance of what the features that are not known would add.
    """
    if known is None or draw.users.link is None:
        return draw
    shift = np.einsum("f,fd->d", known.values, draw.users.link.coefficients[known.indices].astype(np.float64))
    precision = draw.users.precision
    if spread is not None:
        precision = np.linalg.inv(np.linalg.inv(precision) + spread)
    return draw._replace(users=gibbs.RowPrior(draw.users.mean + shift, precision))


def prior_variance(
    draw: Draw, users: Codes, items: Codes, biased: bool, rows: tuple[Array, Array],
    spreads: tuple[Array | None, Array | None] = (None, None),
) -> Array:  # fmt: skip
    r"""Variance of :math:`w^\top u + b + c` of pairs of which a side (negative) is only known by its prior.

    With v = (u, 1): :math:`v^\top\Sigma_u v` for an unknown user, the mirror image for an unknown item, and for
    both also the trace of the product of the factors' covariances. ``rows`` are those of :func:`rows_of`; ``spreads``
    what features that are not known add to the covariance of either side.
    """
    user_wide, item_wide = (
        np.linalg.inv(prior.precision) + (0.0 if spread is None else spread)
        for prior, spread in zip((draw.users, draw.items), spreads, strict=True)
    )
    user_rows, item_rows = (part.copy() for part in rows)
    K = len(user_wide) - biased
    if biased:
        user_rows[:, K] = item_rows[:, K] = 1.0
    total: Array = np.einsum("pc,cd,pd->p", item_rows, user_wide, item_rows, optimize=True) * (users < 0)
    total += np.einsum("pc,cd,pd->p", user_rows, item_wide, user_rows, optimize=True) * (items < 0)
    return total + float(np.sum(user_wide[:K, :K] * item_wide[:K, :K])) * ((users < 0) & (items < 0))


def _design(rows: Array, biased: bool) -> Array:
    """V: rows in float64, with 1 in the place of the bias."""
    V = rows.astype(np.float64)
    if biased:
        V[:, -1] = 1.0
    return V


def user_given(draw: Draw, rated: Codes, values: Array, biased: bool, offset: float) -> tuple[Array, Array]:
    """Mean and covariance of a user's row, given a draw of everything else: A⁻¹y and A⁻¹."""
    V = _design(draw.item_rows[rated], biased)
    targets = values - offset - (draw.item_rows[rated, -1] if biased else 0.0)
    covariance = np.linalg.inv(draw.users.precision + draw.noise_precision * V.T @ V)
    y = draw.users.precision @ draw.users.mean + draw.noise_precision * V.T @ targets
    return covariance @ y, covariance


def expected_drops(
    draws: Sequence[Draw], rated: Codes, values: Sequence[Array], about: Codes, biased: bool, offset: float
) -> Array:
    """(M,): by how much a rating of each item would lower a user's mean predictive variance over the items ``about``.

    ``values`` are what the ratings tell each draw. See
    :meth:`gramian.models.bayes.posterior.BayesianModel.ask_next` for the equation.
    """
    size = len(draws[0].item_rows)
    cross, own, first, second = np.zeros((size, len(about)), np.float32), *np.zeros((3, size))
    for draw, told in zip(draws, values, strict=True):
        mean, covariance = user_given(draw, rated, told, biased, offset)
        V = _design(draw.item_rows, biased)
        spread = V @ covariance
        cross += spread.astype(np.float32) @ V[about].astype(np.float32).T
        own += np.einsum("jc,jc->j", spread, V)
        expected = V @ mean + (draw.item_rows[:, -1] if biased else 0.0)
        first += expected
        second += expected**2
    cross[about, np.arange(len(about))] = 0.0  # what it tells about its own item is not about the user
    others = np.full(size, len(about))
    others[about] -= 1
    S = len(draws)
    variance = own / S + second / S - (first / S) ** 2
    noise = float(np.mean([1 / draw.noise_precision for draw in draws]))
    told = np.square(cross / S, dtype=np.float64).sum(axis=1) / np.maximum(others, 1)
    return np.asarray(told / (noise + variance))


def contributions(draw: Draw, rated: Codes, values: Array, item: int, biased: bool, offset: float) -> Array:
    r"""The terms of :math:`(u, 0)^\top A^{-1} \alpha \sum_j v_j t_j`: what each rating adds through the factors."""
    V = _design(draw.item_rows[rated], biased)
    targets = values - offset - (draw.item_rows[rated, -1] if biased else 0.0)
    target = draw.item_rows[item].astype(np.float64)
    if biased:
        target[-1] = 0.0
    _, covariance = user_given(draw, rated, values, biased, offset)
    terms: Array = V @ (covariance @ target) * targets * draw.noise_precision
    return terms


def mean_directions(draws: Sequence[Draw], factors: int) -> tuple[Array, Array]:
    """W and U of the best rank-K approximation to the mean of WUᵀ over up to 50 of the draws, by subspace iteration."""
    some = draws[:: -(-len(draws) // POINT_DRAWS)]
    W = [draw.user_rows[:, :factors].astype(np.float32) for draw in some]
    U = [draw.item_rows[:, :factors].astype(np.float32) for draw in some]
    Q = np.linalg.qr(U[-1])[0]
    for _ in range(3):
        left = np.sum([w @ (u.T @ Q) for w, u in zip(W, U, strict=True)], axis=0)
        Q = np.linalg.qr(np.sum([u @ (w.T @ left) for w, u in zip(W, U, strict=True)], axis=0))[0]
    left = np.mean([w @ (u.T @ Q) for w, u in zip(W, U, strict=True)], axis=0)
    missing = ((0, 0), (0, factors - Q.shape[1]))  # fewer items than factors
    return np.pad(left, missing), np.pad(Q, missing)
