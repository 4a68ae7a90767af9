"""From text to syntax tree: the grammar with lark (LALR), operators by a table of precedences.

Each method of `_TreeBuilder` is named after a production of `grammar.lark` and receives its symbols, tokens
included; an optional symbol that is absent is None. Raises Rejected (L001 to L004).

A text has one syntax error: the first. What a name means is not decided here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedToken
from lark.lark import PostLex

from devbc.diagnostics import Code, Rejected, reject
from devbc_lang import errors, syntax
from devbc_lang.source import Extent, Source
from devbc_lang.syntax_errors import unexpected_character, unexpected_token

#: Levels of binary operators, loosest first. All associate to the left, but comparisons do not associate.
_LEVELS: Final = (
    ("||",),
    ("&&",),
    ("==", "!=", "<", "<=", ">", ">="),
    ("|",),
    ("^",),
    ("&",),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
)
_PRECEDENCE: Final = {op: level for level, ops in enumerate(_LEVELS) for op in ops}
_COMPARISON: Final = _PRECEDENCE["=="]

_T = TypeVar("_T")


def parse(source: Source) -> syntax.Device:
    """The syntax tree of a device's text. Raises Rejected."""
    try:
        tree = _lark().parse(source.text)
    except UnexpectedToken as error:
        raise unexpected_token(error, source) from None
    except UnexpectedCharacters as error:
        raise unexpected_character(error, source) from None
    except _Misread as misread:
        raise misread.rejected(source) from None
    assert isinstance(tree, syntax.Device)
    return tree


class _Misread(Exception):  # noqa: N818 - it is a finding about the text
    """A fault that a production finds; the source, which makes a span of it, is not known there."""

    def __init__(self, code: Code, message: str, at: Extent, label: str = "", *help: str) -> None:
        super().__init__(message)
        self.code, self.message, self.at, self.label, self.help = code, message, at, label, help

    def rejected(self, source: Source) -> Rejected:
        return reject(self.code, self.message, source.span(self.at), label=self.label, help=self.help)


@cache
def _lark() -> Lark:
    grammar = resources.files("devbc_lang").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(
        grammar,
        parser="lalr",
        start="device",
        keep_all_tokens=True,
        maybe_placeholders=True,
        transformer=_TreeBuilder(),
        postlex=_WholeWords(),
        cache=_cache(),
    )


def _cache() -> str | bool:
    """Where lark keeps the tables that it makes of the grammar: making them takes longer than a compilation.

    In the user's own cache folder, never in one that others can write: the tables are a pickle. They are
    remade when the grammar, lark or Python change.
    """
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "devbc"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return False
    return str(folder / "grammar.pickle")


class _WholeWords(PostLex):
    """Lets the lexer take any word for a name in every state, so that `lines` is never `line` and `s`."""

    always_accept = ("NAME",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        return stream


def _at(symbol: Any) -> Extent:
    if isinstance(symbol, Token):
        return Extent(symbol.start_pos or 0, symbol.end_pos or 0)
    at: Extent = symbol.at
    return at


def _over(symbols: Sequence[Any]) -> Extent:
    """The extent of a production, from its first symbol to its last that are there."""
    present = [each for each in symbols if each is not None]
    return _at(present[0]).to(_at(present[-1]))


def _only(kind: type[_T], symbols: Iterable[Any]) -> tuple[_T, ...]:
    return tuple(each for each in symbols if isinstance(each, kind))


def _nodes(symbols: Iterable[Any]) -> tuple[Any, ...]:
    """The symbols without tokens and absent ones."""
    return tuple(each for each in symbols if each is not None and not isinstance(each, Token))


class _TreeBuilder(Transformer[Token, Any]):
    # --- declarations ---

    def device(self, symbols: list[Any]) -> syntax.Device:
        return syntax.Device(symbols[1], _nodes(symbols[3:-1]), _over(symbols))

    def const(self, symbols: list[Any]) -> syntax.Const:
        _, name, _, type, _, value, _ = symbols
        return syntax.Const(name, type, value, _over(symbols))

    def port(self, symbols: list[Any]) -> syntax.Port:
        kind, name, _ = symbols
        return syntax.Port(syntax.PortKind(kind), name, _over(symbols))

    def struct(self, symbols: list[Any]) -> syntax.StructDecl:
        _, name, _, fields, _ = symbols
        return syntax.StructDecl(name, fields or (), _over(symbols))

    def state(self, symbols: list[Any]) -> syntax.State:
        return syntax.State(symbols[2] or (), _over(symbols))

    def fields(self, symbols: list[Any]) -> tuple[syntax.FieldDecl, ...]:
        return _only(syntax.FieldDecl, symbols)

    def field(self, symbols: list[Any]) -> syntax.FieldDecl:
        name, _, type, _, reset = symbols
        return syntax.FieldDecl(name, type, reset, _over(symbols))

    def function(self, symbols: list[Any]) -> syntax.Function:
        _, name, _, parameters, _, _, result, body = symbols
        return syntax.Function(name, parameters or (), result, body, _over(symbols))

    def parameters(self, symbols: list[Any]) -> tuple[syntax.Parameter, ...]:
        return _only(syntax.Parameter, symbols)

    def parameter(self, symbols: list[Any]) -> syntax.Parameter:
        name, _, type = symbols
        return syntax.Parameter(name, type, _over(symbols))

    def banks(self, symbols: list[Any]) -> syntax.Banks:
        banks, registers = _only(syntax.Bank, symbols), _only(syntax.Register, symbols)
        return syntax.Banks(banks, registers, _over(symbols))

    def bank(self, symbols: list[Any]) -> syntax.Bank:
        space, name, _, size, _ = symbols
        return syntax.Bank(space, name, size, _over(symbols))

    def register(self, symbols: list[Any]) -> syntax.Register:
        _, name, count, _, offset, stride, _, type, access, calls, value, place, members = symbols
        at = _at(symbols[0]).to(place.at if place else _at(type))
        return syntax.Register(
            name, count, offset, stride, type, access or (), calls or (), value, place, members, at
        )  # fmt: skip

    def count(self, symbols: list[Any]) -> syntax.Expr:
        expression: syntax.Expr = symbols[1]
        return expression

    stride = value = place = count

    def access(self, symbols: list[Any]) -> tuple[syntax.Expr, ...]:
        return _nodes(symbols)

    def calls(self, symbols: list[Any]) -> tuple[syntax.Called, ...]:
        return _nodes(symbols)

    def called(self, symbols: list[Any]) -> syntax.Called:
        op, number = symbols
        return syntax.Called(str(op), number, _over(symbols))

    def members(self, symbols: list[Any]) -> tuple[syntax.RegisterMember, ...]:
        return _nodes(symbols)

    def read(self, symbols: list[Any]) -> syntax.Read:
        _, parameters, body = symbols
        return syntax.Read(parameters or (), body, _at(symbols[0]))

    def write(self, symbols: list[Any]) -> syntax.Write:
        _, parameters, body = symbols
        return syntax.Write(parameters or (), body, _at(symbols[0]))

    def write_ignore(self, symbols: list[Any]) -> syntax.WriteIgnore:
        return syntax.WriteIgnore(_over(symbols))

    def bits(self, symbols: list[Any]) -> syntax.Bits:
        _, high, _, low, behaviour, _ = symbols
        return syntax.Bits(high, low, behaviour, _over(symbols))

    def binders(self, symbols: list[Any]) -> tuple[syntax.Name, ...]:
        return _nodes(symbols)

    def hypercall(self, symbols: list[Any]) -> syntax.Hypercall:
        _, number, name, _, parameters, _, _, result, body = symbols
        return syntax.Hypercall(number, name, parameters or (), result, body, _over(symbols))

    def on(self, symbols: list[Any]) -> syntax.On:
        _, port, _, parameter, _, body = symbols
        return syntax.On(port, parameter, body, _at(symbols[0]).to(_at(symbols[4])))

    def array_type(self, symbols: list[Any]) -> syntax.ArrayType:
        _, element, _, count, _ = symbols
        return syntax.ArrayType(element, count, _over(symbols))

    def reference_type(self, symbols: list[Any]) -> syntax.ReferenceType:
        return syntax.ReferenceType(symbols[1], _over(symbols))

    # --- statements ---

    def block(self, symbols: list[Any]) -> syntax.Block:
        return syntax.Block(tuple(symbols[1:-1]), _over(symbols))

    def let(self, symbols: list[Any]) -> syntax.Let:
        word, name, _, type, _, value, _ = symbols
        return syntax.Let(name, word == "var", type, value, _over(symbols))

    def assign(self, symbols: list[Any]) -> syntax.Assign:
        target, op, value, _ = symbols
        return syntax.Assign(target, op[:-1], value, _over(symbols))

    def call_statement(self, symbols: list[Any]) -> syntax.CallStatement:
        call, _ = symbols
        if not isinstance(call, syntax.Call):
            message = "this expression does nothing"
            raise _Misread(
                errors.NO_EFFECT, message, _at(call), "a value that is not used", "assign it: `let x = ...;`"
            )
        return syntax.CallStatement(call, _over(symbols))

    def if_(self, symbols: list[Any]) -> syntax.If:
        _, condition, then, _, otherwise = symbols
        if isinstance(otherwise, syntax.If):
            otherwise = syntax.Block((otherwise,), otherwise.at)
        return syntax.If(condition, then, otherwise, _over(symbols))

    def match(self, symbols: list[Any]) -> syntax.Match:
        return syntax.Match(symbols[1], _only(syntax.Arm, symbols), _over(symbols))

    def arm(self, symbols: list[Any]) -> syntax.Arm:
        arrow = next(i for i, each in enumerate(symbols) if isinstance(each, Token) and each == "=>")
        body = symbols[arrow + 1]
        if not isinstance(body, syntax.Block):
            body = syntax.Block((body,), body.at)
        return syntax.Arm(_only(syntax.Pattern, symbols[:arrow]), body, _over(symbols))

    def pattern(self, symbols: list[Any]) -> syntax.Pattern:
        low, _, high = symbols if len(symbols) == 3 else (symbols[0], None, None)
        return syntax.Pattern(None if isinstance(low, Token) else low, high, _over(symbols))

    def for_(self, symbols: list[Any]) -> syntax.For:
        _, name, _, start, _, end, body = symbols
        return syntax.For(name, start, end, body, _over(symbols))

    def break_(self, symbols: list[Any]) -> syntax.Break:
        return syntax.Break(_over(symbols))

    def continue_(self, symbols: list[Any]) -> syntax.Continue:
        return syntax.Continue(_over(symbols))

    def return_(self, symbols: list[Any]) -> syntax.Return:
        return syntax.Return(symbols[1], _over(symbols))

    def decline(self, symbols: list[Any]) -> syntax.Decline:
        return syntax.Decline(_over(symbols))

    def effect(self, symbols: list[Any]) -> syntax.Effect:
        kind, port, _ = symbols
        return syntax.Effect(syntax.EffectKind(kind), port, _over(symbols))

    def arm_timer(self, symbols: list[Any]) -> syntax.ArmTimer:
        _, port, _, deadline, _ = symbols
        return syntax.ArmTimer(port, deadline, _over(symbols))

    # --- expressions ---

    def array(self, symbols: list[Any]) -> syntax.List:
        return syntax.List(_nodes(symbols), _over(symbols))

    def expression(self, symbols: list[Any]) -> syntax.Expr:
        """Group `unary (op unary)*` by precedence: an operator waits until a looser one comes."""
        operands: list[syntax.Expr] = [symbols[0]]
        waiting: list[Token] = []
        for op, operand in zip(symbols[1::2], symbols[2::2], strict=True):
            level = _PRECEDENCE[op]
            while waiting and _PRECEDENCE[waiting[-1]] >= level:
                if level == _COMPARISON == _PRECEDENCE[waiting[-1]]:
                    at = _at(waiting[-1]).to(_at(op))
                    help = "join two comparisons with `&&`, or put one into parentheses"
                    raise _Misread(errors.CHAINED, "comparisons do not chain", at, "", help)
                _reduce(operands, waiting)
            waiting.append(op)
            operands.append(operand)
        while waiting:
            _reduce(operands, waiting)
        return operands[0]

    def prefix(self, symbols: list[Any]) -> syntax.Expr:
        op, operand = symbols
        if op == "&":
            return syntax.Reference(operand, _over(symbols))
        return syntax.Prefix(str(op), operand, _over(symbols))

    def member(self, symbols: list[Any]) -> syntax.Member:
        base, _, name = symbols
        return syntax.Member(base, name, _over(symbols))

    def index(self, symbols: list[Any]) -> syntax.Index | syntax.Slice:
        base, _, high, _, low, _ = symbols
        if low is None:
            return syntax.Index(base, high, _over(symbols))
        return syntax.Slice(base, high, low, _over(symbols))

    def call(self, symbols: list[Any]) -> syntax.Call:
        name, _, *arguments = symbols
        return syntax.Call(name, _nodes(arguments), _over(symbols))

    def parenthesised(self, symbols: list[Any]) -> syntax.Expr:
        inner: syntax.Expr = symbols[1]
        return inner

    def truth(self, symbols: list[Any]) -> syntax.Truth:
        return syntax.Truth(symbols[0] == "true", _over(symbols))

    def number(self, symbols: list[Any]) -> syntax.Number:
        text = str(symbols[0])
        try:
            value = int(text, 0) if text.strip("0_") else 0
        except ValueError:
            help = "numbers are decimal, `0x` hexadecimal or `0b` binary, with `_` between digits"
            message = f"`{text}` is not a number"
            raise _Misread(errors.BAD_NUMBER, message, _over(symbols), "", help) from None
        return syntax.Number(value, _over(symbols))

    def name(self, symbols: list[Any]) -> syntax.Name:
        return syntax.Name(str(symbols[0]), _over(symbols))


def _reduce(operands: list[syntax.Expr], waiting: list[Token]) -> None:
    """Give the last waiting operator its two operands."""
    op, right, left = waiting.pop(), operands.pop(), operands.pop()
    operands.append(syntax.Infix(str(op), left, right, _at(op), left.at.to(right.at)))


# Productions that are named like Python's key words.
for _word in ("if", "for", "break", "continue", "return"):
    setattr(_TreeBuilder, _word, getattr(_TreeBuilder, f"{_word}_"))
