# A merged reply that is too large to be made here: it leaves as its parts come.
#
#   part 0   *250000 | $3 abc | $4 defg …   a Flow of shard 0        header   *1000000, once the first line of each is here
#   part 1   *250000 | $2 xy  | …           a Flow of shard 1        body     what is behind those lines: one part after the
#   …                                                                         other (KEYS), or each key's from its part (MGET)
#
# Parts come in their client's dialect, so nothing is encoded again; each step is as long as the piece that has come. While
# it is not its turn it costs the first bytes of each part, then a window of them: the rest waits in the shards. What was
# begun cannot become an error any more: if a part is lost then, the client is closed.

# Bytes of each part that are asked for at first: its first line, or the head of a binary reply.
cdef Py_ssize_t HEAD_WINDOW = 64
# And ahead of what has left, of the part that is leaving or of each.
cdef Py_ssize_t PART_WINDOW = 1 << 20

cdef enum:
    BINARY_HEAD = 13            # length, status, tag and count of an array
    TAG_NULL = 0
    TAG_ERROR = 1
    TAG_STRING = 2
    TAG_ARRAY = 5


cdef Py_ssize_t head_of(int dialect, const char* at, Py_ssize_t n, int64_t* count) noexcept:
    """The bytes before the first element of an array, and how many it has; 0: they are not all here, -1: it is none."""
    cdef const char* end
    cdef uint32_t elements
    if dialect == BINARY:
        if n < BINARY_HEAD:
            return 0 if n < 9 or at[8] == TAG_ARRAY else -1
        memcpy(&elements, at + 9, 4)
        count[0] = elements
        return BINARY_HEAD if at[8] == TAG_ARRAY else -1
    if n and at[0] != c"*":
        return -1
    end = <const char*> memchr(at, c"\n", n) if n else NULL
    if end == NULL:
        return 0 if n < HEAD_WINDOW else -1
    if not parse_int64(at + 1, end - at - 2, count) or count[0] < 0:
        return -1
    return end - at + 1


cdef Py_ssize_t element_size(int dialect, const char* at, Py_ssize_t n) noexcept:
    """The bytes of the string or null that begins here; 0: too little is here to tell, -1: it is neither."""
    cdef const char* end
    cdef uint32_t size
    cdef int64_t number
    if n == 0:
        return 0
    if dialect == BINARY:
        if at[0] == TAG_NULL:
            return 1
        if at[0] != TAG_STRING:
            return -1
        if n < 5:
            return 0
        memcpy(&size, at + 1, 4)
        return 5 + <Py_ssize_t> size
    end = <const char*> memchr(at, c"\n", min(n, HEAD_WINDOW))
    if end == NULL:
        return 0 if n < HEAD_WINDOW else -1
    if at[0] == c"$" and parse_int64(at + 1, end - at - 2, &number) and number >= 0:
        return (end - at + 1) + number + 2
    return end - at + 1 if at[0] == c"$" or at[0] == c"_" else -1


cdef object error_of_part(int dialect, const char* reply, Py_ssize_t n):
    """The error that a part was answered with; None if it is none."""
    cdef uint32_t size
    if dialect != BINARY:
        return decode_span(reply, n) if n > 0 and reply[0] == c"-" else None
    if n < BINARY_HEAD or reply[8] != TAG_ERROR:
        return None
    memcpy(&size, reply + 9, 4)
    return CommandError(reply[BINARY_HEAD:BINARY_HEAD + min(<Py_ssize_t> size, n - BINARY_HEAD)].decode("utf-8", "replace"))


cdef class Strand:
    """What has come of one part and not left yet."""

    cdef Py_ssize_t to_come(self) noexcept:
        return self.flow.size - self.flow.received if self.flow is not None else 0


cdef Strand strand_of(bytes whole, int dialect):
    """A part that came whole."""
    cdef Strand strand = Strand.__new__(Strand)
    strand.size = PyBytes_GET_SIZE(whole)
    strand.here = Buffer()
    strand.here.append(PyBytes_AS_STRING(whole), strand.size)
    strand.head = head_of(dialect, PyBytes_AS_STRING(whole), strand.size, &strand.count)
    return strand


cdef class Weave:
    """The parts of one reply on their way into it."""

    cdef int add(self, uint32_t part, Strand strand) except -1:
        self.strands[part] = strand
        return 0

    cdef Py_ssize_t bytes_here(self) noexcept:
        """What it keeps."""
        cdef Strand strand
        cdef Py_ssize_t total = 0
        for strand in self.strands:
            if strand is not None:
                total += strand.here.used()
        return total

    cdef Py_ssize_t begin(self, Replies session) except -2:
        """Sends the head of the reply; its size, or -1 when this dialect has none for so much."""
        cdef Strand strand
        cdef Buffer out = session.output()
        cdef Py_ssize_t before = out.used(), size = 0
        cdef int64_t count = 0
        for strand in self.strands:
            size += strand.size - strand.head
            count += strand.count
        if self.dialect == BINARY and size + BINARY_HEAD > 0xFFFFFFFF:
            return -1
        begin_array(out, self.dialect, count)
        if self.dialect == BINARY:
            set_size(out, before, size + BINARY_HEAD - 4)
        session.account(out.used() - before)
        for strand in self.strands:
            strand.here.consume(strand.head)
            session.account(-strand.head)
        self.begun = True
        return out.used() - before + size

    cdef bint leave(self, Replies session) except -1:
        """Lets what is here leave; True when that was all."""
        cdef bint done = self.leave_in_turn(session) if self.owner == NULL else self.leave_in_order(session)
        session.mark_dirty()
        return done

    cdef bint leave_in_turn(self, Replies session) except -1:
        cdef Strand strand
        while self.at < len(self.strands):
            strand = <Strand> self.strands[self.at]
            leave_bytes(session, strand, strand.here.used())
            if strand.to_come():
                return False
            self.at += 1
        return True

    cdef bint leave_in_order(self, Replies session) except -1:
        cdef Strand strand
        cdef Py_ssize_t n
        while self.at < self.keys:
            strand = <Strand> self.strands[self.owner[self.at]]
            if self.left == 0:
                self.left = element_size(self.dialect, strand.here.data + strand.here.start, strand.here.used())
                if self.left < 0 or (self.left == 0 and strand.to_come() == 0):
                    raise ValueError("a part of a merged reply is not what it should be")
                if self.left == 0:
                    return False
            n = min(self.left, strand.here.used())
            leave_bytes(session, strand, n)
            self.left -= n
            if self.left:
                return False
            self.at += 1
        return True

    cdef int ask(self, Replies session) except -1:
        """Asks the shards for what will leave next, as far as the client has taken what was before."""
        cdef Strand strand
        if session.unsent() > FLOW_WINDOW // 2:
            return 0
        if self.owner == NULL:
            if self.at < len(self.strands):
                ask_for(<Strand> self.strands[self.at], FLOW_WINDOW)
            return 0
        for strand in self.strands:
            ask_for(strand, PART_WINDOW)
        return 0


cdef int leave_bytes(Replies session, Strand strand, Py_ssize_t n) except -1:
    cdef const char* at = strand.here.data + strand.here.start
    if n > LARGE_REPLY:
        session.pass_on(at, n)
    elif n:
        session.output().append(at, n)
    strand.here.consume(n)
    return 0


cdef int ask_for(Strand strand, Py_ssize_t window) except -1:
    cdef Flow flow = strand.flow
    cdef Py_ssize_t ahead
    if flow is None:
        return 0
    # A shard that keeps too much sends without being asked.
    flow.granted = max(flow.granted, flow.received)
    if flow.granted >= flow.size:
        return 0
    ahead = flow.granted - flow.received + strand.here.used()
    if ahead <= window // 2:
        ahead = min(window - ahead, flow.size - flow.granted)
        flow.granted += ahead
        flow.backend.put_credit(flow.token, <uint64_t> ahead)
    return 0


cdef int set_size(Buffer out, Py_ssize_t mark, Py_ssize_t size) noexcept:
    cdef uint32_t n = <uint32_t> size
    memcpy(out.data + out.start + mark, &n, 4)
    return 0
