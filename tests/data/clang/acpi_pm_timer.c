// The ACPI power management timer (ACPI 4.8.3.3) in C: a 24-bit counter at 3.579545 MHz that never stops.
// All of it is the clock, so every vCPU reads it at once, without a lock.
#include <devbc.h>

#define HZ 3579545u
#define NS_PER_SECOND 1000000000u
#define COUNTER_MASK 0xffffffu

DEVBC_DEVICE(acpi_pm_timer);
DEVBC_BANK(pio, pio, 4);
DEVBC_REGISTER(tmr_val, pio, 0, 4);

// A part of the register is the bytes that are asked for.
SEC("pio/read@0x0-0x3:1,2,4")
u64 tmr_val_read(struct devbc_exit *exit)
{
	u64 ticks = devbc_muldiv(devbc_now(exit), HZ, NS_PER_SECOND) & COUNTER_MASK;

	exit->value = ticks >> 8 * exit->offset & ((1ull << 8 * exit->size) - 1);
	return DEVBC_HANDLED;
}

// Read-only.
SEC("pio/write@0x0-0x3:1,2,4")
u64 tmr_val_write(struct devbc_exit *exit)
{
	return DEVBC_HANDLED;
}
