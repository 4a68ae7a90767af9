"""The monitor's guide does what it says: its files are written, its commands and programs run, in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.service.serving import serving
from tests.test_docs import BLOCK, console

GUIDE = Path(__file__).parents[1] / "docs" / "vmm-guide.md"


def test_the_guide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEVBC_SOCKET", str(tmp_path / "socket"))
    session: dict[str, Any] = {}
    ran = {"console": 0, "python": 0}
    text = GUIDE.read_text()
    with serving(tmp_path / "socket"):
        for block in BLOCK.finditer(text):
            name, kind, content = block.groups()
            if name:
                path = tmp_path / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(content)
            elif kind == "console":
                console(content, capsys)
            elif kind == "python":
                # A traceback's lines are the page's.
                line = text.count("\n", 0, block.start(3))
                exec(compile("\n" * line + content, str(GUIDE), "exec"), session)
            if not name and kind in ran:
                ran[kind] += 1
    assert ran == {"console": 7, "python": 24}
