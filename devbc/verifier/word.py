"""Abstract words: what is known of an n-bit value, as a tnum, an unsigned range and a signed range at once.

A `Word` stands for the set of values that all of its parts admit. The parts are those of the Linux
verifier: a tnum ("tracked number": `value` where `mask` is 0, unknown where it is 1), the ranges
`umin..umax` and `smin..smax`, and, for a full register, the same again for its lower half, since the
compiler compares and computes on `w` registers as freely as on `r` registers.

What this module holds true, and its tests check for every element of a small width:

- what is seen to be empty is None. Not every contradiction is seen: two unsigned values may be left, say, and
  both be at odds with the lower half. No run has such a word, so whatever is concluded from one is sound;
  but nothing may rely on a word having a value;
- `make` only ever removes values that some part excludes (it refines the parts by each other);
- words of one `Words` are interned: equal words are one object, so that `is` compares them and tables of
  results can be keyed by them.

Not here: arithmetic (`arithmetic.py`) and what a branch teaches (`refine.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

#: Rounds of mutual refinement. Each round is sound by itself; more than three never helped on real programs.
_ROUNDS: Final = 3


class Word:
    """Facts about a value of `bits` bits. Made by `Words` only; immutable by convention."""

    __slots__ = ("bits", "low", "mask", "smax", "smin", "umax", "umin", "value")

    def __init__(
        self, bits: int, value: int, mask: int, umin: int, umax: int, smin: int, smax: int, low: Word | None
    ) -> None:
        self.bits = bits
        self.value = value
        self.mask = mask
        self.umin = umin
        self.umax = umax
        self.smin = smin
        self.smax = smax
        self.low = low

    @property
    def constant(self) -> int | None:
        """The value, unsigned, if there is only one."""
        return None if self.mask else self.value

    def contains(self, number: int) -> bool:
        """Whether the word stands for this number, taken modulo the width."""
        unsigned = number & ((1 << self.bits) - 1)
        signed = unsigned - (unsigned >> (self.bits - 1) << self.bits)
        return (
            unsigned & ~self.mask == self.value
            and self.umin <= unsigned <= self.umax
            and self.smin <= signed <= self.smax
            and (self.low is None or self.low.contains(number))
        )

    def includes(self, other: Word) -> bool:
        """Whether every part admits whatever `other`'s part admits: then this word includes the other."""
        return self is other or (
            self.umin <= other.umin
            and other.umax <= self.umax
            and self.smin <= other.smin
            and other.smax <= self.smax
            and not other.mask & ~self.mask
            and other.value & ~self.mask == self.value
            and (self.low is None or other.low is None or self.low.includes(other.low))
        )

    def aligned(self, step: int) -> bool:
        """Whether every value is a multiple of `step`, a power of two."""
        return not (self.value | self.mask) & (step - 1)

    def __repr__(self) -> str:
        return f"<u{self.bits} {self}>"

    def __str__(self) -> str:
        """For messages: `is 5`, `is in 0..=255`, with the known bits where they say more than the range."""
        if not self.mask:
            return f"is {_number(self.value)}"
        words = []
        everything = (1 << self.bits) - 1
        if self.umin > 0 or self.umax < everything:
            if self.smin < 0 <= self.smax:
                words.append(f"in {_number(self.smin)}..={_number(self.smax)} (signed)")
            else:
                words.append(f"in {_number(self.umin)}..={_number(self.umax)}")
        elif self.smin > -(1 << (self.bits - 1)) or self.smax < everything >> 1:
            words.append(f"in {_number(self.smin)}..={_number(self.smax)} (signed)")
        if step := _step(self):
            words.append(step)
        return "is " + ", ".join(words) if words else "can be anything"


def _number(number: int) -> str:
    return str(number) if abs(number) < 4096 else f"{number:#x}"


def _step(word: Word) -> str:
    known = ~(word.value | word.mask)
    zeros = (known & ~(known + 1)).bit_length()
    return f"a multiple of {1 << zeros}" if zeros else ""


class Words:
    """Makes words and interns them. `full` is the width of a register, `half` that of its lower half."""

    def __init__(self, full: int = 64) -> None:
        self.full = full
        self.half = full // 2
        self._interned: dict[tuple[object, ...], Word] = {}
        self._refined: dict[tuple[object, ...], Word | None] = {}
        self._constants: dict[tuple[int, int], Word] = {}
        self._unknowns: dict[int, Word] = {}

    def const(self, value: int, bits: int) -> Word:
        value &= (1 << bits) - 1
        word = self._constants.get((value, bits))
        if word is None:
            signed = value - (value >> (bits - 1) << bits)
            low = self.const(value, self.half) if bits == self.full else None
            word = self._constants[value, bits] = Word(bits, value, 0, value, value, signed, signed, low)
        return word

    def unknown(self, bits: int) -> Word:
        word = self._unknowns.get(bits)
        if word is None:
            word = self.make(bits)
            assert word is not None
            self._unknowns[bits] = word
        return word

    def range(self, umin: int, umax: int, bits: int) -> Word:
        """Every value from `umin` to `umax`, unsigned and inclusive."""
        word = self.make(bits, umin=umin, umax=umax)
        assert word is not None, f"the range {umin}..={umax} is empty"
        return word

    def make(
        self,
        bits: int,
        *,
        value: int = 0,
        mask: int | None = None,
        umin: int = 0,
        umax: int | None = None,
        smin: int | None = None,
        smax: int | None = None,
        low: Word | None = None,
    ) -> Word | None:
        """The word of these parts, refined by each other; None if they exclude every value.

        A part left out admits everything. `low` is the lower half's word, for full words only.
        """
        everything, sign = (1 << bits) - 1, 1 << (bits - 1)
        mask = everything if mask is None else mask
        umax = everything if umax is None else umax
        smin = -sign if smin is None else smin
        smax = sign - 1 if smax is None else smax
        if bits == self.full and low is None:
            low = self.unknown(self.half)
        # The same few parts come over and over: of a hundred calls, three are for new ones.
        parts = (bits, value, mask, umin, umax, smin, smax, low)
        try:
            return self._refined[parts]
        except KeyError:
            self._refined[parts] = word = self._refine(*parts)
            return word

    def _refine(
        self, bits: int, value: int, mask: int, umin: int, umax: int, smin: int, smax: int, low: Word | None
    ) -> Word | None:
        """The parts, narrowed by each other until nothing changes or the rounds are over."""
        sign, modulus = 1 << (bits - 1), 1 << bits
        for _ in range(_ROUNDS):
            before = (mask, umin, umax, smin, smax, low)
            # The tnum bounds both ranges: unknown bits all 0 or all 1, the sign bit the other way for signed.
            most = value | mask
            if value > umin:
                umin = value
            if most < umax:
                umax = most
            if value & sign:
                least, most = value - modulus, most - modulus
            elif mask & sign:
                least, most = value - sign, most - sign
            else:
                least = value
            if least > smin:
                smin = least
            if most < smax:
                smax = most
            # Each range, seen in the other's order, is one interval or, if it passes the wrap, two with a
            # gap between them; an end that lies in the gap moves to the gap's edge.
            if umax < sign or umin >= sign:
                least, most = (umin, umax) if umax < sign else (umin - modulus, umax - modulus)
                if least > smin:
                    smin = least
                if most < smax:
                    smax = most
            else:
                if umax - modulus < smin < umin:
                    smin = umin
                if umax - modulus < smax < umin:
                    smax = umax - modulus
            if smin >= 0 or smax < 0:
                least, most = (smin, smax) if smin >= 0 else (smin + modulus, smax + modulus)
                if least > umin:
                    umin = least
                if most < umax:
                    umax = most
            else:
                if smax < umin < smin + modulus:
                    umin = smin + modulus
                if smax < umax < smin + modulus:
                    umax = smax
            if umin > umax or smin > smax:
                return None
            # Bits above the highest in which the range's ends differ are known.
            fuzzy = (1 << (umin ^ umax).bit_length()) - 1
            if (value ^ umin) & ~mask & ~fuzzy:
                return None
            value, mask = value | (umin & ~fuzzy), mask & fuzzy
            if mask and not mask & 1:
                # The lowest bits are known: the ends move in to numbers that have them.
                step = mask & -mask
                umin, smin = _up_to(umin, value, step), _up_to(smin, value, step)
                umax, smax = _down_to(umax, value, step), _down_to(smax, value, step)
                if umin > umax or smin > smax:
                    return None
            if low is not None:
                half = self.half
                low = self._narrow_half(low, value, mask, umin, umax, smin, smax)
                if low is None:
                    return None
                lower = (1 << half) - 1
                value, mask = value | low.value, mask & (low.mask | ~lower)
                umin, smin = _round_up(umin, low, half), _round_up(smin, low, half)
                umax, smax = _round_down(umax, low, half), _round_down(smax, low, half)
                if smin >= -(1 << (half - 1)) and smax < 1 << (half - 1):
                    smin, smax = max(smin, low.smin), min(smax, low.smax)
                if umin > umax or smin > smax:
                    return None
            if before == (mask, umin, umax, smin, smax, low):
                break
        if umin == umax or not mask:
            # One value is left; the parts may each still admit more, but all must admit this one.
            word = self.const(umin if mask else value, bits)
            admitted = not (word.value ^ value) & ~mask and umin <= word.value <= umax
            admitted = admitted and smin <= word.smin <= smax
            return word if admitted and (low is None or low.contains(word.value)) else None
        return self._intern(bits, value, mask, umin, umax, smin, smax, low)

    def meet(self, a: Word, b: Word) -> Word | None:
        """What both words admit; None if nothing."""
        if a is b:
            return a
        if (a.value ^ b.value) & ~(a.mask | b.mask):
            return None
        low = None
        if a.low is not None and b.low is not None:
            low = self.meet(a.low, b.low)
            if low is None:
                return None
        return self.make(
            a.bits,
            value=a.value | b.value,
            mask=a.mask & b.mask,
            umin=max(a.umin, b.umin),
            umax=min(a.umax, b.umax),
            smin=max(a.smin, b.smin),
            smax=min(a.smax, b.smax),
            low=low,
        )

    def join(self, a: Word, b: Word) -> Word:
        """A word that admits what either admits (and perhaps more)."""
        if a is b:
            return a
        mask = a.mask | b.mask | (a.value ^ b.value)
        word = self.make(
            a.bits,
            value=a.value & ~mask,
            mask=mask,
            umin=min(a.umin, b.umin),
            umax=max(a.umax, b.umax),
            smin=min(a.smin, b.smin),
            smax=max(a.smax, b.smax),
            low=self.join(a.low, b.low) if a.low is not None and b.low is not None else None,
        )
        # None if neither has a value: then either stands for both.
        return word or a

    def with_low(self, word: Word, low: Word) -> Word | None:
        """A full word whose lower half is further known to be `low`."""
        assert word.low is not None
        met = self.meet(word.low, low)
        if met is None:
            return None
        return self.make(
            word.bits, value=word.value, mask=word.mask, umin=word.umin, umax=word.umax,
            smin=word.smin, smax=word.smax, low=met,
        )  # fmt: skip

    def values(self, word: Word, limit: int) -> Iterator[int]:
        """The values of the word in order; nothing at all if there may be more than `limit`."""
        if word.umax - word.umin < limit:
            yield from (each for each in range(word.umin, word.umax + 1) if word.contains(each))

    def _narrow_half(
        self, low: Word, value: int, mask: int, umin: int, umax: int, smin: int, smax: int
    ) -> Word | None:
        """The lower half, further narrowed by what the whole says."""
        half = self.half
        lower = (1 << half) - 1
        lvalue, lmask = value & lower, mask & lower
        if (low.value ^ lvalue) & ~(low.mask | lmask) & lower:
            return None
        # The lower halves of a range are a range if the upper halves are all the same.
        lmin, lmax = (umin & lower, umax & lower) if umin >> half == umax >> half else (0, lower)
        least, most = -(1 << (half - 1)), (1 << (half - 1)) - 1
        # A value that is its own lower half's sign extension has that half's signed value.
        if smin >= least and smax <= most:
            least, most = smin, smax
        if (
            not low.mask & ~lmask
            and lmin <= low.umin
            and low.umax <= lmax
            and least <= low.smin
            and low.smax <= most
        ):
            return low
        return self.make(
            half,
            value=low.value | lvalue,
            mask=low.mask & lmask,
            umin=max(low.umin, lmin),
            umax=min(low.umax, lmax),
            smin=max(low.smin, least),
            smax=min(low.smax, most),
        )

    def _intern(
        self, bits: int, value: int, mask: int, umin: int, umax: int, smin: int, smax: int, low: Word | None
    ) -> Word:
        key = (bits, value, mask, umin, umax, smin, smax, low)
        word = self._interned.get(key)
        if word is None:
            word = self._interned[key] = Word(bits, value, mask, umin, umax, smin, smax, low)
        return word


def _up_to(bound: int, value: int, step: int) -> int:
    """The least number from `bound` up that equals `value` modulo `step`."""
    return bound + (value - bound) % step


def _down_to(bound: int, value: int, step: int) -> int:
    return bound - (bound - value) % step


def _round_up(bound: int, low: Word, half: int) -> int:
    """The least number from `bound` up whose lower half is in `low`'s unsigned range."""
    lower = bound & ((1 << half) - 1)
    if lower < low.umin:
        return bound + low.umin - lower
    if lower > low.umax:
        return bound + (1 << half) - lower + low.umin
    return bound


def _round_down(bound: int, low: Word, half: int) -> int:
    """The greatest number from `bound` down whose lower half is in `low`'s unsigned range."""
    lower = bound & ((1 << half) - 1)
    if lower > low.umax:
        return bound - (lower - low.umax)
    if lower < low.umin:
        return bound - (lower + (1 << half) - low.umax)
    return bound
