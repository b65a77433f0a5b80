"""The cliff: a softmax classifier of 1D points that is too sure of itself, and what L2 does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

POINTS = np.array([-2.0, -1.5, -0.5, 0.5, 1.0, 2.0])
LABELS = np.array([0, 0, 0, 1, 1, 1])


class Classifier(NamedTuple):
    """A fitted classifier.

    Attributes:
      weights: (w_0, w_1, b_0, b_1) of the scores s_i = w_i x + b_i.
      data_loss: mean of -log p_y over the points.
      penalty: sum_i w_i^2.
    """

    weights: np.ndarray
    data_loss: float
    penalty: float

    def probability(self, x: np.ndarray) -> np.ndarray:
        """p_1, the probability of class 1 at x."""
        w, b = self.weights[:2], self.weights[2:]
        return 1 / (1 + np.exp(-((w[1] - w[0]) * x + b[1] - b[0])))


def fit(strength: float, steps: int = 20_000, rate: float = 0.5) -> Classifier:
    """Gradient descent on L = mean(-log p_y) + strength sum_i w_i^2, from zero.

    Without a penalty the points can be told apart, so there is no minimum: the weights grow with
    the logarithm of the steps, and the cliff between the classes with them.

    Args:
      strength: lambda.
      steps: how many; it stops early where the gradient is below 1e-9.
      rate: learning rate.
    """
    sign = 2 * LABELS - 1
    w = b = 0.0  # of class 1; from zero class 0 has -w and -b
    for _ in range(steps):
        # p of the wrong class, at margins s_y - s_other = 2 sign (w x + b)
        wrong = 1 / (1 + np.exp(2 * sign * (w * POINTS + b)))
        gradient_w = np.mean(-sign * wrong * POINTS) + 2 * strength * w
        gradient_b = np.mean(-sign * wrong)
        if max(abs(gradient_w), abs(gradient_b)) < 1e-9:
            break
        w, b = w - rate * gradient_w, b - rate * gradient_b
    loss = np.mean(np.log1p(np.exp(-2 * sign * (w * POINTS + b))))
    return Classifier(np.array([-w, w, -b, b]), float(loss), float(2 * w * w))
