"""Diagnostic codes of program objects: the ELF container, linking, `.devbc` strings, BTF."""

from __future__ import annotations

from devbc.diagnostics import define

NOT_AN_OBJECT = define(
    "O001",
    "not a BPF object file",
    """
    A program is a relocatable ELF file (`ET_REL`) of 64 bits, little-endian, for machine `EM_BPF`: what
    `devbc compile` writes, or `clang -target bpf -c`. The file is something else.

    The usual causes: the source was given instead of the object; clang ran without `-target bpf`; or the
    target was `bpfeb`, the big-endian flavour.

    ```
    clang -target bpf -mcpu=v4 -O2 -g -c device.c -o device.o
    ```
    """,
)
MALFORMED = define(
    "O002",
    "damaged object file",
    """
    A table of the ELF file points outside the file, a name outside its string table, or two parts of the
    file contradict each other. Compilers do not write such files: it was cut off or altered. Nothing of it
    was used.

    Compile it again; `llvm-readelf -aW FILE` shows what is in it.
    """,
)
TOO_LARGE = define(
    "O003",
    "the object exceeds a limit",
    """
    The machine holds what userspace uploads, so every size has a cap: bytes of the file, of the shared area
    and of read-only data, sections, symbols, handlers, instructions of a handler and of a program. The caps
    are far above what device registers need, and are listed with their reasons in `devbc/limits.py`.

    A program at a cap does work that belongs to userspace: let the handler decline it.
    """,
)
NO_HANDLER = define(
    "O004",
    "the object has no handler",
    """
    A handler is a function in a section of its own, whose name says what it answers:

    ```c
    SEC("pio/read@0x0:1")        u64 status_read(struct devbc_exit *exit);
    SEC("mmio/read@0xf0:4,8")    u64 counter_read(struct devbc_exit *exit);
    SEC("timer/tick")            u64 tick(struct devbc_exit *exit);
    SEC("line/gate")             u64 gate(struct devbc_exit *exit);
    SEC("hypercall/0x10")        u64 yield(struct devbc_exit *exit);
    ```

    No section of the object has such a name. A misspelt space (`poi/`) makes a section that is somebody
    else's, not an error by itself.
    """,
)
BAD_BINDING = define(
    "O005",
    "a handler's section name does not bind it",
    """
    The section's name begins like a handler's, but does not say which accesses it answers. The forms are

    ```
    space[:bank]/read|write@LO[-HI][:SIZE[,SIZE...]]     pio/read@0x0:1   mmio:regs/write@0x10-0x1f:4
    PLACE[,PLACE...]/..., each space[:bank]              pio,mmio:regs/read@0x4:1,2
    timer/NAME    line/NAME    hypercall/NR
    ```

    with space `pio` or `mmio`, sizes 1, 2, 4 or 8, and `LO`-`HI` the offsets of an access's first byte.
    A range may cover as many offsets as `devbc.limits.RANGE_OFFSETS` says, since the bus keeps an
    entry for each.
    """,
)
BAD_FUNCTIONS = define(
    "O006",
    "a section's functions are not as they must be",
    """
    A handler's section holds one global function, the handler; its static helpers may stand beside it or in
    `.text`. Every function has a symbol of type `STT_FUNC` with its size, covers whole instructions and does
    not overlap another.

    Compilers see to the latter; in assembly say `.type f, @function` and `.size f, .-f`. For
    several handlers of one device use a section for each.
    """,
)
BAD_CALL = define(
    "O007",
    "a call does not reach a function of the object",
    """
    Local calls go to the first instruction of a function in the same object. This one goes to a symbol that
    no one defines, or to a place where no function starts.

    An object is complete in itself: there is no library to link with. Put the function into the same
    source file, or make it `static inline` in a header. The one function of the machine, `ktime_get_ns`, is
    called by its number; `devbc.h` declares it.
    """,
)
LEAVES_FUNCTION = define(
    "O008",
    "control leaves a function by other ways than `exit`",
    """
    A jump must go to an instruction of its own function, and the last instruction must be a jump or an
    `exit`. Behind a function in the linked code stands another one, which must not be entered by
    accident.

    LLVM ends a function in the middle where it has concluded that the rest cannot be reached: undefined
    behaviour in the source, such as a missing `return`. Compile with `-Wall`.
    """,
)
BAD_RELOCATION = define(
    "O009",
    "unsupported relocation",
    """
    Programs refer to two places: variables of the shared area and read-only data, from code, by `lddw`
    (`R_BPF_64_64`), inside the section that is referred to. Calls are `R_BPF_64_32`.

    Data must not hold addresses: the shared area is mapped at different places by machine and monitor, and
    a pointer in it could not be trusted. Instead of a table of pointers use a table of offsets or an
    array of arrays:

    ```c
    static const char *const names[] = {"a", "bc"};   // refused: pointers in data
    static const char names[][4] = {"a", "bc"};       // fine
    ```

    Addresses of functions are refused for the same reason: what a handler runs is known at load. CO-RE
    relocations are resolved against a kernel's types, and there is no such kernel here.
    """,
)
PRIVATE_DATA = define(
    "O010",
    "variables outside the shared area",
    """
    A handler has three kinds of memory: its stack, read-only data (`const`), and the shared area. There
    is no private memory that lives from one run to the next: all of a device's state must be
    visible to the userspace model, which continues where a handler declines. There are no BPF maps either.

    ```c
    static u32 count;                        // refused: .bss
    DEVBC_SCRATCH u32 count;                 // in the shared area
    static const u32 table[] = {1, 2, 4};    // read-only data
    ```
    """,
)
DUPLICATE = define(
    "O011",
    "defined twice",
    """
    Two sections of the object have one name, or two handlers answer the same access: the machine would have
    to guess which is meant.

    Handlers overlap when they share the bank, the operation, an access size, and an offset. Narrow one of
    the ranges, or give sizes: `mmio/read@0x0-0xf:4` beside `mmio/read@0x0-0xf:8`.
    """,
)
BAD_INFO = define(
    "O012",
    "malformed `.devbc` string",
    """
    Section `.devbc` holds strings `key=value`, each ended by a NUL, that describe the device:

    ```
    device=NAME      timer.N=NAME      line.N=NAME      input.N=NAME      signal.N=NAME
    call.N=NAME      call.N=REGISTER.read              call.N=REGISTER.write
    bank.NAME=SPACE:BYTES              register.NAME=BANK:OFFSET:SIZE[:COUNT:STRIDE]
    ```

    Names are C identifiers. Numbers are decimal or 0x hexadecimal; each is given one name, and each name one
    number. A register may have a place in each of several banks. `devbc.h` has a macro for each key, such as
    `DEVBC_TIMER(0, tick)`.
    """,
)
UNKNOWN_NAME = define(
    "O013",
    "a handler is bound to something that the device does not have",
    """
    `timer/NAME` and `line/NAME` handlers run when the timer expires or the input line changes that has this
    name in the `.devbc` strings; accesses bind within their bank. The object names no such timer or input,
    or its bank ends before the handler's range, or lies in the other address space.

    ```c
    DEVBC_TIMER(0, tick);
    SEC("timer/tick") u64 on_tick(struct devbc_exit *exit) { ... }
    ```

    A bank that the strings do not mention reaches as far as its handlers do.
    """,
)
BAD_BTF = define(
    "O014",
    "malformed BTF",
    """
    Section `.BTF` describes the types of the shared area, `.BTF.ext` the source lines. They are optional:
    without them a program runs the same, but userspace sees the area as bytes, and diagnoses show
    instructions instead of source lines. Where they are present, they must be right.

    Compile again with `-g`, or remove them: `llvm-objcopy -R .BTF -R .BTF.ext FILE`.
    """,
)
BAD_SCRATCH_TYPE = define(
    "O015",
    "the shared area has a type that cannot be shared",
    """
    Userspace reads and writes the shared area by the names and types that BTF gives. What cannot be
    accessed alike from both sides is refused: bit-fields (a store to one rewrites its neighbours, and races
    with them), types of unknown size, integers of 128 bits, two variables at one place.

    ```c
    struct state { u8 enabled : 1; u8 pending : 1; };   // refused
    struct state { _Bool enabled, pending; };           // each a byte of its own
    ```
    """,
)
