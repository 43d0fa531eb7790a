# Channels: which routers have clients that listen to what, and what is published on its way to them.
#
#   PUBLISH ──► links with a subscriber, or with a pattern that matches ──► one PUBLISHED to each, whatever it has of them
#
# A router says how many of its clients listen to a name, every time that changes; it knows which. A channel lives on the
# shard of its slot; patterns, and channels of keyspace notifications, on all shards. The order of a link is the order of
# its messages: one channel has one order for everybody.

# Most messages are for a channel that had one a moment ago: its links are looked up once, and again when what anybody listens
# to has changed (`Audience`).

# A router that takes nothing (it is stopped) loses its link when so much waits for it: what is published is not kept for it.
cdef Py_ssize_t MOST_PUBLISHED = 256 << 20


cdef inline Py_ssize_t audience_place(int kind, const char* name, Py_ssize_t n) noexcept:
    """Where the audience of a name is kept: names that differ at an end share a place by chance alone."""
    cdef uint64_t head = 0, tail = 0
    cdef size_t size = <size_t> min(n, <Py_ssize_t> 8)
    memcpy(&head, name, size)
    memcpy(&tail, name + n - size, size)
    return <Py_ssize_t> (((head * 31 ^ tail) + <uint64_t> (n * 8 + kind)) * <uint64_t> 0x9E3779B97F4A7C15 >> (64 - AUDIENCE_BITS))


@cython.final
cdef class Audience:
    pass


@cython.final
cdef class Channels:
    """What is listened to at one shard."""

    def __init__(self):
        self.listeners = [{} for _ in range(SUBSCRIBED_KINDS)]
        self.matchers = {}
        self.recent = [None] * (1 << AUDIENCE_BITS)

    def subscribe(self, Link link not None, int kind, bytes name not None, int64_t sessions):
        """So many clients of this link listen to the name from here on."""
        cdef dict names = self.listeners[kind]
        cdef dict links = names.get(name)
        if self.remembers:
            self.remembers = False
            self.recent = [None] * (1 << AUDIENCE_BITS)
        if sessions > 0:
            if links is None:
                links = names[name] = {}
                self.count_in(kind, name, 1)
                if kind == PUBLISHED_PATTERN:
                    self.matchers[name] = compile_glob(name)
            links[link] = sessions
        elif links is not None and links.pop(link, None) is not None and not links:
            del names[name]
            self.count_in(kind, name, -1)
            if kind == PUBLISHED_PATTERN:
                del self.matchers[name]

    cdef int count_in(self, int kind, bytes name, int change) except -1:
        """A name has got its first listener, or lost the last."""
        self.active += change
        if kind == PUBLISHED_PATTERN or (kind == PUBLISHED_CHANNEL and name.startswith(b"__key")):
            self.of_keys += change
            if self.notifications is not None:
                self.notifications.look()
        return 0

    cdef int forget_link(self, Link link) except -1:
        for kind in range(SUBSCRIBED_KINDS):
            for name in [name for name, links in (<dict> self.listeners[kind]).items() if link in links]:
                self.subscribe(link, kind, name, 0)
        return 0

    def listened(self, int kind):
        """The names that somebody listens to."""
        return list(self.listeners[kind])

    def count(self, int kind, bytes name not None):
        """How many clients listen to it."""
        cdef dict links = (<dict> self.listeners[kind]).get(name)
        return 0 if links is None else sum(links.values())

    def publish_to(self, int what, bytes name not None, bytes message not None):
        """`publish` for Python."""
        return self.publish(what, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), PyBytes_AS_STRING(message),
                            PyBytes_GET_SIZE(message))

    cdef int64_t publish(self, int what, const char* name, Py_ssize_t n, const char* message, Py_ssize_t size) except -1:
        """Sends it to every link that has somebody for it; to how many clients it goes, once for each match."""
        cdef Audience audience
        cdef Link link
        if self.active == 0:
            return 0
        audience = <Audience> self.recent[audience_place(what, name, n)]
        if (audience is None or audience.kind != what or PyBytes_GET_SIZE(audience.name) != n
                or memcmp(PyBytes_AS_STRING(audience.name), name, <size_t> n) != 0):
            audience = self.find_audience(what, PyBytes_FromStringAndSize(name, n))
            if audience is None:
                return 0
        for link in audience.links:
            link.put_published(what, 0, name, n, message, size)
        return audience.clients

    cdef Audience find_audience(self, int what, bytes channel):
        """Who has it coming, for this message and those that follow; None when nobody has."""
        cdef dict links = (<dict> self.listeners[what]).get(channel)
        cdef Audience found
        if self.matchers and what == PUBLISHED_CHANNEL:
            links = {} if links is None else dict(links)
            for pattern, matches in self.matchers.items():
                if matches(channel):
                    for link, sessions in (<dict> (<dict> self.listeners[PUBLISHED_PATTERN])[pattern]).items():
                        links[link] = links.get(link, 0) + sessions
        if not links:
            return None
        found = Audience.__new__(Audience)
        found.kind = what
        found.name = channel
        found.links = list(links)
        found.clients = sum(links.values())
        self.recent[audience_place(what, PyBytes_AS_STRING(channel), PyBytes_GET_SIZE(channel))] = found
        self.remembers = True
        return found


cdef int run_publish(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return put_int(out, context.dialect, context.shard.channels.publish(
        PUBLISHED_CHANNEL, args[0].data, args[0].size, args[1].data, args[1].size))


cdef int run_spublish(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return put_int(out, context.dialect, context.shard.channels.publish(
        PUBLISHED_SHARD_CHANNEL, args[0].data, args[0].size, args[1].data, args[1].size))
