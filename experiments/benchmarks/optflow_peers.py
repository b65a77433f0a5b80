"""Other ways to compute the OptFlow cost and gradient, for `bench_optflow` to compare with.

Each is a function from filters (N, T, H, W) to (cost (N,), gradient (N, T, H, W)) at alpha = 1, and
solves the primal system of "3D ConvNets with Optical Flow Based Regularization", eq. (11),

    H x = -[a * c; b * c],   H = [[diag(a a) + K, diag(a b)], [diag(a b), diag(b b) + K]],

with a, b, c the x-, y- and time-derivatives of the filter. The gradient is that of eq. (13).
Nothing here is shared with `optflow_jax`, so that the two check each other.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import lineax
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

Result = tuple[np.ndarray, np.ndarray]


@functools.lru_cache(maxsize=8)
def differences(shape: tuple[int, int, int]) -> tuple[sp.csr_matrix, ...]:
    """The sparse matrices of the x-, y- and time-difference of a flattened filter."""
    t, h, w = shape

    def central(n):
        return sp.diags([1.0, -1.0], [1, -1], shape=(n, n))

    def forward(n):
        return sp.diags([-1.0, 1.0], [0, 1], shape=(n, n))

    eye = sp.identity
    dx = sp.kron(eye(t * h), central(w))
    dy = sp.kron(sp.kron(eye(t), central(h)), eye(w))
    dt = sp.kron(forward(t), eye(h * w))
    return tuple(m.tocsr() for m in (dx, dy, dt))


@functools.lru_cache(maxsize=8)
def _pattern(shape: tuple[int, int, int]) -> tuple[sp.csc_matrix, np.ndarray, ...]:
    """H with a = b = 0 but the pattern of any a, b, and where its three diagonals are stored.

    Paid once for a shape, so that what is timed is the solution and not Python's bookkeeping.
    """
    dx, dy, dt = differences(shape)
    n = dx.shape[0]
    smoothness = (dx.T @ dx + dy.T @ dy + dt.T @ dt).tocsc()
    marker = 1e6 * sp.identity(n)
    marked = sp.bmat([[smoothness + marker, marker], [marker, smoothness + marker]]).tocsc()
    marked.sort_indices()
    rows = marked.indices
    columns = np.repeat(np.arange(2 * n), np.diff(marked.indptr))
    first = np.flatnonzero((rows == columns) & (columns < n))
    second = np.flatnonzero((rows == columns) & (columns >= n))
    upper = np.flatnonzero(rows + n == columns)
    lower = np.flatnonzero(rows == columns + n)
    for where in (first, second, upper, lower):
        marked.data[where] -= 1e6
    return marked, first, second, upper, lower


def _system(w: np.ndarray) -> tuple[sp.csc_matrix, np.ndarray, tuple[np.ndarray, ...]]:
    """H and the right-hand side of one filter, and its derivatives."""
    a, b, c = (d @ w.ravel() for d in differences(w.shape))
    base, first, second, upper, lower = _pattern(w.shape)
    hessian = base.copy()
    hessian.data[first] += a * a
    hessian.data[second] += b * b
    hessian.data[upper] += a * b
    hessian.data[lower] += a * b
    return hessian, -np.concatenate([a * c, b * c]), (a, b, c)


def _cost_and_gradient(shape, derivatives, x) -> tuple[float, np.ndarray]:
    """R = c . r / 2 with r = a u + b v + c, and eq. (13) by the adjoints of the differences."""
    (dx, dy, dt), (a, b, c) = differences(shape), derivatives
    u, v = np.split(x, 2)
    r = a * u + b * v + c
    gradient = dx.T @ (r * u) + dy.T @ (r * v) + dt.T @ r
    return 0.5 * (c @ r), gradient.reshape(shape)


def scipy_per_filter(filters: np.ndarray) -> Result:
    """SciPy's sparse LU, one filter at a time, float64, into a pattern that is made once."""
    results = []
    for w in np.asarray(filters, np.float64):
        hessian, right, derivatives = _system(w)
        x = scipy.sparse.linalg.spsolve(hessian, right)
        results.append(_cost_and_gradient(w.shape, derivatives, x))
    cost, gradient = zip(*results, strict=True)
    return np.array(cost), np.stack(gradient)


def scipy_as_the_paper(filters: np.ndarray) -> Result:
    """SciPy's sparse LU one filter at a time, the Hessian put together for each one, float64.

    "We derive and explicitly construct the Hessian and gradient at U = V = 0, then use the sparse
    module included in SciPy": with sparse products, not by filling a pattern that is known.
    """
    results = []
    for w in np.asarray(filters, np.float64):
        dx, dy, dt = differences(w.shape)
        a, b, c = (d @ w.ravel() for d in (dx, dy, dt))
        flow = sp.hstack([sp.diags(a), sp.diags(b)])
        smoothness = dx.T @ dx + dy.T @ dy + dt.T @ dt
        hessian = (flow.T @ flow + sp.block_diag([smoothness, smoothness])).tocsc()
        x = scipy.sparse.linalg.spsolve(hessian, -np.concatenate([a * c, b * c]))
        results.append(_cost_and_gradient(w.shape, (a, b, c), x))
    cost, gradient = zip(*results, strict=True)
    return np.array(cost), np.stack(gradient)


def scipy_block_diagonal(filters: np.ndarray) -> Result:
    """One sparse system for the whole batch, float64."""
    return _block_diagonal(filters, scipy.sparse.linalg.spsolve)


def _block_diagonal(filters, solve) -> Result:
    systems = [_system(w) for w in np.asarray(filters, np.float64)]
    whole = sp.block_diag([hessian for hessian, _, _ in systems], format="csc")
    x = solve(whole, np.concatenate([right for _, right, _ in systems]))
    shape = filters.shape[1:]
    parts = np.split(x, len(filters))
    results = [
        _cost_and_gradient(shape, derivatives, part)
        for (_, _, derivatives), part in zip(systems, parts, strict=True)
    ]
    cost, gradient = zip(*results, strict=True)
    return np.array(cost), np.stack(gradient)


def cholmod(filters: np.ndarray) -> Result:
    """CHOLMOD's supernodal Cholesky of the whole batch, float64. Needs scikit-sparse."""
    from sksparse import cholmod as library

    return _block_diagonal(filters, lambda h, b: library.cholesky(h)(b))


def _derivatives(w: jax.Array) -> tuple[jax.Array, ...]:
    """a, b, c of one filter (T, H, W)."""
    x = jnp.pad(w, ((0, 0), (0, 0), (1, 1)))
    y = jnp.pad(w, ((0, 0), (1, 1), (0, 0)))
    t = jnp.pad(w, ((0, 1), (0, 0), (0, 0)))
    return x[:, :, 2:] - x[:, :, :-2], y[:, 2:] - y[:, :-2], t[1:] - t[:-1]


def _loss(w: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """Eq. (3) of one filter."""
    a, b, c = _derivatives(w)
    smooth = sum(jnp.sum(d**2) for f in (u, v) for d in _derivatives(f))
    return 0.5 * (jnp.sum((a * u + b * v + c) ** 2) + smooth)


def _with_envelope(solve: Callable[[jax.Array], tuple[jax.Array, jax.Array]]):
    """From a solver of one filter to cost and gradient of a batch, the flow held fixed."""

    @jax.jit
    def cost_and_gradient(filters):
        def one(w):
            u, v = jax.lax.stop_gradient(solve(w))
            return jax.value_and_grad(_loss)(w, u, v)

        return jax.vmap(one)(filters)

    return cost_and_gradient


def _dense(w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """H and the right-hand side of one filter, dense."""
    a, b, c = (d.ravel() for d in _derivatives(w))
    dx, dy, dt = differences(w.shape)
    smoothness = jnp.asarray((dx.T @ dx + dy.T @ dy + dt.T @ dt).toarray(), w.dtype)
    cross = jnp.diag(a * b)
    hessian = jnp.block(
        [[jnp.diag(a * a) + smoothness, cross], [cross, jnp.diag(b * b) + smoothness]]
    )
    return hessian, -jnp.concatenate([a * c, b * c])


@_with_envelope
def jax_dense_cholesky(w):
    """A batched dense Cholesky factorisation of H in JAX."""
    hessian, right = _dense(w)
    x = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(hessian), right)
    return tuple(x.reshape(2, *w.shape))


@_with_envelope
def lineax_cholesky(w):
    """lineax.Cholesky on the dense H."""
    hessian, right = _dense(w)
    operator = lineax.MatrixLinearOperator(hessian, lineax.positive_semidefinite_tag)
    x = lineax.linear_solve(operator, right, lineax.Cholesky(), throw=False).value
    return tuple(x.reshape(2, *w.shape))


@_with_envelope
def lineax_cg(w):
    """lineax.CG on H as a function, to a relative tolerance of 1e-6."""
    a, b, c = _derivatives(w)

    def apply(flow):
        return jax.grad(lambda f: _loss(w, f[0], f[1]) - jnp.sum(f[0] * a * c + f[1] * b * c))(flow)

    right = (-a * c, -b * c)
    structure = jax.eval_shape(lambda: right)
    operator = lineax.FunctionLinearOperator(apply, structure, lineax.positive_semidefinite_tag)
    solver = lineax.CG(rtol=1e-6, atol=1e-8, max_steps=4 * w.size)
    return lineax.linear_solve(operator, right, solver, throw=False).value


PEERS: dict[str, Callable[[np.ndarray], Result]] = {
    "scipy as in the paper": scipy_as_the_paper,
    "scipy spsolve per filter": scipy_per_filter,
    "scipy block-diagonal": scipy_block_diagonal,
    "jax dense cholesky": jax_dense_cholesky,
    "lineax cholesky": lineax_cholesky,
    "lineax cg": lineax_cg,
}
if importlib.util.find_spec("sksparse"):
    PEERS["cholmod block-diagonal"] = cholmod
JAX_PEERS = ("jax dense cholesky", "lineax cholesky", "lineax cg")
