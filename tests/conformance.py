"""The public BPF conformance suite: its file format, and what it means for an engine to pass a file.

A file has sections: `asm` or `raw` (the program; both, if they agree), `mem` (bytes that r1 points to, r2
their number), `result` (r0 at the end) or `error` (the program must be refused), `c` (its source, for
people) and `no register offset` (a hint for engines that rename registers). The files themselves are no part
of this repository: they are looked for beside it, in `../shared/conformance`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devbc.diagnostics import Rejected
from devbc.engines import jit, native_interpreter
from devbc.engines.interpreter import BASES, Fault, Interpreter, Memory
from devbc.isa.asm import assemble
from devbc.isa.insn import decode, encode
from devbc.program.verified import Region
from tests.shared import shared, shared_path

#: Runs byte code on memory, gives r0. Raises Rejected or Fault where it refuses the program.
Engine = Callable[[bytes, bytes], int]

#: Files that no engine of ours runs, each with its reason. Nothing else is left out.
EXCLUDED: Final[Mapping[str, str]] = {
    "callx": "call by register is not in RFC 9669; the assembler refuses it",
}
#: Files in the negative set that are not tests.
NOT_TESTS: Final = frozenset({"invalid.sh"})

_SECTIONS: Final = frozenset({"asm", "raw", "mem", "result", "error", "c", "no register offset"})
_STEP_LIMIT: Final = 1_000_000


class MalformedCase(Exception):  # noqa: N818
    """The file is not a test."""


class Failed(Exception):  # noqa: N818
    """The engine did something else than the file asks."""


@dataclass(frozen=True, slots=True)
class Case:
    """One file: the program, its memory, and the value of r0, or None where an error is asked for."""

    asm: str | None
    raw: bytes | None
    mem: bytes
    result: int | None

    def code(self) -> bytes:
        """The program as byte code. Raises Rejected."""
        if self.asm is None:
            assert self.raw is not None, "parse asks for one of both"
            return self.raw
        return encode(assemble(self.asm))


def parse(text: str) -> Case:
    """The test that a file describes. Raises MalformedCase."""
    sections: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("--"):
            name = line.removeprefix("--").strip()
            if name not in _SECTIONS:
                raise MalformedCase(f"there is no section `{name}`")
            sections[name] = ""
        elif name:
            sections[name] += line + "\n"
    if not sections.keys() & {"asm", "raw"}:
        raise MalformedCase("there is no program")
    if not sections.keys() & {"result", "error"}:
        raise MalformedCase("neither a result nor an error is asked for")
    raw, result = sections.get("raw"), sections.get("result")
    return Case(
        sections.get("asm"),
        None if raw is None else _bytes(raw),
        _bytes(sections.get("mem", "")),
        None if result is None else int(result.strip(), 0),
    )


def check(case: Case, engine: Engine) -> None:
    """Raises Failed unless the engine does what the case asks; Rejected and Fault where it refuses."""
    r0 = engine(case.code(), case.mem)
    if case.result is None:
        raise Failed(f"r0 = {r0:#x}, where an error is asked for")
    if r0 != case.result:
        raise Failed(f"r0 = {r0:#x}, where {case.result:#x} is asked for")


def _bytes(text: str) -> bytes:
    """Bytes in hexadecimal, or 64-bit little-endian words with 0x before them."""
    words = re.sub(r"#.*", "", text).split()
    return b"".join(
        int(word, 16).to_bytes(8, "little") if word.startswith("0x") else bytes.fromhex(word)
        for word in words
    )


def run_interpreter(code: bytes, mem: bytes) -> int:
    """The reference interpreter, as an engine."""
    memory = (Memory(Region.EXIT, bytearray(mem)),)
    interpreter = Interpreter(decode(code), memory, clock=lambda: 0, step_limit=_STEP_LIMIT)
    return interpreter.run(BASES[Region.EXIT], len(mem)).r0


#: The engines that must pass. Each runs every file that is not excluded.
ENGINES: Final[dict[str, Engine]] = {
    "interpreter": run_interpreter,
    "native-interpreter": native_interpreter.run_raw,
    "jit": jit.run_raw,
}


def files(folder: str) -> list[Path]:
    """The files of the suite in `tests` or `negative`, none if the suite is not there."""
    found = sorted((shared_path("conformance") / folder).glob("*"))
    return [path for path in found if path.name not in NOT_TESTS]


def require_suite() -> None:
    """Skip the test where the suite is missing."""
    shared("conformance")


__all__ = [
    "ENGINES", "EXCLUDED", "Case", "Engine", "Failed", "Fault", "MalformedCase", "Rejected", "check", "files",
    "parse", "require_suite", "run_interpreter",
]  # fmt: skip
