"""Area: memory that a router and a shard share beside their socket, for what is large enough to be worth it.

A value that travels through a socket is copied twice by the kernel, into memory that it allocates and frees. Placed here
it is copied once, and the socket carries only where it lies. There is a ring for each direction; a position counts the
bytes placed in a ring since the beginning, so it says where something lies (modulo the ring's size) and that it is newer
than all before it.

    memory   | limit … taken by the shard … taken by the router | ring to the shard | ring to the router |
    ring        . . . . . . . . | value | value |   value . . . | . .      never across the end: the rest is left out
                                ^ taken                         ^ written

Who places knows `written` and looks at `taken`; who takes does it in the order in which the socket names things, at once,
and keeps nothing that points here. An empty ring begins at its start again: what few values need stays in the cache. Where
there is no room the socket carries the bytes as ever.

The memory has no name. The router makes it when it connects and passes its descriptor with its greeting, so it belongs to
that one connection: whoever ends, the system frees it, and another connection has another. Both ends hold each other's
positions for what they are, numbers that somebody else has written, and check them.
"""
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/socket.h>
    #include <sys/stat.h>
    #include <sys/uio.h>
    #include <unistd.h>

    #define KACHE_AREA_LOOK(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
    #define KACHE_AREA_SAY(place, number) __atomic_store_n(place, number, __ATOMIC_RELEASE)

    /* Memory without a name that cannot be cut short, so that nobody who has mapped it can be hurt by it; -1: none. */
    static int kache_area_make(size_t size) {
    #if defined(__linux__) && defined(MFD_CLOEXEC) && defined(F_ADD_SEALS)
        int fd = memfd_create("kache-link", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0) return -1;
        if (ftruncate(fd, size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
            close(fd);
            return -1;
        }
        return fd;
    #else
        return -1;
    #endif
    }
    static int kache_area_is_whole(int fd, size_t size) {
        struct stat found;
    #if defined(__linux__) && defined(F_GET_SEALS)
        int seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0 || !(seals & F_SEAL_SHRINK)) return 0;
    #endif
        return fstat(fd, &found) == 0 && (uint64_t) found.st_size == size;
    }
    static char *kache_area_map(int fd, size_t size) {
        void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        return at == MAP_FAILED ? NULL : at;
    }
    static void kache_area_drop(char *at, size_t size) {
    #ifdef MADV_REMOVE
        madvise(at, size, MADV_REMOVE);
    #endif
    }
    static int kache_area_send(int socket, const char *data, size_t n, int fd) {
        union { struct cmsghdr header; char room[CMSG_SPACE(sizeof(int))]; } control;
        struct iovec piece = {(char *) data, n};
        struct msghdr message = {0};
        struct cmsghdr *first;
        memset(&control, 0, sizeof control);
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
        first = CMSG_FIRSTHDR(&message);
        first->cmsg_level = SOL_SOCKET;
        first->cmsg_type = SCM_RIGHTS;
        first->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(first), &fd, sizeof fd);
    #ifdef MSG_NOSIGNAL
        return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t) n;
    #else
        return sendmsg(socket, &message, MSG_DONTWAIT) == (ssize_t) n;
    #endif
    }
    """
    int kache_area_make(size_t size) nogil
    int kache_area_is_whole(int fd, size_t size) nogil
    char* kache_area_map(int fd, size_t size) nogil
    void kache_area_drop(char* at, size_t size) nogil
    int kache_area_send(int socket, const char* data, size_t n, int fd) nogil
    uint64_t kache_area_look "KACHE_AREA_LOOK"(uint64_t* place) noexcept nogil
    void kache_area_say "KACHE_AREA_SAY"(uint64_t* place, uint64_t number) noexcept nogil
    int munmap(void* at, size_t size) nogil
    int close_fd "close"(int fd) nogil

cdef enum:
    HEAD = 4096                 # bytes before the rings
    LINE = 64                   # of the processor's cache: what is placed begins on one, and each number has its own


cdef inline uint64_t rounded(Py_ssize_t n) noexcept:
    return (<uint64_t> n + LINE - 1) & ~<uint64_t> (LINE - 1)


cdef class Area:

    def __dealloc__(self):
        if self.memory != NULL:
            munmap(self.memory, self.size)

    cdef int map(self, int fd, Py_ssize_t size, bint router) except -1:
        """Maps the memory behind `fd` for one of its two ends."""
        self.memory = kache_area_map(fd, size)
        if self.memory == NULL:
            raise MemoryError("no address space for the memory of a link")
        self.size = size
        self.room = (size - HEAD) // 2
        self.limit = <uint64_t*> self.memory
        self.ours = self.memory + HEAD + (0 if router else self.room)
        self.theirs = self.memory + HEAD + (self.room if router else 0)
        self.taken_there = <uint64_t*> (self.memory + (LINE if router else 2 * LINE))
        self.taken_here = <uint64_t*> (self.memory + (2 * LINE if router else LINE))
        return 0

    cdef char* place(self, Py_ssize_t n, uint64_t* position) noexcept:
        cdef uint64_t room = <uint64_t> self.room, taken = kache_area_look(self.taken_there), at = self.written
        cdef uint64_t limit = kache_area_look(self.limit)
        cdef uint64_t offset = at % room
        if limit > room or taken > at or rounded(n) > limit:
            return NULL
        if offset and (taken == at or offset + rounded(n) > limit):
            at += room - offset
            offset = 0
        if at + rounded(n) - taken > room:
            return NULL
        position[0] = at
        self.written = at + rounded(n)
        self.reached_here = max(self.reached_here, <Py_ssize_t> (offset + rounded(n)))
        self.reached = self.reached_here + self.reached_there
        return self.ours + offset

    cdef const char* find(self, uint64_t position, Py_ssize_t n) noexcept:
        cdef uint64_t offset = position % <uint64_t> self.room
        if position < self.read or position - self.read > <uint64_t> (2 * self.room) or offset + <uint64_t> n > <uint64_t> self.room:
            return NULL
        return self.theirs + offset

    cdef void take(self, uint64_t position, Py_ssize_t n) noexcept:
        self.read = position + rounded(n)
        self.reached_there = max(self.reached_there, <Py_ssize_t> (position % <uint64_t> self.room + rounded(n)))
        self.reached = self.reached_here + self.reached_there
        kache_area_say(self.taken_here, self.read)

    cdef void allow(self, Py_ssize_t bytes) noexcept:
        kache_area_say(self.limit, <uint64_t> max(min(bytes, self.room), 0) & ~<uint64_t> (LINE - 1))

    cdef void give_back(self) noexcept:
        if self.reached_here:
            kache_area_drop(self.ours, self.reached_here)
        if self.reached_there:
            kache_area_drop(self.theirs, self.reached_there)
        self.reached = self.reached_here = self.reached_there = 0


cdef Py_ssize_t area_size(Py_ssize_t room) noexcept:
    return HEAD + 2 * room


cdef Area offer_area(int fd, const char* hello, Py_ssize_t n, Py_ssize_t room):
    cdef Area area = Area.__new__(Area)
    cdef int memory = kache_area_make(area_size(room))
    cdef bint sent
    if memory < 0:
        return None
    try:
        area.map(memory, area_size(room), True)
        sent = kache_area_send(fd, hello, n, memory)
    except MemoryError:
        return None
    finally:
        close_fd(memory)
    return area if sent else None


cdef Area accept_area(int fd, uint64_t size):
    cdef Area area = Area.__new__(Area)
    try:
        if size <= HEAD or size > <uint64_t> 1 << 40 or (size - HEAD) % (2 * LINE) or not kache_area_is_whole(fd, size):
            return None
        area.map(fd, size, False)
    except MemoryError:
        return None
    finally:
        close_fd(fd)
    return area


class AreaEnd:
    """One end of an area for tests and tools: `AreaEnd.pair(room)` is both, of a router and of a shard."""

    def __init__(self, area):
        self._area = area

    @classmethod
    def pair(cls, Py_ssize_t room):
        """Two ends with rings of `room` bytes, a multiple of 64; None where there is no such memory."""
        cdef Area router = Area.__new__(Area), shard = Area.__new__(Area)
        cdef int memory = kache_area_make(area_size(room))
        if memory < 0:
            return None
        try:
            router.map(memory, area_size(room), True)
            shard.map(memory, area_size(room), False)
        finally:
            close_fd(memory)
        router.allow(room)
        return cls(router), cls(shard)

    def place(self, bytes value):
        """The position of a copy of it, or None when there is no room."""
        cdef Area area = self._area
        cdef uint64_t position
        cdef char* at = area.place(len(value), &position)
        if at == NULL:
            return None
        memcpy(at, <const char*> value, len(value))
        return position

    def find(self, uint64_t position, Py_ssize_t n):
        """What lies there, or None when nothing can."""
        cdef Area area = self._area
        cdef const char* at = area.find(position, n)
        return None if at == NULL else at[:n]

    def take(self, uint64_t position, Py_ssize_t n):
        """It is not needed any more."""
        cdef Area area = self._area
        area.take(position, n)

    def allow(self, Py_ssize_t n):
        """So many bytes of each ring may be used."""
        cdef Area area = self._area
        area.allow(n)

    def give_back(self):
        """Nothing is on its way: the pages go back to the system."""
        cdef Area area = self._area
        area.give_back()

    @property
    def reached(self):
        """Bytes of both rings that were used since the pages were given back."""
        cdef Area area = self._area
        return area.reached
