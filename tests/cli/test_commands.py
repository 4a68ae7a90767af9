"""The commands as users meet them: what they print, as text and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devbc.cli.main import main
from devbc.guests.replay import Tally

ROOT = Path(__file__).parents[2]
PIT = str(ROOT / "devices" / "i8254" / "i8254.dev")
BOOT = str(ROOT / "bench" / "traces" / "x86-pc-boot.tsv.gz")

TRACE = """\
# exit-trace 1
# rtc_base=2024-02-28T23:58:00Z
1000\t0\tpio\tread\t0x608\t4\t0x3\tacpi-tmr
1000000000\t0\tpio\tread\t0x608\t4\t{value}\tacpi-tmr
1000000001\t0\tpio\tread\t0x80\t1\t0x7\tdebug
"""


def json_of(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> dict[str, Any]:
    assert main([*argv, "--json"]) == status
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.parametrize("engine", ["jit", "interp", "none"])
def test_replay_counts_by_register(capsys: pytest.CaptureFixture[str], tmp_path: Path, engine: str) -> None:
    trace = tmp_path / "a.tsv"
    trace.write_text(TRACE.format(value=hex(3579545)))
    answer = json_of(capsys, "replay", "--engine", engine, str(trace))
    handled = 0 if engine == "none" else 2
    expected = {"accesses": 3, "handled": handled, "declined": 2 - handled, "unclaimed": 1, "mismatches": 0}
    assert {key: answer[key] for key in expected} == expected
    assert answer["engine"] == engine
    assert (answer["ns_per_handled_exit"] is None) == (engine == "none")
    assert answer["registers"]["pmtimer.tmr_val read"]["accesses"] == 2
    assert answer["registers"]["debug read"]["unclaimed"] == 1


def test_a_mismatch_is_status_1_and_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "a.tsv"
    trace.write_text(TRACE.format(value="0x1234"))
    answer = json_of(capsys, "replay", str(trace), status=1)
    assert answer["mismatches"] == 1
    (mismatch,) = answer["first_mismatches"]
    assert (mismatch["register"], mismatch["got"], mismatch["recorded"]) == ("tmr_val", 3579545, 0x1234)
    assert main(["replay", str(trace)]) == 1
    assert (
        "pmtimer tmr_val, access 1 at 1000000000 ns: got 0x369e99, recorded 0x1234" in capsys.readouterr().out
    )


def test_replay_sums_recordings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "a.tsv"
    trace.write_text(TRACE.format(value=hex(3579545)))
    assert json_of(capsys, "replay", str(trace), str(trace))["accesses"] == 6


def test_replay_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", BOOT]) == 0
    out = capsys.readouterr().out
    for word in ("accesses", "handled", "declined", "mismatches", "ns/exit", "main_counter", "484,222"):
        assert word in out
    assert "99.16 % of 484,222 accesses handled by programs, 0 mismatches" in out
    assert max(map(len, out.splitlines())) <= 120


def test_verify_says_what_was_proven(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", PIT]) == 0
    out = capsys.readouterr().out
    for word in (
        "pio/read@0x0-0x2:1",
        "mutating",
        "at most",
        "instructions",
        "reads",
        "writes",
        "effects",
        "latched",
    ):
        assert word in out
    answer = json_of(capsys, "verify", PIT)
    assert answer["ok"] is True
    assert len(answer["programs"][0]["handlers"]) == 8


def test_compile_writes_an_object_that_verifies(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "pit.o"
    assert main(["compile", PIT, "-o", str(target)]) == 0
    assert main(["verify", str(target)]) == 0
    assert "8 handlers verified" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stage", "word"),
    [
        ("ast", "Device"),
        ("ir", "target triple = "),
        ("asm", ".section"),
    ],
)
def test_every_stage_can_be_shown(capsys: pytest.CaptureFixture[str], stage: str, word: str) -> None:
    assert main(["compile", PIT, "--emit", stage]) == 0
    assert word in capsys.readouterr().out
    assert word in json_of(capsys, "compile", PIT, "--emit", stage)["text"]


def test_disasm_shows_source_between_instructions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disasm", PIT, "--handler", "pio:speaker/read@0x0:1"]) == 0
    out = capsys.readouterr().out
    assert "let refresh = !state.refresh;" in out
    assert "call ktime_get_ns" in out
    (handler,) = json_of(capsys, "disasm", PIT, "--handler", "pio:speaker/read@0x0:1")["handlers"]
    assert handler["instructions"][-1]["text"] == "exit"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from devbc.cli.main import _parser; _parser();"
        "print([m for m in ('llvmlite', 'lark', 'elftools', 'rich', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_counts_add_up() -> None:
    one, other = Tally(3, 2, 1, 0, 0, [4, 4]), Tally(5, 5, 0, 0, 1, [8])
    one.add(other)
    assert (one.accesses, one.handled, one.declined, one.mismatches, one.ticks) == (8, 7, 1, 1, [4, 4, 8])
