"""One client of the service: what it asks for, what it may have, and what is left when it has gone.

A session is a thread that answers one connection's requests in order. What is wrong with a request is said in
the reply; what is wrong with the connection ends it. Whatever a session made and nobody else may use is
reclaimed when it ends, however it ends.

Not here: connections and their owners (`server.py`), VMs (`served_vm.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from mmap import PAGESIZE
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from devbc import limits
from devbc.abi import Space
from devbc.diagnostics import Diagnostic, Rejected, reject
from devbc.hypervisor.device import Device, DeviceSpec
from devbc.hypervisor.layouts import EXIT, Guard
from devbc.hypervisor.machine import check_name, parse_port, wire_between
from devbc.hypervisor.wiring import WireSpec, port_number
from devbc.service import errors, protocol
from devbc.service.framing import Closed, Stream, close_all
from devbc.service.guest_memory import GuestMemory
from devbc.service.logs import Log
from devbc.service.served_vm import MAPPED_DESCRIPTORS, ServedVcpu, ServedVm, vcpu_cost

_ENGINES = ("jit", "interp")
#: Descriptors of a connection: its socket, and those on their way in and out.
_CONNECTION_DESCRIPTORS = 1 + 2 * limits.MESSAGE_DESCRIPTORS
#: Descriptors of the service itself, and more than enough.
_OWN_DESCRIPTORS = 32
#: Whose VMs persist, a share for all of a user's: the service's own user, and root.
_USERS = 2

#: A reply and descriptors that go with it.
Answer = tuple[protocol.Reply, list[int]]


class Registry(Protocol):
    """The service's VMs, as its sessions see them."""

    log: Log

    def create(self, vm: protocol.CreateVm, session: Session) -> ServedVm: ...
    def find(self, vm: str | int, session: Session) -> ServedVm: ...
    def visible(self, session: Session) -> list[ServedVm]: ...
    def destroy(self, vm: ServedVm) -> None: ...
    def owner(self, vm: ServedVm) -> tuple[str, bool]: ...
    def siblings(self, session: Session, persist: bool) -> list[ServedVm]:
        """VMs that are counted together: the client's own, or all of its user's that persist."""
        ...


@dataclass(eq=False)
class Session:
    """A client: `token` is what it puts into the locks that it holds, `uid` who it is to the system."""

    registry: Registry
    stream: Stream
    token: int
    uid: int
    pid: int
    name: str = ""
    #: VMs that it has created or opened, by number.
    vms: dict[int, ServedVm] = field(default_factory=dict)

    def run(self) -> None:
        """Answer requests until the client leaves, or says what nobody can understand."""
        try:
            self._greet()
            while True:
                self._serve()
        except Closed:
            pass
        finally:
            self._clean_up()

    # Messages.

    def _greet(self) -> None:
        request, descriptors = self._receive(limits.MESSAGE_SECONDS)
        close_all(descriptors)
        if not isinstance(request, protocol.Hello):
            raise self._hung_up(reject(errors.BAD_MESSAGE, "the first message is not `Hello`"))
        if request.version != protocol.VERSION:
            message = (
                f"the client speaks version {request.version} of the protocol, the service {protocol.VERSION}"
            )
            raise self._hung_up(reject(errors.BAD_MESSAGE, message))
        self.name = request.name[: limits.NAME_BYTES]
        self.registry.log("client", client=self.token, name=self.name, pid=self.pid, uid=self.uid)
        self._reply(protocol.Welcome(protocol.VERSION, self.token, os.getpid()))

    def _serve(self) -> None:
        request, descriptors = self._receive()
        try:
            reply, passed = self._answer(request, descriptors)
        except Rejected as rejection:
            reply, passed = refusal(rejection.diagnostics), []
        except OSError as error:  # no memory, no descriptor, no thread: what was begun has been given back
            self.registry.log(
                "exhausted", client=self.token, request=type(request).__name__, reason=str(error)
            )
            reply, passed = refusal([Diagnostic(errors.TOO_MUCH, f"the service is exhausted: {error}")]), []
        except Exception as error:  # a bug of ours: this client is told, the others do not notice
            self.registry.log.failure("request", error, client=self.token, request=type(request).__name__)
            fault = Diagnostic(errors.INTERNAL, f"{type(error).__name__} in `{type(request).__name__}`")
            reply, passed = refusal([fault]), []
        finally:
            close_all(descriptors)
        try:
            self._reply(reply, passed)
        finally:
            close_all(passed)

    def _receive(self, patience: float | None = None) -> tuple[protocol.Request, list[int]]:
        try:
            message, descriptors = self.stream.receive(patience)
        except Rejected as rejection:
            raise self._hung_up(rejection) from None
        try:
            return protocol.decode_request(message), descriptors
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            close_all(descriptors)
            raise self._hung_up(reject(errors.BAD_MESSAGE, f"it is no request: {error}")) from None

    def _reply(self, reply: protocol.Reply, descriptors: Sequence[int] = ()) -> None:
        message = protocol.encode(reply)
        if len(message) > limits.MESSAGE_BYTES:
            text = f"the reply has {len(message):,} bytes, and a message at most {limits.MESSAGE_BYTES:,}"
            message, descriptors = protocol.encode(refusal([Diagnostic(errors.TOO_MUCH, text)])), ()
        self.stream.send(message, descriptors)

    def _hung_up(self, rejection: Rejected) -> Closed:
        """Say why, and give the connection up: where one message ends and another begins is not known."""
        self.registry.log("hang-up", client=self.token, reason=str(rejection))
        self._reply(refusal(rejection.diagnostics))
        return Closed()

    def _clean_up(self) -> None:
        self.stream.close()
        for vm in self.vms.values():
            try:
                _, persists = self.registry.owner(vm)
                if not persists:
                    self.registry.destroy(vm)
                elif abandoned := vm.abandon(self.token):
                    self.registry.log("abandoned", vm=vm.number, client=self.token, devices=abandoned)
            except Exception as error:
                self.registry.log.failure("reclaim", error, client=self.token, vm=vm.number)
        self.vms.clear()
        self.registry.log("gone", client=self.token, name=self.name)

    # Requests.

    def _answer(self, request: protocol.Request, descriptors: list[int]) -> Answer:
        """The reply to a request, and descriptors that go with it and are closed when they are sent."""
        if descriptors and not isinstance(request, protocol.Notify | protocol.Resample):
            raise reject(errors.BAD_REQUEST, f"`{type(request).__name__}` takes no descriptor")
        match request:
            case protocol.Hello():
                raise reject(errors.BAD_REQUEST, "`Hello` was said before")
            case protocol.CreateVm():
                return self._create_vm(request)
            case protocol.OpenVm(name):
                vm = self.registry.find(name, self)
                self.vms[vm.number] = vm
                return self._vm_info(vm), vm.share(vm.ticker.descriptors) if vm.ticker else []
            case protocol.DestroyVm(number):
                self.registry.destroy(self._vm(number))
                self.vms.pop(number, None)
            case protocol.ListVms():
                return protocol.Vms(tuple(map(self._vm_info, self.registry.visible(self)))), []
            case protocol.AddDevice():
                return self._add_device(request)
            case protocol.OpenDevice(number, name):
                with self._use(number) as vm:
                    device = vm.vm.device(name)
                    return _device_info(vm, device), vm.share([device.area.fd])
            case protocol.ListDevices(number):
                with self._use(number) as vm:
                    # Without their programs: those of many devices may be more than a message.
                    listed = (replace(_device_info(vm, each), object=b"") for each in vm.vm.devices)
                    return protocol.Devices(tuple(listed)), []
            case protocol.Attach(number, name, engine):
                self._vm(number).attach(name, _engine(engine))
            case protocol.Detach(number, name):
                self._vm(number).detach(name)
            case protocol.Replace():
                self._replace(request)
            case protocol.Wire(number, source, target):
                with self._use(number) as vm:
                    vm.vm.wire(wire_between(source, target))
            case protocol.Notify():
                self._notify(request, descriptors)
            case protocol.Resample(number, line):
                with self._use(number) as vm:
                    notice = self._notice(vm, ("resample", str(_guest_line(line))), descriptors)
                    vm.vm.set_resample(line, notice)
            case protocol.SetLevelTriggered(number, lines):
                if not 0 <= lines < 1 << limits.GUEST_LINES:
                    raise reject(errors.BAD_REQUEST, f"the guest has {limits.GUEST_LINES} lines")
                with self._use(number) as vm:
                    vm.vm.set_level_triggered(lines)
            case protocol.Effects():
                self._effects(request)
            case protocol.Acknowledge(number, line):
                self._vm(number).acknowledge(_guest_line(line))
            case protocol.CreateVcpu():
                return self._create_vcpu(request)
            case protocol.StartVcpu(number, index):
                with self._use(number) as vm:
                    vm.start(_vcpu(vm, index))
            case protocol.StopVcpu(number, index):
                vm = self._vm(number)
                vm.stop([_vcpu(vm, index)])
            case protocol.GetFigures(number):
                with self._use(number) as vm:
                    return _figures(vm), []
            case protocol.Inquire():
                return self._inquire(request), []
            case protocol.Save(number):
                from devbc.hypervisor.saved_state import save

                with self._use(number) as vm:
                    return protocol.State(save(vm.vm)), []
            case protocol.Restore(number, state):
                from devbc.hypervisor.saved_state import restore

                with self._use(number) as vm:
                    misfits = restore(vm.vm, state).misfits
                return protocol.Restored(tuple(map(_json, misfits))), []
        return protocol.Done(), []

    def _create_vm(self, request: protocol.CreateVm) -> Answer:
        if len(self.registry.siblings(self, request.persists)) >= limits.CLIENT_VMS:
            own, kept = ("a client", "of its own"), ("a user", "that persist")
            who, which = kept if request.persists else own
            raise reject(errors.TOO_MUCH, f"{who} has at most {limits.CLIENT_VMS} VMs {which}")
        if not 0 <= request.rtc_base < 1 << 40:
            raise reject(errors.BAD_REQUEST, f"`rtc_base` is {request.rtc_base}, not seconds since 1970")
        if request.live:
            self._check_cost(request.persists, *vcpu_cost(None))
        vm = self.registry.create(request, self)
        self.vms[vm.number] = vm
        return self._vm_info(vm), vm.share(vm.ticker.descriptors) if vm.ticker else []

    def _add_device(self, request: protocol.AddDevice) -> Answer:
        vm = self._vm(request.vm)
        check_name(request.name)
        verified = _verified(request.object, request.name, request.policy)
        for bank, address in request.at.items():
            if not 0 <= address < 1 << 63:
                raise reject(errors.BAD_REQUEST, f"the address of bank `{bank}` is no address")
        memory = len(verified.program.scratch_image) + len(request.object) + PAGESIZE
        with self._cost(vm, memory, MAPPED_DESCRIPTORS):
            device = vm.add_device(DeviceSpec(request.name, verified, None, request.at), request.object)
        return _device_info(vm, device), vm.share([device.area.fd])

    def _replace(self, request: protocol.Replace) -> None:
        vm, engine = self._vm(request.vm), _engine(request.engine)
        verified = _verified(request.object, request.device, request.policy)
        with vm.use():
            before = len(vm.objects.get(request.device, b""))
            with self._cost(vm, len(request.object) - before, 0):
                vm.replace(request.device, verified, request.object, engine)

    def _create_vcpu(self, request: protocol.CreateVcpu) -> Answer:
        vm, capacity = self._vm(request.vm), request.capacity
        if not 1 <= capacity <= limits.GUEST_ACCESSES or capacity & (capacity - 1):
            message = (
                f"a ring has a power of two of accesses, up to {limits.GUEST_ACCESSES:,}, not {capacity:,}"
            )
            raise reject(errors.BAD_REQUEST, message)
        if not 0 <= request.spins <= limits.SPINS:
            raise reject(errors.BAD_REQUEST, f"a vCPU spins at most {limits.SPINS:,} turns")
        guest = GuestMemory(capacity, request.turns, request.arguments)
        with vm.use(), self._cost(vm, *vcpu_cost(guest)):
            vcpu = vm.create_vcpu(guest, owner=self.token, recorded=request.recorded, spins=request.spins)
            return protocol.VcpuInfo(vm.number, vcpu.index, capacity), vm.share(vcpu.descriptors)

    def _notify(self, request: protocol.Notify, descriptors: list[int]) -> None:
        device, port = parse_port(request.source)
        with self._use(request.vm) as vm:
            found = vm.vm.device(device)
            if request.signal:
                numbers = {name: number for number, name in found.signal_names.items()}
                port_number(port, numbers, f"`{device}` has no signal")
                vm.vm.notify_signal(device, port, self._notice(vm, ("signal", request.source), descriptors))
            else:
                port_number(port, found.line_numbers, f"`{device}` has no output line")
                notice = self._notice(vm, ("line", request.source), descriptors)
                wire = WireSpec(device, port, notice=notice)
                if wire not in vm.vm.wires:
                    vm.vm.wire(wire)

    def _notice(self, vm: ServedVm, source: tuple[str, str], descriptors: list[int]) -> int:
        """A notice for the eventfd that came with the request; the source's own, if it has one already."""
        if len(descriptors) != 1 or not _is_eventfd(descriptors[0]):
            raise reject(errors.BAD_REQUEST, "the request takes one descriptor, an eventfd")
        if source in vm.notices:
            vm.vm.replace_notice(vm.notices[source], descriptors[0])
        else:
            with self._cost(vm, 0, 1):
                vm.notices[source] = vm.vm.add_notice(descriptors[0])
        return vm.notices[source]

    def _effects(self, request: protocol.Effects) -> None:
        effects: Any = EXIT.struct(
            **{"raise": request.raise_}, lower=request.lower, arm=request.arm, cancel=request.cancel
        )
        for number, deadline in enumerate(request.deadlines[: limits.TIMERS]):
            effects.deadline[number] = deadline
        try:
            self._vm(request.vm).request(request.device, effects)
        except RuntimeError as error:
            raise reject(errors.TOO_MUCH, str(error)) from None

    def _inquire(self, request: protocol.Inquire) -> protocol.Value:
        if request.space not in tuple(Space) or request.size not in (1, 2, 4, 8):
            message = f"no guest reads {request.size} bytes in space `{request.space}`"
            raise reject(errors.BAD_REQUEST, message)
        with self._use(request.vm) as vm:
            return protocol.Value(vm.vm.inquire(Space(request.space), request.address, request.size))

    def _vm(self, number: int) -> ServedVm:
        if number not in self.vms:
            raise reject(errors.BAD_REQUEST, f"the client has no VM {number}")
        # It may have been destroyed by another client that has it open.
        return self.registry.find(number, self)

    @contextmanager
    def _use(self, number: int) -> Iterator[ServedVm]:
        """The client's VM of that number, which nobody closes meanwhile."""
        vm = self._vm(number)
        with vm.use():
            yield vm

    def _vm_info(self, vm: ServedVm) -> protocol.VmInfo:
        client, persists = self.registry.owner(vm)
        return protocol.VmInfo(
            vm.number, vm.name, vm.vm.live, persists, client, len(vm.vm.devices), len(vm.vcpus), vm.vm.now(),
            vm.vm.rtc_base, vm.vm.turn, vm.vm.guest_lines, vm.vm.guest_pending, vm.vm.guest_interrupts,
        )  # fmt: skip

    @contextmanager
    def _cost(self, vm: ServedVm, memory: int, descriptors: int) -> Iterator[None]:
        """Take memory and descriptors from what a client may have, before they are made.

        What a VM costs is counted with it, whoever adds to it: VMs that persist together may cost as much as
        one client's own.
        """
        self._check_cost(self.registry.owner(vm)[1], memory, descriptors)
        yield
        vm.cost = (vm.cost[0] + memory, vm.cost[1] + descriptors)

    def _check_cost(self, persist: bool, memory: int, descriptors: int) -> None:
        """Raise Rejected (S004) if the client's VMs, or those that persist, may not cost so much more."""
        every = [each.cost for each in self.registry.siblings(self, persist)]
        if sum(each[0] for each in every) + memory > limits.CLIENT_MEMORY:
            message = f"a client shares at most {limits.CLIENT_MEMORY >> 20:,} MiB with its VMs"
            raise reject(errors.TOO_MUCH, message)
        share = descriptor_share()
        if sum(each[1] for each in every) + descriptors > share:
            message = f"the service holds at most {share:,} descriptors for a client"
            raise reject(errors.TOO_MUCH, message)


def descriptor_share() -> int:
    """Descriptors that the service may hold for one client, so that there are enough for all of them."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(
        limits.CLIENT_DESCRIPTORS,
        (soft - _OWN_DESCRIPTORS) // (limits.CLIENTS + _USERS) - _CONNECTION_DESCRIPTORS,
    )


def refusal(diagnostics: Iterable[Diagnostic]) -> protocol.Refused:
    return protocol.Refused(tuple(map(_json, diagnostics)))


def _json(diagnostic: Diagnostic) -> bytes:
    return json.dumps(diagnostic.to_json()).encode()


def _verified(object: bytes, name: str, policy: str) -> Any:
    from devbc.cache import user_cache
    from devbc.verifier import DEFAULT
    from devbc.verifier.cached import verify_object
    from devbc.verifier.policy_file import parse_policy

    chosen = parse_policy(policy.encode(), file="policy") if policy else DEFAULT
    return verify_object(object, name=name, cache=user_cache(), policy=chosen)


def _engine(name: str) -> str:
    if name not in _ENGINES:
        raise reject(errors.BAD_REQUEST, f"there is no engine `{name}`: {' or '.join(_ENGINES)}")
    return name


def _guest_line(line: int) -> int:
    if not 0 <= line < limits.GUEST_LINES:
        raise reject(errors.BAD_REQUEST, f"the guest has lines 0 to {limits.GUEST_LINES - 1}, not {line}")
    return line


def _vcpu(vm: ServedVm, index: int) -> ServedVcpu:
    for vcpu in vm.vcpus:
        if vcpu.index == index:
            return vcpu
    raise reject(errors.BAD_REQUEST, f"VM {vm.number} has no vCPU {index}")


def _is_eventfd(descriptor: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == "anon_inode:[eventfd]"
    except OSError:
        return False


def _device_info(vm: ServedVm, device: Device) -> protocol.DeviceInfo:
    return protocol.DeviceInfo(
        vm.number, device.name, device.index, dict(device.spec.at), vm.engines.get(device.name, ""),
        device.name in vm.abandoned, len(device.area.bytes), vm.objects[device.name],
    )  # fmt: skip


def _figures(vm: ServedVm) -> protocol.Figures:
    from devbc.engines.clock import counter_period_ns

    rows = []
    for device in vm.vm.devices:
        if device.installed is None:
            continue
        for index, handler in enumerate(device.installed.verified.handlers):
            found = device.installed.figures(index)
            guard = Guard(device.installed.slots[index].guard).name.lower()
            rows.append(
                protocol.HandlerFigures(
                    device.name, handler.handler.section, guard, found.handled, found.declined,
                    found.contended, found.ticks,
                )
            )  # fmt: skip
    unanswered = {each.name: protocol.Unanswered(**vm.unanswered(each.name)) for each in vm.vm.devices}
    return protocol.Figures(tuple(rows), unanswered, counter_period_ns() or 0.0)
