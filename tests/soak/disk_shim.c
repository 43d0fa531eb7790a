/* A disk that stops: while the first byte of the file KACHE_TEST_DISK is not zero, what syncs a regular file waits, and what
   writes to a place of one while such a sync waits; with 2 every such write does, as on a file system that is frozen whole.

   To be preloaded into the processes of a cluster. What is written at the end of a file, as messages are, goes on, and so do
   pipes, sockets, and memory that is shared by descriptors. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static const volatile unsigned char *frozen;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("KACHE_TEST_DISK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd >= 0 ? mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    frozen = page == MAP_FAILED ? NULL : page;
    if (fd >= 0) close(fd);
}

static int syncs;

static int is_kept(int fd) {
    struct stat about;
    return frozen && *frozen && !fstat(fd, &about) && S_ISREG(about.st_mode) && about.st_nlink != 0;
}

static void wait_while(int fd, int sync) {
    const struct timespec moment = {0, 2000000};
    if (!is_kept(fd)) return;
    if (sync) __atomic_add_fetch(&syncs, 1, __ATOMIC_ACQ_REL);
    while (*frozen && (sync || *frozen == 2 || __atomic_load_n(&syncs, __ATOMIC_ACQUIRE))) nanosleep(&moment, NULL);
    if (sync) __atomic_sub_fetch(&syncs, 1, __ATOMIC_ACQ_REL);
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name)) dlsym(RTLD_NEXT, #name)

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    wait_while(fd, 0);
    return real(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    wait_while(fd, 0);
    return real(fd, data, size, at);
}


int fdatasync(int fd) {
    REAL(fdatasync);
    wait_while(fd, 1);
    return real(fd);
}

int fsync(int fd) {
    REAL(fsync);
    wait_while(fd, 1);
    return real(fd);
}
