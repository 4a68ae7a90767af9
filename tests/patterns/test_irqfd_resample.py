"""The resampling pattern against KVM_IRQFD with KVM_IRQFD_FLAG_RESAMPLE."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbc.abi import Op, Space
from devbc.hypervisor.wiring import WireSpec
from tests.hypervisor.machines import device
from tests.patterns.bench import ENGINES, Pattern
from tests.patterns.kvm import ResampledIrq, Write

GSI = 16
STEPS = st.lists(st.sampled_from(("post", "eoi pio", "eoi mmio", "want", "content")), max_size=40)


@cache
def prepared(engine: str) -> Pattern:
    """The pattern, a device that posts to it, and the guest's line."""
    bench = Pattern("irqfd_resample", engine, device("source", [], 0x40))
    name = bench.device.name
    bench.vm.wire(WireSpec("source", "out", name, "post"), WireSpec(name, "gsi", guest=GSI))
    bench.vm.set_level_triggered(1 << GSI)
    return bench


def settle(bench: Pattern) -> None:
    """Line changes reach their device before a guest's next access."""
    bench.vm.access(Space.PIO, Op.READ, 0xFFFF, 1, time=bench.vm.now())


def end_of_interrupt(bench: Pattern, space: Space) -> None:
    assert bench.write(Write(space, bench.at(space), 4, GSI))


@pytest.mark.parametrize("engine", ENGINES)
@given(STEPS)
def test_posts_and_ends_of_interrupt(engine: str, steps: list[str]) -> None:
    """As KVM while nobody says `wanted`; while somebody does, the line stays as it is and nobody is told."""
    bench = prepared(engine)
    bench.reset()
    end_of_interrupt(bench, Space.PIO)
    bench.reset()
    kvm, wanted, rises = ResampledIrq(), False, bench.vm.guest_interrupts
    for step in steps:
        told = kvm.resampled
        match step.split():
            case ["post"]:
                kvm.post()
                bench.vm.devices[1].raise_line("out")
                bench.vm.devices[1].lower_line("out")
                settle(bench)
            case ["eoi", space]:
                end_of_interrupt(bench, Space(space))
                if not wanted:
                    kvm.end_of_interrupt()
            case [word]:
                wanted = word == "want"
                bench.state.wanted = wanted
        assert bench.vm.guest_lines >> GSI & 1 == kvm.asserted
        assert bench.count("resample") == kvm.resampled - told
    assert bench.vm.guest_interrupts - rises == kvm.rises
    assert bench.model.seen == []
