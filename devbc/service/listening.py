"""The service's socket: one service to a path, however many start, end or die at the same moment.

A lock on a file beside the socket is held for as long as somebody listens, and the system lets go of it
however that ends. Who holds it is alone with the name: what an earlier service has left there is replaced.

Not here: who may connect (`server.py`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import Final

from devbc.diagnostics import reject
from devbc.files import reason
from devbc.limits import CLIENTS
from devbc.service import errors

_OWNERS_ALONE: Final = 0o600
#: What the socket is called until it listens.
_UNREADY: Final = "~"
#: Of struct sockaddr_un's path, without that and the zero at its end.
_PATH_BYTES: Final = 106
_ELSEWHERE: Final = ("`--socket PATH` listens elsewhere",)


class Listening:
    """A socket that its owner alone may connect to, bound to a path. Raises Rejected (S001)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_path = path.with_name(path.name + ".lock")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._lock = _locked(self._lock_path)
        except BlockingIOError:
            self.socket.close()
            message = f"another service listens on `{path}`"
            raise reject(errors.NO_SERVICE, message, help=_ELSEWHERE) from None
        except OSError as error:
            self.socket.close()
            raise _refusal(path, error) from None
        try:
            if path.is_socket() and not _somebody_listens(path):
                path.unlink()
            self._listen(path.with_name(path.name + _UNREADY))
        except OSError as error:
            self.socket.close()
            self._unlock()
            raise _refusal(path, error) from None

    def _listen(self, unready: Path) -> None:
        """Listen under another name, which is nobody else's, then give the socket its own as well.

        Whoever waits for the name to be there can connect as soon as it is.
        """
        if unready.is_socket():
            unready.unlink()
        # Linux gives the file the mode that the socket has, so that there is no moment without it.
        os.fchmod(self.socket.fileno(), _OWNERS_ALONE)
        self.socket.bind(str(unready))
        try:
            self.socket.listen(CLIENTS)
            self._inode = unready.stat().st_ino
            os.link(unready, self.path)
        finally:
            unready.unlink()

    def close(self) -> None:
        """Listen no more, and leave nothing behind."""
        self.socket.close()
        with contextlib.suppress(OSError):
            # Whoever does not know of the lock may have taken the name over.
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        self._unlock()

    def _unlock(self) -> None:
        # Before it is let go of: afterwards the name may be another service's.
        with contextlib.suppress(OSError):
            self._lock_path.unlink()
        os.close(self._lock)


def _locked(path: Path) -> int:
    """A descriptor of the file that holds its lock. Raises BlockingIOError if somebody else's does."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _OWNERS_ALONE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.lstat()):
                    return lock
        except OSError:
            os.close(lock)
            raise
        # Who held it has ended meanwhile, and removed the file: this lock keeps nobody out.
        os.close(lock)


def _somebody_listens(path: Path) -> bool:
    """Whether any program does, also one that does not know of the lock."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _refusal(path: Path, error: OSError) -> Exception:
    match error.errno:
        case errno.EEXIST:
            why = "another program listens there" if path.is_socket() else "it is there, and is no socket"
        case None:  # Python's own, before it asks the system
            why = f"it is too long: the path of a socket has {_PATH_BYTES} bytes at most"
        case _:
            why = reason(error)
    return reject(errors.NO_SERVICE, f"cannot listen on `{path}`: {why}", help=_ELSEWHERE)
