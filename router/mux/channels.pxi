# Who of this router's clients listens to what, and what is published on its way to them.
#
#   SUBSCRIBE c ──► _subscribe c sessions ──► the shard of c (patterns and channels of keyspace events: every shard)
#               ◄── its answer: the confirmation leaves in its place; what is published from there on comes on this link
#   UNSUBSCRIBE c   the same: once it is confirmed no PUBLISH counts the session, through whichever router it goes
#   PUBLISHED c ──► each session that listens to c, or to a pattern that matches, in the order of the link
#
# A shard knows how many sessions of a link listen to a name, which is told anew every time that changes, and all of it
# when a link comes up: so a SUBSCRIBE is confirmed although its shard is down. What comes for a session between the
# answer of a shard and the leaving of the confirmation is kept behind it (`Pending.behind`).
# Questions to shards about this have no deadline and no session: none is left out, and none overtakes another.
#
# Most messages are for a channel that had one a moment ago: who listens is looked up once, and again when anybody comes or
# goes (`Audience`). A message makes no Python object then.

# Names in one frame, when a link comes up.
cdef Py_ssize_t NAMES_AT_ONCE = 1024

cdef tuple SUBSCRIBED = ("subscribe", "psubscribe", "ssubscribe", "monitor")
cdef tuple UNSUBSCRIBED = ("unsubscribe", "punsubscribe", "sunsubscribe", "monitor")

# Channels of keyspace notifications begin with it; every shard publishes there.
cdef bytes EVERYWHERE = b"__key"


cdef class Subscription(Pending):
    """A SUBSCRIBE or UNSUBSCRIBE, or its like, on its way to the shards."""

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        return self.one_less()

    cdef int fail(self, uint32_t part, bytes message) except -1:
        # The shard is told when it is back.
        return self.one_less()

    cdef int one_less(self) except -1:
        self.missing -= 1
        if self.missing or self.ready:
            return 0
        if self.future is not None:
            if not self.future.done():
                self.future.set_result(None)
                self.router.must_yield = True
            return 0
        return self.complete(self.messages)

    def told(self):
        """The nodes of a Redis Cluster know."""
        self.one_less()

    def __await__(self):
        return self._confirmed().__await__()

    async def _confirmed(self):
        """Inside a transaction: what its client is told, once the shards have answered."""
        if self.missing:
            self.future = self.router.loop.create_future()
            await self.future
        return self.messages


cdef inline Py_ssize_t audience_place(int kind, const char* name, Py_ssize_t n) noexcept:
    """Where the audience of a name is kept: names that differ at an end share a place by chance alone."""
    cdef uint64_t head = 0, tail = 0
    cdef size_t size = <size_t> min(n, <Py_ssize_t> 8)
    memcpy(&head, name, size)
    memcpy(&tail, name + n - size, size)
    return <Py_ssize_t> (((head * 31 ^ tail) + <uint64_t> (n * 8 + kind)) * <uint64_t> 0x9E3779B97F4A7C15 >> (64 - AUDIENCE_BITS))


cdef class Audience:
    pass


cdef class Channels:

    def __init__(self, Router router not None):
        self.router = router
        self.listeners = [{} for _ in range(SUBSCRIBED_KINDS)]
        self.matchers = {}
        self.scratch = Buffer()
        self.recent = [None] * (1 << AUDIENCE_BITS)

    # Listening ------------------------------------------------------------------------------------
    cdef Subscription subscribe(self, Session session, int kind, tuple names):
        """The session listens to these names from here on."""
        cdef Subscription one = Subscription.__new__(Subscription)
        cdef dict changed = {}
        cdef bytes name
        one.router = self.router
        one.session = session
        one.dialect = session.dialect_now
        one.messages = Messages()
        for name in names:
            if session.listen(kind, name, True):
                self.enter(session, kind, name, changed)
            one.messages.append(Push([SUBSCRIBED[kind].encode(), name, session.listens(kind)]))
        self.router.shards.end_runs()
        if self.router.remote is not None:
            return self.subscribe_remote(one, kind, changed)
        return self.ask(one, kind, changed)

    cdef Subscription ask(self, Subscription one, int kind, dict changed):
        """The shards are told, and answer. One that is down is told when it is back."""
        cdef Link link
        for shard, words in changed.items():
            link = <Link> self.router.links[<int> shard]
            if link.phase == UP:
                one.missing += 1
                put_names(link, one, kind, words)
        return one

    cdef Subscription subscribe_remote(self, Subscription one, int kind, dict changed):
        """The same in front of a Redis Cluster."""
        # Who watches all commands is told by the routers.
        cdef list words = changed.get(0, []) if kind != PUBLISHED_MONITOR else []
        one.missing = 1 if words else 0
        if words:
            self.router.remote.director.listen([(kind, name) for name in words[::2]], one.told)
        return one

    cdef Subscription unsubscribe(self, Session session, int kind, tuple names):
        """It does not any longer; without names: to nothing of this kind. Told once the shards know: who sends a message
        behind that, through whichever router, finds it counted no more."""
        cdef Subscription one = Subscription.__new__(Subscription)
        cdef dict changed = {}
        one.router = self.router
        one.session = session
        one.dialect = session.dialect_now
        one.ends = True
        one.messages = self.end(session, kind, names, changed)
        self.router.shards.end_runs()
        if self.router.remote is not None:
            self.tell(kind, changed)
            return one
        return self.ask(one, kind, changed)

    cdef object end(self, Session session, int kind, tuple names, dict changed):
        """The session is no listener of these any more, or of none of its kind: what it is told."""
        cdef bytes name
        told = Messages()
        verb = UNSUBSCRIBED[kind].encode()
        for name in names or session.names(kind):
            if session.listen(kind, name, False):
                self.leave(session, kind, name, changed)
            told.append(Push([verb, name, session.listens(kind)]))
        if not told:
            told.append(Push([verb, None, session.listens(kind)]))
        return told

    cdef int forget(self, Session session) except -1:
        """It listens to nothing any more, and need not be told."""
        cdef dict changed
        cdef int kind
        for kind in range(SUBSCRIBED_KINDS):
            if session.names(kind):
                changed = {}
                self.end(session, kind, (), changed)
                self.router.shards.end_runs()
                self.tell(kind, changed)
        return 0

    cdef int enter(self, Session session, int kind, bytes name, dict changed) except -1:
        cdef dict names = self.listeners[kind]
        self.forget_audiences()
        if name not in names:
            names[name] = {}
            if kind == PUBLISHED_PATTERN:
                self.matchers[name] = compile_glob(name)
        names[name][session] = None
        return self.note(kind, name, changed)

    cdef int leave(self, Session session, int kind, bytes name, dict changed) except -1:
        cdef dict names = self.listeners[kind]
        self.forget_audiences()
        del names[name][session]
        self.note(kind, name, changed)
        if not names[name]:
            del names[name]
            if kind == PUBLISHED_PATTERN:
                del self.matchers[name]
        return 0

    cdef int note(self, int kind, bytes name, dict changed) except -1:
        """The number of its listeners has changed: which shards are to know."""
        cdef bytes sessions = b"%d" % len((<dict> self.listeners[kind])[name])
        if kind == PUBLISHED_MONITOR:
            self.router.monitors.count()
        for shard in self.shards_of(kind, name):
            changed.setdefault(shard, []).extend((name, sessions))
        return 0

    cdef object shards_of(self, int kind, bytes name):
        if self.router.remote is not None:
            return (0,)
        if kind == PUBLISHED_PATTERN or (kind == PUBLISHED_CHANNEL and name.startswith(EVERYWHERE)):
            return range(self.router.shard_count)
        if kind == PUBLISHED_MONITOR:
            return (0,)
        return (self.router.shard_of(name),)

    # What shards know -----------------------------------------------------------------------------
    cdef int tell(self, int kind, dict changed) except -1:
        cdef Link link
        if self.router.remote is not None:
            words = changed.get(0, [])
            self.router.remote.director.forget([
                (kind, name) for name, sessions in zip(words[::2], words[1::2]) if sessions == b"0"])
            return 0
        for shard, words in changed.items():
            link = <Link> self.router.links[<int> shard]
            if link.phase == UP:
                put_names(link, Ignored(self.router), kind, words)
        return 0

    cdef int register_on(self, Link link) except -1:
        """The link is up: its shard knows of nobody here."""
        cdef int kind
        cdef list words = []
        for kind in range(SUBSCRIBED_KINDS):
            for name, sessions in (<dict> self.listeners[kind]).items():
                if link.index in self.shards_of(kind, name):
                    words += [name, b"%d" % len(sessions)]
                    if len(words) >= 2 * NAMES_AT_ONCE:
                        put_names(link, Ignored(self.router), kind, words)
                        words = []
            if words:
                put_names(link, Ignored(self.router), kind, words)
                words = []
        return 0

    # Delivering -----------------------------------------------------------------------------------
    cdef int forget_audiences(self) noexcept:
        """Somebody has come or gone."""
        if self.remembers:
            self.remembers = False
            self.recent = [None] * (1 << AUDIENCE_BITS)
        return 0

    cdef Audience audience_of(self, int kind, const char* name, Py_ssize_t n):
        """Who has a message of this channel coming."""
        cdef Py_ssize_t place = audience_place(kind, name, n)
        cdef Audience found = <Audience> self.recent[place]
        cdef bytes channel
        cdef dict listeners
        if (found is not None and found.kind == kind and PyBytes_GET_SIZE(found.name) == n
                and memcmp(PyBytes_AS_STRING(found.name), name, <size_t> n) == 0):
            return found
        channel = PyBytes_FromStringAndSize(name, n)
        found = Audience.__new__(Audience)
        found.kind = kind
        found.name = channel
        listeners = (<dict> self.listeners[kind]).get(channel)
        found.sessions = [] if listeners is None else list(listeners)
        found.matching = []
        # What comes from a node for a pattern comes by itself.
        if kind == PUBLISHED_CHANNEL and self.matchers and self.router.remote is None:
            for pattern, matches in self.matchers.items():
                if matches(channel):
                    found.matching.append((pattern, list((<dict> self.listeners[PUBLISHED_PATTERN])[pattern])))
        self.recent[place] = found
        self.remembers = True
        return found

    cdef int deliver(self, int what, const char* name, Py_ssize_t n, const char* message, Py_ssize_t size) except -1:
        """Something was published: to every session that has it coming, once for each match."""
        cdef Buffer out = self.scratch
        cdef Audience audience
        if what == PUBLISHED_MONITOR:
            return self.router.monitors.take(message, size)
        if what > PUBLISHED_SHARD_CHANNEL:
            return 0
        audience = self.audience_of(what, name, n)
        if audience.sessions:
            out.clear()
            if what == PUBLISHED_CHANNEL:
                out.append(b"*3\r\n$7\r\nmessage\r\n", 17)
            else:
                out.append(b"*3\r\n$8\r\nsmessage\r\n", 18)
            put_bulk(out, RESP2, name, n)
            put_bulk(out, RESP2, message, size)
            self.send(audience.sessions)
        for pattern, sessions in audience.matching:
            self.deliver_pattern(<bytes> pattern, <list> sessions, name, n, message, size)
        out.clear()
        return 0

    cdef int deliver_remote(self, int kind, bytes name, bytes channel, bytes message) except -1:
        """The same from a node, which says for which of the names it is."""
        cdef dict listeners
        if kind == PUBLISHED_PATTERN:
            listeners = (<dict> self.listeners[kind]).get(name)
            if listeners is not None:
                self.deliver_pattern(name, list(listeners), PyBytes_AS_STRING(channel), PyBytes_GET_SIZE(channel),
                                     PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
                self.scratch.clear()
            return 0
        return self.deliver(kind, PyBytes_AS_STRING(channel), PyBytes_GET_SIZE(channel),
                            PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))

    cdef int deliver_pattern(self, bytes pattern, list sessions, const char* name, Py_ssize_t n, const char* message,
                             Py_ssize_t size) except -1:
        cdef Buffer out = self.scratch
        out.clear()
        out.append(b"*4\r\n$8\r\npmessage\r\n", 18)
        put_bulk(out, RESP2, PyBytes_AS_STRING(pattern), PyBytes_GET_SIZE(pattern))
        put_bulk(out, RESP2, name, n)
        put_bulk(out, RESP2, message, size)
        return self.send(sessions)

    cdef int send(self, list sessions) except -1:
        """What is in `scratch` to each of them. RESP2 and RESP3 differ in the first byte alone."""
        cdef Buffer out = self.scratch
        cdef Session session
        # Whoever does not read may be closed on the way, and others with it: they take nothing any more.
        for session in sessions:
            out.data[out.start] = c">" if session.dialect_now == RESP3 else c"*"
            session.push(out.data + out.start, out.used())
        return 0


cdef int put_names(Link link, Pending owner, int kind, list words) except -1:
    """Tells a shard how many listen to some names."""
    return put_always(link, owner, link.router.table.subscribe, [b"%d" % kind] + words)


cdef int put_always(Link link, Pending owner, uint16_t command, list words) except -1:
    """A question that is answered whenever the shard comes to it, and in the order of all such."""
    link.end_run()
    link.put_header(INTERNAL, 0, 0, 0, 0, NO_TRANSACTION, RUN_OF_NOBODY)
    link.run_deadline = link.router.now_ms + link.limits.request_timeout
    put_words(link.out, command, NO_SLOT, words)
    link.run_count = 1
    link.in_flight += 1
    return link.finish_run(<PyObject*> owner, True, 0)
