"""Diagnostic codes of the hypervisor: machines, placement, wiring, recordings."""

from __future__ import annotations

from devbc.diagnostics import define

BAD_RECORDING = define(
    "H001",
    "malformed recording",
    """
    A recording is text, gzipped or not: a line `# exit-trace 1`, more lines `# key=value`, then one access a
    line, its eight columns separated by tabs (here by spaces):

    ```
    # exit-trace 1
    # rtc_base=2026-01-01T00:00:00Z
    1000   0  pio   read   0x608       4  0x3      acpi-tmr
    52000  0  mmio  write  0xfed00010  4  1        hpet
    ```

    They are: the time in ns, which does not run backwards; the vCPU; `pio` or `mmio`; `read` or `write`; the
    address; the size, 1, 2, 4 or 8; the value that was read or written; and a name of the region for
    people. Time, vCPU and size are decimal, addresses and values decimal or 0x hexadecimal. `rtc_base` is
    the wall-clock time at time 0, for devices that tell it; `# machine=NAME`, if it is there, names what it
    was recorded on, which is the machine that commands take unless they are told another.

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

    [[wire]]
    from = "pit.irq0"
    to = "guest.0"
    ```

    Banks, lines and inputs have the names that the device's program declares; a bank without a name of its
    own is called `pio` or `mmio`. The guest's lines are 0 to 63.
    """,
)
UNKNOWN_NAME = define(
    "H003",
    "unknown name",
    """
    A machine file or a command names a machine, device, bank or line that does not exist.

    Folders of devices are those given with `--devices`, then the one that comes with devbc. In each, a device
    is a folder `NAME/` with `NAME.dev` or `NAME.o` in it, and a machine a file `machines/NAME.toml`; a
    machine elsewhere is named by its path, ending in `.toml`.

    ```
    devbc replay --machine ./board.toml --devices . boot.tsv
    ```
    """,
)
OVERLAP = define(
    "H004",
    "two devices at one address",
    """
    Banks of two devices, or two handlers of one device, cover the same address. Which of them answers
    would depend on the order of attaching, so it is refused.

    Compare the addresses in the machine file's `at` with the sizes of the banks (`bank pio[4]` takes four
    ports from there on), or narrow one of the two handlers' ranges.
    """,
)
WIRE_CYCLE = define(
    "H005",
    "interrupt lines form a cycle",
    """
    A chain of wires leads from a device's output line through input handlers back to the same device. A
    change of the line could then run for ever. Wires from a device to itself count as a cycle.

    Leave out the wire that closes the circle. Two devices that need each other's lines are better one device
    with two banks, whose handlers share a state.
    """,
)
OUTSIDE_BANK = define(
    "H006",
    "a handler lies outside its bank",
    """
    A handler's section binds offsets that the bank does not have (its size is declared by the `.devbc`
    string `bank.NAME=SPACE:BYTES`), or names a bank or port that the program does not declare; or the machine
    file puts a bank at an address where it reaches beyond its space: ports end at 0xffff.
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

NO_REPLACEMENT = define(
    "H009",
    "no replacement",
    """
    A program may take the place of another while vCPUs run, if the shared area means the same to both: the
    same `state`, field by field, and the same banks, lines, inputs, timers and signals. Then whoever uses the
    area, and whatever is wired, need not know.

    To change the state's fields, save the VM's state, create the device with the new program, and restore:
    fields are matched by name there, and what does not fit is named.
    """,
)

BAD_STATE = define(
    "H010",
    "not a saved state",
    """
    The file does not hold the state of a VM, was damaged, or was written by a newer devbc. A state begins
    with its format and version and names everything in it; it is read as a whole before anything is restored.

    The VM is as it was.
    """,
)
MISFIT = define(
    "H011",
    "part of a saved state does not fit",
    """
    A state was restored into a VM whose devices are not quite those that it was saved from. Devices, fields,
    timers and lines are matched by name. This one has no counterpart, or is of another kind there: a number
    where an array is, an array of another length, an integer that does not hold the value.

    ```
    there is no field `pit.channel_mode`
    `rtc.cmos[3]` is of type u8, and the state has 300
    ```

    It was left as the VM had it; everything that is not named was restored. A field that only the new program
    has keeps the value of its reset. Where a field was renamed or split, set it from the old one, with the
    device's lock held, before vCPUs run.
    """,
)
RUNNING = define(
    "H012",
    "the VM is running",
    """
    A state is saved and restored while the VM stands still: no vCPU runs, and nobody holds a device's lock
    for long. Stop the vCPUs, and try again.
    """,
)
