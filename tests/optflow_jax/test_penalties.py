"""Penalties: closed forms, finite differences. Proximal operators: brute force, Moreau."""

import doctest
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import optflow_jax
from optflow_jax import penalties
from optflow_jax.penalties import (
    elastic_net,
    group_lasso,
    huber,
    l1,
    l2,
    prox_elastic_net,
    prox_group_lasso,
    prox_huber,
    prox_l1,
    prox_l2,
    prox_total_variation,
    total_variation,
    tree_penalty,
)


def isotropic(x):
    return total_variation(x)


def anisotropic(x):
    return total_variation(x, kind="anisotropic")


PENALTIES = {
    "l1": l1,
    "l2": l2,
    "elastic_net": lambda x: elastic_net(x, 0.3),
    "huber": lambda x: huber(x, 0.7),
    "group_lasso": lambda x: group_lasso(x, axis=1),
    "isotropic": isotropic,
    "anisotropic": anisotropic,
    "smooth": lambda x: total_variation(x, epsilon=0.1),
    "smooth anisotropic": lambda x: total_variation(x, kind="anisotropic", epsilon=0.1),
}
PROXES = {
    "l1": prox_l1,
    "l2": prox_l2,
    "elastic_net": lambda v, step: prox_elastic_net(v, step, 0.3),
    "huber": lambda v, step: prox_huber(v, step, 0.7),
    "group_lasso": lambda v, step: prox_group_lasso(v, step, axis=1),
    "isotropic": lambda v, step: prox_total_variation(v, step, iterations=2000),
    "anisotropic": lambda v, step: prox_total_variation(
        v, step, kind="anisotropic", iterations=2000
    ),
}
each_penalty = pytest.mark.parametrize("name", PENALTIES)
each_prox = pytest.mark.parametrize("name", PROXES)


def sample(shape=(4, 5), seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def closed_form(name, x):
    """The definitions, typed again in NumPy with loops where that is plainer."""
    size = np.abs(x)
    if name in ("l1", "l2"):
        return np.sum(size if name == "l1" else size**2)
    if name == "elastic_net":
        return 0.3 * np.sum(size) + 0.7 * np.sum(size**2)
    if name == "huber":
        return sum(s * s / 2 if s <= 0.7 else 0.7 * (s - 0.35) for s in size.ravel())
    if name == "group_lasso":
        return sum(np.sqrt(np.sum(row**2)) for row in x)
    epsilon = 0.1 if "smooth" in name else 0.0
    total = 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            down = x[i + 1, j] - x[i, j] if i + 1 < x.shape[0] else 0.0
            right = x[i, j + 1] - x[i, j] if j + 1 < x.shape[1] else 0.0
            if "anisotropic" in name:
                total += np.hypot(down, epsilon) + np.hypot(right, epsilon)
            else:
                total += np.sqrt(down**2 + right**2 + epsilon**2)
    return total


@pytest.fixture(scope="module")
def everything():
    """everything(x, dtype): value and gradient of each penalty and each proximal point.

    Compiling is nearly all the time of these tests, so it is done once for each dtype.
    """

    @jax.jit
    def compute(x, step):
        penalties = {name: jax.value_and_grad(f)(x) for name, f in PENALTIES.items()}
        return penalties, {name: prox(x, step) for name, prox in PROXES.items()}

    def everything(x, dtype="float64", step=0.5):
        with jax.enable_x64(dtype == "float64"):
            return jax.device_get(compute(jnp.asarray(x, dtype), jnp.asarray(step, dtype)))

    return everything


@each_penalty
def test_values_and_gradients(name, everything):
    x = sample(seed=1)
    value, gradient = everything(x)[0][name]
    assert value.shape == ()
    np.testing.assert_allclose(value, closed_form(name, x), rtol=1e-12)
    h = 1e-6
    for index in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[index] = h
        slope = (closed_form(name, x + step) - closed_form(name, x - step)) / (2 * h)
        np.testing.assert_allclose(gradient[index], slope, rtol=1e-6, atol=1e-7)


@each_penalty
def test_where_nothing_or_a_part_is_zero_gradients_are_finite(name, everything):
    zero = np.zeros((4, 5))
    np.testing.assert_array_equal(everything(zero)[0][name][1], 0)
    mixed = zero.copy()
    mixed[1] = [1, 2, 2, 0, -1]
    gradient = everything(mixed)[0][name][1]
    assert np.isfinite(gradient).all() and np.any(gradient[1] != 0)
    if "tropic" in name:  # A constant picture has no variation.
        np.testing.assert_array_equal(everything(zero + 3)[0][name][1], 0)


def test_second_derivatives_at_zero_are_finite():
    zero = jnp.zeros((4, 5))

    @jax.jit
    def curvatures(x):
        gradients = {name: jax.grad(penalty) for name, penalty in PENALTIES.items()}
        return {n: jax.jvp(g, (x,), (jnp.ones_like(x),))[1] for n, g in gradients.items()}

    for name, curvature in curvatures(zero).items():
        assert np.isfinite(curvature).all(), name


@each_penalty
def test_nan_is_not_hidden(name, everything):
    x = sample()
    x[2, 1] = np.nan
    found, points = everything(x)
    assert np.isnan(found[name][0])
    if name in PROXES:
        assert np.isnan(points[name][2, 1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtypes_are_kept(dtype, everything):
    x = np.asarray(jnp.asarray(sample(), "float32").astype("bfloat16"), np.float64)
    found, points = everything(x, dtype)
    tolerance = 4 * float(jnp.finfo(dtype).eps)
    for name, (value, gradient) in found.items():
        assert value.dtype == gradient.dtype == dtype
        np.testing.assert_allclose(float(value), closed_form(name, x), rtol=tolerance)
    assert {str(point.dtype) for point in points.values()} == {dtype}


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_norms_neither_overflow_nor_underflow(scale, everything):
    x = sample()
    found, expected = everything(scale * x, "float32")[0], everything(x, "float32")[0]
    for name in ("group_lasso", "isotropic"):
        np.testing.assert_allclose(found[name][0] / scale, closed_form(name, x), rtol=1e-5)
        np.testing.assert_allclose(found[name][1], expected[name][1], rtol=1e-4, atol=1e-5)


def test_other_axes_are_a_batch():
    x = sample((2, 3, 4, 5)).astype(np.float32)

    @jax.jit
    def compute(x):
        rows = [penalty(x, axis=(1, -1)) for penalty in (l1, l2, elastic_net, huber)]
        return (
            total_variation(x),
            total_variation(x[0], axes=(0, 1, 2)),
            rows,
            [penalty(x) for penalty in (l1, l2, elastic_net, huber)],
            group_lasso(x, axis=(0, 1, 2)),
            prox_total_variation(x, 0.3),
            prox_total_variation(x[1, 2], 0.3),
        )

    pictures, volume, rows, sums, kernel, denoised, alone = compute(x)
    assert pictures.shape == (2, 3)
    np.testing.assert_allclose(pictures[1, 2], closed_form("isotropic", x[1, 2]), rtol=1e-5)
    d = [np.diff(x[0].astype(float), axis=a, append=x[0].take([-1], a)) for a in range(3)]
    np.testing.assert_allclose(volume, np.sum(np.sqrt(sum(p**2 for p in d))), rtol=1e-5)
    for some, total in zip(rows, sums, strict=True):
        assert some.shape == (2, 4)
        np.testing.assert_allclose(some.sum(), total, rtol=1e-5)
    np.testing.assert_allclose(kernel, np.sqrt((x**2).sum(axis=(0, 1, 2))).sum(), rtol=1e-5)
    np.testing.assert_allclose(denoised[1, 2], alone, atol=1e-5)


def test_l2_prefers_spread_weights_and_l1_does_not_care():
    # The lecture's example: both weights give the same score on an input of ones.
    one, spread = jnp.array([1.0, 0, 0, 0]), jnp.full(4, 0.25)
    assert l2(one) == 1 and l2(spread) == 0.25
    assert l1(one) == l1(spread) == 1


def test_huber_is_half_a_square_near_zero_and_l1_far_away():
    x = jnp.array([1e-3, -2e-3])
    np.testing.assert_allclose(huber(x, 1.0), 0.5 * l2(x), rtol=1e-6)
    np.testing.assert_allclose(huber(1e6 * x, 1e-4), 1e-4 * l1(1e6 * x), rtol=1e-6)
    # At the joint both parts have the slope delta.
    np.testing.assert_allclose(jax.grad(huber)(jnp.array([1.0, -1.0])), [1.0, -1.0])
    assert np.isfinite(jax.grad(huber)(jnp.array([1e30]))).all()


# Proximal operators -------------------------------------------------------------------------------


@each_prox
@pytest.mark.parametrize("step", [0.05, 0.5, 3.0])
def test_nothing_near_the_proximal_point_is_lower(name, step, everything):
    """The objective is strictly convex, so a local minimum is the minimum."""
    v = sample(seed=2)
    x = everything(v, step=step)[1][name]

    def objective(x):
        return 0.5 * np.sum((x - v) ** 2) + step * closed_form(name, x)

    rng, lowest = np.random.default_rng(3), objective(x)
    # It grows by |move|^2 / 2 at least; the iterations of total variation leave some 1e-8.
    for size in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(50):
            move = rng.normal(size=x.shape)
            move *= size / np.linalg.norm(move)
            assert objective(x + move) >= lowest + 0.5 * size**2 - 1e-7
    # Towards v, zero and the mean, where kinks would hide a lower value.
    for target in (v, 0 * v, np.full_like(v, v.mean()), np.where(np.abs(x) < 1e-9, v, x)):
        for share in (1e-3, 0.1, 1.0):
            moved = x + share * (target - x)
            assert objective(moved) >= lowest + 0.5 * np.sum((moved - x) ** 2) - 1e-7


@pytest.mark.parametrize("name", ["l1", "l2", "elastic_net", "huber"])
def test_scalar_proximal_operators_against_brute_force(name, everything):
    points = np.resize([-3.0, -0.9, -0.2, 0.0, 0.4, 0.75, 1.1, 5.0], (4, 5))
    grid = np.linspace(-6, 6, 240_001)
    costs = {
        "l1": np.abs(grid),
        "l2": grid**2,
        "elastic_net": 0.3 * np.abs(grid) + 0.7 * grid**2,
        "huber": np.where(np.abs(grid) <= 0.7, grid**2 / 2, 0.7 * (np.abs(grid) - 0.35)),
    }[name]
    for step in (0.0, 0.3, 2.0):
        found = everything(points, step=step)[1][name]
        for v, x in zip(points.ravel()[:8], found.ravel(), strict=False):
            best = grid[np.argmin(0.5 * (grid - v) ** 2 + step * costs)]
            assert x == pytest.approx(best, abs=6e-5)


CONJUGATES = {
    # Of f: the proximal operator of f* / step at u, from its own closed form.
    "l1": lambda u, step: np.clip(u, -1, 1),  # |y| <= 1
    "l2": lambda u, step: u / (1 + 1 / (2 * step)),  # y^2 / 4
    "huber": lambda u, step: np.clip(u / (1 + 1 / step), -0.7, 0.7),  # y^2 / 2, |y| <= delta
    "group_lasso": lambda u, step: (
        u / np.maximum(1, np.linalg.norm(u, axis=1, keepdims=True))
    ),  # |y_g| <= 1
    # ((|y| - 0.3)+)^2 / 2.8; its derivative is (|y| - 0.3)+ sign(y) / 1.4.
    "elastic_net": lambda u, step: np.where(
        np.abs(u) <= 0.3, u, np.sign(u) * (np.abs(u) + 0.3 / (1.4 * step)) / (1 + 1 / (1.4 * step))
    ),
}


@pytest.mark.parametrize("name", CONJUGATES)
@pytest.mark.parametrize("step", [0.2, 1.0, 4.0])
def test_moreaus_identity(name, step, everything):
    # v = prox of step f at v + step * prox of f* / step at v / step.
    v = 2 * sample(seed=4)
    x = everything(v, step=step)[1][name]
    np.testing.assert_allclose(x + step * CONJUGATES[name](v / step, step), v, rtol=1e-12)


@pytest.mark.parametrize("name", ["isotropic", "anisotropic"])
def test_moreaus_identity_of_total_variation(name, everything):
    """v - prox(v) is step times a point of the conjugate's domain, where it meets f at x.

    f is a norm of D x, so f* is 0 on {D'p, |p| <= 1}: v - x = step y, <y, x> = f(x) and
    <y, z> <= f(z) for all z.
    """
    v, step = sample(seed=5), 0.4
    x = everything(v, step=step)[1][name]
    y = (v - x) / step
    np.testing.assert_allclose(np.vdot(y, x), closed_form(name, x), rtol=1e-6)
    for z in np.random.default_rng(6).normal(size=(200, 4, 5)):
        assert np.vdot(y, z) <= closed_form(name, z) + 1e-9


def test_anisotropic_denoising_is_the_box_constrained_least_squares_problem(everything):
    v, step = sample(seed=7), 0.6
    rows = []
    for i in range(4):
        for j in range(5):
            for a, b in ((i + 1, j), (i, j + 1)):
                if a < 4 and b < 5:
                    row = np.zeros((4, 5))
                    row[a, b], row[i, j] = 1, -1
                    rows.append(row.ravel())
    found = scipy.optimize.lsq_linear(step * np.array(rows).T, v.ravel(), (-1, 1), tol=1e-14)
    expected = v - step * (np.array(rows).T @ found.x).reshape(4, 5)
    np.testing.assert_allclose(everything(v, step=step)[1]["anisotropic"], expected, atol=1e-6)


def test_denoising_a_step_moves_each_side_by_the_step_over_its_length():
    signal = np.array([0.0, 0, 0, 6, 6, 6, 6, 6])
    x = prox_total_variation(signal.astype(np.float32), 1.5, axes=-1)
    np.testing.assert_allclose(x, [0.5] * 3 + [5.7] * 5, atol=1e-3)
    flat = prox_total_variation(signal.astype(np.float32), 100.0, axes=0, iterations=500)
    np.testing.assert_allclose(flat, signal.mean(), atol=1e-3)


def test_a_step_of_zero_changes_nothing(everything):
    v = sample()
    for point in everything(v, step=0.0)[1].values():
        np.testing.assert_allclose(point, v, rtol=1e-12)


def test_denoising_has_derivatives(everything):
    v = jnp.asarray(sample(), "float32")
    slope = jax.jit(jax.grad(lambda step: jnp.sum(prox_total_variation(v, step) ** 2)))(0.5)
    low, high = (everything(sample(), step=s)[1]["isotropic"] for s in (0.499, 0.501))
    np.testing.assert_allclose(slope, (np.sum(high**2) - np.sum(low**2)) / 0.002, rtol=0.02)


# Trees --------------------------------------------------------------------------------------------

PARAMS = {
    "Conv_0": {"kernel": jnp.full((2, 3, 3, 1, 2), 0.5), "bias": jnp.ones(2)},
    "Conv_1": {"kernel": jnp.full((1, 1, 1, 2, 2), -1.0), "bias": jnp.ones(2)},
    "Dense_0": {"kernel": jnp.full((2, 3), 2.0, jnp.bfloat16), "bias": jnp.ones(3)},
}


@pytest.mark.parametrize(
    "where, expected",
    [
        (r"kernel$", 18 + 4 + 12),
        (r"Conv_1/", 4 + 2),
        (lambda path, leaf: leaf.ndim == 2, 12),
        ("first", 18),
    ],
)
def test_chosen_leaves_of_a_tree(where, expected):
    value = tree_penalty(l1, PARAMS, where=where)
    assert value == expected and value.shape == () and value.dtype == jnp.float32


@pytest.mark.parametrize("where", [r"kernel$", "first", lambda path, leaf: path == "Conv_0/kernel"])
def test_the_value_at_the_end_of_nnx_s_paths_is_left_out(where):
    state = {"Conv_0": {"kernel": {"value": jnp.ones((2, 3, 3, 1, 2))}, "bias": {"value": 9.0}}}
    assert tree_penalty(l1, state, where=where) == 36


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_leaves_are_widened_before_they_are_summed(dtype):
    """By hand: 3 * 3 * 256 * 256 * 0.5^2 = 147,456 (inf in float16); 1,003 ones (1,004 in bf16)."""
    half = {"a": {"kernel": jnp.full((3, 3, 256, 256), 0.5, dtype)}}
    got = tree_penalty(l2, half)
    assert (float(got), got.dtype) == (147_456.0, jnp.float32)
    ones = {"a": {"kernel": jnp.ones(1003, dtype)}, "b": {"kernel": jnp.ones(1, jnp.float32)}}
    assert float(tree_penalty(l1, ones)) == 1004.0
    assert float(tree_penalty(lambda w: jnp.abs(w), {"kernel": jnp.ones(1003, dtype)})) == 1003.0
    slope = jax.grad(lambda tree: tree_penalty(l1, tree))(ones)
    assert slope["a"]["kernel"].dtype == dtype
    np.testing.assert_array_equal(slope["a"]["kernel"], 1)


@pytest.mark.parametrize("axis", [np.int64(1), np.int32(-1), (np.int64(1),), [1]])
def test_integers_of_any_kind_are_axes(axis):
    x = jnp.array([[1.0, -2.0], [3.0, 0.5]])
    np.testing.assert_allclose(l1(x, axis=axis), [3.0, 3.5])
    np.testing.assert_allclose(group_lasso(x, axis=axis), np.sqrt([5.0, 9.25]).sum(), rtol=1e-6)
    with pytest.raises(ValueError, match="axis: got 1.0"):
        l1(x, axis=1.0)


def test_kernels_are_the_default_and_optflow_is_one_of_the_penalties():
    assert tree_penalty(l2, PARAMS) == 9 + 4 + 24
    found, expected = jax.jit(
        lambda params: (
            tree_penalty(optflow_jax.regularizer, params, where="first"),
            optflow_jax.tree_regularizer(params, where="first"),
        )
    )(PARAMS)
    assert found > 0
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    gradient = jax.grad(lambda p: tree_penalty(l1, p))(PARAMS)
    assert gradient["Dense_0"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient["Dense_0"]["bias"], 0)
    # A batch of values is summed.
    rows = tree_penalty(lambda w: total_variation(w, axes=0), PARAMS, where="Dense_0/kernel")
    assert rows == 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: l1(jnp.arange(3)), "x: got int32; accepted: a floating dtype"),
        (lambda: l2(jnp.ones(3), axis=1), r"axis: got 1; accepted: one or more axes of shape \(3,"),
        (lambda: group_lasso(jnp.ones((3, 2)), axis=(0, -2)), r"axis: got \(0, -2\); accepted"),
        (lambda: group_lasso(jnp.ones((3, 2)), axis=()), r"axis: got \(\); accepted"),
        (lambda: total_variation(jnp.ones(3)), r"axes: got \(-2, -1\); accepted"),
        (lambda: total_variation(jnp.ones((3, 2)), kind="l1"), "kind: got 'l1'; accepted: 'iso"),
        (lambda: total_variation(jnp.ones((3, 2)), epsilon=-1), "epsilon: got -1; accepted: 0 or"),
        (lambda: elastic_net(jnp.ones(3), 1.5), "l1_ratio: got 1.5; accepted: 0 to 1"),
        (lambda: prox_elastic_net(jnp.ones(3), 1, -1), "l1_ratio: got -1; accepted: 0 to 1"),
        (lambda: huber(jnp.ones(3), 0.0), "delta: got 0.0; accepted: positive"),
        (lambda: prox_huber(jnp.ones(3), 1, 0), "delta: got 0; accepted: positive"),
        (lambda: prox_l1(jnp.ones(3), -0.1), "step: got -0.1; accepted: 0 or positive"),
        (lambda: prox_l2(jnp.ones(3), "1"), "step: got 1; accepted: 0 or positive"),
        (
            lambda: prox_total_variation(jnp.ones((2, 2)), jnp.ones(2)),
            r"step: got shape \(2,\); accepted: a scalar",
        ),
        (
            lambda: prox_total_variation(jnp.ones((2, 2)), 1.0, iterations=0),
            "iterations: got 0; accepted: 1 or more",
        ),
        (
            lambda: tree_penalty(l1, PARAMS, where="Convolution"),
            r"where: got 'Convolution'; accepted: what chooses one or more of \['Conv_0/bias'",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_examples_of_the_docstrings_run():
    modules = {inspect.getmodule(getattr(penalties, name)) for name in penalties.__all__}
    results = [doctest.testmod(module) for module in modules]
    assert sum(result.attempted for result in results) > 15
    assert all(result.failed == 0 for result in results)
