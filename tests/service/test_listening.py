"""Services that begin and end at the same moment: one listens, and who connects reaches it."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from devbc.diagnostics import Rejected
from devbc.service.listening import Listening


def attempt(path: Path) -> Listening | str:
    """Somebody who listens, or why not."""
    try:
        return Listening(path)
    except Rejected as rejected:
        return str(rejected)


def reaches(path: Path, listening: Listening) -> None:
    """A client that connects to the path comes to this one. Raises OSError if it does not."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listening.socket.settimeout(5)
        listening.socket.accept()[0].close()


@pytest.mark.parametrize("left_behind", [False, True])
def test_they_start_at_the_same_moment(tmp_path: Path, left_behind: bool) -> None:
    path = tmp_path / "devbc.sock"
    for _ in range(50):
        if left_behind:
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
        together = threading.Barrier(6)
        found: list[Listening | str] = []

        def start(together: threading.Barrier = together, found: list[Listening | str] = found) -> None:
            together.wait()
            found.append(attempt(path))

        join([threading.Thread(target=start) for _ in range(together.parties)])
        (listening,) = (each for each in found if isinstance(each, Listening))
        for each in found:
            assert each is listening or "another service listens on" in str(each)
        reaches(path, listening)
        listening.close()
        assert [*tmp_path.iterdir()] == []


def test_who_waits_for_the_name_can_connect(tmp_path: Path) -> None:
    path = tmp_path / "devbc.sock"
    found: list[OSError | None] = []

    def connect() -> None:
        while not path.exists():
            pass
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
            except OSError as error:
                found.append(error)
            else:
                found.append(None)

    for _ in range(100):
        waiting = threading.Thread(target=connect)
        waiting.start()
        listening = Listening(path)
        waiting.join()
        listening.close()
    assert found == [None] * 100


def test_a_file_of_somebody_elses_stays(tmp_path: Path) -> None:
    """Also if it has the name that a socket has until it listens."""
    path = tmp_path / "devbc.sock"
    for name in ("devbc.sock", "devbc.sock~"):
        other = tmp_path / name
        other.write_text("mine")
        assert "S001" in str(attempt(path))
        assert other.read_text() == "mine"
        other.unlink()


def test_they_end_while_others_start(tmp_path: Path) -> None:
    """Whoever ends removes nothing of another's."""
    path = tmp_path / "devbc.sock"
    wrong: list[str] = []
    alone = threading.Lock()
    listened = [0] * 4

    def come_and_go(me: int) -> None:
        for _ in range(200):
            if isinstance(listening := attempt(path), str):
                continue
            listened[me] += 1
            if not alone.acquire(blocking=False):
                wrong.append("two listen")
                return
            try:
                reaches(path, listening)
            except OSError as error:
                wrong.append(str(error))
            alone.release()
            listening.close()

    join([threading.Thread(target=come_and_go, args=[me]) for me in range(len(listened))])
    assert wrong == []
    assert sum(listened) > 20
    assert [*tmp_path.iterdir()] == []


def test_another_programs_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "devbc.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        assert "another program listens there" in str(attempt(path))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert [*tmp_path.iterdir()] == [path]


def join(threads: list[threading.Thread]) -> None:
    for each in threads:
        each.start()
    for each in threads:
        each.join()
