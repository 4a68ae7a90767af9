"""Two processes that hand a word to and fro, natively: what any exit to another process costs at the least.

The other process is a fork that does nothing but answer, or has a model do it; both are pinned, on one CPU or
on two.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Final

from bench.loops import NEVER_SLEEPS, loops
from bench.runner import Work

_PR_SET_PDEATHSIG: Final = 1
#: What the other process does for each word.
Model = Callable[[], None]
_CALLBACK: Final = ctypes.CFUNCTYPE(None)
#: The word that ends it (`loops.py`).
_END: Final = 2


@contextmanager
def descriptors(kind: str, mine: int, theirs: int, model: Model | None = None) -> Iterator[Work]:
    """Ping-pong by write(2) and read(2) on an `eventfd` pair, a `pipe` pair or a `socket` pair."""
    if kind == "eventfd":
        there, back = os.eventfd(0, os.EFD_CLOEXEC), os.eventfd(0, os.EFD_CLOEXEC)
        ends, peers = (there, back), (there, back)
        opened = [there, back]
    elif kind == "pipe":
        (a, b), (c, d) = os.pipe(), os.pipe()
        ends, peers, opened = (b, c), (a, d), [a, b, c, d]
    else:
        left, right = socket.socketpair()
        one, two = left.detach(), right.detach()
        ends, peers, opened = (one, one), (two, two), [one, two]
    child = _fork(theirs, model, lambda answer: loops().pong(*peers, answer))
    try:
        yield _pinned(mine, lambda count: loops().ping(*ends, count))
    finally:
        os.write(ends[0], _END.to_bytes(8, "little"))
        _reap(child)
        for each in opened:
            os.close(each)


@contextmanager
def word(mine: int, theirs: int, model: Model | None = None, *, sleeps: bool) -> Iterator[Work]:
    """Ping-pong by a word in shared memory: a futex that is slept on at once, or a word that is spun on."""
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    shared = ctypes.c_uint32.from_buffer(memory)
    address, spins = ctypes.addressof(shared), 0 if sleeps else NEVER_SLEEPS
    child = _fork(theirs, model, lambda answer: loops().futex_pong(address, spins, answer))
    try:
        yield _pinned(mine, lambda count: loops().futex_ping(address, spins, count))
    finally:
        shared.value = _END
        if sleeps:
            # It may sleep on the word: one more hand-over ends at once, since it has read the end.
            os.kill(child, signal.SIGKILL)
        _reap(child)


def _fork(cpu: int, model: Model | None, pong: Callable[[int | None], object]) -> int:
    """Let a process of its own answer: `pong` is told what to call each time."""
    called = _CALLBACK(model) if model else None
    answer = ctypes.cast(called, ctypes.c_void_p).value if called else loops().nothing
    child = os.fork()
    if child == 0:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.sched_setaffinity(0, [cpu])
            pong(answer)
        finally:
            os._exit(0)
    return child


def _reap(child: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)


def _pinned(cpu: int, ping: Callable[[int], object]) -> Work:
    """Work on a CPU of its own choice: competitors of a round are pinned differently."""

    def work(count: int) -> float:
        os.sched_setaffinity(0, [cpu])
        start = perf_counter_ns()
        ping(count)
        return float(perf_counter_ns() - start)

    return work
