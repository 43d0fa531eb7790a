"""The way back: files are verified frame by frame, and what they hold is applied to a store.

Owns the one reader of logs and bases, for a shard that starts and for the tools alike. Promises: nothing is changed on disk
here; no length is believed before it is known to lie in the file; what is damaged is refused, and of a log that a crash has
torn the part before is kept, which the *watermark* tells apart:

    the frame expected next, s, does not verify at offset o; beyond it frames may be found that do. One of them may say that s
    was durable when it was made (sequence - behind >= s). If so, or if s belongs to the base, or if the file was closed, then
    a disk has lost or changed what it had promised to keep: refused. Else it is the end of what a power cut left: cut.

Frames of a base are taken when the log has come to their sequence (merge.pxi). A shard loads in slices, by `step`.
"""
import errno
from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memmove

import msgspec

from kache.cluster.progress import counted
from kache.cluster.transactions import WINDOW_MS, Share, Shares
from kache.wire.clock cimport monotonic_ns
from kache.wire.codec cimport SLOT_COUNT

from ..engine.effects cimport RECORD_SHARES_BEFORE
from ..engine.engine cimport DATABASES, Merge, Replay, Store
from ..engine.entry cimport Entry, key_bytes
from ..engine.table cimport Table, Walk, table_walk, walk_next
from .files cimport Files
from .format cimport (
    FILE_BASE, FILE_HEADER, FILE_LOG, FRAME_BASE_END, FRAME_EFFECTS, FRAME_END, FRAME_HEADER, FRAME_MAGIC, FRAME_MARK, FRAME_PART,
    FRAME_SHARE, FRAME_VALUES, PART_FIRST, PART_LAST, Frame, Salt, payload_check, read_frame_header, salt_of,
)

from ..engine.engine import RecordError, UnknownRecord, records_of
from .format import LogError, read_header
from .troubles import missing

__all__ = ["Cut", "FrameFile", "Recovery", "shares_of", "values_of"]

cdef enum:
    WINDOW = 1 << 20            # bytes of a file that are read at once
    PAGE = 4096                 # the same where only headers are wanted


class Cut(msgspec.Struct, frozen=True):
    """Where a torn log ends: `frames` that verify lie beyond, in the `dropped` bytes of this file and of later ones."""

    path: str
    offset: int
    dropped: int
    frames: int

    def __str__(self):
        beyond = f", with {counted(self.frames, 'whole frame')} among them," if self.frames else ""
        verb = "was" if self.dropped == 1 else "were"
        return f"{self.path} ends at byte {self.offset}: {counted(self.dropped, 'byte')} behind it{beyond} {verb} not written to the end"


cdef class FrameFile:
    """One log or base, read from its start. `limit`: bytes that count, None for all there are; what lies behind is ignored."""
    cdef Files files
    cdef readonly str path
    cdef readonly object header
    cdef readonly int64_t there     # bytes of it
    cdef readonly int64_t size      # bytes that count
    cdef readonly int64_t offset    # of the next frame
    cdef readonly bint closed       # its length is known from elsewhere, or its last frame says that it is the last
    cdef int64_t until              # where the zeros begin that an open file ends with; -1: not looked for yet
    cdef Salt salt
    cdef int fd
    cdef char* window
    cdef size_t room
    cdef int64_t ahead              # bytes that are read at once, at least
    cdef int64_t at, filled         # of the window: where in the file it begins, how many bytes it has

    def __cinit__(self, *args, **kwargs):
        self.fd = -1
        self.window = NULL
        self.until = -1

    def __init__(self, Files files not None, str path not None, *, kind=None, limit=None, salt=None):
        self.files = files
        self.path = path
        try:
            self.fd = files.open(path)
            there = files.size(path)
            self.header = read_header(files.read(self.fd, FILE_HEADER, 0), path)
        except OSError as error:
            raise LogError(missing(files, path, error), path) from None
        self.closed = limit is not None
        self.there = there
        self.size = there if limit is None else limit
        if there < self.size or self.size < FILE_HEADER:
            raise LogError(f"{path} has {there:,} bytes and should have {self.size:,}: its end is missing.", path, there)
        if kind is not None and self.header.kind != kind:
            raise LogError(f"{path} is a {'base' if kind == FILE_LOG else 'log'} under the name of another file.", path, 0)
        if salt is not None and self.header.salt.hex() != salt:
            raise LogError(f"{path} is not the file that the manifest means: it is of another time.", path, 0)
        self.salt = salt_of(self.header.salt)
        self.offset = FILE_HEADER
        self.ahead = WINDOW

    def __dealloc__(self):
        free(self.window)

    def close(self):
        """Gives the file back."""
        if self.fd >= 0:
            self.files.close(self.fd)
            self.fd = -1

    cdef const char* need(self, int64_t offset, int64_t n) except NULL:
        """`n` bytes of the file from `offset` on, which are there; valid until the next call."""
        cdef int64_t wanted, got
        cdef void* larger
        if offset >= self.at and offset + n <= self.at + self.filled:
            return self.window + (offset - self.at)
        wanted = min(max(n, self.ahead), self.size - offset)
        if <size_t> wanted > self.room:
            larger = realloc(self.window, <size_t> wanted)
            if larger == NULL:
                raise MemoryError(f"no memory for a frame of {n} bytes")
            self.window = <char*> larger
            self.room = <size_t> wanted
        self.at, self.filled = offset, 0
        while self.filled < wanted:
            with nogil:
                got = self.files.calls.read(
                    self.files.calls.self, self.fd, self.window + self.filled, <size_t> (wanted - self.filled),
                    offset + self.filled)
            if got < 0:
                raise LogError(
                    f"{self.path} cannot be read at byte {offset + self.filled}: {errno.errorcode.get(-got, -got)}.", self.path,
                    offset + self.filled)
            if got == 0:
                raise LogError(f"{self.path} became shorter while it was read.", self.path, offset + self.filled)
            self.filled += got
        return self.window

    cdef int64_t used(self) except -1:
        """Behind the last byte that was written: what was reserved for more is zeros. All of a file that is closed."""
        cdef int64_t at = self.size, n
        cdef const char* start
        if self.closed:
            return self.size
        if self.until >= 0:
            return self.until
        while at > FILE_HEADER:
            n = min(at - FILE_HEADER, <int64_t> WINDOW)
            start = self.need(at - n, n)
            if start[0] or memcmp(start, start + 1, <size_t> (n - 1)) != 0:
                while start[n - 1] == 0:
                    n -= 1
                    at -= 1
                break
            at -= n
        self.until = at
        return at

    cdef bint ends_here(self) except -1:
        """Whether nothing was written from the offset on; then the file ends there."""
        if self.used() <= self.offset:
            self.size = self.offset
        return self.offset == self.size

    @property
    def written(self):
        """Bytes without those that are only reserved. Where frames end in zeros it may be some fewer."""
        return max(self.used(), self.offset)

    cdef int verify(self, int64_t offset, Frame* frame, const char** payload) except -2:
        """Whether a whole frame lies at this offset; `payload` is valid until the next call."""
        cdef const char* at
        if self.size - offset < FRAME_HEADER:
            return False
        if not read_frame_header(self.need(offset, FRAME_HEADER), frame, &self.salt, <uint64_t> offset):
            return False
        if <int64_t> frame.length > self.size - offset - FRAME_HEADER:
            return False
        at = self.need(offset, FRAME_HEADER + <int64_t> frame.length) + FRAME_HEADER
        if payload_check(&self.salt, at, frame.length) != frame.check:
            return False
        payload[0] = at
        return True

    cdef int next(self, Frame* frame, const char** payload) except -2:
        """1: the next frame, and the offset is behind it; 0: the file has ended; -1: what is next is none.

        LogError for one that a later version wrote.
        """
        if self.offset == self.size:
            return 0
        if not self.verify(self.offset, frame, payload):
            return 0 if self.ends_here() else -1
        if frame.flags or not is_known(self.header.kind, frame.kind):
            what = f"flags {frame.flags}" if frame.flags else f"kind {frame.kind}"
            raise LogError(
                f"{self.path} was written by a newer Kache: it has a frame of the unknown {what} at byte {self.offset}.",
                self.path, self.offset, True)
        self.offset += FRAME_HEADER + <int64_t> frame.length
        return 1

    def frames(self):
        """(offset, kind, sequence, sequence known to be durable then, unix ms, payload) of each, up to what does not verify."""
        cdef Frame frame
        cdef const char* payload
        cdef int64_t offset
        while True:
            offset = self.offset
            if self.next(&frame, &payload) != 1:
                return
            yield (offset, frame.kind, frame.sequence, frame.sequence - frame.behind, frame.now_ms,
                   PyBytes_FromStringAndSize(payload, frame.length))

    def resume(self):
        """Behind a frame that does not verify: goes on with the next that does; False where there is none."""
        cdef Frame frame
        cdef const char* payload
        cdef int64_t offset = self.candidate(self.offset + 1)
        while offset >= 0:
            PyErr_CheckSignals()
            if self.verify(offset, &frame, &payload):
                self.offset = offset
                return True
            offset = self.candidate(offset + 1)
        return False

    cdef int64_t candidate(self, int64_t offset) except -2:
        """Where the next bytes lie that may begin a frame, from `offset` on; -1: nowhere."""
        cdef const char* start
        cdef const char* found
        cdef int64_t n
        while self.size - offset >= FRAME_HEADER:
            n = min(self.size - offset, <int64_t> WINDOW)
            start = self.need(offset, n)
            found = <const char*> memchr(start, FRAME_MAGIC & 0xFF, <size_t> (n - 1))
            while found != NULL:
                if <uint8_t> found[1] == FRAME_MAGIC >> 8:
                    return offset + (found - start)
                found = <const char*> memchr(found + 1, FRAME_MAGIC & 0xFF, <size_t> (n - 2 - (found - start)))
            offset += n - 1
        return -1

    def beyond(self, int64_t offset):
        """(whole frames from `offset` on, the largest sequence that they say was durable): of what does not follow on."""
        cdef Frame frame
        cdef const char* payload
        cdef uint64_t frames = 0, durable = 0
        offset = self.candidate(offset)
        while offset >= 0:
            PyErr_CheckSignals()
            if self.verify(offset, &frame, &payload):
                frames += 1
                if frame.sequence >= frame.behind:
                    durable = max(durable, frame.sequence - frame.behind)
                offset += FRAME_HEADER + <int64_t> frame.length
            else:
                offset += 1
            offset = self.candidate(offset)
        return frames, durable


cdef bint is_known(int file_kind, int kind) noexcept:
    """Whether this version knows frames of the kind in such a file. The numbers of others are taken, but not written yet."""
    if file_kind == FILE_LOG:
        return FRAME_EFFECTS <= kind <= FRAME_END
    return FRAME_VALUES <= kind <= FRAME_BASE_END


def values_of(int kind, int64_t now_ms, bytes payload not None, bytes hash_seed not None):
    """(a Store with what one frame of a base holds for itself; of a part the database, the key, the index of its first element
    and its flags, else None). RecordError for what cannot be read. For who looks at a base that does not load."""
    cdef Store store = Store(hash_seed)
    cdef Merge merge = Merge(Replay(store), hash_seed)
    cdef const char* at = PyBytes_AS_STRING(payload)
    cdef const char* end = at + PyBytes_GET_SIZE(payload)
    cdef uint64_t db, n, first
    cdef int flags
    if kind != FRAME_PART:
        merge.add_values(now_ms, payload)
        return store, None
    db, n = take_number(&at, end), take_number(&at, end)
    if db >= DATABASES or n > <uint64_t> (end - at):
        raise RecordError("a part of no key")
    key = PyBytes_FromStringAndSize(at, <Py_ssize_t> n)
    at += n
    first = take_number(&at, end)
    if at == end:
        raise RecordError("a part without flags")
    # As if it were all of the value.
    flags = <uint8_t> at[0]
    head = payload[:PyBytes_GET_SIZE(payload) - (end - at) - number_size(first)] + bytes([0, PART_FIRST | PART_LAST])
    rest = PyBytes_FromStringAndSize(at + 1, end - at - 1)
    (<dict> merge.later[db])[key] = None
    merge.add_part(now_ms, head + rest if flags & PART_LAST else head + bytes(5) + rest)
    return store, (db, key, first, flags)


cdef int number_size(uint64_t number) noexcept:
    """Bytes of it in LEB128."""
    cdef int n = 1
    while number >= 0x80:
        number >>= 7
        n += 1
    return n


cdef uint64_t take_number(const char** at, const char* end) except? 0xFFFFFFFFFFFFFFFF:
    cdef uint64_t number = 0
    cdef int shift = 0
    cdef uint8_t byte
    while at[0] < end and shift < 64:
        byte = <uint8_t> at[0][0]
        at[0] += 1
        number |= <uint64_t> (byte & 0x7F) << shift
        if byte < 0x80:
            return number
        shift += 7
    raise RecordError("a number that does not end, at the start of a frame")


cdef tuple share_head(const char** at, const char* end):
    """(transaction, the shards that took part) of a SHARE's payload; `at` is where its records begin."""
    cdef uint64_t transaction = take_number(at, end), n = take_number(at, end), i
    if n > <uint64_t> (end - at[0]):
        raise RecordError(f"a share of {n} shards")
    return transaction, tuple([take_number(at, end) for i in range(n)])


cdef class Recovery:
    """The data of one shard's directory, into a store.

    `step` until it is False; then `last` is the sequence of the last effects (0: none), `last_ms` their time, `cut` the Cut of
    a torn log or None. LogError for what cannot be loaded. `strict`: a torn log is refused. `skip`: transactions whose shares
    are left out. `cut_at`: the sequence before which the log ends, 0 for none; both as was decided for the whole cluster.
    """
    cdef Files files
    cdef readonly str directory
    cdef readonly object manifest
    cdef Store store
    cdef Replay replay
    cdef Merge merge
    cdef bint strict
    cdef frozenset skip
    cdef uint64_t cut_at
    cdef readonly int64_t total, done       # bytes of all files, and of them those that were read
    cdef int64_t done_before                # those of the files that are closed
    cdef readonly uint64_t last, frames
    cdef readonly int64_t last_ms
    cdef readonly object cut, skipped
    cdef list bases, logs                   # still to be opened
    cdef dict ends                          # path of a log that was read -> where it ended
    cdef set idle                           # paths of logs without any effects: nobody needs them
    cdef bint changed                       # the log that is read has effects
    cdef FrameFile base, log
    cdef Frame base_frame
    cdef const char* base_payload
    cdef bint ended
    cdef uint64_t needless          # effects up to here are in the bases, whatever the log has of them
    cdef uint64_t needed            # effects up to here must be there, or the base is of no use
    cdef uint64_t read              # the last effects that the log had; 0: none yet

    def __init__(self, Files files not None, str directory not None, Store store not None, manifest not None, *, bint strict=False,
                 skip=(), uint64_t cut_at=0):
        self.files = files
        self.directory = directory
        self.manifest = manifest
        self.store = store
        self.replay = Replay(store)
        self.strict = strict
        self.skip = frozenset(skip) | frozenset(manifest.skipped)
        self.cut_at = cut_at
        self.skipped = 0
        self.ends = {}
        self.idle = set()
        self.bases = list(manifest.bases)
        self.logs = list(manifest.logs)
        self.total = sum([base.bytes for base in self.bases])
        for log in self.logs:
            self.total += files.size(f"{directory}/{log.name}") if log.bytes is None and files.exists(
                f"{directory}/{log.name}") else log.bytes or 0
        if self.bases:
            # Several bases are of other slots each, and complete without a log.
            self.needed = max([base.end for base in self.bases])
            self.needless = self.bases[0].first if len(self.bases) == 1 else self.needed
            self.last = self.needless
        elif self.logs:
            self.last = max(self.logs[0].first, 1) - 1

    @property
    def keys(self):
        """How many keys there are by now."""
        return sum([keys for _, keys, _, _ in self.store.counts()])

    def outside(self, slots):
        """(how many keys lie in none of these slots [(first, last)], the database and the name of the first one)."""
        cdef bytearray own = bytearray(SLOT_COUNT)
        cdef int db, first_db = 0
        cdef uint32_t slot
        cdef uint64_t keys = 0
        cdef Table* table
        cdef Walk walk
        cdef Entry* entry
        name = b""
        for first, last in slots:
            own[first:last + 1] = b"\x01" * (last + 1 - first)
        for db in range(DATABASES):
            if self.store.databases[db].count == 0:
                continue
            for slot in range(SLOT_COUNT):
                table = &self.store.databases[db].slots[slot]
                if own[slot] or table.count == 0:
                    continue
                if not keys:
                    walk = table_walk(table)
                    entry = walk_next(&walk)
                    first_db, name = db, key_bytes(entry)
                keys += table.count
        return keys, first_db, name

    def close(self):
        """Gives its files back, whatever happened."""
        for file in (self.base, self.log):
            if file is not None:
                file.close()

    def finish(self, int64_t now_ms):
        """Behind the last step: it is `now_ms` from here on, and what was loaded counts as no change."""
        self.replay.finish(now_ms)

    def step(self, int64_t budget_ns):
        """Goes on for about so long; whether there is more. A frame is never divided."""
        cdef int64_t until = monotonic_ns() + budget_ns if budget_ns < INT64_MAX - monotonic_ns() else INT64_MAX
        while not self.ended:
            self.advance()
            self.done = self.done_before + (self.base.offset if self.base is not None else 0) + (
                self.log.offset if self.log is not None else 0)
            if monotonic_ns() >= until:
                break
        return not self.ended

    cdef int advance(self) except -1:
        """One frame of one file, or one file opened or closed."""
        if self.base is None and self.bases:
            return self.open_base()
        if self.base is not None and self.base_frame.sequence <= self.last:
            return self.take_base_frame()
        if self.log is not None:
            return self.take_log_frame()
        if self.logs:
            return self.open_log()
        if self.base is not None:
            raise self.damaged(
                self.base, self.base.offset,
                f"it needs the effects up to {self.base_frame.sequence}, and the log ends with {self.last}")
        self.ended = True
        return 0

    cdef object damaged(self, FrameFile file, int64_t offset, what):
        hint = f"`kache check-aof {self.directory}` shows what can be kept"
        if file.header.kind == FILE_BASE:
            hint = f"Bring it back from a backup; `kache dump --frames {self.directory}` prints what can be read"
        return LogError(f"{file.path} is damaged at byte {offset}: {what}. {hint}.", file.path, offset)

    # Bases --------------------------------------------------------------------------------------------
    cdef int open_base(self) except -1:
        file = self.bases.pop(0)
        self.base = FrameFile(self.files, f"{self.directory}/{file.name}", kind=FILE_BASE, limit=file.bytes, salt=file.salt)
        self.merge = Merge(self.replay, self.base.header.hash_seed)
        return self.fetch_base_frame()

    cdef int fetch_base_frame(self) except -1:
        cdef int64_t offset = self.base.offset
        if self.base.next(&self.base_frame, &self.base_payload) != 1:
            raise self.damaged(self.base, offset, "a frame of the base cannot be read")
        return 0

    cdef int take_base_frame(self) except -1:
        cdef Frame* frame = &self.base_frame
        cdef int64_t offset = self.base.offset - FRAME_HEADER - <int64_t> frame.length
        self.frames += 1
        try:
            if frame.kind == FRAME_BASE_END:
                if self.base.offset != self.base.size:
                    raise RecordError("it goes on behind its end")
                self.merge.finish()
            else:
                self.merge.begin_frame(frame.now_ms, self.base_payload, <Py_ssize_t> frame.length)
                if frame.kind == FRAME_VALUES:
                    self.merge.read_values(self.base_payload, <Py_ssize_t> frame.length)
                else:
                    self.merge.read_piece(self.base_payload, <Py_ssize_t> frame.length)
        except RecordError as error:
            raise self.damaged(self.base, offset, error) from None
        self.last_ms = max(self.last_ms, frame.now_ms)
        if frame.kind != FRAME_BASE_END:
            return self.fetch_base_frame()
        self.done_before += self.base.offset
        self.base.close()
        self.base = None
        return 0

    # Logs ---------------------------------------------------------------------------------------------
    cdef int open_log(self) except -1:
        file = self.logs.pop(0)
        self.log = FrameFile(self.files, f"{self.directory}/{file.name}", kind=FILE_LOG, limit=file.bytes, salt=file.salt)
        self.changed = False
        return 0

    cdef int close_log(self) except -1:
        self.done_before += self.log.offset
        if not self.log.closed:
            self.total -= self.log.there - self.log.written
        self.ends[self.log.path] = self.log.offset
        if not self.changed and self.cut is None:
            self.idle.add(self.log.path)
        self.log.close()
        self.log = None
        return 0

    cdef int take_log_frame(self) except -1:
        cdef Frame frame
        cdef const char* payload
        cdef int64_t offset = self.log.offset
        cdef int found = self.log.next(&frame, &payload)
        if found == 0:
            return self.close_log()
        if found < 0:
            return self.torn(offset)
        if self.read and frame.sequence < self.read:
            raise self.damaged(self.log, offset, f"the sequence goes back, from {self.read} to {frame.sequence}")
        if frame.kind == FRAME_MARK or frame.kind == FRAME_END:
            return self.take_mark(&frame, offset)
        if not self.read:
            self.check_first(frame.sequence, offset)
        elif frame.sequence == self.read:
            raise self.damaged(self.log, offset, f"the effects {self.read} for the second time")
        elif frame.sequence != self.read + 1:
            return self.torn(offset)
        if self.cut_at and frame.sequence >= self.cut_at:
            return self.cut_here(offset)
        return self.take_effects(&frame, payload, offset)

    cdef int check_first(self, uint64_t sequence, int64_t offset) except -1:
        if sequence > self.last + 1 or (not self.manifest.bases and sequence != self.last + 1):
            raise self.damaged(self.log, offset, f"it begins with the effects {sequence}, {self.last + 1} should come first")
        return 0

    cdef int take_mark(self, Frame* frame, int64_t offset) except -1:
        if self.read and frame.sequence != self.read:
            return self.torn(offset)
        if frame.kind == FRAME_END and not self.log.ends_here():
            raise self.damaged(self.log, self.log.offset, "it goes on behind its end")
        return 0

    cdef int take_effects(self, Frame* frame, const char* payload, int64_t offset) except -1:
        cdef const char* at = payload
        cdef const char* end = payload + frame.length
        self.frames += 1
        self.changed = True
        try:
            if frame.kind == FRAME_SHARE:
                transaction, _ = share_head(&at, end)
                if transaction in self.skip:
                    self.skipped += 1
                    self.replay.gaps = True
                    at = end
            if frame.sequence > self.needless:
                self.replay.apply_records(frame.now_ms, at, end - at)
        except UnknownRecord as error:
            raise LogError(
                f"{self.log.path} was written by a newer Kache: {error} at byte {offset}.", self.log.path, offset, True) from None
        except RecordError as error:
            raise self.damaged(self.log, offset, error) from None
        self.read = frame.sequence
        self.last = max(self.last, frame.sequence)
        self.last_ms = frame.now_ms
        return 0

    # The end of a torn log ------------------------------------------------------------------------------
    cdef int torn(self, int64_t offset) except -1:
        """What should follow the last effects does not verify here."""
        cdef uint64_t expected = self.read + 1 if self.read else self.last + 1
        frames, durable = self.log.beyond(offset)
        dropped = self.log.written - offset
        for later in self.later_logs():
            more, known = later.beyond(FILE_HEADER)
            frames, durable, dropped = frames + more, max(durable, known), dropped + later.written - FILE_HEADER
        if self.log.closed or durable >= expected or expected <= self.needed:
            raise self.damaged(self.log, offset, f"the effects {expected} cannot be read, though they were safely written")
        cut = Cut(self.log.path, offset, dropped, frames)
        if self.strict:
            raise LogError(
                f"{cut}. With aof-load-truncated no that is refused; `kache check-aof {self.directory} --fix` cuts it off.",
                self.log.path, offset)
        self.cut = cut
        return self.stop_here(offset)

    cdef int cut_here(self, int64_t offset) except -1:
        """The rest of the log is left out, as it was decided for the whole cluster."""
        frames, _ = self.log.beyond(offset)
        dropped = self.log.written - offset + sum([later.written - FILE_HEADER for later in self.later_logs()])
        self.cut = Cut(self.log.path, offset, dropped, frames)
        return self.stop_here(offset)

    def later_logs(self):
        """Each of the logs behind the one that is read."""
        for file in self.logs:
            later = FrameFile(self.files, f"{self.directory}/{file.name}", kind=FILE_LOG, limit=file.bytes, salt=file.salt)
            try:
                yield later
            finally:
                later.close()

    cdef int stop_here(self, int64_t offset) except -1:
        self.logs = []
        self.log.offset = offset
        return self.close_log()

    def manifest_after(self):
        """The manifest of what was loaded, behind which a new log begins: every log is closed where it ended or was cut, those
        behind a cut and those without effects are gone (so that one start after the other leaves one file), and what was skipped
        will be again. Who writes it has synced the logs that were open."""
        logs = []
        for log in self.manifest.logs:
            path = f"{self.directory}/{log.name}"
            if path in self.ends and path not in self.idle:
                logs.append(msgspec.structs.replace(log, bytes=self.ends[path]))
        return msgspec.structs.replace(self.manifest, logs=tuple(logs), skipped=tuple(sorted(self.skip)))


def shares_of(Files files not None, str directory not None, manifest not None):
    """What a shard says of transactions over several shards before anybody loads: the Shares of its log's last minute.

    Only headers are read but for those frames, those that a power cut may have torn, and the first one, which says what its
    base hides; a log that ends torn is looked at up to there.
    """
    places, last_ms, survived = _frames_that_count(files, directory, manifest)
    found, settled = _shares_at(files, directory, places)
    shares = [
        Share(transaction, participants, sequence, now_ms, transaction in settled)
        for transaction, participants, sequence, now_ms in found
        if sequence > manifest.decided and transaction not in manifest.skipped
    ]
    base_ms, before, missing = _hidden(files, directory, manifest)
    # Nobody decides again about what was decided: it is there, whatever others have lost.
    decided = {transaction for transaction, _, sequence, _ in found if sequence <= manifest.decided}
    return Shares(
        tuple(shares), base_ms, last_ms, frozenset(decided.union(before).difference(manifest.skipped)), frozenset(missing),
        survived, frozenset(manifest.skipped))


cdef tuple _frames_that_count(Files files, str directory, manifest):
    """([(log, offset)] of the last minute's frames that were perhaps not synced, and of all from a share on; when the logs end,
    unix ms; whether the machine runs since the last one was begun)."""
    cdef FrameFile file
    cdef Frame frame
    cdef int64_t last_ms = 0, offset
    cdef uint64_t durable = 0
    cdef bytes boot = files.boot()
    survived = False
    recent, unsure = deque(), deque()
    for log in manifest.logs:
        file = FrameFile(files, f"{directory}/{log.name}", kind=FILE_LOG, limit=log.bytes, salt=log.salt)
        try:
            offset = FILE_HEADER
            file.ahead = PAGE
            survived = file.header.boot == boot != bytes(16)
            while file.size - offset >= FRAME_HEADER and read_frame_header(
                    file.need(offset, FRAME_HEADER), &frame, &file.salt, <uint64_t> offset):
                last_ms = frame.now_ms
                durable = max(durable, frame.sequence - min(frame.behind, frame.sequence))
                if frame.kind == FRAME_SHARE or recent:
                    recent.append((log, offset, frame.now_ms))
                elif frame.sequence > durable:
                    unsure.append((log, offset, frame.now_ms, frame.sequence))
                while unsure and (unsure[0][3] <= durable or unsure[0][2] < last_ms - <int64_t> WINDOW_MS):
                    unsure.popleft()
                while recent and recent[0][2] < last_ms - <int64_t> WINDOW_MS:
                    recent.popleft()
                offset += FRAME_HEADER + <int64_t> frame.length
        finally:
            file.close()
    places = [each[:2] for each in [*unsure, *recent] if each[2] >= last_ms - <int64_t> WINDOW_MS]
    return places, last_ms, survived


cdef tuple _shares_at(Files files, str directory, list places):
    """([(transaction, participants, sequence, unix ms)], transactions that were settled behind the first) in these frames, up to
    the first that is torn: whoever loads ends there."""
    cdef FrameFile file = None
    cdef Frame frame
    cdef const char* payload
    cdef const char* at
    cdef list found = []
    settled = set()
    opened = None
    try:
        for log, offset in places:
            if opened is not log:
                if file is not None:
                    file.close()
                file = FrameFile(files, f"{directory}/{log.name}", kind=FILE_LOG, limit=log.bytes, salt=log.salt)
                opened = log
            if not file.verify(offset, &frame, &payload):
                break
            at = payload
            if frame.kind == FRAME_SHARE:
                transaction, participants = share_head(&at, payload + frame.length)
                found.append((transaction, participants, frame.sequence, frame.now_ms))
            if found and (frame.kind == FRAME_SHARE or frame.kind == FRAME_EFFECTS):
                records = PyBytes_FromStringAndSize(at, payload + frame.length - at)
                settled.update([
                    arguments[0] for name, _, _, _, arguments in records_of(frame.now_ms, records) if name == "settled"])
    finally:
        if file is not None:
            file.close()
    return found, settled


cdef tuple _hidden(Files files, str directory, manifest):
    """(unix ms by which what was over is in the base, transactions behind that which it has, some that it has not)."""
    cdef FrameFile file
    cdef Frame frame
    cdef const char* payload
    if len(manifest.bases) == 1 and manifest.logs and manifest.logs[0].number == manifest.bases[0].number:
        log = manifest.logs[0]
        file = FrameFile(files, f"{directory}/{log.name}", kind=FILE_LOG, limit=log.bytes, salt=log.salt)
        file.ahead = PAGE
        try:
            if file.size - FILE_HEADER >= FRAME_HEADER and file.verify(FILE_HEADER, &frame, &payload) and (
                    frame.kind == FRAME_EFFECTS and frame.length and payload[0] == RECORD_SHARES_BEFORE):
                records = records_of(frame.now_ms, PyBytes_FromStringAndSize(payload, frame.length))
                return tuple(records[0][4])
        finally:
            file.close()
    return _end_of_base(files, directory, manifest), (), ()


def _end_of_base(files, directory, manifest):
    """When the youngest base was finished, unix ms; 0 without one."""
    ends = [0]
    for base in manifest.bases:
        file = FrameFile(files, f"{directory}/{base.name}", kind=FILE_BASE, limit=base.bytes, salt=base.salt)
        try:
            ends.append(_last_frame_ms(file))
        finally:
            file.close()
    return max(ends)


cdef int64_t _last_frame_ms(FrameFile file) except -1:
    """The time of BASE_END, which lies at the end and has 16 bytes; that of the header where it is damaged."""
    cdef Frame frame
    cdef int64_t offset = file.size - FRAME_HEADER - 16
    if offset >= FILE_HEADER and read_frame_header(
            file.need(offset, FRAME_HEADER), &frame, &file.salt, <uint64_t> offset) and frame.kind == FRAME_BASE_END:
        return frame.now_ms
    return file.header.created_ms
