// Three down-counters in the manner of the i8254: what a loader must cope with in one small device. Arrays of
// structures and an unnamed union in the shared area, a table in read-only data, functions that are called
// rather than inlined, from one handler and from several, timers, lines and effects.
#include <devbc.h>

#define HZ 1193182u
#define NS_PER_SECOND 1000000000u

#define TICK 0
#define IRQ 0
#define GATE 0

#define noinline __attribute__((noinline))

DEVBC_DEVICE(interval_timer);
DEVBC_BANK(pio, pio, 4);
DEVBC_REGISTERS(counter, pio, 0, 1, 3, 1);
DEVBC_REGISTER(control, pio, 3, 1);
DEVBC_TIMER(TICK, tick);
DEVBC_LINE(IRQ, irq);
DEVBC_INPUT(GATE, gate);

enum mode { ONE_SHOT, RATE, SQUARE, STROBE };

struct channel {
	u64 loaded_at;
	u32 reload;
	u8 mode;
	_Bool latched;
	union {
		u16 latch;
		u8 latch_byte[2];
	};
};

DEVBC_SCRATCH struct {
	struct channel channel[3];
	u8 shadow[2][3];
	enum mode last_mode;
	s16 trim;
} state = { .channel = { { .reload = 65536 }, { .reload = 18 }, { .reload = 65536 } }, .trim = -1 };

// Ticks that the output stays high, in eighths of the period, by mode.
static const u8 high_eighths[] = { 8, 7, 4, 1 };

static noinline u64 ticks_since(u64 start, u64 now)
{
	return devbc_muldiv(now - start, HZ, NS_PER_SECOND);
}

noinline u64 remaining(u64 now, u64 loaded_at, u64 reload)
{
	return reload ? reload - ticks_since(loaded_at, now) % reload : 0;
}

SEC("pio/read@0x0-0x2:1")
u64 counter_read(struct devbc_exit *exit)
{
	u64 index = exit->offset;

	if (index > 2)
		return DEVBC_DECLINE;
	volatile struct channel *channel = &state.channel[index];
	if (channel->latched) {
		exit->value = channel->latch_byte[0];
		channel->latched = 0;
		return DEVBC_HANDLED;
	}
	exit->value = remaining(devbc_now(exit), channel->loaded_at, channel->reload) & 0xff;
	return DEVBC_HANDLED;
}

SEC("pio/read@0x3:1")
u64 control_read(struct devbc_exit *exit)
{
	u32 reload = state.channel[2].reload;
	u64 phase = reload ? ticks_since(state.channel[2].loaded_at, devbc_now(exit)) % reload : 0;

	exit->value = phase * 8 < (u64)reload * high_eighths[state.channel[2].mode & 3];
	return DEVBC_HANDLED;
}

SEC("pio/write@0x0-0x2:1")
u64 counter_write(struct devbc_exit *exit)
{
	u64 index = exit->offset;
	u64 value = exit->value & 0xff;

	if (index > 2 || !value)
		return DEVBC_DECLINE;
	u64 now = devbc_now(exit);
	state.channel[index].reload = value;
	state.channel[index].loaded_at = now;
	state.shadow[1][index] = value;
	if (index == 0)
		devbc_arm(exit, TICK, now + devbc_muldiv(value, NS_PER_SECOND, HZ));
	return DEVBC_HANDLED;
}

SEC("timer/tick")
u64 tick(struct devbc_exit *exit)
{
	exit->raise |= DEVBC_BIT(IRQ);
	exit->lower |= DEVBC_BIT(IRQ);
	return DEVBC_HANDLED;
}

SEC("line/gate")
u64 gate(struct devbc_exit *exit)
{
	if (!exit->value)
		return DEVBC_DECLINE;
	state.channel[2].loaded_at = devbc_now(exit);
	return DEVBC_HANDLED;
}
