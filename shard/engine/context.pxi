# Context: what a command runs in. A handler, compiled or in Python, gets one and its arguments.

class Deferred:
    """What a handler returns when its reply comes later, by `Executor.answer_deferred(token, reply)`.

    One that is not `blocked` comes soon: the router answers TIMEOUT at the deadline of the run and drops what comes late.
    """

    __slots__ = ("blocked", "token")

    def __init__(self, token, blocked=False):
        self.token = token
        self.blocked = blocked


class Raw:
    """A whole reply that is in the dialect of the run already; what a client's own command is answered, alone."""

    __slots__ = ("data",)

    def __init__(self, data):
        self.data = data


cdef class Context:
    """The run that a command belongs to, the data it sees, and the way to execute commands inside it.

    A link has one for the runs of its router, and whatever executes later on behalf of somebody (a deferred command, a
    transaction, a script) has its own: what runs inside a command of another leaves the other's run as it was.
    """

    def __init__(self, Executor shard not None, int dialect=RESP2, int db=0):
        self.shard = shard
        self.store = shard.store
        self.keys = Keyspace(shard.store, db)
        self.dialect = dialect
        self.user_number = RUN_UNRESTRICTED
        self.number = -1

    def call(self, str key not None, *args):
        """Executes a command inside this one, by its row's key; its reply as a Python value. CommandError when refused.

        It passes the same point as a client's: arity, loading, memory, statistics.
        """
        return self.shard.call(self, key, args)

    def call_in_room(self, str key not None, *args):
        """`call` for who has asked for room (`shard.require_room`) and holds what must not be evicted."""
        self.flags |= ROOM_ASKED
        try:
            return self.shard.call(self, key, args)
        finally:
            self.flags &= ~ROOM_ASKED

    @property
    def user(self):
        """The name of whose command it is; "" for one who is gone, "default" where nobody has said which users there are."""
        users = self.shard.users
        if users is None or self.user_number == RUN_UNRESTRICTED:
            return "default"
        one = users.by_number.get(self.user_number)
        return "" if one is None else one.name.decode("utf-8", "replace")

    @property
    def may_wait(self):
        """Whether the command may be answered when something has happened, rather than at once."""
        return self.link is not None and self.depth == 0 and not self.flags & FLAG_ATOMIC and self.transaction == 0

    @property
    def deferred(self):
        """The token under which the command, which was parked, is answered anyway; 0 for one that is executed as it came."""
        return self.token

    def defer(self, bint blocked=False):
        """The promise of a reply that comes later, which the handler returns. CommandError where none can wait."""
        return Deferred(self.shard.defer(self, blocked), blocked)

    def show_ranks(self, tuple arguments not None, int64_t start, int64_t stop, bint reverse, bint scores):
        """What a handler with these arguments returns to show the ranks [start, stop) of the sorted set that the first of them
        names. None: they are to be shown as a value."""
        return shown_ranks(self, arguments, start, stop, reverse, scores)

    def in_turn(self, tuple arguments not None, Py_ssize_t expected):
        """What a handler with these arguments returns whose reply, of so many bytes, has to wait among large ones. None: it need not."""
        cdef Words words
        cdef Host host = self.shard.locks.host
        if host is None or not host.pacing or expected <= LARGE:
            return None
        words = Words(arguments)
        return made_again(self) if made_later(self, words.spans, words.count, expected, None) else None


cdef inline int fail(Context context, Buffer out, bytes text) except -1:
    if context.depth == 0:
        # What happens inside another command is that one's error, or none.
        context.shard.note_error(text)
    return put_error(out, context.dialect, text)
