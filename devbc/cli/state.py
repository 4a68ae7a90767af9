"""`devbc state`: save a VM's state to a file, and restore it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from devbc.cli.output import EXIT_OK, Output
from devbc.cli.served import actions, counted, opened, vm_option
from devbc.diagnostics import Rejected, Span

if TYPE_CHECKING:
    from devbc.client import Vm

SUMMARY = "save a VM's state to a file, and restore it"
EXAMPLES = """\
  devbc state save pc.state --vm pc
  devbc state restore pc.state --vm other
"""
_NOTES = """\
A state is what the devices hold, not the devices: shared areas, clock, timers, lines. It is restored into a
VM that has devices of the same names. Fields are matched by name, so that a newer program can take an older
state; what does not fit is named, and left as it is. No vCPU may run meanwhile; the timers of a live VM
stop for the moment.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _NOTES
    actions(
        parser,
        [
            ("save", "save a VM's state", "  devbc state save pc.state --vm pc\n", _configure_file),
            ("restore", "restore a VM's state", "  devbc state restore pc.state --vm pc\n", _configure_file),
        ],
    )


def _configure_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the state's file")
    vm_option(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    return _save(args, output) if args.action == "save" else _restore(args, output)


def _save(args: argparse.Namespace, output: Output) -> int:
    from devbc.files import write_file

    with opened(args) as vm, _still(vm):
        state = vm.save()
    write_file(args.file, state)
    if output.json:
        output.object({"ok": True, "vm": vm.number, "file": str(args.file), "bytes": len(state)})
    else:
        output.text(f"{args.file}: {len(state):,} bytes, the state of VM {vm.number} `{vm.info.name}`")
    return EXIT_OK


@contextmanager
def _still(vm: Vm) -> Iterator[None]:
    """A live VM's timers stand still meanwhile; its vCPUs are those of who runs them."""
    if vm.timers is None:
        yield
        return
    vm.timers.stop()
    try:
        yield
    finally:
        vm.timers.start()


def _restore(args: argparse.Namespace, output: Output) -> int:
    from devbc.files import read_file
    from devbc.hypervisor.errors import BAD_STATE
    from devbc.limits import MESSAGE_BYTES

    state = read_file(args.file, MESSAGE_BYTES)
    with opened(args) as vm, _still(vm):
        try:
            misfits = vm.restore(state)
        except Rejected as rejection:
            if [each.code for each in rejection.diagnostics] != [BAD_STATE]:
                raise
            (fault,) = rejection.diagnostics
            raise Rejected(replace(fault, span=Span(str(args.file)))) from None
    if output.json:
        output.object(
            {
                "ok": True,
                "vm": vm.number,
                "file": str(args.file),
                "misfits": [each.to_json() for each in misfits],
            }
        )
        return EXIT_OK
    for each in misfits:
        output.diagnostic(each)
    but = f", but for what did not fit: {counted(len(misfits), 'part')}" if misfits else ""
    output.text(f"VM {vm.number} `{vm.info.name}` has the state of {args.file}{but}")
    return EXIT_OK
