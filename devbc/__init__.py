"""devbc: device registers as verified BPF programs, run on the exits of an emulated hypervisor."""

__version__ = "0.1.0"
