"""cityscapes_spade: its settings, what a trial leaves, a kill, and a network that breaks.

Everything that trains shares one compiled `Executor`: compiling is nearly all of the time.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from experiments import cityscapes_spade as spade
from experiments import data
from experiments.data.dataset import Dataset, Split
from experiments.figures import label_to_image
from experiments.system.errors import ConfigError, NonFiniteError
from experiments.system.progress import Progress
from experiments.tasks import scores
from experiments.training import pictures
from experiments.training.checkpoints import read_latest
from experiments.training.execution import Executor
from experiments.training.loop import CheckpointPolicy, Trial, train_trial
from experiments.training.settings import record, with_settings
from experiments.training.trial_files import OnDisk
from experiments.training.workdir import Workdir
from tests.experiments.training.test_study import points

STEPS, HALF = 6, 3


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.fixture(scope="module")
def engine():
    values = {
        "width": 1, "discriminator_width": 1, "batch_size": 2, "weight_decay": 5e-4,
        "metric": "sobolev", "learning_rate": 1e-3,
    }  # fmt: skip
    dataset = data.load("digit_scenes", size=32, train=12, validation=0, test=4, edges=True)
    task, _ = spade.build(with_settings(spade.SpadeConfig(), values), dataset)
    return Executor(task, dataset, batch_size=2)


def train(engine, folder, resume=False):
    said = []
    with Workdir(folder, {"seeds": [0], "runs": {}}, resume=resume, notice=said.append) as workdir:
        trial = Trial("sobolev", 0, STEPS, HALF)
        files = OnDisk(workdir, trial.run, trial.seed, {}, said.append)
        result = train_trial(engine, trial, files, CheckpointPolicy(steps=2), said.append)
        for row in workdir.read_metrics():
            row.pop("images_per_second")
            said.append(row)
    result.pop("images_per_second")
    return result, said


@pytest.fixture(scope="module")
def finished(engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "w"
    return folder, *train(engine, folder)


def test_a_trial_leaves_scores_and_pictures(engine, finished):
    folder, result, said = finished
    assert [row["step"] for row in said] == [HALF, STEPS]
    scored = {"frechet_distance", "frechet_distance_floor", "mean_iou", "mean_iou_of_real"}
    for split in ("train", "test"):
        assert {f"{split}_{name}" for name in scored} < result.keys()
    assert result["train_examples_evaluated"] == 4  # as many as there are test images
    for name in ("generator", "discriminator"):
        assert said[1][f"{name}_gradient_norm"] > 0 and said[1][f"{name}_rate"] > 0
    assert said[1]["discriminator_rate"] == pytest.approx(4 * said[1]["generator_rate"])
    seen = folder / "pictures" / "sobolev" / "seed_0"
    assert pictures.steps(seen) == [HALF, STEPS]
    columns = pictures.read(seen, STEPS).columns()
    assert list(columns) == ["label map", "generated", "real"]
    test = engine.dataset.test
    np.testing.assert_array_equal(columns["real"], test.examples)
    np.testing.assert_array_equal(columns["label map"], spade.colors(engine.dataset)[test.labels])
    found = points(folder, "sobolev")
    assert {step for name, step in found if name == "pictures"} == {HALF, STEPS}


def test_the_floor_is_measured_on_images_that_nothing_else_uses(engine, finished):
    task, (train, test) = engine.task, (engine.dataset.train, engine.dataset.test)
    features = jax.jit(lambda x: task.features(x.astype(jnp.float32) / 127.5 - 1))
    # Every third training image is evaluated at the end of a trial.
    chosen = [i for i in range(12) if i % 3]
    chosen = [chosen[i] for i in np.linspace(0, 7, 4).astype(int)]
    expected = scores.frechet_distance(features(train.examples[chosen]), features(test.examples))
    assert finished[1]["test_frechet_distance_floor"] == pytest.approx(expected, rel=1e-4)


def test_killed_and_resumed_is_the_same_to_the_bit(engine, finished, tmp_path, monkeypatch):
    whole, result, said = finished
    steps = []

    def update(self, done):
        steps.append(done)
        if len(steps) == 5:  # between the checkpoints of steps 4 and 6
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Progress, "update", update)
        train(engine, tmp_path / "w")
    again, lines = train(engine, tmp_path / "w", resume=True)
    assert any("going on from step 4" in x for x in lines if isinstance(x, str))
    assert again == result and [x for x in lines if isinstance(x, dict)] == said
    place = "checkpoints/sobolev/seed_0"
    found, expected = read_latest(tmp_path / "w" / place), read_latest(whole / place)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    names = set()
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path
        names.add(tuple(entry.key for entry in path[1:3]))
    for network in ("generator", "discriminator"):
        assert {(network, "params"), (network, "collections"), (network, "opt_state")} <= names
        momentum = jax.tree.leaves(expected["state"][network]["opt_state"])
        assert any(np.any(np.asarray(x) != 0) for x in momentum)
    for step in (HALF, STEPS):
        name = f"pictures/sobolev/seed_0/{step:07d}.png"
        assert (tmp_path / "w" / name).read_bytes() == (whole / name).read_bytes()
    assert points(tmp_path / "w", "sobolev") == points(whole, "sobolev")


@pytest.mark.parametrize("broken", ["generator", "discriminator"])
def test_a_network_that_breaks_stops_the_trial_by_name(engine, broken, tmp_path, monkeypatch):
    initial = engine.initial_state

    def spoiled(seed):
        state = initial(seed)
        network = state.state[broken]
        params = jax.tree.map(lambda x: x.at[..., 0].set(jnp.nan), network.params)
        return state.replace(state=state.state | {broken: network.replace(params=params)})

    monkeypatch.setattr(engine, "initial_state", spoiled)
    with pytest.raises(NonFiniteError, match=f"training step of the {broken} became nan by step 1"):
        train(engine, tmp_path / "w")


def test_samples_show_every_run(tmp_path):
    rng = np.random.default_rng(0)
    for run in ("l2", "sobolev"):
        shown = {name: rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8) for name in
                 ("label map", "generated", "real")}  # fmt: skip
        pictures.write(tmp_path / "pictures" / run / "seed_3", 40, shown)
    summary = {"runs": [{"name": "l2"}, {"name": "sobolev"}, {"name": "broke"}],
               "model": "spade", "dataset": "digit_scenes"}  # fmt: skip
    label_to_image.draw(tmp_path, summary)
    assert {path.name for path in tmp_path.glob("samples.*")} == {"samples.png", "samples.pdf"}
    columns = {name: np.zeros((2, 8, 8, 3), np.uint8) for name in ("label map", "l2", "real")}
    figure = label_to_image.panel(columns, "title")
    assert [axis.get_title() for axis in figure.axes][:3] == list(columns)


def settings_of(*arguments):
    """The configuration that a command line gives."""
    from experiments.cli import flags as settings_flags

    values = flags.FlagValues()
    spade.EXPERIMENT.define(values)
    values(["command", *arguments])
    images = Split(np.zeros((2975, 1, 1, 3), np.uint8), np.zeros((2975, 1, 1), np.uint8))
    cities = Dataset("cityscapes", images, images, ("road",), "")
    return settings_flags.make_config(values, spade.SpadeConfig, spade.EXPERIMENT.presets, cities)


def test_the_paper_preset_is_the_papers():
    settings = record(settings_of("--preset=paper"))
    expected = {
        "optimizer": "sgd", "learning_rate": 1e-4, "discriminator_rate": 4.0, "momentum": 0.9,
        "weight_decay": 5e-4, "batch_size": 2, "epochs": 200.0, "schedule": "linear", "width": 64,
        "discriminator_width": 64, "feature_matching": 10.0, "metric": "l2",
    }  # fmt: skip
    assert expected.items() <= settings.items()
    assert not {"vgg", "perceptual", "inception", "generator_metric"} & settings.keys()
    # Park et al. train with Adam and without weight decay.
    assert record(settings_of("--preset=paper", "--optimizer=adam"))["weight_decay"] == 0.0
    given = settings_of("--preset=paper", "--optimizer=adam", "--weight_decay=1e-3")
    assert record(given)["weight_decay"] == 1e-3


def test_each_network_has_its_rate_and_its_metric():
    config = settings_of("--metric=sobolev", "--discriminator_metric=l2", "--learning_rate=0.01")
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "epochs": 1.0}
    config = with_settings(config, plain)
    gradient = {"Conv_0": {"kernel": jnp.zeros((3, 3, 2, 6)).at[1, 1, 0, 2].set(1.0)}}
    updates = {}
    for network in spade.NETWORKS:
        optimizer, schedule = spade._optimizer(config, network, examples=100)
        update, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
        updates[network] = np.asarray(update["Conv_0"]["kernel"])[1, 1, 0]
        assert schedule(0) == pytest.approx({"generator": 0.01, "discriminator": 0.04}[network])
    np.testing.assert_allclose(updates["discriminator"], -0.04 * np.eye(6)[2], rtol=1e-6)
    assert np.all(np.abs(updates["generator"]) > 1e-5)  # spread over the output channels


@pytest.mark.parametrize(
    ("split", "flag"),
    [("train", "train_examples"), ("validation", "validation"), ("test", "evaluation_examples")],
)
def test_a_split_of_one_image_has_no_distance_and_is_refused_before_training(split, flag):
    two = Split(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), np.uint8))
    one = Split(two.examples[:1], two.labels[:1])
    splits = {"train": two, "validation": two, "test": two} | {split: one}
    made = Dataset("made", class_names=("a", "a, edge"), provenance="", **splits)
    with pytest.raises(ConfigError, match=f"^{flag}: got 1 {split} image; accepted: 2 or more"):
        spade.build(settings_of("--batch_size=1"), made)


def test_adam_is_that_of_spade():
    config = with_settings(settings_of("--optimizer=adam"), {"weight_decay": 0.0, "epochs": 1.0})
    optimizer, _ = spade._optimizer(config, "generator", examples=100)
    params = {"bias": jnp.ones(1)}
    state = optimizer.init(params)
    rate = config.optimizer.learning_rate
    variance = 0.0
    for step, gradient in enumerate((1.0, -3.0), start=1):
        update, state = optimizer.update({"bias": jnp.array([gradient])}, state, params)
        variance = 0.9 * variance + 0.1 * gradient**2
        expected = -rate * gradient / (np.sqrt(variance / (1 - 0.9**step)) + 1e-8)
        assert float(update["bias"][0]) == pytest.approx(expected, rel=1e-5)


def test_labels_are_classes_and_an_edge_map():
    names = ("a", "b", "c", "a, edge", "b, edge", "c, edge")
    labels = np.array([[[0, 1, 2, 3, 4, 5]]], np.uint8)
    split = Split(np.zeros((1, 1, 6, 3), np.uint8), labels)
    dataset = Dataset("made", split, split, names, "")
    seen = spade.condition(dataset)(jnp.asarray(labels))
    expected = np.concatenate([np.tile(np.eye(3), (2, 1)), [[0]] * 3 + [[1]] * 3], axis=1)
    np.testing.assert_array_equal(seen[0, 0], expected)
    palette = spade.colors(dataset)
    assert palette.shape == (6, 3) and len(np.unique(palette, axis=0)) == 6


def test_images_and_labels_are_flipped_together():
    images = jnp.arange(4 * 2 * 3 * 1, dtype=jnp.uint8).reshape(4, 2, 3, 1)
    labels = images[..., 0]
    flipped, moved = spade.flip(jax.random.key(3), images, labels)
    np.testing.assert_array_equal(flipped[..., 0], moved)
    changed = [bool(np.any(a != b)) for a, b in zip(moved, labels, strict=True)]
    assert set(changed) == {True, False}
    for a, b in zip(moved, labels, strict=True):
        assert np.array_equal(a, b) or np.array_equal(a, b[:, ::-1])


def test_half_of_the_linear_schedule_is_constant():
    config = with_settings(settings_of("--preset=paper"), {"epochs": 1.0})
    _, schedule = spade._optimizer(config, "generator", examples=20)  # ten steps
    rates = [float(schedule(step)) for step in range(11)]
    np.testing.assert_allclose(rates[:6], 1e-4, rtol=1e-6)
    np.testing.assert_allclose(rates[5:], np.linspace(1e-4, 0, 6), atol=1e-11)
