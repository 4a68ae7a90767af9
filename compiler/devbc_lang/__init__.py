"""The compiler of the mini-language: from a device's text to a BPF object, a stage a module.

    parse -> check -> lower -> optimise -> object
    syntax   typed   LLVM IR   module     ELF with BTF

`compile_source` runs the stages as far as one asks. Bad input raises `devbc.diagnostics.Rejected`. The
object is not trusted for having come from here: the verifier judges it like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from devbc.diagnostics import Diagnostic
    from devbc_lang import syntax, typed
    from devbc_lang.source import Source

__all__ = ["Compiled", "compile_file", "compile_source"]


@dataclass(frozen=True)
class Compiled:
    """A device that has been parsed and checked; what comes after is made when it is asked for.

    `warnings`: what was found and is no fault.
    """

    source: Source
    ast: syntax.Device
    typed: typed.Device
    warnings: tuple[Diagnostic, ...]

    @cached_property
    def ast_text(self) -> str:
        """The syntax tree, as text."""
        from devbc_lang.dump import dump

        with _bounded(self.source):
            return dump(self.ast, self.source)

    @cached_property
    def ir(self) -> str:
        """LLVM IR, before optimisation."""
        from devbc_lang.lower import lower

        with _bounded(self.source):
            return lower(self.typed, self.source)

    @cached_property
    def assembly(self) -> str:
        """BPF assembly, in LLVM's syntax."""
        from devbc_lang.emit import emit_assembly

        return emit_assembly(self._module)

    @cached_property
    def object(self) -> bytes:
        """The ELF object."""
        from devbc_lang.emit import emit_object

        return emit_object(self._module)

    @cached_property
    def _module(self) -> Any:
        from devbc_lang.emit import optimise

        return optimise(self.ir)


@contextmanager
def _bounded(source: Source) -> Iterator[None]:
    """Stages walk trees by recursion: a tree too deep for that is the text's fault."""
    try:
        yield
    except RecursionError:
        from devbc.diagnostics import Span, reject
        from devbc_lang.errors import TOO_DEEP

        raise reject(TOO_DEEP, "expressions are nested too deeply", Span(source.name)) from None


def compile_source(text: str, name: str) -> Compiled:
    """Parse and check a device's text. `name` is what diagnostics call it. Raises Rejected."""
    from devbc_lang.check import check
    from devbc_lang.parser import parse
    from devbc_lang.source import Source

    source = Source(text, name)
    with _bounded(source):
        tree = parse(source)
        checked, warnings = check(tree, source)
    return Compiled(source, tree, checked, warnings)


def compile_file(path: Path) -> bytes:
    """The object of a `.dev` file. Raises Rejected, also if the file cannot be read."""
    from devbc.files import read_text

    return compile_source(read_text(path), str(path)).object
