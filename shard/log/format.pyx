"""The codec of file headers, and what Python needs of that of frames; format.pxd has the format.

Pure functions over bytes. A header that this version cannot read is refused with a sentence that says why.
"""
import struct

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

import msgspec

from kache.errors import KacheError

__all__ = ["BASE", "END_OF_SLOTS", "HEADER_SIZE", "FileHeader", "LogError", "check_of", "frame", "pack_header", "read_header"]

MAGIC = b"KACHELOG"
HEADER_SIZE = FILE_HEADER
LOG, BASE = FILE_LOG, FILE_BASE
END_OF_SLOTS = 16384
EFFECTS, SHARE, MARK, END = FRAME_EFFECTS, FRAME_SHARE, FRAME_MARK, FRAME_END
VALUES, PART, BASE_END = FRAME_VALUES, FRAME_PART, FRAME_BASE_END

_HEADER = struct.Struct("<8sHHI16s16sHHIQq16s16s")
_CHECK_KEY = b"Kache file check"


class LogError(KacheError):
    """Files that cannot be loaded. The message is for people: what is wrong, the file, the offset, what helps.

    `path` and `offset` are where, "" and -1 if nowhere; `newer`: they were written by a later version.
    """

    def __init__(self, message, path="", offset=-1, newer=False):
        super().__init__(message)
        self.path = path
        self.offset = offset
        self.newer = newer


class FileHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the first 128 bytes of a log (kind 1) or a base (2) say; salt, cluster, hash_seed and boot are 16 bytes each.

    `boot`: during which run of the machine it was begun; zeros if that is not known.
    """

    kind: int
    salt: bytes
    cluster: bytes
    shard: int
    shards: int
    number: int
    first: int
    created_ms: int
    hash_seed: bytes
    boot: bytes = bytes(16)
    major: int = MAJOR
    minor: int = MINOR


cdef Salt salt_of(bytes salt) except *:
    """The key of the checks of a file."""
    cdef Salt result
    if PyBytes_GET_SIZE(salt) != 16:
        raise ValueError("a salt has 16 bytes")
    memcpy(result.key, PyBytes_AS_STRING(salt), 16)
    return result


def check_of(bytes data not None, bytes key=_CHECK_KEY):
    """The check of 64 bits of these bytes: of headers and text files under the key that all have in common."""
    cdef Salt salt = salt_of(key)
    return payload_check(&salt, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


def pack_header(header not None):
    """The 128 bytes of a FileHeader."""
    start = _HEADER.pack(
        MAGIC, header.major, header.minor, header.kind, header.salt, header.cluster, header.shard, header.shards, header.number,
        header.first, header.created_ms, header.hash_seed, header.boot)
    start = start.ljust(FILE_HEADER - 8, b"\0")
    return start + check_of(start).to_bytes(8, "little")


def read_header(bytes data not None, str path not None):
    """The FileHeader at the start of a file; LogError names the file and what is wrong."""
    if len(data) < FILE_HEADER:
        raise LogError(f"{path} has no header: it ends after {len(data)} bytes.", path, len(data))
    magic, major, *rest = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise LogError(f"{path} is not a file of Kache.", path, 0)
    if check_of(data[: FILE_HEADER - 8]) != int.from_bytes(data[FILE_HEADER - 8 : FILE_HEADER], "little"):
        raise LogError(f"The header of {path} is damaged.", path, 0)
    if major > MAJOR:
        raise LogError(
            f"{path} was written by a newer Kache (format {major}, this one reads up to {MAJOR}).", path, 0, True)
    minor, kind, salt, cluster, shard, shards, number, first, created_ms, hash_seed, boot = rest
    if kind not in (FILE_LOG, FILE_BASE):
        raise LogError(f"{path} is of the unknown kind {kind}: it was written by a newer Kache.", path, 0, True)
    return FileHeader(
        kind=kind, salt=salt, cluster=cluster, shard=shard, shards=shards, number=number, first=first, created_ms=created_ms,
        hash_seed=hash_seed, boot=boot, major=major, minor=minor)


def frame(int kind, bytes payload not None, uint64_t sequence, bytes salt not None, uint64_t offset, *, int64_t now_ms=0,
          uint64_t behind=0, int flags=0):
    """A whole frame as it lies at `offset` of a file with this salt. For tools and tests; a shard's writer has its own."""
    cdef Salt key = salt_of(salt)
    cdef Frame header
    cdef char[FRAME_HEADER] packed
    header.kind, header.flags, header.sequence, header.now_ms = kind, flags, sequence, now_ms
    header.length = <uint32_t> len(payload)
    header.behind = <uint32_t> min(behind, <uint64_t> 0xFFFFFFFF)
    header.check = payload_check(&key, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
    put_frame_header(packed, &header, &key, offset)
    return packed[:FRAME_HEADER] + payload
