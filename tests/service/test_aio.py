"""The asyncio client: a recording and live guests in one loop, cancelled and closed at any moment."""

from __future__ import annotations

import asyncio
import os
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from devbc.abi import Op, Space
from devbc.client import access
from devbc.client.aio import AsyncHypervisor, AsyncVcpu, AsyncVm, connect_async
from devbc.client.vcpu import ExitKind, Vcpu
from devbc.diagnostics import Rejected
from devbc.guests.recording import read_recording
from devbc.hypervisor.layouts import MISMATCH, Outcome
from tests.service.serving import pc, serving

BOOT = Path(__file__).parents[2] / "bench" / "traces" / "x86-pc-boot.tsv.gz"
SECONDS = 60
#: A port that no device claims: every access is an exit of none.
PORT = 0x1234
READ = access(Space.PIO, Op.READ, PORT, 4)


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("service") / "socket"
    with serving(path):
        yield path


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def run(main: Any) -> Any:
    """A loop of its own, which must leave neither tasks nor threads nor readers behind."""

    async def bounded() -> Any:
        async with asyncio.timeout(SECONDS):
            result = await main
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    before = set(threading.enumerate())
    result = asyncio.run(bounded(), debug=True)
    assert set(threading.enumerate()) <= before
    return result


async def guest(hypervisor: AsyncHypervisor, capacity: int = 16) -> AsyncVcpu:
    """A vCPU in a VM of its own, of which every access is an exit."""
    vm = await hypervisor.create_vm(exits_unclaimed=True)
    return await vm.create_vcpu(capacity)


async def booted_pc(hypervisor: AsyncHypervisor, rtc_base: int) -> AsyncVm:
    devices, wires, _ = pc()
    vm = await hypervisor.create_vm("pc", rtc_base=rtc_base)
    for name, object, at in devices:
        await vm.add_device(name, object, at)
    for wire in wires:
        target = f"guest.{wire.guest}" if wire.guest >= 0 else f"{wire.to_device}.{wire.to_input}"
        await vm.wire(f"{wire.device}.{wire.line}", target)
    for name, _, _ in devices:
        await vm.device(name).attach()
    return vm


def test_a_recording_beside_streaming_guests(socket: Path) -> None:
    """One VM replays the boot with models, others stream meanwhile, all in one loop on two connections."""
    recording = read_recording(BOOT)

    async def replay() -> array[int]:
        async with connect_async(socket) as hypervisor:
            vm = await booted_pc(hypervisor, recording.rtc_base)
            models = await vm.models(pc()[2])
            vcpu = await vm.create_vcpu(len(recording), recorded=True)
            vcpu.feed(recording.accesses)
            await vcpu.run(models)
            assert vcpu.done == len(recording)
            return vcpu.plain.results("outcomes", "B")

    async def stream(hypervisor: AsyncHypervisor, key: int) -> list[int]:
        """Each read is answered with its number among all, and the guest's key."""
        vcpu = await guest(hypervisor)
        count, answers = 0, []
        for batch in (1, 16, 3, 16, 16, 7):
            vcpu.feed(READ * batch)
            async for exit_ in vcpu.exits():
                assert (exit_.kind, exit_.device, exit_.address) == (ExitKind.READ, None, PORT)
                exit_.answer(key + count)
                count += 1
            assert vcpu.done == count
            answers = list(vcpu.answers)
        await vcpu.stop()
        return sorted(answers)

    async def main() -> None:
        async with connect_async(socket) as hypervisor:
            streams = [stream(hypervisor, 1000 * number) for number in range(6)]
            outcomes, *streamed = await asyncio.gather(replay(), *streams)
        assert not any(each & MISMATCH for each in outcomes)
        assert outcomes.count(Outcome.HANDLED) / len(outcomes) > 0.99
        for number, answers in enumerate(streamed):
            assert answers == [1000 * number + last for last in range(59 - 16, 59)]

    run(main())


def test_a_live_vms_timers_and_vcpus(socket: Path) -> None:
    """Timers of a live VM exit by themselves, while its vCPU waits for its model."""
    from devbc_lang import compile_source

    source = """
        device alarm {
            timer ring;
            bank pio[8] { register set at 0 : u32 { write(v) { arm ring at now() + u64(v); } } }
        }
    """
    object = compile_source(source, "alarm.dev").object

    async def main() -> list[str]:
        async with connect_async(socket) as hypervisor:
            vm = await hypervisor.create_vm(live=True)
            alarm = await vm.add_device("alarm", object, {"pio": 0x100})
            await alarm.attach()
            vcpu = await vm.create_vcpu(8)
            vcpu.feed(access(Space.PIO, Op.WRITE, 0x100, 4, 20_000_000))
            vcpu.feed(access(Space.PIO, Op.READ, 0x104, 4))
            events = []

            async def timers() -> None:
                assert vm.timers is not None
                async for exit_ in vm.timers.exits():
                    events.append(f"{exit_.kind} {exit_.port}")
                    exit_.answer()
                    rung.set()

            rung = asyncio.Event()
            waiting = asyncio.create_task(timers())
            async for exit_ in vcpu.exits():
                await rung.wait()
                events.append(f"{exit_.kind} {exit_.offset}")
                exit_.answer()
            await vm.destroy()
            await waiting
            return events

    assert run(main()) == ["timer ring", "read 4"]


def test_cancelled_while_it_waits(socket: Path) -> None:
    """Who is cancelled leaves no reader, and whoever comes next finds the same exit."""

    async def exits(vcpu: AsyncVcpu) -> None:
        async for exit_ in vcpu.exits():
            exit_.answer(1)

    async def main() -> None:
        async with connect_async(socket) as hypervisor:
            vm = await hypervisor.create_vm(live=True)
            assert vm.timers is not None
            loop: Any = asyncio.get_running_loop()
            for _ in range(50):
                task = asyncio.create_task(exits(vm.timers))
                await asyncio.sleep(0.001)
                with pytest.raises(RuntimeError, match="another task"):
                    await exits(vm.timers)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert not loop.remove_reader(vm.timers.plain)
            vcpu = await guest(hypervisor)
            vcpu.feed(READ * 2)
            for answered in (False, False, True):
                async for exit_ in vcpu.exits():
                    if answered:
                        exit_.answer(7)
                    break
            await exits(vcpu)
            assert list(vcpu.answers) == [7, 1]
            vcpu.feed(READ)
            with pytest.raises(RuntimeError, match="was not answered"):
                [each async for each in vcpu.exits()]

    run(main())


def test_a_fast_machine_does_not_starve_the_loop(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every exit is there before anybody has to wait for it, other tasks run nevertheless."""
    ready = Vcpu.ready

    def spinning(vcpu: Vcpu) -> bool:
        while not ready(vcpu):
            pass
        return True

    monkeypatch.setattr(Vcpu, "ready", spinning)

    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        async with connect_async(socket) as hypervisor:
            vm = await hypervisor.create_vm(exits_unclaimed=True)
            vcpu = await vm.create_vcpu(2048)
            vcpu.feed(READ * 2048)
            beside = asyncio.create_task(tick())
            async for exit_ in vcpu.exits():
                exit_.answer()
            beside.cancel()
        return ticks

    assert run(main()) >= 2048 // 64


@pytest.mark.parametrize("rounds", [20])
def test_closed_while_others_wait(socket: Path, rounds: int) -> None:
    """Closing a connection ends what waits on it with S006 or quietly, and gives every descriptor back."""

    async def wait(vcpu: AsyncVcpu) -> None:
        async for _ in vcpu.exits():
            await asyncio.sleep(SECONDS)

    async def one() -> None:
        hypervisor = connect_async(socket)
        async with hypervisor:
            vm = await hypervisor.create_vm(live=True)
            assert vm.timers is not None
            waiting = asyncio.create_task(wait(vm.timers))
            await asyncio.sleep(0)
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.exception() is None or str(waiting.exception()).startswith("S006")
        with pytest.raises(Rejected, match="S006"):
            await hypervisor.vms()

    async def cancelled() -> None:
        """Cancelled with a request on its way, and an exit at hand."""

        async def work() -> None:
            async with connect_async(socket) as hypervisor:
                vcpu = await guest(hypervisor)
                vcpu.feed(READ)
                async for _ in vcpu.exits():
                    await asyncio.gather(*(hypervisor.vms() for _ in range(100)))

        task = asyncio.create_task(work())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(one())
    before = descriptors()
    for _ in range(rounds):
        run(one())
        run(cancelled())
    import gc

    gc.collect()
    assert descriptors() <= before


def test_a_service_that_dies(tmp_path: Path) -> None:
    """Nobody waits for ever: neither for an exit nor for a reply."""
    path = tmp_path / "socket"
    with serving(path) as service:

        async def main() -> None:
            async with connect_async(path) as hypervisor:
                vcpu = await guest(hypervisor)
                vcpu.feed(READ)
                exits = vcpu.exits()
                exit_ = await anext(exits)
                service.kill()
                service.wait()
                exit_.answer()
                with pytest.raises(Rejected, match="S006"):
                    await anext(exits)
                with pytest.raises(Rejected, match="S006"):
                    await hypervisor.vms()

        run(main())


def test_no_service(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(Rejected, match="S001"):
            async with connect_async(tmp_path / "none"):
                pass

    run(main())


def test_lines_and_timers_by_name(socket: Path) -> None:
    """What userspace asks for at other times than while it answers an exit."""
    from devbc_lang import compile_source

    source = """
        device ports {
            line a; line b; timer x; timer y;
            bank pio[4] { register none at 0 : u32 = 0; }
            on y(deadline) { raise a; }
        }
    """
    object = compile_source(source, "ports.dev").object

    async def main() -> None:
        async with connect_async(socket) as hypervisor:
            vm = await hypervisor.create_vm()
            device = await vm.add_device("ports", object, {"pio": 0x100})
            for line in "ab":
                await vm.wire(f"ports.{line}", f"guest.{'ab'.index(line)}")
            await device.attach()
            vcpu = await vm.create_vcpu(8)

            async def lines_after(time: int) -> int:
                vcpu.feed(access(Space.PIO, Op.READ, 0x100, 4, time=time))
                assert [each async for each in vcpu.exits()] == []
                return (await vm.status()).guest_pending

            await device.raise_line("b")
            assert await lines_after(0) == 0b10
            await device.arm("y", 50)
            assert await lines_after(40) == 0b10
            await device.cancel("y")
            assert await lines_after(60) == 0b10
            await device.arm("y", 70)
            assert await lines_after(80) == 0b11
            await device.lower_line("b")
            with pytest.raises(LookupError, match="no timer `z`; there are: `x`, `y`"):
                await device.arm("z", 1)

    run(main())


def test_cancelled_at_any_moment(socket: Path) -> None:
    """Each read is answered with its place; guests' tasks are cancelled all the time, and none is lost."""
    random, count = Random(1), 400

    async def serve(vcpu: AsyncVcpu, key: int) -> None:
        async for exit_ in vcpu.exits():
            if random.random() < 0.5:
                await asyncio.sleep(0)
            exit_.answer(key + vcpu.done)

    async def main() -> int:
        cancelled = 0
        async with connect_async(socket) as hypervisor:
            vcpus = [await guest(hypervisor, 512) for _ in range(4)]
            for vcpu in vcpus:
                vcpu.feed(READ * count)
            keys = {vcpu: 1000 * number for number, vcpu in enumerate(vcpus)}
            while left := [vcpu for vcpu in vcpus if vcpu.done < count]:
                tasks = [asyncio.create_task(serve(vcpu, keys[vcpu])) for vcpu in left]
                await asyncio.sleep(random.choice([0, 0, 0.001, 0.01]))
                for task in tasks:
                    cancelled += task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(each is None or isinstance(each, asyncio.CancelledError) for each in ended)
            for vcpu, key in keys.items():
                assert list(vcpu.answers) == [key + place for place in range(count)]
        return cancelled

    assert run(main()) > 4
