"""The native exit loop: dispatch, handler, effects, timers, with no Python until userspace is needed.

LLVM IR over the records of `devbc.hypervisor.layouts`. The loop takes a vCPU through the accesses of its
cursor and returns a `Reason`: done, or a userspace model has to act; the caller lets it act and calls again.
Each vCPU is a thread of its own; what they share is a machine and, at any moment, one or two maps.

What it holds true: a declined or contended access leaves no trace but a count; effect fields of the exit
are zero whenever a handler starts; line events and expired timers are settled before the next access; a
virtual clock never runs backwards; between two accesses only so many timers expire at one moment, those that
are left wait for the next access; a handler that may cause events runs only while the queue has room for all
of them, and is otherwise answered by its model. A handler that writes scratch runs under its device's lock,
its effects too; one that reads it is run again if the sequence count moved, since it can be (a handler is a
function of its exit, the area and the clock). Everything that is waited for here is native code, and quick.

Accesses may lie in memory that a client writes meanwhile: each field is loaded once and then checked.

Not here: effects (`delivery.py`), what is attached where (`versions.py`), what models do (`vm.py`), what
engines compile (`devbc.engines`).
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir

from devbc.abi import EXIT_FIELDS, SIZES, Op, Space, Verdict
from devbc.engines.clock import CLOCK_PAGE, define_now, tsc_is_usable
from devbc.engines.layout import I8, I32, I64, PTR
from devbc.hypervisor.bus import HASH_MULTIPLIER
from devbc.hypervisor.delivery import Delivery, clear_effects, go_offline, go_online
from devbc.hypervisor.layouts import (
    ACCESS,
    ADDRESS_BITS,
    AREA_HEADER,
    CLAIM,
    CLAIM_KIND_SHIFT,
    COUNTS,
    CURSOR,
    ENTRY,
    EXIT,
    FEED,
    HISTOGRAM_BUCKETS,
    HYPERCALL,
    KEY_BITS,
    MACHINE,
    MAP,
    MISMATCH,
    NEVER,
    NO_KEY,
    SLOT,
    VCPU,
    Guard,
    Holder,
    Outcome,
    Reason,
)
from devbc.hypervisor.native_flow import (
    NAP,
    NULL,
    SPINS,
    Cell,
    body,
    element,
    futex_wait,
    load_shared,
    loop,
    pause,
    store_shared,
    unlock,
    while_,
)

RUN: Final = "devbc_run"
COMPLETE: Final = "devbc_complete"

_HANDLER_TYPE = ir.FunctionType(I64, [PTR, PTR, PTR, PTR])
_ARGUMENTS: Final = EXIT_FIELDS["arg"].count
#: How often a handler is run again whose fields were written meanwhile, before it is declined: writers hold
#: the count odd for some ten ns, a userspace one for as long as it likes.
_SEQUENCE_TRIES: Final = 64


def build_loop(module: Any) -> ExitLoop:
    """Put into a module `devbc_run(vcpu) -> reason`, `devbc_complete(vcpu, answer, outcome)` and delivery."""
    exit_loop = ExitLoop(module)
    exit_loop.build()
    return exit_loop


class ExitLoop:
    """The functions of this file, each built by the method of its name."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.counter = ir.Function(module, ir.FunctionType(I64, []), "llvm.readcyclecounter")
        self.now = define_now(module)
        self.lookup = self._declare("devbc_lookup", PTR, PTR, I64)
        self.claim = self._declare("devbc_claim", PTR, PTR, I64)
        self.invoke = self._declare("devbc_invoke", I64, PTR, PTR)
        self.run = self._declare(RUN, I64, PTR, internal=False)
        self.complete = self._declare(COMPLETE, ir.VoidType(), PTR, I64, I64, internal=False)
        self.delivery = Delivery(module, self.invoke)

    def build(self) -> None:
        self._lookup()
        self._claim()
        self._invoke()
        self.delivery.build()
        self._complete()
        self._run()

    def _declare(self, name: str, result: Any, *arguments: Any, internal: bool = True) -> Any:
        function = ir.Function(self.module, ir.FunctionType(result, arguments), name)
        if internal:
            function.linkage = "internal"
        return function

    def _lookup(self) -> None:
        """lookup(map, key) -> the dispatch entry of an access, or null."""
        b, (map_, key) = body(self.lookup)
        table = MAP.load(b, map_, "table")
        mask = MAP.load(b, map_, "table_mask")
        shift = MAP.load(b, map_, "table_shift")
        start = b.lshr(b.mul(key, I64(HASH_MULTIPLIER)), shift)
        with loop(b, start) as (position, proceed):
            entry = ENTRY.element(b, table, b.and_(position, mask))
            found = ENTRY.load(b, entry, "key")
            with b.if_then(b.icmp_unsigned("==", found, key)):
                b.ret(entry)
            with b.if_then(b.icmp_unsigned("==", found, I64(NO_KEY))):
                b.ret(NULL)
            proceed(b.add(position, I64(1)))

    def _claim(self) -> None:
        """claim(map, place) -> the bank that holds the address, or null: a binary search."""
        b, (map_, place) = body(self.claim)
        claims = MAP.load(b, map_, "claims")
        low, high = Cell(b, I64(0)), Cell(b, MAP.load(b, map_, "claim_count"))
        with while_(b, lambda: b.icmp_unsigned("<", low.get(), high.get())):
            middle = b.lshr(b.add(low.get(), high.get()), I64(1))
            claim = CLAIM.element(b, claims, middle)
            below = b.icmp_unsigned("<", place, CLAIM.load(b, claim, "first"))
            with b.if_else(below) as (then, otherwise):
                with then:
                    high.set(middle)
                with otherwise:
                    inside = b.icmp_unsigned("<=", place, CLAIM.load(b, claim, "last"))
                    with b.if_then(inside):
                        b.ret(claim)
                    low.set(b.add(middle, I64(1)))
        b.ret(NULL)

    def _invoke(self) -> None:
        """invoke(vcpu, slot) -> outcome: run a handler on the exit that is filled in.

        Effects are applied if it handled, forgotten if it declined. A mutating handler only tries the lock.
        """
        b, (vcpu, slot) = body(self.invoke)
        self.invoke.attributes.add("alwaysinline")
        machine, clock = VCPU.load(b, vcpu, "machine"), VCPU.load(b, vcpu, "clock")
        exit_ = VCPU.address(b, vcpu, "exit")
        header, guard = SLOT.load(b, slot, "header"), SLOT.load(b, slot, "guard")
        has_effects = b.icmp_unsigned("!=", SLOT.load(b, slot, "effects"), I64(0))
        counts = COUNTS.element(b, SLOT.load(b, slot, "counts"), VCPU.load(b, vcpu, "index"))

        def count(field: str) -> None:
            COUNTS.store(b, b.add(COUNTS.load(b, counts, field), I64(1)), counts, field)

        def contended() -> None:
            count("contended")
            b.ret(I64(Outcome.CONTENDED))

        def call() -> Any:
            arguments = [exit_, SLOT.load(b, slot, "scratch"), SLOT.load(b, slot, "rodata"), clock]
            return b.call(SLOT.load_function(b, slot, "function", _HANDLER_TYPE), arguments)

        def answer(verdict: Any) -> Any:
            """What the verdict comes to, effects carried out; whether it handled."""
            handled = b.icmp_unsigned("==", verdict, I64(Verdict.HANDLED))
            with b.if_then(has_effects, likely=False), b.if_else(handled) as (then, otherwise):
                with then:
                    b.call(self.delivery.apply, [machine, SLOT.load(b, slot, "device"), exit_])
                with otherwise:
                    clear_effects(b, exit_)
            return handled

        def finish(handled: Any) -> None:
            with b.if_then(handled, likely=True):
                count("handled")
                b.ret(I64(Outcome.HANDLED))
            count("declined")
            b.ret(I64(Outcome.DECLINED))

        with (
            b.if_then(has_effects, likely=False),
            b.if_then(b.not_(self.delivery.room(b, machine)), likely=False),
        ):
            contended()
        with b.if_then(b.icmp_unsigned("==", guard, I64(Guard.LOCK))):
            lock = AREA_HEADER.address(b, header, "lock")
            taken = b.cmpxchg(lock, I32(Holder.FREE), I32(Holder.HANDLER), "acquire", "monotonic")
            with b.if_then(b.not_(b.extract_value(taken, 1)), likely=False):
                contended()
            # Odd while it writes, whatever userspace has left there; readers of before and after see it.
            odd = b.or_(load_shared(b, AREA_HEADER, header, "sequence"), I32(1))
            # A full barrier. A store that waits in the store buffer while the handler reads the clock lets a
            # reader end after that moment, with the state of before: the next one finds an earlier time.
            b.atomic_rmw("xchg", AREA_HEADER.address(b, header, "sequence"), odd, "seq_cst")
            b.fence("release")
            verdict = call()
            store_shared(b, AREA_HEADER, b.add(odd, I32(1)), header, "sequence", "release")
            # Effects follow the state that they come from: two vCPUs' would otherwise change places.
            handled = answer(verdict)
            unlock(b, lock)
            finish(handled)
        with b.if_then(b.icmp_unsigned("==", guard, I64(Guard.NONE))):
            finish(answer(call()))
        value = EXIT.load(b, exit_, "value")
        with loop(b, I64(_SEQUENCE_TRIES)) as (tries, again):
            with b.if_then(b.icmp_unsigned("==", tries, I64(0)), likely=False):
                contended()
            before = load_shared(b, AREA_HEADER, header, "sequence", "acquire")
            with b.if_then(b.icmp_unsigned("==", b.and_(before, I32(1)), I32(0)), likely=True):
                verdict = call()
                b.fence("acquire")
                after = load_shared(b, AREA_HEADER, header, "sequence")
                with b.if_then(b.icmp_unsigned("==", before, after), likely=True):
                    finish(answer(verdict))
                # It may have seen half of a change: whatever it did is in the exit, and forgotten.
                with b.if_then(has_effects):
                    clear_effects(b, exit_)
                EXIT.store(b, value, exit_, "value")
            pause(b)
            again(b.sub(tries, I64(1)))

    def _complete(self) -> None:
        """complete(vcpu, answer, outcome): the access at the cursor is done; userspace has answered."""
        b, (vcpu, answer, outcome) = body(self.complete)
        machine, cursor = VCPU.load(b, vcpu, "machine"), VCPU.load(b, vcpu, "cursor")
        index = CURSOR.load(b, cursor, "index")
        at = b.and_(index, CURSOR.load(b, cursor, "mask"))
        access = ACCESS.element(b, CURSOR.load(b, cursor, "accesses"), at)
        op = b.and_(b.zext(load_shared(b, ACCESS, access, "op"), I64), I64(1))
        space = b.zext(load_shared(b, ACCESS, access, "space"), I64)
        mask = _mask(b, b.and_(b.zext(load_shared(b, ACCESS, access, "log2_size"), I64), I64(3)))
        recorded = b.and_(load_shared(b, ACCESS, access, "value"), mask)
        answer = b.and_(answer, mask)
        answers = CURSOR.load(b, cursor, "answers")
        wants = b.icmp_unsigned("==", op, I64(0))
        with b.if_then(wants):
            b.store(answer, element(b, answers, I64, at))
        compared = b.icmp_unsigned("!=", CURSOR.load(b, cursor, "recorded"), I64(0))
        read = b.and_(wants, b.icmp_unsigned("!=", space, I64(HYPERCALL)))
        wrong = b.and_(b.and_(read, compared), b.icmp_unsigned("!=", answer, recorded))
        outcome = b.or_(outcome, b.select(wrong, I64(MISMATCH), I64(0)))
        b.store(b.trunc(outcome, I8), element(b, CURSOR.load(b, cursor, "outcomes"), I8, at))
        ticks = b.trunc(b.sub(self._ticks(b), VCPU.load(b, vcpu, "started")), I32)
        b.store(ticks, element(b, CURSOR.load(b, cursor, "ticks"), I32, at))
        self._advance(b, machine, cursor, index)
        CURSOR.store(b, b.add(index, I64(1)), cursor, "index")
        b.ret_void()

    def _advance(self, b: Any, machine: Any, cursor: Any, index: Any) -> None:
        """Let go of a turn, and tell who feeds the ring, that an access is done."""
        following = b.add(index, I64(1))
        with b.if_then(b.icmp_unsigned("!=", CURSOR.load(b, cursor, "turns"), NULL), likely=False):
            turn = MACHINE.load(b, machine, "turn")
            store_shared(b, MACHINE, b.add(turn, I64(1)), machine, "turn", "release")
        feed = CURSOR.load(b, cursor, "feed")
        with b.if_then(b.icmp_unsigned("!=", feed, NULL), likely=False):
            store_shared(b, FEED, following, feed, "head", "release")

    def _run(self) -> None:
        """run(vcpu) -> reason: take the cursor to its end, or to the first access that needs a model."""
        b, (vcpu,) = body(self.run)
        machine, clock = VCPU.load(b, vcpu, "machine"), VCPU.load(b, vcpu, "clock")
        cursor, exit_ = VCPU.load(b, vcpu, "cursor"), VCPU.address(b, vcpu, "exit")
        arrays = {name: CURSOR.load(b, cursor, name) for name in ("accesses", "outcomes", "answers", "ticks")}
        count, mask = CURSOR.load(b, cursor, "count"), CURSOR.load(b, cursor, "mask")
        turns = CURSOR.load(b, cursor, "turns")
        arguments = CURSOR.load(b, cursor, "arguments")
        feed = CURSOR.load(b, cursor, "feed")
        recorded = b.icmp_unsigned("!=", CURSOR.load(b, cursor, "recorded"), I64(0))
        live = b.icmp_unsigned("!=", MACHINE.load(b, machine, "live"), I64(0))
        go_online(b, vcpu)
        # A model has answered for an event: this vCPU was delivering, and goes on before anything else.
        me = b.trunc(b.add(VCPU.load(b, vcpu, "index"), I64(1)), I32)
        delivering = b.icmp_unsigned("==", load_shared(b, MACHINE, machine, "settling"), me)
        with b.if_then(delivering, likely=False):
            reason = b.call(self.delivery.settle, [vcpu, I64(0), I64(0)])
            with b.if_then(b.icmp_unsigned("!=", reason, I64(Reason.DONE))):
                go_offline(b, vcpu)
                b.ret(reason)
        stamp = Cell(b, self._ticks(b))
        first = CURSOR.load(b, cursor, "index")
        # Where a ring ends is asked when it is reached, which may have been before.
        end = Cell(b, b.select(b.icmp_unsigned("==", feed, NULL), count, first))
        with loop(b, first) as (index, proceed):

            def leave(reason: Any) -> None:
                CURSOR.store(b, index, cursor, "index")
                VCPU.store(b, stamp.get(), vcpu, "started")
                go_offline(b, vcpu)
                b.ret(reason)

            epoch = load_shared(b, MACHINE, machine, "epoch", "acquire")
            with b.if_then(b.icmp_unsigned("!=", epoch, VCPU.load(b, vcpu, "epoch")), likely=False):
                with b.if_then(b.icmp_unsigned("!=", load_shared(b, VCPU, vcpu, "stop"), I64(0))):
                    leave(I64(Reason.STOPPED))
                go_online(b, vcpu)
            with b.if_then(self._events(b, machine), likely=False):
                reason = b.call(self.delivery.settle, [vcpu, I64(0), I64(0)])
                with b.if_then(b.icmp_unsigned("!=", reason, I64(Reason.DONE))):
                    leave(reason)
            with b.if_then(b.icmp_unsigned("==", index, end.get()), likely=False):
                with b.if_then(b.icmp_unsigned("==", feed, NULL)):
                    leave(I64(Reason.DONE))
                # The client's: at worst it makes us run what it has not written, in its own VM.
                end.set(load_shared(b, FEED, feed, "tail", "acquire"))
                with b.if_then(b.icmp_unsigned("==", index, end.get())):
                    leave(I64(Reason.DONE))
            at = b.and_(index, mask)
            with b.if_then(b.icmp_unsigned("!=", turns, NULL), likely=False):
                self._take_turn(b, vcpu, b.load(element(b, turns, I64, at), typ=I64), index, proceed)
                # The access before it, of another vCPU, may have caused events.
                with b.if_then(self._events(b, machine), likely=False):
                    proceed(index)
                    b.position_at_end(b.append_basic_block("dead"))
            access = ACCESS.element(b, arrays["accesses"], at)

            def record(outcome: Any) -> Any:
                """Note the outcome and the cycles since the last access was done."""
                now = self._ticks(b)
                ticks = b.sub(now, stamp.get())
                b.store(b.trunc(outcome, I8), element(b, arrays["outcomes"], I8, at))
                b.store(b.trunc(ticks, I32), element(b, arrays["ticks"], I32, at))
                stamp.set(now)
                self._advance(b, machine, cursor, index)
                return ticks

            time = Cell(b, load_shared(b, ACCESS, access, "time"))
            soonest = MACHINE.load(b, machine, "next_deadline")
            with b.if_then(live):
                time.set(I64(0))
                with b.if_then(b.icmp_unsigned("!=", soonest, I64(NEVER))):
                    offset = EXIT.load(b, exit_, "clock_offset")
                    time.set(b.add(b.call(self.now, [clock]), offset))
            with b.if_then(b.icmp_unsigned("<=", soonest, time.get()), likely=False):
                reason = b.call(self.delivery.settle, [vcpu, time.get(), I64(1)])
                with b.if_then(b.icmp_unsigned("!=", reason, I64(Reason.DONE))):
                    leave(reason)
            with b.if_then(b.not_(live), likely=True):
                now = CLOCK_PAGE.load(b, clock, "now_ns")
                later = b.icmp_unsigned(">", time.get(), now)
                CLOCK_PAGE.store(b, b.select(later, time.get(), now), clock, "now_ns")
            with b.if_then(b.icmp_unsigned("!=", MACHINE.load(b, machine, "expired"), I64(0)), likely=False):
                MACHINE.store(b, I64(0), machine, "expired")

            space = b.zext(load_shared(b, ACCESS, access, "space"), I64)
            op = b.and_(b.zext(load_shared(b, ACCESS, access, "op"), I64), I64(1))
            log2_size = b.and_(b.zext(load_shared(b, ACCESS, access, "log2_size"), I64), I64(3))
            address = load_shared(b, ACCESS, access, "address")
            value = b.and_(load_shared(b, ACCESS, access, "value"), _mask(b, log2_size))
            is_read = b.icmp_unsigned("==", op, I64(0))
            strange = b.or_(b.lshr(address, I64(ADDRESS_BITS)), b.lshr(space, I64(2)))
            map_ = load_shared(b, MACHINE, machine, "map", "acquire")
            entry = b.call(self.lookup, [map_, _key(b, address, space, op, log2_size)])
            missing = b.or_(b.icmp_unsigned("==", entry, NULL), b.icmp_unsigned("!=", strange, I64(0)))
            with b.if_then(missing, likely=False):
                place = b.or_(address, b.shl(space, I64(CLAIM_KIND_SHIFT)))
                claimed = b.icmp_unsigned("!=", b.call(self.claim, [map_, place]), NULL)
                claimed = b.and_(claimed, b.icmp_unsigned("==", strange, I64(0)))
                with b.if_then(claimed):
                    b.store(I8(Outcome.NO_PROGRAM), element(b, arrays["outcomes"], I8, at))
                    leave(I64(Reason.ACCESS))
                with b.if_then(b.icmp_unsigned("!=", MACHINE.load(b, machine, "exits_unclaimed"), I64(0))):
                    b.store(I8(Outcome.UNCLAIMED), element(b, arrays["outcomes"], I8, at))
                    leave(I64(Reason.ACCESS))
                # Nobody drives the bus: it reads as ones, or as the recorded machine had it.
                floating = b.select(recorded, value, _mask(b, log2_size))
                b.store(floating, element(b, arrays["answers"], I64, at))
                record(I64(Outcome.UNCLAIMED))
                proceed(b.add(index, I64(1)))
                b.position_at_end(b.append_basic_block("dead"))
            is_call = b.icmp_unsigned("==", space, I64(HYPERCALL))
            EXIT.store(b, ENTRY.load(b, entry, "offset"), exit_, "offset")
            EXIT.store(b, b.select(is_read, I64(0), value), exit_, "value")
            EXIT.store(b, b.trunc(b.shl(I64(1), log2_size), I32), exit_, "size")
            EXIT.store(b, load_shared(b, ACCESS, access, "vcpu"), exit_, "vcpu")
            with b.if_then(is_call, likely=False):
                EXIT.store(b, I32(0), exit_, "size")
                with b.if_then(b.icmp_unsigned("!=", arguments, NULL)):
                    self._copy_arguments(b, arguments, at, exit_)
            slot = ENTRY.load(b, entry, "slot")
            outcome = b.call(self.invoke, [vcpu, slot])
            with b.if_then(is_call, likely=False):
                for number in range(_ARGUMENTS):
                    EXIT.store(b, I64(0), exit_, "arg", I64(number))
            with b.if_then(b.icmp_unsigned("!=", outcome, I64(Outcome.HANDLED)), likely=False):
                b.store(b.trunc(outcome, I8), element(b, arrays["outcomes"], I8, at))
                leave(I64(Reason.ACCESS))
            answer = b.and_(EXIT.load(b, exit_, "value"), _mask(b, log2_size))
            b.store(answer, element(b, arrays["answers"], I64, at))
            differs = b.and_(b.and_(is_read, recorded), b.icmp_unsigned("!=", answer, value))
            wrong = b.and_(differs, b.not_(is_call))
            ticks = record(b.or_(outcome, b.select(wrong, I64(MISMATCH), I64(0))))
            counts = COUNTS.element(b, SLOT.load(b, slot, "counts"), VCPU.load(b, vcpu, "index"))
            bucket = _bucket(b, ticks)
            seen = COUNTS.load(b, counts, "ticks", bucket)
            COUNTS.store(b, b.add(seen, I64(1)), counts, "ticks", bucket)
            proceed(b.add(index, I64(1)))

    def _take_turn(self, b: Any, vcpu: Any, turn: Any, index: Any, proceed: Any) -> None:
        """Wait, for a moment, for an access's turn among all vCPUs'; then look around and come back."""
        machine = VCPU.load(b, vcpu, "machine")
        spins = Cell(b, I64(SPINS))
        mine = Cell(b, ir.Constant(ir.IntType(1), 0))

        def waiting() -> Any:
            current = load_shared(b, MACHINE, machine, "turn", "acquire")
            mine.set(b.icmp_unsigned("==", current, turn))
            return b.and_(b.not_(mine.get()), b.icmp_unsigned("!=", spins.get(), I64(0)))

        with while_(b, waiting):
            pause(b)
            spins.set(b.sub(spins.get(), I64(1)))
        with b.if_then(b.not_(mine.get())):
            # It may be long in coming: the vCPU whose turn it is may wait for its userspace.
            seen = b.trunc(load_shared(b, MACHINE, machine, "turn"), I32)
            go_offline(b, vcpu)
            futex_wait(b, MACHINE.address(b, machine, "turn"), seen, I64(NAP))
            proceed(index)
            b.position_at_end(b.append_basic_block("dead"))

    def _copy_arguments(self, b: Any, arguments: Any, at: Any, exit_: Any) -> None:
        first = b.mul(at, I64(_ARGUMENTS))
        for number in range(_ARGUMENTS):
            source = element(b, arguments, I64, b.add(first, I64(number)))
            EXIT.store(b, b.load(source, typ=I64), exit_, "arg", I64(number))

    def _ticks(self, b: Any) -> Any:
        """The time-stamp counter, or 0 where reading it may trap: then exits are not timed."""
        return b.call(self.counter, []) if tsc_is_usable() else I64(0)

    def _events(self, b: Any, machine: Any) -> Any:
        head, tail = MACHINE.load(b, machine, "queue_head"), MACHINE.load(b, machine, "queue_tail")
        noticed = load_shared(b, MACHINE, machine, "noticed")
        return b.icmp_unsigned("!=", b.or_(b.xor(head, tail), noticed), I64(0))


def _mask(b: Any, log2_size: Any) -> Any:
    """The bits of an access's value."""
    return b.lshr(I64(-1), b.sub(I64(64), b.shl(I64(8), log2_size)))


def _key(b: Any, address: Any, space: Any, op: Any, log2_size: Any) -> Any:
    """The access's dispatch key: `bus.access_key`."""
    low = b.or_(b.or_(b.shl(space, I64(3)), b.shl(op, I64(2))), log2_size)
    return b.or_(b.shl(address, I64(KEY_BITS)), low)


def _bucket(b: Any, ticks: Any) -> Any:
    """The histogram bucket of a number of cycles: its logarithm, the last one for all that are larger."""
    log2 = b.sub(I64(63), b.ctlz(b.or_(ticks, I64(1)), ir.IntType(1)(1)))
    last = I64(HISTOGRAM_BUCKETS - 1)
    return b.select(b.icmp_unsigned("<", log2, last), log2, last)


assert len(Space) <= HYPERCALL < 4
assert max(SIZES) == 8
assert len(Op) == 2
