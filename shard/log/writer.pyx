"""Writer: frames on their way to disk, and what is known of how far they have come.

    the loop ──add, push──► blocks ──► writer thread ──► write ─────────► `written`
                  │                          └─ always, base: and sync ─► `durable`
                  └─ everysec, no: by itself, if nothing waits
                                     syncer thread ── everysec, or when asked ─► `durable`

Owns the open files of one stream, its queue and two threads (drain.pxi, threads.pxi), which run without the GIL and tell the loop through a pipe. The
loop adds the frames of a tick and pushes them; it never waits for a disk, but for a write that usually is a copy into the page
cache, and only while those take less than a millisecond. Promises: frames are written in their order, `written` and `durable`
never pass over one, a file is synced before `durable` reaches into the next, and one that has failed is never touched again:
after a failed sync the next one says nothing (Linux marks the pages clean).

A file that ends gets an END frame, is synced, cut to its length (what was reserved is given back) and closed, by whoever syncs.

Room is reserved ahead in steps, as zeros at the end of the file, so that a sync has only frames to write and no size (a
journal's commit less, a fifth to a third of its time), and a full disk is met before a frame needs it: `TROUBLE_FULL` while there is no more;
what was added is kept and written when there is room again. A frame that was written in part is cut off first.
"""
import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EDQUOT, ENOMEM, ENOSPC
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from kache.wire.clock cimport monotonic_ns

from .files cimport CALL_FDATASYNC, CALL_FTRUNCATE, CALL_PWRITE, FileCalls, Files
from .format cimport FILE_HEADER, FRAME_EFFECTS, FRAME_END, FRAME_HEADER, FRAME_MARK, FRAME_SHARE, Frame, payload_check, put_frame_header, salt_of

from .files import CALLS

__all__ = ["ALWAYS", "BULK", "EVERYSEC", "NO", "TROUBLES", "Writer"]

include "threads.pxi"

NO, EVERYSEC, ALWAYS, BULK = POLICY_NO, POLICY_EVERYSEC, POLICY_ALWAYS, POLICY_BULK
TROUBLES = ("ok", "slow", "stalled", "full", "broken")

cdef enum:
    FIRST_BLOCK = 65536             # bytes of a block of a log, if its first frame does not need more
    RESERVE_STEP = 8388608          # bytes reserved at a time
    RESERVE_LOW = 4194304           # left of them when more are asked for
    UNSYNCED_MOST = 33554432        # bytes with which a sync does not wait for its second, so that none is long
    BULK_WRITE = 1048576            # bytes of a base for which its writer is woken, and of a block of it
    BULK_STEP = 8388608             # bytes of a base between two syncs
    LARGEST_HERE = 1048576          # bytes that the loop writes by itself
    MOST_FILES = 64                 # open at once: one is written, the others wait for their sync

cdef int64_t SECOND = 1000000000
cdef int64_t INLINE_NS = 1000000    # what a write may take for the loop to do the next one by itself
cdef int64_t RETRY_NS = 250000000   # between two looks for room


include "drain.pxi"


# The loop's side ----------------------------------------------------------------------------------------
cdef class Writer:
    """One stream of frames: `add` them, `push` at the end of a tick, look at `written` and `durable` when `news_fd` is readable.

    `sequence`: of the last frame of effects before the first one here, which counts as durable. `files` is the seam.
    Not thread safe: one thread calls it, its own threads excepted.
    """

    def __cinit__(self, *args, **kwargs):
        self.news_fd = self.shared.signal_fd = -1

    def __init__(self, Files files not None, int policy, uint64_t sequence=0):
        self.files = files
        self.shared.calls = &files.calls
        self.shared.mutex = kache_mutex()
        self.shared.work = kache_condition()
        self.shared.sync_work = kache_condition()
        self.shared.done = kache_condition()
        if self.shared.mutex == NULL or not (self.shared.work and self.shared.sync_work and self.shared.done):
            raise MemoryError("no memory for a writer")
        self.shared.policy = policy
        self.shared.sequence = self.shared.written = self.shared.durable = sequence
        self.news_fd, self.shared.signal_fd = os.pipe()
        os.set_blocking(self.news_fd, False)
        os.set_blocking(self.shared.signal_fd, False)

    def __dealloc__(self):
        cdef Target* target
        self.drop_queue()
        free(self.shared.spare)
        free(self.own_spare)
        while self.shared.files != NULL:
            target = self.shared.files
            self.shared.files = target.next
            free(target)
        kache_drop_mutex(self.shared.mutex)
        kache_drop_condition(self.shared.work)
        kache_drop_condition(self.shared.sync_work)
        kache_drop_condition(self.shared.done)

    # Life -----------------------------------------------------------------------------------------------
    def start(self):
        """Begins to write: both threads run from here on. Nobody waits until they do, and they keep this object alive."""
        self.shared.threads = 2
        self.writer_thread = kache_thread(writer_thread, &self.shared)
        self.syncer_thread = kache_thread(syncer_thread, &self.shared) if self.writer_thread != NULL else NULL
        if self.syncer_thread == NULL:
            self.shared.threads = self.writer_thread != NULL
            self._end_threads(None)
            raise OSError(EAGAIN, "no thread for the log")
        self.running = True
        Py_INCREF(self)

    def _end_threads(self, timeout):
        """Whether they have ended by then."""
        cdef int64_t until = -1 if timeout is None else monotonic_ns() + <int64_t> (timeout * SECOND)
        cdef int64_t left = -1
        with nogil:
            pthread_mutex_lock(self.shared.mutex)
        self.hand_in()
        with nogil:
            self.shared.stopping = True
            pthread_cond_broadcast(self.shared.work)
            pthread_cond_broadcast(self.shared.sync_work)
            while self.shared.threads:
                if until >= 0:
                    left = until - monotonic_ns()
                    if left <= 0:
                        break
                rest(&self.shared, self.shared.done, left)
            left = self.shared.threads
            unlock(&self.shared)
            if left == 0:
                kache_join(self.writer_thread)
                kache_join(self.syncer_thread)
        if left == 0:
            self.writer_thread = self.syncer_thread = NULL
        return left == 0

    def stop(self, timeout=None):
        """Writes and syncs what was added, ends both threads and closes the files. False when that took longer than
        `timeout` seconds (then the files stay open: a disk stands still)."""
        cdef Target* target
        if not self._end_threads(timeout):
            return False
        if self.running:
            self.running = False
            Py_DECREF(self)
        target = self.shared.files
        while target != NULL:
            self.shared.calls.close(self.shared.calls.self, target.fd)
            target.fd = -1
            target = target.next
        # Not known any more before they are closed: the loop may still want to hear.
        news, signal = self.news_fd, self.shared.signal_fd
        self.news_fd = self.shared.signal_fd = -1
        os.close(news)
        os.close(signal)
        return True

    def switch(self, int fd, bytes salt not None, int64_t position=FILE_HEADER):
        """What is added from here on goes to this file, which has `position` bytes; the one before ends. Takes `fd` over.
        Returns how many bytes the one before has with its END, 0 without one.

        A broken stream begins anew with it: what it had not written is dropped, and the file before is closed. BlockingIOError,
        and nothing was done, as long as a thread is in a call with that one.
        """
        cdef Target* target
        cdef int64_t ended = 0
        self.check_broken()
        target = <Target*> calloc(1, sizeof(Target))
        if target == NULL:
            raise MemoryError("no memory for a file of the log")
        target.fd = fd
        target.salt = salt_of(salt)
        target.position = target.written = position
        if self.current != NULL and not self.shared.broken_error:
            ended = self.end_file()
        pthread_mutex_lock(self.shared.mutex)
        if self.shared.broken_error:
            self.begin_anew()
        self.append_target(target)
        self.current = target
        self.shared.extending = True
        pthread_cond_signal(self.shared.work)
        pthread_mutex_unlock(self.shared.mutex)
        return ended

    cdef int check_broken(self) except -1:
        if self.shared.broken_error and (self.shared.writing or self.shared.syncing):
            raise BlockingIOError(EAGAIN, "a call on the broken file has not returned")
        return 0

    cdef int begin_anew(self) noexcept:
        """Forgets the broken files, with the mutex; no thread is in a call with them."""
        cdef Target* target
        self.drop_queue()
        while self.shared.files != NULL:
            target = self.shared.files
            self.shared.files = target.next
            self.shared.calls.close(self.shared.calls.self, target.fd)
            free(target)
        self.shared.broken_error = self.shared.full_error = 0
        self.shared.written = self.shared.durable = self.shared.sequence
        self.shared.since_ns = self.shared.later_ns = self.shared.unsynced = 0
        return 0

    cdef int append_target(self, Target* target) noexcept:
        cdef Target** end = &self.shared.files
        while end[0] != NULL:
            end = &end[0].next
        end[0] = target
        return 0

    def end_file(self):
        """The file that is written gets its END; whatever comes goes to another one. The bytes that it has then."""
        cdef int64_t ended
        cdef uint64_t payload[2]
        payload[0] = self.current.frames
        payload[1] = <uint64_t> self.current.position
        self.add(FRAME_END, self.shared.sequence, <char*> payload, sizeof(payload), 0)
        self.push()
        ended = self.current.position
        self.current = NULL
        return ended

    def set_policy(self, int policy):
        """One of NO, EVERYSEC, ALWAYS; from a stricter one on, what was written before is synced first."""
        pthread_mutex_lock(self.shared.mutex)
        self.shared.policy = policy
        self.wake()
        pthread_mutex_unlock(self.shared.mutex)

    def sync(self):
        """What was added is made durable soon, whatever the policy."""
        pthread_mutex_lock(self.shared.mutex)
        self.hand_in()
        self.shared.sync_wanted = (
            self.shared.queued > 0 or self.shared.unsynced > 0 or self.shared.durable != self.shared.sequence)
        self.shared.sync_goal = self.shared.sequence
        self.wake()
        pthread_mutex_unlock(self.shared.mutex)

    cdef int wake(self) noexcept:
        pthread_cond_signal(self.shared.work)
        pthread_cond_signal(self.shared.sync_work)
        return 0

    cdef int drop_queue(self) noexcept:
        cdef Block* block
        self.hand_in()
        while self.shared.head != NULL:
            block = self.shared.head
            self.shared.head = block.next
            free(block)
        self.shared.tail = NULL
        self.shared.queued = 0
        return 0

    # Adding -------------------------------------------------------------------------------------------
    cdef Block* room_for(self, size_t n) except NULL:
        """The block that the next n bytes go to, which nobody else knows yet."""
        cdef Block* block = self.own_tail
        cdef size_t room = block_room(&self.shared)
        if block != NULL and block.target == self.current and not block.last and block.room - block.used >= n:
            return block
        if n <= room and self.own_spare != NULL:
            block = self.own_spare
            self.own_spare = NULL
        else:
            room = max(room, n)
            block = <Block*> malloc(sizeof(Block) + room)
            if block == NULL:
                raise MemoryError("no memory for a frame of the log")
            block.room = room
        block.next = NULL
        block.target = self.current
        block.used = block.gone = 0
        block.last = False
        if self.own_tail == NULL:
            self.own_head = block
        else:
            self.own_tail.next = block
        self.own_tail = block
        return block

    cdef void hand_in(self) noexcept:
        """What was added joins the queue, in which the threads take what they find; with the mutex."""
        if self.own_head != NULL:
            if self.shared.tail == NULL:
                self.shared.head = self.own_head
            else:
                self.shared.tail.next = self.own_head
            self.shared.tail = self.own_tail
            self.shared.queued += self.own_queued
            self.own_head = self.own_tail = NULL
            self.own_queued = 0
        if self.own_spare == NULL:
            self.own_spare = self.shared.spare
            self.shared.spare = NULL

    cdef int add(self, int kind, uint64_t sequence, const char* payload, size_t n, int64_t now_ms) except -1:
        """One frame behind those that were added; written after the next `push`."""
        cdef Block* block
        cdef char* at
        cdef char[FRAME_HEADER] header
        if self.current == NULL or self.shared.broken_error:
            self.refused_frames += 1
            return 0
        self.put_header(header, kind, sequence, payload, n, now_ms)
        block = self.room_for(FRAME_HEADER + n)
        at = block_data(block) + block.used
        memcpy(at, header, FRAME_HEADER)
        memcpy(at + FRAME_HEADER, payload, n)
        block.used += FRAME_HEADER + n
        block.sequence = sequence
        block.last = kind == FRAME_END
        self.own_queued += FRAME_HEADER + n
        self.count_frame(FRAME_HEADER + n)
        return 0

    cdef void put_header(
        self, char* at, int kind, uint64_t sequence, const char* payload, size_t n, int64_t now_ms
    ) noexcept:
        """The header of the next frame of the current file."""
        cdef Frame header
        cdef uint64_t behind = sequence - kache_load_unsigned(&self.shared.durable)
        header.kind = kind
        header.flags = 0
        header.length = <uint32_t> n
        header.sequence = sequence
        header.behind = <uint32_t> min(behind, <uint64_t> 0xFFFFFFFF)
        header.now_ms = now_ms
        header.check = payload_check(&self.current.salt, payload, n)
        put_frame_header(at, &header, &self.current.salt, self.current.position)

    cdef void count_frame(self, size_t n) noexcept:
        self.current.position += n
        self.current.frames += 1
        self.shared.frames += 1
        self.shared.bytes += n

    cdef int add_effects(self, int kind, const char* payload, size_t n, int64_t now_ms) except -1:
        """A frame of effects: the next number of the sequence. Without memory nothing is added, and the stream is broken:
        what was done is not in it."""
        self.shared.sequence += 1
        try:
            return self.add(kind, self.shared.sequence, payload, n, now_ms)
        except MemoryError:
            pthread_mutex_lock(self.shared.mutex)
            break_file(&self.shared, CALL_PWRITE, -ENOMEM)
            unlock(&self.shared)
            raise

    cdef bint write_effects(self, int kind, char* payload, size_t n, int64_t now_ms) except -1:
        """`add_effects` and `push` in one, without a copy: the FRAME_HEADER bytes before the payload become its header, and
        both are written where they lie. False, and nothing was done, when it is not for the loop to write now."""
        cdef char* frame = payload - FRAME_HEADER
        cdef Target* target = self.current
        cdef int64_t size = <int64_t> n + FRAME_HEADER, began, result
        pthread_mutex_lock(self.shared.mutex)
        if (target == NULL or self.shared.head != NULL or self.own_head != NULL
                or not self.may_write_here(target, size)):
            pthread_mutex_unlock(self.shared.mutex)
            return False
        began = monotonic_ns()
        self.wait_since(began)
        # A sync that begins meanwhile does not reach it.
        self.shared.queued += size
        pthread_mutex_unlock(self.shared.mutex)
        self.shared.sequence += 1
        self.put_header(frame, kind, self.shared.sequence, payload, n, now_ms)
        self.count_frame(size)
        result = self.shared.calls.pwrite(self.shared.calls.self, target.fd, frame, size, target.written)
        pthread_mutex_lock(self.shared.mutex)
        try:
            self.written_here(target, result, monotonic_ns() - began)
            if result == size:
                kache_store_unsigned(&self.shared.written, self.shared.sequence)
                self.look_ahead(target)
            else:
                self.hand_over(frame, size, result if result > 0 else 0)
        finally:
            unlock(&self.shared)
        return True

    cdef int hand_over(self, const char* frame, int64_t size, int64_t gone) except -1:
        """A frame of which `gone` bytes are written is for the writer, which tries again and knows what to do; with the mutex."""
        cdef Block* block
        try:
            block = self.room_for(size)
        except MemoryError:
            self.shared.queued -= size - gone
            break_file(&self.shared, CALL_PWRITE, -ENOMEM)
            raise
        memcpy(block_data(block), frame, size)
        block.used = size
        block.gone = gone
        block.sequence = self.shared.sequence
        self.hand_in()
        self.shared.handed_writes += 1
        pthread_cond_signal(self.shared.work)
        return 0

    def mark(self, int64_t now_ms):
        """A MARK, if everything is durable and no frame says so yet: nothing came since the last sync."""
        if self.marked != self.shared.sequence and kache_load_unsigned(&self.shared.durable) == self.shared.sequence:
            self.marked = self.shared.sequence
            self.add(FRAME_MARK, self.shared.sequence, NULL, 0, now_ms)
            self.push()

    def put(self, int kind, bytes payload not None, int64_t now_ms=0):
        """Adds and pushes a frame; for tests and for what is rare. Effects get the next number."""
        if kind == FRAME_EFFECTS or kind == FRAME_SHARE:
            self.add_effects(kind, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), now_ms)
        else:
            self.add(kind, self.shared.sequence, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), now_ms)
        self.push()

    cdef int push(self) noexcept:
        """What was added leaves for the disk: by this thread if that costs next to nothing, else by the writer."""
        cdef int64_t now = monotonic_ns()
        cdef Block* block
        cdef bint wake = False
        if self.shared.policy == POLICY_BULK and self.own_queued < BULK_WRITE:
            # Nobody waits for a base, and whoever is woken takes the core for a while, of the loop as likely as of another.
            return 0
        if self.shared.policy != POLICY_BULK or self.own_queued >= 4 * BULK_WRITE:
            pthread_mutex_lock(self.shared.mutex)
        elif pthread_mutex_trylock(self.shared.mutex) != 0:
            # A thread that has the mutex may have lost its core: it comes with the next push.
            return 0
        self.hand_in()
        if self.shared.head != NULL:
            self.wait_since(now)
            block = self.shared.head
            if block.next != NULL or not self.may_write_here(block.target, block.used) or not self.write_here():
                self.shared.handed_writes += 1
                wake = True
        unlock(&self.shared)
        if wake:
            pthread_cond_signal(self.shared.work)
        return 0

    cdef void wait_since(self, int64_t now) noexcept:
        """Something is there that is not durable; with the mutex."""
        if self.shared.since_ns == 0:
            self.shared.since_ns = now
            # It sleeps as long as everything is durable.
            pthread_cond_signal(self.shared.sync_work)
        if self.shared.later_ns == 0 and self.shared.syncing:
            self.shared.later_ns = now

    cdef bint may_write_here(self, Target* target, size_t n) noexcept:
        """Whether it costs next to nothing to write n bytes now, before which nothing waits; with the mutex."""
        return (
            self.shared.policy <= POLICY_EVERYSEC and not self.shared.writing
            and not self.shared.syncing and self.shared.write_ns < INLINE_NS and self.shared.full_error == 0
            and self.shared.broken_error == 0 and n < LARGEST_HERE
            and (target.reserved < 0 or target.reserved >= target.written + <int64_t> n)
        )

    cdef void written_here(self, Target* target, int64_t n, int64_t took) noexcept:
        """What a write of the loop has come to; with the mutex."""
        self.shared.write_ns = took
        if n > 0:
            target.written += n
            target.dirty = True
            self.shared.unsynced += n
            self.shared.queued -= n

    cdef void look_ahead(self, Target* target) noexcept:
        """Behind a write of the loop: whether a thread has something to do soon; with the mutex."""
        self.shared.inline_writes += 1
        if target.reserved >= 0 and target.reserved - target.written < RESERVE_LOW and not self.shared.extending:
            self.shared.extending = True
            pthread_cond_signal(self.shared.work)
        if self.shared.unsynced >= UNSYNCED_MOST and self.shared.policy == POLICY_EVERYSEC:
            pthread_cond_signal(self.shared.sync_work)

    cdef bint write_here(self) noexcept:
        """Writes the only block, with the mutex, which is given back meanwhile. False: something is left for the writer."""
        cdef Block* block = self.shared.head
        cdef Target* target = block.target
        cdef int64_t began = monotonic_ns(), result
        self.shared.head = self.shared.tail = NULL
        pthread_mutex_unlock(self.shared.mutex)
        result = self.shared.calls.pwrite(
            self.shared.calls.self, target.fd, block_data(block) + block.gone, block.used - block.gone, target.written)
        pthread_mutex_lock(self.shared.mutex)
        self.written_here(target, result, monotonic_ns() - began)
        if result > 0:
            block.gone += <size_t> result
        if block.gone < block.used:
            # Whatever it was: the writer tries again, and knows what to do.
            self.shared.head = self.shared.tail = block
            return False
        kache_store_unsigned(&self.shared.written, block.sequence)
        if block.last:
            target.ended = True
        drop_block(&self.shared, block)
        self.look_ahead(target)
        return True

    # What is known --------------------------------------------------------------------------------------
    cdef uint64_t released(self) noexcept:
        """The last frame that replies need not wait for any more."""
        if self.shared.policy == POLICY_ALWAYS:
            return kache_load_unsigned(&self.shared.durable)
        return kache_load_unsigned(&self.shared.written)

    cdef bint idle(self) noexcept:
        """Whether nothing is on its way: neither to be written nor, if the policy syncs, to be synced."""
        return self.own_queued + self.shared.queued == 0 and kache_load(&self.shared.call_ns) == 0 and self.shared.full_error == 0 and (
            self.shared.policy == POLICY_NO or kache_load_unsigned(&self.shared.durable) == self.shared.sequence)

    @property
    def settled(self):
        """Whether every byte that was added is durable."""
        pthread_mutex_lock(self.shared.mutex)
        cdef bint busy = self.own_queued or self.shared.queued or self.shared.unsynced or self.shared.syncing or self.shared.writing
        pthread_mutex_unlock(self.shared.mutex)
        return not busy and not self.shared.broken_error

    cdef int trouble(self, int64_t lag_ns, int64_t most_queued, int64_t stall_ns) noexcept:
        """What keeps frames from the disk now (NO_TROUBLE, …), for these limits."""
        cdef int64_t now = monotonic_ns(), call_ns = kache_load(&self.shared.call_ns)
        cdef int64_t since
        if self.shared.broken_error:
            return TROUBLE_BROKEN
        if self.shared.full_error:
            return TROUBLE_FULL
        if call_ns and now - call_ns > stall_ns:
            return TROUBLE_STALLED
        since = self.shared.since_ns
        if self.shared.queued > most_queued or (self.shared.policy == POLICY_EVERYSEC and since and now - since > lag_ns):
            return TROUBLE_SLOW
        return NO_TROUBLE

    def troubled(self, int64_t lag_ns, int64_t most_queued, int64_t stall_ns):
        """The number of the trouble among TROUBLES."""
        return self.trouble(lag_ns, most_queued, stall_ns)

    def hear(self):
        """The news were read: call it when `news_fd` is readable, before looking."""
        cdef char[64] ignored
        while read_fd(self.news_fd, ignored, sizeof(ignored)) == sizeof(ignored):
            pass
        # What was told before this is seen by who looks after it; what comes later is told anew.
        kache_exchange(&self.shared.signalled, 0)

    @property
    def news(self):
        """The descriptor that becomes readable when something was written or synced, or has failed."""
        return self.news_fd

    @property
    def failure(self):
        """(name of the call, errno) of what has failed, or ("", 0)."""
        if self.shared.broken_error:
            return CALLS[self.shared.broken_call], self.shared.broken_error
        return ("fallocate", self.shared.full_error) if self.shared.full_error else ("", 0)

    @property
    def sequence(self):
        """Of the last frame of effects that was added."""
        return self.shared.sequence

    @property
    def written(self):
        return kache_load_unsigned(&self.shared.written)

    @property
    def durable(self):
        return kache_load_unsigned(&self.shared.durable)

    @property
    def queued(self):
        """Bytes that are not written."""
        return self.own_queued + self.shared.queued

    @property
    def position(self):
        """Bytes of the current file, those on their way included."""
        return self.current.position if self.current != NULL else 0

    @property
    def policy(self):
        return self.shared.policy

    def figures(self):
        """{name: number} for INFO."""
        return {
            "bytes": self.shared.bytes, "frames": self.shared.frames, "syncs": self.shared.syncs,
            "written_by_loop": self.shared.inline_writes, "written_by_thread": self.shared.handed_writes,
            "last_sync_us": self.shared.last_sync_ns // 1000, "longest_sync_us": self.shared.longest_sync_ns // 1000,
        }
