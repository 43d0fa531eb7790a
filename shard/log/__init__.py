"""What a shard keeps on disk: its log, its base, and the way back from them. From the bottom up:

    files       Files: every call to the file system, also for C threads; ScriptedFiles for tests
    format      the bytes: header of a file, header of a frame, checks, the numbers of the kinds
    values      a whole entry as frames have it (declarations only)
    manifest    which files of a shard count, and in which order
    writer      Writer: frames on their way to disk, two threads, what is written and what is durable
    base        Dump: the data of a shard on its way into a base, slice by slice between ticks
    pace        how the slices of a dump share the loop with commands
    beginning   how the log of a new life begins, also where the disk is full
    persistence Persistence: the log and the dumps of a living shard, its manifest, its way out of trouble
    directory   the directory of a cluster, its file, its locks
    ownership   whose files they are: none of another shard, or of another cluster
    recovery    the one reader of logs and bases: verifies them, and makes a store of them
    division, repartition   what one shard holds as bases for others; another number of shards
    troubles    what an error of the file system means to who has to mend it
    tools       looking at files offline: for the command line

Nothing here calls the file system but by a `Files`, so that a test can fail any call, or stop the world behind it.

    dir/  cluster            id, hash seed, epoch, ranges of slots: of the cluster, the supervisor's
          lock               who owns the directory
          epoch-1/shard-0003/  lock  manifest  000017.base  000017.log  000018.log

A *log* has the effects, one frame a tick; a *base* has whole values, each as of a frame of the log beside it. Both count by
the *sequence*, the number of the last effects frame, and recovery merges them by it: the frame n of the log, then what the
base has as of n. The manifest alone says which files are loaded.
"""
