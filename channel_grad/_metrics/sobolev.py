"""The Sobolev metric, eqs. 6 and 9-12 and figure 12 of the paper."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from channel_grad._circulant import (
    GreenCirculant,
    SpectralCirculant,
    apply_circulant,
    mean,
)
from channel_grad._metrics._base import (
    Metric,
    at_least_float32,
    check_choice,
    check_number,
    mean_and_rest,
    metric_dataclass,
)


@metric_dataclass
class Sobolev(Metric):
    """The Sobolev metric of eq. 6, plus some of L2: ``gradient(f) = l2_weight * f + lam * h``.

    h is the gradient for ``mean(k1) mean(k2) + lam <n d k1, n d k2>``, d the cyclic forward
    difference and n the length of the axis. The paper adds it "to a scaled version of the L2
    gradient" so as not to smooth too much, without giving the scale; ``l2_weight=0`` is the pure
    gradient, times lam, as its listing returns it.

    ``lam * h`` is ``lam * mean(f)`` plus a smooth part that does not depend on lam, and that is
    small: its largest eigenvalue is ``1 / (4 n^2 sin^2(pi / n))``, 0.026 for 16 channels. So with
    ``l2_weight=1``, the default, this is re-weighted L2 for every lam: on white noise along 16 (64)
    channels the two gradients differ by 0.9 (0.5) %. The smooth part matters where ``l2_weight`` is
    0.03 or less.

    * ``discretization="exact"``: h solves ``mean(h) - lam n^2 (h[o+1] - 2 h[o] + h[o-1]) = f[o]``.
      It has the mean of f.
    * ``"riemann"``: the sum of eq. 9 over the grid,
      ``h[o] = (1/n) sum_j K(((o - j) mod n) / n) f[j]``, ``K(s) = 1 + (s^2 - s + 1/6) / (2 lam)``.
      Its mean is that of f times ``1 + 1 / (12 lam n^2)``; the rest is "exact".
    * ``"listing"``: figure 12, which leaves out g(0) of eq. 12. It is not invariant under shifts
      of the channels, so it has no kernel, and is not the gradient of a metric.

    Raises:
        ValueError: on an unknown discretization, lam <= 0 or l2_weight < 0.

    Example:
        >>> import channel_grad, jax.numpy as jnp
        >>> channel_grad.Sobolev(lam=1.0, l2_weight=0.0).gradient(jnp.array([1.0, 3.0]))
        Array([1.9375, 2.0625], dtype=float32)
    """

    DISCRETIZATIONS: ClassVar[tuple[str, ...]] = ("exact", "riemann", "listing")

    lam: ArrayLike = field(
        default=1.0, metadata={"help": "Weight of the Sobolev gradient.", "above": 0.0}
    )
    l2_weight: ArrayLike = field(
        default=1.0,
        metadata={"help": "Weight of the L2 gradient, which is added.", "minimum": 0.0},
    )
    discretization: str = field(
        default="exact",
        metadata={
            "help": "The discrete equation (exact), the paper's eq. 9 (riemann) or its figure 12 "
            "(listing).",
            "choices": DISCRETIZATIONS,
            "static": True,
        },
    )

    def __post_init__(self) -> None:
        check_choice("discretization", self.discretization, self.DISCRETIZATIONS)
        check_number("lam", self.lam, positive=True)
        check_number("l2_weight", self.l2_weight)

    def _operator(self, n: int) -> GreenCirculant:
        if self.discretization == "listing":
            raise ValueError(
                "discretization: got 'listing', which is not a circular convolution and has no "
                "kernel; accepted: exact, riemann"
            )
        # On the grid, (s^2 - s + 1/6) / 2 is 1 / (12 n^2) on average, not 0: the mean of "riemann".
        excess = 1 / (12 * max(n, 1) ** 2) if self.discretization == "riemann" else 0.0
        lam = at_least_float32(self.lam)
        return GreenCirculant(identity=self.l2_weight, mean=lam + excess, green=1.0)

    def _gradient(self, f: jax.Array, axis: int, method: str) -> jax.Array:
        if self.discretization != "listing":
            return super()._gradient(f, axis, method)
        if f.size == 0:
            return f
        # The listing integrates from h[0] = mean(f) instead of from g(0): "exact", shifted along
        # each line by what its smooth part has at o = 0. Shift the smooth part by itself, so that
        # l2_weight * f does not cancel.
        dtype = jnp.float64 if f.dtype == jnp.float64 else jnp.float32
        wide = f.astype(dtype)
        smooth = apply_circulant(wide, GreenCirculant(0.0, 0.0, 1.0), axis, method)
        start = jax.lax.slice_in_dim(smooth, 0, 1, axis=axis)
        g = jnp.asarray(self.l2_weight, dtype) * wide + smooth
        return (g + (jnp.asarray(self.lam, dtype) * mean(wide, axis) - start)).astype(f.dtype)

    def _inner(self, k1: jax.Array, k2: jax.Array) -> jax.Array:
        if self.discretization == "listing":
            raise ValueError(
                "discretization: got 'listing', which is not the gradient of any metric and has "
                "no inner product; accepted: exact, riemann"
            )
        # The inverse of the map has the eigenvalue u / (1 + l2_weight u) with u = n^2 t, t as in
        # frequencies(n), on the deviations from the mean: the n^2 d^T d of eq. 6 itself where
        # l2_weight = 0.
        n = k1.shape[-1]
        weight = jnp.asarray(self.l2_weight, k1.dtype)
        mean_value = weight + jnp.asarray(self._operator(n).mean, k1.dtype)
        inverse = SpectralCirculant(lambda t: n * n * t / (1 + weight * (n * n * t)))
        (mean1, rest1), (mean2, rest2) = mean_and_rest(k1), mean_and_rest(k2)
        smooth = jnp.mean(rest1 * apply_circulant(rest2, inverse, method="fft"), axis=-1)
        return mean1 * mean2 / mean_value + smooth
