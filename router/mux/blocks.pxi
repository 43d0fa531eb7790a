# MULTI … EXEC in front of a Redis Cluster. What is queued is kept here as everywhere; EXEC sends it as one piece,
#
#   MULTI | command | command … | EXEC        to the node of its slot, on the connection of the session's other commands
#   +OK   | +QUEUED | +QUEUED … | array       of which the last is the reply
#
# so nobody's commands are between, no connection is anybody's own, and what a redirect refuses is refused as a whole: a
# node that could not queue a command answers EXEC with EXECABORT, and the block goes back into the gate of its slot. Over
# several slots there is no transaction: CROSSSLOT, unless `backend-transactions` says split, which makes one of each slot.

cdef bytes NOT_QUEUED = b"ERR %s inside MULTI is not served in front of a Redis Cluster"
cdef bytes SEVERAL_SLOTS = (
    b"CROSSSLOT the commands of this transaction have keys in several slots, over which a Redis Cluster has none; nothing "
    b"was executed. With backend-transactions split each slot's commands are a transaction of their own")


cdef bint queue_remote(Session session, Command* command, uint16_t flags) except -1:
    """Keeps the command in the parser for EXEC, as RESP; its slot is its shard's place."""
    cdef Queue queue = session.queue
    cdef RequestParser parser = session.parser
    cdef Queued* one
    cdef int slot = NO_SHARD
    translation = None
    refusal = None
    if command.no_multi or command.route == ROUTE_CONTAINER:
        refusal = NOT_IN_MULTI if command.no_multi else wrong_arity(command)
    elif command.route == ROUTE_LOCAL and command.instant:
        pass
    elif command.handler != NULL and <object> command.key not in session.router.remote.director.in_block:
        refusal = NOT_QUEUED % command.name[:command.name_size].replace(b"|", b" ").upper()
    else:
        translation = session.router.remote.director.in_block.get(<object> command.key)
        try:
            slots = session.router.remote.director.slots_of(<object> command.row, session.arguments(command))
            if len(slots) == 1:
                slot = slots.pop()
            elif not slots:
                slot = 0
            elif divides_in_block(session, command):
                slot = SEVERAL
            else:
                refusal = CROSSES_SLOTS
        except CommandError as error:
            refusal = error.message.encode()
    if refusal is not None:
        queue.broken = True
        session.answer_error(refusal, flags)
        return True
    if queue.cost() + parser.consumed > session.router.limits.query_limit:
        session.close("queued commands over client-query-buffer-limit")
        return True
    one = queue.add(command)
    if slot == NO_SHARD:
        queue.planned[queue.count - 1] = session.arguments(command)
        queue_local_command(session, queue, command)
    elif slot == SEVERAL:
        one.shard = queue.shard = SEVERAL
        queue.planned[queue.count - 1] = parts_in_block(session, command)
    else:
        one.shard = slot
        queue.shard = slot if queue.shard == NO_SHARD or queue.shard == slot else SEVERAL
        if translation is None:
            put_resp_words(queue.frames, parser.spans, parser.count)
        else:
            words, queue.planned[queue.count - 1] = translation(*session.arguments(command))
            frame = resp_of(words)
            queue.frames.append(PyBytes_AS_STRING(<bytes> frame), PyBytes_GET_SIZE(<bytes> frame))
    one.size = queue.frames.used() - one.at
    answer_word(session, "QUEUED", b"+QUEUED\r\n", flags)
    return True


cdef bint divides_in_block(Session session, Command* command) except -1:
    """Whether the command may be divided by slot inside of a transaction that is split itself."""
    return (session.router.config.backend_transactions == "split" and command.fold in (FOLD_SUM, FOLD_OK, FOLD_IN_ORDER)
            and command.first > 0 and not command.planned)


cdef tuple parts_in_block(Session session, Command* command):
    """(fold, {slot: places of its keys}, {slot: frame})"""
    cdef RequestParser parser = session.parser
    cdef Py_ssize_t last = command.last if command.last >= 0 else parser.count + command.last
    cdef Py_ssize_t k, at
    cdef dict places = {}
    cdef dict words = {}
    for k in range((last - command.first) // command.step + 1):
        slot = key_slot(parser, command, k)
        places.setdefault(slot, []).append(k)
        own = words.setdefault(slot, [PyBytes_FromStringAndSize(parser.spans[0].data, parser.spans[0].size)])
        for at in range(command.first + k * command.step, command.first + (k + 1) * command.step):
            own.append(PyBytes_FromStringAndSize(parser.spans[at].data, parser.spans[at].size))
    return command.fold, places, {slot: resp_of(own) for slot, own in words.items()}


cdef list slots_of_queue(Queue queue):
    """All that its commands have keys in, in their order."""
    cdef dict found = {}
    cdef Py_ssize_t i
    for i in range(queue.count):
        if queue.commands[i].shard >= 0:
            found[queue.commands[i].shard] = None
        elif queue.commands[i].shard == SEVERAL:
            found.update(dict.fromkeys(queue.planned[i][1]))
    return list(found)


cdef bint exec_remote(Session session, Command* command, uint16_t flags) except -1:
    """Executes what is queued; False when it must wait."""
    cdef Queue queue = session.queue
    cdef Router router = session.router
    cdef Block block
    cdef list slots
    cdef int verdict
    if queue.broken:
        end_multi(session)
        session.answer_error(ABORTED_BEFORE, flags)
        return True
    if queue.shard == SEVERAL and router.config.backend_transactions != "split":
        end_multi(session)
        session.answer_error(SEVERAL_SLOTS, flags)
        return True
    if session.exclusive is not None:
        return exec_exclusively(session, command, flags)
    slots = slots_of_queue(queue)
    for slot in slots:
        verdict = router.remote.admits(session, <uint16_t> slot, flags)
        if verdict == WAIT:
            return False
        if verdict == REFUSED:
            end_multi(session)
            return True
    if len(slots) > 1:
        router.remote.split_blocks += 1
    if router.watched[0] | router.watched[1]:
        router.monitors.tell_remote_queue(session, queue)
    block = Block.__new__(Block)
    block.router = router
    block.session = session
    block.dialect = session.dialect_now
    block.queue = queue
    block.slots = slots
    block.texts = [None] * len(slots)
    block.missing = len(slots)
    block.keep_words(session)
    session.queue = None
    session.set_restricted()
    session.expect_pending(block, flags)
    if queue.waits:
        # What comes next depends on what the router itself has queued.
        session.barrier = block
    for part in range(len(slots)):
        send_block(block, <uint32_t> part)
    count_local(command, 0)
    if block.missing == 0:
        block.assemble()
    return True


cdef bint exec_exclusively(Session session, Command* command, uint16_t flags) except -1:
    """The client watches something: its block goes where that is watched, behind all that it asked before."""
    cdef Queue queue = session.queue
    cdef Queued* one
    cdef Py_ssize_t i
    cdef dict blocks = {}
    cdef list commands = []
    if session.in_flight_now() > 0:
        session.resume_at = 0
        return False
    if session.router.config.backend_transactions != "split" and set(slots_of_queue(queue)) - set(session.exclusive.slots):
        end_multi(session)
        session.answer_error(CROSSES_SLOTS, flags)
        return True
    if session.router.watched[0] | session.router.watched[1]:
        session.router.monitors.tell_remote_queue(session, queue)
    for i in range(queue.count):
        one = &queue.commands[i]
        if one.shard >= 0:
            blocks.setdefault(one.shard, []).append(
                PyBytes_FromStringAndSize(queue.frames.data + queue.frames.start + one.at, one.size))
            commands.append([one.shard, queue.planned[i]] if i in queue.planned else one.shard)
        elif one.shard == SEVERAL:
            fold, places, frames = queue.planned[i]
            for slot, frame in frames.items():
                blocks.setdefault(slot, []).append(frame)
            commands.append((fold, places))
        else:
            commands.append(partial(<object> one.command.handler, session.router, session, *queue.planned[i]))
    session.queue = None
    session.set_restricted()
    session.run_coroutine(
        command, session.router.remote.director.execute_watched(session.router, session, blocks, commands), flags)
    return True


cdef int send_block(Block block, uint32_t part) except -1:
    """The commands of one slot between MULTI and EXEC."""
    cdef Queue queue = block.queue
    cdef Remote remote = block.router.remote
    cdef Buffer frame = Buffer()
    cdef Queued* one
    cdef int slot = block.slots[part]
    cdef uint32_t count = 0
    cdef bint reads = True
    cdef Py_ssize_t i
    frame.append(PyBytes_AS_STRING(MULTI_FRAME), PyBytes_GET_SIZE(MULTI_FRAME))
    for i in range(queue.count):
        one = &queue.commands[i]
        if one.shard == slot:
            frame.append(queue.frames.data + queue.frames.start + one.at, one.size)
            count += 1
            reads = reads and remote.reads[one.command.id]
        elif one.shard == SEVERAL and slot in queue.planned[i][2]:
            part_frame = queue.planned[i][2][slot]
            frame.append(PyBytes_AS_STRING(<bytes> part_frame), PyBytes_GET_SIZE(<bytes> part_frame))
            count += 1
            reads = reads and remote.reads[one.command.id]
    frame.append(PyBytes_AS_STRING(EXEC_FRAME), PyBytes_GET_SIZE(EXEC_FRAME))
    return remote.put_frame(block, part, block.session, <uint16_t> slot, reads, frame, 1 + count)


cdef class Block(Pending):

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        if n > 0 and reply[0] == c"-":
            return self.fail(part, PyBytes_FromStringAndSize(reply + 1, max(n - 3, 0)))
        if self.charge(n):
            self.texts[part] = PyBytes_FromStringAndSize(reply, n)
        return self.one_less()

    cdef int fail(self, uint32_t part, bytes message) except -1:
        if self.failure is None:
            self.failure = message
        self.failed += 1
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
        return self.assemble()

    cdef int assemble(self) except -1:
        """All parts are here: one reply of them."""
        cdef Queue queue = self.queue
        if self.failure is not None:
            return self.complete(CommandError(self.why().decode("utf-8", "replace")))
        if self.dialect == BINARY:
            values = self.values()
            self.texts = None
            put_away(queue)
            return self.complete(values)
        if len(self.slots) == 1 and queue.locals == 0:
            self.reply = Buffer()
            self.reply.append(PyBytes_AS_STRING(<bytes> self.texts[0]), PyBytes_GET_SIZE(<bytes> self.texts[0]))
        else:
            self.reply = Buffer()
            if not self.put_elements():
                self.reply = None
                return self.complete(CommandError(INTERNAL_ERROR.decode()))
        self.texts = None
        self.queue = None
        put_away(queue)
        return self.deliver()

    cdef bytes why(self):
        """Of the error; parts of a divided one that were executed make it uncertain."""
        cdef Py_ssize_t part
        if self.failed == len(self.slots):
            return self.failure
        done = b" ".join([b"%d" % self.slots[part] for part in range(len(self.slots)) if self.texts[part] is not None])
        return b"UNCERTAIN of this transaction only the commands of the slots %b were executed: %b" % (done, self.failure)

    cdef bint put_elements(self) except -1:
        """The replies of all commands in the client's order; False when a node has answered something else."""
        cdef Queue queue = self.queue
        cdef ReplyScanner scanner = ReplyScanner()
        cdef dict at = {}
        cdef Py_ssize_t i, part, begin, n
        cdef int64_t count
        cdef bytes text
        part_of = {slot: part for part, slot in enumerate(self.slots)}
        for part, text in enumerate(self.texts):
            begin = head_of(self.dialect, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), &count)
            if begin <= 0:
                return False
            at[part] = begin
        begin_array(self.reply, self.dialect, queue.count)
        for i in range(queue.count):
            if queue.commands[i].shard == NO_SHARD:
                put_reply(self.reply, self.dialect, self.local_value(i))
                continue
            taken = {}
            for slot in (queue.planned[i][1] if queue.commands[i].shard == SEVERAL else (queue.commands[i].shard,)):
                part = part_of[slot]
                text = self.texts[part]
                begin = at[part]
                n = scanner.scan(PyBytes_AS_STRING(text) + begin, PyBytes_GET_SIZE(text) - begin)
                if n <= 0:
                    return False
                at[part] = begin + n
                if queue.commands[i].shard >= 0:
                    self.reply.append(PyBytes_AS_STRING(text) + begin, n)
                else:
                    taken[slot] = decode_span(PyBytes_AS_STRING(text) + begin, n)
            if taken:
                fold, places, _ = queue.planned[i]
                put_reply(self.reply, self.dialect, joined(fold, places, taken))
        return True

    cdef list values(self):
        """The same for the binary protocol, whose parts came in RESP3."""
        cdef Queue queue = self.queue
        cdef dict parts = {}
        cdef list found = []
        cdef Py_ssize_t i
        cdef bytes text
        for slot, text in zip(self.slots, self.texts):
            parts[slot] = iter(decode_span(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)))
        for i in range(queue.count):
            if queue.commands[i].shard == NO_SHARD:
                found.append(self.local_value(i))
            elif queue.commands[i].shard == SEVERAL:
                fold, places, _ = queue.planned[i]
                found.append(joined(fold, places, {slot: next(parts[slot]) for slot in places}))
            else:
                value = next(parts[queue.commands[i].shard])
                found.append(queue.planned[i](value) if i in queue.planned else value)
        return found

    cdef object local_value(self, Py_ssize_t i):
        """What the router answers itself, when its turn comes."""
        cdef Command* command = self.queue.commands[i].command
        try:
            return (<object> command.handler)(self.router, self.session, *self.queue.planned[i])
        except Exception as error:
            return reply_of(error, command)
