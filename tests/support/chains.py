"""Chains of the Gibbs sampler moved by hand."""

from __future__ import annotations

import numpy as np

from gramian.engine.rows import Intercepts
from gramian.kernels.csr import csr_from_sorted
from gramian.models.bayes import gibbs
from gramian.models.bayes.bundles import Chance, Setup
from gramian.models.bayes.gibbs import BothWays
from gramian.models.bayes.state import USERS, RowPrior, State
from gramian.models.bayes.terms.collection import Terms


def both_ways(users, items, values, shape) -> BothWays:
    """The ratings by user and by item."""
    order, turned = np.lexsort((items, users)), np.lexsort((users, items))
    by_user = csr_from_sorted(users[order], items[order], values[order], shape[0])
    by_item = csr_from_sorted(items[turned], users[turned], values[turned], shape[1])
    return BothWays(by_user, by_item, np.argsort(by_user.indices, kind="stable"))


def swept(chain, ways, hyper, key, biased, offset, terms=None, n_jobs=None) -> gibbs.Swept:
    """One sweep; without ``terms``, of ratings alone."""
    return gibbs.sweep(chain, ways, terms or Terms(), hyper, key, Setup(Intercepts(biased, offset), n_jobs))


def flat(chain):
    """The parameters of a chain that knows of nothing beside the ratings, one by one."""
    return [chain.user_rows, chain.item_rows, *chain.users, *chain.items, np.array(chain.noise_precision)]


def drawn_prior(rows, hyper, rng, term=None, value=None, n_jobs=None):
    """The prior of the users' rows given these, and the value of a term that moves its mean."""
    empty = RowPrior(np.zeros(rows.shape[1]), np.eye(rows.shape[1]))
    state = State(rows, rows[:0], empty, empty, 1.0, {} if term is None else {term.name: value})
    terms = Terms(() if term is None else (term,))
    made, _ = gibbs.draw_prior(state, USERS, terms, hyper, Chance(rng, (0, 0, 0), n_jobs))
    return made.users, None if term is None else term.of(made)
