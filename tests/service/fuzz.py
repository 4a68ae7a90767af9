"""Messages for a fuzzer: valid ones in any order, with fields and bytes changed, and their framing too.

Structure-aware: requests are made from the protocol's own classes, with numbers that exist (VM, device, vCPU)
and numbers that do not, so that most get past the decoder. What is random comes from one `random.Random`.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import typing
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any

import msgspec

from devbc.service import protocol
from tests.service.probe import BASE, probe

REQUESTS: tuple[type[msgspec.Struct], ...] = typing.get_args(protocol.Request)
_HEADER = struct.Struct("<II")
_NUMBERS = (0, 1, 2, 3, 5, 7, 63, 64, 255, 256, 0x100, 0x104, 1 << 31, (1 << 32) - 1, 1 << 52, 1 << 62,
            (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1, -(1 << 63))  # fmt: skip
_WORDS = ("", "probe", "probe.irq", "probe.bell", "probe.in0", "second.in0", "guest.0", "guest.63",
          "guest.64", "second", "guest", "jit", "interp", "pio", "mmio", "hypercall", "x" * 512,
          "x" * 513, "\0", "é.ü", "a.b.c", "fuzzed", "1")  # fmt: skip


@dataclass
class Fuzzer:
    """One fuzzer's connections, one after the other; `sent` counts messages, `met` the replies by kind."""

    path: Path
    source: random.Random
    sent: int = 0
    met: dict[str, int] = field(default_factory=dict)
    raw: socket.socket | None = None
    vms: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files = [
            os.eventfd(0),
            os.eventfd((1 << 64) - 2 & 0xFFFF_FFFF),
            *os.pipe(),
            os.memfd_create("x"),
        ]
        with contextlib.suppress(OSError):
            os.eventfd_write(self.files[1], (1 << 64) - 2 - 0xFFFF_FFFE)  # full: writes to it block
        one, self.other = socket.socketpair()
        self.files.append(one.detach())

    def close(self) -> None:
        for each in self.files:
            os.close(each)
        self.other.close()
        self.hang_up()

    # Connections.

    def connection(self) -> socket.socket:
        if self.raw is None:
            self.raw = socket.socket(socket.AF_UNIX)
            self.raw.settimeout(20)
            self.raw.connect(str(self.path))
            self.vms.clear()
            if self.source.random() < 0.95:
                self.exchange(protocol.encode(protocol.Hello(protocol.VERSION, "fuzzer")))
        return self.raw

    def hang_up(self) -> None:
        if self.raw:
            self.raw.close()
            self.raw = None

    def exchange(self, body: bytes, descriptors: list[int] | None = None) -> Any:
        """Send a whole message and read the reply to it."""
        descriptors = descriptors or []
        self.put(_HEADER.pack(len(body), len(descriptors)) + body, descriptors)
        return self.reply()

    def put(self, data: bytes, descriptors: list[int]) -> None:
        assert self.raw is not None
        self.sent += 1
        socket.send_fds(self.raw, [data[:1]], descriptors) if descriptors else self.raw.sendall(data[:1])
        self.raw.sendall(data[1:])

    def reply(self) -> Any:
        """A reply, its descriptors closed; None at the connection's end."""
        assert self.raw is not None
        data, passed, _, _ = socket.recv_fds(self.raw, _HEADER.size, 8)
        for each in passed:
            os.close(each)
        while data and len(data) < _HEADER.size:
            data += self.raw.recv(_HEADER.size - len(data))
        if not data:
            self.hang_up()
            return None
        size, _ = _HEADER.unpack(data)
        body = b""
        while len(body) < size:
            body += self.raw.recv(size - len(body))
        found = protocol.decode_reply(body)
        name = type(found).__name__
        if isinstance(found, protocol.Refused):
            name = str(msgspec.json.decode(found.diagnostics[0])["code"])
        self.met[name] = self.met.get(name, 0) + 1
        if isinstance(found, protocol.VmInfo):
            self.vms.append(found.vm)
        return found

    # What it does.

    def step(self) -> None:
        """One message, or something that is none."""
        act = self.source.choices(
            (self.request, self.changed_bytes, self.noise, self.wrong_frame, self.stranger, self.useful),
            (45, 6, 2, 4, 3, 40),
        )[0]
        try:
            self.connection()
            act()
        except (BrokenPipeError, ConnectionResetError):
            self.hang_up()

    def useful(self) -> None:
        """What a client does, so that there is something to break."""
        if not self.vms:
            self.exchange(protocol.encode(protocol.CreateVm("fuzzed", live=self.source.random() < 0.3)))
        if not self.vms:
            return
        vm = self.vms[-1]
        message = self.source.choice((
            protocol.AddDevice(vm, self.source.choice(("probe", "second")), probe(),
                               {"pio": BASE + 0x100 * self.source.randrange(3)}),
            protocol.Attach(vm, "probe", "interp"),
            protocol.CreateVcpu(vm, 1 << self.source.randrange(6), turns=self.source.random() < 0.5),
            protocol.StartVcpu(vm, self.source.randrange(3)),
            protocol.StopVcpu(vm, self.source.randrange(3)),
            protocol.Wire(vm, "probe.irq", "second.in0"),
            protocol.Effects(vm, "probe", self.source.getrandbits(32), self.source.getrandbits(32)),
            protocol.DestroyVm(vm),
        ))  # fmt: skip
        self.exchange(protocol.encode(message))

    def request(self) -> None:
        self.exchange(protocol.encode(self.any_request()), self.descriptors())

    def descriptors(self) -> list[int]:
        count = self.source.choices((0, 1, 2, 4), (70, 20, 6, 4))[0]
        return self.source.choices(self.files, k=count)

    def any_request(self) -> protocol.Message:
        kind = self.source.choice(REQUESTS)
        hints = typing.get_type_hints(kind)
        values = {name: self.value(name, hints[name]) for name in kind.__struct_fields__}
        if kind is protocol.CreateVcpu and self.source.random() < 0.8:
            values["capacity"] = 1 << self.source.randrange(8)
        made: protocol.Message = kind(**values)  # type: ignore[assignment]
        return made

    def value(self, name: str, hint: Any) -> Any:
        """Something of a type; of the fields that name what exists, something that does, mostly."""
        source = self.source
        if name == "vm" and hint is int and self.vms and source.random() < 0.8:
            return source.choice(self.vms)
        if name == "object" and source.random() < 0.7:
            return self.changed(probe()) if source.random() < 0.5 else probe()
        if name == "engine" and source.random() < 0.8:
            return "interp"
        origin = typing.get_origin(hint)
        if origin in (tuple,):
            return tuple(source.choices(_NUMBERS, k=source.randrange(10)))
        if origin is dict:
            return {source.choice(_WORDS): source.choice(_NUMBERS) for _ in range(source.randrange(3))}
        assert origin not in (typing.Union, UnionType), hint
        match hint.__name__:
            case "int":
                return source.choice(_NUMBERS) if source.random() < 0.5 else source.randrange(20)
            case "str":
                return source.choice(_WORDS)
            case "bool":
                return source.random() < 0.5
        return source.randbytes(source.randrange(200))

    def changed(self, data: bytes) -> bytes:
        source, changed = self.source, bytearray(data)
        for _ in range(source.randrange(1, 4)):
            place = source.randrange(len(changed) + 1)
            match source.randrange(4):
                case 0:
                    changed[place : place + 1] = source.randbytes(1)
                case 1:
                    del changed[place : place + source.randrange(1, 9)]
                case 2:
                    changed[place:place] = source.randbytes(source.randrange(1, 9))
                case _:
                    changed[place : place + 4] = b"\xff\xff\xff\xff"
            changed = changed or bytearray(b"\0")
        return bytes(changed)

    def changed_bytes(self) -> None:
        self.exchange(self.changed(protocol.encode(self.any_request())), self.descriptors())

    def noise(self) -> None:
        self.exchange(self.source.randbytes(self.source.randrange(1, 500)))

    def wrong_frame(self) -> None:
        """Lengths and numbers of descriptors that do not agree with what is sent; then the end."""
        body = protocol.encode(self.any_request())
        size = self.source.choice((0, len(body) - 1, len(body) + 5, 1 << 24, 1 << 31, (1 << 32) - 1))
        count = self.source.choice((0, 1, 4, 5, 1 << 20, (1 << 32) - 1))
        self.put(_HEADER.pack(size, count) + body[: self.source.randrange(len(body) + 1)], self.descriptors())
        assert self.raw is not None
        if self.source.random() < 0.5:
            self.raw.shutdown(socket.SHUT_WR)
            while self.reply() is not None:
                pass
        self.hang_up()

    def stranger(self) -> None:
        """A client that leaves in the middle of everything."""
        with contextlib.suppress(BlockingIOError):
            assert self.raw is not None
            self.raw.setblocking(False)
            for _ in range(self.source.randrange(1, 5)):
                body = protocol.encode(self.any_request())
                self.put(_HEADER.pack(len(body), 0) + body, [])
        self.hang_up()
