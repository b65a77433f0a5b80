"""What holds exactly for R(W), on filters that hypothesis makes up."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import optflow_jax

# Few programs for all examples: two shapes with H = W (so that x and y can be exchanged).
SHAPES = ((3, 4, 4), (2, 5, 5))
TOLERANCE = 1e-5


@st.composite
def filters(draw):
    """A filter of float32 with a scale between 1e-3 and 1e2, sometimes flat or sparse."""
    shape = draw(st.sampled_from(SHAPES))
    rng = np.random.RandomState(draw(st.integers(0, 2**31 - 1)))
    kind = draw(st.sampled_from(["normal", "sparse", "integer", "smooth"]))
    if kind == "normal":
        w = rng.randn(*shape)
    elif kind == "sparse":
        w = rng.randn(*shape) * (rng.rand(*shape) < 0.2)
    elif kind == "integer":
        w = rng.randint(-2, 3, shape)
    else:
        w = np.cumsum(np.cumsum(rng.randn(*shape), 1), 2) / 5
    return (10 ** draw(st.floats(-3, 2)) * w).astype(np.float32)


alphas = st.floats(-2, 2).map(lambda x: np.float32(10**x))
properties = hypothesis.settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)


@functools.partial(jax.jit, static_argnames="temporal")
def _costs(batch, alpha, temporal=True):
    return optflow_jax.cost(batch, alpha=alpha, temporal=temporal, solver="cg")


@properties
@hypothesis.given(filters(), alphas, st.booleans(), st.floats(0, 1))
def test_bounds_and_symmetries(w, alpha, temporal, shrink):
    batch = np.stack(
        [w, -w, w[:, ::-1], w[:, :, ::-1], w.swapaxes(1, 2), np.float32(shrink) * w, 0 * w]
    )
    r, *same, shrunk, zero = np.asarray(_costs(batch, alpha, temporal), np.float64)
    c = np.concatenate([w[1:], 0 * w[:1]]) - w
    assert zero == 0
    assert 0 <= r <= 0.5 * np.sum(np.square(c, dtype=np.float64)) * (1 + TOLERANCE)
    np.testing.assert_allclose(same, r, rtol=TOLERANCE)
    assert shrunk <= r * (1 + TOLERANCE)


@properties
@hypothesis.given(filters(), alphas)
def test_grows_with_alpha_towards_the_cost_of_no_flow(w, alpha):
    batch = np.stack([w] * 3 + [w / max(np.abs(w).max(), np.float32(1e-30))])
    steps = np.array([alpha, 1.5 * alpha, 1e2, 1e6], np.float32)
    weak, strong, _, most = np.asarray(_costs(batch, steps), np.float64)
    assert weak <= strong * (1 + TOLERANCE)
    c = np.concatenate([batch[3, 1:], 0 * batch[3, :1]]) - batch[3]
    np.testing.assert_allclose(most, 0.5 * np.sum(c * c), rtol=1e-4)


@functools.partial(jax.jit, static_argnames="temporal")
def _minimum(w, alpha, nudge, temporal):
    found = optflow_jax.flow(w, alpha=alpha, temporal=temporal, solver="cg")
    least = optflow_jax.loss(w, found.u, found.v, alpha=alpha, temporal=temporal)
    size = 1e-2 * (1 + jnp.max(jnp.abs(found.u)) + jnp.max(jnp.abs(found.v)))
    moved = found.u + size * nudge[0], found.v + size * nudge[1]
    more = optflow_jax.loss(w, *moved, alpha=alpha, temporal=temporal)
    return found, least, more


@properties
@hypothesis.given(filters(), alphas, st.booleans(), st.integers(0, 2**31 - 1))
def test_flow_is_the_minimiser(w, alpha, temporal, seed):
    with jax.enable_x64(True):
        w = jnp.asarray(w, jnp.float64)
        nudge = jnp.asarray(np.random.RandomState(seed).randn(2, *w.shape))
        found, least, more = _minimum(w, float(alpha), nudge, temporal)
        assert found.converged
        np.testing.assert_allclose(found.cost, least, rtol=1e-8, atol=1e-300)
        c = jnp.concatenate([w[1:], 0 * w[:1]]) - w
        np.testing.assert_allclose(
            found.cost, 0.5 * jnp.vdot(c, found.residual), rtol=1e-8, atol=1e-300
        )
        assert more >= least
