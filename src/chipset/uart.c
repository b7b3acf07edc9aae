/*
 * 16550A.  Section numbers are those of National's PC16550D data sheet
 * (June 1995), chapter 8, "Registers".
 *
 * Behind the chip's own receiver FIFO stands the line: bytes that came from
 * the host and are not in the FIFO yet.  It is part of the machine's state,
 * bounded, and the host is read only as far as it has room.
 */
#include <errno.h>
#include <stdio.h>

#include "char/char.h"
#include "chipset/chipset.h"
#include "chipset/uart.h"
#include "chipset/uart_regs.h"
#include "vm/vm.h"

#define LINE_SIZE	512u

/* What the data sheet names; FIFO entries are in the order of arrival. */
struct uart_model {
	uint8_t ier, fcr, lcr, mcr, msr, scr;
	uint16_t divisor;
	uint8_t overrun;		/* LSR 1 */
	uint8_t thre_pending;		/* the THRE interrupt; reading IIR or writing THR ends it */
	uint8_t timeout_pending;	/* the character timeout interrupt */
	uint8_t timeout_armed;
	int64_t timeout_due;
	uint8_t rx_count, tx_count;
	uint8_t rx[UART_FIFO];
	uint8_t rx_errors[UART_FIFO];	/* LSR 4:2 of each character */
	uint8_t tx[UART_FIFO];
	uint16_t line_count;
	uint8_t line[LINE_SIZE];
	uint8_t line_break;		/* a break stands at the end of the line */
	/* What the host's side holds, by content; the live device's lies with its peer. */
	struct state_blob unsent, unread;
	bool failed;			/* not in the record: there was no memory for them */
};

struct uart {
	struct device dev;
	struct uart_model m;		/* live and model are the same thing */
	struct vm_timer timeout;
	struct irq_line irq;
	bool irq_level;
	uint16_t base;
	struct char_backend *peer;	/* NULL: nothing plugged in */
	struct input_port input, break_input;
};

static const uint16_t uart_ports[UART_COUNT] = { 0x3f8, 0x2f8, 0x3e8, 0x2e8 };
static const uint8_t uart_irqs[UART_COUNT] = { 4, 3, 4, 3 };

static bool fifos(const struct uart *u)
{
	return u->m.fcr & FCR_ENABLE;
}

static unsigned depth(const struct uart *u)
{
	return fifos(u) ? UART_FIFO : 1;
}

/* FCR 7:6, section 8.4. */
static unsigned trigger(const struct uart *u)
{
	static const uint8_t levels[4] = { 1, 4, 8, 14 };

	return fifos(u) ? levels[u->m.fcr >> 6] : 1;
}

static uint8_t line_errors(const struct uart *u)
{
	return (u->m.overrun ? LSR_OE : 0) | (u->m.rx_count ? u->m.rx_errors[0] : 0);
}

/* The interrupt of highest priority, section 8.6 and table IV. */
static uint8_t interrupt_id(const struct uart *u)
{
	const struct uart_model *m = &u->m;

	if ((m->ier & IER_LINE) && line_errors(u))
		return IIR_LINE;
	if ((m->ier & IER_RX) && m->rx_count >= trigger(u))
		return IIR_RX;
	if ((m->ier & IER_RX) && m->timeout_pending)
		return IIR_TIMEOUT;
	if ((m->ier & IER_THRE) && m->thre_pending)
		return IIR_THRE;
	if ((m->ier & IER_MODEM) && (m->msr & MSR_DELTAS))
		return IIR_MODEM;
	return IIR_NONE;
}

/* On a PC, OUT2 gates the interrupt output to the bus. */
static void update_irq(struct uart *u)
{
	bool level = interrupt_id(u) != IIR_NONE && (u->m.mcr & MCR_OUT2);

	if (level == u->irq_level)
		return;
	u->irq_level = level;
	irq_set(&u->irq, level);
}

/* ns that one character takes at the programmed rate, section 8.3. */
static int64_t char_time(const struct uart *u)
{
	unsigned bits = 1 + 5 + (u->m.lcr & LCR_WLS) + !!(u->m.lcr & LCR_PEN) + 1 +
			!!(u->m.lcr & LCR_STB);
	uint64_t divisor = u->m.divisor ? u->m.divisor : 65536;

	return bits * divisor * 16 * NSEC_PER_SEC / UART_CLOCK_HZ;
}

/*
 * Characters below the trigger level are announced when four character times
 * pass with none coming or going (8.4.1, FIFO interrupt mode operation).
 */
static void restart_timeout(struct uart *u)
{
	u->m.timeout_pending = 0;
	if (fifos(u) && u->m.rx_count)
		timer_arm(&u->timeout, clock_now(&u->dev.vm->clock) + 4 * char_time(u));
	else
		timer_disarm(&u->timeout);
}

static void on_timeout(void *opaque)
{
	struct uart *u = opaque;

	u->m.timeout_pending = 1;
	update_irq(u);
}

/* A character has been assembled in the receiver shift register. */
static void receive_char(struct uart *u, uint8_t c, uint8_t errors)
{
	struct uart_model *m = &u->m;

	if (m->rx_count == depth(u)) {
		m->overrun = 1;
		/* Without FIFOs the new one destroys the old one, 8.5 bit 1. */
		if (fifos(u))
			return;
		m->rx_count = 0;
	}
	m->rx[m->rx_count] = c;
	m->rx_errors[m->rx_count++] = errors;
	restart_timeout(u);
}

/* Moves what is on the line into the FIFO, as far as it goes. */
static void refill(struct uart *u)
{
	struct uart_model *m = &u->m;
	unsigned n = 0;

	if (m->mcr & MCR_LOOP)
		return;		/* SIN is disconnected; the line holds */
	while (n < m->line_count && m->rx_count < depth(u))
		receive_char(u, m->line[n++], 0);
	if (n) {
		m->line_count -= n;
		memmove(m->line, m->line + n, m->line_count);
		if (u->peer)
			char_accept(u->peer);
	}
	if (m->line_break && !m->line_count && m->rx_count < depth(u)) {
		m->line_break = 0;
		receive_char(u, 0, LSR_BI);	/* one zero character, 8.5 bit 4 */
	}
}

static void rx_clear(struct uart *u)
{
	u->m.rx_count = 0;
	u->m.timeout_pending = 0;
	timer_disarm(&u->timeout);
}

static void tx_empty(struct uart *u)
{
	u->m.thre_pending = 1;
}

/* Sends what the peer has room for; with nobody there the bits go nowhere. */
static void transmit(struct uart *u)
{
	struct uart_model *m = &u->m;
	bool wait = u->dev.vm->clock.mode != CLOCK_MODE_VIRTUAL;
	unsigned n = m->tx_count;

	if (!n)
		return;
	if (u->peer) {
		if (wait)
			n = MIN(n, char_room(u->peer));
		char_write(u->peer, m->tx, n);
	}
	m->tx_count -= n;
	memmove(m->tx, m->tx + n, m->tx_count);
	if (!m->tx_count)
		tx_empty(u);
}

/* Loopback, 8.8 bit 4: the transmitter feeds the receiver, at the word length of LCR. */
static void loop_back(struct uart *u, uint8_t c)
{
	if (u->m.lcr & LCR_BREAK)
		receive_char(u, 0, LSR_BI);
	else
		receive_char(u, c & (0xff >> (3 - (u->m.lcr & LCR_WLS))), 0);
	tx_empty(u);
}

/*
 * A driver that heeds LSR never finds the FIFO full.  One that does not, or
 * that gave up waiting, waits here rather than lose its words; the device
 * lock is given up meanwhile, so everything is looked at again.
 */
static void write_thr(struct uart *u, uint8_t c)
{
	struct uart_model *m = &u->m;
	bool go_on = true;

	m->thre_pending = 0;
	update_irq(u);
	if (m->mcr & MCR_LOOP) {
		loop_back(u, c);
		update_irq(u);
		return;
	}
	if (m->tx_count == depth(u))
		transmit(u);	/* a restored one may have another peer, or none */
	while (m->tx_count == depth(u) && go_on) {
		go_on = char_wait(u->peer);
		transmit(u);
	}
	if (m->tx_count == depth(u)) {
		/* The machine is being stopped: into the buffer, beyond its limit. */
		char_write(u->peer, m->tx, m->tx_count);
		m->tx_count = 0;
	}
	m->tx[m->tx_count++] = c;
	m->thre_pending = 0;
	transmit(u);
	update_irq(u);
	if (u->peer && u->dev.vm->clock.mode == CLOCK_MODE_VIRTUAL && !char_room(u->peer))
		char_wait(u->peer);
}

static uint8_t read_rbr(struct uart *u)
{
	struct uart_model *m = &u->m;
	uint8_t c = m->rx[0];	/* an empty one reads as the last character */

	if (m->rx_count) {
		m->rx_count--;
		if (m->rx_count) {
			memmove(m->rx, m->rx + 1, m->rx_count);
			memmove(m->rx_errors, m->rx_errors + 1, m->rx_count);
		}
		restart_timeout(u);
	}
	refill(u);
	update_irq(u);
	return c;
}

/* Section 8.6: reading it clears the THRE interrupt, if that is what it tells. */
static uint8_t read_iir(struct uart *u)
{
	uint8_t id = interrupt_id(u);

	if (id == IIR_THRE) {
		u->m.thre_pending = 0;
		update_irq(u);
	}
	return id | (fifos(u) ? IIR_FIFOS : 0);
}

/* Section 8.5: reading it clears the error bits that it shows. */
static uint8_t read_lsr(struct uart *u)
{
	struct uart_model *m = &u->m;
	uint8_t lsr = line_errors(u);

	if (m->rx_count)
		lsr |= LSR_DR;
	if (!m->tx_count)
		lsr |= LSR_THRE | LSR_TEMT;
	for (unsigned i = 0; fifos(u) && i < m->rx_count; i++)
		if (m->rx_errors[i])
			lsr |= LSR_FIFO_ERROR;
	m->overrun = 0;
	if (m->rx_count)
		m->rx_errors[0] = 0;
	update_irq(u);
	return lsr;
}

/* The modem inputs: a peer that is always ready, or nothing; or our own outputs. */
static uint8_t modem_inputs(const struct uart *u)
{
	uint8_t mcr = u->m.mcr;

	if (!(mcr & MCR_LOOP))
		return u->peer ? MSR_CTS | MSR_DSR | MSR_DCD : 0;
	return (mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) |
	       (mcr & MCR_OUT1 ? MSR_RI : 0) | (mcr & MCR_OUT2 ? MSR_DCD : 0);
}

/* Section 8.9: changes are kept in 3:0 until MSR is read; RI's trailing edge only. */
static void update_modem(struct uart *u)
{
	uint8_t old = u->m.msr & ~MSR_DELTAS, now = modem_inputs(u);
	uint8_t changed = old ^ now;

	u->m.msr = (u->m.msr & MSR_DELTAS) | now | ((changed & ~MSR_RI) >> 4) |
		   (old & ~now & MSR_RI ? MSR_TERI : 0);
}

static uint8_t read_msr(struct uart *u)
{
	uint8_t msr = u->m.msr;

	u->m.msr &= ~MSR_DELTAS;
	update_irq(u);
	return msr;
}

/* Enabling the THRE interrupt while THRE is set raises it, 8.7 and table IV. */
static void write_ier(struct uart *u, uint8_t v)
{
	uint8_t enabled = v & ~u->m.ier;

	u->m.ier = v & IER_MASK;
	if ((enabled & IER_THRE) && !u->m.tx_count)
		tx_empty(u);
	update_irq(u);
}

/* Section 8.4: bit 0 must be set for the others to be taken; its change clears both FIFOs. */
static void write_fcr(struct uart *u, uint8_t v)
{
	bool toggled = (v ^ u->m.fcr) & FCR_ENABLE;

	if (toggled || ((v & FCR_ENABLE) && (v & FCR_RX_RESET)))
		rx_clear(u);
	if ((toggled || ((v & FCR_ENABLE) && (v & FCR_TX_RESET))) && u->m.tx_count) {
		u->m.tx_count = 0;
		tx_empty(u);
	}
	u->m.fcr = v & FCR_ENABLE ? v & FCR_KEPT : 0;
	refill(u);
	update_irq(u);
}

static void write_lcr(struct uart *u, uint8_t v)
{
	bool starts = (v & ~u->m.lcr) & LCR_BREAK;

	u->m.lcr = v;
	if (starts && (u->m.mcr & MCR_LOOP))
		receive_char(u, 0, LSR_BI);
	update_irq(u);
}

static void write_mcr(struct uart *u, uint8_t v)
{
	u->m.mcr = v & MCR_MASK;
	update_modem(u);
	refill(u);
	update_irq(u);
}

static uint64_t uart_read(void *opaque, uint64_t offset, unsigned size)
{
	struct uart *u = opaque;
	bool dlab = u->m.lcr & LCR_DLAB;

	switch (offset) {
	case UART_RBR:
		return dlab ? u->m.divisor & 0xff : read_rbr(u);
	case UART_IER:
		return dlab ? u->m.divisor >> 8 : u->m.ier;
	case UART_IIR:
		return read_iir(u);
	case UART_LCR:
		return u->m.lcr;
	case UART_MCR:
		return u->m.mcr;
	case UART_LSR:
		return read_lsr(u);
	case UART_MSR:
		return read_msr(u);
	case UART_SCR:
		return u->m.scr;
	default:
		return 0xff;
	}
}

static void uart_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct uart *u = opaque;
	bool dlab = u->m.lcr & LCR_DLAB;
	uint8_t v = value;

	switch (offset) {
	case UART_THR:
		if (dlab)
			u->m.divisor = (u->m.divisor & 0xff00) | v;
		else
			write_thr(u, v);
		break;
	case UART_IER:
		if (dlab)
			u->m.divisor = (u->m.divisor & 0xff) | v << 8;
		else
			write_ier(u, v);
		break;
	case UART_FCR:
		write_fcr(u, v);
		break;
	case UART_LCR:
		write_lcr(u, v);
		break;
	case UART_MCR:
		write_mcr(u, v);
		break;
	case UART_SCR:
		u->m.scr = v;
		break;
	default:
		break;		/* LSR and MSR are for factory tests, 8.5 */
	}
}

static const struct bus_ops uart_bus = {
	.read = uart_read,
	.write = uart_write,
	.max_size = 1,
};

/* Host side: how much more the line takes, counting what is under way. */
static size_t peer_room(void *opaque)
{
	struct uart *u = opaque;
	size_t used = u->m.line_count + vm_input_waiting(&u->input);

	return used < LINE_SIZE ? LINE_SIZE - used : 0;
}

static void peer_receive(void *opaque, const uint8_t *data, size_t len)
{
	struct uart *u = opaque;

	vm_input(&u->input, data, len);
}

static void peer_break(void *opaque)
{
	struct uart *u = opaque;

	vm_input(&u->break_input, (const uint8_t *)"", 1);
}

static void peer_drained(void *opaque)
{
	struct uart *u = opaque;

	if (u->dev.vm->clock.mode == CLOCK_MODE_VIRTUAL)
		return;		/* the transmitter never waited */
	transmit(u);
	update_irq(u);
}

static const struct char_receiver uart_receiver = {
	.room = peer_room,
	.receive = peer_receive,
	.brk = peer_break,
	.drained = peer_drained,
};

/* Guest side.  peer_room saw to it that there is room, unless a log says otherwise. */
static void line_deliver(void *opaque, const uint8_t *data, size_t len)
{
	struct uart *u = opaque;
	size_t n = MIN(len, (size_t)(LINE_SIZE - u->m.line_count));

	memcpy(u->m.line + u->m.line_count, data, n);
	u->m.line_count += n;
	if (n < len)
		u->m.overrun = 1;
	refill(u);
	update_irq(u);
}

static void break_deliver(void *opaque, const uint8_t *data, size_t len)
{
	struct uart *u = opaque;

	u->m.line_break = 1;
	refill(u);
	update_irq(u);
}

static void uart_reset(struct device *d)
{
	struct uart *u = container_of(d, struct uart, dev);

	timer_disarm(&u->timeout);
	memset(&u->m, 0, sizeof(u->m));
	u->m.divisor = UART_DEFAULT_DIVISOR;
	u->m.msr = modem_inputs(u);
	update_irq(u);
	if (u->peer)
		char_accept(u->peer);
}

static int uart_init(struct device *d, struct skep_error *e)
{
	struct uart *u = container_of(d, struct uart, dev);
	const char *path = config_string(d->config, "path");
	unsigned index = d->name[strlen(d->name) - 1] - '1';
	char name[32];
	int rc;

	if (index >= UART_COUNT)
		return skep_fail(e, EINVAL, "%s: there are com1 to com4", d->name);
	u->base = uart_ports[index];
	timer_init(&u->timeout, d->vm, d->name, on_timeout, u);
	rc = bus_map(&d->vm->ports, u->base, 8, &uart_bus, u, d->name, e);
	if (rc < 0)
		return rc;
	input_port_add(&u->input, d->vm, d->name, line_deliver, u);
	snprintf(name, sizeof(name), "%.24s.break", d->name);
	input_port_add(&u->break_input, d->vm, name, break_deliver, u);
	if (path) {
		u->peer = char_create(d->vm, d->name, path, e);
		if (!u->peer) {
			bus_unmap(&d->vm->ports, u->base);
			return -EINVAL;
		}
		char_set_receiver(u->peer, &uart_receiver, u);
	}
	uart_reset(d);
	return 0;
}

static void uart_finish(struct device *d)
{
	struct uart *u = container_of(d, struct uart, dev);

	/* What waits in the transmitter still goes out, unless a restored machine will send it. */
	if (u->peer && u->m.tx_count && !vm_suspended(d->vm))
		char_write(u->peer, u->m.tx, u->m.tx_count);
	char_destroy(u->peer);
	timer_disarm(&u->timeout);
	bus_unmap(&d->vm->ports, u->base);
}

/* Input needs nothing here: it passes the peer and vm_input, which hold it. */
static void uart_quiesce(struct device *d)
{
	struct uart *u = container_of(d, struct uart, dev);

	if (u->peer)
		char_quiesce(u->peer);
}

/*
 * After a restore nobody else may be there to say that there is room: what stands in the
 * transmitter is sent now.
 */
static void uart_resume(struct device *d)
{
	struct uart *u = container_of(d, struct uart, dev);

	if (vm_suspended(d->vm))
		return;
	transmit(u);
	update_irq(u);
	if (u->peer)
		char_resume(u->peer);
}

static void uart_export(const struct device *d, void *model)
{
	const struct uart *u = container_of(d, struct uart, dev);
	struct uart_model *m = model;

	*m = u->m;
	m->timeout_armed = timer_armed(&u->timeout);
	m->timeout_due = m->timeout_armed ? u->timeout.due : 0;
	/* Beyond the counts lies what was there before: not state, bar RBR's last character. */
	memset(m->rx + MAX(m->rx_count, 1), 0, UART_FIFO - MAX(m->rx_count, 1));
	memset(m->rx_errors + m->rx_count, 0, UART_FIFO - m->rx_count);
	memset(m->tx + m->tx_count, 0, UART_FIFO - m->tx_count);
	memset(m->line + m->line_count, 0, LINE_SIZE - m->line_count);
	m->failed = u->peer && char_export(u->peer, &m->unsent, &m->unread) < 0;
}

/* With FIFOs, characters wait for the timeout, or it has come. */
static int validate_timeout(const struct device *d, const struct uart_model *m,
			    struct skep_error *e)
{
	bool wanted = (m->fcr & FCR_ENABLE) && m->rx_count;

	if (m->timeout_armed + m->timeout_pending != wanted)
		return skep_fail(e, EINVAL, "%s: the character timeout does not fit %u characters, "
				 "FCR %#x", d->name, m->rx_count, m->fcr);
	if (m->timeout_due < 0 || (m->timeout_due && !m->timeout_armed))
		return skep_fail(e, EINVAL, "%s: timeout_due %lld cannot be", d->name,
				 (long long)m->timeout_due);
	return 0;
}

/* What the field table cannot say: FIFO use needs FIFOs, a line waits behind a full FIFO. */
static int uart_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct uart_model *m = model;
	unsigned max = m->fcr & FCR_ENABLE ? UART_FIFO : 1;
	bool room;

	if (m->failed)
		return skep_fail(e, ENOMEM, "%s: no memory for a copy of what waits for the host", d->name);
	if (m->rx_count > max || m->tx_count > max)
		return skep_fail(e, EINVAL, "%s: %u received and %u unsent characters with room "
				 "for %u", d->name, m->rx_count, m->tx_count, max);
	if (m->fcr & ~FCR_KEPT || (!(m->fcr & FCR_ENABLE) && m->fcr))
		return skep_fail(e, EINVAL, "%s: FCR %#x cannot be", d->name, m->fcr);
	for (unsigned i = 0; i < UART_FIFO; i++)
		if (m->rx_errors[i] & ~LSR_CHAR_ERRORS)
			return skep_fail(e, EINVAL, "%s: error bits %#x of character %u cannot be",
					 d->name, m->rx_errors[i], i);
	if (validate_timeout(d, m, e) < 0)
		return -EINVAL;
	room = !(m->mcr & MCR_LOOP) && m->rx_count < max;
	if (room && (m->line_count || m->line_break))
		return skep_fail(e, EINVAL, "%s: the line holds characters, and the FIFO has room for "
				 "them", d->name);
	return 0;
}

static void uart_commit(struct device *d, const void *model)
{
	struct uart *u = container_of(d, struct uart, dev);
	const struct uart_model *m = model;

	u->m = *m;
	u->m.unsent = u->m.unread = (struct state_blob){ 0 };
	if (u->m.timeout_armed)
		timer_arm(&u->timeout, u->m.timeout_due);
	else
		timer_disarm(&u->timeout);
	/* The interrupt controllers carry their own view of the pin: no edge here. */
	u->irq_level = interrupt_id(u) != IIR_NONE && (u->m.mcr & MCR_OUT2);
	update_modem(u);
	update_irq(u);
	if (u->peer)
		char_import(u->peer, &m->unsent, &m->unread);
}

static const struct config_key uart_keys[] = {
	{ .name = "path", .type = CONFIG_STRING,
	  .help = "stdio, pty, unix=/path, tcp=ip:port, null or a file; unset: nothing connected" },
};

static const struct config_schema uart_schema = { uart_keys, ARRAY_SIZE(uart_keys) };

static const struct state_field uart_fields[] = {
	STATE_U8(struct uart_model, ier, .max = IER_MASK),
	STATE_U8(struct uart_model, fcr),
	STATE_U8(struct uart_model, lcr),
	STATE_U8(struct uart_model, mcr, .max = MCR_MASK),
	STATE_U8(struct uart_model, msr),
	STATE_U8(struct uart_model, scr),
	STATE_U16(struct uart_model, divisor),
	STATE_BOOL(struct uart_model, overrun),
	STATE_BOOL(struct uart_model, thre_pending),
	STATE_BOOL(struct uart_model, timeout_pending),
	STATE_BOOL(struct uart_model, timeout_armed),
	STATE_TIME(struct uart_model, timeout_due, .max = CLOCK_DUE_MAX),
	STATE_U8(struct uart_model, rx_count, .max = UART_FIFO),
	STATE_U8(struct uart_model, tx_count, .max = UART_FIFO),
	STATE_BYTES(struct uart_model, rx),
	STATE_BYTES(struct uart_model, rx_errors),
	STATE_BYTES(struct uart_model, tx),
	STATE_U16(struct uart_model, line_count, .max = LINE_SIZE),
	STATE_BYTES(struct uart_model, line),
	STATE_BOOL(struct uart_model, line_break),
	STATE_BLOB(struct uart_model, unsent, .max = CHAR_UNSENT_MAX, .host = true),
	STATE_BLOB(struct uart_model, unread, .max = CHAR_UNREAD_MAX, .host = true),
};

const struct state_record uart_record = {
	.kind = "ns16550a",
	.version = 1,
	.model_size = sizeof(struct uart_model),
	.fields = uart_fields,
	.nfields = ARRAY_SIZE(uart_fields),
};

const struct device_type uart_type = {
	.name = "uart",
	.help = "16550A serial port",
	.config = &uart_schema,
	.state = &uart_record,
	.size = sizeof(struct uart),
	.init = uart_init,
	.finish = uart_finish,
	.reset = uart_reset,
	.quiesce = uart_quiesce,
	.resume = uart_resume,
	.export = uart_export,
	.validate = uart_validate,
	.commit = uart_commit,
};

struct device *uart_make(struct vm *vm, unsigned index, struct irq_line irq, struct skep_error *e)
{
	struct config_node *node;
	struct device *d;
	char name[16];

	snprintf(name, sizeof(name), "lpc.com%u", index + 1);
	node = vm->config ? config_find(vm->config, name) : NULL;
	d = device_create(vm, &uart_type, name, node, e);
	if (d)
		container_of(d, struct uart, dev)->irq = irq;
	return d;
}

static bool on_stdio(struct vm *vm, unsigned index)
{
	char node[16];
	const char *path;

	snprintf(node, sizeof(node), "lpc.com%u", index + 1);
	path = config_string(config_find(vm->config, node), "path");
	return path && !strcmp(path, "stdio");
}

int uart_create(struct vm *vm, unsigned index, struct skep_error *e)
{
	if (index >= UART_COUNT)
		return skep_fail(e, EINVAL, "lpc.com%u: there are com1 to com4", index + 1);
	/* Standard input has one reader: two would take turns with its bytes. */
	for (unsigned i = 0; i < index; i++)
		if (on_stdio(vm, i) && on_stdio(vm, index))
			return skep_fail(e, EBUSY, "lpc.com%u.path=stdio: lpc.com%u has it; "
					 "give one of them pty, unix=, tcp= or a file",
					 index + 1, i + 1);
	return uart_make(vm, index, chipset_gsi(vm, uart_irqs[index]), e) ? 0 : -EINVAL;
}
