"""The abstract operations, proven by an SMT solver for all words and values, at full width where that ends.

The theorems are in `smt/theorems.py`; what runs is the verifier's own code on unknown integers (`smt/code.py`
says how). The short profile proves a part; the long one the rest. Where solvers do not end at 64 bits
(multiplication, division), it is done at a smaller width, and the test's name says which.
"""

from __future__ import annotations

import pytest
import z3

from devbc import semantics
from devbc.isa.opcodes import Operation, Spec
from tests.verifier.small import BINARY, JUMPS
from tests.verifier.smt import theorems
from tests.verifier.smt.symbolic import DisprovedError, Expr, Integer, Run, choose, greatest, least, proofs
from tests.verifier.smt.words import VECTORS

EVERYTHING = (1 << 64) - 1


def name(spec: Spec) -> str:
    return spec.name


def test_a_wrong_theorem_is_disproved() -> None:
    """The tool can fail: a sum is not always at least its operand, and a bound may be reached."""

    def wraps(run: Run) -> None:
        x, y = run.fresh("x", 64), run.fresh("y", 64)
        run.prove(z3.UGE(x + y, x), "no sum wraps")

    def forks(run: Run) -> None:
        x = Integer.unsigned(run.fresh("x", 8))
        smaller = x if x < 255 else x - 1
        run.prove((smaller < 254).expr, "the greatest was taken away")

    for wrong in (wraps, forks):
        with pytest.raises(DisprovedError):
            proofs(wrong)


def test_unknown_integers_compute_as_python_does() -> None:
    numbers = (-300, -17, -1, 0, 1, 5, 8, 255, 1 << 40)

    def known(run: Run) -> None:
        for a in numbers:
            x = Integer(z3.BitVecVal(a, 50))
            for b in numbers:
                y = Integer(z3.BitVecVal(b, 44))
                pairs = [(x + y, a + b), (x - y, a - b), (x * y, a * b), (x & y, a & b), (x | y, a | b),
                         (x ^ b, a ^ b), (~x, ~a), (-x, -a), (abs(x), abs(a)), (least(x, y), min(a, b)),
                         (greatest(x, b), max(a, b)), (choose(x < y, x, y), min(a, b))]  # fmt: skip
                if b:
                    pairs += [(x // y, a // b), (x % y, a % b)]
                if 0 <= b < 60:
                    pairs += [(x >> y, a >> b), (x << y, a << b), (x >> b, a >> b)]
                for ours, python in pairs:
                    assert int(ours) == python, (a, b, ours, python)
            if a >= 0:
                assert int(1 << x.bit_length()) == 1 << a.bit_length()
        run.prove(z3.BoolVal(True), "done")

    proofs(known)


# The concrete side: the machine's operations on bit-vectors, against the RFC's table said again.


def _rfc(operation: Operation, a: Expr, b: Expr, bits: int) -> Expr:
    """RFC 9669, table 3 and section 4.1, in the solver's own operations."""
    zero, amount = z3.BitVecVal(0, bits), z3.URem(b, bits)
    return {
        Operation.ADD: a + b,
        Operation.SUB: a - b,
        Operation.MUL: a * b,
        Operation.DIV: z3.If(b == 0, zero, z3.UDiv(a, b)),
        Operation.MOD: z3.If(b == 0, a, z3.URem(a, b)),
        # The solver's quotient of the most negative number and -1 is the most negative number, as the RFC's.
        Operation.SDIV: z3.If(b == 0, zero, a / b),
        Operation.SMOD: z3.If(b == 0, a, z3.SRem(a, b)),
        Operation.OR: a | b,
        Operation.AND: a & b,
        Operation.XOR: a ^ b,
        Operation.LSH: a << amount,
        Operation.RSH: z3.LShR(a, amount),
        Operation.ARSH: a >> amount,
    }[operation]


@pytest.mark.parametrize("spec", BINARY, ids=name)
def test_semantics_are_those_of_the_rfc(spec: Spec) -> None:
    """At full width; division with a register of 8 bits."""
    divides = spec.operation in (Operation.DIV, Operation.MOD, Operation.SDIV, Operation.SMOD)
    full = 64 if not divides else 8
    bits = full * spec.width // 64

    def theorem(run: Run) -> None:
        x, y = run.fresh("x", full), run.fresh("y", full)
        ours = semantics.alu(VECTORS, spec, x, y, full=full, width=bits)
        low = _rfc(spec.operation, z3.Extract(bits - 1, 0, x), z3.Extract(bits - 1, 0, y), bits)
        run.prove(ours == (z3.ZeroExt(full - bits, low) if bits < full else low), spec.name)

    proofs(theorem)


# The abstract side.


@pytest.mark.parametrize("bits", [32, pytest.param(64, marks=pytest.mark.long)])
@pytest.mark.parametrize("operation", ["and_", "or_", "xor"])
def test_bitwise_logic(operation: str, bits: int) -> None:
    proofs(theorems.binary(operation, bits))


@pytest.mark.long
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("operation", ["add", "sub"])
def test_sums(operation: str, bits: int) -> None:
    proofs(theorems.binary(operation, bits))


@pytest.mark.parametrize("operation", ["mul", "udiv", "urem", "sdiv", "srem"])
def test_products_and_quotients_of_4_bits(operation: str) -> None:
    proofs(theorems.binary(operation, 4, full=8))


SHIFTS = [(operation, bits, amount) for operation in ("shl", "lshr", "ashr")
          for bits in (32, 64) for amount in range(bits)]  # fmt: skip
FEW = {32, 63}


@pytest.mark.parametrize(
    ("operation", "bits", "amount"),
    [
        each if each[2] in FEW and each[1] == 64 else pytest.param(*each, marks=pytest.mark.long)
        for each in SHIFTS
    ],
)
def test_shifts_by_constants(operation: str, bits: int, amount: int) -> None:
    proofs(theorems.shift(operation, bits, amount))


@pytest.mark.long
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("operation", ["shl", "lshr", "ashr"])
def test_shifts_by_any_amount(operation: str, bits: int) -> None:
    proofs(theorems.shift_estimate(operation, bits))


EXTENSIONS = [(operation, bits, to) for operation in ("zext", "sext")
              for bits, to in ((8, 32), (16, 32), (8, 64), (16, 64), (32, 64))]  # fmt: skip
TRUNCATIONS = [("trunc", bits, to) for bits, to in ((64, 32), (64, 16), (64, 8), (32, 16), (32, 8))]


@pytest.mark.parametrize(("operation", "bits", "to"), [*EXTENSIONS, *TRUNCATIONS])
def test_truncation_and_extension(operation: str, bits: int, to: int) -> None:
    proofs(theorems.resized(operation, bits, to))


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_byte_swaps(bits: int) -> None:
    proofs(theorems.swapped(bits))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("operation", ["ult", "ule", "slt", "sle"])
def test_orders(operation: str, bits: int) -> None:
    proofs(theorems.compared(operation, bits))


@pytest.mark.parametrize(
    ("operation", "bits"),
    [("eq", 8), ("ne", 8), pytest.param("eq", 32, marks=pytest.mark.long),
     pytest.param("ne", 32, marks=pytest.mark.long)],
)  # fmt: skip
def test_equality(operation: str, bits: int) -> None:
    """Of whole registers at 8 bits, where the halves take part; of halves at 32."""
    proofs(theorems.compared(operation, bits, full=64 if bits == 32 else bits))


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize(
    "spec",
    [pytest.param(each, id=each.name, marks=pytest.mark.long if each.width == 64 else ()) for each in JUMPS],
)
def test_what_jumps_teach(spec: Spec, taken: bool) -> None:
    proofs(theorems.refined(spec, taken))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("theorem", [theorems.meet, theorems.join, theorems.includes])
def test_meet_join_and_inclusion(theorem: theorems.WidthTheorem, bits: int) -> None:
    proofs(theorem(bits))


def test_what_a_half_teaches() -> None:
    proofs(theorems.with_low())


@pytest.mark.long
@pytest.mark.parametrize(("bits", "full"), [(8, 16), (16, 32), (32, 64)])
def test_parts_narrow_each_other_soundly(bits: int, full: int) -> None:
    """The contract that all other proofs use, of words without a half: at 32 bits that is every half."""
    proofs(theorems.one_round(bits, full), timeout=300)


def test_parts_narrow_each_other_soundly_at_4_bits() -> None:
    proofs(theorems.one_round(4, 8))


HALF, BYTE = 0xFFFF_FFFF, 0xFF


@pytest.mark.parametrize(
    ("mask", "its"),
    [
        pytest.param(0xFF00, EVERYTHING, id="gap-whole"),
        pytest.param(1 << 2, EVERYTHING, id="bit-whole"),
        pytest.param(EVERYTHING, EVERYTHING, id="whole-whole", marks=pytest.mark.long),
        pytest.param(HALF, EVERYTHING, id="half-whole", marks=pytest.mark.long),
        pytest.param(EVERYTHING, HALF, id="whole-half", marks=pytest.mark.long),
        pytest.param(HALF, HALF, id="half-half", marks=pytest.mark.long),
        pytest.param(BYTE, EVERYTHING, id="byte-whole", marks=pytest.mark.long),
        pytest.param(EVERYTHING, BYTE, id="whole-byte", marks=pytest.mark.long),
        pytest.param(BYTE, BYTE, id="byte-byte", marks=pytest.mark.long),
    ],
)
def test_what_a_copy_teaches(mask: int, its: int) -> None:
    """Of copies without a constant between them, by the bits of the symbol that each has."""
    proofs(theorems.followed(mask, its, moved=False))
