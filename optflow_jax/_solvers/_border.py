"""The constraint that a singular K puts on the dual.

Without the temporal term and with H and W odd, K has the null vector e (constant on one parity
class): the flow u = s_u e, v = s_v e has no smoothness cost. Minimising over s = (s_u, s_v) adds
two unknowns, s, and two equations, E'z = d with E = [a*e, b*e], to the dual system M z = c:

    [ M   -E ] [z]   [c]
    [ E'   0 ] [s] = [d]

E has two columns per filter, so its orthonormal basis and its pseudo-inverse are written out. If E
is rank deficient (for H = 1, say, where b = 0), s is not unique; the pseudo-inverse gives the s of
least norm.
"""

from typing import NamedTuple

import jax.numpy as jnp


class Border(NamedTuple):
    """E = Q R with orthonormal columns Q (zero beyond the rank) and R upper triangular.

    Attributes:
        basis: Q, `(m, 2, N)`, m the size of the singular class.
        r11: the norm of the longer column of E, `(N,)`.
        r12: the component of the shorter column along the longer one, `(N,)`.
        r22: the norm of what is left of the shorter column, `(N,)`; 0 at rank one.
        swapped: whether the second column of E is the longer one, `(N,)` bool.
    """

    basis: jnp.ndarray
    r11: jnp.ndarray
    r12: jnp.ndarray
    r22: jnp.ndarray
    swapped: jnp.ndarray

    def project(self, x):
        """Remove from x `(n, N)` its part in the range of E."""
        m = len(self.basis)
        head = x[:m] - _combine(self.basis, self.components(x))
        return jnp.concatenate([head, x[m:]])

    def components(self, x):
        """`Q'x`, `(2, N)`."""
        return jnp.einsum("mkn,mn->kn", self.basis, x[: len(self.basis)], precision="highest")

    def expand(self, components, size: int):
        """`Q components` as `(size, N)`."""
        head = _combine(self.basis, components)
        return jnp.pad(head, ((0, size - len(head)), (0, 0)))

    def solve(self, components):
        """The s of least norm with `R s = components`: `(2, N)`."""
        first, second = components
        # At rank two R is regular: back substitution. At rank one it is the single row (r11, r12),
        # whose pseudo-inverse is its transpose over its squared norm.
        row = self.r11**2 + self.r12**2
        s2 = _divide(second, self.r22)
        full = _divide(first - self.r12 * s2, self.r11), s2
        single = _divide(self.r11 * first, row), _divide(self.r12 * first, row)
        return self._unswap(
            [jnp.where(self.r22 > 0, f, s) for f, s in zip(full, single, strict=True)]
        )

    def solve_adjoint(self, d):
        """The components e with `R'e = d`, `(2, N)`; d must lie in the range of R'."""
        # R' is lower triangular: forward substitution. At rank one d is a multiple of (r11, r12).
        d1, d2 = jnp.where(self.swapped, d[::-1], d)
        e1 = _divide(d1, self.r11)
        single = _divide(self.r11 * d1 + self.r12 * d2, self.r11**2 + self.r12**2)
        full = jnp.stack([e1, _divide(d2 - self.r12 * e1, self.r22)])
        return jnp.where(self.r22 > 0, full, jnp.stack([single, jnp.zeros_like(single)]))

    def null_projector(self):
        """The projector onto the s with `E s = 0`, `(2, 2, N)`."""
        # Rank two: no null vector. Rank one: (r12, -r11), normalised. Rank zero: every s.
        row = self.r11**2 + self.r12**2
        p, q = _divide(self.r12, row**0.5), _divide(-self.r11, row**0.5)
        first, second = jnp.where(self.swapped, q, p), jnp.where(self.swapped, p, q)
        one = jnp.array([[first * first, first * second], [first * second, second * second]])
        all_of_it = jnp.eye(2, dtype=row.dtype)[..., None] * jnp.ones_like(row)
        return jnp.where(self.r22 > 0, 0, jnp.where(row > 0, one, all_of_it))

    def _unswap(self, s):
        s = jnp.stack(s)
        return jnp.where(self.swapped, s[::-1], s)


def border(columns) -> Border:
    """Factor E = QR with the longer column first.

    Args:
        columns: E on the singular class, `(m, 2, N)`.

    Returns:
        The factorisation. Columns that are parallel to within rounding count as parallel.
    """
    m = len(columns)
    # The longer column first: if it is zero, so is the other; and r22 = 0 shows a rank below two.
    norms = jnp.linalg.norm(columns, axis=0)
    swapped = norms[1] > norms[0]
    first, second = jnp.moveaxis(jnp.where(swapped, columns[:, ::-1], columns), 1, 0)
    r11 = jnp.linalg.norm(first, axis=0)
    q1 = _divide(first, r11)
    r12 = jnp.sum(q1 * second, axis=0)
    rest = second - q1 * r12
    # Orthogonalise a second time: where the columns are nearly parallel, `rest` is small and still
    # has a part along q1 from the rounding of the first time.
    again = jnp.sum(q1 * rest, axis=0)
    rest = rest - q1 * again
    r22 = jnp.linalg.norm(rest, axis=0)
    # A rest that may be rounding error alone counts as zero: divided by its norm it would be a
    # direction of noise.
    rounding = 8 * jnp.finfo(columns.dtype).eps * m**0.5
    r22 = jnp.where(r22 > rounding * jnp.linalg.norm(second, axis=0), r22, 0)
    q2 = _divide(rest, r22)
    return Border(jnp.stack([q1, q2], axis=1), r11, r12 + again, r22, swapped)


def _divide(x, y):
    """`x / y`, and 0 where y is 0."""
    return jnp.where(y == 0, 0, x / jnp.where(y == 0, 1, y))


def _combine(basis, components):
    return basis[:, 0] * components[0] + basis[:, 1] * components[1]
