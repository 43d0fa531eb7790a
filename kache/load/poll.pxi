# Waiting for many descriptors: epoll on Linux, poll elsewhere (and in the tests, so that it is tested).
cdef extern from *:
    """
    #include <errno.h>
    #include <poll.h>
    #include <stdlib.h>
    #include <sys/socket.h>
    #include <time.h>
    #include <unistd.h>
    #ifdef __linux__
    #include <sys/epoll.h>
    #endif
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif

    enum { READABLE = 1, WRITABLE = 2 };

    /* Connections are known by their index; fds[i].fd is -1 where there is none, which poll() skips. */
    typedef struct { int epoll; int count; struct pollfd* fds; int next; } Poller;

    static int64_t clock_ns(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
    }

    static int poller_open(Poller* self, int count, int portable) {
        self->epoll = -1;
        self->next = 0;
        self->count = count;
        self->fds = malloc(sizeof(struct pollfd) * (count ? count : 1));
        if (!self->fds) return -1;
        for (int i = 0; i < count; i++) self->fds[i].fd = -1;
    #ifdef __linux__
        if (!portable) {
            self->epoll = epoll_create1(EPOLL_CLOEXEC);
            if (self->epoll < 0) return -1;
        }
    #endif
        return 0;
    }

    static void poller_close(Poller* self) {
        if (self->epoll >= 0) close(self->epoll);
        free(self->fds);
        self->epoll = -1;
        self->fds = NULL;
        self->count = 0;
    }

    static int poller_watch(Poller* self, int index, int fd, int writing) {
        int known = self->fds[index].fd == fd;
        self->fds[index].fd = fd;
        self->fds[index].events = POLLIN | (writing ? POLLOUT : 0);
    #ifdef __linux__
        if (self->epoll >= 0) {
            struct epoll_event event;
            event.events = EPOLLIN | (writing ? EPOLLOUT : 0);
            event.data.u64 = index;
            return epoll_ctl(self->epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
        }
    #endif
        (void) known;
        return 0;
    }

    /* Closing the descriptor takes it out of the epoll set. */
    static void poller_forget(Poller* self, int index) { self->fds[index].fd = -1; }

    static int poller_wait(Poller* self, int64_t timeout_ns, int* indexes, int* flags, int room) {
        int n = 0, ms = timeout_ns <= 0 ? 0 : (int) (timeout_ns / 1000000);
    #ifdef __linux__
        if (self->epoll >= 0) {
            struct epoll_event events[256];
            if (timeout_ns > 0 && timeout_ns < 5000000) {
                /* epoll_wait knows only milliseconds: too coarse for a schedule of requests. */
                struct pollfd one = { self->epoll, POLLIN, 0 };
                struct timespec left = { 0, (long) timeout_ns };
                if (ppoll(&one, 1, &left, NULL) <= 0) return 0;
                ms = 0;
            }
            int found = epoll_wait(self->epoll, events, room < 256 ? room : 256, ms);
            for (; n < found; n++) {
                indexes[n] = (int) events[n].data.u64;
                flags[n] = (events[n].events & ~EPOLLOUT ? READABLE : 0) | (events[n].events & EPOLLOUT ? WRITABLE : 0);
            }
            return n;
        }
    #endif
        if (poll(self->fds, self->count, ms) <= 0) return 0;
        /* Goes on where the last call stopped, so that a full result array starves nobody. */
        for (int seen = 0; seen < self->count && n < room; seen++) {
            int i = self->next;
            self->next = (self->next + 1) % self->count;
            if (self->fds[i].fd < 0 || !self->fds[i].revents) continue;
            indexes[n] = i;
            flags[n++] = (self->fds[i].revents & ~POLLOUT ? READABLE : 0) | (self->fds[i].revents & POLLOUT ? WRITABLE : 0);
        }
        return n;
    }

    static ssize_t socket_send(int fd, const char* data, size_t size) { return send(fd, data, size, MSG_NOSIGNAL); }
    static int try_again(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }
    """
    enum: READABLE, WRITABLE
    ctypedef struct Poller:
        pass
    int64_t clock_ns() noexcept nogil
    int poller_open(Poller* self, int count, int portable) noexcept nogil
    void poller_close(Poller* self) noexcept nogil
    int poller_watch(Poller* self, int index, int fd, int writing) noexcept nogil
    void poller_forget(Poller* self, int index) noexcept nogil
    int poller_wait(Poller* self, int64_t timeout_ns, int* indexes, int* flags, int room) noexcept nogil
    Py_ssize_t socket_send(int fd, const char* data, size_t size) noexcept nogil
    int try_again() noexcept nogil
