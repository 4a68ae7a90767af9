"""`devbc run`: a recorded guest on a VM of the service, its userspace models in this process."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devbc.cli.output import EXIT_OK, EXIT_REJECTED, Output, cache_option
from devbc.cli.replay_table import COLUMNS, print_replay, rows_options
from devbc.cli.served import connected, counted, engine_option, name, open_vm, said, seconds, socket_option
from devbc.cli.vm import create_machine

if TYPE_CHECKING:
    from devbc.client import Vm
    from devbc.hypervisor.model import Model

SUMMARY = "run a recorded guest on a VM of the service, and compare every value"
EXAMPLES = """\
  devbc run --guest boot.tsv.gz                         on a VM of its own, with a PC's devices
  devbc run --guest boot.tsv.gz --vm pc --vcpus 2       on a VM that is there
  devbc run --guest a.tsv --vm lab --models ./devices   with models of your own
"""
_NOTES = f"""\
What no program answers is an exit to this process, which holds the devices' userspace models: the service
hands the access over through shared memory, and its vCPU waits. A device's model is found by the name of its
program; a device without one reads as it was recorded. Models reset their devices when they start.

With several vCPUs the recording's accesses go to them in bursts, and are still done in the recording's order:
every value must be the recorded one.

{COLUMNS}
Without --vm, a VM with the devices of --machine is made for the run.
"""
#: vCPUs of a run at most; the service has the last word.
_MOST = 16


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _NOTES
    parser.add_argument(
        "--guest", required=True, type=Path, metavar="TRACE", help="a recording, gzipped or not"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--vm", type=name, metavar="VM", help="a VM of the service, by name or number")
    where.add_argument(
        "--machine",
        help="the machine of a VM for this run: a name, or a path ending in .toml (default: what it was "
        "recorded on, else pc)",
    )  # fmt: skip
    parser.add_argument(
        "--vcpus", type=_vcpus, default=1, metavar="N", help="vCPUs to split it over (default: 1)"
    )
    parser.add_argument(
        "--models", "--devices", action="append", type=Path, default=[], metavar="DIR", dest="devices",
        help="a folder to look for models, devices and machines in, before those that come with devbc",
    )  # fmt: skip
    parser.add_argument(
        "--spins", type=int, default=0, metavar="N",
        help="turns of waiting for each other before either side sleeps (default: 0)",
    )  # fmt: skip
    engine_option(parser, "none")
    rows_options(parser)
    cache_option(parser)
    socket_option(parser)


def _vcpus(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"`{text}` is no number of vCPUs: 1 to {_MOST}")
    return int(text)


def run(args: argparse.Namespace, output: Output) -> int:
    from devbc.catalog import machine_of
    from devbc.client.replay import replay
    from devbc.guests.recording import read_recording

    recording = read_recording(args.guest)
    args.machine = args.machine or machine_of(recording.machine, args.devices) or "pc"
    with connected(args) as hypervisor, output.progress("loading") as tell:
        vm = (
            open_vm(hypervisor, args.vm)
            if args.vm
            else create_machine(hypervisor, args, name=recording.name, rtc_base=recording.rtc_base)
        )
        # What the wall clock says is for models, and those are here.
        vm.rtc_base = recording.rtc_base
        clock = vm.status().now
        models = _models(vm, args, output)
        if clock and not vm.info.live:
            said(f"note: the clock of VM {vm.number} is at {seconds(clock)} before the run, not at 0",
                 json=output.json)  # fmt: skip
        if vm.info.live:
            said(f"note: VM {vm.number} has the host's clock: what depends on time is not as it was recorded",
                 json=output.json)  # fmt: skip
        tell(f"running {recording.name}")
        result = replay(recording, vm, models, vcpus=args.vcpus, spins=args.spins)
    if output.json:
        about: dict[str, Any] = {"ok": not result.total.mismatches, "vm": vm.number, "vcpus": args.vcpus}
        output.object(about | {"started_at_ns": clock} | result.to_json())
    else:
        where = f"VM {vm.number} `{vm.info.name}`" if args.vm else f"`{args.machine}`, engine {args.engine}"
        title = f"{recording.name} on {where}, {counted(args.vcpus, 'vCPU')}, through the service"
        print_replay(result, title, len(result.registers) if args.all else args.top, output)
    return EXIT_REJECTED if result.total.mismatches else EXIT_OK


def _models(vm: Vm, args: argparse.Namespace, output: Output) -> Mapping[str, Callable[[Any, Any], Model]]:
    """The model of each device that has one, by the name of its program."""
    from devbc.catalog import model_of

    found = {device.name: model_of(device.program.device, args.devices) for device in vm.devices}
    if without := [name for name, model in found.items() if model is None]:
        listed = ", ".join(f"`{name}`" for name in without)
        said(f"note: no model for {listed}: read as recorded", json=output.json)
    return {name: model for name, model in found.items() if model is not None}
