r"""What a term is: one more piece of knowledge in Bayesian matrix factorization, in a file of its own.

A rating is :math:`N(\mu + b_i + c_j + w_i^\top u_j + \dots,\ (\alpha\omega)^{-1})`, and a row of a side
:math:`N(m + \dots,\ \Lambda^{-1})`. A term adds to one of these four places:

- :class:`Observation`: what is observed. Steps hide a number, say, which is drawn.
- :class:`Weighting`: ω, how much a rating counts.
- :class:`PriorMean`: the mean of the rows of one side.
- :class:`Addition`: the mean of a rating.

A term is made for the ratings of a training: it has what is known of them beforehand (cells in time, features, levels),
and the name by which a draw holds its *value*, what is sampled of it. A term says: the value that a chain starts at;
how it is drawn given the rest; what it does to pairs that are asked for; how it is drawn anew for new ratings and for
somebody new; and its arrays, their shapes and what is followed of it. The sweep, the update, the fold-in and the scores
are loops over the terms of a recipe (:class:`gramian.models.bayes.terms.collection.Terms`), and know none by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar, Generic, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt

from gramian.core.file_format import Arrays
from gramian.data.ids import Codes, Ids
from gramian.data.pairs import Pairs
from gramian.data.table import RatingsTable
from gramian.engine.rows import Rows, Weights
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.bayes.bundles import Beginning, Chance, FoldInRatings, Rest, Some
from gramian.models.bayes.state import State

__all__ = ["Addition", "FoldInPart", "Knowledge", "Observation", "PriorMean", "Term", "Weighting"]

V = TypeVar("V")


# ---- any term ----------------------------------------------------------------------------------------


class Term(ABC, Generic[V]):
    """One more piece of knowledge; V is the type of its value in a draw.

    Attributes:
        name: By which a draw holds the value; no two terms of a recipe share one.
        settings: The fields of the recipe that ask for it, with the values that do not.
        distributed: Whether it can be sampled where the ratings are on a cluster.
    """

    name: str
    settings: ClassVar[Mapping[str, object]] = {}
    distributed: ClassVar[bool] = False

    def of(self, state: State) -> V:
        """Its value in a draw."""
        return cast(V, state.terms[self.name])

    def put(self, state: State, value: V) -> State:
        """The draw with another value."""
        return state._replace(terms={**state.terms, self.name: value})

    # ---- while sampling -------------------------------------------------------------------------

    @abstractmethod
    def start(self, begin: Beginning) -> V:
        """The value that a chain starts at."""

    def shown(self, value: V, users: Array, items: Array) -> tuple[V, Array]:
        """The value as a kept draw has it, and the rows of the users that go with it."""
        return value, users

    def compacted(self, value: V, dtype: npt.DTypeLike, n_jobs: int | None = None) -> V:
        """The value in as little memory as it needs, arrays in ``dtype`` where they suit it."""
        return value

    def trace_names(self) -> list[str]:
        """What is followed of it through every sweep."""
        return []

    def trace(self, value: V) -> list[float]:
        """The numbers that these are."""
        return []

    def record(self, values: Sequence[V]) -> dict[str, float]:
        """What goes into the history of a sweep, of its value in every chain."""
        return {}

    # ---- new ratings ----------------------------------------------------------------------------

    @abstractmethod
    def rebound(self, ratings: RatingsTable) -> Self:
        """The same term for more ratings: known users and items keep their codes, others come after them."""

    def check_new(self, new: RatingsTable) -> None:
        """Raise DataError where it cannot learn from new ratings."""
        return

    def grown(self, value: V, before: Self) -> V:
        """A value of the term as it was ``before`` more ratings came."""
        return value

    def kept_dtype(self, value: V, rows: npt.DTypeLike) -> npt.DTypeLike:
        """The precision of a kept value, ``rows`` being that of the rows."""
        return rows

    # ---- in a file --------------------------------------------------------------------------------

    def arrays(self) -> Arrays:
        """What it knows beforehand and a file must have, by names of its own.

        What makes the term of a file checks them, by :func:`gramian.core.file_format.checked_arrays` say.
        """
        return {}

    @abstractmethod
    def packed(self, value: V) -> Arrays:
        """A value as named arrays, float ones."""

    @abstractmethod
    def unpacked(self, arrays: Arrays) -> V:
        """The value that :meth:`packed` took apart."""

    @abstractmethod
    def shapes(self, begin: Beginning) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays of :meth:`packed`, of draws of these sizes."""

    def is_sound(self, value: V) -> bool:
        """Whether a value read from a file can be one: precisions that are positive, say."""
        return True

    def light(self) -> Self:
        """The term without what stands beside each rating, for models that are sent away without their ratings."""
        return self


# ---- what is observed --------------------------------------------------------------------------------


class Observation(Term[V]):
    """What is observed: not the rating, but a step, say, behind which a number is hidden.

    Attributes:
        levels: The different ratings, ascending.
    """

    levels: npt.NDArray[np.float64]

    @property
    def fixes_noise(self) -> bool:
        """Whether α is not to be sampled, for the ratings say nothing of a width."""
        return False

    @abstractmethod
    def observed_at(self, places: Array | slice) -> Array:
        """What is observed of some ratings of the training, by their places in the order of the users."""

    @abstractmethod
    def observed(self, values: Array) -> Array:
        """What is observed of any ratings."""

    @abstractmethod
    def drawn(self, value: V, rows: CSR, mean: Array, stds: Array, chance: Chance) -> tuple[V, Array]:
        """The value, and the hidden number of every rating, given their means (n,) and the noise of each row."""

    @abstractmethod
    def hidden(self, value: V, rows: CSR, observed: Array, mean: Array, stds: Array, chance: Chance) -> Array:
        """The hidden numbers of ratings of which this is observed, given their means and the noise of each row."""

    @abstractmethod
    def cuts(self, value: V) -> Array:
        """Between which numbers a rating is which of the levels, (L − 1,), ascending."""

    @abstractmethod
    def expected(self, value: V, mean: Array, std: Array) -> Array:
        """The expected rating where the hidden number has this mean and this standard deviation, float64."""

    @abstractmethod
    def expect(self, value: V, scores: Array, stds: Array, n_jobs: int | None = None) -> None:
        """Turn hidden means, (rows, columns), into expected ratings in place; ``stds`` (rows,)."""


# ---- how much a rating counts ------------------------------------------------------------------------


class Weighting(Term[V]):
    """How much a rating counts: ω, one number for each user."""

    @abstractmethod
    def weights(self, value: V, rows: Rows, side: int) -> Array | Weights:
        """ω of each rating of all rows of a side."""

    @abstractmethod
    def weights_of(self, value: V, rows: CSR, changed: Codes, side: int) -> Array:
        """The same of the ratings of some of the rows."""

    @abstractmethod
    def factors(self, value: V, users: Codes) -> Array:
        """ω of a rating by each of these users; by unknown ones (negative), as by anybody."""

    @abstractmethod
    def drawn(self, value: V, counts: Array, squared: Array, noise_precision: float, chance: Chance) -> V:
        """The value, given the number and Σ e² of each user's ratings, and α."""


# ---- the mean of the rows ----------------------------------------------------------------------------


class Knowledge(ABC, Generic[V]):
    """What a term about prior means knows of one row.

    Attributes:
        lacking: What it does not know, for :meth:`PriorMean.spread`; None where all is known.
    """

    lacking: Hashable

    @abstractmethod
    def mean(self, value: V) -> Array:
        """By how much it moves the mean of the row, (D,), float64."""


class PriorMean(Term[V]):
    """What moves the mean of the prior of one side's rows: that of the users (0) or the items (1)."""

    side: int

    @abstractmethod
    def means(self, value: V, n_jobs: int | None = None) -> Array:
        """By how much it moves the mean of each row, (rows, D)."""

    @abstractmethod
    def means_of(self, value: V, rows: Codes, n_jobs: int | None = None) -> Array:
        """The same of some of the rows."""

    @abstractmethod
    def as_rows(self, value: V, n_jobs: int | None = None) -> tuple[int, Array]:
        """How many rows of mean 0 and precision Λ its value is worth, having Λ in its own prior; and their Σ x xᵀ."""

    @abstractmethod
    def drawn(self, value: V, rows: Array, mean: Array, root: Array, chance: Chance) -> V:
        """The value, given the rows (less what other terms add), their common mean, and L of the precision LLᵀ."""

    @abstractmethod
    def explained(self, value: V, precision: Array, columns: slice) -> list[tuple[str, float]]:
        """The shares of the variance of some columns of the rows that it explains, each with its name."""

    # ---- one row, and rows that were not in training -----------------------------------------------

    @abstractmethod
    def knowledge(self, row: int) -> Knowledge[V]:
        """What it knows of a row of the training."""

    @abstractmethod
    def fold_in(self, items: Codes, about: object) -> Knowledge[V]:
        """What it knows of somebody new who rated these items, of whom ``about`` is known (None for nothing)."""

    def found(self, ids: Ids) -> Codes | None:
        """Codes of ids that it knows though they have no ratings: −2, −3, …; −1 for others; None if it knows none."""
        return None

    def knows(self, value: object) -> bool:
        """Whether it has something to tell of an id."""
        return False

    @abstractmethod
    def means_unseen(self, value: V, codes: Codes) -> Array:
        """By how much it moves the mean of rows that were not in training, (codes, D)."""

    @abstractmethod
    def lacking(self, code: int) -> Hashable:
        """What it does not know of the row of a code, for :meth:`spread`; None where all is known."""

    @abstractmethod
    def spread(self, value: V, lacking: Hashable) -> Array:
        """The variance of what is not known of a row, (D, D)."""


# ---- the mean of a rating ----------------------------------------------------------------------------


class Addition(Term[V]):
    """What is added to the mean of a rating.

    In the order of a recipe additions are summed up; they are drawn in the reverse order, each given what the rows and
    the others leave.

    Attributes:
        in_rows: Whether it moves the users' rows themselves by something of the rating, so that the items are drawn
            given the moved rows (:meth:`moved_rows`).
    """

    in_rows: ClassVar[bool] = False

    # ---- the ratings of the training ---------------------------------------------------------------

    @abstractmethod
    def added(self, value: V, items: Array, n_jobs: int | None = None) -> Array:
        """What it adds to each rating, (n,), float64, in the order of the users."""

    @abstractmethod
    def added_to(self, value: V, some: Some) -> Array:
        """The same of some of the ratings; ``some.fixed`` are the rows of the items."""

    @abstractmethod
    def drawn(self, value: V, left: Array, beside: Array | None, rest: Rest, chance: Chance) -> tuple[V, Array]:
        """The value, given what is left of the ratings; and ``left`` less what it adds.

        Args:
            value: Before.
            left: (n,), float64: what the rows, and the additions drawn before, leave.
            beside: What the additions that are drawn after it add, which is in ``left``, too; or None.
            rest: All else.
            chance: Of the draw.
        """

    def redrawn(
        self, value: V, before: Self, side: int, some: Some, left: Array, beside: Array | None, rest: Rest,
        chance: Chance,
    ) -> tuple[V, Array]:  # fmt: skip
        """The part of the value that belongs to some rows of a side, drawn anew given all of their ratings.

        ``before`` is the term as it was before the new ratings came; ``some`` are the ratings of these rows, with the
        rows of the other side (which ``rest.items`` are, too). The rest is as in :meth:`drawn`. A value that belongs
        to no row stays as it was.
        """
        return value, left - self.added_to(value, some)

    def moved_rows(self, value: V, rows: CSR, users: Array, places: Array | None = None) -> tuple[CSR, Array]:
        """Ratings by item as ratings of moved rows of the users, and these rows; of all, or those at some places."""
        return rows, users

    # ---- pairs that are asked for ------------------------------------------------------------------

    def find(self, pairs: Pairs) -> object:
        """What it looks up for pairs, once for all draws."""
        return None

    @abstractmethod
    def at(self, value: V, pairs: Pairs, found: object, items: Array) -> Array | None:
        """What it adds to pairs, (n,), ``items`` being the items' rows of each; None for nothing."""

    def add_variance(self, total: Array, value: V, found: object) -> None:
        """Add to ``total``, (n,), the variance of what is not known of it for pairs."""
        return

    def move(self, value: V, rows: Array, found: object, which: Array) -> None:
        """Move the users' rows of some (``which``) of the pairs, in place."""
        return

    def levels(self, value: V, side: int) -> Array | None:
        """What it usually adds to the ratings of each row of a side; None for nothing."""
        return None

    def level(self, value: V) -> Array | None:
        """What it usually adds to every rating, (1,); None for nothing."""
        return None

    # ---- somebody new ------------------------------------------------------------------------------

    def fold_in(self, who: FoldInRatings) -> FoldInPart[V]:
        """What it adds to the ratings of somebody new."""
        return FoldInPart(self, who)


class FoldInPart(Generic[V]):
    """What an addition adds to the ratings of somebody new, while their row is drawn.

    Attributes:
        own: (n,), what is drawn for this person; zeros where there is no such thing.
    """

    def __init__(self, term: Addition[V], who: FoldInRatings) -> None:
        self.term, self.pairs = term, Pairs(np.full(len(who.items), -1, np.int32), who.items, who.times)
        self.found = term.find(self.pairs)
        self.own = np.zeros(len(who.items))

    def known(self, value: V, items: Array) -> Array | None:
        """What it adds in a draw beside that; ``items`` are the rows of the items."""
        return self.term.at(value, self.pairs, self.found, items)

    def draw(self, value: V, left: Array, rest: Rest, chance: Chance) -> None:
        """Draw :attr:`own` anew, given what is left of the ratings without it."""
        return

    def finish(self, row: Array, biased: bool) -> None:
        """Add to a drawn row what the person's own part usually adds."""
        return
