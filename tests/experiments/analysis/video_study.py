"""A workdir of ucf101_convnet3d, written without training."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np

from experiments.data import moving_digits
from experiments.training.checkpoints import Checkpoints

CLIPS, SIZE = 32, 16


@functools.cache
def load(name="moving_digits", data_dir=None, size=SIZE):
    """In place of `data.load`: fewer clips."""
    assert name == "moving_digits"
    return moving_digits.load(size=size, frames=4, train=40, validation=10, test=12)


def dataset():
    """The clips that the study was trained on."""
    clips = load()
    return dataclasses.replace(clips, train=clips.train.subset(CLIPS))


def first_layer(seed=0):
    """Parameters of a first layer with two filters."""
    kernel = np.random.default_rng(seed).normal(size=(3, 3, 3, 3, 2)).astype(np.float32)
    return {"kernel": kernel, "bias": np.array([0.5, -0.5], np.float32)}


def write(workdir, **changes):
    """Writes config.json, and the best and the last checkpoint of the first of two trials."""
    run = {"clip_size": SIZE, "train_examples": CLIPS, "classes": 10, "optflow_strength": 0.0}
    settings = {
        "experiment": "ucf101_convnet3d",
        "dataset": {"name": "moving_digits", "fingerprint": dataset().fingerprint},
        "seeds": [3, 4],
        "runs": {
            "baseline": run,
            "optflow_strength=1": run | {"optflow_strength": 1.0, "alpha": 2.0, "channels": "rgb"},
        },
    }
    workdir.mkdir(parents=True)
    record = {"settings": settings | changes, "data_dir": None}
    (workdir / "config.json").write_text(json.dumps(record))
    for name in settings["runs"]:
        for folder, seed in (("seed_3", 0), ("seed_3_best", 1)):
            network = {
                "params": {"Conv_0": first_layer(seed)}, "collections": {},
                "opt_state": {"count": np.int32(2)}, "norms": np.zeros(3, np.float32),
            }  # fmt: skip
            state = {"step": np.int32(2), "state": network, "sums": {"loss": np.float32(1)}}
            Checkpoints(workdir / "checkpoints" / name / folder).save(2, state)
    return workdir
