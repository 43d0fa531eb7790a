"""HyperLogLog values: Redis's own string representation, byte for byte, so that GET and SET carry them between servers.

    "HYLL" | encoding u8 (0 dense, 1 sparse) | 3 unused | cached count, u64 little-endian | registers

The highest bit of the cached count says that it is stale. 16,384 registers of 6 bits each, dense:

    |xxxxxxxx|xxxxxxxx|xxxxxxxx|   register i at bit 6*i, lowest bits first
     000000 11 1111 2222 22 333333

or sparse, as opcodes that cover the registers from first to last:

    00llllll           ZERO    l+1 registers are zero (1 to 64)
    01llllll llllllll  XZERO   l+1 registers are zero (1 to 16384)
    1vvvvvll           VAL     l+1 registers (1 to 4) hold v+1 (1 to 32)

A sparse value becomes dense for good when a register exceeds 32, or when it would exceed `SPARSE_LIMIT` bytes.
A value is updated by the same steps as in the real server, because the opcodes it ends with depend on them.

Owns: this representation and the estimate. Promises: no I/O, no state; every function checks what it reads and raises
`CorruptValue` instead of reading beyond a value. Called by hyperloglog.py.
"""
cimport cython
from libc.math cimport INFINITY, floor, sqrt
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset

cdef enum:
    REGISTERS = 16384
    INDEX_BITS = 14
    HASH_BITS = 50          # of the hash, after the index
    HEADER = 16
    DENSE_SIZE = 16 + 16384 * 6 // 8
    LARGEST_RANK = 63
    DENSE = 0
    SPARSE = 1
    VAL_MAX_VALUE = 32
    VAL_MAX_RUN = 4
    ZERO_MAX_RUN = 64
    SPARSE_MAX = 3000       # hll-sparse-max-bytes, of the whole value
    # Room for the largest value anybody can SET, sparse with one byte for each register, and for one step's growth.
    WORK_SIZE = 16 + 16384 + 8
    MOST_PATCHES = 8

cdef uint64_t SEED = 0xadc83b19
cdef uint64_t MULTIPLIER = 0xc6a4a7935bd1e995
cdef double ALPHA_INFINITY = 0.721347520444481703680

SPARSE_LIMIT = SPARSE_MAX


class CorruptValue(Exception):
    """The value starts like a HyperLogLog and is none."""


# Hash --------------------------------------------------------------------------------------------

cdef uint64_t _murmur64a(const uint8_t* data, Py_ssize_t n) noexcept nogil:
    """MurmurHash64A (Austin Appleby, public domain), the little-endian variant, with Redis's seed."""
    cdef uint64_t h = SEED ^ (<uint64_t> n * MULTIPLIER)
    cdef uint64_t k
    cdef Py_ssize_t i, whole = n // 8 * 8
    for i in range(0, whole, 8):
        memcpy(&k, data + i, 8)
        k *= MULTIPLIER
        k ^= k >> 47
        k *= MULTIPLIER
        h ^= k
        h *= MULTIPLIER
    if n > whole:
        k = 0
        memcpy(&k, data + whole, n - whole)
        h ^= k
        h *= MULTIPLIER
    h ^= h >> 47
    h *= MULTIPLIER
    h ^= h >> 47
    return h


cdef int _rank(const uint8_t* data, Py_ssize_t n, int* index) noexcept nogil:
    """The register that an element falls into, and one more than the zeros its remaining hash ends with."""
    cdef uint64_t h = _murmur64a(data, n)
    cdef int rank = 1
    index[0] = <int> (h & (REGISTERS - 1))
    h = (h >> INDEX_BITS) | (<uint64_t> 1 << HASH_BITS)
    while not h & 1:
        rank += 1
        h >>= 1
    return rank


# Dense registers ---------------------------------------------------------------------------------

cdef inline int _dense_get(const uint8_t* registers, int index) noexcept nogil:
    cdef int bit = index * 6
    cdef int byte = bit >> 3
    cdef int shift = bit & 7
    cdef int value = registers[byte] >> shift
    if shift > 2:
        value |= registers[byte + 1] << (8 - shift)
    return value & LARGEST_RANK


cdef inline void _dense_put(uint8_t* registers, int index, int value) noexcept nogil:
    cdef int bit = index * 6
    cdef int byte = bit >> 3
    cdef int shift = bit & 7
    registers[byte] = <uint8_t> ((registers[byte] & ~(LARGEST_RANK << shift)) | (value << shift))
    if shift > 2:
        registers[byte + 1] = <uint8_t> ((registers[byte + 1] & ~(LARGEST_RANK >> (8 - shift))) | (value >> (8 - shift)))


# Sparse opcodes ----------------------------------------------------------------------------------

cdef inline bint _is_zero(uint8_t op) noexcept nogil:
    return (op & 0xc0) == 0


cdef inline bint _is_xzero(uint8_t op) noexcept nogil:
    return (op & 0xc0) == 0x40


cdef inline bint _is_val(uint8_t op) noexcept nogil:
    return (op & 0x80) != 0


cdef inline int _val_value(uint8_t op) noexcept nogil:
    return ((op >> 2) & 0x1f) + 1


cdef inline int _val_run(uint8_t op) noexcept nogil:
    return (op & 3) + 1


cdef inline uint8_t _val(int value, int run) noexcept nogil:
    return <uint8_t> (((value - 1) << 2) | (run - 1) | 0x80)


cdef int _put_zeros(uint8_t* out, int run) noexcept nogil:
    """Writes ZERO or XZERO; returns its length."""
    if run > ZERO_MAX_RUN:
        out[0] = <uint8_t> (((run - 1) >> 8) | 0x40)
        out[1] = <uint8_t> ((run - 1) & 0xff)
        return 2
    out[0] = <uint8_t> (run - 1)
    return 1


cdef int _expand(const uint8_t* ops, Py_ssize_t n, uint8_t* registers) except -1:
    """Raises each of 16,384 one-byte registers to what the opcodes say."""
    cdef Py_ssize_t at = 0
    cdef int index = 0, run, value, i
    while at < n:
        value = 0
        if _is_zero(ops[at]):
            run = (ops[at] & 0x3f) + 1
            at += 1
        elif _is_xzero(ops[at]):
            if at + 1 >= n:
                raise CorruptValue
            run = ((ops[at] & 0x3f) << 8 | ops[at + 1]) + 1
            at += 2
        else:
            run = _val_run(ops[at])
            value = _val_value(ops[at])
            at += 1
        if index + run > REGISTERS:
            raise CorruptValue
        if value:
            for i in range(index, index + run):
                if registers[i] < value:
                    registers[i] = value
        index += run
    if index != REGISTERS:
        raise CorruptValue
    return 0


# A value being changed ---------------------------------------------------------------------------

@cython.final
cdef class _Work:
    """A private copy of a value, with room to become dense."""
    cdef uint8_t data[WORK_SIZE]
    cdef Py_ssize_t size
    cdef int patches[MOST_PATCHES]   # dense registers written, while they are few
    cdef int patch_count

    cdef int load(self, bytes value) except -1:
        cdef const char* source = value
        if not _looks_valid(value):
            raise CorruptValue
        if len(value) > HEADER + REGISTERS:
            raise CorruptValue
        self.size = len(value)
        self.patch_count = 0
        memcpy(self.data, source, self.size)
        return 0

    cdef bint dense(self):
        return self.data[4] == DENSE

    cdef void mark_stale(self) noexcept:
        self.data[15] |= 0x80

    cdef int densify(self) except -1:
        cdef uint8_t registers[REGISTERS]
        cdef int i
        if self.dense():
            return 0
        memset(registers, 0, REGISTERS)
        _expand(self.data + HEADER, self.size - HEADER, registers)
        memset(self.data + HEADER, 0, DENSE_SIZE - HEADER)
        for i in range(REGISTERS):
            if registers[i]:
                _dense_put(self.data + HEADER, i, registers[i])
        self.data[4] = DENSE
        self.size = DENSE_SIZE
        self.patch_count = MOST_PATCHES + 1
        return 0

    cdef int raise_register(self, int index, int value) except -1:
        """1 when the register was lower and now is `value`, else 0."""
        if self.dense():
            return self.raise_dense(index, value)
        if value > VAL_MAX_VALUE:
            self.densify()
            return self.raise_dense(index, value)
        return self.raise_sparse(index, value)

    cdef int raise_dense(self, int index, int value) noexcept:
        if _dense_get(self.data + HEADER, index) >= value:
            return 0
        _dense_put(self.data + HEADER, index, value)
        if self.patch_count < MOST_PATCHES:
            self.patches[self.patch_count] = index
        self.patch_count += 1
        return 1

    cdef int raise_sparse(self, int index, int value) except -1:
        cdef uint8_t* ops = self.data + HEADER
        cdef Py_ssize_t end = self.size - HEADER
        cdef Py_ssize_t at = 0, previous = -1
        cdef int first = 0, span = 0, length
        while at < end:
            length = 1
            if _is_zero(ops[at]):
                span = (ops[at] & 0x3f) + 1
            elif _is_val(ops[at]):
                span = _val_run(ops[at])
            else:
                if at + 1 >= end:
                    raise CorruptValue
                span = ((ops[at] & 0x3f) << 8 | ops[at + 1]) + 1
                length = 2
            if index <= first + span - 1:
                break
            previous = at
            at += length
            first += span
        if span == 0 or at >= end:
            raise CorruptValue
        if _is_val(ops[at]) and _val_value(ops[at]) >= value:
            return 0
        if span == 1 and length == 1:
            ops[at] = _val(value, 1)
        elif not self.split(at, length, first, span, index, value):
            self.densify()
            return self.raise_dense(index, value)
        self.join(previous if previous >= 0 else 0)
        return 1

    cdef bint split(self, Py_ssize_t at, int length, int first, int span, int index, int value) noexcept:
        """Replaces the opcode at `at` by up to three, `index` having its own; False when the value would be too large."""
        cdef uint8_t* ops = self.data + HEADER
        cdef uint8_t made[5]
        cdef int n = 0, last = first + span - 1
        cdef uint8_t old = ops[at]
        if _is_val(old):
            if index != first:
                made[n] = _val(_val_value(old), index - first)
                n += 1
            made[n] = _val(value, 1)
            n += 1
            if index != last:
                made[n] = _val(_val_value(old), last - index)
                n += 1
        else:
            if index != first:
                n += _put_zeros(made + n, index - first)
            made[n] = _val(value, 1)
            n += 1
            if index != last:
                n += _put_zeros(made + n, last - index)
        if n > length and self.size + n - length > SPARSE_MAX:
            return False
        memmove(ops + at + n, ops + at + length, self.size - HEADER - at - length)
        memcpy(ops + at, made, n)
        self.size += n - length
        return True

    cdef void join(self, Py_ssize_t at) noexcept:
        """Joins equal neighbouring VALs among the five opcodes from `at`: the ones a change can have made."""
        cdef uint8_t* ops = self.data + HEADER
        cdef int left = 5, run
        while at < self.size - HEADER and left:
            left -= 1
            if _is_xzero(ops[at]):
                at += 2
                continue
            if (_is_val(ops[at]) and at + 1 < self.size - HEADER and _is_val(ops[at + 1])
                    and _val_value(ops[at]) == _val_value(ops[at + 1])):
                run = _val_run(ops[at]) + _val_run(ops[at + 1])
                if run <= VAL_MAX_RUN:
                    ops[at + 1] = _val(_val_value(ops[at]), run)
                    memmove(ops + at, ops + at + 1, self.size - HEADER - at - 1)
                    self.size -= 1
                    continue
            at += 1

    cdef bytes take(self):
        return (<const char*> self.data)[:self.size]


cdef bint _looks_valid(bytes value):
    cdef const char* data = value
    if len(value) < HEADER or memcmp(data, b"HYLL", 4) != 0 or <uint8_t> data[4] > SPARSE:
        return False
    return <uint8_t> data[4] != DENSE or len(value) == DENSE_SIZE


# What hyperloglog.py calls -----------------------------------------------------------------------

def create():
    """An empty value: sparse, one XZERO over all registers, its cached count stale as in the real server."""
    return b"HYLL\x01" + bytes(10) + b"\x80\x7f\xff"


def looks_valid(bytes value not None):
    """Whether header and length are those of a HyperLogLog (sparse opcodes are checked where they are read)."""
    return _looks_valid(value)


def add(bytes value not None, elements):
    """Adds `elements` (an iterable of bytes).

    Returns None when no register changed, else (new value, patches): `patches` is a list of (offset, bytes) that turn
    the old value into the new one, or None when they would be many or the length changed.
    """
    cdef _Work work = _Work()
    cdef bytes element
    cdef int index = 0, rank
    cdef bint changed = False
    work.load(value)
    for element in elements:
        rank = _rank(<const uint8_t*> <const char*> element, len(element), &index)
        if work.raise_register(index, rank):
            changed = True
    if not changed:
        return None
    work.mark_stale()
    return work.take(), _patches(work, value)


cdef object _patches(_Work work, bytes value):
    cdef int i
    cdef Py_ssize_t at
    cdef const char* data = <const char*> work.data
    if not work.dense() or len(value) != work.size or work.patch_count > MOST_PATCHES:
        return None
    patches = [(15, data[15:16])]
    for i in range(work.patch_count):
        at = HEADER + (work.patches[i] * 6 >> 3)
        patches.append((at, data[at:min(at + 2, work.size)]))
    return patches


def cached_count(bytes value not None):
    """The count that the header remembers; None when it is stale."""
    if not _looks_valid(value):
        raise CorruptValue
    if value[15] & 0x80:
        return None
    return int.from_bytes(value[8:16], "little")


def count(values):
    """The estimated number of different elements in the union of `values` (Ertl's estimator, as the real server)."""
    cdef uint8_t registers[REGISTERS]
    cdef int histogram[64]
    cdef int i
    cdef bytes value
    memset(registers, 0, REGISTERS)
    for value in values:
        _raise_all(value, registers)
    memset(histogram, 0, sizeof(histogram))
    for i in range(REGISTERS):
        histogram[registers[i]] += 1
    return _estimate(histogram)


def merge(bytes target not None, sources):
    """`target` with every register raised to the highest among it and `sources`.

    Dense when any of them is, as in the real server. The cached count of the result is stale.
    """
    cdef uint8_t registers[REGISTERS]
    cdef _Work work = _Work()
    cdef bytes source
    cdef int i
    cdef bint dense = False
    memset(registers, 0, REGISTERS)
    work.load(target)
    _raise_all(target, registers)
    for source in sources:
        _raise_all(source, registers)
        dense = dense or source[4] == DENSE
    if dense:
        work.densify()
    for i in range(REGISTERS):
        if registers[i]:
            work.raise_register(i, registers[i])
    work.mark_stale()
    return work.take()


cdef int _raise_all(bytes value, uint8_t* registers) except -1:
    """Raises one-byte registers to those of `value`."""
    cdef const uint8_t* data
    cdef int i, rank
    if not _looks_valid(value):
        raise CorruptValue
    data = <const uint8_t*> <const char*> value
    if data[4] == SPARSE:
        return _expand(data + HEADER, len(value) - HEADER, registers)
    for i in range(REGISTERS):
        rank = _dense_get(data + HEADER, i)
        if registers[i] < rank:
            registers[i] = rank
    return 0


cdef object _estimate(const int* histogram):
    cdef double m = REGISTERS
    cdef double z = m * _tau((m - histogram[HASH_BITS + 1]) / m)
    cdef int rank
    for rank in range(HASH_BITS, 0, -1):
        z += histogram[rank]
        z *= 0.5
    z += m * _sigma(histogram[0] / m)
    return int(floor(ALPHA_INFINITY * m * m / z + 0.5))


cdef double _sigma(double x) noexcept:
    cdef double y = 1, z = x, before
    if x == 1:
        return INFINITY
    while True:
        x *= x
        before = z
        z += x * y
        y += y
        if before == z:
            return z


cdef double _tau(double x) noexcept:
    cdef double y = 1, z = 1 - x, before
    if x == 0 or x == 1:
        return 0
    while True:
        x = sqrt(x)
        before = z
        y *= 0.5
        z -= (1 - x) * (1 - x) * y
        if before == z:
            return z / 3
