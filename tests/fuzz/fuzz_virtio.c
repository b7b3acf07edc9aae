/*
 * libFuzzer's target for virtio devices: an input is what a hostile driver does, one operation
 * after the other: configuration space, registers, notifications, bytes of guest memory where the
 * rings lie, saves and restores.  `make check` sends the corpus through the same function
 * (replay_virtio.c), without clang.
 *
 * The first byte says which device; each operation is a byte, then its operands.  The driver's
 * side of the rings is set up once, so that an input can begin with the interesting part.
 */
#include "fuzz_virtio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "pci/pci.h"
#include "state/codec.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/virtio.h"
#include "virtio/vsock.h"
#include "vm/core.h"
#include "vm/inputlog.h"
#include "vm/loop.h"

#define RAM	(4 * MiB)
#define BAR	0xc0000000ull
#define MSIX	0xc0100000ull
#define RINGS	0x10000ull	/* of queue n: 64 KiB from here on, each */
#define ROOM	0x10000ull

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_virtio: %s\n", what);
		abort();
	}
}

/*
 * One line for each that comes, at the end: an input's first byte is its number.  What the host's side is
 * to be stands in settings; the network's is a socket that the inputs speak through.
 */
static const struct fuzzed {
	const struct virtio_type *type;
	const char *settings[4];
} types[] = {
	{ &virtio_rnd_type, { NULL } },
	{ &virtio_balloon_type, { NULL } },
	{ &virtio_net_type, { "backend=unix:%s.net", "queues=2" } },
	{ &virtio_console_type, { "port.0.path=null", "port.2.path=unix=%s.con", "port.2.name=fuzz" } },
	{ &virtio_vsock_type, { "path=%s.vsock" } },
	{ &virtio_blk_type, { "path=null", "queues=2" } },
};

/* Where sockets lie: one process at a time has the name. */
static char base[64];

static struct config *configuration(const struct fuzzed *f)
{
	struct config *c = config_create();
	struct skep_error e = { .text = "" };
	char value[128], text[160];

	snprintf(base, sizeof(base), "/tmp/skep-fuzz-%d", getpid());
	snprintf(text, sizeof(text), "pci.0.3.0.device=%s", f->type->pci.device.name);
	must(!config_set_assignment(c, text, "fuzz", &e), e.text);
	for (unsigned i = 0; i < ARRAY_SIZE(f->settings) && f->settings[i]; i++) {
		const char *path = strstr(f->settings[i], "%s");
		int n = path ? (int)(path - f->settings[i]) : (int)strlen(f->settings[i]);

		snprintf(value, sizeof(value), "%.*s%s%s", n, f->settings[i], path ? base : "",
			 path ? path + 2 : "");
		snprintf(text, sizeof(text), "pci.0.3.0.%s", value);
		must(!config_set_assignment(c, text, "fuzz", &e), e.text);
	}
	must(!config_freeze(c, &e), e.text);
	return c;
}

/* The host's end of a socket of the device's, -1 where there is none. */
static int peer(const char *suffix)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s%s", base, suffix);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* Our end of what the device is connected to. */
static int host = -1;

/* Those whom the guest may call. */
static int listener(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s.vsock_80", base);
	unlink(sa.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(fd, 16))
		return fd;
	return fd;
}

struct input {
	const uint8_t *data;
	size_t len;
};

static uint64_t take(struct input *in, unsigned n)
{
	uint64_t v = 0;

	n = MIN(n, in->len);
	memcpy(&v, in->data, n);
	in->data += n;
	in->len -= n;
	return v;
}

static void kick(struct vcpu *v)
{
}

static void invalidate(struct vcpu *v, uint64_t gpa, uint64_t len)
{
}

static const struct vcpu_ops cpu_ops = { .name = "none", .kick = kick, .invalidate_code = invalidate,
	.freeze = vcpu_nop, .thaw = vcpu_nop, .sync_dirty = vcpu_nop_sync, .live_cut = true, };

static struct vm *machine(struct config *config)
{
	struct vm_core_options o = { .ram = RAM, .seeded = true };
	struct skep_error e = { .text = "" };
	struct vm *vm = calloc(1, sizeof(*vm));
	struct vcpu *v = calloc(1, sizeof(*v));

	must(vm && v, "no memory");
	vm->config = config;
	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	must(!vm_core_init(vm, &o, &e), e.text);
	v->vm = vm;
	v->ops = &cpu_ops;
	vm->vcpus[0] = v;
	vm->ncpus = 1;
	device_lock(vm);
	return vm;
}

static void set(struct vm *vm, unsigned offset, unsigned size, uint64_t value)
{
	bus_write(&vm->mmio, BAR + offset, size, value);
}

/* What a driver does before the first kick; which rings, the input says. */
static void start(struct virtio *v, struct vm *vm, bool packed, unsigned places)
{
	uint64_t features = virtio_offered(v) & ~(packed ? 0 : VIRTIO_F_RING_PACKED);

	pci_config_write(v->pci.bus, 0, v->pci.devfn, PCI_BAR0, 4, BAR);
	pci_config_write(v->pci.bus, 0, v->pci.devfn, PCI_BAR0 + 4, 4, 0);
	pci_config_write(v->pci.bus, 0, v->pci.devfn, PCI_BAR0 + 8, 4, MSIX);
	pci_config_write(v->pci.bus, 0, v->pci.devfn, PCI_COMMAND, 2,
			 PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	set(vm, 20, 1, 0);
	set(vm, 20, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	for (unsigned i = 0; i < 2; i++) {
		set(vm, 8, 4, i);
		set(vm, 12, 4, features >> 32 * i);
	}
	set(vm, 20, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
	for (unsigned n = 0; n < v->nqueues; n++) {
		uint64_t at = RINGS + ROOM * n;

		set(vm, 22, 2, n);
		set(vm, 24, 2, places);
		set(vm, 32, 8, at);
		set(vm, 40, 8, at + 0x1000);
		set(vm, 48, 8, at + 0x2000);
		set(vm, 28, 2, 1);
	}
	set(vm, 20, 1, 0x0f);
}

/* What is exported validates, and gives the same after a commit. */
static void save_restore(struct device *d)
{
	const struct state_record *r = d->type->state;
	struct skep_error e = { .text = "" };
	struct state_buf a = { 0 }, b = { 0 };
	void *m = calloc(1, r->model_size), *again = calloc(1, r->model_size);

	must(m && again, "no memory");
	d->type->quiesce(d);
	d->type->export(d, m);
	must(!state_check(r, d->name, m, NULL, &e) && !d->type->validate(d, m, &e), e.text);
	must(!state_encode(r, d->name, m, r->version, &a, &e), e.text);
	d->type->reset(d);
	d->type->commit(d, m);
	d->type->export(d, again);
	must(!state_encode(r, d->name, again, r->version, &b, &e), e.text);
	must(a.len == b.len && !memcmp(a.data, b.data, a.len), "another state after a restore");
	d->type->resume(d);
	state_buf_free(&a);
	state_buf_free(&b);
	state_free(r, m);
	state_free(r, again);
	free(m);
	free(again);
}

/* Guest memory, most often where the first queues' rings are. */
static void poke(struct vm *vm, struct input *in, uint64_t base)
{
	uint64_t at = base + take(in, 2), value;
	unsigned n = 1 + (unsigned)take(in, 1) % 16;

	while (n--) {
		value = take(in, 1);
		dma_write(&vm->memory, at++, &value, 1);
	}
}

/* Guest time comes to what is due next; the loop's turn, and then the input that came of it. */
static void run(struct vm *vm)
{
	struct input_point now = { 0, 0 };
	int64_t due = timers_next_due(vm);

	if (due < CLOCK_END) {
		clock_skip_to(&vm->clock, due);
		timers_run(vm, due);
	}

	device_unlock(vm);
	loop_wake(vm);
	loop_iterate(vm);
	device_lock(vm);
	input_log_deliver(vm, &now);
}

/* The host speaks: bytes as they are, or a frame with its length in front. */
static void say(struct vm *vm, struct input *in, unsigned size)
{
	uint8_t bytes[4 + 255];
	size_t n = take(in, 1);

	n = MIN(n, in->len);
	store32(bytes, __builtin_bswap32((uint32_t)n));
	memcpy(bytes + 4, in->data, n);
	in->data += n;
	in->len -= n;
	if (host >= 0 && send(host, size > 1 ? bytes : bytes + 4, n + (size > 1 ? 4 : 0),
			      MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		n = 0;		/* it has left, or its buffer is full */
	run(vm);
}

static void operate(struct vm *vm, struct virtio *v, struct input *in)
{
	unsigned op = (unsigned)take(in, 1), size = 1u << (op >> 4 & 3);

	switch (op & 15) {
	case 0:
		start(v, vm, take(in, 1) & 1, 1u + (unsigned)take(in, 1));
		break;
	case 1:
		save_restore(&v->pci.dev);
		break;
	case 2:
		v->pci.dev.type->reset(&v->pci.dev);
		break;
	case 3:
		op = (unsigned)take(in, 1);
		pci_config_write(v->pci.bus, 0, v->pci.devfn, op, MIN(size, 4u), (uint32_t)take(in, size));
		break;
	case 4:
		pci_config_read(v->pci.bus, 0, v->pci.devfn, (unsigned)take(in, 2) & 0xfff, MIN(size, 4u));
		break;
	case 5:
	case 6:
		op = (unsigned)take(in, 1) & 0x3f;
		set(vm, op, size, take(in, size));
		break;
	case 7:
		op = (unsigned)take(in, 2) & 0x3fff;
		set(vm, op, size, take(in, size));
		break;
	case 8:
		bus_read(&vm->mmio, BAR + (take(in, 2) & 0x3fff), size);
		break;
	case 9:
		op = (unsigned)take(in, 2) & 0xfff;
		bus_write(&vm->mmio, MSIX + op, size, take(in, size));
		break;
	case 10:
		poke(vm, in, take(in, 4));
		break;
	case 11:
	case 12:
		poke(vm, in, RINGS);
		break;
	case 13:
		poke(vm, in, RINGS + ROOM);
		break;
	case 14:
		say(vm, in, size);
		break;
	default:
		op = (unsigned)take(in, 1) % 8;
		set(vm, 0x3000 + 4 * op, 2, op);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = { data, len };
	const struct fuzzed *f = &types[take(&in, 1) % ARRAY_SIZE(types)];
	const struct virtio_type *t = f->type;
	struct config *config = configuration(f);
	struct config_node *node = config_find(config, "pci.0.3.0");
	struct skep_error e = { .text = "" };
	char path[sizeof(base) + 16];
	int called = listener();
	struct vm *vm = machine(config);
	struct pci_bus *pci = pci_create(vm, &e);
	struct device *d = pci ? device_create(vm, &t->pci.device, "pci.0.3.0", node, &e) : NULL;
	struct virtio *v;

	must(d, e.text);
	for (unsigned i = 0; i < 3 && host < 0; i++)
		host = peer((const char *[]){ ".net", ".con", ".vsock" }[i]);
	v = virtio_of(d);
	v->complained = true;		/* nobody reads it */
	must(!pci_attach(pci, &v->pci, PCI_DEVFN(3, 0), &e), e.text);
	for (d = vm->devices; d; d = d->next)
		d->type->reset(d);
	start(v, vm, take(&in, 1) & 1, 8);
	while (in.len)
		operate(vm, v, &in);
	run(vm);
	save_restore(&v->pci.dev);
	run(vm);
	if (host >= 0)
		close(host);
	host = -1;
	vm_destroy_devices(vm);
	device_unlock(vm);
	free(vm->vcpus[0]);
	vm->ncpus = 0;
	vm_core_finish(vm);
	free(vm);
	close(called);
	snprintf(path, sizeof(path), "%s.vsock_80", base);
	unlink(path);
	config_destroy(config);
	return 0;
}
