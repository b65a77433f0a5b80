"""The U-Net command: its settings, a short run and what it leaves, where metrics act."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cityscapes_spade, data
from experiments import voc_unet as command
from experiments.data import label_images
from experiments.data.dataset import Dataset, Split
from experiments.figures import segmentation as figures
from experiments.models import resnet_encoder, torchvision_weights
from experiments.models.resnet_encoder import ResNetEncoder
from experiments.reports import segmentation as report
from experiments.system.errors import ConfigError, UserError
from experiments.tasks import scores
from experiments.training.config import MetricConfig
from experiments.training.settings import record, with_settings

SMALL = (
    "--dataset=digit_scenes", "--train_examples=8", "--batch_size=4", "--epochs=1",
    "--evaluate_every=1", "--width=2", "--decoder_filters=1",
)  # fmt: skip


@pytest.fixture
def few_scenes(monkeypatch):
    """digit_scenes of 8 training, 4 validation and 5 test pictures."""
    load = data.load

    def few(name, *arguments, **options):
        return load(name, *arguments, **options | {"train": 8, "validation": 4, "test": 5})

    monkeypatch.setattr(data, "load", few)


@pytest.fixture
def shallow(monkeypatch):
    """ResNet-18 has one block in each layer: tracing and compiling are nearly all of the time."""
    monkeypatch.setitem(resnet_encoder.BLOCKS, "resnet18", (1, 1, 1, 1))


def config(**changes):
    return with_settings(command.UnetConfig(), {"batch_size": 2, "epochs": 1.0} | changes)


def test_the_paper_preset_is_figure_7(few_scenes):
    paper = with_settings(command.UnetConfig(), command.PAPER)
    assert (paper.encoder, paper.width, paper.decoder_filters) == ("resnet50", 64, 8)
    assert (paper.optimizer.name, paper.optimizer.learning_rate) == ("sgd", 7e-3)
    assert (paper.optimizer.momentum, paper.weight_decay) == (0.9, 4e-5)
    assert (paper.length.batch_size, paper.loss, paper.scale_jitter) == (2, "cross_entropy", 0.5)
    assert paper.model == "unet_resnet50_n8"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("encoder", "vgg"), ("width", 0), ("width", 65), ("decoder_filters", 0)),
        *(("decoder_filters", 65), ("loss", "focal"), ("scale_jitter", 1.0)),
        *(("scale_jitter", -0.1), ("weight_decay", -1.0)),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(ConfigError, match=f"^{name}: got .*accepted"):
        config(**{name: value})


def test_a_short_run_leaves_scores_and_figures(few_scenes, run_main, tmp_path, capsys, monkeypatch):
    # Compiling is nearly all of the time.
    monkeypatch.setitem(resnet_encoder.BLOCKS, "resnet18", (1, 1, 1, 1))
    work = tmp_path / "w"
    summary = run_main("voc_unet", *SMALL, "--metric=sobolev", f"--workdir={work}")
    assert summary["headline"]["name"] == "mean_iou"
    assert summary["model"] == "unet_resnet18_width2_n1"
    settings = summary["runs"][0]["settings"]
    assert (settings["image_size"], settings["transposed"]) == ("64x64", "convolution")
    assert "encoder_weights" not in settings
    (trial,) = summary["runs"][0]["trials"]
    for name in ("mean_iou", "pixel_accuracy", "image_iou", "iou_background"):
        for split in ("train", "validation", "test"):
            assert 0 <= trial[f"{split}_{name}"] <= 1
            assert 0 <= trial[f"{split}_{name}_batch_statistics"] <= 1
    names = {path.name for path in work.iterdir()}
    assert {"mean_iou.png", "loss.png", "classes.png", "panel.png", "panel.pdf"} <= names
    found = json.loads((work / "segmentation.json").read_text())
    gap = trial["train_pixel_accuracy"] - trial["test_pixel_accuracy"]
    assert found["runs"][0]["gaps"]["pixel_accuracy"]["mean"] == pytest.approx(gap)
    out = capsys.readouterr().out
    assert "background everywhere has mean IoU" in out and "accuracy gap" in out

    # SPADE's --unet finds the same labels with it, also where a batch was divided over devices.
    config_path = work / "config.json"
    saved = json.loads(config_path.read_text())
    saved["settings"]["runs"]["sobolev"] |= {"batch_statistics": "local", "batch_parts": 2}
    config_path.write_text(json.dumps(saved))
    scenes = data.load("digit_scenes", edges=True)
    unet = cityscapes_spade.trained_unet(work, scenes)
    found = jax.jit(unet.predict)(scenes.test.examples.astype(np.float32) / 127.5 - 1)
    confusion = scores.confusion_matrix(
        data.load("digit_scenes").test.labels, found, unet.num_classes
    )
    assert float(scores.mean_iou(confusion)) == pytest.approx(trial["test_mean_iou"], abs=1e-4)
    assert np.unique(found).size > 1


def test_a_network_that_finds_background_everywhere_has_a_known_mean_iou():
    labels = np.zeros((3, 2, 4), np.uint8)
    labels[0, 0] = 1
    labels[1] = 255
    labels[2, :, 0] = 2
    split = Split(np.zeros((3, 2, 4, 3), np.uint8), labels)
    made = Dataset("made", split, split, ("background", "a", "b", "c"), "", ignore_label=255)
    # 10 of 16 pixels are background; a and b are never found, c does not occur.
    assert report.background_mean_iou(split, made) == pytest.approx(10 / 16 / 3)


def test_the_table_names_the_class_that_is_found_everywhere():
    split = Split(np.zeros((1, 2, 4, 3), np.uint8), np.zeros((1, 2, 4), np.uint8))
    cities = Dataset("cityscapes", split, split, ("road", "sidewalk"), "", ignore_label=255)
    runs = [{"name": "l2", "n": 1, "trials": trials(0.1)}]
    found = report.results({"dataset": "cityscapes", "model": "unet", "runs": runs}, cities)
    assert "; road everywhere has mean IoU 100.00" in report.table(found)


def trials(*values):
    keys = (
        [f"test_{name}{kind}" for name in report.SCORES for kind in ("", report.BATCH)],
        [f"{split}_{name}" for name in report.GAPS for split in ("train", "test")],
    )
    rows = []
    for seed, value in enumerate(values):
        row = dict.fromkeys([*keys[0], *keys[1]], value)
        row |= {"train_pixel_accuracy": 2 * value, "test_iou_background": value, "seed": seed}
        rows.append(row)
    return rows


def test_results_are_paired_by_seed_and_trials_that_failed_are_left_out(few_scenes):
    dataset = data.load("digit_scenes")
    failed = {"seed": 2, "error": "NaN", "test_mean_iou": None}
    summary = {
        "dataset": "digit_scenes", "model": "unet",
        "runs": [
            {"name": "l2", "n": 2, "trials": [*trials(0.1, 0.2), failed]},
            {"name": "sobolev", "n": 3, "trials": trials(0.2, 0.4, 0.9)},
        ],
    }  # fmt: skip
    found = report.results(summary, dataset)
    first, second = found["runs"]
    assert first["scores"]["mean_iou"]["mean"] == pytest.approx(0.15)
    assert second["scores"]["mean_iou"]["mean"] == pytest.approx(0.5)
    assert second["scores"]["mean_iou"]["difference"] == pytest.approx(0.15)  # of two pairs
    assert second["gaps"]["pixel_accuracy"]["mean"] == pytest.approx(0.5)
    assert second["gaps"]["pixel_accuracy"]["difference"] == pytest.approx(0.15)
    assert first["class_iou"] == {"background": pytest.approx(0.15)}
    text = report.table(found)
    assert "+15.00" in text and "50.00" in text
    assert figures.classes(found).axes[0].get_ylabel() == "test IoU (%)"


def test_the_palette_is_that_of_pascal_voc():
    expected = {
        0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128),
        8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192),
    }  # fmt: skip
    colors = label_images.voc_palette()
    assert {label: tuple(colors[label].tolist()) for label in expected} == expected


def test_the_panel_shows_pictures_truth_and_predictions(few_scenes):
    dataset = data.load("digit_scenes")
    chosen = np.array([0, 3])
    truth = dataset.test.labels[chosen]
    figure = figures.panel(dataset, chosen, {"l2,lam=1": truth % 11})
    axes = np.array(figure.axes).reshape(3, 2)
    assert [row[0].get_ylabel() for row in axes] == ["image", "truth", "l2,\nlam=1"]
    shown = axes[1, 1].images[0].get_array()
    np.testing.assert_array_equal(shown, label_images.voc_palette()[truth[1]])
    (legend,) = figure.legends
    assert "void" in [text.get_text() for text in legend.get_texts()]


PARAMS = {
    "encoder": {"conv1": {"kernel": jnp.zeros((7, 7, 3, 8))}},
    "decoder5": {"transposed_conv": {"kernel": jnp.zeros((4, 4, 6, 2)), "bias": jnp.zeros(2)}},
    "scse": {"squeeze": {"kernel": jnp.zeros((6, 2))}},
}


@pytest.mark.parametrize(
    ("direction", "transposed", "expected"),
    [
        ("output", "convolution", ((3,), (3,))),
        ("output", "listing", ((3,), (2,))),
        ("output", "none", ((3,), None)),
        ("input", "convolution", ((2,), (2,))),
        ("input", "listing", ((2,), (3,))),
        ("raster", "convolution", ((3, 2, 0, 1), (3, 2, 0, 1))),
    ],
)
def test_where_metrics_act_in_transposed_convolutions(direction, transposed, expected):
    metric = MetricConfig("sobolev", direction=direction)
    found = command.metric_axes(metric, transposed).resolve(PARAMS)
    by_name = {jax.tree_util.keystr(path, simple=True, separator="/"): axes for path, axes in
               found.items()}  # fmt: skip
    assert by_name["encoder/conv1/kernel"] == expected[0]
    assert by_name["decoder5/transposed_conv/kernel"] == expected[1]
    assert by_name["scse/squeeze/kernel"] is None
    assert by_name["decoder5/transposed_conv/bias"] is None


def test_metrics_act_on_every_convolution_of_the_network(shallow):
    dataset = type("Made", (), {"num_classes": 21, "example_shape": (64, 64, 3)})
    model = command.network(config(encoder="resnet18"), dataset)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
    )["params"]
    found = command.metric_axes(MetricConfig("sobolev"), "convolution").resolve(shapes)
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        is_kernel = path[-1].key == "kernel" and leaf.ndim == 4
        assert found[path] == ((3,) if is_kernel else None)


def test_pretrained_weights_are_where_training_begins(few_scenes, shallow, tmp_path):
    encoder = ResNetEncoder("resnet18")
    shapes = jax.eval_shape(
        lambda: encoder.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
    )
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: np.float32(rng.uniform(0.5, 1, leaf.shape)), shapes)
    path = tmp_path / "resnet18.npz"
    np.savez(path, **torchvision_weights.to_torchvision(drawn))
    dataset = data.load("digit_scenes")
    settings = config(encoder="resnet18", decoder_filters=1, encoder_weights=str(path))
    assert record(settings)["encoder_weights"] == str(path)
    assert "transposed" not in record(settings)  # the metric is l2
    task, _ = command.build(settings, dataset)
    begun = task.initialize(task.model, (64, 64, 3), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, begun["params"]["encoder"], drawn["params"])
    others = begun["params"]["decoder5"]
    assert 0.01 < others["conv"]["kernel"].std() < 0.1 and np.all(others["bn"]["scale"] == 1)
    jax.tree.map(
        np.testing.assert_array_equal, begun["batch_stats"]["encoder"], drawn["batch_stats"]
    )
    # ImageNet's colors become zeros.
    mean = np.array(torchvision_weights.MEAN) * 255
    pixels = np.broadcast_to(np.round(mean), (1, 2, 2, 3)).astype(np.uint8)
    assert np.abs(task.normalize(pixels)).max() < 0.01


def test_weights_that_do_not_fit_are_one_line_before_anything_is_written(
    few_scenes, run_main, tmp_path
):
    np.savez(tmp_path / "w.npz", **{"conv1.weight": np.zeros((64, 3, 7, 7))})
    for path, said in (
        (tmp_path / "w.npz", "got no bn1.bias, bn1.running_mean, bn1.running_var and 96 more"),
        (tmp_path / "nowhere.npz", "cannot be read"),
        (tmp_path / "w.pth", "got .pth; accepted: .npz, .safetensors"),
    ):
        with pytest.raises(UserError, match=f"^encoder_weights: got .*{said}.*accepted: ") as told:
            run_main(
                "voc_unet", "--dataset=digit_scenes", "--width=64", "--batch_size=2",
                f"--encoder_weights={path}", f"--workdir={tmp_path}/run",
            )  # fmt: skip
        assert "\n" not in str(told.value) and not pathlib.Path(tmp_path / "run").exists()
    with pytest.raises(UserError, match="^encoder_weights: got .* with --width=64 only"):
        config(width=16, encoder_weights="w.npz")
    with pytest.raises(UserError, match="^size: got 96 x 96; accepted: multiples of 64"):
        run_main("voc_unet", *SMALL, "--size=96", f"--workdir={tmp_path}/run")
