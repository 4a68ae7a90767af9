"""What the linker makes of objects from LLVM 22, and what it refuses, each with its code."""

from __future__ import annotations

import re
import struct

import pytest

from devbc import limits
from devbc.abi import AccessBinding, Binding, MapIndex, parse_binding, parse_bindings
from devbc.diagnostics import Rejected, did_you_mean
from devbc.isa.insn import decode
from devbc.isa.opcodes import Operation
from devbc.program.elf import load_object
from tests.program.objects import compile_ir, handler, load_ir, run

HANDLER = 'define i64 @h(ptr %exit) section "pio/read@0x0:1" {'


def _refused(text: str, code: str, message: str) -> Rejected:
    with pytest.raises(Rejected) as caught:
        load_ir(text)
    first = caught.value.diagnostics[0]
    assert (first.code.id, first.message) == (code, message)
    return caught.value


def _answer(body: str, *, globals: str = "") -> int:
    """What a handler answers that stores `%v` as the exit's value."""
    program = load_ir(f"""
        {globals}
        {HANDLER}
            {body}
            %value = getelementptr i8, ptr %exit, i64 8
            store i64 %v, ptr %value
            ret i64 1
        }}
    """)
    _, exit = run(program, "pio/read@0x0:1", bytearray(program.scratch_image), size=1)
    value: int = exit["value"]
    return value


def test_several_read_only_sections_are_one_region() -> None:
    """Constants of different kinds go to `.rodata`, `.rodata.cst*` and `.rodata.str*`, each relocated."""
    globals = """
        @a = private constant [3 x i8] c"abc"
        @b = private unnamed_addr constant [2 x i64] [i64 1000, i64 2000]
        @c = private unnamed_addr constant [5 x i8] c"wxyz\\00"
        @d = constant [3 x i32] [i32 70000, i32 80000, i32 90000]
    """
    body = """
        %i = load i64, ptr %exit
        %pa = getelementptr i8, ptr getelementptr (i8, ptr @a, i64 1), i64 %i
        %xa = load i8, ptr %pa
        %pb = getelementptr i8, ptr getelementptr (i8, ptr @b, i64 8), i64 %i
        %xb = load i64, ptr %pb
        %pc = getelementptr i8, ptr getelementptr (i8, ptr @c, i64 3), i64 %i
        %xc = load i8, ptr %pc
        %pd = getelementptr i8, ptr getelementptr (i8, ptr @d, i64 8), i64 %i
        %xd = load i32, ptr %pd
        %za = zext i8 %xa to i64
        %zc = zext i8 %xc to i64
        %zd = zext i32 %xd to i64
        %s = add i64 %za, %xb
        %t = add i64 %zc, %zd
        %v = add i64 %s, %t
    """
    assert _answer(body, globals=globals) == ord("b") + 2000 + ord("z") + 90000


def test_scratch_of_zeros_and_of_values() -> None:
    for initial in ("zeroinitializer", "[i64 5, i64 7]"):
        globals = f'@s = global [2 x i64] {initial}, section ".scratch"'
        body = "%v = load volatile i64, ptr getelementptr (i8, ptr @s, i64 8)"
        assert _answer(body, globals=globals) == (0 if initial == "zeroinitializer" else 7)


def test_addresses_are_map_values() -> None:
    program = load_ir(f"""
        @s = global [2 x i64] zeroinitializer, section ".scratch"
        {HANDLER}
            store volatile i64 1, ptr getelementptr (i8, ptr @s, i64 8)
            ret i64 1
        }}
    """)
    insns = decode(program.handlers[0].code).values()
    addresses = [insn for insn in insns if insn.spec.operation is Operation.MAP_VALUE_BY_IDX]
    assert [insn.map_index for insn in addresses] == [MapIndex.SCRATCH]
    assert not [insn for insn in insns if insn.spec.operation is Operation.IMM64]


def test_callees_of_every_kind() -> None:
    """Own section, `.text`, static and global, and one that two of them share: each linked once."""
    program = load_ir(f"""
        define internal i64 @near(i64 %x) noinline section "pio/read@0x0:1" {{
            %a = call i64 @shared(i64 %x)
            %b = mul i64 %a, 3
            ret i64 %b
        }}
        define internal i64 @far(i64 %x) noinline {{
            %a = call i64 @shared(i64 %x)
            %b = mul i64 %a, 5
            ret i64 %b
        }}
        define i64 @shared(i64 %x) noinline {{ %a = add i64 %x, 1  ret i64 %a }}
        define internal i64 @unused(i64 %x) noinline {{ ret i64 %x }}
        {HANDLER}
            %x = load i64, ptr %exit
            %a = call i64 @near(i64 %x)
            %b = call i64 @far(i64 %a)
            %value = getelementptr i8, ptr %exit, i64 8
            store i64 %b, ptr %value
            ret i64 1
        }}
    """)
    linked = handler(program, "pio/read@0x0:1")
    assert linked.functions[0].name == "h"
    assert sorted(function.name for function in linked.functions) == ["far", "h", "near", "shared"]
    _, exit = run(program, "pio/read@0x0:1", bytearray(), offset=6, size=1)
    assert exit["value"] == ((6 + 1) * 3 + 1) * 5


def test_handlers_of_one_object_are_linked_apart() -> None:
    program = load_ir("""
        define internal i64 @add(i64 %x, i64 %y) noinline { %a = add i64 %x, %y  ret i64 %a }
        define i64 @first(ptr %exit) section "timer/one" { %a = call i64 @add(i64 0, i64 1)  ret i64 %a }
        define i64 @second(ptr %exit) section "timer/two" { %a = call i64 @add(i64 0, i64 0)  ret i64 %a }
        @info = constant [24 x i8] c"timer.0=one\\00timer.1=two\\00", section ".devbc"
    """)
    results = [run(program, f"timer/{name}", bytearray())[0] for name in ("one", "two")]
    assert results == [1, 0]


def test_private_variables() -> None:
    for initial, section in (("0", ".bss"), ("3", ".data")):
        rejected = _refused(
            f"@count = global i64 {initial} {HANDLER} store i64 1, ptr @count ret i64 1 }}",
            "O010",
            f"variables in section `{section}`: `count`",
        )
        assert "`.scratch`" in rejected.diagnostics[0].help[0]


def test_maps() -> None:
    text = f'@m = global [4 x i64] zeroinitializer, section ".maps" {HANDLER} ret i64 0 }}'
    _refused(text, "O010", "BPF maps in section `.maps`: `m`")


def test_function_that_is_not_there() -> None:
    text = f"declare i64 @missing() {HANDLER} %a = call i64 @missing() ret i64 %a }}"
    _refused(text, "O007", "`missing` is declared, and not defined in the object")


def test_address_of_a_function() -> None:
    text = f"""
        define internal i64 @f() noinline {{ ret i64 0 }}
        {HANDLER}
            %value = getelementptr i8, ptr %exit, i64 8
            store ptr @f, ptr %value
            ret i64 1
        }}
    """
    with pytest.raises(Rejected, match=r"O009: the address of `.*`, in a function, is used"):
        load_ir(text)


def test_pointers_in_data() -> None:
    text = f"""
        @a = private constant [2 x i8] c"a\\00"
        @s = global [1 x ptr] [ptr @a], section ".scratch"
        {HANDLER} ret i64 0 }}
    """
    with pytest.raises(Rejected, match=r"O009: section `.scratch` holds the address of"):
        load_ir(text)


def _with_addend(addend: int) -> bytes:
    """An object whose handler refers to 16 bytes of scratch, `addend` bytes from their start."""
    text = f"""
        @s = global [2 x i64] zeroinitializer, section ".scratch"
        {HANDLER} store volatile i64 1, ptr @s ret i64 1 }}
    """
    data = bytearray(compile_ir(text))
    slot = next(at for at in range(64, len(data), 8) if data[at] == 0x18)
    low, high = struct.unpack("<II", struct.pack("<q", addend))
    struct.pack_into("<I", data, slot + 4, low)
    struct.pack_into("<I", data, slot + 12, high)
    return bytes(data)


@pytest.mark.parametrize(("addend", "shown"), [(17, "17"), (-8, "-8"), (1 << 40, "1,099,511,627,776")])
def test_address_outside_its_section(addend: int, shown: str) -> None:
    message = f"O009: the address is byte {shown} of section `.scratch`, which has 16"
    with pytest.raises(Rejected, match=f"^{message}$"):
        load_object(_with_addend(addend), name="test.o")


@pytest.mark.parametrize("addend", [0, 8, 16])
def test_address_inside_its_section(addend: int) -> None:
    """One past the end is an address that C may form: what is done with it is for the verifier."""
    insns = decode(load_object(_with_addend(addend), name="test.o").handlers[0].code)
    assert [insn.map_offset for insn in insns.values() if insn.spec.slots == 2] == [addend]


def test_two_global_functions_in_a_section() -> None:
    text = f'{HANDLER} ret i64 0 }} define i64 @g(ptr %e) section "pio/read@0x0:1" {{ ret i64 0 }}'
    _refused(text, "O006", "section `pio/read@0x0:1` must have one global function, and has `h`, `g`")


def test_no_handler() -> None:
    rejected = _refused("define i64 @f() { ret i64 0 }", "O004", "`test.o` has no handler")
    assert rejected.diagnostics[0].notes == ("it has code in `.text`",)


def test_malformed_binding() -> None:
    text = 'define i64 @h(ptr %exit) section "pio/read@0x4-0x1:1" { ret i64 0 }'
    message = "section `pio/read@0x4-0x1:1` binds no handler: the range 0x4-0x1 ends before it begins"
    _refused(text, "O005", message)


def test_range_beyond_the_cap() -> None:
    hi = limits.RANGE_OFFSETS
    text = f'define i64 @h(ptr %exit) section "mmio/read@0x0-{hi:#x}:1" {{ ret i64 0 }}'
    with pytest.raises(Rejected, match=r"O005: .* its range covers 4,097 offsets, and may cover 4,096"):
        load_ir(text)


def _accesses(binding: Binding) -> set[tuple[str, str, int, int]]:
    assert isinstance(binding, AccessBinding)
    return {(binding.bank, binding.op, offset, size) for offset, size in binding.accesses()}


@pytest.mark.parametrize(
    ("left", "right", "clash"),
    [
        ("mmio/read@0x0-0xf:4", "mmio/read@0x8:4", "4 bytes at 0x8"),
        ("mmio/read@0x0-0xf:4", "mmio/read@0x2-0xf:2,4", None),
        ("mmio/read@0x0-0xf:4", "mmio/read@0x0-0xf:8", None),
        ("mmio/read@0x0-0xf:4", "mmio/write@0x0-0xf:4", None),
        ("mmio/read@0x0-0xf:1,2", "mmio/read@0x3-0x3", "1 byte at 0x3"),
        ("mmio:a/read@0x0:4", "mmio:b/read@0x0:4", None),
        ("mmio/read@0:4", "mmio/read@0x0:4", "4 bytes at 0x0"),
        ("hypercall/16", "hypercall/0x10", "it"),
    ],
)
def test_handlers_that_answer_the_same(left: str, right: str, clash: str | None) -> None:
    text = "".join(
        f'define i64 @h{index}(ptr %exit) section "{name}" {{ ret i64 0 }}\n'
        for index, name in enumerate((left, right))
    )
    if clash is None:
        first, second = (_accesses(each.binding) for each in load_ir(text).handlers)
        assert not first & second
        return
    with pytest.raises(Rejected, match=rf"O011: handlers `.*` and `.*` both answer {clash}$"):
        load_ir(text)


def test_a_handler_of_several_banks_is_one_for_each() -> None:
    text = 'define i64 @h(ptr %exit) section "pio,mmio:regs/read@0x4:1,2" { ret i64 1 }'
    first, second = load_ir(text).handlers
    assert [first.section, second.section] == ["pio/read@0x4:1,2", "mmio:regs/read@0x4:1,2"]
    assert [parse_binding(each.section) for each in (first, second)] == [first.binding, second.binding]
    assert (first.code, first.functions, first.lines) == (second.code, second.functions, second.lines)


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ("pio,timer/tick", "it is not of the form"),
        ("pio,/read@0x0", "it is not of the form"),
        ("pio,mmio,pio/read@0x0", "both answer 1 byte at 0x0"),
        ("pio,mmio/read@0x0-0x1000:1", "its range covers 4,097 offsets"),
    ],
)
def test_several_places_that_are_none(section: str, why: str) -> None:
    with pytest.raises(Rejected) as refused:
        load_ir(f'define i64 @h(ptr %exit) section "{section}" {{ ret i64 0 }}')
    assert re.match(r"O005|O011", str(refused.value))
    assert why in str(refused.value)


def test_timers_and_lines_have_one_place() -> None:
    assert parse_bindings("timer,line/tick") == "only accesses have several places"
    assert parse_bindings("line/tick") == (parse_binding("line/tick"),)


def test_a_handler_of_several_banks_counts_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'define i64 @h(ptr %exit) section "pio,mmio/read@0x0" { ret i64 0 }'
    slots = sum(len(each.code) // 8 for each in load_ir(text).handlers)
    monkeypatch.setattr(limits, "PROGRAM_SLOTS", slots)
    load_ir(text)
    monkeypatch.setattr(limits, "PROGRAM_SLOTS", slots - 1)
    with pytest.raises(Rejected, match=r"more than \d+ instructions, callees counted in each"):
        load_ir(text)


def test_timer_without_a_name() -> None:
    text = """
        define i64 @h(ptr %exit) section "timer/tack" { ret i64 0 }
        @info = constant [13 x i8] c"timer.0=tick\\00", section ".devbc"
    """
    message = "handler `timer/tack` is for timer `tack`, which the device does not have"
    rejected = _refused(text, "O013", message)
    assert rejected.diagnostics[0].help == did_you_mean("tack", ["tick"])


def test_bank_that_ends_early() -> None:
    text = """
        define i64 @h(ptr %exit) section "pio/read@0x4:1" { ret i64 0 }
        @info = constant [15 x i8] c"bank.pio=pio:4\\00", section ".devbc"
    """
    _refused(text, "O013", "`pio/read@0x4:1`: bank `pio` has 0x4 bytes")


def test_banks_that_only_handlers_mention() -> None:
    program = load_ir("""
        define i64 @a(ptr %exit) section "pio/read@0x0-0x3:1,4" { ret i64 0 }
        define i64 @b(ptr %exit) section "mmio:regs/read@0x10-0x1b:4" { ret i64 0 }
    """)
    assert {bank.name: (bank.space, bank.size) for bank in program.banks} == {
        "pio": ("pio", 4),
        "regs": ("mmio", 0x1C),
    }


def test_faults_of_several_handlers_are_told_together() -> None:
    with pytest.raises(Rejected) as caught:
        load_ir("""
            declare i64 @one()
            declare i64 @two()
            define i64 @a(ptr %exit) section "pio/read@0x0:1" { %a = call i64 @one() ret i64 %a }
            define i64 @b(ptr %exit) section "pio/read@0x1:1" { %a = call i64 @two() ret i64 %a }
        """)
    named = [re.search(r"`(\w+)`", each.message)[1] for each in caught.value.diagnostics]  # type: ignore[index]
    assert named == ["one", "two"]


def _patched(slot: int, raw: bytes) -> bytes:
    """An object whose handler is a jump over one instruction, with the slot's bytes replaced."""
    data = compile_ir(f"""
        {HANDLER}
            %x = load volatile i64, ptr %exit
            %c = icmp eq i64 %x, 0
            br i1 %c, label %a, label %b
        a:
            store volatile i64 1, ptr %exit
            br label %b
        b:
            ret i64 0
        }}
    """)
    at = 64 + 8 * slot
    return data[:at] + raw + data[at + 8 :]


def test_jump_out_of_a_function() -> None:
    with pytest.raises(Rejected, match=r"O008: the jump goes to slot 101, where `h` has no instruction"):
        load_object(_patched(0, struct.pack("<BBhi", 0x05, 0, 100, 0)), name="test.o")


def test_function_without_an_end() -> None:
    size = len(load_object(_patched(0, bytes.fromhex("b700000000000000")), name="test.o").handlers[0].code)
    with pytest.raises(Rejected, match=r"O008: `h` runs past its end"):
        load_object(_patched(size // 8 - 1, bytes.fromhex("b700000000000000")), name="test.o")


def test_instruction_that_does_not_exist() -> None:
    with pytest.raises(Rejected, match=r"I002"):
        load_object(_patched(0, b"\xff" * 8), name="test.o")


def test_call_into_the_middle() -> None:
    with pytest.raises(Rejected, match=r"O007: the call goes to slot 3 of .*, where no function starts"):
        load_object(_patched(0, struct.pack("<BBhi", 0x85, 0x10, 0, 2)), name="test.o")


def _callee(name: str, instructions: int) -> str:
    stores = "store volatile i64 1, ptr %exit\n" * (instructions - 1)
    return f"define internal void @{name}(ptr %exit) noinline {{ {stores} ret void }}\n"


def test_size_of_a_handler_with_its_callees() -> None:
    callees = "".join(_callee(f"f{i}", 2048) for i in range(8))
    calls = "".join(f"call void @f{i}(ptr %exit)\n" for i in range(8))
    with pytest.raises(Rejected, match=r"O003: handler `h` has more than 16,384 instructions"):
        load_ir(f"{callees} {HANDLER} {calls} ret i64 1 }}", level=0)


def test_a_callee_counts_in_each_handler() -> None:
    """Little code in the file, much when linked: the sum over handlers is capped."""
    handlers = "".join(
        f'define i64 @h{i}(ptr %exit) section "hypercall/{i}" {{ call void @f(ptr %exit) ret i64 1 }}\n'
        for i in range(140)
    )
    with pytest.raises(Rejected, match=r"O003: the handlers have more than 262,144 instructions"):
        load_ir(_callee("f", 2048) + handlers, level=0)


@pytest.mark.parametrize(
    ("at", "raw", "message"),
    [
        (18, b"\x3e\x00", "O001: `test.o` is for machine EM_X86_64, not EM_BPF"),
        (16, b"\x02\x00", "O001: `test.o` is of type ET_EXEC, not relocatable"),
        (5, b"\x02", "O001: `test.o` is big-endian"),
        (4, b"\x01", "O001: `test.o` is not of 64 bits"),
        (0, b"#", "O001: `test.o` does not begin with the ELF magic number"),
    ],
)
def test_other_kinds_of_files(at: int, raw: bytes, message: str) -> None:
    data = compile_ir(f"{HANDLER} ret i64 0 }}")
    with pytest.raises(Rejected, match=f"^{re.escape(message)}$"):
        load_object(data[:at] + raw + data[at + len(raw) :], name="test.o")


def test_empty_file() -> None:
    with pytest.raises(Rejected, match=r"^O001: `test.o` is empty$"):
        load_object(b"", name="test.o")
