"""`devbc verify`: what it says by default, with `--explain`, `--trace`, `--policy` and `--handler`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from devbc.cli.main import main

DATA = Path(__file__).parents[1] / "data"
OBJECT = str(DATA / "clang" / "interval_timer.o")
REFUSED = str(DATA / "rejected" / "reads_past_scratch.dev")


def said(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    assert main(["verify", *argv]) == status
    return capsys.readouterr().out


def data(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(said(capsys, *argv, "--json", status=status))
    return answer


def test_the_report_keeps_to_its_width(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(len(line) <= 100 for line in said(capsys, OBJECT).splitlines())


def test_one_handler(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = data(capsys, OBJECT, "--handler", "timer/tick")["programs"]
    assert [each["section"] for each in program["handlers"]] == ["timer/tick"]
    assert data(capsys, OBJECT, "--handler", "timer/tack", status=1)["diagnostics"][0]["code"] == "H003"


def test_explained(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, OBJECT, "--explain")
    assert "mutating, since it writes scratch here:" in text
    assert "the longest run, " in text
    plain, explained = data(capsys, OBJECT), data(capsys, OBJECT, "--explain")
    for before, after in zip(
        plain["programs"][0]["handlers"], explained["programs"][0]["handlers"], strict=True
    ):
        longest = after.pop("longest_run")
        assert before == after
        assert sum(each["instructions"] for each in longest) == after["worst_case"]


def test_a_trace_has_every_instruction_that_is_explored(capsys: pytest.CaptureFixture[str]) -> None:
    answer = data(capsys, OBJECT, "--trace")
    assert answer["ok"]
    text = said(capsys, OBJECT, "--trace")
    entries = [entry for each in answer["handlers"] for entry in each["entries"]]
    assert len(re.findall(r"^ *\d+  \S", text, re.MULTILINE)) == len(entries)
    first = entries[0]
    assert (first["depth"], first["slot"]) == (1, 0)
    assert set(first["changes"]) == {"r1", "r10"}
    for entry in entries:
        for value in entry["changes"].values():
            assert re.match(r"is |can be anything|points to ", value), value


def test_a_trace_ends_at_the_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", REFUSED, "--trace"]) == 1
    captured = capsys.readouterr()
    assert "refused: V006: an access of 1 byte may lie outside scratch" in captured.out
    assert "accepted: mutating" in captured.out  # its other handler
    assert captured.err.startswith("error[V006]")
    answer = data(capsys, REFUSED, "--trace", status=1)
    last = answer["handlers"][0]["entries"][-1]
    assert last["slot"] == answer["diagnostics"][0]["data"]["slot"]
    # What the last two instructions before the fault are known to have done.
    assert last["changes"] == {"r2": "points to scratch + x, where x is in 0..=255"}


def test_a_policy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("effects = []")
    (*_, diagnostic) = data(capsys, OBJECT, "--policy", str(path), status=1)["diagnostics"]
    assert diagnostic["code"] == "V019"
    assert "does not grant the effect" in diagnostic["message"]
    path.write_text("effects = [1]")
    assert data(capsys, OBJECT, "--policy", str(path), status=1)["diagnostics"][0]["code"] == "V024"
    missing = str(tmp_path / "missing.toml")
    assert data(capsys, OBJECT, "--policy", missing, status=1)["diagnostics"][0]["code"] == "C001"


def test_a_refusal_as_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    (diagnostic,) = data(capsys, REFUSED, status=1)["diagnostics"]
    found = diagnostic["data"]["counterexample"]
    assert found["outcome"] == "reads byte 17 of scratch, which has 17 bytes"
    assert [(each["name"], each["value"]) for each in found["inputs"]] == [("index", 17)]
    assert [each["slot"] for each in diagnostic["data"]["slice"]] == [2]
