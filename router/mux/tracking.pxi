# CLIENT TRACKING as the router knows it: who is told, how, and when that may leave.
#
#   Tracks     one client's: whom its news goes to, which of its commands are tracked, which prefixes
#   runs       say FLAG_TRACK where the command is tracked; the shard remembers the keys (shard/engine/tracking.pxi)
#   PUBLISHED_KEY ──► invalidate: behind the replies that are on their way to this client, past a command that waits
#
# A reply that was read before a change never comes behind the news of it: shards say one after the other on the same link,
# and what waits here for its turn goes first. Where a link is lost nothing is known: whoever tracks is told that
# everything may have changed, and the shard is told of them again when it is back, before anything is read there.

cdef enum:
    # Modes of Tracks; the first two travel to the shards.
    TRACKS_BROADCAST = 1
    TRACKS_NOLOOP = 2
    TRACKS_OPTIN = 4
    TRACKS_OPTOUT = 8
    TRACKS_FOR_SHARDS = 3

    CACHING_UNSAID = -1

# What clients of RESP2 listen to for the news of others.
cdef bytes INVALIDATIONS = b"__redis__:invalidate"


cdef class Tracks:
    """What a client is told of."""

    def __init__(self, uint64_t redirect, int modes, tuple prefixes):
        self.redirect = redirect
        self.modes = modes
        self.prefixes = prefixes
        self.caching = CACHING_UNSAID

    cdef int flag(self) noexcept:
        """What the runs of the next command say."""
        if self.modes & TRACKS_BROADCAST:
            return 0
        if self.modes & TRACKS_OPTIN:
            return FLAG_TRACK if self.caching == 1 else 0
        return 0 if self.modes & TRACKS_OPTOUT and self.caching == 0 else FLAG_TRACK


cdef class Trackers:
    """The clients of one router that are told what changes."""

    def __init__(self, Router router not None):
        self.router = router
        self.sessions = {}

    cdef int begin(self, Session session, Tracks tracks, Pending owner) except -1:
        """Every shard that is up is told; how many answer `owner`."""
        cdef Link link
        cdef int asked = 0
        session.set_tracks(tracks)
        self.sessions[session] = tracks
        for link in self.router.links:
            if link.phase == UP:
                put_tracks(link, owner, session, tracks)
                asked += 1
        return asked

    cdef int end(self, Session session) except -1:
        cdef Link link
        session.set_tracks(None)
        if self.sessions.pop(session, None) is not None:
            for link in self.router.links:
                if link.phase == UP:
                    put_always(link, Ignored(self.router), self.router.table.untrack, [b"%d" % session.id])
        return 0

    cdef int register_on(self, Link link) except -1:
        for session, tracks in self.sessions.items():
            put_tracks(link, Ignored(self.router), <Session> session, <Tracks> tracks)
        return 0

    cdef int lost(self) except -1:
        """What a shard would have told in the meantime is not known."""
        cdef Session session
        cdef Tracks tracks
        for session, tracks in list(self.sessions.items()):
            if tracks.redirect == 0:
                self.tell(session, NULL, -1)
            elif self.router.clients.by_id.get(tracks.redirect) is not None:
                self.tell(<Session> self.router.clients.by_id[tracks.redirect], NULL, -1)
            elif self.router.tell_elsewhere is not None:
                self.router.tell_elsewhere(tracks.redirect)
        return 0

    cdef int take(self, Link link, int what, uint64_t id, const char* words, Py_ssize_t n) except -1:
        """What a shard tells a client of this router."""
        cdef Session session = <Session> self.router.clients.by_id.get(id)
        if session is None:
            if what != PUBLISHED_BROKEN and link.phase == UP:
                # Somebody has its news sent to one that is gone.
                put_always(link, Ignored(self.router), self.router.table.broken, [b"%d" % id])
            return 0
        if what == PUBLISHED_BROKEN:
            return self.tell_broken(session)
        return self.tell(session, words, n if what == PUBLISHED_KEY else -1)

    cdef int tell(self, Session session, const char* words, Py_ssize_t n) except -1:
        """That keys have changed (u32 n, key | …), or with a size of -1 that everything may have."""
        cdef Buffer out = Buffer()
        if session.dialect_now == RESP3:
            out.append(b">2\r\n$10\r\ninvalidate\r\n", 21)
        elif INVALIDATIONS in session.names(PUBLISHED_CHANNEL):
            out.append(b"*3\r\n$7\r\nmessage\r\n", 17)
            put_bulk(out, RESP2, PyBytes_AS_STRING(INVALIDATIONS), PyBytes_GET_SIZE(INVALIDATIONS))
        else:
            return 0
        if n < 0:
            put_null(out, session.dialect_now)
        else:
            put_keys(out, words, n)
        return push_behind(session, out.data + out.start, out.used())

    cdef int tell_broken(self, Session session) except -1:
        cdef Tracks tracks = session.tracks
        cdef Buffer out
        if tracks is None or tracks.broken:
            return 0
        tracks.broken = True
        if session.dialect_now != RESP3:
            return 0
        out = Buffer()
        put_reply(out, RESP3, Push([b"tracking-redir-broken", tracks.redirect]))
        return push_behind(session, out.data + out.start, out.used())


cdef int put_keys(Buffer out, const char* words, Py_ssize_t n) except -1:
    """An array of the keys of a PUBLISHED_KEY."""
    cdef Py_ssize_t at = 0, count = 0
    cdef uint32_t size
    while n - at >= 4:
        memcpy(&size, words + at, 4)
        at += 4 + <Py_ssize_t> size
        count += 1
    begin_array(out, RESP2, count)
    at = 0
    while n - at >= 4:
        memcpy(&size, words + at, 4)
        put_bulk(out, RESP2, words + at + 4, size)
        at += 4 + <Py_ssize_t> size
    return 0


cdef int put_tracks(Link link, Pending owner, Session session, Tracks tracks) except -1:
    return put_always(link, owner, link.router.table.track, [
        b"%d" % session.id, b"%d" % tracks.redirect, b"%d" % (tracks.modes & TRACKS_FOR_SHARDS), *tracks.prefixes])


cdef int push_behind(Session session, const char* message, Py_ssize_t n) except -1:
    """A push that overtakes no reply that is on its way; a command that waits is passed."""
    cdef uint16_t last = FROM_LOCAL, local = FROM_LOCAL
    cdef uint32_t size = <uint32_t> n
    cdef Buffer order = session.order
    if session.gone or session.closing:
        return 0
    if order.used() == 0 or (session.blocker is not None and order.used() == 2):
        return session.push(message, n)
    session.account(n)
    if session.over_limit():
        return 0
    if session.local is None:
        session.local = Buffer()
    session.local.put_u32(size)
    session.local.append(message, n)
    if session.blocker is not None:
        # The command that waits is the last one, and nothing that is made here comes behind it.
        memcpy(&last, order.data + order.end - 2, 2)
        memcpy(order.data + order.end - 2, &local, 2)
    order.put_u16(last)
    session.waiting += 1
    session.advance()
    return 0


cdef class TrackingBegins(Pending):
    """CLIENT TRACKING ON on its way to the shards."""

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        return self.one_less()

    cdef int fail(self, uint32_t part, bytes message) except -1:
        return self.one_less()

    cdef int one_less(self) except -1:
        self.missing -= 1
        if self.missing == 0 and not self.future.done():
            self.future.set_result(None)
            self.router.must_yield = True
        return 0
