"""The cache of proofs and objects: found by content and nothing else, in a directory of one's own."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from devbc import limits
from devbc.cache import DISABLE, Cache, key, user_cache, version
from devbc.catalog import bundled_devices, compile_object, load_verified
from devbc.diagnostics import Rejected
from devbc.program import stored
from devbc.program.elf import load_object
from devbc.program.verified import VerifiedProgram
from devbc.verifier import DEFAULT, Policy, cached, verify_program
from devbc.verifier.cached import proof_key, verify_object
from devbc.verifier.report import report_json

PM_TIMER = bundled_devices() / "acpi_pm_timer" / "acpi_pm_timer.dev"
DEVICES = sorted(bundled_devices().glob("*/*.dev"))


@pytest.fixture(scope="module")
def pm_timer() -> bytes:
    return compile_object(PM_TIMER)


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that were really verified, by device."""
    seen: list[str] = []

    def counted(program: object, *, policy: Policy) -> VerifiedProgram:
        seen.append("verified")
        return verify_program(program, policy=policy)  # type: ignore[arg-type]

    monkeypatch.setattr(cached, "verify_program", counted)
    return seen


def directory(tmp_path: Path) -> Path:
    made = tmp_path / "cache"
    made.mkdir(mode=0o700)
    return made


def entries(where: Path) -> list[Path]:
    return sorted(where.iterdir())


# What is stored.


@pytest.mark.parametrize("path", DEVICES, ids=lambda path: path.stem)
def test_a_stored_program_is_the_program(path: Path) -> None:
    program = verify_program(load_object(compile_object(path), name=path.name))
    read = stored.unpack(stored.pack(program))
    assert read is not None
    assert read.handlers == program.handlers
    assert replace(read.program, scratch_type=None) == replace(program.program, scratch_type=None)
    assert layout(read.program.scratch_type) == layout(program.program.scratch_type)
    assert report_json(read) == report_json(program)


def layout(ctype: object) -> object:
    """All that a ctypes type says of itself."""
    if not isinstance(ctype, type):
        return None
    if issubclass(ctype, ctypes.Array):
        return ctype._length_, layout(ctype._type_)
    if issubclass(ctype, ctypes.Structure | ctypes.Union):
        rows = [(name, getattr(ctype, name).offset, layout(each)) for name, each, *_ in ctype._fields_]
        return ctype.__name__, ctype.__bases__, ctypes.sizeof(ctype), tuple(ctype._anonymous_), rows
    return ctype


def test_bytes_of_another_shape_are_no_program(pm_timer: bytes) -> None:
    data = stored.pack(verify_program(load_object(pm_timer, name="x")))
    assert stored.unpack(b"") is None
    assert stored.unpack(data[:-1]) is None
    assert stored.unpack(data + b"\0") is None
    for place in range(0, len(data), 7):
        # Whatever a changed byte makes of it, it is None or a program, and no exception.
        stored.unpack(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])


# When it is found.


def test_a_hit_verifies_nothing(pm_timer: bytes, tmp_path: Path, verifications: list[str]) -> None:
    cache = Cache(directory(tmp_path))
    first = verify_object(pm_timer, name="x", cache=cache)
    second = verify_object(pm_timer, name="x", cache=cache)
    assert len(verifications) == 1
    assert second.handlers == first.handlers


def test_a_changed_byte_policy_name_or_version_misses(
    pm_timer: bytes, tmp_path: Path, verifications: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(directory(tmp_path))
    verify_object(pm_timer, name="x", cache=cache)
    # Behind the last section of an ELF file a byte means nothing; the content is another all the same.
    verify_object(pm_timer + b"\0", name="x", cache=cache)
    verify_object(pm_timer, name="y", cache=cache)
    verify_object(pm_timer, name="x", cache=cache, policy=replace(DEFAULT, lines=31))
    monkeypatch.setattr(cached, "_version", lambda: "another")
    verify_object(pm_timer, name="x", cache=cache)
    assert len(verifications) == 5


def test_a_stricter_policy_is_not_answered_by_a_laxer_proof(pm_timer: bytes, tmp_path: Path) -> None:
    cache = Cache(directory(tmp_path))
    verify_object(pm_timer, name="x", cache=cache)
    with pytest.raises(Rejected):
        verify_object(pm_timer, name="x", cache=cache, policy=Policy(helpers=frozenset()))
    assert len(entries(tmp_path / "cache")) == 1


def test_equal_policies_have_one_key() -> None:
    names = sorted(DEFAULT.effects)
    one, other = (Policy(effects=frozenset(each)) for each in (names, reversed(names)))
    assert proof_key(b"", "x", one) == proof_key(b"", "x", other)
    assert proof_key(b"", "x", one) != proof_key(b"", "x", Policy(effects=frozenset(names[1:])))


def test_the_version_is_of_every_source(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = version(tmp_path)
    version.cache_clear()
    (tmp_path / "a").write_text("2")
    assert version(tmp_path) != before


def test_parts_of_a_key_do_not_run_together() -> None:
    assert key("proof", "ab", "c") != key("proof", "a", "bc")


# Whom it believes.


def broken(entry: Path) -> None:
    data = bytearray(entry.read_bytes())
    data[-1] ^= 1
    entry.write_bytes(data)


def cut(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes()[:40])


def of_another(entry: Path) -> None:
    """A whole entry, of another program, under this one's name."""
    cache = Cache(entry.parent)
    cache.put("proof-other", b"whatever")
    (entry.parent / "proof-other").replace(entry)


def open_to_others(entry: Path) -> None:
    entry.chmod(0o620)


def a_link(entry: Path) -> None:
    target = entry.with_name("target")
    entry.replace(target)
    entry.symlink_to(target)


def a_pipe(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry, 0o600)


def a_folder(entry: Path) -> None:
    entry.unlink()
    entry.mkdir(0o700)


def in_an_open_directory(entry: Path) -> None:
    entry.parent.chmod(0o770)


@pytest.mark.parametrize(
    "spoil",
    [broken, cut, of_another, open_to_others, a_link, a_pipe, a_folder, in_an_open_directory],
    ids=lambda each: each.__name__,
)
def test_an_entry_that_anyone_may_have_made_is_not_believed(
    spoil: Callable[[Path], None], pm_timer: bytes, tmp_path: Path, verifications: list[str]
) -> None:
    cache = Cache(directory(tmp_path))
    verify_object(pm_timer, name="x", cache=cache)
    spoil(entries(tmp_path / "cache")[0])
    verify_object(pm_timer, name="x", cache=cache)
    assert len(verifications) == 2


def test_an_entry_of_another_user_is_not_believed(
    pm_timer: bytes, tmp_path: Path, verifications: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(directory(tmp_path))
    verify_object(pm_timer, name="x", cache=cache)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    verify_object(pm_timer, name="x", cache=cache)
    assert len(verifications) == 2


@pytest.mark.parametrize("where", ["a file", "below a file"])
def test_a_cache_that_cannot_be_written_keeps_nothing(where: str, pm_timer: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    cache = Cache(file if where == "a file" else file / "cache")
    verify_object(pm_timer, name="x", cache=cache)
    assert file.read_text() == ""


def test_entries_are_private_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CACHE_ENTRIES", 4)
    where = tmp_path / "parent" / "cache"
    cache = Cache(where)
    for number in range(10):
        cache.put(f"entry-{number}", b"x")
        assert len(entries(where)) <= 4
    assert cache.get("entry-9") == b"x"
    assert where.stat().st_mode & 0o777 == 0o700
    assert {entry.stat().st_mode & 0o777 for entry in entries(where)} == {0o600}


# Where it is.


def test_the_users_cache_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(DISABLE, "0")
    user_cache().put("entry", b"x")
    assert [each.name for each in entries(tmp_path / "devbc")] == ["entry"]
    monkeypatch.setenv(DISABLE, "1")
    assert user_cache().get("entry") is None


def test_a_source_is_compiled_and_verified_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(DISABLE)
    source = tmp_path / "pm.dev"
    source.write_text(PM_TIMER.read_text())
    first = load_verified(source)
    assert sorted(each.name.split("-")[0] for each in entries(tmp_path / "devbc")) == ["object", "proof"]
    assert load_verified(source).handlers == first.handlers
    assert len(entries(tmp_path / "devbc")) == 2
    source.write_text(PM_TIMER.read_text() + "\n")
    load_verified(source)
    assert len(entries(tmp_path / "devbc")) > 2
