"""Scripts and functions in Lua: EVAL, FCALL and their kin.

interpreter           one Lua interpreter, safe for the process around it; with sandbox.lua, which says what scripts see
libraries/            what a real server gives scripts beside Lua's own: bit, struct, cjson, cmsgpack
convert               replies as scripts see them
scripts               the scripts that a shard knows, and one that runs
lent                  a script, or its like, with keys of other shards
functions             the libraries of functions that a shard has, and a function that runs
library_interpreter   their interpreter

Nothing of lupa is imported before the first script.
"""
