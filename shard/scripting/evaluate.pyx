"""EVAL, EVALSHA and FCALL of what has run before, without their handlers: the case that clients ask for all day.

`Scripts`, or `Functions`, prepares a script or a function here when its handler has run it; whatever is unusual is the
handler's (DECLINE, before anything is done), and how one ends that does more than answer is said by `Owner.conclude`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from kache.wire.clock cimport monotonic_ns
from kache.wire.codec cimport RESP2, Buffer, Span, parse_int64, put_reply
from kache.wire.link cimport RUN_OF_NOBODY

from ..engine.engine cimport DECLINE, DONE, Context, Executor, Program, ScriptRunner
from .lua cimport FAILED, NOTHING, Lua, Reference

from kache.wire.codec import decode_reply

from ..engine.engine import Raw

__all__ = ["Evaluator"]


cdef class Prepared:
    """A script or a function that is compiled."""
    cdef Reference function
    cdef bytes name, text               # of a function: None
    cdef object script
    cdef bint reads, allows_oom
    cdef bint evaluated                 # it is kept for as long as it is used


cdef class Evaluator(ScriptRunner):
    """The scripts of one shard that are prepared, and who runs them; or, with `calls`, its functions, whose keys and arguments
    are passed to them."""
    cdef object owner
    cdef object touch                   # of what is evaluated: it was used last; None: nothing is
    cdef bint calls
    cdef dict by_name, by_text
    cdef bint busy
    cdef Program program                # of the last one, for as long as nothing unusual has happened
    cdef object run                     # what answers what it asks
    cdef Prepared running               # what runs now, and with what
    cdef Span* words
    cdef Py_ssize_t count, keys
    cdef bint only_reads

    def __init__(self, owner, *, touch=None, bint calls=False):
        self.owner = owner
        self.touch = touch
        self.calls = calls
        self.by_name = {}
        self.by_text = {}

    def prepare(self, bytes name not None, script, Reference function not None, *, bint evaluated=False):
        """From here on it runs here, named so. `script` has `flags`, and a `text` where it is no function."""
        cdef Prepared made = Prepared.__new__(Prepared)
        made.name, made.script, made.function = name, script, function
        made.reads = "no-writes" in script.flags
        made.allows_oom = "allow-oom" in script.flags
        made.evaluated = evaluated
        self.by_name[name] = made
        if not self.calls:
            made.text = script.text
            self.by_text[made.text] = made

    def forget(self, bytes name=None):
        """Nothing more of a script, or of all there are."""
        cdef Prepared gone
        if name is None:
            self.by_name.clear()
            self.by_text.clear()
            # What answers asks this object what runs: a circle, and nobody collects any.
            self.program = self.run = None
            return
        gone = self.by_name.pop(name, None)
        if gone is not None:
            self.by_text.pop(gone.text, None)

    def described(self):
        """(name, the words of its command) of the function that runs here."""
        cdef Py_ssize_t i
        cdef Span* words = self.words
        given = [PyBytes_FromStringAndSize(words[i].data, words[i].size) for i in range(self.count)]
        return self.running.script.name, (
            b"FCALL_RO" if self.only_reads else b"FCALL", self.running.name, b"%d" % self.keys, *given)

    cdef int evaluate(self, Context context, Span* args, Py_ssize_t n, Buffer out, bint by_name, bint reads) except -1:
        cdef Prepared script
        cdef int64_t keys
        cdef bytes name
        if self.busy or n < 2 or context.user_number == RUN_OF_NOBODY:
            return DECLINE
        name = PyBytes_FromStringAndSize(args[0].data, args[0].size)
        script = self.by_name.get(name) if by_name else self.by_text.get(name)
        if script is None or not parse_int64(args[1].data, args[1].size, &keys) or not 0 <= keys <= n - 2:
            return DECLINE
        if self.calls and reads and not script.reads:
            # FCALL_RO of a function that may write.
            return DECLINE
        if script.evaluated:
            self.touch(script.name)
        return self.execute(context, script, args + 2, n - 2, keys, reads, out)

    cdef int execute(self, Context context, Prepared script, Span* args, Py_ssize_t n, Py_ssize_t keys, bint reads,
                     Buffer out) except -1:
        cdef Executor shard = context.shard
        cdef Lua lua = script.function.lua
        cdef Program program = self.program
        cdef int dialect = context.dialect, kind
        cdef bint tells = shard.owned is not None and context.may_wait
        if program is None or program.context is not context:
            self.program = program = Program(context)
            self.run = self.owner.run_of(program, self.described)
        program.read_only = reads or script.reads
        program.allows_oom = script.allows_oom
        program.publishes = tells or shard.owned is None
        program.check = self.owner.check
        shard.looked_ns = monotonic_ns()
        program.begin()
        if self.calls and program.short_of_room:
            # A function that may write is not begun then; a script may come to its first write.
            program.end()
            return DECLINE
        lua.program, lua.runner = program, self.run
        self.busy = True
        self.running, self.words, self.count, self.keys, self.only_reads = script, args, n, keys, reads
        lua.host.passed = self.calls
        try:
            kind = lua.run(script.function.place, args, n, keys, 2 if dialect == RESP2 else 3)
        finally:
            lua.host.passed = False
            program.end()
            self.busy = False
            self.running = None
            lua.program = lua.runner = None
        # It has a time of its own, not a part of the mean of those around it.
        shard.store.heavy = True
        if kind == FAILED or len(program.published) or lua.host.asked or lua.elsewhere is not None or lua.is_half_full():
            return self.conclude(context, program, script, lua, kind, tells, out)
        return put_answer(lua, kind, dialect, out)

    cdef int conclude(self, Context context, Program program, Prepared script, Lua lua, int kind, bint tells,
                      Buffer out) except -1:
        """What is not only an answer."""
        cdef Buffer answer
        run = self.run
        self.program = self.run = None
        reply = self.owner.conclude(context, run, lua.outcome(kind), script.name, script.script, tells)
        if type(reply) is Raw:
            return out.append(PyBytes_AS_STRING(<bytes> reply.data), PyBytes_GET_SIZE(<bytes> reply.data))
        return put_reply(out, context.dialect, reply)


cdef int put_answer(Lua lua, int kind, int dialect, Buffer out) except -1:
    if dialect >= RESP2:
        return out.append(lua.host.out.data, lua.host.out.size)
    if kind == NOTHING:
        return put_reply(out, dialect, None)
    return put_reply(out, dialect, decode_reply(PyBytes_FromStringAndSize(lua.host.out.data, lua.host.out.size))[0])
