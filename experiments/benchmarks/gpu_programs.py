"""The programs that `gpu_compile` counts: training steps, and those of both libraries."""

from __future__ import annotations

import contextlib
import functools
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

import channel_grad
import optflow_jax
from experiments import cifar_resnet56, ucf101_convnet3d
from experiments.benchmarks.gpus import GPU
from experiments.data.dataset import Dataset, Split
from experiments.models import convnet3d
from experiments.system.errors import UserError
from experiments.training.execution import Executor, Plan
from experiments.training.settings import with_settings
from experiments.training.sharding import AXIS, BatchSharding
from experiments.training.task import Batch

STEPS = 50  # of one dispatch
DEVICES = 8  # of the programs that divide a batch


class Program(NamedTuple):
    """A function and its arguments, as shapes; `donated` are the arguments that it may overwrite.

    `scanned` says that the program is a scan over `STEPS` training steps, of which one counts.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    donated: tuple[int, ...] = ()
    scanned: bool = False


def topology(gpu: GPU, devices: int = 1) -> list[Any]:
    """Devices of this kind, to compile for.

    Raises:
      UserError: JAX's CUDA plugin is not installed.
    """
    try:
        described = topologies.get_topology_desc(
            platform="cuda",
            topology_name=gpu.name,
            target_config=gpu.target(),
            topology=f"1x1x{devices}",
        )
    except (NotImplementedError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise UserError(
            f"gpu: got no CUDA compiler here ({reason}); accepted: an environment with "
            '"jax[cuda13]" (pip install; 4 GB; needs no GPU)'
        ) from error
    return list(described.devices)


@contextlib.contextmanager
def gpu_path() -> Iterator[None]:
    """Code that asks for the default backend while it is traced is told "gpu".

    What was traced before is forgotten, and what is traced inside is forgotten at the end.
    """
    jax.clear_caches()
    with unittest.mock.patch.object(jax, "default_backend", lambda: "gpu"):
        yield
    jax.clear_caches()


def noise(shape: tuple[int, ...], examples: int) -> Dataset:
    """A dataset of random numbers in ten classes."""
    rng = np.random.default_rng(0)
    split = Split(
        rng.integers(0, 256, (examples, *shape), dtype=np.uint8),
        rng.integers(0, 10, examples).astype(np.int32),
    )
    return Dataset("noise", split, split, tuple("0123456789"), "random numbers")


def resnet56(metric: str, precision: str, batch_size: int = 128) -> Program:
    """One dispatch of `cifar_resnet56`, as on a GPU."""
    settings = {"metric": metric, "precision": precision, "batch_size": batch_size}
    config = with_settings(cifar_resnet56.CifarConfig(), settings)
    dataset = noise((32, 32, 3), 2 * batch_size)
    task, _ = cifar_resnet56.build(config, dataset)
    return _dispatch(task, dataset, batch_size)


def video(method: str, optflow: bool) -> Program:
    """One dispatch of `ucf101_convnet3d` at 16x112x112, batch 8, by one way to convolve."""
    size = {"optflow_strength": 1.0 if optflow else 0.0, "batch_size": 8}
    config = with_settings(ucf101_convnet3d.VideoConfig(), size)
    dataset = noise((16, 112, 112, 3), 8)
    task, _ = ucf101_convnet3d.build(config, dataset)
    program = _dispatch(task, dataset, 8)
    convolve = functools.partial(convnet3d.conv3d, method=method)

    def function(*arguments):
        with unittest.mock.patch.object(convnet3d, "conv3d", convolve):
            return program.function(*arguments)

    return program._replace(function=function)


def _dispatch(task: Any, dataset: Dataset, batch_size: int) -> Program:
    executor = Executor(task, dataset, batch_size, Plan(STEPS, device_resident=True))
    return Program(*executor.program(STEPS), donated=(0,), scanned=True)


def divided(devices: list[Any], statistics: str) -> Program:
    """A step of ResNet-56, batch 128, divided among devices."""
    dataset, batch_size = noise((32, 32, 3), 256), 128
    config = with_settings(cifar_resnet56.CifarConfig(), {"batch_size": batch_size})
    task, _ = cifar_resnet56.build(config, dataset)
    sharding = BatchSharding.over(devices, statistics)
    whole = NamedSharding(sharding.mesh, PartitionSpec())
    parts = NamedSharding(sharding.mesh, PartitionSpec(AXIS))
    executor = Executor(task, dataset, batch_size, Plan(1, device_resident=False))
    state = jax.eval_shape(lambda: executor.initial_state(0))
    batch = Batch(
        jax.ShapeDtypeStruct((batch_size, 32, 32, 3), jnp.uint8),
        jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    )
    arguments = (
        _placed(state, whole),
        _placed(batch, parts),
        jax.ShapeDtypeStruct((), jnp.int32, sharding=whole),
    )
    return Program(sharding.step(task), arguments, donated=(0,))


def metric(name: str, *shape: int) -> Program:
    """The gradient of one kernel under a metric."""
    return Program(
        channel_grad.METRICS[name]().gradient, (jax.ShapeDtypeStruct(shape, jnp.float32),)
    )


def optflow(solver: str, *shape: int) -> Program:
    """Cost and gradient of a batch of filters by one solver."""

    def cost_and_gradient(filters):
        cost, pull_back = jax.vjp(functools.partial(optflow_jax.cost, solver=solver), filters)
        return cost, pull_back(jnp.ones_like(cost))[0]

    return Program(cost_and_gradient, (jax.ShapeDtypeStruct(shape, jnp.float32),))


# Name -> (number of devices, function from these devices to a program).
PROGRAMS: dict[str, tuple[int, Callable[[list[Any]], Program]]] = {
    **{
        f"resnet56 {name} {precision}": (1, lambda _, n=name, p=precision: resnet56(n, p))
        for precision in ("float32", "bfloat16")
        for name in ("l2", "reweighted_l2", "sobolev")
    },
    **{
        f"video {method}{' with OptFlow' if on else ''}": (1, lambda _, m=method, o=on: video(m, o))
        for method in ("native", "folded")
        for on in (False, True)
    },
    **{
        f"resnet56 on {DEVICES} devices with {which} statistics": (
            DEVICES,
            lambda devices, which=which: divided(devices, which),
        )
        for which in ("global", "local")
    },
    **{
        f"{name} 3x3x{n}x{n}": (1, lambda _, name=name, n=n: metric(name, 3, 3, n, n))
        for name in ("reweighted_l2", "sobolev", "laplacian")
        for n in (64, 512)
    },
    **{
        f"optflow {solver} 64 of 7x7x7": (1, lambda _, s=solver: optflow(s, 64, 7, 7, 7))
        for solver in ("auto", "cg", "cholesky")
    },
}


def _placed(tree: Any, sharding: Any) -> Any:
    def struct(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(struct, tree)


def compiled(program: Program, devices: list[Any]) -> Any:
    """The program, compiled for these devices; to be called inside `gpu_path`, as what made it."""
    arguments = program.arguments
    if len(devices) == 1:
        arguments = _placed(arguments, jax.sharding.SingleDeviceSharding(devices[0]))
    return _lowered(program, arguments).compile()


def flop(program: Program, devices: list[Any]) -> float | None:
    """Floating point operations of one run, or of one step where the program is a scan.

    Of the program as it is traced, before XLA changes it: of a compiled one for a GPU that is not
    there XLA tells nothing. None for several devices, for the same reason. To be called inside
    `gpu_path`.
    """
    if len(devices) > 1:
        return None
    # The analysis counts the body of a loop once, and the last step is apart from the loop.
    steps = 2 if program.scanned else 1
    return _lowered(program, program.arguments).cost_analysis()["flops"] / steps


def _lowered(program: Program, arguments: tuple[Any, ...]) -> jax.stages.Lowered:
    return jax.jit(program.function, donate_argnums=program.donated).lower(*arguments)
