"""Linux's BPF through bpf(2): byte code, maps and the exit reach the kernel and come back."""

from __future__ import annotations

import os

import pytest

from devbc.abi import EXIT_FIELDS, EXIT_SIZE
from devbc.diagnostics import Rejected
from devbc.engines import linux
from devbc.engines.linux import LinuxProgram, Refused, try_load
from tests.handlers import code

VALUE = EXIT_FIELDS["value"].offset


@pytest.fixture(autouse=True)
def _bpf() -> None:
    if reason := linux.why_unavailable():
        pytest.skip(reason)


def exit_with(value: int) -> bytes:
    return bytes(VALUE) + value.to_bytes(8, "little") + bytes(EXIT_SIZE - VALUE - 8)


def test_the_exit_goes_in_and_comes_back() -> None:
    text = f"ldxdw %r2, [%r1+{VALUE}]\nadd %r2, 1\nstxdw [%r1+{VALUE}], %r2\nmov %r0, 1\nexit"
    with LinuxProgram.load(code(text), scratch_size=8) as program:
        assert program.run(exit_with(41)) == (1, exit_with(42))
        assert program.run(exit_with((1 << 64) - 1)) == (1, exit_with(0))


def test_scratch_is_shared_both_ways() -> None:
    text = """
        lddw %r2, map_value_by_idx 0, 8
        mov %r3, 5
        lock fetch add [%r2+0], %r3
        mov %r0, %r3
        exit
    """
    with LinuxProgram.load(code(text), scratch_size=16) as program:
        program.scratch[8] = 7
        assert program.run(bytes(EXIT_SIZE))[0] == 7
        assert program.scratch[8] == 12
        assert len(program.scratch) == 16


def test_read_only_data_is_there_and_known() -> None:
    # Linux folds a load from a frozen map: a branch on it that would be refused is never looked at.
    text = """
        lddw %r2, map_value_by_idx 1, 1
        ldxb %r0, [%r2+0]
        jeq %r0, 9, out
        ldxb %r0, [%r2+4096]
    out:
        exit
    """
    with LinuxProgram.load(code(text), scratch_size=8, rodata=bytes([3, 9, 27])) as program:
        assert program.run(bytes(EXIT_SIZE))[0] == 9
    assert isinstance(try_load(code(text), scratch_size=8, rodata=bytes([3, 8, 27])), Refused)


def test_local_calls_and_version_4() -> None:
    text = """
        mov %r1, -6
        call local halve
        exit
    halve:
        movsx3264 %r0, %r1
        sdiv %r0, 2
        bswap64 %r0
        bswap64 %r0
        neg %r0
        exit
    """
    with LinuxProgram.load(code(text), scratch_size=8) as program:
        assert program.run(bytes(EXIT_SIZE))[0] == 3


def test_a_refusal_says_why() -> None:
    bad = code("ldxdw %r0, [%r2+0]\nexit")
    refused = try_load(bad, scratch_size=8)
    assert isinstance(refused, Refused)
    assert "R2" in refused.reason
    with pytest.raises(Rejected) as rejection:
        LinuxProgram.load(bad, scratch_size=8)
    (diagnostic,) = rejection.value.diagnostics
    assert diagnostic.code.id == "E002"
    assert refused.reason in diagnostic.message
    assert any(refused.reason in note for note in diagnostic.notes)


def test_alignment_is_asked_for_on_demand() -> None:
    text = code("lddw %r2, map_value_by_idx 0, 1\nldxdw %r0, [%r2+0]\nexit")
    assert isinstance(try_load(text, scratch_size=16, strict=True), Refused)


def test_nothing_is_left_open() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for text in ("mov %r0, 1\nexit", "ldxdw %r0, [%r2+0]\nexit"):
        loaded = try_load(code(text), scratch_size=8)
        if isinstance(loaded, LinuxProgram):
            loaded.close()
    assert descriptors() == before


def test_where_it_is_not_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "why_unavailable", lambda: "bpf(2) is not permitted")
    with pytest.raises(Rejected) as rejection:
        LinuxProgram.load(code("mov %r0, 1\nexit"), scratch_size=8)
    assert [each.code.id for each in rejection.value.diagnostics] == ["E001"]


@pytest.mark.parametrize("number", ["EPERM", "EACCES", "ENOSYS"])
def test_why_it_is_unavailable(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def refuse(*_: object, **__: object) -> None:
        raise OSError(getattr(errno, number), "refused")

    monkeypatch.setattr(linux, "try_load", refuse)
    reason = linux.why_unavailable.__wrapped__()
    assert reason is not None
    assert "bpf(2)" in reason
