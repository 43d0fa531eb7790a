"""Types of the numbers of the link (see link.pxd)."""

VERSION: int
HELLO: int
HELLO_OK: int
HELLO_NO: int
RUN: int
REPLY: int
DEFERRED: int
PUSH: int
CANCEL: int
NOTICE: int
SLOW: int
SLOW_PART: int
RUN_HEADER_BYTES: int
REPLY_HEADER_BYTES: int
ATOMIC: int
CAPITALS: int
NO_TOUCH: int
DEFERRED_REPLY: int
EXPIRED_REPLY: int
READY: int
DRAINING: int
