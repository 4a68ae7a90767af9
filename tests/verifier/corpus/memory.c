// Copies, pointers and atomic operations, as clang -O2 makes them. README.md says how the object is made.
#include <devbc.h>

DEVBC_DEVICE(memory);
DEVBC_BANK(mmio, mmio, 0x1000);

struct descriptor {
	u32 address, length;
	u16 flags;
	s16 next;
	s8 bias;
	u8 kind, spare[2];
};

DEVBC_SCRATCH struct {
	struct descriptor table[8];
	struct descriptor other;
	u32 counters[4];
	u16 matrix[3][5];
	s8 offsets[8];
	u8 kind;
	u64 total, busy;
	u32 a[4], b[4];
	u8 page[64];
} state;

// A structure is copied to the stack field by field, and used from there.
SEC("mmio/read@0x0:4") u64 copy_to_the_stack(struct devbc_exit *exit)
{
	struct descriptor copies[2];
	u32 n = exit->vcpu & 7;

	for (int i = 0; i < 2; i++) {
		copies[i].address = state.table[(n + i) & 7].address;
		copies[i].length = state.table[(n + i) & 7].length;
		copies[i].flags = state.table[(n + i) & 7].flags;
	}
	exit->value = copies[copies[0].flags & 1].address + copies[copies[1].length & 1].length;
	return DEVBC_HANDLED;
}

// The copy is made by words and read by bytes.
SEC("mmio/read@0x4:4") u64 bytes_of_a_copy(struct devbc_exit *exit)
{
	u64 words[2] = { state.total, state.busy };
	const u8 *bytes = (const u8 *)words;

	exit->value = bytes[exit->vcpu & 15] | bytes[(exit->vcpu >> 4) & 15] << 8;
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x8:4") u64 pointer_select(struct devbc_exit *exit)
{
	volatile u32 *array = exit->vcpu & 8 ? state.a : state.b;

	exit->value = array[exit->vcpu & 3];
	return DEVBC_HANDLED;
}

// One of two structures; the same field of either is written.
SEC("mmio/write@0xc:4") u64 pointer_to_one_of_two(struct devbc_exit *exit)
{
	volatile struct descriptor *d = &state.other;

	if (exit->value < 8)
		d = &state.table[exit->value];
	d->length = exit->value;
	d->flags = 1;
	return DEVBC_HANDLED;
}

// From the stack or from read-only data.
SEC("mmio/read@0x10:4") u64 pointer_of_two_regions(struct devbc_exit *exit)
{
	static const u32 defaults[4] = { 5, 50, 500, 5000 };
	u32 mine[4] = { state.a[0], state.a[1], state.a[2], state.a[3] };
	const u32 *from = exit->vcpu & 16 ? mine : defaults;

	exit->value = from[exit->vcpu & 3];
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x14:4") u64 two_dimensions(struct devbc_exit *exit)
{
	u32 row = exit->vcpu, column = exit->vcpu >> 8;

	if (row > 2 || column % 8 > 4)
		return DEVBC_DECLINE;
	exit->value = state.matrix[row][column % 8];
	return DEVBC_HANDLED;
}

// Signed narrow fields as indices: extended from 8 and 16 bits, checked on both sides.
SEC("mmio/read@0x18:4") u64 signed_byte_index(struct devbc_exit *exit)
{
	s8 i = state.offsets[exit->vcpu & 7];

	if (i < -32 || i > 31)
		return DEVBC_DECLINE;
	exit->value = state.page[i + 32];
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x1c:4") u64 signed_short_index(struct devbc_exit *exit)
{
	s16 next = state.table[exit->vcpu & 7].next;

	if (next < 0)
		next = -next;
	if (next >= 8 || next < 0)
		return DEVBC_DECLINE;
	exit->value = state.table[next].address;
	return DEVBC_HANDLED;
}

// A chain of indices in shared memory, followed a few links: each link is checked by itself.
SEC("mmio/read@0x20:4") u64 chain(struct devbc_exit *exit)
{
	u32 n = exit->vcpu & 7, total = 0;

	for (int i = 0; i < 8; i++) {
		s16 next = state.table[n].next;

		total += state.table[n].length;
		if (next < 0)
			break;
		n = next & 7;
	}
	exit->value = total;
	return DEVBC_HANDLED;
}

static __attribute__((noinline)) u32 add_up(volatile u32 *from, u32 count)
{
	u32 sum = 0;

	for (u32 i = 0; i < count; i++)
		sum += from[i];
	return sum;
}

// A function that gets pointers into the shared area, twice, to different arrays.
SEC("mmio/read@0x24:4") u64 call_with_pointers(struct devbc_exit *exit)
{
	exit->value = add_up(state.a, 4) ^ add_up(state.b, 3) ^ add_up(&state.counters[1], 2);
	return DEVBC_HANDLED;
}

static __attribute__((noinline)) void split(u64 value, u32 *low, u32 *high)
{
	*low = value & 3;
	*high = value >> 62;
}

// A function that fills its caller's variables.
SEC("mmio/read@0x28:4") u64 call_that_returns_two(struct devbc_exit *exit)
{
	u32 low = 0, high = 0;

	split(state.total, &low, &high);
	exit->value = state.a[low & 3] + state.b[high & 3];
	return DEVBC_HANDLED;
}

// More values than registers live over calls of the clock: bounds are spilled, and filled where they are
// used.
SEC("mmio/read@0x2c:4") u64 spilled_bounds(struct devbc_exit *exit)
{
	u32 i = state.a[0], j = state.a[1], k = state.a[2], l = state.a[3], m = state.b[0];
	u64 t0, t1;

	if (i > 3 || j > 3 || k > 7 || l > 63 || m > 2)
		return DEVBC_DECLINE;
	t0 = ktime_get_ns();
	t1 = ktime_get_ns();
	exit->value = (u32)(t1 - t0) + state.a[i] + state.b[j] + state.table[k].length + state.page[l] +
		state.matrix[m][0];
	return DEVBC_HANDLED;
}

// Lock-free counters. An operation whose old value is not used is the plain form.
SEC("mmio/write@0x30:4") u64 atomics(struct devbc_exit *exit)
{
	u32 n = exit->value & 3, old;

	__sync_fetch_and_add(&state.counters[n], 1);
	__sync_fetch_and_or(&state.busy, 1ull << n);
	old = __sync_val_compare_and_swap(&state.a[n], 0, 1);
	exit->raise = __sync_lock_test_and_set(&state.b[n], 0) > old;
	return DEVBC_HANDLED;
}

// Tests of single bits choose fields.
SEC("mmio/write@0x34:4") u64 bit_tests(struct devbc_exit *exit)
{
	u32 v = exit->value;

	if (v & 0x80000000)
		state.total = 0;
	if (!(v & 0x40))
		state.counters[v >> 4 & 3] = v;
	if ((v & 0x300) == 0x200)
		state.kind = v;
	exit->signal = v >> 31;
	return DEVBC_HANDLED;
}

// A switch on what shared memory says: loaded once, each case in its own place.
SEC("mmio/read@0x38:4") u64 switch_on_shared(struct devbc_exit *exit)
{
	switch (state.kind) {
	case 0: exit->value = state.a[0]; break;
	case 1: exit->value = state.b[1]; break;
	case 2: exit->value = state.counters[2]; break;
	case 3: exit->value = state.matrix[1][3]; break;
	case 4: exit->value = state.page[9]; break;
	case 5: exit->value = state.table[3].kind; break;
	case 6: exit->value = state.other.spare[1]; break;
	case 7: exit->value = state.total; break;
	case 9: exit->value = state.busy; break;
	case 20: exit->value = state.table[0].address; break;
	case 200: exit->value = state.table[7].flags; break;
	default: return DEVBC_DECLINE;
	}
	return DEVBC_HANDLED;
}

// Dense constants become a table in read-only data, and the table's entries an index.
SEC("mmio/read@0x3c:4") u64 switch_through_a_table(struct devbc_exit *exit)
{
	u32 n;

	switch (state.kind) {
	case 0: n = 17; break;
	case 1: n = 4; break;
	case 2: n = 60; break;
	case 3: n = 63; break;
	case 4: n = 9; break;
	case 5: n = 33; break;
	case 6: n = 2; break;
	case 7: n = 41; break;
	default: return DEVBC_DECLINE;
	}
	exit->value = state.page[n];
	return DEVBC_HANDLED;
}
