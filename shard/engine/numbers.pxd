"""Numbers and byte strings in a Buffer, as images of values and the frames of the log write them: LEB128.

Inline, without a module. Some numbers are known only when what they count has been written: room is left for those.
"""
from libc.stdint cimport int64_t, uint64_t

from kache.wire.codec cimport Buffer


cdef inline int put_number(Buffer out, uint64_t number) except -1:
    cdef char* at = out.reserve(10)
    cdef Py_ssize_t n = 0
    while number >= 0x80:
        at[n] = <char> ((number & 0x7F) | 0x80)
        n += 1
        number >>= 7
    at[n] = <char> number
    out.end += n + 1
    return 0


cdef inline int put_zigzag(Buffer out, int64_t number) except -1:
    return put_number(out, (<uint64_t> number << 1) ^ <uint64_t> (number >> 63))


cdef inline int put_counted(Buffer out, const char* data, size_t n) except -1:
    """A byte string behind its length."""
    put_number(out, n)
    return out.append(data, n)


cdef inline Py_ssize_t leave_number(Buffer out, int size) except -1:
    """Room for a number of so many bytes; where it is, from the start of what the buffer holds."""
    cdef Py_ssize_t at = out.used()
    out.reserve(size)
    out.end += size
    return at


cdef inline void fill_number(Buffer out, Py_ssize_t at, int size, uint64_t number) noexcept:
    cdef int i
    for i in range(size - 1):
        out.data[out.start + at + i] = <char> ((number & 0x7F) | 0x80)
        number >>= 7
    out.data[out.start + at + size - 1] = <char> (number & 0x7F)
