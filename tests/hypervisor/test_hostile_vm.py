"""What a caller, a model or a guest should not do to a VM: refused or bounded, never a crash or a hang."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devbc import limits
from devbc.abi import Op, Space
from devbc.diagnostics import Rejected
from devbc.hypervisor.device import DeviceSpec
from devbc.hypervisor.layouts import ACCESS, NEVER
from devbc.hypervisor.run import Run
from devbc.hypervisor.vm import VM
from devbc.hypervisor.wiring import WireSpec
from tests.hypervisor.machines import Body, Callbacks, device

PIO, READ, WRITE = Space.PIO, Op.READ, Op.WRITE


def machine(bodies: dict[str, Body], **options: Any) -> VM:
    vm = VM([device("dev", list(bodies), 0x40, **options)])
    vm.attach(Callbacks(bodies))
    return vm


def seen(vm: VM, index: int = 0) -> list[tuple[Any, ...]]:
    model: Any = vm.devices[index].model
    events: list[tuple[Any, ...]] = model.seen
    return events


def codes(make: Callable[[], object]) -> list[str]:
    with pytest.raises(Rejected) as caught:
        make()
    return [each.code.id for each in caught.value.diagnostics]


# Time.


@pytest.mark.parametrize("past", [0, 5, 100])
def test_a_handler_that_arms_its_timer_for_a_past_moment_for_ever_does_not_stop_the_guest(past: int) -> None:
    fired = []

    def arm(exit_: Any, _: Any) -> bool:
        exit_.arm, exit_.deadline[0] = 1, past
        fired.append(past)
        return True

    vm = machine({"pio/write@0x0:1": arm, "timer/t0": arm})
    vm.access(PIO, WRITE, 0x40, 1, time=100)
    for times in range(1, 4):
        assert vm.access(PIO, READ, 0x48, 1, time=100 + times) == 0x5A
        assert len(fired) == 1 + times * limits.TIMERS_AT_ONCE
        assert vm.now() == 100 + times


def test_a_model_that_does_so_neither() -> None:
    vm = machine({})
    (dev,) = vm.devices
    model: Any = dev.model

    def timer(name: str, deadline: int) -> None:
        model.seen.append(deadline)
        dev.arm(name, deadline)

    model.timer = timer
    dev.arm("t0", 7)
    dev.arm("t1", 9)
    vm.access(PIO, READ, 0x48, 1, time=50)
    assert len(seen(vm)) == limits.TIMERS_AT_ONCE + 1
    dev.cancel("t0")
    dev.cancel("t1")
    vm.access(PIO, READ, 0x48, 1, time=51)
    assert len(seen(vm)) == limits.TIMERS_AT_ONCE + 2


def test_a_run_with_many_timers_returns_to_python_on_its_way() -> None:
    """What keeps a run of endless events stoppable: here by the model, as by a signal's handler."""
    count = 3 * limits.EVENTS_IN_ONE_GO

    def arm(exit_: Any, _: Any) -> bool:
        exit_.arm, exit_.deadline[0] = 1, exit_.value + 1
        return True

    vm = machine({"pio/write@0x0:1": arm, "timer/t0": arm})
    reasons = []
    (vcpu,) = vm.vcpus
    native = vcpu._native

    class Noting:
        def __getattr__(self, name: str) -> Any:
            return getattr(native, name)

        def run(self, vcpu: int) -> int:
            reasons.append(native.run(vcpu))
            return int(reasons[-1])

    vcpu._native = Noting()  # type: ignore[assignment]
    vm.access(PIO, WRITE, 0x40, 1, 0, time=1)
    reasons.clear()
    vm.access(PIO, READ, 0x48, 1, time=count)
    assert len(reasons) == 5  # three pauses, the access, the end
    installed = vm.devices[0].installed
    assert installed is not None
    assert installed.figures(1).handled == count


@pytest.mark.parametrize(
    ("deadline", "fires"),
    [(-1, True), (0, True), (99, True), (NEVER, False), (NEVER + 1, False), (1 << 70, False)],
)
def test_a_deadline_out_of_range_loses_no_other(deadline: int, fires: bool) -> None:
    vm = machine({})
    (dev,) = vm.devices
    dev.arm("t0", 50)
    dev.arm("t1", deadline)
    vm.access(PIO, READ, 0x48, 1, time=100)
    names = {event[1] for event in seen(vm) if event[0] == "timer"}
    assert names == ({"t0", "t1"} if fires else {"t0"})


def test_the_last_moment_of_the_clock() -> None:
    vm = machine({})
    (dev,) = vm.devices
    dev.arm("t0", NEVER - 1)
    vm.access(PIO, READ, 0x48, 1, time=NEVER - 2)
    assert vm.access(PIO, READ, 0x48, 1, time=NEVER - 1) == 0x5A
    assert [event[0] for event in seen(vm)] == ["read", "timer", "read"]
    with pytest.raises(ValueError, match="the clock is at"):
        vm.access(PIO, READ, 0x48, 1, time=NEVER)


def test_time_that_runs_backwards_is_refused_and_never_shown() -> None:
    vm = machine({})
    vm.access(PIO, READ, 0x48, 1, time=100)
    with pytest.raises(ValueError, match="the clock is at 100 ns"):
        vm.access(PIO, READ, 0x48, 1, time=99)
    vm.run(Run(ACCESS.packer.pack(50, 0, 0x48, 0, 0, 0, 0, 0)))
    assert vm.now() == 100


# Accesses that no guest makes.


@pytest.mark.parametrize(
    ("space", "address", "size"),
    [
        (PIO, 0x40, 0),
        (PIO, 0x40, 3),
        (PIO, 0x40, 16),
        (PIO, -1, 1),
        (PIO, 0x10000, 1),
        (PIO, (1 << 60) + 0x40, 1),  # its dispatch key would be that of 0x40
        (Space.MMIO, 1 << 52, 1),
        (Space.MMIO, 1 << 64, 1),
    ],
)
def test_accesses_that_do_not_exist(space: Space, address: int, size: int) -> None:
    vm = machine({"pio/read@0x0:1": lambda exit_, _: True})
    with pytest.raises(ValueError, match="no guest accesses"):
        vm.access(space, READ, address, size, time=1)
    assert seen(vm) == []


def test_what_is_written_is_cut_to_the_access() -> None:
    vm = machine({})
    vm.access(PIO, WRITE, 0x40, 1, -1, time=1)
    vm.access(PIO, WRITE, 0x40, 2, 1 << 70 | 5, time=1)
    assert [event[-1] for event in seen(vm)] == [0xFF, 5]


# Machines that cannot be.


def test_two_devices_of_one_name_are_refused() -> None:
    assert codes(lambda: VM([device("a", [], 0x40), device("a", [], 0x60)])) == ["H002"]


def test_the_guest_has_no_line_beyond_its_last() -> None:
    for line in (limits.GUEST_LINES, 1 << 30):
        assert codes(lambda: VM([device("a", [], 0x40)], [WireSpec("a", "out", guest=line)])) == ["H003"]  # noqa: B023


def test_caps_of_a_machine() -> None:
    many = [device(f"d{number}", [], 16 * number) for number in range(limits.DEVICES + 1)]
    VM(many[:-1])
    assert codes(lambda: VM(many)) == ["H008"]
    wires = [WireSpec("d0", "out", guest=1)] * (limits.WIRES + 1)
    VM(many[:1], wires[:-1])
    assert codes(lambda: VM(many[:1], wires)) == ["H008"]
    ranges = [f"pio/read@{4096 * number}-{4096 * number + 4095}" for number in range(64)]
    assert codes(lambda: VM([device("a", ranges, 0x40)])) == ["H008"]


# Calls at the wrong moment.


@pytest.mark.parametrize("call", ["run", "access"])
def test_a_model_that_runs_its_own_vm_is_refused_and_the_vm_goes_on(call: str) -> None:
    vm = machine({"pio/read@0x1:1": lambda exit_, _: True})
    calls: dict[str, Callable[[], object]] = {
        "run": lambda: vm.run(Run(bytes(ACCESS.size))),
        "access": lambda: vm.access(PIO, READ, 0x41, 1, time=9),
    }
    refused = []

    def read(*_: object) -> int:
        with pytest.raises(RuntimeError, match="the vCPU is running"):
            calls[call]()
        refused.append(call)
        gc.collect()
        return 3

    model: Any = vm.devices[0].model
    model.read = read
    assert vm.access(PIO, READ, 0x48, 1, time=1) == 3
    assert vm.access(PIO, READ, 0x41, 1, time=2) == 0
    assert refused == [call]
    calls[call]()


def test_a_model_may_change_who_answers() -> None:
    vm = machine({"pio/read@0x1:1": lambda exit_, _: True})
    again = Callbacks({"pio/read@0x1:1": answers_9})
    changes: Iterator[Callable[[], None]] = iter([lambda: vm.detach(["dev"]), lambda: vm.attach(again)])
    model: Any = vm.devices[0].model

    def read(*_: object) -> int:
        next(changes)()
        gc.collect()
        return 3

    model.read = read
    assert vm.access(PIO, READ, 0x41, 1, time=1) == 0
    assert vm.access(PIO, READ, 0x48, 1, time=2) == 3  # which detaches
    assert vm.access(PIO, READ, 0x41, 1, time=3) == 3  # which attaches
    assert vm.access(PIO, READ, 0x41, 1, time=4) == 9


def answers_9(exit_: Any, _: Any) -> bool:
    exit_.value = 9
    return True


@pytest.mark.parametrize("call", ["attach", "detach", "wire", "add_device", "create_vcpu"])
def test_a_handler_may_not_change_the_machine_that_runs_it(call: str) -> None:
    """It would wait for itself to be done. Only an engine of Python functions could even try."""
    vm = machine({"pio/read@0x1:1": lambda exit_, _: refused()})
    calls: dict[str, Callable[[], object]] = {
        "attach": lambda: vm.attach(Callbacks({"pio/read@0x1:1": lambda exit_, _: True})),
        "detach": lambda: vm.detach(["dev"]),
        "wire": lambda: vm.wire(WireSpec("dev", "out", guest=1)),
        "add_device": lambda: vm.add_device(device("other", [], 0x80)),
        "create_vcpu": lambda: vm.create_vcpu(),
    }

    def refused() -> bool:
        with pytest.raises(RuntimeError, match="a handler changes the machine"):
            calls[call]()
        return True

    assert vm.access(PIO, READ, 0x41, 1, time=1) == 0
    assert [each.name for each in vm.devices] == ["dev"]
    calls[call]()


def test_an_exception_in_a_model_leaves_a_vm_that_runs() -> None:
    vm = machine({"pio/read@0x1:1": lambda exit_, _: True})
    model: Any = vm.devices[0].model
    answer = model.read
    model.read = lambda *_: 1 // 0
    run = Run(b"".join(ACCESS.packer.pack(5, 0, address, 0, 0, 0, 0, 0) for address in (0x41, 0x48, 0x41)))
    assert codes(lambda: vm.run(run)) == ["H007"]
    assert run.done == 1
    model.read = answer
    vm.run(run)
    assert (run.done, run.answers[1]) == (3, 0x5A)


def test_models_that_answer_events_with_more_events() -> None:
    """Each of 200 changes of `a.out` is answered by 64 of `b.out`."""
    wires = [WireSpec("a", "out", "b", "in0"), WireSpec("b", "out", "c", "in0")]
    vm = VM([device(name, [], 0x40 + 16 * number) for number, name in enumerate("abc")], wires)
    a, b, _ = vm.devices
    model: Any = b.model

    def line(_name: str, _level: int) -> None:
        for _ in range(32):
            b.raise_line("out")
            b.lower_line("out")

    model.line = line
    for _ in range(100):
        a.raise_line("out")
        a.lower_line("out")
    vm.access(PIO, READ, 0x40, 1, time=1)
    assert [event[-1] for event in seen(vm, 2)].count(1) == 32 * 200


def test_a_model_that_changes_its_lines_for_ever_is_stopped() -> None:
    vm = VM([device("a", [], 0x40), device("b", [], 0x60)], [WireSpec("a", "out", "b", "in0")])

    def read(*_: object) -> int:
        while True:
            vm.devices[0].raise_line("out")
            vm.devices[0].lower_line("out")

    model: Any = vm.devices[0].model
    model.read = read
    assert codes(lambda: vm.access(PIO, READ, 0x40, 1, time=1)) == ["H007"]
    assert vm.access(PIO, READ, 0x60, 1, time=2) == 0x5A


def test_many_vms_in_many_threads() -> None:
    def spin(results: list[int]) -> None:
        for _ in range(20):
            vm = machine({"pio/read@0x0-0xf:1": count})
            results.extend(vm.access(PIO, READ, 0x40 + number, 1, time=number) for number in range(16))

    def count(exit_: Any, _: Any) -> bool:
        exit_.value = exit_.offset
        return True

    results: list[list[int]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=spin, args=(each,)) for each in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [list(range(16)) * 20] * 4


def test_a_vm_outlives_what_it_was_made_of() -> None:
    def make() -> VM:
        spec: DeviceSpec = device("dev", ["pio/read@0x0:1"], 0x40)
        vm = VM([spec])
        vm.attach(Callbacks({"pio/read@0x0:1": lambda exit_, _: True}))
        return vm

    vm = make()
    view = vm.devices[0].area.view
    for time in range(3):
        gc.collect()
        assert vm.access(PIO, READ, 0x40, 1, time=time) == 0
    view.word = 5
    del vm
    gc.collect()
    assert view.word == 5
