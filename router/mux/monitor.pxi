# MONITOR: a line for every command of the cluster, to whoever watches.
#
#   any router: somebody watches (a page that all have mapped) ──► each command, executed, becomes a line
#   the line ──► shard 0 ──► every router with somebody who watches: one order for all of them
#   in front of a Redis Cluster: ──► who watches here, and the other routers (router/cluster/monitoring.py)
#
# With nobody watching a command costs two loads. What is queued behind MULTI is shown when EXEC executes it. What is secret
# is not shown (kache/commands/redact.py), nor what administers the cluster, nor what was refused unseen (`refused_at`).
# Scripts are, as commands of their clients, though the table has "skip_monitor": with that a real server shows them by hand,
# before what they execute. What they execute here is not shown: shards know nothing of who watches.

cdef bytes WATCHED_NAME = b"monitor"


# A collection must not take the page away before its buffer is given back: who owns a page with a buffer cannot go.
@cython.no_gc_clear
@cython.final
cdef class Monitors:
    """Who watches all commands, and how they are described."""

    def __cinit__(self):
        self.words = NULL

    def __dealloc__(self):
        if self.shared.buf != NULL:
            PyBuffer_Release(&self.shared)

    def __init__(self, Router router not None, page=None):
        """`page`: what all routers have mapped (kache/cluster/monitors.py); None for one that is alone."""
        self.router = router
        PyObject_GetBuffer(bytearray(16) if page is None else page, &self.shared, PyBUF_WRITABLE)
        self.words = <uint64_t*> self.shared.buf
        self.count()

    cdef int count(self) except -1:
        """Shows the others how many watch here, up to what a byte holds."""
        cdef dict watching = <dict> (<list> self.router.channels.listeners)[PUBLISHED_MONITOR]
        cdef Py_ssize_t here = len(<dict> watching.get(WATCHED_NAME, {}))
        (<uint8_t*> self.words)[self.router.index] = <uint8_t> min(here, <Py_ssize_t> 255)
        return 0

    cdef int tell(self, Session session, Command* command) except -1:
        """The command in the parser of this session was executed."""
        if session.queue is not None and not command.immediate:
            return 0        # it is queued
        words = [PyBytes_FromStringAndSize(session.parser.spans[i].data, session.parser.spans[i].size)
                 for i in range(session.parser.count)]
        return self.tell_words(session, command, session.db_now, words)

    cdef int tell_words(self, Session session, Command* command, int db, list words) except -1:
        cdef Link link = <Link> self.router.links[0] if self.router.remote is None else None
        cdef int64_t now_us
        row = <object> command.row
        if "admin" in row.flags or (link is not None and link.phase != UP):
            return 0
        now_us = self.router.clock.now_us()
        line = b"+%d.%06d [%d %b]%b\r\n" % (
            now_us // 1000000, now_us % 1000000, db, monitored_address(session),
            b"".join([b' "' + quoted(word) + b'"' for word in redacted(words)]))
        if link is None:
            return self.tell_routers(line)
        return put_always(link, Ignored(self.router), self.router.table.monitored, [line])

    cdef int tell_routers(self, bytes line) except -1:
        """In front of a Redis Cluster: each router has its clients' lines, and those of the others as they come."""
        cdef int i
        self.take(PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))
        for i in range(2 * sizeof(uint64_t)):
            if i != self.router.index and (<uint8_t*> self.words)[i]:
                self.router.remote.director.lines.tell(line)
                return 0
        return 0

    cdef int tell_remote_queue(self, Session session, Queue queue) except -1:
        """`tell_queue` in front of a Redis Cluster, where it is queued as RESP."""
        cdef Py_ssize_t i
        cdef Queued* one
        for i in range(queue.count):
            one = &queue.commands[i]
            if one.shard >= 0:
                words = decode_span(queue.frames.data + queue.frames.start + one.at, one.size)
            elif one.shard == SEVERAL:
                words = undivided(one.command.step, queue.planned[i][1], queue.planned[i][2])
            else:
                words = one.command.name[:one.command.name_size].upper().split(b"|") + list(queue.planned[i])
            self.tell_words(session, one.command, session.db_now, words)
        return 0

    cdef int tell_queue(self, Session session, Queue queue) except -1:
        """What EXEC has begun to execute."""
        cdef Py_ssize_t i
        cdef Queued* one
        cdef uint16_t number
        cdef bytes name
        for i in range(queue.count):
            one = &queue.commands[i]
            memcpy(&number, queue.frames.data + queue.frames.start + one.at + 4, 2)
            name = one.command.name[:one.command.name_size]
            name = name.upper() if number & IN_CAPITALS else name
            self.tell_words(session, one.command, one.db, name.split(b"|") + list(queue.arguments(i)))
        return 0

    cdef int take(self, const char* line, Py_ssize_t n) except -1:
        """A line for everybody who watches here."""
        cdef dict watching = <dict> (<list> self.router.channels.listeners)[PUBLISHED_MONITOR]
        cdef Session session
        for session in list(watching.get(WATCHED_NAME, ())):
            session.push(line, n)
        return 0


cdef list undivided(int step, dict places, dict frames):
    """The words of a command that was divided by slot (`parts_in_block`)."""
    cdef dict found = {}
    cdef bytes frame
    for slot, frame in frames.items():
        name, *words = decode_span(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
        for at, place in enumerate(places[slot]):
            found[place] = words[at * step:(at + 1) * step]
    return [name, *[word for place in sorted(found) for word in found[place]]]


cdef bytes monitored_address(Session session):
    cdef bytes address = session.address.encode()
    # A Unix socket's is its path.
    if address.startswith(b"/"):
        return b"unix:" + address[:PyBytes_GET_SIZE(address) - 2]
    return address


cdef bytes quoted(bytes word):
    """As sdscatrepr of a real server writes it."""
    cdef bytearray out = bytearray()
    cdef unsigned char byte
    for byte in word:
        if byte == c"\\" or byte == c'"':
            out += b"\\"
            out.append(byte)
        elif 32 <= byte < 127:
            out.append(byte)
        else:
            out += ESCAPES.get(byte) or b"\\x%02x" % byte
    return bytes(out)


cdef dict ESCAPES = {10: b"\\n", 13: b"\\r", 9: b"\\t", 7: b"\\a", 8: b"\\b"}
