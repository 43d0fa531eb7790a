# The order of a sorted set: a B+ tree of (score, member) that knows how many pairs lie below each of its places.
#
#   Ranks ──► Branch ──► [ items below | first pair | child ] × up to `fan`
#                           └► Branch … ──► Leaf ◄──► Leaf ◄──► Leaf        every leaf at the same depth
#                                           [ score | member's entry ] × up to `fan`
#
# Pairs are ordered by score, then by the member's bytes. A member's bytes are in its entry (entry.pxd), which the
# set's table owns; a tie of scores is the only thing that reads them. Finding, adding, removing and counting visit
# one node per level, log n / log fan of them: four at a million members.
#
# A node is never empty. A neighbour takes over a node that has become half empty if both then fit in three quarters
# of one, so two neighbours are together at least that full. A pair added behind all others, or before them, begins a
# node of its own instead of halving a full one: scores that only grow, as times do, leave full nodes behind.
#
# Called by ZSet alone (zset.pxd has the declarations). Removing never fails.


# Comparing ----------------------------------------------------------------------------------------
cdef int compare_bytes(const char* left, size_t left_size, const char* right, size_t right_size) noexcept nogil:
    cdef int order = memcmp(left, right, min(left_size, right_size))
    if order == 0:
        return (left_size > right_size) - (left_size < right_size)
    return order


cdef inline bint pair_precedes(const Pair* pair, const Bound* bound) noexcept nogil:
    """Whether the pair lies before the bound."""
    if pair.score != bound.score:
        return pair.score < bound.score
    if bound.side:
        return bound.side > 0
    return compare_bytes(entry_key(pair.entry), entry_key_size(pair.entry), bound.key, bound.n) < 0


cdef inline uint32_t pairs_before(const Pair* pairs, uint32_t count, const Bound* bound) noexcept nogil:
    """How many of `count` ordered pairs lie before the bound."""
    cdef uint32_t low = 0, high = count, middle
    while low < high:
        middle = (low + high) >> 1
        if pair_precedes(pairs + middle, bound):
            low = middle + 1
        else:
            high = middle
    return low


# Nodes --------------------------------------------------------------------------------------------
cdef Leaf* leaf_new(Ranks* ranks, uint32_t capacity) noexcept nogil:
    cdef Leaf* leaf = <Leaf*> kache_malloc(sizeof(Leaf) + (capacity - 1) * sizeof(Pair))
    if leaf != NULL:
        leaf.count = 0
        leaf.capacity = capacity
        leaf.previous = leaf.next = NULL
        ranks.memory += kache_block_size(leaf)
    return leaf


cdef Leaf* leaf_resize(Ranks* ranks, Leaf* leaf, uint32_t capacity) noexcept nogil:
    """The one leaf, which is the root, with another capacity; NULL without memory, and it is as it was."""
    cdef int64_t before = kache_block_size(leaf)
    leaf = <Leaf*> kache_realloc(leaf, sizeof(Leaf) + (capacity - 1) * sizeof(Pair))
    if leaf != NULL:
        leaf.capacity = capacity
        ranks.memory += <int64_t> kache_block_size(leaf) - before
        ranks.root = leaf
    return leaf


cdef Branch* branch_new(Ranks* ranks) noexcept nogil:
    cdef Branch* branch = <Branch*> kache_malloc(sizeof(Branch))
    if branch != NULL:
        branch.count = 0
        ranks.memory += kache_block_size(branch)
    return branch


cdef inline void node_free(Ranks* ranks, Node node) noexcept nogil:
    ranks.memory -= kache_block_size(node)
    free(node)


cdef inline Pair node_first(Node node, bint is_leaf) noexcept nogil:
    return (<Leaf*> node).pairs[0] if is_leaf else (<Branch*> node).firsts[0]


cdef uint32_t node_size(Node node, bint is_leaf) noexcept nogil:
    """Pairs in and below a node."""
    cdef uint32_t total = 0, i
    if is_leaf:
        return (<Leaf*> node).count
    for i in range((<Branch*> node).count):
        total += (<Branch*> node).sizes[i]
    return total


cdef inline void branch_set(Branch* branch, uint32_t at, Node child, bint is_leaf) noexcept nogil:
    branch.children[at] = child
    branch.sizes[at] = node_size(child, is_leaf)
    branch.firsts[at] = node_first(child, is_leaf)


cdef inline void branch_move(Branch* source, uint32_t start, Branch* target, uint32_t at, uint32_t n) noexcept nogil:
    """Moves `n` children's columns, within one branch or to another; the counts are the caller's."""
    memmove(target.sizes + at, source.sizes + start, n * sizeof(uint32_t))
    memmove(target.firsts + at, source.firsts + start, n * sizeof(Pair))
    memmove(target.children + at, source.children + start, n * sizeof(Node))


# Finding ------------------------------------------------------------------------------------------
cdef Leaf* ranks_descend(Ranks* ranks, const Bound* bound, Step* path, uint32_t* at) noexcept nogil:
    """The leaf where the bound lies and its place there (maybe behind the last); the way to it. There is a leaf."""
    cdef Node node = ranks.root
    cdef Branch* branch
    cdef uint32_t level = ranks.height, child
    while level:
        branch = <Branch*> node
        # The child whose first pair is the last one before the bound. What equals the bound begins the next child.
        child = pairs_before(branch.firsts, branch.count, bound)
        if child == 0 or (child < branch.count and bound.side == 0 and pair_equals(&branch.firsts[child], bound)):
            child += 1
        level -= 1
        path[level].branch = branch
        path[level].at = child - 1
        node = branch.children[child - 1]
    at[0] = pairs_before((<Leaf*> node).pairs, (<Leaf*> node).count, bound)
    return <Leaf*> node


cdef inline bint pair_equals(const Pair* pair, const Bound* bound) noexcept nogil:
    return (
        pair.score == bound.score
        and entry_key_size(pair.entry) == bound.n
        and memcmp(entry_key(pair.entry), bound.key, bound.n) == 0
    )


cdef uint32_t ranks_before(Ranks* ranks, const Bound* bound) noexcept nogil:
    """How many pairs lie before the bound."""
    cdef Step[DEEPEST] path
    cdef uint32_t total, level, i
    if ranks.root == NULL:
        return 0
    ranks_descend(ranks, bound, path, &total)
    for level in range(ranks.height):
        for i in range(path[level].at):
            total += path[level].branch.sizes[i]
    return total


cdef Leaf* ranks_at(Ranks* ranks, uint32_t rank, Step* path, uint32_t* at) noexcept nogil:
    """The leaf of the pair of this rank, which there is, and its place there."""
    cdef Node node = ranks.root
    cdef Branch* branch
    cdef uint32_t level = ranks.height, child
    while level:
        branch = <Branch*> node
        child = 0
        while rank >= branch.sizes[child]:
            rank -= branch.sizes[child]
            child += 1
        level -= 1
        path[level].branch = branch
        path[level].at = child
        node = branch.children[child]
    at[0] = rank
    return <Leaf*> node


# Adding -------------------------------------------------------------------------------------------
cdef inline uint32_t split_at(uint32_t fan, bint is_first, bint is_last) noexcept nogil:
    """Where a full node is cut: in the middle, but at the end or start when that is where all the news are."""
    if is_last:
        return fan
    return 0 if is_first else fan // 2


cdef int ranks_add(Ranks* ranks, double score, Entry* entry) noexcept nogil:
    """Adds a pair that is not there. -1 without memory: nothing was changed then."""
    cdef Step[DEEPEST] path
    cdef Node[DEEPEST + 1] spare
    cdef uint32_t at, splits
    cdef Leaf* leaf
    cdef Leaf* split = NULL
    cdef Bound bound = bound_of(score, entry_key(entry), entry_key_size(entry))
    if ranks.root == NULL:
        ranks.root = leaf_new(ranks, SMALLEST_LEAF)
        if ranks.root == NULL:
            return -1
    leaf = ranks_descend(ranks, &bound, path, &at)
    if leaf.count == leaf.capacity and leaf.capacity < ranks.fan:
        # Only the one leaf of a small set is smaller than the fan.
        leaf = leaf_resize(ranks, leaf, min(leaf.capacity + leaf.capacity // 2, ranks.fan))
        if leaf == NULL:
            return -1
    if leaf.count == ranks.fan:
        splits = splits_above(ranks, path)
        if spare_nodes(ranks, spare, splits) < 0:
            return -1
        split = <Leaf*> spare[0]
        leaf = leaf_split(ranks, leaf, split, &at)
    memmove(leaf.pairs + at + 1, leaf.pairs + at, (leaf.count - at) * sizeof(Pair))
    leaf.pairs[at].score = score
    leaf.pairs[at].entry = entry
    leaf.count += 1
    ranks.count += 1
    branches_add(ranks, path, split, spare, leaf.next == NULL)
    return 0


cdef inline uint32_t splits_above(Ranks* ranks, const Step* path) noexcept nogil:
    """Nodes that the split of a leaf takes: a leaf, a branch for every full one on the way up, and maybe a new root."""
    cdef uint32_t splits = 1
    while splits <= ranks.height and path[splits - 1].branch.count == ranks.fan:
        splits += 1
    return splits + 1 if splits > ranks.height else splits


cdef int spare_nodes(Ranks* ranks, Node* spare, uint32_t n) noexcept nogil:
    """A new leaf and n - 1 new branches. -1 without memory for all of them."""
    cdef uint32_t i
    for i in range(n):
        spare[i] = <Node> leaf_new(ranks, ranks.fan) if i == 0 else <Node> branch_new(ranks)
        if spare[i] == NULL:
            while i:
                i -= 1
                node_free(ranks, spare[i])
            return -1
    return 0


cdef Leaf* leaf_split(Ranks* ranks, Leaf* leaf, Leaf* other, uint32_t* at) noexcept nogil:
    """Cuts a full leaf in two; `other` becomes its right neighbour. The one that has the place `at`, which follows it."""
    cdef uint32_t cut = split_at(ranks.fan, leaf.previous == NULL and at[0] == 0, leaf.next == NULL and at[0] == leaf.count)
    memcpy(other.pairs, leaf.pairs + cut, (leaf.count - cut) * sizeof(Pair))
    other.count = leaf.count - cut
    leaf.count = cut
    other.next = leaf.next
    other.previous = leaf
    if leaf.next != NULL:
        leaf.next.previous = other
    leaf.next = other
    if at[0] > cut or cut == ranks.fan:
        at[0] -= cut
        return other
    return leaf


cdef void branches_add(Ranks* ranks, const Step* path, Node fresh, const Node* spare, bint at_end) noexcept nogil:
    """Tells the branches on the way up of one pair more. `fresh` is a new right neighbour of the leaf, or NULL; `at_end`
    says that the pair is in the last leaf."""
    cdef uint32_t level, at
    cdef Branch* branch
    for level in range(ranks.height):
        branch = path[level].branch
        at = path[level].at
        if fresh == NULL:
            branch.sizes[at] += 1
            branch.firsts[at] = node_first(branch.children[at], level == 0)
            continue
        branch_set(branch, at, branch.children[at], level == 0)
        if branch.count < ranks.fan:
            branch_insert(branch, at + 1, fresh, level == 0)
            fresh = NULL
        else:
            fresh = branch_split(ranks, branch, <Branch*> spare[level + 1], at + 1, fresh, level == 0, at_end)
    if fresh != NULL:
        branch = <Branch*> spare[ranks.height + 1]
        branch_set(branch, 0, ranks.root, ranks.height == 0)
        branch_set(branch, 1, fresh, ranks.height == 0)
        branch.count = 2
        ranks.root = branch
        ranks.height += 1


cdef inline void branch_insert(Branch* branch, uint32_t at, Node child, bint is_leaf) noexcept nogil:
    branch_move(branch, at, branch, at + 1, branch.count - at)
    branch_set(branch, at, child, is_leaf)
    branch.count += 1


cdef Branch* branch_split(
    Ranks* ranks, Branch* branch, Branch* other, uint32_t at, Node child, bint is_leaf, bint at_end
) noexcept nogil:
    """Cuts a full branch in two and gives it a child at `at`; `other`, its new right neighbour."""
    cdef uint32_t cut = ranks.fan if at == branch.count and at_end else ranks.fan // 2
    branch_move(branch, cut, other, 0, branch.count - cut)
    other.count = branch.count - cut
    branch.count = cut
    if at > cut or cut == ranks.fan:
        branch_insert(other, at - cut, child, is_leaf)
    else:
        branch_insert(branch, at, child, is_leaf)
    return other


# Removing -----------------------------------------------------------------------------------------
cdef void leaf_unlink(Leaf* leaf) noexcept nogil:
    if leaf.previous != NULL:
        leaf.previous.next = leaf.next
    if leaf.next != NULL:
        leaf.next.previous = leaf.previous


cdef inline void branch_drop(Branch* branch, uint32_t at) noexcept nogil:
    """Takes a child, which is freed elsewhere, out of its branch."""
    branch.count -= 1
    branch_move(branch, at + 1, branch, at, branch.count - at)


cdef bint branch_join(Ranks* ranks, Branch* branch, uint32_t at, bint is_leaf) noexcept nogil:
    """Moves what child `at` + 1 holds into child `at`, if both together are small enough."""
    cdef Leaf* leaf
    cdef Leaf* next_leaf
    cdef Branch* left
    cdef Branch* right
    if at + 1 >= branch.count:
        return False
    if is_leaf:
        leaf = <Leaf*> branch.children[at]
        next_leaf = <Leaf*> branch.children[at + 1]
        if (leaf.count + next_leaf.count) * 4 > ranks.fan * 3:
            return False
        memcpy(leaf.pairs + leaf.count, next_leaf.pairs, next_leaf.count * sizeof(Pair))
        leaf.count += next_leaf.count
        leaf_unlink(next_leaf)
    else:
        left = <Branch*> branch.children[at]
        right = <Branch*> branch.children[at + 1]
        if (left.count + right.count) * 4 > ranks.fan * 3:
            return False
        branch_move(right, 0, left, left.count, right.count)
        left.count += right.count
    branch.sizes[at] += branch.sizes[at + 1]
    node_free(ranks, branch.children[at + 1])
    branch_drop(branch, at + 1)
    return True


cdef void ranks_cut(Ranks* ranks, Leaf* leaf, uint32_t at, uint32_t n, Step* path) noexcept nogil:
    """Removes `n` pairs of one leaf, found by `path`, and whatever becomes empty."""
    cdef uint32_t level, child, count
    cdef Branch* branch
    cdef Node node
    leaf.count -= n
    memmove(leaf.pairs + at, leaf.pairs + at + n, (leaf.count - at) * sizeof(Pair))
    ranks.count -= n
    for level in range(ranks.height):
        branch = path[level].branch
        child = path[level].at
        node = branch.children[child]
        count = (<Leaf*> node).count if level == 0 else (<Branch*> node).count
        if count == 0:
            if level == 0:
                leaf_unlink(<Leaf*> node)
            node_free(ranks, node)
            branch_drop(branch, child)
            if child:
                branch_join(ranks, branch, child - 1, level == 0)
            continue
        branch.sizes[child] -= n
        branch.firsts[child] = node_first(node, level == 0)
        if count * 2 < ranks.fan and not branch_join(ranks, branch, child, level == 0) and child:
            branch_join(ranks, branch, child - 1, level == 0)
    while ranks.height and (<Branch*> ranks.root).count <= 1:
        node = ranks.root
        ranks.root = (<Branch*> node).children[0] if (<Branch*> node).count else NULL
        node_free(ranks, node)
        ranks.height = ranks.height - 1 if ranks.root != NULL else 0
    if ranks.height == 0 and ranks.root != NULL:
        leaf = <Leaf*> ranks.root
        if leaf.count == 0:
            node_free(ranks, leaf)
            ranks.root = NULL
        elif leaf.capacity > 4 * SMALLEST_LEAF and leaf.count * 4 < leaf.capacity:
            leaf_resize(ranks, leaf, max(2 * leaf.count, 2 * SMALLEST_LEAF))


cdef void ranks_remove(Ranks* ranks, double score, Entry* entry) noexcept nogil:
    """Removes a pair that is there."""
    cdef Step[DEEPEST] path
    cdef uint32_t at
    cdef Bound bound = bound_of(score, entry_key(entry), entry_key_size(entry))
    cdef Leaf* leaf = ranks_descend(ranks, &bound, path, &at)
    ranks_cut(ranks, leaf, at, 1, path)


cdef int ranks_rescore(Ranks* ranks, double old, double score, Entry* entry) noexcept nogil:
    """Gives a pair that is there another score. -1 without memory: nothing was changed then."""
    cdef Step[DEEPEST] path
    cdef uint32_t at, level
    cdef Bound bound = bound_of(old, entry_key(entry), entry_key_size(entry))
    cdef Leaf* leaf = ranks_descend(ranks, &bound, path, &at)
    cdef const Pair* before = leaf.pairs + at - 1 if at else NULL
    cdef const Pair* after = leaf.pairs + at + 1 if at + 1 < leaf.count else NULL
    if before == NULL and leaf.previous != NULL:
        before = leaf.previous.pairs + leaf.previous.count - 1
    if after == NULL and leaf.next != NULL:
        after = leaf.next.pairs
    bound.score = score
    if (before == NULL or pair_precedes(before, &bound)) and (after == NULL or not pair_precedes(after, &bound)):
        leaf.pairs[at].score = score
        level = 0
        while at == 0 and level < ranks.height:
            at = path[level].at
            path[level].branch.firsts[at].score = score
            level += 1
        return 0
    if at:
        # Behind another pair of its leaf, it would find its way back there, and room.
        ranks_cut(ranks, leaf, at, 1, path)
        if ranks_add(ranks, score, entry) == 0:
            return 0
        ranks_add(ranks, old, entry)
        return -1
    if ranks_add(ranks, score, entry) < 0:
        return -1
    ranks_remove(ranks, old, entry)
    return 0


cdef bint ranks_free_some(Ranks* ranks, Py_ssize_t* count) noexcept nogil:
    """Frees nodes, each counted as one, of a tree that is not read any more. True while some are left."""
    cdef Branch* branch
    while ranks.root != NULL:
        if ranks.height == 0:
            node_free(ranks, ranks.root)
            ranks.root = NULL
            break
        branch = <Branch*> ranks.root
        if branch.count == 0:
            node_free(ranks, branch)
            ranks.root = NULL
            break
        if count[0] <= 0:
            return True
        count[0] -= 1
        branch_free_last(ranks, branch, ranks.height)
    ranks.height = ranks.count = 0
    return False


cdef void branch_free_last(Ranks* ranks, Branch* branch, uint32_t height) noexcept nogil:
    """Frees the last leaf below a branch, or a branch that has become empty."""
    cdef Branch* below
    while height > 1:
        below = <Branch*> branch.children[branch.count - 1]
        if below.count == 0:
            break
        branch = below
        height -= 1
    branch.count -= 1
    node_free(ranks, branch.children[branch.count])


# Checking -----------------------------------------------------------------------------------------
cdef int ranks_check(Ranks* ranks) except -1:
    """Asserts every invariant of the tree."""
    cdef Leaf* last = NULL
    cdef uint32_t total = 0
    cdef int64_t memory = 0
    if ranks.root != NULL:
        total = node_check(ranks, ranks.root, ranks.height, &last, &memory)
        assert last.next == NULL, "the last leaf has a follower"
        assert ranks.height == 0 or (<Branch*> ranks.root).count > 1, "a root has one child"
    assert total == ranks.count, f"a tree of {total} pairs says {ranks.count}"
    assert memory == ranks.memory, f"a tree of {memory} bytes says {ranks.memory}"
    return 0


cdef uint32_t node_check(Ranks* ranks, Node node, uint32_t height, Leaf** last, int64_t* memory) except? 0xFFFFFFFF:
    cdef Leaf* leaf
    cdef Branch* branch
    cdef Pair first
    cdef Bound bound
    cdef uint32_t total = 0, i, size
    memory[0] += kache_block_size(node)
    if height:
        branch = <Branch*> node
        assert 0 < branch.count <= ranks.fan, "a branch is empty or too full"
        for i in range(branch.count):
            size = node_check(ranks, branch.children[i], height - 1, last, memory)
            assert size == branch.sizes[i], "a branch has a wrong count"
            first = node_first(branch.children[i], height == 1)
            assert first.score == branch.firsts[i].score and first.entry == branch.firsts[i].entry, "a wrong first pair"
            total += size
        return total
    leaf = <Leaf*> node
    assert 0 < leaf.count <= leaf.capacity <= max(ranks.fan, SMALLEST_LEAF), "a leaf is empty or too full"
    assert leaf.previous == last[0] and (last[0] == NULL or last[0].next == leaf), "the leaves' chain is broken"
    for i in range(leaf.count):
        bound = bound_of(leaf.pairs[i].score, entry_key(leaf.pairs[i].entry), entry_key_size(leaf.pairs[i].entry))
        if i:
            assert pair_precedes(&leaf.pairs[i - 1], &bound), "pairs are out of order"
        elif last[0] != NULL:
            assert pair_precedes(&last[0].pairs[last[0].count - 1], &bound), "leaves are out of order"
    last[0] = leaf
    return leaf.count
