/* virtio-net: what a snapshot holds of it. */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "virtio/net.h"
#include "virtio/net_priv.h"
#include "vm/vm.h"

struct frame_model {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, pair;
	struct state_blob data;
};

struct virtio_net_model {
	struct virtio_model virtio;
	struct net_control c;
	struct net_model backend;
	struct state_list waiting;	/* of struct frame_model */
	bool failed;			/* not in the record: there was no memory */
};

static int export_waiting(const struct virtio_net *n, struct state_list *list)
{
	struct frame_model *f;

	if (!n->nwaiting)
		return 0;
	f = calloc(n->nwaiting, sizeof(*f));
	if (!f)
		return -ENOMEM;
	list->items = f;
	list->count = n->nwaiting;
	for (const struct net_waiting *w = n->waiting; w; w = w->next, f++) {
		*f = (struct frame_model){
			.flags = w->o.flags, .gso_type = w->o.gso_type, .hdr_len = w->o.hdr_len,
			.gso_size = w->o.gso_size, .csum_start = w->o.csum_start,
			.csum_offset = w->o.csum_offset, .pair = w->pair,
		};
		f->data.data = malloc(w->len);
		if (!f->data.data)
			return -ENOMEM;
		f->data.len = w->len;
		memcpy(f->data.data, w->data, w->len);
	}
	return 0;
}

void virtio_net_export(const struct virtio *v, void *model)
{
	const struct virtio_net *n = net_of(v);
	struct virtio_net_model *m = model;

	m->c = n->c;
	m->failed = export_waiting(n, &m->waiting) < 0 || net_export(n->backend, &m->backend) < 0;
}

static int validate_waiting(const struct virtio *v, const struct virtio_net_model *m,
			    struct skep_error *e)
{
	const struct frame_model *f = m->waiting.items;
	size_t bytes = 0;

	for (uint32_t i = 0; i < m->waiting.count; i++) {
		bytes += f[i].data.len;
		if (f[i].data.len < NET_FRAME_MIN || bytes > NET_BACKLOG_BYTES ||
		    f[i].pair >= NET_PAIRS_MAX)
			return skep_fail(e, EINVAL, "%s: waiting[%u] of %u bytes for pair %u cannot be",
					 v->pci.dev.name, i, f[i].data.len, f[i].pair);
	}
	return 0;
}

int virtio_net_validate(const struct virtio *v, const void *model, struct skep_error *e)
{
	const struct virtio_net_model *m = model;
	const struct virtio_net *n = net_of(v);
	const char *name = v->pci.dev.name;

	if (m->failed)
		return skep_fail(e, ENOMEM, "%s: no memory for a copy of the frames that wait", name);
	if (!m->c.pairs || m->c.pairs > n->max_pairs)
		return skep_fail(e, EINVAL, "%s: %u queue pairs in use, of %u", name, m->c.pairs,
				 n->max_pairs);
	if (m->c.offloads & ~(m->virtio.negotiated & NET_GUEST_OFFLOADS))
		return skep_fail(e, EINVAL, "%s: offloads %#llx were not negotiated", name,
				 (unsigned long long)m->c.offloads);
	for (unsigned i = 0; i < NET_STEER; i++)
		if (m->c.steer[i] >= n->max_pairs)
			return skep_fail(e, EINVAL, "%s: steer[%u] is pair %u, of %u", name, i,
					 m->c.steer[i], n->max_pairs);
	if (validate_waiting(v, m, e) < 0)
		return -EINVAL;
	return net_validate(name, &m->backend, e);
}

void virtio_net_commit(struct virtio *v, const void *model)
{
	const struct virtio_net_model *m = model;
	const struct frame_model *f = m->waiting.items;
	struct virtio_net *n = net_of(v);

	n->c = m->c;
	n->announce = true;
	n->restored = m->virtio.status & VIRTIO_DRIVER_OK;
	net_rx_drop_waiting(n);
	for (uint32_t i = 0; i < m->waiting.count; i++) {
		struct net_offload o = {
			.flags = f[i].flags, .gso_type = f[i].gso_type, .hdr_len = f[i].hdr_len,
			.gso_size = f[i].gso_size, .csum_start = f[i].csum_start,
			.csum_offset = f[i].csum_offset,
		};

		net_rx_wait(n, f[i].pair, f[i].data.data, f[i].data.len, &o);
	}
	net_import(n->backend, &m->backend);
	net_ctrl_takes(n);
}

static const struct state_field mac_fields[] = {
	STATE_BYTES(struct net_mac_entry, mac),
};

static const struct state_record mac_record = {
	.kind = "virtio-net-mac",
	.version = 1,
	.model_size = sizeof(struct net_mac_entry),
	.fields = mac_fields,
	.nfields = ARRAY_SIZE(mac_fields),
};

static const struct state_field frame_fields[] = {
	STATE_U8(struct frame_model, flags, .max = NET_NEEDS_CSUM | NET_DATA_VALID),
	STATE_U8(struct frame_model, gso_type),
	STATE_U16(struct frame_model, hdr_len),
	STATE_U16(struct frame_model, gso_size),
	STATE_U16(struct frame_model, csum_start),
	STATE_U16(struct frame_model, csum_offset),
	STATE_U16(struct frame_model, pair, .max = NET_PAIRS_MAX - 1),
	STATE_BLOB(struct frame_model, data, .max = NET_FRAME_MAX),
};

static const struct state_record frame_record = {
	.kind = "virtio-net-frame",
	.version = 1,
	.model_size = sizeof(struct frame_model),
	.fields = frame_fields,
	.nfields = ARRAY_SIZE(frame_fields),
};

static const struct state_field control_fields[] = {
	STATE_BYTES(struct net_control, mac),
	STATE_BYTES(struct net_control, permanent_mac),
	STATE_BOOL(struct net_control, promisc),
	STATE_BOOL(struct net_control, allmulti),
	STATE_BOOL(struct net_control, alluni),
	STATE_BOOL(struct net_control, nomulti),
	STATE_BOOL(struct net_control, nouni),
	STATE_BOOL(struct net_control, nobcast),
	STATE_U8(struct net_control, nuni, .max = NET_MACS_MAX),
	STATE_U8(struct net_control, nmulti, .max = NET_MACS_MAX),
	STATE_BOOL(struct net_control, uni_overflow),
	STATE_BOOL(struct net_control, multi_overflow),
	STATE_STRUCTS(struct net_control, uni, &mac_record),
	STATE_STRUCTS(struct net_control, multi, &mac_record),
	STATE_BYTES(struct net_control, vlans),
	STATE_BOOL(struct net_control, announce),
	STATE_BOOL(struct net_control, link),
	STATE_U16(struct net_control, pairs, .max = NET_PAIRS_MAX),
	STATE_U64(struct net_control, offloads),
	STATE_BYTES(struct net_control, steer),
};

static const struct state_record control_record = {
	.kind = "virtio-net-control",
	.version = 1,
	.model_size = sizeof(struct net_control),
	.fields = control_fields,
	.nfields = ARRAY_SIZE(control_fields),
};

static const struct state_field net_fields[] = {
	VIRTIO_STATE(struct virtio_net_model),
	{ .name = "control", .type = STATE_T_STRUCT, .offset = offsetof(struct virtio_net_model, c),
	  .size = sizeof(struct net_control), .count = 1, .sub = &control_record },
	STATE_LIST(struct virtio_net_model, waiting, &frame_record, .max = NET_BACKLOG_MAX),
	STATE_STRUCT(struct virtio_net_model, backend, &net_record),
};

const struct state_record virtio_net_record = {
	.kind = "virtio-net",
	.version = 1,
	.model_size = sizeof(struct virtio_net_model),
	.fields = net_fields,
	.nfields = ARRAY_SIZE(net_fields),
};
