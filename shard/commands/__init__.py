"""The commands, a function each; `registry` finds them, and imports every module here.

strings, bits, bitfield, lcs            strings, and strings as bits
hashes, hash_ttl                        hashes; fields with deadlines
lists, sets                             lists and sets
zsets, zset_ranges, zset_algebra, lex   sorted sets: members, ranges, unions and their like, ranges by name
streams, stream_reads, stream_groups    streams: entries; XREAD and XREADGROUP; consumer groups
stream_info, stream_lag                 XINFO, and how far a group has come
stream_ids, stream_dump                 IDs as commands name them; a stream in DUMP's payload
geo, geo_query, geohash                 places on the earth: commands, searches, the encoding
hyperloglog                             PFADD, PFCOUNT, PFMERGE
keys, sort, dump, introspection         keys of any type; SORT; DUMP and RESTORE; OBJECT and MEMORY USAGE
combine, algebra                        sets and sorted sets combined: of this shard, over shards
blocking, ways                          commands that wait, and what a router asks for one over several shards; how they take
pubsub, tracking                        which links listen to a channel, a pattern; whose copies end with a key
scripting, functions, inner             EVAL and its kin; FCALL; what programs are answered instead of by a router
binary                                  what answers differently in the binary protocol
transactions, images, overlay, internal what routers ask: locks, moves of values, commands with copies of other shards' keys
arguments, scanning, long_double        shared: reading arguments, cursors, numbers as a C long double
registry                                which function carries out which command
"""
