"""Names within a function or handler, block in block. Those of the device are in `context.py`."""

from __future__ import annotations

from collections.abc import Iterator

from devbc_lang.typed import Symbol


class Scopes:
    """Names within a function, the innermost block's last. None is a name whose declaration is faulty."""

    def __init__(self) -> None:
        self._scopes: list[dict[str, Symbol | None]] = [{}]

    def find(self, name: str) -> tuple[bool, Symbol | None]:
        """Whether the name is known, and what it is."""
        for scope in reversed(self._scopes):
            if name in scope:
                return True, scope[name]
        return False, None

    def names(self) -> Iterator[str]:
        for scope in self._scopes:
            yield from scope

    def enter(self) -> None:
        self._scopes.append({})

    def leave(self) -> list[Symbol]:
        """Close the innermost block; its names."""
        return [each for each in self._scopes.pop().values() if each is not None]

    def innermost(self) -> dict[str, Symbol | None]:
        return self._scopes[-1]
