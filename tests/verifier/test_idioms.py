"""Compiler output is accepted as it is: one clang-built handler an idiom, with class and bound.

The object is kept beside its source (`data/idioms.c` says how it was made), so that the tests need no clang.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from devbc.program.elf import load_object
from devbc.program.program import Handler
from devbc.verifier import verify_handler
from tests.verifier.oracle import check_run, explore

PROGRAM = load_object((Path(__file__).parent / "data" / "idioms.o").read_bytes(), name="idioms.o")
HANDLERS = {handler.functions[0].name: handler for handler in PROGRAM.handlers}

EXPECTED = {
    "masked_index": ("pure", 11),
    "index_from_scratch": ("mutating", 13),
    "switch_statement": ("mutating", 14),
    "table_of_indices": ("mutating", 13),
    "loop_up": ("pure", 89),
    "loop_down": ("pure", 42),
    "ring": ("mutating", 17),
    "strided_registers": ("pure", 26),
    "bytes_to_word": ("pure", 108),
    "clamps": ("mutating", 23),
    "products": ("mutating", 27),
    "correlated": ("mutating", 11),
    "array_on_the_stack": ("pure", 43),
    "calendar": ("pure", 47),
    "highest_pending": ("mutating", 44),
    "checksum": ("mutating", 85),
    "sign_test_of_a_byte": ("mutating", 12),
    "arm_by_number": ("pure", 21),
    "sorted_insert": ("mutating", 1926),
    "many_flags": ("mutating", 54),
}


def test_every_idiom_is_expected() -> None:
    assert EXPECTED.keys() == HANDLERS.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_accepted_with_class_and_bound(name: str) -> None:
    verified = verify_handler(HANDLERS[name], scratch_size=len(PROGRAM.scratch_image), rodata=PROGRAM.rodata)
    assert (str(verified.handler_class), verified.worst_case) == EXPECTED[name]


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_runs_keep_what_was_proven(handler: Handler) -> None:
    explored = explore(
        handler.code,
        section=handler.section,
        scratch_size=len(PROGRAM.scratch_image),
        rodata=PROGRAM.rodata,
    )
    rng = random.Random(handler.section)
    for _ in range(20):
        check_run(explored, rng)
