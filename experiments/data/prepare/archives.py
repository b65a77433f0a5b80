"""Reading chosen files out of a package file that may be anything: damaged, or made to do harm."""

from __future__ import annotations

import gzip
import io
import lzma
import pathlib
import tarfile
import zlib
from typing import BinaryIO

from experiments.system.errors import ConfigError

LARGEST = 1 << 28  # bytes of a package, and of all that it holds, unpacked; known ones need half
_DAMAGED = (tarfile.TarError, EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)


def read(
    archive: pathlib.Path, folder: str, names: tuple[str, ...], *, deb: bool
) -> dict[str, bytes]:
    """Reads files of one folder of a package file; others are passed over.

    Args:
      archive: a .tgz, or a .deb.
      folder: the folder inside the package.
      names: names of the files; one that ends in .gz is unpacked.
      deb: whether it is a .deb.

    Returns:
      The contents by name, of those files that are there.

    Raises:
      ConfigError: the archive is not a file, cannot be read, is damaged, or holds more than
        `LARGEST` bytes; names the setting archive.
    """
    accepted = "a package file (.deb)" if deb else "a package file (.tgz)"
    try:
        if not archive.exists():
            raise ConfigError("archive", f"{archive}, where nothing is", accepted)
        # A device or a pipe would never end.
        if not archive.is_file():
            raise ConfigError("archive", f"{archive}, which is not a file", accepted)
        with open(archive, "rb") as file:
            tar = _deb_data(file) if deb else file
            return _members(tar, folder, names)
    except _DAMAGED as error:
        raise ConfigError(
            "archive", f"{archive} ({error})", f"{accepted} that is complete; fetch it again"
        ) from error
    except OSError as error:
        raise ConfigError("archive", f"{archive} ({error.strerror or error})", accepted) from error


def _members(file: BinaryIO, folder: str, names: tuple[str, ...]) -> dict[str, bytes]:
    contents = {}
    with tarfile.open(fileobj=_Limited(_unpacked(file)), mode="r|") as tar:
        for member in tar:
            inside, _, name = member.name.removeprefix("./").rpartition("/")
            if inside != folder or name not in names:
                continue
            if not member.isreg():
                raise tarfile.ReadError(f"{member.name} is not a regular file")
            data = tar.extractfile(member).read()
            if name.endswith(".gz"):
                data = _Limited(gzip.GzipFile(fileobj=io.BytesIO(data))).read()
            contents[name] = data
    return contents


def _unpacked(file: BinaryIO) -> BinaryIO:
    """The contents of a file compressed by gzip or xz, or the file as it is."""
    start = file.read(6)
    file.seek(-len(start), io.SEEK_CUR)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if start == b"\xfd7zXZ\x00":
        return lzma.LZMAFile(file)
    return file


class _Limited:
    """A file that fails when more than `LARGEST` bytes are read from it.

    A few bytes may unpack to gigabytes, in the middle of a header of the archive, too.
    """

    def __init__(self, file: BinaryIO):
        self._file, self._left = file, LARGEST

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._left:
            size = self._left + 1
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.ReadError(f"it holds more than {LARGEST} bytes")
        return data


def _deb_data(file: BinaryIO) -> io.BytesIO:
    """The data.tar.* inside a .deb, an `ar` archive: 8 bytes, then headers of 60 and members."""
    limited = _Limited(file)
    if limited.read(8) != b"!<arch>\n":
        raise tarfile.ReadError("not a Debian package")
    while len(header := limited.read(60)) == 60:
        name, digits = header[:16].rstrip(b" /"), header[48:58].rstrip()
        if not digits.isdigit() or header[58:] != b"`\n":
            raise tarfile.ReadError("a header of the Debian package is damaged")
        size = int(digits)
        data = limited.read(size + size % 2)
        if len(data) < size:
            break
        if name.startswith(b"data.tar"):
            return io.BytesIO(data[:size])
    raise EOFError("the file ends too early")
