import io
import os

import numpy as np
import pytest
from tensorboardX.record_writer import RecordWriter

from experiments.data import tfrecord


def crc_by_definition(data: bytes) -> int:
    """CRC-32C bit by bit (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    "data, expected",  # RFC 3720, appendix B.4
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_the_crc_has_the_values_of_the_standard(data, expected):
    assert tfrecord.crc32c(data) == expected


@pytest.mark.parametrize("length", [0, 1, 3, 4, 1023, 1024, 1025, 5000])
def test_the_crc_of_any_length_is_that_of_the_definition(length):
    data = np.random.default_rng(length).bytes(length)
    assert tfrecord.crc32c(data) == crc_by_definition(data)


def test_the_crc_of_more_than_a_part_is_that_of_the_definition(monkeypatch):
    monkeypatch.setattr(tfrecord, "_BLOCKS_AT_ONCE", 2)
    data = np.random.default_rng(0).bytes(7000)
    assert tfrecord.crc32c(data) == crc_by_definition(data)


RECORDS = [b"", b"a", b"record" * 1000]


@pytest.fixture
def path(tmp_path):
    tfrecord.write(tmp_path / "file", RECORDS)
    return tmp_path / "file"


def test_files_are_those_that_other_programs_write(path, tmp_path):
    writer = RecordWriter(str(tmp_path / "other"))
    for record in RECORDS:
        writer.write(record)
    writer.close()
    assert (tmp_path / "other").read_bytes() == path.read_bytes()


def test_records_come_back_all_and_one_by_one(path):
    assert list(tfrecord.records(path)) == RECORDS
    offsets = list(tfrecord.offsets(path))
    assert offsets == [0, 16, 33]
    assert [tfrecord.read(path, offset) for offset in offsets] == RECORDS


@pytest.mark.parametrize("position", [0, 7, 8, 11, 16 + 12, 16 + 13, 33 + 500, -1])
def test_every_changed_byte_is_damage(position, path):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(tfrecord.Damaged, match="does not fit its CRC"):
        list(tfrecord.records(path))


@pytest.mark.parametrize("kept", [1, 11, 12, 15, 20, 33 + 16 + 5999])
def test_a_file_that_is_cut_off_is_damage(kept, path):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(tfrecord.Damaged, match="ends in the middle of a record"):
        list(tfrecord.records(path))


def test_a_length_of_terabytes_is_damage_and_reserves_no_memory(tmp_path):
    buffer = io.BytesIO()
    length = (1 << 45).to_bytes(8, "little")
    buffer.write(length + tfrecord.masked_crc32c(length).to_bytes(4, "little") + b"data")
    (tmp_path / "file").write_bytes(buffer.getvalue())
    with pytest.raises(tfrecord.Damaged, match="ends in the middle"):
        list(tfrecord.records(tmp_path / "file"))
    assert list(tfrecord.offsets(tmp_path / "file")) == [0]
    assert os.path.getsize(tmp_path / "file") == 16
