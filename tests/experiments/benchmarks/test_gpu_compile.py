"""Programs for a GPU that is not there: names, the step that is counted, and bars where it can."""

import importlib.util

import jax
import pytest

from experiments.benchmarks import gpu_compile, gpu_programs, gpus, hlo
from experiments.cli import main as command
from experiments.system.errors import ConfigError, UserError
from tests.experiments.small import DEVICE, Small, classifier, executor

CUDA = importlib.util.find_spec("jax_cuda13_plugin") is not None


def test_programs_are_chosen_by_patterns_and_a_pattern_without_a_match_is_refused():
    assert gpu_compile.chosen(["optflow c*"]) == [
        "optflow cg 64 of 7x7x7", "optflow cholesky 64 of 7x7x7",
    ]  # fmt: skip
    assert gpu_compile.chosen(["*"]) == list(gpu_programs.PROGRAMS)
    with pytest.raises(ConfigError, match="programs: got alexnet; accepted: resnet56 l2"):
        gpu_compile.chosen(["*", "alexnet"])


def test_a_description_holds_the_numbers_of_its_gpu():
    target = gpus.named("a100").target()
    for line in ("core_count: 108", "major: 8", "shared_memory_per_block_optin: 166912"):
        assert line in target
    with pytest.raises(ConfigError, match="gpu: got voodoo2; accepted: a100, h100, h200"):
        gpus.named("voodoo2")


def test_a_dispatch_is_one_loop_over_all_steps_but_the_last_and_computes_norms_once():
    engine = executor(classifier(Small()), DEVICE)
    function, arguments = engine.program(3)
    text = jax.jit(function).lower(*arguments).compile().as_text()
    assert hlo.read(text).longest_loop().trips == 2
    assert text.count(" sqrt(") == 3  # the norms of gradient, parameters and update


def test_operations_are_those_of_one_step():
    square = jax.ShapeDtypeStruct((64, 64), "float32")
    product = 2 * 64**3

    def dispatch(a, b):
        a, _ = jax.lax.scan(lambda a, _: (a @ b, None), a, length=9)
        return a @ b

    def flop(function, scanned, devices=1):
        program = gpu_programs.Program(function, (square, square), scanned=scanned)
        return gpu_programs.flop(program, [None] * devices)

    assert flop(jax.numpy.matmul, False) == product
    assert product <= flop(dispatch, True) < product + 64  # and the counter of the loop
    assert flop(jax.numpy.matmul, False, devices=8) is None


@pytest.mark.skipif(CUDA, reason="JAX's CUDA plugin is installed here")
def test_without_the_compiler_the_command_says_what_to_install(tmp_path):
    with pytest.raises(UserError, match=r"gpu: got no CUDA compiler here .*jax\[cuda13\]"):
        out = f"--out={tmp_path / 'results.json'}"
        command.call(gpu_compile.main, gpu_compile.define, out)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not CUDA, reason='needs XLA\'s CUDA compiler: pip install "jax[cuda13]"')
@pytest.mark.parametrize(
    ("name", "most"), [("resnet56 sobolev float32", 1_020), ("video native with OptFlow", 250)]
)
def test_a_step_launches_no_more_than_it_should_and_never_waits_for_the_host(name, most):
    counts = gpu_compile.counted(name, gpus.named("h100"))
    assert counts["launches"] <= most
    assert counts["conditionals"] == counts["unknown_loops"] == 0
