"""The scores of generated images: means over trials, beside the floor; paired differences."""

import numpy as np
import pytest

from experiments.data.dataset import Dataset, Split
from experiments.reports import generated

SPLIT = Split(np.zeros((7, 2, 2, 3), np.uint8), np.zeros((7, 2, 2), np.uint8))
DATASET = Dataset("made", SPLIT, SPLIT, ("a",), "")


def summary(**runs):
    settings = {"image_size": "256x512", "inception": "weights.npz"}
    return {
        "dataset": "made",
        "headline": {"name": "fid", "higher_is_better": False, "percent": False},
        "runs": [
            {"name": name, "trials": trials, "settings": settings} for name, trials in runs.items()
        ],
    }


def trial(seed, fid, mean_iou):
    return {"seed": seed, "test_fid": fid, "test_fid_floor": 20.5, "test_mean_iou": mean_iou}


def test_the_table_says_what_was_measured():
    broken = {"seed": 0, "error": "became nan", "test_fid": None}
    made = summary(l2=[trial(0, 70.0, 0.25), trial(2, 72.0, 0.35)], sobolev=[broken])
    lines = generated.table(generated.results(made, DATASET)).splitlines()
    assert lines[0].startswith("FID, in the features of Inception") and "299 x 299" in lines[0]
    assert "of 7 generated from 7 test images of 256x512" in lines[0]
    # The standard deviation of two numbers is their distance over the root of 2.
    l2 = "l2 71.000 (std 1.414) 20.500 30.0 (std 7.1) -"
    assert [" ".join(line.split()) for line in lines[-3:]] == [l2, "sobolev - - - -", "- -"]
    del made["runs"][0]["settings"]["inception"]
    told = generated.table(generated.results(made, DATASET))
    assert "features of scene_net, which is no FID" in told and "lower is better" in told


def test_differences_are_paired_by_seed():
    baseline = [trial(0, 70.0, 0.25), trial(1, 80.0, 0.5), trial(2, 90.0, 0.5)]
    other = [trial(1, 83.0, 0.45), trial(0, 72.0, 0.25), trial(5, 0.0, 0.0)]
    found = generated.results(summary(l2=baseline, sobolev=other), DATASET)
    distance = found["runs"][1]["scores"]["fid"]
    # Seeds 0 and 1 have +2 and +3: t with one degree of freedom at 97.5 % is 12.706.
    assert distance["difference"] == 2.5
    assert distance["interval"] == pytest.approx([2.5 - 12.706 / 2, 2.5 + 12.706 / 2], abs=1e-3)
    assert found["runs"][1]["scores"]["mean_iou"]["difference"] == pytest.approx(-0.025)
    assert found["runs"][1]["spread"] == {
        "ratio": None,
        "interval": None,
    }  # Two pairs tell nothing.
    last = generated.table(found).splitlines()[-1].split()
    assert last[:3] == ["+2.500", "[-3.853,", "+8.853]"] and last[3] == "-2.5"


def test_the_spread_of_the_distance_is_compared():
    baseline = [trial(seed, fid, 0.2) for seed, fid in enumerate((70.0, 80.0, 90.0, 100.0))]
    other = [trial(seed, fid, 0.2) for seed, fid in enumerate((70.0, 90.0, 80.0, 100.0))]
    found = generated.results(summary(l2=baseline, sobolev=other), DATASET)
    low, high = found["runs"][1]["spread"]["interval"]
    assert low < found["runs"][1]["spread"]["ratio"] == 1.0 < high
    line = generated.table(found).splitlines()[-1]
    assert line.startswith("sobolev: the standard deviation of the distance is 1.00 [")
    assert line.endswith("] times that of l2")
