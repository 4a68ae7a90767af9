"""Bad input at the command line: a diagnosis with a code, exit status 1, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from devbc.cli.main import main

DATA = Path(__file__).parents[1] / "data"
OBJECT = DATA / "clang" / "interval_timer.o"


def rejected(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, Any]]:
    """The diagnostics of a command that must be refused, checked to be the same as text."""
    assert main([*argv, "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert main(list(argv)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    for diagnostic in answer["diagnostics"]:
        assert f"[{diagnostic['code']}]" in captured.err
        assert diagnostic["message"] in captured.err
    diagnostics: list[dict[str, Any]] = answer["diagnostics"]
    return diagnostics


@pytest.mark.parametrize(
    ("program", "code", "text"),
    [
        ("writes_then_declines.dev", "V", "decline"),
        ("reads_past_scratch.dev", "V", "state.table[state.index]"),
        ("loops_for_ever.o", "V", "while (READ_ONCE(state.busy))"),
        ("leaks_a_pointer.o", "V", "exit->value = (u64)exit;"),
    ],
)
def test_a_program_that_breaks_the_contract(
    capsys: pytest.CaptureFixture[str], program: str, code: str, text: str
) -> None:
    (diagnostic, *_) = rejected(capsys, "verify", str(DATA / "rejected" / program))
    assert diagnostic["code"].startswith(code)
    spans = [diagnostic["span"], *(label["span"] for label in diagnostic["labels"])]
    assert any(text in span["text"] for span in spans)


@pytest.mark.parametrize("share", [0, 10, 63, 500, 3000, 9000])
def test_a_truncated_object(capsys: pytest.CaptureFixture[str], tmp_path: Path, share: int) -> None:
    path = tmp_path / "cut.o"
    path.write_bytes(OBJECT.read_bytes()[:share])
    assert rejected(capsys, "verify", str(path))[0]["code"].startswith("O")


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(capsys: pytest.CaptureFixture[str], tmp_path: Path, seed: int) -> None:
    path = tmp_path / "random.o"
    path.write_bytes(Random(seed).randbytes(2000))
    assert rejected(capsys, "verify", str(path))[0]["code"].startswith("O")
    path.write_bytes(b"\x7fELF" + Random(seed).randbytes(2000))
    assert rejected(capsys, "disasm", str(path))[0]["code"].startswith("O")


def test_files_that_are_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.dev")
    for command in (["verify", missing], ["compile", missing], ["replay", missing]):
        assert rejected(capsys, *command)[0]["code"] == "C001"


def test_a_source_that_is_not_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "binary.dev"
    path.write_bytes(b"device \xff")
    assert rejected(capsys, "compile", str(path))[0]["code"] == "C003"
    assert not path.with_suffix(".o").exists()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
def test_files_without_an_end(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devbc.guests.recording.RECORDING_BYTES", 1 << 20)
    for command in ("verify", "compile", "disasm", "replay"):
        assert rejected(capsys, command, "/dev/zero")[0]["code"] == "C004"


def test_names_that_do_not_exist(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "a.tsv"
    trace.write_text("# exit-trace 1\n")
    (diagnostic,) = rejected(capsys, "replay", "--machine", "pcc", str(trace))
    assert (diagnostic["code"], diagnostic["help"]) == ("H003", ["did you mean `pc`?"])
    (diagnostic,) = rejected(capsys, "disasm", str(OBJECT), "--handler", "pio/read@0x3")
    assert diagnostic["code"] == "H003"
    (diagnostic,) = rejected(capsys, "explain", "V07")
    assert diagnostic["code"] == "C002"


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["verify"], ["compile", "--emit", "wasm", "x.dev"], ["fly"]):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 2
        assert "usage: devbc" in capsys.readouterr().err
