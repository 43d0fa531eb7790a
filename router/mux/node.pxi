# The connection to a node of a Redis Cluster: commands go out in RESP as the client sent them, replies come back in the
# client's own dialect and are passed on byte for byte.
#
#   ring     [owner …]                   of Backend: one entry for a command
#   sent     [place, slot, size, …]      beside it, with the same index: what a redirect needs
#   kept     frame frame frame …         the bytes of what is not answered, to be sent elsewhere if need be
#
# A reply is scanned where it was received, never twice. What a redirect refuses was not executed: it keeps its place among
# its client's replies, as a deferred one does, and goes back into the gate of its slot (`router/cluster/gate.py`).

cdef tuple NODE_STATES = ("down", "connecting", "up", "draining")

# A node's line of text is not longer than this, nor are there more elements in a reply; what is, is no RESP.
cdef enum:
    LINE_LIMIT = 1 << 20

    REDIRECT_NONE = 0
    REDIRECT_MOVED = 1
    REDIRECT_ASK = 2
    REDIRECT_PATIENCE = 3
    REDIRECT_NO_SCRIPT = 4

cdef bytes NODE_TIMED_OUT = b"TIMEOUT the node did not answer in time; the command was executed once or not at all"
cdef bytes NODE_LOST = b"UNCERTAIN the node was lost before it answered; the command was executed once or not at all"
cdef bytes ASKING_FRAME = b"*1\r\n$6\r\nASKING\r\n"


cdef int put_length(Buffer out, char mark, Py_ssize_t n) except -1:
    cdef char* at = out.reserve(24)
    cdef int size
    at[0] = mark
    if 0 <= n < 10:
        at[1] = <char> (c"0" + n)
        at[2] = c"\r"
        at[3] = c"\n"
        out.end += 4
        return 0
    size = format_int64(at + 1, n)
    at[size + 1] = c"\r"
    at[size + 2] = c"\n"
    out.end += size + 3
    return 0


cdef int put_resp_words(Buffer out, Span* words, Py_ssize_t count) except -1:
    """A command as RESP."""
    cdef Py_ssize_t i, n
    cdef char* at
    put_length(out, c"*", count)
    for i in range(count):
        n = words[i].size
        put_length(out, c"$", n)
        at = out.reserve(n + 2)
        kache_copy(at, words[i].data, n)
        at[n] = c"\r"
        at[n + 1] = c"\n"
        out.end += n + 2
    return 0


cdef inline Py_ssize_t digits(Py_ssize_t n) noexcept:
    cdef Py_ssize_t found = 1
    while n >= 10:
        n //= 10
        found += 1
    return found


cdef int put_request(Buffer out, Session session) except -1:
    """The request in the session's parser as RESP. One that came as RESP lies there in one piece, and numbers have but one
    spelling (`read_number`): it is copied as it is."""
    cdef RequestParser parser = session.parser
    cdef Span* last = &parser.spans[parser.count - 1]
    cdef const char* begin
    if session.protocol != PROTOCOL_RESP or parser.words:
        return put_resp_words(out, parser.spans, parser.count)
    begin = parser.spans[0].data - digits(parser.count) - digits(parser.spans[0].size) - 6
    return out.append(begin, last.data + last.size + 2 - begin)


cdef bytes resp_of(list words):
    """The same of bytes."""
    cdef Buffer out = Buffer()
    cdef bytes word
    put_length(out, c"*", len(words))
    for word in words:
        put_length(out, c"$", len(word))
        out.append(PyBytes_AS_STRING(word), len(word))
        out.append(b"\r\n", 2)
    return PyBytes_FromStringAndSize(out.data + out.start, out.used())


cdef int redirect_of(const char* text, Py_ssize_t n) noexcept:
    """What an error means that begins behind its "-": all but REDIRECT_NONE say that nothing was executed."""
    if n > 6 and memcmp(text, b"MOVED ", 6) == 0:
        return REDIRECT_MOVED
    if n > 4 and memcmp(text, b"ASK ", 4) == 0:
        return REDIRECT_ASK
    if ((n > 9 and memcmp(text, b"TRYAGAIN ", 9) == 0) or (n > 12 and memcmp(text, b"CLUSTERDOWN ", 12) == 0)
            or (n > 8 and memcmp(text, b"LOADING ", 8) == 0) or (n > 11 and memcmp(text, b"MASTERDOWN ", 11) == 0)
            or (n > 9 and memcmp(text, b"READONLY ", 9) == 0)):
        return REDIRECT_PATIENCE
    if n > 9 and memcmp(text, b"NOSCRIPT ", 9) == 0:
        return REDIRECT_NO_SCRIPT
    return REDIRECT_NONE


cdef class ReplyScanner:

    cdef Py_ssize_t scan(self, const char* data, Py_ssize_t n) noexcept:
        """The size of the reply that begins at `data`; 0: it is not all here, and will be looked at from where this ended;
        -1: it is none."""
        cdef const char* end
        cdef const char* from_
        cdef int64_t number
        cdef char kind
        if self.left == 0:
            self.left = 1
            self.at = 0
        while self.left:
            if self.at >= n:
                return 0
            from_ = data + self.at
            end = <const char*> memchr(from_ + self.looked, c"\n", n - self.at - self.looked)
            if end == NULL:
                self.looked = n - self.at
                return 0 if self.looked < LINE_LIMIT else -1
            kind = from_[0]
            if kind == c"+" or kind == c"-" or kind == c":" or kind == c"_" or kind == c"," or kind == c"#" or kind == c"(":
                number = 0
            elif end - from_ < 3 or not parse_int64(from_ + 1, end - from_ - 2, &number) or number < -1:
                return -1
            elif kind == c"$" or kind == c"=" or kind == c"!":
                if number >= 0:
                    if n - self.at < end - from_ + 3 + number:
                        return 0
                    end += number + 2
                number = 0
            elif kind == c"*" or kind == c"~" or kind == c">":
                number = max(number, <int64_t> 0)
            elif kind == c"%":
                number = 2 * max(number, <int64_t> 0)
            elif kind == c"|":
                # Stands before the value that it says something of.
                number = 2 * max(number, <int64_t> 0) + 1
            else:
                return -1
            self.left += number - 1
            self.at += end - from_ + 1
            self.looked = 0
        return self.at

    def sizes(self, bytes data not None, pieces):
        """For tests: the sizes of all replies in `data`, which comes in pieces that end at these offsets; -1 for what is none."""
        found = []
        cdef Py_ssize_t begin = 0, n
        for end in pieces:
            while begin < end:
                n = self.scan(PyBytes_AS_STRING(data) + begin, end - begin)
                if n < 0:
                    return [*found, -1]
                if n == 0:
                    break
                found.append(n)
                begin += n
        return found


cdef class Held:
    pass


cdef class Node(Backend):

    def __cinit__(self):
        self.sent = <Sent*> calloc(FIRST_RING, sizeof(Sent))
        if self.sent == NULL:
            raise MemoryError("no memory for a connection")
        self.sent_mask = FIRST_RING - 1

    def __dealloc__(self):
        cdef uint64_t at
        for at in range(self.sent_mask + 1):
            if self.sent[at].frame != NULL:
                Py_DECREF(<object> self.sent[at].frame)
        free(self.sent)

    cdef int connected(self, int fd, str name, bytes greeting, int replies) except -1:
        """A socket that connects, or will, to a host of that name; `greeting` is sent first, and that many answers mean that
        the node is up."""
        Endpoint.__init__(self, self.router, fd)
        kache_tune(fd, 0)
        if self.remote.tls is not None:
            connect_tls(self, <TlsPool> self.remote.tls, name)
        self.phase = HANDSHAKE
        self.reason = "no answer yet"
        self.kept = Buffer()
        self.scanner = ReplyScanner()
        self.greetings = replies
        self.heard_ms = self.router.now_ms
        self.output().append(PyBytes_AS_STRING(greeting), PyBytes_GET_SIZE(greeting))
        return self.mark_dirty()

    @property
    def state(self):
        """"down", "connecting", "up" or "draining"."""
        return NODE_STATES[self.phase]

    @property
    def number(self):
        """Which node it leads to."""
        return self.node - 1

    cdef bytes down_text(self):
        return b"CLUSTERDOWN the node is not reachable (%s); nothing was executed" % str(self.reason).encode()

    # Commands out ---------------------------------------------------------------------------------
    cdef int note(self, PyObject* owner, bint pending, uint32_t part, uint16_t slot, uint64_t place, bint reads,
                  Py_ssize_t mark, Py_ssize_t size, int64_t deadline) except -1:
        """The command at `mark` in `out` is sent, and expected to be answered."""
        cdef Sent* sent
        self.expect(owner, pending, part, 1, deadline, mark)
        if self.sent_mask != self.ring_mask:
            self.grow_sent()
        if self.tail - self.head == 1:
            # It owes nothing before: its silence counts from here.
            self.heard_ms = self.router.now_ms
        sent = &self.sent[(self.tail - 1) & self.sent_mask]
        sent.place = place
        sent.slot = slot
        sent.size = <uint32_t> size
        sent.reads = reads
        sent.skip = 0
        sent.frame = NULL
        if size:
            self.kept.append(self.out.data + self.out.start + mark, size)
        self.in_flight += 1
        if slot != NO_SLOT:
            self.remote.slots[slot].flying += 1
        return 0

    cdef int grow_sent(self) except -1:
        cdef uint64_t size = self.ring_mask + 1
        cdef Sent* sent = <Sent*> calloc(size, sizeof(Sent))
        cdef uint64_t at
        if sent == NULL:
            raise MemoryError("no memory for a connection's queue")
        # The newest entry is the one that made the ring grow: it has nothing here yet.
        for at in range(self.head, self.tail - 1):
            sent[at & (size - 1)] = self.sent[at & self.sent_mask]
        free(self.sent)
        self.sent = sent
        self.sent_mask = size - 1
        return 0

    cdef int put_held(self, Held held, bint asking, int64_t deadline) except -1:
        """A command from a gate."""
        cdef Buffer out = self.output()
        cdef Py_ssize_t mark
        cdef Sent* sent
        if asking:
            out.append(PyBytes_AS_STRING(ASKING_FRAME), PyBytes_GET_SIZE(ASKING_FRAME))
        mark = out.used()
        out.append(PyBytes_AS_STRING(held.data), PyBytes_GET_SIZE(held.data))
        self.note(<PyObject*> held.owner, held.pending, held.part, held.slot, held.place, held.reads, mark, 0, deadline)
        sent = &self.sent[(self.tail - 1) & self.sent_mask]
        sent.skip = held.skip + (1 if asking else 0)
        Py_INCREF(held)
        sent.frame = <PyObject*> held
        return 0

    # Replies in -----------------------------------------------------------------------------------
    cdef Py_ssize_t on_data(self, const char* data, Py_ssize_t n) except -1:
        cdef Py_ssize_t at = 0, size
        self.heard_ms = self.router.now_ms
        if self.remote.arrived:
            self.remote.work()
        while self.fd >= 0 and at < n:
            size = self.scanner.scan(data + at, n - at)
            if size == 0:
                break
            if size < 0:
                self.close("it does not speak RESP")
                break
            self.take(data + at, size)
            at += size
        self.pass_batch()
        return at

    cdef int take(self, const char* reply, Py_ssize_t n) except -1:
        cdef Sent* sent
        cdef int kind
        if reply[0] == c">":
            return 0        # nothing was asked for that comes by itself
        if self.phase == HANDSHAKE:
            return self.take_greeting(reply, n)
        if self.head == self.tail:
            self.close("a reply that nobody expects")
            return 0
        sent = &self.sent[self.head & self.sent_mask]
        if sent.skip:
            sent.skip -= 1
            if reply[0] == c"-" and self.refusal is None:
                self.refusal = PyBytes_FromStringAndSize(reply, n)
            return 0
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            if n > 11 and memcmp(reply, b"-EXECABORT ", 11) == 0:
                # Why says the answer to the command that could not be queued.
                reply = PyBytes_AS_STRING(<bytes> refusal)
                n = PyBytes_GET_SIZE(<bytes> refusal)
        if reply[0] == c"-" and sent.slot != NO_SLOT:
            kind = redirect_of(reply + 1, n - 1)
            if kind == REDIRECT_NO_SCRIPT:
                kind = REDIRECT_NO_SCRIPT if self.loads_script() else REDIRECT_NONE
                # The question may have moved the ring.
                sent = &self.sent[self.head & self.sent_mask]
            if kind != REDIRECT_NONE:
                self.pass_batch()
                return self.redirected(kind, reply, n)
        self.hand_over(sent, reply, n)
        return self.done()

    cdef inline int hand_over(self, Sent* sent, const char* reply, Py_ssize_t n) except -1:
        """The first command's reply to whom it is for; replies of one client are gathered."""
        cdef Expected* expected = &self.ring[self.head & self.ring_mask]
        if expected.owner == NULL:
            pass
        elif expected.pending:
            self.pass_batch()
            (<Pending> expected.owner).receive(expected.part, reply, n)
        elif (<Session> expected.owner).dialect_now == BINARY:
            self.pass_batch()
            self.translate(<Session> expected.owner, sent, reply, n)
        elif sent.frame != NULL:
            self.pass_batch()
            (<Session> expected.owner).receive_deferred((<Held> sent.frame).source, (<Held> sent.frame).token, reply, n)
        elif n > LARGE_REPLY:
            self.pass_batch()
            (<Session> expected.owner).receive_placed(self.index, reply, n)
        else:
            if (<PyObject*> self.batch_owner != expected.owner or self.batch + self.batch_bytes != reply
                    or self.batched == MOST_BATCHED):
                self.pass_batch()
                self.batch_owner = <Session> expected.owner
                self.batch = reply
            self.sizes[self.batched] = <uint32_t> n
            self.batched += 1
            self.batch_bytes += n
        return 0

    cdef bint loads_script(self) except -1:
        """The first command names a script that the node does not know. If this router does, it tells the node; whether the
        command may be sent again, which it may not behind what its client has sent after it."""
        cdef const char* data = self.kept.data + self.kept.start
        cdef Sent* sent = &self.sent[self.head & self.sent_mask]
        cdef bint alone = self.remote.slots[sent.slot].flying == 1
        cdef bytes frame
        frame = (<Held> sent.frame).data if sent.frame != NULL else PyBytes_FromStringAndSize(data, sent.size)
        return self.remote.director.tells_script(self, frame) and alone

    cdef int translate(self, Session session, Sent* sent, const char* reply, Py_ssize_t n) except -1:
        """For a client of the binary protocol."""
        cdef Buffer encoded = Buffer()
        put_reply(encoded, BINARY, decode_span(reply, n))
        if sent.frame != NULL:
            return session.receive_deferred((<Held> sent.frame).source, (<Held> sent.frame).token,
                                            encoded.data + encoded.start, encoded.used())
        return session.receive(self.index, encoded.data + encoded.start, encoded.used())

    cdef int done(self) except -1:
        """The first command is answered."""
        cdef Sent* sent = &self.sent[self.head & self.sent_mask]
        cdef uint16_t slot = sent.slot
        cdef object frame = None
        cdef Slot* state
        if sent.frame != NULL:
            frame = <object> sent.frame
            Py_DECREF(frame)
            sent.frame = NULL
        self.kept.consume(sent.size)
        self.answered(1)
        if slot != NO_SLOT:
            state = &self.remote.slots[slot]
            state.flying -= 1
            if not state.proven:
                self.remote.director.answered(slot, frame)
        return 0

    cdef int pass_batch(self) except -1:
        """Replies of one client, one behind the other, are passed on together."""
        cdef Session session = self.batch_owner
        cdef uint32_t count = self.batched
        if session is None:
            return 0
        self.batch_owner = None
        self.batched = 0
        self.batch_bytes = 0
        return session.receive_run(self.index, self.batch, self.sizes, count)

    cdef int take_greeting(self, const char* reply, Py_ssize_t n) except -1:
        if reply[0] == c"-":
            # NOAUTH to all that follows AUTH is what came of the first.
            self.close(PyBytes_FromStringAndSize(reply + 1, max(n - 3, 0)).decode("utf-8", "replace"))
            return 0
        self.greetings -= 1
        if self.greetings == 0:
            self.phase = UP
            self.reason = ""
            self.remote.director.is_up(self)
        return 0

    # Not executed ---------------------------------------------------------------------------------
    cdef Held again(self, Expected* expected, Sent* sent, const char* data):
        """The command as it will wait in its gate; None: nobody waits for it."""
        cdef Held held
        if expected.owner == NULL:
            return None
        if sent.frame != NULL:
            held = <Held> sent.frame
            return held
        held = Held.__new__(Held)
        held.owner = <object> expected.owner
        held.pending = expected.pending
        held.part = expected.part
        held.data = PyBytes_FromStringAndSize(data, sent.size)
        held.dialect = self.dialect
        held.lane = self.lane
        held.db = self.db
        held.reads = sent.reads
        held.skip = self.skips(sent, data)
        self.remote.hold_place(held, sent.slot, sent.place, self.index)
        return held

    cdef uint32_t skips(self, Sent* sent, const char* data) noexcept:
        """How many replies stand before its own: those of a block, whose frames are counted."""
        cdef uint32_t found = 0
        cdef const char* at = data
        cdef const char* end = data + sent.size
        cdef int64_t words, size
        cdef const char* line
        while at < end:
            line = <const char*> memchr(at, c"\n", end - at)
            if not parse_int64(at + 1, line - at - 2, &words):
                break
            at = line + 1
            while words > 0:
                line = <const char*> memchr(at, c"\n", end - at)
                parse_int64(at + 1, line - at - 2, &size)
                at = line + 1 + size + 2
                words -= 1
            found += 1
        return found - 1 if found else 0

    cdef int redirected(self, int kind, const char* reply, Py_ssize_t n) except -1:
        cdef Expected* expected = &self.ring[self.head & self.ring_mask]
        cdef Sent* sent = &self.sent[self.head & self.sent_mask]
        cdef Held held = self.again(expected, sent, self.kept.data + self.kept.start)
        cdef uint16_t slot = sent.slot
        cdef object frame = None
        if sent.frame != NULL:
            frame = <object> sent.frame
            Py_DECREF(frame)
            sent.frame = NULL
        self.kept.consume(sent.size)
        self.answered(1)
        self.remote.slots[slot].flying -= 1
        self.remote.redirects += 1
        text = PyBytes_FromStringAndSize(reply + 1, max(n - 3, 0))
        self.remote.director.redirected(self.node - 1, slot, held, frame, text, kind)
        return 0

    cdef int expire_node(self, int64_t now_ms, int64_t silence_ms) except -1:
        """Answers TIMEOUT for what is past its deadline; a node that says nothing at all is given up."""
        cdef Expected* expected
        cdef PyObject* owner
        cdef Sent* sent
        cdef uint64_t at = self.head
        if now_ms - self.heard_ms > silence_ms:
            if self.phase == HANDSHAKE or self.head < self.tail:
                self.close("it has said nothing for %g s" % (silence_ms / 1000))
                return 0
        while at < self.tail:
            expected = &self.ring[at & self.ring_mask]
            sent = &self.sent[at & self.sent_mask]
            if expected.deadline == 0 or expected.deadline > now_ms:
                break
            at += 1
            self.overdue = max(self.overdue, at)
            owner = expected.owner
            if owner == NULL:
                continue
            expected.owner = NULL
            self.timeouts += 1
            self.router.counters.timeouts += 1
            self.refuse(owner, expected.pending, expected.part, sent.frame, NODE_TIMED_OUT)
            Py_DECREF(<object> owner)
        if self.waiters is not None and self.stuck():
            self.wake_waiters()
        return 0

    cdef int refuse(self, PyObject* owner, bint pending, uint32_t part, PyObject* frame, bytes message) except -1:
        if pending:
            return (<Pending> owner).fail(part, message)
        if frame != NULL:
            return (<Session> owner).deferred_lost((<Held> frame).source, (<Held> frame).token, message)
        return (<Session> owner).receive_errors(self.index, 1, message)

    cdef int on_closed(self, object reason) except -1:
        """What was not sent, or only reads, waits for a living owner; the rest is uncertain."""
        cdef Expected* expected
        cdef Sent* sent
        cdef Held held
        cdef PyObject* owner
        cdef Py_ssize_t at = 0
        cdef list again = [], over = []
        self.pass_batch()
        self.phase = DOWN
        self.reason = reason
        while self.head < self.tail:
            expected = &self.ring[self.head & self.ring_mask]
            sent = &self.sent[self.head & self.sent_mask]
            self.head += 1
            if sent.slot != NO_SLOT:
                self.remote.slots[sent.slot].flying -= 1
            owner = expected.owner
            frame = <object> sent.frame if sent.frame != NULL else None
            if owner != NULL and sent.slot != NO_SLOT and (sent.reads or expected.start >= self.bytes_out):
                again.append(self.again(expected, sent, self.kept.data + self.kept.start + at))
                if not sent.reads or expected.start < self.bytes_out:
                    self.remote.repeats += 1
            else:
                if frame is not None:
                    over.append(frame)
                if owner != NULL:
                    self.router.counters.uncertain += 1
                    self.refuse(owner, expected.pending, expected.part, sent.frame, NODE_LOST)
            at += sent.size
            if sent.frame != NULL:
                Py_DECREF(frame)
                sent.frame = NULL
            if owner != NULL:
                expected.owner = NULL
                Py_DECREF(<object> owner)
        self.in_flight = 0
        self.overdue = self.head
        self.kept.release()
        if self.waiters is not None:
            self.wake_waiters()
        self.remote.is_lost(self)
        if not self.router.closed and not self.remote.director.stopped:
            self.remote.director.is_down(self, again, over)
        return self.router.clients.wake_soon()
