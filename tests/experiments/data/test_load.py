import pytest

from experiments import data
from experiments.data import DatasetNotPrepared, images


def test_auto_takes_the_embedded_stand_in_and_says_how_to_prepare_the_real_one(tmp_path):
    lines = []
    dataset = data.load("auto", str(tmp_path), own="cifar10", notice=lines.append)
    assert dataset.name == "digits"
    (line,) = lines
    assert "digits" in line
    assert f"python -m experiments.prepare_data cifar10 --data_dir={tmp_path}" in line
    assert "\n" not in line
    assert not list(tmp_path.iterdir())  # nothing is downloaded


def test_auto_takes_the_experiments_own_dataset_where_it_is_prepared(tmp_path, tiny_packages):
    images.prepare("cifar10", str(tmp_path / "data"), str(tiny_packages["cifar10"]))
    lines = []
    dataset = data.load("auto", str(tmp_path / "data"), own="cifar10", notice=lines.append, size=32)
    assert dataset.name == "cifar10"
    assert lines == [
        f"dataset: cifar10, prepared under {tmp_path / 'data'}",
        "size: ignored, because cifar10 has no such option",
    ]
    # Another experiment's data is not taken in its place.
    other = data.load("auto", str(tmp_path / "data"), own="mnist", notice=lines.append)
    assert other.name == "digits"


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion_mnist", "ucf101"])
def test_a_named_dataset_that_is_not_there_names_the_command(name, tmp_path):
    command = f"python -m experiments.prepare_data {name}.* --data_dir={tmp_path}"
    with pytest.raises(DatasetNotPrepared, match=command):
        data.load(name, str(tmp_path), own="cifar10")


def test_a_name_given_is_not_announced(tmp_path, capsys):
    data.load("digits", str(tmp_path), own="cifar10")
    assert capsys.readouterr().out == ""


def test_unknown_names_and_options_say_what_is_accepted(tmp_path):
    with pytest.raises(ValueError, match="dataset: got 'cifar'; accepted are auto, digits"):
        data.load("cifar", str(tmp_path), own="cifar10")
    with pytest.raises(ValueError, match="own: got 'digits'; accepted are cifar10, mnist"):
        data.load("auto", str(tmp_path), own="digits")
    with pytest.raises(ValueError, match="frames: digits has no such option; .* moving_digits"):
        data.load("digits", str(tmp_path), own="cifar10", frames=16)


def test_options_reach_the_dataset(tmp_path):
    dataset = data.load("digits", str(tmp_path), own="cifar10", size=16)
    assert dataset.example_shape == (16, 16, 3)
    dataset = data.load("digits", str(tmp_path), own="cifar10", size=None, classes=None)
    assert dataset.example_shape == (32, 32, 3)
