"""What some verifier has wrongly accepted is refused, and is dangerous; its legal twin is accepted."""

from __future__ import annotations

import pytest

from tests.verifier.known_mistakes.bounds import BOUNDS
from tests.verifier.known_mistakes.control import CALLS, LOOPS, PATHS, SHAPE
from tests.verifier.known_mistakes.memory import LEAKS, POINTERS, STACK
from tests.verifier.known_mistakes.mistake import by_name, check_danger, check_rejected, check_twin

MISTAKES = by_name((*BOUNDS, *POINTERS, *STACK, *LEAKS, *PATHS, *LOOPS, *CALLS, *SHAPE))


@pytest.mark.parametrize("name", MISTAKES)
def test_rejected(name: str) -> None:
    check_rejected(MISTAKES[name])


@pytest.mark.parametrize("name", MISTAKES)
def test_dangerous(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_danger(MISTAKES[name], monkeypatch)


@pytest.mark.parametrize("name", MISTAKES)
def test_legal_twin(name: str) -> None:
    check_twin(MISTAKES[name], range(5))
