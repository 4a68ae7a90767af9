"""`.devbc` strings: what is read of them, and the message for each that is wrong."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbc.diagnostics import Rejected
from devbc.program.info import DeviceInfo, read_info
from devbc.program.program import Names, Register


def _read(*strings: str) -> DeviceInfo:
    return read_info("".join(f"{each}\0" for each in strings).encode(), name="x.o")


def test_nothing() -> None:
    assert _read() == DeviceInfo("", Names(), (), ())


def test_padding_between_strings() -> None:
    assert read_info(b"\0\0device=a\0\0\0line.0=irq\0\0", name="x.o").names.lines == {0: "irq"}


def test_registers() -> None:
    info = _read("bank.regs=mmio:0x100", "register.id=regs:0:4", "register.timer=regs:0x40:8:3:0x20")
    assert info.registers == (Register("id", "regs", 0, 4), Register("timer", "regs", 0x40, 8, 3, 0x20))


def test_a_register_in_several_banks() -> None:
    info = _read("bank.pio=pio:8", "bank.regs=mmio:16", "register.r=pio:1:1", "register.r=regs:4:1")
    assert info.registers == (Register("r", "pio", 1, 1), Register("r", "regs", 4, 1))


@pytest.mark.parametrize(
    ("strings", "message"),
    [
        (["device"], "`device`: it is not of the form `key=value`"),
        (["device.0=a"], "`device.0=a`: it must have the form `device=NAME`"),
        (["timer=a"], "`timer=a`: it must have the form `timer.N=...`"),
        (["bank=a"], "`bank=a`: it must have the form `bank.NAME=...`"),
        (["timers.0=a"], "`timers.0=a`: there is no key `timers`"),
        (["device=a b"], "`device=a b`: `a b` is not a name"),
        (["device=a", "device=b"], "`device=b`: the device has a name already"),
        (["timer.8=a"], "`timer.8=a`: timers are numbered from 0 to 7"),
        (["line.32=a"], "`line.32=a`: lines are numbered from 0 to 31"),
        (["line.-1=a"], "`line.-1=a`: `-1` is not a number"),
        (["line.٣=a"], "`line.٣=a`: `٣` is not a number"),
        (["line.0=a", "line.0=b"], "`line.0=b`: line 0 is called `a` already"),
        (["line.0=a", "line.1=a"], "`line.1=a`: another line is called `a`"),
        (["call.0=a.b"], "`call.0=a.b`: `a.b` is not a name"),
        (["call.0=a.read", "call.0=b"], "`call.0=b`: call 0 is called `a.read` already"),
        (["call.1=a", "call.0=a"], "`call.0=a`: another call is called `a`"),
        (["call.0x100000000=a"], "`call.0x100000000=a`: calls are numbered from 0 to 4294967295"),
        (["line.0=a.read"], "`line.0=a.read`: `a.read` is not a name"),
        (["bank.hypercall=pio:4"], "`bank.hypercall=pio:4`: machine files call the device's hypercalls so"),
        (["bank.a=isa:4"], "`bank.a=isa:4`: a bank has the form `SPACE:BYTES`, with space `pio` or `mmio`"),
        (["bank.a=pio:0"], "`bank.a=pio:0`: no bank has 0 bytes"),
        (["bank.a=pio:1", "bank.a=pio:1"], "`bank.a=pio:1`: bank `a` is described already"),
        (["register.r=a:0"], "`register.r=a:0`: a register has the form `BANK:OFFSET:SIZE[:COUNT:STRIDE]`"),
        (["register.r=a:0:3"], "`register.r=a:0:3`: a register has 1, 2, 4 or 8 bytes, not 3"),
        (
            ["register.r=a:0:4:2:2"],
            "`register.r=a:0:4:2:2`: 2 registers of 4 bytes cannot stand 2 bytes apart",
        ),
        (
            ["bank.a=pio:4", "register.r=a:0:4", "register.r=a:0:4"],
            "`register.r=a:0:4`: register `r` is described already",
        ),
        (["register.r=a:0:4"], "register `r` is in bank `a`, which is not described"),
        (["bank.a=pio:4", "register.r=a:2:4"], "register `r` ends at 0x6, and bank `a` has 0x4 bytes"),
    ],
)
def test_refused(strings: list[str], message: str) -> None:
    with pytest.raises(Rejected, match=f"^O012: {re.escape(message)}$"):
        _read(*strings)


def test_misspelt_key_has_help() -> None:
    with pytest.raises(Rejected) as caught:
        _read("lime.0=a")
    assert caught.value.diagnostics[0].help == ("did you mean `line`?",)


def test_not_ended() -> None:
    with pytest.raises(Rejected, match="the last string is not ended by a NUL"):
        read_info(b"device=a", name="x.o")


_KEYS = ["device=", "timer.", "line.", "bank.", "register.", "=", ":", "pio", "0x", "1", "a", "\0", "."]


@given(st.lists(st.sampled_from(_KEYS) | st.text(max_size=3), max_size=20))
def test_any_string_is_read_or_refused(parts: list[str]) -> None:
    with contextlib.suppress(Rejected):
        read_info("".join(parts).encode("utf-8", "surrogatepass"), name="x.o")
