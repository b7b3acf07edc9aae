/* Network backends: the part that all of them share. */
#include "net/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "net/backend.h"
#include "vm/vm.h"

static const struct net_ops *const all_ops[] = {
	&net_slirp, &net_tap, &net_unix, &net_null, NULL
};

void net_nop(struct net_backend *b)
{
}

const uint8_t *net_unsent_nothing(const struct net_backend *b, size_t *len)
{
	return NULL;
}

bool net_always_ready(struct net_backend *b)
{
	return true;
}

void net_describe(FILE *out)
{
	for (size_t i = 0; all_ops[i]; i++)
		fprintf(out, "%-12s %s\n", all_ops[i]->name, all_ops[i]->help);
}

static const struct net_ops *find_ops(const char *spec, const char **arg)
{
	for (size_t i = 0; all_ops[i]; i++) {
		size_t len = strlen(all_ops[i]->name);

		if (all_ops[i]->prefix ? !strncmp(spec, all_ops[i]->name, len) :
		    !strcmp(spec, all_ops[i]->name)) {
			*arg = spec + (all_ops[i]->prefix ? len : 0);
			return all_ops[i];
		}
	}
	return NULL;
}

/* ---- The host's side ----------------------------------------------------- */

bool net_held(const struct net_backend *b)
{
	return b->standing || vm_suspended(b->vm);
}

bool net_room(struct net_backend *b)
{
	return b->receiver && !net_held(b) && b->receiver->room(b->receiver_opaque);
}

void net_receive(struct net_backend *b, const uint8_t *frame, size_t len,
		 const struct net_offload *o)
{
	static const struct net_offload plain;

	if (b->receiver && len >= NET_FRAME_MIN && len <= NET_FRAME_MAX)
		b->receiver->receive(b->receiver_opaque, frame, len, o ? o : &plain);
}

void net_set_link(struct net_backend *b, bool up)
{
	if (b->link == up)
		return;
	b->link = up;
	/* One that stands is told when it goes on. */
	if (b->receiver && !net_held(b))
		b->receiver->link(b->receiver_opaque, up);
}

void net_drained(struct net_backend *b)
{
	if (!b->blocked || net_held(b) || !b->ops->ready(b))
		return;
	b->blocked = false;
	if (b->receiver)
		b->receiver->drained(b->receiver_opaque);
}

/* ---- The device's side --------------------------------------------------- */

bool net_link(const struct net_backend *b)
{
	return b->link;
}

bool net_ready(struct net_backend *b)
{
	if (!net_held(b) && b->ops->ready(b))
		return true;
	b->blocked = true;
	return false;
}

static void emit(void *opaque, uint8_t *frame, size_t len)
{
	static const struct net_offload plain;
	struct net_backend *b = opaque;

	b->ops->send(b, frame, len, &plain);
}

static unsigned needs(const struct net_offload *o)
{
	unsigned n = o->flags & NET_NEEDS_CSUM ? NET_TAKES_CSUM : 0;

	switch (o->gso_type & ~NET_GSO_ECN) {
	case NET_GSO_TCPV4: n |= NET_TAKES_TSO4; break;
	case NET_GSO_TCPV6: n |= NET_TAKES_TSO6; break;
	}
	if (o->gso_type & NET_GSO_ECN)
		n |= NET_TAKES_ECN;
	return n;
}

bool net_send(struct net_backend *b, uint8_t *frame, size_t len, const struct net_offload *o)
{
	struct net_offload plain = { 0 };
	unsigned missing;

	if (!net_ready(b))
		return false;
	if (!o)
		o = &plain;
	if (len < NET_FRAME_MIN || len > NET_FRAME_MAX || !offload_valid(len, o))
		return true;
	if (b->flows)
		flows_see(b->flows, frame, len);
	missing = needs(o) & ~b->ops->sends;
	if (missing & ~NET_TAKES_CSUM) {
		offload_segment(frame, len, o, emit, b);
		return true;
	}
	if (missing) {
		offload_checksum(frame, len, o);
		plain = *o;
		plain.flags = 0;
		o = &plain;
	}
	b->ops->send(b, frame, len, o);
	return true;
}

void net_accept(struct net_backend *b)
{
	if (!net_held(b))
		b->ops->accept(b);
}

void net_set_takes(struct net_backend *b, unsigned takes)
{
	if (b->takes == takes)
		return;
	b->takes = takes;
	b->ops->takes(b);
}

void net_set_receiver(struct net_backend *b, const struct net_receiver *r, void *opaque)
{
	b->receiver = r;
	b->receiver_opaque = opaque;
	net_accept(b);
}

/* ---- The machine stands, and goes on ------------------------------------- */

void net_quiesce(struct net_backend *b)
{
	b->standing = true;
	b->ops->quiesce(b);
}

/* The connections that ended with another process: their peer says so. */
static void reset_flows(struct net_backend *b)
{
	const struct net_flow *flow = b->restored.flows.items;
	uint8_t frame[FLOW_RESET_MAX];

	for (uint32_t i = 0; i < b->restored.flows.count; i++)
		net_receive(b, frame, flow_reset(&flow[i], frame), NULL);
}

static void forget_restored(struct net_backend *b)
{
	state_free(&net_record, &b->restored);
	b->has_restored = false;
}

static void act_on_restored(struct net_backend *b)
{
	static const struct net_offload plain;
	struct net_model *m = &b->restored;

	reset_flows(b);
	/* A new wire has taken nothing yet; where there is none, they are lost as on any. */
	for (size_t at = 0, n; at < m->unsent.len; at += 4 + n) {
		n = be32(m->unsent.data + at);
		b->ops->send(b, m->unsent.data + at + 4, n, &plain);
	}
	forget_restored(b);
}

void net_resume(struct net_backend *b)
{
	b->standing = false;
	if (vm_suspended(b->vm))
		return;
	b->ops->resume(b);
	if (b->has_restored)
		act_on_restored(b);
	if (b->receiver)
		b->receiver->link(b->receiver_opaque, b->link);
	b->ops->accept(b);
	net_drained(b);
}

/* ---- State --------------------------------------------------------------- */

static int copy_blob(struct state_blob *to, const uint8_t *data, size_t len)
{
	if (!len)
		return 0;
	to->data = malloc(len);
	if (!to->data)
		return -ENOMEM;
	memcpy(to->data, data, len);
	to->len = (uint32_t)len;
	return 0;
}

static int copy_flows(struct state_list *to, const struct state_list *from)
{
	if (!from->count)
		return 0;
	to->items = calloc(from->count, sizeof(struct net_flow));
	if (!to->items)
		return -ENOMEM;
	memcpy(to->items, from->items, from->count * sizeof(struct net_flow));
	to->count = from->count;
	return 0;
}

int net_export(const struct net_backend *b, struct net_model *m)
{
	size_t len = 0;
	const uint8_t *frame;
	int err;

	/* Saved again before it ran: what waits is still what it was. */
	if (b->has_restored) {
		err = copy_blob(&m->unsent, b->restored.unsent.data, b->restored.unsent.len);
		return err < 0 ? err : copy_flows(&m->flows, &b->restored.flows);
	}
	frame = b->ops->unsent(b, &len);
	err = copy_blob(&m->unsent, frame, len);
	if (err < 0 || !b->flows)
		return err;
	return flows_export(b->flows, &m->flows);
}

int net_validate(const char *owner, const struct net_model *m, struct skep_error *e)
{
	const struct net_flow *f = m->flows.items;
	size_t at = 0, n;

	while (at < m->unsent.len) {
		n = m->unsent.len - at < 4 ? 0 : be32(m->unsent.data + at);
		if (n < NET_FRAME_MIN || n > NET_FRAME_MAX || n > m->unsent.len - at - 4)
			return skep_fail(e, EINVAL, "%s: unsent: there is no frame of %zu bytes at byte "
					 "%zu of %u", owner, n, at, m->unsent.len);
		at += 4 + n;
	}
	for (uint32_t i = 0; i < m->flows.count; i++)
		if (!f[i].guest_port || !f[i].host_port)
			return skep_fail(e, EINVAL, "%s: flows[%u] has no port", owner, i);
	return 0;
}

void net_import(struct net_backend *b, const struct net_model *m)
{
	forget_restored(b);
	if (b->flows)
		flows_clear(b->flows);
	b->has_restored = true;
	if (copy_blob(&b->restored.unsent, m->unsent.data, m->unsent.len) < 0 ||
	    copy_flows(&b->restored.flows, &m->flows) < 0)
		vm_request_error(b->vm, "%s: out of memory for the network's saved state", b->owner);
}

static const struct state_field net_fields[] = {
	STATE_BLOB(struct net_model, unsent, .max = NET_UNSENT_MAX, .host = true),
	STATE_LIST(struct net_model, flows, &net_flow_record, .max = NET_FLOWS_MAX, .host = true),
};

const struct state_record net_record = {
	.kind = "net-backend",
	.version = 1,
	.model_size = sizeof(struct net_model),
	.fields = net_fields,
	.nfields = ARRAY_SIZE(net_fields),
};

/* ---- Begin and end ------------------------------------------------------- */

struct net_backend *net_create(struct vm *vm, const char *owner, struct config_node *config,
			       struct skep_error *e)
{
	const char *spec = config_string(config, "backend"), *arg = "";
	bool replays = config_is_set(config_root(vm->config), "input.replay");
	const struct net_ops *ops = find_ops(spec, &arg);
	struct net_backend *b;

	if (!ops) {
		skep_fail(e, EINVAL, "%s.backend: there is no network backend \"%s\"; give slirp, tapN, "
			  "tap=NAME, unix:/path or null", owner, spec);
		return NULL;
	}
	if (ops != &net_slirp && ops != &net_null && config_is_set(config, "hostfwd")) {
		skep_fail(e, EINVAL, "%s.hostfwd: only slirp forwards ports, and the backend is %s",
			  owner, spec);
		return NULL;
	}
	if (replays)
		ops = &net_null;
	b = calloc(1, ops->size);
	if (!b) {
		skep_fail(e, ENOMEM, "%s: out of memory", owner);
		return NULL;
	}
	b->ops = ops;
	b->vm = vm;
	b->config = config;
	snprintf(b->owner, sizeof(b->owner), "%s", owner);
	if (ops->open(b, arg, e) < 0) {
		flows_destroy(b->flows);
		free(b);
		return NULL;
	}
	return b;
}

void net_destroy(struct net_backend *b)
{
	if (!b)
		return;
	b->receiver = NULL;
	b->ops->close(b);
	forget_restored(b);
	flows_destroy(b->flows);
	free(b);
}
