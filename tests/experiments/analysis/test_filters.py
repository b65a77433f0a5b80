"""Looking at the first layer of a trained 3D ConvNet: what is read, compared and drawn."""

import dataclasses

import numpy as np
import pytest

from experiments import data
from experiments.analysis import filters, trials
from experiments.cli import main as command
from experiments.data.validation import with_validation
from experiments.system.errors import ConfigError
from tests.experiments.analysis import video_study


@pytest.fixture(autouse=True)
def few_clips(monkeypatch):
    monkeypatch.setattr(data, "load", video_study.load)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return video_study.write(tmp_path_factory.mktemp("study") / "w")


def test_the_command_draws_filters_and_activations(workdir, tmp_path, monkeypatch):
    drawn = {}

    def draw_filters(out, w, u, v, cost, title):
        drawn.update(filters=w, title=title)
        (out / "filters.png").touch()

    monkeypatch.setattr(filters.figures, "draw_filters", draw_filters)
    monkeypatch.setattr(
        filters.figures, "draw_activations",
        lambda out, clip, frames, response, title: drawn.update({clip: (frames, response, title)}),
    )  # fmt: skip
    command.call(
        filters.main, filters.define, f"--workdir={workdir}", f"--out={tmp_path}/new/figures",
        "--clips=1,3",
    )  # fmt: skip
    # A run without the OptFlow cost records no channels: the mean is taken.
    kernel = video_study.first_layer(seed=1)["kernel"]
    np.testing.assert_allclose(drawn["filters"], np.moveaxis(kernel.mean(axis=3), -1, 0), rtol=1e-5)
    assert drawn["title"] == "baseline, seed 3: first layer, best checkpoint"
    frames, response, title = drawn[3]
    np.testing.assert_array_equal(frames, video_study.dataset().test.examples[3])
    assert response.shape == (4, 16, 16, 2) and response.min() == 0
    assert title.startswith("test clip 3 (") and 1 in drawn
    assert (tmp_path / "new/figures/filters.png").exists()


def test_activations_are_the_convolution_of_the_scaled_clip():
    clips = video_study.dataset()
    parameters = video_study.first_layer()
    response = filters.activations(parameters, clips, 2)
    pixels = clips.train.examples / 255.0
    mean, deviation = pixels.mean(axis=(0, 1, 2, 3)), pixels.std(axis=(0, 1, 2, 3))
    clip = (clips.test.examples[2] / 255.0 - mean) / deviation
    patch = clip[1:4, 7:10, 4:7]
    by_hand = np.einsum("tyxc,tyxco->o", patch, parameters["kernel"]) + parameters["bias"]
    np.testing.assert_allclose(response[2, 8, 5], np.maximum(by_hand, 0), rtol=1e-4, atol=1e-4)


def test_a_trial_is_found_by_run_seed_and_checkpoint(workdir):
    first = trials.read(workdir, "ucf101_convnet3d")
    assert (first.run, first.seed, first.settings["clip_size"]) == ("baseline", 3, 16)
    other = trials.read(workdir, "ucf101_convnet3d", "optflow_strength=1", 4)
    assert (other.seed, other.settings["alpha"]) == (4, 2.0)
    for which, seed in (("last", 0), ("best", 1)):
        layer = trials.read_parameters(first, which)["Conv_0"]
        np.testing.assert_array_equal(layer["kernel"], video_study.first_layer(seed)["kernel"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "workdir: got none; accepted: a folder that experiments.ucf101_convnet3d wrote"),
        (("--workdir=W", "--run=x"), "run: got 'x'; accepted: baseline, optflow_strength=1"),
        (("--workdir=W", "--seed=5"), "seed: got 5; accepted: 3, 4"),
        (("--workdir=W", "--seed=4"), "workdir: no checkpoint in "),
        (("--workdir=W", "--which=first"), "which: got 'first'; accepted: best, last"),
        (("--workdir=W", "--clips=12"), "clips: got '12'; accepted: integers from 0 to 11"),
        (("--workdir=W", "--train_examples=41", "--validation=0.5"), "train_examples: got 41"),
        (("--workdir=W/checkpoints",), "workdir: got "),
    ],
)
def test_what_cannot_be_shown_is_named(workdir, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(workdir.rglob("*"))
    with pytest.raises(ValueError) as caught:
        command.call(
            filters.main, filters.define, *(a.replace("W", str(workdir)) for a in arguments)
        )
    assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir()) and sorted(workdir.rglob("*")) == before


def test_the_study_of_another_command_is_refused(tmp_path):
    workdir = video_study.write(tmp_path / "w", experiment="cifar_resnet56")
    with pytest.raises(ConfigError, match="^workdir: got .*, a study of cifar_resnet56; accepted"):
        trials.read(workdir, "ucf101_convnet3d")


def test_other_clips_than_those_of_the_training_are_refused(workdir):
    trial = trials.read(workdir, "ucf101_convnet3d")
    assert len(filters.load_dataset(trial).train) == video_study.CLIPS
    other = dataclasses.replace(trial, settings=trial.settings | {"train_examples": 31})
    with pytest.raises(ConfigError, match="^data_dir: got .*has fingerprint .*--validation"):
        filters.load_dataset(other)


def test_the_clips_of_a_training_with_validation_are_found(workdir):
    trained_on = with_validation(video_study.dataset(), 0.25)
    trial = dataclasses.replace(
        trials.read(workdir, "ucf101_convnet3d"), fingerprint=trained_on.fingerprint
    )
    again = filters.load_dataset(trial, validation=0.25, train_examples=video_study.CLIPS)
    np.testing.assert_array_equal(again.train.labels, trained_on.train.labels)


def test_the_folder_of_the_data_is_that_of_the_run_unless_a_flag_names_another(
    workdir, monkeypatch
):
    asked = []

    def load(name, data_dir, size):
        asked.append(data_dir)
        return video_study.load()

    monkeypatch.setattr(data, "load", load)
    trial = dataclasses.replace(trials.read(workdir, "ucf101_convnet3d"), data_dir="/recorded")
    filters.load_dataset(trial)
    filters.load_dataset(trial, data_dir="/given")
    filters.load_dataset(dataclasses.replace(trial, data_dir=None))
    assert asked == ["/recorded", "/given", data.DEFAULT_DATA_DIR]
