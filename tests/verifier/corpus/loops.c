// Loops as device code has them, and as clang -O2 leaves them: counted up, down and by `!=`, over pointers,
// with two counters, nested, and ended by what they compute. README.md says how the object is made.
#include <devbc.h>

DEVBC_DEVICE(loops);
DEVBC_BANK(mmio, mmio, 0x1000);

DEVBC_SCRATCH struct {
	u32 words[8];
	u8 bytes[32];
	u8 ring[16];
	u8 grid[4][6];
	u32 head, tail, count, value;
	u64 wide;
} state;

static const u16 thresholds[16] = {
	3, 7, 12, 40, 41, 90, 100, 200, 300, 301, 500, 700, 1000, 2000, 4000, 9000,
};

// The address itself counts: clang compares it with the end.
SEC("mmio/read@0x0:4") u64 pointer_loop(struct devbc_exit *exit)
{
	u32 sum = 0;

	for (volatile u32 *p = state.words; p != state.words + 8; p++)
		sum += *p;
	exit->value = sum;
	return DEVBC_HANDLED;
}

// From both ends.
SEC("mmio/write@0x4:4") u64 reversal(struct devbc_exit *exit)
{
	for (u32 i = 0, j = 31; i < j; i++, j--) {
		u8 t = state.bytes[i];

		state.bytes[i] = state.bytes[j];
		state.bytes[j] = t;
	}
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x8:4") u64 nested(struct devbc_exit *exit)
{
	u32 best = 0;

	for (int row = 0; row < 4; row++) {
		u32 sum = 0;

		for (int column = 0; column < 6; column++)
			sum += state.grid[row][column];
		if (sum > best)
			best = sum;
	}
	exit->value = best;
	return DEVBC_HANDLED;
}

// The inner loop's bound is the outer one's counter.
SEC("mmio/read@0xc:4") u64 triangle(struct devbc_exit *exit)
{
	u32 n = state.count, pairs = 0;

	if (n > 8)
		n = 8;
	for (u32 i = 0; i < n; i++)
		for (u32 j = 0; j < i; j++)
			pairs += state.words[i] == state.words[j];
	exit->value = pairs;
	return DEVBC_HANDLED;
}

// Takes from a ring until it is empty, or enough: the index runs freely and is masked where it is used.
SEC("mmio/read@0x10:4") u64 drain(struct devbc_exit *exit)
{
	u32 head = state.head, count = state.count, taken = 0, sum = 0;

	if (count > 16)
		return DEVBC_DECLINE;
	while (taken != count) {
		sum += state.ring[(head + taken) & 15];
		taken++;
	}
	state.head = head + taken;
	exit->value = sum;
	return DEVBC_HANDLED;
}

// Looks for a bit, and gives up in time.
SEC("mmio/read@0x14:4") u64 lowest_bit(struct devbc_exit *exit)
{
	u32 value = state.value, number = 0;

	while (!(value & 1) && number < 31) {
		value >>= 1;
		number++;
	}
	exit->value = state.bytes[number];
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x1c:4") u64 binary_search(struct devbc_exit *exit)
{
	u32 key = state.value, low = 0, high = 15;

	while (low < high) {
		u32 middle = (low + high) / 2;

		if (thresholds[middle] < key)
			low = middle + 1;
		else
			high = middle;
	}
	exit->value = state.ring[low];
	return DEVBC_HANDLED;
}

// Leaves early by what it finds; what it found is used behind the loop.
SEC("mmio/write@0x20:4") u64 first_free(struct devbc_exit *exit)
{
	u32 i;

	for (i = 0; i < 32; i++)
		if (!state.bytes[i])
			break;
	if (i == 32)
		return DEVBC_DECLINE;
	state.bytes[i] = exit->value;
	return DEVBC_HANDLED;
}

// Skips some rounds.
SEC("mmio/read@0x24:4") u64 sparse_sum(struct devbc_exit *exit)
{
	u32 mask = exit->vcpu, sum = 0;

	for (int i = 0; i < 8; i++) {
		if (!(mask & 1u << i))
			continue;
		sum += state.words[i];
	}
	exit->value = sum;
	return DEVBC_HANDLED;
}

// Steps of two sizes; ends by passing the bound, not by meeting it.
SEC("mmio/read@0x28:4") u64 uneven_steps(struct devbc_exit *exit)
{
	u32 sum = 0;

	for (u32 i = 0; i < 32; i += state.bytes[i] & 1 ? 3 : 2)
		sum++;
	exit->value = sum;
	return DEVBC_HANDLED;
}

// Clears the lowest bit each round: at most as many rounds as bits.
SEC("mmio/read@0x2c:4") u64 count_bits(struct devbc_exit *exit)
{
	u32 value = state.value & 0xff, count = 0;

	while (value) {
		value &= value - 1;
		count++;
	}
	exit->value = count;
	return DEVBC_HANDLED;
}

// Decimal digits by division: a 32-bit number has at most ten.
SEC("mmio/write@0x30:4") u64 digits(struct devbc_exit *exit)
{
	u32 value = exit->value, n = 0;

	do {
		state.bytes[n++] = '0' + value % 10;
		value /= 10;
	} while (value);
	state.count = n;
	return DEVBC_HANDLED;
}

// Euclid: the remainder shrinks, but nothing simple says how fast. With a limit on the rounds it is fine.
SEC("mmio/read@0x34:4") u64 limited_rounds(struct devbc_exit *exit)
{
	u32 a = state.head & 0xff, b = state.tail & 0xff;

	for (int round = 0; round < 12 && b; round++) {
		u32 rest = a % b;

		a = b;
		b = rest;
	}
	exit->value = a;
	return DEVBC_HANDLED;
}
