# What users may do: checked once for every frame of a user who may not do everything, before it is routed, queued or
# answered; again at EXEC; and when the rights of users change, for what goes on for long.
#
#   Session.rights      in whose name it acts (kache/acl/rights.pyx): one object for all sessions of a user, changed in place
#   Session.restricted  set for everybody who may not do everything, so that for all others nothing is asked
#   Command.keys …      what of a command is checked (table.pyx); what a few options decide is found here
#
# Selectors are tried in turn, each must suffice alone. When none does, the refusal of the one that came furthest is told.

cdef enum:
    PERMITTED = 0
    # Why a command is refused, as Redis numbers it: the larger came further.
    DENIED_COMMAND = 1
    DENIED_KEY = 2
    DENIED_CHANNEL = 4
    DENIED_SCRIPT = 5        # nobody looks at what it would do: a Redis Cluster would do it with the rights of its routers

    LOGGED_BYTES = 128       # of a word, in ACL LOG

cdef bytes NO_COMMAND = b"NOPERM this user has no permissions to run the '%s' command"
cdef bytes NO_KEY = b"NOPERM this user has no permissions to access one of the keys used as arguments"
cdef bytes NO_CHANNEL = b"NOPERM this user has no permissions to access one of the channels used as arguments"
cdef bytes NO_SCRIPTING = b"NOPERM scripts are only for users who may do everything (allcommands, allkeys and allchannels)"
cdef str NO_OTHER_USER = "NOPERM a script cannot run as the user that its own transaction has logged in"
cdef bytes NO_SORT = b"ERR %s option of SORT denied due to insufficient ACL permissions."
cdef bytes RULES_CHANGED = (
    b"NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. "
    b"This command is no longer allowed for the following reason: ")
cdef dict REASONS = {
    DENIED_COMMAND: b"no permission to execute the command or subcommand",
    DENIED_KEY: b"no permission to touch the specified keys",
    DENIED_CHANNEL: b"no permission to access one of the channels used as arguments to the command",
    DENIED_SCRIPT: b"scripts are only for users who may do everything",
}
cdef dict DENIED_WHAT = {
    DENIED_COMMAND: "command", DENIED_KEY: "key", DENIED_CHANNEL: "channel", DENIED_SCRIPT: "command"}


# The check ----------------------------------------------------------------------------------------------
cdef int denial_of(User user, Command* command, Span* words, Py_ssize_t count, Py_ssize_t* place) except -1:
    cdef list found_keys = None
    cdef Py_ssize_t i, at
    cdef int worst = DENIED_COMMAND, found
    place[0] = 0
    if command.located:
        found_keys = located_keys(command, words, count)
    for i in range(user.count):
        at = 0
        found = denial_by(user, i, command, words, count, found_keys, &at)
        if found == PERMITTED:
            return DENIED_SCRIPT if command.unseen else PERMITTED
        if found > worst or (found == worst and at > place[0]):
            worst, place[0] = found, at
    return worst


cdef int denial_by(User user, Py_ssize_t i, Command* command, Span* words, Py_ssize_t count, list found_keys,
                   Py_ssize_t* place) except -1:
    """The refusal of one selector."""
    cdef Rights* rights = &user.selectors[i]
    cdef Py_ssize_t first = command.words
    if not command.no_auth and not may_run(user, i, command.id, words[first].data if count > first else NULL,
                                           words[first].size if count > first else 0):
        return DENIED_COMMAND
    if command.keyed and not rights.all_keys:
        if command.located:
            if not may_touch_found(rights, command, words, found_keys, place):
                return DENIED_KEY
        elif not may_touch_ranges(rights, command, words, count, place):
            return DENIED_KEY
    if command.hears != HEARS_NOTHING and not rights.all_channels:
        while first < (count if command.hears != HEARS_ONE else command.words + 1):
            if not may_hear(rights, words[first].data, words[first].size, command.hears == HEARS_PATTERNS):
                place[0] = first
                return DENIED_CHANNEL
            first += 1
    return PERMITTED


cdef inline bint permitted_plainly(Rights* rights, Py_ssize_t count, Command* command, Span* words, Py_ssize_t n) noexcept:
    """Whether the first selector allows a command whose keys stand in plain ranges, as most do; else `denial_of` decides. The
    usual case, one key under the first prefix, is seen without a call."""
    cdef Py_ssize_t place
    cdef Pattern* pattern
    if not command.plain or count == 0 or not (
            rights.all_commands or (command.id >> 6 < rights.words and rights.rows[command.id >> 6] >> (command.id & 63) & 1)):
        return False
    if not command.keyed or rights.all_keys:
        return True
    pattern = rights.keys
    if (command.one_key and rights.key_count and pattern.kind == MATCHES_PREFIX and pattern.rights == MAY_READ | MAY_WRITE
            and words[1].size >= pattern.size and memcmp(words[1].data, pattern.text, pattern.size) == 0):
        return True
    return may_touch_ranges(rights, command, words, n, &place)


cdef bint may_touch_ranges(Rights* rights, Command* command, Span* words, Py_ssize_t count, Py_ssize_t* place) noexcept:
    """Keys that stand in plain ranges: without a Python object."""
    cdef Py_ssize_t i, at, last
    cdef KeyRights* keys
    cdef int wanted
    for i in range(command.key_count):
        keys = &command.keys[i]
        wanted = keys.wanted if command.chooses == CHOOSES_NOTHING else chosen_rights(command, words, count)
        last = count + keys.last if keys.last < 0 else min(<Py_ssize_t> keys.last, count - 1)
        at = keys.first
        while at <= last:
            if not may_touch(rights, words[at].data, words[at].size, wanted):
                place[0] = at
                return False
            at += keys.step
    return True


cdef bint may_touch_found(Rights* rights, Command* command, Span* words, list found, Py_ssize_t* place) except -1:
    """Keys that Python has found. A command that has keys, of which none can be found, is not one without keys."""
    cdef Py_ssize_t at
    cdef int wanted
    if found is None:
        return False
    for at, wanted in found:
        if not may_touch(rights, words[at].data, words[at].size, wanted):
            place[0] = at
            return False
    return True


cdef list located_keys(Command* command, Span* words, Py_ssize_t count):
    """[(word, rights)] of the keys of a command that does not have plain ranges of them; None when they cannot be found."""
    cdef Py_ssize_t i
    row = <object> command.row
    arguments = [PyBytes_FromStringAndSize(words[i].data, words[i].size) for i in range(command.words, count)]
    found = [(at + command.words, rights_of(flags)) for at, flags in located(row, arguments)]
    if not found and not ("no_mandatory_keys" in row.flags and count_is_usable(row, arguments)):
        return None
    return found


cdef int chosen_rights(Command* command, Span* words, Py_ssize_t count) noexcept:
    """What the options of a command decide: SET reads what it tells of the old value, BITFIELD may only read."""
    cdef Py_ssize_t i
    if command.chooses == CHOOSES_SET:
        for i in range(3, count):
            if is_word(&words[i], b"get", 3) or is_word(&words[i], b"ifeq", 4):
                return MAY_READ | MAY_WRITE
        return MAY_WRITE
    i = 2
    while i < count:
        if is_word(&words[i], b"get", 3) and i + 2 < count:
            i += 3
        elif is_word(&words[i], b"overflow", 8) and i + 1 < count:
            i += 2
        else:
            return MAY_READ | MAY_WRITE
    return MAY_READ


cdef bint is_word(Span* word, const char* lowered, Py_ssize_t size) noexcept:
    cdef Py_ssize_t i
    if word.size != size:
        return False
    for i in range(size):
        if word.data[i] | 32 != lowered[i]:
            return False
    return True


cdef str sort_denied(User user, Command* command, Span* words, Py_ssize_t count):
    """The option of SORT for which this user would have to be allowed to read every key; ""."""
    cdef Py_ssize_t i
    option = other_keys_of_sort(
        [PyBytes_FromStringAndSize(words[i].data, words[i].size) for i in range(command.words, count)])
    if option:
        for i in range(user.count):
            if may_touch_all(&user.selectors[i], MAY_READ) and may_run(user, i, command.id, NULL, 0):
                return ""
    return option


# Of a client ----------------------------------------------------------------------------------------------
cdef bint may_execute(Session session, Command* command, uint16_t flags) except -1:
    cdef RequestParser parser = session.parser
    cdef Py_ssize_t place
    cdef int found = denial_of(session.rights, command, parser.spans, parser.count, &place)
    cdef bytes text
    if found == PERMITTED:
        if not command.sorts:
            return True
        option = sort_denied(session.rights, command, parser.spans, parser.count)
        if not option:
            return True
        text = NO_SORT % option.encode()
    else:
        note_denial(session, command, found, parser.spans, place, session.queue is not None)
        text = text_of_denial(command, found)
    if session.queue is not None:
        session.queue.broken = True
    session.answer_error(text, flags)
    return False


cdef bytes text_of_denial(Command* command, int found):
    if found == DENIED_COMMAND:
        return NO_COMMAND % command.name[:command.name_size]
    if found == DENIED_SCRIPT:
        return NO_SCRIPTING
    return NO_KEY if found == DENIED_KEY else NO_CHANNEL


cdef int note_denial(Session session, Command* command, int found, Span* words, Py_ssize_t place, bint queued) except -1:
    """ACL LOG, and what is counted."""
    cdef bytes word = command.name[:command.name_size]
    if found != DENIED_COMMAND and place:
        word = PyBytes_FromStringAndSize(words[place].data, min(words[place].size, <Py_ssize_t> LOGGED_BYTES))
    session.router.accounts.refused(session, DENIED_WHAT[found], "multi" if queued else "toplevel", word)
    return 0


# EXEC -------------------------------------------------------------------------------------------------------
cdef int check_queue(Session session, Queue queue) except -1:
    """Rights may have been taken away since commands were queued, and a queued AUTH changes whose they are."""
    cdef User user = session.rights
    cdef Command* command
    cdef Py_ssize_t i, place
    cdef int found
    cdef Span* words
    cdef tuple arguments
    for i in range(queue.count):
        command = queue.commands[i].command
        if not user.unrestricted and not command.no_auth:
            arguments = queue.arguments(i)
            words = spans_of(arguments, command)
            try:
                found = denial_of(user, command, words, command.words + len(arguments), &place)
                if found != PERMITTED:
                    note_denial(session, command, found, words, place, True)
                    deny_queued(queue, i, CommandError((RULES_CHANGED + REASONS[found]).decode()))
                elif command.runs_script and user is not session.rights:
                    # Shards check it against the rights of whose the transaction is.
                    deny_queued(queue, i, CommandError(NO_OTHER_USER))
                elif command.sorts:
                    option = sort_denied(user, command, words, command.words + len(arguments))
                    if option:
                        deny_queued(queue, i, CommandError((NO_SORT % option.encode()).decode()))
            finally:
                free(words)
        if command.logs_in:
            user = session.router.accounts.user_after(user, (<object> command.row).key, queue.arguments(i))
    return 0


cdef bint may_still_execute(Session session, Queue queue, uint16_t flags) except -1:
    cdef Command* command
    cdef Py_ssize_t i, place
    cdef int found
    cdef Span* words
    cdef tuple arguments
    for i in range(queue.count):
        command = queue.commands[i].command
        arguments = queued_words(queue, i)
        words = spans_of(arguments, command)
        try:
            found = denial_of(session.rights, command, words, command.words + len(arguments), &place)
            if found != PERMITTED:
                note_denial(session, command, found, words, place, True)
        finally:
            free(words)
        if found != PERMITTED:
            end_multi(session)
            session.answer_error(ABORTED_BY + RULES_CHANGED + REASONS[found], flags)
            return False
    return True


cdef tuple queued_words(Queue queue, Py_ssize_t i):
    """The arguments of a command that is queued as RESP, or kept beside the queue."""
    cdef Queued* one = &queue.commands[i]
    cdef const char* at = queue.frames.data + queue.frames.start + one.at
    if one.shard < 0:
        return queue.planned[i]
    return tuple(decode_span(at, one.size)[one.command.words:])


cdef int deny_queued(Queue queue, Py_ssize_t i, object error) except -1:
    """The command answers this in its place and is not executed."""
    if queue.denied is None:
        queue.denied = {}
    queue.denied[i] = queue.planned[i] = error
    if queue.commands[i].command.route == ROUTE_LOCAL:
        queue.locals -= 1
    queue.commands[i].shard = NO_SHARD
    queue.shard = SEVERAL
    return 0


cdef Span* spans_of(tuple arguments, Command* command) except NULL:
    """The words of a command of which only the arguments were kept; the tuple must outlive them."""
    cdef Py_ssize_t i, count = len(arguments)
    cdef Span* words = <Span*> calloc(command.words + count, sizeof(Span))
    if words == NULL:
        raise MemoryError("no memory for the words of a command")
    for i in range(count):
        words[command.words + i].data = PyBytes_AS_STRING(<bytes> arguments[i])
        words[command.words + i].size = PyBytes_GET_SIZE(<bytes> arguments[i])
    return words


# When rights change -------------------------------------------------------------------------------------------
cdef int follow_rights(Router router) except -1:
    cdef Session session
    for session in list(router.clients.by_id.values()):
        session.set_restricted()
        if session.gone:
            continue
        router.quotas.follow(session)
        if session.rights.gone:
            end_session(session, "its user was deleted")
        elif (session.subscriptions or session.monitors_all) and not may_listen_on(session):
            end_session(session, "its user may not listen any longer")
        elif session.blocker is not None and session.barrier is not None and not session.rights.unrestricted:
            deny_waiting(session)
    return 0


cdef int end_session(Session session, str reason) except -1:
    """At once; who has asked for this very change is answered before."""
    cdef Command* command
    if session.blocker is None and type(session.barrier) is Led:
        command = (<Led> session.barrier).command
        if command.executes or (command.name_size > 4 and memcmp(command.name, b"acl|", 4) == 0):
            session.finish()
            return 0
    session.close(reason)
    return 0


cdef bint may_listen_on(Session session) except -1:
    """Whether its user may listen to all that it listens to."""
    cdef User user = session.rights
    cdef Py_ssize_t i
    cdef int kind
    if user.unrestricted:
        return True
    if session.monitors_all:
        if not any([may_run(user, i, session.router.table.monitor, NULL, 0) for i in range(user.count)]):
            return False
    if session.subscriptions:
        for kind in (PUBLISHED_CHANNEL, PUBLISHED_SHARD_CHANNEL, PUBLISHED_PATTERN):
            for name in session.names(kind):
                if not user.may_hear(name, kind == PUBLISHED_PATTERN):
                    return False
    return True


cdef int deny_waiting(Session session) except -1:
    """A command that waits, and that its user may not run any more, is answered so."""
    cdef Command* command
    cdef tuple arguments
    cdef Span* words
    cdef Py_ssize_t place
    cdef int found
    if type(session.barrier) is Blocked:
        command, arguments = (<Blocked> session.barrier).command, (<Blocked> session.barrier).arguments
    elif type(session.barrier) is Led and (<Led> session.barrier).arguments is not None:
        command, arguments = (<Led> session.barrier).command, (<Led> session.barrier).arguments
    else:
        return 0
    words = spans_of(arguments, command)
    try:
        found = denial_of(session.rights, command, words, command.words + len(arguments), &place)
        if found != PERMITTED:
            note_denial(session, command, found, words, place, False)
            session.blocker.deny(CommandError(text_of_denial(command, found).decode("utf-8", "replace")))
    finally:
        free(words)
    return 0


# ACL DRYRUN ---------------------------------------------------------------------------------------------------
cdef object dry_run(Router router, User user, list words):
    """See Router.denial."""
    cdef Py_ssize_t count = len(words), i, place
    cdef Span* spans = <Span*> calloc(count, sizeof(Span))
    cdef Command* command
    cdef int found
    if spans == NULL:
        raise MemoryError("no memory for the words of a command")
    try:
        for i in range(count):
            spans[i].data, spans[i].size = PyBytes_AS_STRING(<bytes> words[i]), PyBytes_GET_SIZE(<bytes> words[i])
        command = router.table.find(False, spans, count)
        if command == NULL or command.container and count > 1:
            raise CommandError(f"ERR Command '{words[0].decode('utf-8', 'replace')}' not found")
        if not (count == command.arity if command.arity >= 0 else count >= -command.arity):
            raise CommandError(wrong_arity(command).decode())
        found = PERMITTED if user.unrestricted else denial_of(user, command, spans, count, &place)
        if found == PERMITTED:
            return None
        return DENIED_WHAT[found], (
            <bytes> command.name[:command.name_size] if found in (DENIED_COMMAND, DENIED_SCRIPT) else words[place])
    finally:
        free(spans)
