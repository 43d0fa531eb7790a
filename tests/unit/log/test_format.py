"""The header of a file: taken apart as it was put together, and refused where it was damaged or is of another version."""

from __future__ import annotations

import pytest

from kache.shard.log import format as log_format
from kache.shard.log.format import FileHeader, LogError, check_of, pack_header, read_header

HEADER = FileHeader(
    kind=log_format.LOG,
    salt=bytes(range(16)),
    cluster=b"c" * 16,
    shard=3,
    shards=8,
    number=17,
    first=4711,
    created_ms=1764144000000,
    hash_seed=b"h" * 16,
)


def signed(data: bytes) -> bytes:
    """The header with a check that fits."""
    return data[:120] + check_of(data[:120]).to_bytes(8, "little")


def test_what_is_packed_is_read_again() -> None:
    packed = pack_header(HEADER)
    assert len(packed) == log_format.HEADER_SIZE == 128
    assert read_header(packed, "x") == HEADER


def test_every_flipped_byte_and_every_cut_is_refused() -> None:
    packed = pack_header(HEADER)
    for at in range(128):
        for damaged in (packed[:at] + bytes([packed[at] ^ 0x10]) + packed[at + 1 :], packed[:at]):
            with pytest.raises(LogError, match=r"dir/000017\.log"):
                read_header(damaged, "dir/000017.log")


def test_a_newer_major_and_an_unknown_kind_are_named() -> None:
    packed = pack_header(HEADER)
    for newer in (packed[:8] + b"\2\0" + packed[10:], packed[:12] + b"\7\0\0\0" + packed[16:]):
        with pytest.raises(LogError, match="written by a newer Kache") as refused:
            read_header(signed(newer), "x")
        assert refused.value.newer


def test_a_newer_minor_is_read() -> None:
    packed = pack_header(HEADER)
    assert read_header(signed(packed[:10] + b"\5\0" + packed[12:]), "x").minor == 5
