"""Hypercalls: calls by number, with arguments in registers and one result.

A device declares calls of its own, and gives its registers' reads and writes numbers by which they are called
(`registers.py`); `Calls` knows who has which. Arguments are checked at run time, by code that `lower.py`
puts before the body: a register that holds more than its parameter can makes the run decline.
"""

from __future__ import annotations

from typing import Final

from devbc.abi import CALL_NUMBERS, EXIT_FIELDS, HypercallBinding
from devbc_lang import errors, syntax, typed
from devbc_lang.context import Context
from devbc_lang.expressions import Expressions
from devbc_lang.source import Extent
from devbc_lang.statements import check_body
from devbc_lang.typed import Symbol
from devbc_lang.types import SCALARS, Scalar

_MOST_ARGUMENTS: Final = EXIT_FIELDS["arg"].count


class Calls:
    """The hypercalls of a device. `names`: what each is called, by its number."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.expressions = Expressions(context)
        self.names: dict[int, str] = {}
        self.handlers: list[typed.Handler] = []
        self._number_at: dict[int, Extent] = {}
        self._name_at: dict[str, Extent] = {}

    def claim(self, number: syntax.Expr, name: str) -> HypercallBinding:
        """Give a number to the one who asks for it first."""
        value = self.expressions.constant(number, "a hypercall's number")
        if not 0 <= value < CALL_NUMBERS:
            message = f"hypercalls are numbered from 0 to {CALL_NUMBERS - 1:#x}"
            raise self.context.fault(errors.OUT_OF_RANGE, message, number.at)
        if value in self.names:
            raise self.context.fault(
                errors.CALL_TAKEN,
                f"hypercall {self.context.in_base_of(value, number.at)} is `{self.names[value]}` already",
                number.at,
                labels=[(self._number_at[value], "first declared here")],
            )
        self.names[value] = name
        self._number_at[value] = number.at
        return HypercallBinding(value)

    def add(self, call: syntax.Hypercall) -> None:
        """Check a hypercall of the device's own."""
        name = call.name
        if name.text in self._name_at:
            labels = [(self._name_at[name.text], "first declared here")]
            message = f"hypercall `{name.text}` is declared twice"
            raise self.context.fault(errors.DUPLICATE, message, name.at, labels=labels)
        self._name_at[name.text] = name.at
        binding = self.claim(call.number, name.text)
        symbols = self._parameters(call)
        result = self._scalar(call.result, "a result is a scalar") if call.result else None
        body = check_body(self.context, call.body, symbols, result, what=f"hypercall `{name.text}`")
        parameters = tuple(typed.ArgumentParameter(each, number) for number, each in enumerate(symbols))
        answer = typed.Answer(result, 0) if result is not None else None
        self.handlers.append(
            typed.Handler(f"call_{name.text}", (binding,), parameters, answer, body, name.at)
        )

    def _parameters(self, call: syntax.Hypercall) -> list[Symbol]:
        if len(call.parameters) > _MOST_ARGUMENTS:
            raise self.context.fault(
                errors.BAD_CALL,
                f"hypercall `{call.name.text}` takes {len(call.parameters)} arguments",
                call.parameters[_MOST_ARGUMENTS].at,
                f"there are {_MOST_ARGUMENTS} registers for them",
            )
        seen: dict[str, Symbol] = {}
        for parameter in call.parameters:
            name = parameter.name
            if name.text in seen:
                message = f"parameter `{name.text}` is declared twice"
                labels = [(seen[name.text].at, "first declared here")]
                raise self.context.fault(errors.DUPLICATE, message, name.at, labels=labels)
            type = self._scalar(parameter.type, "an argument is a register: a scalar")
            seen[name.text] = Symbol(name.text, type, name.at)
        return list(seen.values())

    def _scalar(self, type: syntax.TypeExpr, otherwise: str) -> Scalar:
        if isinstance(type, syntax.Name):
            if type.text in SCALARS:
                return SCALARS[type.text]
            if type.text not in self.context.names:
                raise self.context.unknown("type", type, SCALARS)
        raise self.context.fault(errors.BAD_CALL, otherwise, type.at)
