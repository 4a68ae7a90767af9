"""Diagnostic codes of the verifier: what a program must keep to, and what breaking it would allow.

An example marked `asm` is a whole program that is refused with the code it stands under, on an access of one
byte with 64 bytes of scratch and of read-only data. A test holds it to that.
"""

from __future__ import annotations

from devbc.diagnostics import Code, define


class Fault(Exception):  # noqa: N818 - it is a finding about the program, not an error of ours
    """The instruction at hand breaks the contract. `explore` adds the place and makes a diagnostic of it."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        label: str = "",
        labels: tuple[tuple[int, str], ...] = (),
        notes: tuple[str, ...] = (),
        help: tuple[str, ...] = (),
        slot: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.label = label
        #: Secondary places, by slot.
        self.labels = labels
        self.notes = notes
        self.help = help
        #: The place, where it is not the instruction at hand.
        self.slot = slot


BAD_JUMP = define(
    "V001",
    "a jump or call leads nowhere",
    """
    A jump must lead to an instruction of the same function, and a local call to a function's first
    instruction. This one leads out of the function, or into the second half of an `lddw`, where the bytes of
    an immediate would be run as an instruction.

    Compilers do not emit this: the object is damaged, or was linked wrongly.

    ```asm
    ja +5                   # the function ends here
    exit
    ```
    """,
)
FALLS_OFF = define(
    "V002",
    "execution falls off the end of a function",
    """
    The last instruction that a path reaches in a function must be `exit` or a jump. Here it can run on into
    whatever follows the function.

    ```asm
    mov %r0, 1              # and no exit
    ```

    In C this comes from `__builtin_unreachable()`, or from a loop that the compiler takes to be endless.
    """,
)
BAD_ADDRESS = define(
    "V003",
    "an address that is not the program's to take",
    """
    `lddw` may load a 64-bit constant, or an address in the shared area (map value of map index 0) or in the
    read-only data (index 1), up to one past its end. Other maps, file descriptors, variables of the platform
    and addresses of code do not exist here.

    Keep state in section `.scratch`, constants in `.rodata`, and call functions directly.

    ```asm
    lddw %r2, map_value_by_idx 2, 0     # there is scratch (0) and read-only data (1)
    mov %r0, 1
    exit
    ```
    """,
)
HELPER = define(
    "V004",
    "a helper that is not granted",
    """
    A handler is a function of the exit, the shared area and the clock. The one helper is `ktime_get_ns`
    (number 5), and a policy may withhold even that. Effects are not calls: write them into the exit.

    ```
    exit->raise |= 1 << IRQ;        // not: call some helper
    ```

    ```asm
    call 6                  # bpf_trace_printk, in Linux
    mov %r0, 1
    exit
    ```
    """,
)
UNINITIALISED = define(
    "V005",
    "something is read that was never written",
    """
    A register or bytes of the stack are read, and on this path nothing has set them. They may hold what an
    earlier run, or the kernel itself, has left there: reading them leaks it.

    At entry only `r1` (the exit) and `r10` (the frame) are set. A call sets `r0` and clears `r1` to `r5`.
    A callee sees its arguments in `r1` to `r5`, and none of its caller's `r6` to `r9`.

    In C: initialise the variable on every path. An array on the stack needs all of its elements set before
    one with a variable index is read.

    ```asm
    mov %r0, %r5            # what an earlier run has left there
    exit
    ```
    """,
)
OUT_OF_BOUNDS = define(
    "V006",
    "an access may lie outside its region",
    """
    Each load and store must lie inside the exit, the function's stack frame, the shared area or the read-only
    data, for every value that its address may have. What the verifier knows about the address is in the
    message. This is how a ring index from shared memory became a write into the kernel in CVE-2019-14821.

    Shared memory may change at any moment: a check of one load says nothing about the next. Load once, check
    or mask what was loaded, use that.

    ```
    let i = state.head;                 // one load
    if i >= 16 { decline; }             // what is checked
    state.ring[i] = v;                  // is what is used
    ```

    ```asm
    ldxb %r3, [%r1+8]       # the guest's value: 0 to 255
    lddw %r2, map_value_by_idx 0, 0
    add %r2, %r3
    ldxb %r0, [%r2+0]       # of 64 bytes of scratch
    mov %r0, 1
    exit
    ```
    """,
)
MISALIGNED = define(
    "V007",
    "an access may be misaligned",
    """
    An access of 2, 4 or 8 bytes must begin at a multiple of its size. Only aligned accesses are atomic on
    all machines: a misaligned one may be torn in two, with another vCPU's write between the halves.

    Check that structures are not packed, and that a computed offset is a multiple of the element's size.

    ```asm
    lddw %r2, map_value_by_idx 0, 0
    ldxdw %r3, [%r2+4]      # 8 bytes at offset 4
    mov %r0, 1
    exit
    ```
    """,
)
POINTER_ARITHMETIC = define(
    "V008",
    "forbidden arithmetic on a pointer",
    """
    Numbers may be added to and subtracted from pointers, in 64 bits, and pointers into one region may be
    subtracted from each other. Anything else would turn an address into a number (and leak where the
    kernel's memory lies) or a number into an address.

    In C this comes from casting pointers to integers.

    ```asm
    mov %r2, %r1
    lsh %r2, 1              # twice an address is no address
    mov %r0, 1
    exit
    ```
    """,
)
POINTER_LEAK = define(
    "V009",
    "a pointer would leak",
    """
    A pointer is about to be written where the guest, userspace or another run can read it: the shared area,
    a field of the exit, or the verdict. Addresses of kernel memory must not leave the kernel.

    Store an index or an offset. Pointers may be kept in registers and on the stack.

    ```asm
    stxdw [%r1+8], %r10     # the answer to the guest's read
    mov %r0, 1
    exit
    ```
    """,
)
NOT_AN_ADDRESS = define(
    "V010",
    "a number is used as an address",
    """
    The base register of a load or store does not hold a pointer. Addresses come from `r1` at entry (the
    exit), `r10` (the stack) and `lddw` (shared area, read-only data), and from adding numbers to these.

    A pointer that took a way through memory other than the stack, or was partly overwritten there, is a
    number afterwards.

    ```asm
    ldxdw %r2, [%r1+8]
    ldxb %r0, [%r2+0]       # wherever the guest says
    exit
    ```
    """,
)
FIELD_RIGHTS = define(
    "V011",
    "a field of the exit may only be read",
    """
    Of `struct devbc_exit` a program may write `value` and the effects (`raise`, `lower`, `signal`, `arm`,
    `cancel`, `deadline`). The other fields say what happened and cannot be changed. An access with a
    variable offset must stay within fields that allow it.

    ```asm
    stdw [%r1+0], 4         # `offset`
    mov %r0, 1
    exit
    ```
    """,
)
ENDLESS = define(
    "V012",
    "a loop that does not end",
    """
    A path comes back to an instruction with everything as it was before: every register and every byte of the
    stack that still matters has the same known values. Nothing stops the loop from running for ever, and
    the vCPU with it.

    Waiting for a value in shared memory to change is such a loop: the verifier can't know that anyone
    changes it. Decline instead, and let userspace wait.

    ```
    while exit.busy { }                   // rejected
    for i in 0..8 { if … { break; } }     // has an end
    ```

    ```asm
    lddw %r2, map_value_by_idx 0, 0
    wait:
    ldxb %r3, [%r2+0]
    jne %r3, 0, wait
    mov %r0, 1
    exit
    ```
    """,
)
TOO_LONG = define(
    "V013",
    "a run may take too many instructions",
    """
    The longest path has more instructions than the policy allows (65,536 unless lowered). A handler runs
    on the exit path with the guest waiting.

    If a loop has a bound, the verifier has counted it: lower the bound, or decline and let userspace do the
    work. If it depends on a value that could be anything, bound that value first.

    ```asm
    ldxw %r2, [%r1+28]      # `vcpu`: any number of 32 bits
    mov %r3, 0
    next:
    add %r3, 1
    jlt %r3, %r2, next
    mov %r0, 1
    exit
    ```
    """,
)
TOO_COMPLEX = define(
    "V014",
    "the verifier gave up",
    """
    The verifier follows every path, and joins those that meet in states that cover one another. This
    handler has too many paths that stay different. It may well be safe: this is a limit of the check, not a
    finding.

    The message names the place at which most states arrived, what differs in them, and the branches that
    were followed both ways most often. Branches that each leave another value behind multiply: compute the
    value without a branch (`x * cond`, a mask, a table), or split the handler. A loop costs its rounds.

    The budget is one for all handlers of a program, and counts steps, not seconds: an instruction explored is
    one, and a state with much on the stack costs more to copy and compare.
    """,
)
UNCLEAN_DECLINE = define(
    "V015",
    "the shared area is written before declining",
    """
    A handler that declines must leave no trace: userspace handles the access as if no program had run. That
    holds only if nothing in the shared area was written on the way to the decline. On this path something
    was, so the access would have half of its effect twice.

    Decide first, then write:

    ```
    if state.mode != 2 { decline; }
    state.count = v;
    ```

    What was written into the exit (answer, effects) is thrown away, and needs no such care. An atomic
    operation counts as a write.

    ```asm
    lddw %r2, map_value_by_idx 0, 0
    stb [%r2+0], 1
    mov %r0, 0              # decline
    exit
    ```
    """,
)
BAD_VERDICT = define(
    "V016",
    "the verdict is neither DECLINE nor HANDLED",
    """
    A handler returns 0 (decline: let userspace handle the access) or 1 (handled) in `r0`, all 64 bits of
    it. Here another value is possible.

    The answer to a read is not the return value: store it to `exit->value` and return `DEVBC_HANDLED`.

    ```asm
    ldxdw %r0, [%r1+8]      # the answer, not the verdict
    exit
    ```
    """,
)
CALL_DEPTH = define(
    "V017",
    "local calls are nested too deeply",
    """
    A chain of local calls may have 8 frames, as in Linux. Recursion ends here too: its depth would have to
    be known, and the stack is small. Turn it into a loop.

    ```asm
    f:
    call local f
    mov %r0, 1
    exit
    ```
    """,
)
STACK = define(
    "V018",
    "the stack is too small",
    """
    All frames of a chain of calls share 512 bytes, as in Linux. A frame takes what its function uses,
    rounded up to 8 bytes.

    Keep large tables in read-only data and large state in the shared area; inline a function to let the
    compiler share its frame.

    ```asm
    stdw [%r10-304], 0
    call local f
    exit
    f:
    stdw [%r10-304], 0
    mov %r0, 1
    exit
    ```
    """,
)
POLICY = define(
    "V019",
    "the policy does not grant this",
    """
    Whoever attaches a program says what it may have: sizes, effects, and how many lines, signals and timers
    the device has. The program needs more than that, and the message names the item.

    Bits of an effect mask beyond the device's ports must be 0, for whatever value is stored.

    ```asm
    stw [%r1+92], 256       # timer 8; there are timers 0 to 7
    mov %r0, 1
    exit
    ```
    """,
)
ATOMIC_TARGET = define(
    "V020",
    "an atomic operation outside scratch and stack",
    """
    Atomic operations exist for memory that is shared: the scratch area. They also work on the stack. The exit
    belongs to one run, and read-only data to none.

    ```asm
    mov %r2, 1
    lock add [%r1+8], %r2   # the exit's `value`
    mov %r0, 1
    exit
    ```
    """,
)
READ_ONLY = define(
    "V021",
    "read-only data is written",
    """
    Constants are shared by all runs of all handlers of a program and can't be written. Variables belong in
    section `.scratch` (shared, kept between exits) or on the stack.

    ```asm
    lddw %r2, map_value_by_idx 1, 0
    stb [%r2+0], 1
    mov %r0, 1
    exit
    ```
    """,
)
POINTER_COMPARISON = define(
    "V022",
    "a pointer is compared with something else",
    """
    Pointers into the same region may be compared with each other, and any pointer with 0. Comparing a pointer
    with a number, or with a pointer into another region, would tell the program where memory lies.

    ```asm
    jgt %r1, 4096, high     # where does the exit lie?
    mov %r0, 1
    exit
    high:
    mov %r0, 0
    exit
    ```
    """,
)
DANGLING = define(
    "V023",
    "a pointer to a frame that is gone",
    """
    A function returns a pointer into its own stack frame. The frame ends with the function: what the pointer
    leads to afterwards belongs to the next call.

    Let the caller pass a pointer to its own frame.

    ```asm
    call local f
    mov %r0, 1
    exit
    f:
    mov %r0, %r10
    add %r0, -8
    exit
    ```
    """,
)
BAD_POLICY = define(
    "V024",
    "a policy file that says nothing a policy can say",
    """
    A policy file is TOML. Its items are the caps and capabilities of `devbc.verifier.policy.Policy`: numbers
    that are at most the machine's own, and lists of the helpers and effects that are granted. A policy
    lowers; it cannot give a program more than the machine has.

    ```
    instructions = 2_000
    stack_bytes = 64
    helpers = []
    effects = ["raise", "lower"]
    ```

    `devbc verify --policy FILE` tries one.
    """,
)
