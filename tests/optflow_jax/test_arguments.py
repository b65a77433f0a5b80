"""Wrong arguments are named; what comes out has the documented shapes; the import is light."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optflow_jax

GOOD = np.ones((2, 2, 3, 4), np.float32)


@pytest.mark.parametrize("function", [optflow_jax.cost, optflow_jax.cost_forward, optflow_jax.flow])
def test_wrong_arguments_are_named(function):
    for filters, options, message in (
        (np.ones((3, 4), np.float32), {}, r"filters: got shape \(3, 4\); accepted: \(\*batch"),
        (np.ones((2, 3, 4), np.int32), {}, "filters: got dtype int32; accepted: .*floating"),
        (np.ones((2, 3, 4), np.complex64), {}, "filters: got dtype complex64"),
        (jnp.ones((2, 3, 4), jnp.float8_e4m3fn), {}, "filters: got dtype float8_e4m3fn"),
        (np.ones((2, 0, 4), np.float32), {}, "filters: got shape .* T, H, W of at least 1"),
        (None, {}, "filters: got None; accepted: an array"),
        (GOOD, {"alpha": 0.0}, "alpha: got 0.0; accepted: positive, finite"),
        (GOOD, {"alpha": -1}, "alpha: got -1"),
        (GOOD, {"alpha": float("nan")}, "alpha: got nan"),
        (GOOD, {"alpha": float("inf")}, "alpha: got inf"),
        (GOOD, {"alpha": None}, "alpha: got None"),
        (GOOD, {"alpha": "1"}, "alpha: got '1'"),
        (GOOD, {"alpha": 1j}, "alpha: got 1j"),
        (GOOD, {"alpha": np.array([1.0, 0.0])}, "alpha: got array"),
        (GOOD, {"alpha": np.ones(3)}, r"alpha: got shape \(3,\); .* the batch \(2,\)"),
        (GOOD, {"solver": "lu"}, "solver: got 'lu'; accepted: 'auto', 'cg'"),
        (GOOD, {"solver": ["cg"]}, r"solver: got \['cg'\]; accepted: 'auto'"),
        (GOOD, {"temporal": "no"}, "temporal: got 'no'; accepted: True, False"),
        (GOOD, {"temporal": None}, "temporal: got None; accepted: True, False"),
    ):
        with pytest.raises(ValueError, match=message):
            function(filters, **options)


def test_wrong_arguments_of_loss_are_named():
    with pytest.raises(ValueError, match=r"v: got shape \(2, 3, 4\); accepted: \(2, 2, 3, 4\)"):
        optflow_jax.loss(GOOD, GOOD, GOOD[0])
    with pytest.raises(ValueError, match="u: got dtype int"):
        optflow_jax.loss(GOOD, GOOD.astype(int), GOOD)
    with pytest.raises(ValueError, match="alpha: got -2.0"):
        optflow_jax.loss(GOOD, GOOD, GOOD, alpha=-2.0)
    with pytest.raises(ValueError, match="temporal: got 'no'"):
        optflow_jax.loss(GOOD, GOOD, GOOD, temporal="no")


def test_wrong_arguments_of_kernels_are_named():
    kernel = np.ones((2, 3, 3, 4, 5), np.float32)
    for function in (optflow_jax.collapse, optflow_jax.regularizer):
        for bad, options, message in (
            (kernel[0], {}, r"kernel: got shape \(3, 3, 4, 5\); accepted: \(T, H, W, in, out\)"),
            (kernel[0], {"layout": "torch"}, r"kernel: .*accepted: \(out, in, T, H, W\)"),
            (kernel, {"layout": "keras"}, "layout: got 'keras'; accepted: 'flax', 'torch'"),
            (kernel.astype(np.int8), {}, "kernel: got dtype int8"),
            (None, {}, "kernel: got None"),
            (kernel, {"channels": "luma"}, "channels: got 'luma'; accepted: 'mean', 'rgb', 'bgr'"),
            (kernel, {"channels": "rgb"}, "channels: got 'rgb' for a kernel of 4 input channels"),
            (kernel, {"channels": [0.5, 0.5]}, "channels: got .*; accepted: one weight for each"),
            (kernel, {"channels": None}, "channels: got None"),
        ):
            with pytest.raises(ValueError, match=message):
                function(bad, **options)
    with pytest.raises(ValueError, match="on_failure: got 'skip'; accepted: 'nan', 'drop'"):
        optflow_jax.regularizer(kernel, on_failure="skip")
    for where in ("(", None):
        with pytest.raises(ValueError, match="where: got .*accepted: 'first', 'all', a regular"):
            optflow_jax.tree_regularizer({"Conv_0": {"kernel": kernel}}, where=where)


def test_an_alpha_that_is_traced_and_not_positive_gives_nan():
    costs = jax.jit(lambda a: optflow_jax.cost(GOOD, alpha=a))(jnp.array([1.0, -1.0]))
    assert np.isfinite(costs[0]) and np.isnan(costs[1])


def test_loss_is_the_paper_s_equation_3():
    """Written out pixel by pixel for one filter."""
    rng = np.random.RandomState(0)
    w, u, v = rng.randn(3, 2, 3, 4)
    alpha, total = 0.3, 0.0

    def at(x, t, i, j):
        inside = 0 <= t < 2 and 0 <= i < 3 and 0 <= j < 4
        return x[t, i, j] if inside else 0.0

    for temporal in (True, False):
        total = 0.0
        for t, i, j in np.ndindex(2, 3, 4):
            wx = at(w, t, i, j + 1) - at(w, t, i, j - 1)
            wy = at(w, t, i + 1, j) - at(w, t, i - 1, j)
            wt = at(w, t + 1, i, j) - at(w, t, i, j)
            total += (wx * u[t, i, j] + wy * v[t, i, j] + wt) ** 2
            for x in (u, v):
                total += alpha * (at(x, t, i, j + 1) - at(x, t, i, j - 1)) ** 2
                total += alpha * (at(x, t, i + 1, j) - at(x, t, i - 1, j)) ** 2
                total += alpha * temporal * (at(x, t + 1, i, j) - at(x, t, i, j)) ** 2
        with jax.enable_x64(True):
            got = optflow_jax.loss(*map(jnp.asarray, (w, u, v)), alpha=alpha, temporal=temporal)
            np.testing.assert_allclose(got, total / 2, rtol=1e-12)
            batch = [jnp.asarray(np.stack([x, 2 * x])[None]) for x in (w, u, v)]
            pair = optflow_jax.loss(*batch, alpha=jnp.asarray([alpha, 1.0]), temporal=temporal)
            assert pair.shape == (1, 2)
            np.testing.assert_allclose(pair[0, 0], total / 2, rtol=1e-12)


def test_empty_batches():
    assert optflow_jax.cost(np.ones((0, 2, 3, 3), np.float32)).shape == (0,)


def test_strict_dtype_promotion():
    """Types are decided by tracing, so nothing is compiled."""
    with jax.numpy_dtype_promotion("strict"):
        kernel = jnp.ones((2, 3, 3, 4, 5), jnp.bfloat16)
        for alpha in (1, 0.5, np.float64(0.5)):
            slope = jax.value_and_grad(functools.partial(optflow_jax.regularizer, alpha=alpha))
            value, gradient = jax.eval_shape(slope, kernel)
            assert value.dtype == gradient.dtype == jnp.bfloat16
        for temporal, solver in (
            (True, "auto"),
            (False, "auto"),
            (True, "sparse_direct"),
            (False, "sparse_cg"),
        ):
            options = {"temporal": temporal, "solver": solver}
            found = jax.eval_shape(functools.partial(optflow_jax.flow, **options), GOOD)
            assert found.u.dtype == found.cost.dtype == jnp.float32
        assert optflow_jax.loss(GOOD, GOOD, GOOD, alpha=2).shape == (2,)


def test_export_with_a_symbolic_batch():
    (batch,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch, 2, 3, 4), jnp.float32)

    def both(w):
        cost, pull_back = jax.vjp(optflow_jax.cost, w)
        return cost, pull_back(jnp.ones_like(cost))[0]

    exported = jax.export.deserialize(jax.export.export(jax.jit(both))(shape).serialize())
    filters = np.random.RandomState(0).randn(5, 2, 3, 4).astype(np.float32)
    expected = jax.jit(both)(filters)
    triple = zip(exported.call(filters), exported.call(filters[:1]), expected, strict=True)
    for all_of_them, first, expected in triple:
        np.testing.assert_allclose(all_of_them, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(first, expected[:1], rtol=1e-5, atol=1e-6)


def test_importing_needs_jax_alone():
    code = (
        "import sys, optflow_jax; heavy = {'flax', 'optax', 'channel_grad', 'experiments', "
        "'matplotlib', 'tensorflow', 'absl', 'jaxtyping', 'jax.experimental.sparse'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
