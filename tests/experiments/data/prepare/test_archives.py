"""Package files that are damaged or made to do harm: one error that names the setting each."""

import gzip
import io
import lzma
import os
import tarfile
import tracemalloc

import pytest

from experiments.data.prepare import archives
from experiments.system.errors import ConfigError

NAMES = ("file", "packed.gz")


def member(name, data=b"", size=None, **changes):
    info = tarfile.TarInfo(name)
    info.size = len(data) if size is None else size
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


def tar(*members, **options):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as file:
        for info, data in members:
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def deb(data, name=b"data.tar.xz", size=None, end=b"`\n"):
    def part(name, data, size=None):
        size = str(len(data)).encode() if size is None else size
        header = name.ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"100644".ljust(8)
        return header + size.ljust(10) + end + data + b"\n" * (len(data) % 2)

    return b"!<arch>\n" + part(b"debian-binary", b"2.0\n") + part(name, data, size)


GOOD = tar(
    member("README", b"not used"),
    member("./folder/file", b"content"),
    member("folder/packed.gz", gzip.compress(b"more")),
    member("folder/deeper/file", b"another"),
)


def read(content, tmp_path, is_deb=False):
    path = tmp_path / "package"
    path.write_bytes(content)
    return archives.read(path, "folder", NAMES, deb=is_deb)


@pytest.mark.parametrize(
    "content, is_deb",
    [
        (GOOD, False),
        (gzip.compress(GOOD), False),
        (lzma.compress(GOOD), False),
        (deb(lzma.compress(GOOD)), True),
        (deb(gzip.compress(GOOD), b"data.tar.gz"), True),
        (deb(GOOD, b"data.tar/"), True),
    ],
)
def test_the_files_of_one_folder_are_read_from_every_kind_of_package(content, is_deb, tmp_path):
    assert read(content, tmp_path, is_deb) == {"file": b"content", "packed.gz": b"more"}


ZEROS = bytes(1 << 20)
HARMFUL = {
    "no archive": (b"no archive at all\n" * 100, "complete"),
    "binary": (os.urandom(5000), "complete"),
    "a folder inside": (tar(member("folder/file", type=tarfile.DIRTYPE)), "not a regular file"),
    "a FIFO inside": (tar(member("folder/file", type=tarfile.FIFOTYPE)), "not a regular file"),
    "a device inside": (tar(member("folder/file", type=tarfile.CHRTYPE)), "not a regular file"),
    "a link inside": (
        tar(member("folder/file", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        "not a regular file",
    ),
    "a hard link inside": (
        tar(member("folder/file", type=tarfile.LNKTYPE, linkname="folder/file")),
        "not a regular file",
    ),
    "a large file inside": (tar(member("folder/file", ZEROS)), "more than 100000 bytes"),
    "a large other file": (tar(member("other", ZEROS), member("folder/file")), "more than 100000"),
    "a large header": (
        tar(member("folder/file", pax_headers={"x": "y" * 10**6}), format=tarfile.PAX_FORMAT),
        "more than 100000 bytes",
    ),
    "a large .gz inside": (
        tar(member("folder/packed.gz", gzip.compress(ZEROS))),
        "more than 100000 bytes",
    ),
    "a broken .gz inside": (tar(member("folder/packed.gz", b"\x1f\x8b but no more")), "complete"),
    "a short .gz inside": (tar(member("folder/packed.gz", gzip.compress(b"abc")[:-5])), "complete"),
}


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress])
@pytest.mark.parametrize("harm", HARMFUL)
def test_what_cannot_be_used_is_one_line(harm, compress, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 100_000)
    content, said = HARMFUL[harm]
    for made, is_deb in ((compress(content), False), (deb(compress(content)), True)):
        with pytest.raises(ConfigError, match=f"^archive: got {tmp_path}.*{said}") as caught:
            read(made, tmp_path, is_deb)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"!<arch>\n", b"!<arch>\nshort", deb(GOOD, b"control.tar")),
        *(deb(GOOD, size=b"-5"), deb(GOOD, size=b"ten"), deb(GOOD, size=b"")),
        *(deb(GOOD, size=b"9999999999"), deb(GOOD, end=b"??"), deb(GOOD, b"\xff\xfe")),
        *(deb(GOOD)[:-20_000], deb(b""), deb(GOOD, size=b"99999")),
    ],
)
def test_a_broken_debian_package_is_one_line(content, tmp_path):
    with pytest.raises(ConfigError, match=r"^archive: got .*; accepted: a package file \(.deb\)"):
        read(content, tmp_path, is_deb=True)


def test_a_bomb_takes_no_memory_to_speak_of(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 1 << 20)
    bomb = gzip.compress(tar(member("folder/file", bytes(1 << 26))))
    tracemalloc.start()
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        read(bomb, tmp_path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 << 20


def test_what_is_not_a_file_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, said in (
        (tmp_path, "which is not a file"),
        (tmp_path / "fifo", "which is not a file"),
        (tmp_path / "nothing", "where nothing is"),
        (archives.pathlib.Path("/dev/zero"), "which is not a file"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        for is_deb in (False, True):
            with pytest.raises(ConfigError, match=f"^archive: got {path}.*{said}"):
                archives.read(path, "folder", NAMES, deb=is_deb)
