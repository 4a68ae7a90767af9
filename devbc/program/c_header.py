"""The C header for handlers written with clang, generated from `devbc.abi` into `devbc/include/devbc.h`.

    python -m devbc.program.c_header [PATH]

The exit's layout, verdicts, helper and section names are read from `devbc.abi`, never repeated; what is
written out below is C that the ABI does not determine. A test compares the checked-in header with it.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from devbc.abi import (
    EXIT_FIELDS,
    EXIT_SIZE,
    INFO_SECTION,
    SCRATCH_SECTION,
    Access,
    Field,
    Helper,
    Verdict,
)

_HEAD = """\
/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devbc.h: the interface of a device handler, for C.
 * Generated from devbc/abi.py by devbc/program/c_header.py: do not edit.
 *
 *     #include <devbc.h>
 *
 *     DEVBC_DEVICE(scratchpad);
 *     DEVBC_BANK(pio, pio, 1);
 *
 *     DEVBC_SCRATCH u8 pad;
 *
 *     SEC("pio/read@0x0:1")
 *     u64 pad_read(struct devbc_exit *exit)
 *     {
 *         exit->value = pad;
 *         return DEVBC_HANDLED;
 *     }
 *
 *     clang -target bpf -mcpu=v4 -O2 -g -fno-jump-tables -c scratchpad.c -o scratchpad.o
 */
#ifndef DEVBC_H
#define DEVBC_H

#ifndef __bpf__
#error "devbc.h is for handlers: compile with -target bpf"
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;
"""

_SECTIONS = """\
/*
 * A handler is a global function in a section of its own, whose name says what it answers:
 *
 *     SEC("pio/read@0x0:1")              1 byte at offset 0 of bank `pio`
 *     SEC("mmio/write@0x10-0x1f:4,8")    4 or 8 bytes, the first at 0x10 to 0x1f, in step with their size
 *     SEC("pio:speaker/read@0x0:1")      a bank with a name of its own
 *     SEC("timer/tick")                  the timer called `tick` has expired
 *     SEC("line/gate")                   the input line called `gate` has changed
 *     SEC("hypercall/0x10")              the device's hypercall 0x10; a machine says where they begin
 *
 * Functions that handlers share are `static`, and are inlined or called as the compiler likes.
 */
#define SEC(name) __attribute__((section(name), used))

/*
 * A variable of the shared area, which userspace and other vCPUs read and write at any moment:
 *
 *     DEVBC_SCRATCH struct state { u64 loaded_at; u32 reload; } state;
 *
 * It is volatile, so that each access in the source is one load or store, in order, never repeated, merged
 * or invented. Read a field into a local once, and go on with the local: two reads are two values. A
 * handler that has stored to the area must not decline after it.
 */
#define DEVBC_SCRATCH volatile __attribute__((section("{scratch}"), used))

/* The same for memory reached through a pointer that is not volatile. */
#define READ_ONCE(place) (*(const volatile __typeof__(place) *)&(place))
#define WRITE_ONCE(place, value) ((void)(*(volatile __typeof__(place) *)&(place) = (value)))
"""

_INFO = """\
/*
 * What the device is called and has, at file scope. Names are bare words: DEVBC_TIMER(0, tick). Numbers are
 * the bits of `raise`, `lower`, `signal`, `arm` and `cancel`, and the slots of `deadline`.
 */
#define DEVBC_STRING_(...) #__VA_ARGS__
#define DEVBC_STRING(...) DEVBC_STRING_(__VA_ARGS__)
#define DEVBC_JOIN_(left, right) left##right
#define DEVBC_JOIN(left, right) DEVBC_JOIN_(left, right)
#define DEVBC_INFO(text) \\
	static const char DEVBC_JOIN(devbc_info_, __COUNTER__)[] \\
		__attribute__((section("{info}"), used, aligned(1))) = text

#define DEVBC_DEVICE(name) DEVBC_INFO("device=" #name)
#define DEVBC_TIMER(number, name) DEVBC_INFO("timer." DEVBC_STRING(number) "=" #name)
#define DEVBC_LINE(number, name) DEVBC_INFO("line." DEVBC_STRING(number) "=" #name)
#define DEVBC_INPUT(number, name) DEVBC_INFO("input." DEVBC_STRING(number) "=" #name)
#define DEVBC_SIGNAL(number, name) DEVBC_INFO("signal." DEVBC_STRING(number) "=" #name)
#define DEVBC_CALL(number, name) DEVBC_INFO("call." DEVBC_STRING(number) "=" #name)
#define DEVBC_BANK(name, space, bytes) DEVBC_INFO("bank." #name "=" #space ":" DEVBC_STRING(bytes))
#define DEVBC_REGISTER(name, bank, offset, size) \\
	DEVBC_INFO("register." #name "=" #bank ":" DEVBC_STRING(offset) ":" DEVBC_STRING(size))
#define DEVBC_REGISTERS(name, bank, offset, size, count, stride) \\
	DEVBC_INFO("register." #name "=" #bank ":" DEVBC_STRING(offset) ":" DEVBC_STRING(size) ":" \\
		DEVBC_STRING(count) ":" DEVBC_STRING(stride))
"""

_TIME = """\
/* The VM clock, in ns: what timers and `deadline` go by. */
static inline __attribute__((always_inline)) u64 devbc_now(const struct devbc_exit *exit)
{
	return ktime_get_ns() + exit->clock_offset;
}

/*
 * a * b / c, rounded down, modulo 2**64, for c other than 0. Exact, though all is done in 64 bits: with
 * a = q * c + r it is q * b + r * b / c, and r * b is below 2**64, since r < c and b have 32 bits each.
 */
static inline __attribute__((always_inline)) u64 devbc_muldiv(u64 a, u32 b, u32 c)
{
	return a / c * b + a % c * b / c;
}

/*
 * Let timer `number`, a constant, expire at `deadline`, in ns of the VM clock.
 * The other effects are masks: exit->raise |= DEVBC_BIT(0);
 */
static inline __attribute__((always_inline)) void devbc_arm(struct devbc_exit *exit, u32 number, u64 deadline)
{
	exit->arm |= 1u << number;
	exit->deadline[number] = deadline;
}

#define DEVBC_BIT(number) (1u << (number))

#endif /* DEVBC_H */
"""

_C_TYPES = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}


def header() -> str:
    """The text of devbc.h."""
    parts = [
        _HEAD,
        "\n".join(_verdicts()),
        "\n".join(_exit_structure()),
        _SECTIONS.replace("{scratch}", SCRATCH_SECTION),
        _INFO.replace("{info}", INFO_SECTION),
        "\n".join(_helpers()),
        _TIME,
    ]
    return "\n".join(parts)


def _verdicts() -> Iterator[str]:
    yield "/* What a handler returns. A declined access goes to userspace, as if no handler had run. */"
    yield "enum devbc_verdict {"
    for verdict in Verdict:
        yield f"\tDEVBC_{verdict.name} = {verdict.value},"
    yield "};"
    yield ""


def _exit_structure() -> Iterator[str]:
    yield "/* The exit that a handler answers, and the effects that it asks for. */"
    yield "struct devbc_exit {"
    for field in EXIT_FIELDS.values():
        yield from _comment(field)
        yield f"\t{_declaration(field)};"
    yield "};"
    yield ""
    for field in EXIT_FIELDS.values():
        place = f"__builtin_offsetof(struct devbc_exit, {field.name}) == {field.offset}"
        yield f'_Static_assert({place}, "{field.name}");'
    yield f'_Static_assert(sizeof(struct devbc_exit) == {EXIT_SIZE}, "size of the exit");'
    yield ""


def _comment(field: Field) -> Iterator[str]:
    text = textwrap.wrap(field.doc, 96)
    if len(text) == 1:
        yield f"\t/* {text[0]} */"
        return
    yield "\t/*"
    yield from (f"\t * {line}" for line in text)
    yield "\t */"


def _declaration(field: Field) -> str:
    # What a handler may only read is const, so that the compiler refuses what the verifier would.
    const = "const " if field.access is Access.READ else ""
    array = f"[{field.count}]" if field.count > 1 else ""
    return f"{const}{_C_TYPES[field.size]} {field.name}{array}"


def _helpers() -> Iterator[str]:
    yield "/* Nanoseconds of the host's monotonic clock; by Linux's number of the helper. */"
    number = Helper.KTIME_GET_NS.value
    yield f"static u64 (*const ktime_get_ns)(void) __attribute__((unused)) = (u64 (*)(void)){number};"
    yield ""


def main(arguments: list[str]) -> int:
    if arguments:
        Path(arguments[0]).write_text(header())
    else:
        sys.stdout.write(header())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
