# The threads of a Writer: what lies in the queue is written, what is written is synced, files that have ended are closed.
#
# Without the GIL. All they know is in `Shared`: under its mutex, which no thread has while it is in a call to the file
# system. A disk that stands still stops a thread, and nobody else. See the top of writer.pyx.

# Blocks and files: under the mutex, or where nobody else knows of them -----------------------------------
cdef inline char* block_data(Block* block) noexcept nogil:
    return <char*> (block + 1)


cdef inline size_t block_room(Shared* shared) noexcept nogil:
    """Bytes of a block, if its first frame does not need more. Slices of a base are many in one."""
    return BULK_WRITE if shared.policy == POLICY_BULK else FIRST_BLOCK


cdef void drop_block(Shared* shared, Block* block) noexcept nogil:
    """One is kept: touching new memory costs more than what a tick says."""
    if shared.spare == NULL and block.room == block_room(shared):
        shared.spare = block
    else:
        free(block)


cdef int64_t whole_frames(Block* block, int64_t n) noexcept nogil:
    """How many of the first n bytes of a block are whole frames."""
    cdef int64_t at = 0
    cdef uint32_t length
    while at + FRAME_HEADER <= n:
        memcpy(&length, block_data(block) + at + 4, 4)
        if at + FRAME_HEADER + <int64_t> length > n:
            break
        at += FRAME_HEADER + <int64_t> length
    return at


# Whoever is woken wants the mutex: it is given back first, or a busy core changes threads twice for nothing.
cdef inline void tell_loop(Shared* shared) noexcept nogil:
    """There are news, which leave with the mutex."""
    shared.untold = True


cdef inline void unlock(Shared* shared) noexcept nogil:
    cdef bint news = shared.untold
    shared.untold = False
    pthread_mutex_unlock(shared.mutex)
    if news and not kache_exchange(&shared.signalled, 1):
        write_fd(shared.signal_fd, b"!", 1)


cdef inline void rest(Shared* shared, void* condition, int64_t ns) noexcept nogil:
    """Waits with the mutex, which is given back meanwhile; at once, if there were news to tell. The caller looks again."""
    if shared.untold:
        unlock(shared)
        pthread_mutex_lock(shared.mutex)
        return
    kache_wait(condition, shared.mutex, ns)


cdef void break_file(Shared* shared, int call, int64_t result) noexcept nogil:
    """It is not written or synced again; under the mutex."""
    if shared.broken_error == 0:
        shared.broken_error = <int> -result
        shared.broken_call = call
    tell_loop(shared)


cdef inline bint is_full(int64_t result) noexcept nogil:
    return result == -ENOSPC or result == -EDQUOT


# Room ---------------------------------------------------------------------------------------------------
cdef bint reserve(Shared* shared, Target* target, int64_t until) noexcept nogil:
    """Reserves room up to `until` and a step beyond it. False when there is none. Without the mutex."""
    cdef int64_t result, start = target.reserved if target.reserved > target.written else target.written
    cdef int64_t n = until - start + RESERVE_STEP
    if target.reserved < 0 or until <= target.reserved:
        return True
    kache_store(&shared.call_ns, monotonic_ns())
    result = shared.calls.fallocate(shared.calls.self, target.fd, start, n)
    kache_store(&shared.call_ns, 0)
    pthread_mutex_lock(shared.mutex)
    if result == 0:
        target.reserved = start + n
    elif is_full(result):
        if shared.full_error == 0:
            shared.full_error = <int> -result
            tell_loop(shared)
    else:
        target.reserved = -1        # a file system that cannot: it goes without
    unlock(shared)
    return not is_full(result)


cdef void room_again(Shared* shared) noexcept nogil:
    pthread_mutex_lock(shared.mutex)
    if shared.full_error:
        shared.full_error = 0
        tell_loop(shared)
    unlock(shared)


cdef inline Target* last_file(Shared* shared) noexcept nogil:
    """The one that is written, which nobody closes; under the mutex."""
    cdef Target* target = shared.files
    while target != NULL and target.next != NULL:
        target = target.next
    return target


# The writer thread ------------------------------------------------------------------------------------
cdef int64_t write_block(Shared* shared, Block* block) noexcept nogil:
    """Writes what is left of a block: 0, or minus errno. Without the mutex."""
    cdef Target* target = block.target
    cdef int64_t result = 0, began, took
    while block.gone < block.used:
        began = monotonic_ns()
        kache_store(&shared.call_ns, began)
        result = shared.calls.pwrite(
            shared.calls.self, target.fd, block_data(block) + block.gone, block.used - block.gone, target.written)
        kache_store(&shared.call_ns, 0)
        took = monotonic_ns() - began
        if result == 0:
            result = -ENOSPC        # nothing was written and nothing is wrong: no room
        if result < 0:
            return result
        pthread_mutex_lock(shared.mutex)
        shared.write_ns = took
        shared.unsynced += result
        shared.queued -= result
        block.gone += <size_t> result
        target.written += result
        target.dirty = True
        if block.gone == block.used:
            kache_store_unsigned(&shared.written, block.sequence)
            if block.last:
                target.ended = True
            if shared.policy != POLICY_ALWAYS:
                tell_loop(shared)
        unlock(shared)
    return 0


cdef int64_t cut_partial(Shared* shared, Block* block) noexcept nogil:
    """Takes back what was written of a frame without its end. Without the mutex."""
    cdef int64_t whole = whole_frames(block, block.gone), result
    if whole == <int64_t> block.gone:
        return 0
    kache_store(&shared.call_ns, monotonic_ns())
    result = shared.calls.ftruncate(shared.calls.self, block.target.fd, block.target.written - (block.gone - whole))
    kache_store(&shared.call_ns, 0)
    if result < 0:
        return result
    pthread_mutex_lock(shared.mutex)
    shared.queued += block.gone - whole
    block.target.written -= block.gone - whole
    block.target.reserved = 0 if block.target.reserved >= 0 else -1     # it went with the cut
    block.gone = <size_t> whole
    unlock(shared)
    return 0


cdef bint write_blocks(Shared* shared, Block* block) noexcept nogil:
    """Writes blocks that were taken from the queue, waiting for room if need be. False: the file is broken, or we are to stop
    (then what is left is dropped)."""
    cdef Block* following
    cdef int64_t result
    cdef bint waits = False
    while block != NULL:
        result = -ENOSPC
        if reserve(shared, block.target, block.target.written + <int64_t> (block.used - block.gone)) or (
            block.target.reserved >= block.target.written + <int64_t> (block.used - block.gone)
        ):
            result = write_block(shared, block)
        if is_full(result):
            result = cut_partial(shared, block)
            if result == 0:
                pthread_mutex_lock(shared.mutex)
                if shared.full_error == 0:
                    shared.full_error = ENOSPC
                    tell_loop(shared)
                if shared.stopping:
                    result = -ENOSPC
                elif not shared.broken_error:
                    rest(shared, shared.work, RETRY_NS)
                unlock(shared)
                waits = True
                if result == 0 and not shared.broken_error:
                    continue
        if result < 0 or shared.broken_error:
            pthread_mutex_lock(shared.mutex)
            if result < 0:
                break_file(shared, CALL_PWRITE, result)
            while block != NULL:
                following = block.next
                shared.queued -= <int64_t> (block.used - block.gone)
                drop_block(shared, block)
                block = following
            unlock(shared)
            return False
        if waits:
            waits = False
            room_again(shared)
        following = block.next
        pthread_mutex_lock(shared.mutex)
        drop_block(shared, block)
        unlock(shared)
        block = following
    return True


cdef bint writer_has_work(Shared* shared) noexcept nogil:
    if shared.broken_error:
        return False
    if shared.head != NULL or shared.extending:
        return True
    return not shared.syncing and writer_syncs(shared)


cdef inline bint writer_syncs(Shared* shared) noexcept nogil:
    """Whether it is for the writer to sync now."""
    if shared.policy == POLICY_ALWAYS:
        return shared.durable != shared.written or shared.sync_wanted
    return shared.policy == POLICY_BULK and (shared.unsynced >= BULK_STEP or (shared.sync_wanted and shared.head == NULL))


cdef void taken_back(Shared* shared, Target* target) noexcept nogil:
    """What was reserved for a file that gets no more goes back; with the mutex: nobody else has a call left."""
    if target != NULL and target.reserved > target.written and not shared.broken_error:
        shared.calls.ftruncate(shared.calls.self, target.fd, target.written)
        target.reserved = -1


cdef void* writer_thread(void* shared) noexcept nogil:
    if (<Shared*> shared).policy == POLICY_BULK:
        kache_stand_back()
    run_writer(<Shared*> shared)
    thread_ended(<Shared*> shared)
    return NULL


cdef void* syncer_thread(void* shared) noexcept nogil:
    run_syncer(<Shared*> shared)
    thread_ended(<Shared*> shared)
    return NULL


cdef void thread_ended(Shared* shared) noexcept nogil:
    pthread_mutex_lock(shared.mutex)
    shared.threads -= 1
    pthread_cond_broadcast(shared.done)
    unlock(shared)


cdef void run_writer(Shared* shared) noexcept nogil:
    """The life of the writer thread."""
    cdef Block* taken
    cdef Target* last
    cdef bint full
    pthread_mutex_lock(shared.mutex)
    while True:
        while not writer_has_work(shared) and not shared.stopping:
            full = shared.full_error != 0 and not shared.broken_error
            rest(shared, shared.work, RETRY_NS if full else -1)
            if full:
                shared.extending = True
        if shared.stopping and (shared.head == NULL or shared.broken_error):
            break
        taken = shared.head
        shared.head = shared.tail = NULL
        last = last_file(shared)
        full = shared.extending
        shared.extending = False
        shared.writing = taken != NULL
        unlock(shared)
        if taken != NULL:
            write_blocks(shared, taken)
        elif full and last != NULL and reserve(shared, last, last.written + RESERVE_LOW):
            room_again(shared)
        pthread_mutex_lock(shared.mutex)
        shared.writing = False
        last = last_file(shared)        # maybe another one by now
        if taken != NULL and last.reserved >= 0 and last.reserved - last.written < RESERVE_LOW:
            shared.extending = True
        if shared.sync_wanted:
            pthread_cond_signal(shared.sync_work)
        if not shared.broken_error and not shared.syncing and writer_syncs(shared):
            sync_files(shared)
    if not shared.broken_error:
        while shared.syncing:
            rest(shared, shared.done, -1)
        sync_files(shared)
        taken_back(shared, last_file(shared))
    tell_loop(shared)
    unlock(shared)


# Syncing ------------------------------------------------------------------------------------------------
cdef void sync_files(Shared* shared) noexcept nogil:
    """Makes durable what is written now, the oldest file first; those that have ended are closed. With the mutex, which is
    given back meanwhile; nobody else may be syncing."""
    cdef Target* dirty[MOST_FILES]
    cdef Target* target = shared.files
    cdef int64_t began = monotonic_ns(), result = 0
    cdef int n = 0, i, call = CALL_FDATASYNC
    cdef uint64_t reached = shared.written
    shared.syncing = True
    if shared.written >= shared.sync_goal and (shared.policy != POLICY_BULK or shared.head == NULL):
        shared.sync_wanted = False
    shared.sync_began_ns = began
    shared.unsynced = 0
    shared.later_ns = began if shared.queued else 0
    while target != NULL and n < MOST_FILES:
        if target.dirty or target.ended:
            target.dirty = False
            dirty[n] = target
            n += 1
        target = target.next
    unlock(shared)
    for i in range(n):
        kache_store(&shared.call_ns, monotonic_ns())
        result = shared.calls.fdatasync(shared.calls.self, dirty[i].fd)
        kache_store(&shared.call_ns, 0)
        if result < 0:
            break
        if dirty[i].ended and dirty[i].reserved > dirty[i].written:
            call = CALL_FTRUNCATE
            result = shared.calls.ftruncate(shared.calls.self, dirty[i].fd, dirty[i].written)
            if result < 0:
                break
    pthread_mutex_lock(shared.mutex)
    shared.syncing = False
    if result < 0:
        break_file(shared, call, result)
    else:
        shared.syncs += 1
        shared.last_sync_ns = monotonic_ns() - began
        if shared.last_sync_ns > shared.longest_sync_ns:
            shared.longest_sync_ns = shared.last_sync_ns
        if not shared.broken_error:
            kache_store_unsigned(&shared.durable, reached)
            shared.since_ns = shared.later_ns
            close_ended(shared)
    tell_loop(shared)
    pthread_cond_broadcast(shared.done)


cdef void close_ended(Shared* shared) noexcept nogil:
    """Files that have their END and are synced; under the mutex. The last one is kept: it may be asked for its length."""
    cdef Target* target
    while shared.files != NULL and shared.files.next != NULL and shared.files.ended and not shared.files.dirty:
        target = shared.files
        shared.files = target.next
        shared.calls.close(shared.calls.self, target.fd)
        free(target)


cdef void run_syncer(Shared* shared) noexcept nogil:
    """The life of the syncer thread: under everysec a sync a second, if there is anything to sync; and what is asked for."""
    cdef int64_t wait
    pthread_mutex_lock(shared.mutex)
    while not shared.stopping:
        wait = -1
        if not shared.broken_error and not shared.syncing and shared.policy <= POLICY_EVERYSEC:
            if (shared.sync_wanted and shared.written >= shared.sync_goal) or (shared.policy == POLICY_EVERYSEC and shared.unsynced >= UNSYNCED_MOST):
                sync_files(shared)
                continue
            if shared.policy == POLICY_EVERYSEC and shared.since_ns:
                wait = shared.sync_began_ns + SECOND - monotonic_ns()
                if wait <= 0:
                    sync_files(shared)
                    continue
        rest(shared, shared.sync_work, wait)
    unlock(shared)
