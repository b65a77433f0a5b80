"""Losses of classifiers that optax does not have."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def weston_watkins(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """The SVM loss of several classes: every other class should score a margin of 1 less.

        L_i = sum_(j != y_i) max(0, s_j - s_(y_i) + 1)

    Args:
      scores: s, (N, classes).
      labels: y, integers (N,).

    Returns:
      (N,), in the dtype of the scores.

    Source:
      Weston and Watkins, "Support vector machines for multi-class pattern recognition" (1999).
      (Crammer and Singer's loss takes the largest term in place of the sum.)

    Example:
      >>> scores = jnp.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
      >>> [f"{loss:.1f}" for loss in weston_watkins(scores, jnp.array([0, 1, 2]))]
      ['2.9', '0.0', '12.9']
    """
    right = jnp.take_along_axis(scores, labels[:, None], axis=1)
    margins = jnp.maximum(0, scores - right + 1)
    others = jnp.arange(scores.shape[1]) != labels[:, None]
    return jnp.sum(jnp.where(others, margins, 0), axis=1)
