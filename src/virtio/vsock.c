/*
 * virtio-vsock: VIRTIO 1.2, section 5.10: stream sockets between the guest and the host.
 *
 * The device is in two parts.  This one is the guest's: it takes packets out of the transmit
 * queue, and puts those for the guest into the receive queue, in pieces if its buffers are small.
 * vsock_host.c has the connections.  A restored machine has none of them: the driver is told that
 * the transport was reset (5.10.6.7), and ends its sockets.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "virtio/vsock.h"
#include "vm/input.h"
#include "vm/vm.h"

#define QUEUE_SIZE	256u
#define RX		0
#define TX		1
#define EVENT		2

#define F_STREAM	BIT(0)
#define EVENT_TRANSPORT_RESET	0

/* Packets that wait for buffers: the host is held back by the first bound, and the guest, too. */
#define BACKLOG		64u
#define BACKLOG_MAX	4096u
#define INPUT_MAX	(256u * 1024)

struct waiting {
	struct waiting *next;
	struct vsock_packet p;
	uint32_t sent;		/* bytes of the payload that the guest has */
	uint8_t data[];
};

struct vsock {
	struct virtio v;	/* first */
	uint64_t cid;
	struct vsock_host *host;	/* NULL: nobody is there */
	struct input_port input;
	struct waiting *waiting, **waiting_end;
	unsigned nwaiting;
	bool was_full;		/* vsock_host_accept is owed */
	bool tell_reset;	/* a transport reset, once there is a buffer for it */
	uint32_t lost;		/* connections of the process that saved us, until we go on */
	struct virtq_chain chain, tx_chain;
	uint8_t *data;		/* of a packet from the guest */
};

static struct vsock *vsock_of(const struct virtio *v)
{
	return container_of((struct virtio *)v, struct vsock, v);
}

static bool is_virtual(const struct vsock *s)
{
	return s->v.pci.dev.vm->clock.mode == CLOCK_MODE_VIRTUAL;
}

/* ---- The header, 5.10.6 -------------------------------------------------- */

static void put_header(const struct vsock *s, const struct vsock_packet *p, uint8_t h[VSOCK_HEADER])
{
	store64(h, VSOCK_HOST_CID);
	store64(h + 8, s->cid);
	store32(h + 16, p->src_port);
	store32(h + 20, p->dst_port);
	store32(h + 24, p->len);
	store16(h + 28, p->type);
	store16(h + 30, p->op);
	store32(h + 32, p->flags);
	store32(h + 36, p->buf_alloc);
	store32(h + 40, p->fwd_cnt);
}

static void get_header(const uint8_t h[VSOCK_HEADER], struct vsock_packet *p)
{
	*p = (struct vsock_packet){
		.src_port = load32(h + 16), .dst_port = load32(h + 20), .len = load32(h + 24),
		.type = load16(h + 28), .op = load16(h + 30), .flags = load32(h + 32),
		.buf_alloc = load32(h + 36), .fwd_cnt = load32(h + 40),
	};
}

/* ---- To the guest -------------------------------------------------------- */

static void drop_first(struct vsock *s)
{
	struct waiting *w = s->waiting;

	s->waiting = w->next;
	if (!s->waiting)
		s->waiting_end = &s->waiting;
	s->nwaiting--;
	free(w);
}

static void drop_all(struct vsock *s)
{
	while (s->waiting)
		drop_first(s);
}

static void append(struct vsock *s, const struct vsock_packet *p, const uint8_t *data)
{
	struct waiting *w = s->nwaiting < BACKLOG_MAX ? malloc(sizeof(*w) + p->len) : NULL;

	if (!w) {
		vm_request_error(s->v.pci.dev.vm, "%s: no memory for a packet", s->v.pci.dev.name);
		return;
	}
	*w = (struct waiting){ .p = *p };
	if (p->len)
		memcpy(w->data, data, p->len);
	*s->waiting_end = w;
	s->waiting_end = &w->next;
	s->nwaiting++;
}

/* The first packet, or as much of it as one buffer takes.  False: there is no buffer. */
static bool put_first(struct vsock *s)
{
	struct virtqueue *q = &s->v.queue[RX];
	struct waiting *w = s->waiting;
	struct vsock_packet p = w->p;
	uint8_t h[VSOCK_HEADER];

	if (virtq_pop(q, &s->chain) <= 0)
		return false;
	if (s->chain.writable < VSOCK_HEADER + !!p.len) {
		virtio_broken(&s->v, "queue %u: a buffer of %u bytes to receive into", RX,
			      s->chain.writable);
		virtq_unpop(q, &s->chain);
		return false;
	}
	p.len = MIN(p.len - w->sent, s->chain.writable - VSOCK_HEADER);
	put_header(s, &p, h);
	virtq_write(q, &s->chain, 0, h, VSOCK_HEADER);
	virtq_write(q, &s->chain, VSOCK_HEADER, w->data + w->sent, p.len);
	virtq_push(q, &s->chain, VSOCK_HEADER + p.len);
	w->sent += p.len;
	if (w->sent == w->p.len)
		drop_first(s);
	return true;
}

static bool have_room(const struct vsock *s)
{
	return s->nwaiting < BACKLOG && (!is_virtual(s) || vm_input_waiting(&s->input) < INPUT_MAX);
}

static void put_all(struct vsock *s)
{
	if (!s->v.quiesced && virtio_running(&s->v)) {
		while (s->waiting && put_first(s))
			;
		virtq_signal(&s->v.queue[RX]);
	}
	if (s->was_full && have_room(s) && s->host) {
		s->was_full = false;
		vsock_host_accept(s->host);
	}
}

static void tell_reset(struct vsock *s)
{
	struct virtqueue *q = &s->v.queue[EVENT];
	uint8_t event[4];

	if (!s->tell_reset || s->v.quiesced || virtq_pop(q, &s->chain) <= 0)
		return;
	store32(event, EVENT_TRANSPORT_RESET);
	virtq_push(q, &s->chain, (uint32_t)virtq_write(q, &s->chain, 0, event, sizeof(event)));
	virtq_signal(q);
	s->tell_reset = false;
}

/* From the input log, or at once.  A log that somebody has edited may hold anything. */
static void deliver(void *opaque, const uint8_t *data, size_t len)
{
	struct vsock *s = opaque;
	struct vsock_packet p;

	if (len < VSOCK_HEADER)
		return;
	get_header(data, &p);
	if (p.len != len - VSOCK_HEADER || p.len > VSOCK_HOST_DATA)
		return;
	append(s, &p, data + VSOCK_HEADER);
	put_all(s);
}

static bool on_room(void *opaque)
{
	struct vsock *s = opaque;
	bool room = have_room(s);

	s->was_full |= !room;
	return room;
}

static void on_packet(void *opaque, const struct vsock_packet *p, const uint8_t *data)
{
	struct vsock *s = opaque;
	uint8_t record[VSOCK_HEADER + VSOCK_HOST_DATA];

	put_header(s, p, record);
	if (p->len)
		memcpy(record + VSOCK_HEADER, data, p->len);
	vm_input(&s->input, record, VSOCK_HEADER + p->len);
}

static const struct vsock_receiver receiver = { on_room, on_packet };

/* ---- From the guest ------------------------------------------------------ */

static void take_packet(struct vsock *s, struct virtqueue *q, const struct virtq_chain *c)
{
	uint8_t h[VSOCK_HEADER];
	struct vsock_packet p;

	/* What is not whole, or not from this guest to this host, is dropped. */
	if (virtq_read(q, c, 0, h, VSOCK_HEADER) != VSOCK_HEADER)
		return;
	get_header(h, &p);
	if (load64(h) != s->cid || load64(h + 8) != VSOCK_HOST_CID || p.len > VSOCK_GUEST_DATA ||
	    virtq_read(q, c, VSOCK_HEADER, s->data, p.len) != p.len)
		return;
	if (s->host)
		vsock_host_packet(s->host, &p, s->data);
}

/* Answers take room, too: while too many wait the guest's packets do (5.10.6.1). */
static void take_all(struct vsock *s)
{
	struct virtqueue *q = &s->v.queue[TX];
	unsigned n = 0;

	while (!s->v.quiesced && s->nwaiting < BACKLOG && n++ < 2 * QUEUE_SIZE &&
	       virtq_pop(q, &s->tx_chain) > 0) {
		take_packet(s, q, &s->tx_chain);
		virtq_push(q, &s->tx_chain, 0);
	}
	virtq_signal(q);
}

static void vsock_notify(struct virtio *v, struct virtqueue *q)
{
	struct vsock *s = vsock_of(v);

	if (q->index == EVENT)
		tell_reset(s);
	if (q->index == RX)
		put_all(s);
	if (q->index != EVENT)
		take_all(s);
}

static void vsock_config_read(struct virtio *v, unsigned offset, unsigned size, void *buf)
{
	uint8_t config[8];

	store64(config, vsock_of(v)->cid);
	memcpy(buf, config + offset, size);
}

/* ---- Life ---------------------------------------------------------------- */

static void vsock_reset(struct virtio *v)
{
	struct vsock *s = vsock_of(v);

	if (s->host)
		vsock_host_reset(s->host);
	drop_all(s);
	s->tell_reset = false;
	s->lost = 0;
}

static void vsock_start(struct virtio *v)
{
	tell_reset(vsock_of(v));
}

static void vsock_queue_reset(struct virtio *v, struct virtqueue *q)
{
}

static void vsock_quiesce(struct virtio *v)
{
	struct vsock *s = vsock_of(v);

	if (s->host)
		vsock_host_quiesce(s->host);
}

static void vsock_resume(struct virtio *v)
{
	struct vsock *s = vsock_of(v);

	/* Packets of connections that are no more would be reset one by one: one event says it all. */
	if (s->lost) {
		s->lost = 0;
		drop_all(s);
		s->tell_reset = true;
	}
	tell_reset(s);
	put_all(s);
	if (s->host)
		vsock_host_resume(s->host);
}

static void vsock_finish(struct virtio *v)
{
	struct vsock *s = vsock_of(v);

	vsock_host_destroy(s->host);
	drop_all(s);
	free(s->data);
}

static int open_host(struct vsock *s, struct skep_error *e)
{
	struct device *d = &s->v.pci.dev;
	const char *path = config_string(d->config, "path");

	/* Nobody is heard in a replay. */
	if (!path || !strcmp(path, "null") || config_is_set(config_root(d->vm->config), "input.replay"))
		return 0;
	s->host = vsock_host_create(d->vm, d->name, path, &receiver, s, e);
	return s->host ? 0 : -EINVAL;
}

static int vsock_init(struct virtio *v, struct skep_error *e)
{
	struct vsock *s = vsock_of(v);
	struct device *d = &v->pci.dev;
	int err = 0;

	s->cid = config_uint(d->config, "cid");
	s->waiting_end = &s->waiting;
	s->data = malloc(VSOCK_GUEST_DATA);
	if (!s->data)
		return skep_fail(e, ENOMEM, "%s: out of memory", d->name);
	for (unsigned i = 0; i < 3 && !err; i++)
		err = virtio_add_queue(v, i == EVENT ? 16 : QUEUE_SIZE, e);
	if (!err)
		err = open_host(s, e);
	if (err) {
		vsock_finish(v);
		return err;
	}
	input_port_add(&s->input, d->vm, d->name, deliver, s);
	v->config_size = 8;
	v->features = F_STREAM;
	return 0;
}

/* ---- State --------------------------------------------------------------- */

struct packet_model {
	uint32_t src_port, dst_port;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt, sent;
	struct state_blob data;
};

struct vsock_model {
	struct virtio_model virtio;
	bool tell_reset;
	uint32_t connections;		/* of this process; a restored machine's driver hears of a reset */
	struct state_list waiting;	/* of struct packet_model */
	bool failed;			/* not in the record: there was no memory */
};

static int export_waiting(const struct vsock *s, struct state_list *list)
{
	struct packet_model *m;

	if (!s->nwaiting)
		return 0;
	m = calloc(s->nwaiting, sizeof(*m));
	if (!m)
		return -ENOMEM;
	list->items = m;
	list->count = s->nwaiting;
	for (const struct waiting *w = s->waiting; w; w = w->next, m++) {
		*m = (struct packet_model){
			.src_port = w->p.src_port, .dst_port = w->p.dst_port, .type = w->p.type,
			.op = w->p.op, .flags = w->p.flags, .buf_alloc = w->p.buf_alloc,
			.fwd_cnt = w->p.fwd_cnt, .sent = w->sent,
		};
		if (!w->p.len)
			continue;
		m->data.data = malloc(w->p.len);
		if (!m->data.data)
			return -ENOMEM;
		m->data.len = w->p.len;
		memcpy(m->data.data, w->data, w->p.len);
	}
	return 0;
}

static void vsock_export(const struct virtio *v, void *model)
{
	const struct vsock *s = vsock_of(v);
	struct vsock_model *m = model;

	m->tell_reset = s->tell_reset;
	m->connections = s->lost + (s->host ? vsock_host_connections(s->host) : 0);
	m->failed = export_waiting(s, &m->waiting) < 0;
}

static int vsock_validate(const struct virtio *v, const void *model, struct skep_error *e)
{
	const struct vsock_model *m = model;
	const struct packet_model *p = m->waiting.items;

	if (m->failed)
		return skep_fail(e, ENOMEM, "%s: no memory for a copy of the packets that wait",
				 v->pci.dev.name);
	for (uint32_t i = 0; i < m->waiting.count; i++)
		if (p[i].sent && p[i].sent >= p[i].data.len)
			return skep_fail(e, EINVAL, "%s: waiting[%u].sent is %u, of %u bytes",
					 v->pci.dev.name, i, p[i].sent, p[i].data.len);
	return 0;
}

static void vsock_commit(struct virtio *v, const void *model)
{
	const struct vsock_model *m = model;
	const struct packet_model *p = m->waiting.items;
	struct vsock *s = vsock_of(v);

	drop_all(s);
	s->tell_reset = m->tell_reset;
	s->lost = m->connections;
	for (uint32_t i = 0; i < m->waiting.count; i++) {
		struct vsock_packet packet = {
			.src_port = p[i].src_port, .dst_port = p[i].dst_port, .len = p[i].data.len,
			.type = p[i].type, .op = p[i].op, .flags = p[i].flags,
			.buf_alloc = p[i].buf_alloc, .fwd_cnt = p[i].fwd_cnt,
		};

		append(s, &packet, p[i].data.data);
		container_of(s->waiting_end, struct waiting, next)->sent = p[i].sent;
	}
}

static const struct state_field packet_fields[] = {
	STATE_U32(struct packet_model, src_port),
	STATE_U32(struct packet_model, dst_port),
	STATE_U16(struct packet_model, type),
	STATE_U16(struct packet_model, op),
	STATE_U32(struct packet_model, flags),
	STATE_U32(struct packet_model, buf_alloc),
	STATE_U32(struct packet_model, fwd_cnt),
	STATE_U32(struct packet_model, sent),
	STATE_BLOB(struct packet_model, data, .max = VSOCK_HOST_DATA),
};

static const struct state_record packet_record = {
	.kind = "virtio-vsock-packet",
	.version = 1,
	.model_size = sizeof(struct packet_model),
	.fields = packet_fields,
	.nfields = ARRAY_SIZE(packet_fields),
};

static const struct state_field vsock_fields[] = {
	VIRTIO_STATE(struct vsock_model),
	STATE_BOOL(struct vsock_model, tell_reset),
	STATE_U32(struct vsock_model, connections, .host = true),
	STATE_LIST(struct vsock_model, waiting, &packet_record, .max = BACKLOG_MAX),
};

const struct state_record virtio_vsock_record = {
	.kind = "virtio-vsock",
	.version = 1,
	.model_size = sizeof(struct vsock_model),
	.fields = vsock_fields,
	.nfields = ARRAY_SIZE(vsock_fields),
};

static const struct config_key vsock_keys[] = {
	{ .name = "path", .type = CONFIG_PATH,
	  .help = "the Unix socket to reach the guest by; path_PORT is what the guest reaches" },
	{ .name = "cid", .type = CONFIG_UINT, .def = "3", .min = 3, .max = UINT32_MAX - 1,
	  .help = "the guest's context identifier" },
};

static const struct config_schema vsock_schema = { vsock_keys, ARRAY_SIZE(vsock_keys) };

const struct virtio_type virtio_vsock_type = {
	VIRTIO_DEVICE("virtio-vsock", "stream sockets between guest and host", 19, 0xff0000,
		      struct vsock, vsock_schema, virtio_vsock_record),
	.init = vsock_init,
	.finish = vsock_finish,
	.reset = vsock_reset,
	.start = vsock_start,
	.notify = vsock_notify,
	.queue_reset = vsock_queue_reset,
	.config_read = vsock_config_read,
	.quiesce = vsock_quiesce,
	.resume = vsock_resume,
	.export = vsock_export,
	.validate = vsock_validate,
	.commit = vsock_commit,
};
