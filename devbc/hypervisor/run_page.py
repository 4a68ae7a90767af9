"""Exits to a userspace in another process, natively: a page that both map, a futex, an eventfd.

`serve` is a vCPU's thread in the service: it runs the exit loop, writes what needs userspace into the page,
hands the page over and waits, spinning first. `wait` and `answer` are userspace's half. `tick` is the thread
that runs the timers of a VM whose clock runs by itself, while no vCPU does.

What it holds true: nothing here waits for userspace while it holds a lock or a map; everything taken from the
page is copied once, and any value of it is legal: at worst a vCPU, an answer or a device's lines are what its
own monitor made of them. The machine sleeps on a futex and not on an eventfd, since whoever shares an eventfd
can empty it between another's poll and read, and make it block.

Not here: who maps what (`devbc.service`, `devbc.client`).
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir

from devbc.engines.layout import I8, I32, I64, PTR
from devbc.hypervisor.delivery import go_offline, go_online
from devbc.hypervisor.exit_loop import ExitLoop
from devbc.hypervisor.layouts import (
    ACCESS,
    CLAIM,
    CLAIM_KIND_SHIFT,
    CURSOR,
    DEVICE,
    EVENT,
    EXIT,
    FEED,
    HYPERCALL,
    MACHINE,
    NO_DEVICE,
    RUN_PAGE,
    VCPU,
    PageState,
    Reason,
)
from devbc.hypervisor.native_flow import (
    NULL,
    Cell,
    body,
    element,
    forever,
    futex_wait,
    futex_wake,
    load_shared,
    pause,
    store_shared,
    while_,
    write_eventfd,
)

SERVE: Final = "devbc_serve"
TICK: Final = "devbc_tick"
#: Userspace's half, a module of its own (`build_userspace`).
WAIT: Final = "devbc_wait"
ANSWER: Final = "devbc_answer"
TAIL: Final = "devbc_tail"

#: How long a sleeper sleeps before it looks whether it is to stop, in ns.
_LOOK: Final = 100_000_000
_EFFECTS: Final = ("raise", "lower", "arm", "cancel")


def build_run_page(module: Any, exit_loop: ExitLoop) -> None:
    """Put `devbc_serve(vcpu) -> reason` and `devbc_tick(vcpu) -> reason` into a module."""
    page = _RunPage(module, exit_loop)
    page.build()


class _RunPage:
    def __init__(self, module: Any, exit_loop: ExitLoop) -> None:
        self.exit_loop = exit_loop
        self.serve = ir.Function(module, ir.FunctionType(I64, [PTR]), SERVE)
        self.tick = ir.Function(module, ir.FunctionType(I64, [PTR]), TICK)
        self.describe = ir.Function(module, ir.FunctionType(I32, [PTR, I64]), "devbc_describe")
        self.hand_over = ir.Function(module, ir.FunctionType(I64, [PTR, I64, I32]), "devbc_hand_over")
        for function in (self.describe, self.hand_over):
            function.linkage = "internal"

    def build(self) -> None:
        self._describe()
        self._hand_over()
        self._serve()
        self._tick()

    def _serve(self) -> None:
        """serve(vcpu) -> reason: run until it is stopped, or userspace asks for too much."""
        b, (vcpu,) = body(self.serve)
        with forever(b):
            reason = b.call(self.exit_loop.run, [vcpu])
            self._leave_if(b, vcpu, b.icmp_unsigned("==", reason, I64(Reason.STOPPED)), reason)
            with b.if_else(b.icmp_unsigned("==", reason, I64(Reason.PAUSE))) as (paused, exits):
                with paused:
                    stop = load_shared(b, VCPU, vcpu, "stop")
                    self._leave_if(b, vcpu, b.icmp_unsigned("!=", stop, I64(0)), I64(Reason.STOPPED))
                with exits:
                    self._exit(b, vcpu, reason)

    def _exit(self, b: Any, vcpu: Any, reason: Any) -> None:
        """Let userspace act, and take its answer; returns from the function if there will be none."""
        device = b.call(self.describe, [vcpu, reason])
        left = b.call(self.hand_over, [vcpu, reason, device])
        with b.if_then(b.icmp_unsigned("==", left, I64(Reason.STOPPED)), likely=False):
            # An access is still at the cursor, and is done again; what came with it has to be put back.
            b.call(self.exit_loop.delivery.put_back, [vcpu, reason])
            with b.if_then(b.icmp_unsigned("!=", device, I32(NO_DEVICE))):
                record = self._device(b, VCPU.load(b, vcpu, "machine"), device)
                signals = load_shared(b, RUN_PAGE, VCPU.load(b, vcpu, "page"), "signals")
                b.atomic_rmw("or", DEVICE.address(b, record, "signals"), signals, "release")
        self._leave_if(b, vcpu, b.icmp_unsigned("!=", left, I64(Reason.DONE)), left)

    def _leave_if(self, b: Any, vcpu: Any, condition: Any, reason: Any) -> None:
        """Return `reason`, and tell userspace that there is nobody behind the page any more."""
        with b.if_then(condition, likely=False):
            page = VCPU.load(b, vcpu, "page")
            store_shared(b, RUN_PAGE, I32(Reason.STOPPED), page, "reason")
            store_shared(b, RUN_PAGE, I32(PageState.EXIT), page, "state", "release")
            write_eventfd(b, VCPU.load(b, vcpu, "wake_fd"))
            b.ret(reason)

    def _describe(self) -> None:
        """describe(vcpu, reason) -> device: write the exit into the page; its device, or NO_DEVICE."""
        b, (vcpu, reason) = body(self.describe)
        page = VCPU.load(b, vcpu, "page")
        machine = VCPU.load(b, vcpu, "machine")
        device = Cell(b, I32(NO_DEVICE))

        def put(field: str, value: Any) -> None:
            store_shared(b, RUN_PAGE, value, page, field)

        put("reason", b.trunc(reason, I32))
        put("exits", b.add(load_shared(b, RUN_PAGE, page, "exits"), I64(1)))
        put("time", self._now(b, vcpu))
        put("signals", I32(0))
        with b.if_then(b.icmp_unsigned("==", reason, I64(Reason.ACCESS))):
            device.set(self._describe_access(b, vcpu, machine, put))
        timer = b.icmp_unsigned("==", reason, I64(Reason.TIMER))
        with b.if_then(b.or_(timer, b.icmp_unsigned("==", reason, I64(Reason.EVENT)))):
            event = VCPU.address(b, vcpu, "event")
            device.set(EVENT.load(b, event, "device"))
            put("offset", b.zext(EVENT.load(b, event, "port"), I64))
            put("value", EVENT.load(b, event, "value"))
        put("device", device.get())
        with b.if_then(b.icmp_unsigned("!=", device.get(), I32(NO_DEVICE))):
            record = self._device(b, machine, device.get())
            signals = b.atomic_rmw("xchg", DEVICE.address(b, record, "signals"), I32(0), "acq_rel")
            put("signals", signals)
        b.ret(device.get())

    def _describe_access(self, b: Any, vcpu: Any, machine: Any, put: Any) -> Any:
        """The access at the cursor, loaded again: who feeds it may have changed it, and is told so."""
        cursor = VCPU.load(b, vcpu, "cursor")
        at = b.and_(CURSOR.load(b, cursor, "index"), CURSOR.load(b, cursor, "mask"))
        access = ACCESS.element(b, CURSOR.load(b, cursor, "accesses"), at)
        kind = b.and_(b.zext(load_shared(b, ACCESS, access, "space"), I64), I64(3))
        address = load_shared(b, ACCESS, access, "address")
        device, bank, offset = Cell(b, I32(NO_DEVICE)), Cell(b, I32(0)), Cell(b, address)
        go_online(b, vcpu)
        map_ = load_shared(b, MACHINE, machine, "map", "acquire")
        place = b.or_(address, b.shl(kind, I64(CLAIM_KIND_SHIFT)))
        claim = b.call(self.exit_loop.claim, [map_, place])
        with b.if_then(b.icmp_unsigned("!=", claim, NULL)):
            device.set(CLAIM.load(b, claim, "device"))
            bank.set(CLAIM.load(b, claim, "bank"))
            offset.set(b.sub(place, CLAIM.load(b, claim, "first")))
        go_offline(b, vcpu)
        put("kind", b.trunc(kind, I32))
        put("bank", bank.get())
        put("offset", offset.get())
        put("address", address)
        put("op", b.and_(b.zext(load_shared(b, ACCESS, access, "op"), I32), I32(1)))
        log2_size = b.and_(b.zext(load_shared(b, ACCESS, access, "log2_size"), I32), I32(3))
        put("size", b.shl(I32(1), log2_size))
        mask = b.lshr(I64(-1), b.sub(I64(64), b.shl(I64(8), b.zext(log2_size, I64))))
        put("value", b.and_(load_shared(b, ACCESS, access, "value"), mask))
        outcomes = CURSOR.load(b, cursor, "outcomes")
        put("outcome", b.zext(b.load(element(b, outcomes, I8, at), typ=I8), I32))
        arguments = CURSOR.load(b, cursor, "arguments")
        is_call = b.icmp_unsigned("==", kind, I64(HYPERCALL))
        with b.if_then(b.and_(is_call, b.icmp_unsigned("!=", arguments, NULL))):
            page = VCPU.load(b, vcpu, "page")
            count = dict(RUN_PAGE.fields)["arguments"][1]  # type: ignore[index]
            for number in range(count):
                index = b.add(b.mul(at, I64(count)), I64(number))
                given = b.load(element(b, arguments, I64, index), typ=I64)
                RUN_PAGE.store(b, given, page, "arguments", I64(number))
        return device.get()

    def _hand_over(self) -> None:
        """hand_over(vcpu, reason, device) -> DONE when userspace has answered; STOPPED or STORM otherwise."""
        b, (vcpu, reason, device) = body(self.hand_over)
        page = VCPU.load(b, vcpu, "page")
        state = RUN_PAGE.address(b, page, "state")
        outcome = b.zext(load_shared(b, RUN_PAGE, page, "outcome"), I64)
        self._users_turn(b, vcpu, page)
        spins = Cell(b, VCPU.load(b, vcpu, "spins"))
        with forever(b):
            found = load_shared(b, RUN_PAGE, page, "state", "acquire")
            answered = b.icmp_unsigned("==", found, I32(PageState.ANSWERED))
            effects = b.icmp_unsigned("==", found, I32(PageState.EFFECTS))
            with b.if_then(b.or_(answered, effects)):
                self._take_effects(b, vcpu, device)
                with b.if_then(answered):
                    answer = load_shared(b, RUN_PAGE, page, "answer")
                    store_shared(b, RUN_PAGE, I32(PageState.RUNNING), page, "state", "release")
                    with b.if_then(b.icmp_unsigned("==", reason, I64(Reason.ACCESS))):
                        b.call(self.exit_loop.complete, [vcpu, answer, outcome])
                    b.ret(I64(Reason.DONE))
                self._users_turn(b, vcpu, page)
                spins.set(VCPU.load(b, vcpu, "spins"))
            with b.if_then(b.icmp_unsigned("!=", load_shared(b, VCPU, vcpu, "stop"), I64(0))):
                b.ret(I64(Reason.STOPPED))
            with b.if_else(b.icmp_unsigned("!=", spins.get(), I64(0))) as (spinning, sleeping):
                with spinning:
                    pause(b)
                    spins.set(b.sub(spins.get(), I64(1)))
                with sleeping:
                    store_shared(b, RUN_PAGE, I32(1), page, "machine_sleeps")
                    b.fence("seq_cst")
                    futex_wait(b, state, I32(PageState.EXIT), I64(_LOOK))
                    store_shared(b, RUN_PAGE, I32(0), page, "machine_sleeps")
                    self._restore_state(b, page)

    def _users_turn(self, b: Any, vcpu: Any, page: Any) -> None:
        """Hand the page over, and wake userspace if it sleeps: one of the two sees what the other stored."""
        store_shared(b, RUN_PAGE, I32(PageState.EXIT), page, "state", "release")
        b.fence("seq_cst")
        with b.if_then(b.icmp_unsigned("!=", load_shared(b, RUN_PAGE, page, "user_sleeps"), I32(0))):
            write_eventfd(b, VCPU.load(b, vcpu, "wake_fd"))

    def _restore_state(self, b: Any, page: Any) -> None:
        """Whatever is no state is userspace's turn: sleeping on a word that holds another is spinning."""
        state = load_shared(b, RUN_PAGE, page, "state")
        handed = b.icmp_unsigned(">=", state, I32(PageState.EXIT))
        known = b.and_(handed, b.icmp_unsigned("<=", state, I32(PageState.EFFECTS)))
        with b.if_then(b.not_(known)):
            store_shared(b, RUN_PAGE, I32(PageState.EXIT), page, "state")

    def _take_effects(self, b: Any, vcpu: Any, device: Any) -> None:
        """Carry out the effects in the page for the device whose exit it is; STORM if there is no room."""
        page, exit_ = VCPU.load(b, vcpu, "page"), VCPU.address(b, vcpu, "exit")
        asked = RUN_PAGE.address(b, page, "effects")
        every = Cell(b, I32(0))
        for name in _EFFECTS:
            mask = load_shared(b, EXIT, asked, name)
            EXIT.store(b, mask, exit_, name)
            store_shared(b, EXIT, I32(0), asked, name)
            every.set(b.or_(every.get(), mask))
        known = b.icmp_unsigned("!=", device, I32(NO_DEVICE))
        with b.if_then(b.icmp_unsigned("!=", every.get(), I32(0)), likely=False):
            with b.if_then(b.not_(known)):
                for name in _EFFECTS:
                    EXIT.store(b, I32(0), exit_, name)
            with b.if_then(known):
                self._copy_deadlines(b, asked, exit_)
                machine = VCPU.load(b, vcpu, "machine")
                go_online(b, vcpu)
                room = b.call(
                    self.exit_loop.delivery.request, [machine, self._device(b, machine, device), exit_]
                )
                go_offline(b, vcpu)
                with b.if_then(b.icmp_unsigned("==", room, I64(0)), likely=False):
                    b.ret(I64(Reason.STORM))

    def _copy_deadlines(self, b: Any, asked: Any, exit_: Any) -> None:
        count = dict(EXIT.fields)["deadline"][1]  # type: ignore[index]
        for number in range(count):
            EXIT.store(b, EXIT.load(b, asked, "deadline", I64(number)), exit_, "deadline", I64(number))

    def _tick(self) -> None:
        """tick(vcpu) -> reason: run timers and events of a live VM when they are due, until it is stopped."""
        b, (vcpu,) = body(self.tick)
        machine = VCPU.load(b, vcpu, "machine")
        word = MACHINE.address(b, machine, "ticks")
        with forever(b):
            stop = load_shared(b, VCPU, vcpu, "stop")
            self._leave_if(b, vcpu, b.icmp_unsigned("!=", stop, I64(0)), I64(Reason.STOPPED))
            store_shared(b, MACHINE, I32(1), machine, "ticker_sleeps")
            before = load_shared(b, MACHINE, machine, "ticks", "seq_cst")
            soonest = load_shared(b, MACHINE, machine, "next_deadline", "seq_cst")
            now = self._now(b, vcpu)
            with b.if_then(b.icmp_unsigned(">", soonest, now)):
                wait = b.sub(soonest, now)
                short = b.icmp_unsigned("<", wait, I64(_LOOK))
                futex_wait(b, word, before, b.select(short, wait, I64(_LOOK)))
            store_shared(b, MACHINE, I32(0), machine, "ticker_sleeps")
            MACHINE.store(b, I64(0), machine, "expired")
            go_online(b, vcpu)
            reason = b.call(self.exit_loop.delivery.settle, [vcpu, self._now(b, vcpu), I64(1)])
            go_offline(b, vcpu)
            event = b.icmp_unsigned("==", reason, I64(Reason.EVENT))
            with b.if_then(b.or_(event, b.icmp_unsigned("==", reason, I64(Reason.TIMER)))):
                self._exit(b, vcpu, reason)

    def _now(self, b: Any, vcpu: Any) -> Any:
        clock = VCPU.load(b, vcpu, "clock")
        offset = EXIT.load(b, VCPU.address(b, vcpu, "exit"), "clock_offset")
        return b.add(b.call(self.exit_loop.now, [clock]), offset)

    def _device(self, b: Any, machine: Any, index: Any) -> Any:
        return DEVICE.element(b, MACHINE.load(b, machine, "devices"), b.zext(index, I64))


def build_userspace() -> Any:
    """The module with `devbc_wait(page, spins)`, `devbc_answer(page, state)`, `devbc_tail(feed, tail)`."""
    module = ir.Module("devbc_userspace")

    # wait: spin for userspace's turn; 1 if it has come. If not, it says that it sleeps: the caller polls its
    # eventfd, and calls again.
    b, (page, spins) = body(ir.Function(module, ir.FunctionType(I32, [PTR, I64]), WAIT))
    left = Cell(b, spins)
    store_shared(b, RUN_PAGE, I32(0), page, "user_sleeps")

    def turn() -> Any:
        return b.icmp_unsigned("==", load_shared(b, RUN_PAGE, page, "state", "acquire"), I32(PageState.EXIT))

    with while_(b, lambda: b.icmp_unsigned("!=", left.get(), I64(0))):
        with b.if_then(turn()):
            b.ret(I32(1))
        pause(b)
        left.set(b.sub(left.get(), I64(1)))
    store_shared(b, RUN_PAGE, I32(1), page, "user_sleeps")
    b.fence("seq_cst")
    with b.if_then(turn()):
        store_shared(b, RUN_PAGE, I32(0), page, "user_sleeps")
        b.ret(I32(1))
    b.ret(I32(0))

    # answer: hand the page back, with a state that says what is in it.
    b, (page, state) = body(ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR, I32]), ANSWER))
    store_shared(b, RUN_PAGE, state, page, "state", "release")
    b.fence("seq_cst")
    with b.if_then(b.icmp_unsigned("!=", load_shared(b, RUN_PAGE, page, "machine_sleeps"), I32(0))):
        futex_wake(b, RUN_PAGE.address(b, page, "state"))
    b.ret_void()

    # tail: the ring's accesses are written up to here.
    b, (feed, tail) = body(ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR, I64]), TAIL))
    store_shared(b, FEED, tail, feed, "tail", "release")
    b.ret_void()
    return module
