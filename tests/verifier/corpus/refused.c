// What the verifier refuses although no run does harm: the bound follows from a relation between two
// values, or from all bits of a number together, and only single values are tracked. Each has an accepted
// form in another file. README.md says how the object is made.
#include <devbc.h>

DEVBC_DEVICE(refused);
DEVBC_BANK(mmio, mmio, 0x1000);

DEVBC_SCRATCH struct {
	u32 value;
	u8 bcd[2], x, y, page[256];
	u32 words[8];
} state;

// Ends, since some bit is set; but clang tests a bit of the number before the shift and goes on with the
// one behind it, and what is learnt of the one is not carried over. Accepted: `lowest_bit` of loops.c, with
// a limit.
SEC("mmio/read@0x0:4") u64 loop_until_a_bit(struct devbc_exit *exit)
{
	u32 value = state.value, number = 0;

	if (!value)
		return DEVBC_DECLINE;
	while (!(value & 1)) {
		value >>= 1;
		number++;
	}
	exit->value = number;
	return DEVBC_HANDLED;
}

// clang counts the zeros above by sums of bytes; that the sum is at most 7 is not seen. Accepted: `& 7`, as
// in `counted_zeros` of numbers.c.
SEC("mmio/read@0x4:4") u64 number_of_the_highest_bit(struct devbc_exit *exit)
{
	u32 value = state.value & 0xff, number = 0;

	while (value >>= 1)
		number++;
	exit->value = state.words[number];
	return DEVBC_HANDLED;
}

static u32 from_bcd(u8 bcd)
{
	return (bcd >> 4) * 10 + (bcd & 15);
}

// Of a sum of two such numbers clang makes bcd - 6 * (bcd >> 4), whose terms belong together. Accepted: one
// alone, as in `decimal` of numbers.c.
SEC("mmio/read@0x8:4") u64 decimal_indices(struct devbc_exit *exit)
{
	exit->value = state.page[from_bcd(state.bcd[0])] + state.page[from_bcd(state.bcd[1])];
	return DEVBC_HANDLED;
}

// Which of two is greater says nothing of their difference. Accepted: `distance` of numbers.c, cut to a
// byte.
SEC("mmio/read@0xc:4") u64 difference_index(struct devbc_exit *exit)
{
	u8 x = state.x, y = state.y;

	exit->value = state.page[x > y ? x - y : y - x];
	return DEVBC_HANDLED;
}
