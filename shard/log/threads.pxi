# What a Writer's threads are made of: threads that know nothing of Python, a mutex, conditions by a clock that nobody sets,
# and the numbers that both sides read without the mutex.
#
# Handles are pointers, so that writer.pxd need not know what a system keeps in them. See the top of writer.pyx.

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <pthread.h>
    #include <sched.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <sys/resource.h>
    #include <time.h>
    #include <unistd.h>
    static void *kache_mutex(void) {
        pthread_mutex_t *mutex = malloc(sizeof(pthread_mutex_t));
        if (mutex) pthread_mutex_init(mutex, NULL);
        return mutex;
    }
    static void *kache_condition(void) {
        pthread_cond_t *condition = malloc(sizeof(pthread_cond_t));
        pthread_condattr_t attributes;
        if (condition && pthread_condattr_init(&attributes) == 0) {
    #ifndef __APPLE__
            pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    #endif
            pthread_cond_init(condition, &attributes);
            pthread_condattr_destroy(&attributes);
        }
        return condition;
    }
    static void kache_drop_mutex(void *mutex) { if (mutex) { pthread_mutex_destroy(mutex); free(mutex); } }
    static void kache_drop_condition(void *c) { if (c) { pthread_cond_destroy(c); free(c); } }
    /* Never by the wall clock: when that is set back by an hour, a second would last as long, and nothing be synced meanwhile. */
    static void kache_wait(void *condition, void *mutex, int64_t ns) {
        struct timespec until = {0, 0};
        if (ns < 0) { pthread_cond_wait(condition, mutex); return; }
    #ifdef __APPLE__
        until.tv_sec = ns / 1000000000;
        until.tv_nsec = ns % 1000000000;
        pthread_cond_timedwait_relative_np(condition, mutex, &until);
    #else
        clock_gettime(CLOCK_MONOTONIC, &until);
        ns += until.tv_nsec;
        until.tv_sec += ns / 1000000000;
        until.tv_nsec = ns % 1000000000;
        pthread_cond_timedwait(condition, mutex, &until);
    #endif
    }
    static int64_t kache_load(int64_t *from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
    static void kache_store(int64_t *to, int64_t value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }
    static uint64_t kache_load_unsigned(uint64_t *from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
    static int kache_exchange(int *to, int value) { return __atomic_exchange_n(to, value, __ATOMIC_ACQ_REL); }
    /* A thread that knows nothing of Python; NULL when there is none to be had. */
    static void *kache_thread(void *(*work)(void *), void *argument) {
        pthread_t *thread = malloc(sizeof(pthread_t));
        if (thread && pthread_create(thread, NULL, work, argument)) { free(thread); thread = NULL; }
        return thread;
    }
    /* The calling thread lets others go first: it takes the core from nobody when it is woken. */
    static void kache_stand_back(void) {
    #ifdef __linux__
        struct sched_param none = {0};
        sched_setscheduler(0, SCHED_BATCH, &none);
        setpriority(PRIO_PROCESS, 0, 10);
    #endif
    }
    static void kache_join(void *thread) { if (thread) { pthread_join(*(pthread_t *) thread, NULL); free(thread); } }
    static void kache_store_unsigned(uint64_t *to, uint64_t value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }
    """
    void* kache_mutex() noexcept nogil
    void* kache_condition() noexcept nogil
    void kache_drop_mutex(void* mutex) noexcept nogil
    void kache_drop_condition(void* condition) noexcept nogil
    void kache_wait(void* condition, void* mutex, int64_t ns) noexcept nogil
    int pthread_mutex_lock(void* mutex) noexcept nogil
    int pthread_mutex_trylock(void* mutex) noexcept nogil
    int pthread_mutex_unlock(void* mutex) noexcept nogil
    int pthread_cond_signal(void* condition) noexcept nogil
    int pthread_cond_broadcast(void* condition) noexcept nogil
    int kache_exchange(int* to, int value) noexcept nogil
    void* kache_thread(void* (*work)(void*) noexcept nogil, void* argument) noexcept
    void kache_stand_back() noexcept nogil
    void kache_join(void* thread) noexcept nogil
    int64_t kache_load(int64_t* source) noexcept nogil
    void kache_store(int64_t* to, int64_t value) noexcept nogil
    uint64_t kache_load_unsigned(uint64_t* source) noexcept nogil
    void kache_store_unsigned(uint64_t* to, uint64_t value) noexcept nogil
    ssize_t read_fd "read"(int fd, void* data, size_t n) noexcept nogil
    ssize_t write_fd "write"(int fd, const void* data, size_t n) noexcept nogil
