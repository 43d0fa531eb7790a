"""The seam between the log and the file system; see files.pyx."""
from libc.stdint cimport int64_t, uint64_t

cdef enum Call:
    # What is asked of the file system. In the order of `CALLS` in files.pyx.
    CALL_OPEN = 0
    CALL_CLOSE
    CALL_READ
    CALL_WRITE
    CALL_PWRITE
    CALL_FDATASYNC
    CALL_FALLOCATE
    CALL_FTRUNCATE
    CALL_FSYNC_DIR
    CALL_RENAME
    CALL_UNLINK
    CALL_MKDIR
    CALL_RMDIR
    CALL_LIST
    CALL_LOCK
    CALL_COUNT


cdef struct FileCalls:
    # What threads without the GIL call, `self` first. Each returns what it did (bytes, or 0), or minus errno. A signal that
    # interrupts one makes it go on; a write or a read may still be a short one.
    void* self
    int64_t (*read)(void* self, int fd, char* data, size_t n, int64_t offset) noexcept nogil
    int64_t (*write)(void* self, int fd, const char* data, size_t n) noexcept nogil
    int64_t (*pwrite)(void* self, int fd, const char* data, size_t n, int64_t offset) noexcept nogil
    int64_t (*fdatasync)(void* self, int fd) noexcept nogil
    int64_t (*fallocate)(void* self, int fd, int64_t offset, int64_t n) noexcept nogil   # the file has it as zeros
    int64_t (*ftruncate)(void* self, int fd, int64_t n) noexcept nogil
    int64_t (*close)(void* self, int fd) noexcept nogil


cdef class Files:
    """The file system. `calls` is valid as long as this object lives: a thread keeps a reference to it."""
    cdef FileCalls calls
    cdef int64_t perform(self, int call, bytes path, bytes other, int64_t a, int64_t b) except? -1
    cdef object checked(self, int64_t result, object path)


cdef struct Asked:
    # One call as it was recorded.
    int call, fd
    int64_t a, b, result
    char* data
    char* path
    char* other


cdef struct Rule:
    # What happens to calls of a kind (CALL_COUNT: of any), counted from now.
    int call
    int64_t skip, times         # so many are left alone first; then so many are met, -1: all
    int error                   # errno; 0: none
    int64_t most                # bytes that are written at most; -1: all
    int64_t delay_us


cdef class ScriptedFiles(Files):
    """A file system that does as a test says, and records every call."""
    cdef FileCalls real
    cdef Asked* asked
    cdef Py_ssize_t count, room
    cdef Rule* rules
    cdef int rule_count
    cdef int64_t left           # calls until the world stops; -1: it does not
    cdef void* mutex
    cdef int begin(self, int call, int64_t* most) noexcept nogil
    cdef void end(
        self, int call, int fd, const char* data, size_t n, int64_t a, int64_t b, int64_t result, const char* path,
        const char* other) noexcept nogil
