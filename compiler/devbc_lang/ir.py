"""The text of one LLVM function under construction: instructions, blocks, the place in the source.

LLVM IR is written as text and parsed by LLVM: that is some ten times faster than building it from Python
objects, and what `--emit ir` shows is what LLVM reads. Types are those of the language; the few shapes that
IR has for them are here.
"""

from __future__ import annotations

from collections.abc import Mapping

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


class FunctionBuilder:
    """Appends to the current block; `terminated` when nothing can follow in it.

    `at`: the place in the source of what is emitted. `wanted`: labels that something jumps to; a block that
    nothing reaches is not started. `count`: instructions so far.
    """

    def __init__(self, debug: DebugInfo, scope: str) -> None:
        self.debug = debug
        self.scope = scope
        self.at = Extent(0, 0)
        self.terminated = False
        self.wanted: set[str] = set()
        self.count = 0
        self._entry: list[str] = []
        self._lines: list[str] = []
        self._labels = 0

    def lines(self) -> list[str]:
        """The function's body; variables are in the entry block, where LLVM makes registers of them."""
        return ["entry:", *self._entry, *self._lines]

    def emit(self, text: str) -> str:
        """Append an instruction; the name of its result."""
        name = f"%v{self.count}"
        self._append(f"{name} = {text}")
        return name

    def emit_void(self, text: str) -> None:
        self._append(text)

    def _append(self, text: str) -> None:
        """What nothing reaches is dropped; its values are used by nothing but what is dropped as well."""
        self.count += 1
        if self.terminated:
            return
        self._lines.append(f"  {text}, !dbg {self.debug.location(self.at, self.scope)}")

    def variable(self, type: str) -> str:
        """A variable of this type; the address."""
        name = f"%p{len(self._entry)}"
        self._entry.append(f"  {name} = alloca {type}")
        return name

    def label(self, stem: str) -> str:
        self._labels += 1
        return f"{stem}.{self._labels}"

    def start(self, label: str) -> None:
        """Begin a block; control that has not left the one before runs into it."""
        if not self.terminated:
            self.branch(label)
        self.terminated = label not in self.wanted
        if not self.terminated:
            self._lines.append(f"{label}:")

    def branch(self, label: str) -> None:
        if not self.terminated:
            self.wanted.add(label)
            self.emit_void(f"br label %{label}")
            self.terminated = True

    def branch_if(self, condition: str, true: str, false: str) -> None:
        if condition in ("true", "false"):
            self.branch(true if condition == "true" else false)
        elif not self.terminated:
            self.wanted |= {true, false}
            self.emit_void(f"br i1 {condition}, label %{true}, label %{false}")
            self.terminated = True

    def ret(self, value: int) -> None:
        self.emit_void(f"ret i64 {value:d}")
        self.terminated = True

    def switch(self, type: str, subject: str, cases: Mapping[str, str], rest: str) -> None:
        """Branch to the label of the case that the subject is, or to `rest`."""
        if not cases:
            self.branch(rest)
        elif not self.terminated:
            self.wanted |= {*cases.values(), rest}
            listed = " ".join(f"{type} {value}, label %{label}" for value, label in cases.items())
            self.emit_void(f"switch {type} {subject}, label %{rest} [ {listed} ]")
            self.terminated = True
