/* Network backends without a device: addresses, offloads, flows, the wire, slirp, tap. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "chip.h"
#include "net/backend.h"
#include "net/slirp_large.h"
#include "vm/loop.h"

struct sink {
	struct vm *vm;
	struct config *config;
	struct net_backend *b;
	unsigned frames, room, drained, links;
	bool link;
	size_t len;
	uint8_t frame[NET_FRAME_MAX];
	struct net_offload o;
};

static bool on_room(void *opaque)
{
	return ((struct sink *)opaque)->room > 0;
}

static void on_receive(void *opaque, const uint8_t *frame, size_t len, const struct net_offload *o)
{
	struct sink *s = opaque;

	memcpy(s->frame, frame, len);
	s->len = len;
	s->o = *o;
	s->frames++;
	s->room -= s->room > 0;
}

static void on_link(void *opaque, bool up)
{
	struct sink *s = opaque;

	s->links++;
	s->link = up;
}

static void on_drained(void *opaque)
{
	((struct sink *)opaque)->drained++;
}

static const struct net_receiver receiver = { on_room, on_receive, on_link, on_drained };

/* keys: "key=value" below the device. */
static struct sink *start(const char *const *keys, struct skep_error *e)
{
	struct vm_core_options o = { .ram = 1 * MiB, .seeded = true };
	struct sink *s = calloc(1, sizeof(*s));
	char text[256];

	clock_init(&o.clock, CLOCK_MODE_REALTIME);
	s->vm = calloc(1, sizeof(*s->vm));
	if (vm_core_init(s->vm, &o, e) < 0)
		fail_msg("%s", e->text);
	snprintf(s->vm->name, sizeof(s->vm->name), "vm1");
	s->config = config_create();
	assert_int_equal(config_set(s->config, "pci.0.2.0.device", "virtio-net", "test", e), 0);
	for (; *keys; keys++) {
		snprintf(text, sizeof(text), "pci.0.2.0.%s", *keys);
		if (config_set_assignment(s->config, text, "test", e) < 0)
			fail_msg("%s", e->text);
	}
	if (config_freeze(s->config, e) < 0)
		fail_msg("%s", e->text);
	s->vm->config = s->config;
	device_lock(s->vm);
	s->room = 1000;
	s->b = net_create(s->vm, "pci.0.2.0", config_find(s->config, "pci.0.2.0"), e);
	if (s->b)
		net_set_receiver(s->b, &receiver, s);
	return s;
}

static void end(struct sink *s)
{
	net_destroy(s->b);
	chip_vm_end(s->vm);
	config_destroy(s->config);
	free(s);
}

static void pump(struct sink *s)
{
	device_unlock(s->vm);
	loop_wake(s->vm);
	loop_iterate(s->vm);
	device_lock(s->vm);
}

#define KEYS(...) (const char *const []){ __VA_ARGS__, NULL }

/* ---- Addresses --------------------------------------------------------------- */

/* bhyve's: 58:9c:fc and the start of the MD5 digest of "2-0-vm1" (from md5sum(1)). */
static void mac(void **state)
{
	struct skep_error e = { .text = "" };
	struct sink *s = start(KEYS("backend=null"), &e), *t;
	struct config_node *n = config_find(s->config, "pci.0.2.0");
	static const char *const bad[] = { "mac=01:00:00:00:00:01", "mac=00:00:00:00:00:00",
					   "mac=2:0:0:0:0:0", "mac=02:00:00:00:00", "mac=",
					   "mac=02:00:00:00:00:00:00" };
	uint8_t m[6];

	assert_int_equal(net_mac(s->vm, "pci.0.2.0", n, m, &e), 0);
	assert_memory_equal(m, "\x58\x9c\xfc\x27\xa7\x18", 6);
	memset(s->vm->name, 'x', 63);
	assert_int_equal(net_mac(s->vm, "pci.0.31.7", n, m, &e), 0);
	assert_memory_equal(m, "\x58\x9c\xfc\x2c\xee\x82", 6);
	end(s);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		t = start(KEYS(bad[i]), &e);
		assert_int_equal(net_mac(t->vm, "pci.0.2.0", config_find(t->config, "pci.0.2.0"), m, &e),
				 -EINVAL);
		assert_non_null(strstr(e.text, "pci.0.2.0.mac"));
		end(t);
	}
}

/* ---- Refusals ------------------------------------------------------------------ */

/* Each names its key and what to write instead. */
static void refusals(void **state)
{
	static const struct {
		const char *backend, *more, *says;
	} bad[] = {
		{ "backend=slurp", "open=true", "slirp, tapN" },
		{ "backend=unix:", "open=true", "1 to 107 bytes" },
		{ "backend=unix:/nonexistent/dir/x", "open=true", "/nonexistent" },
		{ "backend=tap0123456789abcdef", "open=true", "1 to 15 bytes" },
		{ "backend=tap=", "open=true", "1 to 15 bytes" },
		{ "backend=unix:/tmp/x", "hostfwd=tcp::1-:1", "only slirp" },
		{ "backend=slirp", "hostfwd=tcp:1-2", "colon" },
		{ "backend=slirp", "hostfwd=sctp::1-:2", "tcp: or udp:" },
		{ "backend=slirp", "hostfwd=tcp::0-:2", "1 to 65535" },
		{ "backend=slirp", "hostfwd=tcp::99999-:2", "1 to 65535" },
		{ "backend=slirp", "hostfwd=tcp::2222x-:2", "1 to 65535" },
		{ "backend=slirp", "hostfwd=tcp:localhost:2222-:2", "IPv4" },
		{ "backend=slirp", "hostfwd=tcp:127.0.0.1:2222", "'-'" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct skep_error e = { .text = "" };
		struct sink *s = start(KEYS(bad[i].backend, bad[i].more), &e);

		assert_null(s->b);
		if (!strstr(e.text, bad[i].says) || !strstr(e.text, "pci.0.2.0."))
			fail_msg("%s %s: %s", bad[i].backend, bad[i].more, e.text);
		end(s);
	}
}

/* ---- Offloads ------------------------------------------------------------------- */

static void sums(void **state)
{
	/* RFC 1071, 3: the example. */
	static const uint8_t example[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };
	uint8_t odd[13];

	assert_int_equal(offload_fold(offload_sum(example, sizeof(example), 0)), (uint16_t)~0xddf2);
	for (unsigned i = 0; i < sizeof(odd); i++)
		odd[i] = (uint8_t)(200 + i);
	for (unsigned n = 0; n <= sizeof(odd); n++) {
		uint32_t plain = 0;

		for (unsigned i = 0; i < n; i++)
			plain += i & 1 ? odd[i] : odd[i] << 8;
		assert_int_equal(offload_fold(offload_sum(odd, n, 0)), offload_fold(plain));
	}
}

/* Whatever a guest writes into a header, nothing outside the frame is touched. */
static void hostile_headers(void **state)
{
	uint8_t *f = malloc(80);
	struct tcp_frame t;
	uint32_t x = 12345;

	for (unsigned i = 0; i < 200000; i++) {
		struct net_offload o;
		size_t len = 14 + i % 67;

		for (unsigned k = 0; k < 80; k++)
			f[k] = (uint8_t)((x = x * 1103515245 + 12345) >> 16);
		if (i & 1) {
			f[12] = 8;
			f[13] = 0;
			f[14] = (uint8_t)(0x40 | (f[14] & 15));
			f[23] = 6;
			f[20] &= 0xc0;
			f[21] = f[16] = 0;
		}
		memcpy(&o, f + 60, sizeof(o));
		o.gso_type = i & 2 ? NET_GSO_TCPV4 : o.gso_type;
		if (offload_find_tcp(f, len, &t))
			assert_true(t.payload <= t.end && t.end <= len);
		if (offload_valid(len, &o) && (o.flags & NET_NEEDS_CSUM))
			offload_checksum(f, len, &o);
	}
	free(f);
}

/* ---- Flows ----------------------------------------------------------------------- */

static size_t segment(uint8_t *f, uint16_t port, uint8_t flags, uint32_t seq, uint32_t ack, size_t data)
{
	memset(f, 0, 54 + data);
	memcpy(f, "\x52\x55\x0a\0\2\2\x02\0\0\0\0\x09\x08\0", 14);
	f[14] = 0x45;
	store16(f + 16, __builtin_bswap16((uint16_t)(40 + data)));
	f[23] = 6;
	memcpy(f + 26, "\x0a\0\2\x0f\x0a\0\2\2", 8);
	store16(f + 34, port);
	store16(f + 36, 80);
	store32(f + 38, __builtin_bswap32(seq));
	store32(f + 42, __builtin_bswap32(ack));
	f[46] = 5 << 4;
	f[47] = flags;
	return 54 + data;
}

static void flows(void **state)
{
	struct net_flows *fl = flows_create();
	struct state_list list = { 0 };
	uint8_t f[200], r[FLOW_RESET_MAX];
	struct tcp_frame t;
	size_t n;

	flows_see(fl, f, segment(f, 1000, 0x02, 99, 0, 0));
	flows_see(fl, f, segment(f, 1000, 0x10, 100, 5000, 50));
	assert_int_equal(flows_count(fl), 1);
	assert_int_equal(flows_export(fl, &list), 0);
	n = flow_reset(list.items, r);
	/* RFC 9293, 3.5.2: exactly what the guest expects next, and right sums. */
	assert_true(offload_find_tcp(r, n, &t));
	assert_int_equal(n, 54);
	assert_int_equal(__builtin_bswap32(load32(r + 38)), 5000);
	assert_int_equal(__builtin_bswap32(load32(r + 42)), 150);
	assert_int_equal(r[47], 0x14);
	assert_memory_equal(r, "\x02\0\0\0\0\x09\x52\x55\x0a\0\2\2\x08\0", 14);
	assert_int_equal(offload_fold(offload_sum(r + 14, 20, 0)), 0);
	assert_int_equal(offload_fold(offload_sum(r + 34, 20, offload_pseudo(r, &t, 20))), 0);
	free(list.items);
	/* Both close: nothing is left to reset. */
	flows_see(fl, f, segment(f, 1000, 0x11, 150, 5000, 0));
	n = segment(f, 80, 0x11, 5000, 151, 0);
	memcpy(f + 26, "\x0a\0\2\2\x0a\0\2\x0f", 8);
	store16(f + 36, 1000);
	flows_hear(fl, f, n);
	assert_int_equal(flows_count(fl), 0);
	/* The table is bounded; the ones used last are those that are kept. */
	for (unsigned i = 1; i <= NET_FLOWS_MAX + 100; i++)
		flows_see(fl, f, segment(f, (uint16_t)i, 0x10, 1, 1, 0));
	assert_int_equal(flows_count(fl), NET_FLOWS_MAX);
	assert_int_equal(flows_export(fl, &list), 0);
	assert_int_equal(((struct net_flow *)list.items)[0].guest_port, 101);
	free(list.items);
	for (unsigned i = 1; i <= NET_FLOWS_MAX + 100; i++)
		flows_see(fl, f, segment(f, (uint16_t)i, 0x04, 1, 1, 0));
	assert_int_equal(flows_count(fl), 0);
	flows_destroy(fl);
}

/* ---- The wire --------------------------------------------------------------------- */

static int dial(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(sa.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static char *wire_path(void)
{
	static char path[64];

	snprintf(path, sizeof(path), "/tmp/skep-test-wire-%d", getpid());
	return path;
}

/* Two machines: whoever comes first listens; when it goes, the other one does. */
static void two_ends(void **state)
{
	struct skep_error e = { .text = "" };
	uint8_t f[100] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5, 42 };
	struct sink *a, *b;
	char spec[80];
	struct stat st;

	snprintf(spec, sizeof(spec), "backend=unix:%s", wire_path());
	a = start(KEYS(spec), &e);
	assert_false(net_link(a->b));
	b = start(KEYS(spec), &e);
	assert_true(net_link(b->b));
	pump(a);
	assert_true(a->link);
	assert_true(net_send(a->b, f, sizeof(f), NULL));
	pump(b);
	assert_int_equal(b->frames, 1);
	assert_int_equal(b->len, sizeof(f));
	assert_memory_equal(b->frame, f, sizeof(f));
	end(a);
	pump(b);
	assert_false(b->link);
	/* It listens now, at the same place. */
	a = start(KEYS(spec), &e);
	pump(b);
	assert_true(b->link);
	assert_true(net_send(b->b, f, sizeof(f), NULL));
	pump(a);
	assert_int_equal(a->frames, 1);
	end(a);
	end(b);
	assert_int_equal(lstat(wire_path(), &st), -1);
}

/* A peer that says nonsense is cut off; a length is never believed. */
static void nonsense(void **state)
{
	static const uint8_t lengths[][4] = { { 0, 0, 0, 0 }, { 0xff, 0xff, 0xff, 0xff }, { 0, 2, 0, 0 } };
	struct skep_error e = { .text = "" };
	struct sink *s;
	char spec[80], c;

	snprintf(spec, sizeof(spec), "backend=unix:%s", wire_path());
	s = start(KEYS(spec), &e);
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		int fd = dial(wire_path());

		pump(s);
		assert_true(s->link);
		assert_int_equal(send(fd, lengths[i], 4, 0), 4);
		pump(s);
		assert_false(s->link);
		assert_int_equal(recv(fd, &c, 1, 0), 0);
		close(fd);
	}
	/* A frame shorter than a header is dropped, and the next one is not. */
	{
		int fd = dial(wire_path());

		pump(s);
		assert_int_equal(send(fd, "\0\0\0\3abc\0\0\0\x10" "0123456789abcdef", 27, 0), 27);
		pump(s);
		assert_int_equal(s->frames, 1);
		assert_int_equal(s->len, 16);
		close(fd);
	}
	assert_int_equal(s->frames, 1);
	end(s);
}

static size_t drain(int fd, uint8_t *buf, size_t max)
{
	ssize_t n = recv(fd, buf, max, 0);

	return n > 0 ? (size_t)n : 0;
}

/*
 * The peer took half of a frame when the machine was saved: the running one goes on with the other half, a
 * restored one sends the whole frame on its new wire.
 */
static void half_a_frame(void **state)
{
	static uint8_t f[60000], got[8 << 20];
	struct skep_error e = { .text = "" };
	struct net_model m = { 0 };
	struct sink *s, *r;
	char spec[80];
	size_t n = 0, k, sent = 0;
	int fd;

	snprintf(spec, sizeof(spec), "backend=unix:%s", wire_path());
	s = start(KEYS(spec), &e);
	fd = dial(wire_path());
	pump(s);
	memset(f, 7, sizeof(f));
	while (net_send(s->b, f, sizeof(f), NULL))
		sent++;
	net_quiesce(s->b);
	assert_false(net_ready(s->b));
	assert_int_equal(net_export(s->b, &m), 0);
	assert_int_equal(m.unsent.len, 4 + sizeof(f));
	assert_int_equal(net_validate("x", &m, &e), 0);
	net_resume(s->b);
	while (n < sent * (4 + sizeof(f))) {
		k = drain(fd, got + n, sizeof(got) - n);
		n += k;
		pump(s);
	}
	assert_int_equal(n, sent * (4 + sizeof(f)));
	assert_true(s->drained > 0);
	close(fd);
	end(s);
	r = start(KEYS(spec), &e);
	net_quiesce(r->b);
	net_import(r->b, &m);
	fd = dial(wire_path());
	pump(r);
	net_resume(r->b);
	for (n = 0; n < 4 + sizeof(f); pump(r))
		n += drain(fd, got + n, sizeof(got) - n);
	assert_int_equal(n, 4 + sizeof(f));
	assert_memory_equal(got + 4, f, sizeof(f));
	/* What a file says is not believed. */
	m.unsent.data[2] ^= 1;
	assert_true(net_validate("x", &m, &e) < 0);
	m.unsent.len = 3;
	assert_true(net_validate("x", &m, &e) < 0);
	state_free(&net_record, &m);
	close(fd);
	end(r);
}

/* While the machine stands nothing comes in; afterwards all of it does. */
static void stands(void **state)
{
	struct skep_error e = { .text = "" };
	struct sink *s;
	char spec[80];
	int fd;

	snprintf(spec, sizeof(spec), "backend=unix:%s", wire_path());
	s = start(KEYS(spec), &e);
	fd = dial(wire_path());
	pump(s);
	net_quiesce(s->b);
	assert_int_equal(send(fd, "\0\0\0\x10" "0123456789abcdef", 20, 0), 20);
	pump(s);
	assert_int_equal(s->frames, 0);
	net_resume(s->b);
	pump(s);
	assert_int_equal(s->frames, 1);
	/* Nor while the device has no room. */
	s->room = 0;
	assert_int_equal(send(fd, "\0\0\0\x10" "0123456789abcdef", 20, 0), 20);
	pump(s);
	pump(s);
	assert_int_equal(s->frames, 1);
	s->room = 1;
	net_accept(s->b);
	pump(s);
	assert_int_equal(s->frames, 2);
	close(fd);
	end(s);
}

/* ---- slirp -------------------------------------------------------------------------- */

/* The guest asks who 10.0.2.2 is; a connection of the host's then reaches it as a SYN. */
static void slirp(void **state)
{
	static const uint8_t arp[42] =
		"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x09\x08\x06\0\1\x08\0\6\4\0\1"
		"\x02\0\0\0\0\x09\x0a\0\2\x0f\0\0\0\0\0\0\x0a\0\2";
	struct skep_error e = { .text = "" };
	struct net_model m = { 0 };
	uint8_t f[100];
	struct sink *s = start(KEYS("backend=slirp"), &e);

	if (!s->b && strstr(e.text, "not installed")) {
		printf("SKIP: %s\n", e.text);
		end(s);
		skip();
	}
	assert_non_null(s->b);
	net_set_takes(s->b, NET_TAKES_CSUM);
	memcpy(f, arp, 42);
	f[41] = 2;
	assert_true(net_send(s->b, f, 42, NULL));
	assert_int_equal(s->frames, 1);
	assert_memory_equal(s->frame, "\x02\0\0\0\0\x09", 6);
	assert_memory_equal(s->frame + 20, "\0\2", 2);
	/* A SYN to a port of the host's where nobody listens is refused; the flow is known meanwhile. */
	assert_true(net_send(s->b, f, segment(f, 4000, 0x02, 77, 0, 0), NULL));
	net_quiesce(s->b);
	assert_int_equal(net_export(s->b, &m), 0);
	net_resume(s->b);
	assert_int_equal(m.flows.count <= 1, 1);
	state_free(&net_record, &m);
	/* Nonsense of every length. */
	for (unsigned i = 0; i < 20000; i++) {
		for (unsigned k = 0; k < sizeof(f); k++)
			f[k] = (uint8_t)(i * 31 + k * (i >> 3) + (i & k));
		if (i & 1)
			memcpy(f, arp, 12 + i % 30);
		assert_true(net_send(s->b, f, 14 + i % 80, NULL));
	}
	pump(s);
	end(s);
}

static uint16_t tcp_sum(const uint8_t *f, size_t len)
{
	struct tcp_frame t;

	assert_true(offload_find_tcp(f, len, &t));
	return offload_fold(offload_sum(f + t.tcp, t.end - t.tcp, offload_pseudo(f, &t, t.end - t.tcp)));
}

/* A SYN on its way to the library says that large segments are welcome; nothing else is touched. */
static void syn(void **state)
{
	uint8_t f[100], copy[SLIRP_SYN_MAX];
	size_t len = segment(f, 1, 0x02, 5, 0, 8);

	f[46] = 7 << 4;
	memcpy(f + 54, "\1\1\2\4\5\xb4\0\0", 8);
	store16(f + 50, __builtin_bswap16(tcp_sum(f, len)));
	assert_true(slirp_raise_mss(f, len, copy));
	assert_int_equal(copy[58] << 8 | copy[59], SLIRP_MTU - 40);
	assert_int_equal(tcp_sum(copy, len), 0);
	assert_memory_equal(copy, f, 50);
	f[51] ^= 1;
	assert_false(slirp_raise_mss(f, len, copy));	/* a wrong checksum stays wrong */
	f[51] ^= 1;
	f[47] = 0x10;
	assert_false(slirp_raise_mss(f, len, copy));	/* no SYN */
	/* Options that run into each other, or out of the header. */
	for (unsigned i = 0; i < 65536; i++) {
		f[47] = 0x02;
		store16(f + 54, (uint16_t)i);
		store16(f + 50, 0);
		store16(f + 50, __builtin_bswap16(tcp_sum(f, len)));
		slirp_raise_mss(f, len, copy);
	}
}

/* What the library makes larger than the guest's MTU: one frame, or many, as the guest takes it. */
static void large(void **state)
{
	static uint8_t f[14 + SLIRP_MTU], whole[14 + SLIRP_MTU];
	struct skep_error e = { .text = "" };
	struct sink *s = start(KEYS("backend=null"), &e);
	size_t len = segment(whole, 80, 0x10, 100, 1, 10000);

	net_set_takes(s->b, NET_TAKES_CSUM | NET_TAKES_TSO4);
	memcpy(f, whole, len);
	slirp_receive_large(s->b, f, len, 1500);
	assert_int_equal(s->frames, 1);
	assert_int_equal(s->len, len);
	assert_int_equal(s->o.gso_type, NET_GSO_TCPV4);
	assert_int_equal(s->o.gso_size, 1460);
	/* Completed as a driver completes it, the checksum is right. */
	offload_checksum(s->frame, s->len, &s->o);
	assert_int_equal(tcp_sum(s->frame, s->len), 0);
	net_set_takes(s->b, NET_TAKES_CSUM);
	memcpy(f, whole, len);
	slirp_receive_large(s->b, f, len, 1500);
	assert_int_equal(s->frames, 1 + 7);
	assert_int_equal(tcp_sum(s->frame, s->len), 0);
	/* A datagram: fragments (RFC 791, 3.2). */
	memcpy(f, whole, len);
	f[23] = 17;
	slirp_receive_large(s->b, f, len, 1500);
	assert_int_equal(s->frames, 8 + 7);
	assert_int_equal(s->len, 14 + 20 + 10020 - 6 * 1480);
	assert_int_equal(s->frame[20] << 8 | s->frame[21], 6 * 1480 / 8);
	assert_int_equal(offload_fold(offload_sum(s->frame + 14, 20, 0)), 0);
	end(s);
}

/* Restored flows are reset when the machine goes on, not before. */
static void slirp_flows(void **state)
{
	struct skep_error e = { .text = "" };
	struct net_flow flow = { .guest_mac = { 2, 0, 0, 0, 0, 9 }, .guest_port = 1, .host_port = 2,
				 .seq = 10, .ack = 20 };
	struct net_model m = { .flows = { &flow, 1 } };
	struct sink *s = start(KEYS("backend=null"), &e);

	net_quiesce(s->b);
	assert_int_equal(net_validate("x", &m, &e), 0);
	net_import(s->b, &m);
	assert_int_equal(s->frames, 0);
	net_resume(s->b);
	assert_int_equal(s->frames, 1);
	assert_int_equal(s->frame[47], 0x14);
	net_quiesce(s->b);
	net_resume(s->b);
	assert_int_equal(s->frames, 1);
	flow.guest_port = 0;
	assert_true(net_validate("x", &m, &e) < 0);
	end(s);
}

/* ---- tap ------------------------------------------------------------------------------ */

static void tap(void **state)
{
	struct skep_error e = { .text = "" };
	struct sink *s = start(KEYS("backend=tap=skeptest0"), &e);

	if (!s->b) {
		assert_non_null(strstr(e.text, "pci.0.2.0.backend"));
		printf("SKIP: %s\n", e.text);
		end(s);
		skip();
	}
	assert_true(net_link(s->b));
	net_set_takes(s->b, NET_TAKES_CSUM | NET_TAKES_TSO4);
	pump(s);
	end(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mac), cmocka_unit_test(refusals), cmocka_unit_test(sums),
		cmocka_unit_test(hostile_headers), cmocka_unit_test(flows), cmocka_unit_test(two_ends),
		cmocka_unit_test(nonsense), cmocka_unit_test(half_a_frame), cmocka_unit_test(stands),
		cmocka_unit_test(slirp), cmocka_unit_test(syn), cmocka_unit_test(large),
		cmocka_unit_test(slirp_flows), cmocka_unit_test(tap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
