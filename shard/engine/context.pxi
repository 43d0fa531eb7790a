# Context: what a command runs in. A handler, compiled or in Python, gets one and its arguments.

cdef enum:
    DONE = 0
    DECLINE = 1
    DEFERRED = 2

    ROOM_ASKED = 1 << 16        # beside the flags of a run: memory was made room in for what is executed inside


class Deferred:
    """What a handler returns when its reply comes later, by `Executor.answer_deferred(token, reply)`."""

    __slots__ = ("token",)

    def __init__(self, token):
        self.token = token


cdef class Context:
    """The run that a command belongs to, the data it sees, and the way to execute commands inside it.

    A link has one for the runs of its router, and whatever executes later on behalf of somebody (a deferred command, a
    transaction, a script) has its own: what runs inside a command of another leaves the other's run as it was.
    """
    cdef readonly Executor shard
    cdef readonly Keyspace keys         # the data, in the database of the run
    cdef Store store
    cdef readonly object link           # whose replies are being made; None when nobody can be answered later
    cdef public int dialect
    cdef public int flags               # of the run: FLAG_ATOMIC, FLAG_NO_TOUCH
    cdef public uint64_t session        # a client's number, over all routers
    cdef public uint64_t transaction    # 0: none
    cdef bint capitals                  # the client wrote the name of its command so
    cdef public str user
    cdef int64_t deadline               # unix ms by which it must have begun; 0: none
    cdef int number                     # of the command being executed, -1 between them
    cdef int depth                      # how many commands deep: 1 for a client's own

    def __init__(self, Executor shard not None, int dialect=RESP2, int db=0):
        self.shard = shard
        self.store = shard.store
        self.keys = Keyspace(shard.store, db)
        self.dialect = dialect
        self.user = "default"
        self.number = -1

    def call(self, str key not None, *args):
        """Executes a command inside this one, by its row's key; its reply as a Python value. CommandError when refused.

        It passes the same point as a client's: arity, loading, memory, leases, statistics.
        """
        return self.shard.call(self, key, args)

    def call_in_room(self, str key not None, *args):
        """`call` for who has asked for room (`shard.require_room`) and holds what must not be evicted."""
        self.flags |= ROOM_ASKED
        try:
            return self.shard.call(self, key, args)
        finally:
            self.flags &= ~ROOM_ASKED

    def defer(self):
        """A token for a reply that comes later; the handler returns Deferred(token)."""
        return self.shard.defer(self)


cdef inline int fail(Context context, Buffer out, bytes text) except -1:
    context.shard.note_error(text)
    return put_error(out, context.dialect, text)
