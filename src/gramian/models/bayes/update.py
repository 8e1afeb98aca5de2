"""New ratings in a draw: the rows that have some, and what time adds to them, drawn anew given all the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gramian.data.ids import Codes
from gramian.engine import entries
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.bayes import gibbs
from gramian.models.bayes.state import Draw, compact, compacted_prior
from gramian.models.bayes.terms.ordinal import Ladder
from gramian.models.bayes.terms.side_information import Features
from gramian.models.bayes.terms.time_factors import Drift, by_cell, centred, deviations, rows_of_days, unknown_variance
from gramian.models.bayes.terms.time_offsets import Calendar, TimeOffsets, levelled, redrawn_cells, regrown
from gramian.models.bayes.terms.user_noise import of_items, of_users

__all__ = ["Renewal", "redrawn"]


class Renewal(NamedTuple):
    """What a model has new: its ratings by user and by item, the users and items with new ones, and how to draw."""

    ratings: tuple[CSR, CSR]
    changed: tuple[Codes, Codes]
    biased: bool
    offset: float
    n_jobs: int | None
    features: Sequence[Features | None] = (None, None)
    calendars: tuple[Calendar, Calendar] | None = None  # of the old and of all ratings
    ladder: Ladder | None = None

    @property
    def how(self) -> dict[str, Any]:
        """The arguments that every engine takes."""
        return {"biased": self.biased, "offset": self.offset, "n_jobs": self.n_jobs}

    def places(self, which: int) -> Array:
        """Where the ratings of the changed rows of a side stand in the order of the users."""
        places = self.ratings[which].places(self.changed[which])
        order = self.ladder if self.calendars is None else self.calendars[1]
        return places if which == gibbs.USERS or order is None else order.turned[places]


def redrawn(draw: Draw, new: Renewal, key: tuple[int, int]) -> Draw:
    """The draw with the changed users drawn anew, then the changed items given them, then the users once more.

    New rows start at the mean of their prior. Rows, priors and noise of the rest stay as they are; a new row of one
    side is a feature of the other side's sets, of which nothing is known: its β is zero. What time adds to the
    ratings of the changed rows is drawn after them.
    """
    sides = [draw.user_rows.astype(np.float32), draw.item_rows.astype(np.float32)]
    priors = [
        _grown(prior, known, len(other))
        for prior, known, other in zip((draw.users, draw.items), new.features, reversed(sides), strict=True)
    ]
    for which, prior in enumerate(priors):
        started = np.tile(prior.mean.astype(np.float32), (new.ratings[which].n_rows - len(sides[which]), 1))
        sides[which] = np.concatenate([sides[which], started])
    noise = None if draw.user_noise is None else draw.user_noise.grown(new.ratings[0].n_rows)
    time = None if draw.time is None or new.calendars is None else regrown(draw.time, *new.calendars)
    made = draw._replace(users=priors[0], items=priors[1], user_noise=noise, time=time)
    rng = np.random.default_rng([*key])
    for turn, which in enumerate((gibbs.USERS, gibbs.ITEMS, gibbs.USERS)):
        made = _turn(made, sides, new, which, (key[0], key[1] + turn, which), rng)
    return _as_before(made, sides, draw, new)


def _turn(
    draw: Draw, sides: list[Array], new: Renewal, which: int, key: tuple[int, int, int], rng: np.random.Generator
) -> Draw:
    """The changed rows of one side, written to ``sides``, and what time adds to their ratings."""
    changed, known = new.changed[which], new.features[which]
    part, weights, other = new.ratings[which].take(changed), _weights(draw, new, which), sides[1 - which]
    places = new.places(which)
    part, other, added = _with_times(draw, part, other, new, which, places)
    seen = _seen(draw, part, sides[which][changed], other, new, places, added, weights, key)
    told = part._replace(values=(seen - added).astype(np.float32))
    sides[which][changed] = gibbs.draw_rows(
        told, other, (draw.users, draw.items)[which], draw.noise_precision, key,
        features=None if known is None else known.take(changed), weights=weights, **new.how,
    )[0]  # fmt: skip
    if draw.time is None or new.calendars is None:
        return draw
    away = seen - entries.predictions(part, sides[which][changed], other, **new.how)
    time = draw.time
    if time.drift is not None and which == gibbs.USERS:
        days = new.calendars[1].kinds[0].codes[places]
        left = away - time.of(new.calendars[1], places)
        drift = _redrawn_drift(time.drift, days, part, other, left, weights, draw, key, new.n_jobs)
        time, away = time._replace(drift=drift), away - drift.at(days, other[part.indices])
    time = redrawn_cells(new.calendars, which, time, places, away, weights, draw.noise_precision, rng)
    return draw._replace(time=time)


def _with_times(
    draw: Draw, part: CSR, other: Array, new: Renewal, which: int, places: Array
) -> tuple[CSR, Array, Array]:
    """The ratings of the changed rows, the other side's rows for them, and what time adds beside these."""
    if draw.time is None or new.calendars is None:
        return part, other, np.zeros(len(places))
    calendar, drift = new.calendars[1], draw.time.drift
    added = draw.time.of(calendar, places)
    if drift is None:
        return part, other, added
    days = calendar.kinds[0].codes[places]
    if which == gibbs.ITEMS:
        there, days = np.unique(days, return_inverse=True)
        return part._replace(indices=days.astype(np.int32)), rows_of_days(drift, calendar, other, there), added
    return part, other, added + drift.at(days, other[part.indices])


def _redrawn_drift(
    drift: Drift, days: Array, part: CSR, items: Array, left: Array, weights: Array | None, draw: Draw,
    key: tuple[int, int, int], n_jobs: int | None,
) -> Drift:  # fmt: skip
    """The deviations on the days of the changed users, drawn anew."""
    there, local = np.unique(days, return_inverse=True)
    cells = by_cell(local, len(there), part.indices)
    rows = drift.rows.copy()
    rows[there] = deviations(
        cells, left, drift.factors(items), weights, drift.precision, draw.noise_precision, key, n_jobs
    )
    return drift._replace(rows=rows)


def _weights(draw: Draw, new: Renewal, which: int) -> Array | None:
    """ω of the ratings of the changed rows."""
    noise, part = draw.user_noise, new.ratings[which].take(new.changed[which])
    if which == gibbs.ITEMS or noise is None:
        return of_items(noise, part)
    return of_users(noise._replace(factors=noise.factors[new.changed[which]]), part)


def _seen(
    draw: Draw, part: CSR, rows: Array, other: Array, new: Renewal, places: Array, added: Array,
    weights: Array | None, key: tuple[int, int, int],
) -> Array:  # fmt: skip
    """The ratings of the changed rows; of steps, latent ones, drawn given the rows so far."""
    if new.ladder is None or draw.cuts is None:
        return part.values.astype(np.float64)
    mean = entries.predictions(part, rows, other, **new.how) + added
    # by the rating: among an item's ratings the noise differs
    each = part._replace(indptr=np.arange(len(places) + 1))
    stds = np.broadcast_to(draw.noise_precision**-0.5, len(places)) / np.sqrt(1.0 if weights is None else weights)
    return entries.latent(each, new.ladder.steps[places], mean, draw.cuts.values, stds, key, new.n_jobs)


def _as_before(made: Draw, sides: list[Array], draw: Draw, new: Renewal) -> Draw:
    """The draw in the precision that it had."""
    drift = None if made.time is None else made.time.drift
    if drift is not None and new.calendars is not None:
        spread = unknown_variance(drift.precision, drift.factors(sides[gibbs.ITEMS]))
        drift, sides[gibbs.USERS] = centred(drift._replace(spread=spread), new.calendars[1], sides[gibbs.USERS])
    kept = (draw.user_rows, draw.item_rows)
    users, items = (compact(rows, old.dtype, new.n_jobs) for rows, old in zip(sides, kept, strict=True))
    priors = [
        prior if old.link is None else compacted_prior(prior, old.link.coefficients.dtype, new.n_jobs)
        for prior, old in zip((made.users, made.items), (draw.users, draw.items), strict=True)
    ]
    time: TimeOffsets | None = None
    if made.time is not None and new.calendars is not None:
        dtype = draw.user_rows.dtype
        time = levelled(new.calendars[1], made.time.offsets, made.time.precisions, drift)
        time = time.mapped(lambda part: compact(part, dtype, new.n_jobs))
    return made._replace(user_rows=users, item_rows=items, users=priors[0], items=priors[1], time=time)


def _grown(prior: gibbs.RowPrior, known: Features | None, others: int) -> gibbs.RowPrior:
    """The prior with β in float32 and zeros for features that came after the ``others`` of the sets."""
    if prior.link is None or known is None:
        return prior
    beta = prior.link.coefficients.astype(np.float32)
    new = known.count - len(beta)
    beta = np.insert(beta, [others] * new, 0.0, axis=0) if new else beta
    return prior._replace(link=prior.link._replace(coefficients=beta))
