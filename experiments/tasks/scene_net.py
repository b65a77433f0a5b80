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

SCENES, EPOCHS, BATCH, RATE = 4000, 10, 16, 4e-3


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
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, side, side, 3)))
    state = optimizer.init(variables["params"])

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(variables, state, images, labels):
        def loss(params):
            (_, logits), changed = model.apply(
                {**variables, "params": params},
                images / 127.5 - 1,
                train=True,
                mutable=["batch_stats"],
            )
            valid = labels != digit_scenes.VOID
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits, jnp.where(valid, labels, 0)
            )
            return jnp.sum(jnp.where(valid, losses, 0)) / jnp.sum(valid), changed

        gradient, changed = jax.grad(loss, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradient, state)
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, **changed}, state

    for epoch in range(EPOCHS):
        order = np.random.default_rng([0, epoch]).permutation(scenes)
        for start in range(0, scenes - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            images = data.train.examples[chosen].astype(np.float32)
            variables, state = step(variables, state, images, data.train.labels[chosen].astype(int))
    scene_net.save(variables, path)
    predicted = jax.jit(lambda x: jnp.argmax(model.apply(variables, x / 127.5 - 1)[1], axis=-1))
    images = data.validation.examples.astype(np.float32)
    labels = data.validation.labels.astype(np.int32)
    return scores.mean_iou(scores.confusion_matrix(labels, predicted(images), scene_net.CLASSES))
