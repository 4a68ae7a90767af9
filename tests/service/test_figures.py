"""Figures against what a client sees of its own guest: each access is counted once, under its reason."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from devbc.client import Vm
from devbc.client.vcpu import Vcpu
from devbc.hypervisor.layouts import Outcome
from tests.service.probe import BASE, KEEP, STEP, VALUE, probe, read, vm_with_probe, write
from tests.service.served import Served, await_

#: Accesses by what their handler needs; None where no handler is bound.
ACCESSES = {
    read(STEP): "lock",
    write(VALUE, 3): "lock",
    read(VALUE): "sequence",
    read(KEEP): "none",  # declined
    read(BASE + 0x1C): None,
}
WHY = {"lock": "lock held", "sequence": "in change"}


def told(vm: Vm) -> Counter[str]:
    """What became of all accesses of a VM, by its figures."""
    figures = vm.figures()
    found: Counter[str] = Counter()
    for each in figures.handlers:
        found["handled"] += each.handled
        found["declined"] += each.declined
        found[WHY.get(each.guard, "queue full")] += each.contended
    for device in figures.unanswered.values():
        found["no handler"] += device.no_handler
        found["unloaded"] += device.unloaded
        found["abandoned"] += device.abandoned
    return +found


def seen(vcpu: Vcpu, access: bytes, needs: str | None, without: str) -> str:
    """What became of one access, as its client sees it; `without`: why there is no program."""
    vcpu.feed(access)
    outcome = Outcome.HANDLED
    for exit_ in vcpu.run():
        outcome = exit_.outcome
        exit_.answer()
    match outcome:
        case Outcome.NO_PROGRAM:
            return without or "no handler"
        case Outcome.CONTENDED:
            assert needs
            return WHY[needs]
        case Outcome.HANDLED | Outcome.DECLINED:
            return outcome.name.lower()
    raise AssertionError(outcome)


@pytest.mark.parametrize("seed", range(2))
def test_each_access_is_counted_under_its_reason(service: Served, seed: int) -> None:
    """Programs come and go, locks are held; figures of handlers start anew with each attachment."""
    source = random.Random(seed)
    with service.connect() as hypervisor:
        vm, device = vm_with_probe(hypervisor, engine=None)
        vcpu = vm.create_vcpu(1)
        attached = False
        runs, without = Counter[str](), Counter[str]()
        for _ in range(150):
            match source.randrange(20):
                case 0:
                    device.detach()
                    attached = False
                    runs.clear()
                case 1:
                    device.attach("interp")
                    attached = True
                    runs.clear()
                case 2:
                    device.replace(probe(), engine="interp")
                    attached = True
                    runs.clear()
            access, needs = source.choice([*ACCESSES.items()])
            why = "" if attached else "unloaded"
            if source.random() < 0.3:
                with device.lock:
                    found = seen(vcpu, access, needs, why)
                    assert found not in ("handled",)
            else:
                found = seen(vcpu, access, needs, why)
                assert found not in WHY.values()
            (without if found in ("no handler", "unloaded") else runs)[found] += 1
            assert told(vm) == runs + without


def test_accesses_of_a_device_that_was_abandoned(service: Served) -> None:
    with service.connect() as hypervisor:
        vm, device = vm_with_probe(hypervisor, "abandoned", persists=True, engine="interp")
        vcpu = vm.create_vcpu(1)
        assert seen(vcpu, read(BASE + 0x1C), None, "") == "no handler"
        with service.connect() as dying:
            assert dying.open_vm("abandoned").device("probe").lock.try_lock()
            assert seen(vcpu, read(STEP), "lock", "") == "lock held"
        assert await_(lambda: device.status().abandoned)
        for _ in range(5):
            assert seen(vcpu, read(STEP), "lock", "abandoned") == "abandoned"
        assert told(vm) == {"no handler": 1, "abandoned": 5}
        device.attach("interp")
        device.detach()
        assert seen(vcpu, read(STEP), "lock", "unloaded") == "unloaded"
        assert told(vm) == {"no handler": 1, "abandoned": 5, "unloaded": 1}
        vm.destroy()
