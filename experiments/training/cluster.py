"""Trials as tasks of a Ray cluster: a lost worker's trial is started again from its checkpoint.

The workdir must be on a disk that all hosts share. Each trial is one task on one GPU, or on one CPU
where the cluster has no GPUs. Workers write checkpoints and TensorBoard events; the process that
started the study writes everything else, and Ray shows there what the workers print.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from experiments.data.dataset import Dataset
from experiments.system.errors import ConfigError, SaveError, UserError
from experiments.system.output import accept_any_text
from experiments.training.execution import Executor
from experiments.training.loop import CheckpointPolicy, Trial, attempt
from experiments.training.trial_files import OnDisk
from experiments.training.workdir import Workdir

RETRIES = 10  # of a trial whose worker is lost
WAIT = 10.0  # seconds for an answer from the address
# How HTTP/2 begins: the client's preface and empty SETTINGS. The server's SETTINGS (type 4) answer.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


@contextlib.contextmanager
def forks_without_a_warning() -> Iterator[None]:
    """Ray starts its processes by fork and exec, which JAX's warning about forks does not mean."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        yield


class Cluster:
    """A Ray cluster. Use as a context manager.

    Args:
      address: of a cluster; "auto" takes the one that this machine belongs to, or starts one of
        this machine alone.

    Raises:
      ConfigError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str = "auto"):
        self._address = address

    def __enter__(self) -> Cluster:
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                "cluster", self._address, "pip install 'channelflow[cluster]' first: it needs Ray"
            ) from error
        self._ray = ray
        self._here = not ray.is_initialized()  # A caller may have connected before.
        if self._here:
            with forks_without_a_warning():
                self._connect()
        return self

    def _connect(self) -> None:
        options: dict[str, Any] = {"logging_level": "ERROR"}
        address, named = self._address, ""
        if address == "auto" and os.environ.get("RAY_ADDRESS"):  # Ray takes that one.
            address = os.environ["RAY_ADDRESS"]
            named = f"RAY_ADDRESS={address}: "
        try:
            _require_answer(address)
            self._ray.init(address=address, **options)
        except (OSError, OverflowError, ValueError) as error:
            if address != "auto":
                raise ConfigError(
                    "cluster",
                    f"{self._address} ({named}{str(error).splitlines()[0]})",
                    "auto, or the HOST:PORT that `ray start --head` printed",
                ) from error
            self._ray.init(include_dashboard=False, **options)

    def __exit__(self, *_) -> None:
        if self._here:
            self._ray.shutdown()

    def results(
        self,
        jobs: Sequence[tuple[Any, Trial]],
        build: Callable[..., Any],
        dataset: Dataset,
        folder: pathlib.Path,
        policy: CheckpointPolicy,
    ) -> Iterator[tuple[Trial, dict[str, Any], list[dict[str, Any]]]]:
        """Trains every trial somewhere.

        Args:
          jobs: (configuration, trial) pairs.
          build: see `study.train`.
          dataset: sent to the cluster once; memory-mapped examples are opened there by their path.
          folder: the workdir.
          policy: when checkpoints are saved.

        Yields:
          (trial, its record for summary.json, its lines of metrics), as the trials end.

        Raises:
          UserError: a trial cannot be trained with what it was given, or lost `RETRIES` workers.
        """
        ray = self._ray
        device = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
        remote = ray.remote(**device, max_retries=RETRIES)(_train)
        shared = ray.put(dataset)
        tasks = {
            remote.remote(config, trial, build, shared, folder, policy): trial
            for config, trial in jobs
        }
        try:
            while tasks:
                (ended, *_), _ = ray.wait(list(tasks), num_returns=1)
                trial = tasks.pop(ended)
                try:
                    yield trial, *ray.get(ended)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, UserError | SaveError):
                        raise error.cause from None
                    raise
                except ray.exceptions.RayError as error:
                    reason = str(error).strip().splitlines()[0]
                    raise UserError(f"cluster: {trial.label} was lost ({reason})") from error
        finally:
            for task in tasks:  # After an error or Ctrl-C: what was saved stays.
                ray.cancel(task, force=True)


def _require_answer(address: str) -> None:
    """Asks HOST:PORT whether it speaks gRPC; Ray itself would wait for it for 200 seconds.

    Raises:
      OSError, OverflowError, ValueError: it does not, or there is no such address.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not (colon and port.isdecimal()):  # Ray tells what is wrong with another form at once.
        return
    with socket.create_connection((host.strip("[]"), int(port)), timeout=WAIT) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() not in ("0", "false"):
            return
        connection.sendall(_GREETING)
        if connection.recv(9)[3:4] != b"\4":
            raise ConnectionError("what answers there is not Ray")


class _Worker(Workdir):
    """The workdir as a worker sees it: lines of metrics are returned, not written."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.records: list[dict[str, Any]] = []

    def replace_metrics(self, run: str, seed: int, records: list[dict[str, Any]]) -> None:
        self.records = list(records)

    def append_metrics(self, record: dict[str, Any]) -> None:
        self.records.append(record)


def _train(
    config: Any,
    trial: Trial,
    build: Callable[..., Any],
    dataset: Dataset,
    folder: pathlib.Path,
    policy: CheckpointPolicy,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    accept_any_text()
    task, length = build(config, dataset)
    worker = _Worker(folder)
    files = OnDisk(worker, trial.run, trial.seed, trial.identity, print)
    executor = Executor(task, dataset, length.batch_size)
    return attempt(executor, trial, files, policy), worker.records
