"""Diagnostic codes of traces of guests that other tools made (`devbc.guests.trace_formats`)."""

from __future__ import annotations

from devbc.diagnostics import define

NO_TRACE = define(
    "H020",
    "no trace of a guest",
    """
    The file has no access of a guest to a device in any form that devbc reads. These are, gzipped or not:

    - a recording of devbc's own (H001);
    - QEMU's trace log, with or without time stamps:

    ```
    qemu-system-x86_64 --trace 'memory_region_ops_*' -msg timestamp=on -D guest.log ...
    ```

    - the kernel's `kvm_pio` and `kvm_mmio` events, as text. With `kvm_userspace_exit` it is known which of
      the accesses the kernel has answered itself; name one guest's process where there are several:

    ```
    trace-cmd record -e kvm:kvm_pio -e kvm:kvm_mmio -e kvm:kvm_userspace_exit -P PID
    trace-cmd report > guest.txt
    perf record -e kvm:kvm_pio,kvm:kvm_mmio,kvm:kvm_userspace_exit -p PID
    perf script --ns > guest.txt
    ```

    A `trace.dat` or `perf.data` is not text: the second command of each pair prints it.
    """,
)
MALFORMED_LINE = define(
    "H021",
    "a line of a trace is not understood",
    """
    A line names an event that devbc reads (`memory_region_ops_read` or `_write`, `kvm_pio`, `kvm_mmio`), but
    what follows is not what that event prints:

    ```
    4711@12.000001:memory_region_ops_read cpu 0 mr 0x5581 addr 0x608 value 0x5f size 4 name 'acpi-tmr'
    CPU 0/KVM-4712 [001] 12.000001: kvm_pio: pio_read at 0x608 size 4 count 1 val 0x5f
    CPU 0/KVM-4712 [001] 12.000001: kvm_mmio: mmio read len 4 gpa 0xfed000f0 val 0x5f
    ```

    Single lines are left out, and the first is shown: text of a console may have got between them. If they
    outnumber the accesses, the trace is refused. A last line that is cut off is no fault.
    """,
)
