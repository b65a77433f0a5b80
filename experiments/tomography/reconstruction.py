"""From a sinogram back to the image: four methods, one of them with a certificate.

Least squares with total variation is the convex problem

    min_V  P(V) = 1/2 |A V - S|^2 + lambda TV(V)

with A the system matrix, S the sinogram and TV the isotropic total variation. It has no derivative
where the image is flat. `primal_dual` solves it together with its dual problem and stops when the
values of both, which enclose the minimum, are close enough; `smoothed_descent` rounds the kink off.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.fft import dctn, idctn

from experiments.tomography.geometry import view_angles
from optflow_jax import penalties

# Steps of the primal-dual method are sigma * BALANCE and tau / BALANCE: any value converges; this
# one needed the fewest iterations for images with values from 0 to 1 (1 to 10 are about as good).
BALANCE = 4.0
BETWEEN_GAPS = 50  # iterations between two evaluations of the gap, which costs two of them


class Reconstruction(NamedTuple):
    """An image with the record of how it was found.

    Attributes:
      image: V, (n, n).
      iterations: how many were made.
      history: by name, arrays over the evaluations: "iteration", "objective" (P), and for
        `primal_dual` "dual", the best lower bound of the minimum of P so far.
      dual: a feasible point (q, p) of the dual problem, of `primal_dual` only.
    """

    image: Any
    iterations: int
    history: dict[str, np.ndarray]
    dual: tuple[Any, Any] | None = None

    @property
    def gap(self) -> float:
        """The last duality gap over the objective: P is at most this share above its minimum."""
        return float(1 - self.history["dual"][-1] / self.history["objective"][-1])


def filtered_back_projection(sinogram: np.ndarray, filter_name: str = "ramp") -> np.ndarray:
    """The analytic inverse (scikit-image's): quick, and exact for many views without noise.

    Args:
      sinogram: (views, n).
      filter_name: "ramp", or one that damps high frequencies, such as "hann".
    """
    from skimage.transform import iradon

    degrees = np.degrees(view_angles(len(sinogram)))
    sinogram = np.asarray(sinogram, np.float64).T
    return iradon(sinogram, theta=degrees, filter_name=filter_name, output_size=len(sinogram))


def objective(matrix, sinogram, strength, image, epsilon=0.0):
    """P(V), with the length sqrt(|gradient|^2 + epsilon^2) of gradients where epsilon > 0."""
    residual = matrix @ image.ravel() - jnp.ravel(sinogram)
    smooth = penalties.total_variation(image, epsilon=epsilon)
    return 0.5 * jnp.vdot(residual, residual) + strength * smooth


@partial(jax.jit, static_argnames="iterations")
def least_squares(matrix, sinogram, iterations: int = 100) -> jax.Array:
    """Every iterate of conjugate gradients for min_V 1/2 |A V - S|^2, from V = 0.

    With few views the minimum is not unique and the noise is fitted last: where one stops matters.
    So all iterates are returned.

    Args:
      matrix: A, (views n, n n).
      sinogram: S, (views, n).
      iterations: how many.

    Returns:
      (iterations, n, n).

    Source:
      Hestenes and Stiefel (1952), in the form that applies A and A' in turn (CGLS).
    """
    size = sinogram.shape[1]
    residual = jnp.ravel(sinogram)
    gradient = residual @ matrix

    def iterate(carry, _):
        image, residual, direction, square = carry
        projected = matrix @ direction
        # Once the gradient is zero there is nothing left to do: 0 / 0 must not appear.
        step = square / jnp.maximum(jnp.vdot(projected, projected), jnp.finfo(square.dtype).tiny)
        image = image + step * direction
        residual = residual - step * projected
        gradient = residual @ matrix
        following = jnp.vdot(gradient, gradient)
        share = following / jnp.maximum(square, jnp.finfo(square.dtype).tiny)
        return (image, residual, gradient + share * direction, following), image

    start = (jnp.zeros_like(gradient), residual, gradient, jnp.vdot(gradient, gradient))
    _, images = jax.lax.scan(iterate, start, length=iterations)
    return images.reshape(iterations, size, size)


def smoothed_descent(
    matrix, sinogram, strength: float, epsilon: float = 0.01, iterations: int = 500
) -> Reconstruction:
    """Accelerated gradient descent on P with gradients of length sqrt(|gradient|^2 + epsilon^2).

    The step is 1 / L with L = |A|_1 |A|_inf + 8 strength / epsilon, a bound of the curvature: a
    smaller epsilon is closer to P and slower.

    Args:
      matrix: A, (views n, n n), not negative.
      sinogram: S, (views, n).
      strength: lambda.
      epsilon: in units of the image.
      iterations: how many.

    Source:
      Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k^2)"
      (1983).
    """
    size = sinogram.shape[1]

    @jax.jit
    def descend(matrix, sinogram):
        of_rows = matrix @ jnp.ones(matrix.shape[1], matrix.dtype)
        of_columns = jnp.ones(matrix.shape[0], matrix.dtype) @ matrix
        step = 1 / (jnp.max(of_rows) * jnp.max(of_columns) + 8 * strength / epsilon)
        slope = jax.grad(partial(objective, matrix, sinogram, strength, epsilon=epsilon))

        def iterate(carry, number):
            image, ahead = carry
            new = ahead - step * slope(ahead)
            ahead = new + number / (number + 3) * (new - image)
            return (new, ahead), None

        def several(carry, start):
            numbers = start + jnp.arange(BETWEEN_GAPS, dtype=matrix.dtype)
            carry, _ = jax.lax.scan(iterate, carry, numbers)
            return carry, objective(matrix, sinogram, strength, carry[0])

        start = jnp.zeros((size, size), matrix.dtype)
        starts = BETWEEN_GAPS * jnp.arange(blocks, dtype=matrix.dtype)
        (image, _), values = jax.lax.scan(several, (start, start), starts)
        return image, values

    blocks = -(-iterations // BETWEEN_GAPS)
    image, values = descend(matrix, jnp.asarray(sinogram, matrix.dtype))
    made = BETWEEN_GAPS * np.arange(1, blocks + 1)
    history = {"iteration": made, "objective": np.asarray(values, np.float64)}
    return Reconstruction(image, int(made[-1]), history)


def primal_dual(
    matrix,
    sinogram,
    strength: float,
    tolerance: float = 1e-3,
    max_iterations: int = 3000,
) -> Reconstruction:
    """The minimum of P by primal-dual splitting; stops at a relative duality gap.

    P is min_V max_(q, p) of

        <q, A V - S> - 1/2 |q|^2 + <p, D V>      with |p[i]|_2 <= lambda

    where D takes differences: q is the residual A V - S at the solution, p is lambda times the
    direction of the gradient. Each iteration ascends in (q, p) and descends in V:

        q <- (q + sigma_q (A W - S)) / (1 + sigma_q)
        p <- project(p + sigma_p D W)            each p[i] into the disc of radius lambda
        V' <- V - tau (A'q + D'p),   W <- 2 V' - V,   V <- V'

    with steps sigma = 1 / (row sums of [A; |D|]) and tau = 1 / (its column sums), for which it
    converges.

    **The gap.** Wherever A'q + D'p = 0 and |p[i]|_2 <= lambda,

        Q(q, p) = -1/2 |q|^2 - <q, S>  <=  min P

    The iterates satisfy the equation in the limit only, so a feasible point is made of them. First
    q moves along A1 until A'q sums to zero. Then p takes over what is left of the equation, as
    p - D (D'D)^-1 (A'q + D'p), by a cosine transform. Last, (q, p) is scaled into the discs. So the
    reported bound holds at every iterate, up to rounding.

    Args:
      matrix: A, (views n, n n), not negative.
      sinogram: S, (views, n).
      strength: lambda, positive.
      tolerance: stops when (P - Q) / P is not greater.
      max_iterations: stops there in any case; look at `gap`.

    Source:
      Chambolle and Pock, "A first-order primal-dual algorithm for convex problems with applications
      to imaging" (2011); steps: Pock and Chambolle, "Diagonal preconditioning for first order
      primal-dual algorithms in convex optimization" (2011), with alpha = 1; Condat, "A generic
      proximal algorithm for convex optimization - application to total variation minimization"
      (2014).
    """
    size = sinogram.shape[1]
    flat = jnp.ravel(jnp.asarray(sinogram, matrix.dtype))
    zero = jnp.zeros((size, size), matrix.dtype)
    state = (zero, zero, jnp.zeros_like(flat), jnp.zeros((2, size, size), matrix.dtype))
    iterations, rows, best, dual = 0, [], -np.inf, None
    while True:
        state = _iterations(matrix, flat, strength, state)
        iterations += BETWEEN_GAPS
        value, bound, feasible = _enclose(matrix, flat, strength, state)
        if not bound <= best:  # An earlier bound holds as well, and may be the better one.
            best, dual = float(bound), feasible
        rows.append((iterations, float(value), best))
        # `not >` so that NaN ends the loop.
        if iterations >= max_iterations or not value - best > tolerance * value:
            break
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    history = dict(zip(("iteration", "objective", "dual"), columns, strict=True))
    return Reconstruction(state[0], iterations, history, dual)


@jax.jit
def _iterations(matrix, sinogram, strength, state):
    """BETWEEN_GAPS iterations of `primal_dual`."""
    ones = partial(jnp.ones, dtype=matrix.dtype)
    shape = state[0].shape
    of_rows = matrix @ ones(matrix.shape[1])
    of_columns = (ones(matrix.shape[0]) @ matrix).reshape(shape)
    # A ray that meets no pixel stays at its data. Every pixel is in at most four differences.
    sigma_q = jnp.where(of_rows > 0, BALANCE / jnp.where(of_rows > 0, of_rows, 1), 1)
    sigma_p, tau = BALANCE / 2, 1 / (BALANCE * (of_columns + 4))

    def iterate(_, state):
        image, ahead, q, p = state
        q = (q + sigma_q * (matrix @ ahead.ravel() - sinogram)) / (1 + sigma_q)
        p = p + sigma_p * _differences(ahead)
        p = p / jnp.maximum(1, _lengths(p) / strength)
        new = image - tau * ((q @ matrix).reshape(shape) + _adjoint(p))
        return new, 2 * new - image, q, p

    return jax.lax.fori_loop(0, BETWEEN_GAPS, iterate, state)


@jax.jit
def _enclose(matrix, sinogram, strength, state):
    """P of the primal iterate, and the dual value of a feasible point near the dual iterate."""
    image, _, q, p = state
    through_all = matrix @ jnp.ones(matrix.shape[1], matrix.dtype)  # A1; 1'A'q = <q, A1>
    q = q - through_all * (q @ through_all) / (through_all @ through_all)
    left_over = (q @ matrix).reshape(image.shape) + _adjoint(p)
    p = p - _differences(_solve_poisson(left_over))
    # (q, p) is feasible but for the discs; t (q, p) is feasible for every t up to `most`.
    most = strength / jnp.maximum(jnp.max(_lengths(p)), jnp.finfo(matrix.dtype).tiny)
    best = -(q @ sinogram) / jnp.maximum(q @ q, jnp.finfo(matrix.dtype).tiny)
    t = jnp.clip(best, 0, most)
    q, p = t * q, t * p
    bound = -0.5 * (q @ q) - q @ sinogram
    return objective(matrix, sinogram, strength, image), bound, (q, p)


def _differences(image):
    """D: to the next row and to the next column, 0 at the border, (2, n, n)."""
    down = jnp.pad(jnp.diff(image, axis=0), ((0, 1), (0, 0)))
    right = jnp.pad(jnp.diff(image, axis=1), ((0, 0), (0, 1)))
    return jnp.stack([down, right])


def _adjoint(p):
    """D'."""
    transpose = jax.linear_transpose(_differences, jax.ShapeDtypeStruct(p.shape[1:], p.dtype))
    return transpose(p)[0]


def _lengths(p):
    return jnp.sqrt(jnp.sum(p * p, axis=0))


def _solve_poisson(right):
    """u with D'D u = right, for a right side that sums to zero.

    Cosines are the eigenvectors of D'D, with eigenvalues 2 - 2 cos(pi k / n) for each axis.
    """
    along = [2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in right.shape]
    values = along[0][:, None] + along[1][None, :]
    values[0, 0] = np.inf  # the constant image, which D does not see
    cosines = dctn(right, norm="ortho") / jnp.asarray(values, right.dtype)
    return idctn(cosines, norm="ortho")
