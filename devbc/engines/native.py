"""LLVM as this project uses it: the host's target, its passes, native code as long as its owner lives.

A `NativeModule` is compiled once, from IR built with `llvmlite.ir` or from IR text. Its addresses are valid
while it is alive: whoever hands an address to native code keeps the module.

Not here: what the code does. Compiling is safe for any well-formed IR, calling the result is not.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

from llvmlite import binding, ir

from devbc.cache import key, user_cache, version

#: Records, handlers and the clock all assume what every host of ours is: 64-bit and little-endian.
SUPPORTED_MACHINES: Final = ("x86_64", "aarch64", "riscv64")


@cache
def host_machine() -> str:
    """The host's architecture as `uname -m` names it, with the other systems' names for it folded in."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


class NativeModule:
    """A compiled module: addresses of its functions, and its code for people to read.

    `object` is the host's object file. `imports` are functions of the C
    library that it calls, beside those that LLVM calls of itself. Raises RuntimeError if the IR is malformed,
    which is a bug of whoever built it.

    A module that is given as a function is built when it is needed. With `content`, which names everything
    that its IR is made from, its object file is kept in the user's cache, and found there the next time.

    `optimised`: the IR is of code that an optimiser has been through, and gets what lifting it has undone.
    """

    def __init__(
        self,
        module: ir.Module | str | Callable[[], ir.Module | str],
        exports: Iterable[str],
        imports: Iterable[str] = (),
        *,
        content: str = "",
        optimised: bool = False,
    ) -> None:
        self._module = module
        self._passes = _tidy if optimised else _optimise
        #: LLVM's level of code generation, 0 to 3.
        self._level = 1 if optimised else 2
        self.object = self._kept(content) if content else self._compiled()
        library = binding.JITLibraryBuilder().add_object_img(self.object)
        for name, address in _library(*_COPIES, *imports).items():
            library.import_symbol(name, address)
        for name in exports:
            library.export_symbol(name)
        self._jit = binding.create_lljit_compiler(_target_machine(), use_jit_link=True)
        self._code = library.link(self._jit, "devbc")

    @cached_property
    def source(self) -> str:
        """The IR before optimisation."""
        return str(self._module() if callable(self._module) else self._module)

    def _compiled(self) -> bytes:
        machine = _target_machine(self._level)
        return bytes(machine.emit_object(self._ready(machine)))

    def _ready(self, machine: Any) -> Any:
        """The module, ready for code generation."""
        module = binding.parse_assembly(self.source)
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        module.verify()
        self._passes(module, machine)
        return module

    def _kept(self, content: str) -> bytes:
        """The object file from the user's cache, or for it. LLVM and the host's processor are in the key."""
        kept = user_cache()
        llvm = ".".join(map(str, binding.llvm_version_info))
        entry = key("native", content, llvm, *_host_processor())
        found = kept.get(entry)
        if found is None:
            found = self._compiled()
            kept.put(entry, found)
        return found

    def __del__(self) -> None:
        # At the end of the process the binding may be gone already, and so will be the memory.
        if sys is None or sys.is_finalizing():
            return
        # The code has to go before the linker that placed it; plain garbage collection has no order.
        for owned in ("_code", "_jit"):
            if hasattr(self, owned):
                getattr(self, owned).close()

    def address(self, name: str) -> int:
        """The address of an exported function; KeyError if there is none of that name."""
        address: int = self._code[name]
        return address

    def function(self, name: str, prototype: Any) -> Callable[..., Any]:
        """An exported function as a ctypes callable that keeps the module alive."""
        callable_: Callable[..., Any] = prototype(self.address(name))
        callable_.native_module = self  # type: ignore[attr-defined]
        return callable_

    # Code generation rewrites the module, so what people read is made again from the source: it costs
    # nothing unless asked for, and LLVM is deterministic.

    def optimised_ir(self) -> str:
        """The module's IR as the optimiser leaves it."""
        return str(self._ready(_target_machine(self._level)))

    def assembly(self) -> str:
        """The module's machine code, as assembly for the host."""
        machine = _target_machine(self._level)
        text: str = machine.emit_assembly(self._ready(machine))
        return text


#: The functions that LLVM may call of itself, for large copies and fills.
_COPIES: Final = ("memcpy", "memmove", "memset", "bcmp")


@cache
def _library(*names: str) -> dict[str, int]:
    """Addresses of functions of the C library. No other symbol is visible to a module."""
    process = ctypes.CDLL(None)
    return {name: ctypes.cast(getattr(process, name), ctypes.c_void_p).value or 0 for name in names}


@cache
def _initialise() -> None:
    if host_machine() not in SUPPORTED_MACHINES:
        raise RuntimeError(
            f"native code is supported on {', '.join(SUPPORTED_MACHINES)}, not {host_machine()}"
        )
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


@cache
def engine_version() -> str:
    """A hash of the sources that decide what the engines compile: for the `content` of their modules."""
    root = Path(__file__).parents[1]
    files = [root / f"{name}.py" for name in ("abi", "limits", "semantics")]
    return version(root / "engines", root / "isa", *files)


@cache
def _host_processor() -> tuple[str, str]:
    """LLVM's names of the host's processor and of its features."""
    return binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


def _target_machine(level: int = 2) -> Any:
    """A target machine for this host. A linker takes it over, so it is not shared."""
    _initialise()
    target = binding.Target.from_default_triple()
    cpu, features = _host_processor()
    return target.create_target_machine(
        cpu=cpu,
        features=features,
        opt=level,
        # A module's code and constants are placed together and refer to each other by distance.
        reloc="pic",
        codemodel="small",
    )


def _optimise(module: Any, machine: Any) -> None:
    """The -O2 pipeline."""
    options = binding.create_pipeline_tuning_options(speed_level=2)
    # There are few loops, and each is short: widening them costs code and compile time for nothing, and
    # accesses of shared memory could not be widened anyway.
    options.loop_vectorization = False
    options.slp_vectorization = False
    builder = binding.create_pass_builder(machine, options)
    _run(builder.getModulePassManager(), module, builder)


def _tidy(module: Any, machine: Any) -> None:
    """What code needs that has been optimised, then lifted.

    Its frame becomes values again, and what one machine says in several instructions becomes one. There is
    little left for the rest of -O2, which takes nine times as long.
    """
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options())
    manager = binding.create_new_module_pass_manager()
    manager.add_always_inliner_pass()
    manager.add_global_dead_code_eliminate_pass()
    manager.add_sroa_pass()
    manager.add_instruction_combine_pass()
    manager.add_loop_unroll_pass()
    _run(manager, module, builder)


def _run(manager: Any, module: Any, builder: Any) -> None:
    manager.run(module, builder)
    # llvmlite finds the wrong `_dispose` for it, which does nothing: 80 KiB for every module ever compiled.
    binding.newpassmanagers.NewPassManager._dispose(manager)
    manager.detach()
