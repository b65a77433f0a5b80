import pytest

from experiments import data
from experiments.data import DatasetNotPrepared
from experiments.data.prepare import images, inception
from experiments.system.errors import ConfigError


def test_auto_takes_the_embedded_stand_in_and_says_how_to_prepare_the_real_one(tmp_path):
    lines = []
    dataset = data.load("auto", str(tmp_path), preferred="cifar10", notice=lines.append)
    assert dataset.name == "digits"
    (line,) = lines
    assert "digits" in line
    assert f"python -m experiments.prepare_data cifar10 --data_dir={tmp_path}" in line
    assert "\n" not in line
    assert not list(tmp_path.iterdir())  # nothing is downloaded


def test_auto_takes_the_experiments_own_dataset_where_it_is_prepared(tmp_path, tiny_packages):
    images.prepare("cifar10", str(tmp_path / "data"), str(tiny_packages["cifar10"]))
    lines = []
    dataset = data.load(
        "auto", str(tmp_path / "data"), preferred="cifar10", notice=lines.append, size=32
    )
    assert dataset.name == "cifar10"
    assert lines == [
        f"dataset: cifar10, prepared under {tmp_path / 'data'}",
        "size: ignored, because cifar10 has no such option",
    ]
    # Another experiment's data is not taken in its place.
    other = data.load("auto", str(tmp_path / "data"), preferred="mnist", notice=lines.append)
    assert other.name == "digits"


@pytest.mark.parametrize(
    "name", ["cifar10", "mnist", "fashion_mnist", "ucf101", "voc", "cityscapes"]
)
def test_a_named_dataset_that_is_not_there_names_the_command(name, tmp_path):
    command = f"python -m experiments.prepare_data {name}.* --data_dir={tmp_path}"
    with pytest.raises(DatasetNotPrepared, match=command):
        data.load(name, str(tmp_path), preferred="cifar10")


def test_a_name_given_is_not_announced(tmp_path, capsys):
    data.load("digits", str(tmp_path), preferred="cifar10")
    assert capsys.readouterr().out == ""


def test_unknown_names_and_options_say_what_is_accepted(tmp_path):
    def error(name, **options):
        with pytest.raises(ConfigError) as caught:
            data.load(name, str(tmp_path), **options)
        return str(caught.value)

    assert error("cifar").startswith("dataset: got 'cifar'; accepted: auto, digits")
    assert error("auto", preferred="digits").startswith(
        "preferred: got 'digits'; accepted: cifar10"
    )
    assert error("auto").startswith("preferred: got None; accepted: cifar10, mnist")
    assert error("digits", frames=16) == (
        "frames: got 16 for digits; accepted: with --dataset=moving_digits only"
    )
    assert error("digits", shape=16) == "shape: got 16 for digits; accepted: no such option"


@pytest.mark.parametrize("data_dir", ["", "~no_such_user/D", "D\0"])
@pytest.mark.parametrize("name", ["auto", "mnist", "ucf101"])
def test_a_data_dir_that_is_no_path_names_the_setting(name, data_dir):
    with pytest.raises(ConfigError, match="^data_dir: got .*; accepted: a "):
        data.load(name, data_dir, preferred="cifar10")


@pytest.fixture(params=["no home", "a home that cannot be looked at"])
def homeless(request, monkeypatch):
    """As in a container: a user without an entry in passwd, or whose HOME belongs to another."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    if request.param == "no home":
        pwd = pytest.importorskip("pwd")
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(pwd, "getpwuid", unknown)
    else:
        monkeypatch.setenv("HOME", "/" + "x" * 300)  # root may look anywhere: too long a name


@pytest.mark.parametrize("preferred", ["mnist", "ucf101", "voc"])
def test_auto_needs_no_home(homeless, preferred):
    lines = []
    assert not data.is_taken("auto", preferred)
    small = {"train": 10, "validation": 10, "test": 10}
    options = {} if preferred == "mnist" else small
    dataset = data.load("auto", preferred=preferred, notice=lines.append, **options)
    assert dataset.name == data.STAND_INS[preferred] and dataset.data_dir is None
    assert f"{preferred} is not prepared under {data.DEFAULT_DATA_DIR}" in lines[0]
    with pytest.raises(ConfigError, match="^data_dir: got ~/"):
        data.load("auto", "~/elsewhere", preferred=preferred)  # Asked for, so it must be one.


@pytest.mark.parametrize("name", ["mnist", "ucf101", "voc"])
def test_a_dataset_that_is_asked_for_needs_a_home_or_a_data_dir(homeless, name):
    with pytest.raises(ConfigError, match="^data_dir: got ~/tensorflow_datasets"):
        data.load(name)
    with pytest.raises(ConfigError, match="^data_dir: got ~/tensorflow_datasets"):
        inception.prepare("weights.pth", data.DEFAULT_DATA_DIR)


@pytest.mark.parametrize(
    ("preferred", "option", "value"),
    [
        ("ucf101", "classes", 0),
        ("ucf101", "classes", -3),
        ("ucf101", "classes", 1),
        ("ucf101", "size", 0),
        ("voc", "train", -1),
        ("cifar10", "classes", 0),
    ],
)
def test_an_option_that_auto_would_leave_out_is_checked_all_the_same(preferred, option, value):
    with pytest.raises(
        ConfigError, match=rf"^{option}: got {value}; accepted: integers (>=|from) "
    ):
        data.load("auto", "/nowhere", preferred=preferred, **{option: value})


def test_options_reach_the_dataset(tmp_path):
    dataset = data.load("digits", str(tmp_path), preferred="cifar10", size=16)
    assert dataset.example_shape == (16, 16, 3)
    dataset = data.load("digits", str(tmp_path), preferred="cifar10", size=None, classes=None)
    assert dataset.example_shape == (32, 32, 3)
