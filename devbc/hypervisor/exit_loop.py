"""The native exit loop: dispatch, handler, effects, timers, with no Python until userspace is needed.

LLVM IR over the records of `devbc.hypervisor.layouts`. The loop takes a vCPU through the accesses of its
cursor and returns a `Reason`: done, or a userspace model has to act; the caller lets it act and calls again.

What it holds true: a declined or contended access leaves no trace but a count; effect fields of the exit
are zero whenever a handler starts; line events and expired timers are settled before the next access; the
VM clock never runs backwards; between two accesses only so many timers expire at one moment, those that are
left wait for the next access; a handler that may cause events runs only while the queue has room for all
of them, and is otherwise answered by its model.

Not here: what is attached where (`bus.py`), what models do (`vm.py`), what engines compile (`devbc.engines`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from llvmlite import ir
from llvmlite.ir import instructions

from devbc.abi import EXIT_FIELDS, Access, Verdict
from devbc.engines.clock import CLOCK_PAGE, tsc_is_usable
from devbc.engines.layout import I8, I32, I64, PTR
from devbc.hypervisor.bus import HASH_MULTIPLIER
from devbc.hypervisor.layouts import (
    ACCESS,
    CLAIM,
    CURSOR,
    DEVICE,
    ENTRY,
    EVENT,
    EXIT,
    KEY_BITS,
    MACHINE,
    MISMATCH,
    NEVER,
    NO_KEY,
    SLOT,
    TIMER,
    VCPU,
    WIRE,
    Outcome,
    Reason,
)
from devbc.limits import EVENTS_IN_ONE_GO, TIMERS, TIMERS_AT_ONCE

RUN: Final = "devbc_run"
POST: Final = "devbc_post"

_HANDLER_TYPE = ir.FunctionType(I64, [PTR, PTR, PTR, PTR])
_NULL = ir.Constant(PTR, None)
_EFFECT_MASKS = ("raise", "lower", "signal", "arm", "cancel")
#: What a handler may leave in the exit beside its answer, which every exit sets anew.
_EFFECT_FIELDS = tuple(
    field for field in EXIT_FIELDS.values() if field.access is Access.READ_WRITE and field.name != "value"
)


def build_module() -> Any:
    """The module with `devbc_run(vcpu) -> reason` and `devbc_post(machine, device, line, level)`."""
    module = ir.Module("devbc_exit_loop")
    _ExitLoop(module).build()
    return module


class _ExitLoop:
    """The module's functions, each built by the method of its name."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.counter = ir.Function(module, ir.FunctionType(I64, []), "llvm.readcyclecounter")
        self.lookup = self._declare("devbc_lookup", PTR, PTR, I64)
        self.claimed = self._declare("devbc_claimed", ir.IntType(1), PTR, I64)
        self.post = self._declare(POST, ir.VoidType(), PTR, PTR, I32, I32, internal=False)
        self.apply = self._declare("devbc_apply_effects", ir.VoidType(), PTR, PTR, PTR)
        self.invoke = self._declare("devbc_invoke", I64, PTR, PTR)
        self.settle = self._declare("devbc_settle", I64, PTR, I64)
        self.run = self._declare(RUN, I64, PTR, internal=False)

    def build(self) -> None:
        self._lookup()
        self._claimed()
        self._post()
        self._apply()
        self._invoke()
        self._settle()
        self._run()

    def _declare(self, name: str, result: Any, *arguments: Any, internal: bool = True) -> Any:
        function = ir.Function(self.module, ir.FunctionType(result, arguments), name)
        if internal:
            function.linkage = "internal"
        return function

    def _lookup(self) -> None:
        """lookup(machine, key) -> the dispatch entry of an access, or null."""
        b, (machine, key) = _body(self.lookup)
        table = MACHINE.load(b, machine, "table")
        mask = MACHINE.load(b, machine, "table_mask")
        shift = MACHINE.load(b, machine, "table_shift")
        start = b.lshr(b.mul(key, I64(HASH_MULTIPLIER)), shift)
        with _loop(b, start) as (position, proceed):
            entry = ENTRY.element(b, table, b.and_(position, mask))
            found = ENTRY.load(b, entry, "key")
            with b.if_then(b.icmp_unsigned("==", found, key)):
                b.ret(entry)
            with b.if_then(b.icmp_unsigned("==", found, I64(NO_KEY))):
                b.ret(_NULL)
            proceed(b.add(position, I64(1)))

    def _claimed(self) -> None:
        """claimed(machine, place) -> whether some device's bank holds the address: a binary search."""
        b, (machine, place) = _body(self.claimed)
        claims = MACHINE.load(b, machine, "claims")
        low, high = _variable(b, I64(0)), _variable(b, MACHINE.load(b, machine, "claim_count"))
        with _while(b, lambda: b.icmp_unsigned("<", low.get(), high.get())):
            middle = b.lshr(b.add(low.get(), high.get()), I64(1))
            claim = CLAIM.element(b, claims, middle)
            below = b.icmp_unsigned("<", place, CLAIM.load(b, claim, "first"))
            with b.if_else(below) as (then, otherwise):
                with then:
                    high.set(middle)
                with otherwise:
                    inside = b.icmp_unsigned("<=", place, CLAIM.load(b, claim, "last"))
                    with b.if_then(inside):
                        b.ret(ir.Constant(ir.IntType(1), 1))
                    low.set(b.add(middle, I64(1)))
        b.ret(ir.Constant(ir.IntType(1), 0))

    def _post(self) -> None:
        """post(machine, device, line, level): send a change of an output line down its wires.

        The caller has made sure that the queue has room (`_room`).
        """
        b, (machine, device, line, level) = _body(self.post)
        wires = MACHINE.load(b, machine, "wires")
        line64 = b.zext(line, I64)
        last = b.zext(DEVICE.load(b, device, "first_wire", b.add(line64, I64(1))), I64)
        wire_index = _variable(b, b.zext(DEVICE.load(b, device, "first_wire", line64), I64))
        with _while(b, lambda: b.icmp_unsigned("<", wire_index.get(), last)):
            wire = WIRE.element(b, wires, wire_index.get())
            wire_index.set(b.add(wire_index.get(), I64(1)))
            guest = WIRE.load(b, wire, "guest")
            with b.if_else(b.icmp_unsigned("!=", guest, I64(0))) as (then, otherwise):
                with then:
                    self._interrupt(b, machine, guest, level)
                with otherwise:
                    tail = MACHINE.load(b, machine, "queue_tail")
                    mask = MACHINE.load(b, machine, "queue_mask")
                    event = EVENT.element(b, MACHINE.load(b, machine, "queue"), b.and_(tail, mask))
                    for field in ("slot", "device", "port"):
                        EVENT.store(b, WIRE.load(b, wire, field), event, field)
                    EVENT.store(b, b.zext(level, I64), event, "value")
                    MACHINE.store(b, b.add(tail, I64(1)), machine, "queue_tail")
        b.ret_void()

    def _interrupt(self, b: Any, machine: Any, guest: Any, level: Any) -> None:
        """One of the guest's interrupt lines, high while any of its wires is; rising edges are counted."""
        line = b.sub(guest, I64(1))
        sources = MACHINE.load(b, machine, "guest_sources", line)
        high = b.icmp_unsigned("!=", level, I32(0))
        after = b.select(high, b.add(sources, I32(1)), b.sub(sources, I32(1)))
        MACHINE.store(b, after, machine, "guest_sources", line)
        rises = b.and_(high, b.icmp_unsigned("==", sources, I32(0)))
        count = MACHINE.load(b, machine, "guest_interrupts")
        MACHINE.store(b, b.add(count, b.zext(rises, I64)), machine, "guest_interrupts")

    def _apply(self) -> None:
        """apply_effects(machine, device, exit): carry out what a handler asked for, and clear it."""
        b, (machine, device, exit_) = _body(self.apply)
        self.apply.attributes.add("noinline")
        masks = {name: EXIT.load(b, exit_, name) for name in _EFFECT_MASKS}
        signals = DEVICE.load(b, device, "signals")
        DEVICE.store(b, b.or_(signals, masks["signal"]), device, "signals")
        for mask, level in (("raise", 1), ("lower", 0)):
            levels = DEVICE.load(b, device, "levels")
            if level:
                changed, after = b.and_(masks[mask], b.not_(levels)), b.or_(levels, masks[mask])
            else:
                changed, after = b.and_(masks[mask], levels), b.and_(levels, b.not_(masks[mask]))
            DEVICE.store(b, after, device, "levels")
            with _each_bit(b, changed) as line:
                b.call(self.post, [machine, device, line, I32(level)])
        timers = MACHINE.load(b, machine, "timers")
        first = DEVICE.load(b, device, "first_timer")

        def timer_at(port: Any) -> Any:
            return TIMER.element(b, timers, b.zext(b.add(first, port), I64))

        # The verifier has bounded the masks to a device's timers; the machine's memory is worth an `and`.
        ports = I32((1 << TIMERS) - 1)
        with _each_bit(b, b.and_(masks["cancel"], ports)) as port:
            TIMER.store(b, I64(NEVER), timer_at(port), "deadline")
        with _each_bit(b, b.and_(masks["arm"], ports)) as port:
            deadline = EXIT.load(b, exit_, "deadline", b.zext(port, I64))
            TIMER.store(b, deadline, timer_at(port), "deadline")
            soonest = MACHINE.load(b, machine, "next_deadline")
            earlier = b.icmp_unsigned("<", deadline, soonest)
            MACHINE.store(b, b.select(earlier, deadline, soonest), machine, "next_deadline")
        _clear_effects(b, exit_)
        b.ret_void()

    def _invoke(self) -> None:
        """invoke(vcpu, slot) -> outcome: run a handler on the exit that is filled in.

        Effects are applied if it handled, forgotten if it declined. A mutating handler only tries the lock.
        """
        b, (vcpu, slot) = _body(self.invoke)
        self.invoke.attributes.add("alwaysinline")
        machine, clock = VCPU.load(b, vcpu, "machine"), VCPU.load(b, vcpu, "clock")
        exit_ = VCPU.address(b, vcpu, "exit")
        effects = b.icmp_unsigned("!=", SLOT.load(b, slot, "effects"), I64(0))
        with b.if_then(effects, likely=False), b.if_then(b.not_(self._room(b, machine)), likely=False):
            b.ret(I64(Outcome.CONTENDED))
        lock = SLOT.load(b, slot, "lock")
        locks = b.icmp_unsigned("!=", lock, _NULL)
        with b.if_then(locks):
            taken = b.cmpxchg(lock, I32(0), I32(1), "acquire", "monotonic")
            with b.if_then(b.not_(b.extract_value(taken, 1)), likely=False):
                b.ret(I64(Outcome.CONTENDED))
        arguments = [exit_, SLOT.load(b, slot, "scratch"), SLOT.load(b, slot, "rodata"), clock]
        function = SLOT.load_function(b, slot, "function", _HANDLER_TYPE)
        verdict = b.call(function, arguments)
        with b.if_then(locks):
            _store_release(b, I32(0), lock)
        handled = b.icmp_unsigned("==", verdict, I64(Verdict.HANDLED))
        with b.if_then(effects, likely=False), b.if_else(handled) as (then, otherwise):
            with then:
                b.call(self.apply, [machine, SLOT.load(b, slot, "device"), exit_])
            with otherwise:
                _clear_effects(b, exit_)
        with b.if_then(handled, likely=True):
            SLOT.store(b, b.add(SLOT.load(b, slot, "handled"), I64(1)), slot, "handled")
            b.ret(I64(Outcome.HANDLED))
        SLOT.store(b, b.add(SLOT.load(b, slot, "declined"), I64(1)), slot, "declined")
        b.ret(I64(Outcome.DECLINED))

    def _room(self, b: Any, machine: Any) -> Any:
        """Whether the queue can take all events of one more handler."""
        used = b.sub(MACHINE.load(b, machine, "queue_tail"), MACHINE.load(b, machine, "queue_head"))
        free = b.sub(MACHINE.load(b, machine, "queue_mask"), used)
        return b.icmp_unsigned(">=", free, MACHINE.load(b, machine, "burst"))

    def _settle(self) -> None:
        """settle(vcpu, now) -> reason: deliver queued line events, then timers due at `now`, in order.

        DONE if nothing is left that may go before the access; PAUSE if much is; otherwise the event in
        `vcpu.event` is for its device's model.
        """
        b, (vcpu, now) = _body(self.settle)
        self.settle.attributes.add("noinline")
        machine, clock = VCPU.load(b, vcpu, "machine"), VCPU.load(b, vcpu, "clock")
        event = VCPU.address(b, vcpu, "event")
        left = _variable(b, I64(EVENTS_IN_ONE_GO))
        with _forever(b):
            with b.if_then(b.icmp_unsigned("==", left.get(), I64(0)), likely=False):
                b.ret(I64(Reason.PAUSE))
            left.set(b.sub(left.get(), I64(1)))
            head, tail = MACHINE.load(b, machine, "queue_head"), MACHINE.load(b, machine, "queue_tail")
            with b.if_else(b.icmp_unsigned("!=", head, tail)) as (queued, idle):
                with queued:
                    mask = MACHINE.load(b, machine, "queue_mask")
                    queue = MACHINE.load(b, machine, "queue")
                    _copy(b, EVENT, EVENT.element(b, queue, b.and_(head, mask)), event)
                    MACHINE.store(b, b.add(head, I64(1)), machine, "queue_head")
                    self._deliver(b, vcpu, event, Reason.EVENT)
                with idle:
                    due = b.icmp_unsigned("<=", MACHINE.load(b, machine, "next_deadline"), now)
                    with b.if_then(b.not_(due)):
                        b.ret(I64(Reason.DONE))
                    timer = self._earliest(b, machine)
                    deadline = TIMER.load(b, timer, "deadline")
                    # A timer that was due has been put off since: the first is still to come.
                    with b.if_then(b.icmp_unsigned(">", deadline, now)):
                        MACHINE.store(b, deadline, machine, "next_deadline")
                        b.ret(I64(Reason.DONE))
                    self._move_clock(b, machine, clock, deadline)
                    expired = MACHINE.load(b, machine, "expired")
                    with b.if_then(b.icmp_unsigned(">=", expired, I64(TIMERS_AT_ONCE)), likely=False):
                        MACHINE.store(b, deadline, machine, "next_deadline")
                        b.ret(I64(Reason.DONE))
                    MACHINE.store(b, b.add(expired, I64(1)), machine, "expired")
                    TIMER.store(b, I64(NEVER), timer, "deadline")
                    for field in ("slot", "device", "port"):
                        EVENT.store(b, TIMER.load(b, timer, field), event, field)
                    EVENT.store(b, deadline, event, "value")
                    self._deliver(b, vcpu, event, Reason.TIMER)

    def _move_clock(self, b: Any, machine: Any, clock: Any, deadline: Any) -> None:
        """Move the clock to a deadline; one that passed long ago does not turn it back."""
        with b.if_then(b.icmp_unsigned(">", deadline, CLOCK_PAGE.load(b, clock, "now_ns"))):
            CLOCK_PAGE.store(b, deadline, clock, "now_ns")
            MACHINE.store(b, I64(0), machine, "expired")

    def _earliest(self, b: Any, machine: Any) -> Any:
        """The timer with the first deadline; also makes `next_deadline` the time of the one after it.

        There is at least one timer when a deadline is due. Ties go to the timer that was added first.
        """
        timers = MACHINE.load(b, machine, "timers")
        count = MACHINE.load(b, machine, "timer_count")
        best, best_time = _variable(b, timers), _variable(b, I64(NEVER))
        second, index = _variable(b, I64(NEVER)), _variable(b, I64(0))
        with _while(b, lambda: b.icmp_unsigned("<", index.get(), count)):
            timer = TIMER.element(b, timers, index.get())
            index.set(b.add(index.get(), I64(1)))
            deadline = TIMER.load(b, timer, "deadline")
            with b.if_else(b.icmp_unsigned("<", deadline, best_time.get())) as (first, later):
                with first:
                    second.set(best_time.get())
                    best_time.set(deadline)
                    best.set(timer)
                with later, b.if_then(b.icmp_unsigned("<", deadline, second.get())):
                    second.set(deadline)
        MACHINE.store(b, second.get(), machine, "next_deadline")
        return best.get()

    def _deliver(self, b: Any, vcpu: Any, event: Any, reason: Reason) -> None:
        """Run the handler of a line event or timer; return `reason` if its model has to act."""
        slot = EVENT.load(b, event, "slot")
        exit_ = VCPU.address(b, vcpu, "exit")
        with b.if_then(b.icmp_unsigned("==", slot, _NULL)):
            b.ret(I64(reason))
        EXIT.store(b, b.zext(EVENT.load(b, event, "port"), I64), exit_, "offset")
        EXIT.store(b, EVENT.load(b, event, "value"), exit_, "value")
        EXIT.store(b, I32(0), exit_, "size")
        outcome = b.call(self.invoke, [vcpu, slot])
        with b.if_then(b.icmp_unsigned("!=", outcome, I64(Outcome.HANDLED))):
            b.ret(I64(reason))

    def _run(self) -> None:
        """run(vcpu) -> reason: take the cursor to its end, or to the first access that needs a model."""
        b, (vcpu,) = _body(self.run)
        machine, clock = VCPU.load(b, vcpu, "machine"), VCPU.load(b, vcpu, "clock")
        cursor, exit_ = VCPU.load(b, vcpu, "cursor"), VCPU.address(b, vcpu, "exit")
        arrays = {name: CURSOR.load(b, cursor, name) for name in ("accesses", "outcomes", "answers", "ticks")}
        count = CURSOR.load(b, cursor, "count")
        stamp = _variable(b, self._ticks(b))
        with _loop(b, CURSOR.load(b, cursor, "index")) as (index, proceed):

            def leave(reason: Any) -> None:
                CURSOR.store(b, index, cursor, "index")
                b.ret(reason)

            def record(outcome: Any) -> None:
                """Note the outcome and the cycles since the last access was done."""
                now = self._ticks(b)
                b.store(b.trunc(outcome, I8), _element(b, arrays["outcomes"], I8, index))
                b.store(b.trunc(b.sub(now, stamp.get()), I32), _element(b, arrays["ticks"], I32, index))
                stamp.set(now)
                proceed(b.add(index, I64(1)))

            with b.if_then(b.icmp_unsigned("==", index, count), likely=False):
                leave(I64(Reason.DONE))
            access = ACCESS.element(b, arrays["accesses"], index)
            time = ACCESS.load(b, access, "time")
            pending = self._pending(b, machine, time)
            with b.if_then(pending, likely=False):
                reason = b.call(self.settle, [vcpu, time])
                with b.if_then(b.icmp_unsigned("!=", reason, I64(Reason.DONE))):
                    leave(reason)
            now = CLOCK_PAGE.load(b, clock, "now_ns")
            CLOCK_PAGE.store(b, b.select(b.icmp_unsigned(">", time, now), time, now), clock, "now_ns")
            MACHINE.store(b, I64(0), machine, "expired")

            space = b.zext(ACCESS.load(b, access, "space"), I64)
            op = b.zext(ACCESS.load(b, access, "op"), I64)
            log2_size = b.zext(ACCESS.load(b, access, "log2_size"), I64)
            address = ACCESS.load(b, access, "address")
            entry = b.call(self.lookup, [machine, _key(b, address, space, op, log2_size)])
            with b.if_then(b.icmp_unsigned("==", entry, _NULL), likely=False):
                place = b.or_(address, b.shl(space, I64(63)))
                with b.if_then(b.call(self.claimed, [machine, place])):
                    b.store(I8(Outcome.NO_PROGRAM), _element(b, arrays["outcomes"], I8, index))
                    leave(I64(Reason.ACCESS))
                record(I64(Outcome.UNCLAIMED))
            width = b.shl(I64(8), log2_size)
            mask = b.lshr(I64(-1), b.sub(I64(64), width))
            value = b.and_(ACCESS.load(b, access, "value"), mask)
            is_read = b.icmp_unsigned("==", op, I64(0))
            EXIT.store(b, ENTRY.load(b, entry, "offset"), exit_, "offset")
            EXIT.store(b, b.select(is_read, I64(0), value), exit_, "value")
            EXIT.store(b, b.trunc(b.shl(I64(1), log2_size), I32), exit_, "size")
            EXIT.store(b, ACCESS.load(b, access, "vcpu"), exit_, "vcpu")
            outcome = b.call(self.invoke, [vcpu, ENTRY.load(b, entry, "slot")])
            with b.if_then(b.icmp_unsigned("!=", outcome, I64(Outcome.HANDLED)), likely=False):
                b.store(b.trunc(outcome, I8), _element(b, arrays["outcomes"], I8, index))
                leave(I64(Reason.ACCESS))
            answer = b.and_(EXIT.load(b, exit_, "value"), mask)
            b.store(answer, _element(b, arrays["answers"], I64, index))
            wrong = b.and_(is_read, b.icmp_unsigned("!=", answer, value))
            record(b.or_(outcome, b.select(wrong, I64(MISMATCH), I64(0))))

    def _ticks(self, b: Any) -> Any:
        """The time-stamp counter, or 0 where reading it may trap: then exits are not timed."""
        return b.call(self.counter, []) if tsc_is_usable() else I64(0)

    def _pending(self, b: Any, machine: Any, time: Any) -> Any:
        head, tail = MACHINE.load(b, machine, "queue_head"), MACHINE.load(b, machine, "queue_tail")
        due = b.icmp_unsigned("<=", MACHINE.load(b, machine, "next_deadline"), time)
        return b.or_(due, b.icmp_unsigned("!=", head, tail))


def _key(b: Any, address: Any, space: Any, op: Any, log2_size: Any) -> Any:
    """The access's dispatch key: `bus.access_key`."""
    low = b.or_(b.or_(b.shl(space, I64(3)), b.shl(op, I64(2))), log2_size)
    return b.or_(b.shl(address, I64(KEY_BITS)), low)


def _clear_effects(b: Any, exit_: Any) -> None:
    """Make every effect field 0 again, deadlines too: the verifier tells programs that they are at entry."""
    for field in _EFFECT_FIELDS:
        kind = ir.ArrayType(I8, field.size * field.count)
        b.store(ir.Constant(kind, None), EXIT.address(b, exit_, field.name))


# What follows is structured control flow for the builder.


class _Cell:
    """A local variable: an alloca that LLVM promotes to SSA values."""

    def __init__(self, builder: Any, initial: Any) -> None:
        self.builder, self.type = builder, initial.type
        with builder.goto_entry_block():
            self.slot = builder.alloca(initial.type)
        builder.store(initial, self.slot)

    def get(self) -> Any:
        return self.builder.load(self.slot, typ=self.type)

    def set(self, value: Any) -> None:
        self.builder.store(value, self.slot)


def _variable(builder: Any, initial: Any) -> _Cell:
    return _Cell(builder, initial)


def _body(function: Any) -> tuple[Any, Any]:
    """A builder at the start of a function, and the function's arguments."""
    entry = function.append_basic_block("entry")
    start = function.append_basic_block("start")
    ir.IRBuilder(entry).branch(start)
    return ir.IRBuilder(start), function.args


@contextmanager
def _while(b: Any, condition: Callable[[], Any]) -> Iterator[None]:
    head, body, after = (b.append_basic_block(name) for name in ("while", "do", "done"))
    b.branch(head)
    b.position_at_end(head)
    b.cbranch(condition(), body, after)
    b.position_at_end(body)
    yield
    b.branch(head)
    b.position_at_end(after)


@contextmanager
def _forever(b: Any) -> Iterator[None]:
    """A loop that is left by returning from the function."""
    head = b.append_basic_block("again")
    b.branch(head)
    b.position_at_end(head)
    yield
    b.branch(head)


@contextmanager
def _loop(b: Any, start: Any) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """A loop over one i64: yields its value and a function that goes on to the next one.

    The body ends by going on or by returning from the function.
    """
    before = b.block
    head = b.append_basic_block("next")
    b.branch(head)
    b.position_at_end(head)
    value = b.phi(I64)
    value.add_incoming(start, before)

    def proceed(following: Any) -> None:
        value.add_incoming(following, b.block)
        b.branch(head)

    yield value, proceed


@contextmanager
def _each_bit(b: Any, mask: Any) -> Iterator[Any]:
    """The numbers of the bits set in an i32, lowest first."""
    left = _variable(b, mask)
    with _while(b, lambda: b.icmp_unsigned("!=", left.get(), I32(0))):
        bits = left.get()
        left.set(b.and_(bits, b.sub(bits, I32(1))))
        yield b.cttz(bits, ir.Constant(ir.IntType(1), 1))


def _copy(b: Any, layout: Any, source: Any, target: Any) -> None:
    for name, _ in layout.fields:
        layout.store(b, layout.load(b, source, name), target, name)


def _element(b: Any, array: Any, kind: Any, index: Any) -> Any:
    return b.gep(array, [index], inbounds=True, source_etype=kind)


def _store_release(b: Any, value: Any, pointer: Any) -> None:
    """`store atomic release`: the builder's own method knows typed pointers only."""
    b._insert(instructions.StoreAtomicInstr(b.block, value, pointer, "release", value.type.width // 8))
