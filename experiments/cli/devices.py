"""Flags of the devices and processes that train."""

from __future__ import annotations

from typing import Any

import jax
from absl import flags

from experiments.system.errors import ConfigError
from experiments.training import devices, processes
from experiments.training.settings import one_of
from experiments.training.sharding import STATISTICS, BatchSharding


def define(values: flags.FlagValues, group: str) -> None:
    """Defines the flags, under this heading of --help."""
    where: dict[str, Any] = {"flag_values": values, "module_name": group}
    flags.DEFINE_string(
        "devices", "1", "Devices of this machine that are used. Accepted: all, or a number.",
        **where,
    )  # fmt: skip
    flags.DEFINE_string(
        "shard", "trials",
        "What is divided among several devices. trials: each device trains trials of its own. "
        "batch: all train one trial, each on its part of every batch. Accepted: trials, batch.",
        **where,
    )  # fmt: skip
    flags.DEFINE_string(
        "batch_statistics", "global",
        "With --shard=batch: batch normalization over the whole batch (global: the numbers of one "
        "device, two all-reduces for each layer) or over the part of each device (local: usual "
        "and fast, other numbers). Accepted: global, local.", **where,
    )  # fmt: skip

    flags.DEFINE_string(
        "cluster", None,
        "Hand every trial to a Ray cluster, as a task on one GPU (one CPU where it has none); the "
        "workdir must be on a disk that all hosts share. Accepted: auto (the cluster of this "
        "machine, or this machine alone), or HOST:PORT.", **where,
    )  # fmt: skip
    flags.DEFINE_bool(
        "distributed", False,
        "Train together with other processes that run this same command, usually one on each host, "
        "with --shard=batch over all their devices. Started by Slurm, Open MPI or Kubernetes they "
        "find each other; else the next three flags say how.", **where,
    )  # fmt: skip
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of the first process, for --distributed.", **where
    )
    flags.DEFINE_integer("num_processes", None, "How many there are, for --distributed.", **where)
    flags.DEFINE_integer(
        "process_id", None, "Which one this is, from 0 on, for --distributed.", **where
    )


def join(values: flags.FlagValues) -> None:
    """Joins the processes of --distributed; called before anything is computed."""
    address = {name: values[name].value for name in ("coordinator", "num_processes", "process_id")}
    if not values.distributed:
        if given := [name for name, value in address.items() if value is not None]:
            raise ConfigError(given[0], address[given[0]], "a value with --distributed only")
        return
    if values.shard != "batch" or values.devices not in ("1", "all"):
        raise ConfigError(
            "distributed",
            f"--shard={values.shard} --devices={values.devices}",
            "--shard=batch, on all devices of all processes",
        )
    processes.start(*address.values())


def chosen(values: flags.FlagValues) -> dict[str, Any]:
    """What `study.train` takes of the devices."""
    one_of("shard", values.shard, ("trials", "batch"))
    one_of("batch_statistics", values.batch_statistics, STATISTICS)
    if values.cluster is not None:
        if values.devices != "1" or values.shard != "trials":
            got = f"{values.cluster}, --devices={values.devices} --shard={values.shard}"
            raise ConfigError("cluster", got, "an address without --devices and --shard")
        return {"cluster": values.cluster}
    used = jax.devices() if values.distributed else devices.choose(values.devices)
    if values.shard == "batch":
        return {"sharding": BatchSharding.over(used, values.batch_statistics)}
    if values.batch_statistics != "global":
        raise ConfigError("batch_statistics", values.batch_statistics, "local with --shard=batch")
    return {"devices": used if values.devices != "1" else None}
