# Commands in front of a Redis Cluster that are not simply sent to the node of their slot: divided by slot, since a cluster
# answers CROSSSLOT even where all the slots lie on one node; carried out by a function of `router/cluster/`; or refused.

cdef bytes CROSSES_SLOTS = b"CROSSSLOT Keys in request don't hash to the same slot"


cdef class Divided(Pending):

    def __dealloc__(self):
        free(self.part_of)

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        cdef int64_t value
        if n > 0 and reply[0] == c"-":
            return self.fail(part, PyBytes_FromStringAndSize(reply + 1, max(n - 3, 0)))
        if self.fold == FOLD_SUM:
            if n < 4 or reply[0] != c":" or not parse_int64(reply + 1, n - 3, &value):
                return self.fail(part, INTERNAL_ERROR)
            self.total += value
        elif self.fold == FOLD_IN_ORDER and self.charge(n):
            self.texts[part] = PyBytes_FromStringAndSize(reply, n)
        return self.one_less()

    cdef int fail(self, uint32_t part, bytes message) except -1:
        self.errors.append((part, CommandError(message.decode("utf-8", "replace"))))
        return self.one_less()

    cdef int abandon(self) except -1:
        self.texts = None
        return 0

    cdef int one_less(self) except -1:
        self.missing -= 1
        if self.missing:
            return 0
        if self.session is None or self.session.gone:
            self.ready = True
            return 0
        if self.errors:
            self.command.failed += 1
            replies = [None] * len(self.slots)
            for part, error in self.errors:
                replies[part] = error
            return self.complete(failure_of(self.command.writes, self.slots, replies))
        self.reply = Buffer()
        if self.fold == FOLD_SUM:
            put_int(self.reply, self.dialect, self.total)
        elif self.fold == FOLD_OK:
            put_ok(self.reply, self.dialect)
        elif self.dialect == BINARY:
            return self.complete(self.values())
        else:
            self.put_values()
            if self.session.gone:
                return 0
        return self.deliver()

    cdef list values(self):
        """The same for the binary protocol, whose parts came in RESP3."""
        cdef list parts = [iter(decode_span(PyBytes_AS_STRING(<bytes> text), PyBytes_GET_SIZE(<bytes> text))) for text in self.texts]
        cdef Py_ssize_t k
        self.texts = None
        return [next(parts[self.part_of[k]]) for k in range(self.keys)]

    cdef int put_values(self) except -1:
        """Each key's value in the client's order."""
        cdef Py_ssize_t parts = len(self.slots), part, k, n, size = 0
        cdef int64_t count
        cdef const char** at = <const char**> malloc(2 * parts * sizeof(char*))
        cdef const char** end = at + parts
        if at == NULL:
            raise MemoryError("no memory for a divided command")
        try:
            for part in range(parts):
                at[part] = PyBytes_AS_STRING(<bytes> self.texts[part])
                end[part] = at[part] + PyBytes_GET_SIZE(<bytes> self.texts[part])
                n = head_of(self.dialect, at[part], end[part] - at[part], &count)
                if n <= 0:
                    return put_error(self.reply, self.dialect, INTERNAL_ERROR)
                at[part] += n
                size += end[part] - at[part]
            if not self.charge(size):
                return 0
            self.reply.reserve(size + 32)
            begin_array(self.reply, self.dialect, self.keys)
            for k in range(self.keys):
                part = self.part_of[k]
                n = element_size(self.dialect, at[part], end[part] - at[part])
                if n <= 0 or n > end[part] - at[part]:
                    self.reply.clear()
                    return put_error(self.reply, self.dialect, INTERNAL_ERROR)
                self.reply.append(at[part], n)
                at[part] += n
        finally:
            free(at)
        self.texts = None
        return 0


cdef bint divide(Session session, Command* command, Py_ssize_t last, uint16_t flags) except -1:
    """Sends one frame for each slot of the keys up to word `last`; False when the command must wait."""
    cdef RequestParser parser = session.parser
    cdef Remote remote = session.router.remote
    cdef Divided divided = Divided.__new__(Divided)
    cdef Py_ssize_t keys = (last - command.first) // command.step + 1, k, part
    cdef dict parts = {}
    cdef int verdict
    cdef bint reads = remote.reads[command.id]
    if not session.may_merge():
        return False
    divided.part_of = <uint32_t*> malloc(keys * sizeof(uint32_t))
    if divided.part_of == NULL:
        raise MemoryError("no memory for a divided command")
    divided.slots = []
    for k in range(keys):
        slot = key_slot(parser, command, k)
        number = parts.get(slot)
        if number is None:
            verdict = remote.admits(session, <uint16_t> slot, flags)
            if verdict != SEND:
                return verdict == REFUSED
            number = parts[slot] = len(divided.slots)
            divided.slots.append(slot)
        divided.part_of[k] = <uint32_t> number
    command.calls += 1
    divided.errors = []
    divided.router = session.router
    divided.session = session
    divided.dialect = session.dialect_now
    divided.command = command
    divided.fold = command.fold
    divided.keys = keys
    divided.missing = len(divided.slots)
    divided.texts = [None] * divided.missing
    divided.keep_words(session)
    divided.merges = True
    session.merging += 1
    session.expect_pending(divided, flags)
    session.unanswered_bytes += parser.consumed
    put_divided(divided, session, remote, reads)
    return True


cdef int put_divided(Divided divided, Session session, Remote remote, bint reads) except -1:
    """One frame for each part: the command's name and the part's keys, each with the words that follow it."""
    cdef RequestParser parser = session.parser
    cdef Command* command = divided.command
    cdef Py_ssize_t parts = len(divided.slots), part, k, word, total = 0
    cdef Py_ssize_t* first = <Py_ssize_t*> malloc((2 * parts + 1 + divided.keys) * sizeof(Py_ssize_t))
    cdef Py_ssize_t* count = first + parts + 1
    cdef Py_ssize_t* order = count + parts
    cdef Buffer frame = Buffer()
    cdef Span* span
    if first == NULL:
        raise MemoryError("no memory for a divided command")
    try:
        # The keys sorted by part, each part's in the client's order.
        memset(first, 0, (2 * parts + 1) * sizeof(Py_ssize_t))
        for k in range(divided.keys):
            first[divided.part_of[k] + 1] += 1
        for part in range(parts):
            first[part + 1] += first[part]
        for k in range(divided.keys):
            part = divided.part_of[k]
            order[first[part] + count[part]] = k
            count[part] += 1
        for part in range(parts):
            frame.clear()
            put_length(frame, c"*", 1 + count[part] * command.step)
            put_span(frame, &parser.spans[0])
            for k in range(count[part]):
                word = command.first + order[first[part] + k] * command.step
                for total in range(word, word + command.step):
                    put_span(frame, &parser.spans[total])
            remote.put_frame(divided, <uint32_t> part, session, <uint16_t> divided.slots[part], reads, frame, 0)
    finally:
        free(first)
    return 0


cdef int put_span(Buffer out, Span* span) except -1:
    put_length(out, c"$", span.size)
    out.append(span.data, span.size)
    return out.append(b"\r\n", 2)


cdef bint run_remote(Session session, Command* command, uint16_t flags) except -1:
    """A command that does not simply go to the node of its first key; False when it must wait."""
    cdef Remote remote = session.router.remote
    cdef tuple arguments = session.arguments(command)
    cdef object row = <object> command.row
    cdef uint16_t slot = 0
    if command.route == ROUTE_CONTAINER:
        session.answer_error(wrong_arity(command), flags)
        return True
    handler = <object> command.handler if command.handler != NULL else remote.director.waits(row, arguments)
    if handler is not None:
        if handler in remote.director.settled and session.in_flight_now() > 0:
            session.resume_at = 0
            return False
        try:
            value = handler(session.router, session, *arguments)
        except Exception as error:
            value = reply_of(error, command)
        if type(value) is not CoroutineType:
            session.answer(value, flags)
            return True
        if session.in_flight_now() > 0:
            # It may concern any node: what was asked of others before is done first.
            value.close()
            session.resume_at = 0
            return False
        session.run_coroutine(command, value, flags)
        return True
    try:
        slots = remote.director.slots_of(row, arguments)
    except Exception as error:
        session.answer(reply_of(error, command), flags)
        return True
    if len(slots) > 1:
        session.answer_error(CROSSES_SLOTS, flags)
        return True
    for one in slots:
        slot = <uint16_t> one
    return session.send_whole(command, slot, slot, flags)
