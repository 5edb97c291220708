"""How many files and sockets this process may have open."""

from __future__ import annotations

import resource

MANY = 1 << 17
"""More than the connections of any process; not all that a system may allow, as some
programs walk through all numbers that a descriptor could have."""


def allow_many() -> None:
    """Let this process have as many connections as the system allows, up to `MANY`.

    A program may mostly open 1,024 files, however many the system would let it have:
    too few for a manager of a thousand workers.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY if hard == resource.RLIM_INFINITY else min(MANY, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
