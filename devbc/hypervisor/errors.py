"""Diagnostic codes of the hypervisor: machines, placement, wiring, recordings."""

from __future__ import annotations

from devbc.diagnostics import define

BAD_RECORDING = define(
    "H001",
    "malformed recording",
    """
    A recording is text, gzipped or not: a first line `# exit-trace 1`, more lines `# key=value`, then one
    access a line, tab-separated: `time_ns vcpu space op address size value region`. Space is `pio` or
    `mmio`, op `read` or `write`, size 1, 2, 4 or 8; numbers are decimal or 0x hexadecimal; time does not
    run backwards.

    The line named does not hold to that. Nothing of the recording was replayed.
    """,
)
BAD_MACHINE = define(
    "H002",
    "malformed machine file",
    """
    A machine file is TOML: a list of `[[device]]` with `name`, `type` (a device folder) and `at` (an
    address for each bank), and a list of `[[wire]]` with `from = "device.line"` and
    `to = "device.input"` or `to = "guest.N"`.

    ```toml
    [[device]]
    name = "pit"
    type = "i8254"
    at = { pio = 0x40, speaker = 0x61 }
    ```
    """,
)
UNKNOWN_NAME = define(
    "H003",
    "unknown name",
    """
    A machine file or a command names a machine, device, bank or line that does not exist. Devices are
    looked for in the folders given with `--devices`, then among those that come with devbc.
    """,
)
OVERLAP = define(
    "H004",
    "two devices at one address",
    """
    Banks of two devices, or two handlers of one device, cover the same address. Which of them answers
    would depend on the order of attaching, so it is refused.
    """,
)
WIRE_CYCLE = define(
    "H005",
    "interrupt lines form a cycle",
    """
    A chain of wires leads from a device's output line through input handlers back to the same device. A
    change of the line could then run for ever. Wires from a device to itself count as a cycle.
    """,
)
OUTSIDE_BANK = define(
    "H006",
    "a handler lies outside its bank",
    """
    A handler's section binds offsets that the bank does not have (its size is declared by the `.devbc`
    string `bank.NAME=SPACE:BYTES`), or names a bank or port that the program does not declare.
    """,
)
MODEL_FAILED = define(
    "H007",
    "a userspace model failed",
    """
    A device's `model.py` raised an exception, could not be loaded, or lacks what the protocol
    `devbc.hypervisor.model.Model` asks for. The line named is the innermost one of the model; the guest's
    accesses from this one on were not run.

    ```python
    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        self.scratch.relaod = value  # AttributeError: the program's `state` has no such field
        self.host.raise_line("irq0")  # LookupError: the program declares no such line
    ```

    A model sees the fields, lines and timers that the program declares, by their names there. It answers
    whatever a guest may do: what the hardware would ignore returns 0 or does nothing, and does not raise.
    """,
)
TOO_LARGE = define(
    "H008",
    "a machine is too large",
    """
    A machine may have 256 devices and 1,024 wires, and its programs may answer 262,144 different accesses: a
    range such as `mmio/read@0x0-0xfff` counts once for each offset and each size that it answers
    (`devbc/limits.py`). The machine would answer nothing wrong, but the tables that it searches at every exit
    would grow beyond what is sensible.

    Name the sizes that the hardware answers (`mmio/read@0x0-0xfff:4`), and leave to the userspace model what
    is not hot.
    """,
)
