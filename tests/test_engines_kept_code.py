"""Native code that is kept by content: compiled once, found again, and never another program's."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from devbc.cache import DISABLE, user_cache
from devbc.catalog import compile_object
from devbc.engines.clock import virtual_page
from devbc.engines.jit import JitEngine, JitProgram
from devbc.engines.native import NativeModule
from devbc.hypervisor.device import placed
from devbc.hypervisor.layouts import EXIT
from devbc.program.verified import VerifiedProgram
from devbc.verifier.cached import verify_object

SOURCE = """
device counter {{
    state {{ count: u32 }}
    bank pio[4] {{ register value at 0 : u32 {{ read {{ return {value}; }} }} }}
    bank mmio[4] {{ register other at 0 : u32 {{ read {{ return 7; }} }} }}
}}
"""


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(DISABLE)
    return tmp_path / "devbc"


def verified(tmp_path: Path, value: int) -> VerifiedProgram:
    source = tmp_path / "counter.dev"
    source.write_text(SOURCE.format(value=value))
    return verify_object(compile_object(source), name="counter", cache=user_cache())


def compiled(program: JitProgram) -> bool:
    """Whether its IR was built: the module keeps it once it is."""
    return any("source" in vars(module) for module in program.modules)


def answers(program: JitProgram) -> list[int]:
    found = []
    for handler in program.programs[0].handlers:
        exit_, scratch, clock = EXIT.struct(size=4), ctypes.create_string_buffer(8), virtual_page()
        assert program.function(handler)(ctypes.byref(exit_), scratch, None, ctypes.byref(clock)) == 1
        found.append(int(exit_.value))
    return found


def test_code_is_compiled_once_for_the_same_program(tmp_path: Path) -> None:
    loads = [JitEngine().load([verified(tmp_path, 5)]) for _ in range(2)]
    assert [compiled(each) for each in loads] == [True, False]
    assert [[each.object for each in load.modules] for load in loads[:1]] == [
        [each.object for each in load.modules] for load in loads[1:]
    ]
    assert [answers(each) for each in loads] == [[5, 7], [5, 7]]
    assert "define" in loads[1].ir  # what people read is built when they ask


def test_another_program_has_other_code(tmp_path: Path) -> None:
    assert answers(JitEngine().load([verified(tmp_path, 5)])) == [5, 7]
    other = JitEngine().load([verified(tmp_path, 6)])
    assert compiled(other)
    assert answers(other) == [6, 7]


def test_a_part_of_a_program_is_another_program(tmp_path: Path) -> None:
    program = verified(tmp_path, 5)
    for at, expected in (({"pio": 0, "mmio": 0}, [5, 7]), ({"pio": 0}, [5]), ({"mmio": 0}, [7])):
        for again in (False, True):
            loaded = JitEngine().load([placed(program, at)])
            assert answers(loaded) == expected
            assert compiled(loaded) is not again


def test_a_damaged_entry_is_compiled_anew(tmp_path: Path, kept: Path) -> None:
    program = verified(tmp_path, 5)
    JitEngine().load([program])
    (entry,) = kept.glob("native-*")
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 1
    entry.write_bytes(data)
    again = JitEngine().load([program])
    assert compiled(again)
    assert answers(again) == [5, 7]


def test_a_program_without_a_digest_leaves_nothing_behind(tmp_path: Path, kept: Path) -> None:
    from dataclasses import replace

    program = replace(verified(tmp_path, 5), digest="")
    assert answers(JitEngine().load([program])) == [5, 7]
    assert not list(kept.glob("native-*"))


def test_content_decides_and_nothing_else() -> None:
    text = "define i64 @f() {{ ret i64 {0} }}".format
    prototype = ctypes.CFUNCTYPE(ctypes.c_uint64)
    results = [
        NativeModule(text(value), ["f"], content=content).function("f", prototype)()
        for value, content in ((1, "a"), (2, "b"), (3, "a"))
    ]
    assert results == [1, 2, 1]


def test_many_handlers_are_several_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM compiles one module at a time: a client's large program must not make the others wait for long."""
    from devbc.engines import jit

    program = verified(tmp_path, 5)
    whole = JitEngine().load([program])
    monkeypatch.setattr(jit, "MODULE_SLOTS", 1)
    parts = JitEngine().load([program])
    assert (len(whole.modules), len(parts.modules)) == (1, 2)
    assert answers(parts) == answers(whole)
    assert all(program.handlers[0].handler.section in text for text in (parts.ir, parts.assembly))
