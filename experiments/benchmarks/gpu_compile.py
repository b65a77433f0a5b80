"""What the programs launch on a GPU, counted without having one.

    python -m pip install "jax[cuda13]"      # 4 GB: XLA's compiler for CUDA; no GPU is needed
    python -m experiments.benchmarks.gpu_compile --gpu=h100 --out=results.json

Compiles the training steps and the libraries' programs ahead of time for the GPU and prints a
table: launches (of one training step, where a program makes many), library calls for convolutions
and for other things, copies, collectives, conditionals, loops for which the host must read a
predicate, billions of floating point operations, and megabytes of memory for arguments, results and
temporary arrays. The operations are those of the program before XLA changes it, without those of
library calls (a factorization) and with an unknown loop taken once; for several devices they are
not counted. Nothing is run and no time is measured: a launch costs about 2 microseconds, which is
what a step of a small network costs. The compiled program is that of the GPU but for autotuning.

Takes about 8 minutes on two CPU cores; --programs='optflow*' takes seconds.
"""

from __future__ import annotations

import fnmatch
import time
from typing import Any

import jax
from absl import flags

from experiments.benchmarks import gpu_programs, gpus, hlo
from experiments.cli import main as command
from experiments.system import environment
from experiments.system.errors import ConfigError
from experiments.system.files import write_json
from experiments.system.output import say

COLUMNS = (
    "launches", "convolutions", "other_library_calls", "copies", "collectives", "conditionals",
    "unknown_loops",
)  # fmt: skip


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    where: dict[str, Any] = {"flag_values": values, "module_name": "gpu_compile"}
    flags.DEFINE_string("gpu", "h100", f"Compile for: {', '.join(gpus.GPUS)}.", **where)
    flags.DEFINE_list(
        "programs", ["*"],
        f"Names of programs, with * for any text: {'; '.join(gpu_programs.PROGRAMS)}.", **where,
    )  # fmt: skip
    flags.DEFINE_string(
        "out", None, "JSON file for the results, with versions and commit.", **where
    )


def main(values: flags.FlagValues) -> dict[str, Any]:
    """Compiles, prints and returns what the flags ask for."""
    names = chosen(values.programs)
    out = command.out_file(values)
    gpu = gpus.named(values.gpu)
    jax.config.update("jax_platforms", "cpu")  # A GPU that is not there cannot be started.
    results: dict[str, Any] = {
        "environment": environment.describe(),
        "compiled_for": gpu.name,
        "programs": {},
    }
    gpu_programs.topology(gpu)  # Tells at once where there is no compiler.
    for name in names:
        say(f"compiling {name}")
        results["programs"][name] = counted(name, gpu)
        if out:
            write_json(out, results)
    print("\n" + table(results["programs"]))
    if out:
        print(f"written to {out}")
    return results


def chosen(patterns: list[str]) -> list[str]:
    """The names of programs that match any of the patterns.

    Raises:
      ConfigError: a pattern matches none.
    """
    for pattern in patterns or [""]:
        if not fnmatch.filter(gpu_programs.PROGRAMS, pattern):
            raise ConfigError("programs", pattern, ", ".join(gpu_programs.PROGRAMS))
    return [
        name
        for name in gpu_programs.PROGRAMS
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]


def counted(name: str, gpu: gpus.GPU) -> dict[str, Any]:
    """The counts of one program; of a scanned one, those of a step."""
    count, make = gpu_programs.PROGRAMS[name]
    devices = gpu_programs.topology(gpu, count)
    with gpu_programs.gpu_path():
        program = make(devices)
        start = time.perf_counter()
        compiled = gpu_programs.compiled(program, devices)
        seconds = time.perf_counter() - start
        flop = gpu_programs.flop(program, devices)
    memory = compiled.memory_analysis()
    part = hlo.read(compiled.as_text())
    loop = part.longest_loop() if program.scanned else None
    return {
        **(part if loop is None else loop.body).summary(),
        "of": "a run" if loop is None else "a step",
        "flop": flop,
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        # What an argument hands on to a result is counted with the argument.
        "result_bytes": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "compile_seconds": round(seconds, 1),
    }


def table(programs: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    header = ("program", *(name.replace("_", " ") for name in COLUMNS), "GFLOP", "MB")
    lines = [header, ["---"] * len(header)]
    for name, row in programs.items():
        counts = [f"{row[column]:,}" for column in COLUMNS]
        size = sum(row[f"{kind}_bytes"] for kind in ("argument", "result", "temporary"))
        flop = "-" if row["flop"] is None else f"{row['flop'] / 1e9:,.3g}"
        lines.append([name, *counts, flop, f"{size / 1e6:,.3g}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    command.run(main, define)
