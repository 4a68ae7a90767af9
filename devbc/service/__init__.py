"""The emulated hypervisor as a process of its own: what plays the kernel, and does not trust its clients."""
