"""XLA's flags under which programs compile quickly: those that the installed jaxlib knows.

    XLA_FLAGS="$(python tests/xla_flags.py)" COMMAND

XLA ends a process on a flag that it does not know, so it is asked first, in a process of its own.
"""

import functools
import os
import subprocess
import sys

# No optimizations, no expensive passes; the last one chooses XLA's older code generator for
# fusions, which compiles in less time. jaxlib 0.12 has no other than the new one, now as quick.
QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
)


def known(flags: tuple[str, ...]) -> list[str]:
    """Those of the flags that the installed jaxlib accepts."""
    asked = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices('cpu')"],
        env=os.environ | {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    _, _, refused = asked.stderr.partition("in XLA_FLAGS:")
    return [flag for flag in flags if flag not in refused.split()]


@functools.cache
def quick() -> str:
    """The value of XLA_FLAGS for a process that compiles quickly."""
    return " ".join(known(QUICK))


if __name__ == "__main__":
    print(quick())
