"""Every cap of the machine, with its reason. A policy may lower them; nothing raises them."""

from __future__ import annotations

from typing import Final

#: Linux's stack for a chain of BPF frames; local calls share it (RFC 9669 leaves the size to the platform).
STACK_BYTES: Final = 512
#: Frames in a chain of local calls, as in Linux.
CALL_DEPTH: Final = 8
#: Instruction slots of one linked handler: generous for a register, small enough to verify in a blink.
HANDLER_SLOTS: Final = 16_384
#: Longest path of one run, in instructions: at some 1 ns each a handler stays well below a scheduling tick.
RUN_INSTRUCTIONS: Final = 65_536
#: Work of the verifier for one program, in steps of some 10 us (verifier/budget.py), before it gives up: four
#: times the longest run, and three seconds.
VERIFIER_STEPS: Final = 1 << 18
#: Shared area of one device, in bytes, without its header.
SCRATCH_BYTES: Final = 1 << 20
#: Read-only data of one program, in bytes.
RODATA_BYTES: Final = 1 << 20
#: A source file, in bytes: some twenty thousand lines.
SOURCE_BYTES: Final = 1 << 20
#: A machine file, in bytes: the most devices and wires of a machine, and as much again.
MACHINE_BYTES: Final = 1 << 17
#: A policy file, in bytes: it has some ten lines.
POLICY_BYTES: Final = 1 << 14
#: A recording, unpacked, in bytes: some twenty million accesses.
RECORDING_BYTES: Final = 1 << 30
#: A program object file, in bytes.
OBJECT_BYTES: Final = 16 << 20
#: Instruction slots of all handlers of a program, linked: a callee counts in each handler that reaches it,
#: so the cap of the file alone does not bound them.
PROGRAM_SLOTS: Final = 262_144
#: Instruction slots that LLVM compiles in one go, a quarter of a second: it does so for one module of a
#: process at a time.
MODULE_SLOTS: Final = 8_192
#: Tables of an object, in entries: several for each handler, few enough to read in a second.
OBJECT_SECTIONS: Final = 8_192
OBJECT_SYMBOLS: Final = 32_768
OBJECT_RELOCATIONS: Final = 65_536
#: Bytes of a name in an object: longer than any compiler's mangled names that people meet.
NAME_BYTES: Final = 512
#: Type and line information of an object, in bytes for each of .BTF and .BTF.ext.
BTF_BYTES: Final = 1 << 20
#: Structures within structures, and typedefs of typedefs, in the shared area's type.
TYPE_DEPTH: Final = 32
#: Alignment that the shared area and read-only data can promise a section, in bytes: a cache line.
ALIGNMENT: Final = 64
#: The cache of compiled and verified programs: bytes of an entry, and entries.
CACHE_ENTRY_BYTES: Final = 64 << 20
CACHE_ENTRIES: Final = 1024
#: Handlers in one object.
HANDLERS: Final = 1_024
#: Offsets that one handler section may cover: the bus expands a range into one entry an offset and size.
RANGE_OFFSETS: Final = 4_096
#: Lines and signals (bits of a 32-bit effect mask) and timers (deadline slots in the exit) of a device.
LINES: Final = 32
SIGNALS: Final = 32
TIMERS: Final = 8
#: Lines of a guest's interrupt controllers that wires may lead to: two and a half of a PC's 24-input IOAPICs.
GUEST_LINES: Final = 64
#: Timers that expire at one moment of the VM clock before the guest goes on: all of a large machine's, many
#: times over. Whoever arms a timer for a moment that has passed, again and again, stops the guest no longer.
TIMERS_AT_ONCE: Final = 4_096
#: Line events and timers settled in one go, some ms; then the loop returns, and its caller can be stopped.
EVENTS_IN_ONE_GO: Final = 65_536
#: Changes of lines that wait to be delivered: far more than a model means to cause.
QUEUED_EVENTS: Final = 1 << 16
#: Devices of a machine, and wires between them: some times what a board with every slot filled has.
DEVICES: Final = 256
WIRES: Final = 1_024
#: Entries of a machine's dispatch table, an entry an offset and size: 32 pages of byte registers.
DISPATCH_ENTRIES: Final = 262_144
#: vCPUs of a VM. The event queue holds a burst of each.
VCPUS: Final = 16
#: Eventfds of a VM, for signals, lines and resampling.
NOTICES: Final = 256
#: A message of the service's protocol: the largest object, and what is said about it.
MESSAGE_BYTES: Final = OBJECT_BYTES + (1 << 16)
#: Descriptors that one message passes: a vCPU's page, its guest's accesses, its eventfd.
MESSAGE_DESCRIPTORS: Final = 4
#: Seconds that a message may take from its first byte to its last, and a client to take an answer.
MESSAGE_SECONDS: Final = 10.0
#: Clients of a service at a time: each has a share of its descriptors that nobody else can take.
CLIENTS: Final = 64
#: VMs of one client, at a MiB of tables each, and descriptors and shared memory (in bytes) that the service
#: holds for all of them. There is no cap for all clients together: some would use up what is the others'.
CLIENT_VMS: Final = 16
CLIENT_DESCRIPTORS: Final = 1_024
CLIENT_MEMORY: Final = 1 << 30
#: Accesses of a vCPU's ring: a recording of some minutes of a guest's boot.
GUEST_ACCESSES: Final = 1 << 22
#: Turns of spinning that a client may ask of a vCPU before it sleeps: some 10 ms.
SPINS: Final = 1 << 18
#: A saved state, in bytes: shared areas of many devices, some bytes for each field's name and value.
STATE_BYTES: Final = 64 << 20
#: What is named of a saved state that does not fit.
MISFITS: Final = 1_000
