"""The table of scores of generated images: means over trials, beside the floor."""

import numpy as np

from experiments.data.dataset import Dataset, Split
from experiments.reports import generated


def test_the_table_says_what_was_measured():
    split = Split(np.zeros((7, 2, 2, 3), np.uint8), np.zeros((7, 2, 2), np.uint8))
    dataset = Dataset("made", split, split, ("a",), "")
    trials = [
        {"seed": seed, "test_fid": 70.0 + seed, "test_fid_floor": 20.5, "test_mean_iou": 0.25}
        for seed in (0, 2)
    ]
    broken = {"seed": 0, "error": "became nan", "test_fid": None}
    settings = {"image_size": "256x512", "inception": "weights.npz"}
    summary = {
        "headline": {"name": "fid", "higher_is_better": False, "percent": False},
        "runs": [
            {"name": "l2", "trials": trials, "settings": settings},
            {"name": "sobolev", "trials": [broken], "settings": settings},
        ],
    }
    lines = generated.table(summary, dataset).splitlines()
    assert lines[0].startswith("FID, in the features of Inception") and "299 x 299" in lines[0]
    assert "of 7 generated from 7 test images of 256x512" in lines[0]
    assert lines[-2].split() == ["l2", "71.000", "20.500", "25.0", "-"]
    assert lines[-1].split() == ["sobolev", "-", "-", "-", "-"]
    del settings["inception"]
    told = generated.table(summary, dataset)
    assert "features of scene_net, which is no FID" in told and "lower is better" in told
