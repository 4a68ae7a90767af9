// Arithmetic that bounds an index, as clang -O2 makes it. README.md says how the object is made.
#include <devbc.h>

DEVBC_DEVICE(numbers);
DEVBC_BANK(mmio, mmio, 0x1000);

DEVBC_SCRATCH struct {
	u32 a, b;
	u64 wide;
	s32 delta;
	u16 half;
	u8 small, bcd;
	u8 page[256];
	u32 words[32];
} state;

#define MIN(x, y) ((x) < (y) ? (x) : (y))
#define MAX(x, y) ((x) > (y) ? (x) : (y))

// Compared in 32 bits, used in 64.
SEC("mmio/read@0x0:4") u64 narrow_compare(struct devbc_exit *exit)
{
	u64 wide = state.wide;

	if ((u32)wide >= 32)
		return DEVBC_DECLINE;
	exit->value = state.words[(u32)wide];
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x4:4") u64 least_and_greatest(struct devbc_exit *exit)
{
	u32 a = state.a, b = state.b, i = MIN(MAX(a, 7u), 200u), j = MIN(MIN(a, b), 31u);
	s32 delta = state.delta, k = MAX(MIN(delta, 100), -100);

	exit->value = state.page[i] + state.words[j] + state.page[k + 100];
	return DEVBC_HANDLED;
}

// Division and remainder by a variable; in BPF x % 0 is x, so the divisor is checked.
SEC("mmio/read@0x8:4") u64 divided_by_a_variable(struct devbc_exit *exit)
{
	u32 a = state.a, b = state.b;

	if (b == 0 || b > 32)
		return DEVBC_DECLINE;
	exit->value = state.words[a % b] + state.page[(a & 0xff) / b];
	return DEVBC_HANDLED;
}

// A remainder of signed numbers that is made positive.
SEC("mmio/read@0xc:4") u64 signed_remainder(struct devbc_exit *exit)
{
	s32 i = state.delta % 32;

	if (i < 0)
		i += 32;
	exit->value = state.words[i];
	return DEVBC_HANDLED;
}

// The upper bits of a product: a scale without division.
SEC("mmio/read@0x10:4") u64 scaled(struct devbc_exit *exit)
{
	u32 a = state.a;

	exit->value = state.words[(u64)a * 32 >> 32] + state.page[(a >> 16) * 255 >> 16];
	return DEVBC_HANDLED;
}

// Shifts by a variable.
SEC("mmio/read@0x14:4") u64 shifted_by_a_variable(struct devbc_exit *exit)
{
	u32 n = state.small & 7;

	exit->value = state.page[0xffu >> n] + state.page[(1u << n) - 1] + state.words[31u >> (n & 3)];
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x18:4") u64 byte_swapped(struct devbc_exit *exit)
{
	u32 a = __builtin_bswap32(state.a);
	u16 h = __builtin_bswap16(state.half);

	exit->value = state.page[a & 0xff] + state.words[h >> 11] + __builtin_bswap64(state.wide);
	return DEVBC_HANDLED;
}

// A decimal number as an index: at most 165, with digits beyond 9.
SEC("mmio/read@0x1c:4") u64 decimal(struct devbc_exit *exit)
{
	u8 bcd = state.bcd;

	exit->value = state.page[(bcd >> 4) * 10 + (bcd & 15)];
	return DEVBC_HANDLED;
}

// A sum that saturates instead of wrapping.
SEC("mmio/read@0x20:4") u64 saturated(struct devbc_exit *exit)
{
	u8 sum;

	if (__builtin_add_overflow(state.small, (u8)state.a, &sum))
		sum = 255;
	exit->value = state.page[sum];
	return DEVBC_HANDLED;
}

// An offset in a window that does not begin at 0.
SEC("mmio/read@0x100-0x17c:4") u64 window(struct devbc_exit *exit)
{
	exit->value = state.words[(exit->offset - 0x100) / 4];
	return DEVBC_HANDLED;
}

// Conditions that hang together over several branches.
SEC("mmio/read@0x24:4") u64 correlated(struct devbc_exit *exit)
{
	u32 a = state.a, b = state.b, limit;

	if (a < 8)
		limit = 32;
	else if (a < 64)
		limit = 16;
	else
		limit = 0;
	if (b >= limit)
		return DEVBC_DECLINE;
	if (limit == 16)
		exit->value = state.words[b + 16];
	else
		exit->value = state.words[b] + state.page[a * 32 + b];
	return DEVBC_HANDLED;
}

// The distance of two numbers, whichever is greater; cut to a byte, as which of them it is is not
// remembered.
SEC("mmio/read@0x28:4") u64 distance(struct devbc_exit *exit)
{
	u8 x = state.small, y = state.half;

	exit->value = state.page[(u8)(x > y ? x - y : y - x)];
	return DEVBC_HANDLED;
}

// A verdict that is computed.
SEC("mmio/write@0x2c:4") u64 computed_verdict(struct devbc_exit *exit)
{
	exit->raise = state.a > 7;
	return exit->value < 32;
}

// Rotated, then cut.
SEC("mmio/read@0x30:4") u64 rotated(struct devbc_exit *exit)
{
	u32 a = state.a, n = state.small & 31, r = a << n | a >> (-n & 31);

	exit->value = state.words[r >> 27];
	return DEVBC_HANDLED;
}

// The lowest set bit without a loop: clang counts bits by sums of bytes.
SEC("mmio/read@0x34:4") u64 counted_zeros(struct devbc_exit *exit)
{
	u32 a = state.a;

	if (!a)
		return DEVBC_DECLINE;
	exit->value = state.words[__builtin_ctz(a) & 31];
	return DEVBC_HANDLED;
}

// Rounded up to a power of two by smearing bits.
SEC("mmio/read@0x38:4") u64 rounded_up(struct devbc_exit *exit)
{
	u32 a = state.small;

	a |= a >> 1;
	a |= a >> 2;
	a |= a >> 4;
	exit->value = state.page[a];
	return DEVBC_HANDLED;
}

// A checked sum: neither part is bounded alone, the sum is.
SEC("mmio/read@0x3c:4") u64 checked_sum(struct devbc_exit *exit)
{
	u64 at = (u64)state.a + state.b;

	if (at > 252)
		return DEVBC_DECLINE;
	exit->value = state.page[at] + state.page[at + 3];
	return DEVBC_HANDLED;
}
