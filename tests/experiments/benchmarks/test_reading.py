"""The benchmark of reading: what it stores, what it measures, and that it cleans up."""

import json
import tempfile

import numpy as np

from experiments.benchmarks import reading
from experiments.cli import main as command


def test_it_measures_each_way_to_read_and_leaves_its_results_only(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = tmp_path / "results.json"
    arguments = ("--megabytes=1", "--size=8", "--steps=2", "--rounds=2", f"--out={out}")
    results = command.call(reading.main, reading.define, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert json.loads(out.read_text())["training"] == results["training"]
    step = results["training"]["step_milliseconds"]
    assert set(step) == {"on the device", "in turn", "ahead"}
    assert all(times["median"] > 0 for times in step.values())
    assert set(results["training"]["waiting_percent"]) == {"in turn", "ahead"}
    assert set(results["reading_megabytes_per_second"]) == {"1", "2", "4"}


def test_clips_are_read_from_a_file_and_fill_the_size_that_was_asked_for(tmp_path):
    clips = reading.stored_clips(tmp_path, 8, 1)
    assert isinstance(clips.train.examples, np.memmap)
    assert clips.train.examples.nbytes == 1_000_000 // (16 * 8 * 8 * 3) * (16 * 8 * 8 * 3)
