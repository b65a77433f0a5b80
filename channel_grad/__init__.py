"""Channel-directed gradients."""

from channel_grad._circulant import apply_circulant as apply_circulant
from channel_grad._metrics import L2 as L2
from channel_grad._metrics import LaplacianSmoothing as LaplacianSmoothing
from channel_grad._metrics import Metric as Metric
from channel_grad._metrics import ReweightedL2 as ReweightedL2
from channel_grad._metrics import Sobolev as Sobolev
