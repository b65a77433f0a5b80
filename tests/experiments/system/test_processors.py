"""The number of CPUs is that of those that this process may use, as `taskset` and Slurm set it."""

import json
import os
import subprocess
import sys

import pytest

from experiments.data.prepare import jobs
from experiments.system import processors


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone has it")
def test_a_process_bound_to_one_cpu_has_one():
    code = (
        "import json, os\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from experiments.data.prepare import jobs\n"
        "from experiments.system import environment\n"
        "found = environment.describe()\n"
        "print(json.dumps([jobs.checked(None, 0.0), found['cpu_cores'], found['device']]))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    workers, cores, device = json.loads(ran.stdout)
    assert (workers, cores) == (1, 1) and device.endswith(", 1 cores")


@pytest.mark.parametrize("there, expected", [(2, 5), (1, 3), (0, 80)])
def test_every_system_and_version_of_python_says_how_many(monkeypatch, there, expected):
    """Python 3.13 asks the system itself, Linux before that; macOS and Windows tell all CPUs."""
    monkeypatch.setattr(os, "cpu_count", lambda: 80)
    ways = {"sched_getaffinity": lambda process: {1, 4, 6}, "process_cpu_count": lambda: 5}
    for number, (name, way) in enumerate(ways.items()):
        if number < there:
            monkeypatch.setattr(os, name, way, raising=False)
        else:
            monkeypatch.delattr(os, name, raising=False)
    assert processors.usable() == expected
    assert jobs.checked(None, 0.0) == min(expected, jobs.MAX_WORKERS)
