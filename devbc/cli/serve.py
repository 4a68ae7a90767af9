"""`devbc serve`: the emulated hypervisor as a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TextIO

from devbc.cli.output import EXIT_OK, Output
from devbc.cli.served import socket_option
from devbc.diagnostics import Span, reject

SUMMARY = "own VMs, vCPUs and programs, for clients on a socket"
EXAMPLES = """\
  devbc serve                                    on the user's socket, until it is terminated
  devbc serve --socket ./vm.sock --log vm.log    on another one
"""
_NOTES = """\
The log is one JSON object a line: time, event, and the event's fields. SIGTERM and SIGINT end the service:
vCPUs stop, VMs are destroyed, the socket is removed, and the exit status is 0. Only its own user and root may
connect. With --json, an object that names the socket is printed once clients can connect.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _NOTES
    socket_option(parser)
    parser.add_argument("--log", type=Path, metavar="FILE", help="append the log here (default: stderr)")


def run(args: argparse.Namespace, output: Output) -> int:
    from devbc.service.logs import Log
    from devbc.service.server import Service, default_socket

    path = args.socket or default_socket()
    with contextlib.ExitStack() as stack:
        log = sys.stderr if args.log is None else stack.enter_context(_appended(args.log))
        service = Service(path, Log(log))
        if output.json:
            output.object({"ok": True, "socket": str(path), "pid": os.getpid()})
            sys.stdout.flush()
        elif sys.stderr.isatty():
            print(f"devbc: listening on {path}, ^C ends", file=sys.stderr)
        service.run()
    return EXIT_OK


def _appended(path: Path) -> TextIO:
    from devbc.files import NO_FILE, reason

    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise reject(NO_FILE, f"cannot write `{path}`: {reason(error)}", Span(str(path))) from None
