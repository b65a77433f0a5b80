"""float32 against the float64 oracle over the whole range of weights, alpha and shapes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optflow_jax

SCALES = (1e-3, 0.05, 1.0, 100.0)
ALPHAS = (1e-2, 1.0, 1e2)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _solve(filters, alpha, temporal, solver):
    def total(w):
        values = optflow_jax.cost(w, alpha=alpha, temporal=temporal, solver=solver)
        return values.sum(), values

    (_, values), gradients = jax.value_and_grad(total, has_aux=True)(filters)
    found = optflow_jax.flow(filters, alpha=alpha, temporal=temporal, solver=solver)
    return values, gradients, found.converged


def _cases(oracle, shape, scales, alphas, pick=slice(None)):
    families = oracle.families(shape, seed=sum(shape))[pick]
    grid = [(s, a, f) for s in scales for a in alphas for f in range(len(families))]
    filters = np.stack([s * families[f] for s, _, f in grid]).astype(np.float32)
    return grid, filters, np.array([a for _, a, _ in grid], np.float32)


def _truth(oracle, filters, alphas, temporal):
    pairs = zip(filters, alphas, strict=True)
    return [oracle.minimum(w, alpha, temporal)[:2] for w, alpha in pairs]


def _errors(truth, values, gradients):
    """Relative errors of the costs, and of the gradients in norm; where both are zero, zero."""
    errors = []
    for (true, slope), value, gradient in zip(truth, values, gradients, strict=True):
        size = np.linalg.norm(slope)
        error = abs(value - true) / true if true else abs(value)
        errors.append((error, np.linalg.norm(gradient - slope) / (size if size else 1)))
    return np.array(errors).T


def _report(capsys, shape, temporal, solver, grid, errors, converged):
    with capsys.disabled():
        for name, error in zip(("cost", "gradient"), errors, strict=True):
            error = np.where(converged, error, 0)
            scale, alpha, family = grid[int(error.argmax())]
            print(
                f"\n  {solver:13s} {str(shape):12s} temporal={temporal!s:5s} worst {name:8s} "
                f"{error.max():.1e} at scale {scale:g}, alpha {alpha:g}, family {family}; "
                f"{np.mean(converged):.0%} of {len(grid)} converged",
                end="",
            )


SHAPES = ((1, 1, 1), (1, 7, 5), (5, 1, 4), (3, 4, 5))


@pytest.mark.parametrize(
    ("shape", "temporal"),
    [(s, t) for s in SHAPES for t in (True, False)] + [((7, 7, 7), True), ((2, 7, 9), False)],
    ids=str,
)
def test_float32_is_within_1e_5_everywhere(oracle, capsys, shape, temporal):
    pick = slice(None) if shape == (3, 4, 5) else slice(1, None, 3)
    grid, filters, alphas = _cases(oracle, shape, SCALES, ALPHAS, pick)
    truth = _truth(oracle, filters, alphas, temporal)
    # "auto" is "cg" with "cholesky" behind it, and takes as long to compile as both.
    for solver in ("auto" if shape == (3, 4, 5) else "cg", "cholesky"):
        values, gradients, converged = jax.tree.map(
            np.asarray, _solve(filters, alphas, temporal, solver)
        )
        errors = _errors(truth, values, gradients)
        _report(capsys, shape, temporal, solver, grid, errors, converged)
        assert converged.all()
        assert errors.max() <= 1e-5


def test_float32_is_within_1e_5_at_16_cubed(oracle, capsys):
    shape = (16, 16, 16)
    grid, filters, alphas = _cases(oracle, shape, (0.05, 100.0), (1e-2,), slice(1, 7, 2))
    truth = _truth(oracle, filters, alphas, True)
    values, gradients, converged = jax.tree.map(np.asarray, _solve(filters, alphas, True, "cg"))
    errors = _errors(truth, values, gradients)
    _report(capsys, shape, True, "cg", grid, errors, converged)
    assert converged.all()
    assert errors.max() <= 1e-5


@pytest.mark.parametrize("solver", ["sparse_cg", "sparse_direct"])
@pytest.mark.parametrize("temporal", [True, False])
def test_the_paper_s_hessian_is_right_or_says_that_it_is_not(oracle, capsys, solver, temporal):
    shape = (2, 5, 3)
    grid, filters, alphas = _cases(oracle, shape, SCALES, ALPHAS)
    truth = _truth(oracle, filters, alphas, temporal)
    values, gradients, converged = jax.tree.map(
        np.asarray, _solve(filters, alphas, temporal, solver)
    )
    errors = _errors(truth, values, gradients)
    _report(capsys, shape, temporal, solver, grid, errors, converged)
    assert errors[:, converged].max() <= 1e-5
    assert np.isnan(values[~converged]).all()
    # Without the temporal term the Hessian nears a singular one for vanishing weights, too.
    least = 0 if temporal else 1e-3
    benign = np.array([least <= scale**2 / alpha <= 1e2 for scale, alpha, _ in grid])
    assert converged[benign].all()


def test_float64_is_exact(oracle):
    shape = (4, 3, 5)
    grid, filters, alphas = _cases(oracle, shape, (0.05, 10.0), (1e-2, 1.0))
    with jax.enable_x64(True):
        w, alpha = jnp.asarray(filters, jnp.float64), jnp.asarray(alphas, jnp.float64)
        # test_solvers.py has the other two pairs in float64.
        for temporal, solver in ((True, "cg"), (False, "cholesky")):
            truth = _truth(oracle, filters, alphas, temporal)
            out = jax.tree.map(np.asarray, _solve(w, alpha, temporal, solver))
            errors = _errors(truth, *out[:2])
            assert out[2].all()
            assert errors.max() <= 1e-9


def test_weights_far_outside_the_range_are_right_or_flagged(oracle):
    base = np.random.RandomState(0).randn(3, 4, 5).astype(np.float32)
    filters = np.array([1e-25, 1e-12, 1e4, 1e25], np.float32)[:, None, None, None] * base
    values, gradients, converged = jax.tree.map(
        np.asarray, _solve(filters, np.ones(4, np.float32), True, "auto")
    )
    assert converged.tolist() == [True, True, True, False]
    assert np.isnan(values[3]) and np.isnan(gradients[3]).any()
    truth = _truth(oracle, filters[:3], np.ones(3), True)
    slopes = _errors(truth, values[:3], gradients[:3])[1]
    assert slopes.max() <= 1e-5
    np.testing.assert_allclose(values[:3], [t for t, _ in truth], rtol=1e-5, atol=1e-37)


def _nearly_constant(shape):
    rng = np.random.RandomState(0)
    return np.stack([1 + 10.0**-k * rng.randn(*shape) for k in range(5) for _ in range(4)])


def _pixel_by_pixel(w, alpha, temporal):
    """R and its gradient of one frame of at most 2 x 2 pixels, or of frames that do not meet.

    K is then a number k, so each pixel has R = alpha c^2 / (alpha + (a^2 + b^2) / k) / 2. In long
    double: the terms cancel more than the sparse oracle's float64 can bear.
    """
    w, alpha = w.astype(np.longdouble), np.longdouble(alpha)
    frames, height, width = w.shape
    k = (height == 2) + (width == 2) + temporal
    dx, dy = (np.eye(n, k=1) - np.eye(n, k=-1) for n in (width, height))
    dt = np.eye(frames, k=1) - np.eye(frames)
    a, b, c = w @ dx.T, dy @ w, np.tensordot(dt, w, 1)
    r = alpha * c / (alpha + (a * a + b * b) / k)
    u, v = -a * r / (alpha * k), -b * r / (alpha * k)
    return np.sum(c * r) / 2, (r * u) @ dx + dy.T @ (r * v) + np.tensordot(dt.T, r, 1)


@pytest.mark.parametrize(
    ("shape", "temporal", "solver", "scale", "alpha"),
    [
        ((7, 1, 7), False, "cholesky", 24.0, 0.05),  # was NaN for all of them
        ((3, 1, 3), False, "auto", 1e-3, 1.0),  # the uniform flow takes away most of c
        ((1, 2, 2), True, "cg", 1e3, 1e-3),  # the gradient's terms cancel
        ((2, 2, 2), False, "cg", 100.0, 1e-2),
        ((2, 1, 2), False, "cholesky", 24.0, 1e-2),
    ],
    ids=str,
)
def test_where_terms_cancel(oracle, shape, temporal, solver, scale, alpha):
    """The terms of the gradient of tiny filters cancel; float32 alone was wrong by up to 0.09."""
    filters = np.concatenate([_nearly_constant(shape), oracle.families(shape, 0)])
    filters = (scale * filters).astype(np.float32)
    alphas = np.full(len(filters), alpha, np.float32)
    values, gradients, converged = jax.tree.map(
        np.asarray, _solve(filters, alphas, temporal, solver)
    )
    assert converged.all()
    if max(shape[1:]) <= 2:
        truth = [_pixel_by_pixel(w, alphas[0], temporal) for w in filters]
    else:
        truth = _truth(oracle, filters, alphas, temporal)
    assert _errors(truth, values, gradients).max() <= 1e-5
