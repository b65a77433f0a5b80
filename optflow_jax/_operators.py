"""The finite differences of the OptFlow loss, and the inverse of its smoothness matrix K.

Inside the package an array of filters is laid out `(T, H, W, N)`: time, rows, columns, and the
filters last, so that every operator is one matrix product over all filters.

The matrix of the smoothness term ("3D ConvNets with Optical Flow Based Regularization", section
3.2) is

    K = Dt'Dt (x) I (x) I  +  I (x) Dy'Dy (x) I  +  I (x) I (x) Dx'Dx.

`D` couples the pixels i - 1 and i + 1, so `D'D` couples i - 2, i and i + 2. K therefore never
couples rows, or columns, of different parity: it is exactly block diagonal in four parity classes
(y mod 2, x mod 2). Everything below works class by class. K depends only on the shape of a filter,
so its inverse is a constant of the compiled program.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optflow_jax import _thresholds
from optflow_jax._thresholds import value_of

# At the default precision accelerators round float32 factors to fewer bits.
matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def _shift(x, axis: int, by: int):
    """`y[i] = x[i + by]` along an axis, zero outside."""
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (-by, by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), padding)


def difference(x, axis: int):
    """`D x` along an axis: `x[i + 1] - x[i - 1]` with zero outside. `D' = -D`."""
    return _shift(x, axis, 1) - _shift(x, axis, -1)


def time_difference(x):
    """`D_t x` along axis 0: `x[t + 1] - x[t]` with `x[T + 1] = 0`."""
    return _shift(x, 0, 1) - x


def time_difference_adjoint(x):
    """`D_t' x` along axis 0: `x[t - 1] - x[t]`."""
    return _shift(x, 0, -1) - x


def apply_smoothness(x, temporal: bool):
    """`K x` for `x` of shape `(T, H, W, ...)`."""
    y = -difference(difference(x, 1), 1) - difference(difference(x, 2), 2)
    return y + time_difference_adjoint(time_difference(x)) if temporal else y


def _space_spectrum(gram, parity: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors (columns) of `D'D` on the pixels of one parity."""
    size = len(gram)
    values, vectors = np.linalg.eigh(gram[parity::2, parity::2])
    # D is skew-symmetric, so for odd sizes it has a null vector, (1, 0, 1, ..., 1). Make it exact.
    if size % 2 and not parity:
        values[0], vectors[:, 0] = 0.0, 1.0 / np.sqrt(len(values))
    return values, vectors


def _gram(size: int, before: int) -> np.ndarray:
    """`D'D` for the difference `x[i + 1] - x[i - before]`, zero outside."""
    d = np.eye(size, k=1) - np.eye(size, k=-before)
    return d.T @ d


@dataclasses.dataclass(frozen=True, eq=False)
class Parity:
    """The pixels with `y % 2 == row` and `x % 2 == column`, and K restricted to them.

    K = Q diag(eigenvalues) Q', where Q is the Kronecker product of three small orthogonal matrices,
    `time`, `rows` and `columns`. `weights` is `1 / eigenvalues`, `(T, h, w)`, and 0 for the null
    vector. All arrays are float64 NumPy arrays.
    """

    row: int
    column: int
    time: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    weights: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(T, h, w)`, the pixels of the class."""
        return self.weights.shape

    @property
    def size(self) -> int:
        """The number of pixels of the class."""
        return self.weights.size

    @property
    def singular(self) -> bool:
        """Whether K has a null vector on this class; that vector is constant."""
        return not self.weights.all()

    @functools.cached_property
    def diagonal(self) -> np.ndarray:
        """The diagonal of K^+, shape `(size,)`."""
        squares = self.time**2, self.rows**2, self.columns**2
        return np.einsum("ai,bj,ck,ijk->abc", *squares, self.weights).ravel()

    @functools.cached_property
    def modes(self) -> np.ndarray:
        """K^+ in space for each temporal mode, shape `(T, h w, h w)`."""
        space = np.kron(self.rows, self.columns)
        return np.einsum("ai,ti,bi->tab", space, self.weights.reshape(len(self.time), -1), space)

    @functools.cached_property
    def dense(self) -> np.ndarray:
        """K^+ as a matrix, shape `(size, size)`."""
        blocks = np.einsum("st,ut,tab->saub", self.time, self.time, self.modes)
        return blocks.reshape(self.size, self.size)

    def inverse(self, x):
        """`K^+ x` for `x` of shape `(size, M)`.

        There are three methods, each the fastest for some sizes on a CPU. The smallest classes and
        moderately large single frames take the dense matrix. The others are diagonalised in time:
        one product over all frames, one small dense matrix for each temporal mode, one product
        back. This takes 0.65 of the dense time for 64 filters of 7 x 7 x 7, and 0.12 for 16 of 16 x
        16 x 16. For frames so large that the small matrices take many megabytes, rows and columns
        are diagonalised too ("fast diagonalisation").
        """
        frames, height, width = self.shape
        dense, modes = map(value_of, (_thresholds.DENSE_UP_TO, _thresholds.MODES_UP_TO))
        if frames == 1 and height * width <= 4 * modes or self.size <= dense:
            return matmul(self.dense.astype(x.dtype), x)
        time = self.time.astype(x.dtype)
        y = matmul(time.T, x.reshape(frames, -1))
        if height * width <= modes:
            y = matmul(self.modes.astype(x.dtype), y.reshape(frames, height * width, -1))
        else:
            y = self._diagonalise(y.reshape(frames, height, -1))
        return matmul(time, y.reshape(frames, -1)).reshape(x.shape)

    def _diagonalise(self, y):
        """Apply `weights` in the eigenbasis of rows and columns; `y` is `(T, h, w M)`."""
        frames, height, width = self.shape
        rows, columns = self.rows.astype(y.dtype), self.columns.astype(y.dtype)
        weights = self.weights.astype(y.dtype).reshape(frames * height, width, 1)
        z = matmul(rows.T, y).reshape(frames * height, width, -1)
        z = matmul(columns, weights * matmul(columns.T, z))
        return matmul(rows, z.reshape(frames, height, -1))

    def inverse_matrix(self, dtype):
        """K^+ as a JAX matrix: a constant where it is small, else computed in the program."""
        if self.size <= 512:
            return jnp.asarray(self.dense, dtype)
        return self.inverse(jnp.eye(self.size, dtype=dtype))


@dataclasses.dataclass(frozen=True, eq=False)
class Smoothness:
    """K of filters of one shape, by parity classes.

    Pixels are permuted into "class order": the classes one after the other, each `(T, h, w)`
    flattened. K is singular only without the temporal term and with H and W both odd. Then one
    class is singular; it comes first, and `null` is its size.
    """

    shape: tuple[int, int, int]
    factors: tuple[np.ndarray, np.ndarray, np.ndarray]
    classes: tuple[Parity, ...]

    @property
    def size(self) -> int:
        """The number of pixels."""
        return sum(c.size for c in self.classes)

    @property
    def null(self) -> int:
        """The number of pixels of the singular class, 0 if K is regular."""
        return self.classes[0].size if self.classes[0].singular else 0

    @functools.cached_property
    def diagonal(self) -> np.ndarray:
        """The diagonal of K^+ in class order, shape `(n,)`."""
        return np.concatenate([c.diagonal for c in self.classes])

    @functools.cached_property
    def condition(self) -> float:
        """The largest eigenvalue of K over the smallest that is not zero."""
        weights = [c.weights[c.weights > 0] for c in self.classes if c.weights.any()]
        if not weights:
            return 1.0
        return max(w.max() for w in weights) / min(w.min() for w in weights)

    def split(self, x):
        """Pixels `(T, H, W, ...)` to class order `(n, ...)`."""
        parts = [x[:, c.row :: 2, c.column :: 2] for c in self.classes]
        return jnp.concatenate([p.reshape(-1, *x.shape[3:]) for p in parts])

    def merge(self, x) -> jax.Array:
        """Class order `(n, ...)` back to pixels `(T, H, W, ...)`."""
        _, height, width = self.shape
        spread = []
        for c, part in zip(self.classes, self.by_class(x), strict=True):
            # Interior padding spreads a class over its own pixels; the four do not overlap.
            padding = [(0, 0, 0), _spread(height, c.row), _spread(width, c.column)]
            part = part.reshape(*c.shape, *x.shape[1:])
            padding += [(0, 0, 0)] * (part.ndim - 3)
            spread.append(lax.pad(part, jnp.zeros((), x.dtype), padding))
        return functools.reduce(jnp.add, spread)

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """K in class order as rows, columns and values; values at the same coordinates add up."""
        pixels = np.arange(self.size).reshape(self.shape)
        permuted = [pixels[:, c.row :: 2, c.column :: 2].ravel() for c in self.classes]
        order = np.argsort(np.concatenate(permuted))
        rows, columns, values = [], [], []
        for axis, factor in enumerate(self.factors):
            i, j = np.nonzero(factor)
            rows.append(order[pixels.take(i, axis)].ravel())
            columns.append(order[pixels.take(j, axis)].ravel())
            shape = [-1 if a == axis else 1 for a in range(3)]
            values.append(
                (np.ones(pixels.take(i, axis).shape) * factor[i, j].reshape(shape)).ravel()
            )
        return np.concatenate(rows), np.concatenate(columns), np.concatenate(values)

    def by_class(self, x) -> list[jax.Array]:
        """Class order `(n, ...)` cut into its classes."""
        offsets = np.cumsum([0] + [c.size for c in self.classes])
        return [x[i:j] for i, j in zip(offsets[:-1], offsets[1:], strict=True)]

    def inverse_pair(self, pair):
        """`K^+ x` for two x in class order, `(2, n, N)`; one product per class computes both."""
        count = pair.shape[-1]
        both = [
            c.inverse(jnp.concatenate([x, y], axis=1))
            for c, x, y in zip(self.classes, *map(self.by_class, pair), strict=True)
        ]
        halves = [[x[:, :count] for x in both], [x[:, count:] for x in both]]
        return jnp.stack([jnp.concatenate(parts) for parts in halves])

    def inverse(self, x):
        """`K^+ x` in class order: `x` is `(n, ...)`."""
        parts = [
            c.inverse(p)
            for c, p in zip(self.classes, self.by_class(x.reshape(len(x), -1)), strict=True)
        ]
        return jnp.concatenate(parts).reshape(x.shape)


def _spread(size: int, parity: int) -> tuple[int, int, int]:
    """The padding that puts a class's pixels at `parity`, `parity + 2`, ... of an axis."""
    return parity, (size - parity + 1) % 2, 1


@functools.lru_cache(maxsize=256)
def smoothness(frames: int, height: int, width: int, temporal: bool) -> Smoothness:
    """K of filters `(T, H, W)`; without the temporal term, K of one frame (frames are independent).

    Args:
        frames, height, width: the filter's shape.
        temporal: whether the flow is smooth in time too.

    Returns:
        The operator; computed once per shape, in float64.
    """
    frames = frames if temporal else 1
    factors = _gram(frames, 0) if temporal else np.zeros((1, 1)), _gram(height, 1), _gram(width, 1)
    t_values, t_vectors = np.linalg.eigh(factors[0])
    classes = []
    for row in range(min(2, height)):
        y_values, y_vectors = _space_spectrum(factors[1], row)
        for column in range(min(2, width)):
            x_values, x_vectors = _space_spectrum(factors[2], column)
            values = t_values[:, None, None] + y_values[:, None] + x_values
            weights = np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)
            classes.append(Parity(row, column, t_vectors, y_vectors, x_vectors, weights))
    return Smoothness((frames, height, width), factors, tuple(classes))
