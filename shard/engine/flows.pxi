# Large arguments on their way in and large replies on their way out, piece by piece among other clients' frames.

cdef enum:
    PART_SIZE = 131072          # bytes of one PART
    PARTS_AHEAD = 524288        # unsent bytes up to which another PART is begun

# Buffers of arguments that are kept for the next ones, since touching new memory costs more than copying into it; up to so
# many bytes, and for so many rounds of the background in which nobody wants them.
cdef Py_ssize_t SPARE_BYTES = 32 << 20
cdef enum:
    SPARE_ROUNDS = 5

# Tokens of large replies have this bit, so that none is a deferred one's.
cdef uint64_t LARGE_TOKEN = <uint64_t> 1 << 63


@cython.final
cdef class LargeReply:
    """One that waits to be sent in parts."""


@cython.final
cdef class Flows:
    """What flows over one link. The link asks for the next piece when there is room, and tells what comes in."""

    def __cinit__(self):
        self.replies = []
        self.uploads = {}
        self.spares = []

    cdef uint64_t add(self, Buffer reply, uint64_t session):
        cdef LargeReply large = LargeReply.__new__(LargeReply)
        self.last_token += 1
        large.bytes = reply
        large.token = LARGE_TOKEN | self.last_token
        large.session = session
        self.replies.append(large)
        self.reply_bytes += reply.used()
        return large.token

    cdef bint full(self, Py_ssize_t room) noexcept:
        """Whether more waits for credit than shall wait here: it is sent without. A single one may be as large as it is."""
        return len(self.replies) > 1 and self.reply_bytes > room

    cdef int grant(self, uint64_t token, uint64_t credit) except -1:
        """So much more may be sent; 0: nobody wants it."""
        cdef LargeReply large
        for large in self.replies:
            if large.token == token:
                large.credit += credit
                if credit == 0:
                    self.forget(large)
                break
        return 0

    cdef int forget(self, LargeReply large) except -1:
        self.reply_bytes -= large.bytes.used()
        self.replies.remove(large)
        return 0

    cdef bint put_part(self, Buffer out, bint unasked) except -1:
        """The next piece, of the replies in turn; False when there is none to send."""
        cdef LargeReply large
        cdef Py_ssize_t n
        for large in self.replies:
            if unasked or large.credit:
                break
        else:
            return False
        n = min(large.bytes.used(), <Py_ssize_t> PART_SIZE)
        if not unasked and large.credit < <uint64_t> n:
            n = <Py_ssize_t> large.credit
        out.put_u32(<uint32_t> (PART_HEADER - 4 + n))
        out.put_u32(LINK_PART)
        out.put_u32(0)
        out.put_u64(large.token)
        out.append(large.bytes.data + large.bytes.start, n)
        large.credit -= min(large.credit, <uint64_t> n)
        self.reply_bytes -= n
        large.bytes.consume(n)
        if unasked and large.bytes.used():
            return True      # the oldest is done with first
        self.replies.remove(large)
        if large.bytes.used():
            self.replies.append(large)
        return True

    cdef Buffer upload(self, uint64_t session, uint32_t argument):
        """Where the bytes of a PART go."""
        cdef dict arguments = self.uploads.setdefault(session, {})
        into = arguments.get(argument)
        if into is None:
            into = arguments[argument] = self.spare() if self.spares else Buffer()
        return <Buffer> into

    cdef Buffer spare(self):
        cdef Buffer buffer = <Buffer> self.spares.pop()
        self.spare_bytes -= buffer.capacity
        self.unused_rounds = 0
        return buffer

    cdef int forget_uploads(self, uint64_t session) except -1:
        """What came for the next frame of a session was used, or is not needed."""
        cdef Buffer buffer
        arguments = self.uploads.pop(session, None)
        if arguments is None:
            return 0
        for buffer in arguments.values():
            if self.spare_bytes + buffer.capacity <= SPARE_BYTES:
                buffer.keep = SPARE_BYTES
                buffer.clear()
                self.spares.append(buffer)
                self.spare_bytes += buffer.capacity
        self.unused_rounds = 0
        return 0

    cdef int cool_down(self) except -1:
        """A round of the background: what nobody has wanted for some of them is given back."""
        self.unused_rounds += 1
        if self.unused_rounds > SPARE_ROUNDS and self.spares:
            self.spares.clear()
            self.spare_bytes = 0
        return 0

    cdef Py_ssize_t memory(self) except -1:
        """Bytes of everything here."""
        cdef Py_ssize_t total = self.reply_bytes + self.spare_bytes
        cdef Buffer buffer
        for arguments in self.uploads.values():
            for buffer in (<dict> arguments).values():
                total += buffer.capacity
        return total

    cdef int forget_session(self, uint64_t session) except -1:
        cdef LargeReply large
        self.forget_uploads(session)
        for large in list(self.replies):
            if large.session == session:
                self.forget(large)
        return 0
