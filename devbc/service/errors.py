"""Diagnostic codes of the service and its clients."""

from __future__ import annotations

from devbc.diagnostics import define

NO_SERVICE = define(
    "S001",
    "no service",
    """
    The client cannot reach a service at the socket that it was given. `devbc serve` starts one; the socket is
    `$XDG_RUNTIME_DIR/devbc.sock` (or one in the user's temporary folder), unless `--socket` or the
    environment's `DEVBC_SOCKET` names another.

    Only the socket's owner may connect, and root. A client in turn trusts only its own user's service and
    root's: whoever listens sees what its clients share with it.

    `devbc serve` says so where it cannot listen, because another service or program does, or because of
    what lies at the path.
    """,
)
BAD_MESSAGE = define(
    "S002",
    "malformed message",
    """
    What came over the connection is no message of the protocol: a length beyond the cap, bytes that do not
    decode, a field that is missing, unknown or of another type, descriptors that were not announced, or a
    message that stops in its middle. The service says so and closes the connection; what belonged to it is
    reclaimed, and nobody else notices.

    A client of another version of devbc is told the versions.
    """,
)
BAD_REQUEST = define(
    "S003",
    "request that makes no sense",
    """
    The message is well-formed, and asks for what cannot be: a VM, vCPU or device that does not exist or is
    somebody else's, a number out of range, a vCPU that runs already, a descriptor that is no eventfd.
    Nothing was changed.
    """,
)
TOO_MUCH = define(
    "S004",
    "too much for one client",
    """
    Clients may have so many connections, VMs, vCPUs, eventfds and so much shared memory (`devbc.limits`), so
    that none can take what others need: each has its own share. VMs that persist have one together, whoever
    made them. Destroy what is not needed any more.
    """,
)
INTERNAL = define(
    "S005",
    "the service failed",
    """
    The service met an error of its own while it carried out a request, and logged it. The request may not
    have been carried out; the service goes on. This is a bug of devbc: please report it with the log's lines.
    """,
)
LOST = define(
    "S006",
    "connection lost",
    """
    The service closed the connection, or ended, before it answered. What the client had there is gone, but
    for VMs that persist while the service runs.
    """,
)
