"""The SVM loss of several classes: the lecture's table, its definition, its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from experiments.tasks.losses import weston_watkins

# Scores of cat, car and bird (rows: examples, whose classes are those in this order).
TABLE = jnp.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
CLASSES = jnp.arange(3)


def test_the_lectures_table():
    losses = weston_watkins(TABLE, CLASSES)
    np.testing.assert_allclose(losses, [2.9, 0, 12.9], rtol=1e-6)
    assert round(float(losses.mean()), 2) == 5.27


def test_a_solution_without_loss_is_not_unique():
    scores = jnp.array([[3.2, 1.0, -1.7], [1.3, 4.9, 2.0], [-2.2, 0.5, 3.1]])
    np.testing.assert_array_equal(weston_watkins(scores, CLASSES), 0)
    np.testing.assert_array_equal(weston_watkins(2 * scores, CLASSES), 0)


def test_the_definition_and_the_gradient():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(5, 4)), rng.integers(0, 4, 5)
    expected = [
        sum(max(0, s[j] - s[y] + 1) for j in range(4) if j != y)
        for s, y in zip(scores, labels, strict=True)
    ]
    with jax.enable_x64(True):
        found = weston_watkins(jnp.asarray(scores), jnp.asarray(labels))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        check_grads(lambda s: weston_watkins(s, labels).sum(), (jnp.asarray(scores),), order=1)
    assert weston_watkins(jnp.zeros((1, 3), jnp.bfloat16), jnp.array([0])).dtype == jnp.bfloat16


def test_chance_is_a_margin_for_each_other_class():
    assert float(weston_watkins(jnp.zeros((1, 10)), jnp.array([3]))[0]) == pytest.approx(9)
