"""Data that is kept beside the project and not in it: recordings, and the conformance suite.

Looked for in `../shared`, or where the environment's DEVBC_SHARED says.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_path(name: str) -> Path:
    """Where a file or folder of the shared data would be."""
    root = os.environ.get("DEVBC_SHARED") or Path(__file__).resolve().parents[1].parent / "shared"
    return Path(root) / name


def shared(name: str) -> Path:
    """A file or folder of the shared data; skips the test where it is missing."""
    path = shared_path(name)
    if not path.exists():
        pytest.skip(f"{path} is missing; set DEVBC_SHARED to where the shared data is")
    return path
