// Ordinary device code, as clang -O2 makes it. README.md says how the object is made.
#include <devbc.h>

DEVBC_DEVICE(idioms);
DEVBC_BANK(mmio, mmio, 0x1000);

struct channel {
	u64 start;
	u32 reload;
	u8 mode, status;
	u16 latch;
	u64 compare;
};

DEVBC_SCRATCH struct {
	struct channel channel[3];
	u8 ring[16];
	u32 head, tail, count;
	u8 reg[13];
	u8 cmos[128];
	u64 big[5];
	u8 index;
	u32 mode, pending;
} state;

static const u32 channel_of[] = { 1, 2, 0, 1, 2, 0, 0, 1, 2, 2, 2, 1, 0 };
static const u8 month_days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

SEC("mmio/read@0x0-0x3:1") u64 masked_index(struct devbc_exit *exit)
{
	u64 i = exit->offset & 3;

	if (i == 3)
		return DEVBC_DECLINE;
	exit->value = state.channel[i].reload;
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x4:1") u64 index_from_scratch(struct devbc_exit *exit)
{
	u32 i = state.head;

	if (i >= 16)
		return DEVBC_DECLINE;
	exit->value = state.ring[i];
	state.head = (i + 1) & 15;
	return DEVBC_HANDLED;
}

SEC("mmio/write@0x8:1") u64 switch_statement(struct devbc_exit *exit)
{
	u64 mode;

	switch ((u8)exit->value) {
	case 0: mode = 5; break;
	case 1: mode = 7; break;
	case 2: mode = 77; break;
	case 3: mode = 12; break;
	case 4: mode = 99; break;
	case 5: mode = 1; break;
	default: return DEVBC_DECLINE;
	}
	state.mode = mode;
	return DEVBC_HANDLED;
}

SEC("mmio/write@0xc:4") u64 table_of_indices(struct devbc_exit *exit)
{
	u32 v = exit->value;

	state.channel[channel_of[v % 13]].reload = v;
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x10:4") u64 loop_up(struct devbc_exit *exit)
{
	u32 n = state.count;
	u64 sum = 0;

	if (n > 13)
		n = 13;
	for (u32 i = 0; i != n; i++)
		sum += state.reg[i];
	exit->value = sum & 0xff;
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x14:4") u64 loop_down(struct devbc_exit *exit)
{
	u64 sum = 0;

	for (int i = 12; i >= 0; i--)
		sum = sum * 3 + state.reg[i];
	exit->value = sum & 0xff;
	return DEVBC_HANDLED;
}

SEC("mmio/write@0x18:4") u64 ring(struct devbc_exit *exit)
{
	u32 head = state.head, tail = state.tail;

	if (((head + 1) & 15) == (tail & 15))
		return DEVBC_DECLINE;
	state.ring[head & 15] = exit->value;
	state.head = (head + 1) & 15;
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x100-0x1f8:4,8") u64 strided_registers(struct devbc_exit *exit)
{
	u64 n = (exit->offset - 0x100) >> 5;

	if (n > 2)
		return DEVBC_DECLINE;
	switch ((exit->offset - 0x100) & 0x18) {
	case 0: exit->value = state.channel[n].start; break;
	case 8: exit->value = state.channel[n].reload; break;
	case 16: exit->value = state.channel[n].compare; break;
	default: return DEVBC_DECLINE;
	}
	if (exit->offset & 4)
		exit->value >>= 32;
	else if (exit->size == 4)
		exit->value &= 0xffffffff;
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x200-0x23f") u64 bytes_to_word(struct devbc_exit *exit)
{
	u64 offset = exit->offset - 0x200, value = 0;
	u32 size = exit->size;

	if (offset >= 13 || size > 13 - offset)
		return DEVBC_DECLINE;
	for (u32 i = 0; i < size; i++)
		value |= (u64)state.reg[offset + i] << (8 * i);
	exit->value = value;
	return DEVBC_HANDLED;
}

SEC("mmio/write@0x300:4") u64 clamps(struct devbc_exit *exit)
{
	u32 a = exit->value, i = a < 4 ? a : 4;
	s32 b = a, j = b < 0 ? 0 : b > 2 ? 2 : b;

	state.big[i] = a;
	state.channel[j].reload = 1;
	return DEVBC_HANDLED;
}

SEC("mmio/write@0x304:4") u64 products(struct devbc_exit *exit)
{
	u32 a = exit->value;

	state.reg[((u64)(a & 0xff) * 13) >> 8] = a;
	state.big[(u64)a * 5 >> 32] = 1;
	state.reg[(63 - ((a >> 3) & 31)) % 13] = 0;
	return DEVBC_HANDLED;
}

SEC("mmio/write@0x308:4") u64 correlated(struct devbc_exit *exit)
{
	u32 a = exit->value, k = 0;
	int ok = 0;

	if (a < 3) {
		ok = 1;
		k = a;
	} else if (a == 77) {
		ok = 1;
		k = 2;
	}
	if (!ok)
		return DEVBC_DECLINE;
	state.channel[k].mode = 1;
	return DEVBC_HANDLED;
}

static __attribute__((noinline)) u64 sum(u64 *words, u64 count)
{
	u64 total = 0;

	for (u64 i = 0; i < count; i++)
		total += words[i];
	return total;
}

SEC("mmio/read@0x30c:4") u64 array_on_the_stack(struct devbc_exit *exit)
{
	u64 words[4] = { 1, 2, 3, 4 };

	words[exit->vcpu & 3] = state.mode;
	for (int i = 0; i < 4; i++)
		words[i] ^= state.channel[i & 1].reload;
	exit->value = (u32)sum(words, 3);
	return DEVBC_HANDLED;
}

SEC("mmio/read@0x310:4") u64 calendar(struct devbc_exit *exit)
{
	s64 days = devbc_now(exit) / 1000000000 / 86400 + 719468;
	u32 of_era = days - days / 146097 * 146097;
	u32 year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	u32 of_year = of_era - (365 * year + year / 4 - year / 100);
	u32 shifted = (5 * of_year + 2) / 153, month = shifted < 10 ? shifted + 3 : shifted - 9;

	if (month < 1 || month > 12)
		return DEVBC_DECLINE;
	exit->value = month_days[month - 1] | month << 8;
	return DEVBC_HANDLED;
}

SEC("mmio/write@0x314:4") u64 highest_pending(struct devbc_exit *exit)
{
	u32 pending = state.pending;

	for (int i = 7; i >= 0; i--)
		if (pending & (1u << i)) {
			state.pending = pending & ~(1u << i);
			exit->raise |= 1u << i;
			return DEVBC_HANDLED;
		}
	return DEVBC_DECLINE;
}

SEC("mmio/write@0x318:4") u64 checksum(struct devbc_exit *exit)
{
	u32 crc = exit->value;

	for (int i = 0; i < 16; i++)
		crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
	state.mode = crc;
	return DEVBC_HANDLED;
}

SEC("mmio/write@0x31c:4") u64 sign_test_of_a_byte(struct devbc_exit *exit)
{
	u8 i = state.index;

	if (i < 14 || i >= 128)
		return DEVBC_DECLINE;
	state.cmos[i] = exit->value;
	return DEVBC_HANDLED;
}

SEC("mmio/write@0x320:4") u64 arm_by_number(struct devbc_exit *exit)
{
	u32 n = exit->value & 3;

	devbc_arm(exit, n, devbc_now(exit) + 1000);
	exit->lower = 1u << n;
	return DEVBC_HANDLED;
}

SEC("mmio/write@0x324:4") u64 sorted_insert(struct devbc_exit *exit)
{
	u32 n = state.count, i = n;
	u8 v = exit->value;

	if (n >= 128)
		return DEVBC_DECLINE;
	while (i > 0) {
		u8 t = state.cmos[i - 1];

		if (t <= v)
			break;
		state.cmos[i] = t;
		i--;
	}
	state.cmos[i] = v;
	state.count = n + 1;
	return DEVBC_HANDLED;
}

SEC("mmio/write@0x328:4") u64 many_flags(struct devbc_exit *exit)
{
	u32 v = exit->value, r = 0;

	if (v & 1) r |= 2;
	if (v & 2) r |= 8;
	if (v & 4) r |= 1;
	if (v & 8) r |= 0x10;
	if (v & 16) r |= 0x40;
	if (v & 32) r |= 4;
	if (v & 64) r |= 0x80;
	if (v & 128) r |= 0x20;
	if (v & 256) r ^= v >> 7;
	if (v & 512) r += v;
	if (v & 1024) r ^= r << 7;
	if (v & 2048) r -= 7;
	state.mode = r;
	return DEVBC_HANDLED;
}
