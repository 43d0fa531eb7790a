# Commands that may wait for their keys: BLPOP and its like. With all keys on one shard its reply is passed on as it comes;
# over several shards a coroutine (scatter/blocking.py) leads several registrations.
#
#   session.barrier      nothing behind the command is executed before its reply
#   session.blocker      what ends the wait from outside, while the shard has nothing: CLIENT UNBLOCK, or that the client
#                        goes away. None while the command is still on its way: then it is like any other.
#
# What a shard has served is acknowledged (RECEIVED), or sent back when its client is gone (UNDELIVERED). A shard that leaves
# in order says RETRY for all that wait there: they are sent again when it is back, with the time that is left.

# How long a shard that leaves in order is counted on to come back, by commands that are new and wait anyway.
cdef int64_t RETURN_MS = 10000


cdef int tell_since(Backend backend, Session session, int64_t since) except -1:
    """What follows has waited for a shard that was away: its place in line is where it was."""
    cdef Router router = session.router
    return backend.ask(Ignored(router), 0, router.table.by_key["_since"].id, NO_SLOT, [b"%d" % since], 0, 0, session.id,
                       router.now_ms + router.limits.request_timeout, NO_TRANSACTION)


cdef class Blocked(Pending):

    cdef int send(self) except -1:
        cdef Router router = self.router
        self.backend = <Backend> router.links[self.shard]
        self.token = 0
        return self.backend.ask_in(self.dialect, self, 0, self.command.id, self.slot, self.arguments, self.db, self.flags,
                                   self.session.id, router.now_ms + router.limits.request_timeout, NO_TRANSACTION)

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        if self.ready or self.session.gone:
            return 0
        self.session.unblocked()
        if self.refusal is not None and decode_span(reply, n) == CommandError(UNBLOCKED):
            return self.complete(self.refusal)
        self.reply = Buffer()
        self.reply.append(reply, n)
        return self.deliver()

    cdef int fail(self, uint32_t part, bytes message) except -1:
        if self.ready or self.session.gone:
            return 0
        self.session.unblocked()
        self.reply = Buffer()
        put_error(self.reply, self.dialect, message)
        return self.deliver()

    cdef int deferred_as(self, Backend backend, uint64_t token) except -1:
        """The shard has nothing for it yet."""
        self.token = token
        self.session.block_with(self)
        if self.told >= 0 and not self.session.gone:
            backend.put_word(LINK_UNBLOCK, token, self.told)
        return 0

    cdef int retry(self, uint32_t part) except -1:
        if self.session.gone:
            return 0
        return self.stay_away()

    cdef int read_on_behind(self, bytes ids) except -1:
        """A stream is read on from where it was when the wait began: `$` would pass over what others have added by then."""
        cdef list found = ids.split()
        self.arguments = self.arguments[:len(self.arguments) - len(found)] + tuple(found)
        return 0

    cdef int stay_away(self) except -1:
        """Its shard is away and comes back; so does this, unless its time is over before."""
        cdef Router router = self.router
        self.backend = None
        self.token = 0
        if self.until < 0:
            try:
                timeout = (block_ms if self.in_ms else timeout_ms)(self.arguments[self.timeout_at], self.began)
            except CommandError as error:
                return self.end_with(error)
            self.until = self.began + <int64_t> timeout if timeout else 0
        if self.until:
            self.timer = router.loop.call_later(max(self.until - router.clock.now_ms(), 0) / 1000.0, self._time_over)
            router.must_yield = True
        router.shards.returning[self.shard].append(self._again)
        return 0

    cdef int end_with(self, object value) except -1:
        self.session.unblocked()
        return self.complete(value)

    def _again(self):
        """The shard is back."""
        cdef int64_t left
        if self.ready or self.session.gone:
            return
        self.cancel_timer()
        if self.until:
            left = self.until - self.router.clock.now_ms()
            if left <= 0:
                self.end_with(NULL_ARRAY)
                return
            words = list(self.arguments)
            words[self.timeout_at] = b"%d" % left if self.in_ms else b"%d.%03d" % (left // 1000, left % 1000)
            self.arguments = tuple(words)
        tell_since(<Backend> self.router.links[self.shard], self.session, self.since)
        self.send()

    def _time_over(self):
        self.timer = None
        if not self.ready and not self.session.gone and self.backend is None:
            self.end_with(NULL_ARRAY)

    cdef int cancel_timer(self) except -1:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return 0

    def unblock(self, bint error):
        """CLIENT UNBLOCK. The shard decides, since it may have served it a moment ago."""
        if self.backend is None:
            self.end_with(CommandError(UNBLOCKED) if error else NULL_ARRAY)
        elif self.token:
            self.backend.put_word(LINK_UNBLOCK, self.token, error)
        else:
            self.told = error

    def deny(self, refusal not None):
        """Its user may not wait for these keys any longer; what a shard has served by then is answered all the same."""
        self.refusal = refusal
        if self.backend is None:
            self.end_with(refusal)
        else:
            self.unblock(True)

    def leave(self):
        """The client is gone; what comes for it goes back."""
        self.cancel_timer()
        if self.backend is not None:
            self.backend.deferred.pop(self.token, None)


cdef class Registration(Call):
    """A question of Python's whose reply may be a long time coming (`Router.block`)."""

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        if self.token:
            # It has been served, and the shard was told that it was delivered. The coroutine hears of it a moment later: a
            # client that closes its sending side in between is one with a reply on its way, not one that waits.
            self.session.unblocked()
            if self.served is not None and not self.future.done():
                value = decode_span(reply, n)
                if value is not None and value is not NULL_ARRAY and not isinstance(value, Exception):
                    self.served(value)
                return self.answer(value)
        return Call.receive(self, part, reply, n)

    cdef int deferred_as(self, Backend backend, uint64_t token) except -1:
        self.backend = backend
        self.token = token
        return self.withdraw() if self.future.done() else 0

    cdef int retry(self, uint32_t part) except -1:
        return self.answer(ShardLeaves())

    cdef int withdraw(self) except -1:
        if self.backend is not None and self.backend.deferred.pop(self.token, None) is not None:
            self.backend.cancel_one(self.session.id, self.token)
        return 0

    def cancel(self):
        """Nobody wants to know any more; what is served all the same goes back."""
        self.future.cancel()
        self.withdraw()


cdef bint begin_blocking(Session session, Command* command, tuple arguments, int shard, uint16_t flags) except -1:
    """A command that may wait, all of whose keys are on one shard; False when it must wait to be sent."""
    cdef Router router = session.router
    cdef Blocked blocked
    cdef Link link = <Link> router.links[shard]
    cdef bint away = (link.phase != UP or link.loading) and router.shards.comes_back(shard)
    cdef int verdict = SEND if away else session.may_send(<Backend> link, flags)
    if verdict != SEND:
        return verdict == REFUSED
    blocked = Blocked.__new__(Blocked)
    blocked.router = router
    blocked.session = session
    blocked.dialect = session.dialect_now
    blocked.acknowledges = True
    blocked.command = command
    blocked.arguments = arguments
    blocked.in_ms = command.read_streams
    blocked.timeout_at = (
        block_position(arguments) if command.read_streams else 0 if command.first == 0 else len(arguments) - 1)
    blocked.shard = shard
    blocked.slot = router.slot_for(<object> command.row, arguments)
    blocked.db = session.db_now
    blocked.flags = session.flags_of_runs()
    blocked.began = router.now_ms
    blocked.since = monotonic_ns()
    blocked.until = blocked.told = -1
    session.barrier = blocked
    session.unanswered_bytes += session.parser.consumed
    session.expect_pending(blocked, flags)
    if not away:
        blocked.send()
        return True
    session.block_with(blocked)
    if not session.gone:
        blocked.stay_away()
    return True
