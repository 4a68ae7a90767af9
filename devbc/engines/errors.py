"""Diagnostic codes of engines: what stands between a verified program and its running."""

from __future__ import annotations

from devbc.diagnostics import define

NO_BPF = define(
    "E001",
    "Linux's BPF cannot be used here",
    """
    Linux's own BPF runs a handler as a program of type `BPF_PROG_TYPE_SYSCALL`. That takes Linux on a 64-bit
    little-endian machine, the system call `bpf(2)`, and the right to use it: root, or `CAP_BPF` together with
    `CAP_PERFMON`. Containers withhold it by default, through a seccomp filter, whoever the user is. The
    message says which of these is missing.

    ```
    docker run --cap-add BPF --cap-add PERFMON --security-opt seccomp=unconfined ...
    ```

    The other engines need no right at all.
    """,
)
REFUSED_BY_LINUX = define(
    "E002",
    "Linux's verifier refuses the program",
    """
    The program keeps this machine's contract, and Linux cannot prove that it keeps Linux's. The notes are the
    end of Linux's own log. Its rules are other ones in a few places: it knows nothing of what a handler's
    binding says about the exit, it refuses variable offsets into the exit, and it takes each shift, compare
    and copy as its own version can. `docs/verifier.md` lists the classes of disagreement.

    Run the program by another engine, or write what Linux should know as a comparison: `if (offset > 7)
    decline;`.
    """,
)
