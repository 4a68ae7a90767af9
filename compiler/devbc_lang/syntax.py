"""The syntax tree: what the text says, before names and types mean anything.

One dataclass for each production of `grammar.lark`. Every node carries its `Extent` as `at`. Nothing is
checked here: `state.x[3]` is an `Index` whether `x` is an array or a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from devbc_lang.source import Extent


@dataclass(frozen=True, slots=True)
class Name:
    text: str
    at: Extent


# --- expressions ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number:
    value: int
    at: Extent


@dataclass(frozen=True, slots=True)
class Truth:
    """`true` or `false`."""

    value: bool
    at: Extent


@dataclass(frozen=True, slots=True)
class Prefix:
    """`-x`, `~x`, `!x`."""

    op: str
    operand: Expr
    at: Extent


@dataclass(frozen=True, slots=True)
class Infix:
    """`a + b`, `a == b`, `a && b`."""

    op: str
    left: Expr
    right: Expr
    op_at: Extent
    at: Extent


@dataclass(frozen=True, slots=True)
class Call:
    """A function, a built-in, or a conversion: `u8(x)`."""

    name: Name
    arguments: tuple[Expr, ...]
    at: Extent


@dataclass(frozen=True, slots=True)
class Member:
    """`base.name`"""

    base: Expr
    name: Name
    at: Extent


@dataclass(frozen=True, slots=True)
class Index:
    """`base[index]`: an element of an array, or a bit of a number."""

    base: Expr
    index: Expr
    at: Extent


@dataclass(frozen=True, slots=True)
class Slice:
    """`base[high:low]`"""

    base: Expr
    high: Expr
    low: Expr
    at: Extent


@dataclass(frozen=True, slots=True)
class Reference:
    """`&place`"""

    place: Expr
    at: Extent


@dataclass(frozen=True, slots=True)
class List:
    """`[1, 2, 3]`, the value of an array."""

    elements: tuple[Initial, ...]
    at: Extent


Expr = Name | Number | Truth | Prefix | Infix | Call | Member | Index | Slice | Reference
#: What a constant or a reset value may be.
Initial = Expr | List


# --- types ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ArrayType:
    """`[element; count]`"""

    element: TypeExpr
    count: Expr
    at: Extent


@dataclass(frozen=True, slots=True)
class ReferenceType:
    """`&T`, of parameters"""

    target: TypeExpr
    at: Extent


TypeExpr = Name | ArrayType | ReferenceType


# --- statements -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block:
    statements: tuple[Statement, ...]
    at: Extent


@dataclass(frozen=True, slots=True)
class Let:
    """`let x = e;` and, with `mutable`, `var x: T = e;`"""

    name: Name
    mutable: bool
    type: TypeExpr | None
    value: Expr
    at: Extent


@dataclass(frozen=True, slots=True)
class Assign:
    """`target = value;`; `op` is the operator of `+=` and its like, otherwise empty"""

    target: Expr
    op: str
    value: Expr
    at: Extent


@dataclass(frozen=True, slots=True)
class CallStatement:
    call: Call
    at: Extent


@dataclass(frozen=True, slots=True)
class If:
    condition: Expr
    then: Block
    otherwise: Block | None
    at: Extent


@dataclass(frozen=True, slots=True)
class Pattern:
    """`low`, or `low..high` which leaves `high` out; `_` has no `low`."""

    low: Expr | None
    high: Expr | None
    at: Extent


@dataclass(frozen=True, slots=True)
class Arm:
    patterns: tuple[Pattern, ...]
    body: Block
    at: Extent


@dataclass(frozen=True, slots=True)
class Match:
    subject: Expr
    arms: tuple[Arm, ...]
    at: Extent


@dataclass(frozen=True, slots=True)
class For:
    name: Name
    start: Expr
    end: Expr
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


class EffectKind(StrEnum):
    RAISE = "raise"
    LOWER = "lower"
    PULSE = "pulse"
    SIGNAL = "signal"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Effect:
    """`raise irq;`, `signal tx;`, `cancel tick;`"""

    kind: EffectKind
    port: Name
    at: Extent


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """`arm timer at deadline;`"""

    port: Name
    deadline: Expr
    at: Extent


Statement = (
    Block
    | Let
    | Assign
    | CallStatement
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


@dataclass(frozen=True, slots=True)
class Const:
    name: Name
    type: TypeExpr | None
    value: Initial
    at: Extent


class PortKind(StrEnum):
    LINE = "line"
    INPUT = "input"
    SIGNAL = "signal"
    TIMER = "timer"


@dataclass(frozen=True, slots=True)
class Port:
    kind: PortKind
    name: Name
    at: Extent


@dataclass(frozen=True, slots=True)
class FieldDecl:
    """A field of a structure or of the state; only the latter has reset values."""

    name: Name
    type: TypeExpr
    reset: Initial | None
    at: Extent


@dataclass(frozen=True, slots=True)
class StructDecl:
    name: Name
    fields: tuple[FieldDecl, ...]
    at: Extent


@dataclass(frozen=True, slots=True)
class State:
    fields: tuple[FieldDecl, ...]
    at: Extent


@dataclass(frozen=True, slots=True)
class Parameter:
    name: Name
    type: TypeExpr
    at: Extent


@dataclass(frozen=True, slots=True)
class Function:
    name: Name
    parameters: tuple[Parameter, ...]
    result: TypeExpr | None
    body: Block
    at: Extent


@dataclass(frozen=True, slots=True)
class Read:
    """`read(i) { }`"""

    parameters: tuple[Name, ...]
    body: Block
    at: Extent


@dataclass(frozen=True, slots=True)
class Write:
    """`write(i, v, mask) { }`"""

    parameters: tuple[Name, ...]
    body: Block
    at: Extent


@dataclass(frozen=True, slots=True)
class WriteIgnore:
    """`write ignore;`"""

    at: Extent


@dataclass(frozen=True, slots=True)
class Bits:
    """`bits high:low behaviour;`"""

    high: Expr
    low: Expr | None
    behaviour: Name
    at: Extent


@dataclass(frozen=True, slots=True)
class Called:
    """`read number` or `write number`: the hypercall that does what the read or write does."""

    op: str
    number: Expr
    at: Extent


RegisterMember = Read | Write | WriteIgnore | Bits


@dataclass(frozen=True, slots=True)
class Register:
    """`register name[count] at offset stride n : type access sizes call ops = value in place { members }`"""

    name: Name
    count: Expr | None
    offset: Expr
    stride: Expr | None
    type: TypeExpr
    access: tuple[Expr, ...]
    calls: tuple[Called, ...]
    value: Expr | None
    place: Expr | None
    members: tuple[RegisterMember, ...]
    at: Extent


@dataclass(frozen=True, slots=True)
class Bank:
    """`space name[size]`; the default bank of a space has no name of its own."""

    space: Name
    name: Name | None
    size: Expr
    at: Extent


@dataclass(frozen=True, slots=True)
class Banks:
    """`bank pio[16], mmio[16] { }`: one list of registers, in each of the banks."""

    banks: tuple[Bank, ...]
    registers: tuple[Register, ...]
    at: Extent


@dataclass(frozen=True, slots=True)
class Hypercall:
    """`hypercall number name(parameters) -> result { }`"""

    number: Expr
    name: Name
    parameters: tuple[Parameter, ...]
    result: TypeExpr | None
    body: Block
    at: Extent


@dataclass(frozen=True, slots=True)
class On:
    """`on port(parameter) { }`: a timer has expired, or an input has changed."""

    port: Name
    parameter: Name | None
    body: Block
    at: Extent


Item = Const | Port | StructDecl | State | Function | Banks | Hypercall | On


@dataclass(frozen=True, slots=True)
class Device:
    name: Name
    items: tuple[Item, ...]
    at: Extent
