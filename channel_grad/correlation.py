"""Correlation between the filters of a convolution kernel, along output or input channels.

"Channel-Directed Gradients for Optimization of Convolutional Neural Networks" starts from the
observation that filters of trained networks are correlated along the output channels and not along
the input channels (figures 1, 11, 13, 14; appendices C and F). The functions here measure that:

    matrix = correlation.matrix(kernel, axis=-1, other=-2)    # all pairs of output channels
    correlation.by_distance(matrix)                           # figure 11
    correlation.histogram(matrix)                             # figure 13
    correlation.mean_and_deviation(kernel, axis=-1)           # figure 14
    correlation.permutation_test(matrix)                      # what chance would give

They take NumPy or JAX arrays and compute on the host, in float64. A kernel of Flax is (height,
width, in, out): its outputs are ``axis=-1, other=-2`` and its inputs ``axis=-2, other=-1``. For
PyTorch's (out, in, height, width) they are ``axis=0, other=1`` and ``axis=1, other=0``.
"""

from typing import NamedTuple

import numpy as np

# Rows and columns have mean square one to this relative accuracy, or this many rounds were made.
_TOLERANCE, _ROUNDS = 1e-10, 500
# A channel this much smaller than the largest one is dead: weight decay left it, not learning.
_DEAD = 1e-6


class PermutationTest(NamedTuple):
    """The result of `permutation_test`.

    Attributes:
        mean: the mean correlation over all pairs of filters.
        by_distance: the mean at distances 1, 2, ..., (D,).
        low, high: the 2.5 and 97.5 % quantiles of `by_distance` under chance, (D,) each.
        chance: the mean of the tested value under chance.
        p_value: how often chance gives at least the tested value; never below 1 / (samples + 1).

    Example:
        >>> import numpy as np
        >>> from channel_grad.correlation import permutation_test
        >>> test = permutation_test(np.ones((6, 6)), samples=99)
        >>> test.by_distance
        array([1., 1., 1., 1., 1.])
    """

    mean: float
    by_distance: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chance: float
    p_value: float


def balance(kernel, axis: int = -1, other: int | None = -2) -> np.ndarray:
    """The kernel with its channels scaled such that each has mean square one.

    Multiplying an output channel by a positive factor, or an input channel, need not change what a
    network computes: a normalisation before or after the layer undoes it. With f[o, i] the small
    filter (height, width) between two channels, this finds positive r and c such that

        g[o, i] = r_o c_i f[o, i],   mean of g^2 over each o = 1,   mean of g^2 over each i = 1

    (Sinkhorn's iteration on the squared norms of f[o, i]). Where all f[o, i] differ from 0, g is
    unique and does not depend on the scale of any channel of f. A channel whose root mean square is
    below 1e-6 of the largest one's is dead and counts as zero: weight decay leaves such channels
    where a network does not use them, and what is left of them is rounding.

    Args:
        kernel: floating, two axes or more, finite.
        axis: the axis of the filters that are compared.
        other: the other axis of channels, or None where there is none.

    Returns:
        An array of the kernel's shape in float64; dead channels are zero.

    Raises:
        ValueError: an axis does not exist or is given twice, or the kernel is empty or not finite.

    Source:
        Sinkhorn and Knopp, "Concerning nonnegative matrices and doubly stochastic matrices" (1967).

    Example:
        >>> import numpy as np
        >>> from channel_grad.correlation import balance
        >>> kernel = np.array([[1.0, 10.0], [1.0, -10.0]])
        >>> balance(kernel)
        array([[ 1.,  1.],
               [ 1., -1.]])
    """
    kernel, axis, other = _check(kernel, axis, other)
    peak = np.abs(kernel).max()
    if peak == 0:
        return np.zeros_like(kernel)
    kernel = kernel / peak  # Squares of very small or large weights would not be representable.
    axes = (axis,) if other is None else (axis, other)
    f = np.moveaxis(kernel, axes, range(len(axes)))
    squares = np.mean((f**2).reshape(f.shape[0], 1 if other is None else f.shape[1], -1), axis=2)
    living = [squares.mean(axis=a) > _DEAD**2 * squares.mean(axis=a).max() for a in (1, 0)]
    squares = squares * np.outer(*living)
    rows, columns = np.ones(len(living[0])), np.ones(len(living[1]))
    for _ in range(_ROUNDS):
        if other is not None:
            columns = _reciprocal(rows @ squares / living[0].sum())
        sums = rows * (squares @ columns) / living[1].sum()
        rows = rows * _reciprocal(sums)
        if np.all(np.abs(sums[sums > 0] - 1) < _TOLERANCE):
            break
    scale = np.sqrt(np.outer(rows * living[0], columns * living[1]))
    scale = scale if other is None or axis < other else scale.T
    return kernel * scale.reshape([n if a in axes else 1 for a, n in enumerate(kernel.shape)])


def matrix(kernel, axis: int = -1, other: int | None = -2) -> np.ndarray:
    """Correlation of all pairs of filters along an axis of channels.

    With g = `balance(kernel)` and g_i its slice number i along `axis`, as a vector,

        C[i, j] = <g_i, g_j> / (|g_i| |g_j|).

    No mean is subtracted: filters that share a component, as the vertical lines of figure 1 do,
    are correlated. Multiplying any channel of `axis` or `other` by a positive factor changes
    nothing.

    Args:
        kernel: floating, two axes or more, finite.
        axis: the axis of the n filters that are compared.
        other: the other axis of channels, or None where there is none. None is invariant to the
            scale of the filters alone.

    Returns:
        float64 (n, n), ones on the diagonal; NaN in rows and columns of dead filters.

    Raises:
        ValueError: as `balance`.

    Example:
        >>> import numpy as np
        >>> from channel_grad.correlation import matrix
        >>> kernel = np.array([[1.0, 10.0, 1.0], [1.0, 10.0, -1.0]])
        >>> np.abs(matrix(kernel)).round(6)
        array([[1., 1., 0.],
               [1., 1., 0.],
               [0., 0., 1.]])
    """
    checked, axis, other = _check(kernel, axis, other)
    g = np.moveaxis(balance(checked, axis, other), axis, 0)
    g = g.reshape(len(g), -1)
    norms = np.linalg.norm(g, axis=1, keepdims=True)
    g = np.divide(g, norms, out=np.full_like(g, np.nan), where=norms > 0)
    return g @ g.T


def by_distance(matrix, max_distance: int | None = None) -> np.ndarray:
    """Mean correlation of the filters i and j as a function of |i - j| (figure 11).

    Args:
        matrix: (n, n), from `matrix`.
        max_distance: D. Default: n - 1, the greatest that there is.

    Returns:
        float64 (D,): entry d - 1 is the mean over all pairs with |i - j| = d; NaN where no such
        pair of living filters exists.

    Raises:
        ValueError: the matrix is not square, or the distance is not in 1 to n - 1.

    Example:
        >>> import numpy as np
        >>> from channel_grad.correlation import by_distance
        >>> by_distance(np.array([[1.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.0]]))
        array([0.4, 0.1])
    """
    pairs = _Pairs(matrix, max_distance)
    return pairs.by_distance(pairs.values)


def histogram(matrix, bins: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Histogram of the correlation of all pairs of different filters (figure 13).

    Args:
        matrix: (n, n), from `matrix`.
        bins: B, of equal width between -1 and 1.

    Returns:
        (density (B,), whose integral is one, or zeros where there is no pair; edges (B + 1,)).

    Raises:
        ValueError: the matrix is not square.

    Example:
        >>> import numpy as np
        >>> from channel_grad.correlation import histogram
        >>> density, edges = histogram(np.array([[1.0, 0.6], [0.6, 1.0]]), bins=4)
        >>> density
        array([0., 0., 0., 2.])
    """
    pairs = _Pairs(matrix, None)
    counts, edges = np.histogram(np.clip(pairs.values, -1, 1), bins=bins, range=(-1, 1))
    width = edges[1] - edges[0]
    return counts / (max(counts.sum(), 1) * width), edges


def mean_and_deviation(kernel, axis: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the channels of an axis, for each other index (figure 14).

    A mean far from 0 along the outputs is a vertical line of figure 1: all filters share that
    weight. If lines came from scaling input channels alone, mean and deviation would grow together.

    Args:
        kernel: floating, one axis or more.
        axis: the axis over which both are taken, with n >= 2 channels.

    Returns:
        (means, deviations), each float64 (size / n,); deviations divide by n - 1.

    Raises:
        ValueError: the axis does not exist or has less than two channels.

    Example:
        >>> import numpy as np
        >>> from channel_grad.correlation import mean_and_deviation
        >>> means, deviations = mean_and_deviation(np.array([[1.0, 3.0], [0.0, 0.0]]))
        >>> means, deviations.round(3)
        (array([2., 0.]), array([1.414, 0.   ]))
    """
    kernel, axis, _ = _check(kernel, axis, None)
    if kernel.shape[axis] < 2:
        raise ValueError(f"axis: got {axis} of length {kernel.shape[axis]}; accepted: 2 or more")
    return kernel.mean(axis=axis).ravel(), kernel.std(axis=axis, ddof=1).ravel()


def permutation_test(
    matrix,
    null: str = "signs",
    *,
    max_distance: int | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> PermutationTest:
    """What chance would give for the correlation along an axis.

    * ``null="signs"``: are the filters correlated at all? If they are independent and as likely as
      their negatives, each may change its sign: C[i, j] becomes s_i s_j C[i, j] with random signs.
      Tested is the mean over all pairs.
    * ``null="order"``: does the order of the channels matter? If not, they may be shuffled: C[i, j]
      becomes C[p_i, p_j] with a random permutation. Tested is the mean at distance 1 minus the
      mean over all pairs. A component that all filters share does not count here.

    Both tests are one-sided: the p-value is how often chance gives as much as was found, or more.
    It is valid for any distribution of the filters and any n.

    Args:
        matrix: (n, n), from `matrix`.
        null: "signs" or "order".
        max_distance: D, as for `by_distance`.
        samples: the number of random draws.
        seed: of the draws.

    Returns:
        A `PermutationTest`; its numbers are NaN where less than two filters are not dead.

    Raises:
        ValueError: as `by_distance`, or `null` or `samples` is not accepted.

    Source:
        Phipson and Smyth, "Permutation p-values should never be zero" (2010).

    Example:
        >>> import numpy as np
        >>> from channel_grad.correlation import permutation_test
        >>> same = np.ones((12, 12))  # Twelve equal filters.
        >>> test = permutation_test(same)
        >>> test.mean, test.p_value < 0.01
        (1.0, True)
        >>> permutation_test(same, "order").p_value  # Equal filters have no order.
        1.0
    """
    if null not in ("signs", "order"):
        raise ValueError(f"null: got {null!r}; accepted: 'signs', 'order'")
    if samples < 1:
        raise ValueError(f"samples: got {samples}; accepted: 1 or more")
    pairs = _Pairs(matrix, max_distance)
    observed = pairs.by_distance(pairs.values)
    if not len(pairs.values):
        nothing = np.full_like(observed, np.nan)
        return PermutationTest(np.nan, observed, nothing, nothing, np.nan, np.nan)
    generator = np.random.default_rng(seed)
    drawn = np.empty((samples, len(observed)))
    tested = np.empty(samples)
    for k in range(samples):
        if null == "signs":
            signs = generator.choice([-1.0, 1.0], pairs.count)
            values = pairs.values * signs[pairs.first] * signs[pairs.second]
        else:
            order = generator.permutation(pairs.count)
            values = pairs.table[order[pairs.first], order[pairs.second]]
        drawn[k], tested[k] = pairs.by_distance(values), pairs.tested(values, null)
    found = pairs.tested(pairs.values, null)
    # Draws that repeat the value found differ from it by rounding.
    as_much = tested >= found - 1e-12
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    p_value = (1 + as_much.sum()) / (1 + samples)
    mean = float(pairs.values.mean())
    return PermutationTest(mean, observed, low, high, float(tested.mean()), float(p_value))


class _Pairs:
    """The pairs i < j of filters that are not dead, with their distance.

    Attributes:
        table: the matrix of those filters alone.
        count: their number.
        first, second: indices into the table, for each pair.
        values: the correlation of each pair.
    """

    def __init__(self, matrix, max_distance: int | None):
        matrix = np.asarray(matrix, np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"matrix: got shape {matrix.shape}; accepted: (n, n)")
        largest = len(matrix) - 1
        self._size = largest if max_distance is None else max_distance
        if max_distance is not None and not 1 <= max_distance <= largest:
            raise ValueError(f"max_distance: got {max_distance}; accepted: 1 to {largest}")
        positions = np.flatnonzero(~np.isnan(np.diagonal(matrix)))
        self.table = matrix[np.ix_(positions, positions)]
        self.count = len(positions)
        self.first, self.second = np.triu_indices(self.count, 1)
        self.values = self.table[self.first, self.second]
        # Dead filters leave a gap: a distance is one of positions in the kernel.
        self._distances = positions[self.second] - positions[self.first]
        self._counts = np.bincount(self._distances, minlength=self._size + 1)
        self._nearest = np.flatnonzero(self._distances == self._distances.min(initial=len(matrix)))

    def by_distance(self, values: np.ndarray) -> np.ndarray:
        """The mean of values (pairs,) at distances 1 to max_distance."""
        sums = np.bincount(self._distances, values, minlength=self._size + 1)
        counts, sums = self._counts[1 : self._size + 1], sums[1 : self._size + 1]
        return np.divide(sums, counts, out=np.full(self._size, np.nan), where=counts > 0)

    def tested(self, values: np.ndarray, null: str) -> float:
        """The value that a test asks about."""
        if null == "signs":
            return float(values.mean())
        return float(values[self._nearest].mean() - values.mean())


def _check(kernel, axis: int, other: int | None) -> tuple[np.ndarray, int, int | None]:
    """The kernel in float64, and its axes as numbers >= 0."""
    kernel = np.asarray(kernel, np.float64)

    def number(name: str, given: int) -> int:
        if not -kernel.ndim <= given < kernel.ndim:
            raise ValueError(f"{name}: got {given}; accepted: an axis of shape {kernel.shape}")
        return given % kernel.ndim

    along = number("axis", axis)
    against = None if other is None else number("other", other)
    if along == against:
        raise ValueError(f"other: got {other}; accepted: None, or not the same axis as {axis}")
    if not kernel.size:
        raise ValueError(f"kernel: got shape {kernel.shape}; accepted: no axis of length 0")
    if not np.isfinite(kernel).all():
        raise ValueError("kernel: got NaN or infinity; accepted: finite weights")
    return kernel, along, against


def _reciprocal(x: np.ndarray) -> np.ndarray:
    """1 / x, and 0 for the channels that are zero."""
    return np.divide(1, x, out=np.zeros_like(x), where=x > 0)
