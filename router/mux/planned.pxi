# Commands that one frame to one shard does not answer: divided by the planner, or led by a coroutine.

cdef bint run_planned(Session session, Command* command, uint16_t flags) except -1:
    """Asks the planner for the parts of the command, or starts its coroutine; False when it must wait."""
    cdef tuple arguments = session.arguments(command)
    row = <object> command.row
    if command.route == ROUTE_CONTAINER:
        session.answer_error(wrong_arity(command), flags)
        return True
    if command.route != ROUTE_CURSOR:
        try:
            parts = session.router.planner(row, arguments, session.router)
        except NeedsMove:
            parts = None
        except Exception as error:
            session.answer(reply_of(error, command), flags)
            return True
        if parts is not None:
            if len(parts) == 1 and parts[0].command == row.key:
                return session.send_whole(command, parts[0].shard, NO_SLOT, flags)
            return send_parts(session, row, arguments, parts, flags)
    session.run_coroutine(command, (<object> command.handler)(session.router, session, *arguments), flags)
    return True


cdef bint send_parts(Session session, object row, tuple arguments, list parts, uint16_t flags) except -1:
    """One question to each part's shard; nothing is sent unless all of them can be asked."""
    cdef Router router = session.router
    cdef Split split = Split.__new__(Split)
    cdef Link link
    cdef int i, verdict
    for part in parts:
        verdict = session.may_send(<Link> router.links[<int> part.shard], flags)
        if verdict != SEND:
            return verdict == REFUSED
    split.router = router
    split.session = session
    split.dialect = session.dialect_now
    split.row = row
    split.args = arguments
    split.parts = parts
    split.replies = [None] * len(parts)
    split.missing = len(parts)
    session.expect_pending(split, flags)
    session.unanswered_bytes += session.parser.consumed
    for i, part in enumerate(parts):
        target = router.table.by_key[part.command]
        link = <Link> router.links[<int> part.shard]
        link.ask(split, i, target.id, router.slot_for(target, part.args), part.args, session.db_now,
                 FLAG_NO_TOUCH if session.no_touch_now else 0, session.id, router.now_ms + router.request_timeout)
    return True
