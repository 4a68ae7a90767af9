"""The emulated hypervisor: exits, bus, shared areas, clock, effects, vCPUs."""
