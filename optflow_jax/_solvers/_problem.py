"""What every solver is given and what it returns.

The minimiser of L(W, U, V) over the flow ("3D ConvNets with Optical Flow Based Regularization",
equation 4) and its residual r = alpha z solve a symmetric system with the unknowns z, u and v:

    alpha z - a*u - b*v = c                 (r = a*u + b*v + c)
    -a*z - K u          = f                 (stationarity in u and v: f = g = 0 for the minimiser,
    -b*z - K v          = g                  other right-hand sides for its derivatives)

Eliminating u and v leaves the dual: half the unknowns of the paper's Newton system (equation 11),
and symmetric positive definite,

    M z = c - a*K^-1 f - b*K^-1 g,   M = alpha I + K^-1 o (aa' + bb')      (o: elementwise).

Scaled to a unit diagonal, y = z / d with d = diag(M)^-1/2, its condition number is at most that of
the equally scaled K^-1, for all weights and alpha: with K^ = diag(K^-1)^-1/2 K^-1
diag(K^-1)^-1/2, and G the unit-diagonal matrix of rank two of the normalised (a, b),

    d M d = diag(1 - t) + diag(t)^1/2 (K^ o G) diag(t)^1/2,      0 <= t < 1,

and the eigenvalues of K^ o G lie between those of K^ (Schur's product theorem). The bound is about
250 for 7 x 7 x 7 and 160 for 16 x 16 x 16, while the condition number of the paper's Hessian
reaches 1e8 for weights of 100 and alpha of 0.01. This is why float32 is enough.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from optflow_jax._operators import Smoothness
from optflow_jax._solvers._border import Border, border


def pair_dot(x, y):
    """`x[0] * y[0] + x[1] * y[1]`; on a CPU twenty times as fast as a sum over an axis of two."""
    return x[0] * y[0] + x[1] * y[1]


class Problem(NamedTuple):
    """The system of N filters, in class order (see `Smoothness`).

    Attributes:
        ab: a and b, `(2, n, N)`.
        alpha: `(N,)`.
        c: the first right-hand side, `(n, N)`.
        forcing: the other two, f and g, `(2, n, N)`; None for zero.
        unit: `(N,)`, the unit of the absolute tolerance of u and v: 1, two pixels per frame; 0 for
            derivatives, which have a relative tolerance only.
        smoothness: K.
    """

    ab: jnp.ndarray
    alpha: jnp.ndarray
    c: jnp.ndarray
    forcing: jnp.ndarray | None
    unit: jnp.ndarray
    smoothness: Smoothness

    def residual(self, solution: "Solution"):
        """The residual of the first equation, `(n, N)`."""
        return self.c - self.alpha * solution.z + pair_dot(self.ab, solution.uv)


class Solution(NamedTuple):
    """What a solver found.

    Attributes:
        z: `(n, N)`; the residual of brightness constancy is `alpha z`.
        uv: u and v, `(2, n, N)`.
        iterations: `(N,)` int32; 0 for a direct solver.
    """

    z: jnp.ndarray
    uv: jnp.ndarray
    iterations: jnp.ndarray


class Dual(NamedTuple):
    """The dual system scaled to a unit diagonal, for y = z / scale.

    Its matrix is `diag(shift) + K^-1 o sum ab ab'`.

    Attributes:
        scale: `(n, N)`.
        ab: a and b times scale, `(2, n, N)`.
        shift: alpha scale^2, `(n, N)`.
        rhs: `(n, N)`.
        free: `K^+` of the forcing, `(2, n, N)`, or None.
        border: the constraint of a singular K, or None.
        level: the right-hand side of that constraint in the border's basis, `(2, N)`, or None.
        metric: weights of a squared residual, `(n, N)`; see `_metric`.
        smoothness: K.
    """

    scale: jnp.ndarray
    ab: jnp.ndarray
    shift: jnp.ndarray
    rhs: jnp.ndarray
    free: jnp.ndarray | None
    border: Border | None
    level: jnp.ndarray | None
    metric: jnp.ndarray
    smoothness: Smoothness

    def apply(self, y):
        """The scaled matrix times `y`, `(n, N)`."""
        # Class by class, so that the products with a and b are fused with the slicing.
        by_class, count = self.smoothness.by_class, y.shape[1]
        inputs = zip(*map(by_class, (y, *self.ab, self.shift)), strict=True)
        parts = []
        for parity, (x, a, b, shift) in zip(self.smoothness.classes, inputs, strict=True):
            uv = parity.inverse(jnp.concatenate([a * x, b * x], axis=1))
            parts.append(shift * x + a * uv[:, :count] + b * uv[:, count:])
        return jnp.concatenate(parts)

    def image(self, y):
        """`K^+` of a*y and b*y, `(2, n, N)`; minus the flow that y causes."""
        return self.smoothness.inverse_pair(self.ab * y)

    def couple(self, uv):
        """`a*u + b*v` with the scaled a and b, `(n, N)`."""
        return pair_dot(self.ab, uv)

    def start(self):
        """The smallest y that meets the constraint, `(n, N)`."""
        if self.border is None:
            return jnp.zeros_like(self.rhs)
        return self.border.expand(self.level, len(self.rhs))

    def project(self, x):
        """The part of x `(n, N)` that the constraint leaves free."""
        return x if self.border is None else self.border.project(x)

    def constrained(self, x):
        """The scaled matrix on the space that the constraint leaves free, the identity elsewhere.

        The identity keeps rounding errors outside that space from growing.
        """
        if self.border is None:
            return self.apply(x)
        free = self.project(x)
        return self.project(self.apply(free)) + (x - free)

    def error(self, residual):
        """The square of a residual `(n, N)` in the solver's measure, `(N,)`; see `_metric`."""
        return jnp.sum(self.metric * residual * residual, axis=0)

    def accepted(self, residual):
        """Whether a residual `(n, N)` of the unscaled system is small enough, `(N,)` bool.

        In float32, solutions within this bound have had costs and gradients within 1e-5, and
        mostly 1e-6, of float64's: for random, sparse, constant and smooth filters of weights 1e-3
        to 1e2 and alpha 1e-2 to 1e2.
        """
        bound = 32 * precision(residual.dtype)
        return self.error(self.scale * residual) <= bound**2

    def flow(self, y, image=None):
        """u and v from y.

        Args:
            y: the scaled dual unknown, `(n, N)`.
            image: `self.image(y)` if it is known already.

        Returns:
            `(2, n, N)`; of all flows that cost the same, the one of least norm.
        """
        if image is None:
            image = self.image(y)
        uv = -image if self.free is None else -image - self.free
        if self.border is None:
            return uv
        excess = self.border.components(self.shift * y + self.couple(image) - self.rhs)
        m = self.smoothness.null
        return uv.at[:, :m].add(self.border.solve(excess)[:, None] / m**0.5)


def dual(problem: Problem) -> Dual:
    """Eliminate the flow and scale the dual system to a unit diagonal."""
    ab, smoothness = problem.ab, problem.smoothness
    diagonal = jnp.asarray(smoothness.diagonal, ab.dtype)[:, None]
    scale = lax.rsqrt(problem.alpha + diagonal * pair_dot(ab, ab))
    scaled = ab * scale
    rhs, free, factor, level = problem.c * scale, None, None, None
    if problem.forcing is not None:
        free = smoothness.inverse_pair(problem.forcing)
        rhs = rhs - pair_dot(scaled, free)
    if m := smoothness.null:
        factor = border(jnp.moveaxis(scaled[:, :m], 0, 1) / m**0.5)
        level = jnp.zeros_like(rhs[:2])
        if problem.forcing is not None:
            level = factor.solve_adjoint(-jnp.sum(problem.forcing[:, :m], axis=1) / m**0.5)
    shift = problem.alpha * scale * scale
    coupling = diagonal * pair_dot(scaled, scaled)  # 1 - shift, without cancellation
    metric = _metric(coupling, rhs, level, problem.unit)
    return Dual(scale, scaled, shift, rhs, free, factor, level, metric, smoothness)


def _metric(coupling, rhs, level, unit):
    """Weights of the squared residual: all solvers stop, and are checked, by this measure.

    A residual must be small compared with the right-hand side. For the gradient this is not enough
    if a filter has flat pixels (a = b = 0). Their equations hold from the start, but for weights of
    100 and alpha of 0.01 their right-hand side is a thousand times that of the others, so it hides
    the residual of the others. Therefore the residual, with each pixel weighted by its coupling to
    the flow, must also be small compared with the right-hand side weighted in the same way, or
    compared with `unit`.
    """
    whole, coupled = jnp.sum(rhs * rhs, axis=0), jnp.sum(coupling * rhs * rhs, axis=0)
    if level is not None:
        extra = jnp.sum(level * level, axis=0)
        whole, coupled = whole + extra, coupled + extra
    coupled = jnp.maximum(coupled, unit * unit)
    return _reciprocal(whole) + coupling * _reciprocal(coupled)


def _reciprocal(x):
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


def precision(dtype) -> float:
    """The unit of the tolerances: the epsilon of a dtype, but at least 1e-13."""
    return max(float(jnp.finfo(dtype).eps), 1e-13)


def judge(problem: Problem, solution: Solution):
    """Which filters a solution solves accurately enough, `(N,)` bool."""
    return dual(problem).accepted(problem.residual(solution))
