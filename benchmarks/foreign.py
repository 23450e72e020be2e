"""How much of the machine was taken by work that is not ours: the reader of a number should know."""

import os
import resource
import time
from pathlib import Path

from benchmarks.process import CPUS


class ForeignLoad:
    """Measures from its making on."""

    def __init__(self) -> None:
        self._foreign = foreign_seconds()
        self._start = time.perf_counter()

    def percent(self) -> float:
        """The share of all cores' time that others have used; about, since a killed nginx worker counts as another."""
        elapsed = time.perf_counter() - self._start
        return max(0.0, (foreign_seconds() - self._foreign) / (elapsed * len(CPUS)) * 100)


def foreign_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return busy_seconds() - time.process_time() - children.ru_utime - children.ru_stime


def busy_seconds() -> float:
    """CPU time of everything on the machine, what its host withheld included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, cpu_line().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def cpu_line() -> str:
    return Path("/proc/stat").read_text().partition("\n")[0]
