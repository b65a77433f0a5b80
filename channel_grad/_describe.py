"""What an axis spec does with a tree: a table to print, and a warning where it does nothing."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

from channel_grad._axes import AxisSpec, Choice, path_string
from channel_grad._layouts import equinox_layout, flax_layout, haiku_layout, output_axes

# Presets that a warning may name, the most usual first. For each, one of the layouts.
_LAYOUTS = (flax_layout, haiku_layout, equinox_layout)
SUGGESTIONS = (
    *(layout.output_axes for layout in _LAYOUTS),
    *(layout.stacked(0).output_axes for layout in _LAYOUTS),
    *(layout.transposed_output_axes for layout in _LAYOUTS),
    *(layout.all_kernels for layout in _LAYOUTS),
)


@dataclasses.dataclass(frozen=True)
class Description:
    """What an axis spec does with each leaf; printed as a table.

    Attributes:
        axes: the axis spec.
        rows: for each leaf its path, shape, axes (None: unchanged) and why.

    Example:
        >>> import channel_grad, jax.numpy as jnp
        >>> description = channel_grad.describe({"kernel": jnp.ones((3, 3, 1, 8))})
        >>> [(row.shape, row.axes, row.why) for row in description.rows]
        [((3, 3, 1, 8), (3,), 'convolution kernel')]
    """

    axes: AxisSpec
    rows: tuple[Choice, ...]

    def __str__(self) -> str:
        cells = [("leaf", "shape", "axis", "why")] + [
            (
                path_string(row.path) or "(the tree itself)",
                str(row.shape),
                "unchanged" if row.axes is None else ", ".join(map(str, row.axes)),
                row.why,
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in cells
        ]
        changed = sum(row.axes is not None for row in self.rows)
        lines.append(f"{self.axes!r} changes the gradients of {changed} of {len(self.rows)} leaves")
        return "\n".join(lines)

    __repr__ = __str__


def describe(params: Any, axes: Any = output_axes) -> Description:
    """A table of what an axis spec does with each leaf: its path, shape, axis and why.

    Args:
        params: parameters or gradients; arrays or `jax.ShapeDtypeStruct`.
        axes: an axis spec, see `AxisSpec`.

    Returns:
        A Description: print it, or read its ``rows``, each with path, shape, axes (None:
        unchanged) and why.

    Raises:
        ValueError: if a leaf has no such axis, or a tree of axes has no entry for it.

    Example:
        >>> import channel_grad, jax.numpy as jnp
        >>> params = {"conv": {"kernel": jnp.ones((3, 3, 1, 8)), "bias": jnp.ones(8)}}
        >>> print(channel_grad.describe(params))
        leaf         shape         axis       why
        conv/bias    (8,)          unchanged  not named 'kernel'
        conv/kernel  (3, 3, 1, 8)  3          convolution kernel
        channel_grad.output_axes changes the gradients of 1 of 2 leaves
    """
    spec = AxisSpec(axes)
    return Description(spec, tuple(spec.choices(params)))


def warn_if_left_out(spec: AxisSpec, params: Any) -> None:
    """Resolve a spec; a UserWarning if it selects no leaf, or leaves out what looks selectable.

    Such are kernels of four or five axes beside a bias of one axis, which a preset leaves alone.
    """
    choices = list(spec.choices(params))
    if not choices:
        return
    if any(choice.axes is not None for choice in choices):
        left_out = [c for c in choices if c.axes is None and c.in_doubt]
        if left_out:
            named = "; ".join(f"{path_string(c.path)} ({c.why})" for c in left_out)
            warnings.warn(
                f"axes: got {spec!r}, which leaves alone {len(left_out)} kernels that look like "
                f"those of convolutions: {named}. Add them with axes=first_spec | second_spec, or "
                "leave them alone without this warning with axes=spec.exclude(pattern)",
                UserWarning,
                stacklevel=3,
            )
        return
    advice = "write a function (path, leaf) -> axis"
    for preset in SUGGESTIONS:
        found = sum(choice.axes is not None for choice in preset.choices(params))
        if found:
            advice = f"axes={preset!r} would select {found}"
            break
    warnings.warn(
        f"axes: got {spec!r}, which selects none of the {len(choices)} leaves, so that all "
        f"gradients stay as they are; {advice}. channel_grad.describe(params, axes=...) says why",
        UserWarning,
        stacklevel=3,
    )
