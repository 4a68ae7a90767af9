/* clang-19 -target bpf -mcpu=v4 -O2 -g -c: a loop that shared memory keeps alive. */
#include <devbc.h>

DEVBC_DEVICE(loops_for_ever);
DEVBC_SCRATCH struct { u32 busy; } state;

SEC("pio/read@0x0:1")
u64 wait(struct devbc_exit *exit)
{
	while (READ_ONCE(state.busy))
		;
	return DEVBC_HANDLED;
}
