"""What a program is run on, as data: the context that r1 points to, and what is asked of the result.

A handler's context is the exit: its fields, what a program may do with each, and what the handler's binding
says of their contents at entry (`exit_context`). Raw instructions can be verified against any run of bytes
(`bytes_context`). The verifier knows no other difference between the two.

Held true: the fields lie in order and leave no byte of the context out.

Not here: the other regions (shared area, read-only data, stack), whose rules are the same everywhere, and
what a policy withholds (`policy.py`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from devbc import abi, limits
from devbc.abi import EXIT_FIELDS, Access, Field
from devbc.verifier.arithmetic import WordAlgebra
from devbc.verifier.word import Word

_U64: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Known:
    """Numbers from `least` to `most`, `step` apart; `step` is a power of two."""

    least: int = 0
    most: int = 0
    step: int = 1

    def word(self, words: WordAlgebra) -> Word:
        step = self.step
        last = self.most - (self.most - self.least) % step
        word = words.make(64, value=self.least % step, mask=-step & _U64, umin=self.least, umax=last)
        assert word is not None, "least is one of the numbers"
        return word


ZERO: Final[tuple[Known, ...]] = (Known(),)
ANYTHING: Final[tuple[Known, ...]] = (Known(0, _U64),)


class Layout:
    """The fields of a context, in order."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self.size = self.fields[-1].end if self.fields else 0
        #: For sets of fields: a bit each.
        self.bit: Mapping[str, int] = {field.name: 1 << number for number, field in enumerate(self.fields)}
        self._starts = [field.offset for field in self.fields]

    def at(self, byte: int) -> Field:
        return self.fields[bisect_right(self._starts, byte) - 1]

    def between(self, start: int, end: int) -> tuple[Field, ...]:
        """The fields that bytes `start` up to `end` touch."""
        first, last = (bisect_right(self._starts, byte) - 1 for byte in (start, end - 1))
        return self.fields[first : last + 1]


@dataclass(frozen=True)
class Context:
    """`initial`: what a field holds at entry, as alternatives, taken as one 64-bit number each; elements of
    an array alike. `arguments`: what registers hold beside r1, which points to the context. `verdict`:
    whether r0 must be a verdict at the end, and a run that declines leave scratch alone.
    """

    layout: Layout
    initial: Mapping[str, tuple[Known, ...]]
    arguments: Mapping[int, int]
    verdict: bool

    @property
    def size(self) -> int:
        return self.layout.size

    def loaded(self, words: WordAlgebra, lo: int, hi: int, size: int) -> Word:
        """What is known at entry of `size` bytes that begin somewhere from `lo` to `hi`."""
        field = self.layout.at(lo)
        if hi + size > field.end:
            return words.unknown(8 * size)
        first, *others = (known.word(words) for known in self.initial[field.name])
        for other in others:
            first = words.join(first, other)
        return part(words, field, first, lo, hi, size)


def part(words: WordAlgebra, field: Field, whole: Word, lo: int, hi: int, size: int) -> Word:
    """What a load of `size` bytes from `lo` to `hi` gives, inside a field that holds `whole`."""
    # A load of a part, as compilers make of a mask or shift: its bytes from where it begins.
    inside = lo - field.offset
    if hi == lo and field.count == 1 and inside:
        whole = words.lshr(whole, words.const(8 * inside, 64), 64)
    elif hi != lo and size < field.size:
        whole = words.unknown(64)
    return whole if size == 8 else words.trunc(whole, 64, 8 * size)


_EXIT: Final = Layout(tuple(EXIT_FIELDS.values()))


def exit_context(binding: abi.Binding) -> Context:
    """The exit of an access, a timer, a line or a hypercall, as far as the binding says what it holds."""
    initial: dict[str, tuple[Known, ...]] = dict.fromkeys(EXIT_FIELDS, ZERO)
    initial["clock_offset"] = ANYTHING
    initial["vcpu"] = (Known(0, (1 << 32) - 1),)
    match binding:
        case abi.AccessBinding(lo=lo, hi=hi, sizes=sizes):
            # An access's offset from `lo` is a multiple of its size, and so of the smallest one.
            initial["offset"] = (Known(lo, hi, min(sizes)),)
            initial["size"] = tuple(Known(size, size) for size in sizes)
            if binding.op is abi.Op.WRITE:
                initial["value"] = (Known(0, (1 << 8 * max(sizes)) - 1),)
        case abi.TimerBinding() | abi.LineBinding():
            ports = limits.TIMERS if isinstance(binding, abi.TimerBinding) else limits.LINES
            initial["offset"] = (Known(0, ports - 1),)
            initial["value"] = ANYTHING
        case abi.HypercallBinding(number=number):
            initial["offset"] = (Known(number, number),)
            initial["arg"] = ANYTHING
    return Context(_EXIT, initial, {}, verdict=True)


def bytes_context(size: int) -> Context:
    """`size` bytes that may be read and written, of any contents, at r1; their number in r2.

    This is how the public conformance suite calls a program. The result may be any number.
    """
    field = Field("context", 0, 1, size, Access.READ_WRITE, "the program's bytes")
    return Context(Layout((field,) if size else ()), {"context": ANYTHING}, {2: size}, verdict=False)
