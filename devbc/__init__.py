"""devbc: device registers as verified BPF programs, run on the exits of an emulated hypervisor.

`verify`, with its answers `Accepted` and `Refused`, and `Policy` are for raw instructions. They are imported
when they are first used: `import devbc` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devbc.verifier.policy import Policy as Policy
    from devbc.verifier.raw import Accepted as Accepted
    from devbc.verifier.raw import Refused as Refused
    from devbc.verifier.raw import verify as verify

__version__ = "0.1.0"

_LAZY = {
    "Accepted": "devbc.verifier.raw",
    "Policy": "devbc.verifier.policy",
    "Refused": "devbc.verifier.raw",
    "verify": "devbc.verifier.raw",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
