"""`tailrace serve --workers N`: the process that starts the workers, replaces those that die, and ends them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.context import SpawnProcess
from threading import Thread
from types import FrameType
from typing import Any, TypeAlias

logger = logging.getLogger("tailrace.serve")

Work: TypeAlias = Callable[[socket.socket], None]
"""A function that serves a socket until a signal arrives. Processes must be able to import it by its name."""

STOPS = (signal.SIGTERM, signal.SIGINT)


class Supervisor:
    """Runs a number of workers on one socket. It serves nothing itself.

    A worker that was killed, or told to stop, is replaced. One that fails by itself would fail again, so it ends all.
    If this process is killed, the workers stop as at a SIGTERM.
    """

    def __init__(self, work: Work, listener: socket.socket, count: int) -> None:
        self._work = work
        self._listener = listener
        self._count = count
        self._workers: dict[int, SpawnProcess] = {}  # by sentinel
        self._status = 0
        self._stopping = False

    def run(self) -> int:
        """Run until a signal arrives and all workers have ended. Return the exit status."""
        with _heard() as signals:
            for _ in range(self._count):
                self._start()
            while self._workers:
                for ready in wait([*self._workers, signals]):
                    if isinstance(ready, int):
                        self._ended(self._workers.pop(ready))
                    else:
                        self._hear(signals.recv())
        return self._status

    def _start(self) -> None:
        worker = multiprocessing.get_context("spawn").Process(target=_run, args=(self._work, self._listener))
        worker.start()
        self._workers[worker.sentinel] = worker

    def _ended(self, worker: SpawnProcess) -> None:
        worker.join()
        status = worker.exitcode or 0
        if status > 0:
            self._status = status
            self._stop()
        elif not self._stopping:
            logger.warning("worker %s ended with status %d and is replaced", worker.pid, status)
            self._start()

    def _hear(self, number: int) -> None:
        # A terminal sends Ctrl-C to the workers, too. They take it and the first SIGTERM for one request to stop.
        if number == signal.SIGTERM or not self._stopping:
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        for worker in self._workers.values():
            worker.terminate()


def _run(work: Work, listener: socket.socket) -> None:
    """Work in a process that a Supervisor has started, at most as long as that process lives."""
    Thread(target=_outlive_nobody, name="tailrace supervisor", daemon=True).start()
    work(listener)


def _outlive_nobody() -> None:
    """End this process after its supervisor. Otherwise it would keep the port and the database, and nobody could stop
    it together with the others.
    """
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None, "expected a worker, but this process has no supervisor"
    supervisor.join()
    logger.error("the process that started the workers is gone, so worker %d stops", os.getpid())
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _heard() -> Iterator[Connection]:
    """Receive the numbers of signals in this block, because a handler cannot wake what waits for processes."""
    receiver, sender = Pipe(duplex=False)

    def hear(number: int, frame: FrameType | None) -> None:
        sender.send(number)

    before: dict[int, Any] = {number: signal.signal(number, hear) for number in STOPS}
    try:
        with receiver, sender:
            yield receiver
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
