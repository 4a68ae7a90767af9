"""`devbc serve`: a socket, a session for each client, and the VMs of all of them.

The process plays the kernel. Who may connect is the socket file's permissions, and asked again of the
system for each connection (SO_PEERCRED): the same user, and root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import threading
from pathlib import Path
from typing import Final

from devbc import limits
from devbc.diagnostics import Diagnostic, Rejected, reject
from devbc.hypervisor.layouts import Holder
from devbc.hypervisor.native_machine import native_machine
from devbc.service import errors, protocol
from devbc.service.framing import CREDENTIALS, Closed, Stream
from devbc.service.listening import Listening
from devbc.service.logs import Log
from devbc.service.nudge import NUDGE
from devbc.service.served_vm import ServedVm
from devbc.service.session import Session, refusal

_ROOT: Final = 0
#: mallopt(3)'s parameter, of <malloc.h>.
_M_ARENA_MAX: Final = -8


class Service:
    """The service on a Unix socket. `run` returns after `stop`, which any thread or a signal may call."""

    def __init__(self, path: Path, log: Log | None = None) -> None:
        """Listen on the socket. Raises Rejected (S001) if it cannot be, or another service does."""
        self.path = path
        self.log = log or Log(None)
        self._lock = threading.Lock()
        self._vms: dict[int, ServedVm] = {}
        self._owners: dict[int, Session | None] = {}
        self._users: dict[int, int] = {}
        self._sessions: dict[Session, threading.Thread] = {}
        self._next_vm = 1
        self._next_token = int(Holder.CLIENTS)
        self._stopping = threading.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._listening = Listening(path)
        except Rejected:
            os.close(self._wake_read)
            os.close(self._wake_write)
            raise
        self._socket = self._listening.socket

    def run(self) -> None:
        """Accept clients until `stop`; then end every session and destroy every VM."""
        import selectors

        if threading.current_thread() is threading.main_thread():
            _handle_signals(self, self._wake_write)
        _raise_descriptor_limit()
        _share_one_arena()
        # Compiled once, and not while a client waits for its first VM and all others for it.
        native_machine()
        self.log("serving", socket=str(self.path), pid=os.getpid(), protocol=protocol.VERSION)
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _ in selector.select():
                    if key.fileobj is self._socket:
                        self._accept()
                    else:
                        os.read(self._wake_read, 4096)
        self._shut_down()

    def stop(self) -> None:
        """Ask `run` to end. Safe in a signal handler."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"x")

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            # No descriptor left: whoever waits is served when somebody goes.
            self.log.failure("accept", error)
            self._stopping.wait(0.1)
            return
        pid, uid, _ = CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        )
        stream = Stream(connection)
        with self._lock:
            token, self._next_token = self._next_token, self._next_token + 1
            full = len(self._sessions) >= limits.CLIENTS
        if uid not in (os.geteuid(), _ROOT):
            self._turn_away(stream, Diagnostic(errors.BAD_REQUEST, f"user {uid} may not use this service"))
            return
        if full:
            message = f"the service has {limits.CLIENTS} clients, and may have no more"
            self._turn_away(stream, Diagnostic(errors.TOO_MUCH, message))
            return
        session = Session(self, stream, token, uid, pid)
        thread = threading.Thread(target=self._session, args=[session], name=f"client-{token}", daemon=True)
        with self._lock:
            self._sessions[session] = thread
        try:
            thread.start()
        except RuntimeError as error:
            with self._lock:
                self._sessions.pop(session)
            self._turn_away(stream, Diagnostic(errors.TOO_MUCH, f"the service is exhausted: {error}"))

    def _turn_away(self, stream: Stream, diagnostic: Diagnostic) -> None:
        self.log("turned-away", reason=diagnostic.message)
        with contextlib.suppress(Closed):
            stream.send(protocol.encode(refusal([diagnostic])))
        stream.close()

    def _session(self, session: Session) -> None:
        try:
            session.run()
        except Exception as error:
            self.log.failure("session", error, client=session.token)
        finally:
            with self._lock:
                self._sessions.pop(session, None)

    def _shut_down(self) -> None:
        self._listening.close()
        with self._lock:
            sessions = dict(self._sessions)
        for session in sessions:
            with contextlib.suppress(OSError):
                session.stream.socket.shutdown(socket.SHUT_RDWR)
        for thread in sessions.values():
            thread.join()
        for vm in list(self._vms.values()):
            try:
                self.destroy(vm)
            except Exception as error:
                self.log.failure("destroy", error, vm=vm.number)
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)
        os.close(self._wake_read)
        os.close(self._wake_write)
        self.log("stopped")

    # The registry of VMs (`session.Registry`).

    def create(self, vm: protocol.CreateVm, session: Session) -> ServedVm:
        with self._lock:
            if vm.persists and any(
                each.name == vm.name and self._owners[number] is None for number, each in self._vms.items()
            ):
                message = f"there is a VM `{vm.name}` that persists"
                raise reject(errors.BAD_REQUEST, message, help=["`devbc vm list` shows those that do"])
            number, self._next_vm = self._next_vm, self._next_vm + 1
            made = ServedVm(
                number, vm.name, live=vm.live, rtc_base=vm.rtc_base,
                exits_unclaimed=vm.exits_unclaimed,
            )  # fmt: skip
            self._vms[number] = made
            self._owners[number] = None if vm.persists else session
            self._users[number] = session.uid
        self.log("vm", vm=number, name=made.name, client=session.token, persists=vm.persists)
        return made

    def find(self, vm: str | int, session: Session) -> ServedVm:
        with self._lock:
            known = [each for number, each in self._vms.items() if self._may_use(number, session)]
        for found in known:
            if vm in (found.number, str(found.number)):
                return found
        for found in known:
            if vm == found.name:
                return found
        raise reject(errors.BAD_REQUEST, f"there is no VM `{vm}`")

    def visible(self, session: Session) -> list[ServedVm]:
        with self._lock:
            return [vm for number, vm in self._vms.items() if self._may_use(number, session)]

    def destroy(self, vm: ServedVm) -> None:
        with self._lock:
            if self._vms.pop(vm.number, None) is None:
                return
        try:
            vm.close()
        finally:
            with self._lock:
                self._owners.pop(vm.number)
                self._users.pop(vm.number)
        self.log("destroyed", vm=vm.number)

    def owner(self, vm: ServedVm) -> tuple[str, bool]:
        """The name of the client that a VM belongs to, and whether it persists instead."""
        owner = self._owners.get(vm.number)
        return (owner.name, False) if owner else ("", True)

    def siblings(self, session: Session, persist: bool) -> list[ServedVm]:
        """VMs that are counted together: a client's own, or all of its user's that persist."""
        owner = None if persist else session
        return [vm for vm in self.visible(session) if self._owners.get(vm.number) is owner]

    def _may_use(self, number: int, session: Session) -> bool:
        if self._owners[number] is session:
            return True
        return self._owners[number] is None and session.uid in (self._users[number], _ROOT)


def default_socket() -> Path:
    """Where the service listens unless it is told otherwise: $DEVBC_SOCKET, or the user's runtime folder."""
    if named := os.environ.get("DEVBC_SOCKET"):
        return Path(named)
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "devbc.sock"
    import tempfile

    return Path(tempfile.gettempdir()) / f"devbc-{os.getuid()}.sock"


def _handle_signals(service: Service, wake: int) -> None:
    # A signal may come to another thread, or just before the wait: Python's handlers run when that is over,
    # and what ends it is the byte that the interpreter writes at once.
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    # It only has to interrupt what a thread waits for.
    signal.signal(NUDGE, lambda *_: None)
    signal.siginterrupt(NUDGE, True)


def _share_one_arena() -> None:
    """Have all threads allocate from one heap, where the C library is glibc.

    It gives threads heaps of their own, which never shrink: with a thread a client and LLVM in each, 200,000
    fuzzed messages took the process from 0.2 to 0.9 GB, with nothing lost. vCPUs' threads allocate nothing.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
