"""Registers, statements and effects of small devices, run and compared with the language reference."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

import pytest

from devbc.abi import Op
from tests.lang.machine import Device

ALL: Final = (1 << 64) - 1


def test_partial_reads_give_the_bytes_at_their_offset() -> None:
    device = Device(
        """device d { state { x: u64 = 0x8877_6655_4433_2211 }
        bank mmio[16] { register x at 8 : u64 access 1, 2, 4, 8 { read { return state.x; } } } }"""
    )
    whole = (0x8877_6655_4433_2211).to_bytes(8, "little")
    for size in (1, 2, 4, 8):
        for offset in range(0, 8, size):
            value = device.read(8 + offset, size, "mmio").value
            assert value == int.from_bytes(whole[offset : offset + size], "little")


def test_partial_writes_come_shifted_with_their_mask() -> None:
    device = Device(
        """device d { state { x: u64, v: u64, mask: u64 }
        bank mmio[8] { register x at 0 : u64 access 2, 4, 8 {
            write(v, mask) { state.v = v; state.mask = mask; state.x = state.x & ~mask | v & mask; } } } }"""
    )
    device.state.x = 0x1122_3344_5566_7788
    device.write(4, 2, 0xABCD, "mmio")
    assert (device.state.v, device.state.mask) == (0xABCD << 32, 0xFFFF << 32)
    assert device.state.x == 0x1122_ABCD_5566_7788
    device.write(0, 4, 0xFFFF_FFFF, "mmio")
    assert device.state.x == 0x1122_ABCD_FFFF_FFFF
    device.write(0, 8, 5, "mmio")
    assert device.state.x == 5
    assert not device.answers(Op.WRITE, 0, 1, "mmio")


def test_register_arrays_know_their_index() -> None:
    device = Device(
        """device d { state { near: [u32; 4], far: [u16; 3] }
        bank mmio[0x100] {
            register near[4] at 0x10 : u32 {
                read(i) { return state.near[i]; } write(i, v) { state.near[i] = v + i; } }
            register far[3] at 0x80 stride 0x10 : u16 access 1, 2 {
                read(i) { return state.far[i]; }
                write(i, v, mask) { state.far[i] = state.far[i] & ~mask | v & mask; } }
        } }"""
    )
    for i in range(4):
        device.write(0x10 + 4 * i, 4, 100, "mmio")
    assert list(device.state.near) == [100, 101, 102, 103]
    assert device.read(0x18, 4, "mmio").value == 102
    device.write(0x91, 1, 0xAB, "mmio")
    assert list(device.state.far) == [0, 0xAB00, 0]
    assert device.read(0x91, 1, "mmio").value == 0xAB
    assert not device.answers(Op.READ, 0x82, 2, "mmio")


@pytest.mark.parametrize("partial", [False, True])
def test_stored_bits_behave_as_declared(partial: bool) -> None:
    access = "access 1, 2" if partial else ""
    device = Device(
        f"""device d {{ state {{ x: u16 = 0xffff }}
        bank pio[2] {{ register x at 0 : u16 {access} in state.x {{
            bits 3:0 rw; bits 7:4 w1c; bits 11:8 rc; bits 13:12 wo; bit_15 }} }} }}""".replace(
            "bit_15", "bits 15 ro;"
        )
    )
    assert device.read(0, 2).value == 0xCFFF  # wo bits read as 0
    assert device.state.x == 0xF0FF  # rc bits are cleared by the read
    device.write(0, 2, 0x0035)
    # rw bits take 5, w1c bits lose those written as 1, wo bits take 0; ro bits and those not named stay
    assert device.state.x == 0xC0C5
    if partial:
        device.write(1, 1, 0x20)
        assert device.state.x == 0xE0C5
        assert device.read(1, 1).value == 0xC0


def test_constants_and_ignored_writes() -> None:
    device = Device(
        """device d { bank pio[8] {
            register ident at 0 : u32 = 0x8086_1237 { write ignore; }
            register serial at 4 : u32 = 7;
        } }"""
    )
    assert device.read(0, 4).value == 0x8086_1237
    assert device.write(0, 4, 1).value is not None
    assert not device.answers(Op.WRITE, 4, 4)


def _masked(random: Random, depth: int) -> tuple[str, Callable[[int, int, int], int]]:
    """An expression of a written value, its mask and a field, and its value."""
    if not depth:
        number = random.choice((0, 3, 0xF00, 0xFF << 28, (1 << 64) - 1, random.getrandbits(64)))
        return random.choice(
            (
                ("v", lambda v, mask, y: v),
                ("mask", lambda v, mask, y: mask),
                ("state.y", lambda v, mask, y: y),
                (f"u64({number})", lambda v, mask, y: number),
            )
        )
    text, value = _masked(random, depth - 1)
    other_text, other = _masked(random, random.randrange(depth))
    return random.choice(
        (
            (f"({text} & {other_text})", lambda v, mask, y: value(v, mask, y) & other(v, mask, y)),
            (f"({other_text} & {text})", lambda v, mask, y: value(v, mask, y) & other(v, mask, y)),
            (f"({text} | {other_text})", lambda v, mask, y: value(v, mask, y) | other(v, mask, y)),
            (f"({text} ^ {other_text})", lambda v, mask, y: value(v, mask, y) ^ other(v, mask, y)),
            (f"({text} + {other_text})", lambda v, mask, y: value(v, mask, y) + other(v, mask, y)),
            (f"~({text})", lambda v, mask, y: ~value(v, mask, y)),
            (f"({text} >> 9)", lambda v, mask, y: (value(v, mask, y) & ALL) >> 9),
        )
    )


@pytest.mark.parametrize("seed", range(12))
def test_writes_of_every_size_have_their_own_mask(seed: int) -> None:
    """Whether sizes share a handler or not."""
    random = Random(seed)
    bodies = [_masked(random, 4) for _ in range(8)]
    registers = " ".join(
        f"register r{i} at {8 * i} : u64 access 1, 2, 4, 8 {{ write(v, mask) {{ state.x = {text}; }} }}"
        for i, (text, _) in enumerate(bodies)
    )
    device = Device(f"device d {{ state {{ x: u64, y: u64 }} bank pio[64] {{ {registers} }} }}")
    for i, (text, value) in enumerate(bodies):
        for size in (1, 2, 4, 8):
            for byte in range(0, 8, size):
                written, y = random.getrandbits(8 * size), random.getrandbits(64)
                device.state.y = y
                device.write(8 * i + byte, size, written)
                mask = (1 << 8 * size) - 1 << 8 * byte
                assert device.state.x == value(written << 8 * byte, mask, y) & ALL, (text, size, byte)


def test_sizes_share_a_handler_where_their_masks_are_alike() -> None:
    device = Device(
        """device d { state { x: u64, y: u32 } bank pio[0x20], mmio[0x20] {
            register control at 0 : u64 access 4, 8 { write(v, mask) { state.x = v & mask & 0xf; } }
            register whole at 8 : u64 access 4, 8 { write(v, mask) { state.x = v & mask; } }
            register bits at 0x10 : u32 access 1, 2, 4 in state.y { bits 11:8 rw; }
        } }"""
    )
    writes = [each.section for each in device.program.handlers if "/write" in each.section]
    assert [each for each in writes if each.startswith("pio")] == [
        "pio/write@0x0:4,8",
        "pio/write@0x4:4",
        "pio/write@0x8:4",
        "pio/write@0x8:8",
        "pio/write@0xc:4",
        "pio/write@0x10:1",
        "pio/write@0x10:2,4",
        "pio/write@0x11:1",
        "pio/write@0x12:1,2",
        "pio/write@0x13:1",
    ]
    codes = {each.section: each.code for each in device.program.handlers}
    assert all(codes[each] == codes[each.replace("pio", "mmio")] for each in writes if each.startswith("pio"))


def test_effects_in_their_order() -> None:
    device = Device(
        """device d { line a; line b; line c; signal s; timer t; timer u;
        bank pio[4] {
            register x at 0 : u8 { write(v) {
                raise a; lower a;       // a pulse
                lower b; raise b;       // high in the end
                pulse c;
                signal s;
                arm t at 1000; cancel t;
                cancel u; arm u at 2000;
            } } } }"""
    )
    outcome = device.write(0, 1, 0)
    assert outcome.effects == {"raise": 0b111, "lower": 0b101, "signal": 1, "arm": 0b10, "cancel": 0b11}
    assert outcome.deadlines[1] == 2000


def test_timers_lines_and_decline_in_functions() -> None:
    device = Device(
        """device d { timer t; input gate; state { level: bool, at: u64 }
        fn never(x: u64) -> u64 { if x == 7 { decline; } return x; }
        on t(deadline) { state.at = never(deadline) + now(); }
        on gate(level) { state.level = level; }
        bank pio[1] { register x at 0 : u8 { read { return u8(state.level); } } } }"""
    )
    device.now, device.clock_offset = 50, 3
    assert device.expire("t", 100).value is not None
    assert device.state.at == 153
    assert device.expire("t", 7).value is None
    device.line("gate", 1)
    assert device.read(0, 1).value == 1


def test_assignments_to_parts() -> None:
    device = Device(
        """device d { state { x: u16 = 0x1234, flags: u8 = 0xf0, n: u8 }
        bank pio[8] {
            register slice at 0 : u8 { write(v) { state.x[11:4] = v; } }
            register bit at 1 : u8 { write(v) { state.flags[state.n] = v[0]; } }
            register sum at 2 : u8 { write(v) { state.x[7:0] += v; } }
            register local at 3 : u8 { read {
                var r: u8 = 0;
                r[7] = true; r[3:2] = 3; r |= 1; r <<= state.n;
                return r; } }
        } }"""
    )
    device.write(0, 1, 0xAB)
    assert device.state.x == 0x1AB4
    device.write(2, 1, 0x50)
    assert device.state.x == 0x1A04  # wraps within its eight bits
    device.state.n = 9  # modulo 8
    device.write(1, 1, 1)
    assert device.state.flags == 0xF2
    assert device.read(3, 1).value == (0x8D << 1) & 0xFF


def test_control_flow() -> None:
    device = Device(
        """device d { const TABLE: [u16; 3] = [10, 200, 3_000]; state { log: u32 }
        fn pick(v: u8) -> u16 {
            match v {
                0, 2 => { return 1; }
                10..200 => return 2;
                255 => { }
                _ => { return TABLE[v[1:0]]; }
            }
            for i in 3..10 {
                if i == 4 { continue; }
                if i == 8 { break; }
                state.log = state.log * 10 + i;
            }
            return 9;
        }
        bank pio[2] { register x at 0 : u16 { read { return pick(5); } }
        } bank pio p[256] { register y[256] at 0 : u8 { read(i) { return u8(pick(u8(i))); } } } }"""
    )
    assert device.read(0, 2).value == 200
    expected = {0: 1, 1: 200, 2: 1, 9: 200, 10: 2, 199: 2, 200: 10, 202: 3000 & 0xFF, 255: 9}
    for index, value in expected.items():
        assert device.read(index, 1, "p").value == value, index
    assert device.state.log == 3567


def test_signed_match_and_loop() -> None:
    device = Device(
        """device d { state { x: i8 }
        bank pio[4] { register sign at 0 : u8 { read {
            match state.x { -128..0 => { return 1; } 0 => { return 2; } _ => { } }
            var sum: i64 = 0;
            for i in -3..2 { sum += i; }
            return u8(sum);
        } } } }"""
    )
    for x, value in ((-128, 1), (-1, 1), (0, 2), (1, -5 & 0xFF)):
        device.state.x = x
        assert device.read(0, 1).value == value


def test_reset_values_lie_where_they_should() -> None:
    device = Device(
        """device d { const N = 3; struct S { a: u8, b: u64 }
        state { x: i16 = -2, s: [S; 2], t: [u16; N] = [1, 2, 3], f: bool = true, y: u64 = ~0 }
        bank pio[1] { register x at 0 : u8 = 0; } }"""
    )
    state = device.state
    assert (state.x, list(state.t), state.f, state.y) == (-2, [1, 2, 3], True, (1 << 64) - 1)
    assert [(each.a, each.b) for each in state.s] == [(0, 0), (0, 0)]


def test_what_the_object_says_of_the_device() -> None:
    device = Device(
        """device thing { line irq; line nmi; input gate; signal tx; timer tick;
        bank mmio regs[0x40] { register a at 0 : u32 = 1; register b[2] at 8 stride 8 : u32 = 2; } }"""
    )
    program = device.program
    assert program.device == "thing"
    assert program.names.lines == {0: "irq", 1: "nmi"}
    assert (program.names.inputs, program.names.signals, program.names.timers) == (
        {0: "gate"},
        {0: "tx"},
        {0: "tick"},
    )
    assert [(each.name, each.space, each.size) for each in program.banks] == [("regs", "mmio", 0x40)]
    assert [(r.name, r.offset, r.size, r.count, r.stride) for r in program.registers] == [
        ("a", 0, 4, 1, 0),
        ("b", 8, 4, 2, 8),
    ]


def test_banks_with_one_list_of_registers() -> None:
    device = Device(
        """device d { state { x: u32, n: u64, a: [u8; 2] }
        bank pio[8], mmio[0x10], mmio high[0x100] {
            register x at 0 : u32 access 2, 4 {
                read { state.n += access.offset; return state.x; }
                write(v, mask) { state.x = state.x & ~mask | v & mask; } }
            register a[2] at 6 : u8 in state.a;
        }
        bank pio more[1] { register y at 0 : u8 = 5; } }"""
    )
    for position, bank in enumerate(("pio", "mmio", "high")):
        device.write(2, 2, 0x1000 + position, bank)
        device.write(7, 1, position, bank)
        assert [device.read(2, 2, each).value for each in ("pio", "mmio", "high")] == [0x1000 + position] * 3
        assert [device.read(7, 1, each).value for each in ("pio", "mmio", "high")] == [position] * 3
    assert device.state.n == 9 * 2
    assert not device.answers(Op.READ, 0, 1, "high")
    program = device.program
    assert [(each.name, each.space, each.size) for each in program.banks] == [
        ("pio", "pio", 8),
        ("mmio", "mmio", 0x10),
        ("high", "mmio", 0x100),
        ("more", "pio", 1),
    ]
    assert [(each.name, each.bank, each.offset) for each in program.registers] == [
        ("x", "pio", 0),
        ("x", "mmio", 0),
        ("x", "high", 0),
        ("a", "pio", 6),
        ("a", "mmio", 6),
        ("a", "high", 6),
        ("y", "more", 0),
    ]


def test_names_of_parts_may_meet() -> None:
    device = Device(
        """device d { const x_read: [u8; 2] = [7, 9]; timer read; timer b_read_; state { n: u8 }
        on read(deadline) { state.n = 1; } on b_read_(deadline) { state.n = 2; }
        bank pio[4] {
            register x at 0 : u8 { read { return x_read[state.n[0:0]]; } }
            register on at 1 : u8 = 3;
        } bank pio on_b[1] { register on_b at 0 : u8 = 5; } }"""
    )
    assert device.expire("read", 0).value is not None
    assert (device.read(0, 1).value, device.read(1, 1).value, device.read(0, 1, "on_b").value) == (9, 3, 5)


def test_what_follows_a_certain_decline_is_not_run() -> None:
    device = Device(
        """device d { state { n: u8 = 1 }
        fn never() -> u8 { decline; }
        fn pick(i: u8) -> bool { return i < 2 && state.n != 0 || i == 7; }
        bank pio[2] {
            register x at 0 : u8 { read { let a = never(); state.n = a; return a + u8(pick(a)); } }
            register y at 1 : u8 { read { return u8(pick(5)) + u8(pick(1)) + u8(pick(7)); } }
        } }"""
    )
    assert device.read(0, 1).value is None
    assert device.read(1, 1).value == 2


def test_handlers_know_their_source_lines() -> None:
    device = Device(
        "device d {\n  bank pio[1] {\n    register x at 0 : u8 {\n      read { return u8(now()); }\n  } }\n}"
    )
    (handler,) = device.program.handlers
    assert {span.text.strip() for span in handler.lines.values()} == {"read { return u8(now()); }"}
    assert {(span.file, span.line) for span in handler.lines.values()} == {("test.dev", 4)}


def test_each_access_of_the_source_is_one_of_the_code() -> None:
    text = """device d { state { x: u32, y: u64 }
        bank pio[4] { register x at 0 : u32 { read {
            let unused_twice = state.x; let _second = state.x;
            state.y = 1; state.y = 1;
            return unused_twice + unused_twice; } } } }"""
    asm = Device(text).compiled.assembly
    assert asm.count("*(u32 *)") == 2
    assert asm.count("*(u64 *)(r2 + 8) =") + asm.count("*(u64 *)(r1 + 8) =") >= 2
