"""Policies as files (TOML): what the attaching side lets a program have, written down.

    instructions = 2_000                    # caps of `devbc.verifier.policy.Policy`, by their names
    scratch_bytes = 256
    helpers = ["ktime_get_ns"]              # only these; [] for none
    effects = ["raise", "lower"]

What is left out stays as the machine has it. Nothing here decides what a policy may say: `Policy` does.
"""

from __future__ import annotations

import tomllib
from dataclasses import fields
from typing import Any, Final

from devbc.abi import Helper
from devbc.diagnostics import Rejected, Span, did_you_mean, reject
from devbc.verifier.errors import BAD_POLICY
from devbc.verifier.policy import EFFECTS, Policy

#: What a policy may say at most: the defaults.
_KEYS: Final[dict[str, Any]] = {field.name: field.default for field in fields(Policy)}
_HELPERS: Final = {helper.name.lower(): helper for helper in Helper}


def parse_policy(data: bytes, *, file: str) -> Policy:
    """Read a policy file. Raises Rejected (V024) with what is wrong with it."""
    span = Span(file)
    try:
        content = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise reject(BAD_POLICY, "it is not UTF-8 text", span) from None
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        raise reject(BAD_POLICY, f"it is not TOML: {message[:1].lower()}{message[1:]}", span) from None
    except (ValueError, RecursionError):
        # What the parser of TOML does not catch itself: thousands of digits, thousands of brackets.
        raise reject(BAD_POLICY, "it has a number or a nesting that no policy needs", span) from None
    items = {key: _item(key, value, span) for key, value in content.items()}
    return Policy(**items)


def _item(key: str, value: Any, span: Span) -> Any:
    if key not in _KEYS:
        help = did_you_mean(key, _KEYS) or (f"there are {', '.join(f'`{each}`' for each in _KEYS)}",)
        raise reject(BAD_POLICY, f"a policy has no item `{key}`", span, help=help)
    match key:
        case "helpers":
            return frozenset(_HELPERS[each] for each in _names(key, value, tuple(_HELPERS), span))
        case "effects":
            return frozenset(_names(key, value, tuple(sorted(EFFECTS)), span))
    most = _KEYS[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise reject(BAD_POLICY, f"`{key}` is not a number from 0 up", span)
    if value > most:
        raise reject(BAD_POLICY, f"`{key}` is {value:,}, and the machine has at most {most:,}", span)
    return value


def _names(key: str, value: Any, known: tuple[str, ...], span: Span) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise reject(BAD_POLICY, f"`{key}` is not a list of names", span)
    for each in value:
        if each not in known:
            raise _unknown(key, each, known, span)
    return value


def _unknown(key: str, name: str, known: tuple[str, ...], span: Span) -> Rejected:
    help = did_you_mean(name, known) or (f"there are {', '.join(f'`{each}`' for each in known)}",)
    return reject(BAD_POLICY, f"`{key}` names `{name}`, which does not exist", span, help=help)
