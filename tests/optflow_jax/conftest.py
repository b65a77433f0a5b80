"""A float64 NumPy oracle: the paper's Newton system (equation 11), assembled and solved plainly."""

import types

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg as spla


def _central(size):
    return np.eye(size, k=1) - np.eye(size, k=-1)


def _forward(size):
    return np.eye(size, k=1) - np.eye(size)


def _gradients(frames, height, width, temporal):
    """The differences whose squares S(U, V) of section 3.2 sums, as one matrix."""
    factors = [_forward(frames), _central(height), _central(width)]
    rows = []
    for axis, d in enumerate(factors):
        if axis or temporal:
            terms = [sp.identity(len(f)) for f in factors]
            terms[axis] = sp.csr_matrix(d)
            rows.append(sp.kron(sp.kron(terms[0], terms[1]), terms[2]))
    return sp.vstack(rows).tocsc()


def _minimum(w, alpha=1.0, temporal=True):
    """R(W), its gradient (envelope theorem), u, v and the residual of one filter (T, H, W)."""
    w, alpha = np.asarray(w, np.float64), float(alpha)
    dt, dy, dx = _forward(w.shape[0]), _central(w.shape[1]), _central(w.shape[2])
    a = np.einsum("xk,tyk->tyx", dx, w)
    b = np.einsum("yk,tkx->tyx", dy, w)
    c = np.einsum("tk,kyx->tyx", dt, w)
    if temporal:
        u, v = _newton(a, b, c, alpha)
    else:  # frames do not meet
        frames = [_least_squares(*x, alpha) for x in zip(a, b, c, strict=True)]
        u, v = (np.stack(x) for x in zip(*frames, strict=True))
    r = a * u + b * v + c
    smooth = _gradients(*w.shape, temporal)
    energy = sum(np.sum((smooth @ x.ravel()) ** 2) for x in (u, v))
    gradient = np.einsum("xk,tyx->tyk", dx, r * u) + np.einsum("yk,tyx->tkx", dy, r * v)
    gradient += np.einsum("tk,tyx->kyx", dt, r)
    return 0.5 * (np.sum(r * r) + alpha * energy), gradient, u, v, r


def _newton(a, b, c, alpha):
    """The paper's Newton step (equation 11): one sparse solve, refined once."""
    smooth = _gradients(*a.shape, True)
    coefficients = sp.hstack([sp.diags(a.ravel()), sp.diags(b.ravel())])
    stiffness = sp.block_diag([smooth.T @ smooth] * 2)
    hessian = (coefficients.T @ coefficients + alpha * stiffness).tocsc()
    rhs = -(coefficients.T @ c.ravel())
    factor = spla.splu(hessian)
    x = factor.solve(rhs)
    x = x + factor.solve(rhs - hessian @ x)
    return x.reshape(2, *a.shape)


def _least_squares(a, b, c, alpha):
    """The flow of least norm of one frame, whose Hessian may be singular: no normal equations."""
    smooth = np.sqrt(alpha) * _gradients(1, *a.shape, False).toarray()
    design = np.block(
        [
            [np.diag(a.ravel()), np.diag(b.ravel())],
            [smooth, np.zeros_like(smooth)],
            [np.zeros_like(smooth), smooth],
        ]
    )
    target = np.concatenate([-c.ravel(), np.zeros(2 * len(smooth))])
    found = scipy.linalg.lstsq(design, target, cond=1e-13, lapack_driver="gelsy")
    return found[0].reshape(2, *a.shape)


def _figure_2():
    """The two filters of the paper's figure 2, collapsed to luminance: (2, 7, 7, 7) float64."""
    rng = np.random.RandomState(1234)
    top = 1.83 * rng.randn(1, 3, 7, 7, 7)
    bottom = np.zeros((1, 3, 7, 7, 7))
    for t in range(7):
        bottom[:, :, t, 2:5, t : t + 2] = 5
    bottom += 0.5 * rng.randn(1, 3, 7, 7, 7)
    both = np.concatenate([top, bottom])
    return 0.1140 * both[:, 0] + 0.5870 * both[:, 1] + 0.2989 * both[:, 2]


def _families(shape, seed):
    """Filters of many kinds at scale one, (14, T, H, W)."""
    rng = np.random.RandomState(seed)
    t, y, x = np.meshgrid(*(np.arange(s) for s in shape), indexing="ij")
    shifted = (x - t / 2 - shape[2] / 4) ** 2 + (y - shape[1] / 2) ** 2
    still = (x - shape[2] / 2) ** 2 + (y - shape[1] / 2) ** 2
    spike = np.zeros(shape)
    spike.flat[rng.randint(spike.size)] = 1
    return np.stack(
        [
            np.ones(shape),
            rng.randn(*shape),
            rng.laplace(size=shape),
            np.exp(-shifted / 4),
            np.exp(-still / 2),
            np.sin(0.7 * x + 0.3 * y + 0.2 * t),
            1.0 * (rng.rand(*shape) < 0.2),
            (rng.rand(*shape) < 0.1) * rng.randn(*shape),
            1.0 * x,
            (x + y) % 2.0,
            spike,
            1 + 1e-3 * rng.randn(*shape),
            np.broadcast_to(rng.randn(1, *shape[1:]), shape),
            10 ** rng.uniform(-4, 0, shape) * rng.randn(*shape),
        ]
    )


@pytest.fixture(scope="session")
def oracle():
    """The oracle's functions: `minimum`, `figure_2` and `families`."""
    return types.SimpleNamespace(minimum=_minimum, figure_2=_figure_2, families=_families)


@pytest.fixture
def x64():
    """float64 for every thread: JAX's CPU callback for `spsolve` runs in another than the test's.

    There it does not see the thread-local `jax.enable_x64(True)`, and JAX raises.
    """
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
