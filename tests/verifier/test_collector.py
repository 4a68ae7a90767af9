"""The garbage collector, which a verification does without, is on again when it ends, whoever else does."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace

import pytest

from devbc.verifier import verify
from devbc.verifier.verify import without_collector


def test_one_that_ends_while_another_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second looks while the collector is off, and acts when it is on again: it must not stay off."""
    inside, looked, ended = (threading.Event() for _ in range(3))

    def isenabled() -> bool:
        found = gc.isenabled()
        if not found:
            looked.set()
            ended.wait(5)
        return found

    def first() -> None:
        with without_collector():
            inside.set()
            looked.wait(1)
        ended.set()

    def second() -> None:
        inside.wait(5)
        with without_collector():
            pass

    stand_in = SimpleNamespace(isenabled=isenabled, disable=gc.disable, enable=gc.enable)
    monkeypatch.setattr(verify, "gc", stand_in)
    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert gc.isenabled()
    finally:
        gc.enable()


def test_who_verifies_all_the_time_still_collects() -> None:
    """The second does not keep off what the first has ended."""
    inside, ended = threading.Event(), threading.Event()

    def first() -> None:
        with without_collector():
            inside.set()
            second_inside.wait(5)
        ended.set()

    second_inside = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(5)
    assert not gc.isenabled()
    with without_collector():
        second_inside.set()
        assert ended.wait(5)
        assert gc.isenabled()
    thread.join()
    assert gc.isenabled()


def test_it_stays_off_for_who_has_it_off() -> None:
    gc.disable()
    try:
        with without_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
