"""The CPU time that some work takes in this process."""

import resource
from collections.abc import Callable
from statistics import median


def user_seconds(work: Callable[[], object], *, repeat: int = 1) -> float:
    """In Python and its extensions: what the kernel does for it is left out."""

    def once() -> float:
        start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        work()
        return resource.getrusage(resource.RUSAGE_SELF).ru_utime - start

    return median(once() for _ in range(repeat))
