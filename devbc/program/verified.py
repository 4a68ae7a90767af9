"""A verified program: what the verifier has proven of a program, and engines may rely on.

Only `devbc.verifier` makes these values. An engine that holds one emits no checks for what is proven here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from devbc.abi import Helper
from devbc.isa.insn import Insn
from devbc.program.program import Handler, Program


class HandlerClass(StrEnum):
    """Pure handlers write no scratch and run without a lock; mutating ones run under the device's lock."""

    PURE = "pure"
    MUTATING = "mutating"


class Region(StrEnum):
    """Memory that a program can name."""

    EXIT = "exit"  # struct devbc_exit, r1 at entry
    STACK = "stack"  # the frame of the function at hand, below r10
    OUTER_STACK = "outer_stack"  # a caller's frame
    SCRATCH = "scratch"
    RODATA = "rodata"


@dataclass(frozen=True, slots=True)
class AccessFact:
    """Where a load, store or atomic goes, on every path that reaches it.

    `region` is None if paths differ in the region. `offset` is the byte offset from the region's start
    (stack: from r10, negative), or None if it is not the same on every path.
    """

    region: Region | None
    offset: int | None


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` up to, not including, `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class VerifiedHandler:
    """A handler and what holds of each of its runs, whatever exit, scratch and clock say.

    `insns`: the instructions by slot that some run may reach; the others are dead. `accesses`: a fact for
    each memory instruction among them. `worst_case`: instructions of the longest run, the exit counted.
    `stack_bytes`: bytes that all frames of the deepest call chain use together. `effects`: names of the
    exit's effect fields that some run may set (`devbc.abi.EXIT_FIELDS`).
    """

    handler: Handler
    insns: Mapping[int, Insn]
    accesses: Mapping[int, AccessFact]
    worst_case: int
    stack_bytes: int
    handler_class: HandlerClass
    may_decline: bool
    may_handle: bool
    scratch_read: tuple[ByteRange, ...]
    scratch_written: tuple[ByteRange, ...]
    effects: frozenset[str]
    helpers: frozenset[Helper]


@dataclass(frozen=True, slots=True)
class VerifiedProgram:
    """`digest` names all that proof and handlers come from, if whoever verified it knows; or it is empty."""

    program: Program
    handlers: tuple[VerifiedHandler, ...]
    digest: str = field(default="", compare=False)
