"""The causal slice of a fault: which instructions of the failing path made the values that it is about.

Walking the path backwards, a set of places (registers and stack cells) is wanted: at first those that the
faulty instruction uses. An instruction that wrote a wanted place is a step of the slice, and what it read is
wanted instead; a branch that narrowed a wanted place is a step, and what it compared is wanted too. Loads
from the shared area, the exit and read-only data, and the clock, are where values come from.

A diagnosis shows few steps: where values come from and what branches said of them come before arithmetic,
what is near the fault before what is far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from devbc import semantics
from devbc.diagnostics import Label, Span
from devbc.isa.insn import Insn, written_registers
from devbc.isa.opcodes import FRAME_POINTER, Kind, Operation, Source
from devbc.program.verified import ByteRange, Region
from devbc.verifier import errors
from devbc.verifier.errors import Fault
from devbc.verifier.trail import Failure, Point
from devbc.verifier.values import Pointer, Value
from devbc.verifier.word import Word

#: Labels that a diagnosis shows beside the fault's own.
SHOWN: Final = 6

#: Faults of a loop: what keeps it going is to blame.
_LOOPS: Final = frozenset({errors.ENDLESS, errors.TOO_LONG})

#: Names of the fields in ranges of the shared area; none if they are not known.
Names = Callable[[Sequence[ByteRange]], list[str]]


class Place(NamedTuple):
    """In frame `frame`: register `where`, or, if it is negative, the stack cell at that offset from r10."""

    frame: int
    where: int


class Weight(IntEnum):
    """How much a step says; the most telling are shown."""

    ARITHMETIC = 0
    BRANCH = 1
    ORIGIN = 2


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of the slice: what it has to do with the fault. `index`: in the path."""

    index: int
    slot: int
    weight: Weight
    text: str


def causal_slice(failure: Failure, names: Names) -> tuple[Step, ...]:
    """The steps in the order of the path; of an instruction that is several, the one nearest the fault."""
    steps: dict[int, Step] = {}
    for step in _Walk(failure, names).steps():
        steps.setdefault(step.slot, step)
    return tuple(reversed(steps.values()))


def labels(failure: Failure, steps: Iterable[Step]) -> tuple[Label, ...]:
    """The most telling steps as labels, one for each source line."""
    shape = failure.shape
    slot = failure.last.slot if failure.fault.slot is None else failure.fault.slot
    taken = {_line(shape.span(where)) for where, _ in failure.fault.labels}
    primary = shape.span(slot)
    best: dict[tuple[str, int], Step] = {}
    for step in steps:
        span = shape.span(step.slot)
        if span == primary or (step.weight is Weight.ARITHMETIC and _line(span) == _line(primary)):
            continue
        known = best.get(_line(span))
        if _line(span) not in taken and (known is None or step.weight >= known.weight):
            best[_line(span)] = step
    chosen = sorted(best.values(), key=lambda step: (step.weight is not Weight.ARITHMETIC, step.index))[
        -SHOWN:
    ]
    return tuple(
        Label(shape.span(step.slot), step.text) for step in sorted(chosen, key=lambda step: step.index)
    )


def _line(span: Span) -> tuple[str, int]:
    return span.file, span.line


class _Walk:
    """The walk backwards along one path."""

    def __init__(self, failure: Failure, names: Names) -> None:
        self._failure = failure
        self._names = names
        self._insns = failure.shape.insns
        self._subject = frozenset(_subject(failure))
        self._wanted = set(self._subject)
        self._control = set(_control(failure))

    def steps(self) -> Iterator[Step]:
        points = self._failure.points
        for index in range(len(points) - 2, -1, -1):
            before, after = points[index], points[index + 1]
            insn = self._insns[before.slot]
            found = self._step(index, insn, before, after)
            if found is not None:
                yield Step(index, before.slot, *found)

    def _step(self, index: int, insn: Insn, before: Point, after: Point) -> tuple[Weight, str] | None:
        match insn.spec.kind:
            case Kind.JUMP:
                return self._branch(index, insn, before, after)
            case Kind.STORE:
                self._stored(insn, before)
                return None
            case Kind.EXIT:
                self._replace(Place(after.frame, 0), Place(before.frame, 0))
                return None
            case Kind.CALL if insn.spec.operation is Operation.CALL_LOCAL:
                for register in range(1, 6):
                    self._replace(Place(after.frame, register), Place(before.frame, register))
                return None
        written = [Place(before.frame, 0)] if insn.spec.kind is Kind.CALL else [
            Place(before.frame, each) for each in written_registers(insn.spec, insn.dst, insn.src)
        ]  # fmt: skip
        hit = next((place for place in written if place in self._wanted), None)
        if hit is None:
            return None
        self._wanted -= set(written)
        return self._written(insn, before, hit, after.registers[hit.where])

    def _replace(self, place: Place, origin: Place) -> None:
        if place in self._wanted:
            self._wanted.discard(place)
            self._wanted.add(origin)

    def _branch(self, index: int, insn: Insn, before: Point, after: Point) -> tuple[Weight, str] | None:
        narrowed = [
            place
            for place in sorted(self._wanted)
            if _narrower(value_at(before, place), value_at(after, place))
        ]
        if not narrowed and index not in self._control:
            return None
        operands = [Place(before.frame, insn.dst)]
        if insn.spec.source is Source.REG:
            operands.append(Place(before.frame, insn.src))
        self._wanted.update(operands)
        text = f"goes on with {_relation(insn, taken=after.slot == insn.target(before.slot))}"
        known = [
            f"`r{place.where}` {value_at(after, place)}"
            for place in narrowed
            if place.where >= 0 and place.frame == before.frame
        ]
        return Weight.BRANCH, text + (f": {known[0]}" if known else "")

    def _stored(self, insn: Insn, before: Point) -> None:
        """A store to the stack: a wanted cell comes from the stored register."""
        target = before.registers[insn.dst]
        if not isinstance(target, Pointer) or target.region is not Region.STACK:
            return
        start = target.offset.smin + insn.off
        hit = {
            place
            for place in self._wanted
            if place.frame == target.frame
            and place.where < 0
            and start <= place.where < start + insn.spec.bytes
        }
        self._wanted -= hit
        if hit and insn.spec.source is Source.REG:
            self._wanted.add(Place(before.frame, insn.src))

    def _written(
        self, insn: Insn, before: Point, place: Place, value: Value | None
    ) -> tuple[Weight, str] | None:
        """A wanted register was written: where the value comes from."""
        name, spec = f"`r{place.where}`", insn.spec
        match spec.kind:
            case Kind.CALL:
                return Weight.ORIGIN, f"{name} is the time: it {value}"
            case Kind.LDDW:
                return None
            case Kind.LOAD | Kind.ATOMIC:
                return self._loaded(insn, before, name, value)
        moves = spec.operation in (Operation.MOV, Operation.MOVSX)
        if spec.source is Source.REG:
            self._wanted.add(Place(place.frame, insn.src))
            if moves and before.registers[insn.src] is value:
                return None  # a copy
        if not moves:
            self._wanted.add(place)
        if place in self._subject and self._failure.last.registers[place.where] is value:
            return None  # what the fault itself says
        return Weight.ARITHMETIC, f"from here {name} {value}"

    def _loaded(self, insn: Insn, before: Point, name: str, value: Value | None) -> tuple[Weight, str] | None:
        base = insn.src if insn.spec.kind is Kind.LOAD else insn.dst
        address = before.registers[base]
        if not isinstance(address, Pointer):
            return None
        lo, hi = address.offset.smin + insn.off, address.offset.smax + insn.off + insn.spec.bytes
        match address.region:
            case Region.SCRATCH:
                fields = self._names((ByteRange(lo, hi),))
                place = f"`{fields[0]}`" if len(fields) == 1 else "scratch"
                return Weight.ORIGIN, f"{name} is loaded from {place}: it {value}"
            case Region.RODATA:
                self._wanted.add(Place(before.frame, base))
                return Weight.ORIGIN, f"{name} is looked up in read-only data: it {value}"
            case Region.EXIT:
                field = self._failure.setting.context.layout.at(lo).name
                return Weight.ORIGIN, f"{name} is loaded from the exit's `{field}`: it {value}"
        cells = before.cells[address.frame]
        self._wanted.update(Place(address.frame, each) for each in cells if lo - 8 < each < hi)
        if base != FRAME_POINTER:
            self._wanted.add(Place(before.frame, base))
        return None


def value_at(point: Point, place: Place) -> Value | None:
    """What a place holds; of an outer frame's registers nothing is known here."""
    if place.where < 0:
        cell = point.cells[place.frame].get(place.where) if place.frame < len(point.cells) else None
        return cell.value if cell is not None else None
    return point.registers[place.where] if place.frame == point.frame else None


def _narrower(before: Value | None, after: Value | None) -> bool:
    if isinstance(before, Word) and isinstance(after, Word):
        return before is not after and before.includes(after)
    return False


def _subject(failure: Failure) -> Iterator[Place]:
    """The places whose values the fault is about."""
    insn, frame, code = failure.insn, failure.last.frame, failure.fault.code
    registers: tuple[int, ...] = ()
    operands = (insn.dst, insn.src) if insn.spec.source is Source.REG else (insn.dst,)
    match insn.spec.kind:
        case _ if code in (errors.UNINITIALISED, errors.HELPER, *_LOOPS):
            registers = ()
        case Kind.LOAD:
            registers = (insn.src,)
        case Kind.STORE | Kind.ATOMIC:
            stored = code in (errors.POINTER_LEAK, errors.POLICY)
            registers = (insn.src,) if stored and insn.spec.source is Source.REG else (insn.dst,)
        case Kind.ALU | Kind.UNARY | Kind.JUMP:
            registers = operands
        case Kind.EXIT:
            registers = (0,)
    yield from (Place(frame, each) for each in registers)


def _control(failure: Failure) -> Iterator[int]:
    """Branches that led here by being taken or not, whatever they say of the values: points of the path."""
    points, code = failure.points, failure.fault.code
    start, end = len(points), len(points) - 1
    if code is errors.UNCLEAN_DECLINE:
        start = next((index for index, each in enumerate(points) if each.wrote >= 0), start)
    elif code in _LOOPS:
        head = failure.last.slot if failure.fault.slot is None else failure.fault.slot
        rounds = [index for index, each in enumerate(points) if each.slot == head]
        start, end = rounds[-2:] if len(rounds) > 1 else (start, end)
    elif code is errors.UNINITIALISED:
        start = 0
    for index in range(start, end):
        insn = failure.shape.insns[points[index].slot]
        if insn.spec.kind is Kind.JUMP and (code in _LOOPS or _open(failure, insn, points[index])):
            yield index


def _open(failure: Failure, insn: Insn, point: Point) -> bool:
    """Whether a branch could have gone either way."""
    algebra = failure.machine.algebra
    dst, src = point.registers[insn.dst], point.registers[insn.src]
    if insn.spec.source is not Source.REG:
        src = algebra.const(insn.imm, 64)
    if dst is None or src is None:
        return False
    try:
        return semantics.condition(algebra, insn.spec, dst, src) is None
    except Fault:
        return False


_SIGNS: Final = {
    Operation.JEQ: ("==", "!="),
    Operation.JNE: ("!=", "=="),
    Operation.JLT: ("<", ">="),
    Operation.JLE: ("<=", ">"),
    Operation.JGT: (">", "<="),
    Operation.JGE: (">=", "<"),
    Operation.JSLT: ("<", ">="),
    Operation.JSLE: ("<=", ">"),
    Operation.JSGT: (">", "<="),
    Operation.JSGE: (">=", "<"),
}
_SIGNED: Final = frozenset({Operation.JSLT, Operation.JSLE, Operation.JSGT, Operation.JSGE})


def _relation(insn: Insn, *, taken: bool) -> str:
    """What holds on the way that was gone."""
    spec = insn.spec
    letter = "r" if spec.width == 64 else "w"
    right = f"{letter}{insn.src}" if spec.source is Source.REG else _constant(insn.imm)
    if spec.operation is Operation.JSET:
        return f"`{letter}{insn.dst} & {right} {'!=' if taken else '=='} 0`"
    sign = _SIGNS[spec.operation][0 if taken else 1]
    return f"`{letter}{insn.dst} {sign} {right}`" + (" (signed)" if spec.operation in _SIGNED else "")


def _constant(number: int) -> str:
    return str(number) if abs(number) < 4096 else hex(number)


__all__ = ["SHOWN", "Names", "Place", "Step", "Weight", "causal_slice", "labels", "value_at"]
