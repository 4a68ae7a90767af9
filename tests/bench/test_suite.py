"""Every benchmark runs, in its smallest form, so that none rots; its figures mean nothing then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import engines, mechanisms, recordings, scale, startup
from bench.peers import kvm, librte, linux_bpf
from bench.registry import BENCHMARKS, NAMES
from bench.runner import TINY, Bench
from bench.subjects import SUBJECTS
from devbc.cli import bench as command
from devbc.cli.main import main

ROOT = Path(__file__).parents[2]


def run(name: str) -> Bench:
    bench = Bench(TINY, name=name)
    next(each for each in BENCHMARKS if each.name == name).run(bench)
    assert all(figure.samples and min(figure.samples) >= 0 for figure in bench.figures)
    keys = [figure.key for figure in bench.figures]
    assert len(keys) == len(set(keys))
    return bench


def test_engines() -> None:
    bench = run(engines.NAME)
    found = {(figure.subject, figure.competitor) for figure in bench.figures}
    assert ("PM timer read", engines.JIT) in found
    assert ("virtio doorbell", engines.INTERPRETER) in found
    skipped = {each.competitor for each in bench.skipped}
    for peer, why in (
        (engines.C, engines.c_handlers()), (engines.RTE_JIT, librte.library()),
        (engines.LINUX, linux_bpf.why_unavailable()),
    ):  # fmt: skip
        assert (peer in skipped) == isinstance(why, str)
        assert any(name == peer for _, name in found) != isinstance(why, str)


def test_peers_that_are_missing_are_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(librte, "library", lambda: "it is not installed")
    monkeypatch.setattr(linux_bpf, "why_unavailable", lambda: "it is not permitted")
    monkeypatch.setattr(engines, "c_handlers", lambda: "no C compiler")
    monkeypatch.setattr(engines, "SUBJECTS", SUBJECTS[:2])
    bench = run(engines.NAME)
    assert {each.competitor: each.reason for each in bench.skipped} == {
        engines.C: "no C compiler",
        engines.RTE_JIT: "it is not installed",
        engines.RTE_INTERPRETER: "it is not installed",
        engines.LINUX: "it is not permitted",
    }
    assert {figure.competitor for figure in bench.figures if figure.subject == "PM timer read"} == {
        engines.JIT, engines.JIT_V2, engines.INTERPRETER,
    }  # fmt: skip


def test_mechanisms(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = run(mechanisms.NAME)
    main = {figure.competitor for figure in bench.figures if figure.subject == mechanisms.MAIN}
    assert {mechanisms.JIT, mechanisms.MODEL, mechanisms.SLEEPING_ONE, mechanisms.MODEL_SERVICE} <= main
    assert (mechanisms.KVM_USERSPACE in main) == (kvm.why_unavailable() is None)
    assert any(each.competitor == "KVM" for each in bench.skipped) == (kvm.why_unavailable() is not None)


@pytest.mark.parametrize("name", [scale.NAME, startup.NAME])
def test_scale_and_startup(name: str) -> None:
    assert run(name).figures


def test_recordings() -> None:
    bench = run(recordings.NAME)
    (result,) = bench.recordings
    assert result.accesses == 2000 == result.total("accesses") == sum(result.timeline.without)
    left = result.accesses - result.total("handled")
    assert sum(result.timeline.with_programs) == left
    assert result.mismatches == 0
    for each in result.times:
        saved = result.total("handled") * (each.userspace_cost - each.handled_cost) / 1e6
        assert each.without - each.with_programs == pytest.approx(saved)


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*NAMES]


def test_a_folder_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["bench", "engines", "--output", str(tmp_path / "file" / "x")]) == 1
    assert "error[C001]" in capsys.readouterr().err


def test_a_suite_that_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "suite_folder", lambda: tmp_path)
    assert main(["bench", "--list"]) == 1
    assert "error[C011]" in capsys.readouterr().err


def test_the_suite_is_found_by_path_from_anywhere(tmp_path: Path) -> None:
    """Somebody else's `bench` in the way is not taken for ours."""
    (tmp_path / "bench.py").write_text("raise SystemExit('not ours')\n")
    code = "import sys; from devbc.cli.main import main; sys.exit(main(['bench', '--list']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mechanisms" in done.stdout
