"""What a stored register's bits do, as statements: the code that a datasheet's words stand for.

A read is one load, and one store if bits are cleared by it; a write at most one of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from devbc_lang import typed
from devbc_lang.source import Extent
from devbc_lang.typed import Constant, Expr, Symbol
from devbc_lang.types import Int

#: What bits do. Those that no line names are `ro`.
BEHAVIOURS: Final = ("rw", "ro", "wo", "w1c", "rc")


@dataclass(frozen=True, slots=True)
class Masks:
    """Bits of a stored register by what they do."""

    readable: int
    written: int
    cleared_by_one: int
    cleared_by_read: int


def returning(value: Expr, at: Extent) -> typed.Block:
    return typed.Block((typed.Return(value, at),), False)


def _and(left: Expr, mask: int, type: Int, at: Extent) -> Expr:
    return left if mask == type.most else typed.Binary("&", left, Constant(type, mask), type, at)


def storage_read(place: typed.Place, type: Int, masks: Masks, at: Extent) -> typed.Block:
    load = typed.Load(place, type, at)
    if not masks.cleared_by_read:
        return returning(_and(load, masks.readable, type, at), at)
    old = Symbol("old", type, at, used=True)
    value = typed.Variable(old, type)
    kept = _and(value, type.most & ~masks.cleared_by_read, type, at)
    return typed.Block(
        (
            typed.Let(old, load, at),
            typed.Assign(place, None, "", kept, at),
            typed.Return(_and(value, masks.readable, type, at), at),
        ),
        False,
    )


def storage_write(
    place: typed.Place, type: Int, masks: Masks, value: Symbol, mask: Symbol | None, at: Extent
) -> typed.Block:
    """`old & ~kept | v & written`, then without the bits that a 1 clears; one load, one store."""
    if not masks.written | masks.cleared_by_one:
        return typed.Block((), True)
    new: Expr = typed.Variable(value, type)
    if mask is None and masks.written == type.most:
        return typed.Block((typed.Assign(place, None, "", new, at),), True)

    def binary(op: str, left: Expr, right: Expr) -> Expr:
        return typed.Binary(op, left, right, type, at)

    def touched(bits: int) -> Expr:
        """Those of the bits that this access writes."""
        return Constant(type, bits) if mask is None else _and(typed.Variable(mask, type), bits, type, at)

    old = Symbol("old", type, at, used=True)
    result: Expr = typed.Variable(old, type)
    if masks.written:
        written = touched(masks.written)
        kept = binary("&", result, typed.Unary("~", written, type))
        result = binary("|", kept, binary("&", new, written))
    if masks.cleared_by_one:
        cleared = binary("&", new, touched(masks.cleared_by_one))
        result = binary("&", result, typed.Unary("~", cleared, type))
    return typed.Block(
        (typed.Let(old, typed.Load(place, type, at), at), typed.Assign(place, None, "", result, at)), True
    )
