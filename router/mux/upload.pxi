# A large argument on its way to its shard. Its bytes are passed on as they come, among the runs of other clients; the
# request is executed when it is complete, with an empty string in the argument's place.
#
#   *3 $3 SET $3 key $268435456 ......................... CRLF
#   |  prefix, kept         $0 | PART PART PART …        | the rest: parsed behind the prefix, then sent as one run
#
# The same in the binary protocol, where the frame that is kept is shorter by what was sent. There the argument may be the
# end of the request: its last byte is taken only with what follows from it, so that a request that must wait is met again.
#
# Only for a command of one key, which comes before the argument: then its shard is known. Until the frame is sent nothing
# is executed and nothing is in order: a client that goes away leaves a CANCEL behind, and that is all.

cdef enum:
    UPLOAD_AHEAD = 2097152       # unsent bytes of a link above which no more of an argument is put there
    UPLOAD_STRINGS = 8           # strings of a request whose arguments may be sent ahead


cdef Py_ssize_t begin_upload(Session session, const char* data, Py_ssize_t n) except -1:
    cdef RequestParser parser = session.parser
    cdef Router router = session.router
    cdef Command* command
    cdef Upload upload
    cdef Backend backend
    cdef Py_ssize_t i
    cdef bint binary = session.protocol == PROTOCOL_BINARY
    cdef Py_ssize_t strings = parser.resume_total
    cdef uint32_t declared
    if binary:
        memcpy(&declared, data + 4, 4)
        strings = declared
    if strings > UPLOAD_STRINGS or session.restricted and session.held_up():
        return 0
    for i in range(parser.resume_count):
        parser.spans[i].data = data + parser.offsets[i]
        if binary:
            memcpy(&declared, data + parser.offsets[i] - 4, 4)
            parser.spans[i].size = declared
    command = router.table.find(binary, parser.spans, parser.resume_count) if parser.resume_count > 1 else NULL
    if (command == NULL or command.route > ROUTE_MOVE or command.planned or command.first <= 0
            or command.last != command.first or command.first >= parser.resume_count
            or not session.fits(command, strings)):
        return 0
    upload = Upload.__new__(Upload)
    upload.slot = slot_of(parser.spans[command.first].data, parser.spans[command.first].size)
    backend = <Backend> router.links[router.shard_at(upload.slot)]
    if backend.phase != UP or backend.stuck():
        return 0
    upload.backend = backend
    upload.command = command
    upload.prefix = Buffer()
    session.upload = upload
    return set_aside(session, upload, data)


cdef Py_ssize_t set_aside(Session session, Upload upload, const char* data) except -1:
    """The next argument is large: what is before it is kept, its bytes are awaited. Returns where they begin."""
    cdef RequestParser parser = session.parser
    cdef Buffer prefix = Buffer()
    cdef uint32_t length
    if session.protocol == PROTOCOL_BINARY:
        prefix.append(data, parser.pending_at - 4)
        prefix.put_u32(0)
        memcpy(&length, data, 4)
        length -= <uint32_t> parser.pending_size
        memcpy(prefix.data + prefix.start, &length, 4)
    else:
        prefix.append(data, parser.resume_at)
        prefix.append(b"$0\r\n", 4)
    upload.prefix = prefix
    upload.argument = <uint32_t> (parser.resume_count - upload.command.words)
    upload.ends_bare = session.protocol == PROTOCOL_BINARY
    upload.ended = False
    upload.left = parser.pending_size - upload.ends_bare
    parser.resume_total = -1
    return parser.pending_at


cdef Py_ssize_t go_on_uploading(Session session, const char* data, Py_ssize_t n) except -1:
    cdef Upload upload = session.upload
    if not upload.left:
        return finish_upload(session, upload, data, n) if not upload.ends_bare else end_bare(session, upload, data, n)
    if upload.backend.phase == UP and not upload.refused:
        if upload.backend.unsent() > UPLOAD_AHEAD and upload.backend.stuck():
            upload.refused = True
            return go_on_uploading(session, data, n)
        if upload.backend.unsent() > UPLOAD_AHEAD:
            session.resume_at = session.in_flight_now()
            session.waits_for = upload.backend
            upload.backend.wait_for_room(session)
            session.stall()
            return 0
        if not session.may_grow(upload.total):
            session.stall()
            session.starve()
            return 0
        n = min(n, upload.left)
        upload.backend.put_part(session.id, upload.argument, data, n)
        upload.total += n
    else:
        n = min(n, upload.left)
    upload.left -= n
    return n


cdef Py_ssize_t end_bare(Session session, Upload upload, const char* data, Py_ssize_t n) except -1:
    """The last byte of a binary argument, which is not taken before what it completes is."""
    cdef Py_ssize_t taken
    if not upload.ended and upload.backend.phase == UP and not upload.refused:
        upload.backend.put_part(session.id, upload.argument, data, 1)
        upload.total += 1
    upload.ended = True
    taken = finish_upload(session, upload, data + 1, n - 1)
    return taken + 1 if taken or session.upload is None else 0


cdef Py_ssize_t finish_upload(Session session, Upload upload, const char* data, Py_ssize_t n) except -1:
    """What is behind the large argument: another one, or the end of the request, which is executed."""
    cdef RequestParser parser = session.parser
    cdef Buffer frame = Buffer()
    cdef Py_ssize_t before = upload.prefix.used(), begin
    cdef int state
    frame.append(upload.prefix.data + upload.prefix.start, before)
    frame.append(data, n)
    parser.resume_total = -1
    state = session.parse(frame.data + frame.start, frame.used())
    if state == FRAME:
        if not execute_uploaded(session, upload):
            session.stall()
            return 0
        session.upload = None
        return parser.consumed - before
    if state == NEED_MORE:
        if parser.pending_size > LARGE:
            begin = set_aside(session, upload, frame.data + frame.start)
            return begin - before
        parser.resume_total = -1
        return 0
    session.upload = None
    upload.backend.drop_parts(session.id)
    session.protocol_error(parser.error)
    return n


cdef bint execute_uploaded(Session session, Upload upload) except -1:
    """The request in the parser, whose large arguments are at the shard; False when it must wait."""
    cdef Router router = session.router
    cdef Backend backend = upload.backend
    cdef uint64_t before = backend.in_flight
    cdef bint done = True
    router.shards.end_runs()
    if backend.phase != UP or router.links[router.shard_at(upload.slot)] is not backend:
        session.answer_error(MOVED if backend.phase == UP else backend.down_text(), 0)
    elif upload.refused:
        router.counters.refused_overload += 1
        session.answer_error(OVERLOADED, 0)
    else:
        upload.sending = True
        done = session.execute()
        upload.sending = False
        router.shards.end_runs()
    if done and backend.in_flight == before:
        # It was refused.
        backend.drop_parts(session.id)
    return done
