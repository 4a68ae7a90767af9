"""Machine files: what is read from them, and the diagnosis of each way to get one wrong."""

from __future__ import annotations

import pytest

from devbc.diagnostics import Rejected
from devbc.hypervisor.machine import DeviceEntry, parse_machine
from devbc.hypervisor.wiring import WireSpec
from devbc.limits import DEVICES

PIT = '[[device]]\nname = "pit"\ntype = "i8254"\nat = { pio = 0x40 }\n'


def test_a_machine_is_devices_and_wires() -> None:
    text = PIT + '[[wire]]\nfrom = "pit.irq0"\nto = "guest.2"\n[[wire]]\nfrom = "pit.a"\nto = "hpet.b"\n'
    machine = parse_machine(text.encode(), name="m", file="m.toml")
    assert machine.devices == (DeviceEntry("pit", "i8254", {"pio": 0x40}),)
    assert machine.wires == (WireSpec("pit", "irq0", guest=2), WireSpec("pit", "a", "hpet", "b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", "it is not UTF-8 text"),
        (b"[[device", "it is not TOML"),
        (b"", "a machine has at least one `[[device]]`"),
        (b"device = 3", "`device` is not a list of tables"),
        (b"[[device]]\nnmae = 'x'", "a device has no key `nmae`"),
        (b"[[device]]\nname = 'x'", "device `x` lacks `type`"),
        (b"[[device]]\nname = 'x'\ntype = 3\nat = {}", "`type` of device `x` is not a string"),
        (b"[[device]]\nname = 'x'\ntype = 'y'\nat = {}", "device `x` sits nowhere"),
        (
            b"[[device]]\nname = 'x'\ntype = 'y'\nat = { pio = -1 }",
            "the address of bank `pio` is not a number",
        ),
        (
            b"[[device]]\nname = 'x'\ntype = 'y'\nat = { pio = true }",
            "the address of bank `pio` is not a number",
        ),
        (2 * PIT.encode(), "two devices are called `pit`"),
        (PIT.encode() + b"[[wire]]\nfrom = 'pit'\nto = 'guest.1'", "`pit` is not of the form `device.line`"),
        (PIT.encode() + b"[[wire]]\nfrom = 'pit.x'\nto = 'guest.64'", "the guest's lines are"),
        (PIT.encode() + b"[[wire]]\nfrom = 'pit.x'", "a wire lacks `to`"),
        (
            PIT.encode() + b"[[wire]]\nfrom = 'pit.x'\nto = 'guest." + b"1" * 5000 + b"'",
            "the guest's lines are",
        ),
        (b"[[device]]\nname = 'x'\ntype = 'y'\nat = { pio = " + b"1" * 5000 + b" }", "it has a number"),
        (b"a = " + b"[" * 100_000, "a nesting that no machine file needs"),
        *(
            (
                f'[[device]]\nname = "{name}"\ntype = "{kind}"\nat = {{ pio = 1 }}'.encode(),
                "is no name for a device",
            )
            for name, kind in [
                ("", "y"),
                ("a.b", "y"),
                ("guest", "y"),
                ("\\u001b[31m", "y"),
                ("[/x]", "y"),
                ("x", "../y"),
                ("x", "/y"),
                ("x", "y\\u0000"),
            ]
        ),
    ],
)
def test_what_is_wrong_with_a_machine_file_is_said(text: bytes, message: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_machine(text, name="m", file="m.toml")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code.id == "H002"
    assert message in diagnostic.message


def test_a_machine_has_so_many_devices() -> None:
    text = "".join(PIT.replace("pit", f"d{number}") for number in range(DEVICES + 1))
    with pytest.raises(Rejected, match=r"H008: the machine has 257 devices"):
        parse_machine(text.encode(), name="m", file="m.toml")
