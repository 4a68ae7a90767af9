"""The algebra of abstract words: `devbc.semantics` over what is known of values instead of values.

Each operation is sound: its result admits every result of the concrete operation on values that the
operands admit (for divisions: with divisors that `devbc.semantics` lets through, that is not 0, and not -1
when signed). Truth values are True, False, or None where both may be.

Tnum arithmetic follows Vishwanathan et al., "Sound, Precise, and Fast Abstract Interpretation with Tristate
Numbers" (CGO 2022), the ranges the usual interval rules computed on unbounded integers and then wrapped.
Results of the lower half are computed from the lower halves where the operation allows it: addition,
multiplication, bitwise logic and left shifts by constants never carry anything downwards.

Not here: pointers (`values.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from devbc.verifier.word import Word, Words

#: Shift amounts that are tried one by one; a shift by more different amounts is estimated.
_SHIFT_CASES = 8

Truth = bool | None


class WordAlgebra(Words):
    """Operations on words; implements `devbc.semantics.Algebra[Word, bool | None]`."""

    def add(self, a: Word, b: Word, bits: int) -> Word:
        if not a.mask and not b.mask:
            return self.const(a.value + b.value, bits)
        low = self.add(a.low, b.low, self.half) if a.low and b.low else None
        # Carries come from the unknown bits: where the sums of least and greatest differ, nothing is known.
        least = a.value + b.value
        mask = (least ^ (least + a.mask + b.mask)) | a.mask | b.mask
        return self._wrapped(bits, least, mask, a.umin + b.umin, a.umax + b.umax,
                             a.smin + b.smin, a.smax + b.smax, low)  # fmt: skip

    def sub(self, a: Word, b: Word, bits: int) -> Word:
        if not a.mask and not b.mask:
            return self.const(a.value - b.value, bits)
        low = self.sub(a.low, b.low, self.half) if a.low and b.low else None
        difference = a.value - b.value
        mask = ((difference + a.mask) ^ (difference - b.mask)) | a.mask | b.mask
        return self._wrapped(bits, difference, mask, a.umin - b.umax, a.umax - b.umin,
                             a.smin - b.smax, a.smax - b.smin, low)  # fmt: skip

    def mul(self, a: Word, b: Word, bits: int) -> Word:
        if not a.mask and not b.mask:
            return self.const(a.value * b.value, bits)
        low = self.mul(a.low, b.low, self.half) if a.low and b.low else None
        value, mask = _tnum_mul(a, b, (1 << bits) - 1)
        corners = (a.smin * b.smin, a.smin * b.smax, a.smax * b.smin, a.smax * b.smax)
        return self._wrapped(bits, value, mask, a.umin * b.umin, a.umax * b.umax,
                             min(corners), max(corners), low)  # fmt: skip

    def udiv(self, a: Word, b: Word, bits: int) -> Word:
        return self.range(a.umin // max(b.umax, 1), a.umax // max(b.umin, 1), bits)

    def urem(self, a: Word, b: Word, bits: int) -> Word:
        if a.umax < b.umin:
            return a
        if not a.mask and not b.mask:
            return self.const(a.value % max(b.value, 1), bits)
        if b.constant and not b.value & (b.value - 1):
            return self.and_(a, self.const(b.value - 1, bits), bits)
        return self.range(0, min(a.umax, max(b.umax - 1, 0)), bits)

    def sdiv(self, a: Word, b: Word, bits: int) -> Word:
        # For one dividend the quotient is monotone in the divisor on each side of 0, and for one divisor it
        # is monotone in the dividend: the extremes are at the corners. 0 and -1 do not come as divisors,
        # but 1 and -2 may.
        divisors = {each for each in (b.smin, min(b.smax, -2)) if b.smin <= each < -1}
        divisors |= {each for each in (max(b.smin, 1), b.smax) if 0 < each <= b.smax}
        if not divisors:
            return self.unknown(bits)
        quotients = [_truncated(dividend, divisor) for dividend in (a.smin, a.smax) for divisor in divisors]
        return self._signed_range(min(quotients), max(quotients), bits)

    def srem(self, a: Word, b: Word, bits: int) -> Word:
        # The remainder has the dividend's sign, and is smaller than either operand's magnitude allows.
        if not a.mask and not b.mask:
            divisor = abs(b.smin) or 1
            return self.const(a.smin % divisor if a.smin >= 0 else -(-a.smin % divisor), bits)
        greatest = max(abs(b.smin), abs(b.smax), 1) - 1
        return self._signed_range(max(min(a.smin, 0), -greatest), min(max(a.smax, 0), greatest), bits)

    def and_(self, a: Word, b: Word, bits: int) -> Word:
        value = a.value & b.value
        mask = (a.value | a.mask) & (b.value | b.mask) & ~value
        low = self.and_(a.low, b.low, self.half) if a.low and b.low else None
        return self._made(bits, value, mask, umax=min(a.umax, b.umax), low=low)

    def or_(self, a: Word, b: Word, bits: int) -> Word:
        value = a.value | b.value
        mask = (a.mask | b.mask) & ~value
        low = self.or_(a.low, b.low, self.half) if a.low and b.low else None
        return self._made(bits, value, mask, umin=max(a.umin, b.umin), low=low)

    def xor(self, a: Word, b: Word, bits: int) -> Word:
        mask = a.mask | b.mask
        low = self.xor(a.low, b.low, self.half) if a.low and b.low else None
        return self._made(bits, (a.value ^ b.value) & ~mask, mask, low=low)

    def shl(self, a: Word, b: Word, bits: int) -> Word:
        return self._shift(a, b, bits, self._shl, self._shl_estimate)

    def lshr(self, a: Word, b: Word, bits: int) -> Word:
        return self._shift(a, b, bits, self._lshr, self._lshr_estimate)

    def ashr(self, a: Word, b: Word, bits: int) -> Word:
        return self._shift(a, b, bits, self._ashr, self._ashr_estimate)

    def bswap(self, a: Word, bits: int) -> Word:
        def swap(number: int) -> int:
            return int.from_bytes(number.to_bytes(bits // 8, "little"), "big")

        return self._made(bits, swap(a.value), swap(a.mask))

    def trunc(self, a: Word, bits: int, to: int) -> Word:
        if not a.mask:
            return self.const(a.value, to)
        if a.low is not None and to <= self.half:
            return a.low if to == self.half else self.trunc(a.low, self.half, to)
        lower = (1 << to) - 1
        # A range keeps its order if the bits that are cut off are the same throughout.
        same = a.umin >> to == a.umax >> to
        umin, umax = (a.umin & lower, a.umax & lower) if same else (0, lower)
        fits = a.smin >= -(1 << (to - 1)) and a.smax < 1 << (to - 1)
        smin, smax = (a.smin, a.smax) if fits else (-(1 << (to - 1)), (1 << (to - 1)) - 1)
        return self._made(to, a.value & lower, a.mask & lower, umin, umax, smin, smax)

    def zext(self, a: Word, bits: int, to: int) -> Word:
        if not a.mask:
            return self.const(a.value, to)
        low = a if to == self.full and bits == self.half else None
        return self._made(to, a.value, a.mask, a.umin, a.umax, low=low)

    def sext(self, a: Word, bits: int, to: int) -> Word:
        extension = (1 << to) - (1 << bits)
        sign = 1 << (bits - 1)
        value = a.value | (extension if a.value & sign else 0)
        mask = a.mask | (extension if a.mask & sign else 0)
        low = a if to == self.full and bits == self.half else None
        return self._made(to, value, mask, smin=a.smin, smax=a.smax, low=low)

    def eq(self, a: Word, b: Word, bits: int) -> Truth:
        if a is b and not a.mask:
            return True
        apart = (
            (a.value ^ b.value) & ~(a.mask | b.mask)
            or a.umax < b.umin
            or b.umax < a.umin
            or a.smax < b.smin
            or b.smax < a.smin
            or (a.low is not None and b.low is not None and self.eq(a.low, b.low, self.half) is False)
        )
        return False if apart else None

    def ne(self, a: Word, b: Word, bits: int) -> Truth:
        return _negated(self.eq(a, b, bits))

    def ult(self, a: Word, b: Word, bits: int) -> Truth:
        return True if a.umax < b.umin else False if a.umin >= b.umax else None

    def ule(self, a: Word, b: Word, bits: int) -> Truth:
        return _negated(self.ult(b, a, bits))

    def slt(self, a: Word, b: Word, bits: int) -> Truth:
        return True if a.smax < b.smin else False if a.smin >= b.smax else None

    def sle(self, a: Word, b: Word, bits: int) -> Truth:
        return _negated(self.slt(b, a, bits))

    def select(self, condition: Truth, a: Word, b: Word, bits: int) -> Word:
        if condition is None:
            return self.join(a, b)
        return a if condition else b

    # Shifts: exact for a constant amount; for a few amounts the union of each; otherwise an estimate.

    def _shift(
        self,
        a: Word,
        b: Word,
        bits: int,
        shifted: Callable[[Word, int, int], Word],
        estimate: Callable[[Word, Word, int], Word],
    ) -> Word:
        if not b.mask:
            return shifted(a, b.value % bits, bits)
        # An amount beyond the width never arrives: `devbc.semantics` reduces it.
        result: Word | None = None
        for amount in self.values(b, _SHIFT_CASES):
            if amount < bits:
                case = shifted(a, amount, bits)
                result = case if result is None else self.join(result, case)
        return result or estimate(a, b, bits)

    def _shl(self, a: Word, amount: int, bits: int) -> Word:
        everything = (1 << bits) - 1
        low = None
        if a.low is not None:
            # Whatever the lower half held is shifted out of it by an amount of its width or more.
            low = self._shl(a.low, amount, self.half) if amount < self.half else self.const(0, self.half)
        value, mask = (a.value << amount) & everything, (a.mask << amount) & everything
        return self._wrapped(bits, value, mask, a.umin << amount, a.umax << amount,
                             a.smin << amount, a.smax << amount, low)  # fmt: skip

    def _shl_estimate(self, a: Word, b: Word, bits: int) -> Word:
        fits = a.umax << min(b.umax, bits) < 1 << bits
        umin, umax = (a.umin << b.umin, a.umax << b.umax) if fits else (0, (1 << bits) - 1)
        return self.range(umin, umax, bits)

    def _lshr(self, a: Word, amount: int, bits: int) -> Word:
        return self._made(bits, a.value >> amount, a.mask >> amount, a.umin >> amount, a.umax >> amount)

    def _lshr_estimate(self, a: Word, b: Word, bits: int) -> Word:
        return self.range(a.umin >> min(b.umax, bits), a.umax >> b.umin, bits)

    def _ashr(self, a: Word, amount: int, bits: int) -> Word:
        everything, sign = (1 << bits) - 1, 1 << (bits - 1)
        # As two's complement numbers, value and mask extend their own sign bits.
        value = (a.value - (a.value & sign) * 2) >> amount & everything
        mask = (a.mask - (a.mask & sign) * 2) >> amount & everything
        return self._made(bits, value, mask, smin=a.smin >> amount, smax=a.smax >> amount)

    def _ashr_estimate(self, a: Word, b: Word, bits: int) -> Word:
        corners = [bound >> amount for bound in (a.smin, a.smax) for amount in (b.umin, min(b.umax, bits))]
        return self._signed_range(min(corners), max(corners), bits)

    # Making results.

    def _wrapped(
        self, bits: int, value: int, mask: int, ulo: int, uhi: int, slo: int, shi: int, low: Word | None
    ) -> Word:
        """A result whose exact integer lies in `ulo..uhi` and, from the signed view, in `slo..shi`.

        Modulo the width, an interval of integers stays one unless it crosses a multiple of the modulus.
        """
        everything, sign = (1 << bits) - 1, 1 << (bits - 1)
        umin, umax = ulo & everything, uhi & everything
        if ulo >> bits != uhi >> bits:
            umin, umax = 0, everything
        smin, smax = ((slo + sign) & everything) - sign, ((shi + sign) & everything) - sign
        if (slo + sign) >> bits != (shi + sign) >> bits:
            smin, smax = -sign, sign - 1
        mask &= everything
        return self._made(bits, value & everything & ~mask, mask, umin, umax, smin, smax, low)

    def _signed_range(self, smin: int, smax: int, bits: int) -> Word:
        sign = 1 << (bits - 1)
        return self._made(bits, 0, (1 << bits) - 1, smin=max(smin, -sign), smax=min(smax, sign - 1))

    def _made(
        self,
        bits: int,
        value: int,
        mask: int,
        umin: int = 0,
        umax: int | None = None,
        smin: int | None = None,
        smax: int | None = None,
        low: Word | None = None,
    ) -> Word:
        if not mask:
            return self.const(value, bits)
        word = self.make(bits, value=value, mask=mask, umin=umin, umax=umax, smin=smin, smax=smax, low=low)
        # Operands without a value, though nobody has noticed, have no result: anything stands for it.
        return word or self.unknown(bits)


def _negated(truth: Truth) -> Truth:
    return None if truth is None else not truth


def _truncated(dividend: int, divisor: int) -> int:
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


def _tnum_mul(a: Word, b: Word, everything: int) -> tuple[int, int]:
    """Long multiplication: for each bit of `a`, add what an unknown product bit could contribute.

    The known parts multiply to a known product. Each bit of `a` that is 1 spreads `b`'s unknown bits, each
    that is unknown spreads all of `b`'s possible bits; they are summed as tnums with value 0, whose
    unknown bits absorb every carry.
    """
    if not b.mask or (a.mask and (b.value | b.mask).bit_length() < (a.value | a.mask).bit_length()):
        a, b = b, a
    spread = 0
    ones, unknown, shifted, possible = a.value, a.mask, b.mask, b.value | b.mask
    while ones or unknown:
        if unknown & 1:
            spread = _absorb(spread, possible & everything)
        elif ones & 1:
            spread = _absorb(spread, shifted & everything)
        ones, unknown, shifted, possible = ones >> 1, unknown >> 1, shifted << 1, possible << 1
    product = a.value * b.value & everything
    mask = (product ^ (product + spread)) | spread
    return product & ~mask & everything, mask & everything


def _absorb(a: int, b: int) -> int:
    """The mask of the sum of two tnums with value 0 and masks `a` and `b`."""
    return (a + b) | a | b
