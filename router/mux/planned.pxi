# Commands that one frame to one shard does not answer: divided by the planner, or led by a coroutine.

cdef enum:
    ELEMENT_COST = 56


cdef class Split(Pending):

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        value = decode_span(reply, n)
        # What each element costs as an object, beside its bytes.
        self.charge(n + (ELEMENT_COST * len(value) if isinstance(value, (list, dict, set, Pairs)) else 0))
        return self.take(part, value)

    cdef int fail(self, uint32_t part, bytes message) except -1:
        return self.take(part, CommandError(message.decode("utf-8", "replace")))

    cdef int abandon(self) except -1:
        self.replies = None
        return 0

    cdef int take(self, uint32_t part, object value) except -1:
        if self.session.gone:
            return 0
        self.replies[part] = value
        self.missing -= 1
        if self.missing:
            return 0
        # The reply is about as large as its parts, which go when it is made.
        if not self.charge(self.parts_bytes):
            return 0
        value = self._merged()
        self.replies = None
        return self.complete(value)

    def _merged(self):
        """The one reply made of all parts: a merge of them, or the error that stands for those that failed."""
        failure = failure_of("write" in self.row.flags, [part.shard for part in self.parts], self.replies)
        if failure is not None:
            self.command.failed += 1
            return failure
        try:
            return MERGES[self.row.merge](self, self.replies)
        except Exception as error:
            return reply_of(error, self.command)


cdef bint run_planned(Session session, Command* command, uint16_t flags) except -1:
    """Asks the planner for the parts of the command, or starts its coroutine; False when it must wait."""
    cdef tuple arguments
    if session.router.remote is not None:
        return run_remote(session, command, flags)
    arguments = session.arguments(command)
    row = <object> command.row
    if command.route == ROUTE_CONTAINER:
        session.refused_at = session.commands + 1
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
            if command.may_block and (not command.read_streams or block_position(arguments) >= 0):
                return begin_blocking(session, command, arguments, parts[0].shard, flags)
            if row.route == "script" and session.router.shard_count > 1:
                return begin_script(session, command, arguments, parts[0].shard, flags)
            if len(parts) == 1 and parts[0].command == row.key and command.fold != FOLD_CONCAT:
                return session.send_whole(command, parts[0].shard, NO_SLOT, flags)
            if command.route == ROUTE_ALL and command.writes:
                return exec_alone(session, command, parts, flags)
            if command.fold == FOLD_CONCAT:
                return gather_all(session, command, parts, flags)
            return send_parts(session, command, arguments, parts, flags)
    session.run_coroutine(command, (<object> command.handler)(session.router, session, *arguments), flags)
    return True


cdef bint send_parts(Session session, Command* command, tuple arguments, list parts, uint16_t flags) except -1:
    """One question to each part's shard; nothing is sent unless all of them can be asked."""
    cdef Router router = session.router
    cdef Split split = Split.__new__(Split)
    cdef Backend backend
    cdef int i, verdict
    for part in parts:
        verdict = session.may_send(<Backend> router.links[<int> part.shard], flags)
        if verdict != SEND:
            return verdict == REFUSED
    if not session.may_merge():
        return False
    split.merges = True
    session.merging += 1
    split.router = router
    split.session = session
    split.dialect = session.dialect_now
    split.command = command
    split.row = <object> command.row
    command.calls += 1
    split.args = arguments
    split.parts = parts
    split.replies = [None] * len(parts)
    split.missing = len(parts)
    split.keep_words(session)
    session.expect_pending(split, flags)
    session.unanswered_bytes += session.parser.consumed
    for i, part in enumerate(parts):
        target = router.table.by_key[part.command]
        backend = <Backend> router.links[<int> part.shard]
        backend.ask(split, i, target.id, router.slot_for(target, part.args), part.args, session.db_now,
                    session.flags_of_runs(), session.id, router.now_ms + router.limits.request_timeout, NO_TRANSACTION)
    return True
