/*
 * The memory balloon: VIRTIO 1.2, section 5.5, with free page reporting (5.5.6.7).
 *
 * Pages that the guest gives away, because it was asked to (inflateq) or since nothing of it uses
 * them (reporting), read as zero from then on and go into no save until they are written again.
 *
 * The specification numbers the reporting queue 4, drivers number the queues that they use one after
 * the other; nothing else is offered that has a queue, so that every one above 1 is it.
 */
#include "virtio/virtio.h"

#include <errno.h>

#include "vm/vm.h"

#define DEVICE_ID	5
#define CLASS		0x00ff00
#define PLACES		128
#define INFLATE		0
#define DEFLATE		1
#define QUEUES		5

#define F_DEFLATE_ON_OOM	BIT(2)
#define F_PAGE_POISON		BIT(4)
#define F_PAGE_REPORTING	BIT(5)

#define PFN_SHIFT	12	/* whatever the guest's page size is (5.5.6) */
#define TURN_MAX	65536		/* page numbers, before others get the device lock */
#define REQUEST_MAX	(1 * MiB)	/* bytes of page numbers in one buffer; Linux sends 1 KiB */

struct config {
	uint32_t num_pages, actual, free_page_hint_cmd_id, poison_val;
};

struct balloon {
	struct virtio v;
	uint32_t target;	/* pages, by the configuration */
	struct config c;
};

struct balloon_model {
	struct virtio_model virtio;
	uint32_t num_pages, actual, poison_val;
};

static struct balloon *balloon_of(struct virtio *v)
{
	return container_of(v, struct balloon, v);
}

/* ---- Pages --------------------------------------------------------------- */

/* What lies whole in [gpa, gpa+len); what is no RAM is the guest's mistake, and nothing happens. */
static void take(struct virtio *v, uint64_t gpa, uint64_t len)
{
	uint64_t first = ALIGN_UP(gpa, GUEST_PAGE_SIZE), end = (gpa + len) & ~(GUEST_PAGE_SIZE - 1);

	if (first < end)
		memory_forget(&v->pci.dev.vm->memory, first, end - first);
}

/* Page numbers, runs of which are taken at once. */
static void inflate(struct virtio *v, struct virtqueue *q, const struct virtq_chain *c)
{
	uint32_t pfn[256];
	uint64_t first = 0, count = 0;
	size_t at = 0, n;

	while ((n = virtq_read(q, c, at, pfn, sizeof(pfn)) / 4)) {
		for (size_t i = 0; i < n; i++) {
			if (count && pfn[i] == first + count) {
				count++;
				continue;
			}
			take(v, first << PFN_SHIFT, count << PFN_SHIFT);
			first = pfn[i];
			count = 1;
		}
		at += n * 4;
	}
	take(v, first << PFN_SHIFT, count << PFN_SHIFT);
}

/* The buffers are the pages themselves. A guest that wants them poisoned keeps them. */
static void report(struct virtio *v, const struct virtq_chain *c)
{
	if (virtio_has(v, F_PAGE_POISON) && balloon_of(v)->c.poison_val)
		return;
	for (unsigned i = c->nreadable; i < c->nreadable + c->nwritable; i++)
		take(v, c->seg[i].gpa, c->seg[i].len);
}

static void balloon_notify(struct virtio *v, struct virtqueue *q)
{
	struct virtq_chain c;
	uint64_t bytes = 0;

	while (virtq_pop(q, &c) > 0) {
		if (c.readable > REQUEST_MAX) {
			virtio_broken(v, "queue %u: %u bytes of page numbers at once", q->index, c.readable);
			virtq_push(q, &c, 0);	/* which only says that it is not in flight */
			return;
		}
		if (q->index == INFLATE)
			inflate(v, q, &c);
		else if (q->index != DEFLATE)
			report(v, &c);
		/* Who writes through a tag from before would not be seen. */
		if (q->index != DEFLATE)
			vm_flush_tlbs(v->pci.dev.vm);
		virtq_push(q, &c, 0);
		bytes += c.readable;
		if (bytes >= TURN_MAX * sizeof(uint32_t))
			virtq_enough(q);
	}
	virtq_signal(q);
}

/* ---- Configuration and life ---------------------------------------------- */

static void balloon_config_read(struct virtio *v, unsigned offset, unsigned size, void *buf)
{
	memcpy(buf, (const uint8_t *)&balloon_of(v)->c + offset, size);
}

/* The driver says how many pages it has given, and what free ones hold. */
static void balloon_config_write(struct virtio *v, unsigned offset, unsigned size, const void *buf)
{
	struct balloon *b = balloon_of(v);
	struct config c = b->c;

	memcpy((uint8_t *)&c + offset, buf, size);
	b->c.actual = c.actual;
	b->c.poison_val = c.poison_val;
}

static int balloon_init(struct virtio *v, struct skep_error *e)
{
	struct balloon *b = balloon_of(v);
	struct config_node *node = v->pci.dev.config;
	uint64_t target = config_uint(node, "target"), ram = v->pci.dev.vm->memory.size;
	int err = 0;

	if (target > ram)
		return skep_fail(e, EINVAL, "%s.target: %llu MiB are more than the machine's %llu MiB of "
				 "memory", v->pci.dev.name, (unsigned long long)(target / MiB),
				 (unsigned long long)(ram / MiB));
	b->target = (uint32_t)(target >> PFN_SHIFT);
	v->features = F_DEFLATE_ON_OOM | F_PAGE_POISON;
	if (config_bool(node, "reporting"))
		v->features |= F_PAGE_REPORTING;
	v->config_size = sizeof(struct config);
	for (unsigned i = 0; i < QUEUES && !err; i++)
		err = virtio_add_queue(v, PLACES, e);
	return err;
}

static void balloon_reset(struct virtio *v)
{
	struct balloon *b = balloon_of(v);

	b->c = (struct config){ .num_pages = b->target };
}

/* Nothing is ever in flight. */
static void balloon_queue_reset(struct virtio *v, struct virtqueue *q)
{
}

static void balloon_export(const struct virtio *v, void *model)
{
	const struct balloon *b = container_of(v, const struct balloon, v);
	struct balloon_model *m = model;

	m->num_pages = b->c.num_pages;
	m->actual = b->c.actual;
	m->poison_val = b->c.poison_val;
}

static void balloon_commit(struct virtio *v, const void *model)
{
	const struct balloon_model *m = model;

	balloon_of(v)->c = (struct config){
		.num_pages = m->num_pages,
		.actual = m->actual,
		.poison_val = m->poison_val,
	};
}

static const struct state_field balloon_fields[] = {
	VIRTIO_STATE(struct balloon_model),
	STATE_U32(struct balloon_model, num_pages),
	STATE_U32(struct balloon_model, actual),
	STATE_U32(struct balloon_model, poison_val),
};

const struct state_record virtio_balloon_record = {
	.kind = "virtio-balloon",
	.version = 1,
	.model_size = sizeof(struct balloon_model),
	.fields = balloon_fields,
	.nfields = ARRAY_SIZE(balloon_fields),
};

static const struct config_key balloon_keys[] = {
	{ "target", CONFIG_SIZE, .def = "0", .max = 512 * GiB, .unit = MiB,
	  .help = "memory that the guest is asked to give away; a bare number counts MiB" },
	{ "reporting", CONFIG_BOOL, .def = "true", .help = "the guest tells which memory it does not use, "
	  "and saves leave that out" },
};
static const struct config_schema balloon_schema = { balloon_keys, ARRAY_SIZE(balloon_keys) };

const struct virtio_type virtio_balloon_type = {
	VIRTIO_DEVICE("virtio-balloon", "memory balloon with free page reporting", DEVICE_ID, CLASS,
		      struct balloon, balloon_schema, virtio_balloon_record),
	.init = balloon_init,
	.reset = balloon_reset,
	.notify = balloon_notify,
	.queue_reset = balloon_queue_reset,
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.export = balloon_export,
	.commit = balloon_commit,
};
