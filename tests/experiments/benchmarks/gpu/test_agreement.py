"""The agreement part: right functions pass, a wrong or broken one is named, all are covered."""

import inspect

import jax
import numpy as np
import pytest

import channel_grad
import optflow_jax
from channel_grad import correlation
from experiments.benchmarks.gpu import agreement, cases, cases_optflow, cases_penalties, setup
from experiments.benchmarks.gpu.clock import Clock
from optflow_jax import penalties

# Groups that compile quickly; the tests of the libraries hold the others to float64 too.
QUICK = ("metrics", "penalties", "correlation")


@pytest.fixture(scope="module")
def groups():
    return agreement.groups()


@pytest.mark.parametrize("group", QUICK)
def test_the_libraries_agree_with_the_equations(groups, group):
    rows = agreement.check(groups[group], "float32")
    assert len(rows) == len(groups[group])
    assert {name: row for name, row in rows.items() if not row["passed"]} == {}


def test_a_solver_agrees_with_the_equations(groups):
    (row,) = agreement.check(groups["optflow cg"][:1], "float32").values()
    assert row["passed"] and row["error"] < 1e-5


def test_the_exact_numbers_are_those_of_the_paper_s_method():
    from experiments.benchmarks.optflow_peers import scipy_per_filter

    filters = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    cost, gradient = scipy_per_filter(filters)
    found = cases_optflow.solved(filters, 1.0)
    np.testing.assert_allclose(found["cost"], cost, rtol=1e-10)
    np.testing.assert_allclose(found["gradient"], gradient, rtol=1e-8, atol=1e-10)


def chosen(*names):
    return [
        c for c in cases_penalties.penalty_cases() if c.name.removeprefix("penalties.") in names
    ]


def test_bfloat16_has_a_tolerance_of_its_own():
    rows = agreement.check(chosen("l1", "prox_l1"), "bfloat16")
    assert all(row["passed"] and row["tolerance"] == 1e-2 for row in rows.values())
    assert rows["penalties.l1"]["error"] > 1e-5  # the rounding of the result


def test_a_wrong_function_fails(monkeypatch):
    monkeypatch.setattr(penalties, "prox_l1", lambda v, step: 1.0001 * v)
    rows = agreement.check(chosen("prox_l1", "prox_l2"), "float32")
    assert not rows["penalties.prox_l1"]["passed"] and rows["penalties.prox_l1"]["error"] > 1e-5
    assert rows["penalties.prox_l2"]["passed"]
    results = {"functions": {"float32": rows}}
    lines = dict(agreement.rows(results))
    assert lines["functions that agree with float64, float32"].startswith("1 of 2")
    assert "FAIL penalties.prox_l1, float32" in lines


def test_a_function_that_raises_fails_alone(monkeypatch):
    def broken(v, step):
        raise NotImplementedError("not on this device")

    monkeypatch.setattr(penalties, "prox_l1", broken)
    rows = agreement.check(chosen("prox_l1", "prox_l2"), "float32")
    assert rows["penalties.prox_l1"]["raised"] == "NotImplementedError: not on this device"
    assert not rows["penalties.prox_l1"]["passed"] and rows["penalties.prox_l2"]["passed"]


def test_nan_is_no_agreement():
    assert agreement.error(np.array([np.nan]), np.array([1.0])) == np.inf


def test_what_the_clock_leaves_out_is_named(tmp_path, monkeypatch):
    found = {"first": chosen("l1"), "second": chosen("l2")}
    monkeypatch.setattr(agreement, "groups", lambda: found)
    ticks = iter([0.0, 0.0, 1.0, *[100.0] * 20])
    results = {}
    given = setup.Setup(setup.REDUCED, None, "", tmp_path, notice=lambda line: None)
    agreement.measure(given, Clock(50, lambda: next(ticks)), results)
    assert results["functions"]["float32"].keys() == {"penalties.l1", "penalties.l2"}
    assert results["left_out"] == ["first (bfloat16)", "second (bfloat16)"]
    assert (results["checked"], results["passed"]) == (2, 2)


# Names that compute nothing on the device: types, layouts, and functions of a tree's names.
NO_NUMBERS = {
    "AxisSpec", "Description", "Layout", "METRICS", "Metric", "all_kernels", "describe",
    "equinox_layout", "flax_layout", "haiku_layout", "input_axes", "nnx_layout", "output_axes",
    "torch_layout", "correlation", "Flow", "first_convolution", "penalties",
    "PermutationTest", "LearnedMetricState",
}  # fmt: skip
CLASSES = {
    "L2": "l2", "ReweightedL2": "reweighted_l2", "Sobolev": "sobolev", "raster": "raster",
    "LaplacianSmoothing": "laplacian",
}  # fmt: skip


def test_every_public_function_has_a_case(groups):
    names = " ".join(case.name for members in groups.values() for case in members)
    public = {*channel_grad.__all__, *optflow_jax.__all__} - NO_NUMBERS
    public |= {f"penalties.{name}" for name in penalties.__all__}
    public |= {
        f"correlation.{name}"
        for name, function in inspect.getmembers(correlation, inspect.isfunction)
        if function.__module__ == correlation.__name__ and not name.startswith("_")
    }
    assert [name for name in public if CLASSES.get(name, name) not in names] == []


def test_every_metric_discretization_method_and_solver_has_a_case(groups):
    assert cases.METRICS.keys() == channel_grad.METRICS.keys()
    names = {case.name for case in groups["metrics"]}
    for kind in channel_grad.Sobolev.DISCRETIZATIONS:
        for method in channel_grad.Sobolev.METHODS:
            assert f"sobolev {kind} gradient {method}" in names
    with pytest.raises(ValueError, match="solver: got") as caught:
        optflow_jax.cost(jax.numpy.ones((1, 1, 1)), solver="none")
    accepted = str(caught.value).partition("accepted: ")[2].replace("'", "").split(", ")
    assert set(accepted) == set(cases_optflow.SOLVERS)
