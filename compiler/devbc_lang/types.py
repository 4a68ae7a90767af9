"""Types and their layout, which is C's: each field at a multiple of its alignment, little-endian.

`UNTYPED` is the type of a number that nothing has asked a type of yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Bool:
    """A byte in the shared area: 0 is false, anything else is true."""

    @property
    def size(self) -> int:
        return 1

    def __str__(self) -> str:
        return "bool"


@dataclass(frozen=True, slots=True)
class Int:
    bits: int
    signed: bool

    @property
    def size(self) -> int:
        return self.bits // 8

    @property
    def least(self) -> int:
        return -(1 << self.bits - 1) if self.signed else 0

    @property
    def most(self) -> int:
        return (1 << self.bits - self.signed) - 1

    def holds(self, value: int) -> bool:
        return self.least <= value <= self.most

    def wrap(self, value: int) -> int:
        """The value of this type that is congruent to `value` modulo 2**bits."""
        value &= (1 << self.bits) - 1
        return value - (1 << self.bits) if self.signed and value >> self.bits - 1 else value

    def widens_to(self, other: Int) -> bool:
        """Whether `other` holds every value of this type."""
        return other.least <= self.least and self.most <= other.most

    def __str__(self) -> str:
        return f"{'i' if self.signed else 'u'}{self.bits}"


@dataclass(frozen=True, slots=True)
class Untyped:
    def __str__(self) -> str:
        return "a number"


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    type: Type
    offset: int


@dataclass(frozen=True, slots=True)
class Struct:
    name: str
    fields: tuple[Field, ...]
    size: int
    align: int

    def field(self, name: str) -> Field | None:
        return next((each for each in self.fields if each.name == name), None)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Array:
    element: Type
    count: int

    @property
    def size(self) -> int:
        return self.element.size * self.count

    def __str__(self) -> str:
        return f"[{self.element}; {self.count}]"


Scalar = Bool | Int
Type = Scalar | Struct | Array
#: The type of an expression; functions without a result have none.
ValueType = Scalar | Untyped

BOOL: Final = Bool()
UNTYPED: Final = Untyped()
U8, U16, U32, U64 = (Int(bits, False) for bits in (8, 16, 32, 64))
I8, I16, I32, I64 = (Int(bits, True) for bits in (8, 16, 32, 64))
SCALARS: Final[dict[str, Scalar]] = {str(each): each for each in (BOOL, U8, U16, U32, U64, I8, I16, I32, I64)}


def shown(value: int) -> str:
    """A number in a message: decimal, and as a power of two where a bound is too long to be read."""
    for power, text in ((1 << 63, "2**63"), (1 << 64, "2**64")):
        if abs(value) == power:
            return text if value > 0 else f"-{text}"
        if value == power - 1:
            return f"{text} - 1"
    return f"{value:_}"


def align_of(type: Type) -> int:
    match type:
        case Struct():
            return type.align
        case Array():
            return align_of(type.element)
        case _:
            return type.size


def lay_out(name: str, members: list[tuple[str, Type]]) -> Struct:
    """A structure of these members in this order; its size is a multiple of its alignment."""
    fields: list[Field] = []
    end, align = 0, 1
    for member, type in members:
        own = align_of(type)
        offset = -(-end // own) * own
        fields.append(Field(member, type, offset))
        end, align = offset + type.size, max(align, own)
    return Struct(name, tuple(fields), -(-end // align) * align, align)


def smallest_unsigned(bits: int) -> Int:
    """The smallest unsigned type with at least this many bits."""
    return next(each for each in (U8, U16, U32, U64) if each.bits >= bits)


def default_type(value: int) -> Int:
    """What a number is where nothing asks: u32 if it fits, then u64, i64."""
    return next((each for each in (U32, U64, I64) if each.holds(value)), U64)


def common(left: Scalar, right: Scalar) -> Scalar | None:
    """The type of an operator's operands, or None if one would have to be converted explicitly."""
    if left == right:
        return left
    if isinstance(left, Int) and isinstance(right, Int):
        if left.widens_to(right):
            return right
        if right.widens_to(left):
            return left
    return None
