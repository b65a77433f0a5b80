"""Means over the devices that share a batch, inside `jax.shard_map`."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp


@dataclasses.dataclass
class Averaging:
    """The axis over which `mean_gradient` averages, and how often it was called."""

    axis: str
    count: int = 0


_current: contextvars.ContextVar[Averaging | None] = contextvars.ContextVar("axis", default=None)


@contextlib.contextmanager
def over(axis: str) -> Iterator[Averaging]:
    """While a step is traced in this block, gradients are averaged over a mesh axis."""
    averaging = Averaging(axis)
    token = _current.set(averaging)
    try:
        yield averaging
    finally:
        _current.reset(token)


def own(params: Any) -> Any:
    """Parameters of which each device takes the gradient of its own loss; see `over`."""
    averaging = _current.get()
    if averaging is None:
        return params
    return jax.tree.map(lambda x: jax.lax.pcast(x, averaging.axis, to="varying"), params)


def mean_gradient(gradient: Any) -> Any:
    """The mean over the devices, in one all-reduce; the gradient itself outside of `over`."""
    averaging = _current.get()
    if averaging is None:
        return gradient
    averaging.count += 1
    flat, restore = jax.flatten_util.ravel_pytree(gradient)
    return restore(jax.lax.pmean(flat, averaging.axis))


def gather(state: Any, sums: Any, axis: str) -> tuple[Any, Any]:
    """Means of what differs by device in a state, and totals of the sums, in one all-reduce.

    Integers of the sums travel as two float32 of 16 bits each, so that their totals are exact.
    """
    leaves, tree = jax.tree.flatten(state)
    differ = [
        i for i, leaf in enumerate(leaves) if axis in jax.typeof(leaf).manual_axis_type.varying
    ]
    halves = jax.tree.map(_halves, sums)
    flat, restore = jax.flatten_util.ravel_pytree(([leaves[i] for i in differ], halves))
    count = jax.lax.axis_size(axis)
    means, totals = restore(jax.lax.psum(flat, axis))
    for i, total in zip(differ, means, strict=True):
        leaves[i] = (total / count).astype(leaves[i].dtype)
    return tree.unflatten(leaves), jax.tree.map(_whole, sums, totals)


def _varies(leaf: jax.Array, axis: str) -> bool:
    return axis in jax.typeof(leaf).manual_axis_type.varying


def _halves(leaf: jax.Array) -> Any:
    if not jnp.issubdtype(leaf.dtype, jnp.integer):
        return leaf
    return {"high": (leaf >> 16).astype(jnp.float32), "low": (leaf & 0xFFFF).astype(jnp.float32)}


def _whole(leaf: jax.Array, total: Any) -> jax.Array:
    if not jnp.issubdtype(leaf.dtype, jnp.integer):
        return total.astype(leaf.dtype)
    return (total["high"].astype(leaf.dtype) << 16) + total["low"].astype(leaf.dtype)
