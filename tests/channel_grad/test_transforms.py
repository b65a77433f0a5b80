"""Each transformation through one table of what optax expects of a good citizen."""

import inspect

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import channel_grad as cg

# name: factory, keyword arguments, the metric that it stands for, the arguments to schedule.
TABLE = {
    "metric": (cg.scale_by_metric, {"metric": cg.L2()}, cg.L2, ()),
    "reweighted": (cg.scale_by_reweighted_l2, {}, cg.ReweightedL2, ("lam",)),
    "equation": (
        cg.scale_by_reweighted_l2,
        {"lam": 2.0, "form": "equation"},
        cg.ReweightedL2,
        ("lam",),
    ),
    "sobolev": (cg.scale_by_sobolev, {}, cg.Sobolev, ("lam", "l2_weight")),
    "riemann": (
        cg.scale_by_sobolev,
        {"lam": 0.3, "discretization": "riemann"},
        cg.Sobolev,
        ("lam",),
    ),
    "listing": (
        cg.scale_by_sobolev,
        {"l2_weight": 0.0, "discretization": "listing"},
        cg.Sobolev,
        ("lam",),
    ),
    "laplacian": (cg.scale_by_laplacian_smoothing, {}, cg.LaplacianSmoothing, ("sigma",)),
    "second order": (
        cg.scale_by_laplacian_smoothing,
        {"sigma": 0.5, "order": 2},
        cg.LaplacianSmoothing,
        ("sigma",),
    ),
}
every = pytest.mark.parametrize("name", TABLE)
N = 12


def make(name, **changes):
    factory, arguments, _, _ = TABLE[name]
    return factory(**{**arguments, **changes})


def metric_of(name, **changes):
    _, arguments, metric, _ = TABLE[name]
    return metric(**{k: v for k, v in {**arguments, **changes}.items() if k != "metric"})


def gradients(dtype=np.float32, seed=0, n=N):
    rng = np.random.default_rng(seed)
    return {
        "conv": {
            "kernel": jnp.asarray(rng.normal(size=(3, 3, 2, n)), dtype),
            "bias": jnp.asarray(rng.normal(size=n), dtype),
        },
        "dense": {"kernel": jnp.asarray(rng.normal(size=(n, 5)), dtype)},
    }


def expected(name, f, **changes):
    kernel = metric_of(name, **changes).gradient(f["conv"]["kernel"])
    return {**f, "conv": {**f["conv"], "kernel": kernel}}


def assert_trees_close(actual, desired, tolerance=1e-5):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(d, np.float64), rtol=tolerance, atol=tolerance
        )


def test_values_by_hand():
    """n = 2, f = (1, 3): mean 2, deviation 1, whose S-part is 1/16 (see test_metrics)."""
    f = {"kernel": jnp.array([[[1.0, 3.0]]])}
    values = {
        "metric": [1, 3],
        "reweighted": [3, 5],
        "equation": [1.5, 2.5],
        "sobolev": [3 - 1 / 16, 5 + 1 / 16],
        "laplacian": [2 - 1 / 5, 2 + 1 / 5],
        "second order": [2 - 1 / 9, 2 + 1 / 9],
    }
    for name, value in values.items():
        transform = make(name)
        g, _ = transform.update(f, transform.init(f))
        np.testing.assert_allclose(g["kernel"][0, 0], value, rtol=1e-6, err_msg=name)


@every
def test_is_the_metric_on_named_leaves_and_takes_extra_arguments(name):
    f, transform = gradients(), make(name)
    compiled = 0

    @jax.jit
    def update(f, state, params):
        nonlocal compiled
        compiled += 1
        return transform.update(f, state, params, value=1.0, unexpected=jnp.ones(3))

    state = transform.init(f)
    assert isinstance(transform, optax.GradientTransformationExtraArgs)
    assert jax.tree.leaves(state) == []
    for seed in range(3):
        f = gradients(seed=seed)
        g, state = update(f, state, f)
        assert_trees_close(g, expected(name, f))
    assert compiled == 1
    without_params, _ = transform.update(f, state)
    assert_trees_close(without_params, g)


@every
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_dtype_is_kept(name, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        f, transform = gradients(dtype), make(name)
        g, _ = transform.update(f, transform.init(f))
        assert [leaf.dtype for leaf in jax.tree.leaves(g)] == [jnp.dtype(dtype)] * 3
        wide = expected(name, jax.tree.map(lambda x: x.astype(jnp.float32), f))
        assert_trees_close(g, wide, 4 * float(max(jnp.finfo(dtype).eps, 1e-7)))


@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, argument) for name, (*_, arguments) in TABLE.items() for argument in arguments],
)
def test_inject_hyperparams(name, argument):
    """As written in optax's documentation: a schedule, no static_args, all defaults in place."""
    factory, arguments, _, _ = TABLE[name]
    others = {k: v for k, v in arguments.items() if k != argument}
    transform = optax.inject_hyperparams(factory)(
        **{argument: lambda count: 1.0 + 0.5 * count}, **others
    )
    compiled = 0

    @jax.jit
    def update(f, state, params):
        nonlocal compiled
        compiled += 1
        return transform.update(f, state, params)

    f = gradients()
    state = transform.init(f)
    types = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    for count in range(3):
        g, state = update(f, state, f)
        assert_trees_close(g, expected(name, f, **{argument: 1.0 + 0.5 * count}))
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == types
    assert compiled == 1


def test_schedule_of_a_bfloat16_model_is_computed_in_float32():
    f = gradients(jnp.bfloat16)
    transform = optax.inject_hyperparams(cg.scale_by_reweighted_l2)(
        lam=lambda count: 3.0, form="equation"
    )
    g, _ = transform.update(f, transform.init(f), f)
    assert g["conv"]["kernel"].dtype == jnp.bfloat16
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), f)
    assert_trees_close(g, expected("equation", wide, lam=3.0), 2.0**-8)


@pytest.mark.parametrize(
    "axes",
    [
        cg.all_kernels,
        cg.raster,
        cg.AxisSpec(lambda path, leaf: -1),
        cg.AxisSpec(-1),
        {"conv": 0, "dense": None},
    ],
    ids=["all_kernels", "raster", "function", "integer", "tree"],
)
def test_axis_specs_pass_through_inject_hyperparams(axes):
    f = gradients()
    scheduled = optax.inject_hyperparams(cg.scale_by_sobolev)(lam=lambda count: 1.0, axes=axes)
    plain = cg.scale_by_sobolev(axes=axes)
    g, _ = jax.jit(scheduled.update)(f, scheduled.init(f), f)
    assert_trees_close(g, plain.update(f, plain.init(f))[0])


def test_an_integer_axis_through_inject_hyperparams_is_a_clear_error():
    transform = optax.inject_hyperparams(cg.scale_by_sobolev)(lam=lambda count: 1.0, axes=-1)
    with pytest.raises(ValueError, match=r"write axes=AxisSpec\(-1\)"):
        transform.init(gradients())


@every
def test_multi_steps(name):
    """The map is linear: accumulating two gradients first is the same as averaging two maps."""
    transform = optax.MultiSteps(make(name), every_k_schedule=2)
    f1, f2 = gradients(seed=1), gradients(seed=2)
    state = transform.init(f1)
    g, state = transform.update(f1, state, f1)
    assert all(not leaf.any() for leaf in jax.tree.leaves(g))
    g, state = transform.update(f2, state, f1)
    average = jax.tree.map(lambda a, b: (a + b) / 2, f1, f2)
    assert_trees_close(g, expected(name, average))


@every
def test_masked_and_partition(name):
    f = gradients()
    masked = optax.masked(make(name), {"conv": True, "dense": False})
    g, _ = masked.update(f, masked.init(f), f)
    assert_trees_close(g, expected(name, f))
    nowhere = optax.masked(make(name), {"conv": False, "dense": True})
    with pytest.warns(UserWarning, match="none of the 1 leaves"):
        state = nowhere.init(f)
    g, _ = nowhere.update(f, state, f)
    assert_trees_close(g, f)
    split = optax.partition(
        {"smooth": make(name), "plain": optax.scale(2.0)}, {"conv": "smooth", "dense": "plain"}
    )
    g, _ = split.update(f, split.init(f), f)
    assert_trees_close(g["conv"], expected(name, f)["conv"])
    assert_trees_close(g["dense"], {"kernel": 2 * f["dense"]["kernel"]})


@every
def test_empty_trees_none_and_masked_nodes(name):
    transform = make(name)
    kernel = jnp.ones((2, 2, N))
    for tree in (
        {},
        (),
        None,
        optax.MaskedNode(),
        {"a": None, "b": optax.MaskedNode(), "kernel": kernel},
        [None, {"kernel": kernel}],
    ):
        g, state = transform.update(tree, transform.init(tree))
        assert jax.tree.structure(g) == jax.tree.structure(tree)
        assert state == optax.EmptyState()


@every
def test_init_is_abstract(name):
    shapes = jax.eval_shape(gradients)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))
    transform = make(name)
    assert transform.init(shapes) == optax.EmptyState()
    chain = optax.chain(transform, optax.trace(0.9))
    state = jax.eval_shape(chain.init, shapes)
    g, after = jax.eval_shape(chain.update, shapes, state, shapes)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), g) == jax.tree.map(
        lambda x: (x.shape, x.dtype), shapes
    )
    assert jax.tree.structure(after) == jax.tree.structure(state)


@every
def test_commutes_with_vmap(name):
    transform = make(name)
    f = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(gradients(seed=s) for s in range(3)))
    g = jax.vmap(lambda f: transform.update(f, optax.EmptyState())[0])(f)
    one_by_one = [expected(name, gradients(seed=s)) for s in range(3)]
    assert_trees_close(g, jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one))


def test_chain_before_weight_decay_and_momentum():
    """Two steps of the documented chain, in numpy."""
    transform = optax.chain(
        cg.scale_by_sobolev(), optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9)
    )
    params = gradients(seed=5)
    state, momentum = transform.init(params), 0.0
    kernel = np.asarray(params["conv"]["kernel"])
    for seed in range(2):
        f = gradients(seed=seed)
        updates, state = transform.update(f, state, params)
        params = optax.apply_updates(params, updates)
        g = cg.Sobolev().gradient(f["conv"]["kernel"])
        momentum = 0.9 * momentum + np.asarray(g) + 5e-4 * kernel
        kernel = kernel - 0.1 * momentum
    np.testing.assert_allclose(params["conv"]["kernel"], kernel, rtol=0, atol=1e-6)


@every
def test_descends(name):
    """A gradient in any metric is a direction of descent."""
    goal = gradients(seed=1)
    transform = optax.chain(make(name), optax.scale(-0.3))

    def loss(params):
        return sum(
            jnp.sum((a - b) ** 2) / 2
            for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(goal), strict=True)
        )

    def step(carry, _):
        params, state = carry
        value, f = jax.value_and_grad(loss)(params)
        updates, state = transform.update(f, state, params)
        return (optax.apply_updates(params, updates), state), value

    start = gradients()
    _, losses = jax.lax.scan(step, (start, transform.init(start)), length=20)
    if name == "listing":  # not the gradient of a metric
        assert losses[-1] < losses[0]
    else:
        assert (losses[1:] < losses[:-1]).all()


@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, argument) for name, (*_, arguments) in TABLE.items() for argument in arguments],
)
def test_a_schedule_passed_directly_is_a_function_of_the_step_count(name, argument):
    """As in optax's own transformations: no inject_hyperparams, one compilation, under jit."""
    schedule = optax.linear_schedule(1.0, 2.0, transition_steps=2)
    transform, plain = make(name, **{argument: schedule}), make(name)
    compiled = 0

    @jax.jit
    def update(f, state):
        nonlocal compiled
        compiled += 1
        return transform.update(f, state)

    f = gradients()
    state = transform.init(f)
    assert plain.init(f) == optax.EmptyState()
    for value in (1.0, 1.5, 2.0):
        outside, _ = transform.update(f, state)
        g, state = update(f, state)
        assert_trees_close(g, expected(name, f, **{argument: value}))
        assert_trees_close(outside, g)
    assert compiled == 1
    assert int(state.count) == 3


def test_a_schedule_may_reach_what_is_refused_as_a_number():
    """lam = 0 is refused for Sobolev, yet a schedule may end there: the smooth part is left."""
    transform = cg.scale_by_sobolev(lam=optax.linear_schedule(1.0, 0.0, 1), l2_weight=0.0)
    f = {"kernel": jnp.array([[[1.0, 3.0]]])}
    _, state = transform.update(f, transform.init(f))
    for update in (transform.update, jax.jit(transform.update)):
        g, _ = update(f, state)
        np.testing.assert_allclose(g["kernel"][0, 0], [-1 / 16, 1 / 16], rtol=1e-6)


def test_method_of_every_transformation():
    f = {"kernel": gradients(n=40)["conv"]["kernel"]}
    for name, (factory, arguments, *_) in TABLE.items():
        methods = ["auto", "dense", "fft"]
        if factory is cg.scale_by_laplacian_smoothing:
            with pytest.raises(ValueError, match="method: got 'prefix'; accepted: auto, dense"):
                factory(**arguments, method="prefix")
        else:
            methods.append("prefix")
        results = [
            factory(**arguments, method=method).update(f, optax.EmptyState())[0]
            for method in methods
        ]
        for result in results:
            assert_trees_close(result, expected(name, {"conv": f})["conv"])
        with pytest.raises(ValueError, match="method: got 'quick'; accepted: auto"):
            factory(**arguments, method="quick")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cg.scale_by_sobolev(lam=0), "lam: got 0"),
        (lambda: cg.scale_by_sobolev(lam=[1.0]), r"lam: got \[1.0\]"),
        (lambda: cg.scale_by_sobolev(lam=np.ones(3)), "lam: got array"),
        (lambda: cg.scale_by_sobolev(lam=1j), "lam: got 1j"),
        (lambda: cg.scale_by_sobolev(lam=jnp.asarray(-1.0)), "lam: got Array"),
        (lambda: cg.scale_by_sobolev(lam=lambda count: 1.0, l2_weight=-1), "l2_weight: got -1"),
        (lambda: cg.scale_by_sobolev(method=3), "method: got 3"),
        (lambda: cg.scale_by_sobolev(axes="output"), "axes: got 'output'"),
        (lambda: cg.scale_by_reweighted_l2(form="wrong"), "form: got 'wrong'"),
        (lambda: cg.scale_by_reweighted_l2(form=lambda count: "code"), "form: got <function"),
        (lambda: cg.scale_by_laplacian_smoothing(order=0), "order: got 0"),
        (lambda: cg.scale_by_laplacian_smoothing(order=[1]), r"order: got \[1\]"),
        (lambda: cg.scale_by_laplacian_smoothing(sigma=jnp.nan), "sigma: got nan"),
        (lambda: cg.scale_by_metric("sobolev"), "metric: got 'sobolev'.*a Metric"),
        (lambda: cg.scale_by_metric(cg.Sobolev), "metric: got <class"),
    ],
)
def test_errors_come_when_the_transformation_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_arrays_and_numpy_numbers_are_numbers():
    f = gradients()
    for lam in (2, np.float64(2), np.asarray(2.0), jnp.asarray(2), jnp.asarray(2.0, jnp.bfloat16)):
        g, _ = cg.scale_by_sobolev(lam=lam).update(f, optax.EmptyState())
        assert_trees_close(g, expected("sobolev", f, lam=2.0))


@every
def test_complex_gradients_are_computed_as_complex(name):
    real, imaginary = gradients(seed=1), gradients(seed=2)
    f = jax.tree.map(jax.lax.complex, real, imaginary)
    transform = make(name)
    for update in (transform.update, jax.jit(transform.update)):
        g, _ = update(f, transform.init(f))
        assert g["conv"]["kernel"].dtype == jnp.complex64
        for part, alone in ((jnp.real, real), (jnp.imag, imaginary)):
            assert_trees_close(jax.tree.map(part, g), expected(name, alone))
    reweighted = cg.ReweightedL2().gradient(jnp.array([1 + 2j]))
    np.testing.assert_allclose(reweighted, [2 + 4j])


@every
def test_integers_are_an_error_that_names_the_leaf(name):
    f = {"kernel": jnp.ones((2, 2, N), jnp.int32), "bias": jnp.ones(N, jnp.int32)}
    transform = make(name)
    with pytest.raises(ValueError, match=r"updates: got dtype int32 at the leaf \['kernel'\]"):
        transform.update(f, transform.init(f))
    g, _ = transform.update({"bias": f["bias"]}, optax.EmptyState())
    np.testing.assert_array_equal(g["bias"], 1)


@every
def test_strict_dtype_promotion(name):
    """The FFT, too; numbers as schedules and through inject_hyperparams, where all are arrays."""
    factory, arguments, _, scheduled = TABLE[name]
    schedules = {argument: optax.constant_schedule(2.0) for argument in scheduled}
    with jax.numpy_dtype_promotion("strict"):
        for dtype in (jnp.float32, jnp.bfloat16):
            f = gradients(dtype)
            for method in ("auto", "dense", "fft"):
                factory(**arguments, method=method).update(f, optax.EmptyState())
            for transform in (
                make(name, **schedules),
                optax.inject_hyperparams(factory)(**{**arguments, **schedules}),
            ):
                g, _ = jax.jit(transform.update)(f, transform.init(f), f)
                assert g["conv"]["kernel"].dtype == dtype
        metric = metric_of(name)
        if name != "listing":
            metric.inner(f["conv"]["kernel"], f["conv"]["kernel"])
            metric.kernel(N)


@every
def test_zero_size_kernels(name):
    transform = make(name, axes=cg.all_kernels)
    for shape in ((0, 4), (4, 0), (3, 3, 0, 4), (3, 3, 4, 0)):
        f = {"kernel": jnp.zeros(shape)}
        g, _ = transform.update(f, transform.init(f))
        assert g["kernel"].shape == shape


@every
@pytest.mark.parametrize("n", [32, 300, 5000])
def test_large_gradients_do_not_overflow(name, n):
    """At 1e36 as at 1: the map is linear. Sums over more than 340 such elements are infinite."""
    f = np.abs(gradients(n=n)["conv"]["kernel"][0, 0, :1])[None]
    transform = make(name)
    small, large = (transform.update({"kernel": s * f}, optax.EmptyState())[0] for s in (1, 1e36))
    scale = np.abs(small["kernel"]).max()
    error = np.abs(np.asarray(large["kernel"], np.float64) / 1e36 - small["kernel"]).max()
    assert error <= 1e-5 * scale


def test_state_of_inject_hyperparams_has_no_leaf_for_an_axis_spec():
    """AxisSpec can be called, so optax takes it for a schedule: its state must hold arrays."""
    inject = optax.inject_hyperparams(cg.scale_by_sobolev)
    for axes in (cg.output_axes.exclude("dense"), cg.flax_layout):
        transform = inject(lam=lambda count: 1.0 + count, axes=axes)
        f = gradients()
        state = transform.init(f)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
        restored = flax.serialization.from_bytes(state, flax.serialization.to_bytes(state))
        g, _ = jax.jit(transform.update)(f, restored, f)
        assert_trees_close(g, expected("sobolev", f))


def test_every_public_transformation_is_in_the_table():
    public = {getattr(cg, name) for name in cg.__all__ if name.startswith("scale_by_")}
    table = {factory for factory, *_ in TABLE.values()}
    assert public - table == {cg.scale_by_learned_metric}  # is not linear: test_learned.py
    for factory in table:
        assert {"axes", "method"} <= inspect.signature(factory).parameters.keys()
