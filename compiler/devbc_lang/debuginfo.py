"""Debug metadata, from which LLVM makes BTF: the type of the shared area, handlers, and source lines.

The source's text travels in the `DIFile`, so that line information carries the lines themselves and the
object does not depend on where the source lies. All of a handler's instructions are of the handler's scope,
also those of functions that run in place: BTF knows lines, and no inlining.
"""

from __future__ import annotations

from typing import Final

from devbc_lang.source import Extent, Source
from devbc_lang.types import Array, Bool, Int, Struct, Type

_UNIT = "!0"
_FILE = "!1"

_ESCAPES: Final = {byte: f"\\{byte:02x}" for byte in range(256) if not 0x20 <= byte < 0x7F or byte in b'"\\'}


def quoted(data: bytes) -> str:
    """A string as IR writes it: everything but plain characters as two hexadecimal digits."""
    return f'"{data.decode("latin-1").translate(_ESCAPES)}"'


class DebugInfo:
    """Collects the metadata nodes of a module; each method gives the node's name."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._nodes: list[str] = ["", ""]
        self._made: dict[str, str] = {}
        self._types: dict[Type, str] = {}
        self._globals: list[str] = []
        exit_type = self._node(
            '!DICompositeType(tag: DW_TAG_structure_type, name: "devbc_exit", flags: DIFlagFwdDecl)'
        )
        pointer = self._node(f"!DIDerivedType(tag: DW_TAG_pointer_type, baseType: {exit_type}, size: 64)")
        result = self._type(Int(64, False))
        self._signature = self._node(f"!DISubroutineType(types: !{{{result}, {pointer}}})")

    def function(self, name: str, at: Extent) -> str:
        """A handler, declared at `at`."""
        line, _ = self._source.position(at.start)
        return self._distinct(
            f"!DISubprogram(name: {_string(name)}, scope: {_FILE}, file: {_FILE}, line: {line}, "
            f"type: {self._signature}, scopeLine: {line}, flags: DIFlagPrototyped, "
            f"spFlags: DISPFlagDefinition | DISPFlagOptimized, unit: {_UNIT})"
        )

    def location(self, at: Extent, scope: str) -> str:
        """A place within a function."""
        line, column = self._source.position(at.start)
        return self._node(f"!DILocation(line: {line}, column: {column}, scope: {scope})")

    def state(self, state: Struct, at: Extent) -> str:
        """The global variable `state`."""
        line, _ = self._source.position(at.start)
        variable = self._distinct(
            f'!DIGlobalVariable(name: "state", scope: {_UNIT}, file: {_FILE}, line: {line}, '
            f"type: {self._type(state)}, isLocal: false, isDefinition: true)"
        )
        expression = self._node(f"!DIGlobalVariableExpression(var: {variable}, expr: !DIExpression())")
        self._globals.append(expression)
        return expression

    def metadata(self) -> str:
        """All nodes, as they stand at the end of a module."""
        globals = self._node(f"!{{{', '.join(self._globals)}}}")
        self._nodes[0] = (
            f'distinct !DICompileUnit(language: DW_LANG_C11, file: {_FILE}, producer: "devbc", '
            f"isOptimized: true, runtimeVersion: 0, emissionKind: LineTablesOnly, globals: {globals}, "
            "nameTableKind: None)"
        )
        name, text = _string(self._source.name), _string(self._source.text)
        self._nodes[1] = f'!DIFile(filename: {name}, directory: "", source: {text})'
        flags = [
            self._node('!{i32 2, !"Debug Info Version", i32 3}'),
            self._node('!{i32 7, !"Dwarf Version", i32 5}'),
        ]
        nodes = [f"!{number} = {text}" for number, text in enumerate(self._nodes)]
        named = [f"!llvm.dbg.cu = !{{{_UNIT}}}", f"!llvm.module.flags = !{{{', '.join(flags)}}}"]
        return "\n".join([*named, *nodes])

    def _type(self, type: Type) -> str:
        if type not in self._types:
            self._types[type] = self._new_type(type)
        return self._types[type]

    def _new_type(self, type: Type) -> str:
        match type:
            case Bool():
                return self._node('!DIBasicType(name: "bool", size: 8, encoding: DW_ATE_boolean)')
            case Int():
                encoding = "DW_ATE_signed" if type.signed else "DW_ATE_unsigned"
                return self._node(f'!DIBasicType(name: "{type}", size: {type.bits}, encoding: {encoding})')
            case Array():
                element = self._type(type.element)
                return self._node(
                    f"!DICompositeType(tag: DW_TAG_array_type, baseType: {element}, size: {8 * type.size}, "
                    f"elements: !{{!DISubrange(count: {type.count})}})"
                )
            case Struct():
                members = [
                    self._node(
                        f"!DIDerivedType(tag: DW_TAG_member, name: {_string(field.name)}, file: {_FILE}, "
                        f"baseType: {self._type(field.type)}, size: {8 * field.type.size}, "
                        f"offset: {8 * field.offset})"
                    )
                    for field in type.fields
                ]
                return self._node(
                    f"!DICompositeType(tag: DW_TAG_structure_type, name: {_string(type.name)}, "
                    f"file: {_FILE}, size: {8 * type.size}, elements: !{{{', '.join(members)}}})"
                )

    def _node(self, text: str) -> str:
        """A node with this text, made once."""
        if text not in self._made:
            self._made[text] = self._distinct(text, "")
        return self._made[text]

    def _distinct(self, text: str, word: str = "distinct ") -> str:
        self._nodes.append(word + text)
        return f"!{len(self._nodes) - 1}"


def _string(text: str) -> str:
    return quoted(text.encode())
