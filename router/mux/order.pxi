# The reply side of a client: what comes next, and what waits for its turn.
#
#   order      s0 s2 local s0 pending …      16 bits an entry; the head is the reply that leaves next
#   held[i]    | n | reply | n | reply …     replies of shard i that came before their turn
#   local      | n | reply | …               the same for replies made here
#   pendings   Pending, Pending …            the same for replies made later
#   out        replies that left             what the socket has not taken yet

# Replies up to this many bytes wait for more of their pipeline, if more is about to come.
cdef Py_ssize_t HELD_OUTPUT = 16 * 1024

# A merged reply of more bytes leaves in the buffer it was made in, any other at once from where it was received; smaller
# ones are cheaper to copy than to write one by one.
cdef Py_ssize_t LARGE_REPLY = 16 * 1024

# Bytes of a large reply that are asked for ahead of what its client has taken.
cdef Py_ssize_t FLOW_WINDOW = 4 << 20

# Weight of one reply in the average that says how many commands a client may have in flight (1/8).
cdef enum:
    AVERAGE_SHIFT = 3


cdef class ErrorText:
    """An error text on its way to the encoder (no exception object for what is only answered)."""
    cdef bytes text


cdef class Flow:

    cdef bint take(self, Py_ssize_t n) except -1:
        """n bytes more have come; True when that was the last of it."""
        self.received += n
        self.count(-n)
        if self.received < self.size:
            return False
        self.backend.flows.pop(self.token, None)
        return True

    cdef bint drop(self) except -1:
        self.dropped = True
        if self.backend.flows.pop(self.token, None) is None:
            return False
        self.count(self.received - self.size)
        return True

    cdef int count(self, Py_ssize_t n) except -1:
        """So many bytes more of it wait in its shard."""
        if self.session is not None:
            self.session.elsewhere += n
        return self.backend.count_flows(n)


cdef class Replies(Endpoint):

    # Bookkeeping ----------------------------------------------------------------------------------
    cdef inline void account(self, Py_ssize_t n) noexcept:
        """n bytes of replies more are kept for this client."""
        if self.output_bytes == 0:
            self.written_ms = self.router.now_ms
        self.output_bytes += n
        self.router.clients.output_bytes += n

    cdef inline Py_ssize_t cost(self) noexcept:
        return self.output_bytes + self.input_bytes

    cdef inline Py_ssize_t weight(self) noexcept:
        """What would be gained if it were closed."""
        return self.output_bytes + self.input_bytes + self.elsewhere

    cdef inline int predict(self) except -1:
        cdef Py_ssize_t expected = self.in_flight_now() * self.average
        if self.gone:
            return 0
        if self.merging > 0 and self.merged_average > 0:
            expected += self.merging * self.merged_average
        self.router.clients.forecast += expected - self.forecast
        self.forecast = expected
        return 0

    cdef inline bint over_limit(self) except -1:
        """Whether this client has been closed because it, or all clients together, keep too much."""
        if self.router.clients.over_budget():
            self.router.clients.relieve()
        elif not self.router.limits.output_hard[self.kind] or not self.over_class_limit():
            return False
        return self.gone

    cdef bint over_class_limit(self) except -1:
        if self.output_bytes <= self.router.limits.output_hard[self.kind]:
            return False
        self.router.counters.output_closed += 1
        self.router.clients.close_for_memory(<Session> self, "unread replies over client-output-buffer-limit")
        return True

    cdef int on_written(self, Py_ssize_t n) except -1:
        self.account(-n)
        self.written_ms = self.router.now_ms
        if self.flow is not None:
            self.grant(self.flow)
        elif self.weaving is not None:
            self.weaving.weave.ask(self)
        return self.relieved()

    cdef bint hold_output(self) noexcept:
        # Replies of other shards are on their way: one write, and one wake-up of the client, for all of them.
        return self.order.used() > 0 and not self.closing and self.unsent() < HELD_OUTPUT

    cdef int relieved(self) except -1:
        """The client took some output. For subclasses: it may be read again."""
        return 0

    cdef int proceed(self) except -1:
        """Something was answered. For subclasses: it may be read again, or be closed."""
        return 0

    cdef inline Py_ssize_t in_flight_now(self) noexcept:
        return self.order.used() >> 1

    # Replies of shards ----------------------------------------------------------------------------
    cdef Py_ssize_t receive_several(
        self, int shard, const char* data, Py_ssize_t n, uint32_t most, uint32_t* taken
    ) except -1:
        """Up to `most` replies of a shard, as they lie in its REPLY message: | u32 n | reply | u32 n | reply | …

        Takes those that are complete, up to one that is none (deferred, expired); `taken` says how many, the result how
        many bytes. Replies whose turn it is leave, the others wait for theirs.
        """
        cdef Py_ssize_t end = 0, at = 0, bytes_here
        cdef uint32_t count = 0, left, size
        cdef Buffer order, out
        cdef uint16_t head
        while count < most and n - end >= 4:
            memcpy(&size, data + end, 4)
            if size >= REPLY_MARKS or n - end - 4 < <Py_ssize_t> size:
                break
            end += 4 + <Py_ssize_t> size
            count += 1
        taken[0] = count
        if count == 0 or self.gone:
            return end
        if self.over_limit():
            return end
        bytes_here = end - 4 * <Py_ssize_t> count
        self.learn_average(bytes_here // count, count)
        order = self.order
        if order.used() < 2 * <Py_ssize_t> count:
            log.error("replies of shard %d to a client that does not expect them", shard)
            self.close("internal error: replies out of step")
            return end
        self.account(bytes_here)
        left = count
        if self.waiting == 0 or not self.has_held(shard):
            out = self.output()
            while left:
                memcpy(&head, order.data + order.start, 2)
                if (head & SOURCE) != shard:
                    break
                memcpy(&size, data + at, 4)
                if head & SILENT:
                    self.account(-<Py_ssize_t> size)
                elif size > LARGE_REPLY:
                    self.pass_on(data + at + 4, size)
                    out = self.out
                else:
                    out.append(data + at + 4, size)
                at += 4 + <Py_ssize_t> size
                order.consume(2)
                left -= 1
            if at:
                self.mark_dirty()
        if left:
            out = self.held_of(shard)
            out.append(data + at, end - at)
            self.waiting += left
        if self.waiting and left < count:
            self.advance()
        self.predict()
        self.proceed()
        return end

    cdef int receive_run(self, int source, const char* data, const uint32_t* sizes, uint32_t count) except -1:
        cdef Py_ssize_t total = 0, at = 0, end = 0
        cdef uint32_t i, first = 0
        cdef Buffer order = self.order, queue
        cdef uint16_t head
        if self.gone or self.over_limit():
            return 0
        for i in range(count):
            total += sizes[i]
        self.learn_average(total // count, count)
        if order.used() < 2 * <Py_ssize_t> count:
            log.error("replies of connection %d to a client that does not expect them", source)
            self.close("internal error: replies out of step")
            return 0
        self.account(total)
        if self.waiting == 0 or not self.has_held(source):
            # Whose turn it is leave as they lie there, in one piece but for the silent ones.
            while first < count:
                memcpy(&head, order.data + order.start, 2)
                if (head & SOURCE) != source:
                    break
                if head & SILENT:
                    self.output().append(data + at, end - at)
                    at = end + sizes[first]
                    self.account(-<Py_ssize_t> sizes[first])
                end += sizes[first]
                order.consume(2)
                first += 1
            if first:
                self.output().append(data + at, end - at)
                self.mark_dirty()
        if first < count:
            queue = self.held_of(source)
            for i in range(first, count):
                queue.put_u32(sizes[i])
                queue.append(data + end, sizes[i])
                end += sizes[i]
            self.waiting += count - first
        if self.waiting and first:
            self.advance()
        self.predict()
        return self.proceed()

    cdef int receive_placed(self, int shard, const char* reply, Py_ssize_t n) except -1:
        """One reply that lies elsewhere than in its REPLY message, for the time of this call."""
        cdef Buffer order = self.order, out
        cdef uint16_t head
        if self.gone or self.over_limit():
            return 0
        self.learn_average(n, 1)
        if order.used() < 2:
            log.error("a reply of shard %d to a client that does not expect it", shard)
            self.close("internal error: replies out of step")
            return 0
        self.account(n)
        memcpy(&head, order.data + order.start, 2)
        if (head & SOURCE) == shard and (self.waiting == 0 or not self.has_held(shard)):
            if head & SILENT:
                self.account(-n)
            else:
                self.pass_on(reply, n)
            order.consume(2)
            if self.waiting:
                self.advance()
        else:
            out = self.held_of(shard)
            out.put_u32(<uint32_t> n)
            out.append(reply, n)
            self.waiting += 1
        self.predict()
        return self.proceed()

    cdef int pass_on(self, const char* reply, Py_ssize_t n) except -1:
        """Bytes that leave next, for which the client is charged already: what its socket takes is not copied."""
        cdef Py_ssize_t sent = self.send_joined(self.output().used(), reply, n)
        if sent:
            # Nobody is told here: a link may be in the middle of handing out replies.
            self.account(-sent)
            self.written_ms = self.router.now_ms
        return self.mark_dirty()

    cdef int receive(self, int shard, const char* reply, Py_ssize_t n) except -1:
        """One reply that is not in a REPLY message."""
        cdef Buffer one = Buffer()
        cdef uint32_t taken
        one.put_u32(<uint32_t> n)
        one.append(reply, n)
        self.receive_several(shard, one.data + one.start, one.used(), 1, &taken)
        return 0

    cdef int learn_average(self, Py_ssize_t size, uint32_t count) except -1:
        """`count` replies had `size` bytes on average. Larger ones are believed at once: they must all find room."""
        if count >> AVERAGE_SHIFT or size > self.average:
            self.average = size
        else:
            self.average += (size - self.average) * <Py_ssize_t> count >> AVERAGE_SHIFT
        return 0

    cdef int receive_errors(self, int shard, uint32_t count, bytes message) except -1:
        """`count` replies of a shard that are all the same error."""
        cdef Buffer text = Buffer()
        cdef uint32_t i
        put_error(text, self.dialect_now, message)
        for i in range(count):
            if self.gone:
                break
            self.receive(shard, text.data + text.start, text.used())
        return 0

    cdef inline bint has_held(self, int shard):
        cdef Buffer queue = <Buffer> self.held[shard] if self.held is not None and shard < len(self.held) else None
        return queue is not None and queue.used() > 0

    cdef Buffer held_of(self, int shard):
        cdef Buffer queue
        if self.held is None:
            self.held = [None] * self.router.shard_count
        if shard >= len(self.held):
            # In front of a Redis Cluster connections come and go.
            self.held += [None] * (shard + 1 - len(self.held))
        queue = <Buffer> self.held[shard]
        if queue is None:
            queue = Buffer()
            self.held[shard] = queue
        return queue

    cdef int hold_deferred(self, int shard, uint64_t token) except -1:
        """A reply of this shard comes later; what the shard answers next waits behind it."""
        cdef Buffer queue = self.held_of(shard)
        queue.put_u32(REPLY_PARKED)
        queue.put_u64(token)
        self.waiting += 1
        if self.resolved is None:
            self.resolved = {}
        self.resolved[(shard, token)] = None
        return 0

    cdef int receive_deferred(self, int shard, uint64_t token, const char* reply, Py_ssize_t n) except -1:
        if self.gone:
            return 0
        self.resolved[(shard, token)] = PyBytes_FromStringAndSize(reply, n)
        self.account(n)
        self.advance()
        return self.proceed()

    cdef int deferred_lost(self, int shard, uint64_t token, bytes message) except -1:
        cdef Buffer text = Buffer()
        put_error(text, self.dialect_now, message)
        return self.receive_deferred(shard, token, text.data + text.start, text.used())

    cdef int forget_deferred(self) except -1:
        """The client is gone: what was to come later finds nobody."""
        cdef Backend backend
        for (shard, token), reply in self.resolved.items():
            if type(reply) is Flow:
                (<Flow> reply).drop()
            elif reply is None and self.router.remote is None:
                backend = <Backend> self.router.links[<int> shard]
                if backend.deferred.get(token) is self:
                    del backend.deferred[token]
        return 0

    # Large replies --------------------------------------------------------------------------------
    cdef int hold_flow(self, int shard, Flow flow) except -1:
        """A reply of this shard comes in pieces. It keeps its place like a deferred one, or its place as one, and leaves as it
        comes."""
        self.learn_average(flow.size, 1)
        if flow.place == flow.token:
            self.hold_deferred(shard, flow.token)
        self.resolved[(shard, flow.place)] = flow
        self.advance()
        return self.predict()

    cdef bint deliver_flow(self, Flow flow, uint16_t head) except -1:
        """It is its turn: what has come leaves, and more is asked for. True when all of it has left."""
        if head & SILENT:
            if flow.drop():
                flow.backend.put_credit(flow.token, 0)
            self.account(-flow.early.used())
            return True
        if not flow.current:
            flow.current = True
            self.flow = flow
            if flow.early.used():
                self.chain_output(flow.early)
                self.mark_dirty()
            flow.early = None
        if flow.received < flow.size:
            self.grant(flow)
            return False
        self.flow = None
        self.push_aside()
        return True

    cdef int receive_piece(self, Flow flow, const char* data, Py_ssize_t n) except -1:
        self.account(n)
        flow.take(n)
        if flow.current:
            self.pass_on(data, n)
        else:
            flow.early.append(data, n)
        if self.over_limit():
            return 0
        if flow.received < flow.size:
            if flow.current:
                self.grant(flow)
            return self.proceed()
        self.advance()
        self.predict()
        return self.proceed()

    cdef int grant(self, Flow flow) except -1:
        """Asks for as much as keeps the client busy; what is asked for must find room here."""
        cdef Py_ssize_t ahead = max(flow.granted - flow.received, 0) + self.unsent()
        if ahead <= FLOW_WINDOW // 2 and max(flow.granted, flow.received) < flow.size:
            flow.granted = max(flow.granted, flow.received) + FLOW_WINDOW - ahead
            flow.backend.put_credit(flow.token, FLOW_WINDOW - ahead)
        return 0

    cdef int flow_lost(self, int shard, Flow flow, bytes message) except -1:
        if self.gone:
            return 0
        if flow.current:
            self.close("its shard was lost inside a reply")
            return 0
        self.account(-flow.early.used())
        return self.deferred_lost(shard, flow.place, message)

    # Out of band ----------------------------------------------------------------------------------
    cdef int push(self, const char* message, Py_ssize_t n) except -1:
        """A message that answers nothing, complete in the client's dialect; it leaves before the replies to come."""
        if self.gone or self.closing:
            return 0
        self.kind = CLASS_PUBSUB
        self.account(n)
        if self.over_limit():
            return 0
        if self.unconfirmed is not None:
            if self.unconfirmed.behind is None:
                self.unconfirmed.behind = Buffer()
            return self.unconfirmed.behind.append(message, n)
        if self.flow is not None or self.weaving is not None:
            # A reply is leaving as it comes: not into the middle of it.
            if self.aside is None:
                self.aside = Buffer()
            return self.aside.append(message, n)
        self.output().append(message, n)
        return self.mark_late() if self.router.channels.to_many else self.mark_dirty()

    cdef int push_aside(self) except -1:
        """The reply that was leaving has left: what was pushed meanwhile follows."""
        aside, self.aside = self.aside, None
        if aside is not None:
            self.output().append((<Buffer> aside).data + (<Buffer> aside).start, (<Buffer> aside).used())
            return self.mark_dirty()
        return 0

    # Replies made here ----------------------------------------------------------------------------
    cdef int answer(self, object value, uint16_t flags) except -1:
        """A reply made now, in its place; `flags` is 0 or SILENT."""
        cdef Py_ssize_t before
        cdef Buffer out
        if flags & SILENT or self.gone:
            return 0
        if self.order.used() == 0:
            out = self.output()
            before = out.used()
            self.encode(out, value)
            self.account(out.used() - before)
            self.over_limit()
            return self.mark_dirty()
        return self.queue_local(value)

    cdef int queue_local(self, object value) except -1:
        cdef Buffer queue
        cdef Py_ssize_t mark
        cdef uint32_t size
        if self.local is None:
            self.local = Buffer()
        queue = self.local
        mark = queue.used()
        queue.put_u32(0)
        self.encode(queue, value)
        size = <uint32_t> (queue.used() - mark - 4)
        memcpy(queue.data + queue.start + mark, &size, 4)
        self.order.put_u16(FROM_LOCAL)
        self.waiting += 1
        self.account(size)
        return 0

    cdef int encode(self, Buffer out, object value) except -1:
        if type(value) is ErrorText:
            return put_error(out, self.dialect_now, (<ErrorText> value).text)
        try:
            return put_reply(out, self.dialect_now, value)
        except Exception:
            log.exception("a reply cannot be encoded")
            return put_error(out, self.dialect_now, INTERNAL_ERROR)

    cdef int answer_error(self, bytes message, uint16_t flags) except -1:
        cdef ErrorText error = ErrorText.__new__(ErrorText)
        error.text = message
        self.router.counters.count_error(message.decode("utf-8", "replace"))
        return self.answer(error, flags)

    cdef int expect_pending(self, Pending pending, uint16_t flags) except -1:
        """Keeps a place for a reply that is made later."""
        if self.pendings is None:
            self.pendings = deque()
        self.pendings.append(pending)
        self.order.put_u16(FROM_PENDING | flags)
        self.waiting += 1
        return 0

    # Order ----------------------------------------------------------------------------------------
    cdef int advance(self) except -1:
        """Lets every reply leave whose turn it is."""
        cdef Buffer order = self.order
        cdef Buffer queue
        cdef uint16_t head
        cdef uint32_t size
        cdef bint left = False
        while self.waiting and order.used():
            memcpy(&head, order.data + order.start, 2)
            if (head & SOURCE) < FROM_PENDING:
                queue = <Buffer> self.held[head & SOURCE] if self.held is not None and (head & SOURCE) < len(self.held) else None
                if queue is None or queue.used() == 0:
                    break
                memcpy(&size, queue.data + queue.start, 4)
                if size < REPLY_MARKS and not head & SILENT:
                    self.output().append(queue.data + queue.start + 4, size)
                    queue.consume(4 + <Py_ssize_t> size)
                elif not self.deliver_held(queue, head):
                    break
            elif (head & SOURCE) == FROM_PENDING:
                if not (<Pending> self.pendings[0]).ready and not (
                        (<Pending> self.pendings[0]).go_on(head & SILENT != 0) and not self.gone):
                    break
                queue = (<Pending> self.pendings[0]).reply
                if queue is not None and queue.used() > LARGE_REPLY and not head & SILENT:
                    self.chain_output(queue)
                elif queue is not None:
                    self.deliver(queue.data + queue.start, queue.used(), head)
                if self.unconfirmed is not None or (<Pending> self.pendings[0]).behind is not None:
                    self.confirmed()
                self.pendings.popleft()
            else:
                self.deliver_first(self.local, head)
            order.consume(2)
            self.waiting -= 1
            left = True
        if left:
            self.mark_dirty()
        return 0

    cdef int confirmed(self) except -1:
        """What was pushed while the first pending reply was on its way follows it."""
        cdef Pending first = <Pending> self.pendings[0]
        if first is self.unconfirmed:
            self.unconfirmed = None
        if first.behind is not None:
            self.output().append(first.behind.data + first.behind.start, first.behind.used())
            first.behind = None
        return 0

    cdef int deliver(self, const char* reply, Py_ssize_t n, uint16_t head) except -1:
        if head & SILENT:
            self.account(-n)
        elif n:
            self.output().append(reply, n)
        return 0

    cdef int deliver_first(self, Buffer queue, uint16_t head) except -1:
        """The first reply of a queue of (u32 n | bytes) leaves."""
        cdef uint32_t n
        memcpy(&n, queue.data + queue.start, 4)
        self.deliver(queue.data + queue.start + 4, n, head)
        queue.consume(4 + <Py_ssize_t> n)
        return 0

    cdef bint deliver_held(self, Buffer queue, uint16_t head) except -1:
        """The same for a queue that may start with a deferred reply; False when that is not there yet."""
        cdef uint32_t n
        cdef uint64_t token
        memcpy(&n, queue.data + queue.start, 4)
        if n != REPLY_PARKED:
            self.deliver_first(queue, head)
            return True
        memcpy(&token, queue.data + queue.start + 4, 8)
        place = (head & SOURCE, token)
        reply = self.resolved[place]
        if reply is None or (type(reply) is Flow and not self.deliver_flow(<Flow> reply, head)):
            return False
        del self.resolved[place]
        if type(reply) is bytes:
            self.deliver(PyBytes_AS_STRING(<bytes> reply), PyBytes_GET_SIZE(<bytes> reply), head)
        queue.consume(12)
        return True
