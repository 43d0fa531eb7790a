"""TLS over bytes: Python's ssl, driven from compiled code. No I/O, no policy.

Owns what is sealed and what is opened; the descriptors are the reactor's (sealed.pxi), certificates and rules are the
context's (kache/cluster/certificates.py).

      received --> whole records --> incoming BIO --> SSL --> plain text, into the reader's own buffer
      plain text --> SSL --> outgoing BIO --> sealed bytes --> the socket; `wire` has what it did not take

**One pair of BIOs serves all peers of a process.** A pair each would cost 20 to 40 KiB a connection, and as much as the
largest reply for ever. It is right as long as both are empty between two calls, so every way out of a call empties them
(`TlsPool.collect`), errors above all: what garbage leaves in them would become another peer's.

Only whole records are handed to OpenSSL, so that it never keeps a part of one, never has plain text that nobody asked
for, and never raises SSLWantReadError on the usual way, which costs more than opening a small record. A record is never
larger than the room that is given, so nothing that was opened stays inside: there is no list of peers with data pending.
"""
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

# Plain text of one record.
cdef Py_ssize_t RECORD = 16384

# What a peer costs in memory beside its bytes (measured: 14 KB with a handshake done, 44 KB while it is under way).
cdef Py_ssize_t STATE = 16 * 1024
cdef Py_ssize_t SHAKING_STATE = 48 * 1024

cdef enum:
    # Types of records: change_cipher_spec, alert, handshake, application_data.
    FIRST_TYPE = 20
    HANDSHAKE = 22
    LAST_TYPE = 23


cdef class Window:

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.at, self.size, False, flags)

    def __releasebuffer__(self, Py_buffer* view):
        pass


cdef class TlsPool:

    def __init__(self, context):
        """For peers that connect to this process, or that it connects to; `context` is an ssl.SSLContext of that side."""
        import ssl  # only who serves TLS pays for it

        self.context = context
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.want_read = ssl.SSLWantReadError
        self.ssl_error = ssl.SSLError
        self.window = Window.__new__(Window)
        self.scratch = Buffer()
        self.scratch.keep = 1 << 20

    def use(self, context):
        """New peers use this context from here on."""
        self.context = context

    cpdef reset(self):
        self.handshakes = self.resumed = self.failed = 0

    cdef bytes collect(self):
        self.window.at = NULL
        self.window.size = 0
        if self.incoming.pending:
            self.incoming.read()
        return self.outgoing.read() if self.outgoing.pending else None


cdef class Tls:

    def __init__(self, TlsPool pool not None):
        """A peer that has just connected, or is about to be (`connect`)."""
        self.pool = pool
        self.failure = ""

    cdef int connect(self, str name) except -1:
        cdef TlsPool pool = self.pool
        self.peer = pool.context.wrap_bio(pool.incoming, pool.outgoing, server_side=False, server_hostname=name)
        self.inner = getattr(self.peer, "_sslobj", self.peer)
        self.state = TLS_SHAKES
        try:
            self.inner.do_handshake()
        except pool.want_read:
            pass
        except pool.ssl_error as error:
            self.fail(error)
        finally:
            self.put_on_wire(pool.collect(), 0)
        return 0

    @property
    def ssl_object(self):
        """For questions about the session; None before the handshake."""
        return self.peer

    cdef Py_ssize_t cost(self) noexcept:
        cdef Py_ssize_t state = SHAKING_STATE if self.state == TLS_SHAKES else STATE if self.state == TLS_OPEN else 0
        return state + (self.sealed_in.used() if self.sealed_in is not None else 0)

    cdef int keep(self, const char* data, Py_ssize_t n) except -1:
        if n:
            if self.sealed_in is None:
                self.sealed_in = Buffer()
            self.sealed_in.append(data, n)
        return 0

    cdef int put_on_wire(self, bytes sealed, Py_ssize_t sent) except -1:
        if sealed is not None and sent < PyBytes_GET_SIZE(sealed):
            if self.wire is None:
                self.wire = Buffer()
            self.wire.append(PyBytes_AS_STRING(sealed) + sent, PyBytes_GET_SIZE(sealed) - sent)
        return 0

    cdef Py_ssize_t whole(self, const char* data, Py_ssize_t n, Py_ssize_t most) noexcept:
        cdef Py_ssize_t at = 0, size
        cdef uint8_t kind
        while at + 5 <= n:
            kind = <uint8_t> data[at]
            size = 5 + (<Py_ssize_t> <uint8_t> data[at + 3] << 8 | <uint8_t> data[at + 4])
            if not FIRST_TYPE <= kind <= LAST_TYPE or size > MOST_RECORD:
                # OpenSSL says what is wrong with it, behind what is right.
                return at if at else min(n, most)
            if at + size > n or at + size > most:
                break
            at += size
        return at

    cdef int fail(self, error) except -1:
        self.state = TLS_FAILED
        self.failure = reason_of(error)
        self.pool.failed += 1
        return 0

    # Receiving ------------------------------------------------------------------------------------
    cdef Py_ssize_t open(self, const char* data, Py_ssize_t n, char* into, Py_ssize_t room, Py_ssize_t* taken) except -1:
        cdef TlsPool pool = self.pool
        cdef Window window = pool.window
        cdef Py_ssize_t end = self.whole(data, n, room), got = 0, piece
        taken[0] = end
        if end == 0:
            return 0
        try:
            window.at = <char*> data
            window.size = end
            pool.incoming.write(window)
            while pool.incoming.pending:
                window.at = into + got
                window.size = room - got
                piece = self.inner.read(0, window)
                if piece == 0:
                    self.ended = True
                    break
                got += piece
        except pool.want_read:
            pass    # the last record was one of the protocol's own
        except pool.ssl_error as error:
            self.fail(error)
        finally:
            self.put_on_wire(pool.collect(), 0)
        return got

    cdef Py_ssize_t shake(self, const char* data, Py_ssize_t n) except -1:
        cdef TlsPool pool = self.pool
        cdef Window window = pool.window
        cdef Py_ssize_t end = self.whole(data, n, n)
        if end == 0:
            return 0
        if self.peer is None:
            if data[0] != HANDSHAKE or data[1] != 3:
                self.state = TLS_FAILED
                self.failure = "not TLS"
                pool.failed += 1
                return end
            self.peer = pool.context.wrap_bio(pool.incoming, pool.outgoing, server_side=True)
            self.inner = getattr(self.peer, "_sslobj", self.peer)
            self.state = TLS_SHAKES
        try:
            window.at = <char*> data
            window.size = end
            pool.incoming.write(window)
            self.inner.do_handshake()
            self.state = TLS_OPEN
            pool.handshakes += 1
            if self.peer.session_reused:
                pool.resumed += 1
            # What follows is for whoever reads.
            end -= pool.incoming.pending
        except pool.want_read:
            pass
        except pool.ssl_error as error:
            self.fail(error)
        finally:
            self.put_on_wire(pool.collect(), 0)
        return end

    # Sending --------------------------------------------------------------------------------------
    cdef bytes seal(self, char* data, Py_ssize_t n, Py_ssize_t* taken):
        cdef TlsPool pool = self.pool
        cdef Window window = pool.window
        cdef Py_ssize_t at = 0
        cdef bytes sealed = None
        try:
            while at < n:
                window.at = data + at
                window.size = min(n - at, RECORD)
                at += <Py_ssize_t> self.inner.write(window)
        except pool.ssl_error as error:
            self.fail(error)
        finally:
            sealed = pool.collect()
        taken[0] = at
        return sealed

    cdef int notify(self) except -1:
        self.notified = True
        try:
            self.peer.unwrap()
        except self.pool.ssl_error:
            pass    # it waits for the other side's, or has nothing to say any more
        finally:
            self.put_on_wire(self.pool.collect(), 0)
        return 0

    cdef int drop(self) except -1:
        self.wire = self.sealed_in = None
        self.plain = 0
        self.peer = self.inner = None
        return 0

    # Without descriptors --------------------------------------------------------------------------
    def received(self, bytes data not None):
        """Takes in what the peer has sent, handshake or records; the plain text of it."""
        cdef Buffer into = Buffer(), rest
        cdef Py_ssize_t taken = 0
        cdef bytes plain = b""
        self.keep(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        while self.sealed_in is not None and self.state != TLS_FAILED and not self.ended:
            rest, self.sealed_in = self.sealed_in, None
            into.clear()
            if self.state == TLS_OPEN:
                into.end += self.open(rest.data + rest.start, rest.used(), into.reserve(1 << 16), 1 << 16, &taken)
                plain += into.data[:into.end]
            else:
                taken = self.shake(rest.data + rest.start, rest.used())
            self.keep(rest.data + rest.start + taken, rest.used() - taken)
            if taken == 0:
                break
        return plain

    def sealed(self, bytes data not None):
        """What is to be sent: what the protocol has to say, and `data` sealed."""
        cdef Py_ssize_t taken = 0
        cdef bytes said = self._wire()
        if not data or self.state != TLS_OPEN:
            return said
        return said + (self.seal(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &taken) or b"")

    def closed(self):
        """What is to be sent at the end."""
        self.notify()
        return self._wire()

    def _wire(self):
        cdef Buffer wire = self.wire
        self.wire = None
        return b"" if wire is None else wire.data[wire.start:wire.end]


cdef str reason_of(error):
    """OpenSSL's own words, without its place in the source."""
    reason = error.reason or type(error).__name__
    words = reason.lower().replace("_", " ")
    verified = getattr(error, "verify_message", "")
    return f"{words}: {verified}" if verified else words
