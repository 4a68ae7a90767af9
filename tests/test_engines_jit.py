"""The JIT against the reference interpreter, on programs that hypothesis writes.

Programs are made of statements: arithmetic on r0 to r5, accesses to the stack, the exit, scratch and
read-only data, branches, loops, local calls. r6 to r9 hold the exit, scratch, read-only data and a place on
the stack. At the end everything that the program knew is folded into r0.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from devbc.abi import EXIT_FIELDS, EXIT_SIZE, Helper, MapIndex
from devbc.engines.jit import compile_program
from devbc.isa.insn import Insn, encode
from devbc.isa.opcodes import SPECS, Kind, Operation, Source, Spec
from devbc.program.verified import AccessFact
from tests.handlers import Input, interpret, observed_program, run_native
from tests.strategies import S32, U64

SCALARS = range(6)
EXIT, SCRATCH, RODATA, STACK = 6, 7, 8, 9
#: Bytes of each region that programs use, from the pointer in its register.
AREA = 64
COUNTERS = 72  # below r10: loop counters, one a nesting level
DEPTH = 2
VALUE = EXIT_FIELDS["value"].offset

ARITHMETIC = [spec for spec in SPECS.values() if spec.kind in (Kind.ALU, Kind.UNARY)]
JUMPS = [spec for spec in SPECS.values() if spec.kind is Kind.JUMP]
LOADS = [spec for spec in SPECS.values() if spec.kind is Kind.LOAD]
STORES = [spec for spec in SPECS.values() if spec.kind is Kind.STORE]
ATOMICS = [spec for spec in SPECS.values() if spec.kind is Kind.ATOMIC]

Code = list[Insn]


def make(name: str, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> Insn:
    spec = SPECS[name]
    return Insn(spec, dst, src if spec.src is None else spec.src, off, imm)


def fill(spec: Spec, dst: int, src: int, imm: int, off: int = 0) -> Insn:
    """An instruction with these operands, where the form has them."""
    return Insn(
        spec,
        dst if spec.dst is None else spec.dst,
        src if spec.src is None and spec.source is not Source.NONE else spec.src or 0,
        off if spec.off is None else spec.off,
        imm if spec.imm is None else spec.imm,
    )


def slots(code: Code) -> int:
    return sum(insn.spec.slots for insn in code)


scalar = st.sampled_from(SCALARS)


@st.composite
def arithmetic(draw: st.DrawFn) -> Code:
    return [fill(draw(st.sampled_from(ARITHMETIC)), draw(scalar), draw(scalar), draw(S32))]


@st.composite
def constant(draw: st.DrawFn) -> Code:
    return [make("lddw_imm64", draw(scalar), imm=draw(U64))]


@st.composite
def access(draw: st.DrawFn, specs: list[Spec], bases: list[int]) -> Code:
    """An aligned access through one of the pointers. The exit may only be written in `value`."""
    spec, base = draw(st.sampled_from(specs)), draw(st.sampled_from(bases))
    offset = draw(st.integers(0, AREA // spec.bytes - 1)) * spec.bytes
    if base == EXIT and spec.kind is not Kind.LOAD:
        offset = VALUE + offset % 8
    return _through(spec, base, offset, draw(scalar), draw(S32))


@st.composite
def indexed(draw: st.DrawFn) -> Code:
    """An access at a place that the program computes: pointer in r5, index in r4."""
    base = draw(st.sampled_from([SCRATCH, STACK, RODATA]))
    spec = draw(st.sampled_from(LOADS if base == RODATA else LOADS + STORES + ATOMICS))
    mask = AREA - spec.bytes
    return [
        fill(SPECS["and_imm"], 4, 0, mask),
        make("mov_reg", 5, base),
        make("add_reg", 5, 4),
        *_through(spec, 5, 0, draw(st.sampled_from(range(5))), draw(S32)),
        make("mov_imm", 5, imm=draw(S32)),
    ]


@st.composite
def either(draw: st.DrawFn) -> Code:
    """An access that goes to scratch on one path and to the stack on another."""
    spec = draw(st.sampled_from(LOADS + STORES + ATOMICS))
    offset = draw(st.integers(0, AREA // spec.bytes - 1)) * spec.bytes
    return [
        make("mov_reg", 5, SCRATCH),
        Insn(draw(st.sampled_from([SPECS["jset_imm"], SPECS["jsgt_imm"]])), draw(scalar_below_5), 0, 1, 1),
        make("mov_reg", 5, STACK),
        *_through(spec, 5, offset, draw(scalar_below_5), draw(S32)),
        make("mov_imm", 5, imm=draw(S32)),
    ]


scalar_below_5 = st.integers(0, 4)


def _through(spec: Spec, base: int, offset: int, register: int, imm: int) -> Code:
    if spec.kind is Kind.LOAD:
        return [fill(spec, register, base, 0, offset)]
    return [fill(spec, base, register, imm, offset)]


@st.composite
def branch(draw: st.DrawFn, depth: int) -> Code:
    spec = draw(st.sampled_from(JUMPS))
    body, other = draw(statements(depth)), draw(statements(depth))
    form = draw(st.sampled_from(["ja", "ja32"]))
    skip = make("ja", off=slots(other)) if form == "ja" else make("ja32", imm=slots(other))
    test = fill(spec, draw(scalar), draw(scalar), draw(S32), slots(body) + 1)
    return [test, *body, skip, *other]


@st.composite
def loop(draw: st.DrawFn, depth: int) -> Code:
    body, counter = draw(statements(depth)), -COUNTERS - 8 * depth
    inner = [
        *body,
        make("ldxdw", 5, 10, counter),
        make("add_imm", 5, imm=-1),
        make("stxdw", 10, 5, counter),
    ]
    back = make("jne_imm", 5, off=-slots(inner) - 1, imm=0)
    return [make("stdw", 10, off=counter, imm=draw(st.integers(1, 4))), *inner, back]


@st.composite
def clock(draw: st.DrawFn) -> Code:
    return [
        make("call", imm=Helper.KTIME_GET_NS),
        *(make("mov_imm", each, imm=draw(S32)) for each in SCALARS[1:]),
    ]


#: Stands for a local call until the place of the callee is known.
CALL = make("call_local")


@st.composite
def call(draw: st.DrawFn) -> Code:
    """r1: a pointer into this frame for the callee to work on, r2 to r5: scalars."""
    after = [make("mov_imm", each, imm=draw(S32)) for each in SCALARS[1:]]
    return [make("mov_reg", 1, STACK), CALL, *after]


def statements(depth: int) -> st.SearchStrategy[Code]:
    """Up to 4 statements in a branch, 20 in a program: short lists would rarely touch a place twice."""
    kinds = [
        arithmetic(),
        constant(),
        access(LOADS, [EXIT, SCRATCH, RODATA, STACK]),
        access(STORES, [EXIT, SCRATCH, STACK]),
        access(ATOMICS, [EXIT, SCRATCH, STACK]),
        indexed(),
        either(),
        clock(),
        call(),
    ]
    if depth:
        kinds += [branch(depth - 1), loop(depth - 1)]
    low, high = (10, 20) if depth == DEPTH else (0, 4)
    parts = st.lists(st.one_of(kinds), min_size=low, max_size=high)
    return parts.map(lambda each: [insn for part in each for insn in part])


@st.composite
def programs(draw: st.DrawFn) -> bytes:
    main = [
        make("mov_reg", EXIT, 1),
        make("lddw_map_value_by_idx", SCRATCH, imm=MapIndex.SCRATCH),
        make("lddw_map_value_by_idx", RODATA, imm=MapIndex.RODATA),
        make("mov_reg", STACK, 10),
        make("add_imm", STACK, imm=-AREA),
        *(make("stdw", STACK, off=offset, imm=draw(S32)) for offset in range(0, AREA, 8)),
        *(make("lddw_imm64", each, imm=draw(U64)) for each in SCALARS),
        *draw(statements(DEPTH)),
    ]
    for register in SCALARS[1:]:
        main += [make("mul_imm", 0, imm=31), make("xor_reg", 0, register)]
    for offset in range(0, AREA, 8):
        main += [make("ldxdw", 1, STACK, offset), make("mul_imm", 0, imm=31), make("xor_reg", 0, 1)]
    main.append(make("exit"))
    callee = [
        make("mov_reg", 6, 1),
        make("stxdw", 10, 2, -8),
        make("ldxdw", 0, 6, 8),
        make("add_reg", 0, 3),
        make("ldxdw", 7, 10, -8),
        make("xor_reg", 0, 7),
        make("stxdw", 6, 0, 16),
        make("exit"),
    ]
    linked: Code = []
    for insn in main:
        target = slots(main) - slots(linked) - 1
        linked.append(replace(CALL, imm=target) if insn is CALL else insn)
    return encode(linked + callee)


INPUTS = st.builds(
    Input,
    exit=st.binary(min_size=EXIT_SIZE, max_size=EXIT_SIZE),
    scratch=st.binary(min_size=AREA, max_size=AREA),
    rodata=st.binary(min_size=AREA, max_size=AREA),
    now=U64,
)


@settings(max_examples=150, deadline=None)
@given(programs(), INPUTS, st.lists(st.sampled_from(["all", "region", "nothing"]), min_size=7, max_size=7))
def test_interpreter_and_jit_agree(code: bytes, given: Input, known: list[str]) -> None:
    """Whatever part of the truth about each access the verifier has found out."""
    program = observed_program(code, given)
    facts = program.handlers[0].accesses.items()
    weaker = {slot: weaken(fact, known[index % len(known)]) for index, (slot, fact) in enumerate(facts)}
    handler = replace(program.handlers[0], accesses=weaker)
    compiled = compile_program(replace(program, handlers=(handler,)))
    assert run_native(compiled.function(handler), given) == interpret(handler.insns, given)


def weaken(fact: AccessFact, known: str) -> AccessFact:
    match known:
        case "all":
            return fact
        case "region":
            return AccessFact(fact.region, None)
        case _:
            return AccessFact(None, None)


@st.composite
def one_operation(draw: st.DrawFn) -> tuple[Spec, int, int, int]:
    """A form, its operands and its immediate; often two of them are equal, where comparisons turn."""
    imm = draw(S32)
    a = draw(st.one_of(U64, st.just(imm & (1 << 64) - 1)))
    b = draw(st.one_of(U64, st.just(a)))
    return draw(st.sampled_from([*ARITHMETIC, *JUMPS])), a, b, imm


@settings(max_examples=60, deadline=None)
@given(st.lists(one_operation(), min_size=20, max_size=80))
def test_each_operation_on_values_that_llvm_does_not_know(rows: list[tuple[Spec, int, int, int]]) -> None:
    """Operands come from scratch, so that nothing is folded: this is what the backend makes of each."""
    code: Code = [make("lddw_map_value_by_idx", 7, imm=MapIndex.SCRATCH), make("mov_imm", 8, imm=0)]
    for index, (spec, _, _, imm) in enumerate(rows):
        code += [make("ldxdw", 1, 7, 16 * index), make("ldxdw", 2, 7, 16 * index + 8)]
        if spec.kind is Kind.JUMP:
            code += [fill(spec, 1, 2, imm, 1), make("mov_imm", 1, imm=index)]
        else:
            code.append(fill(spec, 1, 2, imm))
        code.append(make("stxdw", 7, 1, 16 * index))
    code += [make("mov_imm", 0, imm=1), make("exit")]
    scratch = b"".join(each.to_bytes(8, "little") for _, a, b, _ in rows for each in (a, b))
    given = Input(bytes(EXIT_SIZE), scratch)
    program = observed_program(encode(code), given)
    (handler,) = program.handlers
    assert run_native(compile_program(program).function(handler), given) == interpret(handler.insns, given)


def test_every_form_is_covered() -> None:
    """The forms that the strategies above leave out, each for a reason."""
    covered = {spec.name for spec in (*ARITHMETIC, *JUMPS, *LOADS, *STORES, *ATOMICS)}
    control = {"ja", "ja32", "call", "call_local", "exit", "lddw_imm64", "lddw_map_value_by_idx"}
    refused = {spec.name for spec in SPECS.values() if spec.kind is Kind.LDDW} - control | {"call_btf"}
    assert covered | control | refused == set(SPECS)
    assert {spec.operation for spec in ATOMICS} >= {Operation.CMPXCHG, Operation.XCHG}
