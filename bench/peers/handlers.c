/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmarks' handlers in C, as somebody would write them into a hypervisor: the limit of what an engine can
 * reach. Each does exactly what its handler in the `.dev` file of its device does, and a test holds it to that.
 *
 * `devbc.h` is the interface as BPF programs see it; `layouts.h` is generated when this is compiled, from the
 * devices' type information and the clock's record. Scratch is volatile: other vCPUs write it too.
 */
#define __bpf__ 1
#include "devbc.h"
#include "layouts.h"
#include <time.h>

#define NS_PER_SECOND 1000000000u
#define NS_PER_SECOND_SIGNED 1000000000ll

typedef const struct clock_page clock_page;
#define HANDLER(name, state_type) \
	u64 name(struct devbc_exit *exit, volatile struct state_type *state, const void *rodata, \
		 clock_page *clock)

/* What devbc/engines/clock.py does, for the clocks that it has. */
static __attribute__((noinline, cold)) u64 host_time(clock_page *clock)
{
	struct timespec now;
#if defined(__x86_64__)
	if (clock->kind == CLOCK_TSC) {
		u64 elapsed = __builtin_ia32_rdtsc() - clock->counter_base;
		u64 ns = clock->base_ns + (u64)(((unsigned __int128)elapsed * clock->mult) >> CLOCK_SHIFT);
		/* What comes after waits for the time. */
		(void)((const volatile u64 *)clock)[ns >> 63];
		return ns;
	}
#endif
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * NS_PER_SECOND + (u64)now.tv_nsec;
}

static inline u64 now(clock_page *clock, const struct devbc_exit *exit)
{
	u64 time = __builtin_expect(clock->kind != CLOCK_VIRTUAL, 0) ? host_time(clock) : clock->now_ns;
	return time + exit->clock_offset;
}

HANDLER(c_nothing, acpi_pm_timer_state)
{
	return DEVBC_HANDLED;
}

HANDLER(c_pmtimer_read, acpi_pm_timer_state)
{
	exit->value = (u32)devbc_muldiv(now(clock, exit), 3579545, NS_PER_SECOND) & 0xffffff;
	return DEVBC_HANDLED;
}

/* i8254: NONE, LOW, HIGH, WORD, WORD_HIGH */
enum { NONE, LOW, HIGH, WORD, WORD_HIGH };
typedef volatile struct i8254_channel channel;

static inline u64 pit_elapsed(channel *c, clock_page *clock, const struct devbc_exit *exit)
{
	return devbc_muldiv(now(clock, exit) - c->loaded_at, 1193182, NS_PER_SECOND);
}

static inline u16 pit_counting_element(channel *c, clock_page *clock, const struct devbc_exit *exit)
{
	u64 clocks = pit_elapsed(c, clock, exit);
	u64 count = c->count;
	switch (c->mode) {
	case 0: case 1: case 4: case 5:
		return count - clocks;
	case 3:
		return count ? count - (clocks << 1) % count : count - (clocks << 1);
	default:
		return count ? count - clocks % count : count - clocks;
	}
}

static inline _Bool pit_out(channel *c, clock_page *clock, const struct devbc_exit *exit)
{
	u64 clocks = pit_elapsed(c, clock, exit);
	u64 count = c->count;
	u64 left = count ? clocks % count : clocks;
	switch (c->mode) {
	case 1:
		return clocks < count;
	case 2:
		return clocks != 0 && left == 0;
	case 3:
		return left < (count + 1) >> 1;
	case 4: case 5:
		return clocks == count;
	default:
		return clocks >= count;
	}
}

static inline void pit_latch_count(channel *c, clock_page *clock, const struct devbc_exit *exit)
{
	if (c->unread == NONE) {
		c->latched = pit_counting_element(c, clock, exit);
		c->unread = c->access;
	}
}

HANDLER(c_pit_counter_read, i8254_state)
{
	if (exit->offset > 2)
		return DEVBC_DECLINE;
	channel *c = &state->channel[exit->offset];
	if (c->status_latched) {
		c->status_latched = 0;
		exit->value = c->status;
		return DEVBC_HANDLED;
	}
	u8 unread = c->unread;
	if (unread != NONE) {
		u16 latched = c->latched;
		c->unread = unread == WORD ? HIGH : NONE;
		exit->value = unread == HIGH ? latched >> 8 : latched & 0xff;
		return DEVBC_HANDLED;
	}
	u16 value = pit_counting_element(c, clock, exit);
	u8 reading = c->reading;
	if (reading == WORD)
		c->reading = WORD_HIGH;
	if (reading == WORD_HIGH)
		c->reading = WORD;
	exit->value = reading == HIGH || reading == WORD_HIGH ? value >> 8 : value & 0xff;
	return DEVBC_HANDLED;
}

HANDLER(c_pit_control_write, i8254_state)
{
	u8 v = exit->value;
	if (v >> 6 == 3) {
		for (u32 i = 0; i < 3; i++) {
			channel *c = &state->channel[i];
			if (!(v >> (i + 1) & 1))
				continue;
			if (!(v & 0x20))
				pit_latch_count(c, clock, exit);
			if (!(v & 0x10) && !c->status_latched) {
				u8 out = pit_out(c, clock, exit), access = c->access, mode = c->mode, bcd = c->bcd;
				c->status = out << 7 | access << 4 | mode << 1 | bcd;
				c->status_latched = 1;
			}
		}
		return DEVBC_HANDLED;
	}
	channel *c = &state->channel[v >> 6];
	u8 access_bytes = v >> 4 & 3;
	if (access_bytes == NONE) {
		pit_latch_count(c, clock, exit);
		return DEVBC_HANDLED;
	}
	c->access = access_bytes;
	c->reading = access_bytes;
	c->writing = access_bytes;
	c->mode = v >> 1 & 7;
	c->bcd = v & 1;
	if (v >> 6 == 0) {
		exit->cancel |= DEVBC_BIT(0);
		exit->lower |= DEVBC_BIT(0);
	}
	return DEVBC_HANDLED;
}

typedef volatile struct uart16550_state uart;

static void uart_update(uart *s, struct devbc_exit *exit)
{
	static const u8 trigger_level[4] = { 1, 4, 8, 14 };
	u8 ier = s->ier, lsr = s->lsr, fcr = s->fcr, id = 0x01;
	if (ier & 4 && lsr & 0x1e)
		id = 0x06;
	else if (ier & 1 && s->timeout_due)
		id = 0x0c;
	else if (ier & 1 && lsr & 1 && (!(fcr & 1) || s->rx_count >= trigger_level[fcr >> 6]))
		id = 0x04;
	else if (ier & 2 && s->thre_due)
		id = 0x02;
	else if (ier & 8 && s->msr & 0x0f)
		id = 0x00;
	u8 before = s->iir;
	s->iir = fcr & 1 ? id | 0xc0 : id;
	if (id & 1 && !(before & 1))
		exit->lower |= DEVBC_BIT(0);
	if (!(id & 1) && before & 1)
		exit->raise |= DEVBC_BIT(0);
}

HANDLER(c_uart_lsr_read, uart16550_state)
{
	u8 lsr = state->lsr;
	if (lsr & 0x12) {
		state->lsr = lsr & ~0x12;
		uart_update(state, exit);
	}
	exit->value = lsr;
	return DEVBC_HANDLED;
}

static void uart_set_character_time(uart *s)
{
	u8 lcr = s->lcr;
	u64 bits = 7 + (lcr & 3) + (lcr >> 2 & 1) + (lcr >> 3 & 1);
	u16 divisor = s->divisor;
	if (divisor == 0) {
		s->char_ns = bits * NS_PER_SECOND / 3500;
		return;
	}
	u32 baud_base = s->baud_base;
	u64 a = bits * divisor;
	s->char_ns = baud_base ? devbc_muldiv(a, NS_PER_SECOND, baud_base) : 0;
}

HANDLER(c_uart_data_write, uart16550_state)
{
	u8 v = exit->value;
	if (state->lcr & 0x80) {
		state->divisor = (state->divisor & 0xff00) | v;
		uart_set_character_time(state);
		return DEVBC_HANDLED;
	}
	if (state->mcr & 0x10) {
		state->thre_due = 1;
		if (state->fcr & 1) {
			u8 count = state->rx_count;
			if (count < 16) {
				u8 head = state->rx_head;
				state->rx[(head + count) & 15] = v;
				state->rx_count = count + 1;
				state->lsr |= 0x01;
			} else {
				state->lsr |= 0x03;
			}
			devbc_arm(exit, 0, now(clock, exit) + 4 * state->char_ns);
		} else {
			u8 lsr = state->lsr;
			state->rbr = v;
			state->lsr = lsr & 1 ? lsr | 2 : lsr | 1;
		}
		uart_update(state, exit);
		return DEVBC_HANDLED;
	}
	u32 head = state->tx_head, tail = state->tx_tail;
	if (head - tail >= 4096)
		return DEVBC_DECLINE;
	state->tx[head & 0xfff] = v;
	state->tx_head = head + 1;
	if (head == tail)
		exit->signal |= DEVBC_BIT(0);
	state->thre_due = 1;
	if (state->ier & 2)
		uart_update(state, exit);
	return DEVBC_HANDLED;
}

HANDLER(c_hpet_counter_read, hpet_state)
{
	if (state->config & 1)
		exit->value = (now(clock, exit) + state->offset) / 10;
	else
		exit->value = state->counter;
	return DEVBC_HANDLED;
}

typedef volatile struct mc146818_state rtc;
enum { RTC_A = 0x0a, RTC_B = 0x0b, RTC_C = 0x0c, RTC_CENTURY = 0x32, RTC_CENTURY_PS2 = 0x37 };

static inline u8 rtc_encode(u64 value, u8 b)
{
	return b & 4 ? value : value / 10 << 4 | value % 10;
}

static u8 rtc_date(u8 index, u64 day, u8 b)
{
	u64 of_era = day % 146097;
	u64 year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	u64 of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	u64 month = (5 * of_year + 2) / 153;
	if (index == 7)
		return rtc_encode(of_year - (153 * month + 2) / 5 + 1, b);
	u64 year = day / 146097 * 400 + year_of_era + (month >= 10);
	if (index == 8)
		return rtc_encode(month >= 10 ? month - 9 : month + 3, b);
	return rtc_encode(index == 9 ? year % 100 : year / 100, b);
}

static u8 rtc_calendar(rtc *s, u8 index, u64 time)
{
	u8 b = s->cmos[RTC_B];
	u64 seconds = (u64)((s64)time / NS_PER_SECOND_SIGNED + 719468ll * 86400);
	u64 of_day = seconds % 86400, day = seconds / 86400;
	switch (index) {
	case 0:
		return rtc_encode(of_day % 60, b);
	case 2:
		return rtc_encode(of_day / 60 % 60, b);
	case 4: {
		u64 hour = of_day / 3600;
		if (b & 2)
			return rtc_encode(hour, b);
		u64 dial = hour % 12 ? hour % 12 : 12;
		return rtc_encode(dial, b) | (hour >= 12 ? 0x80 : 0);
	}
	case 6:
		return rtc_encode((day + 3) % 7 + 1, b);
	default:
		return rtc_date(index, day, b);
	}
}

static inline _Bool rtc_running(rtc *s)
{
	return !(s->cmos[RTC_B] & 0x80) && (s->cmos[RTC_A] >> 4 & 7) <= 2;
}

static u8 rtc_control_a(rtc *s, clock_page *clock, struct devbc_exit *exit)
{
	u8 a = s->cmos[RTC_A];
	if (!rtc_running(s))
		return a;
	u64 at = now(clock, exit);
	if (at + 244140 >= s->update_at) {
		s->cmos[RTC_A] = a | 0x80;
		return a | 0x80;
	}
	s64 time = (s64)(at + s->time_offset);
	return time % NS_PER_SECOND_SIGNED >= NS_PER_SECOND_SIGNED - 244140 ? a | 0x80 : a;
}

HANDLER(c_rtc_data_read, mc146818_state)
{
	u8 index = state->index & 0x7f;
	switch (index) {
	case 0: case 2: case 4: case 6: case 7: case 8: case 9: case RTC_CENTURY: case RTC_CENTURY_PS2:
		if (index == RTC_CENTURY_PS2)
			state->index = RTC_CENTURY;
		if (rtc_running(state)) {
			u64 at = now(clock, exit);
			state->refreshed = at + 1;
			exit->value = rtc_calendar(state, index, at + state->time_offset);
		} else {
			exit->value = state->cmos[index == RTC_CENTURY_PS2 ? RTC_CENTURY : index];
		}
		return DEVBC_HANDLED;
	case RTC_A:
		exit->value = rtc_control_a(state, clock, exit);
		return DEVBC_HANDLED;
	case RTC_C: {
		u8 flags = state->cmos[RTC_C];
		if (flags & 0x30)
			return DEVBC_DECLINE;
		if (flags) {
			state->cmos[RTC_C] = 0;
			exit->lower |= DEVBC_BIT(0);
		}
		exit->value = flags;
		return DEVBC_HANDLED;
	}
	default:
		exit->value = state->cmos[index];
		return DEVBC_HANDLED;
	}
}

/* virtio_ctl: a notification, whose queue and value are in one word (2.9). */
enum { VIRTIO_DRIVER_OK = 4, VIRTIO_NOTIFICATION_DATA = 1 << 6 };

HANDLER(c_doorbell_write, virtio_ctl_state)
{
	u32 v = exit->value, index = v & 0xffff, next = v >> 16;
	if (!(state->status & VIRTIO_DRIVER_OK) || index >= 8)
		return DEVBC_DECLINE;
	volatile struct virtio_ctl_queue *queue = &state->queue[index];
	if (!queue->ready)
		return DEVBC_DECLINE;
	if (next && !(state->driver_features[1] & VIRTIO_NOTIFICATION_DATA))
		return DEVBC_DECLINE;
	queue->doorbell = next;
	u32 rung = state->rung;
	state->rung = rung | 1u << index;
	if (!rung)
		exit->signal |= DEVBC_BIT(0);
	return DEVBC_HANDLED;
}

static inline _Bool is_prime(u32 n)
{
	for (u32 d = 2; d < 12; d++) {
		if (d * d > n)
			return 1;
		if (n % d == 0)
			return 0;
	}
	return 1;
}

HANDLER(c_primes, compute_state)
{
	u32 limit = state->limit, count = 0;
	for (u32 n = 2; n < 128 && n < limit; n++)
		count += is_prime(n);
	exit->value = count;
	return DEVBC_HANDLED;
}

HANDLER(c_crc, compute_state)
{
	static const u32 table[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
		0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};
	u32 crc = ~0u;
	for (u32 i = 0; i < 64; i++) {
		crc ^= state->data[i];
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	exit->value = ~crc;
	return DEVBC_HANDLED;
}

HANDLER(c_hash, compute_state)
{
	u64 hash = 0xcbf29ce484222325;
	for (u32 i = 0; i < 64; i++)
		hash = (hash ^ state->data[i]) * 0x100000001b3;
	exit->value = hash;
	return DEVBC_HANDLED;
}
