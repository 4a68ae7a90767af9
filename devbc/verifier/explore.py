"""Following every path of a handler over abstract states, and counting the longest.

Depth first, in the manner of the Linux verifier: a conditional jump whose outcome is open forks the path;
loops are run through, with what is known of their counters. Where paths meet, a state is compared with
those that were there before it at the same chain of calls:

- one that is covered by a state from which everything has been explored needs no exploring: its runs are
  among that state's runs, so they keep the contract and are no longer;
- one that equals a state still being explored, on this very path, has come round a loop without progress:
  the loop need not end, and the handler is refused.

Every cycle has a place where paths meet, so an endless path has an endless row of states there; it ends
because states repeat, or because the path has become longer than a run may be. The states form a graph
without cycles, and the longest run from each is known when its successors' are: `remaining`.

Not here: what instructions do (`devbc.semantics` on `machine.py`), and what dead state is
(`liveness.py`); a comparison sees only live registers and stack bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from devbc import semantics
from devbc.abi import Helper, Verdict
from devbc.isa.insn import Insn, written_registers
from devbc.isa.opcodes import FRAME_POINTER, REGISTERS, Kind, Operation, Source
from devbc.program.verified import Region
from devbc.verifier import errors
from devbc.verifier.budget import Budget, overspent, weight
from devbc.verifier.errors import Fault
from devbc.verifier.liveness import Liveness, stack_bits
from devbc.verifier.machine import AbstractMachine
from devbc.verifier.policy import Policy
from devbc.verifier.shape import Shape
from devbc.verifier.state import SAVED, Frame, Link, Snapshot, State, joined, snapshot
from devbc.verifier.tables import Op, Role, Tables
from devbc.verifier.values import Pointer, Value, is_word
from devbc.verifier.word import Word

#: Finished states that a new one is compared with at a meeting point, newest first.
_CANDIDATES: Final = 16

#: Finished states that make a meeting point crowded; states of one outline that may arrive there until they
#: are joined, and until what differs in them is forgotten.
_CROWD: Final = 8
_JOIN_AFTER: Final = 4
_FORGET_AFTER: Final = 8

#: r1 to r5.
_ARGUMENTS: Final = 0b111110

#: Called before each instruction that is explored, with its slot and the state.
Observer = Callable[[int, State], None]

# Bound to names of their own: an enum's attributes are slow to look up, and this is the inner loop.
_JUMP, _JA, _CALL, _EXIT, _LOAD, _STORE = (
    Kind.JUMP, Kind.JA, Kind.CALL, Kind.EXIT, Kind.LOAD, Kind.STORE,
)  # fmt: skip
_ADD, _SUB, _AND, _LSH, _REG = Operation.ADD, Operation.SUB, Operation.AND, Operation.LSH, Source.REG
_MOVES: Final = frozenset({Operation.MOV, Operation.MOVSX})
_FLIPS: Final = frozenset({Operation.OR, Operation.XOR})
_RIGHT_SHIFTS: Final = frozenset({Operation.RSH, Operation.ARSH})
_PRODUCT, _COPY, _PART, _SHIFTED = Role.PRODUCT, Role.COPY, Role.PART, Role.SHIFTED

#: Where a load's result is a function of the address: of scratch nothing is known, rodata does not change.
_STEADY: Final = (Region.SCRATCH, Region.RODATA)


class Stretch:
    """A stretch of a path, from where it was entered to where it forks, meets others or ends.

    `depth`: instructions before it on its path; `cost`: its own, so far; `remaining`: of the longest run from
    its beginning, once all that follows has been explored; `heaviest`: what follows it on that run.
    """

    __slots__ = ("cost", "depth", "done", "heaviest", "longest", "place", "remaining", "todo")

    def __init__(self, depth: int, place: tuple[_Meeting, Snapshot] | None) -> None:
        self.depth = depth
        self.place = place
        self.cost = 0
        self.longest = 0
        self.heaviest: Stretch | None = None
        self.remaining = 0
        self.done = False
        self.todo: list[State] = []

    def followed_by(self, other: Stretch) -> None:
        if other.remaining > self.longest:
            self.longest, self.heaviest = other.remaining, other


class _Meeting:
    """The states that arrived at one slot by one chain of calls."""

    __slots__ = ("crowds", "finished", "known", "slot")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.known: dict[Snapshot, Stretch] = {}
        #: By outline: how many arrived since the place is crowded, and the last of them.
        self.crowds: dict[tuple[object, ...], tuple[int, Snapshot]] = {}
        self.finished: list[tuple[Snapshot, Stretch]] = []

    def covering(self, arrived: Snapshot) -> Stretch | None:
        for earlier, node in reversed(self.finished[-_CANDIDATES:]):
            if earlier.covers(arrived):
                return node
        return None


class Exploration:
    """All paths of one handler. `run` raises Fault at the first breach; its place is `machine.state.slot`."""

    def __init__(
        self,
        shape: Shape,
        ops: Mapping[int, Op],
        live: Liveness,
        machine: AbstractMachine,
        tables: Tables,
        budget: Budget,
        policy: Policy,
        observer: Observer | None,
    ) -> None:
        self.machine = machine
        self.worst_case = 0
        self.verdicts: set[Verdict] = set()
        self.helpers: set[Helper] = set()
        self.visited: set[int] = set()
        #: Left operands of the multiplications, by slot.
        self.operands: dict[int, set[Value | None]] = {}
        #: Chains of functions that call each other, with the slot of the last call.
        self.chains: dict[tuple[int, ...], int] = {(0,): 0}
        #: What this has cost of the budget.
        self.steps = 0
        #: Instructions on the path up to the one that the observer is shown, that one included; if a fault is
        #: found where paths meet, up to there.
        self.depth = 0
        #: The stretch of that instruction.
        self.stretch = Stretch(0, None)
        self.shape = shape
        self._ops = ops
        self._live = live
        self._policy = policy
        self._observer = observer
        self._words = machine.words
        self._meetings: dict[tuple[int, tuple[int, ...]], _Meeting] = {}
        self._arrivals: Counter[int] = Counter()
        self._symbols = 0
        self._path: list[Stretch] = []
        self._forks: Counter[int] = Counter()
        self._budget = budget
        self._tables = tables
        #: What loads gave, by slot and base register.
        self._loaded: dict[tuple[int, Value | None], Value] = {}
        #: Registers to forget, by slot and registers to keep.
        self._dead: dict[tuple[int, int], tuple[int, ...]] = {}

    def run(self) -> None:
        root = Stretch(0, None)
        root.todo.append(self._entry())
        path = self._path
        path.append(root)
        while path:
            node = path[-1]
            if node.todo:
                child = self._arrive(node, node.todo.pop())
                if child is not None:
                    path.append(child)
                continue
            path.pop()
            node.done = True
            node.remaining = node.cost + node.longest
            if node.place is not None:
                meeting, arrived = node.place
                meeting.finished.append((arrived, node))
                # Nothing is left that refers to itself: it goes when the exploration goes, uncollected.
                node.place = None
            if path:
                path[-1].followed_by(node)
        self.worst_case = root.remaining
        if self.worst_case > self._policy.instructions:
            raise self._too_long(self.worst_case)

    def settle(self) -> None:
        """Take what this has cost from the program's budget: once, when it is over."""
        self._budget.spent += self.steps

    def _entry(self) -> State:
        values, words = self.machine.algebra, self._words
        zero = words.const(0, 64)
        registers: list[Value | None] = [None] * REGISTERS
        registers[1] = values.pointer(Region.EXIT, zero)
        for register, argument in self.machine.context.arguments.items():
            registers[register] = words.const(argument, 64)
        registers[FRAME_POINTER] = values.pointer(Region.STACK, zero, 0)
        return State(0, registers, [None] * REGISTERS, [Frame(0, (-1,), [], [], {})])

    # Where paths meet.

    def _arrive(self, parent: Stretch, state: State) -> Stretch | None:
        """Begin a stretch at `state`, unless an earlier one stands for it."""
        depth = self.depth = parent.depth + parent.cost
        if depth > self._policy.instructions:
            self.machine.state = state
            raise self._too_long(depth)
        place = None
        if state.slot in self.shape.joins:
            self._forget_dead(state, state.slot)
            self.steps += weight(state)
            meeting = self._meeting(state)
            arrived = snapshot(state)
            earlier = meeting.known.get(arrived)
            if earlier is not None and not earlier.done:
                raise self._endless(state)
            if earlier is None:
                earlier = meeting.covering(arrived)
            if earlier is None and len(meeting.finished) >= _CROWD:
                state, arrived = self._generalised(meeting, state, arrived)
                earlier = meeting.known.get(arrived) or meeting.covering(arrived)
            if earlier is not None:
                parent.followed_by(earlier)
                return None
            place = (meeting, arrived)
            self._arrivals[state.slot] += 1
        node = Stretch(depth, place)
        if place is not None:
            meeting.known[arrived] = node
        self._stretch(node, state)
        return node

    def _meeting(self, state: State) -> _Meeting:
        chain = (state.slot, state.calls)
        meeting = self._meetings.get(chain)
        if meeting is None:
            meeting = self._meetings[chain] = _Meeting(state.slot)
        return meeting

    def _generalised(self, meeting: _Meeting, state: State, arrived: Snapshot) -> tuple[State, Snapshot]:
        """At a crowded place, a state that stands for more than the one that arrived.

        Where branches in a loop leave ever different unknown numbers behind, their combinations would all be
        explored. Numbers that are known exactly, as loops count with, stay exact.
        """
        outline = arrived.outline()
        count, last = meeting.crowds.get(outline, (0, arrived))
        wider, seen = state, arrived
        if count >= _JOIN_AFTER:
            wider = joined(self.machine.algebra, state, last, forget=count >= _FORGET_AFTER)
            seen = snapshot(wider)
            under_way = meeting.known.get(seen)
            if under_way is not None and not under_way.done:
                # To go on with it would look like a loop without progress, and the state itself is none.
                wider, seen = state, arrived
        meeting.crowds[outline] = (count + 1, seen)
        return wider, seen

    def _forget_dead(self, state: State, slot: int, keep: int = 0) -> None:
        """Forget what is dead at a slot of the function at hand, but for the registers in `keep`."""
        dead = self._dead.get((slot, keep))
        if dead is None:
            live = self._live.registers[slot] | keep
            dead = tuple([each for each in range(FRAME_POINTER) if not live >> each & 1])
            self._dead[slot, keep] = dead
        registers, links = state.registers, state.links
        for register in dead:
            registers[register] = None
        if any(links):
            for register in dead:
                links[register] = None
        cells = state.frames[-1].cells
        if not cells:
            return
        bytes_live = self._live.stack[slot]
        for offset in [each for each, cell in cells.items() if not stack_bits(each, cell.size) & bytes_live]:
            del cells[offset]

    # One stretch.

    def _stretch(self, node: Stretch, state: State) -> None:
        """Run until the path forks, meets others or ends; what follows is left in `node.todo`."""
        machine, shape = self.machine, self.shape
        machine.state = state
        ops, joins, visited = self._ops, shape.joins, self.visited
        limit = self._budget.left
        while True:
            slot = state.slot
            op = ops[slot]
            machine.insn = op.insn
            visited.add(slot)
            node.cost += 1
            self.steps += 1
            if self.steps > limit:
                raise self._too_complex()
            if self._observer is not None:
                self.depth = node.depth + node.cost
                self.stretch = node
                self._observer(slot, state)
            kind = op.kind
            if op.computes:
                self._compute(state, op, slot)
                state.slot = slot + op.slots
            elif kind is _JUMP:
                successors = self._jump(state, op, slot)
                if len(successors) != 1:
                    node.todo = successors
                    return
                state = machine.state = successors[0]
            elif kind is _JA:
                state.slot = op.insn.target(slot) or 0
            elif kind is _CALL:
                self._call(state, op.insn, slot)
            elif kind is _EXIT:
                if not self._exit(state):
                    return
            else:
                self._access(state, op.insn)
                if machine.scanned:
                    self.steps += machine.scanned
                    machine.scanned = 0
                state.slot = slot + 1
            if state.slot in joins:
                node.todo = [state]
                return

    def _compute(self, state: State, op: Op, slot: int) -> None:
        """An operation on registers; its result is a function of their values, and is kept."""
        registers, links, dst = state.registers, state.links, op.dst
        before, operand = registers[op.left], registers[op.right]
        result = op.results.get((before, operand))
        if result is None:
            semantics.step(self.machine, op.insn)
            result = registers[dst]
            assert result is not None
            op.results[before, operand] = result
        else:
            registers[dst] = result
        role, link = op.role, None
        if role is _COPY:
            link = self._link_of_copy(state, op.insn, operand, result)
        elif role is _PART or role is _SHIFTED:
            if (link := links[dst]) is not None:
                link = _link_of_part(link, op.insn, before, result)
        elif role is _PRODUCT:
            self.operands.setdefault(slot, set()).add(before)
        links[dst] = link
        if role is _SHIFTED and link is not None:
            state.recall(self._words, dst)

    def _access(self, state: State, insn: Insn) -> None:
        """A load, store or atomic; a spill and its fill carry the link along."""
        machine, spec, links = self.machine, insn.spec, state.links
        if spec.kind is _LOAD:
            base = state.registers[insn.src]
            steady = isinstance(base, Pointer) and base.region in _STEADY
            known = self._loaded.get((state.slot, base)) if steady else None
            if known is not None:
                # All that there is to check and to note of it has been.
                state.registers[insn.dst], links[insn.dst] = known, None
                return
            semantics.step(machine, insn)
            links[insn.dst] = machine.link if spec.width == 64 else None
            if steady:
                loaded = state.registers[insn.dst]
                assert loaded is not None
                self._loaded[state.slot, base] = loaded
            return
        machine.link = None
        if spec.kind is _STORE:
            if spec.width == 64 and spec.source is _REG and insn.dst == FRAME_POINTER:
                machine.link = links[insn.src] or self._fresh(state, insn.src)
            semantics.step(machine, insn)
            return
        semantics.step(machine, insn)
        for register in written_registers(spec, insn.dst, insn.src):
            links[register] = None

    # Links: which registers hold copies of which.

    def _link_of_copy(self, state: State, insn: Insn, source: Value | None, result: Value) -> Link | None:
        """The link of a copy, or of a part of one; constants and pointers need none."""
        if not is_word(result) or not result.mask:
            return None
        # A register moved onto itself has been overwritten by now.
        link = state.links[insn.src] or self._fresh(state, insn.src)
        # Truncated and extended, and still the same word: then each of its values is unchanged.
        return link if link is None or result is source else _bits_of(link, insn)

    def _fresh(self, state: State, register: int) -> Link | None:
        """A link for a register that had none; constants and pointers need none."""
        value = state.registers[register]
        if not is_word(value) or not value.mask:
            return None
        self._symbols += 1
        link = state.links[register] = Link(self._symbols, 0, (1 << 64) - 1)
        return link

    # Control flow.

    def _jump(self, state: State, op: Op, slot: int) -> list[State]:
        """The states behind a conditional jump."""
        insn = op.insn
        registers, get = state.registers, self.machine.get
        dst = registers[op.dst] or get(op.dst)
        src = op.constant or registers[op.right] or get(op.right)
        outcome = op.outcomes.get((dst, src))
        if outcome is None:
            outcome = op.outcomes[dst, src] = self._tables.decide(insn, dst, src)
        target = slot + 1 + insn.off
        if outcome.truth is not None:
            state.slot = target if outcome.truth else slot + 1
            return [state]
        self._forks[slot] += 1
        self.steps += weight(state)
        taken = state.copy()
        taken.slot = target
        state.slot = slot + 1
        ways = ((taken, outcome.taken), (state, outcome.other))
        # Last in, first out: falling through comes first, so that faults are found in source order.
        return [each for each, learnt in ways if learnt is not None and self._learn(each, op, learnt)]

    def _learn(self, state: State, op: Op, learnt: tuple[Value, Value]) -> bool:
        """Narrow the compared registers and their copies; False if this way turns out impossible."""
        words, registers = self._words, state.registers
        dst, src = learnt
        source = registers[op.right] if op.constant is None else None
        if registers[op.dst] is not dst and is_word(dst) and not state.learn(words, op.dst, dst):
            return False
        if source is None or source is src or not is_word(src):
            return True
        known = registers[op.right]
        if known is not source:
            # The two are copies, or one register: it has been narrowed just now.
            assert isinstance(known, Word)
            met = words.meet(known, src)
            return met is not None and state.learn(words, op.right, met)
        return state.learn(words, op.right, src)

    def _call(self, state: State, insn: Insn, slot: int) -> None:
        registers, links = state.registers, state.links
        if insn.spec.operation is Operation.CALL_LOCAL:
            self._enter(state, insn.target(slot) or 0, slot)
            return
        granted = insn.spec.operation is Operation.CALL_HELPER and insn.imm in self._policy.helpers
        if not granted:
            known = insn.spec.operation is Operation.CALL_HELPER and insn.imm in tuple(Helper)
            name = f"`{Helper(insn.imm).name.lower()}`" if known else f"number {insn.imm}"
            why = "is withheld by the policy" if known else "does not exist here"
            raise Fault(
                errors.HELPER,
                f"helper {name} {why}",
                help=("effects are written into the exit, not called",) if not known else (),
            )
        self.helpers.add(Helper(insn.imm))
        registers[0] = self._words.unknown(64)
        registers[1:6] = [None] * 5
        links[0:6] = [None] * 6
        state.slot = slot + 1

    def _enter(self, state: State, entry: int, slot: int) -> None:
        """A local call: a fresh frame, the arguments, and nothing else of the caller's."""
        frames = state.frames
        if len(frames) >= self._policy.call_depth:
            names = [self.shape.functions[frame.entry] for frame in frames]
            raise Fault(
                errors.CALL_DEPTH,
                f"local calls are nested more than {self._policy.call_depth} deep",
                notes=("the chain is " + " -> ".join(f"`{name}`" for name in names),),
                help=("turn recursion into a loop",) if len(set(names)) < len(names) else (),
            )
        self._forget_dead(state, slot + 1, keep=_ARGUMENTS)
        registers, links = state.registers, state.links
        frames.append(Frame(entry, (*state.calls, slot), registers[SAVED], links[SAVED], {}))
        registers[0], registers[SAVED] = None, [None] * 4
        links[0], links[SAVED] = None, [None] * 4
        registers[FRAME_POINTER] = self.machine.algebra.pointer(
            Region.STACK, self._words.const(0, 64), len(frames) - 1
        )
        self.chains[tuple(frame.entry for frame in frames)] = slot
        state.slot = entry

    def _exit(self, state: State) -> bool:
        """The end of a function; False if it was the handler's own."""
        if len(state.frames) == 1:
            self._answer(state)
            return False
        registers, links = state.registers, state.links
        frame = state.frames.pop()
        gone = len(state.frames)
        result = registers[0]
        if isinstance(result, Pointer) and result.region is Region.STACK and result.frame == gone:
            raise Fault(errors.DANGLING, "a function returns a pointer into its own frame")
        for outer in state.frames:
            for offset, cell in list(outer.cells.items()):
                if isinstance(cell.value, Pointer) and cell.value.frame == gone:
                    del outer.cells[offset]
        registers[1:6], registers[SAVED] = [None] * 5, frame.saved
        links[1:6], links[SAVED] = [None] * 5, frame.links
        registers[FRAME_POINTER] = self.machine.algebra.pointer(
            Region.STACK, self._words.const(0, 64), gone - 1
        )
        state.slot = frame.calls[-1] + 1
        return True

    def _answer(self, state: State) -> None:
        """The handler's verdict, and what it promises about scratch."""
        verdict = state.registers[0]
        wants = ("a handler returns 0 (decline) or 1 (handled) in `r0`",)
        if verdict is None:
            raise Fault(errors.BAD_VERDICT, "the handler returns without a verdict", help=wants)
        if isinstance(verdict, Pointer):
            raise Fault(errors.POINTER_LEAK, "the handler returns a pointer", label=f"`r0` {verdict} here")
        if not self.machine.context.verdict:
            return
        if verdict.umax > Verdict.HANDLED:
            raise Fault(
                errors.BAD_VERDICT,
                "the verdict may be neither 0 nor 1",
                label=f"`r0` {verdict} here",
                help=wants,
            )
        if verdict.contains(Verdict.DECLINE):
            if state.wrote >= 0:
                may = "declines" if verdict.constant is not None else "may decline"
                raise Fault(
                    errors.UNCLEAN_DECLINE,
                    f"the handler {may} after it has written the shared area",
                    label=f"`r0` {verdict} here",
                    labels=((state.wrote, "scratch is written here"),),
                    help=("decide whether to decline before the first write",),
                )
            self.verdicts.add(Verdict.DECLINE)
        if verdict.contains(Verdict.HANDLED):
            self.verdicts.add(Verdict.HANDLED)

    # Giving up.

    def _endless(self, state: State) -> Fault:
        self.machine.state = state
        return Fault(
            errors.ENDLESS,
            "this loop does not end",
            label="a path comes back here with nothing changed",
            help=("bound the number of rounds by a counter, or decline and let userspace wait",),
        )

    def _too_long(self, instructions: int) -> Fault:
        rounds = Counter(node.place[0].slot for node in self._path if node.place is not None)
        slot, count = rounds.most_common(1)[0] if rounds else (self.machine.state.slot, 1)
        cap = self._policy.instructions
        reached = "at least " if self._path else ""
        return Fault(
            errors.TOO_LONG,
            f"a run may take {reached}{instructions:,} instructions, and {cap:,} are allowed",
            slot=slot,
            label=f"a single run may come here {count:,} times or more" if count > 1 else "",
            help=("bound what the number of rounds depends on",) if count > 1 else (),
        )

    def _too_complex(self) -> Fault:
        busiest = max(self._meetings.values(), key=lambda meeting: len(meeting.known), default=None)
        met = list(busiest.known) if busiest is not None else []
        slot = self.machine.state.slot
        return overspent(self._budget, self.shape, slot, self._arrivals, self._forks, met)


def _link_of_part(link: Link, insn: Insn, before: Value | None, result: Value) -> Link | None:
    """The link of the result of an operation with a constant, on a word that has this one."""
    if not is_word(result) or not result.mask:
        return None
    if insn.spec.operation is _AND:
        assert isinstance(before, Word)
        if not (before.value | before.mask) & ~(insn.imm & ((1 << insn.spec.width) - 1)):
            return link
    return _bits_of(link, insn)


def _bits_of(link: Link, insn: Insn) -> Link | None:
    """The link of a result whose operand, beside a constant, is linked; None if it has nothing of it."""
    spec, operation = insn.spec, insn.spec.operation
    symbol, delta, mask, shift = link
    width = (1 << (spec.narrow or spec.width)) - 1
    constant = insn.imm & width
    if operation is _LSH and spec.width == 64 and not shift:
        return Link(symbol, delta, mask & width >> (constant & 63), constant & 63)
    if operation in _RIGHT_SHIFTS and spec.width == 64 and shift == constant & 63:
        # Shifted there and back: an extension of the bits that remained.
        return Link(symbol, delta, mask)
    if shift:
        return None
    if operation in _MOVES:
        mask &= width
    elif operation is _AND:
        mask &= constant
    elif operation in _FLIPS:
        mask &= width & ~constant
    elif operation is _ADD or operation is _SUB:
        # Only on the lowest bits without a gap: beyond it, carries come from other bits.
        mask = (1 << link.whole) - 1 & width
        delta = (delta + (insn.imm if operation is _ADD else -insn.imm)) % (1 << 64)
    else:
        return None
    return Link(symbol, delta, mask) if mask else None
