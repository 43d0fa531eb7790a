/* The least that any server of a shape can do: the yardstick beside the real contenders.
 *
 *   limit one PORT        one hop:  count the requests of `redis-benchmark -t set`, answer +OK for each
 *   limit two PORT N      two hops: the same, but the requests travel to N backends over Unix sockets,
 *                         are counted there, and the answers come back through the front process
 *
 * No parsing, no keys, no memory: what separates a real cache from these numbers is its own cost. A
 * request of `redis-benchmark -t set` holds exactly one '*', so counting that byte counts requests, also
 * when a read ends in the middle of one. A backend answers five bytes ("+OK\r\n") per request, so the
 * front knows from the number of bytes how many replies came, and a FIFO per backend says for whom.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

enum {
    REPLY = 5,              /* bytes of "+OK\r\n" */
    READ_SIZE = 1 << 18,
    MAX_BACKENDS = 64,
    MAX_FDS = 65536,
    FIFO_SIZE = 1 << 16,    /* runs in flight per backend, a power of two */
    BATCH = 256,
    REPLIES = 1 << 14       /* answers in the prepared block */
};

struct run { int client; int count; };

struct backend {
    int fd;
    struct run fifo[FIFO_SIZE];
    unsigned head, tail;
    char *out;              /* requests gathered in this iteration */
    size_t used, capacity;
    size_t partial;         /* bytes of an incomplete reply already received */
};

static char block[REPLIES * REPLY];
static char input[READ_SIZE];
static struct backend *backends;
static int backend_count;
static int owed[MAX_FDS];   /* answers to be written to each client at the end of the iteration */
static int touched[MAX_FDS], touched_count;

static void fail(const char *what) {
    fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t wrote = write(fd, data, size);
        if (wrote < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) return;        /* the peer is gone; its close is seen by the reader */
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, 1000);
            continue;
        }
        data += wrote;
        size -= (size_t)wrote;
    }
}

static void write_answers(int fd, int count) {
    while (count > 0) {
        int now = count > REPLIES ? REPLIES : count;
        write_all(fd, block, (size_t)now * REPLY);
        count -= now;
    }
}

static int count_requests(const char *data, ssize_t size) {
    int count = 0;
    for (ssize_t i = 0; i < size; i++) count += data[i] == '*';
    return count;
}

static void serve_backend(int fd) {
    for (;;) {
        ssize_t got = read(fd, input, sizeof input);
        if (got <= 0) _exit(0);
        write_answers(fd, count_requests(input, got));
    }
}

static void gather(struct backend *to, const char *data, size_t size) {
    if (to->used + size > to->capacity) {
        to->capacity = (to->used + size) * 2;
        to->out = realloc(to->out, to->capacity);
        if (!to->out) fail("realloc");
    }
    memcpy(to->out + to->used, data, size);
    to->used += size;
}

static void watch(int epoll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (void *)&address, sizeof address) < 0) fail("bind");
    if (listen(fd, 511) < 0) fail("listen");
    return fd;
}

static void start_backends(int count) {
    backends = calloc((size_t)count, sizeof *backends);
    backend_count = count;
    for (int i = 0; i < count; i++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) fail("socketpair");
        pid_t pid = fork();
        if (pid < 0) fail("fork");
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(pair[0]);
            serve_backend(pair[1]);
        }
        close(pair[1]);
        fcntl(pair[0], F_SETFL, O_NONBLOCK);
        backends[i].fd = pair[0];
    }
}

static void owe(int client, int count) {
    if (!owed[client]) touched[touched_count++] = client;
    owed[client] += count;
}

static void on_replies(struct backend *from, ssize_t size) {
    size_t bytes = from->partial + (size_t)size;
    int count = (int)(bytes / REPLY);
    from->partial = bytes % REPLY;
    while (count > 0 && from->head != from->tail) {
        struct run *first = &from->fifo[from->head & (FIFO_SIZE - 1)];
        int now = first->count < count ? first->count : count;
        owe(first->client, now);
        first->count -= now;
        count -= now;
        if (!first->count) from->head++;
    }
}

static void on_requests(int client, ssize_t size) {
    int count = count_requests(input, size);
    if (!backend_count) {
        write_answers(client, count);
        return;
    }
    struct backend *to = &backends[client % backend_count];
    gather(to, input, (size_t)size);
    if (count) to->fifo[to->tail++ & (FIFO_SIZE - 1)] = (struct run){client, count};
}

int main(int argc, char **argv) {
    if (argc < 3 || (strcmp(argv[1], "one") && (strcmp(argv[1], "two") || argc < 4))) {
        fprintf(stderr, "usage: limit one PORT | limit two PORT BACKENDS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < REPLIES; i++) memcpy(block + i * REPLY, "+OK\r\n", REPLY);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!strcmp(argv[1], "two")) {
        int count = atoi(argv[3]);
        if (count < 1 || count > MAX_BACKENDS) { fprintf(stderr, "limit: 1 to %d backends\n", MAX_BACKENDS); return 2; }
        start_backends(count);
        for (int i = 0; i < count; i++) watch(epoll, backends[i].fd);
    }
    int listener = listen_on(atoi(argv[2]));
    watch(epoll, listener);
    struct epoll_event events[BATCH];
    for (;;) {
        int ready = epoll_wait(epoll, events, BATCH, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK), one = 1;
                if (client < 0 || client >= MAX_FDS) continue;
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                watch(epoll, client);
                continue;
            }
            struct backend *from = NULL;
            for (int k = 0; k < backend_count; k++) if (backends[k].fd == fd) from = &backends[k];
            ssize_t got = read(fd, input, sizeof input);
            if (got <= 0) { if (!from) close(fd); continue; }
            if (from) on_replies(from, got); else on_requests(fd, got);
        }
        for (int i = 0; i < touched_count; i++) { write_answers(touched[i], owed[touched[i]]); owed[touched[i]] = 0; }
        touched_count = 0;
        for (int k = 0; k < backend_count; k++) if (backends[k].used) { write_all(backends[k].fd, backends[k].out, backends[k].used); backends[k].used = 0; }
    }
}
