"""Augmentation, checked pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tasks.augmentation import cutout, mixup, one_after_another, random_crop_and_flip


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


def test_cutout_covers_each_pixel_as_often_as_a_square_anywhere_does():
    size, side, count = 8, 3, 4000
    images = np.full((count, size, size, 2), 200, np.uint8)
    fill = np.array([7, 9], np.uint8)
    out, labels = jax.jit(cutout(side, fill))(jax.random.key(0), images, np.arange(count))
    out = np.asarray(out)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.arange(count))
    covered = out[..., 0] == 7
    np.testing.assert_array_equal(out[..., 1] == 9, covered)  # all channels of a pixel
    np.testing.assert_array_equal(out[~covered], 200)
    # Of 8 places of the center, a pixel away from the border is covered by 3, one at it by 2.
    along = np.array([2, 3, 3, 3, 3, 3, 3, 2]) / size
    expected = np.outer(along, along)
    deviation = np.sqrt(expected * (1 - expected) / count)
    assert np.all(np.abs(covered.mean(axis=0) - expected) < 5 * deviation)
    sizes = covered.sum(axis=(1, 2))
    assert set(sizes) == {4, 6, 9}  # in a corner, at a border, inside


def test_mixup_shares_are_of_the_beta_distribution_and_move_images_and_labels_alike():
    alpha, batches = 0.4, 2000
    # An image says which example it is, so the mixture tells who was mixed.
    images = jnp.asarray(np.array([0, 1, 10, 100], np.uint8).reshape(4, 1, 1, 1))
    labels = jnp.array([0, 1, 2, 3])
    draw = jax.jit(jax.vmap(mixup(alpha, 4), in_axes=(0, None, None)))
    mixed, targets = draw(jax.random.split(jax.random.key(0), batches), images, labels)
    targets = np.asarray(targets)
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(mixed[..., 0, 0, 0], targets @ [0, 1, 10, 100], atol=1e-4)
    # The share of the first partner of each batch, from an example that got another one.
    own = np.einsum("bii->bi", targets)
    others = np.count_nonzero(targets, axis=2) == 2
    shares = np.array([row[which][0] for row, which in zip(own, others, strict=True) if any(which)])
    spread = shares - 0.5
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(spread.mean()) < 5 * np.sqrt(variance / len(shares))
    assert np.mean(spread**2) == pytest.approx(variance, rel=0.05)
    alone = np.mean(own > 0.999, axis=0)  # a permutation leaves one of four where it is
    assert np.all((alone > 0.2) & (alone < 0.45))


def test_augmentations_one_after_another():
    def add(key, images, labels):
        return images + jax.random.uniform(key), labels

    key, zero = jax.random.key(3), jnp.zeros(2)
    assert one_after_another(add) is add
    both, _ = one_after_another(add, add)(key, zero, None)
    first, again = jax.random.uniform(key), jax.random.uniform(jax.random.fold_in(key, 0))
    np.testing.assert_allclose(both, first + again)
