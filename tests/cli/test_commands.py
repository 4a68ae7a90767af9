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
    assert mismatch["answered_by"] == "program"
    assert capsys.readouterr().out.endswith("""
first mismatch of pmtimer.tmr_val read: the program returned 0x369e99, the recording has 0x1234
  access 0                   1,000 ns  read  4  tmr_val  0x3  (program)
> access 1           1,000,000,000 ns  read  4  tmr_val  0x1234  (program)
""")


def test_programs_of_some_devices(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The others' models answer, and the values are the same."""
    trace = tmp_path / "a.tsv"
    trace.write_text(TRACE.format(value=hex(3579545)) + "1000000002\t0\tpio\tread\t0x3fd\t1\t0x60\tserial\n")
    answer = json_of(capsys, "replay", "--device", "com1", "--device", "hpet", str(trace))
    handled = {name: each["handled"] for name, each in answer["registers"].items()}
    assert handled == {"com1.line_status read": 1, "pmtimer.tmr_val read": 0, "debug read": 0}
    assert answer["mismatches"] == 0
    assert main(["replay", "--device", "pmtime", str(trace)]) == 1
    assert "did you mean `pmtimer`?" in capsys.readouterr().err


def test_rows_of_the_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    reads = {"tmr_val": 0x608, "line_status": 0x3FD, "interrupt_enable": 0x3F9, "scratch_pad": 0x3FF}
    values = {"tmr_val": 0, "line_status": 0x60, "interrupt_enable": 0, "scratch_pad": 0}
    trace = tmp_path / "a.tsv"
    lines = [
        f"1\t0\tpio\tread\t{address:#x}\t1\t{values[name]}\t-"
        for count, (name, address) in enumerate(reads.items(), 1)
        for _ in range(count)
    ]
    trace.write_text("\n".join(["# exit-trace 1", *lines]))

    def shown(*argv: str) -> tuple[set[str], str]:
        """The registers of the table, and what stands in place of the others."""
        assert main(["replay", *argv, str(trace)]) == 0
        out = capsys.readouterr().out
        more = [line.split() for line in out.splitlines() if "more register" in line]
        return {name for name in reads if name in out}, " ".join(more[0][:4]) if more else ""

    assert shown() == (set(reads), "")
    assert shown("--all") == (set(reads), "")
    assert shown("--top", "3") == (set(reads) - {"tmr_val"}, "1 more register 1")
    assert shown("--top", "2") == ({"interrupt_enable", "scratch_pad"}, "2 more registers 3")
    for argv in (["--top", "two"], ["--top", "-1"], ["--top", "3", "--all"]):
        with pytest.raises(SystemExit) as caught:
            main(["replay", *argv, str(trace)])
        assert caught.value.code == 2


def test_what_nobody_answered_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A device without a model: what its program declines is given the recorded value."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "d.dev").write_text(
        "device d { bank pio[2] { register a at 0 : u8 = 7; register b at 1 : u8 { write ignore; } } }"
    )
    machine = tmp_path / "m.toml"
    machine.write_text('[[device]]\nname = "x"\ntype = "d"\nat = { pio = 0 }\n')
    trace = tmp_path / "a.tsv"
    trace.write_text("# exit-trace 1\n1\t0\tpio\tread\t1\t1\t9\tb\n2\t0\tpio\tread\t0\t1\t9\ta\n")
    assert main(["replay", "--machine", str(machine), "--devices", str(tmp_path), str(trace)]) == 1
    out = capsys.readouterr().out
    assert "read  1  b  0x9  (nobody)\n> access 1" in out
    assert "first mismatch of x.a read: the program returned 0x7, the recording has 0x9" in out


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
