"""Tallies: what several processes count together, by key. A mapped page (kache/cluster/tallies.py).

    cells of process 0                              | cells of process 1 | …
    key, number, number … | key, number, number …   |

A process writes its own cells alone and reads those of the others, so nothing is locked and nobody waits. A cell is found by
its key within WINDOW places; the places of keys that are gone are used again. Where all of them are taken, the key is not
counted by this process: whoever limits by it lets that one pass rather than refuse somebody who is innocent. Keys are not 0,
and nobody may choose them: numbers of the cluster, or hashes under its own key.
"""
cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memset

__all__ = ["Tallies"]

cdef enum:
    WINDOW = 64         # places at which a key may be
    ALONE = 1024        # cells of a process that is alone


cdef inline Py_ssize_t place_of(uint64_t key, Py_ssize_t count) noexcept:
    # Numbers that follow each other are spread (Fibonacci hashing).
    return <Py_ssize_t> (((key * <uint64_t> 0x9E3779B97F4A7C15) >> 20) % <uint64_t> count)


@cython.no_gc      # as Claims: whoever clears it would take the buffer's owner away before its release
cdef class Tallies:
    """`memory` is shared by `processes`, of which this is number `process`; a cell has `words` numbers of 8 bytes, its key
    among them. None: memory of its own, for one that is alone."""

    def __init__(self, memory=None, Py_ssize_t process=0, Py_ssize_t processes=1, Py_ssize_t words=2):
        if memory is None:
            memory, process, processes = bytearray(8 * words * ALONE), 0, 1
        PyObject_GetBuffer(memory, &self.shared, PyBUF_WRITABLE)
        self.cells = <uint64_t*> self.shared.buf
        self.words, self.processes, self.place = words, processes, process
        self.count = self.shared.len // (8 * words * processes)
        if self.count < WINDOW or not 0 <= process < processes:
            raise ValueError(f"no room for process {process} of {processes}")

    def __dealloc__(self):
        if self.shared.buf != NULL:
            PyBuffer_Release(&self.shared)

    cdef int64_t* of(self, Py_ssize_t process, uint64_t key) noexcept:
        cdef uint64_t* cells = self.cells + process * self.count * self.words
        cdef Py_ssize_t at = place_of(key, self.count), i
        if key == 0:
            return NULL     # nobody's
        for i in range(WINDOW):
            if cells[at * self.words] == key:
                return <int64_t*> (cells + at * self.words + 1)
            at = at + 1 if at + 1 < self.count else 0
        return NULL

    cdef int64_t* mine(self, uint64_t key) noexcept:
        cdef uint64_t* cells = self.cells + self.place * self.count * self.words
        cdef Py_ssize_t at = place_of(key, self.count), i
        cdef int64_t* found = self.of(self.place, key)
        if found != NULL or key == 0:
            return found
        for i in range(WINDOW):
            if cells[at * self.words] == 0:
                memset(cells + at * self.words + 1, 0, 8 * (self.words - 1))
                # Last: who looks meanwhile finds numbers, or nothing.
                cells[at * self.words] = key
                return <int64_t*> (cells + at * self.words + 1)
            at = at + 1 if at + 1 < self.count else 0
        return NULL

    cdef int64_t total(self, uint64_t key, Py_ssize_t word) noexcept:
        cdef int64_t sum = 0
        cdef int64_t* found
        cdef Py_ssize_t i
        for i in range(self.processes):
            found = self.of(i, key)
            if found != NULL:
                sum += found[word]
        return sum

    cdef int drop(self, uint64_t key) noexcept:
        cdef int64_t* found = self.of(self.place, key)
        if found != NULL:
            found[-1] = 0
        return 0

    # For Python: what is not asked for every frame --------------------------------------------------------
    def add(self, uint64_t key, Py_ssize_t word, int64_t amount):
        """Counts for the key; False when there is no room for it."""
        cdef int64_t* found
        if key == 0 or not 0 <= word < self.words - 1:
            raise ValueError("no such number")
        found = self.mine(key)
        if found == NULL:
            return False
        found[word] += amount
        return True

    def sum(self, uint64_t key, Py_ssize_t word):
        """What all processes have counted for the key."""
        if key == 0 or not 0 <= word < self.words - 1:
            raise ValueError("no such number")
        return self.total(key, word)

    def forget(self, uint64_t key):
        """This process counts nothing for the key any more."""
        if key == 0:
            raise ValueError("no such number")
        self.drop(key)

    def clear(self):
        """Nothing is counted by this process."""
        memset(self.cells + self.place * self.count * self.words, 0, 8 * self.count * self.words)
