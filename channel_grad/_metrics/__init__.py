"""The metrics, one file each, and the table of them.

To add a metric: a file with its class, and an entry here. The experiments make their flags from
the metadata of its fields: "help", and "choices", "minimum" (allowed) or "above" (not allowed).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from channel_grad._metrics._base import Metric
from channel_grad._metrics.l2 import L2
from channel_grad._metrics.laplacian import LaplacianSmoothing
from channel_grad._metrics.reweighted_l2 import ReweightedL2
from channel_grad._metrics.sobolev import Sobolev

METRICS: Mapping[str, type[Metric]] = MappingProxyType(
    {
        "l2": L2,
        "reweighted_l2": ReweightedL2,
        "sobolev": Sobolev,
        "laplacian": LaplacianSmoothing,
    }
)

__all__ = ["METRICS", "L2", "LaplacianSmoothing", "Metric", "ReweightedL2", "Sobolev"]
