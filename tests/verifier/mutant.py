"""What a mutant is: one function of the verifier is wrong, and the evidence beside it must notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Raises AssertionError on a wrong verifier, and nothing on the right one.
Evidence = Callable[[], None]


@dataclass(frozen=True)
class Mutant:
    """`owner.name` is replaced by what `wrong` makes of it."""

    owner: Any
    name: str
    wrong: Callable[[Any], Any]
    evidence: Evidence
