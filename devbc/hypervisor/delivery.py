"""Effects in native code: lines, timers and signals of handlers, and the events that they become.

What a handler or a model asks for is an exit with effect fields; `apply` carries it out at once for levels
and deadlines, and puts line changes into the machine's queue. `settle` delivers the queue and the timers that
are due, in order, each to the handler that is in place for it or, if that declines, to userspace.

What it holds true: everything of the machine that is not a map changes under `event_lock`, which native code
alone takes, for some instructions, never around a handler or a system call. One vCPU at a time delivers
(`settling`), also while it waits for a model: events keep their order. Nothing is written to an eventfd while
a lock is held or a map in use, since whoever made the eventfd can let such a write block.

Not here: which handler answers an access (`exit_loop.py`), which wire leads where (`wiring.py`).
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir

from devbc.abi import EXIT_FIELDS, Access
from devbc.engines.clock import CLOCK_PAGE
from devbc.engines.layout import I8, I32, I64, PTR
from devbc.hypervisor.layouts import (
    DEVICE,
    EVENT,
    EXIT,
    GUEST_PAGE,
    MACHINE,
    MAP,
    NEVER,
    OFFLINE,
    PORTS,
    TIMER,
    VCPU,
    WIRE,
    Outcome,
    Reason,
)
from devbc.hypervisor.native_flow import (
    NAP,
    NULL,
    SPINS,
    Cell,
    body,
    copy,
    each_bit,
    forever,
    futex_wait,
    futex_wake,
    load_shared,
    pause,
    spin_lock,
    store_shared,
    unlock,
    while_,
    write_eventfd,
)
from devbc.limits import EVENTS_IN_ONE_GO, NOTICES, TIMERS, TIMERS_AT_ONCE

_EFFECT_MASKS: Final = ("raise", "lower", "signal", "arm", "cancel")
#: What a handler may leave in the exit beside its answer, which every exit sets anew.
_EFFECT_FIELDS: Final = tuple(
    field for field in EXIT_FIELDS.values() if field.access is Access.READ_WRITE and field.name != "value"
)


class Delivery:
    """The functions of this file, declared at once and built by the method of each one's name."""

    def __init__(self, module: Any, invoke: Any) -> None:
        """`invoke(vcpu, slot) -> outcome` runs a handler on the exit that is filled in."""
        pointer, void = PTR, ir.VoidType()
        self.invoke = invoke
        self.apply = ir.Function(module, ir.FunctionType(void, [pointer] * 3), "devbc_apply")
        self.conclude = ir.Function(module, ir.FunctionType(void, [pointer] * 3 + [I64]), "devbc_conclude")
        self.request = ir.Function(module, ir.FunctionType(I64, [pointer] * 3), "devbc_request")
        self.acknowledge = ir.Function(module, ir.FunctionType(void, [pointer, I64]), "devbc_acknowledge")
        self.notify = ir.Function(module, ir.FunctionType(void, [pointer]), "devbc_notify")
        self.fetch = ir.Function(module, ir.FunctionType(I64, [pointer]), "devbc_fetch_signals")
        self.settle = ir.Function(module, ir.FunctionType(I64, [pointer, I64, I64]), "devbc_settle")
        self.put_back = ir.Function(module, ir.FunctionType(void, [pointer, I64]), "devbc_put_back")
        for function in (self.apply, self.conclude, self.settle, self.put_back):
            function.linkage = "internal"
            function.attributes.add("noinline")

    def build(self) -> None:
        self._apply()
        self._conclude()
        self._request()
        self._acknowledge()
        self._notify()
        self._fetch()
        self._settle()
        self._put_back()

    def room(self, b: Any, machine: Any, more: int = 0) -> Any:
        """Whether the queue can take all events of one more handler on every vCPU, and of `more` others.

        Each vCPU runs one handler at a time, so that none can find the queue full after this was true.
        """
        used = b.sub(MACHINE.load(b, machine, "queue_tail"), MACHINE.load(b, machine, "queue_head"))
        free = b.sub(MACHINE.load(b, machine, "queue_mask"), used)
        burst = MAP.load(b, MACHINE.load(b, machine, "map"), "burst")
        handlers = b.add(MACHINE.load(b, machine, "vcpus"), I64(more))
        return b.icmp_unsigned(">=", free, b.mul(burst, handlers))

    def _conclude(self) -> None:
        """conclude(machine, device, exit, handled): what a handler left in its exit's effect fields.

        It is carried out if it handled, forgotten if it declined; the fields are 0 afterwards.
        """
        b, (machine, device, exit_, handled) = body(self.conclude)
        asked = b.and_(self._asked(b, device, exit_), b.icmp_unsigned("!=", handled, I64(0)))
        with b.if_then(asked, likely=False):
            b.call(self.apply, [machine, device, exit_], tail=True)
            b.ret_void()
        clear_effects(b, exit_)
        b.ret_void()

    def _apply(self) -> None:
        """apply(machine, device, exit): carry out what an exit's effect fields ask for, and clear them."""
        b, (machine, device, exit_) = body(self.apply)
        spin_lock(b, MACHINE.address(b, machine, "event_lock"))
        self._carry_out(b, machine, device, exit_)
        self._let_go(b, machine)
        b.ret_void()

    def _asked(self, b: Any, device: Any, exit_: Any) -> Any:
        """Whether an exit's effect fields ask for anything; many ask for lines to be as they are.

        Levels are loaded without `event_lock`, once: what asks for no change of them at that moment may be
        taken to have been carried out at that moment.
        """
        masks = {name: EXIT.load(b, exit_, name) for name in _EFFECT_MASKS}
        levels = load_shared(b, DEVICE, device, "levels")
        moved = b.or_(b.and_(masks["raise"], b.not_(levels)), b.and_(masks["lower"], levels))
        rest = b.or_(masks["signal"], b.or_(masks["arm"], masks["cancel"]))
        # A line that is both raised and lowered is lowered last.
        both = b.and_(masks["raise"], masks["lower"])
        return b.icmp_unsigned("!=", b.or_(b.or_(moved, both), rest), I32(0))

    def _request(self) -> None:
        """request(machine, device, exit) -> whether there was room: effects that no handler asks for.

        For models, whose effects come without `room` having been asked before.
        """
        b, (machine, device, exit_) = body(self.request)
        lock = MACHINE.address(b, machine, "event_lock")
        spin_lock(b, lock)
        with b.if_then(b.not_(self.room(b, machine, more=1)), likely=False):
            clear_effects(b, exit_)
            self._let_go(b, machine)
            b.ret(I64(0))
        self._carry_out(b, machine, device, exit_)
        self._let_go(b, machine)
        b.ret(I64(1))

    def _carry_out(self, b: Any, machine: Any, device: Any, exit_: Any) -> None:
        masks = {name: EXIT.load(b, exit_, name) for name in _EFFECT_MASKS}
        self._signal(b, machine, device, masks["signal"])
        for mask, level in (("raise", 1), ("lower", 0)):
            levels = DEVICE.load(b, device, "levels")
            if level:
                changed, after = b.and_(masks[mask], b.not_(levels)), b.or_(levels, masks[mask])
            else:
                changed, after = b.and_(masks[mask], levels), b.and_(levels, b.not_(masks[mask]))
            DEVICE.store(b, after, device, "levels")
            with each_bit(b, changed) as line:
                self._post(b, machine, device, line, level)
        timers = MACHINE.load(b, machine, "timers")
        first = b.mul(b.zext(DEVICE.load(b, device, "index"), I64), I64(TIMERS))

        def timer_at(port: Any) -> Any:
            return TIMER.element(b, timers, b.add(first, b.zext(port, I64)))

        # The verifier has bounded a program's masks; a model's, and the machine's memory, are worth an `and`.
        ports = I32((1 << TIMERS) - 1)
        with each_bit(b, b.and_(masks["cancel"], ports)) as port:
            TIMER.store(b, I64(NEVER), timer_at(port), "deadline")
        with each_bit(b, b.and_(masks["arm"], ports)) as port:
            deadline = EXIT.load(b, exit_, "deadline", b.zext(port, I64))
            TIMER.store(b, deadline, timer_at(port), "deadline")
            soonest = MACHINE.load(b, machine, "next_deadline")
            with b.if_then(b.icmp_unsigned("<", deadline, soonest)):
                MACHINE.store(b, deadline, machine, "next_deadline")
                # Whoever waits for the first deadline of a clock that runs by itself waits for another now.
                sleeps = load_shared(b, MACHINE, machine, "ticker_sleeps")
                with b.if_then(b.icmp_unsigned("!=", sleeps, I32(0)), likely=False):
                    word = MACHINE.address(b, machine, "ticks")
                    b.atomic_rmw("add", word, I32(1), "seq_cst")
                    futex_wake(b, word)
        clear_effects(b, exit_)

    def _signal(self, b: Any, machine: Any, device: Any, mask: Any) -> None:
        noticed = b.and_(mask, DEVICE.load(b, device, "noticed"))
        kept = b.and_(mask, b.not_(noticed))
        with b.if_then(b.icmp_unsigned("!=", kept, I32(0))):
            # Whoever fetches them takes no lock.
            b.atomic_rmw("or", DEVICE.address(b, device, "signals"), kept, "release")
        with each_bit(b, noticed) as signal:
            notice = DEVICE.load(b, device, "first_notice", b.zext(signal, I64))
            self._set_notice(b, machine, b.zext(notice, I64))

    def _post(self, b: Any, machine: Any, device: Any, line: Any, level: int) -> None:
        """Send a change of an output line down its wires; the caller has made sure of `room`."""
        map_ = MACHINE.load(b, machine, "map")
        index = b.zext(DEVICE.load(b, device, "index"), I64)
        ports = PORTS.element(b, MAP.load(b, map_, "ports"), index)
        wires = MAP.load(b, map_, "wires")
        line64 = b.zext(line, I64)
        last = b.zext(PORTS.load(b, ports, "first_wire", b.add(line64, I64(1))), I64)
        wire_index = Cell(b, b.zext(PORTS.load(b, ports, "first_wire", line64), I64))
        with while_(b, lambda: b.icmp_unsigned("<", wire_index.get(), last)):
            wire = WIRE.element(b, wires, wire_index.get())
            wire_index.set(b.add(wire_index.get(), I64(1)))
            guest, notice = WIRE.load(b, wire, "guest"), WIRE.load(b, wire, "notice")
            with b.if_else(b.icmp_unsigned("!=", guest, I32(0))) as (then, otherwise):
                with then:
                    self._interrupt(b, machine, b.zext(b.sub(guest, I32(1)), I64), level)
                with otherwise, b.if_else(b.icmp_unsigned("!=", notice, I32(0))) as (noticed, queued):
                    with noticed:
                        if level:
                            self._set_notice(b, machine, b.zext(b.sub(notice, I32(1)), I64))
                    with queued:
                        tail = MACHINE.load(b, machine, "queue_tail")
                        mask = MACHINE.load(b, machine, "queue_mask")
                        event = EVENT.element(b, MACHINE.load(b, machine, "queue"), b.and_(tail, mask))
                        for field in ("device", "port"):
                            EVENT.store(b, WIRE.load(b, wire, field), event, field)
                        EVENT.store(b, I64(level), event, "value")
                        MACHINE.store(b, b.add(tail, I64(1)), machine, "queue_tail")

    def _interrupt(self, b: Any, machine: Any, line: Any, level: int) -> None:
        """One of the guest's lines, high while any of its wires is; a rising edge makes it pending."""
        sources = MACHINE.load(b, machine, "guest_sources", line)
        after = b.add(sources, I32(1)) if level else b.sub(sources, I32(1))
        MACHINE.store(b, after, machine, "guest_sources", line)
        with b.if_then(b.icmp_unsigned("==", sources, I32(0 if level else 1))):
            bit = b.shl(I64(1), line)
            guest = MACHINE.load(b, machine, "guest")
            levels = GUEST_PAGE.address(b, guest, "levels")
            pending = MACHINE.load(b, machine, "guest_pending")
            if level:
                count = MACHINE.load(b, machine, "guest_interrupts")
                MACHINE.store(b, b.add(count, I64(1)), machine, "guest_interrupts")
                b.atomic_rmw("or", levels, bit, "release")
                self._set_pending(b, machine, b.or_(pending, bit))
            else:
                b.atomic_rmw("and", levels, b.not_(bit), "release")
                dropped = b.and_(bit, MACHINE.load(b, machine, "guest_level"))
                self._set_pending(b, machine, b.and_(pending, b.not_(dropped)))

    def _set_pending(self, b: Any, machine: Any, pending: Any) -> None:
        MACHINE.store(b, pending, machine, "guest_pending")
        store_shared(b, GUEST_PAGE, pending, MACHINE.load(b, machine, "guest"), "pending", "release")

    def _acknowledge(self) -> None:
        """acknowledge(machine, line): the guest has served an interrupt (its end-of-interrupt).

        An edge-triggered line is quiet until it rises again. A level-triggered one that is still high stays
        pending, and its resampling notice tells the device's owner to look again (KVM_IRQFD_FLAG_RESAMPLE).
        """
        b, (machine, line) = body(self.acknowledge)
        lock = MACHINE.address(b, machine, "event_lock")
        spin_lock(b, lock)
        bit = b.shl(I64(1), line)
        high = b.icmp_unsigned("!=", MACHINE.load(b, machine, "guest_sources", line), I32(0))
        level = b.icmp_unsigned("!=", b.and_(bit, MACHINE.load(b, machine, "guest_level")), I64(0))
        pending = b.and_(MACHINE.load(b, machine, "guest_pending"), b.not_(bit))
        stays = b.and_(high, level)
        self._set_pending(b, machine, b.or_(pending, b.select(stays, bit, I64(0))))
        resample = MACHINE.load(b, machine, "guest_resample", line)
        with b.if_then(b.and_(level, b.icmp_unsigned("!=", resample, I32(0)))):
            self._set_notice(b, machine, b.zext(b.sub(resample, I32(1)), I64))
        self._let_go(b, machine)
        b.ret_void()

    def _set_notice(self, b: Any, machine: Any, notice: Any) -> None:
        word = b.lshr(notice, I64(6))
        bit = b.shl(I64(1), b.and_(notice, I64(63)))
        b.atomic_rmw("or", MACHINE.address(b, machine, "notices", word), bit, "release")
        store_shared(b, MACHINE, I64(1), machine, "noticed", "release")

    def settles(self, b: Any, vcpu: Any) -> Any:
        """Whether this vCPU is the one that delivers: it left for a model, and has to go on."""
        me = b.trunc(b.add(VCPU.load(b, vcpu, "index"), I64(1)), I32)
        held = load_shared(b, MACHINE, VCPU.load(b, vcpu, "machine"), "settling")
        return b.icmp_unsigned("==", held, me)

    def _let_go(self, b: Any, machine: Any) -> None:
        """Unlock `event_lock`, after working out `attention` from what may have changed under it."""
        head, tail = MACHINE.load(b, machine, "queue_head"), MACHINE.load(b, machine, "queue_tail")
        waits = b.or_(b.xor(head, tail), load_shared(b, MACHINE, machine, "noticed"))
        soonest = MACHINE.load(b, machine, "next_deadline")
        attention = b.select(b.icmp_unsigned("==", waits, I64(0)), soonest, I64(0))
        store_shared(b, MACHINE, attention, machine, "attention")
        unlock(b, MACHINE.address(b, machine, "event_lock"))

    def _notify(self) -> None:
        """notify(machine): write the eventfds of the notices that are set, without a lock and off the map."""
        b, (machine,) = body(self.notify)
        b.atomic_rmw("xchg", MACHINE.address(b, machine, "noticed"), I64(0), "acq_rel")
        for word in range(NOTICES // 64):
            address = MACHINE.address(b, machine, "notices", I64(word))
            with each_bit(b, b.atomic_rmw("xchg", address, I64(0), "acq_rel")) as bit:
                write_eventfd(b, MACHINE.load(b, machine, "notice_fds", b.add(bit, I64(64 * word))))
        b.ret_void()

    def _fetch(self) -> None:
        """fetch_signals(device) -> the signals that were kept for the device's model, and are no more."""
        b, (device,) = body(self.fetch)
        address = DEVICE.address(b, device, "signals")
        b.ret(b.zext(b.atomic_rmw("xchg", address, I32(0), "acq_rel"), I64))

    def _settle(self) -> None:
        """settle(vcpu, now, timers) -> reason: deliver line events and, if `timers`, timers due at `now`.

        DONE if nothing is left that may go before the access; PAUSE if much is, or another vCPU delivers;
        otherwise the event in `vcpu.event` is for its device's model, and this vCPU goes on delivering.
        """
        b, (vcpu, now, timers) = body(self.settle)
        machine, clock = VCPU.load(b, vcpu, "machine"), VCPU.load(b, vcpu, "clock")
        event = VCPU.address(b, vcpu, "event")
        settling = MACHINE.address(b, machine, "settling")
        lock = MACHINE.address(b, machine, "event_lock")

        def leave(reason: Reason) -> None:
            unlock(b, settling)
            b.ret(I64(reason))

        def done() -> None:
            """Nothing is left. If an access is next it goes now, and timers are counted anew after it."""
            with b.if_then(b.icmp_unsigned("!=", timers, I64(0))):
                MACHINE.store(b, I64(0), machine, "expired")
            self._let_go(b, machine)
            leave(Reason.DONE)

        with b.if_then(b.icmp_unsigned("!=", load_shared(b, MACHINE, machine, "noticed"), I64(0))):
            go_offline(b, vcpu)
            b.call(self.notify, [machine])
            go_online(b, vcpu)
        me = b.trunc(b.add(VCPU.load(b, vcpu, "index"), I64(1)), I32)
        pair = b.cmpxchg(settling, I32(0), me, "acquire", "acquire")
        held = b.or_(b.extract_value(pair, 1), b.icmp_unsigned("==", b.extract_value(pair, 0), me))
        with b.if_then(b.not_(held), likely=False):
            go_offline(b, vcpu)
            spins = Cell(b, I32(SPINS))

            def busy() -> Any:
                taken = b.icmp_unsigned("!=", load_shared(b, MACHINE, machine, "settling"), I32(0))
                return b.and_(taken, b.icmp_unsigned("!=", spins.get(), I32(0)))

            with while_(b, busy):
                pause(b)
                spins.set(b.sub(spins.get(), I32(1)))
            # Whoever delivers may wait for its userspace.
            with b.if_then(b.icmp_unsigned("==", spins.get(), I32(0))):
                futex_wait(b, settling, b.extract_value(pair, 0), I64(NAP))
            go_online(b, vcpu)
            b.ret(I64(Reason.PAUSE))
        left = Cell(b, I64(EVENTS_IN_ONE_GO))
        with forever(b):
            with b.if_then(b.icmp_unsigned("==", left.get(), I64(0)), likely=False):
                leave(Reason.PAUSE)
            left.set(b.sub(left.get(), I64(1)))
            spin_lock(b, lock)
            head, tail = MACHINE.load(b, machine, "queue_head"), MACHINE.load(b, machine, "queue_tail")
            with b.if_else(b.icmp_unsigned("!=", head, tail)) as (queued, idle):
                with queued:
                    mask = MACHINE.load(b, machine, "queue_mask")
                    queue = MACHINE.load(b, machine, "queue")
                    copy(b, EVENT, EVENT.element(b, queue, b.and_(head, mask)), event)
                    MACHINE.store(b, b.add(head, I64(1)), machine, "queue_head")
                    self._let_go(b, machine)
                    self._deliver(b, vcpu, event, Reason.EVENT)
                with idle:
                    soonest = MACHINE.load(b, machine, "next_deadline")
                    armed = b.icmp_unsigned("!=", soonest, I64(NEVER))
                    due = b.and_(armed, b.icmp_unsigned("<=", soonest, now))
                    with b.if_then(b.not_(b.and_(due, b.icmp_unsigned("!=", timers, I64(0))))):
                        done()
                    timer = self._earliest(b, machine)
                    deadline = TIMER.load(b, timer, "deadline")
                    # A timer that was due has been put off since: the first is still to come.
                    with b.if_then(b.icmp_unsigned(">", deadline, now)):
                        MACHINE.store(b, deadline, machine, "next_deadline")
                        done()
                    self._move_clock(b, machine, clock, deadline)
                    expired = MACHINE.load(b, machine, "expired")
                    with b.if_then(b.icmp_unsigned(">=", expired, I64(TIMERS_AT_ONCE)), likely=False):
                        MACHINE.store(b, deadline, machine, "next_deadline")
                        done()
                    MACHINE.store(b, b.add(expired, I64(1)), machine, "expired")
                    TIMER.store(b, I64(NEVER), timer, "deadline")
                    for field in ("device", "port"):
                        EVENT.store(b, TIMER.load(b, timer, field), event, field)
                    EVENT.store(b, deadline, event, "value")
                    self._let_go(b, machine)
                    self._deliver(b, vcpu, event, Reason.TIMER)

    def _put_back(self) -> None:
        """put_back(vcpu, reason): what userspace was told, and will not answer, is told again.

        A change of a line is the next again, before those that came after it. A timer expires again, unless
        it was armed anew meanwhile: that is what an answer may have done to it as well.
        """
        b, (vcpu, reason) = body(self.put_back)
        machine, event = VCPU.load(b, vcpu, "machine"), VCPU.address(b, vcpu, "event")
        spin_lock(b, MACHINE.address(b, machine, "event_lock"))
        head, tail = MACHINE.load(b, machine, "queue_head"), MACHINE.load(b, machine, "queue_tail")
        mask = MACHINE.load(b, machine, "queue_mask")
        # Its place is free, unless others have filled the queue to its end meanwhile.
        free = b.icmp_unsigned("<", b.sub(tail, head), mask)
        with b.if_then(b.and_(b.icmp_unsigned("==", reason, I64(Reason.EVENT)), free)):
            before = b.sub(head, I64(1))
            queue = MACHINE.load(b, machine, "queue")
            copy(b, EVENT, event, EVENT.element(b, queue, b.and_(before, mask)))
            MACHINE.store(b, before, machine, "queue_head")
        with b.if_then(b.icmp_unsigned("==", reason, I64(Reason.TIMER))):
            first = b.mul(b.zext(EVENT.load(b, event, "device"), I64), I64(TIMERS))
            port = b.zext(EVENT.load(b, event, "port"), I64)
            timer = TIMER.element(b, MACHINE.load(b, machine, "timers"), b.add(first, port))
            deadline = EVENT.load(b, event, "value")
            with b.if_then(b.icmp_unsigned("==", TIMER.load(b, timer, "deadline"), I64(NEVER))):
                TIMER.store(b, deadline, timer, "deadline")
                soonest = MACHINE.load(b, machine, "next_deadline")
                with b.if_then(b.icmp_unsigned("<", deadline, soonest)):
                    MACHINE.store(b, deadline, machine, "next_deadline")
        self._let_go(b, machine)
        b.ret_void()

    def _move_clock(self, b: Any, machine: Any, clock: Any, deadline: Any) -> None:
        """Move a virtual clock to a deadline; one that passed long ago does not turn it back."""
        later = b.icmp_unsigned(">", deadline, CLOCK_PAGE.load(b, clock, "now_ns"))
        virtual = b.icmp_unsigned("==", MACHINE.load(b, machine, "live"), I64(0))
        with b.if_then(b.and_(later, virtual)):
            CLOCK_PAGE.store(b, deadline, clock, "now_ns")
            MACHINE.store(b, I64(0), machine, "expired")

    def _earliest(self, b: Any, machine: Any) -> Any:
        """The timer with the first deadline; also makes `next_deadline` the time of the one after it.

        There is at least one timer when a deadline is due. Ties go to the timer that was added first.
        """
        timers = MACHINE.load(b, machine, "timers")
        count = MACHINE.load(b, machine, "timer_count")
        best, best_time = Cell(b, timers), Cell(b, I64(NEVER))
        second, index = Cell(b, I64(NEVER)), Cell(b, I64(0))
        with while_(b, lambda: b.icmp_unsigned("<", index.get(), count)):
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
        field = "timers" if reason is Reason.TIMER else "inputs"
        map_ = MACHINE.load(b, VCPU.load(b, vcpu, "machine"), "map")
        device = b.zext(EVENT.load(b, event, "device"), I64)
        port = b.zext(EVENT.load(b, event, "port"), I64)
        slot = PORTS.load(b, PORTS.element(b, MAP.load(b, map_, "ports"), device), field, port)
        exit_ = VCPU.address(b, vcpu, "exit")
        with b.if_then(b.icmp_unsigned("==", slot, NULL)):
            b.ret(I64(reason))
        EXIT.store(b, port, exit_, "offset")
        EXIT.store(b, EVENT.load(b, event, "value"), exit_, "value")
        EXIT.store(b, I32(0), exit_, "size")
        outcome = b.call(self.invoke, [vcpu, slot])
        with b.if_then(b.icmp_unsigned("!=", outcome, I64(Outcome.HANDLED))):
            b.ret(I64(reason))


def clear_effects(b: Any, exit_: Any) -> None:
    """Make every effect field 0 again, deadlines too: the verifier tells programs that they are at entry."""
    for field in _EFFECT_FIELDS:
        kind = ir.ArrayType(I8, field.size * field.count)
        b.store(ir.Constant(kind, None), EXIT.address(b, exit_, field.name))


# Quiescence: see `devbc.hypervisor.versions`.


def go_offline(b: Any, vcpu: Any) -> None:
    """From here on this vCPU holds no pointer into a map."""
    store_shared(b, VCPU, I64(OFFLINE), vcpu, "epoch", "release")


def go_online(b: Any, vcpu: Any) -> None:
    """Take up the newest map. The exchange is seen by all before the map is loaded."""
    epoch = load_shared(b, MACHINE, VCPU.load(b, vcpu, "machine"), "epoch", "acquire")
    b.atomic_rmw("xchg", VCPU.address(b, vcpu, "epoch"), epoch, "seq_cst")
