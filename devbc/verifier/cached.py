"""From an object's bytes to a verified program, remembered by content.

The key holds all that a proof depends on: the object, the name that its diagnoses bear, the policy, and the
sources of loader and verifier. Refusals are not kept: who fixes a program asks about another one.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import devbc
from devbc.cache import Cache, key, version
from devbc.program.elf import load_object
from devbc.program.stored import pack, unpack
from devbc.program.verified import VerifiedProgram
from devbc.verifier.policy import DEFAULT, Policy
from devbc.verifier.verify import verify_program


def verify_object(data: bytes, *, name: str, cache: Cache, policy: Policy = DEFAULT) -> VerifiedProgram:
    """Load and verify an object, or take the result from the cache. Raises Rejected."""
    entry = proof_key(data, name, policy)
    stored = cache.get(entry)
    known = None if stored is None else unpack(stored)
    if known is None:
        known = verify_program(load_object(data, name=name), policy=policy)
        cache.put(entry, pack(known))
    return replace(known, digest=entry)


def proof_key(data: bytes, name: str, policy: Policy) -> str:
    """The cache's key for the proof of an object under a policy."""
    return key("proof", _version(), name, _policy_text(policy), data)


def _version() -> str:
    root = Path(devbc.__file__).parent
    folders = [root / name for name in ("isa", "program", "verifier")]
    files = [root / f"{name}.py" for name in ("abi", "diagnostics", "limits", "semantics")]
    return version(*folders, *files)


def _policy_text(policy: Policy) -> str:
    """The policy, spelt alike for equal policies: sets have no order."""
    values = {field.name: getattr(policy, field.name) for field in fields(policy)}
    return repr(
        {name: sorted(value) if isinstance(value, frozenset) else value for name, value in values.items()}
    )
