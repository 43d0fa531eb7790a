# Notifications: what changes, published on channels of the key and of the event (notify-keyspace-events).
#
#   mutator ─► effects.note(kind, key) ─► changed ─► __keyspace@<db>__:<key>    the event's name
#                                                 └► __keyevent@<db>__:<event>  the key
#
# No command mentions an event: its mutators' kinds have the names and classes (KINDS, effects.pyx). Every shard publishes
# what happens to its keys, to every router that has somebody for it. With no class, or nobody listening to channels of this
# sort, nothing is observed and a change costs what it costs without.
#
# Keys that were read and are not there (`keymiss`) are no change: the execution point asks for them before each command, by
# the command's row (kache/commands/misses.py), and only while somebody wants to know.

cdef enum:
    MISSED = 1 << 13                # the class `m`, which is of no change

# The letters of the classes that events belong to; bit i is letter i.
cdef str EVENT_CLASSES = "g$lshzxetdn"


@cython.final
cdef class Notifications(Observer):
    """What one shard publishes of the changes of its data."""

    def __init__(self, Executor shard not None):
        cdef int kind
        self.shard = shard
        self.events = [name.encode() for name, _ in KINDS]
        assert KIND_COUNT <= MOST_KINDS
        for kind in range(KIND_COUNT):
            letter = KINDS[kind][1]
            self.class_of[kind] = 1 << EVENT_CLASSES.index(letter) if letter else 0

    def configure(self, str classes not None):
        """From here on these classes (kache/config/events.py) are published; none without K or E."""
        self.wanted = 0
        self.by_key, self.by_event = "K" in classes, "E" in classes
        if self.by_key or self.by_event:
            for letter in classes.replace("A", "g$lshzxetd"):
                if letter in EVENT_CLASSES:
                    self.wanted |= 1 << EVENT_CLASSES.index(letter)
                elif letter == "m":
                    self.wanted |= MISSED
        self.look()

    cdef int look(self) except -1:
        """The classes, or who listens, has changed: whether anything is to be observed."""
        cdef bint observing = self.wanted != 0 and self.shard.channels.of_keys > 0
        if observing != self.observing:
            self.observing = observing
            if observing:
                self.shard.store.effects.add_observer(self, True)
            else:
                self.shard.store.effects.remove_observer(self)
        self.shard.store.missed = self if observing and self.wanted & MISSED else None
        return 0

    cdef void changed(self, int kind, int db, uint32_t slot, const char* key, size_t n) noexcept:
        if self.wanted & self.class_of[kind]:
            self.tell(<bytes> self.events[kind], db, key, n)

    cdef void tell_misses(self, Context context, object row, Span* args, Py_ssize_t n) noexcept:
        """A command is about to be executed: of the keys that it reads, those that are not there."""
        cdef Place place
        cdef Store store = self.shard.store
        cdef bytes key
        try:
            for key in keys_read(row, arguments_of(args, n)):
                store.place_of(&place, context.keys.db, key)
                if store.find(&place) == NULL:
                    self.miss(context.keys.db, place.key, place.n)
        except Exception:
            log.exception("what a command has missed cannot be published")

    cdef void miss(self, int db, const char* key, size_t n) noexcept:
        self.tell(b"keymiss", db, key, n)

    cdef void tell(self, bytes event, int db, const char* key, size_t n) noexcept:
        cdef bytes channel
        try:
            if self.by_key:
                channel = b"__keyspace@%d__:%b" % (db, PyBytes_FromStringAndSize(key, n))
                self.publish(channel, PyBytes_AS_STRING(event), PyBytes_GET_SIZE(event))
            if self.by_event:
                self.publish(b"__keyevent@%d__:%b" % (db, event), key, n)
        except Exception:
            # The change is made: whatever it was, the command goes on.
            log.exception("an event of a key cannot be published")

    cdef int publish(self, bytes channel, const char* message, Py_ssize_t n) except -1:
        self.shard.channels.publish(
            PUBLISHED_CHANNEL, PyBytes_AS_STRING(channel), PyBytes_GET_SIZE(channel), message, n)
        return 0
