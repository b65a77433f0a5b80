import hashlib
import json

import pytest

from experiments.data import store
from experiments.data.prepare.staging import publish, staging
from experiments.system.errors import ConfigError


@pytest.fixture
def place(tmp_path):
    """A folder with one file in a folder, published."""
    with staging(str(tmp_path), "made") as folder:
        built = folder / "1.0.0"
        (built / "sub").mkdir(parents=True)
        (built / "sub" / "file").write_bytes(b"twelve bytes")
        publish(built, tmp_path / "made" / "1.0.0")
    return tmp_path / "made" / "1.0.0"


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    file.write_bytes(b"T" + file.read_bytes()[1:])


@pytest.mark.parametrize(
    "harm, said",
    [
        (truncate, "has 11 bytes instead of 12"),
        (flip, "SHA-256"),
        (lambda file: file.unlink(), "is missing"),
    ],
)
def test_damage_is_found_and_named(place, harm, said):
    assert store.damage(place) is None
    harm(place / "sub" / "file")
    assert "sub/file" in store.damage(place)
    assert said in store.damage(place)
    # The quick look finds everything but changed contents of larger files.
    assert (store.damage(place, contents_up_to=11) is None) == (harm is flip)
    assert store.damage(place, contents_up_to=12) is not None


@pytest.mark.parametrize(
    "content",
    [
        *(b"{", b"", b"\xff\xfe\x00binary", b"[" * 10**5),
        *(b"[]", b"null", b"{}", b"3", b'"text"', b'{"sub/file": 12}', b'{"sub/file": {}}'),
        *(b'{"sub/file": {"size": "12", "sha256": "0"}}', b'{"sub/file": {"size": 12}}'),
    ],
)
def test_checksums_that_say_nothing_are_damage(content, place):
    (place / store.CHECKSUMS).write_bytes(content)
    assert store.damage(place).startswith("checksums.json ")
    assert store.digest(place, ("*",)) is None


def test_lost_checksums_are_damage(place):
    (place / store.CHECKSUMS).unlink()
    assert store.damage(place) == "checksums.json is missing"
    (place / store.CHECKSUMS).mkdir()
    assert store.damage(place) == "checksums.json is unreadable"


def test_checksums_are_those_of_the_files(place):
    digests = json.loads((place / store.CHECKSUMS).read_text())
    digest = hashlib.sha256(b"twelve bytes").hexdigest()
    assert digests == {"sub/file": {"size": 12, "sha256": digest}}


def test_the_digest_identifies_the_chosen_files(place):
    before = store.digest(place, ("*file",))
    assert len(before) == 64
    assert store.digest(place, ("other",)) is None
    checksums = place / store.CHECKSUMS
    checksums.write_text(
        checksums.read_text().replace("}\n}", '}, "x": {"size": 1, "sha256": ""}}')
    )
    assert store.digest(place, ("*file",)) == before
    assert store.digest(place, ("*",)) != before


@pytest.mark.parametrize("path", ["", "~no_such_user/D", "a\0b"])
def test_a_data_dir_that_is_no_path_is_refused(path):
    with pytest.raises(ConfigError, match="^data_dir: got .*; accepted: a "):
        store.root(path)
