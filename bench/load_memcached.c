/* Load for memcached in the manner of redis-benchmark, which does not speak its protocol.
 *
 *   load_memcached PORT set|get [-c CONNECTIONS] [-P PIPELINE] [-n REQUESTS] [-r KEYS] [-d BYTES]
 *
 * Each connection sends PIPELINE requests at once, awaits all their replies, and sends the next. A request's
 * latency runs from the write of its pipeline to the read that brought its reply. Keys have 16 bytes, as those of
 * redis-benchmark: "key:" and a random number below KEYS. Prints one line: rps, percentiles in milliseconds, hits.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_SIZE = 1 << 18, EVENTS = 256, LINE = 128, REQUEST_EXTRA = 64, IDLE_MS = 20000 };

struct connection {
    int fd;
    char *out;              /* the requests of a pipeline */
    size_t length, sent;
    int blocked;            /* waits until the socket takes more */
    long awaited;           /* replies to come */
    uint64_t begun;
    char line[LINE];        /* a reply's line that a read ended in */
    size_t line_length;
    size_t skip;            /* bytes of a value still to come */
};

static long connections = 50, pipeline = 1, requests = 100000, keys = 100000, size = 32;
static int setting;
static char *value, input[READ_SIZE];
static uint32_t *latencies; /* microseconds */
static long issued, answered, hits;
static uint64_t state = 88172645463325252ull;

static void fail(const char *what) {
    fprintf(stderr, "load_memcached: %s: %s\n", what, errno ? strerror(errno) : "unexpected");
    exit(1);
}

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t draw(void) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static void flush(struct connection *c, int epoll) {
    while (c->sent < c->length) {
        ssize_t n = write(c->fd, c->out + c->sent, c->length - c->sent);
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) fail("write");
        c->sent += (size_t)n;
    }
    int blocked = c->sent < c->length;
    if (blocked != c->blocked) {
        struct epoll_event event = {.events = blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event)) fail("epoll_ctl");
        c->blocked = blocked;
    }
}

/* Writes the next pipeline; nothing once all requests are out. */
static void send_pipeline(struct connection *c, int epoll) {
    char *at = c->out;
    for (c->awaited = 0; c->awaited < pipeline && issued < requests; c->awaited++, issued++) {
        unsigned long key = draw() % (unsigned long)keys;
        if (setting) {
            at += sprintf(at, "set key:%012lu 0 0 %ld\r\n", key, size);
            memcpy(at, value, (size_t)size + 2);
            at += size + 2;
        } else {
            at += sprintf(at, "get key:%012lu\r\n", key);
        }
    }
    c->length = (size_t)(at - c->out);
    c->sent = 0;
    c->begun = now_us();
    if (c->awaited) flush(c, epoll);
}

static void replied(struct connection *c, uint64_t now) {
    latencies[answered++] = (uint32_t)(now - c->begun);
    c->awaited--;
}

/* One whole line of a reply, without its end. */
static void take_line(struct connection *c, const char *line, uint64_t now) {
    unsigned long bytes;
    if (setting && !strcmp(line, "STORED")) {
        replied(c, now);
    } else if (!setting && !strcmp(line, "END")) {
        replied(c, now);
    } else if (!setting && sscanf(line, "VALUE %*s %*u %lu", &bytes) == 1) {
        hits++;
        c->skip = bytes + 2;
    } else {
        errno = 0;
        fail(line);
    }
}

static void receive(struct connection *c, int epoll) {
    ssize_t n = read(c->fd, input, sizeof input);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) fail("read");
    uint64_t now = now_us();
    for (char *at = input, *end = input + n; at < end;) {
        if (c->skip) {
            size_t step = c->skip < (size_t)(end - at) ? c->skip : (size_t)(end - at);
            c->skip -= step;
            at += step;
            continue;
        }
        char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t part = (size_t)((stop ? stop : end) - at);
        if (c->line_length + part >= LINE) fail("a reply's line is too long");
        memcpy(c->line + c->line_length, at, part);
        c->line_length += part;
        at += part + (stop != NULL);
        if (stop) {
            c->line[c->line_length - (c->line_length && c->line[c->line_length - 1] == '\r')] = 0;
            c->line_length = 0;
            take_line(c, c->line, now);
        }
    }
    if (!c->awaited) send_pipeline(c, epoll);
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double percent) {
    return latencies[(long)((double)(requests - 1) * percent / 100)] / 1000.0;
}

int main(int argc, char **argv) {
    int option, one = 1;
    while ((option = getopt(argc, argv, "c:P:n:r:d:")) != -1) {
        long number = option == '?' ? 0 : atol(optarg);
        if (number < 1) return 2;
        *(option == 'c' ? &connections : option == 'P' ? &pipeline : option == 'n' ? &requests
          : option == 'r' ? &keys : &size) = number;
    }
    if (argc - optind != 2) return 2;
    setting = !strcmp(argv[optind + 1], "set");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[optind]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    latencies = malloc((size_t)requests * sizeof *latencies);
    value = malloc((size_t)size + 2);
    struct connection *all = calloc((size_t)connections, sizeof *all);
    if (!latencies || !value || !all) fail("memory");
    memset(value, 'x', (size_t)size);
    memcpy(value + size, "\r\n", 2);
    int epoll = epoll_create1(0);
    for (long i = 0; i < connections; i++) {
        struct connection *c = &all[i];
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        c->out = malloc((size_t)pipeline * ((setting ? (size_t)size : 0) + REQUEST_EXTRA));
        if (!c->out || connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl");
    }
    uint64_t begun = now_us();
    for (long i = 0; i < connections; i++) send_pipeline(&all[i], epoll);
    while (answered < requests) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, IDLE_MS);
        if (count == 0) errno = ETIMEDOUT;
        if (count <= 0) fail("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) flush(c, epoll);
            if (events[i].events & ~(unsigned)EPOLLOUT) receive(c, epoll);
        }
    }
    double seconds = (double)(now_us() - begun) / 1e6;
    qsort(latencies, (size_t)requests, sizeof *latencies, ascending);
    printf("rps=%.2f p50=%.3f p95=%.3f p99=%.3f p999=%.3f max=%.3f hits=%ld\n", (double)requests / seconds,
           percentile(50), percentile(95), percentile(99), percentile(99.9), percentile(100), hits);
    return 0;
}
