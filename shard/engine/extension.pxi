# Commands of modules: rows behind the built-in ones, by the numbers that the supervisor has given them.
#
# Commands are found by number from one look at the array to the next and never held between two of them, so that the array
# may move when it grows, between two units. A number whose command is gone stays: frames that name it are on their way.

cdef enum:
    ANY_NUMBER = -1             # as an arity: of arguments
    MOST_COMMANDS = 0x8000      # numbers that fit beside IN_CAPITALS


def take_commands(Executor shard not None, dict wanted not None, placeholder):
    """These, {number: (row, handler)}, are the commands of modules from here on; numbers are `built_in` and above.

    What is counted of a command goes on under its new number. `placeholder(row)` is a handler that refuses, for numbers
    that are none of these; row is None where this shard never had one.
    """
    cdef int number, count = max(max(wanted, default=0) + 1, shard.command_count)
    if min(wanted, default=shard.built_in) < shard.built_in or count > MOST_COMMANDS:
        raise ValueError("a number of a module's command that cannot be")
    if count > shard.command_count:
        grow_commands(shard, count, placeholder)
    handlers, rows, before = list(shard.handlers), list(shard.rows), shard.numbers
    numbers = {key: number for key, number in before.items() if number < shard.built_in}
    for number in range(shard.built_in, count):
        row, handler = wanted.get(number, (rows[number], None))
        handlers[number] = placeholder(row) if handler is None else handler
        if handler is None:
            # It takes anything, and answers that it is gone.
            refill(shard, number, ANY_NUMBER)
            continue
        rows[number] = row
        shard.fill_command(refill(shard, number, 0), row)
        numbers[row.key] = number
    shard.handlers, shard.rows, shard.numbers = handlers, rows, numbers
    shard.spelled = {}
    for key, number in before.items():
        if number >= shard.built_in and numbers.get(key, number) != number:
            move_counts(&shard.commands[number], &shard.commands[<int> numbers[key]])


cdef int grow_commands(Executor shard, int count, placeholder) except -1:
    cdef Command* larger = <Command*> realloc(shard.commands, count * sizeof(Command))
    if larger == NULL:
        raise MemoryError("no memory for the commands")
    memset(larger + shard.command_count, 0, (count - shard.command_count) * sizeof(Command))
    shard.commands = larger
    nobody = msgspec.structs.replace(shard.rows[0], name="unloaded", flags=frozenset(), keys=())
    shard.rows = list(shard.rows) + [nobody] * (count - shard.command_count)
    shard.handlers = list(shard.handlers) + [None] * (count - shard.command_count)
    shard.command_count = count
    return 0


cdef Command* refill(Executor shard, int number, int arity) noexcept:
    """The command of a number as one about which nothing is known but what was counted of it."""
    cdef Command* command = &shard.commands[number]
    cdef Command kept = command[0]
    memset(command, 0, sizeof(Command))
    command.arity = arity
    command.calls, command.ns, command.rejected, command.failed = kept.calls, kept.ns, kept.rejected, kept.failed
    command.in_batch, command.histogram = kept.in_batch, kept.histogram
    return command


cdef int move_counts(Command* old, Command* new) noexcept:
    cdef int i
    new.calls += old.calls
    new.ns += old.ns
    new.rejected += old.rejected
    new.failed += old.failed
    if new.histogram == NULL:
        new.histogram, old.histogram = old.histogram, NULL
    elif old.histogram != NULL:
        for i in range(HISTOGRAM_SIZE):
            new.histogram[i] += old.histogram[i]
            old.histogram[i] = 0
    old.calls = old.ns = old.rejected = old.failed = 0
    return 0
