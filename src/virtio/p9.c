/*
 * The 9P transport: device type 9 of VIRTIO 1.2 (section 5), which has its mount tag in the
 * configuration, as Linux's include/uapi/linux/virtio_9p.h has it.  What is served is p9/p9.h's business.
 *
 * A buffer is a message and the room for its answer.  A message is copied out of guest memory before it
 * is looked at; the data of reads and writes are not copied: preadv and pwritev work on the guest's
 * pages.  The driver has one queue, but its requests run on the server's threads side by side.  A thread
 * with an answer takes the device lock if it is free, and leaves the answer for the vm thread if not:
 * who waits for answers may hold it.
 *
 * clock=virtual: one request after the other, each done when notify returns.
 */
#include <errno.h>
#include <stdlib.h>

#include "p9/state.h"
#include "virtio/virtio.h"
#include "vm/vm.h"

#define DEVICE_ID	9
#define CLASS		0x018000	/* mass storage, other */
#define PLACES		128		/* Linux's driver uses as many, and so 500 KiB a message */
#define TAG_MAX		64
#define F_MOUNT_TAG	BIT(0)
#define MESSAGE_MAX	8192u		/* bytes without a Twrite's data: sixteen names fit */

struct item {
	struct p9_request r;
	struct p9dev *dev;
	struct item *next;
	unsigned refs;			/* done_lock: the server's, the completion's */
	struct virtq_chain chain;
	struct iovec iov[VIRTQ_SIZE_MAX];
	uint8_t message[MESSAGE_MAX];
};

struct p9dev {
	struct virtio v;
	struct p9_server *server;
	struct p9_session *session;
	char tag[TAG_MAX + 1];
	bool at_once;			/* clock=virtual */

	pthread_mutex_t done_lock;
	struct item *done, **done_last;
	struct item *spares;		/* done_lock */
};

struct p9_model {
	struct virtio_model virtio;
	struct p9_session_model session;
};

/* ---- Completions --------------------------------------------------------- */

/* done_lock held. */
static void item_put(struct item *i)
{
	if (--i->refs)
		return;
	i->next = i->dev->spares;
	i->dev->spares = i;
}

static struct item *item_get(struct p9dev *d)
{
	struct item *i;

	pthread_mutex_lock(&d->done_lock);
	i = d->spares;
	if (i)
		d->spares = i->next;
	pthread_mutex_unlock(&d->done_lock);
	if (!i) {
		i = malloc(sizeof(*i));
		if (i)
			i->dev = d;
	}
	return i;
}

/* Never submitted. */
static void item_give_back(struct item *i)
{
	pthread_mutex_lock(&i->dev->done_lock);
	i->refs = 1;
	item_put(i);
	pthread_mutex_unlock(&i->dev->done_lock);
}

/* Device lock held. */
static void push(struct p9dev *d, struct item *i)
{
	struct virtqueue *q = &d->v.queue[0];

	if (virtq_current(q, &i->chain)) {
		virtq_write(q, &i->chain, 0, i->r.reply, i->r.reply_len);
		if (i->r.data)
			virtq_iov_done(q, &i->chain, P9_READ_HEAD, i->r.data);
	}
	virtq_push(q, &i->chain, i->r.reply_len + i->r.data);
}

/* Device lock held. */
static void complete(void *opaque)
{
	struct p9dev *d = opaque;
	struct item *i, *next;
	bool some;

	pthread_mutex_lock(&d->done_lock);
	i = d->done;
	d->done = NULL;
	d->done_last = &d->done;
	pthread_mutex_unlock(&d->done_lock);
	some = i != NULL;
	for (; i; i = next) {
		next = i->next;
		push(d, i);
		pthread_mutex_lock(&d->done_lock);
		item_put(i);
		pthread_mutex_unlock(&d->done_lock);
	}
	if (some)
		virtq_signal(&d->v.queue[0]);
}

static void answer(struct p9_request *r)
{
	struct item *i = container_of(r, struct item, r);
	struct p9dev *d = i->dev;
	struct vm *vm = d->v.pci.dev.vm;

	pthread_mutex_lock(&d->done_lock);
	i->next = NULL;
	*d->done_last = i;
	d->done_last = &i->next;
	pthread_mutex_unlock(&d->done_lock);
	if (d->at_once)
		return;
	if (pthread_mutex_trylock(&vm->device_lock) == 0) {
		complete(d);
		pthread_mutex_unlock(&vm->device_lock);
	} else {
		loop_post(vm, complete, d);
	}
}

static void release(struct p9_request *r)
{
	struct item *i = container_of(r, struct item, r);

	pthread_mutex_lock(&i->dev->done_lock);
	item_put(i);
	pthread_mutex_unlock(&i->dev->done_lock);
}

/* ---- Requests ------------------------------------------------------------ */

/* Bytes [offset, offset+len) of a part; 0 elements if there are none. */
static unsigned map(struct virtqueue *q, struct item *i, bool writable, size_t offset, size_t len)
{
	int n = len ? virtq_iov(q, &i->chain, writable, offset, len, i->iov, ARRAY_SIZE(i->iov)) : 0;

	return n > 0 ? (unsigned)n : 0;
}

/* What does not fit its size, or is larger than any message, the server refuses by that. */
static void submit(struct p9dev *d, struct item *i)
{
	struct virtqueue *q = &d->v.queue[0];
	struct virtq_chain *c = &i->chain;
	struct p9_request *r = &i->r;
	uint32_t size, len;

	len = (uint32_t)virtq_read(q, c, 0, i->message, P9_WRITE_HEAD);
	size = len >= 4 ? load32(i->message) : 0;
	*r = (struct p9_request){ .session = d->session, .message = i->message, .len = len,
				  .reply_room = c->writable, .answer = answer, .release = release };
	if (len == P9_WRITE_HEAD && i->message[4] == P9_TWRITE && size <= c->readable) {
		r->nwdata = map(q, i, false, P9_WRITE_HEAD, size - MIN(size, P9_WRITE_HEAD));
		r->wdata = i->iov;
	} else if (size > len && size <= c->readable) {
		r->len += (uint32_t)virtq_read(q, c, len, i->message + len,
					       MIN(size, MESSAGE_MAX) - len);
	} else {
		r->len = MIN(size, len);
	}
	if (r->len >= P9_HEAD + 16 && (i->message[4] == P9_TREAD || i->message[4] == P9_TREADDIR) &&
	    c->writable > P9_READ_HEAD) {
		r->nrdata = map(q, i, true, P9_READ_HEAD,
				MIN(load32(i->message + P9_HEAD + 12), c->writable - P9_READ_HEAD));
		r->rdata = i->iov;
	}
	i->refs = 2;
	p9_submit(r);
}

static void p9_notify(struct virtio *v, struct virtqueue *q)
{
	struct p9dev *d = container_of(v, struct p9dev, v);
	struct item *i;

	while ((i = item_get(d)) != NULL) {
		if (virtq_pop(q, &i->chain) <= 0) {
			item_give_back(i);
			break;
		}
		submit(d, i);
		if (d->at_once) {
			p9_session_drain(d->session);
			complete(d);
		}
	}
	complete(d);	/* what was answered at once */
}

/* ---- Life ---------------------------------------------------------------- */

static void finish_all(struct p9dev *d)
{
	p9_session_drain(d->session);
	complete(d);
}

static void p9_quiesce(struct virtio *v)
{
	finish_all(container_of(v, struct p9dev, v));
}

static void p9_reset(struct virtio *v)
{
	struct p9dev *d = container_of(v, struct p9dev, v);

	finish_all(d);
	p9_session_reset(d->session);
}

static void p9_queue_reset(struct virtio *v, struct virtqueue *q)
{
	finish_all(container_of(v, struct p9dev, v));
}

static void p9_config_read(struct virtio *v, unsigned offset, unsigned size, void *buf)
{
	struct p9dev *d = container_of(v, struct p9dev, v);
	uint8_t config[2 + TAG_MAX];

	store16(config, (uint16_t)strlen(d->tag));
	memcpy(config + 2, d->tag, TAG_MAX);
	memcpy(buf, config + offset, size);
}

static const char *const security_names[] = { "mapped-xattr", "passthrough", "none", NULL };
static const char *const multidevs_names[] = { "remap", "forbid", "warn", NULL };
static const char *const cache_names[] = { "auto", "none", NULL };

static const struct config_key p9_keys[] = {
	{ "sharename", CONFIG_STRING, .help = "what the guest mounts it by: mount -t 9p NAME /mnt" },
	{ "path", CONFIG_PATH, .help = "directory of the host that is shared" },
	{ "ro", CONFIG_BOOL, .def = "false", .help = "the guest changes nothing" },
	{ "security", CONFIG_CHOICE, .def = "mapped-xattr", .choices = security_names,
	  .help = "owners and modes: in an extended attribute, the host's own, or as far as may be" },
	{ "multidevs", CONFIG_CHOICE, .def = "remap", .choices = multidevs_names,
	  .help = "file systems that are mounted below the share" },
	{ "cache", CONFIG_CHOICE, .def = "auto", .choices = cache_names,
	  .help = "none: a file's version tells Linux not to keep contents" },
	{ "map", CONFIG_STRING, .help = "HOST:GUEST:COUNT, ids of both sides, several with + between" },
	{ "squash", CONFIG_STRING, .help = "UID:GID that all belongs to in the guest" },
	{ "msize", CONFIG_UINT, .def = "1048576", .min = 4096, .max = 16777216,
	  .help = "bytes of the largest message" },
	{ "fids", CONFIG_UINT, .def = "262144", .min = 16, .max = 16777216,
	  .help = "files that the guest may refer to at once" },
	{ "workers", CONFIG_UINT, .def = "4", .min = 1, .max = 16,
	  .help = "requests that are done at the same time" },
};

static const struct config_schema p9_schema = { p9_keys, ARRAY_SIZE(p9_keys) };

static int read_options(struct p9dev *d, struct p9_options *o, struct skep_error *e)
{
	static const char *const as_text[] = { "ro", "security", "multidevs", "cache", "map", "squash",
					       "msize", "fids", "workers" };
	struct config_node *n = d->v.pci.dev.config;
	const char *tag = config_string(n, "sharename"), *name = d->v.pci.dev.name;
	int err = 0;

	p9_options_init(o);
	o->path = config_string(n, "path");
	if (!o->path || !tag)
		return skep_fail(e, EINVAL, "%s: virtio-9p shares which directory by what name? Write "
				 "-s SLOT,virtio-9p,NAME=/directory", name);
	if (!*tag || strlen(tag) > TAG_MAX)
		return skep_fail(e, EINVAL, "%s.sharename: a name has 1 to %d bytes, \"%s\" has %zu", name,
				 TAG_MAX, tag, strlen(tag));
	strcpy(d->tag, tag);
	for (size_t i = 0; i < ARRAY_SIZE(as_text) && !err; i++)
		if (config_is_set(n, as_text[i]))
			err = p9_option_set(o, as_text[i], config_string(n, as_text[i]), e);
	if (err)
		skep_error_prefix(e, "%s", name);
	return err;
}

static int p9_init(struct virtio *v, struct skep_error *e)
{
	struct p9dev *d = container_of(v, struct p9dev, v);
	struct p9_options o;
	int err = read_options(d, &o, e);

	if (!err)
		err = virtio_add_queue(v, PLACES, e);
	if (err)
		return err;
	d->server = p9_server_create(&o, v->pci.dev.name, e);
	if (!d->server)
		return -EINVAL;
	d->session = p9_session_create(d->server);
	if (!d->session) {
		p9_server_destroy(d->server);
		return skep_fail(e, ENOMEM, "%s: no memory for a share", v->pci.dev.name);
	}
	d->at_once = v->pci.dev.vm->clock.mode == CLOCK_MODE_VIRTUAL;
	d->done_last = &d->done;
	pthread_mutex_init(&d->done_lock, NULL);
	v->features = F_MOUNT_TAG;
	v->config_size = 2 + (unsigned)strlen(d->tag);
	return 0;
}

static void p9_finish(struct virtio *v)
{
	struct p9dev *d = container_of(v, struct p9dev, v);

	p9_session_destroy(d->session);
	p9_server_destroy(d->server);
	while (d->done) {
		struct item *i = d->done;

		d->done = i->next;
		i->next = d->spares;
		d->spares = i;
	}
	while (d->spares) {
		struct item *i = d->spares;

		d->spares = i->next;
		free(i);
	}
	pthread_mutex_destroy(&d->done_lock);
}

/* ---- State --------------------------------------------------------------- */

static void p9_export(const struct virtio *v, void *model)
{
	struct p9_model *m = model;

	p9_session_export(container_of(v, struct p9dev, v)->session, &m->session);
}

static int p9_validate(const struct virtio *v, const void *model, struct skep_error *e)
{
	const struct p9_model *m = model;
	int err = p9_session_validate(container_of(v, struct p9dev, v)->session, &m->session, e);

	if (err)
		skep_error_prefix(e, "%s", v->pci.dev.name);
	return err;
}

static void p9_commit(struct virtio *v, const void *model)
{
	const struct p9_model *m = model;

	p9_session_commit(container_of(v, struct p9dev, v)->session, &m->session);
}

static const struct state_field p9_fields[] = {
	VIRTIO_STATE(struct p9_model),
	STATE_STRUCT(struct p9_model, session, &p9_session_record),
};

const struct state_record virtio_9p_record = {
	.kind = "virtio-p9",
	.version = 1,
	.model_size = sizeof(struct p9_model),
	.fields = p9_fields,
	.nfields = ARRAY_SIZE(p9_fields),
};

const struct virtio_type virtio_9p_type = {
	VIRTIO_DEVICE("virtio-9p", "a directory of the host, by 9P", DEVICE_ID, CLASS, struct p9dev,
		      p9_schema, virtio_9p_record),
	.init = p9_init,
	.finish = p9_finish,
	.reset = p9_reset,
	.notify = p9_notify,
	.queue_reset = p9_queue_reset,
	.config_read = p9_config_read,
	.quiesce = p9_quiesce,
	.export = p9_export,
	.validate = p9_validate,
	.commit = p9_commit,
};
