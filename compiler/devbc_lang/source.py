"""A source text and places in it.

Syntax and typed trees carry an `Extent`, two offsets that cost nothing; a `Source` turns it into the line,
column and text that diagnostics and debug information show. Not here: reading files.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from devbc.diagnostics import Span


class Extent(NamedTuple):
    """Characters `start` up to, not including, `end` of a source text."""

    start: int
    end: int

    def to(self, other: Extent) -> Extent:
        """From the start of this to the end of another."""
        return Extent(self.start, other.end)


class Source:
    """A text and the name that diagnostics call it by."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name

    @cached_property
    def _starts(self) -> list[int]:
        """Where each line begins."""
        return [0, *accumulate(len(line) + 1 for line in self.text.split("\n")[:-1])]

    def position(self, offset: int) -> tuple[int, int]:
        """The line and column of a character, counted from 1."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def span(self, at: Extent) -> Span:
        """The span of an extent; one over several lines ends with its first."""
        line, column = self.position(at.start)
        start = self._starts[line - 1]
        text = (
            self.text[start:].split("\n", 1)[0]
            if line == len(self._starts)
            else self.text[start : self._starts[line] - 1]
        )
        return Span(
            self.name, line, column, min(at.end, start + len(text)) - start + 1, text.removesuffix("\r")
        )
