# cython: language_level=3
"""Declarations of the raw-descriptor reactor for the other compiled modules (see reactor.pyx)."""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from kache.wire.clock cimport Clock
from kache.wire.codec cimport Buffer
from kache.wire.tls cimport Tls, TlsPool

cdef enum:
    # What is known of the peer of an endpoint that is not read.
    PEER_SENDS = 0          # it may send more
    PEER_HALF_CLOSED = 1    # it sends no more, but may still read
    PEER_GONE = 2           # there is nothing more to be learned of it


cdef class Endpoint
cdef class Handshakes


cdef class Reactor:
    cdef public object loop
    cdef public Clock clock
    cdef readonly int64_t now_ms        # read once per iteration
    cdef int poll_fd
    cdef readonly bint nested           # an epoll descriptor of our own inside the loop (Linux); else loop.add_reader per descriptor
    cdef bint running, must_yield, flush_scheduled, closed
    cdef bint again                     # the loop was asked to come back although nothing may be ready
    cdef list dirty                     # endpoints with output to write at the end of the iteration
    cdef list held                      # of those, the ones that wait for the next batch
    cdef list late                      # endpoints of which some are written in each batch, behind those
    cdef list graveyard                 # endpoints closed in this iteration: kept alive until it ends
    cdef dict endpoints                 # fd -> Endpoint
    cdef Buffer block                   # one read buffer for all connections
    cdef readonly Py_ssize_t scratch_size   # how much is read into it at a time; twice that finds room
    cdef list spares                    # others like it, and
    cdef readonly int lent              # how many hold the large partial frame of a connection
    cdef bint lending                   # one was lent since the last `cool_down`
    cdef public int64_t longest_iteration_ns  # longest batch, its flush and the wait for the GIL before it; resettable
    cdef readonly uint64_t iterations
    cdef public double linger_seconds   # how long a close after a reply waits for the peer, and
    cdef public Py_ssize_t linger_bytes # how much input it discards meanwhile
    cdef readonly Handshakes handshakes # of endpoints that speak TLS; None: there are none
    @cython.final
    cdef int attach(self, Endpoint endpoint) except -1
    @cython.final
    cdef int detach(self, Endpoint endpoint) except -1
    @cython.final
    cdef int interest(self, Endpoint endpoint) except -1
    @cython.final
    cdef int mark(self, Endpoint endpoint) except -1
    @cython.final
    cdef int wait(self, int timeout_ms) except -1
    @cython.final
    cdef int finish(self, bint everything) except -1
    @cython.final
    cdef int release_held(self) except -1
    @cython.final
    cdef int go_on_writing(self) except -1
    @cython.final
    cdef int mark_late(self, Endpoint endpoint) except -1
    @cython.final
    cdef int dispatch(self, Endpoint endpoint, uint32_t events) except -1
    # What was just read into the read buffer stays in it; None when too many are lent already. Then given back.
    @cython.final
    cdef Buffer lend(self)
    @cython.final
    cdef int give_back(self, Buffer block) except -1
    # To be called about once a second: buffers that nobody has needed since the last time are freed.
    cdef int cool_down(self) except -1
    # To be called about once a second by whoever needs `on_hangup` where there is no epoll.
    cdef int look_for_hangups(self) except -1
    # For subclasses: runs once per iteration before the output is written; may mark endpoints.
    cdef int before_flush(self) except -1


cdef class Endpoint:
    """One non-blocking descriptor with its input and output. Subclasses override the on_… methods."""
    cdef public Reactor reactor
    cdef readonly int fd                # -1 once closed
    cdef Buffer inbuf                   # None until a partial frame must be kept
    cdef bint borrowed                  # and is one of the reactor's
    cdef Buffer out                     # None until there is something to say
    cdef list chain                     # Buffers that leave before `out`; None while there is none
    cdef Py_ssize_t chained             # bytes in them
    cdef bint marked, wants_write, reading, feeding
    cdef bint awaits_descriptor         # the peer may pass one with what it sends,
    cdef int passed                     # which lies here then, for whoever reads to take over or close; -1: none
    cdef int64_t held_since             # when its output began to wait for more (monotonic ns); 0: it does not
    cdef readonly bint eof, closing, lingering
    cdef Py_ssize_t lingered
    cdef readonly uint64_t bytes_in, bytes_out
    cdef uint64_t sendable              # bytes of the whole output that may leave so far; UINT64_MAX: all of it
    cdef uint32_t armed                 # what the poller was last told
    cdef int peer                       # PEER_…: what is known of it while it is not read
    cdef object linger_timer, linger_reason
    cdef readonly Tls tls               # what it receives and sends is sealed; None: it is not
    cdef Handshakes handshakes          # that its own is one of; None without tls
    cdef bint held_back                 # it is not read until its handshake has gone on

    # To be overridden. data is valid during the call only. Returns how many bytes were consumed; what is left is
    # kept and comes back, joined with what was read next, or when resume() is called.
    cdef Py_ssize_t on_data(self, const char* data, Py_ssize_t n) except -1
    cdef int on_readable(self) except -1            # instead of reading, for endpoints that are not streams
    cdef bint is_stream(self) noexcept
    cdef int on_eof(self) except -1                 # the peer closed its sending side; default: close()
    # The peer has closed its sending side (told once), or has reset the connection (once more, `reset`), and this is
    # not being read: what it sent before is still there, and is read when reading goes on.
    cdef int on_hangup(self, bint reset) except -1
    cdef bint hold_output(self) noexcept            # more output is about to come: write both together
    cdef int on_drained(self) except -1             # output became empty after having been blocked
    cdef int on_written(self, Py_ssize_t n) except -1   # n bytes went out
    cdef int on_closed(self, object reason) except -1   # once, however it was closed
    cdef int on_secured(self) except -1             # its TLS handshake is over
    cdef int on_tls_cost(self, Py_ssize_t n) except -1  # TLS takes n bytes more for it; 0 again before on_closed
    # To be called.
    cdef Buffer output(self)                        # the output buffer; another one once it has grown large
    cdef int chain_output(self, Buffer full) except -1  # `full` leaves next, behind what is there; it is given away
    # Writes now what is in `out` up to `split`, the n bytes, and the rest of `out`: large bytes are not copied unless the
    # socket does not take them. What it did not take is in `out`. Returns how much went out; on_written is not told.
    cdef Py_ssize_t send_joined(self, Py_ssize_t split, const char* data, Py_ssize_t n) except -1
    cdef int widen(self) noexcept                   # a local socket that large frames go through: as much as is allowed
    cdef int mark_dirty(self) except -1             # write what is in `out` at the end of this iteration
    @cython.final
    cdef int mark_late(self) except -1
    cdef int flush(self) except -1                  # write now as much as the socket takes
    cdef int pause(self) except -1                  # stop reading
    cdef int resume(self) except -1                 # read again; what is already in inbuf is offered to on_data first
    @cython.final
    cdef int begin_chunk(self) except -1
    @cython.final
    cdef int read_some(self) except -1
    @cython.final
    cdef int end_of_input(self) except -1
    @cython.final
    cdef int take_in(self, const char* data, Py_ssize_t n) except -1
    @cython.final
    cdef int offer(self) except -1                  # offer inbuf to on_data again
    @cython.final
    cdef int drop_input(self) except -1
    @cython.final
    cdef int wait_for_progress(self) except -1
    cdef int start_linger(self) except -1
    @cython.final
    cdef bint reads(self) noexcept                  # whether it is being read
    @cython.final
    cdef int hang_up(self, uint32_t events) except -1
    cpdef close(self, object reason=*)              # now, dropping unwritten output
    cpdef close_after_reply(self, object reason=*)  # flush, shut down the sending side, discard input up to a limit, close
    cdef Py_ssize_t unsent(self) noexcept           # bytes waiting in the chain and in out
    cdef Py_ssize_t unparsed(self) noexcept         # bytes waiting in inbuf


# For those who make endpoints: what a new one receives and sends is sealed.
cdef int begin_tls(Endpoint self, Handshakes handshakes) except -1
cdef int connect_tls(Endpoint self, TlsPool pool, str name) except -1


@cython.final
cdef class Handshakes:
    """Whose TLS handshake goes on when (sealed.pxi)."""
    cdef Reactor reactor
    cdef readonly TlsPool pool
    cdef list steps                     # endpoints whose handshake can go on; the newest is the last
    cdef list resumed                   # endpoints that are read again, and have received something meanwhile
    cdef dict waiting                   # Endpoint -> since when (monotonic ns) its answer is waited for; the longest is the first
    cdef int64_t window_began, spent    # on steps, of the present WINDOW_OF_STEPS_NS
    cdef object timer
    cdef int run(self) except -1
    cdef bint make_room(self, int64_t now) except -1
    cdef int take_turn(self, Endpoint endpoint, int64_t now) except -1
    cdef int step(self, Endpoint endpoint, int64_t now) except -1
    cdef int stop(self) except -1


cdef class Listener(Endpoint):
    """A listening socket. Accepted descriptors are non-blocking and close-on-exec."""
    cdef public int at_once                         # connections accepted at a time
    cdef readonly uint64_t accept_failures
    cdef object retry_timer
    cdef int on_accept(self, int fd) except -1      # to be overridden; owns fd from here on
    cdef int on_accept_error(self, int error) except -1  # EMFILE and the like; accepting pauses for a moment
