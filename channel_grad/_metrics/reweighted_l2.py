"""The re-weighted L2 metric, eqs. 4 and 8 and figure 3 of the paper."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from channel_grad._circulant import Circulant, GreenCirculant
from channel_grad._metrics._base import (
    Metric,
    at_least_float32,
    check_choice,
    check_number,
    mean_and_rest,
    metric_dataclass,
)


@metric_dataclass
class ReweightedL2(Metric):
    """The re-weighted L2 metric: the mean along the axis has another weight than the rest.

    * ``form="code"`` (figure 3, what the paper's experiments ran): ``g = f + lam * mean(f)``, lam
      > -1; the metric is ``mean(k1) mean(k2) / (1 + lam) + <k1 - mean, k2 - mean>``. A negative lam
      damps the mean.
    * ``form="equation"`` (eqs. 4 and 8): ``g = mean(f) + (f - mean(f)) / lam``, lam > 0; the
      metric is ``mean(k1) mean(k2) + lam <k1 - mean, k2 - mean>``.

    The two are one family: ``lam * g_equation(lam) == g_code(lam - 1)``.

    Raises:
        ValueError: on an unknown form, or a lam that the form does not accept.

    Example:
        >>> import channel_grad, jax.numpy as jnp
        >>> channel_grad.ReweightedL2(lam=1.0).gradient(jnp.array([1.0, 3.0]))
        Array([3., 5.], dtype=float32)
    """

    FORMS: ClassVar[tuple[str, ...]] = ("code", "equation")

    lam: ArrayLike = field(
        default=1.0,
        metadata={"help": "Weight of the mean, > -1 (the equation form: > 0).", "above": -1.0},
    )
    form: str = field(
        default="code",
        metadata={
            "help": "The paper's figure 3 (code) or its eqs. 4 and 8 (equation).",
            "choices": FORMS,
            "static": True,
        },
    )

    def __post_init__(self) -> None:
        check_choice("form", self.form, self.FORMS)
        check_number("lam", self.lam, above=0.0 if self.form == "equation" else -1.0)

    def _operator(self, n: int) -> Circulant:
        if self.form == "code":
            return GreenCirculant(identity=1.0, mean=self.lam)
        inverse = 1.0 / at_least_float32(self.lam)
        return GreenCirculant(identity=inverse, mean=1.0 - inverse)

    def _inner(self, k1: jax.Array, k2: jax.Array) -> jax.Array:
        lam = jnp.asarray(self.lam, k1.dtype)
        mean_weight, rest_weight = (1 / (1 + lam), 1) if self.form == "code" else (1, lam)
        (mean1, rest1), (mean2, rest2) = mean_and_rest(k1), mean_and_rest(k2)
        return mean_weight * mean1 * mean2 + rest_weight * jnp.mean(rest1 * rest2, axis=-1)
