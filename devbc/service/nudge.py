"""Getting threads out of system calls that a client lets block: writes to eventfds that it has filled.

Whoever shares an eventfd decides whether a write to it blocks, and can change its mind at any moment. So each
such write may be interrupted, and then counts as done: a full counter is a signal too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

#: It only has to interrupt what a thread waits for; `server.py` gives it a handler.
NUDGE: Final = signal.SIGUSR2
#: Seconds that a thread is left alone.
PATIENCE: Final = 0.05


class Nudger:
    """Threads of Python that may block, and one that looks after them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What the caller does in here is interrupted every `PATIENCE` seconds."""
        me = threading.get_ident()
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name="nudger", daemon=True)
                self._thread.start()
            self._inside[me] = 0
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._inside.pop(me)

    def _main(self) -> None:
        with self._changed:
            while True:
                self._changed.wait(PATIENCE if self._inside else None)
                for thread, rounds in self._inside.items():
                    # It cannot leave, and end, while this thread holds the condition's lock.
                    if rounds:
                        signal.pthread_kill(thread, NUDGE)
                    self._inside[thread] = rounds + 1


@cache
def nudger() -> Nudger:
    return Nudger()
