"""Scripts and functions in Lua: EVAL, FCALL and their kin.

interpreter           one Lua interpreter, safe for the process around it; with sandbox.lua, which says what scripts see
libraries/            what a real server gives scripts beside Lua's own: bit, struct, cjson, cmsgpack
lua                   the state of Lua under it, compiled: commands, their replies and results as bytes, memory, time; in its
                      parts lua_api.pxi, lua_calls.pxi, lua_replies.pxi and lua_results.pxi
scripts               the scripts that a shard knows, and one that runs
evaluate              the plain case of EVAL, EVALSHA and FCALL, compiled
lent                  a script, or its like, with keys of other shards
functions             the libraries of functions that a shard has, and a function that runs
library_interpreter   their interpreter

Nothing of lupa is imported before the first script.
"""
