"""Diagnostic codes of the mini-language."""

from __future__ import annotations

from devbc.diagnostics import define

SYNTAX = define(
    "L001",
    "syntax error",
    """
    The text cannot be continued like this. The message says what was found and what could stand there; the
    place is that of the first symbol that does not fit, or of the end of the line where something is missing.

    ```
    let x = 1       // error: expected `;`
    let y = 2;
    ```

    Statements end with `;`, blocks with `}`. The forms of all statements and declarations are in the language
    reference.
    """,
)
NO_EFFECT = define(
    "L002",
    "a statement without effect",
    """
    A statement assigns, decides, calls a function or has an effect. A value that is computed and dropped does
    nothing, so that something else must have been meant.

    ```
    state.count + 1;            // error: nothing is assigned
    state.count += 1;           // adds
    ```

    Reading a field of `state` for its own sake has no effect either: a device does not notice.
    """,
)
CHAINED = define(
    "L003",
    "comparisons do not chain",
    """
    `a < b < c` means something else in every language; here it means nothing.

    ```
    if 0 < x < 8 { }            // error
    if 0 < x && x < 8 { }
    ```
    """,
)
BAD_NUMBER = define(
    "L004",
    "malformed number",
    """
    Numbers are decimal (`1_193_182`), hexadecimal (`0x7f4e`) or binary (`0b1010`), with `_` between digits
    as one likes. There are no suffixes: a number takes the type that is asked of it.

    ```
    const HZ = 3.58;            // error: there are no fractions; give Hz
    const ON = 5u8;             // error: `const ON: u8 = 5;`
    const RATE = 010;           // error: neither octal nor decimal
    ```
    """,
)
UNKNOWN_NAME = define(
    "L005",
    "unknown name",
    """
    Nothing that can be seen here has this name. Names of a block end with the block; constants and structures
    are declared before they are used, functions anywhere in the device. Fields of the shared area are always
    written with `state.` before them.

    ```
    if lcr[7] { }               // error, unless there is a `let lcr`
    if state.lcr[7] { }
    ```
    """,
)
DUPLICATE = define(
    "L006",
    "declared twice",
    """
    A name can be declared once in a device, and once in a block; registers have one name in all banks, since
    tools show them by it, and so have hypercalls among themselves. Inner blocks may hide names of outer ones.
    Names of types, of built-in functions and `state` are taken.

    Rename one of the two.
    """,
)
TYPE_MISMATCH = define(
    "L007",
    "mismatched types",
    """
    A value has another type than is asked for here. Values widen by themselves where no value changes (`u8`
    to `u32` or `i16`); nothing narrows, changes sign or becomes a `bool` by itself. This is where
    hand-written devices go wrong: a 32-bit guest value silently cut to an 8-bit register.

    ```
    state.mode = v >> 4;        // error, if `v` is u32 and `mode` is u8
    state.mode = u8(v >> 4);    // truncates, and says so
    state.mode = v[11:4];       // eight bits, so already u8
    if v & 1 { }                // error: not a bool
    if v[0] { }                 // a bit is a bool
    ```
    """,
)
OUT_OF_RANGE = define(
    "L008",
    "a value is out of range",
    """
    A number that is known at compile time does not fit: it is too large for its type, an index is beyond its
    array, a bit beyond its integer, a register beyond its bank, a shift leaves nothing, a divisor is 0.

    ```
    let x: u8 = 256;            // error
    let y = v[8];               // error, if `v` is u8: its highest bit is 7
    ```

    Indices that are known only at run time are not judged here: the verifier proves them to be in bounds.
    """,
)
NOT_CONSTANT = define(
    "L009",
    "not a constant",
    """
    Sizes, offsets, bits of slices, patterns, bounds of loops and the values of `const` must be known at
    compile time: numbers, constants declared before, and operations on them.

    ```
    for i in 0..state.count { }                     // error: how often does it run?
    for i in 0..8 { if i < n { clear(i); } }        // at most 8 times
    ```

    Loops are so bounded because each handler's longest path must be known. A bit may be computed, `v[n]`; a
    slice may not.
    """,
)
TYPE_NEEDED = define(
    "L010",
    "the type of a number is not known",
    """
    A number takes the type that is asked of it: by the other operand, by what it is assigned to, by a
    parameter. Where nothing asks, a lone number is `u32` if it fits, then `u64`. If a number is shifted by
    a count that varies, that would be a guess about bits that get lost.

    ```
    let mask = 1 << n;          // error: how many bits has `mask`?
    let mask: u64 = 1 << n;
    let mask = u64(1) << n;
    ```
    """,
)
NOT_A_VALUE = define(
    "L011",
    "not a value",
    """
    Only scalars are values. A structure, an array or all of `state` is a place: its parts are read one by
    one, since each read of the shared area is an access of its own. Functions, ports and types are not
    values either.

    ```
    let c = state.channel[0];       // error: a structure
    let c = &state.channel[0];      // a name for the place
    let count = c.count;            // one load
    ```
    """,
)
NOT_A_PLACE = define(
    "L012",
    "not a place",
    """
    The left side of an assignment, and what is referred to, must be a place: a `var`, or a part of `state`.
    The result of an operation is a value and has no place.

    ```
    (a + b) = 3;                // error
    state.x[3] = true;          // a bit of a place can be assigned
    ```
    """,
)
IMMUTABLE = define(
    "L013",
    "assigned, but cannot change",
    """
    Names declared with `let`, parameters and constants keep their values. What changes within a run is
    declared with `var`, what lasts is in `state`.

    ```
    let count = 1;
    count += 1;                 // error: declare it with `var`
    ```
    """,
)
BAD_REFERENCE = define(
    "L014",
    "misused reference",
    """
    `&` makes a name for a part of `state`, with `let` or as an argument. A reference is no value: it cannot
    be stored, computed with or returned; it refers to shared memory only, never to a variable or constant.

    ```
    let c = &state.channel[i];          // `c.mode` is `state.channel[i].mode`
    fn clear(c: &Channel) { c.mode = 0; }
    clear(&state.channel[0]);
    ```
    """,
)
NOT_A_STRUCT = define(
    "L015",
    "no fields",
    """
    `.` selects a field of a structure, of a reference to one, or of `state`. Before it stands something else:
    an array wants an index first, a number has bits and not fields.

    ```
    state.channel.mode          // error: `channel` is an array
    state.channel[0].mode
    ```
    """,
)
NOT_A_FUNCTION = define(
    "L016",
    "not a function",
    """
    Only functions of the device, the built-in ones (`now`, `muldiv`, `min`, `max`) and scalar types
    (conversions) can be called. A local name hides a function of the same name.
    """,
)
NOT_A_TYPE = define(
    "L017",
    "not a type",
    """
    Types are `bool`, `u8` to `u64`, `i8` to `i64`, arrays `[T; N]`, and structures declared before they are
    used.
    """,
)
ARGUMENT_COUNT = define(
    "L018",
    "wrong number of arguments",
    """
    A call gives a function as many arguments as it has parameters. Handlers get what their kind says, from
    the left as far as they name it: `read(i)`, `write(i, v, mask)` in an array of registers, `read` and
    `write(v, mask)` otherwise, `on timer(deadline)`, `on input(level)`.
    """,
)
MISSING_RETURN = define(
    "L019",
    "missing return",
    """
    A read handler and a function with a result return a value, or decline, on every path. A path without
    would answer the guest with whatever was there.

    ```
    read { if state.ready { return 1; } }                   // error: and otherwise?
    read { if state.ready { return 1; } return 0; }
    ```
    """,
)
BAD_RETURN = define(
    "L020",
    "wrong kind of return",
    """
    Functions with a result and read handlers return a value: `return x;`. Functions without, write handlers,
    timers and lines do not: `return;` leaves them early, and a handler is then handled.
    """,
)
NOT_IN_LOOP = define(
    "L021",
    "outside of a loop",
    """
    `break` leaves the innermost `for`, `continue` begins its next round. Here is none around. To leave a
    function or handler, `return`.
    """,
)
BAD_PATTERN = define(
    "L022",
    "a pattern that does not fit",
    """
    A pattern of a `match` names values that the number can have, each in one arm only; a range `3..6` is 3, 4
    and 5. A pattern that no value reaches is a mistake: often a slice is narrower than was thought.

    ```
    match v[7:6] { 0..3 => { } 4 => { } }       // error: two bits are never 4, and 3 is missing
    ```
    """,
)
NOT_EXHAUSTIVE = define(
    "L023",
    "not every value is matched",
    """
    A `match` says what happens for every value. The message names the first values that no arm has.

    ```
    match v[1:0] { 0 => { } 1, 2 => { } }               // error: 3
    match v[1:0] { 0 => { } 1, 2 => { } _ => decline; }
    ```

    What a value can be is known from its type, from slices, from masks and remainders with constants.
    """,
)
RECURSION = define(
    "L024",
    "recursion",
    """
    A function may not come to call itself, neither directly nor through others. Functions run in place of
    their calls, and a run's longest path must be known. Loops with constant bounds do what is needed for
    registers.
    """,
)
WRONG_PORT = define(
    "L025",
    "the wrong kind of port",
    """
    `raise`, `lower` and `pulse` take a `line`; `signal` a `signal`; `arm` and `cancel` a `timer`; `on` a
    timer or an `input`. Lines are driven by the device, inputs by others.
    """,
)
BAD_REGISTER = define(
    "L026",
    "a register that cannot be",
    """
    A register is an unsigned number. It is one of: computed, with `read` and `write`; a constant, `= value`;
    stored, `in state.x`, perhaps with `bits` that say what writes do. Accesses are of 1, 2, 4 or 8 bytes and
    no larger than the register; a stride is no smaller.

    ```
    register ident at 0 : u32 = 0x8086;
    register lcr at 3 : u8 in state.lcr;
    register isr at 4 : u32 access 1, 2, 4 in state.isr { bits 7:0 w1c; bits 31:8 ro; }
    ```

    Bits have one behaviour each, and a stored register has no code of its own, so that what a line
    of a datasheet says cannot be undone elsewhere without being seen.
    """,
)
OVERLAP = define(
    "L027",
    "registers overlap",
    """
    Two registers answer the same kind of access at the same byte. A read-only and a write-only register may
    share an address, as in many UARTs; otherwise the machine would not know which one is meant.

    If one register has two faces, chosen by a bit elsewhere, it is one register with an `if`.
    """,
)
NO_MASK = define(
    "L028",
    "a partial write without mask",
    """
    A register that is accessed in parts gets the value shifted to the register's bits, the others 0. Without
    the mask the handler cannot tell bits that were written as 0 from bits that were not written.

    ```
    register config at 0 : u64 access 4, 8 {
        write(v, mask) { state.config = state.config & ~mask | v & mask; }
    }
    ```
    """,
)
EMPTY = define(
    "L029",
    "nothing there",
    """
    A device answers something, a register is readable or writable, a structure has fields. What is to reach
    userspace is simply not declared; what is to be ignored says so: `write ignore;`.
    """,
)
TOO_LARGE = define(
    "L030",
    "too large",
    """
    A handler's code has outgrown what a register needs. Functions run in place, so each call is a copy of the
    function's body, and calls in functions multiply.

    Let the handler decline what is rare: userspace answers it from the same state.
    """,
)
UNUSED = define(
    "L031",
    "never used",
    """
    A warning: a name is declared and not used, which is a mistake or a leftover. Reading a field into a name
    that is not used is still a load. Begin the name with `_` if it is meant so.
    """,
)
UNREACHABLE = define(
    "L032",
    "never reached",
    """
    A warning: what stands before ends every path with `return`, `decline`, `break` or `continue`, so that
    this statement never runs.
    """,
)
TOO_DEEP = define(
    "L033",
    "nested too deeply",
    """
    Expressions and blocks are nested beyond what the compiler follows, hundreds of levels deep. People do not
    write this; generators can name intermediate results with `let`.
    """,
)
CALL_TAKEN = define(
    "L034",
    "a hypercall's number is taken",
    """
    Two hypercalls of a device have one number: of those that it declares, and those that its registers give
    to their reads and writes.

    ```
    hypercall 0 reset() { }
    bank mmio[4] {
        register status at 0 : u32 call read 0 in state.status;    // error: 0 is `reset`
    }
    ```

    Numbers are the device's own, from 0 on, so that two devices never clash: a machine file says at which
    number a device's hypercalls begin.
    """,
)
BAD_CALL = define(
    "L035",
    "a hypercall that cannot be",
    """
    A hypercall takes up to six arguments, and returns one result. Each is a register of the guest, so it is a
    scalar; what is larger lies in guest memory, which programs do not reach.

    ```
    hypercall 3 queue_notify(queue: u16, next: u16) { }
    hypercall 4 read_all(c: &Channel) -> u64 { return 0; }    // error: a reference is no register
    ```

    A register can be called for what it does: `call read 1` asks for its `read`, `call write 2` for its
    `write`, `write ignore` included. What is not declared is userspace's, by access and by call.
    """,
)
