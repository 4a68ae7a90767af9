"""DPDK's librte_bpf: its interpreter and its JIT, on byte code for cpu v2, which is what it knows.

Called through ctypes; no part of DPDK's environment is started. Its shared area and read-only data are
external variables, whose addresses its validator recognises in `lddw`; the clock is an external function.
Layouts: rte_bpf.h of DPDK 22.11, stable since 18.05.

Not here: making it accept what it refuses. Loops, local calls and instructions after v2 are none of its.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final

from devbc.abi import EXIT_SIZE, MapIndex
from devbc.isa.insn import Insn, decode, encode
from devbc.isa.opcodes import SPECS, Operation
from devbc.program.verified import VerifiedHandler

_LIBRARIES: Final = (
    "librte_bpf.so.23",
    "librte_bpf.so.24",
    "librte_bpf.so.25",
    "librte_bpf.so.26",
    "librte_bpf.so",
)
_ARG_RAW, _ARG_PTR = 1, 0x10
_FUNC, _VAR = 0, 1


class _Arg(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("size", ctypes.c_size_t), ("buf_size", ctypes.c_size_t))


class _Function(ctypes.Structure):
    _fields_ = (("val", ctypes.c_void_p), ("nb_args", ctypes.c_uint32), ("args", _Arg * 5), ("ret", _Arg))


class _Variable(ctypes.Structure):
    _fields_ = (("val", ctypes.c_void_p), ("desc", _Arg))


class _Either(ctypes.Union):
    _fields_ = (("func", _Function), ("var", _Variable))


class _Symbol(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("type", ctypes.c_int), ("u", _Either))


class _Parameters(ctypes.Structure):
    _fields_ = (
        ("ins", ctypes.c_void_p), ("nb_ins", ctypes.c_uint32), ("xsym", ctypes.POINTER(_Symbol)),
        ("nb_xsym", ctypes.c_uint32), ("prog_arg", _Arg),
    )  # fmt: skip


class _Jit(ctypes.Structure):
    _fields_ = (("func", ctypes.c_void_p), ("sz", ctypes.c_size_t))


@cache
def library() -> Any | str:
    """The library, or why there is none."""
    for name in _LIBRARIES:
        try:
            found: Any = ctypes.CDLL(name)
        except OSError:
            continue
        found.rte_bpf_load.restype = ctypes.c_void_p
        found.rte_bpf_destroy.argtypes = [ctypes.c_void_p]
        found.rte_bpf_get_jit.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        return found
    return "DPDK's librte_bpf is not installed (Debian: librte-bpf23)"


class Loaded:
    """A handler that librte_bpf has loaded. `jit` is 0 where it has no JIT for the machine."""

    def __init__(self, rte: Any, bpf: int, keep: object) -> None:
        self._rte, self._keep = rte, keep
        self.bpf = bpf
        self.execute = ctypes.cast(rte.rte_bpf_exec, ctypes.c_void_p).value or 0
        jit = _Jit()
        rte.rte_bpf_get_jit(bpf, ctypes.byref(jit))
        self.jit = int(jit.func or 0)

    def __del__(self) -> None:
        self._rte.rte_bpf_destroy(self.bpf)


def load(handler: VerifiedHandler, regions: Mapping[MapIndex, tuple[int, int]], clock: int) -> Loaded | str:
    """Load a handler, or say why not. `regions`: address and bytes of each; `clock`: `u64 (*)(void)`."""
    rte = library()
    if isinstance(rte, str):
        return rte
    symbols = [_clock_symbol(clock)]
    insns: list[Insn] = []
    for insn in decode(handler.handler.code).values():
        match insn.spec.operation:
            case Operation.MAP_VALUE_BY_IDX:
                base, size = regions[MapIndex(insn.map_index)]
                place = base + insn.map_offset
                symbols.append(_variable_symbol(place, size - insn.map_offset))
                insn = replace(insn, spec=SPECS["lddw_imm64"], src=0, imm=place)
            case Operation.CALL_HELPER:
                insn = replace(insn, imm=0)  # the first symbol
        insns.append(insn)
    code = encode(insns)
    table = (_Symbol * len(symbols))(*symbols)
    text = ctypes.create_string_buffer(code, len(code))
    parameters = _Parameters(
        ctypes.addressof(text), len(code) // 8, table, len(symbols), _Arg(_ARG_PTR, EXIT_SIZE, 0)
    )
    with _Log(rte) as log:
        bpf = rte.rte_bpf_load(ctypes.byref(parameters))
    if not bpf:
        return f"librte_bpf refuses it: {log.text or 'without a word'}"
    return Loaded(rte, bpf, (table, text))


def _clock_symbol(clock: int) -> _Symbol:
    function = _Function(val=clock, nb_args=0, ret=_Arg(_ARG_RAW, 8, 0))
    return _Symbol(b"ktime_get_ns", _FUNC, _Either(func=function))


def _variable_symbol(address: int, size: int) -> _Symbol:
    return _Symbol(b"variable", _VAR, _Either(var=_Variable(address, _Arg(_ARG_PTR, size, 0))))


class _Log:
    """What librte writes to its log meanwhile: its validator's only way to say what is wrong."""

    def __init__(self, rte: Any) -> None:
        self.text = ""
        self._rte = rte
        self._libc = ctypes.CDLL(None)
        self._libc.open_memstream.restype = ctypes.c_void_p
        self._buffer, self._size = ctypes.c_char_p(), ctypes.c_size_t()

    def __enter__(self) -> _Log:
        self._stream = self._libc.open_memstream(ctypes.byref(self._buffer), ctypes.byref(self._size))
        self._rte.rte_openlog_stream(ctypes.c_void_p(self._stream))
        return self

    def __exit__(self, *_: object) -> None:
        self._rte.rte_openlog_stream(None)
        self._libc.fclose(ctypes.c_void_p(self._stream))
        lines = (self._buffer.value or b"").decode("utf-8", "replace").splitlines()
        text = next((line.rstrip(";.") for line in lines if line.strip()), "")
        self.text = re.sub(r"\(0x[0-9a-f]+\)", "", text)  # addresses, which no two runs share
