"""Several vCPUs read a device that another reprograms, and userspace too: none is torn, or runs back.

Two devices. `words` has sixteen words that are always written together; a read of it answers how often that
was done, or `TORN`. The HPET has a counter that is halted and started again, and never set: what it counts
only grows. Readers are pure handlers: they take no lock. That these tests would notice is tested, too: that
readers were overtaken, and what becomes of values when nothing is done about it.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import devbc.hypervisor.device as device_module
from devbc.abi import Op, Space
from devbc.catalog import load_machine
from devbc.engines.jit import JitEngine
from devbc.engines.native_interpreter import InterpreterEngine
from devbc.hypervisor.device import Figures
from devbc.hypervisor.layouts import AREA_HEADER, Guard, Holder
from devbc.hypervisor.run import Run
from devbc.hypervisor.vm import VM
from tests.hypervisor.machines import Body, Callbacks, device
from tests.hypervisor.torture import BATCH, SECONDS, Counting, accesses, ascending, batch, run_threads, spec

MMIO, READ, WRITE = Space.MMIO, Op.READ, Op.WRITE
GoOn = Callable[[], bool]

ENGINES = {"jit": JitEngine, "interp": InterpreterEngine}
TORN = (1 << 64) - 1

WORDS = """
device words {
    const WORDS: u32 = 16;

    state { word: [u64; WORDS] }    // word i is word 0 and i

    bank mmio[0x10] {
        register steps at 0 : u64 {
            read {
                let first = state.word[0];
                for i in 1..WORDS { if state.word[i] - first != u64(i) { return ~0; } }
                return first;
            }
        }
        register step at 8 : u64 {
            write(v) {
                let next = state.word[0] + 1;
                for i in 0..WORDS { state.word[i] = next + u64(i); }
            }
        }
    }
}
"""


class Words:
    """The model of `words`."""

    def __init__(self, scratch: Any, host: Any) -> None:
        self.scratch = scratch

    def reset(self) -> None:
        self.scratch.word[:] = range(16)

    def read(self, bank: str, offset: int, size: int) -> int:
        words = list(self.scratch.word)
        return words[0] if words == [*range(words[0], words[0] + 16)] else TORN

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        for index, word in enumerate(self.scratch.word):
            self.scratch.word[index] = word + 1

    def timer(self, name: str, deadline: int) -> None: ...
    def line(self, name: str, level: int) -> None: ...
    def signal(self, name: str) -> None: ...


class Scene:
    """A device of one VM with the host's clock: what readers read, what the writer and userspace write."""

    def __init__(self, name: str, engine: Any, *, in_turns: bool = False) -> None:
        """`in_turns`: the writer leaves readers, who have to wait for each other, their share of the CPUs."""
        self.in_turns = in_turns
        self.readers = readers = 2
        if name == "words":
            self.vm = VM([spec("words", WORDS, Words, {"mmio": 0})], live=True, vcpus=readers + 1)
            read, write, values = 0, 8, [0]
            self.by_hand = [(8, 0)]
        else:
            hpet = [each for each in load_machine("pc")[0] if each.name == "hpet"]
            base = hpet[0].at["mmio"]
            self.vm = VM(hpet, live=True, vcpus=readers + 1)
            # Started and halted: the enable bit, with the counter's offset or its value.
            read, write, values = base + 0xF0, base + 0x10, [1, 0]
            self.by_hand = [(0x10, 1), (0x10, 0)]
        self.reads = [accesses(MMIO, READ, read, 8, vcpu=number) for number in range(readers)]
        self.write = accesses(MMIO, WRITE, write, 8, values, vcpu=readers)
        self.vm.attach(engine)
        self.last = [0] * readers
        self.writes = 0
        self.hands = 0

    @property
    def device(self) -> Any:
        return self.vm.devices[0]

    def figures(self, op: Op) -> Figures:
        """Those of the handlers that the test runs, as one."""
        found = [
            self.device.installed.figures(number)
            for number, each in enumerate(self.device.installed.verified.handlers)
            if getattr(each.handler.binding, "op", None) is op
        ]
        handled, declined, contended = (sum(getattr(each, name) for each in found) for name in _COUNTS)
        return Figures(handled, declined, contended, ticks=())

    def reader(self, number: int) -> Callable[[GoOn], None]:
        def body(go_on: GoOn) -> None:
            run = batch(self.reads[number])
            while go_on():
                run.cursor.index = 0
                self.vm.run(run, vcpu=number)
                # A torn value is the largest there is, and what follows would be below it.
                assert self.last[number] <= run.answers[0]
                assert ascending(run.answers)
                self.last[number] = run.answers[-1]

        return body

    def writer(self, go_on: GoOn) -> None:
        run = batch(self.write, 50 if self.in_turns else BATCH)
        while go_on():
            run.cursor.index = 0
            self.vm.run(run, vcpu=self.readers)
            self.writes += run.done
            if self.in_turns:
                time.sleep(50e-6)

    def userspace(self, go_on: GoOn) -> None:
        """What a model's own thread does: it takes the lock, and changes what it likes."""
        while go_on():
            for offset, value in self.by_hand:
                with self.device as model:
                    model.write("mmio", offset, 8, value)
                self.hands += 1
                # Threads of one process share the interpreter's lock; without it, all is native.
                time.sleep(200e-6)

    def play(self, seconds: float) -> None:
        run_threads(
            seconds, *(self.reader(number) for number in range(self.readers)), self.writer, self.userspace
        )
        assert TORN not in self.last


_COUNTS = ("handled", "declined", "contended")


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["words", "hpet"])
def test_no_value_is_torn_or_runs_backwards(name: str, engine: str, seconds: float) -> None:
    scene = Scene(name, ENGINES[engine]())
    scene.play(seconds)
    read, written = scene.figures(Op.READ), scene.figures(Op.WRITE)
    # Programs answered nearly all of it, also while the lock was held, which contends for writers alone.
    assert read.handled > 0.9 * sum(getattr(read, each) for each in _COUNTS)
    assert written.handled > 1000
    assert scene.hands > 0
    assert read.declined == written.declined == 0
    if name == "words":
        assert scene.device.model.read("mmio", 0, 8) == scene.writes + scene.hands
    else:
        assert 10 * max(scene.last) <= scene.vm.now()


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("name", ["words", "hpet"])
def test_no_reader_sees_what_is_older_than_what_another_has_seen(name: str, seconds: float) -> None:
    """Readers take turns, so that there is a before and an after between them; writers wait for nobody."""
    scene = Scene(name, JitEngine(), in_turns=True)
    count = 200_000
    runs = [
        Run(scene.reads[number] * count, turns=array("Q", range(number, 2 * count, 2)), recorded=False)
        for number in range(2)
    ]

    def reader(number: int) -> Callable[[GoOn], None]:
        return lambda _: scene.vm.run(runs[number], vcpu=number)

    def stop(go_on: GoOn) -> None:
        while go_on():
            time.sleep(0.01)
        for vcpu in scene.vm.vcpus[:2]:
            vcpu.record.stop = 1
        scene.vm.wire()

    run_threads(seconds, reader(0), reader(1), scene.writer, scene.userspace, stop)
    in_turns = zip(*(run.answers[: run.done] for run in runs), strict=False)
    answers = [answer for each in in_turns for answer in each]
    assert len(answers) > 5
    assert TORN not in answers
    assert answers == sorted(answers)
    assert len({*answers}) > 1
    assert scene.writes > 0
    assert scene.hands > 0


@pytest.mark.parametrize("name", ["words", "hpet"])
def test_readers_are_overtaken(name: str) -> None:
    """Runs of handlers whose answers were not used: without them, the tests above would say nothing."""
    engine = Counting()
    scene = Scene(name, engine)
    for _ in range(60):
        scene.play(0.5)
        read, written = scene.figures(Op.READ), scene.figures(Op.WRITE)
        overtaken = engine.runs() - read.handled - written.handled
        # Contended: it was overtaken again and again, or userspace had the lock for all that time.
        if overtaken > 10 and read.contended:
            return
    pytest.fail(f"{overtaken} runs of {read.handled:,} were overtaken, {read.contended} given up")


@contextmanager
def unguarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Devices whose pure handlers run as if nobody wrote."""
    real = device_module.guard

    def guard(handler: Any) -> Guard:
        found = real(handler)
        return Guard.NONE if found is Guard.SEQUENCE else found

    with monkeypatch.context() as patch:
        patch.setattr(device_module, "guard", guard)
        yield


@pytest.mark.parametrize("name", ["words", "hpet"])
def test_without_the_count_values_are_torn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above look for is there to be found."""
    with unguarded(monkeypatch):
        scene = Scene(name, JitEngine())
    with pytest.raises(AssertionError):
        scene.play(60)


def test_pure_handlers_do_not_look_at_the_lock() -> None:
    scene = Scene("words", JitEngine())
    header = AREA_HEADER.struct.from_address(scene.device.area.header_address)
    header.lock = Holder.CLIENTS
    run = batch(scene.reads[0], 1000)
    scene.vm.run(run)
    header.lock = Holder.FREE
    assert scene.figures(Op.READ).handled == 1000


@pytest.mark.parametrize("mutating", [False, True])
def test_pure_handlers_of_one_device_run_at_the_same_time(mutating: bool) -> None:
    """Two vCPUs meet inside of the handler; of mutating ones, one is always the model's."""
    meeting = threading.Barrier(2)
    met: list[bool] = []

    def read(exit_: Any, _: Any) -> bool:
        try:
            meeting.wait(0.2 if mutating else 10)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)
        return True

    bodies: dict[str, Body] = {"pio/read@0x0:1": read}
    vm = VM([device("dev", list(bodies), 0x40, mutating=mutating, effects=(), scratch_read=True)], vcpus=2)
    vm.attach(Callbacks(bodies))

    def vcpu(number: int) -> Callable[[GoOn], None]:
        return lambda _: vm.run(batch(accesses(Space.PIO, READ, 0x40, 1), 1), vcpu=number)

    run_threads(0, vcpu(0), vcpu(1))
    model: Any = vm.devices[0].model
    assert (met, len(model.seen)) == (([False], 1) if mutating else ([True, True], 0))
