"""Augmentation, checked pixel by pixel."""

import jax
import numpy as np

from experiments.tasks.augmentation import random_crop_and_flip


def test_crops_are_windows_of_the_padded_image_and_half_are_flipped():
    # Every pixel is its own number, so a crop tells where it came from.
    image = (1 + np.arange(8 * 8)).reshape(8, 8, 1).astype(np.uint8)
    images = np.repeat(image[None], 400, axis=0)
    labels = np.arange(400)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    windows = {}
    for y in range(9):
        for x in range(9):
            window = padded[y : y + 8, x : x + 8]
            windows[window.tobytes()] = (y, x, False)
            windows[window[:, ::-1].tobytes()] = (y, x, True)
    out = np.asarray(jax.jit(random_crop_and_flip())(jax.random.key(0), images, labels)[0])
    assert out.dtype == np.uint8 and out.shape == images.shape
    drawn = [windows[o.tobytes()] for o in out]
    assert {d[0] for d in drawn} == set(range(9)) == {d[1] for d in drawn}
    assert 140 <= sum(d[2] for d in drawn) <= 260  # six deviations of a fair coin
    unflipped = np.asarray(random_crop_and_flip(flip=False)(jax.random.key(0), images, labels)[0])
    assert not any(windows[o.tobytes()][2] for o in unflipped)
