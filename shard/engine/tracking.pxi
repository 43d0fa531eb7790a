# Tracking: which clients have read what, and are told once when it changes (CLIENT TRACKING).
#
#   GET k, of a run that says FLAG_TRACK ──► by_key: k -> its session        the slot of k is watched from here on
#   whatever changes k ──► effects ──► one PUBLISHED_KEY to each session of k, which is forgotten with it
#   BCAST: nothing is remembered; of every change with the right prefix, those of one tick go together
#
# The router decides which commands are tracked, and knows how a session wants to be told; here is only who it is. What is
# told goes behind the reply of the command that changed the key, on the link of the session or, redirected, on that of the
# router of the other one. A router that was parted from this shard tells its clients that everything may have changed.
# A tracker is told of keys by their names: as on a real server, the database does not matter.

cdef enum:
    TRACK_BROADCAST = 1
    TRACK_NOLOOP = 2
    TRACK_REDIRECTED = 4

    ROUTER_OF_SESSION = 48      # the index of its router is above these bits of a session's number


@cython.final
cdef class Tracker:
    """One session of one link that tracks."""

    def __cinit__(self):
        self.prefixes = ()
        self.gathered = {}


@cython.final
cdef class Tracking(Observer):
    """What the clients of one shard remember of it."""

    def __init__(self, Executor shard not None):
        self.shard = shard
        self.trackers = {}
        self.by_key = {}
        self.gathering = []
        self.broadcasts = Broadcasts(self)
        shard.store.effects.add_observer(self)

    def __len__(self):
        return len(self.by_key)

    # Who tracks -----------------------------------------------------------------------------------------
    def begin(self, Link link not None, uint64_t session, uint64_t redirect, int flags, tuple prefixes not None):
        """The session tracks from here on: what it reads, or with TRACK_BROADCAST all that has a prefix."""
        cdef Tracker tracker = Tracker()
        self.end(link, session)
        tracker.link = link
        tracker.session = session
        tracker.target = redirect or session
        tracker.flags = flags | (TRACK_REDIRECTED if redirect else 0)
        self.trackers.setdefault(link, {})[session] = tracker
        # While anybody tracks, FLUSHALL is told.
        self.shard.store.effects.watch_slot(0)
        if flags & TRACK_BROADCAST:
            tracker.prefixes = prefixes or (b"",)
            self.broadcasts.enter(tracker)

    def end(self, link, uint64_t session):
        """It does not any longer. What it has read is forgotten when it changes."""
        cdef Tracker tracker
        sessions = self.trackers.get(link)
        tracker = None if sessions is None else sessions.pop(session, None)
        if tracker is None:
            return
        if not sessions:
            del self.trackers[link]
        tracker.gone = True
        self.shard.store.effects.unwatch_slot(0)
        if tracker.flags & TRACK_BROADCAST:
            self.broadcasts.leave(tracker)

    cdef int forget_link(self, object link) except -1:
        for session in list(self.trackers.get(link, ())):
            self.end(link, session)
        return 0

    def broken(self, uint64_t target):
        """The session that others have their news sent to is gone: they are told, and nothing else from here on."""
        cdef Tracker tracker
        for sessions in self.trackers.values():
            for tracker in sessions.values():
                if tracker.target == target and tracker.flags & TRACK_REDIRECTED:
                    (<Link> tracker.link).put_published(PUBLISHED_BROKEN, tracker.session, NULL, 0, NULL, 0)

    # What they have read --------------------------------------------------------------------------------
    cdef int remember(self, Context context, Command* command, int number, Span* args, Py_ssize_t n) except -1:
        """The session of this run has executed a command that may read keys."""
        cdef Tracker tracker
        cdef Py_ssize_t i = command.first, last = command.last if command.last >= 0 else n + command.last
        sessions = self.trackers.get(context.link)
        if not command.readonly or sessions is None:
            return 0
        tracker = sessions.get(context.session)
        if tracker is None or tracker.flags & TRACK_BROADCAST:
            return 0
        if command.movable:
            for key in keys_of(self.shard.rows[number], list(arguments_of(args, n))):
                self.note(tracker, key)
            return 0
        while command.step and i <= last and i < n:
            self.note(tracker, PyBytes_FromStringAndSize(args[i].data, args[i].size))
            i += command.step
        return 0

    cdef int note(self, Tracker tracker, bytes key) except -1:
        cdef dict trackers = self.by_key.get(key)
        if trackers is None:
            trackers = self.by_key[key] = {}
            self.shard.store.effects.watch_slot(slot_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)))
            if self.most_keys and len(self.by_key) > self.most_keys:
                self.invalidate(next(iter(self.by_key)), False)
        trackers[tracker] = None
        return 0

    # What changes ---------------------------------------------------------------------------------------
    cdef void changed(self, int kind, int db, uint32_t slot, const char* key, size_t n) noexcept:
        try:
            # What expires or is evicted is nobody's own change.
            self.invalidate(PyBytes_FromStringAndSize(key, n), kind > EVICTED)
        except Exception:
            # Of whose keys this was one is not known: better too much is read again than too little.
            log.exception("a change cannot be told to those who track it")
            self.flush()

    cdef int invalidate(self, bytes key, bint by_client) except -1:
        cdef Tracker tracker
        trackers = self.by_key.pop(key, None)
        if trackers is None:
            return 0
        self.shard.store.effects.unwatch_slot(slot_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)))
        for tracker in trackers:
            if not tracker.gone and not (by_client and self.is_own(tracker)):
                self.send(tracker, [key])
        return 0

    cdef bint is_own(self, Tracker tracker) noexcept:
        """Whether the client whose command is executed does not want to hear of what it changes itself."""
        return (tracker.flags & TRACK_NOLOOP and self.acting is not None and self.acting.link is tracker.link
                and self.acting.session == tracker.session)

    cdef void flushing(self, int db) noexcept:
        self.flush()

    cdef void swapping(self, int left, int right) noexcept:
        # A name has another value now, in whichever database a client looks.
        if left != right:
            self.flush()

    cdef void flush(self) noexcept:
        """Everything may have changed. One shard tells it for all: whole databases are emptied on all of them at once."""
        cdef Tracker tracker
        try:
            for key in self.by_key:
                self.shard.store.effects.unwatch_slot(slot_of(PyBytes_AS_STRING(<bytes> key), PyBytes_GET_SIZE(<bytes> key)))
            self.by_key = {}
            if self.shard.index == 0:
                for sessions in self.trackers.values():
                    for tracker in sessions.values():
                        self.send(tracker, None)
        except Exception:
            log.exception("a flush cannot be told to those who track keys")

    cdef int send(self, Tracker tracker, list keys) except -1:
        """Tells it that these keys have changed; None: everything may have."""
        cdef Link link = self.link_of(tracker)
        cdef Buffer words
        if link is None:
            return 0
        if keys is None:
            return link.put_published(PUBLISHED_FLUSH, tracker.target, NULL, 0, NULL, 0)
        words = Buffer()
        for key in keys:
            words.put_u32(<uint32_t> PyBytes_GET_SIZE(<bytes> key))
            words.append(PyBytes_AS_STRING(<bytes> key), PyBytes_GET_SIZE(<bytes> key))
        return link.put_published(PUBLISHED_KEY, tracker.target, NULL, 0, words.data + words.start, words.used())

    cdef Link link_of(self, Tracker tracker):
        """By which it is told: its own, or that of the router that has the session it has named."""
        cdef Link link
        if not tracker.flags & TRACK_REDIRECTED:
            return <Link> tracker.link
        for link in self.shard.locks.host.links:
            if link.router == <int> (tracker.target >> ROUTER_OF_SESSION) and link.fd >= 0:
                return link
        return None

    cdef int send_gathered(self) except -1:
        """The end of a tick: what was gathered for those who have all changes sent."""
        cdef Tracker tracker
        gathering, self.gathering = self.gathering, []
        for tracker in gathering:
            keys, tracker.gathered = tracker.gathered, {}
            if not tracker.gone:
                self.send(tracker, list(keys))
        return 0


@cython.final
cdef class Broadcasts(Observer):
    """The trackers that have all changes sent: while there are some, every change is looked at."""

    def __init__(self, Tracking tracking not None):
        self.tracking = tracking
        self.by_prefix = {}

    cdef int enter(self, Tracker tracker) except -1:
        if not self.by_prefix:
            self.tracking.shard.store.effects.add_observer(self, True)
        for prefix in tracker.prefixes:
            self.by_prefix.setdefault(prefix, {})[tracker] = None
        return 0

    cdef int leave(self, Tracker tracker) except -1:
        for prefix in tracker.prefixes:
            del self.by_prefix[prefix][tracker]
            if not self.by_prefix[prefix]:
                del self.by_prefix[prefix]
        if not self.by_prefix:
            self.tracking.shard.store.effects.remove_observer(self)
        return 0

    cdef void changed(self, int kind, int db, uint32_t slot, const char* key, size_t n) noexcept:
        cdef Tracker tracker
        cdef bytes name
        try:
            name = PyBytes_FromStringAndSize(key, n)
            for prefix, trackers in self.by_prefix.items():
                if not name.startswith(<bytes> prefix):
                    continue
                for tracker in trackers:
                    if kind > EVICTED and self.tracking.is_own(tracker):
                        continue
                    if not tracker.gathered:
                        self.tracking.gathering.append(tracker)
                    tracker.gathered[name] = None
        except Exception:
            log.exception("a change cannot be told to those who have all of them sent")
            self.tracking.flush()
