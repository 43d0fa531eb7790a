"""The seam between the log and the file system.

Owns every call to the file system that is made for the log: `Files` makes them, `ScriptedFiles` makes them as a test says
and records them. Methods are for Python and raise OSError that names the path; `calls` has those that threads make without
the GIL, as function pointers, and answers minus errno. Promises: nothing is retried but what a signal interrupted, and
nothing is kept but by ScriptedFiles.
"""
import errno
import os
import pwd

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINTR, EOPNOTSUPP
from libc.errno cimport errno as c_errno
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, strdup

__all__ = ["CALLS", "Files", "ScriptedFiles"]

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <sys/file.h>
    #include <sys/stat.h>
    #include <unistd.h>

    static int kache_fdatasync(int fd) {
    #ifdef __APPLE__
        return fcntl(fd, F_FULLFSYNC);      /* its fsync leaves the drive's cache alone */
    #else
        return fdatasync(fd);
    #endif
    }
    static int kache_fallocate(int fd, off_t offset, off_t n) {
    #ifdef __linux__
        return fallocate(fd, 0, offset, n);
    #else
        (void) fd; (void) offset; (void) n;
        errno = EOPNOTSUPP;
        return -1;
    #endif
    }
    /* A lock of the open file, not of the process: another open of the same file, wherever, is refused. */
    static int kache_lock(int fd, int shared) {
    #ifdef F_OFD_SETLK
        struct flock lock = {0};
        lock.l_type = shared ? F_RDLCK : F_WRLCK;
        lock.l_whence = SEEK_SET;
        return fcntl(fd, F_OFD_SETLK, &lock);
    #else
        return flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB);
    #endif
    }
    static void *kache_new_mutex(void) {
        pthread_mutex_t *mutex = malloc(sizeof(pthread_mutex_t));
        if (mutex) pthread_mutex_init(mutex, NULL);
        return mutex;
    }
    static void kache_free_mutex(void *mutex) {
        if (mutex) { pthread_mutex_destroy(mutex); free(mutex); }
    }
    """
    int kache_fdatasync(int fd) noexcept nogil
    int kache_fallocate(int fd, int64_t offset, int64_t n) noexcept nogil
    int kache_lock(int fd, int shared) noexcept nogil
    void* kache_new_mutex() noexcept nogil
    void kache_free_mutex(void* mutex) noexcept nogil
    int pthread_mutex_lock(void* mutex) noexcept nogil
    int pthread_mutex_unlock(void* mutex) noexcept nogil
    int usleep(unsigned int us) noexcept nogil
    int c_open "open"(const char* path, int flags, int mode) noexcept nogil
    int c_close "close"(int fd) noexcept nogil
    int fsync(int fd) noexcept nogil
    int ftruncate(int fd, int64_t n) noexcept nogil
    ssize_t c_write "write"(int fd, const void* data, size_t n) noexcept nogil
    ssize_t c_pwrite "pwrite"(int fd, const void* data, size_t n, int64_t offset) noexcept nogil
    ssize_t c_pread "pread"(int fd, void* data, size_t n, int64_t offset) noexcept nogil
    int c_rename "rename"(const char* path, const char* other) noexcept nogil
    int c_unlink "unlink"(const char* path) noexcept nogil
    int c_mkdir "mkdir"(const char* path, int mode) noexcept nogil
    int c_rmdir "rmdir"(const char* path) noexcept nogil
    int O_CLOEXEC, O_DIRECTORY, O_RDONLY

BOOT_ID = "/proc/sys/kernel/random/boot_id"

CALLS = (
    "open", "close", "read", "write", "pwrite", "fdatasync", "fallocate", "ftruncate", "fsync_dir", "rename", "unlink", "mkdir",
    "rmdir", "list", "lock",
)
assert len(CALLS) == CALL_COUNT

cdef enum:
    STOPPED = 108       # errno (ESHUTDOWN) of every call after the world has stopped
    MOST_RULES = 64


# The real calls ---------------------------------------------------------------------------------------
cdef int64_t real_read(void* self, int fd, char* data, size_t n, int64_t offset) noexcept nogil:
    cdef ssize_t done
    while True:
        done = c_pread(fd, data, n, offset)
        if done >= 0 or c_errno != EINTR:
            return done if done >= 0 else -c_errno


cdef int64_t real_write(void* self, int fd, const char* data, size_t n) noexcept nogil:
    cdef ssize_t done
    while True:
        done = c_write(fd, data, n)
        if done >= 0 or c_errno != EINTR:
            return done if done >= 0 else -c_errno


cdef int64_t real_pwrite(void* self, int fd, const char* data, size_t n, int64_t offset) noexcept nogil:
    cdef ssize_t done
    while True:
        done = c_pwrite(fd, data, n, offset)
        if done >= 0 or c_errno != EINTR:
            return done if done >= 0 else -c_errno


cdef int64_t real_fdatasync(void* self, int fd) noexcept nogil:
    while kache_fdatasync(fd) < 0:
        if c_errno != EINTR:
            return -c_errno
    return 0


cdef int64_t real_fallocate(void* self, int fd, int64_t offset, int64_t n) noexcept nogil:
    while kache_fallocate(fd, offset, n) < 0:
        if c_errno != EINTR:
            return -c_errno
    return 0


cdef int64_t real_ftruncate(void* self, int fd, int64_t n) noexcept nogil:
    while ftruncate(fd, n) < 0:
        if c_errno != EINTR:
            return -c_errno
    return 0


cdef int64_t real_close(void* self, int fd) noexcept nogil:
    # Whatever it says, the descriptor is gone.
    return 0 if c_close(fd) == 0 else -c_errno


cdef int64_t real_fsync_dir(const char* path) noexcept nogil:
    cdef int fd = c_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    cdef int64_t result
    if fd < 0:
        return -c_errno
    result = 0 if fsync(fd) == 0 else -c_errno
    c_close(fd)
    return result


cdef int64_t real_perform(int call, const char* path, const char* other, int64_t a, int64_t b) noexcept nogil:
    """The calls that only Python makes."""
    cdef int64_t result
    while True:
        if call == CALL_OPEN:
            result = c_open(path, <int> a | O_CLOEXEC, <int> b)
        elif call == CALL_FSYNC_DIR:
            result = real_fsync_dir(path)
            return result
        elif call == CALL_RENAME:
            result = c_rename(path, other)
        elif call == CALL_UNLINK:
            result = c_unlink(path)
        elif call == CALL_MKDIR:
            result = c_mkdir(path, <int> a)
        elif call == CALL_RMDIR:
            result = c_rmdir(path)
        elif call == CALL_LOCK:
            result = kache_lock(<int> a, <int> b)
        else:
            return -EOPNOTSUPP
        if result >= 0 or c_errno != EINTR:
            return result if result >= 0 else -c_errno


cdef void use_real_calls(FileCalls* calls) noexcept:
    calls.self = NULL
    calls.read = real_read
    calls.write = real_write
    calls.pwrite = real_pwrite
    calls.fdatasync = real_fdatasync
    calls.fallocate = real_fallocate
    calls.ftruncate = real_ftruncate
    calls.close = real_close


def user_name(uid):
    """How the system calls a user; the number where it has no name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


cdef class Files:
    """The file system, for the log. Every method raises OSError with the path; paths are str."""

    def __cinit__(self, *args, **kwargs):
        use_real_calls(&self.calls)

    cdef int64_t perform(self, int call, bytes path, bytes other, int64_t a, int64_t b) except? -1:
        cdef const char* first = NULL if path is None else PyBytes_AS_STRING(path)
        cdef const char* second = NULL if other is None else PyBytes_AS_STRING(other)
        cdef int64_t result
        with nogil:
            result = real_perform(call, first, second, a, b)
        return result

    cdef object checked(self, int64_t result, object path):
        if result < 0:
            raise OSError(-result, os.strerror(-result), path)
        return result

    # By path ------------------------------------------------------------------------------------------
    def open(self, str path not None, int flags=os.O_RDONLY, int mode=0o600):
        """A descriptor of the file, closed on exec."""
        return self.checked(self.perform(CALL_OPEN, os.fsencode(path), None, flags, mode), path)

    def fsync_dir(self, str path not None):
        """What was created, renamed or removed in the directory outlives a power cut."""
        self.checked(self.perform(CALL_FSYNC_DIR, os.fsencode(path), None, 0, 0), path)

    def rename(self, str path not None, str target not None):
        """`path` becomes `target`, in place of what is there."""
        self.checked(self.perform(CALL_RENAME, os.fsencode(path), os.fsencode(target), 0, 0), target)

    def unlink(self, str path not None):
        self.checked(self.perform(CALL_UNLINK, os.fsencode(path), None, 0, 0), path)

    def mkdir(self, str path not None, int mode=0o700):
        self.checked(self.perform(CALL_MKDIR, os.fsencode(path), None, mode, 0), path)

    def rmdir(self, str path not None):
        self.checked(self.perform(CALL_RMDIR, os.fsencode(path), None, 0, 0), path)

    def list(self, str path not None):
        """The names in a directory, sorted."""
        return sorted(os.listdir(path))

    def size(self, str path not None):
        """Bytes of the file."""
        return os.stat(path).st_size

    def exists(self, str path not None):
        """Whether there is anything of this name, also where a link leads nowhere."""
        return os.path.lexists(path)

    def is_file(self, str path not None):
        """Whether there is a file of this name, not a directory."""
        return os.path.isfile(path)

    def owner(self, str path not None):
        """The name of the user whom it, or what is above it, belongs to; "" when that cannot be seen either."""
        while True:
            try:
                return user_name(os.stat(path).st_uid)
            except OSError:
                above = os.path.dirname(path)
                if above in ("", path):
                    return ""
                path = above

    def user(self):
        """The name of the user as whom files are opened here."""
        return user_name(os.geteuid())

    def room(self, str path not None):
        """Bytes that this user may still write in the file system of `path`."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def boot(self):
        """During which run of the machine this is, 16 bytes; zeros where the system does not say."""
        try:
            with open(BOOT_ID, encoding="ascii") as file:
                return bytes.fromhex(file.read().strip().replace("-", ""))
        except (OSError, ValueError):
            return bytes(16)

    # By descriptor ------------------------------------------------------------------------------------
    def lock(self, int fd, bint shared=False):
        """Locks the open file until its last descriptor is closed; BlockingIOError when somebody else has it."""
        result = self.perform(CALL_LOCK, None, None, fd, shared)
        if result in (-errno.EAGAIN, -errno.EACCES):
            raise BlockingIOError(errno.EAGAIN, "locked by another process")
        self.checked(result, None)

    def read(self, int fd, Py_ssize_t n, int64_t offset):
        """The bytes from `offset` on, `n` of them or as many as there are."""
        cdef bytes data = PyBytes_FromStringAndSize(NULL, n)
        cdef char* start = PyBytes_AS_STRING(data)
        cdef Py_ssize_t done = 0
        cdef int64_t got
        while done < n:
            with nogil:
                got = self.calls.read(self.calls.self, fd, start + done, n - done, offset + done)
            if self.checked(got, None) == 0:
                break
            done += got
        return data if done == n else data[:done]

    def write(self, int fd, bytes data not None):
        """Appends all of it; OSError leaves a part of it behind."""
        cdef const char* start = PyBytes_AS_STRING(data)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data), done = 0
        cdef int64_t got
        while done < n:
            with nogil:
                got = self.calls.write(self.calls.self, fd, start + done, n - done)
            done += <Py_ssize_t> self.checked(got, None)

    def pwrite(self, int fd, bytes data not None, int64_t offset):
        """The same at a place in the file."""
        cdef const char* start = PyBytes_AS_STRING(data)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data), done = 0
        cdef int64_t got
        while done < n:
            with nogil:
                got = self.calls.pwrite(self.calls.self, fd, start + done, n - done, offset + done)
            done += <Py_ssize_t> self.checked(got, None)

    def fdatasync(self, int fd):
        cdef int64_t result
        with nogil:
            result = self.calls.fdatasync(self.calls.self, fd)
        self.checked(result, None)

    def fallocate(self, int fd, int64_t offset, int64_t n):
        """Reserves room, which is zeros until it is written and belongs to the file: with its size as it was, every sync would
        have to write it anew. OSError(EOPNOTSUPP) where that cannot be done."""
        cdef int64_t result
        with nogil:
            result = self.calls.fallocate(self.calls.self, fd, offset, n)
        self.checked(result, None)

    def ftruncate(self, int fd, int64_t n):
        cdef int64_t result
        with nogil:
            result = self.calls.ftruncate(self.calls.self, fd, n)
        self.checked(result, None)

    def close(self, int fd):
        cdef int64_t result
        with nogil:
            result = self.calls.close(self.calls.self, fd)
        self.checked(result, None)

    # Several calls ------------------------------------------------------------------------------------
    def read_all(self, str path not None, Py_ssize_t most=1 << 20):
        """The whole of a small file; OSError(EFBIG) for one of more than `most` bytes."""
        fd = self.open(path)
        try:
            data = self.read(fd, most + 1, 0)
        finally:
            self.close(fd)
        if len(data) > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return data

    def replace(self, str path not None, bytes data not None):
        """The file has this content from here on, also after a power cut, or still the one before."""
        beside = path + ".tmp"
        fd = self.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self.write(fd, data)
            self.fdatasync(fd)
        finally:
            self.close(fd)
        self.rename(beside, path)
        self.fsync_dir(os.path.dirname(path) or ".")


# Scripted ---------------------------------------------------------------------------------------------
cdef int64_t scripted_read(void* self, int fd, char* data, size_t n, int64_t offset) noexcept nogil:
    cdef int64_t most, result
    cdef int error = (<ScriptedFiles> self).begin(CALL_READ, &most)
    result = -error if error else real_read(NULL, fd, data, n, offset)
    (<ScriptedFiles> self).end(CALL_READ, fd, NULL, n, offset, <int64_t> n, result, NULL, NULL)
    return result


cdef int64_t scripted_write(void* self, int fd, const char* data, size_t n) noexcept nogil:
    cdef int64_t most, result
    cdef int error = (<ScriptedFiles> self).begin(CALL_WRITE, &most)
    result = -error if error else real_write(NULL, fd, data, n if most < 0 or <size_t> most > n else <size_t> most)
    (<ScriptedFiles> self).end(CALL_WRITE, fd, data, n, -1, <int64_t> n, result, NULL, NULL)
    return result


cdef int64_t scripted_pwrite(void* self, int fd, const char* data, size_t n, int64_t offset) noexcept nogil:
    cdef int64_t most, result
    cdef int error = (<ScriptedFiles> self).begin(CALL_PWRITE, &most)
    result = -error if error else real_pwrite(NULL, fd, data, n if most < 0 or <size_t> most > n else <size_t> most, offset)
    (<ScriptedFiles> self).end(CALL_PWRITE, fd, data, n, offset, <int64_t> n, result, NULL, NULL)
    return result


cdef int64_t scripted_fdatasync(void* self, int fd) noexcept nogil:
    cdef int64_t most, result
    cdef int error = (<ScriptedFiles> self).begin(CALL_FDATASYNC, &most)
    result = -error if error else real_fdatasync(NULL, fd)
    (<ScriptedFiles> self).end(CALL_FDATASYNC, fd, NULL, 0, 0, 0, result, NULL, NULL)
    return result


cdef int64_t scripted_fallocate(void* self, int fd, int64_t offset, int64_t n) noexcept nogil:
    cdef int64_t most, result
    cdef int error = (<ScriptedFiles> self).begin(CALL_FALLOCATE, &most)
    result = -error if error else real_fallocate(NULL, fd, offset, n)
    (<ScriptedFiles> self).end(CALL_FALLOCATE, fd, NULL, 0, offset, n, result, NULL, NULL)
    return result


cdef int64_t scripted_ftruncate(void* self, int fd, int64_t n) noexcept nogil:
    cdef int64_t most, result
    cdef int error = (<ScriptedFiles> self).begin(CALL_FTRUNCATE, &most)
    result = -error if error else real_ftruncate(NULL, fd, n)
    (<ScriptedFiles> self).end(CALL_FTRUNCATE, fd, NULL, 0, n, 0, result, NULL, NULL)
    return result


cdef int64_t scripted_close(void* self, int fd) noexcept nogil:
    cdef int64_t most, result
    cdef int error = (<ScriptedFiles> self).begin(CALL_CLOSE, &most)
    # A descriptor is given back whatever a test says: it is the test's process that would run out of them.
    result = real_close(NULL, fd)
    result = -error if error else result
    (<ScriptedFiles> self).end(CALL_CLOSE, fd, NULL, 0, 0, 0, result, NULL, NULL)
    return result


cdef class ScriptedFiles(Files):
    """A file system that does as a test says, and records every call.

    Rules meet the calls of one kind ("" is any) from now on, `after` of them left alone: `fail`, `shorten`, `slow`. The
    first that fits counts. `stop_after(n)`: the world ends behind n more calls; all later ones fail and do nothing.
    `record` is [(call, fd, a, b, data or None, path or None, other or None, result)] since the start or the last `forget`.
    """

    def __cinit__(self):
        self.real = self.calls
        self.left = -1
        self.mutex = kache_new_mutex()
        self.rules = <Rule*> calloc(MOST_RULES, sizeof(Rule))
        if self.mutex == NULL or self.rules == NULL:
            raise MemoryError("no memory for a script")
        self.calls.self = <void*> self
        self.calls.read = scripted_read
        self.calls.write = scripted_write
        self.calls.pwrite = scripted_pwrite
        self.calls.fdatasync = scripted_fdatasync
        self.calls.fallocate = scripted_fallocate
        self.calls.ftruncate = scripted_ftruncate
        self.calls.close = scripted_close

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            free(self.asked[i].data)
            free(self.asked[i].path)
            free(self.asked[i].other)
        free(self.asked)
        free(self.rules)
        kache_free_mutex(self.mutex)

    # The script ---------------------------------------------------------------------------------------
    def _rule(self, str call, int64_t after, int64_t times, int error, int64_t most, int64_t delay_us):
        cdef Rule rule
        rule.call = CALLS.index(call) if call else CALL_COUNT
        rule.skip, rule.times, rule.error, rule.most, rule.delay_us = after, times, error, most, delay_us
        pthread_mutex_lock(self.mutex)
        try:
            if self.rule_count == MOST_RULES:
                raise ValueError("too many rules in one script")
            self.rules[self.rule_count] = rule
            self.rule_count += 1
        finally:
            pthread_mutex_unlock(self.mutex)

    def fail(self, str call not None, int error, int64_t after=0, int64_t times=1):
        """`times` calls (-1: all until `heal`) fail with this errno and do nothing."""
        self._rule(call, after, times, error, -1, 0)

    def shorten(self, str call not None, int64_t most, int64_t after=0, int64_t times=1):
        """`times` calls write `most` bytes at most."""
        self._rule(call, after, times, 0, most, 0)

    def slow(self, str call not None, double seconds, int64_t after=0, int64_t times=1):
        """`times` calls take so long."""
        self._rule(call, after, times, 0, -1, <int64_t> (seconds * 1e6))

    def stop_after(self, int64_t calls):
        """The world ends behind so many more calls; -1: it does not."""
        self.left = calls

    def heal(self):
        """No rule counts any more, and the world goes on."""
        pthread_mutex_lock(self.mutex)
        self.rule_count = 0
        self.left = -1
        pthread_mutex_unlock(self.mutex)

    # What was asked -----------------------------------------------------------------------------------
    @property
    def record(self):
        cdef Asked* asked
        cdef Py_ssize_t i
        result = []
        pthread_mutex_lock(self.mutex)
        try:
            for i in range(self.count):
                asked = &self.asked[i]
                data = None if asked.data == NULL else PyBytes_FromStringAndSize(asked.data, asked.b)
                path = None if asked.path == NULL else os.fsdecode(<bytes> asked.path)
                other = None if asked.other == NULL else os.fsdecode(<bytes> asked.other)
                result.append((CALLS[asked.call], asked.fd, asked.a, asked.b, data, path, other, asked.result))
        finally:
            pthread_mutex_unlock(self.mutex)
        return result

    def forget(self):
        """Begins a new record."""
        cdef Py_ssize_t i
        pthread_mutex_lock(self.mutex)
        for i in range(self.count):
            free(self.asked[i].data)
            free(self.asked[i].path)
            free(self.asked[i].other)
        self.count = 0
        pthread_mutex_unlock(self.mutex)

    # Each call ----------------------------------------------------------------------------------------
    cdef int begin(self, int call, int64_t* most) noexcept nogil:
        """The errno with which it fails, 0 for none; waits as long as it shall."""
        cdef Rule* rule
        cdef int error = 0, i
        cdef int64_t delay_us = 0
        most[0] = -1
        pthread_mutex_lock(self.mutex)
        if self.left == 0:
            error = STOPPED
        elif self.left > 0:
            self.left -= 1
        for i in range(self.rule_count if error == 0 else 0):
            rule = &self.rules[i]
            if rule.times == 0 or (rule.call != call and rule.call != CALL_COUNT):
                continue
            if rule.skip > 0:
                rule.skip -= 1
                continue
            if rule.times > 0:
                rule.times -= 1
            error, most[0], delay_us = rule.error, rule.most, rule.delay_us
            break
        pthread_mutex_unlock(self.mutex)
        while delay_us > 0:
            usleep(<unsigned int> min(delay_us, 500000))
            delay_us -= 500000
        return error

    cdef void end(
        self, int call, int fd, const char* data, size_t n, int64_t a, int64_t b, int64_t result, const char* path,
        const char* other) noexcept nogil:
        """Records it; of a write those bytes that were written."""
        cdef Asked* asked
        cdef void* larger
        pthread_mutex_lock(self.mutex)
        if self.count == self.room:
            larger = realloc(self.asked, (2 * self.room + 64) * sizeof(Asked))
            if larger == NULL:
                pthread_mutex_unlock(self.mutex)
                return
            self.asked = <Asked*> larger
            self.room = 2 * self.room + 64
        asked = &self.asked[self.count]
        asked.call, asked.fd, asked.a, asked.b, asked.result = call, fd, a, b, result
        asked.data = asked.path = asked.other = NULL
        if data != NULL:
            asked.b = result if result > 0 else 0
            asked.data = <char*> malloc(<size_t> asked.b + 1)
            if asked.data != NULL:
                memcpy(asked.data, data, <size_t> asked.b)
        if path != NULL:
            asked.path = strdup(path)
        if other != NULL:
            asked.other = strdup(other)
        self.count += 1
        pthread_mutex_unlock(self.mutex)

    cdef int64_t perform(self, int call, bytes path, bytes other, int64_t a, int64_t b) except? -1:
        cdef const char* first = NULL if path is None else PyBytes_AS_STRING(path)
        cdef const char* second = NULL if other is None else PyBytes_AS_STRING(other)
        cdef int64_t result, most
        cdef int error
        with nogil:
            error = self.begin(call, &most)
            result = -error if error else real_perform(call, first, second, a, b)
            # A descriptor is known by its number from here on.
            self.end(call, <int> result if call == CALL_OPEN else -1, NULL, 0, a, b, result, first, second)
        return result
