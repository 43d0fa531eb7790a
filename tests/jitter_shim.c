/* Rests of up to 12 ms before and behind some of the calls by which a process of a cluster tells others something.

   To be preloaded; the variable TEST_JITTER_SEED seeds it. Between two such calls lies what a process has said to one and
   not yet to another: a pause from outside hardly ever falls there. What is not a process of a cluster, by its title, goes on
   at once. At most a third of a process's time is spent resting, so that tests which send much remain possible. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define ONE_IN 24
#define LONGEST_NS 12000000
#define LOOKS 400 /* calls until it is clear that a process will have no such title */

static __thread uint64_t state;
static int looks, is_meant, pid;
static uint64_t seed, began, rested;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t) time.tv_sec * 1000000000 + (uint64_t) time.tv_nsec;
}

static void look(void) {
    char title[16] = "";
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (read(fd, title, 7) == 7 && !memcmp(title, "kache: ", 7)) is_meant = 1;
    close(fd);
}

static void rest(void) {
    uint64_t length;
    struct timespec time = {0, 0};
    if (pid != getpid()) {
        const char *text = getenv("TEST_JITTER_SEED");
        pid = getpid();
        seed = text ? strtoull(text, NULL, 10) : 0;
        looks = 0;
        rested = 0;
        began = now();
        state = 0;
    }
    if (!is_meant) {
        if (looks < LOOKS && looks++ % 8 == 0) look();
        return;
    }
    if (!state) state = (seed + 1) * 0x9E3779B97F4A7C15u ^ (uint64_t) (uintptr_t) &state ^ (uint64_t) pid << 32;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    if (state % ONE_IN || rested > (now() - began) / 3 + 20000000) return;
    length = (state >> 32) % LONGEST_NS;
    rested += length;
    time.tv_nsec = (long) length;
    nanosleep(&time, NULL);
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name)) dlsym(RTLD_NEXT, #name)

#define WITH_RESTS(call) \
    ssize_t result; \
    int error; \
    rest(); \
    result = call; \
    error = errno; \
    rest(); \
    errno = error; \
    return result

ssize_t send(int fd, const void *data, size_t n, int flags) {
    REAL(send);
    WITH_RESTS(real(fd, data, n, flags));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    REAL(sendmsg);
    WITH_RESTS(real(fd, message, flags));
}

ssize_t write(int fd, const void *data, size_t n) {
    REAL(write);
    if (fd <= 2) return real(fd, data, n);
    WITH_RESTS(real(fd, data, n));
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev);
    WITH_RESTS(real(fd, parts, n));
}

ssize_t recv(int fd, void *data, size_t n, int flags) {
    REAL(recv);
    WITH_RESTS(real(fd, data, n, flags));
}
