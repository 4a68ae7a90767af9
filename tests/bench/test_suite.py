"""Every benchmark runs, in its smallest form, so that none rots; its figures mean nothing then."""

from __future__ import annotations

import errno
import subprocess
import sys
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import engines, mechanisms, recordings, scale, startup
from bench.peers import kvm, librte, linux_bpf
from bench.registry import BENCHMARKS, NAMES
from bench.runner import TINY, Bench, cpus
from bench.subjects import SUBJECTS, Subject, guest_accesses, subject
from devbc.cli import bench as command
from devbc.cli.main import main
from devbc.hypervisor.layouts import Outcome

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


def test_mechanisms() -> None:
    bench = run(mechanisms.NAME)
    found = {(figure.subject, figure.competitor) for figure in bench.figures}
    ours = {mechanisms.JIT, mechanisms.INTERPRETER, mechanisms.MODEL, mechanisms.MODEL_ONE}
    subjects = {subject for subject, _ in found}
    subjects.remove(mechanisms.HANDED)
    assert len(subjects) == 4
    assert (mechanisms.HANDED, "model, by socket, one CPU") in found
    assert {(subject, name) for subject in subjects for name in ours} <= found
    assert (mechanisms.MAIN, mechanisms.SLEEPING_ONE) in found
    has_kvm = kvm.why_unavailable() is None
    assert all(((subject, mechanisms.KVM_USERSPACE) in found) == has_kvm for subject in subjects)
    assert (("virtio doorbell", mechanisms.KVM_ITSELF) in found) == has_kvm
    assert any(each.competitor == "KVM" for each in bench.skipped) == (not has_kvm)
    has_bpf = linux_bpf.why_unavailable() is None
    assert ((mechanisms.MAIN, mechanisms.LINUX_CALL) in found) == has_bpf
    assert any(each.competitor == mechanisms.LINUX for each in bench.skipped) == (not has_bpf)


@pytest.mark.parametrize("subject", mechanisms.SUBJECTS, ids=lambda each: each.name)
def test_a_guest_under_kvm_makes_the_subject_s_accesses(subject: Subject) -> None:
    if reason := kvm.why_unavailable():
        pytest.skip(reason)
    row = guest_accesses(subject)
    with closing(kvm.Guest(row)) as guest:
        for each in (*row, row[0]):
            guest.userspace_exits(1)
            made = guest.exit()
            assert (made.memory, made.write, made.address) == (each.memory, each.write, each.address)
            assert made.size == min(4, each.size)
            if each.memory and each.write:
                assert made.value == each.value
    # What the kernel does not answer is not taken for a figure of the kernel's.
    with closing(kvm.Guest(row)) as guest, pytest.raises(OSError, match="leaves an access to userspace"):
        guest.kernel_exits(len(row))


def test_mechanisms_without_kvm_bpf_and_a_second_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "why_unavailable", lambda: "there is no /dev/kvm")
    monkeypatch.setattr(linux_bpf, "why_unavailable", lambda: "it is not permitted")
    monkeypatch.setattr(mechanisms, "cpus", lambda: cpus()[:1])
    monkeypatch.setattr(mechanisms, "SUBJECTS", mechanisms.SUBJECTS[:1])
    bench = run(mechanisms.NAME)
    assert {(each.competitor, each.reason) for each in bench.skipped} == {
        ("KVM", "there is no /dev/kvm"),
        (mechanisms.LINUX, "it is not permitted"),
        ("two CPUs", "this process may use one CPU only"),
    }
    names = {figure.competitor for figure in bench.figures}
    assert {mechanisms.JIT, mechanisms.MODEL_ONE, mechanisms.SLEEPING_ONE} <= names
    assert not any("two CPUs" in name or "KVM" in name or "Linux" in name for name in names)


def test_a_guest_that_kvm_refuses_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A KVM without a PIT of its own, say."""

    def refuses(row: object, *, irqchip: bool = False, eventfd: bool = False) -> kvm.Guest:
        raise OSError(errno.ENOTTY, "there is no such thing")

    monkeypatch.setattr(kvm, "why_unavailable", lambda: None)
    monkeypatch.setattr(kvm, "Guest", refuses)
    monkeypatch.setattr(mechanisms, "SUBJECTS", mechanisms.SUBJECTS[:1])
    bench = run(mechanisms.NAME)
    skipped = {each.competitor: each.reason for each in bench.skipped}
    for name in (mechanisms.KVM_USERSPACE, mechanisms.KVM_PIT, mechanisms.KVM_EVENTFD):
        assert skipped[name] == "KVM refuses it: there is no such thing"
    assert not any(figure.group == "KVM" for figure in bench.figures)


def test_kvm_answers_its_own_in_the_kernel() -> None:
    if reason := kvm.why_unavailable():
        pytest.skip(reason)
    latch, doorbell = (guest_accesses(subject(name)) for name in ("PIT latch, two reads", "virtio doorbell"))
    for guest in (kvm.Guest(latch, irqchip=True), kvm.Guest(doorbell, eventfd=True)):
        with closing(guest):
            assert guest.kernel_exits(300) > 0


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4, 5, 0x81]), st.integers(1, 9000)), max_size=9))
def test_what_was_handled_in_long_rows_is_timed(spans: list[tuple[int, int]]) -> None:
    """The parts are the recording, in order; long ones are what was handled in rows that are long enough."""
    outcomes = bytes(outcome for outcome, length in spans for _ in range(length))
    parts = recordings._parts(outcomes)
    assert [*chain.from_iterable(range(each.start, each.stop) for each in parts)] == [*range(len(outcomes))]
    handled = "".join("h" if outcome & 0x7F == Outcome.HANDLED else "-" for outcome in outcomes)
    long = [each.stop - each.start for each in parts if each.long]
    assert all({*handled[each.start : each.stop]} == {"h"} for each in parts if each.long)
    assert sum(long) == sum(len(row) for row in handled.split("-") if len(row) >= recordings._LEAST)
    assert all(recordings._LEAST <= each <= recordings._MOST for each in long)


def test_vcpus_that_ring_one_doorbell_lose_no_ring() -> None:
    """Whoever finds the lock taken goes to the model: each ring counts once, whoever answers it."""
    runners = scale._machines(subject("virtio doorbell"), 2, 512, live=True)
    scale._together(runners)
    for each in runners:
        assert {*each.run.outcomes} <= {Outcome.HANDLED, Outcome.CONTENDED}
        assert each.exits == 512 * scale._PASSES
        assert 0 <= each.contended <= each.exits
        assert each.end > each.start > 0
        assert each.vm is runners[0].vm
    apart = scale._machines(subject("virtio doorbell"), 2, 8, live=True, devices=2)
    scale._together(apart)
    assert [device.area.view.queue[3].doorbell for device in apart[0].vm.devices] == [0x1234] * 2


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
