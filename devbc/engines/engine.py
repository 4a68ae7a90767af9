"""What the hypervisor asks of an engine: make verified handlers callable by native code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from devbc.program.verified import VerifiedHandler, VerifiedProgram


class LoadedPrograms(Protocol):
    """Handlers that an engine has made callable; they stay callable while this object lives."""

    def address(self, handler: VerifiedHandler) -> int:
        """The address of `u64 handler(exit *, scratch *, rodata *, clock *)`."""
        ...


class Engine(Protocol):
    """Something that can run verified programs: the JIT, or an interpreter."""

    @property
    def name(self) -> str: ...
    def load(self, programs: Sequence[VerifiedProgram]) -> LoadedPrograms: ...
