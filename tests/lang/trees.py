"""Generated expressions: as text of the language, and as functions of the state that say what it means.

Python's side works on exact integers and says the language's rules once more, independently: wrap at each
operation, counts modulo the width, division towards zero with RFC 9669's results for 0. The state has two
fields of each integer type, and a `flag`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Tree:
    """An expression as text and as a function of the inputs; its type by bits and sign, 0 bits for bool."""

    text: str
    bits: int
    signed: bool
    value: Callable[[dict[str, int]], int]


def wrap(value: int, bits: int, signed: bool) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> bits - 1 else value


def quotient(a: int, b: int) -> int:
    if b == 0:
        return 0
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def remainder(a: int, b: int) -> int:
    return a if b == 0 else a - b * quotient(a, b)


OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": quotient,
    "%": remainder,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}
COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
TYPES = [(bits, signed) for bits in (8, 16, 32, 64) for signed in (False, True)]


def name_of(bits: int, signed: bool) -> str:
    return f"{'i' if signed else 'u'}{bits}" if bits else "bool"


@st.composite
def integers(draw: st.DrawFn, bits: int, signed: bool, depth: int) -> Tree:
    """A tree of an integer type."""
    kinds = ["field", "number"]
    if depth:
        kinds += ["arithmetic", "arithmetic", "shift", "prefix", "convert", "slice", "extreme", "flag"]
    kind = draw(st.sampled_from(kinds))
    name = name_of(bits, signed)
    if kind == "field":
        return draw(field((bits, signed)))
    if kind == "number":
        number = draw(st.integers(0, (1 << bits - signed) - 1))
        return Tree(f"{name}({number:#x})", bits, signed, lambda inputs: number)
    if kind == "arithmetic":
        op = draw(st.sampled_from(sorted(OPERATIONS)))
        # The compiler refuses a divisor that it knows to be 0.
        left = draw(integers(bits, signed, depth - 1))
        right = draw(field((bits, signed)) if op in "/%" else integers(bits, signed, depth - 1))
        compute = OPERATIONS[op]
        return Tree(
            f"({left.text} {op} {right.text})",
            bits,
            signed,
            lambda inputs: wrap(compute(left.value(inputs), right.value(inputs)), bits, signed),
        )
    if kind == "shift":
        left, count = draw(integers(bits, signed, depth - 1)), draw(field(draw(st.sampled_from(TYPES[::2]))))
        op = draw(st.sampled_from(["<<", ">>"]))

        def shifted(inputs: dict[str, int]) -> int:
            by = count.value(inputs) % bits
            value = left.value(inputs)
            return wrap(value << by if op == "<<" else value >> by, bits, signed)

        return Tree(f"({left.text} {op} {count.text})", bits, signed, shifted)
    if kind == "prefix":
        operand = draw(integers(bits, signed, depth - 1))
        op = draw(st.sampled_from(["-", "~"]))
        return Tree(
            f"({op}{operand.text})",
            bits,
            signed,
            lambda inputs: wrap(
                -operand.value(inputs) if op == "-" else ~operand.value(inputs), bits, signed
            ),
        )
    if kind == "convert":
        operand = draw(integers(*draw(st.sampled_from(TYPES)), depth - 1))
        return Tree(
            f"{name}({operand.text})", bits, signed, lambda inputs: wrap(operand.value(inputs), bits, signed)
        )
    if kind == "slice":
        operand = draw(integers(*draw(st.sampled_from(TYPES)), depth - 1))
        high = draw(st.integers(0, operand.bits - 1))
        low = draw(st.integers(0, high))
        return Tree(
            f"{name}(({operand.text})[{high}:{low}])",
            bits,
            signed,
            lambda inputs: wrap(operand.value(inputs) >> low & (1 << high - low + 1) - 1, bits, signed),
        )
    if kind == "extreme":
        left, right = draw(integers(bits, signed, depth - 1)), draw(integers(bits, signed, depth - 1))
        pick = draw(st.sampled_from([min, max]))
        return Tree(
            f"{pick.__name__}({left.text}, {right.text})",
            bits,
            signed,
            lambda inputs: pick(left.value(inputs), right.value(inputs)),
        )
    flag = draw(truths(depth - 1))
    return Tree(f"{name}({flag.text})", bits, signed, flag.value)


@st.composite
def field(draw: st.DrawFn, type: tuple[int, bool]) -> Tree:
    """A field of the state: what the compiler knows nothing of."""
    name = draw(st.sampled_from("ab")) + f"_{name_of(*type)}"
    return Tree(f"state.{name}", *type, lambda inputs: inputs[name])


@st.composite
def truths(draw: st.DrawFn, depth: int) -> Tree:
    """A tree of type bool."""
    kinds = ["field"] if depth <= 0 else ["field", "compare", "logic", "not", "bit"]
    kind = draw(st.sampled_from(kinds))
    if kind == "field":
        return Tree("state.flag", 0, False, lambda inputs: int(inputs["flag"] != 0))
    if kind == "compare":
        type = draw(st.sampled_from(TYPES))
        left, right = draw(integers(*type, depth - 1)), draw(integers(*type, depth - 1))
        op = draw(st.sampled_from(sorted(COMPARISONS)))
        test = COMPARISONS[op]
        return Tree(
            f"({left.text} {op} {right.text})",
            0,
            False,
            lambda inputs: int(test(left.value(inputs), right.value(inputs))),
        )
    if kind == "logic":
        left, right = draw(truths(depth - 1)), draw(truths(depth - 1))
        op = draw(st.sampled_from(["&&", "||"]))
        return Tree(
            f"({left.text} {op} {right.text})",
            0,
            False,
            lambda inputs: (
                left.value(inputs) & right.value(inputs)
                if op == "&&"
                else left.value(inputs) | right.value(inputs)
            ),
        )
    if kind == "not":
        operand = draw(truths(depth - 1))
        return Tree(f"!{operand.text}", 0, False, lambda inputs: 1 - operand.value(inputs))
    operand = draw(integers(*draw(st.sampled_from(TYPES)), depth - 1))
    index = draw(field(draw(st.sampled_from(TYPES[::2]))))
    return Tree(
        f"({operand.text})[{index.text}]",
        0,
        False,
        lambda inputs: operand.value(inputs) >> index.value(inputs) % operand.bits & 1,
    )


FIELDS = {f"{stem}_{name_of(*type)}": type for stem in "ab" for type in TYPES}
INTERESTING = st.sampled_from(
    [0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1]
)


@st.composite
def inputs(draw: st.DrawFn) -> dict[str, int]:
    made = {
        field: wrap(draw(INTERESTING | st.integers(0, (1 << 64) - 1)), *type)
        for field, type in FIELDS.items()
    }
    return made | {"flag": draw(st.sampled_from([0, 1, 2, 255]))}


def trees() -> st.SearchStrategy[Tree]:
    return st.one_of(truths(3), *(integers(*type, 3) for type in TYPES))
