"""Benchmark `engines`: our engines against their peers, on the same handlers, in the same rounds.

Each competitor has a shared area and exits of its own, alike to the byte, and is called by the same native
loop (`loops.py`) through a pointer; Linux's BPF is repeated by the kernel. Before anything is timed each
has to give what the reference gives: the same answers and the same shared area.

Subjects that ask for the time are measured twice: on the virtual clock (a number in memory), and on the
host's, which is what Linux's BPF has. librte_bpf runs byte code for cpu v2; our JIT on that same byte code
stands beside it. Not here: dispatch, locks, effects (`mechanisms.py`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle
from typing import Any, Final, TypeVar

from bench.loops import Call, loops
from bench.peers import librte, linux_bpf
from bench.peers.c import CHandlers, build
from bench.runner import Bench, Competitor, Work, cpus, pinned
from bench.subjects import NOW, SUBJECTS, Area, Subject, handler, verified
from bench.subjects import subject as named
from devbc.abi import MapIndex, Verdict
from devbc.program.verified import VerifiedHandler, VerifiedProgram

NAME: Final = "engines"

C: Final = "C at -O2"
JIT: Final = "JIT"
JIT_V2: Final = "JIT, v2 byte code"
INTERPRETER: Final = "interpreter"
LINUX: Final = "Linux BPF"
RTE_JIT: Final = "librte_bpf JIT"
RTE_INTERPRETER: Final = "librte_bpf interpreter"
#: What the loops themselves take, with a handler that does nothing: the kernel's, and ours.
LINUX_LOOP: Final = "Linux BPF, its loop"
OUR_LOOP: Final = "JIT, its loop"
#: In the order of tables and plots.
COMPETITORS: Final = (C, JIT, JIT_V2, RTE_JIT, LINUX, INTERPRETER, RTE_INTERPRETER)

HOST_CLOCK: Final = ", host clock"

#: So often code of ours and of C's is loaded, each time with an area of its own. Each sample has the next of
#: them: where code and data lie decides a cycle of seven, for either.
_PLACES: Final = 4

#: Reading the time-stamp counter: alone, and after the loads before it, which takes a fence.
CLOCK: Final = "one raw clock read"
COUNTER: Final = "time-stamp counter"
ORDERED: Final = "time-stamp counter, ordered"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A competitor on a subject: a way to run its row of accesses, and what it works on, to be compared.

    `elsewhere`: the same in other places.
    """

    name: str
    calls: list[Call]
    area: Area
    elsewhere: tuple[Contestant, ...] = ()


def run(bench: Bench) -> None:
    with pinned(cpus()[:1]):
        if (reason := linux_bpf.why_unavailable()) is not None:
            bench.skip(LINUX, reason)
        if isinstance(compiled := c_handlers(), str):
            bench.skip(C, compiled)
        if isinstance(library := librte.library(), str):
            bench.skip(RTE_JIT, library)
            bench.skip(RTE_INTERPRETER, library)
        for subject in SUBJECTS:
            measure(bench, subject, host=False)
            if subject.clock:
                measure(bench, subject, host=True)
        reads = {COUNTER: loops().counter, ORDERED: loops().ordered_counter}
        works = [Competitor(name, loops().work([Call(address)])) for name, address in reads.items()]
        bench.compete(CLOCK, works)


def measure(bench: Bench, subject: Subject, *, host: bool) -> None:
    """All competitors on one subject."""
    name = subject.name + (HOST_CLOCK if host else "")
    clock = _clock(host)
    contestants = list(_contestants(bench, subject, clock, host=host))
    if not host:
        _check(subject, contestants)
    competitors = [Competitor(each.name, _work(subject, each)) for each in contestants]
    if (work := linux(bench, subject, host=host)) is not None:
        competitors.append(Competitor(LINUX, work))
        if subject.name != "nothing":
            competitors += _empty_loops(bench)
    bench.compete(name, competitors)


@cache
def c_handlers() -> CHandlers | str:
    """The handlers in C, or why there are none."""
    states: dict[str, type[Any]] = {}
    for subject in SUBJECTS:
        kind = verified(subject.device, "v4").program.scratch_type
        states[subject.device] = kind or type("Nothing", (ctypes.Structure,), {"_fields_": []})
    return build(states, _PLACES)


def _contestants(bench: Bench, subject: Subject, clock: Any, *, host: bool) -> Sequence[Contestant]:
    from devbc.engines.jit import JitEngine
    from devbc.engines.native_interpreter import InterpreterEngine

    program = verified(subject.device, "v4")
    engines = [(JIT, JitEngine, "v4"), (INTERPRETER, InterpreterEngine, "v4")]
    if not subject.not_v2:
        engines.append((JIT_V2, JitEngine, "v2"))
    found = [
        _contestant(
            name, subject, verified(subject.device, cpu), clock,
            [_loaded(engine, subject.device, cpu, place).address for place in range(_PLACES)],
        )
        for name, engine, cpu in engines
    ]  # fmt: skip
    compiled = c_handlers()
    if isinstance(compiled, CHandlers):
        names = {each.section: each.c_name for each in subject.accesses}

        def in_c(place: int) -> Callable[[VerifiedHandler], int]:
            return lambda each: compiled.address(names[each.handler.section], place)

        found.append(_contestant(C, subject, program, clock, [in_c(place) for place in range(_PLACES)]))
    if subject.not_v2:
        for name in (JIT_V2, RTE_JIT, RTE_INTERPRETER):
            bench.skip(f"{name}: {subject.name}", subject.not_v2)
    elif not isinstance(librte.library(), str):
        found += _librte(bench, subject, verified(subject.device, "v2"), clock)
    return found


@cache
def _loaded(engine: Callable[[], Any], device: str, cpu: str, place: int = 0) -> Any:
    return engine().load([verified(device, cpu)])


def _contestant(
    name: str,
    subject: Subject,
    program: VerifiedProgram,
    clock: Any,
    addresses: Sequence[Callable[[VerifiedHandler], int]],
) -> Contestant:
    """`addresses`: where handlers are, in one place and others."""
    address, *others = addresses
    area = Area(subject, program.program)
    calls = [
        Call(
            address(handler(program, access.section)), area.exit_address(index), area.address, area.rodata,
            ctypes.addressof(clock), keep=(area, clock),
        )
        for index, access in enumerate(subject.accesses)
    ]  # fmt: skip
    elsewhere = tuple(_contestant(name, subject, program, clock, [each]) for each in others)
    return Contestant(name, calls, area, elsewhere)


def _librte(bench: Bench, subject: Subject, program: VerifiedProgram, clock: Any) -> list[Contestant]:
    """Both of librte_bpf's engines, or none if it refuses a handler."""
    areas = {RTE_JIT: Area(subject, program.program), RTE_INTERPRETER: Area(subject, program.program)}
    calls: dict[str, list[Call]] = {name: [] for name in areas}
    now = _now(ctypes.addressof(clock))
    for name, area in areas.items():
        sizes = len(program.program.scratch_image), len(program.program.rodata)
        regions = {MapIndex.SCRATCH: (area.address, sizes[0]), MapIndex.RODATA: (area.rodata, sizes[1])}
        for index, access in enumerate(subject.accesses):
            loaded = _load_librte(handler(program, access.section), regions, now, (clock, area))
            if isinstance(loaded, str):
                for each in areas:
                    bench.skip(f"{each}: {subject.name}", loaded)
                return []
            if name == RTE_JIT:
                if not loaded.jit:
                    bench.skip(RTE_JIT, "librte_bpf has no JIT for this machine")
                    break
                calls[name].append(Call(loaded.jit, area.exit_address(index), keep=(loaded, area)))
            else:
                exit_ = area.exit_address(index)
                calls[name].append(Call(loaded.execute, loaded.bpf, exit_, keep=(loaded, area)))
    return [Contestant(name, row, areas[name]) for name, row in calls.items() if row]


_LIBRTE_CACHE: dict[tuple[int, int], Any] = {}


def _load_librte(
    handler: VerifiedHandler, regions: dict[MapIndex, tuple[int, int]], now: int, keep: object
) -> librte.Loaded | str:
    """A handler for one area; a row of many accesses needs it once."""
    key = (id(handler), regions[MapIndex.SCRATCH][0])
    if key not in _LIBRTE_CACHE:
        _LIBRTE_CACHE[key] = (librte.load(handler, regions, now), keep)
    loaded: librte.Loaded | str = _LIBRTE_CACHE[key][0]
    return loaded


def _empty_loops(bench: Bench) -> list[Competitor]:
    """Linux's loop and ours around nothing, in the rounds of what is compared."""
    from devbc.engines.jit import JitEngine

    nothing = named("nothing")
    program = verified(nothing.device, "v4")
    address = _loaded(JitEngine, nothing.device, "v4").address
    ours = _work(nothing, _contestant(JIT, nothing, program, _clock(False), [address]))
    theirs = linux(bench, nothing, host=False)
    assert theirs is not None
    return [Competitor(OUR_LOOP, ours), Competitor(LINUX_LOOP, theirs)]


def linux(bench: Bench, subject: Subject, *, host: bool) -> Work | None:
    """Linux's BPF on a subject, repeated in the kernel: if it is one access, on a clock that Linux has."""
    if linux_bpf.why_unavailable() is not None or (subject.clock and not host):
        return None
    if subject.drain or len(subject.accesses) > 1:
        bench.skip(
            f"{LINUX}: {subject.name}", "BPF_PROG_TEST_RUN repeats one program, and this is a row of accesses"
        )
        return None
    timed = _in_linux(bench, subject, linux_bpf.TimedProgram)
    if timed is None:
        return None
    timed.run(1)
    _check_linux(subject, timed)
    return timed.run


def linux_calls(bench: Bench, subject: Subject) -> Work | None:
    """The same as a system call for each access: a row of them, if one handler answers them all."""
    if linux_bpf.why_unavailable() is not None:
        return None
    if len({each.section for each in subject.accesses}) > 1:
        bench.skip(f"{LINUX}, a system call each: {subject.name}", "several handlers, of one program each")
        return None
    called = _in_linux(bench, subject, linux_bpf.CalledProgram)
    if called is None:
        return None
    calls = [called.call] * len(subject.accesses)
    loops().work(calls[:1])(1)
    _check_linux(subject, called)
    if subject.drain:
        calls.append(Call(loops().drain, *map(called.field, subject.drain), keep=called))
    return loops().work(calls, len(subject.accesses))


P = TypeVar("P", linux_bpf.TimedProgram, linux_bpf.CalledProgram)


def _in_linux(bench: Bench, subject: Subject, kind: type[P]) -> P | None:
    """A subject's handler in the kernel, or None if Linux refuses it."""
    program = verified(subject.device, "v4")
    area = Area(subject, program.program)
    try:
        return kind(
            handler(program, subject.accesses[0].section), area.image, program.program, bytes(area.exits[0])
        )
    except ValueError as error:
        bench.skip(f"{LINUX}: {subject.name}", str(error))
        return None


def _check_linux(subject: Subject, found: linux_bpf.TimedProgram | linux_bpf.CalledProgram) -> None:
    """After one access: it is handled, and has left what the JIT leaves, if that does not depend on time."""
    from devbc.engines.jit import JitEngine

    assert found.verdict == Verdict.HANDLED
    if not subject.clock:
        first = replace(subject, accesses=subject.accesses[:1])
        address = _loaded(JitEngine, subject.device, "v4").address
        reference = _contestant(JIT, first, verified(subject.device, "v4"), _clock(False), [address])
        left = ([found.verdict], [bytes(found.exit)], bytes(found.scratch).ljust(8, b"\0"))
        assert left == outcome(first, reference), f"{LINUX} and the JIT differ on {subject.name}"


def _work(subject: Subject, contestant: Contestant) -> Work:
    """The contestant's row of accesses, each time in the next of its places."""
    works = []
    for each in (contestant, *contestant.elsewhere):
        calls = list(each.calls)
        if subject.drain:
            source, target = (each.area.field(name) for name in subject.drain)
            calls.append(Call(loops().drain, source, target, keep=each.area))
        works.append(loops().work(calls, len(subject.accesses)))
    turn = cycle(works)
    return lambda count: next(turn)(count)


def _check(subject: Subject, contestants: Sequence[Contestant]) -> None:
    """Every competitor has to do the same, before it is timed. Raises AssertionError."""
    (expected,) = (outcome(subject, each) for each in contestants if each.name == JIT)
    assert set(expected[0]) == {Verdict.HANDLED}, f"{subject.name} is not handled"
    for contestant in contestants:
        places = contestant.elsewhere if contestant.name == JIT else (contestant, *contestant.elsewhere)
        for each in places:
            assert outcome(subject, each) == expected, f"{each.name} and the JIT differ on {subject.name}"


def outcome(subject: Subject, contestant: Contestant) -> tuple[list[int], list[bytes], bytes]:
    """Verdicts, exits and the shared area after one row of accesses."""
    prototype = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 4)
    verdicts, exits = [], []
    for index, call in enumerate(contestant.calls):
        verdicts.append(int(prototype(call.words[0])(*call.words[1:])))
        exits.append(bytes(contestant.area.exits[index]))
    return verdicts, exits, contestant.area.image


def _clock(host: bool) -> Any:
    from devbc.engines.clock import host_page, virtual_page

    return host_page() if host else virtual_page(NOW)


@cache
def _now(clock: int) -> int:
    """`u64 now(void)`, our own clock as an external function: what librte_bpf calls."""
    from llvmlite import ir

    from devbc.engines.clock import define_now
    from devbc.engines.layout import I64, PTR
    from devbc.engines.native import NativeModule

    module = ir.Module("devbc_bench_clock")
    function = ir.Function(module, ir.FunctionType(I64, []), "now")
    builder = ir.IRBuilder(function.append_basic_block())
    page = builder.inttoptr(I64(clock), PTR)
    builder.ret(builder.call(define_now(module), [page]))
    native = NativeModule(module, ["now"])
    _MODULES.append(native)
    return native.address("now")


_MODULES: list[Any] = []
