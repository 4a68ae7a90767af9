"""The text of one LLVM function under construction: instructions, blocks, the place in the source.

LLVM IR is written as text and parsed by LLVM: that is some ten times faster than building it from Python
objects, and what `--emit ir` shows is what LLVM reads. Types are those of the language; the few shapes that
IR has for them are here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devbc_lang.debuginfo import DebugInfo
from devbc_lang.source import Extent
from devbc_lang.types import Bool, Int, Type, Untyped


def llvm_type(type: Type | Untyped | None) -> str:
    """The type of a value: bool is `i1`."""
    if isinstance(type, Bool):
        return "i1"
    assert isinstance(type, Int)
    return f"i{type.bits}"


def memory_type(type: Type | None) -> str:
    """The type of a value in memory: bool is a byte."""
    return "i8" if isinstance(type, Bool) else llvm_type(type)


def constant(value: int, type: Int) -> str:
    """A constant as IR writes it; modulo 2**bits."""
    return str(type.wrap(value))


class _Block:
    """A basic block in the dominator tree: `above` is the nearest one that every way to it passes.

    `far` is further up, how far depends on the depth alone: a walk up takes a logarithm of steps (E. Myers,
    "An applicative random-access stack", 1983). The entry is above itself.
    """

    __slots__ = ("above", "depth", "far")

    def __init__(self, above: _Block | None) -> None:
        self.above: _Block = above or self
        self.depth: int = above.depth + 1 if above else 0
        self.far: _Block = self.above
        if above and above.depth - above.far.depth == above.far.depth - above.far.far.depth:
            self.far = above.far.far

    def at(self, depth: int) -> _Block:
        """The block above, or this one, at a depth."""
        block = self
        while block.depth > depth:
            block = block.far if block.far.depth >= depth else block.above
        return block

    def reaches(self, below: _Block) -> bool:
        """Whether every way to another block passes this one, or it is the other."""
        return below.at(self.depth) is self

    def common(self, other: _Block) -> _Block:
        """The nearest block that is above both, or is one of them."""
        depth = min(self.depth, other.depth)
        left, right = self.at(depth), other.at(depth)
        while left is not right:
            apart = left.far is not right.far
            left, right = (left.far, right.far) if apart else (left.above, right.above)
        return left


@dataclass(slots=True)
class _Arrival:
    """What holds of all branches to a label so far.

    `above`: the nearest block that all of them pass. `words`: what is known of words of the exit.
    `decided`: a condition and its value, where there is but one branch, which depends on it.
    """

    above: _Block
    words: Mapping[str, int]
    decided: tuple[str, str] | None


class FunctionBuilder:
    """Appends to the current block; `terminated` when nothing can follow in it.

    `at`: the place in the source of what is emitted. `here`: the current block's label. A block that nothing
    reaches is not started. `words`: words of the exit whose value is known here; never changed in place.
    `count`: instructions so far, with those that were not needed: it bounds the time that a body may take.

    What is known at once is not computed again (`compute`, `branch_if`, `words`): it costs less than to have
    LLVM find it, and its passes find less of it (`docs/decisions.md`).
    """

    def __init__(self, debug: DebugInfo, scope: str) -> None:
        self.debug = debug
        self.scope = scope
        self.at = Extent(0, 0)
        self.here = "entry"
        self.terminated = False
        self.words: Mapping[str, int] = {}
        self.count = 0
        self._places: dict[int, str] = {}
        self._entry: list[str] = []
        self._lines: list[str] = []
        self._labels = 0
        self._block = _Block(None)
        self._arrivals: dict[str, _Arrival] = {}
        #: The branch that ends the current block, not written yet: the label and the place in the source.
        self._leaving: tuple[str, Extent] | None = None
        #: What has been computed, by its text, and conditions that are decided: the result, and the block.
        self._computed: dict[str, tuple[str, _Block]] = {}
        self._decided: dict[str, tuple[str, _Block]] = {}

    def lines(self) -> list[str]:
        """The function's body; variables are in the entry block, where LLVM makes registers of them."""
        return ["entry:", *self._entry, *self._lines]

    # --- instructions ---

    def compute(self, text: str) -> str:
        """The result of an instruction that has no effect and depends on nothing but its operands.

        It is appended unless every way to here has passed one like it.
        """
        known = self._computed.get(text)
        if known is not None and known[1].reaches(self._block):
            self.count += 1
            return known[0]
        name = self.emit(text)
        if not self.terminated:
            self._computed[text] = name, self._block
        return name

    def emit(self, text: str) -> str:
        """Append an instruction; the name of its result."""
        name = f"%v{self.count}"
        self._append(f"{name} = {text}")
        return name

    def emit_void(self, text: str) -> None:
        """Append an instruction without a result."""
        self._append(text)

    def _append(self, text: str) -> None:
        """What nothing reaches is dropped; its values are used by nothing but what is dropped as well."""
        self.count += 1
        if not self.terminated:
            self._write(text, self.at)

    def _write(self, text: str, at: Extent) -> None:
        place = self._places.get(at.start)
        if place is None:
            place = self._places[at.start] = self.debug.location(at, self.scope)
        self._lines.append(f"  {text}, !dbg {place}")

    def variable(self, type: str) -> str:
        """A variable of this type; the address."""
        name = f"%p{len(self._entry)}"
        self._entry.append(f"  {name} = alloca {type}")
        return name

    def phi(self, type: str, incoming: Sequence[tuple[str, str]]) -> str:
        """The value that came here, of these with the blocks that they come from."""
        values = {value for value, _ in incoming}
        if len(values) == 1:
            return values.pop()  # defined above all that come, or a constant
        return self.emit(f"phi {type} {', '.join(f'[ {value}, %{label} ]' for value, label in incoming)}")

    # --- blocks ---

    def label(self, stem: str) -> str:
        self._labels += 1
        return f"{stem}.{self._labels}"

    def start(self, label: str) -> None:
        """Begin a block; control that has not left the one before runs into it.

        Branches back to it, of a loop, come from below it, and change no `words` that are known here.
        """
        self.branch(label)
        self._leave()
        arrival = self._arrivals.get(label)
        self.terminated = arrival is None
        if arrival is not None:
            self.here, self.words = label, arrival.words
            self._block = _Block(arrival.above)
            self._lines.append(f"{label}:")
            if arrival.decided is not None:
                condition, value = arrival.decided
                self._decided[condition] = value, self._block

    def join(self, label: str) -> None:
        """Go on where branches to a label meet: in the same block, if there is none but the last one.

        All of them are known: nothing that follows branches back to it.
        """
        self.branch(label)
        if self._leaving is not None and self._leaving[0] == label and label not in self._arrivals:
            self._leaving = None
            self.terminated = False
        else:
            self.start(label)

    def branch(self, label: str) -> None:
        if not self.terminated:
            self._leaving = label, self.at
            self.terminated = True
            self.count += 1

    def branch_if(self, condition: str, true: str, false: str) -> None:
        if condition in self._decided:
            value, block = self._decided[condition]
            condition = value if block.reaches(self._block) else condition
        if condition in ("true", "false"):
            self.branch(true if condition == "true" else false)
        elif not self.terminated:
            self._arrive(true, (condition, "true"))
            self._arrive(false, (condition, "false"))
            self.emit_void(f"br i1 {condition}, label %{true}, label %{false}")
            self.terminated = True

    def switch(self, type: str, subject: str, cases: Mapping[str, str], rest: str) -> None:
        """Branch to the label of the case that the subject is, or to `rest`."""
        if not cases:
            self.branch(rest)
        elif not self.terminated:
            for label in (*cases.values(), rest):
                self._arrive(label)
            listed = " ".join(f"{type} {value}, label %{label}" for value, label in cases.items())
            self.emit_void(f"switch {type} {subject}, label %{rest} [ {listed} ]")
            self.terminated = True

    def ret(self, value: int) -> None:
        self.emit_void(f"ret i64 {value:d}")
        self.terminated = True

    def _leave(self) -> None:
        """Write the branch that ends the block, now that it is needed."""
        if self._leaving is not None:
            label, at = self._leaving
            self._leaving = None
            self._arrive(label)
            self._write(f"br label %{label}", at)

    def _arrive(self, label: str, decided: tuple[str, str] | None = None) -> None:
        arrival = self._arrivals.get(label)
        if arrival is None:
            self._arrivals[label] = _Arrival(self._block, self.words, decided)
            return
        arrival.above = arrival.above.common(self._block)
        arrival.decided = None
        if arrival.words is not self.words:
            arrival.words = {
                word: value for word, value in arrival.words.items() if self.words.get(word) == value
            }
