# WATCH: which sessions have looked at a key, and whether it has changed since.
#
#   (link, session) ─► Watcher: dirty, keys ◄─ (db, key)
#
# Whatever changes a key is told to the effects (effects.pyx), and so to this; a slot without a watched key costs nothing.
# A watch ends with the transaction, with UNWATCH, with its session or with its link. A key that had expired when it was
# watched is removed first, so that this is no change; one that expires later has changed.

@cython.final
cdef class Watcher:
    """One session of one link."""

    def __cinit__(self):
        self.keys = set()


@cython.final
cdef class Watches(Observer):
    """The watches of one shard."""

    def __init__(self, Store store not None):
        self.store = store
        self.watchers = {}
        self.by_key = {}
        store.effects.add_observer(self)

    def __len__(self):
        """Links with sessions that watch something. Replies that are made in slices (bulk.pxi) watch, too, and are no clients."""
        return len(self.watchers) - self.replies

    @property
    def replies(self):
        """How many replies watch their keys while they are made."""
        return len([None for link in self.watchers if type(link) is Waiter])

    @property
    def keys(self):
        """How many keys the sessions watch."""
        cdef Watcher watcher
        cdef set found = set()
        if not self.replies:
            return len(self.by_key)
        for link, sessions in self.watchers.items():
            if type(link) is not Waiter:
                for watcher in sessions.values():
                    found |= watcher.keys
        return len(found)

    def watch(self, Context context not None, bytes key not None):
        """The session of this run wants to know whether the key changes from here on."""
        self.add(context.link, context.session, context.keys.db, key)

    cdef int add(self, object link, uint64_t session, int db, bytes key) except -1:
        """The same for whoever counts as a session of `link` here."""
        cdef Place place
        cdef Watcher watcher
        cdef tuple name = (db, key)
        self.store.place_of(&place, db, key)
        self.store.find(&place)
        sessions = self.watchers.setdefault(link, {})
        watcher = sessions.get(session)
        if watcher is None:
            watcher = sessions[session] = Watcher()
        if name in watcher.keys:
            return 0
        self.store.effects.watch_slot(place.slot)
        watcher.keys.add(name)
        self.by_key.setdefault(name, set()).add(watcher)
        return 0

    cdef bint is_clean(self, object link, uint64_t session) except -1:
        """Whether nothing that the session watches has changed."""
        cdef Watcher watcher = self.watcher_of(link, session)
        cdef Place place
        if watcher is None:
            return True
        for db, key in watcher.keys:
            # What is past its deadline goes now, and has changed.
            self.store.place_of(&place, db, key)
            self.store.find(&place)
        return not watcher.dirty

    cdef Watcher watcher_of(self, object link, uint64_t session):
        sessions = self.watchers.get(link)
        return None if sessions is None else sessions.get(session)

    cdef int forget(self, object link, uint64_t session) except -1:
        """The session watches nothing any more."""
        cdef Watcher watcher = self.watcher_of(link, session)
        if watcher is None:
            return 0
        del self.watchers[link][session]
        if not self.watchers[link]:
            del self.watchers[link]
        for name in watcher.keys:
            self.store.effects.unwatch_slot(slot_of(PyBytes_AS_STRING(<bytes> name[1]), PyBytes_GET_SIZE(<bytes> name[1])))
            others = self.by_key[name]
            others.discard(watcher)
            if not others:
                del self.by_key[name]
        return 0

    cdef int forget_link(self, object link) except -1:
        for session in list(self.watchers.get(link, ())):
            self.forget(link, session)
        return 0

    def unwatch(self, Context context not None):
        """The session of this run watches nothing any more."""
        self.forget(context.link, context.session)

    # What the effects tell ------------------------------------------------------------------------------
    cdef void changed(self, int kind, int db, uint32_t slot, const char* key, size_t n) noexcept:
        cdef Watcher watcher
        try:
            for watcher in self.by_key.get((db, PyBytes_FromStringAndSize(key, n)), ()):
                watcher.dirty = True
        except MemoryError:
            self.all_dirty()

    cdef void all_dirty(self) noexcept:
        """It cannot be told whose key it was: better one transaction too few."""
        cdef Watcher watcher
        for sessions in self.watchers.values():
            for watcher in sessions.values():
                watcher.dirty = True

    cdef void flushing(self, int db) noexcept:
        cdef Watcher watcher
        for (at, key), watchers in self.by_key.items():
            if (db < 0 or at == db) and self.is_there(at, key):
                for watcher in watchers:
                    watcher.dirty = True

    cdef void swapping(self, int left, int right) noexcept:
        cdef Watcher watcher
        for (at, key), watchers in self.by_key.items():
            if (at == left or at == right) and left != right and (
                self.is_there(left, key) or self.is_there(right, key)
            ):
                for watcher in watchers:
                    watcher.dirty = True

    cdef bint is_there(self, int db, bytes key) noexcept:
        cdef Database* database = &self.store.databases[db]
        cdef uint64_t hash
        if database.slots == NULL:
            return False
        hash = table_hash(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        return segment_find(
            segment_of(database.slots + slot_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)), hash), hash,
            PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key),
        ) != NULL
