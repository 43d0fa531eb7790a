# Scripts on a router of several shards: one frame to the shard of their keys, like any other command, but for what that
# shard may answer instead of a reply. It begins with four zero bytes, which no reply in any dialect does:
#
#   again keys               nothing was done: it wants keys of other shards. A coroutine runs it with those locked
#                            (scatter/scripts.py); what its client has sent behind it is not kept waiting, the first time
#   publish messages reply   the reply, behind which these messages go to channels of other shards

cdef enum:
    MOST_FAR = 4096             # names of scripts that are remembered to want keys of other shards


cdef class Scripted(Pending):

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        if self.ready:
            return 0
        if n > 4 and memcmp(reply, b"\0\0\0\0", 4) == 0:
            return self.take_notice(decode_span(reply + 4, n - 4))
        return self.pass_on(reply, n)

    cdef int fail(self, uint32_t part, bytes message) except -1:
        cdef Buffer text
        if self.ready:
            return 0
        text = Buffer()
        put_error(text, self.dialect, message)
        return self.pass_on(text.data + text.start, text.used())

    cdef int pass_on(self, const char* reply, Py_ssize_t n) except -1:
        if self.session.gone:
            self.ready = True
            return 0
        self.reply = Buffer()
        self.reply.append(reply, n)
        return self.deliver()

    cdef int take_notice(self, list notice) except -1:
        cdef bytes reply
        if notice[0] == b"publish":
            for what, channel, message in notice[1]:
                self.router.call(self.router.shard_of(channel), "publish" if what == PUBLISHED_CHANNEL else "spublish",
                                 [channel, message]).add_done_callback(forget_outcome)
            reply = notice[2]
            return self.pass_on(PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply))
        if len(self.router.far_scripts) < MOST_FAR:
            self.router.far_scripts.add(self.arguments[0])
        if self.session.gone:
            self.ready = True
            return 0
        task = self.router.loop.create_task(
            run_script(self.router, self.session, <object> self.command.row, self.arguments, notice[1], self.db))
        task.add_done_callback(self._done)
        self.router.must_yield = True
        return 0

    def _done(self, task):
        if task.cancelled():
            value = CommandError("ERR the router is shutting down")
        elif task.exception() is not None:
            value = reply_of(task.exception(), self.command)
            self.router.counters.count_error(value.message)
        else:
            value = task.result()
        if self.session.gone:
            self.ready = True
            return
        self.complete(value)


def forget_outcome(future):
    """What nobody waits for; a message that finds its shard away is lost, as one without listeners is."""
    if not future.cancelled():
        future.exception()


cdef bytes busy_text(int busy):
    """What is answered instead of sending something to a shard that is busy; `busy`: not FREE."""
    return BUSY_FUNCTION if busy == RUNS_FUNCTION else BUSY_SCRIPT


cdef bint begin_script(Session session, Command* command, tuple arguments, int shard, uint16_t flags) except -1:
    """A script whose declared keys are on one shard; False when it must wait to be sent."""
    cdef Router router = session.router
    cdef Scripted scripted
    cdef Backend backend = <Backend> router.links[shard]
    cdef int verdict = session.may_send(backend, flags)
    if verdict != SEND:
        return verdict == REFUSED
    scripted = Scripted.__new__(Scripted)
    scripted.router = router
    scripted.session = session
    scripted.dialect = session.dialect_now
    scripted.command = command
    scripted.arguments = arguments
    scripted.db = session.db_now
    if arguments[0] in router.far_scripts:
        # It will be run again: its session's order holds.
        session.barrier = scripted
    session.unanswered_bytes += session.parser.consumed
    session.expect_pending(scripted, flags)
    backend.ask_in(scripted.dialect, scripted, 0, command.id, NO_SLOT, arguments, scripted.db, session.flags_of_runs(),
                   session.id, router.now_ms + router.limits.request_timeout, NO_TRANSACTION)
    return True
