"""A syntax tree as text, for `devbc compile --emit ast`: a node a line, children indented."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from devbc_lang import syntax
from devbc_lang.source import Extent, Source


def dump(tree: syntax.Device, source: Source) -> str:
    return "\n".join(_lines("", tree, source, 0)) + "\n"


def _lines(name: str, node: Any, source: Source, depth: int) -> Iterator[str]:
    label = f"{name}: " if name else ""
    indent = "  " * depth
    if isinstance(node, tuple):
        if node:
            yield f"{indent}{name}:"
            for each in node:
                yield from _lines("", each, source, depth + 1)
        return
    if not is_dataclass(node) or isinstance(node, type):
        return
    at: Extent = getattr(node, "at")  # noqa: B009 - every node has one
    line, column = source.position(at.start)
    if isinstance(node, syntax.Name):
        yield f"{indent}{label}{node.text}  @{line}:{column}"
        return
    inner = [(field.name, getattr(node, field.name)) for field in fields(node)]
    inner = [(key, value) for key, value in inner if not isinstance(value, Extent)]
    plain = " ".join(f"{key}={_plain(value)}" for key, value in inner if _is_plain(value))
    yield f"{indent}{label}{type(node).__name__}{' ' if plain else ''}{plain}  @{line}:{column}"
    for key, value in inner:
        if not _is_plain(value) and value is not None:
            yield from _lines(key, value, source, depth + 1)


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | str | Enum)


def _plain(value: Any) -> str:
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:#x}"
        if isinstance(value, int) and value > 0xFFFF
        else str(value)
    )
