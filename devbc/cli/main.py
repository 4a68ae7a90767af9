"""`devbc`: finds the command, runs it, and turns what went wrong into an exit status.

0 done, 1 rejected or mismatched, 2 usage, 70 internal error (sysexits' EX_SOFTWARE). Data goes to stdout,
talk to stderr. Commands import what they need when they run, so that `--help` stays quick.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from devbc import __version__
from devbc.cache import DISABLE
from devbc.cli.output import EXIT_INTERNAL, EXIT_OK, EXIT_REJECTED, Output
from devbc.diagnostics import Rejected

#: Each is a module of this package with `SUMMARY`, `EXAMPLES`, `configure(parser)` and `run(args, output)`.
COMMANDS = (
    "compile", "verify", "disasm", "replay", "profile", "bench", "explain",
    "serve", "vm", "load", "unload", "list", "show", "stats", "scratch", "inquire", "run", "state",
)  # fmt: skip

_DESCRIPTION = """\
Device registers as verified BPF programs.

examples:
  devbc verify devices/i8254/i8254.dev                 compile a device and prove its handlers safe
  devbc compile hpet.dev --emit asm                    see what a handler becomes
  devbc replay --machine pc --engine jit boot.tsv.gz   run a recorded guest through the programs
  devbc explain V007                                   what a diagnostic means, and what to do

the hypervisor as a process of its own:
  devbc serve                                          own VMs, for clients on a socket
  devbc vm create pc --machine pc                      a VM with a PC's devices
  devbc run --vm pc --guest boot.tsv.gz --vcpus 2      run a recorded guest on it
  devbc stats --vm pc                                  what becomes of its exits, live

`devbc COMMAND --help` has more examples; docs/devices.md goes from the first register to a replay,
docs/service.md through the commands that talk to a service.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The `devbc` program; returns its exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return EXIT_OK
    output = Output(json=args.json)
    if getattr(args, "no_cache", False):
        os.environ[DISABLE] = "1"
    try:
        status: int = args.run(args, output)
        sys.stdout.flush()
        return status
    except Rejected as rejection:
        output.rejected(rejection)
        return EXIT_REJECTED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; nothing is left to be said, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:
        return _internal_error(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="devbc", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"devbc {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"devbc.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=f"{module.SUMMARY}\n\nexamples:\n{module.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--json", action="store_true", help="print one JSON object instead of text")
        module.configure(command)
        command.set_defaults(run=module.run)
    return parser


def _internal_error(error: Exception) -> int:
    print(f"devbc: internal error: {type(error).__name__}: {error}", file=sys.stderr)
    if os.environ.get("DEVBC_TRACEBACK"):
        raise error
    print("this is a bug in devbc; set DEVBC_TRACEBACK=1 to see where", file=sys.stderr)
    return EXIT_INTERNAL


if __name__ == "__main__":
    sys.exit(main())
