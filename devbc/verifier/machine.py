"""The machine that `devbc.semantics` steps abstractly: registers and memory over abstract values.

Everything the contract asks of memory is asked here, at the access, and nowhere else: inside its region,
aligned, initialised, allowed, and no pointer to where others can read it. What accesses were seen is noted
for the verified handler.

What may be concluded from memory differs by region:

- the stack belongs to the run: a load gives what was stored;
- the shared area may change between any two instructions: every load is an unknown value, and a store
  teaches nothing;
- read-only data is constant: a load gives the bytes there, or the range of those at every possible offset;
- the exit belongs to the run, but only its initial contents are known: a field that was written is unknown
  (an effect mask keeps to the bits that may be stored).

Not here: registers' flow through jumps and calls (`explore.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from devbc import abi, semantics
from devbc.abi import Access, Field, MapIndex
from devbc.isa.insn import Insn
from devbc.isa.opcodes import Kind, Operation
from devbc.program.verified import AccessFact, Region
from devbc.verifier import errors
from devbc.verifier.budget import weight
from devbc.verifier.context import Context, part
from devbc.verifier.errors import Fault
from devbc.verifier.policy import EFFECTS, Policy
from devbc.verifier.state import Cell, Link, State
from devbc.verifier.values import Pointer, Value, Values, is_word, region_name
from devbc.verifier.word import Word

#: Entries of a table, or places of an access, that are looked up in the time of one instruction.
_ENTRIES_A_STEP: Final = 16
#: Different offsets of a load from read-only data that are looked up one by one.
_TABLE_ENTRIES: Final = 512


# Bound to names of their own: an enum's attributes are slow to look up.
_EXIT, _STACK, _SCRATCH, _RODATA = Region.EXIT, Region.STACK, Region.SCRATCH, Region.RODATA
_LOAD = Kind.LOAD


class AbstractMachine:
    """`devbc.semantics.Machine[Value, bool | None]` on `state`, which the exploration moves along.

    `link` carries a register's link into a stored cell, and a loaded cell's link out, beside the value.
    """

    def __init__(
        self, values: Values, context: Context, scratch_size: int, rodata: bytes, policy: Policy
    ) -> None:
        self.algebra = values
        self.words = values.words
        self.context = context
        self.state: State
        self.insn: Insn
        self.link: Link | None = None
        self.accesses: dict[int, AccessFact] = {}
        #: Offsets at which the shared area is accessed, by slot.
        self.scratch_read: dict[int, set[Value | None]] = {}
        self.scratch_written: dict[int, set[Value | None]] = {}
        self.effects: set[str] = set()
        #: All that was asked of the context's contents at entry: the least and greatest offset of a load, its
        #: size, and the answer.
        self.asked: dict[tuple[int, int, int], Word] = {}
        #: Steps for looking through the stack and through tables, to be charged.
        self.scanned = 0
        #: Bytes of its frame that each function uses, by its entry.
        self.depth: dict[int, int] = {}
        self._scratch_size = scratch_size
        self._rodata = rodata
        self._policy = policy
        self._layout = context.layout
        self._table: dict[tuple[Word, int], Word] = {}
        #: Accesses outside the stack that have been checked and noted, by slot and address.
        self._placed: dict[tuple[int, Value], tuple[Pointer, int, int]] = {}

    # Registers.

    def get(self, register: int) -> Value:
        value = self.state.registers[register]
        if value is None:
            raise Fault(
                errors.UNINITIALISED,
                f"`r{register}` is read before it is set",
                label=f"`r{register}` may hold anything here",
                notes=("a call sets `r0` and clears `r1` to `r5`",) if register < 6 else (),
            )
        return value

    def set(self, register: int, value: Value) -> None:
        self.state.registers[register] = value

    def address(self, insn: Insn) -> Value:
        if insn.spec.operation is not Operation.MAP_VALUE_BY_IDX:
            raise Fault(
                errors.BAD_ADDRESS,
                f"`lddw` of kind `{insn.spec.operation}` names something that does not exist here",
                help=("state belongs in section `.scratch`, constants in `.rodata`",),
            )
        regions = {
            MapIndex.SCRATCH: (Region.SCRATCH, self._scratch_size),
            MapIndex.RODATA: (Region.RODATA, len(self._rodata)),
        }
        if insn.map_index not in regions:
            raise Fault(errors.BAD_ADDRESS, f"there is no map with index {insn.map_index}")
        region, size = regions[MapIndex(insn.map_index)]
        if insn.map_offset > size:
            raise Fault(
                errors.BAD_ADDRESS,
                f"the address {region_name(region)} + {insn.map_offset} is outside: it has {size} bytes",
            )
        return self.algebra.pointer(region, self.words.const(insn.map_offset, 64))

    # Memory.

    def load(self, address: Value, bits: int) -> Value:
        size = bits // 8
        self.link = None
        pointer, lo, hi = self._place(address, size)
        region = pointer.region
        if region is _SCRATCH:
            self.scratch_read.setdefault(self.state.slot, set()).add(pointer.offset)
            return self.words.unknown(bits)
        if region is _EXIT:
            return self._load_exit(lo, hi, size)
        if region is _STACK:
            return self._load_stack(pointer, lo, hi, size)
        return self._load_rodata(pointer.offset, lo, hi, size)

    def store(self, address: Value, value: Value, bits: int) -> None:
        size = bits // 8
        pointer, lo, hi = self._place(address, size)
        region = pointer.region
        if region is _STACK:
            self._store_stack(pointer, lo, hi, size, value)
            return
        if not is_word(value):
            raise Fault(
                errors.POINTER_LEAK,
                f"a pointer is stored to {region_name(pointer.region)}",
                label=self._about(self.insn.src),
                help=("store an offset or an index instead",),
            )
        if region is _SCRATCH:
            self._write_scratch(pointer.offset)
        elif region is _EXIT:
            self._store_exit(lo, hi, size, value)
        else:
            raise Fault(errors.READ_ONLY, "read-only data is written", label=self._about(self.insn.dst))

    def atomic(self, insn: Insn, address: Value, operand: Value, expected: Value | None) -> Value:
        bits = insn.spec.width
        self.link = None
        pointer, lo, hi = self._place(address, bits // 8)
        if not is_word(operand) or not (expected is None or is_word(expected)):
            raise Fault(errors.POINTER_LEAK, "a pointer is an operand of an atomic operation")
        match pointer.region:
            case Region.SCRATCH:
                self.scratch_read.setdefault(self.state.slot, set()).add(pointer.offset)
                self._write_scratch(pointer.offset)
                return self.words.unknown(bits)
            case Region.STACK:
                old = self._load_stack(pointer, lo, hi, bits // 8)
                new = semantics.updated(self.algebra, insn.spec, old, operand, expected)
                self.link = None
                self._store_stack(pointer, lo, hi, bits // 8, new)
                return old
        raise Fault(
            errors.ATOMIC_TARGET,
            f"an atomic operation on {region_name(pointer.region)}",
            label=self._about(insn.dst),
        )

    # Places.

    def _place(self, address: Value, size: int) -> tuple[Pointer, int, int]:
        """The pointer, and the least and greatest offset at which the access may begin."""
        slot = self.state.slot
        known = self._placed.get((slot, address))
        if known is not None:
            return known
        base = self.insn.src if self.insn.spec.kind is _LOAD else self.insn.dst
        if not isinstance(address, Pointer):
            raise Fault(
                errors.NOT_AN_ADDRESS,
                f"`r{base}` is used as an address, and holds a number",
                label=self._about(base),
            )
        lo, hi = address.offset.smin, address.offset.smax
        start, end = self._extent(address)
        if lo < start or hi + size > end:
            raise self._out_of_bounds(base, address, size, start, end)
        if not address.offset.aligned(size):
            raise Fault(
                errors.MISALIGNED,
                f"an access of {size} bytes may begin at an offset that is not a multiple of {size}",
                label=self._about(base),
                notes=(f"with its displacement it begins at {_span(address, lo, hi)}",),
            )
        self._note(address, lo if lo == hi else None)
        if address.region is not _STACK:
            self._placed[slot, address] = (address, lo, hi)
        else:
            entry = self.state.frames[address.frame].entry
            self.depth[entry] = max(self.depth.get(entry, 0), -lo)
            if lo != hi:
                # Each place is looked at, and what lies there.
                self.scanned += ((hi - lo) // size + 1) * (1 + weight(self.state) // _ENTRIES_A_STEP)
        return address, lo, hi

    def _extent(self, pointer: Pointer) -> tuple[int, int]:
        """A region's offsets: from, and up to but not including."""
        region = pointer.region
        if region is _SCRATCH:
            return 0, self._scratch_size
        if region is _EXIT:
            return 0, self.context.size
        if region is _RODATA:
            return 0, len(self._rodata)
        return -self._policy.stack_bytes, 0

    def _out_of_bounds(self, base: int, pointer: Pointer, size: int, start: int, end: int) -> Fault:
        lo, hi = pointer.offset.smin, pointer.offset.smax
        name = region_name(pointer.region)
        has = f"{-start} bytes below `r10`" if start else f"{end} bytes"
        if lo == hi:
            message = (
                f"{_counted(size)} at {_span(pointer, lo, hi)} {'are' if size > 1 else 'is'} outside {name}"
            )
            advice: tuple[str, ...] = ()
        else:
            message = f"an access of {_counted(size)} may lie outside {name}"
            advice = (
                "compare or mask the index right before it is used, and use the very value that was checked",
            )
        return Fault(
            errors.OUT_OF_BOUNDS,
            message,
            label=self._about(base),
            notes=(f"the access begins at {_span(pointer, lo, hi)}; {name} has {has}",),
            help=advice,
        )

    def _note(self, pointer: Pointer, offset: int | None) -> None:
        region = pointer.region
        if region is _STACK and pointer.frame != len(self.state.frames) - 1:
            region, offset = Region.OUTER_STACK, None
        slot = self.state.slot
        known = self.accesses.get(slot)
        if known is None:
            self.accesses[slot] = AccessFact(region, offset)
        elif known.region is not region:
            self.accesses[slot] = AccessFact(None, None)
        elif known.offset != offset:
            self.accesses[slot] = AccessFact(region, None)

    def _about(self, register: int) -> str:
        value = self.state.registers[register]
        return "" if value is None else f"`r{register}` {value} here"

    # The shared area.

    def _write_scratch(self, offset: Word) -> None:
        self.scratch_written.setdefault(self.state.slot, set()).add(offset)
        if self.state.wrote < 0:
            self.state.wrote = self.state.slot

    # The stack.

    def _load_stack(self, pointer: Pointer, lo: int, hi: int, size: int) -> Value:
        cells = self.state.frames[pointer.frame].cells
        if lo == hi:
            cell = cells.get(lo)
            if cell is not None and cell.size == size:
                self.link = cell.link
                return cell.value
        if lo != hi:
            for place in _places(pointer.offset, lo, hi, size):
                for _, each in self._initialised(cells, place, place + size):
                    self._whole(each.value)
            return self.words.unknown(size * 8)
        loaded = self.words.const(0, size * 8)
        for start, each in self._initialised(cells, lo, lo + size):
            loaded = self._spliced(loaded, lo, size, start, self._whole(each.value))
        return loaded

    def _whole(self, value: Value) -> Word:
        if is_word(value):
            return value
        raise Fault(
            errors.POINTER_ARITHMETIC,
            "a part of a pointer is read from the stack",
            help=("a pointer is stored and loaded as a whole, 8 bytes",),
        )

    def _spliced(self, loaded: Word, lo: int, size: int, start: int, part: Word) -> Word:
        """A load of `size` bytes at `lo`, with the bytes in that the cell at `start` holds."""
        words, bits = self.words, size * 8
        if start < lo:
            part = words.lshr(part, words.const(8 * (lo - start), part.bits), part.bits)
        shift = max(0, 8 * (start - lo))
        part = words.zext(part, part.bits, bits) if part.bits < bits else words.trunc(part, part.bits, bits)
        return words.or_(loaded, words.shl(part, words.const(shift, bits), bits), bits)

    def _store_stack(self, pointer: Pointer, lo: int, hi: int, size: int, value: Value) -> None:
        cells = self.state.frames[pointer.frame].cells
        if lo == hi:
            self._clear(cells, lo, size)
            cells[lo] = Cell(value, size, self.link)
            return
        if not is_word(value):
            raise Fault(
                errors.POINTER_LEAK,
                "a pointer is stored at a variable place of the stack",
                help=("the verifier keeps track of pointers at fixed places only",),
            )
        # Any of the bytes may change, or none: what was set stays set, to something unknown.
        places = _places(pointer.offset, lo, hi, size)
        for start, cell in list(cells.items()):
            if any(start < place + size and place < start + cell.size for place in places):
                if is_word(cell.value):
                    cells[start] = Cell(self.words.unknown(8 * cell.size), cell.size, None)
                else:
                    del cells[start]

    def _initialised(self, cells: dict[int, Cell], lo: int, end: int) -> Iterable[tuple[int, Cell]]:
        """The cells that hold the bytes from `lo` up to `end`; a fault if a byte has none."""
        byte = lo
        while byte < end:
            found = _cell_at(cells, byte)
            if found is None:
                raise Fault(
                    errors.UNINITIALISED,
                    f"the byte of the stack at r10 - {-byte} is read before it is set",
                )
            yield found
            byte = found[0] + found[1].size

    def _clear(self, cells: dict[int, Cell], offset: int, size: int) -> None:
        """Drop what overlaps; of a word that sticks out, keep the bytes outside, of a pointer nothing."""
        old = cells.get(offset)
        if old is not None and old.size == size:
            return
        words = self.words
        for start, cell in [
            found for byte in range(offset, offset + size) if (found := _cell_at(cells, byte))
        ]:
            if cells.pop(start, None) is None or not is_word(cell.value):
                continue
            bits = 8 * cell.size
            for byte in range(start, start + cell.size):
                if not offset <= byte < offset + size:
                    part = words.lshr(cell.value, words.const(8 * (byte - start), bits), bits)
                    cells[byte] = Cell(words.trunc(part, bits, 8) if bits > 8 else part, 1, None)

    # Read-only data.

    def _load_rodata(self, offset: Word, lo: int, hi: int, size: int) -> Word:
        key = (offset, size)
        word = self._table.get(key)
        if word is None:
            word = self._table[key] = self._looked_up(offset, lo, hi, size)
        return word

    def _looked_up(self, offset: Word, lo: int, hi: int, size: int) -> Word:
        """What a table holds between the least and the greatest entry that can be read."""
        if (hi - lo) // size >= _TABLE_ENTRIES:
            return self.words.unknown(size * 8)
        self.scanned += (hi - lo) // size // _ENTRIES_A_STEP
        entries = [
            int.from_bytes(self._rodata[each : each + size], "little")
            for each in range(lo, hi + 1, size)
            if offset.contains(each)
        ]
        if not entries:
            # An offset without a value, though nobody has noticed: no run reads here.
            return self.words.unknown(size * 8)
        varying = 0
        for entry in entries:
            varying |= entry ^ entries[0]
        word = self.words.make(
            size * 8, value=entries[0] & ~varying, mask=varying, umin=min(entries), umax=max(entries)
        )
        assert word is not None
        return word

    # The exit.

    def _load_exit(self, lo: int, hi: int, size: int) -> Value:
        field = self._layout.at(lo)
        if hi + size <= field.end and self.state.fields & self._layout.bit[field.name]:
            return part(self.words, field, self._bits(field), lo, hi, size)
        word = self.asked.get((lo, hi, size))
        if word is None:
            word = self.asked[lo, hi, size] = self.context.loaded(self.words, lo, hi, size)
        return word

    def _bits(self, field: Field) -> Word:
        mask = self._policy.mask(field.name)
        return self.words.unknown(64) if mask is None else self.words.range(0, mask, 64)

    def _store_exit(self, lo: int, hi: int, size: int, value: Word) -> None:
        for field in self._layout.between(lo, hi + size):
            if field.access is not Access.READ_WRITE:
                what = "this store may change" if hi > lo else "this store changes"
                raise Fault(
                    errors.FIELD_RIGHTS,
                    f"{what} `{field.name}`, which may only be read",
                    label=self._about(self.insn.dst),
                )
            if field.name in EFFECTS:
                self._effect(field, lo, hi, size, value)
            self.state.fields |= self._layout.bit[field.name]

    def _effect(self, field: Field, lo: int, hi: int, size: int, value: Word) -> None:
        policy = self._policy
        if field.name not in policy.effects:
            raise Fault(errors.POLICY, f"the policy does not grant the effect `{field.name}`")
        self.effects.add(field.name)
        if field.count > 1 and hi + size > field.offset + field.size * policy.timers:
            raise Fault(errors.POLICY, f"`{field.name}` has {policy.timers} elements that may be written")
        mask = policy.mask(field.name)
        if mask is None:
            return
        # Where the store lies over the field: its bits there are `value`, moved up or down.
        shift = 8 * (lo - field.offset)
        possible = value.value | value.mask
        possible = possible << shift if shift >= 0 else possible >> -shift
        if hi > lo or possible & ((1 << 8 * field.size) - 1) & ~mask:
            raise Fault(
                errors.POLICY,
                f"`{field.name}` may get bits beyond the {mask.bit_length()} that there are",
                label=f"the stored value {value}",
            )


def _places(offset: Word, lo: int, hi: int, size: int) -> list[int]:
    """Where an aligned access at a variable offset may begin: steps between structures leave gaps."""
    return [each for each in range(lo, hi + 1, size) if offset.contains(each)]


def _cell_at(cells: dict[int, Cell], byte: int) -> tuple[int, Cell] | None:
    """The cell that holds a byte; cells are naturally aligned."""
    for size in abi.SIZES:
        start = byte & -size
        cell = cells.get(start)
        if cell is not None and cell.size >= size and byte < start + cell.size:
            return start, cell
    return None


def _counted(size: int) -> str:
    return "1 byte" if size == 1 else f"{size} bytes"


def _span(pointer: Pointer, lo: int, hi: int) -> str:
    base = "`r10`" if pointer.region is Region.STACK else region_name(pointer.region)
    sign, least = ("-", -lo) if lo < 0 else ("+", lo)
    if lo == hi:
        return f"{base} {sign} {least}"
    if hi - lo >= 1 << 63:
        return f"{base} + anything"
    return f"{base} + {lo}..={hi}"
