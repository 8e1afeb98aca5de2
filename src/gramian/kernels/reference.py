r"""The slow, obvious twin of every kernel, in plain NumPy, straight from the equations.

It is also the copy to learn from. The model is

.. math:: \hat r_{ij} = \mu + b_i + c_j + w_i^\top u_j

with user factors W (N × K), item factors U (M × K), user biases b, item biases c and the global mean μ. The
objective, over the set Ω of observed pairs, is

.. math::
    J = \sum_{(i,j)\in\Omega} (r_{ij} - \hat r_{ij})^2
        + \lambda\left(\|W\|_F^2 + \|U\|_F^2\right) + \lambda_b\left(\|b\|^2 + \|c\|^2\right)

J is quadratic in any one of W, U, b, c while the others are fixed. Its gradient for one user's factors,

.. math:: \tfrac12\,\partial J/\partial w_i = -\sum_{j\in\Psi_i}(r_{ij}-\hat r_{ij})\,u_j + \lambda w_i,

vanishes where a K × K linear system holds, and that for the user's bias where a mean does:

.. math::
    w_i = \Big(\lambda I + \sum_{j\in\Psi_i} u_j u_j^\top\Big)^{-1} \sum_{j\in\Psi_i}(r_{ij}-b_i-c_j-\mu)\,u_j,
    \qquad
    b_i = \frac{\sum_{j\in\Psi_i}(r_{ij}-w_i^\top u_j-c_j-\mu)}{|\Psi_i| + \lambda_b}

Every update uses the newest values, so that J never rises (some listings of this scheme sum for :math:`b_i` with
the :math:`w_i` from before its update). Items mirror users: where a user's update has :math:`c_j`, an item's has
:math:`b_i`.
:func:`listing_by_loops` and :func:`listing_by_rows` do exactly this, rating by rating and row by row.
:func:`half_sweep` solves factors and bias together, as one system with a constant 1 appended to
:math:`u_j`; this is what :class:`gramian.ALS` does by default.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR

__all__ = [
    "ADAM_DECAY",
    "DESCENT_EPSILON",
    "DESCENT_RULES",
    "block_half_sweep",
    "cg_half_sweep",
    "cuts_log_likelihood",
    "descend",
    "explain_row",
    "gradient",
    "half_sweep",
    "latent_ratings",
    "listing_by_loops",
    "listing_by_rows",
    "minimum_norm_row",
    "normal_wishart",
    "normals",
    "objective",
    "offsets_given",
    "philox",
    "ridge_draw",
    "row_system",
    "soft_impute",
    "squared_errors",
    "svd_by_eigen",
]


def listing_by_loops(
    rows: CSR,
    W: Array,
    b: Array,
    U: Array,
    c: Array,
    mu: float,
    regularization: float,
    bias_regularization: float,
) -> None:
    """One side's update rating by rating, in place: W[i], then b[i] with the new W[i]."""
    K = W.shape[1]
    for i in range(rows.n_rows):
        items, ratings = rows.row(i)
        if len(items) == 0:
            continue
        matrix = regularization * np.eye(K)
        vector = np.zeros(K)
        for j, r in zip(items, ratings, strict=True):
            matrix += np.outer(U[j], U[j])
            vector += (r - b[i] - c[j] - mu) * U[j]
        W[i] = np.linalg.solve(matrix, vector)
        total = 0.0
        for j, r in zip(items, ratings, strict=True):
            total += r - W[i] @ U[j] - c[j] - mu
        b[i] = total / (len(items) + bias_regularization)


def listing_by_rows(
    rows: CSR,
    W: Array,
    b: Array,
    U: Array,
    c: Array,
    mu: float,
    regularization: float,
    bias_regularization: float,
) -> None:
    """The same update vectorized per row: the Gramian of a row is one matrix product."""
    ridge = regularization * np.eye(W.shape[1])
    for i in range(rows.n_rows):
        items, ratings = rows.row(i)
        if len(items) == 0:
            continue
        V = U[items]
        rest = ratings - c[items] - mu
        W[i] = np.linalg.solve(V.T @ V + ridge, V.T @ (rest - b[i]))
        b[i] = (rest - V @ W[i]).sum() / (len(items) + bias_regularization)


def row_system(
    indices: Array, values: Array, other: Array, *, biased: bool, offset: float, precision: Array, by_count: bool,
    linear: Array | None = None, weights: Array | None = None, shared: Array | None = None,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """``(V, t, A, y)`` of one row: design, targets, A = sΛ + S + Σ ω v vᵀ and y = sΛm + Σ ω t v."""
    V = np.array(other[indices], np.float64)
    targets = values.astype(np.float64) - offset
    if biased:
        targets -= V[:, -1]
        V[:, -1] = 1.0
    omega = np.ones(len(V)) if weights is None else weights.astype(np.float64)
    scale = max(len(indices), 1) if by_count else 1
    A = scale * precision.astype(np.float64) + (V.T * omega) @ V
    y = V.T @ (omega * targets)
    if shared is not None:
        A = A + shared
    if linear is not None:
        y = y + scale * linear.astype(np.float64)
    return V, targets, A, y


def half_sweep(
    rows: CSR, other: Array, *, biased: bool, offset: float, precision: Array, by_count: bool = False,
    linear: Array | None = None, weights: Array | None = None, shared: Array | None = None,
    draw: tuple[int, int, int] | None = None, spread: float = 1.0,
) -> Array:  # fmt: skip
    """Solve every row of one side, given the other; the minimum-norm solution where A is singular.

    The arguments are those of :func:`gramian.kernels.sweep.half_sweep.prepared`.
    """
    out = np.zeros((rows.n_rows, other.shape[1]))
    for i in range(rows.n_rows):
        part = slice(rows.indptr[i], rows.indptr[i + 1])
        system: dict[str, Any] = {
            "biased": biased, "offset": offset, "precision": precision, "by_count": by_count, "shared": shared,
            "linear": None if linear is None else np.broadcast_to(linear, out.shape)[i],
            "weights": None if weights is None else weights[part],
        }  # fmt: skip
        indices, values = rows.row(i)
        out[i] = minimum_norm_row(indices, values, other, **system)
        if draw is not None:
            L = np.linalg.cholesky(row_system(indices, values, other, **system)[2])
            out[i] += spread * np.linalg.solve(L.T, normals(len(out[i]), *draw, i))
    return out


def cg_half_sweep(rows: CSR, here: Array, other: Array, steps: int, **system: Any) -> Array:
    """Some steps of conjugate gradient on A x = y from every row so far, preconditioned by A's diagonal."""
    out = np.zeros(here.shape)
    for i in np.flatnonzero(rows.counts).tolist():
        _, _, A, y = row_system(*rows.row(i), other, **system)
        x = here[i].astype(np.float64)
        M = np.where(np.diag(A) > 0, np.diag(A), np.inf)
        r = y - A @ x
        p = r / M
        for _ in range(steps):
            length = r @ (r / M)
            if length == 0:
                break
            along = length / (p @ A @ p)
            x = x + along * p
            r = r - along * (A @ p)
            p = r / M + (r @ (r / M)) / length * p
        out[i] = x
    return out


def block_half_sweep(rows: CSR, here: Array, other: Array, width: int, **system: Any) -> Array:
    """Every row's columns solved in blocks, each given the newest of the rest; the bias goes with the last block."""
    out = np.zeros(here.shape)
    factors = here.shape[1] - system["biased"]
    for i in np.flatnonzero(rows.counts).tolist():
        _, _, A, y = row_system(*rows.row(i), other, **system)
        out[i] = here[i]
        for first in range(0, factors, width):
            last = here.shape[1] if first + width >= factors else first + width
            B = slice(first, last)
            out[i, B] += np.linalg.solve(A[B, B], y[B] - A[B] @ out[i])
    return out


def minimum_norm_row(indices: Array, values: Array, other: Array, **system: Any) -> Array:
    """X = A⁺y: the solution of one row, of least norm where there are many (λ = 0, few ratings).

    Without a prior this is the least-squares problem on V itself, which loses half as many digits as its Gramian.
    """
    V, targets, A, y = row_system(indices, values, other, **system)
    plain = all(system.get(name) is None for name in ("linear", "weights", "shared"))
    if plain and not np.any(system["precision"]):
        tolerance = np.finfo(other.dtype).eps * max(V.shape)
        return np.linalg.lstsq(V, targets, rcond=tolerance)[0]
    eigenvalues, Q = np.linalg.eigh(A)
    large = eigenvalues > eigenvalues[-1] * len(A) * np.finfo(np.float64).eps
    return Q[:, large] @ ((Q[:, large].T @ y) / eigenvalues[large])


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al. 2011) on Python integers: four random words of 32 bits."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    mask = 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & mask, (p0 >> 32) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c0, c1, c2, c3


def normals(count: int, seed: int, sweep: int, side: int, row: int) -> Array:
    """The first ``count`` normals of a row: Box-Muller on the words of Philox."""
    mask = 0xFFFFFFFF
    made: list[float] = []
    for block in range(-(-count // 4)):
        counter = (block, row & mask, sweep & mask, side ^ (row >> 32) << 8)
        words = philox(counter, (seed & mask, seed >> 32))
        for first, second in (words[:2], words[2:]):
            radius = np.sqrt(-2 * np.log((first + 0.5) / 2**32))
            angle = 2 * np.pi * (second + 0.5) / 2**32
            made += [radius * np.cos(angle), radius * np.sin(angle)]
    return np.array(made[:count])


def normal_wishart(
    rows: Array, center: Array, strength: float, degrees: float, inverse_scale: Array, bartlett: Array, z: Array
) -> tuple[Array, Array, Array, float]:
    """``(m, Λ, W_*⁻¹, ν_*)``: a draw of the mean and the precision of the rows, and the Wishart it is from.

    ``bartlett`` is A, lower triangular, with A_kk² ~ χ²(ν_* − k) and normals below; z are D normals. See
    :mod:`gramian.kernels.sampling.wishart` for the equations.
    """
    X, n = np.asarray(rows, np.float64), len(rows)
    away = X.mean(axis=0) - center
    pull = strength * n / (strength + n)
    inverse = inverse_scale + (X - X.mean(axis=0)).T @ (X - X.mean(axis=0)) + pull * np.outer(away, away)
    T = np.linalg.cholesky(inverse)
    root = np.linalg.solve(T.T, bartlett)
    mean = (strength * center + X.sum(axis=0)) / (strength + n)
    mean = mean + T @ np.linalg.solve(bartlett.T, z) / np.sqrt(strength + n)
    return mean, root @ root.T, inverse, degrees + n


def offsets_given(
    codes: Array, count: int, left: Array, weights: Array, noise_precision: float, precision: float
) -> tuple[Array, Array]:
    """Mean and variance of the offset of each cell, given what is left of the ratings in it."""
    means, variances = np.zeros(count), np.zeros(count)
    for cell in range(count):
        inside = codes == cell
        known = precision + noise_precision * weights[inside].sum()
        means[cell] = noise_precision * (weights[inside] * left[inside]).sum() / known
        variances[cell] = 1 / known
    return means, variances


def latent_ratings(rows: CSR, steps: Array, mean: Array, cuts: Array, stds: Array, key: tuple[int, int, int]) -> Array:
    """Each latent rating, normal between the cuts of its step, from the uniform number of its place in its row."""
    from scipy.special import ndtr, ndtri

    seed, sweep, side = key
    mask, out, edges = 0xFFFFFFFF, np.zeros(len(steps)), np.concatenate([[-np.inf], cuts, [np.inf]])
    for i in range(rows.n_rows):
        for e in range(rows.indptr[i], rows.indptr[i + 1]):
            place = int(e - rows.indptr[i]) | 0x80000000
            words = philox((place, i & mask, sweep & mask, side), (seed & mask, seed >> 32))
            u = ((words[0] << 21 | words[1] >> 11) + 0.5) / 2**53
            a, b = (edges[steps[e] : steps[e] + 2] - mean[e]) / stds[i]
            sign = -1.0 if a + b > 0 else 1.0
            low, high = sorted((ndtr(sign * a), ndtr(sign * b)))
            out[e] = mean[e] + stds[i] * sign * ndtri(low + u * (high - low))
    return out


def cuts_log_likelihood(rows: CSR, steps: Array, mean: Array, cuts: Array, stds: Array) -> float:
    """Σ log P of the steps of all ratings."""
    from scipy.special import ndtr

    each, edges = stds[rows.row_codes()], np.concatenate([[-np.inf], cuts, [np.inf]])
    below, upto = ((edges[steps + k] - mean) / each for k in (0, 1))
    with np.errstate(divide="ignore"):
        return float(np.sum(np.log(ndtr(upto) - ndtr(below))))


def squared_errors(rows: CSR, here: Array, other: Array, *, biased: bool, offset: float) -> Array:
    """The sum of squared residuals of every row."""
    out = np.zeros(rows.n_rows)
    for i in range(rows.n_rows):
        indices, values = rows.row(i)
        out[i] = np.sum((values - _predicted(here[i], other[indices], biased, offset)) ** 2)
    return out


def _predicted(row: Array, others: Array, biased: bool, offset: float) -> Array:
    if not biased:
        return others @ row + offset
    return others[:, :-1] @ row[:-1] + row[-1] + others[:, -1] + offset


def objective(
    by_user: CSR, by_item: CSR, users: Array, items: Array, *, biased: bool, offset: float, precision: Array,
    by_count: bool = False,
) -> float:  # fmt: skip
    """J: the squared errors and the penalty of both sides."""
    total = squared_errors(by_user, users, items, biased=biased, offset=offset).sum()
    for rows, side in ((by_user, users), (by_item, items)):
        weights = rows.counts if by_count else np.ones(rows.n_rows)
        total += np.sum(weights * np.einsum("id,de,ie->i", side, precision, side))
    return float(total)


def gradient(
    rows: CSR,
    here: Array,
    other: Array,
    *,
    biased: bool,
    offset: float,
    precision: Array,
    by_count: bool = False,
) -> Array:
    """½ ∂J/∂X for one side's rows X: A x − y, zero at the solution of a half-sweep."""
    out = np.zeros(here.shape)
    for i in range(rows.n_rows):
        indices, values = rows.row(i)
        _, _, A, y = row_system(
            indices, values, other, biased=biased, offset=offset, precision=precision, by_count=by_count
        )
        out[i] = A @ here[i] - y
    return out


def explain_row(indices: Array, values: Array, other: Array, target: Array, **system: Any) -> Array:
    """What each rated item contributes to targetᵀx: the terms of targetᵀA⁻¹Vᵀt, one per rating."""
    V, targets, A, _ = row_system(indices, values, other, **system)
    return (V @ (np.linalg.pinv(A, hermitian=True) @ target.astype(np.float64))) * targets


def svd_by_eigen(X: Array) -> tuple[Array, Array, Array]:
    """The singular value decomposition X = U S Vᵀ by way of eigenvalues: ``(U, s, Vᵀ)``, min(N, M) of each.

    From X = U S Vᵀ follow XᵀX = V S² Vᵀ and XXᵀ = U S² Uᵀ: the two share their eigenvalues, which are the squares of
    the singular values (the larger of the two matrices has zeros besides), and the eigenvectors are V and U. Each
    pair of vectors is fixed only up to a common sign, so U is not taken from XXᵀ on its own but as X V S⁻¹.
    Squaring halves the digits: singular values below some 10⁻⁸ of the first are lost, and their columns of U are
    completed to an orthonormal set.
    """
    X = np.asarray(X, np.float64)
    if X.shape[0] < X.shape[1]:
        U, s, Vt = svd_by_eigen(X.T)
        return Vt.T, s, U.T
    eigenvalues, V = np.linalg.eigh(X.T @ X)
    V = V[:, ::-1]
    s = np.sqrt(np.maximum(eigenvalues[::-1], 0))
    kept = s > s[0] * np.sqrt(len(X) * np.finfo(np.float64).eps)
    s = np.where(kept, s, 0.0)
    U = np.zeros(X.shape)
    U[:, kept] = X @ V[:, kept] / s[kept]
    missing = int((~kept).sum())
    if missing:
        U[:, ~kept] = np.linalg.qr(np.column_stack([U[:, kept], np.eye(len(X))]))[0][:, kept.sum() :][:, :missing]
    return U, s, V.T


def soft_impute(X: Array, seen: Array, shrinkage: float, steps: int = 1000) -> Array:
    """Z = S_λ(P_Ω(X) + P_Ω^⊥(Z)), from Z = 0: fill the holes with Z, take λ off every singular value, again.

    Args:
        X: (N, M); what is not ``seen`` does not matter.
        seen: Ω, (N, M) of True and False.
        shrinkage: λ.
        steps: How often.
    """
    Z = np.zeros(X.shape)
    for _ in range(steps):
        U, s, Vt = np.linalg.svd(np.where(seen, X, Z), full_matrices=False)
        Z = (U * np.maximum(s - shrinkage, 0)) @ Vt
    return Z


DESCENT_RULES = ("momentum", "adagrad", "adam")
ADAM_DECAY, DESCENT_EPSILON = 0.999, 1e-8


def descend(
    users: Array, items: Array, values: Array, W: Array, U: Array, user_state: Array, item_state: Array,
    user_share: Array, item_share: Array, penalty: float, bias_penalty: float, *,
    biased: bool, offset: float, rule: str, rate: float, beta: float,
) -> tuple[float, float]:  # fmt: skip
    """Stochastic gradient descent, rating by rating, in place: what :mod:`gramian.kernels.gradient.descent` does."""
    K, squared, penalties = W.shape[1] - biased, 0.0, 0.0
    each = np.append(np.full(K, penalty), [bias_penalty] * biased)
    for i, j, r in zip(users.tolist(), items.tolist(), values.tolist(), strict=True):
        w, u = W[i].copy(), U[j].copy()
        error = r - offset - w[:K] @ u[:K] - (w[K] + u[K] if biased else 0.0)
        squared += error**2
        one = [1.0] * biased  # the bias's partner
        for row, state, mine, partner, share in (
            (W[i], user_state[i], w, u, user_share[i, 0]),
            (U[j], item_state[j], u, w, item_share[j, 0]),
        ):
            penalties += share * (each @ mine**2)
            _move(row, state, error * np.append(partner[:K], one) - share * each * mine, rule, rate, beta)
    return float(squared), float(squared + penalties)


def _move(row: Array, state: Array, gradient: Array, rule: str, rate: float, beta: float) -> None:
    D = len(row)
    if rule == "momentum":
        state[:] = beta * state + rate * gradient
        row += state
    elif rule == "adagrad":  # one sum for the factors, one for the bias
        K = D - (len(state) > 1)
        for place, part in enumerate((slice(K), slice(K, D))[: len(state)]):
            state[place] += np.mean(gradient[part] ** 2)
            row[part] += rate * gradient[part] / np.sqrt(state[place] + DESCENT_EPSILON)
    else:
        first, second, powers = state[:D], state[D : 2 * D], state[2 * D :]
        powers *= (beta, ADAM_DECAY)
        first[:] = beta * first + (1 - beta) * gradient
        second[:] = ADAM_DECAY * second + (1 - ADAM_DECAY) * gradient**2
        row += rate * (first / (1 - powers[0])) / (np.sqrt(second / (1 - powers[1])) + DESCENT_EPSILON)


def ridge_draw(F: Array, precisions: Array, Y: Array, E: Array) -> Array:
    """T of (FᵀF + diag(λ)) t = FᵀY + diag(λ)^½E: a draw, where Y and E have standard normal noise in them."""
    H = F.T @ F + np.diag(precisions)
    return np.linalg.solve(H, F.T @ Y + np.sqrt(precisions)[:, None] * E)
