"""The metrics against the paper's equations, written out in float64 numpy."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from channel_grad import L2, LaplacianSmoothing, ReweightedL2, Sobolev

# n from 1 to 513, odd and even, each side of every block and threshold.
LENGTHS = (1, 2, 3, 4, 15, 16, 31, 32, 33, 64, 96, 97, 128, 255, 256, 257, 512, 513)
WITH_INNER = [
    L2(),
    ReweightedL2(lam=0.0),
    ReweightedL2(lam=0.7),
    ReweightedL2(lam=-0.6),
    ReweightedL2(lam=0.7, form="equation"),
    Sobolev(),
    Sobolev(lam=0.3, l2_weight=0.0),
    Sobolev(lam=0.3, l2_weight=0.1),
    Sobolev(lam=0.3, l2_weight=0.0, discretization="riemann"),
    Sobolev(lam=0.3, discretization="riemann"),
    LaplacianSmoothing(),
    LaplacianSmoothing(sigma=0.4, order=2),
    LaplacianSmoothing(sigma=0.0, order=3),
]
ALL = [*WITH_INNER, Sobolev(discretization="listing")]


def random(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def mean_l2(f, k):
    return np.sum(np.mean(f * k, axis=-1))


def difference(k):
    """n d k, d the cyclic forward difference."""
    return k.shape[-1] * (np.roll(k, -1, axis=-1) - k)


def figure_12(f, lam):
    """The listing of figure 12, line by line; channels last, for (rows, n)."""
    length = f.shape[-1]
    s = np.arange(length)
    mean = f.mean(axis=-1, keepdims=True)
    diff = f - mean
    gp_0 = (diff @ s / (-lam * length**3))[:, None]
    tmp2 = s * gp_0 - (s * np.cumsum(diff, axis=-1) - np.cumsum(s * diff, axis=-1)) / (
        lam * length**2
    )
    return lam * (tmp2 + mean)


def equation_9(f, lam):
    """h[o] = (1/n) sum_j K((o - j mod n) / n) f_j, by two loops."""
    n = f.shape[-1]
    h = np.zeros_like(f)
    for o in range(n):
        for j in range(n):
            s = ((o - j) % n) / n
            h[:, o] += (1 + (s * s - s + 1 / 6) / (2 * lam)) * f[:, j] / n
    return h


@pytest.mark.parametrize("n", LENGTHS)
def test_inner_product_with_the_gradient_is_that_of_l2(n):
    f, k = random(4, n, seed=n), random(4, n, seed=1000 + n)
    with jax.enable_x64(True):
        inner = jax.jit(lambda f, k: [m.inner(m.gradient(f), k) for m in WITH_INNER])(f, k)
    for metric, actual in zip(WITH_INNER, inner, strict=True):
        assert actual.shape == ()
        np.testing.assert_allclose(actual, mean_l2(f, k), rtol=1e-9, err_msg=repr(metric))


@pytest.mark.parametrize("n", [1, 2, 3, 33])
def test_inner_products_are_those_of_the_paper(n):
    """Eqs. 3, 4 and 6, up to the factor lam that multiplies the Sobolev gradient."""

    @jax.jit
    def inner_products(k1, k2, lam):
        reweighted = ReweightedL2(lam, form="equation").inner(k1, k2)
        sobolev = lam * Sobolev(lam, l2_weight=0.0).inner(k1, k2)
        return L2().inner(k1, k2), reweighted, sobolev, LaplacianSmoothing(lam).inner(k1, k2)

    k1, k2 = random(4, n, seed=1), random(4, n, seed=2)
    mean1, mean2 = (k.mean(axis=-1, keepdims=True) for k in (k1, k2))
    means = mean_l2(mean1, mean2)
    laplacian = np.roll(k2, 1, axis=-1) + np.roll(k2, -1, axis=-1) - 2 * k2
    for lam in (0.3, 1.0, 4.0):
        expected = (
            mean_l2(k1, k2),
            means + lam * mean_l2(k1 - mean1, k2 - mean2),
            means + lam * mean_l2(difference(k1), difference(k2)),
            mean_l2(k1, k2 - lam * laplacian),
        )
        with jax.enable_x64(True):
            np.testing.assert_allclose(inner_products(k1, k2, lam), expected, rtol=1e-10)


@pytest.mark.parametrize("metric", WITH_INNER, ids=repr)
def test_inner_product_is_symmetric_and_positive(metric):
    with jax.enable_x64(True):
        k1, k2 = random(4, 24, seed=1), random(4, 24, seed=2)
        inner = jax.jit(metric.inner)
        np.testing.assert_allclose(inner(k1, k2), inner(k2, k1), rtol=1e-12)
        assert inner(k1, k1) > 0


@pytest.mark.parametrize("metric", WITH_INNER, ids=repr)
def test_kernel_convolved_is_the_gradient(metric):
    with jax.enable_x64(True):
        for n in (1, 2, 5, 32, 129):
            f, kernel = random(3, n), np.asarray(metric.kernel(n))
            assert kernel.shape == (n,)
            matrix = kernel[(np.arange(n)[:, None] - np.arange(n)) % n]
            g = jax.jit(metric.gradient)(f)
            np.testing.assert_allclose(g, f @ matrix.T, rtol=0, atol=1e-12)


def test_gradients_by_hand():
    f = jnp.array([1.0, 3.0])
    np.testing.assert_allclose(L2().gradient(f), [1, 3])
    np.testing.assert_allclose(ReweightedL2(2.0).gradient(f), [5, 7])
    np.testing.assert_allclose(ReweightedL2(2.0, form="equation").gradient(f), [1.5, 2.5])
    # n = 2: f = 2 + (-1, 1), the second part with t = 4: 1/(4 n^2 sin^2) = 1/16, 1/(1 + sigma t).
    np.testing.assert_allclose(LaplacianSmoothing(2.0).gradient(f), [2 - 1 / 9, 2 + 1 / 9])
    np.testing.assert_allclose(
        Sobolev(3.0, l2_weight=0.0).gradient(f), [6 - 1 / 16, 6 + 1 / 16], rtol=1e-6
    )
    np.testing.assert_allclose(Sobolev(3.0).gradient(f), [7 - 1 / 16, 9 + 1 / 16], rtol=1e-6)
    # riemann: the mean gains 1/(12 n^2) = 1/48 of itself, 1/24.
    riemann = Sobolev(3.0, l2_weight=0.0, discretization="riemann").gradient(f)
    np.testing.assert_allclose(riemann, [6 + 1 / 24 - 1 / 16, 6 + 1 / 24 + 1 / 16], rtol=1e-6)
    # listing: the same, shifted so that the first entry is lam * mean.
    listing = Sobolev(3.0, l2_weight=0.0, discretization="listing").gradient(f)
    np.testing.assert_allclose(listing, [6, 6 + 1 / 8], rtol=1e-6)


def test_reweighted_l2_is_figure_3_and_equation_8():
    f = random(5, 7)
    mean = f.mean(axis=-1, keepdims=True)
    with jax.enable_x64(True):
        np.testing.assert_allclose(ReweightedL2(0.6).gradient(f), f + 0.6 * mean)
        equation = ReweightedL2(1.6, form="equation").gradient(f)
        np.testing.assert_allclose(equation, mean + (f - mean) / 1.6)
        np.testing.assert_allclose(1.6 * equation, ReweightedL2(0.6).gradient(f))


@pytest.mark.parametrize("n", [1, 2, 3, 10, 33, 64, 100])
def test_sobolev_discretizations(n):
    lam, f = 0.3, random(4, n)
    with jax.enable_x64(True):
        pure = functools.partial(Sobolev, lam, 0.0)
        h = np.asarray(pure().gradient(f)) / lam
        second = np.roll(h, -1, axis=-1) - 2 * h + np.roll(h, 1, axis=-1)
        mean = h.mean(axis=-1, keepdims=True)
        np.testing.assert_allclose(mean - lam * n**2 * second, f, rtol=0, atol=1e-9)
        riemann, listing = (
            pure(discretization=name).gradient(f) for name in ("riemann", "listing")
        )
        np.testing.assert_allclose(riemann, lam * equation_9(f, lam), rtol=0, atol=1e-12)
        np.testing.assert_allclose(listing, figure_12(f, lam), rtol=0, atol=1e-12)


@pytest.mark.parametrize("discretization", Sobolev.DISCRETIZATIONS)
def test_l2_weight_adds_a_multiple_of_f(discretization):
    f = random(4, 40)
    with jax.enable_x64(True):
        pure, mixed = (Sobolev(0.3, weight, discretization).gradient(f) for weight in (0.0, 2.5))
        np.testing.assert_allclose(mixed, pure + 2.5 * f, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 33, 64, 97, 512])
def test_exact_and_laplacian_smoothing_preserve_the_mean_to_round_off(n):
    f = random(4, n) + 1.0
    metrics = (Sobolev(1.0, l2_weight=0.0), LaplacianSmoothing(3.0))
    with jax.enable_x64(True):
        gradients = jax.jit(lambda f: [metric.gradient(f) for metric in metrics])(f)
    for g in gradients:
        means = np.asarray(g).mean(axis=-1)
        np.testing.assert_allclose(means, f.mean(axis=-1), rtol=0, atol=3e-15)


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_dtypes_are_kept_and_half_precision_is_computed_in_float32(metric):
    f = random(3, 3, 2, 40, dtype=np.float32)
    for dtype, tolerance in ((jnp.bfloat16, 8e-3), (jnp.float16, 1e-3)):
        narrow = jnp.asarray(f, dtype)
        g, wide = metric.gradient(narrow), metric.gradient(narrow.astype(jnp.float32))
        assert g.dtype == dtype
        np.testing.assert_array_equal(g, wide.astype(dtype))
        np.testing.assert_allclose(wide, metric.gradient(f), atol=tolerance * 16)
    with jax.enable_x64(True):
        assert metric.gradient(f.astype(np.float64)).dtype == jnp.float64
        assert metric.gradient(f).dtype == jnp.float32


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_several_axes_are_flattened_in_the_order_given(metric):
    f = random(2, 3, 4, 5, dtype=np.float32)
    lines = f.transpose(0, 2, 3, 1).reshape(2, 4, 15)  # axis 3 outer, axis 1 inner
    expected = metric.gradient(lines).reshape(2, 4, 5, 3).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(metric.gradient(f, axis=(3, 1)), expected, rtol=1e-6)
    if metric in WITH_INNER:
        np.testing.assert_allclose(
            metric.inner(f, f, axis=(3, -3)), metric.inner(lines, lines), rtol=1e-5
        )


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_pytree_with_traced_numbers(metric):
    """The numbers are leaves, so one compilation serves all their values."""
    f, compiled = random(3, 20, dtype=np.float32), 0

    @jax.jit
    def gradient(metric, f):
        nonlocal compiled
        compiled += 1
        return metric.gradient(f)

    leaves, structure = jax.tree.flatten(metric)
    assert all(isinstance(leaf, float) for leaf in leaves)
    doubled = jax.tree.map(lambda x: 2 * x + 0.5, metric)
    for each in (metric, doubled):
        np.testing.assert_allclose(gradient(each, f), each.gradient(f), rtol=1e-5, atol=1e-6)
    assert compiled == 1
    assert jax.tree.unflatten(structure, leaves) == metric
    assert jax.tree.structure(jax.tree.map(lambda _: object(), metric)) == structure
    hash(metric)


def test_differentiable_in_lam():
    """g = mean f + (f - mean f) / lam, so dg/dlam = -(f - mean f) / lam^2; Sobolev: mean f."""
    f = jnp.array([1.0, 3.0, 8.0])
    form = jax.jacobian(lambda lam: ReweightedL2(lam, form="equation").gradient(f))(2.0)
    np.testing.assert_allclose(form, -(f - 4) / 4, rtol=1e-6)
    np.testing.assert_allclose(jax.jacobian(lambda lam: Sobolev(lam).gradient(f))(2.0), 4.0)


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_commutes_with_vmap(metric):
    for n in (33, 70):  # as a dense product, and by blocks
        f = random(3, 2, n, dtype=np.float32)
        one_by_one = np.stack([metric.gradient(each) for each in f])
        for mapped in (jax.vmap(metric.gradient), jax.jit(jax.vmap(jax.jit(metric.gradient)))):
            np.testing.assert_allclose(mapped(f), one_by_one, rtol=1e-5, atol=1e-6)


def test_nan_in_one_filter_leaves_the_others_alone():
    f = random(3, 3, 2, 40, dtype=np.float32)
    f[1, 1, 0, 7] = np.nan
    for metric in ALL:
        finite = np.isfinite(metric.gradient(f))
        assert finite.sum() >= f.size - 40
        assert np.delete(finite.reshape(-1, 40), 8, axis=0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReweightedL2(lam=-1.0), r"lam: got -1\.0; .*> -1"),
        (lambda: ReweightedL2(lam=0.0, form="equation"), r"lam: got 0\.0; .*> 0"),
        (lambda: ReweightedL2(lam=float("nan")), "lam: got nan"),
        (lambda: ReweightedL2(form="formula"), "form: got 'formula'; accepted: code, equation"),
        (lambda: Sobolev(lam=0), "lam: got 0; .*> 0"),
        (lambda: Sobolev(lam=-0.5), r"lam: got -0\.5; .*> 0"),
        (lambda: Sobolev(lam="1"), "lam: got '1'; accepted: a finite number"),
        (lambda: Sobolev(l2_weight=-1), "l2_weight: got -1; .*>= 0"),
        (lambda: Sobolev(discretization="simpson"), "'simpson'.*exact, riemann, listing"),
        (lambda: LaplacianSmoothing(sigma=-1), "sigma: got -1; .*>= 0"),
        (lambda: LaplacianSmoothing(order=0), "order: got 0; .*>= 1"),
        (lambda: LaplacianSmoothing(order=1.5), r"order: got 1\.5; .*integer"),
        (lambda: Sobolev(discretization="listing").kernel(4), "no kernel.*exact, riemann"),
        (
            lambda: Sobolev(discretization="listing").inner(np.ones(4), np.ones(4)),
            "no inner product.*exact, riemann",
        ),
        (lambda: L2().kernel(0), "n: got 0; .*n >= 1"),
        (lambda: L2().inner(np.ones(4), np.ones(3)), r"\(4,\) and \(3,\)"),
        (
            lambda: Sobolev().gradient(np.ones((2, 3)), axis=2),
            r"axis: got 2 for .*\(2, 3\).*-2 to 1",
        ),
        (lambda: Sobolev().gradient(np.ones((2, 3)), axis=(0, -2)), "axis: got .*each axis once"),
        (lambda: L2().gradient(np.ones(3), method="quick"), "method: got 'quick'"),
        (lambda: Sobolev().gradient(np.ones(3, np.int32)), "f: got .*int32; accepted: floats"),
        (lambda: Sobolev().gradient(np.ones(3, bool)), "f: got .*bool; accepted: floats"),
        (lambda: L2().inner(np.ones(3), np.ones(3, int)), "k2: got .*int"),
        (lambda: Sobolev(lam=[1.0]), r"lam: got \[1\.0\]; accepted: a finite number > 0"),
        (lambda: Sobolev(lam=1 + 0j), r"lam: got \(1\+0j\); accepted"),
        (lambda: Sobolev(lam=np.complex64(1)), "lam: got .*; accepted"),
        (lambda: Sobolev(lam=np.ones(2)), "lam: got array"),
        (lambda: Sobolev(lam=jnp.asarray(0.0)), r"lam: got Array\(0"),
        (lambda: Sobolev(lam=np.float32(-1)), r"lam: got .*-1\.0"),
        (lambda: Sobolev(lam=np.asarray(True)), "lam: got array"),
        (lambda: Sobolev(l2_weight=jnp.asarray(jnp.inf)), r"l2_weight: got Array\(inf"),
        (lambda: Sobolev(lam=None), "lam: got None"),
        (lambda: Sobolev(lam=lambda count: 1.0), "lam: got a function.*scale_by"),
        (lambda: jax.eval_shape(Sobolev, jnp.ones(2)), "lam: got "),
        (lambda: ReweightedL2(form=["code"]), r"form: got \['code'\]"),
        (lambda: LaplacianSmoothing(order=jnp.asarray(0)), r"order: got Array\(0"),
        (lambda: LaplacianSmoothing(order=[1]), r"order: got \[1\]"),
        (lambda: LaplacianSmoothing(order=1 + 0j), r"order: got \(1\+0j\)"),
        (lambda: LaplacianSmoothing(order=True), "order: got True"),
        (lambda: L2().gradient(np.ones(3), method=["fft"]), r"method: got \['fft'\]"),
        (
            lambda: LaplacianSmoothing().gradient(np.ones(3), method="prefix"),
            "method: got 'prefix'",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_importing_needs_jax_and_optax_only():
    program = (
        "import sys, channel_grad; "
        "print([m for m in ('flax', 'tensorflow', 'tensorflow_datasets', 'matplotlib', "
        "'optflow_jax', 'experiments', 'equinox') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
