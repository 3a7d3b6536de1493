"""Open files: every request in flight has a connection, and a run of many needs more of them than a shell often allows."""

import resource

from evalrunner.errors import RunError

OTHER_FILES = 32
"""Beside one per connection: journal, lock, parts, the event loop's own."""


def needed(connections: int) -> int:
    return connections + OTHER_FILES


def allow(connections: int) -> None:
    """Have this process keep so many connections open: raises its soft limit as far as the system lets it. Raises `RunError` where that is too little."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = needed(connections)
    if soft == resource.RLIM_INFINITY or soft >= want:
        return
    if hard != resource.RLIM_INFINITY and hard < want:
        raise RunError(
            f"the system allows this process {hard:,} open files, and {connections:,} connections at a time need about {want:,}"
            f" (hint: lower `concurrency` under limits, or raise the hard limit and then: ulimit -n {want})"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (want, hard))
