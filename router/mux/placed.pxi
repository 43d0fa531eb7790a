# What passes by the socket of a link: large values in memory that router and shard share (kache/wire/area.pyx).
#
#   client's socket ──► read buffer ──► area ──► the shard's entry         SET: copied once by the kernel
#   client's socket ◄────────────────── area ◄── the shard's entry         GET: the same
#
# What has been in use of it counts in the budget of the clients until it is given back, which it is after some seconds
# without use; it is at most a sixteenth of that budget.

# Bytes of each of the two rings of a link: what some pipelines have in flight. Who has less there stays at its start, which
# a processor's cache holds.
cdef Py_ssize_t AREA_ROOM = 16 << 20
# Less is not worth it.
cdef Py_ssize_t LEAST_ROOM = 64 << 10
cdef enum:
    AREA_SHARE = 16             # of the budget, for all links together
    IDLE_ROUNDS = 5             # without use, once a second, until the pages are given back


cdef Py_ssize_t area_room(Router router) noexcept:
    """How much of each ring of a link may be used."""
    cdef Py_ssize_t room = min(router.limits.budget // (AREA_SHARE * 2 * router.shard_count), AREA_ROOM)
    return room if room >= LEAST_ROOM else 0


cdef bint offer_with(Link link, Buffer hello) except -1:
    """Sends the greeting, which is in the output, together with memory of a new link; False when it is to be sent alone."""
    cdef uint32_t length
    cdef Area area
    if area_room(link.router) == 0:
        return False
    hello.put_u64(<uint64_t> area_size(AREA_ROOM))
    length = <uint32_t> (hello.used() - 4)
    memcpy(hello.data + hello.start, &length, 4)
    area = offer_area(link.fd, hello.data + hello.start, hello.used(), AREA_ROOM)
    if area is None:
        hello.end -= 8
        length -= 8
        memcpy(hello.data + hello.start, &length, 4)
        return False
    link.bytes_out += hello.used()
    hello.clear()
    area.allow(area_room(link.router))
    link.offered = area
    return True


cdef bint place_frame(
    Link link, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count, Span* large
) except -1:
    """Adds a frame whose argument `large` is placed; False when there is no room for that."""
    cdef Buffer out = link.out
    cdef Py_ssize_t mark = out.used(), split, i, size = large.size
    cdef uint32_t n
    cdef uint64_t position
    cdef char* at = link.area.place(size, &position)
    if at == NULL:
        return False
    memcpy(at, large.data, size)
    # First as if it were empty; then its length is put right, and its position goes behind that.
    large.size = 0
    link.put_spans(command, slot, arguments, count)
    large.size = size
    split = mark + FRAME_HEADER
    for i in range(large - arguments):
        split += 4 + arguments[i].size
    n = <uint32_t> size | PLACED
    memcpy(out.data + out.start + split, &n, 4)
    split += 4
    out.reserve(8)
    at = out.data + out.start
    memmove(at + split + 8, at + split, out.used() - split)
    memcpy(at + split, &position, 8)
    out.end += 8
    n = <uint32_t> (out.used() - mark - 4)
    memcpy(at + mark, &n, 4)
    count_area(link)
    return True


cdef bint take_placed(Link link, Expected* expected, uint64_t position, uint32_t size) except -1:
    """A reply that was placed, for whoever expects it; False when there is none, and the link is closed."""
    cdef Area area = link.area
    cdef PyObject* owner = expected.owner
    cdef const char* reply = area.find(position, size) if area is not None else NULL
    if reply == NULL:
        link.close("a reply outside of the memory of the link")
        return False
    if owner != NULL and expected.pending:
        (<Pending> owner).receive(expected.part, reply, size)
    elif owner != NULL:
        (<Session> owner).receive_placed(link.index, reply, size)
    area.take(position, size)
    count_area(link)
    return True


cdef inline int count_area(Link link) except -1:
    """More of it is in use than was counted."""
    link.area_rounds = 0
    if link.area.reached != link.area_reached:
        recount_area(link)
    return 0


cdef int recount_area(Link link) except -1:
    """What it costs from now on. A budget that has become smaller does not cost clients what lies here already."""
    cdef Py_ssize_t counted = 0
    if link.area is not None:
        link.area_reached = link.area.reached
        counted = min(link.area_reached, 2 * area_room(link.router))
    link.router.clients.link_bytes += counted - link.area_counted
    link.area_counted = counted
    return 0


cdef int cool_area(Link link) except -1:
    """Once a second: nothing of it was used for a while, and nothing is on its way."""
    if link.area is None or link.area.reached == 0:
        return 0
    link.area_rounds += 1
    if link.area_rounds > IDLE_ROUNDS and link.in_flight == 0:
        link.area.give_back()
        recount_area(link)
    return 0


cdef int drop_area(Link link) except -1:
    """The connection has ended, and its memory with it."""
    link.area = link.offered = None
    link.area_reached = 0
    return recount_area(link)
