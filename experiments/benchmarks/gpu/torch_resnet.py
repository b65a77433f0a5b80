"""The ResNet of He et al. for 32x32 images in PyTorch, as `experiments.models.resnet` has it.

Imported only where torch is installed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Block(nn.Module):
    """Two convolutions around which the input passes; stride 2 pads channels with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        if self.stride > 1 or self.more:
            x = x[:, :, :: self.stride, :: self.stride]
            x = nn.functional.pad(x, (0, 0, 0, 0, 0, self.more))
        return torch.relu(x + y)


def resnet(depth: int, classes: int = 10) -> nn.Module:
    """A network of 6 n + 2 layers."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
    ]  # fmt: skip
    inputs = 16
    for stage, outputs in enumerate((16, 32, 64)):
        for block in range((depth - 2) // 6):
            layers.append(Block(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)]
    return nn.Sequential(*layers)


class Step:
    """A training step on the GPU that goes on with each call: SGD with momentum, no augmentation.

    Args:
      depth: layers.
      batch: images of a step.
      precision: "float32", or "bfloat16" by autocast.
      channels_last: the layout of images and kernels.
      compiled: by `torch.compile`.
      device: where it runs.
    """

    def __init__(
        self,
        depth: int,
        batch: int,
        precision: str,
        channels_last: bool,
        compiled: bool,
        device: str = "cuda",
    ):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self._model = resnet(depth).to(device=device, memory_format=layout)
        self._optimizer = torch.optim.SGD(
            self._model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4
        )
        self._images = torch.rand(batch, 3, 32, 32, device=device).to(memory_format=layout)
        self._labels = torch.randint(0, 10, (batch,), device=device)
        self._half, self._device = precision == "bfloat16", device
        self._loss = torch.compile(self._loss_of) if compiled else self._loss_of

    def _loss_of(self, images: Any, labels: Any) -> Any:
        with torch.autocast(self._device, torch.bfloat16, enabled=self._half):
            return nn.functional.cross_entropy(self._model(images), labels)

    def run(self, steps: int) -> None:
        """That many steps, and waits for them."""
        for _ in range(steps):
            self._optimizer.zero_grad(set_to_none=True)
            self._loss(self._images, self._labels).backward()
            self._optimizer.step()
        if self._device == "cuda":
            torch.cuda.synchronize()
