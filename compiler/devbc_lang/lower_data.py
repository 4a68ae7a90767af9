"""The data of a module: the shared area with its reset values, constant arrays, `.devbc` strings."""

from __future__ import annotations

from collections.abc import Iterator

from devbc_lang import typed
from devbc_lang.debuginfo import quoted
from devbc_lang.ir import memory_type
from devbc_lang.syntax import PortKind
from devbc_lang.types import Array


def state_global(device: typed.Device, debug: str, section: str) -> str:
    """The shared area: one variable, its initial value the state after reset.

    As bytes, so that LLVM sees no structure whose padding it could leave undefined.
    """
    image = bytearray(device.state.size)
    for offset, value in device.reset.items():
        image[offset : offset + len(value)] = value
    size, align = device.state.size, device.state.align
    initial = f"c{quoted(bytes(image))}" if any(image) else "zeroinitializer"
    return (
        f'@state = dso_local global [{size} x i8] {initial}, section "{section}", align {align}, !dbg {debug}'
    )


def table_global(table: typed.Table) -> str:
    """A constant array; `internal`, so that an unused one disappears."""
    scalar = table.type.element
    while isinstance(scalar, Array):
        scalar = scalar.element
    ir = memory_type(scalar)
    values = ", ".join(f"{ir} {value}" for value in table.values)
    return f"@{table.name} = internal constant [{len(table.values)} x {ir}] [{values}], align {scalar.size}"


def info_strings(device: typed.Device, section: str) -> str:
    """What names the device's parts, for people and machine files (`devbc.abi.INFO_KEYS`)."""
    text = "".join(f"{each}\0" for each in _strings(device)).encode()
    return (
        f'@devbc.info = dso_local constant [{len(text)} x i8] c{quoted(text)}, section "{section}", align 1'
    )


def _strings(device: typed.Device) -> Iterator[str]:
    yield f"device={device.name}"
    for kind in PortKind:
        for number, name in enumerate(device.ports[kind]):
            yield f"{kind}.{number}={name}"
    for number, name in device.calls.items():
        yield f"call.{number:#x}={name}"
    for bank in device.banks:
        yield f"bank.{bank.name}={bank.space}:{bank.size:#x}"
    for register in device.registers:
        array = f":{register.count}:{register.stride:#x}" if register.count > 1 else ""
        yield f"register.{register.name}={register.bank}:{register.offset:#x}:{register.size}{array}"
