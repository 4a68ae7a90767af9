"""The checked engine: the reference interpreter, held at each instruction to what the verifier proved.

`CheckedHandler.run` runs a handler and asserts, before every instruction, that an abstract state explored
there admits the concrete one; that the run's end is as near as each such state said it would be; that an
access goes where its fact says, within the reported ranges of scratch, and that the frames take no more
stack than was reported; at the end, that verdict, effects and class are among those reported, and that a
run that declines has left scratch alone. The interpreter itself refuses every access, register and call
that the contract forbids. Whatever of this fails raises `Unsound`: a bug of the verifier, or of this file.

`CheckedEngine` is all that as an engine, for recorded and live guests: `devbc replay --engine checked`. It
explores each handler again, to have the states, and is some ten thousand times slower than the JIT.

Scratch belongs to userspace too. `disturb` may overwrite it at any load: between two loads nobody can see
what it holds, so that this is the same as overwriting it at any moment.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from devbc.abi import EXIT_FIELDS, EXIT_SIZE, Verdict
from devbc.engines.clock import CLOCK_PAGE, ClockKind
from devbc.engines.containment import admits, frame_top
from devbc.engines.interpreter import BASES, REGION_BITS, Buffer, Fault, State, run_handler
from devbc.engines.jit import PROTOTYPE
from devbc.isa.disasm import disassemble
from devbc.isa.insn import Insn
from devbc.isa.opcodes import Kind, Operation
from devbc.program.verified import ByteRange, HandlerClass, Region, VerifiedHandler, VerifiedProgram
from devbc.verifier.explored import Explored, Point, explore_handler
from devbc.verifier.policy import EFFECTS

_U64: Final = (1 << 64) - 1
_REGIONS: Final = {BASES[each] >> REGION_BITS: each for each in (Region.EXIT, Region.SCRATCH, Region.RODATA)}
_LOADING: Final = (Kind.LOAD, Kind.ATOMIC)
_STORING: Final = (Kind.STORE, Kind.ATOMIC)

#: Called with scratch before an instruction loads from memory.
Disturbance = Callable[[Buffer], None]


class Unsound(Exception):  # noqa: N818 - it says what the proof turned out to be
    """A run did what was proven impossible; `slot` is where it was seen."""

    def __init__(self, section: str, slot: int, message: str) -> None:
        super().__init__(f"`{section}`, slot {slot}: {message}")
        self.slot = slot


@dataclass(frozen=True, slots=True)
class Checked:
    """A run that kept to the proof, and how many instructions it took."""

    verdict: Verdict
    steps: int


class CheckedHandler:
    """A handler with its proof. What one run learns of where states follow each other helps the next."""

    def __init__(self, explored: Explored) -> None:
        self.explored = explored
        verified = explored.verified
        self.readable = _bytes_of(verified.scratch_read)
        self.writable = _bytes_of(verified.scratch_written)
        #: For a point, the points that have been found to follow it in runs.
        self.followers: dict[int, list[int]] = {}

    @property
    def verified(self) -> VerifiedHandler:
        return self.explored.verified

    def run(
        self, exit: Buffer, scratch: Buffer, clock: Callable[[], int], disturb: Disturbance | None = None
    ) -> Checked:
        """Run on an exit and scratch, in place. Raises Unsound."""
        verified = self.verified
        watch = _Watch(self, scratch, disturb)
        try:
            verdict = run_handler(verified, exit, scratch, self.explored.rodata, clock, observer=watch)
        except Fault as fault:
            raise Unsound(verified.handler.section, fault.slot, f"the run faults: {fault}") from fault
        watch.finish(verdict, memoryview(exit).cast("B"))
        return Checked(verdict, watch.steps)


class _Watch:
    """The observer of one run."""

    def __init__(self, checked: CheckedHandler, scratch: Buffer, disturb: Disturbance | None) -> None:
        self.checked = checked
        self.explored = checked.explored
        self.verified = checked.explored.verified
        self.steps = 0
        self._scratch = scratch
        self._disturb = disturb
        #: The number of the point that admitted the last state, and the step at which the run ends at last.
        self._point = -1
        self._end = self.verified.worst_case
        self._fields = 0
        self._wrote = False
        #: Bytes that each live frame has used so far.
        self._depths = [0]
        self._slot = 0

    def __call__(self, state: State) -> None:
        self._slot = state.slot
        point = self._locate(state)
        self.steps = state.steps + 1
        self._end = min(self._end, state.steps + point.remaining)
        if self.steps > self._end:
            raise self._unsound(f"the run should have ended after {self._end} instructions")
        if len(state.frames) < len(self._depths) - 1:
            self._depths.pop()
        elif len(state.frames) == len(self._depths):
            self._depths.append(0)
        insn = self.verified.insns[state.slot]
        kind = insn.spec.kind
        if kind in _LOADING or kind is Kind.STORE:
            self._access(state, insn)
        elif insn.spec.operation is Operation.CALL_HELPER and insn.imm not in self.verified.helpers:
            raise self._unsound(f"`{disassemble(insn)}` is not among the reported helpers")

    def finish(self, verdict: Verdict, exit: memoryview) -> None:
        """Compare the run's outcome with what was reported."""
        verified = self.verified
        if not (verified.may_handle if verdict is Verdict.HANDLED else verified.may_decline):
            raise self._unsound(f"the verdict {verdict.name} is not among those reported")
        if self._wrote and verdict is Verdict.DECLINE:
            raise self._unsound("the handler declines, and has written scratch")
        if self._wrote and verified.handler_class is HandlerClass.PURE:
            raise self._unsound("a handler of class `pure` has written scratch")
        for name in EFFECTS:
            field = EXIT_FIELDS[name]
            value = int.from_bytes(exit[field.offset : field.end], "little")
            mask = self.explored.policy.mask(name)
            if value and name not in verified.effects:
                raise self._unsound(f"the effect `{name}` is not among those reported")
            if mask is not None and value & ~mask:
                raise self._unsound(f"`{name}` has bits beyond its ports: {value:#x}")

    def _locate(self, state: State) -> Point:
        """A point that admits the state, those tried first that followed the last one before."""
        points, place = (
            self.explored.points,
            (state.slot, tuple([each.return_slot - 1 for each in state.frames])),
        )
        followers = self.checked.followers.setdefault(self._point, [self._point + 1])
        for number in followers:
            if number < len(points):
                point = points[number]
                if (point.slot, point.calls) == place and admits(point, state, self._fields, self._wrote):
                    self._point = number
                    return point
        for number in self.explored.places.get(place, ()):
            if number not in followers and admits(points[number], state, self._fields, self._wrote):
                followers.append(number)
                self._point = number
                return points[number]
        registers = ", ".join(
            f"r{number} = {value:#x}" for number, value in enumerate(state.registers) if value is not None
        )
        raise self._unsound(f"no state that was explored here admits {registers}")

    def _access(self, state: State, insn: Insn) -> None:
        verified, spec = self.verified, insn.spec
        base = insn.src if spec.kind is Kind.LOAD else insn.dst
        address = state.get(base) + insn.off & _U64
        region = _REGIONS.get(address >> REGION_BITS, Region.STACK)
        offset = address & (1 << REGION_BITS) - 1
        if region is Region.STACK:
            frame = (address >> REGION_BITS) - (BASES[Region.STACK] >> REGION_BITS)
            offset = address - frame_top(frame)
            self._use_stack(frame, -offset)
            region = Region.STACK if frame == len(state.frames) else Region.OUTER_STACK
        fact = verified.accesses.get(state.slot)
        if fact is None or fact.region not in (None, region) or fact.offset not in (None, offset):
            raise self._unsound(f"the access goes to {region} {offset:+}, where {fact} was proven")
        touched = range(offset, offset + spec.bytes)
        if region is Region.SCRATCH:
            if spec.kind in _LOADING and not self.checked.readable.issuperset(touched):
                raise self._unsound(f"scratch {offset:+} is not among the bytes reported as read")
            if spec.kind in _STORING and not self.checked.writable.issuperset(touched):
                raise self._unsound(f"scratch {offset:+} is not among the bytes reported as written")
            self._wrote |= spec.kind in _STORING
        elif region is Region.EXIT and spec.kind in _STORING:
            layout = self.explored.context.layout
            for field in layout.between(offset, offset + spec.bytes):
                self._fields |= layout.bit[field.name]
                if field.name in EFFECTS and field.name not in verified.effects:
                    raise self._unsound(f"the effect `{field.name}` is not among those reported")
        if self._disturb is not None and spec.kind in _LOADING:
            self._disturb(self._scratch)

    def _use_stack(self, frame: int, depth: int) -> None:
        if not 0 <= frame < len(self._depths):
            raise self._unsound("the access goes to no region")
        self._depths[frame] = max(self._depths[frame], depth)
        if sum(self._depths) > self.verified.stack_bytes:
            raise self._unsound(f"the frames take more than {self.verified.stack_bytes} bytes")

    def _unsound(self, message: str) -> Unsound:
        return Unsound(self.verified.handler.section, self._slot, message)


class CheckedEngine:
    """`devbc.engines.engine.Engine`: every run is held to its proof.

    A native caller cannot take an exception: the first one is kept in `failure`, the run declines, and so
    does every later one. Who runs a guest asks `raise_failure` when the guest is done.
    """

    name: Final = "checked"

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        #: Instructions checked so far.
        self.steps = 0

    def load(self, programs: Sequence[VerifiedProgram]) -> CheckedPrograms:
        return CheckedPrograms(self, programs)

    def raise_failure(self) -> None:
        """Raise what the first run raised that did not keep to its proof, if there was one."""
        if self.failure is not None:
            raise self.failure


class CheckedPrograms:
    """`devbc.engines.engine.LoadedPrograms`: a function for each handler that native code may call."""

    def __init__(self, engine: CheckedEngine, programs: Sequence[VerifiedProgram]) -> None:
        # Kept: the handlers because their identity is the key, the functions because native code calls them.
        self._programs = tuple(programs)
        self._functions = {
            id(handler): PROTOTYPE(_entry(engine, handler, each))
            for each in programs
            for handler in each.handlers
        }

    def address(self, handler: VerifiedHandler) -> int:
        """The address of `u64 handler(exit *, scratch *, rodata *, clock *)`; KeyError for one not loaded."""
        return ctypes.cast(self._functions[id(handler)], ctypes.c_void_p).value or 0


def _entry(
    engine: CheckedEngine, handler: VerifiedHandler, program: VerifiedProgram
) -> Callable[[int, int, int, int], int]:
    scratch_size = len(program.program.scratch_image)
    rodata = program.program.rodata
    checked = CheckedHandler(explore_handler(handler.handler, scratch_size=scratch_size, rodata=rodata))

    def run(exit: int, scratch: int, _rodata: int, clock: int) -> int:
        if engine.failure is not None:
            return Verdict.DECLINE
        try:
            result = checked.run(_view(exit, EXIT_SIZE), _view(scratch, scratch_size), lambda: _now(clock))
        except BaseException as failure:
            engine.failure = failure
            return Verdict.DECLINE
        engine.steps += result.steps
        return result.verdict

    return run


def _view(address: int, size: int) -> memoryview:
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")


def _now(clock: int) -> int:
    page: Any = CLOCK_PAGE.struct.from_address(clock)
    return int(page.now_ns) if page.kind == ClockKind.VIRTUAL else time.monotonic_ns()


def _bytes_of(ranges: Sequence[ByteRange]) -> frozenset[int]:
    return frozenset(byte for each in ranges for byte in range(each.start, each.end))
