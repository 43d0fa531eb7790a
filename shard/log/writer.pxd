"""One stream of frames on its way to disk; see writer.pyx."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from .files cimport FileCalls, Files
from .format cimport Salt

cdef enum Policy:
    # When what was written is made durable. The first three are those of appendfsync.
    POLICY_NO = 0
    POLICY_EVERYSEC = 1
    POLICY_ALWAYS = 2
    POLICY_BULK = 3             # a base: by the threads alone, in long stretches

cdef enum Trouble:
    # What keeps frames from reaching the disk; in the order of how bad it is.
    NO_TROUBLE = 0
    TROUBLE_SLOW = 1
    TROUBLE_STALLED = 2
    TROUBLE_FULL = 3
    TROUBLE_BROKEN = 4

cdef struct Target:
    # A file that is written.
    Target* next
    int fd
    Salt salt
    int64_t position            # where the next frame goes: of the loop
    uint64_t frames             # in it: of the loop
    int64_t written             # bytes that have been: the rest is the threads' too
    int64_t reserved            # bytes the file system has promised; 0: none yet, -1: it makes no promises
    bint dirty                  # written since the last sync
    bint ended                  # its END is written; closed by the next sync

cdef struct Block:
    # Whole frames that follow one another in one file.
    Block* next
    Target* target
    size_t room, used, gone     # bytes it may have, has, and that are written already
    uint64_t sequence           # that is written when it is
    bint last                   # of its file

cdef struct Shared:
    # What the loop and both threads see: under the mutex, where nothing else is said.
    FileCalls* calls
    void* mutex
    void* work                  # condition: for the writer
    void* sync_work             # condition: for the syncer
    void* done                  # condition: a sync has ended
    int signal_fd               # written to when there are news for the loop
    int signalled               # it was, and the loop has not heard yet; atomic
    int policy
    bint stopping
    Block* head
    Block* tail
    Block* spare                # one empty block that is kept
    int64_t queued              # bytes in the blocks
    Target* files               # oldest first; the last one is written
    bint writing                # somebody is in a write
    bint syncing
    bint sync_wanted            # without waiting for its second,
    uint64_t sync_goal          # once this frame is written
    bint extending              # more room is to be reserved
    uint64_t sequence           # of the last frame of effects that was added
    uint64_t written, durable   # of the last one that was
    int64_t unsynced            # bytes written since the last sync began
    int64_t since_ns            # when the oldest frame was added that is not durable; 0: none
    int64_t later_ns            # the same of those behind the sync that runs
    int64_t call_ns             # when the call began that a thread is in; 0: in none
    int64_t sync_began_ns       # the last one
    int64_t write_ns            # how long the last write took
    int full_error              # errno of what cannot be reserved or written for want of room; 0: there is room
    int broken_error            # errno of what failed for good
    int broken_call             # CALL_…
    # Statistics
    uint64_t bytes, frames, syncs, inline_writes, handed_writes
    int64_t longest_sync_ns, last_sync_ns
    # Of the threads
    int threads                 # that run
    bint untold                 # there are news, which are told when the mutex is given back


cdef class Writer:
    """A stream of frames to one file after the other. All methods are the loop's."""
    cdef Shared shared
    cdef readonly Files files
    cdef void* writer_thread
    cdef void* syncer_thread
    cdef int news_fd            # read end of the signal
    cdef Block* own_head        # what was added and not pushed: the loop's alone
    cdef Block* own_tail
    cdef Block* own_spare
    cdef int64_t own_queued
    cdef readonly bint running
    cdef Target* current
    cdef uint64_t marked        # the last sequence that a MARK has said to be durable
    cdef readonly uint64_t refused_frames   # that were added to a broken file
    cdef int add(self, int kind, uint64_t sequence, const char* payload, size_t n, int64_t now_ms) except -1
    cdef int add_effects(self, int kind, const char* payload, size_t n, int64_t now_ms) except -1
    cdef Block* room_for(self, size_t n) except NULL
    cdef int push(self) noexcept
    cdef bint write_effects(self, int kind, char* payload, size_t n, int64_t now_ms) except -1
    cdef void put_header(
        self, char* at, int kind, uint64_t sequence, const char* payload, size_t n, int64_t now_ms) noexcept
    cdef void count_frame(self, size_t n) noexcept
    cdef int hand_over(self, const char* frame, int64_t size, int64_t gone) except -1
    cdef void wait_since(self, int64_t now) noexcept
    cdef bint may_write_here(self, Target* target, size_t n) noexcept
    cdef void written_here(self, Target* target, int64_t n, int64_t took) noexcept
    cdef void look_ahead(self, Target* target) noexcept
    cdef bint write_here(self) noexcept
    cdef int wake(self) noexcept

    cdef inline uint64_t end(self) noexcept:
        """The sequence of the last frame of effects."""
        return self.shared.sequence

    cdef uint64_t released(self) noexcept
    cdef bint idle(self) noexcept
    cdef int trouble(self, int64_t lag_ns, int64_t most_queued, int64_t stall_ns) noexcept
    cdef int drop_queue(self) noexcept
    cdef int check_broken(self) except -1
    cdef int begin_anew(self) noexcept
    cdef int append_target(self, Target* target) noexcept
    cdef void hand_in(self) noexcept
