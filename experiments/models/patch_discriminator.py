"""The discriminator of SPADE: patches of an image with its label map, judged at several scales.

Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs" (CVPR
2018), section 3.2; Park et al., "Semantic Image Synthesis with Spatially-Adaptive Normalization"
(CVPR 2019), appendix A.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.spade import small_xavier, spectral

# Output channels in units of `width`, and strides, of the layers before the scores.
LAYERS = ((1, 2), (2, 2), (4, 2), (8, 1))
_PADDING = ((2, 2), (2, 2))


class MultiscaleDiscriminator(nn.Module):
    """One network of patches for the image, and one for each halving of it.

    Attributes:
      width: channels of the first layer (ndf); 64 is the paper's.
      scales: number of networks.

    Example:
      >>> model = MultiscaleDiscriminator(width=2)
      >>> images, condition = jnp.zeros((1, 32, 64, 3)), jnp.zeros((1, 32, 64, 5))
      >>> scales = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images,
      ...                                                        condition, train=False)[0])
      >>> [scale[-1].shape for scale in scales]
      [(1, 7, 11, 1), (1, 5, 7, 1)]
    """

    width: int = 64
    scales: int = 2

    @nn.compact
    def __call__(
        self, images: jax.Array, condition: jax.Array, train: bool
    ) -> list[list[jax.Array]]:
        """For each scale the outputs of its layers, the scores of patches last."""
        x = jnp.concatenate([condition, images], axis=-1)
        outputs = []
        for scale in range(self.scales):
            if scale:
                # The mean of the pixels that there are: the border does not count as zeros.
                x = nn.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)), count_include_pad=False)
            outputs.append(PatchDiscriminator(self.width)(x, train))
        return outputs


class PatchDiscriminator(nn.Module):
    """Five 4x4 convolutions; the three in the middle with spectral and instance normalisation."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> list[jax.Array]:
        outputs = []
        for index, (multiple, stride) in enumerate(LAYERS):
            layer = nn.Conv(
                multiple * self.width,
                (4, 4),
                strides=stride,
                padding=_PADDING,
                use_bias=index == 0,  # the normalisation of the others would take it away
                kernel_init=small_xavier,
                name=f"conv_{index}",
            )
            x = _instance_normalised(spectral(layer, update=train)(x)) if index else layer(x)
            x = nn.leaky_relu(x, 0.2)
            outputs.append(x)
        scores = nn.Conv(1, (4, 4), padding=_PADDING, kernel_init=small_xavier, name="scores")(x)
        return [*outputs, scores]


def _instance_normalised(x: jax.Array) -> jax.Array:
    """Each channel of each image with mean 0 and variance 1 over its pixels."""
    mean = jnp.mean(x, axis=(1, 2), keepdims=True)
    centred = x - mean
    variance = jnp.mean(jnp.square(centred), axis=(1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1e-5)
