# cython: language_level=3
"""Declarations of TLS over bytes for the other compiled modules (see tls.pyx)."""
cimport cython
from libc.stdint cimport uint64_t

from kache.wire.codec cimport Buffer

cdef enum:
    # How far one peer is.
    TLS_WAITS = 0           # it has not sent a whole record yet: nothing is kept for it
    TLS_SHAKES = 1          # its handshake has begun
    TLS_OPEN = 2            # it is over
    TLS_FAILED = 3          # something came that was not TLS, or was refused: `failure` says what

cdef enum:
    # The largest record with its header that a version in use may send; a longer one is no record.
    MOST_RECORD = 5 + 16384 + 2048


@cython.final
cdef class Window:
    """Some bytes of somebody else, for as long as OpenSSL looks at them or fills them."""
    cdef char* at
    cdef Py_ssize_t size


@cython.final
cdef class TlsPool:
    """What all TLS peers of a process share: the certificate and the rules of new ones, one pair of BIOs, the counters."""
    cdef readonly object context        # of new peers; the others keep theirs
    cdef object incoming, outgoing, want_read, ssl_error
    cdef Window window
    cdef Buffer scratch                 # what was received lies here while it is opened
    cdef public object on_trouble       # called with every endpoint that failed and why; None
    cdef readonly uint64_t handshakes, resumed, failed
    cpdef reset(self)                   # the counters
    # Both BIOs are empty from here on: what was sealed is returned, None if there is nothing.
    cdef bytes collect(self)


@cython.final
cdef class Tls:
    """One peer: bytes in, bytes out. It does no I/O."""
    cdef readonly TlsPool pool
    cdef object peer                    # the SSLObject; None before the handshake begins
    cdef object inner                   # what it wraps, without a layer of Python in between
    cdef Buffer wire                    # sealed, and not taken by the socket yet; None: nothing
    cdef Py_ssize_t plain               # bytes of plain text that those are
    cdef Buffer sealed_in               # received, and not opened yet; None: nothing
    cdef readonly int state
    cdef readonly bint ended            # the peer has said that it sends no more (close_notify)
    cdef bint notified                  # and we have
    cdef bint queued                    # its handshake has a step to be done
    cdef readonly str failure
    cdef Py_ssize_t counted             # of `cost`, that its endpoint has told
    # This side begins a handshake with a peer whose certificate must have that name, if the context checks names.
    cdef int connect(self, str name) except -1
    cdef Py_ssize_t cost(self) noexcept
    cdef int keep(self, const char* data, Py_ssize_t n) except -1       # behind what is in sealed_in
    cdef int put_on_wire(self, bytes sealed, Py_ssize_t sent) except -1
    # How many of the n bytes are whole records, of which at most `most` are wanted; what is no record counts as whole.
    cdef Py_ssize_t whole(self, const char* data, Py_ssize_t n, Py_ssize_t most) noexcept
    # Opens whole records into `into`, which has room for `room` bytes (at least MOST_RECORD). Returns how many bytes of
    # plain text these were, and in `taken` how many of data.
    cdef Py_ssize_t open(self, const char* data, Py_ssize_t n, char* into, Py_ssize_t room, Py_ssize_t* taken) except -1
    # Goes on with the handshake; how many bytes of data were taken.
    cdef Py_ssize_t shake(self, const char* data, Py_ssize_t n) except -1
    # Seals up to n bytes, in `taken` how many; None when it failed.
    cdef bytes seal(self, char* data, Py_ssize_t n, Py_ssize_t* taken)
    cdef int fail(self, error) except -1
    cdef int notify(self) except -1                                     # close_notify goes to the wire
    cdef int drop(self) except -1
