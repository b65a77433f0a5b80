"""Where a number was measured: device, versions, commit."""

from __future__ import annotations

import datetime
import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax

from experiments.system import processors

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "orbax-checkpoint")


def describe() -> dict[str, Any]:
    """Device, versions, commit and date, as plain values for a JSON file."""
    return {
        "device": device(),
        "backend": jax.default_backend(),
        "cpu_cores": processors.usable(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def device() -> str:
    """The accelerator's name, or the processor's model and number of usable cores."""
    kind = jax.devices()[0].device_kind
    if jax.default_backend() != "cpu":
        return kind
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
        model = next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {processors.usable()} cores"


def commit() -> str | None:
    """The commit of the checkout that this file is in ("-dirty" behind it if changed), or None."""
    here = pathlib.Path(__file__).resolve().parent
    try:
        git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        done = subprocess.run(git, capture_output=True, check=True)
        return done.stdout.decode("utf-8", errors="replace").strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
