"""The handlers in C at -O2, built with whatever compiler the machine has, and called through a pointer."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import devbc

_SOURCE: Final = Path(__file__).parent / "handlers.c"
_FLAGS: Final = ("-O2", "-march=native", "-fPIC", "-shared", "-std=gnu11", "-w")
_SECONDS: Final = 120


@cache
def compiler() -> str | None:
    """The C compiler: $CC, or the first of the usual ones that is there."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    return None


class CHandlers:
    """The compiled handlers, in several places; addresses are valid while this object lives."""

    def __init__(self, libraries: Sequence[ctypes.CDLL]) -> None:
        self._libraries = libraries

    def address(self, name: str, place: int = 0) -> int:
        return ctypes.cast(getattr(self._libraries[place], name), ctypes.c_void_p).value or 0


def build(states: Mapping[str, type[Any]], places: int = 1) -> CHandlers | str:
    """Compile the handlers, or say why not.

    `states`: each device's shared area as a ctypes type. `places`: how often they are loaded.
    """
    from devbc.engines.clock import CLOCK_PAGE, SHIFT, ClockKind

    if (command := compiler()) is None:
        return "no C compiler (cc, gcc or clang) is installed"
    writer = _Structs()
    writer.parts += [f"#define CLOCK_{kind.name} {kind.value}" for kind in ClockKind]
    writer.parts.append(f"#define CLOCK_SHIFT {SHIFT}")
    writer.add("clock_page", CLOCK_PAGE.struct)
    for device, state in states.items():
        writer.add(f"{device}_state", state, prefix=f"{device}_")
    include = Path(devbc.__file__).parent / "include"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "layouts.h").write_text("\n".join(writer.parts))
        library = Path(folder) / "handlers.so"
        arguments = [command, *_FLAGS, f"-I{folder}", f"-I{include}", str(_SOURCE), "-o", str(library)]
        try:
            done = subprocess.run(arguments, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"`{command}` fails: {error}"
        if done.returncode:
            return f"`{command}` refuses them: {(done.stderr.splitlines() or ['without a word'])[0]}"
        # Another file is loaded to another place; once mapped, it may go.
        copies = [shutil.copy(library, f"{library}.{place}") for place in range(places)]
        return CHandlers([ctypes.CDLL(copy) for copy in copies])


class _Structs:
    """ctypes structures as C declarations: their layout is said once, in type information and layouts."""

    _SCALARS: Final = {
        ctypes.c_bool: "_Bool", ctypes.c_uint8: "u8", ctypes.c_uint16: "u16", ctypes.c_uint32: "u32",
        ctypes.c_uint64: "u64", ctypes.c_int8: "s8", ctypes.c_int16: "s16", ctypes.c_int32: "s32",
        ctypes.c_int64: "s64", ctypes.c_void_p: "void *",
    }  # fmt: skip

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._names: dict[type[Any], str] = {}

    def add(self, name: str, kind: type[Any], prefix: str = "") -> None:
        fields = "".join(self._field(each[0], each[1], prefix) for each in kind._fields_)
        size = f'_Static_assert(sizeof(struct {name}) == {ctypes.sizeof(kind)}, "{name}");' if fields else ""
        self.parts.append(f"struct {name} {{\n{fields}}};\n{size}")

    def _field(self, name: str, kind: Any, prefix: str) -> str:
        suffix = ""
        while kind not in self._SCALARS and issubclass(kind, ctypes.Array):
            suffix += f"[{kind._length_}]"
            kind = kind._type_
        if kind in self._SCALARS:
            return f"\t{self._SCALARS[kind]} {name}{suffix};\n"
        if kind not in self._names:
            self._names[kind] = prefix + kind.__name__.lower()
            self.add(self._names[kind], kind, prefix)
        return f"\tstruct {self._names[kind]} {name}{suffix};\n"
