"""What a syntax error says: what was found, what could stand there, in the words of the language reference.

The parser knows which tokens could come next. Sets of tokens that begin a statement or an expression are
named as such; a missing `;` is shown where it is missing, and not at the next line's first word.
"""

from __future__ import annotations

from typing import Final

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from devbc.diagnostics import Rejected, reject
from devbc_lang import errors
from devbc_lang.source import Extent, Source

#: Tokens by lark's names for them; others are named as they are written, in lower case.
_SPELLING: Final = {
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "COLON": "`:`",
    "SEMICOLON": "`;`",
    "COMMA": "`,`",
    "DOT": "`.`",
    "EQUAL": "`=`",
    "__ANON_0": "`->`",
    "__ANON_1": "`=>`",
    "__ANON_2": "`..`",
    "UNDERSCORE": "`_`",
    "NAME": "a name",
    "NUMBER": "a number",
    "OPERATOR": "an operator",
    "COMPOUND": "an assignment",
    "$END": "the end of the file",
}

_SOFT: Final = frozenset(
    {"DEVICE", "LINE", "INPUT", "SIGNAL", "TIMER", "STRUCT", "STATE", "BANK", "REGISTER", "AT", "STRIDE"}
    | {"ACCESS", "CALL", "READ", "WRITE", "IGNORE", "BITS", "HYPERCALL", "ON"}
)
_EXPRESSION: Final = {"NUMBER", "LPAR", "TRUE", "FALSE", "NAME", *_SOFT}
_STATEMENT: Final = {"LET", "VAR", "IF", "MATCH", "FOR", "BREAK", "CONTINUE", "RETURN", "DECLINE"} | {
    "RAISE", "LOWER", "PULSE", "CANCEL", "ARM", "LBRACE"
}  # fmt: skip
_DECLARATION: Final = {"CONST", "FN", "LINE", "INPUT", "SIGNAL", "TIMER", "STRUCT", "STATE", "BANK"} | {
    "HYPERCALL", "ON"
}  # fmt: skip
#: A phrase for tokens that come together: said if all of the first set are possible, and covers the second.
_PHRASES: Final = (
    ("a statement", {"LET", "RETURN", "IF"}, _STATEMENT | _EXPRESSION),
    ("an expression", {"NUMBER", "LPAR"}, _EXPRESSION | {"MINUS", "TILDE", "BANG", "AMPERSAND"}),
    ("a declaration", {"CONST", "FN"}, _DECLARATION),
    ("an assignment", {"EQUAL", "COMPOUND"}, {"EQUAL", "COMPOUND", "DOT", "LSQB"}),
    ("a type", {"NAME", "LSQB"}, {"NAME", "LSQB", "AMPERSAND", *_SOFT}),
    ("a name", {"NAME", "DEVICE"}, {"NAME", *_SOFT}),
    ("an operator", {"OPERATOR"}, {"OPERATOR", "MINUS", "AMPERSAND", "DOT", "LSQB"}),
)

#: Words of other languages, and what is said here instead.
_FOREIGN: Final = {
    "while": "loops have constant bounds: `for i in 0..8 { ... }`",
    "loop": "loops have constant bounds: `for i in 0..8 { ... }`",
    "mut": "a variable that changes is declared with `var`",
    "switch": "`match x { 1, 2 => { ... } _ => { ... } }` chooses by value",
    "case": "`match x { 1, 2 => { ... } _ => { ... } }` chooses by value",
    "elif": "write `else if`",
    "static": "what lasts from one access to the next is in `state`",
    "and": "write `&&`",
    "or": "write `||`",
    "not": "write `!`",
    "as": "conversions are written like calls: `u8(x)`",
    "def": "functions begin with `fn`",
    "func": "functions begin with `fn`",
}


def unexpected_token(error: UnexpectedToken, source: Source) -> Rejected:
    """The diagnostic for a token that cannot stand where it does."""
    token = error.token
    expected = set(error.accepts or error.expected)
    found = "the end of the file" if token.type == "$END" else f"`{token}`"
    wanted = _phrase(expected)
    previous = _previous(error)
    help = _help(token, source.text[previous.start : previous.end] if previous else "", expected)
    if _is_unnumbered(error):
        help = ("a hypercall's number comes before its name: `hypercall 0 reset() { ... }`",)
    if token.type == "$END":
        end = len(source.text.rstrip())
        at = Extent(max(0, end - 1), end)
    else:
        at = Extent(token.start_pos or 0, token.end_pos or 0)
    if token == "/" and source.text.startswith("/*", at.start):
        message = "a comment that begins here does not end"
        at = Extent(at.start, at.start + 2)
        return reject(errors.SYNTAX, message, source.span(at), help=("end it with `*/`",))
    if (
        previous is not None
        and expected & {"SEMICOLON", "RPAR", "RSQB"}
        and _later_line(previous, at, source)
    ):
        at = Extent(previous.end - 1, previous.end)
        missing = "`;`" if "SEMICOLON" in expected else _SPELLING[min(expected & {"RPAR", "RSQB"})]
        return reject(
            errors.SYNTAX,
            f"expected {missing}, found {found}",
            source.span(at),
            label=f"{missing} is missing after this",
            help=help,
        )
    label = f"expected {wanted}" if len(wanted) < 60 else "this cannot stand here"
    return reject(errors.SYNTAX, f"expected {wanted}, found {found}", source.span(at), label=label, help=help)


def unexpected_character(error: UnexpectedCharacters, source: Source) -> Rejected:
    """The diagnostic for a character that no token begins with."""
    position = error.pos_in_stream or 0
    char = source.text[position]
    at = Extent(position, position + 1)
    shown = f"`{char}`" if char.isprintable() else f"U+{ord(char):04X}"
    help = {
        '"': ("there are no strings; a device's texts belong to userspace",),
        "'": ("there are no characters: write the number, `0x41`",),
        "?": ("write `if` and `else`; `max` and `min` are built in",),
        "#": ("comments begin with `//`",),
    }.get(char, ())
    return reject(errors.SYNTAX, f"{shown} is not part of the language", source.span(at), help=help)


def _phrase(expected: set[str]) -> str:
    left = set(expected)
    named: list[str] = []
    for phrase, needed, covered in _PHRASES:
        if needed <= left:
            named.append(phrase)
            left -= covered
    named += sorted(
        _SPELLING.get(each, f"`{each.lower()}`") for each in left if each not in _SOFT or not named
    )
    if len(named) > 1:
        return ", ".join(named[:-1]) + " or " + named[-1]
    return named[0] if named else "nothing more"


def _help(token: Token, previous: str, expected: set[str]) -> tuple[str, ...]:
    for word in (previous, str(token)):
        if word in _FOREIGN:
            return (_FOREIGN[word],)
    if token == "=" and "EQUAL" not in expected:
        return ("`=` assigns, in a statement of its own; `==` compares",)
    if token == "{" and "NUMBER" in expected:
        return ("an expression is missing before the block",)
    return ()


def _is_unnumbered(error: UnexpectedToken) -> bool:
    """Whether a name and its parameters stand where a hypercall's number is expected."""
    stack = error.interactive_parser.parser_state.value_stack if error.interactive_parser else []
    return len(stack) > 1 and stack[-2] == "hypercall"


def _previous(error: UnexpectedToken) -> Extent | None:
    """The symbol before the unexpected token, if the parser has one."""
    if error.interactive_parser is None:
        return None
    stack = error.interactive_parser.parser_state.value_stack
    last = stack[-1] if stack else None
    if isinstance(last, Token):
        return Extent(last.start_pos or 0, last.end_pos or 0)
    at = getattr(last, "at", None)
    return at if isinstance(at, Extent) else None


def _later_line(previous: Extent, at: Extent, source: Source) -> bool:
    return "\n" in source.text[previous.end : at.start]
