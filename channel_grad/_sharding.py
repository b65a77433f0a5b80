"""Arrays that lie on several devices.

With Auto axes of a mesh, the compiler partitions the program, and nothing tells at tracing time
how an array will lie. It moves no data as long as no axis is merged with a sharded one, so with
several devices the algorithms keep the axes of an array apart, and choose products over FFTs, which
gather. With one device they take what is fastest.

With Explicit axes the types of JAX say how each intermediate array lies, and several operations
refuse. The algorithms run with Auto axes there, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes


def several_devices() -> bool:
    """Whether arrays may lie on several devices."""
    return jax.device_count() > 1


def explicit_sharding(*arrays: jax.Array) -> NamedSharding | None:
    """The sharding of the first array that lies along Explicit axes, None if no array does."""
    for array in arrays:
        sharding = jax.typeof(array).sharding
        if any(sharding.spec) and AxisType.Explicit in sharding.mesh.axis_types:
            return sharding
    return None


def with_automatic_sharding(
    function: Callable[..., jax.Array],
    numbers: dict[str, jax.Array],
    *arrays: jax.Array,
    scalar: bool = False,
) -> jax.Array:
    """``function(numbers, *arrays)``; with Explicit axes, computed as if they were Auto.

    The arrays have one shape. The result lies on the devices as the first array does, or is a
    scalar that all of them hold. Traced numbers must come as arguments, since a tracer cannot pass
    from Explicit to Auto axes in a closure.
    """
    sharding = explicit_sharding(*arrays)
    if sharding is None:
        return function(numbers, *arrays)
    if scalar:
        sharding = NamedSharding(sharding.mesh, PartitionSpec())
    # The decorator of JAX is typed as if it returned an array or a decorator.
    apply: Any = auto_axes(function, out_sharding=sharding)
    return apply(numbers, *arrays)
