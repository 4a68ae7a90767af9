/* clang-19 -target bpf -mcpu=v4 -O2 -g -c: an address of the machine as the guest's answer. */
#include <devbc.h>

DEVBC_DEVICE(leaks_a_pointer);

SEC("pio/read@0x0:8")
u64 leak(struct devbc_exit *exit)
{
	exit->value = (u64)exit;
	return DEVBC_HANDLED;
}
