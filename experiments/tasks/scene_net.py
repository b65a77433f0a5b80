"""How the weights of `models.scene_net` were made.

    python -c "from experiments.tasks import scene_net; scene_net.train()"

It takes a few minutes, and another machine gives other last digits: published distances are those
of the file that is there.
"""

from __future__ import annotations

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data import digit_scenes
from experiments.models import scene_net
from experiments.tasks import scores

SCENES, EPOCHS, BATCH, RATE = 4000, 8, 16, 2e-3


def train(path: pathlib.Path = scene_net.WEIGHTS, scenes: int = SCENES) -> float:
    """Trains SceneNet on the training scenes, and writes its weights.

    Cross-entropy of every labelled pixel, Adam, and a cosine schedule.

    Args:
      path: the .npz file that is written.
      scenes: number of training scenes.

    Returns:
      The mean IoU on the validation scenes.
    """
    data = digit_scenes.load(size=scene_net.SIDE, train=scenes, validation=200, test=1)
    model, steps = scene_net.SceneNet(), EPOCHS * (scenes // BATCH)
    optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0, RATE, steps // 10, steps))
    side = scene_net.SIDE
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, side, side, 3)))
    state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, images, labels):
        def loss(params):
            _, logits = model.apply(params, images / 127.5 - 1)
            valid = labels != digit_scenes.VOID
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits, jnp.where(valid, labels, 0)
            )
            return jnp.sum(jnp.where(valid, losses, 0)) / jnp.sum(valid)

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for epoch in range(EPOCHS):
        order = np.random.default_rng([0, epoch]).permutation(scenes)
        for start in range(0, scenes - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            images = data.train.examples[chosen].astype(np.float32)
            params, state = step(params, state, images, data.train.labels[chosen].astype(int))
    scene_net.save(params, path)
    predicted = jax.jit(lambda x: jnp.argmax(model.apply(params, x / 127.5 - 1)[1], axis=-1))
    images = data.validation.examples.astype(np.float32)
    labels = data.validation.labels.astype(np.int32)
    return scores.mean_iou(scores.confusion_matrix(labels, predicted(images), scene_net.CLASSES))
