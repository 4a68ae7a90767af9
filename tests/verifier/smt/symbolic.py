"""Running Python functions on unknown integers: every path they can take, and what holds on each.

`Integer` behaves as Python's int does, without overflow: it is a two's complement bit-vector that grows by as
many bits as an operation needs. `Truth` is a comparison of such. Where Python asks one for its truth, the
run forks: `proofs` runs the function again and again, each time with other answers, until every combination
of answers that the assumptions allow has been seen. So what is proven is proven of the function itself, and
not of a copy written for the solver.

A proof fails with `DisprovedError`, that shows values for which the goal does not hold, or with
`UndecidedError` if the solver gave up.

Not here: which functions, and what is proven of them (`words.py`, `test_proofs.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import z3

#: Paths of one function; more are a sign that the function should be proven in parts.
_PATHS: Final = 4000

#: The widest left shift by an unknown amount. A path on which an amount could be larger must be impossible.
_SHIFTED: Final = 128

Expr = Any  # z3 has no types


class DisprovedError(AssertionError):
    """A goal does not hold; the message shows for which values."""


class UndecidedError(AssertionError):
    """The solver gave up on a goal."""


class Run:
    """One run of a function: the answers given so far, and what they and the assumptions amount to."""

    current: Run

    def __init__(self, answers: list[bool], timeout: int, proven: dict[Any, Any]) -> None:
        self.facts: list[Expr] = []
        self._known: set[Expr] = set()
        #: Those facts that are answers.
        self._answered: set[Expr] = set()
        self._proven = proven
        self.answers = answers
        self.asked = 0
        self.others: list[list[bool]] = []
        self.goals = 0
        self._timeout = timeout
        self._names = 0

    def fresh(self, name: str, bits: int) -> Expr:
        self._names += 1
        return z3.BitVec(f"{name}.{self._names}", bits)

    def assume(self, fact: Expr) -> None:
        # Of a number of 66 bits of which 64 are used, two need not be computed.
        for each in _conjuncts(z3.simplify(fact, bv_extract_prop=True)):
            if not z3.is_true(each) and each not in self._known:
                self._known.add(each)
                self.facts.append(each)

    def possible(self, *more: Expr) -> bool:
        """Whether the facts and `more` do not contradict each other; True if the solver gives up."""
        return bool(self._check(self.facts, *more)[0] != z3.unsat)

    def holds(self, goal: Expr) -> bool:
        """Whether the goal follows from the facts, as far as the solver finds out."""
        return all(self._counterexample(each) is None for each in _conjuncts(goal))

    def prove(self, goal: Expr, what: str) -> None:
        self.goals += 1
        for each in _conjuncts(goal):
            found = self._counterexample(each)
            if found is z3.unknown:
                raise UndecidedError(f"{what}: {each}")
            if found is not None:
                raise DisprovedError(f"{what}: {each} for {found}")

    def _counterexample(self, goal: Expr) -> Any:
        """A model of the facts in which the goal fails; None if there is none; or `unknown`."""
        # Facts of the goal's own unknowns alone often suffice, and what follows from some follows from all.
        unknowns = _unknowns(goal)
        relevant = [fact for fact in self.facts if _unknowns(fact) <= unknowns and fact not in self._answered]
        key = (frozenset(each.get_id() for each in relevant), goal.get_id())
        if key in self._proven or self._check(relevant, z3.Not(goal))[0] == z3.unsat:
            # Kept with what is identified, for the other paths of the same theorem.
            self._proven[key] = (relevant, goal)
            return None
        answer, model = self._check(self.facts, z3.Not(goal))
        return model if answer == z3.sat else None if answer == z3.unsat else z3.unknown

    def _check(self, facts: list[Expr], *more: Expr) -> tuple[Any, Any]:
        solver = z3.SolverFor("QF_BV")
        solver.set("timeout", 1000 * self._timeout)
        solver.add(*facts, *[z3.simplify(each, bv_extract_prop=True) for each in more])
        answer = solver.check()
        return answer, solver.model() if answer == z3.sat else None

    def ask(self, condition: Expr) -> bool:
        """One of the truths that the condition can have here; the other is left for a later run."""
        condition = z3.simplify(condition)
        if z3.is_true(condition) or z3.is_false(condition):
            return bool(z3.is_true(condition))
        if self.asked < len(self.answers):
            answer = self.answers[self.asked]
        else:
            answer = self.possible(condition)
            if answer and self.possible(z3.Not(condition)):
                self.others.append([*self.answers, False])
            self.answers.append(answer)
        self.asked += 1
        fact = z3.simplify(condition if answer else z3.Not(condition), bv_extract_prop=True)
        self._answered.update(_conjuncts(fact))
        self.assume(fact)
        return answer


def _conjuncts(condition: Expr) -> list[Expr]:
    if not z3.is_and(condition):
        return [condition]
    return [each for part in condition.children() for each in _conjuncts(part)]


_unknowns_of: dict[int, tuple[Expr, frozenset[str]]] = {}


def _unknowns(expr: Expr) -> frozenset[str]:
    """The names of the unknowns in an expression; remembered by identity, with what is identified kept."""
    known = _unknowns_of.get(expr.get_id())
    if known is not None:
        return known[1]
    children = expr.children()
    if not children and expr.decl().kind() == z3.Z3_OP_UNINTERPRETED:
        name = expr.decl().name()
        # A value's unknown bits come along with the value.
        names = frozenset() if name.startswith("some.") else frozenset({name})
    else:
        names = frozenset().union(*map(_unknowns, children))
    _unknowns_of[expr.get_id()] = (expr, names)
    return names


def proofs(theorem: Callable[[Run], None], *, timeout: int = 60) -> int:
    """Run `theorem` on every path; the number of paths. What it asserts it asserts by `Run.prove`."""
    waiting: list[list[bool]] = [[]]
    proven: dict[Any, Any] = {}
    paths = 0
    while waiting:
        run = Run.current = Run(waiting.pop(), timeout, proven)
        theorem(run)
        assert run.goals, "a path on which nothing is proven"
        waiting += run.others
        paths += 1
        assert paths <= _PATHS, "too many paths"
    return paths


class Truth:
    """A condition on unknown integers."""

    __slots__ = ("expr",)

    def __init__(self, expr: Expr) -> None:
        self.expr = expr

    def __bool__(self) -> bool:
        return Run.current.ask(self.expr)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> Truth:  # type: ignore[override]
        assert isinstance(other, Truth)
        return Truth(self.expr == other.expr)


class Integer:
    """An unknown integer: the two's complement number `expr`, of as many bits as it may need."""

    __slots__ = ("expr",)

    def __init__(self, expr: Expr) -> None:
        self.expr = expr

    @staticmethod
    def unsigned(vector: Expr) -> Integer:
        return Integer(z3.ZeroExt(1, vector))

    @staticmethod
    def signed(vector: Expr) -> Integer:
        return Integer(vector)

    @property
    def bits(self) -> int:
        return int(self.expr.size())

    def low(self, bits: int) -> Expr:
        """The lowest bits, as a bit-vector."""
        return z3.simplify(z3.Extract(bits - 1, 0, _wide(self, max(bits, self.bits))), bv_extract_prop=True)

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        return Run.current.ask(self.expr != 0)

    def __index__(self) -> int:
        value = z3.simplify(self.expr)
        assert z3.is_bv_value(value), "a number that is not known is used where Python needs a known one"
        return int(value.as_signed_long())

    # Arithmetic: exact, since the result is as wide as any result can be.

    def __add__(self, other: Number) -> Integer:
        a, b = _aligned(self, other, 1)
        return Integer(a + b)

    def __sub__(self, other: Number) -> Integer:
        a, b = _aligned(self, other, 1)
        return Integer(a - b)

    def __rsub__(self, other: int) -> Integer:
        return integer(other) - self

    def __mul__(self, other: Number) -> Integer:
        other = integer(other)
        bits = self.bits + other.bits
        return Integer(_wide(self, bits) * _wide(other, bits))

    def __neg__(self) -> Integer:
        return 0 - self

    def __invert__(self) -> Integer:
        return Integer(~self.expr)

    def __and__(self, other: Number) -> Integer:
        if isinstance(other, int) and other >= 0:
            bits = max(other.bit_length(), 1)
            return Integer.unsigned(self.low(bits) & other)
        a, b = _aligned(self, other)
        return Integer(a & b)

    def __or__(self, other: Number) -> Integer:
        a, b = _aligned(self, other)
        return Integer(a | b)

    def __xor__(self, other: Number) -> Integer:
        a, b = _aligned(self, other)
        return Integer(a ^ b)

    __radd__, __rmul__, __rand__, __ror__, __rxor__ = __add__, __mul__, __and__, __or__, __xor__

    def __lshift__(self, amount: Number) -> Integer:
        if isinstance(amount, int):
            bits = self.bits + amount
            return Integer(_wide(self, bits) << amount)
        assert amount <= _SHIFTED, "a shift by more than the proof allows for"
        bits = max(self.bits + _SHIFTED, amount.bits)
        return Integer(_wide(self, bits) << _wide(amount, bits))

    def __rlshift__(self, number: int) -> Integer:
        return integer(number) << self

    def __rshift__(self, amount: Number) -> Integer:
        if isinstance(amount, int):
            shifted = self.expr >> min(amount, self.bits - 1)
            return Integer(z3.Extract(max(self.bits - 1 - amount, 0), 0, shifted))
        a, b = _aligned(self, amount)
        return Integer(a >> b)

    def __floordiv__(self, divisor: Number) -> Integer:
        a, b = _aligned(self, divisor, 1)
        quotient, remainder = a / b, z3.SRem(a, b)
        inexact = z3.And(remainder != 0, (remainder < 0) != (b < 0))
        return Integer(z3.If(inexact, quotient - 1, quotient))

    def __rfloordiv__(self, dividend: int) -> Integer:
        return integer(dividend) // self

    def __mod__(self, divisor: Number) -> Integer:
        a, b = _aligned(self, divisor, 1)
        run = Run.current
        if not run.possible(z3.Or(b <= 0, b & (b - 1) != 0)):
            # Of a power of two, as proven just now: solvers find division hard and masks easy.
            return Integer(a & (b - 1))
        return Integer(a % b)

    def __abs__(self) -> Integer:
        return integer(choose(self < 0, -self, self))

    def bit_length(self) -> BitLength:
        return BitLength(self)

    def to_bytes(self, size: int, order: str) -> list[Integer]:
        whole = self.low(8 * size)
        parts = [Integer.unsigned(z3.Extract(8 * at + 7, 8 * at, whole)) for at in range(size)]
        return parts if order == "little" else parts[::-1]

    # Comparisons.

    def __eq__(self, other: object) -> Truth:  # type: ignore[override]
        if not isinstance(other, (Integer, int)):
            return Truth(z3.BoolVal(False))
        a, b = _aligned(self, other)
        return Truth(a == b)

    def __ne__(self, other: object) -> Truth:  # type: ignore[override]
        return Truth(z3.Not((self == other).expr))

    def __lt__(self, other: Number) -> Truth:
        a, b = _aligned(self, other)
        return Truth(a < b)

    def __le__(self, other: Number) -> Truth:
        a, b = _aligned(self, other)
        return Truth(a <= b)

    def __gt__(self, other: Number) -> Truth:
        a, b = _aligned(self, other)
        return Truth(a > b)

    def __ge__(self, other: Number) -> Truth:
        a, b = _aligned(self, other)
        return Truth(a >= b)


Number = Integer | int


class BitLength:
    """The number of bits of an unknown number that is not negative; of use as a shift amount only."""

    def __init__(self, number: Integer) -> None:
        self._number = number

    def __rlshift__(self, one: int) -> Integer:
        """The least power of two above the number: each bit below its highest is set, and 1 is added."""
        assert one == 1
        return self._smeared() + 1

    def __lt__(self, other: BitLength) -> Truth:
        return self._smeared() < other._smeared()

    def _smeared(self) -> Integer:
        assert self._number >= 0
        smeared, shift = self._number.expr, 1
        while shift < self._number.bits:
            smeared |= z3.LShR(smeared, shift)
            shift *= 2
        return Integer(smeared)


def integer(number: Number) -> Integer:
    if isinstance(number, Integer):
        return number
    return Integer(z3.BitVecVal(number, number.bit_length() + 1))


def _wide(number: Integer, bits: int) -> Expr:
    return z3.SignExt(bits - number.bits, number.expr) if bits > number.bits else number.expr


def _aligned(a: Number, b: Number, more: int = 0) -> tuple[Expr, Expr]:
    a, b = integer(a), integer(b)
    bits = max(a.bits, b.bits) + more
    return _wide(a, bits), _wide(b, bits)


# What Python's own functions are on unknown numbers.


def choose(condition: Truth | bool, a: Number, b: Number) -> Number | Any:
    if isinstance(condition, bool):
        return a if condition else b
    left, right = _aligned(a, b)
    return Integer(z3.If(condition.expr, left, right))


def least(*numbers: Any) -> Any:
    result, *rest = numbers if len(numbers) > 1 else numbers[0]
    for each in rest:
        result = choose(each < result, each, result)
    return result


def greatest(*numbers: Any) -> Any:
    result, *rest = numbers if len(numbers) > 1 else numbers[0]
    for each in rest:
        result = choose(each > result, each, result)
    return result


class Int(int):
    """`int` with `from_bytes` of unknown bytes."""

    @classmethod
    def from_bytes(cls, parts: Any, order: Any = "big", *, signed: bool = False) -> Any:
        if isinstance(parts, bytes):
            return int.from_bytes(parts, order, signed=signed)
        ordered = parts if order == "big" else parts[::-1]
        return Integer.unsigned(z3.Concat(*[each.low(8) for each in ordered]))
