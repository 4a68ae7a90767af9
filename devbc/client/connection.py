"""A connection to the service: a request, its reply, and descriptors beside both."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from devbc.diagnostics import Rejected, from_json, reject
from devbc.files import reason
from devbc.service import errors, protocol
from devbc.service.framing import CREDENTIALS, Closed, Stream, close_all

_ROOT: Final = 0
R = TypeVar("R", bound=protocol.Message)


class Connection:
    """One client of a service. Requests are answered in order; any thread may send one.

    Raises Rejected: S001 if there is no service, S006 if it is gone, and what the service refuses.
    """

    def __init__(self, path: Path, name: str) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            raise _unreachable(path, error) from None
        if (owner := _owner(connection)) not in (os.geteuid(), _ROOT) and os.geteuid() != _ROOT:
            # It would see, and could change, all that its client shares with it.
            connection.close()
            raise reject(errors.NO_SERVICE, f"what listens on `{path}` is another user's, {owner}'s")
        self.path = path
        self._stream = Stream(connection)
        self._lock = threading.Lock()
        self._closed = False
        try:
            welcome = self.ask(protocol.Hello(protocol.VERSION, name), protocol.Welcome)
        except Rejected:
            self.close()
            raise
        self.token = welcome.token
        self.service_pid = welcome.pid

    def ask(self, request: protocol.Message, kind: type[R], descriptors: Sequence[int] = ()) -> R:
        """The reply to a request; descriptors that came with it are closed."""
        reply, passed = self.ask_for_descriptors(request, kind, descriptors)
        close_all(passed)
        return reply

    def ask_for_descriptors(
        self, request: protocol.Message, kind: type[R], descriptors: Sequence[int] = ()
    ) -> tuple[R, list[int]]:
        """The reply to a request, and the descriptors that came with it, which are the caller's to close."""
        with self._lock:
            try:
                self._stream.send(protocol.encode(request), descriptors)
            except Closed:
                # It may have said why before it closed.
                with contextlib.suppress(Closed):
                    self._read(kind)
                raise reject(errors.LOST, "the service has closed the connection") from None
            try:
                return self._read(kind)
            except Closed:
                raise reject(errors.LOST, "the service has closed the connection") from None

    def _read(self, kind: type[R]) -> tuple[R, list[int]]:
        data, passed = self._stream.receive()
        try:
            reply = protocol.decode_reply(data)
        except msgspec.MsgspecError as error:
            close_all(passed)
            raise reject(errors.BAD_MESSAGE, f"the service's reply is none: {error}") from None
        if isinstance(reply, protocol.Refused):
            close_all(passed)
            raise Rejected(*(from_json(json.loads(each)) for each in reply.diagnostics))
        if not isinstance(reply, kind):
            close_all(passed)
            raise reject(errors.BAD_MESSAGE, f"the service replied `{type(reply).__name__}`")
        return reply, passed

    def watch(self) -> int:
        """A descriptor, the caller's to close, that hangs up when the connection does, from either side."""
        return os.dup(self._stream.socket.fileno())

    def close(self) -> None:
        """End the connection; the service reclaims what was made over it."""
        if not self._closed:
            self._closed = True
            # Wakes a thread that waits for a reply.
            with contextlib.suppress(OSError):
                self._stream.socket.shutdown(socket.SHUT_RDWR)
            self._stream.close()


def _owner(connection: socket.socket) -> int:
    """The user who listens at the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(credentials)[1])


def _unreachable(path: Path, error: OSError) -> Rejected:
    match error.errno:
        case errno.ECONNREFUSED:
            why, help = "the one that listened has ended", "`devbc serve` starts another"
        case errno.EACCES:
            why, help = reason(error), "the user who has started it may connect, and root"
        case _:
            why, help = reason(error), "`devbc serve` starts one"
    return reject(errors.NO_SERVICE, f"no service at `{path}`: {why}", help=[help])


def close_quietly(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
