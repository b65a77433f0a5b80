"""The valley: the loss over the plane of two weights, and the paths of optimizers through it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.training.full_batch import newton, random_search

STEPS = 60
START = (-1.5, 3.5)
# Each as a student would set it after a few tries.
OPTIMIZERS = {
    "random search": random_search(2.0),
    "gd": optax.sgd(0.4),
    "sgd": optax.sgd(0.4),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "nesterov": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adagrad": optax.adagrad(0.8),
    "rmsprop": optax.rmsprop(0.1),
    "adam": optax.adam(0.2),
    "lbfgs": optax.lbfgs(),
    "newton": newton(),
}


class Valley(NamedTuple):
    """What is drawn.

    Attributes:
      first, second: values of the weights of the grid, (m,) each.
      loss: of the grid, (m, m), rows along `second`.
      paths: by optimizer, the weights before the first and after each step, (STEPS + 1, 2).
      losses: by optimizer, the loss along the path, (STEPS + 1,).
    """

    first: np.ndarray
    second: np.ndarray
    loss: np.ndarray
    paths: dict[str, np.ndarray]
    losses: dict[str, np.ndarray]


def examples(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of two classes, (count, 2), with features of unlike scale, and labels 0 and 1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    spread = rng.normal(size=(count, 2)) + 0.8 * (2 * labels[:, None] - 1)
    return (spread * [3.0, 0.5]).astype(np.float32), labels


def loss(weights, points, labels, strength: float = 0.01):
    """Softmax loss of the scores (w x, 0) of classes 1 and 0, and strength |w|^2."""
    scores = points @ weights
    logits = jnp.stack([jnp.zeros_like(scores), scores], axis=-1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses) + strength * jnp.sum(weights**2)


def valley(names: tuple[str, ...] = tuple(OPTIMIZERS), steps: int = STEPS) -> Valley:
    """The loss on a grid, and the paths of the named optimizers; "sgd" sees 4 points at a step."""
    points, labels = map(jnp.asarray, examples())

    def path(name):
        optimizer = optax.with_extra_args_support(OPTIMIZERS[name])

        def step(carry, key):
            weights, state = carry
            x, y = points, labels
            if name == "sgd":
                chosen = jax.random.choice(key, len(points), (4,), replace=False)
                x, y = points[chosen], labels[chosen]

            def value_fn(weights, key=None):  # optax passes on every extra argument.
                del key
                return loss(weights, x, y)

            value, gradient = jax.value_and_grad(value_fn)(weights)
            updates, state = optimizer.update(
                gradient, state, weights, value=value, grad=gradient, value_fn=value_fn, key=key
            )
            weights = optax.apply_updates(weights, updates)
            return (weights, state), weights

        start = jnp.array(START)
        keys = jax.random.split(jax.random.key(0), steps)
        _, weights = jax.lax.scan(step, (start, optimizer.init(start)), keys)
        return jnp.concatenate([start[None], weights])

    paths = {name: np.asarray(jax.jit(path, static_argnums=0)(name)) for name in names}
    along = jax.jit(jax.vmap(lambda weights: loss(weights, points, labels)))
    first, second = np.linspace(-2, 4, 61), np.linspace(-2, 6, 61)
    grid = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    return Valley(
        first,
        second,
        np.asarray(along(jnp.asarray(grid, jnp.float32))).reshape(61, 61),
        paths,
        {name: np.asarray(along(jnp.asarray(weights))) for name, weights in paths.items()},
    )
