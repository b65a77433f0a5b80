"""The package as a whole: its table of metrics, its public names, the shapes in its signatures."""

import dataclasses
import inspect
import pathlib
import subprocess
import sys
import typing
import warnings

import jax.numpy as jnp
import jax.typing
import jaxtyping
import numpy as np
import pytest

import channel_grad as cg


def test_table_of_metrics():
    assert list(cg.METRICS) == ["l2", "reweighted_l2", "sobolev", "laplacian"]
    subclasses = {cls for cls in cg.Metric.__subclasses__() if cls.__module__.startswith("channel")}
    assert set(cg.METRICS.values()) == subclasses
    with pytest.raises(TypeError):
        cg.METRICS["mine"] = cg.L2


@pytest.mark.parametrize("name", cg.METRICS)
def test_fields_describe_themselves_and_say_what_is_accepted(name):
    """What the metadata accept is accepted, and what they refuse is refused."""
    metric = cg.METRICS[name]
    for field in dataclasses.fields(metric):
        about = field.metadata
        assert about["help"].endswith(".")
        assert ("choices" in about) + ("minimum" in about) + ("above" in about) == 1
        if "choices" in about:
            good, bad = about["choices"], ("nonsense",)
            assert field.default in good
        elif "minimum" in about:
            good, bad = (about["minimum"],), (about["minimum"] - 1,)
        else:
            good, bad = (about["above"] + 1e-6,), (about["above"],)
        for value in good:
            assert getattr(metric(**{field.name: value}), field.name) == value
        for value in bad:
            with pytest.raises(ValueError, match=f"{field.name}: got"):
                metric(**{field.name: value})
    assert hash(metric()) == hash(metric())
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric().lam = 2.0


def test_names_of_the_experiments_flags():
    names = {field.name for metric in cg.METRICS.values() for field in dataclasses.fields(metric)}
    assert names == {"lam", "l2_weight", "sigma", "form", "discretization", "order"}


def test_a_metric_must_say_what_it_does():
    class Nothing(cg.Metric):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()


def test_public_names_and_those_that_were_public():
    assert cg.__version__ == "0.2.0"
    assert all(hasattr(cg, name) for name in cg.__all__)
    for name in ("GreenCirculant", "SpectralCirculant", "apply_circulant"):
        assert name not in cg.__all__
        with pytest.warns(DeprecationWarning, match=f"{name} is private"):
            getattr(cg, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cg.nonsense
    assert (pathlib.Path(cg.__file__).parent / "py.typed").is_file()


def public_functions():
    for name in cg.__all__:
        value = getattr(cg, name)
        if inspect.isfunction(value):
            yield value
        elif inspect.isclass(value):
            for method in vars(value).values():
                if inspect.isfunction(method) and not method.__name__.startswith("_"):
                    yield method


def hints(function):
    """The annotations, with jaxtyping at hand, which the package does not import."""
    names = {**vars(jaxtyping), "Array": jax.Array, "ArrayLike": jax.typing.ArrayLike}
    scope = {**function.__globals__, **{n: v for n, v in names.items() if not n.startswith("_")}}
    return typing.get_type_hints(function, globalns=scope, localns={"M": cg.Metric})


def test_annotations_of_all_public_functions_resolve():
    functions = list(public_functions())
    assert len(functions) > 10
    for function in functions:
        found = hints(function)
        parameters = inspect.signature(function).parameters.keys() - {"self", "cls"}
        assert parameters <= found.keys(), function
        assert "return" in found, function


def matches(value, hint):
    """isinstance, also for one of several types; shapes are those of the context."""
    return any(isinstance(value, kind) for kind in typing.get_args(hint) or (hint,))


def test_shapes_in_signatures_hold_at_run_time():
    f = jnp.ones((3, 2, 8))
    methods = (cg.Metric.gradient, cg.Metric.inner, cg.Metric.kernel)
    gradient, inner, kernel = map(hints, methods)
    with jaxtyping.jaxtyped("context"):
        assert matches(f, gradient["f"])
        assert matches(cg.Sobolev().gradient(f), gradient["return"])
        assert not matches(f[0], gradient["return"])
    with jaxtyping.jaxtyped("context"):
        assert matches(np.asarray(f), inner["k1"])
        assert not matches(f[0], inner["k2"])
        assert matches(cg.Sobolev().inner(f, f), inner["return"])
        assert not matches(f, inner["return"])
    assert matches(cg.Sobolev().kernel(8), kernel["return"])
    assert not matches(f, kernel["return"])
    assert not matches(np.ones(3, int), gradient["f"])


def test_importing_needs_neither_jaxtyping_nor_anything_heavy():
    program = (
        "import sys; sys.modules['jaxtyping'] = None; import channel_grad; "
        "channel_grad.scale_by_sobolev()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_shows_describe():
    assert "describe(params" in (cg.__doc__ or "")
    assert "describe(params" in (cg.scale_by_metric.__doc__ or "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        help_text = inspect.getdoc(cg.describe)
    assert "conv/kernel" in help_text
