"""Compiler output is accepted as it is: each handler of the corpus, with its class and exact bound.

That a bound holds is shown by checked runs; that it is no higher than need be by one run that meets it. The
expectations and those runs are in `corpus/expected.toml`.
"""

from __future__ import annotations

import ctypes
import random
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from devbc.abi import EXIT_FIELDS, EXIT_SIZE, AccessBinding
from devbc.catalog import load_program
from devbc.diagnostics import Rejected
from devbc.engines.interpreter import State, run_handler
from devbc.isa.insn import decode
from devbc.program.program import Handler, Program
from devbc.program.verified import VerifiedHandler
from devbc.verifier import verify_handler
from tests.verifier.oracle import check_run, explore

CORPUS = Path(__file__).parent / "corpus"
EXPECTED: dict[str, dict[str, dict[str, Any]]] = tomllib.loads((CORPUS / "expected.toml").read_text())
ALL = [(file, name) for file, handlers in EXPECTED.items() for name in handlers]
ACCEPTED = [(file, name) for file, name in ALL if "rejected" not in EXPECTED[file][name]]
REFUSED = [each for each in ALL if each not in ACCEPTED]


@cache
def program(file: str) -> Program:
    return load_program(CORPUS / file)


def handler(file: str, name: str) -> Handler:
    return next(each for each in program(file).handlers if each.functions[0].name == name)


@cache
def verified(file: str, name: str) -> VerifiedHandler:
    of = program(file)
    return verify_handler(handler(file, name), scratch_size=len(of.scratch_image), rodata=of.rodata)


def test_every_handler_is_expected() -> None:
    sources = {each.stem for pattern in ("*.c", "*.dev") for each in CORPUS.glob(pattern)}
    assert {Path(file).stem for file in EXPECTED} == sources
    for file, handlers in EXPECTED.items():
        assert handlers.keys() == {each.functions[0].name for each in program(file).handlers}


@pytest.mark.parametrize(("file", "name"), ACCEPTED)
def test_accepted_with_class_and_bound(file: str, name: str) -> None:
    expected = EXPECTED[file][name]
    found = verified(file, name)
    assert (str(found.handler_class), found.worst_case) == (expected["class"], expected["worst_case"])


@pytest.mark.parametrize(("file", "name"), ACCEPTED)
def test_a_run_meets_the_bound(file: str, name: str) -> None:
    expected, steps = EXPECTED[file][name], 0

    def observer(_: State) -> None:
        nonlocal steps
        steps += 1

    exit_, area = new_exit(handler(file, name), expected.get("exit", {})), new_area(file)
    for path, value in expected.get("scratch", {}).items():
        assign(area, path, value)
    run_handler(verified(file, name), exit_, area, program(file).rodata, lambda: 0, observer=observer)
    assert steps == expected.get("reached", expected["worst_case"])


@pytest.mark.parametrize(("file", "name"), ACCEPTED)
def test_runs_keep_what_was_proven(file: str, name: str) -> None:
    of = handler(file, name)
    explored = explore(
        of.code,
        section=of.section,
        scratch_size=len(program(file).scratch_image),
        rodata=program(file).rodata,
    )
    rng = random.Random(of.section)
    for _ in range(10):
        check_run(explored, rng)


@pytest.mark.parametrize(("file", "name"), REFUSED)
def test_refused(file: str, name: str) -> None:
    with pytest.raises(Rejected) as caught:
        verified(file, name)
    assert caught.value.diagnostics[0].code.id == EXPECTED[file][name]["rejected"]


@pytest.mark.parametrize(("file", "name"), REFUSED)
def test_what_is_refused_would_do_no_harm(file: str, name: str) -> None:
    """That is what makes these a matter of precision: random runs of them fault nowhere."""
    of, rng = handler(file, name), random.Random(name)
    for _ in range(100):
        scratch = bytearray(rng.randbytes(len(program(file).scratch_image)))
        run_handler(decode(of.code), new_exit(of, {}), scratch, program(file).rodata, lambda: 0)


def new_exit(of: Handler, fields: dict[str, int]) -> bytearray:
    """An exit of the handler's first access, with these fields."""
    assert isinstance(of.binding, AccessBinding)
    offset, size = next(of.binding.accesses())
    exit_ = bytearray(EXIT_SIZE)
    for name, value in ({"offset": offset, "size": size} | fields).items():
        place = EXIT_FIELDS[name]
        exit_[place.offset : place.offset + place.size] = value.to_bytes(place.size, "little")
    return exit_


def new_area(file: str) -> Any:
    area = program(file).scratch_type
    assert area is not None
    return area()


def assign(area: Any, path: str, value: int) -> None:
    """Set what a path like `channel[1].mode` names; all elements, if that is an array."""
    *outer, name = path.replace("[", ".").replace("]", "").split(".")
    for each in outer:
        area = area[int(each)] if each.isdigit() else getattr(area, each)
    if name.isdigit():
        area[int(name)] = value
    elif isinstance(member := getattr(area, name), ctypes.Array):
        member[:] = [value] * len(member)
    else:
        setattr(area, name, value)
