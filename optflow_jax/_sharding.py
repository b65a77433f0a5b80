"""Filters that are sharded over many devices: each device solves its own filters, without waiting.

Filters are independent, but a loop that runs until all of them have converged, compiled for many
devices, makes these communicate after every iteration. So each device runs a program of its own on
its own filters. JAX shards arrays in three ways, and each needs its own step:

- Explicit mesh axes (`jax.make_mesh`): the sharding is part of an array's type. `partitioned` calls
  `jax.shard_map` with it.
- Auto mesh axes: the sharding is known only when XLA partitions the program. `partitioned` makes
  the solver one operation, and tells XLA how to split it.
- Manual mesh axes, inside the caller's own `jax.shard_map`: arrays are local already. `alike` makes
  all of them vary over the same mesh axes, as loops and derivative rules require.

Arrays are `(T, H, W, *batch)` here; those without pixels are `(*batch,)` or `(1, 1, 1, *batch)`.
The pixels of a filter are never split.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def numpy_broadcasting(function: Callable) -> Callable:
    """`function`, in which arrays of different ranks meet as in NumPy.

    Inside, arrays `(T, H, W, *batch)` meet arrays `(*batch,)`. `jax_numpy_rank_promotion="raise"`
    is for the code of the user, who may have set it.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        with jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return call


def explicit_spec(x: jax.Array) -> tuple[jax.sharding.AbstractMesh | None, tuple]:
    """The mesh and the partition of each axis of `x` over Explicit mesh axes.

    Returns:
        `mesh, entries`. If no mesh axis is Explicit, the mesh and all entries are None.
    """
    sharding = jax.typeof(x).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return None, (None,) * jnp.ndim(x)
    return sharding.mesh, tuple(sharding.spec) + (None,) * (jnp.ndim(x) - len(sharding.spec))


def whole_pixels(w: jax.Array, alpha: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Under an Explicit mesh: gather sharded pixels, and shard `alpha` like the batch of `w`.

    Args:
        w: `(T, H, W, *batch)`.
        alpha: `(*batch,)`.

    Returns:
        The same values.
    """
    if explicit_spec(w)[0] or explicit_spec(alpha)[0]:
        w, alpha = _shard_alike(w, alpha)
    return w, alpha


def _shard_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Reshard over Explicit mesh axes: all batches as the first one that is sharded, pixels whole.

    The batch axes are the last axes of each array.
    """
    specs = [explicit_spec(x) for x in arrays]
    mesh = next(mesh for mesh, _ in specs if mesh is not None)
    rank = arrays[0].ndim - 3
    batches = [entries[len(entries) - rank :] for _, entries in specs]
    batch = next((b for b in batches if any(b)), (None,) * rank)
    return tuple(
        jax.sharding.reshard(
            x, NamedSharding(mesh, PartitionSpec(*[None] * (x.ndim - rank), *batch))
        )
        for x in arrays
    )


def _on_own_filters(function: Callable, *arrays: jax.Array):
    """`function(*arrays)` on each device with its own filters, over Explicit mesh axes."""
    arrays = _shard_alike(*arrays)
    mesh, entries = explicit_spec(arrays[0])
    names = [(e,) if isinstance(e, str) else e for e in entries if e is not None]
    if not names:
        return function(*arrays)
    spec = PartitionSpec(*entries)
    return jax.shard_map(
        function, mesh=mesh, in_specs=spec, out_specs=spec, axis_names=frozenset().union(*names)
    )(*arrays)


def alike(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays, all marked as varying over the mesh axes that any of them varies over."""
    axes = [jax.typeof(x).manual_axis_type.varying for x in arrays]
    union = frozenset().union(*axes)
    return [
        jax.lax.pcast(x, tuple(sorted(union - own)), to="varying") if union - own else x
        for x, own in zip(arrays, axes, strict=True)
    ]


def partitioned(function: Callable) -> Callable:
    """`function` as an operation that XLA splits along the batch only, with no communication.

    Args:
        function: from arrays of rank `3 + batch` to a tree of such arrays; `(1, 1, 1)` stands for
            the pixels where an array has none. It must not mix the members of the batch.

    Returns:
        The function. On one device it compiles to the same program as `function`.
    """
    # The inner jit keeps constants (K^-1) inside; `custom_partitioning` refuses them as inputs.
    local = jax.jit(function)
    operation = custom_partitioning(lambda *arrays: local(*arrays))

    def call(*arrays):
        # To debug: one operation after another, on all filters.
        if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
            return function(*arrays)
        if any(explicit_spec(x)[0] for x in arrays):
            return _on_own_filters(local, *alike(*arrays))
        # Inside a `jax.shard_map` arrays are local already (at least along its own mesh axes).
        manual = jax.sharding.get_abstract_mesh().manual_axes
        return local(*arrays) if manual else operation(*arrays)

    def partition(mesh, arguments, results):
        sharding = _batch_sharding(mesh, arguments[0])
        shardings = [jax.tree.map(lambda _: sharding, x) for x in (results, arguments)]
        return mesh, local, *shardings

    operation.def_partition(partition, sharding_rule=_rule)
    return call


def _batch_sharding(mesh, x: jax.ShapeDtypeStruct) -> NamedSharding:
    """The sharding that XLA chose for `x`, without that of the pixels."""
    spec = tuple(x.sharding.spec) + (None,) * (len(x.shape) - len(x.sharding.spec))
    sharding = NamedSharding(mesh, PartitionSpec(None, None, None, *spec[3:]))
    try:
        sharding.shard_shape(x.shape)
    except ValueError:  # the batch does not divide evenly
        return NamedSharding(mesh, PartitionSpec())
    return sharding


def _rule(_, operands, results) -> tuple[str, dict]:
    """The rule of Shardy: one factor per batch axis, in all arrays; pixels stay together."""
    batch = [f"n{i}" for i in range(len(operands[0].shape) - 3)]

    def factors(array):
        pixels = ["t", "h", "w"] if list(array.shape[:3]) == pixel_shape else ["i", "j", "k"]
        return " ".join(pixels + batch)

    pixel_shape = list(operands[0].shape[:3])
    sides = [", ".join(map(factors, arrays)) for arrays in (operands, results)]
    return " -> ".join(sides), {"need_replication_factors": ("t", "h", "w")}
