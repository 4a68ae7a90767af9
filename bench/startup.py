"""Benchmark `startup`: what a program costs before its first exit, by stage, against its size, and with the
cache.

Stages are of one process that has imported everything: compile (text to object), load (object to program),
verify, JIT. The machine's five devices are also brought up as a whole, without the cache and from a cache
that has seen them, and in a fresh process, Python's own start included.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.runner import Bench, Competitor, cpus, once, pinned
from devbc.cache import DISABLE

NAME: Final = "startup"

STAGES: Final = ("compile", "load", "verify", "JIT")
#: Of a stage, what LLVM takes by itself.
BY_LLVM: Final = {"compile": "compile, LLVM alone", "JIT": "JIT, LLVM alone"}
PC: Final = "PC's five devices, text to callable"
COLD: Final = "cold"
CACHED: Final = "cached"
FRESH_COLD: Final = "fresh process, cold"
FRESH_CACHED: Final = "fresh process, cached"
HELP: Final = "devbc --help"
PYTHON: Final = "Python itself"
SIZE: Final = "against size"

_DEVICES: Final = ("acpi_pm_timer", "i8254", "mc146818", "uart16550", "hpet")
_SIZES: Final = (10, 30, 100, 300, 1000, 3000)
_CALLABLE: Final = """
import sys
from devbc.catalog import load_machine
from devbc.engines.jit import JitEngine
devices, _ = load_machine(sys.argv[1])
JitEngine().load([each.verified for each in devices])
"""
#: For tests of the suite itself, where five devices take too long.
_TINY_MACHINE: Final = """
[[device]]
name = "pmtimer"
type = "acpi_pm_timer"
at = { pio = 0x608 }
"""


def run(bench: Bench) -> None:
    tiny = bench.effort.repetitions == 1
    with pinned(cpus()[:1]):
        # Code of the JIT's is kept by content: a stage is what it takes the first time.
        with environment({DISABLE: "1"}):
            for device in _DEVICES[:1] if tiny else _DEVICES:
                _stages(bench, device)
            _size(bench, _SIZES[:2] if tiny else _SIZES)
        with tempfile.TemporaryDirectory(prefix="devbc-bench-") as folder:
            tiny_machine = Path(folder) / "tiny.toml"
            tiny_machine.write_text(_TINY_MACHINE)
            _machine(bench, str(tiny_machine) if tiny else "pc")


def _stages(bench: Bench, device: str) -> None:
    """One device's stages, each from the result of the one before."""
    from bench.subjects import source
    from devbc.engines.jit import JitEngine
    from devbc.engines.native import NativeModule
    from devbc.program.elf import load_object
    from devbc.verifier import verify_program
    from devbc_lang import compile_source
    from devbc_lang.emit import emit_object, optimise

    path = source(device)
    text = path.read_text()
    compiled = compile_source(text, str(path))
    data = compiled.object
    program = load_object(data, name=device)
    proven = verify_program(program)
    lifted = [module.source for module in JitEngine().load([proven]).modules]
    calls: dict[str, Callable[[], Any]] = {
        "compile": lambda: compile_source(text, str(path)).object,
        "load": lambda: load_object(data, name=device),
        "verify": lambda: verify_program(program),
        "JIT": lambda: JitEngine().load([proven]),
        BY_LLVM["compile"]: lambda: emit_object(optimise(compiled.ir)),
        BY_LLVM["JIT"]: lambda: [NativeModule(ir, (), optimised=True) for ir in lifted],
    }
    note = f"{len(program.handlers)} handlers"
    competitors = [Competitor(name, once(call), 1, note=note) for name, call in calls.items()]
    bench.compete(device, competitors, unit="ms", slow=True)


def _machine(bench: Bench, machine: str) -> None:
    """The whole machine, from text to callable."""
    with tempfile.TemporaryDirectory(prefix="devbc-bench-") as folder:
        os.chmod(folder, 0o700)
        cold, cached = {DISABLE: "1"}, {DISABLE: "", "XDG_CACHE_HOME": folder}
        with environment(cached):
            _callable(machine)
        python = [sys.executable, "-c", _CALLABLE, machine]
        help = [sys.executable, "-m", "devbc.cli.main", "--help"]
        competitors = [
            Competitor(COLD, once(_within(cold, partial(_callable, machine))), 1),
            Competitor(CACHED, once(_within(cached, partial(_callable, machine))), 1),
            Competitor(FRESH_COLD, once(_within(cold, partial(_process, python))), 1),
            Competitor(FRESH_CACHED, once(_within(cached, partial(_process, python))), 1),
            Competitor(HELP, once(partial(_process, help)), 1),
            Competitor(PYTHON, once(partial(_process, [sys.executable, "-c", ""])), 1),
        ]
        bench.compete(PC, competitors, unit="ms", slow=True)


def _callable(machine: str) -> None:
    from devbc.catalog import load_machine
    from devbc.engines.jit import JitEngine

    devices, _ = load_machine(machine)
    JitEngine().load([each.verified for each in devices])


def _process(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def _within(variables: dict[str, str], call: Callable[[], None]) -> Callable[[], None]:
    def inside() -> None:
        with environment(variables):
            call()

    return inside


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables for a while; an empty one is none."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set({name: value or "" for name, value in before.items()})


def _set(variables: dict[str, str]) -> None:
    for name, value in variables.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


def _size(bench: Bench, sizes: tuple[int, ...]) -> None:
    """Verifier and JIT on straight lines of so many instructions."""
    from bench.families import straight_line
    from devbc.abi import Space, parse_binding
    from devbc.engines.jit import JitEngine
    from devbc.isa.asm import assemble
    from devbc.isa.insn import encode
    from devbc.program.program import Bank, Function, Handler, Names, Program
    from devbc.verifier import verify_program

    section = "pio/write@0x0:4"
    binding = parse_binding(section)
    assert not isinstance(binding, str)
    for size in sizes:
        code = encode(assemble(straight_line(size)))
        handler = Handler(section, binding, code, (Function("entry", 0),))
        program = Program("straight", (handler,), bytes(64), b"", Names(), (Bank("pio", Space.PIO, 4),))
        proven = verify_program(program)
        calls: dict[str, Callable[[], Any]] = {
            "verify": partial(verify_program, program),
            "JIT": partial(JitEngine().load, [proven]),
        }
        competitors = [Competitor(name, once(call), 1, x=float(size)) for name, call in calls.items()]
        bench.compete(f"{SIZE}: {size} instructions", competitors, unit="ms", slow=True)
