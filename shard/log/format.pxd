"""The bytes of logs and bases. All numbers are little-endian; v is LEB128, as in the records (effects.pyx).

    file     header of 128 bytes | frame …
    header   "KACHELOG" | u16 major | u16 minor | u32 file kind | salt 16 | cluster id 16 | u16 shard | u16 shards | u32 number
             | u64 first sequence | i64 created, unix ms | hash seed 16 | zeros | u64 check of the 120 bytes before
    frame    u16 magic | u8 kind | u8 flags | u32 length of the payload | u64 sequence | u32 behind | u32 header check
             | i64 now, unix ms | u64 payload check | payload

Payloads:

    EFFECTS   records                                   one tick; sequence: one more than the EFFECTS or SHARE frame before
    SHARE     v transaction | v n | n × v shard | records
    MARK      nothing; its sequence is that of the last effects
    END       u64 frames | u64 bytes                    of the file before it, the header counted
    VALUES    cursor | group …                          sequence: the last effects that are in these values
      cursor  v db | v slot | v prefix                  all of db before this place is dumped, this frame included; slot 16384: all;
                                                        prefix: the top 48 bits of the hash under the seed of the header
      group   v db | v slot | v keys | v n | n × entry  keys: that the slot has about, for its table; 0: nothing to say
      entry   u8 tag | v size | key | …                 tag < 64: that of an image (images.pxi); TAG_LATER, TAG_GONE: no more follows
      image   … | u32 clock | [ deadline ] | body       deadline: zigzag v, from the frame's now; body of a string: v size | bytes,
                                                        of a collection as in images.pxi
    PART      v db | v size | key | v at | u8 flags | [ last: u32 clock | zigzag v deadline from now, 0: none ] | part
      part    of a value as in images.pxi, without a deadline; it may have no elements
      at      of a list: the index of the part's first element, which is how many have come and are still there; else 0
    BASE_END  u64 keys | u64 frames                     sequence: the last effects that the base goes with

Values in parts go on changing while they are written. Parts of hashes, sets and sorted sets follow the prefixes of the hash
(never ranks), so an element that is there all the time is in one of them. Of a list the writer keeps the cursor p, how many
elements are written, and moves it with every change at an index below p: insertion of n at i < p: p + n, one at the left of a
list with p = 0 changes nothing; removal of n at i < p: p - min(n, p - i); what is popped at the right beyond p does not matter,
and below it p becomes the length. merge.pxi says what a reader does with effects meanwhile.

The *watermark* is in every frame: sequence - behind was known to be durable when it was made. A header check covers the
offset of the frame in its file, so that no frame counts in another place; the key of both checks is the salt of the file,
so that none counts in another file, and no value can contain a frame.

A log that is open may end in zeros: room that is reserved for frames to come, as part of the file, so that a sync need not write
its size. They are cut off behind END; a log that was open when its process ended keeps them, and they mean nothing.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ..engine.memory cimport kache_siphash13

cdef enum:
    FILE_HEADER = 128           # bytes
    FRAME_HEADER = 40
    MAJOR = 1
    MINOR = 0
    FRAME_MAGIC = 0x4B46
    LONGEST_PAYLOAD = 0xFFFFFFFF

    # Of files
    FILE_LOG = 1
    FILE_BASE = 2

    # Of frames
    FRAME_EFFECTS = 1
    FRAME_SHARE = 2
    FRAME_MARK = 3
    FRAME_END = 4
    FRAME_VALUES = 16
    FRAME_PART = 17
    FRAME_BASE_END = 18
    # 32 PREPARED, 33 DECIDED (transactions), 34 STAGED, 35 OWN, 36 DISOWN (moving slots): not written by this version

    # Of entries in VALUES; below are the kinds of images
    TAG_LATER = 64
    TAG_GONE = 65

    # Of parts
    PART_FIRST = 1
    PART_LAST = 2


cdef struct Salt:
    uint64_t[2] key


cdef struct Frame:
    # The header of one, as it was read.
    int kind, flags
    uint32_t length
    uint64_t sequence
    uint32_t behind
    int64_t now_ms
    uint64_t check


cdef inline uint64_t payload_check(const Salt* salt, const char* payload, size_t n) noexcept nogil:
    return kache_siphash13(salt.key, payload, n)


cdef inline uint32_t header_check(const Salt* salt, const char* header, uint64_t offset) noexcept nogil:
    """Of the 40 bytes at `header`, which lie at `offset` of their file; those of the check itself left out."""
    cdef char[44] covered
    memcpy(covered, header, 20)
    memcpy(covered + 20, header + 24, 16)
    memcpy(covered + 36, &offset, 8)
    return <uint32_t> kache_siphash13(salt.key, covered, 44)


cdef inline void put_frame_header(char* at, const Frame* frame, const Salt* salt, uint64_t offset) noexcept nogil:
    """The 40 bytes of a header; `frame.check` is that of the payload."""
    cdef uint16_t magic = FRAME_MAGIC
    cdef uint32_t check
    memcpy(at, &magic, 2)
    at[2] = <char> frame.kind
    at[3] = <char> frame.flags
    memcpy(at + 4, &frame.length, 4)
    memcpy(at + 8, &frame.sequence, 8)
    memcpy(at + 16, &frame.behind, 4)
    memcpy(at + 24, &frame.now_ms, 8)
    memcpy(at + 32, &frame.check, 8)
    check = header_check(salt, at, offset)
    memcpy(at + 20, &check, 4)


cdef inline bint read_frame_header(const char* at, Frame* frame, const Salt* salt, uint64_t offset) noexcept nogil:
    """Whether the 40 bytes are a header that belongs at `offset` of this file; then it is taken apart."""
    cdef uint16_t magic
    cdef uint32_t check
    memcpy(&magic, at, 2)
    memcpy(&check, at + 20, 4)
    if magic != FRAME_MAGIC or check != header_check(salt, at, offset):
        return False
    frame.kind = <unsigned char> at[2]
    frame.flags = <unsigned char> at[3]
    memcpy(&frame.length, at + 4, 4)
    memcpy(&frame.sequence, at + 8, 8)
    memcpy(&frame.behind, at + 16, 4)
    memcpy(&frame.now_ms, at + 24, 8)
    memcpy(&frame.check, at + 32, 8)
    return True


cdef Salt salt_of(bytes salt) except *
