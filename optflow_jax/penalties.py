"""The usual penalties on weights and images, with their proximal operators.

Pure functions of arrays beside the OptFlow regularizer: L1, L2, elastic net, Huber, group lasso and
total variation. In a loss:

    penalty = optflow_jax.penalties.tree_penalty(penalties.l1, params, where="kernel$")
    loss = data_loss + 1e-4 * penalty

The proximal operator of step * f is

    prox(v) = argmin_x  1/2 |x - v|^2 + step f(x)

and is what proximal gradient and primal-dual methods need where f has no derivative.

All of them compute in float32 or the wider dtype of their argument and return its dtype. Where a
penalty has a kink its derivative is the subgradient 0, so gradients are finite everywhere; NaN in
the argument gives NaN.
"""

import re
from collections.abc import Callable

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from optflow_jax._kernels import first_convolution

Axes = int | tuple[int, ...] | None


def l1(x, axis: Axes = None):
    """The sum of absolute values: few weights differ from zero at its minimum.

        f(x) = sum_i |x_i|

    Args:
        x: any shape, floating.
        axis: the axes that are summed. Default: all of them; the others are a batch.

    Returns:
        A scalar, or an array of the batch's shape, in x's dtype. The derivative at 0 is 0.

    Raises:
        ValueError: if x is not floating or an axis does not exist.

    Source:
        Tibshirani, "Regression shrinkage and selection via the lasso" (1996).

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import l1
        >>> l1(jnp.array([1.0, -2.0, 0.0]))
        Array(3., dtype=float32)
    """
    x, dtype = _wide("x", x)
    return jnp.sum(_absolute(x), axis=_axes("axis", axis, x)).astype(dtype)


def l2(x, axis: Axes = None):
    """The sum of squares, without a factor 1/2: spreads weight evenly.

        f(x) = sum_i x_i^2

    Args:
        x: any shape, floating.
        axis: the axes that are summed. Default: all of them; the others are a batch.

    Returns:
        A scalar, or an array of the batch's shape, in x's dtype.

    Raises:
        ValueError: if x is not floating or an axis does not exist.

    Source:
        Hoerl and Kennard, "Ridge regression" (1970).

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import l2
        >>> l2(jnp.array([1.0, 0.0, 0.0, 0.0])), l2(jnp.array([0.25, 0.25, 0.25, 0.25]))
        (Array(1., dtype=float32), Array(0.25, dtype=float32))
    """
    x, dtype = _wide("x", x)
    return jnp.sum(x * x, axis=_axes("axis", axis, x)).astype(dtype)


def elastic_net(x, l1_ratio=0.5, axis: Axes = None):
    """A mixture of `l1` and `l2`: sparse, and strictly convex.

        f(x) = l1_ratio sum_i |x_i| + (1 - l1_ratio) sum_i x_i^2

    (scikit-learn halves the second term.)

    Args:
        x: any shape, floating.
        l1_ratio: between 0 (`l2`) and 1 (`l1`); may be traced.
        axis: the axes that are summed. Default: all of them; the others are a batch.

    Returns:
        A scalar, or an array of the batch's shape, in x's dtype. The derivative at 0 is 0.

    Raises:
        ValueError: if x is not floating, an axis does not exist or l1_ratio is out of its range.

    Source:
        Zou and Hastie, "Regularization and variable selection via the elastic net" (2005).

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import elastic_net
        >>> elastic_net(jnp.array([1.0, -2.0]), l1_ratio=0.5)  # (3 + 5) / 2
        Array(4., dtype=float32)
    """
    x, dtype = _wide("x", x)
    ratio = _known("l1_ratio", l1_ratio, lambda r: (r >= 0) & (r <= 1), "0 to 1")
    values = ratio * _absolute(x) + (1 - ratio) * x * x
    return jnp.sum(values, axis=_axes("axis", axis, x)).astype(dtype)


def huber(x, delta=1.0, axis: Axes = None):
    """Quadratic near zero and linear beyond: an L1 penalty with a derivative everywhere.

        f(x) = sum_i  1/2 x_i^2                     where |x_i| <= delta
                      delta (|x_i| - delta / 2)     elsewhere

    Args:
        x: any shape, floating.
        delta: where it becomes linear, positive; may be traced.
        axis: the axes that are summed. Default: all of them; the others are a batch.

    Returns:
        A scalar, or an array of the batch's shape, in x's dtype.

    Raises:
        ValueError: if x is not floating, an axis does not exist or delta is not positive.

    Source:
        Huber, "Robust estimation of a location parameter" (1964).

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import huber
        >>> huber(jnp.array([0.5, -3.0]), delta=1.0)  # 0.125 + 2.5
        Array(2.625, dtype=float32)
    """
    x, dtype = _wide("x", x)
    delta = _known("delta", delta, lambda d: d > 0, "positive")
    size = jnp.abs(x)
    # The square is cut off: in the linear part it could overflow, and its derivative be NaN.
    square = 0.5 * jnp.minimum(size, delta) ** 2
    values = square + delta * jnp.maximum(size - delta, 0)
    return jnp.sum(values, axis=_axes("axis", axis, x)).astype(dtype)


def group_lasso(x, axis: Axes):
    """The sum of the norms of groups: whole groups become zero.

        f(x) = sum_g |x_g|_2

    Args:
        x: any shape, floating.
        axis: the axes within a group; each index of the other axes is a group. With
            ``axis=(0, 1, 2)`` each output filter of a kernel (height, width, in, out) is a group.

    Returns:
        A scalar in x's dtype. The derivative with respect to a group that is zero is 0.

    Raises:
        ValueError: if x is not floating or an axis does not exist.

    Source:
        Yuan and Lin, "Model selection and estimation in regression with grouped variables" (2006);
        they weight a group by the root of its size, which here is the same for all groups.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import group_lasso
        >>> group_lasso(jnp.array([[3.0, 4.0], [0.0, 0.0]]), axis=1)
        Array(5., dtype=float32)
    """
    x, dtype = _wide("x", x)
    return jnp.sum(_norm(x, _axes("axis", axis, x))).astype(dtype)


def total_variation(x, axes: Axes = (-2, -1), kind: str = "isotropic", epsilon=0.0):
    """The sum of the lengths of the gradient: edges are cheap, noise is not.

    With the differences (D_a x)[i] = x[i + 1] - x[i] along each axis a, 0 at the last i:

        isotropic:     f(x) = sum_i sqrt( sum_a (D_a x)[i]^2 + epsilon^2 )
        anisotropic:   f(x) = sum_i sum_a sqrt( (D_a x)[i]^2 + epsilon^2 )

    Args:
        x: floating; images (*batch, height, width) with the default axes.
        axes: the axes that are differenced; the others are a batch.
        kind: "isotropic" or "anisotropic".
        epsilon: not negative; a positive one makes f smooth. May be traced.

    Returns:
        One value for each index of the batch, a scalar without batch, in x's dtype. With epsilon 0
        the derivative where the gradient is 0 is 0.

    Raises:
        ValueError: if x is not floating, an axis does not exist, or kind or epsilon is not
            accepted.

    Source:
        Rudin, Osher and Fatemi, "Nonlinear total variation based noise removal algorithms" (1992).

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import total_variation
        >>> image = jnp.array([[0.0, 0.0], [3.0, 0.0]])
        >>> total_variation(image, kind="anisotropic"), total_variation(image)
        (Array(6., dtype=float32), Array(6., dtype=float32))
        >>> total_variation(jnp.array([[0.0, 3.0], [4.0, 0.0]]), kind="isotropic")  # 5 + 3 + 4
        Array(12., dtype=float32)
    """
    x, dtype = _wide("x", x)
    axes = _axes("axes", axes, x)
    epsilon = _known("epsilon", epsilon, lambda e: e >= 0, "0 or positive")
    differences = _differences(x, axes)
    if _isotropic(kind):
        # epsilon is one more component of the vector whose length is taken.
        smooth = jnp.broadcast_to(epsilon.astype(x.dtype), (1, *x.shape))
        lengths = _norm(jnp.concatenate([differences, smooth]), (0,))
    else:
        pair = jnp.stack(jnp.broadcast_arrays(differences, epsilon.astype(x.dtype)))
        lengths = jnp.sum(_norm(pair, (0,)), axis=0)
    return jnp.sum(lengths, axis=axes).astype(dtype)


def prox_l1(v, step):
    """The proximal operator of step * `l1`: soft thresholding.

        prox(v)_i = sign(v_i) max(|v_i| - step, 0)

    Args:
        v: any shape, floating.
        step: not negative, a scalar or broadcastable to v; may be traced.

    Returns:
        An array like v.

    Raises:
        ValueError: if v is not floating or step is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import prox_l1
        >>> prox_l1(jnp.array([3.0, 0.5, -2.0]), 1.0)
        Array([ 2.,  0., -1.], dtype=float32)
    """
    v, dtype = _wide("v", v)
    return _soft(v, _step(step)).astype(dtype)


def prox_l2(v, step):
    """The proximal operator of step * `l2`: shrinking.

        prox(v) = v / (1 + 2 step)

    Args:
        v: any shape, floating.
        step: not negative, a scalar or broadcastable to v; may be traced.

    Returns:
        An array like v.

    Raises:
        ValueError: if v is not floating or step is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import prox_l2
        >>> prox_l2(jnp.array([3.0, -6.0]), 1.0)
        Array([ 1., -2.], dtype=float32)
    """
    v, dtype = _wide("v", v)
    return (v / (1 + 2 * _step(step))).astype(dtype)


def prox_elastic_net(v, step, l1_ratio=0.5):
    """The proximal operator of step * `elastic_net`: soft thresholding, then shrinking.

        prox(v)_i = sign(v_i) max(|v_i| - step l1_ratio, 0) / (1 + 2 step (1 - l1_ratio))

    Args:
        v: any shape, floating.
        step: not negative, a scalar or broadcastable to v; may be traced.
        l1_ratio: between 0 and 1; may be traced.

    Returns:
        An array like v.

    Raises:
        ValueError: if v is not floating, step is negative or l1_ratio is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import prox_elastic_net
        >>> prox_elastic_net(jnp.array([4.5, 0.25]), 1.0, l1_ratio=0.5)
        Array([2., 0.], dtype=float32)
    """
    v, dtype = _wide("v", v)
    step = _step(step)
    ratio = _known("l1_ratio", l1_ratio, lambda r: (r >= 0) & (r <= 1), "0 to 1")
    return (_soft(v, step * ratio) / (1 + 2 * step * (1 - ratio))).astype(dtype)


def prox_huber(v, step, delta=1.0):
    """The proximal operator of step * `huber`.

        prox(v)_i = v_i / (1 + step)              where |v_i| <= delta (1 + step)
                    v_i - step delta sign(v_i)    elsewhere

    Args:
        v: any shape, floating.
        step: not negative, a scalar or broadcastable to v; may be traced.
        delta: positive; may be traced.

    Returns:
        An array like v.

    Raises:
        ValueError: if v is not floating, step is negative or delta is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import prox_huber
        >>> prox_huber(jnp.array([1.0, 5.0]), 1.0, delta=1.0)
        Array([0.5, 4. ], dtype=float32)
    """
    v, dtype = _wide("v", v)
    step, delta = _step(step), _known("delta", delta, lambda d: d > 0, "positive")
    near = jnp.abs(v) <= delta * (1 + step)
    return jnp.where(near, v / (1 + step), v - step * delta * jnp.sign(v)).astype(dtype)


def prox_group_lasso(v, step, axis: Axes):
    """The proximal operator of step * `group_lasso`: soft thresholding of norms.

        prox(v)_g = v_g max(1 - step / |v_g|, 0),   0 where v_g = 0

    Args:
        v: any shape, floating.
        step: not negative, a scalar; may be traced.
        axis: the axes within a group.

    Returns:
        An array like v.

    Raises:
        ValueError: if v is not floating, step is negative or an axis does not exist.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import prox_group_lasso
        >>> prox_group_lasso(jnp.array([[3.0, 4.0], [0.3, 0.4]]), 1.0, axis=1)
        Array([[2.4, 3.2],
               [0. , 0. ]], dtype=float32)
    """
    v, dtype = _wide("v", v)
    norms = _norm(v, _axes("axis", axis, v), keepdims=True)
    zero = norms == 0
    share = jnp.maximum(1 - _step(step) / jnp.where(zero, 1, norms), 0)
    return (v * jnp.where(zero, 0, share)).astype(dtype)


def prox_total_variation(
    v, step, axes: Axes = (-2, -1), kind: str = "isotropic", iterations: int = 200
):
    """The proximal operator of step * `total_variation`: denoising, by its dual.

    The minimiser is x = v - step D'p, where p has a vector for each pixel and solves

        min_p  1/2 |v - step D'p|^2   with |p[i]|_2 <= 1   (anisotropic: |p_a[i]| <= 1)

    Each iteration is a gradient step for p, whose length is 1 / (step^2 |D|^2) with
    |D|^2 <= 4 * number of axes, and a projection, accelerated as in FISTA. The excess of the dual
    objective falls as 1 / iterations^2.

    Args:
        v: floating; images (*batch, height, width) with the default axes.
        step: not negative, a scalar; may be traced.
        axes: the axes that are differenced; the others are a batch.
        kind: "isotropic" or "anisotropic".
        iterations: how many; more are needed for a larger step.

    Returns:
        An array like v. Derivatives are those of the iterations.

    Raises:
        ValueError: if v is not floating, an axis does not exist, or another argument is not
            accepted.

    Source:
        Chambolle, "An algorithm for total variation minimization and applications" (2004); Beck and
        Teboulle, "Fast gradient-based algorithms for constrained total variation image denoising
        and deblurring problems" (2009), algorithm FGP.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import prox_total_variation
        >>> signal = jnp.array([0.0, 0.0, 4.0, 4.0])  # Each half moves by step / 2.
        >>> prox_total_variation(signal, 1.0, axes=-1).round(2)
        Array([0.5, 0.5, 3.5, 3.5], dtype=float32)
    """
    v, dtype = _wide("v", v)
    axes, step, isotropic = _axes("axes", axes, v), _step(step).astype(v.dtype), _isotropic(kind)
    if iterations < 1:
        raise ValueError(f"iterations: got {iterations}; accepted: 1 or more")
    if jnp.ndim(step):
        raise ValueError(f"step: got shape {jnp.shape(step)}; accepted: a scalar")
    differences, adjoint = jax.vjp(lambda x: _differences(x, axes), v)
    rate = 1 / (4 * len(axes) * jnp.where(step > 0, step, 1))

    def project(p):
        if isotropic:
            return p / jnp.maximum(_norm(p, (0,)), 1)
        return jnp.clip(p, -1, 1)

    def iterate(_, carry):
        p, ahead, t = carry
        x = v - step * adjoint(ahead)[0]
        following = project(ahead + rate * _differences(x, axes))
        t_following = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
        ahead = following + (t - 1) / t_following * (following - p)
        return following, ahead, t_following

    start = jnp.zeros_like(differences)
    p, _, _ = jax.lax.fori_loop(0, iterations, iterate, (start, start, jnp.ones((), v.dtype)))
    return (v - step * adjoint(p)[0]).astype(dtype)


def tree_penalty(
    penalty: Callable[[jax.Array], jax.Array],
    params,
    *,
    where: str | Callable[[str, jax.Array], bool] = r"kernel$",
):
    """The sum of a penalty over chosen leaves of a tree of parameters.

    Args:
        penalty: a function of an array, as those of this module or `optflow_jax.regularizer`; what
            it returns is summed.
        params: a tree of parameters.
        where: a regular expression that is searched for in the path of a leaf, its keys joined by
            "/"; or a function of path and leaf; or "first" for the first 3D convolution alone (see
            `optflow_jax.first_convolution`). Default: leaves named kernel, as in Flax; biases and
            the scales of normalisations are left alone.

    Returns:
        A scalar, in float32 or wider.

    Raises:
        ValueError: if nothing is chosen; and as `penalty` does.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import group_lasso, l1, tree_penalty
        >>> params = {"Dense_0": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([9.0])}}
        >>> tree_penalty(l1, params)
        Array(3., dtype=float32)
        >>> tree_penalty(lambda w: group_lasso(w, axis=0), params, where="Dense_[01]/kernel$")
        Array(3., dtype=float32)
    """
    leaves = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    ]
    if where == "first":
        first = first_convolution(params)
        chosen = [leaf for path, leaf in leaves if path == first]
    elif callable(where):
        chosen = [leaf for path, leaf in leaves if where(path, leaf)]
    else:
        chosen = [leaf for path, leaf in leaves if re.search(where, path)]
    if not chosen:
        paths = [path for path, _ in leaves]
        raise ValueError(f"where: got {where!r}; accepted: what chooses one or more of {paths}")
    values = [jnp.sum(jnp.asarray(penalty(leaf))) for leaf in chosen]
    return sum(value.astype(jnp.promote_types(value.dtype, jnp.float32)) for value in values)


def _wide(name: str, x):
    """An array in the dtype of the computation, and its own dtype."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name}: got {x.dtype}; accepted: a floating dtype")
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)), x.dtype


def _axes(name: str, axes: Axes, x) -> tuple[int, ...]:
    """Axes as numbers >= 0; None is all of them."""
    if axes is None:
        return tuple(range(x.ndim))
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    exist = all(-x.ndim <= a < x.ndim for a in given)
    if not given or not exist or len({a % x.ndim for a in given}) < len(given):
        raise ValueError(f"{name}: got {axes}; accepted: one or more axes of shape {x.shape}, once")
    return tuple(a % x.ndim for a in given)


def _known(name: str, value, accepts: Callable[[np.ndarray], np.ndarray], accepted: str):
    """A number as an array; it is checked where its value is known already."""
    if not isinstance(value, jax.core.Tracer):
        known = np.asarray(value)
        if known.dtype.kind not in "fiuV" or not np.all(accepts(known.astype(np.float64))):
            raise ValueError(f"{name}: got {value}; accepted: {accepted}")
    return jnp.asarray(value)


def _step(step):
    return _known("step", step, lambda s: s >= 0, "0 or positive")


def _isotropic(kind: str) -> bool:
    if kind not in ("isotropic", "anisotropic"):
        raise ValueError(f"kind: got {kind!r}; accepted: 'isotropic', 'anisotropic'")
    return kind == "isotropic"


def _absolute(x):
    """|x| with derivative 0 at 0, where JAX takes 1 for `jnp.abs`."""
    return x * jnp.sign(x)


def _soft(v, threshold):
    return jnp.sign(v) * jnp.maximum(jnp.abs(v) - threshold, 0)


def _norm(x, axes: tuple[int, ...], keepdims: bool = False):
    """Euclidean norms along axes, with derivative 0 at 0.

    The norm is m |x / m| for any m > 0, so m is a constant to the derivative. The largest value as
    m keeps squares from overflowing and underflowing.
    """
    m = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axes, keepdims=True))
    m = jnp.where(m == 0, 1, m)
    squares = jnp.sum((x / m) ** 2, axis=axes, keepdims=True)
    zero = squares == 0
    # The inner `where` keeps the infinite derivative of sqrt at 0 out of the product with 0.
    norms = m * jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)))
    return norms if keepdims else jnp.squeeze(norms, axes)


def _differences(x, axes: tuple[int, ...]):
    """x[i + 1] - x[i] along each axis, 0 at the last i: (number of axes, *x.shape)."""
    parts = []
    for axis in axes:
        difference = jnp.diff(x, axis=axis)
        border = [(0, int(a == axis)) for a in range(x.ndim)]
        parts.append(jnp.pad(difference, border))
    return jnp.stack(parts)
