"""A recording replayed on a VM of the service, on one vCPU or split over several that take turns."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Final

from devbc.client.hypervisor import Hypervisor
from devbc.client.models import Models
from devbc.client.vcpu import Vcpu
from devbc.client.vm import Vm
from devbc.diagnostics import Rejected
from devbc.guests.recording import Recording
from devbc.guests.replay import Replay, tally
from devbc.hypervisor.layouts import ACCESS
from devbc.hypervisor.model import Model
from devbc.hypervisor.wiring import WireSpec

#: Seconds between two looks whether the vCPUs are done.
_LOOK: Final = 0.05


def build_vm(
    hypervisor: Hypervisor,
    devices: Sequence[tuple[str, bytes, Mapping[str, int]]],
    wires: Sequence[WireSpec],
    *,
    name: str = "",
    rtc_base: int = 0,
    live: bool = False,
    persists: bool = False,
) -> Vm:
    """A VM of the service with these devices (name, object, addresses) and wires; no program is attached."""
    vm = hypervisor.create_vm(name, rtc_base=rtc_base, live=live, persists=persists)
    try:
        for device, object, at in devices:
            vm.add_device(device, object, at)
        for wire in wires:
            target = f"guest.{wire.guest}" if wire.guest >= 0 else f"{wire.to_device}.{wire.to_input}"
            vm.wire(f"{wire.device}.{wire.line}", target)
    except Rejected:
        # One that persists would be left behind half made.
        vm.destroy()
        raise
    return vm


def replay(
    recording: Recording,
    vm: Vm,
    models: Mapping[str, Callable[[Any, Any], Model]],
    *,
    vcpus: int = 1,
    burst: int = 64,
    spins: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Replay:
    """Run a recording's accesses on a VM, its models in this process.

    With several vCPUs, `burst` accesses go to each in turn; the machine keeps the recording's order, so that
    the answers must be the recorded ones whatever the threads do. Raises what a model raises (H007).
    """
    answering = Models(vm, models)
    shares = _split(recording, vcpus, burst)
    first = vm.status().turn if vcpus > 1 else 0
    running = []
    for accesses, turns in shares:
        vcpu = vm.create_vcpu(max(1, len(turns)), recorded=True, turns=vcpus > 1, spins=spins)
        vcpu.feed(accesses, turns=array("Q", [first + each for each in turns]) if vcpus > 1 else None)
        running.append(vcpu)
    start = perf_counter()
    _run(running, answering, vm.timers)
    seconds = perf_counter() - start
    return tally(recording, _Results(recording, running, [turns for _, turns in shares]), vm, seconds)


def _split(recording: Recording, vcpus: int, burst: int) -> list[tuple[bytes, array[int]]]:
    """Each vCPU's accesses, and their places in the recording."""
    data, count = recording.accesses, len(recording)
    if vcpus == 1:
        return [(data, array("Q", range(count)))]
    shares: list[tuple[bytearray, array[int]]] = [(bytearray(), array("Q")) for _ in range(vcpus)]
    for number, first in enumerate(range(0, count, burst)):
        last = min(first + burst, count)
        accesses, turns = shares[number % vcpus]
        accesses += data[first * ACCESS.size : last * ACCESS.size]
        turns.extend(range(first, last))
    return [(bytes(accesses), turns) for accesses, turns in shares]


def _run(vcpus: Sequence[Vcpu], models: Models, timers: Vcpu | None) -> None:
    """Run vCPUs, a thread each; the first error of any is raised when all stand still.

    A live VM's timers have a thread, too, while they run: its vCPUs wait for who answers a timer.
    """
    errors: list[BaseException] = []
    done = threading.Event()

    def main(run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)
            for each in vcpus:
                each.stop()

    def ticking(timers: Vcpu) -> None:
        while not done.is_set():
            if timers.wait(_LOOK) and not done.is_set():
                if exit_ := timers.exit():
                    timers.answer(models.answer_of(exit_, timers))
                else:  # somebody has stopped them
                    done.wait(_LOOK)

    if len(vcpus) == 1 and timers is None:
        models.run(vcpus[0])
        return
    threads = [_thread(main, partial(models.run, vcpu)) for vcpu in vcpus]
    beside = [_thread(main, partial(ticking, timers))] if timers else []
    for thread in threads:
        thread.join()
    done.set()
    for thread in beside:
        thread.join()
    if errors:
        raise errors[0]


def _thread(main: Callable[[Callable[[], None]], None], run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=main, args=[run], daemon=True)
    thread.start()
    return thread


class _Results:
    """What became of a recording's accesses, in its order (`devbc.guests.replay.Results`)."""

    def __init__(self, recording: Recording, vcpus: Sequence[Vcpu], places: Sequence[array[int]]) -> None:
        self.accesses = (ACCESS.struct * len(recording)).from_buffer_copy(recording.accesses)
        self.outcomes = self._merged("outcomes", "B", vcpus, places, len(recording))
        self.answers = self._merged("answers", "Q", vcpus, places, len(recording))
        self.ticks = self._merged("ticks", "I", vcpus, places, len(recording))

    @staticmethod
    def _merged(
        part: str, kind: str, vcpus: Sequence[Vcpu], places: Sequence[array[int]], count: int
    ) -> array[int]:
        if len(vcpus) == 1:
            return vcpus[0].results(part, kind)
        merged = array(kind, bytes(count * array(kind).itemsize))
        for vcpu, turns in zip(vcpus, places, strict=True):
            for place, value in zip(turns, vcpu.results(part, kind), strict=True):
                merged[place] = value
        return merged
