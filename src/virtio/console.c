/*
 * virtio-console with several ports: VIRTIO 1.2, section 5.3.
 *
 * A port is connected to a character backend.  What comes from the host waits in the port until
 * the driver has buffers for it, within a bound that holds the host back; what the guest
 * sends stays in its queue while the host takes nothing, a long buffer in part.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "char/char.h"
#include "virtio/console.h"
#include "vm/input.h"
#include "vm/vm.h"

#define PORTS		16u
#define LINE		4096u		/* bytes from the host that wait in a port */
#define NAME_MAX_	64u
#define PIECE		4096u
#define TURN		(1u << 20)	/* bytes from the guest, before others get the device lock */
#define QUEUE_SIZE	128u

#define F_MULTIPORT	BIT(1)
#define F_EMERG_WRITE	BIT(2)

/* Control messages, 5.3.6.2: port, event, value, each little-endian. */
#define EVENT_DEVICE_READY	0
#define EVENT_PORT_ADD		1
#define EVENT_PORT_READY	3
#define EVENT_CONSOLE_PORT	4
#define EVENT_PORT_OPEN		6
#define EVENT_PORT_NAME		7
#define MESSAGE			8u

/* Messages that a port is still to send, in this order. */
#define PENDING_ADD	1
#define PENDING_CONSOLE	2
#define PENDING_NAME	4
#define PENDING_OPEN	8

struct port_model {
	uint8_t pending;
	uint8_t guest_open;	/* a program of the guest's has it open */
	uint32_t sent;		/* bytes of the first buffer of the transmit queue that are gone */
	struct state_blob line;
	struct state_blob unsent, unread;	/* of the backend */
};

struct console_model {
	struct virtio_model virtio;
	struct port_model port[PORTS];
	bool failed;		/* not in the record: there was no memory */
};

struct port {
	struct console *console;
	struct char_backend *peer;	/* NULL: there is no such port */
	struct input_port input;
	const char *name;
	unsigned id;
	uint8_t pending, guest_open;
	uint32_t sent;
	uint16_t line_len;
	uint8_t line[LINE];
};

struct console {
	struct virtio v;	/* first */
	unsigned nports;	/* the last one that there is, and one */
	struct port port[PORTS];
	struct virtq_chain chain;
};

static struct console *console_of(const struct virtio *v)
{
	return container_of((struct virtio *)v, struct console, v);
}

/* 5.3.2: the control queues stand between the first port's and the others'. */
static struct virtqueue *rx_queue(const struct port *p)
{
	return &p->console->v.queue[p->id ? 2 * p->id + 2 : 0];
}

static struct virtqueue *tx_queue(const struct port *p)
{
	return rx_queue(p) + 1;
}

static bool multiport(const struct console *c)
{
	return virtio_has(&c->v, F_MULTIPORT);
}

static bool is_virtual(const struct console *c)
{
	return c->v.pci.dev.vm->clock.mode == CLOCK_MODE_VIRTUAL;
}

/* ---- From the host ------------------------------------------------------- */

/* What waits goes into buffers, once the guest listens. */
static void fill(struct port *p)
{
	struct console *c = p->console;
	struct virtqueue *q = rx_queue(p);
	uint16_t done = 0;

	if (c->v.quiesced || (multiport(c) && !p->guest_open))
		return;
	while (done < p->line_len && virtq_pop(q, &c->chain) > 0) {
		size_t n = virtq_write(q, &c->chain, 0, p->line + done, p->line_len - done);

		if (!n) {
			virtio_broken(&c->v, "queue %u: a buffer of no bytes to receive into", q->index);
			virtq_unpop(q, &c->chain);
			break;
		}
		virtq_push(q, &c->chain, (uint32_t)n);
		done += (uint16_t)n;
	}
	if (!done)
		return;
	p->line_len -= done;
	memmove(p->line, p->line + done, p->line_len);
	virtq_signal(q);
	char_accept(p->peer);
}

/* peer_room saw to it that there is room, unless a log says otherwise. */
static void deliver(void *opaque, const uint8_t *data, size_t len)
{
	struct port *p = opaque;
	size_t n = MIN(len, (size_t)(LINE - p->line_len));

	memcpy(p->line + p->line_len, data, n);
	p->line_len += (uint16_t)n;
	fill(p);
}

static size_t peer_room(void *opaque)
{
	struct port *p = opaque;
	size_t used = p->line_len + vm_input_waiting(&p->input);

	return used < LINE ? LINE - used : 0;
}

static void peer_receive(void *opaque, const uint8_t *data, size_t len)
{
	vm_input(&((struct port *)opaque)->input, data, len);
}

/* A port knows no breaks. */
static void peer_break(void *opaque)
{
}

/* ---- From the guest ------------------------------------------------------ */

/* May so much be written now?  clock=virtual waits here, so that the guest does not notice. */
static size_t room(struct port *p)
{
	if (!is_virtual(p->console))
		return char_room(p->peer);
	if (!char_room(p->peer))
		char_wait(p->peer);
	return PIECE;
}

/* True: the buffer has gone out as a whole. *sent: bytes in this turn. */
static bool send_chain(struct port *p, struct virtqueue *q, const struct virtq_chain *c, size_t *sent)
{
	uint8_t piece[PIECE];
	size_t n;

	while (p->sent < c->readable) {
		if (*sent >= TURN && virtq_enough(q))
			return false;
		n = MIN(room(p), (size_t)PIECE);
		n = virtq_read(q, c, p->sent, piece, n);
		if (!n)
			return false;
		char_write(p->peer, piece, n);
		p->sent += (uint32_t)n;
		*sent += n;
	}
	p->sent = 0;
	return true;
}

static void send_all(struct port *p)
{
	struct console *c = p->console;
	struct virtqueue *q = tx_queue(p);
	size_t sent = 0;

	if (c->v.quiesced)
		return;
	while (virtq_pop(q, &c->chain) > 0) {
		if (!send_chain(p, q, &c->chain, &sent)) {
			virtq_unpop(q, &c->chain);
			break;
		}
		virtq_push(q, &c->chain, 0);
	}
	virtq_signal(q);
}

static void peer_drained(void *opaque)
{
	struct port *p = opaque;

	if (!is_virtual(p->console))
		send_all(p);
}

static const struct char_receiver receiver = { peer_room, peer_receive, peer_break, peer_drained };

/* ---- Control, 5.3.6.2 ---------------------------------------------------- */

static size_t message(const struct port *p, uint8_t which, uint8_t m[MESSAGE + NAME_MAX_])
{
	static const uint16_t events[] = {
		[PENDING_ADD] = EVENT_PORT_ADD, [PENDING_CONSOLE] = EVENT_CONSOLE_PORT,
		[PENDING_NAME] = EVENT_PORT_NAME, [PENDING_OPEN] = EVENT_PORT_OPEN,
	};
	const char *name = which == PENDING_NAME ? p->name : "";
	size_t len = strlen(name);

	store32(m, p->id);
	store16(m + 4, events[which]);
	store16(m + 6, 1);
	memcpy(m + MESSAGE, name, len);
	return MESSAGE + len;
}

/* False: there is no buffer for it. */
static bool tell(struct console *c, struct port *p, uint8_t which)
{
	struct virtqueue *q = &c->v.queue[2];
	uint8_t m[MESSAGE + NAME_MAX_];
	size_t len = message(p, which, m);

	if (virtq_pop(q, &c->chain) <= 0)
		return false;
	if (c->chain.writable < len) {
		virtio_broken(&c->v, "queue 2: a buffer of %u bytes for a message of %zu", c->chain.writable,
			      len);
		virtq_unpop(q, &c->chain);
		return false;
	}
	virtq_push(q, &c->chain, (uint32_t)virtq_write(q, &c->chain, 0, m, len));
	p->pending &= ~which;
	return true;
}

static void tell_all(struct console *c)
{
	if (c->v.quiesced || !multiport(c))
		return;
	for (unsigned i = 0; i < c->nports; i++)
		for (uint8_t which = PENDING_ADD; which <= PENDING_OPEN; which <<= 1)
			if ((c->port[i].pending & which) && !tell(c, &c->port[i], which))
				i = c->nports - 1, which = PENDING_OPEN;
	virtq_signal(&c->v.queue[2]);
}

static void port_ready(struct console *c, struct port *p)
{
	p->pending |= PENDING_OPEN;
	if (!p->id)
		p->pending |= PENDING_CONSOLE;
	if (p->name)
		p->pending |= PENDING_NAME;
}

static void hear(struct console *c, const uint8_t m[MESSAGE])
{
	uint32_t id = load32(m);
	uint16_t event = load16(m + 4), value = load16(m + 6);

	if (event == EVENT_DEVICE_READY && value == 1) {
		for (unsigned i = 0; i < c->nports; i++)
			if (c->port[i].peer)
				c->port[i].pending |= PENDING_ADD;
		return;
	}
	if (id >= c->nports || !c->port[id].peer)
		return;
	if (event == EVENT_PORT_READY && value == 1)
		port_ready(c, &c->port[id]);
	if (event == EVENT_PORT_OPEN) {
		c->port[id].guest_open = value == 1;
		fill(&c->port[id]);
	}
}

static void hear_all(struct console *c)
{
	struct virtqueue *q = &c->v.queue[3];
	uint8_t m[MESSAGE];

	while (multiport(c) && virtq_pop(q, &c->chain) > 0) {
		bool whole = virtq_read(q, &c->chain, 0, m, MESSAGE) == MESSAGE;

		virtq_push(q, &c->chain, 0);
		/* Less than a message says nothing. */
		if (whole)
			hear(c, m);
	}
	virtq_signal(q);
	tell_all(c);
}

static void console_notify(struct virtio *v, struct virtqueue *q)
{
	struct console *c = console_of(v);
	unsigned id = q->index < 2 ? 0 : q->index / 2 - 1;

	if (q->index == 2)
		tell_all(c);
	else if (q->index == 3)
		hear_all(c);
	else if (!c->port[id].peer || (id && !multiport(c)))
		return;
	else if (q->index & 1)
		send_all(&c->port[id]);
	else
		fill(&c->port[id]);
}

/* ---- Configuration, 5.3.4 ------------------------------------------------ */

static void console_config_read(struct virtio *v, unsigned offset, unsigned size, void *buf)
{
	uint8_t config[12] = { 0 };	/* columns and rows are not offered */

	store32(config + 4, console_of(v)->nports);
	memcpy(buf, config + offset, size);
}

/* A character before there are queues: the first port's, or nobody's. */
static void console_config_write(struct virtio *v, unsigned offset, unsigned size, const void *buf)
{
	struct port *p = &console_of(v)->port[0];

	if (offset == 8 && p->peer && char_room(p->peer))
		char_write(p->peer, buf, 1);
}

/* ---- Life ---------------------------------------------------------------- */

static void console_reset(struct virtio *v)
{
	struct console *c = console_of(v);

	for (unsigned i = 0; i < PORTS; i++) {
		c->port[i].pending = c->port[i].guest_open = 0;
		c->port[i].sent = 0;
		c->port[i].line_len = 0;
		if (c->port[i].peer)
			char_accept(c->port[i].peer);
	}
}

static void console_queue_reset(struct virtio *v, struct virtqueue *q)
{
	if ((q->index & 1) && q->index != 3)
		console_of(v)->port[q->index < 2 ? 0 : q->index / 2 - 1].sent = 0;
}

static void console_quiesce(struct virtio *v)
{
	struct console *c = console_of(v);

	for (unsigned i = 0; i < c->nports; i++)
		if (c->port[i].peer)
			char_quiesce(c->port[i].peer);
}

static void console_resume(struct virtio *v)
{
	struct console *c = console_of(v);

	tell_all(c);
	for (unsigned i = 0; i < c->nports; i++)
		if (c->port[i].peer) {
			fill(&c->port[i]);
			if (!is_virtual(c))
				send_all(&c->port[i]);
			char_resume(c->port[i].peer);
		}
}

static void console_finish(struct virtio *v)
{
	struct console *c = console_of(v);

	for (unsigned i = 0; i < PORTS; i++) {
		char_destroy(c->port[i].peer);
		c->port[i].peer = NULL;
	}
}

static int open_port(struct console *c, unsigned id, struct skep_error *e)
{
	struct device *d = &c->v.pci.dev;
	struct port *p = &c->port[id];
	char key[24], owner[32];
	const char *path;

	p->console = c;
	p->id = id;
	snprintf(key, sizeof(key), "port.%u.path", id);
	path = config_string(d->config, key);
	snprintf(key, sizeof(key), "port.%u.name", id);
	p->name = config_string(d->config, key);
	snprintf(owner, sizeof(owner), "%.20s.port.%u", d->name, id);
	if (p->name && (!path || !p->name[0] || strlen(p->name) >= NAME_MAX_))
		return skep_fail(e, EINVAL, "%s.name: a port that has a path may have a name of 1 to %u "
				 "bytes", owner, NAME_MAX_ - 1);
	if (!path)
		return 0;
	p->peer = char_create(d->vm, owner, path, e);
	if (!p->peer)
		return -EINVAL;
	input_port_add(&p->input, d->vm, owner, deliver, p);
	char_set_receiver(p->peer, &receiver, p);
	c->nports = id + 1;
	return 0;
}

static int console_init(struct virtio *v, struct skep_error *e)
{
	struct console *c = console_of(v);
	int err = 0;

	c->nports = 1;
	for (unsigned i = 0; i < PORTS && !err; i++)
		err = open_port(c, i, e);
	for (unsigned i = 0; i < 2 * c->nports + 2 && !err; i++)
		err = virtio_add_queue(v, QUEUE_SIZE, e);
	if (err) {
		console_finish(v);
		return err;
	}
	v->config_size = 12;
	v->features = F_MULTIPORT | F_EMERG_WRITE;
	return 0;
}

/* ---- State --------------------------------------------------------------- */

static void console_export(const struct virtio *v, void *model)
{
	const struct console *c = console_of(v);
	struct console_model *m = model;

	for (unsigned i = 0; i < c->nports; i++) {
		const struct port *p = &c->port[i];
		struct port_model *pm = &m->port[i];

		pm->pending = p->pending;
		pm->guest_open = p->guest_open;
		pm->sent = p->sent;
		if (p->line_len)
			pm->line.data = malloc(p->line_len);
		m->failed |= p->line_len && !pm->line.data;
		if (pm->line.data) {
			memcpy(pm->line.data, p->line, p->line_len);
			pm->line.len = p->line_len;
		}
		m->failed |= p->peer && char_export(p->peer, &pm->unsent, &pm->unread) < 0;
	}
}

static int console_validate(const struct virtio *v, const void *model, struct skep_error *e)
{
	const struct console_model *m = model;
	const struct console *c = console_of(v);

	if (m->failed)
		return skep_fail(e, ENOMEM, "%s: no memory for a copy of what waits for the host",
				 v->pci.dev.name);
	for (unsigned i = 0; i < PORTS; i++) {
		const struct port_model *p = &m->port[i];

		if (!c->port[i].peer && (p->pending || p->guest_open || p->sent || p->line.len ||
					 p->unsent.len || p->unread.len))
			return skep_fail(e, EINVAL, "%s: port[%u] was used, and this machine has none; set "
					 "%s.port.%u.path", v->pci.dev.name, i, v->pci.dev.name, i);
	}
	return 0;
}

static void console_commit(struct virtio *v, const void *model)
{
	const struct console_model *m = model;
	struct console *c = console_of(v);

	for (unsigned i = 0; i < PORTS; i++) {
		struct port *p = &c->port[i];

		p->pending = m->port[i].pending;
		p->guest_open = m->port[i].guest_open;
		p->sent = m->port[i].sent;
		p->line_len = (uint16_t)m->port[i].line.len;
		if (p->line_len)
			memcpy(p->line, m->port[i].line.data, p->line_len);
		if (p->peer)
			char_import(p->peer, &m->port[i].unsent, &m->port[i].unread);
	}
}

static const struct state_field port_fields[] = {
	STATE_U8(struct port_model, pending, .max = 15),
	STATE_BOOL(struct port_model, guest_open),
	STATE_U32(struct port_model, sent),
	STATE_BLOB(struct port_model, line, .max = LINE),
	STATE_BLOB(struct port_model, unsent, .max = CHAR_UNSENT_MAX, .host = true),
	STATE_BLOB(struct port_model, unread, .max = CHAR_UNREAD_MAX, .host = true),
};

static const struct state_record port_record = {
	.kind = "virtio-console-port",
	.version = 1,
	.model_size = sizeof(struct port_model),
	.fields = port_fields,
	.nfields = ARRAY_SIZE(port_fields),
};

static const struct state_field console_fields[] = {
	VIRTIO_STATE(struct console_model),
	STATE_STRUCTS(struct console_model, port, &port_record),
};

const struct state_record virtio_console_record = {
	.kind = "virtio-console",
	.version = 1,
	.model_size = sizeof(struct console_model),
	.fields = console_fields,
	.nfields = ARRAY_SIZE(console_fields),
};

#define PORT_KEYS(n) \
	{ .name = "port." #n ".path", .type = CONFIG_STRING, \
	  .help = "stdio, pty, unix=/path, tcp=ip:port, null or a file" }, \
	{ .name = "port." #n ".name", .type = CONFIG_STRING, .help = "the port's name in the guest" }

static const struct config_key console_keys[] = {
	PORT_KEYS(0), PORT_KEYS(1), PORT_KEYS(2), PORT_KEYS(3),
	PORT_KEYS(4), PORT_KEYS(5), PORT_KEYS(6), PORT_KEYS(7),
	PORT_KEYS(8), PORT_KEYS(9), PORT_KEYS(10), PORT_KEYS(11),
	PORT_KEYS(12), PORT_KEYS(13), PORT_KEYS(14), PORT_KEYS(15),
};

static const struct config_schema console_schema = { console_keys, ARRAY_SIZE(console_keys) };

const struct virtio_type virtio_console_type = {
	VIRTIO_DEVICE("virtio-console", "consoles and byte channels", 3, 0x078000, struct console,
		      console_schema, virtio_console_record),
	.init = console_init,
	.finish = console_finish,
	.reset = console_reset,
	.notify = console_notify,
	.queue_reset = console_queue_reset,
	.config_read = console_config_read,
	.config_write = console_config_write,
	.quiesce = console_quiesce,
	.resume = console_resume,
	.export = console_export,
	.validate = console_validate,
	.commit = console_commit,
};
