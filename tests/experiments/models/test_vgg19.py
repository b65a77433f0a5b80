"""The perceptual loss of VGG-19: against its definition, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import vgg19
from experiments.system.errors import UserError


def test_the_loss_is_a_weighted_sum_of_distances():
    rng = np.random.default_rng(0)
    kernels, before = {}, 3
    for numbers, channels in vgg19.STAGES:
        for number in numbers:
            shape = (3, 3, before, channels // 64)
            kernels[number] = (
                np.float32(rng.normal(0, 0.3, shape)), np.float32(rng.normal(0, 0.1, shape[-1])),
            )  # fmt: skip
            before = channels // 64
    fake, real = (rng.uniform(-1, 1, (2, 18, 20, 3)).astype(np.float32) for _ in range(2))

    def outputs(x):
        x, found = np.float64(x), []
        for stage, (numbers, _) in enumerate(vgg19.STAGES):
            if stage:
                height, width = (side // 2 for side in x.shape[1:3])
                x = x[:, : 2 * height, : 2 * width]
                x = x.reshape(2, height, 2, width, 2, -1).max(axis=(2, 4))
            for number in numbers:
                kernel, bias = map(np.float64, kernels[number])
                padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
                x = bias + sum(
                    padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j]
                    for i in range(3)
                    for j in range(3)
                )
                x = np.maximum(x, 0)
                if number == numbers[0]:
                    found.append(x)
        return found

    expected = [np.abs(a - b).mean() for a, b in zip(outputs(fake), outputs(real), strict=True)]
    pairs = zip(
        vgg19.features(kernels, jnp.asarray(fake)), vgg19.features(kernels, jnp.asarray(real)),
        strict=True,
    )  # fmt: skip
    np.testing.assert_allclose([jnp.abs(a - b).mean() for a, b in pairs], expected, rtol=1e-4)
    weights = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1]
    total = 10 * sum(w * e for w, e in zip(weights, expected, strict=True))
    assert vgg19.distance(kernels, fake, real, 10.0) == pytest.approx(total, rel=1e-4)


def test_a_file_of_other_weights_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **{"features.0.weight": np.zeros((64, 3, 3, 3), np.float32)})
    with pytest.raises(UserError, match=r"features.0.bias: got no such tensor; accepted: shape"):
        vgg19.load(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", **{"features.0.weight": np.full((64, 3, 3, 3), np.nan)})
    with pytest.raises(UserError, match=r"features.0.weight: got NaN or infinity; accepted"):
        vgg19.load(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", **{"features.0.weight": np.zeros((4, 3, 3, 3), np.float32)})
    with pytest.raises(UserError, match=r"features.0.weight: got shape \(4, 3, 3, 3\); accepted"):
        vgg19.load(tmp_path / "a.npz")
