"""Native loops that time things: LLVM IR, so that no Python and no C compiler is in what is measured.

`repeat` calls one function through a pointer; `sequence` a row of them in turn. `ping` and `pong` hand eight
bytes to and fro by write(2) and read(2): an eventfd, a pipe or a socket, whatever the descriptors are. The
futex pair shares a word: its holder's turn is its number. `spins` is how often the word is looked at before
sleeping; with very many, nobody ever sleeps. Who answers calls `model` each time, or `nothing`.

Arguments that a loop does not use are 0. Everything returned is added up and handed back, so that no call can
be left out.
"""

from __future__ import annotations

import ctypes
import re
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from itertools import cycle
from time import perf_counter_ns
from typing import Final

from bench.runner import Work

_SYSCALL_FUTEX: Final = {"x86_64": 202, "aarch64": 98, "riscv64": 98}


#: Where in a cache line a loop begins, in bytes: code of seven cycles takes one more in some of these places,
#: C's as well as the JIT's, so that each sample has the next.
_PLACES: Final = range(0, 64, 8)


def _counted(signature: str, *body: str, first: Sequence[str] = (), each: str = "0", place: int = 0) -> str:
    """A function that runs `body` %rounds times, `first` once before, and returns the sum of `each`."""
    before, within = ("\n  ".join(lines) for lines in (first, body))
    return f"""
define i64 @{signature} align 64 prefix [{place} x i8] zeroinitializer {{
entry:
  {before}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]
  %sum = phi i64 [ 0, %entry ], [ %sum.next, %loop ]
  {within}
  %sum.next = add i64 %sum, {each}
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %rounds
  br i1 %more, label %loop, label %done
done:
  ret i64 %sum.next
}}
"""


#: The words of a `Call` at %call, the function and its four arguments; and the call.
_LOAD: Final = tuple(
    line
    for number, kind in enumerate(("ptr", "i64", "i64", "i64", "i64"))
    for line in (
        f"%at.{number} = getelementptr i64, ptr %call, i64 {number}",
        f"%word.{number} = load {kind}, ptr %at.{number}",
    )
)
_CALL: Final = "%r = call i64 %word.0(i64 %word.1, i64 %word.2, i64 %word.3, i64 %word.4)"
_COUNTED: Final = (
    *(
        _counted(f"repeat.{place}(ptr %call, i64 %rounds)", _CALL, first=_LOAD, each="%r", place=place)
        for place in _PLACES
    ),
    _counted(
        "readings(ptr %to, i64 %rounds)",
        "%at = getelementptr i64, ptr %to, i64 %i",
        "%now = call i64 @llvm.readcyclecounter()",
        "store i64 %now, ptr %at",
    ),
    _counted(
        "ping(i32 %out, i32 %in, i64 %rounds)",
        "%written = call i64 @write(i32 %out, ptr %word, i64 8)",
        "%read = call i64 @read(i32 %in, ptr %word, i64 8)",
        first=("%word = alloca i64", "store i64 1, ptr %word"),
        each="%read",
    ),
    _counted(
        "futex_ping(ptr %word, i64 %spins, i64 %rounds)",
        "call void @hand(ptr %word, i32 1, i64 %spins)",
        "%seen = call i32 @await(ptr %word, i32 0, i64 %spins)",
    ),
)
_IR: Final = (
    """
declare i64 @llvm.readcyclecounter()
declare i64 @read(i32, ptr, i64)
declare i64 @write(i32, ptr, i64)
declare i64 @syscall(i64, ...)
declare i32 @ioctl(i32, i64, ...)
DECLARE
"""
    + "".join(_COUNTED)
    + """
define i64 @sequence(ptr %calls, i64 %count, i64 %rounds) {
entry:
  br label %outer
outer:
  %i = phi i64 [ 0, %entry ], [ %i.next, %outer.next ]
  %sum.outer = phi i64 [ 0, %entry ], [ %sum.next, %outer.next ]
  br label %inner
inner:
  %n = phi i64 [ 0, %outer ], [ %n.next, %inner ]
  %sum = phi i64 [ %sum.outer, %outer ], [ %sum.next, %inner ]
  %call = getelementptr [5 x i64], ptr %calls, i64 %n
  CALL
  %sum.next = add i64 %sum, %r
  %n.next = add i64 %n, 1
  %more.inner = icmp ult i64 %n.next, %count
  br i1 %more.inner, label %inner, label %outer.next
outer.next:
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %rounds
  br i1 %more, label %outer, label %done
done:
  ret i64 %sum.next
}

; One 32-bit word copied to another: what userspace does to empty a ring, `*to = *from`.
define i64 @drain(ptr %from, ptr %to, i64 %x, i64 %y) {
  %value = load volatile i32, ptr %from
  store volatile i32 %value, ptr %to
  ret i64 0
}

; The counter alone: what a program that asks for the time cannot do without.
define i64 @counter(i64 %w, i64 %x, i64 %y, i64 %z) {
  %now = call i64 @llvm.readcyclecounter()
  ret i64 %now
}

; The same, read after all that came before: what the exit loop asks for where another vCPU has been at work.
define i64 @ordered_counter(i64 %w, i64 %x, i64 %y, i64 %z) {
  LFENCE
  %now = call i64 @llvm.readcyclecounter()
  ret i64 %now
}

define void @nothing() {
  ret void
}

; Answers until there is nothing more to be read.
define i64 @pong(i32 %in, i32 %out, ptr %model) {
entry:
  %word = alloca i64
  br label %loop
loop:
  %read = call i64 @read(i32 %in, ptr %word, i64 8)
  %whole = icmp eq i64 %read, 8
  %value = load i64, ptr %word
  %stop = icmp ugt i64 %value, 1
  %last = xor i1 %whole, true
  %end = or i1 %stop, %last
  br i1 %end, label %done, label %answer
answer:
  call void %model()
  %written = call i64 @write(i32 %out, ptr %word, i64 8)
  br label %loop
done:
  ret i64 0
}

; Waits until the word is `mine`: looks `spins` times, then sleeps on it (FUTEX_WAIT, 0). 2 ends it all.
define internal i32 @await(ptr %word, i32 %mine, i64 %spins) {
entry:
  br label %look
look:
  %left = phi i64 [ %spins, %entry ], [ %less, %spin ], [ 0, %sleep ]
  %seen = load atomic i32, ptr %word acquire, align 4
  %turn = icmp eq i32 %seen, %mine
  %over = icmp eq i32 %seen, 2
  %go = or i1 %turn, %over
  br i1 %go, label %done, label %wait
wait:
  %tired = icmp eq i64 %left, 0
  br i1 %tired, label %sleep, label %spin
spin:
  %less = sub i64 %left, 1
  PAUSE
  br label %look
sleep:
  %slept = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i32 0, i32 %seen, ptr null)
  br label %look
done:
  ret i32 %seen
}

; Gives the word to `theirs`; somebody who may sleep is woken (FUTEX_WAKE, 1).
define internal void @hand(ptr %word, i32 %theirs, i64 %spins) {
entry:
  store atomic i32 %theirs, ptr %word seq_cst, align 4
  %awake = icmp ugt i64 %spins, 1000000
  br i1 %awake, label %done, label %wake
wake:
  %woken = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i32 1, i32 1)
  br label %done
done:
  ret void
}

define i64 @futex_pong(ptr %word, i64 %spins, ptr %model) {
entry:
  br label %loop
loop:
  %seen = call i32 @await(ptr %word, i32 1, i64 %spins)
  %over = icmp eq i32 %seen, 2
  br i1 %over, label %done, label %answer
answer:
  call void %model()
  call void @hand(ptr %word, i32 0, i64 %spins)
  br label %loop
done:
  ret i64 0
}

; KVM_RUN again and again; stops at the first that fails. 44672 is _IO(0xAE, 0x80).
define i64 @kvm_exits(i32 %vcpu, i64 %rounds) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %failed = call i32 (i32, i64, ...) @ioctl(i32 %vcpu, i64 44672, i64 0)
  %bad = icmp ne i32 %failed, 0
  br i1 %bad, label %done, label %next
next:
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %rounds
  br i1 %more, label %loop, label %done
done:
  %count = phi i64 [ %i, %loop ], [ %i.next, %next ]
  ret i64 %count
}
"""
)
_EXPORTS: Final = (
    *(f"repeat.{place}" for place in _PLACES),
    "sequence", "drain", "readings", "counter", "ordered_counter", "nothing", "ping", "pong", "futex_ping",
    "futex_pong", "kvm_exits",
)  # fmt: skip
#: So many spins that nobody sleeps, and nobody needs to be woken (`hand` in the text above).
NEVER_SLEEPS: Final = 1 << 62


class Call:
    """A function's address and its arguments, for `repeat` and `sequence`."""

    __slots__ = ("keep", "words")

    def __init__(self, function: int, *arguments: int, keep: object = None) -> None:
        """`keep`: what the addresses belong to, alive as long as the call."""
        self.words = (function, *arguments, *[0] * (4 - len(arguments)))
        self.keep = keep


class Loops:
    """The loops, compiled; all of them let go of the interpreter's lock."""

    def __init__(self) -> None:
        from devbc.engines.native import NativeModule, host_machine

        machine = host_machine()
        # LLVM is not given inline assembly here; elsewhere these have no instruction without it.
        intrinsics = {"PAUSE": "llvm.x86.sse2.pause", "LFENCE": "llvm.x86.sse2.lfence"}
        declared, text = "", _IR.replace("FUTEX,", f"{_SYSCALL_FUTEX[machine]},")
        text = text.replace("CALL\n", "\n  ".join((*_LOAD, _CALL)) + "\n")
        for word, name in intrinsics.items():
            x86 = machine == "x86_64"
            text = re.sub(rf"\b{word}\b", f"call void @{name}()" if x86 else "", text)
            declared += f"declare void @{name}()\n" if x86 else ""
        text = text.replace("DECLARE", declared)
        self._module = NativeModule(text, _EXPORTS, ["read", "write", "syscall", "ioctl"])
        i32, i64, p = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
        self._repeat = [self._function(f"repeat.{place}", p, i64) for place in _PLACES]
        self._sequence = self._function("sequence", p, i64, i64)
        self._readings = self._function("readings", p, i64)
        self.ping = self._function("ping", i32, i32, i64)
        self.pong = self._function("pong", i32, i32, p)
        self.futex_ping = self._function("futex_ping", p, i64, i64)
        self.futex_pong = self._function("futex_pong", p, i64, p)
        self.kvm_exits = self._function("kvm_exits", i32, i64)
        self.drain = self._module.address("drain")
        self.nothing = self._module.address("nothing")
        self.counter = self._module.address("counter")
        self.ordered_counter = self._module.address("ordered_counter")

    def _function(self, name: str, *arguments: type) -> Callable[..., int]:
        prototype = ctypes.CFUNCTYPE(ctypes.c_int64, *arguments)
        function: Callable[..., int] = prototype(self._module.address(name))
        return function

    def counter_readings(self, count: int) -> list[int]:
        readings = (ctypes.c_uint64 * count)()
        self._readings(ctypes.addressof(readings), count)
        return list(readings)

    def work(self, calls: Sequence[Call], operations: int = 1) -> Work:
        """Work that goes through the calls, `operations` of them being what is counted."""
        words = array("Q", [word for call in calls for word in call.words])
        address = words.buffer_info()[0]
        kept = (words, calls)  # native code has their addresses
        places = cycle(self._repeat)

        def work(count: int) -> float:
            assert kept
            turns = -(-count // operations)
            repeat = next(places)
            start = perf_counter_ns()
            if len(calls) == 1:
                repeat(address, turns)
            else:
                self._sequence(address, len(calls), turns)
            return (perf_counter_ns() - start) * count / (turns * operations)

        return work


@cache
def loops() -> Loops:
    return Loops()
