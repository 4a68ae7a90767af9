"""The typed tree: what a program means, with every name resolved, every conversion explicit.

An expression has a `type`; operators have operands of one type (but a shift's count is of its own). Nothing
here can fail any more: `lower.py` only translates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from devbc.abi import Binding, Space
from devbc_lang.source import Extent
from devbc_lang.syntax import EffectKind, PortKind
from devbc_lang.types import BOOL, U64, Array, Bool, Int, Scalar, Struct, Type, Untyped, smallest_unsigned

# --- names ----------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Symbol:
    """A name within a function or handler. Compared by identity: two `let x` are two symbols.

    `mutable`: a `var`. `reference`: a name for a place of the shared area, of type `type`.
    `bound`: the greatest value it can have, where that is less than its type's.
    """

    name: str
    type: Type
    at: Extent
    mutable: bool = False
    reference: bool = False
    bound: int | None = None
    used: bool = False


@dataclass(eq=False, slots=True)
class Table:
    """A constant array, in read-only data."""

    name: str
    type: Array
    values: tuple[int, ...]


# --- expressions ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Constant:
    """A known value. Untyped ones are exact; `complement`: it is `~1` or its like, with no highest bit."""

    type: Scalar | Untyped
    value: int
    complement: bool = False


@dataclass(frozen=True, slots=True)
class Variable:
    """The value of an immutable name."""

    symbol: Symbol
    type: Scalar


@dataclass(frozen=True, slots=True)
class Load:
    """One load: of the shared area (volatile), of a `var`, of a constant array."""

    place: Place
    type: Scalar
    at: Extent


@dataclass(frozen=True, slots=True)
class Unary:
    """`-` and `~` of integers, `!` of bool."""

    op: str
    operand: Expr
    type: Scalar | Untyped


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic, and `min` and `max`. Wraps; division by 0 gives 0, the remainder of one the dividend."""

    op: str
    left: Expr
    right: Expr
    type: Int | Untyped
    at: Extent


@dataclass(frozen=True, slots=True)
class Compare:
    op: str
    left: Expr
    right: Expr
    type: Bool = BOOL


@dataclass(frozen=True, slots=True)
class Logic:
    """`&&` and `||`: the right side is evaluated only if it matters."""

    op: str
    left: Expr
    right: Expr
    type: Bool = BOOL


@dataclass(frozen=True, slots=True)
class Convert:
    """To a type: extends as the operand's type is signed or not, or truncates."""

    operand: Expr
    type: Int


@dataclass(frozen=True, slots=True)
class Slice:
    operand: Expr
    high: int
    low: int
    type: Int


@dataclass(frozen=True, slots=True)
class Bit:
    """One bit; the index is taken modulo the operand's bits."""

    operand: Expr
    index: Expr
    type: Bool = BOOL


@dataclass(frozen=True, slots=True)
class Now:
    at: Extent
    type: Int = U64


@dataclass(frozen=True, slots=True)
class MulDiv:
    """`a * b / c`, the product exact in 96 bits; b and c are u32."""

    a: Expr
    b: Expr
    c: Expr
    at: Extent
    type: Int = U64


@dataclass(frozen=True, slots=True)
class ExitField:
    """A field of the exit that says how it was accessed."""

    name: str
    type: Int


@dataclass(frozen=True, slots=True)
class Call:
    """A function's body, run in place. `arguments` are expressions, or places for reference parameters."""

    function: Function
    arguments: tuple[Expr | Place, ...]
    type: Scalar | None
    at: Extent


Expr = (
    Constant
    | Variable
    | Load
    | Unary
    | Binary
    | Compare
    | Logic
    | Convert
    | Slice
    | Bit
    | Now
    | MulDiv
    | ExitField
    | Call
)

# --- places ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StatePlace:
    """All of the shared area."""

    type: Struct


@dataclass(frozen=True, slots=True)
class VariablePlace:
    """A `var`."""

    symbol: Symbol
    type: Scalar


@dataclass(frozen=True, slots=True)
class ReferencePlace:
    """The place that a reference names."""

    symbol: Symbol
    type: Type


@dataclass(frozen=True, slots=True)
class TablePlace:
    """A constant array."""

    table: Table
    type: Array


@dataclass(frozen=True, slots=True)
class FieldPlace:
    base: Place
    offset: int
    type: Type


@dataclass(frozen=True, slots=True)
class ElementPlace:
    base: Place
    index: Expr
    type: Type


Place = StatePlace | VariablePlace | ReferencePlace | TablePlace | FieldPlace | ElementPlace
#: The same, for `isinstance`.
PLACES: Final = (StatePlace, VariablePlace, ReferencePlace, TablePlace, FieldPlace, ElementPlace)

# --- statements -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block:
    """`falls_through`: whether control can reach its end."""

    statements: tuple[Statement, ...]
    falls_through: bool


@dataclass(frozen=True, slots=True)
class Let:
    symbol: Symbol
    value: Expr
    at: Extent


@dataclass(frozen=True, slots=True)
class LetReference:
    symbol: Symbol
    place: Place
    at: Extent


@dataclass(frozen=True, slots=True)
class BitRange:
    high: int
    low: int


@dataclass(frozen=True, slots=True)
class Assign:
    """A store. With `part` or `op`, one load before it.

    `part`: the bits that are assigned, or one bit by its index. `op`: the operator of `+=` and its like.
    `value` has the type of what is assigned.
    """

    place: Place
    part: BitRange | Expr | None
    op: str
    value: Expr
    at: Extent


@dataclass(frozen=True, slots=True)
class Run:
    """A call for its effect."""

    call: Call
    at: Extent


@dataclass(frozen=True, slots=True)
class If:
    condition: Expr
    then: Block
    otherwise: Block | None
    at: Extent


@dataclass(frozen=True, slots=True)
class Values:
    """`low` to `high`, both included."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Match:
    """The first arm that has the value; the last one takes whatever is left."""

    subject: Expr
    arms: tuple[tuple[tuple[Values, ...], Block], ...]
    rest: Block
    at: Extent


@dataclass(frozen=True, slots=True)
class For:
    symbol: Symbol
    start: int
    end: int
    body: Block
    at: Extent


@dataclass(frozen=True, slots=True)
class Break:
    at: Extent


@dataclass(frozen=True, slots=True)
class Continue:
    at: Extent


@dataclass(frozen=True, slots=True)
class Return:
    value: Expr | None
    at: Extent


@dataclass(frozen=True, slots=True)
class Decline:
    at: Extent


@dataclass(frozen=True, slots=True)
class Effect:
    """Raise or lower a line, both for a pulse; signal; cancel a timer. `port` is its number."""

    kind: EffectKind
    port: int
    at: Extent


@dataclass(frozen=True, slots=True)
class ArmTimer:
    port: int
    deadline: Expr
    at: Extent


Statement = (
    Block
    | Let
    | LetReference
    | Assign
    | Run
    | If
    | Match
    | For
    | Break
    | Continue
    | Return
    | Decline
    | Effect
    | ArmTimer
)

# --- declarations ---------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Function:
    """A function. `body` is set when it has been checked; recursion is refused, so there is an order."""

    name: str
    parameters: tuple[Symbol, ...]
    result: Scalar | None
    at: Extent
    body: Block = field(default_factory=lambda: Block((), True))
    used: bool = False


@dataclass(frozen=True, slots=True)
class ValueParameter:
    """Receives the exit's value: a deadline, a level, or what is written, shifted to its bits."""

    symbol: Symbol
    shift: int = 0


@dataclass(frozen=True, slots=True)
class FixedParameter:
    """A constant of this handler: the index in a strided array, the mask of a partial write."""

    symbol: Symbol
    value: int


@dataclass(frozen=True, slots=True)
class IndexParameter:
    """Computed from the exit's offset: `(offset - base) / size`."""

    symbol: Symbol
    base: int
    size: int


@dataclass(frozen=True, slots=True)
class ArgumentParameter:
    """Receives an argument register of a hypercall, by its number.

    A run declines if the register holds more than the symbol can: than its type, or its `bound`.
    """

    symbol: Symbol
    number: int


HandlerParameter = ValueParameter | FixedParameter | IndexParameter | ArgumentParameter


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler answers: the value returned, shifted right by `shift` bits."""

    type: Scalar
    shift: int


@dataclass(frozen=True, slots=True)
class WholeAccess:
    """The access to a whole register that a hypercall stands for: its offset, its size, in bytes.

    `index`: of an array's element; elements are `stride` bytes apart.
    """

    offset: int
    size: int
    stride: int
    index: Symbol | None


@dataclass(frozen=True, slots=True)
class Handler:
    """One section of the object. `answer` is None for handlers that return nothing.

    `bindings`: what it answers, the same accesses of each of its banks. `stands_for`: what `access` means in
    a hypercall that is a register's; None where the exit says it.
    """

    name: str
    bindings: tuple[Binding, ...]
    parameters: tuple[HandlerParameter, ...]
    answer: Answer | None
    body: Block
    at: Extent
    stands_for: WholeAccess | None = None


@dataclass(frozen=True, slots=True)
class Bank:
    name: str
    space: Space
    size: int


@dataclass(frozen=True, slots=True)
class Register:
    name: str
    bank: str
    offset: int
    size: int
    count: int
    stride: int


@dataclass(frozen=True, slots=True)
class Device:
    name: str
    ports: dict[PortKind, tuple[str, ...]]
    state: Struct
    state_at: Extent
    #: The reset values of the state's scalars, as they lie in memory, by their offset; 0 where there is none.
    reset: dict[int, bytes]
    tables: tuple[Table, ...]
    banks: tuple[Bank, ...]
    registers: tuple[Register, ...]
    #: What hypercalls are called, by their numbers.
    calls: dict[int, str]
    handlers: tuple[Handler, ...]


NO_STATE: Final = Struct("state", (), 0, 1)


def part_type(part: BitRange) -> Int:
    """The type that a slice of these bits has."""
    return smallest_unsigned(part.high - part.low + 1)


def statements(block: Block) -> Iterator[Statement]:
    """Every statement of a body, those of blocks within included."""
    blocks = [block]
    while blocks:
        for statement in blocks.pop().statements:
            yield statement
            match statement:
                case Block():
                    blocks.append(statement)
                case If(then=then, otherwise=otherwise):
                    blocks += [then, *([otherwise] if otherwise else [])]
                case Match(arms=arms, rest=rest):
                    blocks += [*(body for _, body in arms), rest]
                case For(body=body):
                    blocks.append(body)


def roots(statement: Statement) -> tuple[Expr | Place, ...]:
    """A statement's own expressions and places, but for those within its blocks."""
    match statement:
        case Let(value=value):
            return (value,)
        case Return(value=value):
            return () if value is None else (value,)
        case LetReference(place=place):
            return (place,)
        case Assign(place=place, part=part, value=value):
            return (place, value) if part is None or isinstance(part, BitRange) else (place, part, value)
        case Run(call=call):
            return (call,)
        case If(condition=condition):
            return (condition,)
        case Match(subject=subject):
            return (subject,)
        case ArmTimer(deadline=deadline):
            return (deadline,)
    return ()


def parts(node: Expr | Place) -> tuple[Expr | Place, ...]:
    """What an expression or place is made of."""
    match node:
        case Call(arguments=arguments):
            return arguments
        case Load(place=place):
            return (place,)
        case Unary(operand=operand) | Convert(operand=operand) | Slice(operand=operand):
            return (operand,)
        case Bit(operand=operand, index=index):
            return operand, index
        case Binary(left=left, right=right) | Compare(left=left, right=right) | Logic(left=left, right=right):
            return left, right
        case MulDiv(a=a, b=b, c=c):
            return a, b, c
        case FieldPlace(base=base):
            return (base,)
        case ElementPlace(base=base, index=index):
            return base, index
    return ()


def called(statement: Statement) -> Iterator[Function]:
    """The functions that a statement's own expressions call."""
    left = list(roots(statement))
    while left:
        node = left.pop()
        if isinstance(node, Call):
            yield node.function
        left += parts(node)


def relevant_bits(block: Block, symbol: Symbol) -> int:
    """Bits of an integer's name without which the body would do something else, or more than those."""
    found = 0
    left = [(each, -1) for statement in statements(block) for each in roots(statement)]
    while left:
        node, bits = left.pop()
        match node:
            case Variable(symbol=named) if named is symbol:
                found |= bits
            case Binary(op="&", left=other, right=Constant(value=mask)):
                left.append((other, bits & mask))
            case Binary(op="&", left=Constant(value=mask), right=other):
                left.append((other, bits & mask))
            case Binary(op="&" | "|" | "^") | Unary(op="~"):
                left += [(each, bits) for each in parts(node)]
            case _:
                left += [(each, -1) for each in parts(node)]
    return found
