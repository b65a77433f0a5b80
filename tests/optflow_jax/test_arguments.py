"""Wrong arguments are named; what comes out has the documented shapes; the import is light."""

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
        (np.ones((3, 4), np.float32), {}, r"filters must have shape .*got shape \(3, 4\)"),
        (np.ones((2, 3, 4), np.int32), {}, "filters must have a floating dtype; got int32"),
        (np.ones((2, 3, 4), np.complex64), {}, "filters must have a floating dtype"),
        (np.ones((2, 0, 4), np.float32), {}, "filters must have T, H and W of at least 1"),
        (GOOD, {"alpha": 0.0}, "alpha must be positive; got 0.0"),
        (GOOD, {"alpha": -1}, "alpha must be positive"),
        (GOOD, {"alpha": float("nan")}, "alpha must be positive"),
        (GOOD, {"alpha": np.array([1.0, 0.0])}, "alpha must be positive"),
        (GOOD, {"alpha": np.ones(3)}, r"alpha must be broadcastable to the batch \(2,\)"),
        (GOOD, {"solver": "lu"}, r"solver must be one of \['auto', 'cg'.*got 'lu'"),
    ):
        with pytest.raises(ValueError, match=message):
            function(filters, **options)


def test_wrong_arguments_of_loss_are_named():
    with pytest.raises(ValueError, match=r"v must have the shape \(2, 2, 3, 4\) of filters"):
        optflow_jax.loss(GOOD, GOOD, GOOD[0])
    with pytest.raises(ValueError, match="u must have a floating dtype"):
        optflow_jax.loss(GOOD, GOOD.astype(int), GOOD)
    with pytest.raises(ValueError, match="alpha must be positive"):
        optflow_jax.loss(GOOD, GOOD, GOOD, alpha=-2.0)


def test_wrong_arguments_of_kernels_are_named():
    kernel = np.ones((2, 3, 3, 4, 5), np.float32)
    for function in (optflow_jax.collapse, optflow_jax.regularizer):
        with pytest.raises(ValueError, match=r"kernel must have shape \(T, H, W, in, out\)"):
            function(kernel[0])
        with pytest.raises(ValueError, match="kernel must have a floating dtype"):
            function(kernel.astype(np.int8))
        with pytest.raises(ValueError, match="channels must be 'mean', 'rgb', 'bgr'.*got 'luma'"):
            function(kernel, channels="luma")
        with pytest.raises(
            ValueError, match="channels 'rgb' needs kernels of 3 input channels; got 4"
        ):
            function(kernel, channels="rgb")
        with pytest.raises(ValueError, match="channels must have one weight for each of the 4"):
            function(kernel, channels=[0.5, 0.5])


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


def test_importing_needs_jax_alone():
    code = (
        "import sys, optflow_jax; heavy = {'flax', 'optax', 'channel_grad', 'experiments', "
        "'matplotlib', 'tensorflow', 'absl'}; print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
