"""Messages on a Unix stream socket: a header, the bytes, and descriptors beside them.

    u32 bytes of the message    u32 descriptors        little-endian; the descriptors come with the header

Both sides read only what fits: a length beyond the cap is refused before anything is read of it, descriptors
that were not announced are closed. Who stops in the middle of a message, or takes no answer, is given up.

Not here: what messages say (`protocol.py`).
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import time
from collections.abc import Sequence
from struct import Struct
from typing import Final

from devbc.diagnostics import reject
from devbc.limits import MESSAGE_BYTES, MESSAGE_DESCRIPTORS, MESSAGE_SECONDS
from devbc.service import errors

HEADER: Final = Struct("<II")
#: What SO_PEERCRED says of the other end, struct ucred: pid, uid, gid.
CREDENTIALS: Final = Struct("3i")
_CHUNK: Final = 1 << 20
_SPACE: Final = socket.CMSG_SPACE(4 * MESSAGE_DESCRIPTORS)


class Closed(Exception):  # noqa: N818 - what happened, not a fault
    """The other side has closed the connection."""


class Stream:
    """A connection's messages. Sending and receiving are one thread's at a time each."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        self.socket = connection

    def send(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message; the descriptors stay the caller's. Raises Closed, also if nobody takes it."""
        data = memoryview(HEADER.pack(len(message), len(descriptors)) + message)
        ancillary = []
        if descriptors:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        limit = time.monotonic() + MESSAGE_SECONDS
        try:
            self.socket.settimeout(MESSAGE_SECONDS)
            sent = self.socket.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
            while sent < len(data):
                self.socket.settimeout(max(0.001, limit - time.monotonic()))
                sent += self.socket.send(data[sent : sent + _CHUNK], socket.MSG_NOSIGNAL)
        except OSError as error:
            raise Closed from error

    def receive(self, patience: float | None = None) -> tuple[bytes, list[int]]:
        """The next message and its descriptors, which are the caller's to close.

        `patience`: seconds to wait for its first byte; None for as long as it takes. Raises Closed, or
        Rejected (S002) for what is no message; then the connection is of no more use.
        """
        header, descriptors = self._header(patience)
        try:
            size, count = HEADER.unpack(header)
            if size > MESSAGE_BYTES:
                message = f"a message of {size:,} bytes is announced, and may have {MESSAGE_BYTES:,}"
                raise reject(errors.BAD_MESSAGE, message)
            if count != len(descriptors):
                message = f"{count:,} descriptors are announced, and {len(descriptors)} came"
                raise reject(errors.BAD_MESSAGE, message)
            body = self._exactly(size)
        except BaseException:
            close_all(descriptors)
            raise
        return body, descriptors

    def _header(self, patience: float | None) -> tuple[bytes, list[int]]:
        """The header, and what came beside it."""
        descriptors: list[int] = []
        try:
            self.socket.settimeout(patience)
            header, ancillary, flags, _ = self.socket.recvmsg(HEADER.size, _SPACE, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise Closed from error
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found = array.array("i")
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
                descriptors += found
        try:
            if not header:
                raise Closed
            if flags & socket.MSG_CTRUNC:
                message = f"a message passes at most {MESSAGE_DESCRIPTORS} descriptors"
                raise reject(errors.BAD_MESSAGE, message)
            return header + self._exactly(HEADER.size - len(header)), descriptors
        except BaseException:
            close_all(descriptors)
            raise

    def _exactly(self, size: int) -> bytes:
        """The rest of a message, which has to come within MESSAGE_SECONDS."""
        parts, left = [], size
        limit = time.monotonic() + MESSAGE_SECONDS
        while left:
            try:
                self.socket.settimeout(max(0.001, limit - time.monotonic()))
                part = self.socket.recv(min(left, _CHUNK))
            except TimeoutError:
                message = f"a message stopped {left:,} bytes before its end"
                raise reject(errors.BAD_MESSAGE, message) from None
            except OSError as error:
                raise Closed from error
            if not part:
                raise Closed
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        self.socket.close()


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors. Those that a stranger has passed may say anything to that; closed they are."""
    for each in descriptors:
        with contextlib.suppress(OSError):
            os.close(each)
