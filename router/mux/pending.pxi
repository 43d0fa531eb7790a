# Replies that are made later. A Pending keeps the place of one reply in a session's order, or stands for
# nobody's (router.call); links deliver the parts of it by number.

cdef class Pending:
    """One reply that is not there yet. `receive` and `fail` take its parts; `complete` makes it leave."""

    cdef Router router
    cdef readonly Session session
    cdef readonly int dialect
    cdef bint ready
    cdef Buffer reply

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        return 0

    cdef int fail(self, uint32_t part, bytes message) except -1:
        return 0

    cdef int complete(self, object value) except -1:
        """Encodes the reply in the client's dialect; it leaves as soon as it is next."""
        if self.ready:
            return 0
        if self.session is None or self.session.gone:
            self.ready = True
            return 0
        self.reply = Buffer()
        try:
            put_reply(self.reply, self.dialect, value)
        except Exception:
            log.exception("a reply cannot be encoded")
            put_error(self.reply, self.dialect, INTERNAL_ERROR)
        return self.leave()

    cdef int leave(self) except -1:
        """`self.reply` is complete."""
        self.ready = True
        self.session.account(self.reply.used())
        self.session.advance()
        return self.session.settle()


cdef class Call(Pending):
    """One question of the router's own Python to one shard (`Router.call`)."""

    cdef object future

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        return self.answer(decode_span(reply, n))

    cdef int fail(self, uint32_t part, bytes message) except -1:
        return self.answer(CommandError(message.decode("utf-8", "replace")))

    cdef int answer(self, object value) except -1:
        if self.future.done():
            return 0
        if isinstance(value, CommandError):
            self.future.set_exception(value)
        else:
            self.future.set_result(value)
        self.router.leave = True    # its waiter runs on the event loop: do not keep it waiting
        return 0


cdef class Barrier(Pending):
    """A coroutine that answers one command; the session's further input waits for it."""

    cdef object task
    cdef Command* command
    cdef int64_t started

    cdef int start(self, object coroutine) except -1:
        self.started = monotonic_ns()
        self.task = self.router.loop.create_task(coroutine)
        self.task.add_done_callback(self._done)
        self.router.leave = True
        return 0

    def _done(self, task):
        cdef Session session = self.session
        if task.cancelled():
            value = CommandError("ERR the router is shutting down")
        elif task.exception() is not None:
            value = reply_of(task.exception(), self.command)
            self.router.count_error(value.message)
        else:
            value = task.result()
        self.command.calls += 1
        self.command.micros += (monotonic_ns() - self.started) // 1000
        if session.gone:
            self.ready = True
            return
        # The command may have changed it: HELLO inside a coroutine answers in the new one.
        self.dialect = session.dialect
        if session.barrier is self:
            session.barrier = None
        self.complete(value)
        session.wake()


cdef class Split(Pending):
    """A command whose keys lie on several shards, or that asks all of them; merged by a function of merges.py."""

    cdef readonly object row
    cdef readonly tuple args
    cdef readonly list parts
    cdef list replies
    cdef Py_ssize_t missing

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        return self.take(part, decode_span(reply, n))

    cdef int fail(self, uint32_t part, bytes message) except -1:
        return self.take(part, CommandError(message.decode("utf-8", "replace")))

    cdef int take(self, uint32_t part, object value) except -1:
        self.replies[part] = value
        self.missing -= 1
        if self.missing:
            return 0
        return self.complete(self._merged())

    def _merged(self):
        """The one reply made of all parts: a merge of them, or the error that stands for those that failed."""
        failure = failure_of("write" in self.row.flags, [part.shard for part in self.parts], self.replies)
        if failure is not None:
            return failure
        try:
            return MERGES[self.row.merge](self, self.replies)
        except Exception as error:
            return reply_of(error, NULL)


cdef object reply_of(object error, Command* command):
    """The reply that a handler's exception becomes; what is not meant for clients is logged."""
    if command != NULL:
        command.failed += 1
    if isinstance(error, CommandError):
        return error
    name = command.name[:command.name_size].decode() if command != NULL else "a merge"
    log.error("%s failed", name, exc_info=error)
    return CommandError(INTERNAL_ERROR.decode())
