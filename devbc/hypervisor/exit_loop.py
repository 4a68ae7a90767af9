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
function of its exit, the area and the clock). No handler finds a time before that of the state which it
finds, nor one that a later state has passed. Everything that is waited for here is native code, and quick.

Accesses may lie in memory that a client writes meanwhile: each field is loaded once and then checked.

Not here: effects (`delivery.py`), what is attached where (`versions.py`), what models do (`vm.py`), what
engines compile (`devbc.engines`).
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir

from devbc.abi import EXIT_FIELDS, SIZES, Op, Space, Verdict
from devbc.engines.clock import CLOCK_PAGE, define_now, define_time_of, order_clock, tsc_is_usable
from devbc.engines.layout import I8, I32, I64, PTR
from devbc.engines.shared_memory import load_once
from devbc.hypervisor.bus import HASH_MULTIPLIER
from devbc.hypervisor.delivery import Delivery, go_offline, go_online
from devbc.hypervisor.layouts import (
    ACCESS,
    ADDRESS_BITS,
    AREA_HEADER,
    CLAIM,
    CLAIM_KIND_SHIFT,
    COUNTS,
    CURSOR,
    DEVICE,
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
    I1,
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
        self.time_of = define_time_of(module)
        self.lookup = self._declare("devbc_lookup", PTR, PTR, I64)
        self.claim = self._declare("devbc_claim", PTR, PTR, I64)
        self.handle = self._declare("devbc_handle", I64, *[PTR] * 6)
        self.call = self._declare("devbc_call", I64, PTR, PTR, I64, PTR)
        self.invoke = self._declare("devbc_invoke", I64, PTR, PTR)
        self.run = self._declare(RUN, I64, PTR, internal=False)
        self.complete = self._declare(COMPLETE, ir.VoidType(), PTR, I64, I64, internal=False)
        self.delivery = Delivery(module, self.invoke)

    def build(self) -> None:
        self._lookup()
        self._claim()
        self._handle()
        self._invoke()
        self._call()
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
        """invoke(vcpu, slot) -> outcome: run a handler on the exit that is filled in."""
        b, (vcpu, slot) = body(self.invoke)
        self.invoke.attributes.add("noinline")
        machine, clock, exit_, row = self._frame(b, vcpu)
        counts = element(b, SLOT.load(b, slot, "counts"), I8, row)
        b.ret(b.call(self.handle, [vcpu, machine, clock, exit_, slot, counts]))

    def _frame(self, b: Any, vcpu: Any) -> list[Any]:
        """What running a handler needs of a vCPU: machine, clock, exit, and its place in handlers' counts."""
        row = b.mul(VCPU.load(b, vcpu, "index"), I64(COUNTS.size))
        fields = [VCPU.load(b, vcpu, name) for name in ("machine", "clock")]
        return [*fields, VCPU.address(b, vcpu, "exit"), row]

    def _handle(self) -> None:
        """handle(vcpu, machine, clock, exit, slot, counts) -> outcome: run a handler on the exit filled in.

        Effects are carried out if it handled, forgotten if it declined. A mutating handler only tries the
        lock.

        A handler that reads the host's clock must not find a time before that of the state which it finds:
        what a clock counts since would be negative. The counter is therefore read after the sequence count.
        The fence that says so is as dear as the counter, and only needed if another has changed the device:
        where this vCPU has left the count as it is, or passed a fence at it, whatever it reads since is later
        than the change. (For it to be wrong, 2**31 changes, and no other number, would have to go unseen.)
        """
        b, (vcpu, machine, clock, exit_, slot, counts) = body(self.handle)
        self.handle.attributes.add("alwaysinline")
        header, guard = SLOT.load(b, slot, "header"), SLOT.load(b, slot, "guard")
        has_effects = b.icmp_unsigned("!=", SLOT.load(b, slot, "effects"), I8(0))

        def contended() -> None:
            _count(b, COUNTS.address(b, counts, "contended"))
            b.ret(I64(Outcome.CONTENDED))

        def call() -> Any:
            arguments = [exit_, SLOT.load(b, slot, "scratch"), SLOT.load(b, slot, "rodata"), clock]
            return b.call(SLOT.load_function(b, slot, "function", _HANDLER_TYPE), arguments)

        def conclude(verdict: Any) -> Any:
            """Carry out or forget the effects; whether it handled."""
            handled = b.icmp_unsigned("==", verdict, I64(Verdict.HANDLED))
            with b.if_then(has_effects, likely=False):
                device = SLOT.load(b, slot, "device")
                b.call(self.delivery.conclude, [machine, device, exit_, b.zext(handled, I64)])
            return handled

        def finish(handled: Any) -> None:
            with b.if_then(handled, likely=True):
                _count(b, COUNTS.address(b, counts, "handled"))
                b.ret(I64(Outcome.HANDLED))
            _count(b, COUNTS.address(b, counts, "declined"))
            b.ret(I64(Outcome.DECLINED))

        with (
            b.if_then(has_effects, likely=False),
            b.if_then(b.not_(self.delivery.room(b, machine)), likely=False),
        ):
            contended()
        with b.if_then(b.icmp_unsigned("==", guard, I8(Guard.NONE))):
            finish(conclude(call()))
        with b.if_then(b.icmp_unsigned("==", guard, I8(Guard.LOCK))):
            # Lock and sequence count are one word of 64 bits: taking the one makes the other odd, whatever
            # userspace has left there, in one step that is a full barrier. A count that waited in the store
            # buffer while the handler reads the clock would let a reader end after that moment, with the
            # state of before: the next one would find an earlier time.
            sequence = load_shared(b, AREA_HEADER, header, "sequence")
            odd = b.or_(sequence, I32(1))
            free, held = (
                b.or_(b.shl(b.zext(count, I64), I64(32)), I64(holder))
                for count, holder in ((sequence, Holder.FREE), (odd, Holder.HANDLER))
            )
            taken = b.cmpxchg(header, free, held, "seq_cst", "monotonic")
            with b.if_then(b.not_(b.extract_value(taken, 1)), likely=False):
                contended()
            # Another vCPU's pure handler may end with the state of before and a time up to this moment.
            fenced = b.icmp_unsigned("!=", SLOT.load(b, slot, "fenced"), I8(0))
            seen = self._seen(b, vcpu, slot)
            changed = b.icmp_unsigned("!=", b.load(seen, typ=I32), sequence)
            with b.if_then(b.or_(fenced, changed), likely=False):
                shared = b.icmp_unsigned("!=", load_shared(b, MACHINE, machine, "clock_shared"), I64(0))
                with b.if_then(b.or_(shared, changed)):
                    order_clock(b)
            verdict = call()
            even = b.add(odd, I32(1))
            b.store(even, seen)
            store_shared(b, AREA_HEADER, even, header, "sequence", "release")
            # Effects follow the state that they come from: two vCPUs' would otherwise change places.
            handled = conclude(verdict)
            unlock(b, AREA_HEADER.address(b, header, "lock"))
            finish(handled)
        value = EXIT.load(b, exit_, "value")
        with loop(b, I64(_SEQUENCE_TRIES)) as (tries, again):
            with b.if_then(b.icmp_unsigned("==", tries, I64(0)), likely=False):
                contended()
            before = load_shared(b, AREA_HEADER, header, "sequence", "acquire")
            with b.if_then(b.icmp_unsigned("==", b.and_(before, I32(1)), I32(0)), likely=True):
                seen = self._seen(b, vcpu, slot)
                with b.if_then(b.icmp_unsigned("!=", b.load(seen, typ=I32), before), likely=False):
                    order_clock(b)
                    b.store(before, seen)
                verdict = call()
                b.fence("acquire")
                after = load_shared(b, AREA_HEADER, header, "sequence")
                with b.if_then(b.icmp_unsigned("==", before, after), likely=True):
                    finish(conclude(verdict))
                # It may have seen half of a change: whatever it did is in the exit, and forgotten.
                with b.if_then(has_effects):
                    device = SLOT.load(b, slot, "device")
                    b.call(self.delivery.conclude, [machine, device, exit_, I64(0)])
                EXIT.store(b, value, exit_, "value")
            pause(b)
            again(b.sub(tries, I64(1)))

    def _seen(self, b: Any, vcpu: Any, slot: Any) -> Any:
        """Where the count is that this vCPU last left at a slot's device, or passed a fence at."""
        return VCPU.address(b, vcpu, "seen", b.zext(SLOT.load(b, slot, "index"), I64))

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
        ticks = CURSOR.load(b, cursor, "ticks")
        with b.if_then(b.icmp_unsigned("!=", ticks, NULL), likely=True):
            taken = b.sub(self._ticks(b), VCPU.load(b, vcpu, "started"))
            b.store(b.trunc(taken, I32), element(b, ticks, I32, at))
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
        machine, clock, exit_, row = self._frame(b, vcpu)
        cursor = VCPU.load(b, vcpu, "cursor")
        arrays = {name: CURSOR.load(b, cursor, name) for name in ("accesses", "outcomes", "answers", "ticks")}
        count, mask = CURSOR.load(b, cursor, "count"), CURSOR.load(b, cursor, "mask")
        turns, feed = CURSOR.load(b, cursor, "turns"), CURSOR.load(b, cursor, "feed")
        watched = b.icmp_unsigned("!=", b.or_(b.ptrtoint(turns, I64), b.ptrtoint(feed, I64)), I64(0))
        recorded = b.icmp_unsigned("!=", CURSOR.load(b, cursor, "recorded"), I64(0))
        timed = b.icmp_unsigned("!=", arrays["ticks"], NULL)
        live = b.icmp_unsigned("!=", MACHINE.load(b, machine, "live"), I64(0))
        # Taken up at the first access: until then it has no epoch.
        stamp = Cell(b, self._ticks(b))
        first = CURSOR.load(b, cursor, "index")
        # Where it looks up: at once, since it may have left in the middle of something; at its end, or as far
        # as its ring was written when it looked; at each access, if vCPUs take turns.
        limit = Cell(b, first)
        with b.goto_entry_block():
            nothing = b.alloca(I64)
        b.store(I64(0), nothing)
        bucket = Cell(b, nothing)
        with loop(b, first) as (index, proceed):
            at = b.and_(index, mask)
            access = ACCESS.element(b, arrays["accesses"], at)

            def flush() -> None:
                """Note the last exit's time. Before it goes offline: the counts are its map's."""
                _count(b, bucket.get())
                bucket.set(nothing)

            def leave(reason: Any) -> None:
                flush()
                CURSOR.store(b, index, cursor, "index")
                VCPU.store(b, stamp.get(), vcpu, "started")
                go_offline(b, vcpu)
                b.ret(reason)

            def settle(time: Any, timers: int) -> None:
                flush()
                reason = b.call(self.delivery.settle, [vcpu, time, I64(timers)])
                with b.if_then(b.icmp_unsigned("!=", reason, I64(Reason.DONE))):
                    leave(reason)

            def record(outcome: Any, counts: Any = None) -> None:
                """Note the outcome, and the cycles since the last access was done, in `counts` too."""
                with b.if_then(timed, likely=True):
                    now = self._ticks(b)
                    ticks = b.trunc(b.sub(now, stamp.get()), I32)
                    b.store(ticks, element(b, arrays["ticks"], I32, at))
                    stamp.set(now)
                    # The last exit's place in the histogram, known since long: see docs/decisions.md.
                    flush()
                    if counts:
                        bucket.set(COUNTS.address(b, counts, "ticks", _bucket(b, ticks)))
                b.store(outcome, element(b, arrays["outcomes"], I8, at))
                with b.if_then(watched, likely=False):
                    self._advance(b, machine, cursor, index)

            def began() -> Any:
                """When the access at hand began, by a clock that runs by itself: when the last one ended."""
                time = Cell(b, I64(0))
                with b.if_else(timed, likely=True) as (known, asked):
                    with known:
                        time.set(b.call(self.time_of, [clock, stamp.get()]))
                    with asked:
                        time.set(b.call(self.now, [clock]))
                return time.get()

            def admit(settles: Any = None) -> None:
                """Let what is due go before the access, and move a virtual clock to it.

                `settles`: whether it has to go on with what was due, if it has just looked up.
                """
                attention = load_shared(b, MACHINE, machine, "attention")
                time = Cell(b, load_shared(b, ACCESS, access, "time"))
                with b.if_then(live, likely=False):
                    time.set(I64(0))
                    waits = b.icmp_unsigned("!=", attention, I64(NEVER))
                    with b.if_then(b.or_(settles, waits) if settles else waits, likely=False):
                        now = b.call(self.now, [clock]) if settles else began()
                        time.set(b.add(now, EXIT.load(b, exit_, "clock_offset")))
                due = b.icmp_unsigned("<=", attention, time.get())
                with b.if_then(b.or_(settles, due) if settles else due, likely=False):
                    settle(time.get(), 1)
                with b.if_then(b.not_(live), likely=True):
                    now = CLOCK_PAGE.load(b, clock, "now_ns")
                    later = b.icmp_unsigned(">", time.get(), now)
                    CLOCK_PAGE.store(b, b.select(later, time.get(), now), clock, "now_ns")

            epoch = load_shared(b, MACHINE, machine, "epoch", "acquire")
            with b.if_then(b.icmp_unsigned("!=", epoch, VCPU.load(b, vcpu, "epoch")), likely=False):
                with b.if_then(b.icmp_unsigned("!=", load_shared(b, VCPU, vcpu, "stop"), I64(0))):
                    leave(I64(Reason.STOPPED))
                flush()
                go_online(b, vcpu)
                order_clock(b)
            with b.if_else(b.icmp_unsigned("!=", index, limit.get()), likely=True) as (goes_on, looks_up):
                with goes_on:
                    admit()
                with looks_up:
                    limit.set(self._end(b, count, feed))
                    # It may have left for a model while it delivered events and timers.
                    settles = self.delivery.settles(b, vcpu)
                    with b.if_then(b.icmp_unsigned("==", index, limit.get())):
                        # What the last access caused goes before the end.
                        attention = load_shared(b, MACHINE, machine, "attention")
                        with b.if_then(b.or_(settles, b.icmp_unsigned("==", attention, I64(0)))):
                            settle(I64(0), 0)
                        leave(I64(Reason.DONE))
                    with b.if_then(b.icmp_unsigned("!=", turns, NULL)):
                        flush()
                        limit.set(index)
                        turn = b.load(element(b, turns, I64, at), typ=I64)
                        self._take_turn(b, vcpu, turn, index, proceed)
                        limit.set(b.add(index, I64(1)))
                    # The guest may have learned of another vCPU's exit before it came to this access.
                    order_clock(b)
                    admit(settles)

            kind = _Kind(b, access)
            address = load_shared(b, ACCESS, access, "address")
            given = load_shared(b, ACCESS, access, "value")
            strange = b.or_(b.lshr(address, I64(ADDRESS_BITS)), kind.strange)
            map_ = load_shared(b, MACHINE, machine, "map", "acquire")
            key = b.or_(b.shl(address, I64(KEY_BITS)), kind.key)
            entry = b.call(self.lookup, [map_, key])
            missing = b.or_(b.icmp_unsigned("==", entry, NULL), b.icmp_unsigned("!=", strange, I64(0)))
            with b.if_then(missing, likely=False):
                place = b.or_(address, b.shl(kind.space, I64(CLAIM_KIND_SHIFT)))
                claim = b.call(self.claim, [map_, place])
                claimed = b.icmp_unsigned("!=", claim, NULL)
                claimed = b.and_(claimed, b.icmp_unsigned("==", strange, I64(0)))
                with b.if_then(claimed):
                    index_of = b.zext(CLAIM.load(b, claim, "device"), I64)
                    device = DEVICE.element(b, MACHINE.load(b, machine, "devices"), index_of)
                    b.atomic_rmw("add", DEVICE.address(b, device, "unanswered"), I64(1), "monotonic")
                    b.store(I8(Outcome.NO_PROGRAM), element(b, arrays["outcomes"], I8, at))
                    leave(I64(Reason.ACCESS))
                with b.if_then(b.icmp_unsigned("!=", MACHINE.load(b, machine, "exits_unclaimed"), I64(0))):
                    b.store(I8(Outcome.UNCLAIMED), element(b, arrays["outcomes"], I8, at))
                    leave(I64(Reason.ACCESS))
                # Nobody drives the bus: it reads as ones, or as the recorded machine had it.
                floating = b.select(recorded, b.and_(given, kind.mask), kind.mask)
                b.store(floating, element(b, arrays["answers"], I64, at))
                record(I8(Outcome.UNCLAIMED))
                proceed(b.add(index, I64(1)))
                b.position_at_end(b.append_basic_block("dead"))
            slot = ENTRY.load(b, entry, "slot")
            mask_ = ENTRY.load(b, entry, "mask")
            value = b.and_(given, mask_)
            counts = element(b, SLOT.load(b, slot, "counts"), I8, row)
            EXIT.store(b, ENTRY.load(b, entry, "offset"), exit_, "offset")
            EXIT.store(b, b.and_(value, SLOT.load(b, slot, "written")), exit_, "value")
            EXIT.store(b, ENTRY.load(b, entry, "size"), exit_, "size")
            EXIT.store(b, load_shared(b, ACCESS, access, "vcpu"), exit_, "vcpu")
            outcome = Cell(b, I64(0))
            is_call = b.icmp_unsigned("!=", SLOT.load(b, slot, "call"), I8(0))
            with b.if_else(is_call, likely=False) as (called, plain):
                with called:
                    outcome.set(b.call(self.call, [vcpu, cursor, at, slot]))
                with plain:
                    outcome.set(b.call(self.handle, [vcpu, machine, clock, exit_, slot, counts]))
            with b.if_then(b.icmp_unsigned("!=", outcome.get(), I64(Outcome.HANDLED)), likely=False):
                b.store(b.trunc(outcome.get(), I8), element(b, arrays["outcomes"], I8, at))
                leave(I64(Reason.ACCESS))
            answer = b.and_(EXIT.load(b, exit_, "value"), mask_)
            b.store(answer, element(b, arrays["answers"], I64, at))
            found = Cell(b, I8(Outcome.HANDLED))
            with b.if_then(b.icmp_unsigned("!=", answer, value), likely=False):
                compared = b.and_(recorded, b.icmp_unsigned("==", kind.op, I64(0)))
                wrong = b.and_(compared, b.icmp_unsigned("!=", kind.space, I64(HYPERCALL)))
                found.set(b.select(wrong, I8(Outcome.HANDLED | MISMATCH), I8(Outcome.HANDLED)))
            record(found.get(), counts)
            proceed(b.add(index, I64(1)))

    def _end(self, b: Any, count: Any, feed: Any) -> Any:
        """Where the run's accesses end, or as far as its client has written them so far.

        At worst a client makes us run what it has not written, in its own VM.
        """
        end = Cell(b, count)
        with b.if_then(b.icmp_unsigned("!=", feed, NULL)):
            end.set(load_shared(b, FEED, feed, "tail", "acquire"))
        return end.get()

    def _call(self) -> None:
        """call(vcpu, cursor, at, slot) -> outcome: a hypercall, whose arguments no other handler may find."""
        b, (vcpu, cursor, at, slot) = body(self.call)
        self.call.attributes.add("noinline")
        exit_ = VCPU.address(b, vcpu, "exit")
        arguments = CURSOR.load(b, cursor, "arguments")
        with b.if_then(b.icmp_unsigned("!=", arguments, NULL)):
            self._copy_arguments(b, arguments, at, exit_)
        outcome = b.call(self.invoke, [vcpu, slot])
        for number in range(_ARGUMENTS):
            EXIT.store(b, I64(0), exit_, "arg", I64(number))
        b.ret(outcome)

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


class _Kind:
    """What kind of access it is, taken from three bytes in one load: space, operation, size."""

    def __init__(self, b: Any, access: Any) -> None:
        self._b = b
        self._bytes = b.zext(load_once(b, ACCESS.address(b, access, "space"), 32), I64)

    @property
    def space(self) -> Any:
        return self._b.and_(self._bytes, I64(3))

    @property
    def strange(self) -> Any:
        """Not 0 if there is no such space."""
        return self._b.and_(self._bytes, I64(0xFC))

    @property
    def op(self) -> Any:
        return self._b.and_(self._b.lshr(self._bytes, I64(8)), I64(1))

    @property
    def key(self) -> Any:
        """The low bits of `bus.access_key`: space << 3 | op << 2 | log2_size.

        One product puts the three fields, at bits 0, 8 and 16, beside each other from bit 16 on. Its other
        terms lie elsewhere, and nothing is carried.
        """
        b = self._b
        fields = b.and_(self._bytes, I64(0x03_01_03))
        gathered = b.mul(fields, I64(1 << 19 | 1 << 10 | 1))
        return b.and_(b.lshr(gathered, I64(16)), I64(31))

    @property
    def mask(self) -> Any:
        """The bits of the access's value."""
        return _mask(self._b, self._b.and_(self._b.lshr(self._bytes, I64(16)), I64(3)))


def _mask(b: Any, log2_size: Any) -> Any:
    """The bits of a value of that size."""
    return b.lshr(I64(-1), b.sub(I64(64), b.shl(I64(8), log2_size)))


def _bucket(b: Any, ticks: Any) -> Any:
    """The histogram bucket of a number of cycles: its logarithm. All of 32 bits fit, and no more are kept."""
    return b.zext(b.sub(I32(31), b.ctlz(b.or_(ticks, I32(1)), I1(1))), I64)


def _count(b: Any, pointer: Any) -> None:
    b.store(b.add(b.load(pointer, typ=I64), I64(1)), pointer)


assert len(Space) <= HYPERCALL < 4
assert max(SIZES) == 8
assert len(Op) == 2
assert HISTOGRAM_BUCKETS == 32
assert (AREA_HEADER.offset("lock"), AREA_HEADER.offset("sequence")) == (0, 4)
