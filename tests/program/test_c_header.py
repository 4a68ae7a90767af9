"""The checked-in C header is the one that the interface makes, and clang accepts it."""

from __future__ import annotations

import subprocess

import pytest

from devbc.abi import INFO_KEYS
from devbc.program.c_header import header, main
from devbc.program.info import read_info
from tests.program.objects import INCLUDE, clang

EVERY_STRING = """
#include <devbc.h>
#define SECOND 1
DEVBC_DEVICE(everything);
DEVBC_TIMER(SECOND, tick);
DEVBC_LINE(2, irq);
DEVBC_INPUT(3, gate);
DEVBC_SIGNAL(4, tx);
DEVBC_CALL(SECOND, ident.read);
DEVBC_CALL(0x10, reset);
DEVBC_BANK(regs, mmio, 0x100);
DEVBC_REGISTER(ident, regs, 0x8, 4);
DEVBC_REGISTERS(counter, regs, 0x10, 8, 3, 0x20);
"""


def test_no_drift() -> None:
    assert (INCLUDE / "devbc.h").read_text() == header(), "run `make docs`"


def test_written_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == header()


def test_a_macro_for_every_key() -> None:
    for key in INFO_KEYS:
        assert f"#define DEVBC_{key.upper()}(" in header()


@pytest.mark.skipif(clang() is None, reason="needs a clang with BPF's cpu v4")
def test_macros_make_the_strings_that_are_read() -> None:
    """Through clang's own preprocessor: the strings, as a C compiler would concatenate them."""
    command = [clang() or "", "-target", "bpf", f"-I{INCLUDE}", "-xc", "-E", "-P", "-"]
    text = subprocess.run(command, input=EVERY_STRING, capture_output=True, text=True, check=True).stdout
    initialisers = [line.split("] ", 1)[1] for line in text.splitlines() if "devbc_info_" in line]
    strings = ["".join(each.rstrip(";").split(" = ", 1)[1].split('"')[1::2]) for each in initialisers]
    info = read_info("".join(f"{each}\0" for each in strings).encode(), name="macros")
    assert info.device == "everything"
    assert info.names.timers == {1: "tick"}
    assert info.names.lines == {2: "irq"}
    assert info.names.inputs == {3: "gate"}
    assert info.names.signals == {4: "tx"}
    assert info.names.calls == {1: "ident.read", 16: "reset"}
    assert [(bank.name, bank.space, bank.size) for bank in info.banks] == [("regs", "mmio", 256)]
    assert [(each.name, each.offset, each.count, each.stride) for each in info.registers] == [
        ("ident", 8, 1, 0),
        ("counter", 16, 3, 32),
    ]


@pytest.mark.skipif(clang() is None, reason="needs a clang with BPF's cpu v4")
def test_read_only_fields_are_const() -> None:
    source = "#include <devbc.h>\nvoid f(struct devbc_exit *exit) { exit->size = 1; }\n"
    command = [clang() or "", "-target", "bpf", f"-I{INCLUDE}", "-xc", "-fsyntax-only", "-"]
    result = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "const-qualified" in result.stderr
