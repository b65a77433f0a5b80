"""The package as a whole: its public names and the shapes in its signatures."""

import inspect
import pathlib
import typing
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import jax.typing
import jaxtyping
import numpy as np
import pytest

import optflow_jax
from optflow_jax import _arguments

FUNCTIONS = [
    value for value in map(vars(optflow_jax).get, optflow_jax.__all__) if inspect.isfunction(value)
]


def hints(function):
    """The annotations, with jaxtyping at hand, which the package does not import."""
    scope = {n: v for n, v in vars(jaxtyping).items() if not n.startswith("_")}
    scope |= {"Array": jax.Array, "ArrayLike": jax.typing.ArrayLike}
    scope |= {"Callable": Callable, "Sequence": Sequence}
    scope |= {name: getattr(_arguments, name) for name in ("Solver", "OnFailure", "Layout")}
    module = inspect.getmodule(function)
    return typing.get_type_hints(function, globalns={**vars(module), **scope})


def matches(value, hint):
    """isinstance, also for one of several types; shapes are those of the context."""
    return any(isinstance(value, kind) for kind in typing.get_args(hint) or (hint,))


def test_public_names():
    assert optflow_jax.__version__ == "0.2.0"
    assert all(hasattr(optflow_jax, name) for name in optflow_jax.__all__)
    assert inspect.ismodule(optflow_jax.penalties)
    assert (pathlib.Path(optflow_jax.__file__).parent / "py.typed").is_file()


def test_annotations_of_all_public_functions_resolve():
    assert len(FUNCTIONS) >= 8
    for function in FUNCTIONS:
        found = hints(function)
        assert inspect.signature(function).parameters.keys() <= found.keys(), function
        assert "return" in found, function


@pytest.mark.parametrize("name", ["cost", "cost_forward", "loss"])
def test_shapes_of_costs_hold_at_run_time(name):
    function = getattr(optflow_jax, name)
    found, w = hints(function), jnp.ones((4, 2, 3, 5))
    given = (w, w, w) if name == "loss" else (w,)
    with jaxtyping.jaxtyped("context"):
        for argument, value in zip(found, given, strict=False):
            assert matches(value, found[argument])
        result = function(*given)
        assert matches(result, found["return"])
        assert not matches(result[0], found["return"])
    assert not matches(np.ones((3, 5)), found["filters"])
    assert not matches(np.ones((2, 3, 5), int), found["filters"])


def test_shapes_of_the_flow_hold_at_run_time():
    found = hints(optflow_jax.flow)
    fields = hints(optflow_jax.Flow)
    w = jnp.ones((4, 2, 3, 5))
    with jaxtyping.jaxtyped("context"):
        assert matches(w, found["filters"])
        flow = optflow_jax.flow(w)
        assert matches(flow, found["return"])
        for name, value in flow._asdict().items():
            assert matches(value, fields[name]), name
        assert not matches(flow.u[0], fields["u"])
        assert not matches(flow.cost, fields["converged"])


def test_shapes_of_kernels_hold_at_run_time():
    kernel = jnp.ones((2, 3, 4, 3, 5))
    found = hints(optflow_jax.collapse)
    with jaxtyping.jaxtyped("context"):
        assert matches(kernel, found["kernel"])
        assert matches(optflow_jax.collapse(kernel), found["return"])
    assert not matches(kernel[0], found["kernel"])
    for name in ("regularizer", "tree_regularizer"):
        function = getattr(optflow_jax, name)
        value = function(kernel if name == "regularizer" else {"kernel": kernel}, solver="cg")
        assert matches(value, hints(function)["return"])
        assert not matches(value[None], hints(function)["return"])
