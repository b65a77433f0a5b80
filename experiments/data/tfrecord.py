"""The framing of TFRecord files: length (8 bytes), its CRC (4), data, its CRC (4).

The CRCs are CRC-32C (Castagnoli; RFC 3720, appendix B.4), masked as TensorFlow does, so that data
which contains CRCs of its own does not look like a frame. Both are compared when a record is read.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

_POLYNOMIAL = 0x82F63B78  # x^32 + x^28 + ... + 1, its bits reversed
_BLOCK, _BLOCKS_AT_ONCE = 1024, 1024  # bytes; the tables take 1 MB
_HEADER = 12


class Damaged(ValueError):
    """A TFRecord file that is cut off, or whose CRCs do not fit."""


def records(path: str | os.PathLike) -> Iterator[bytes]:
    """Reads the records of a file in their order.

    Raises:
      Damaged: the file ends inside a record, or a CRC does not fit.
    """
    with open(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size
        while left:
            data = _record(file, path, left)
            left -= _HEADER + len(data) + 4
            yield data


def offsets(path: str | os.PathLike) -> Iterator[int]:
    """The position in the file of every record, without reading the data of the records.

    A file that is cut off gives the records that begin in it.
    """
    with open(path, "rb") as file:
        size, position = os.fstat(file.fileno()).st_size, 0
        while position < size:
            yield position
            header = file.read(_HEADER)
            if len(header) < _HEADER:
                return
            position += _HEADER + struct.unpack("<Q", header[:8])[0] + 4
            if position < size:
                file.seek(position)


def read(path: str | os.PathLike, offset: int) -> bytes:
    """Reads the record that begins at a position that `offsets` gave.

    Raises:
      Damaged: the file ends inside the record, or a CRC does not fit.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        return _record(file, path, os.fstat(file.fileno()).st_size - offset)


def write(path: str | os.PathLike, contents: Iterator[bytes]) -> None:
    """Writes a file of these records.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write(f"{folder}/file", [b"one", b"three"])
      ...     print(list(records(f"{folder}/file")), list(offsets(f"{folder}/file")))
      [b'one', b'three'] [0, 19]
    """
    with open(path, "wb") as file:
        for data in contents:
            length = struct.pack("<Q", len(data))
            for part in (length, data):
                file.write(part + struct.pack("<I", masked_crc32c(part)))


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C of some bytes, rotated right by 15 bits, plus 0xa282ead8 (mod 2^32).

    Example:
      >>> hex(masked_crc32c(b"123456789"))
      '0xc78ab0e5'
    """
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """The CRC-32C of some bytes.

    A CRC that begins with 0 is linear over the bits: that of a block is the exclusive or of one
    table entry per byte, chosen by the byte and its place in the block. What was before the block
    counts as if it were added (exclusive or) to the first four bytes of the block.

    Example:
      >>> hex(crc32c(b"123456789"))
      '0xe3069283'
    """
    table = _tables()
    crc, whole = 0xFFFFFFFF, len(data) - len(data) % _BLOCK
    first_of_place = 256 * np.arange(_BLOCK)
    for start in range(0, whole, _BLOCK * _BLOCKS_AT_ONCE):
        size = min(_BLOCK * _BLOCKS_AT_ONCE, whole - start)
        blocks = np.frombuffer(data, np.uint8, size, start).reshape(-1, _BLOCK)
        found = table.ravel()[first_of_place + blocks]
        for of_block in np.bitwise_xor.reduce(found, axis=1).tolist():
            for place in range(4):
                of_block ^= int(table[place, crc >> 8 * place & 0xFF])
            crc = of_block
    of_byte = table[-1].tolist()
    for byte in data[whole:]:
        crc = of_byte[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@functools.cache
def _tables() -> np.ndarray:
    """(1024, 256): the CRC of a block that is 0 except for one byte, by its place and value."""
    table = np.empty((_BLOCK, 256), np.uint32)
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, crc >> 1 ^ np.uint32(_POLYNOMIAL), crc >> 1)
    table[-1] = crc
    for place in range(_BLOCK - 2, -1, -1):  # one more zero behind the byte
        table[place] = table[-1][table[place + 1] & 0xFF] ^ table[place + 1] >> 8
    return table


def _record(file: BinaryIO, path: str | os.PathLike, left: int) -> bytes:
    """Reads the record at the file's position, where `left` bytes are left in the file."""
    header = file.read(_HEADER)
    length = struct.unpack("<Q", header[:8])[0] if len(header) == _HEADER else 0
    if len(header) < _HEADER or length > left - _HEADER - 4:
        # A length that is wrong looks the same, unless its CRC tells.
        _check(path, "length", header[:8], header[8:])
        raise Damaged(f"{os.fspath(path)} ends in the middle of a record")
    _check(path, "length", header[:8], header[8:])
    data = file.read(length)
    _check(path, "data", data, file.read(4))
    return data


def _check(path: str | os.PathLike, what: str, data: bytes, crc: bytes) -> None:
    if len(crc) == 4 and masked_crc32c(data) != struct.unpack("<I", crc)[0]:
        raise Damaged(f"the {what} of a record in {os.fspath(path)} does not fit its CRC")
