/* virtio-net with its rings driven by hand (VIRTIO 1.2, 5.1), its wire a Unix socket that we hold. */
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/net.h"
#include "virtio_helper.h"
#include "virtio/net.h"
#include "virtio/net_priv.h"
#include "vm/inputlog.h"
#include "vm/loop.h"

#define CTRL	4	/* with two pairs */

static struct vdrv d;
static int wire = -1;
static char wire_path[64];
static uint64_t headers;	/* guest memory for headers and frames */

static void begin(bool realtime)
{
	char spec[80];
	const char *const keys[][2] = {
		{ "backend", spec }, { "queues", "2" }, { "mtu", "9000" },
		{ "mac", "02:11:22:33:44:55" },
	};
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	snprintf(wire_path, sizeof(wire_path), "/tmp/skep-test-net-%d", getpid());
	snprintf(spec, sizeof(spec), "unix:%s", wire_path);
	vdrv_begin(&d, &virtio_net_type, keys, ARRAY_SIZE(keys));
	if (realtime)
		clock_init(&d.vm->clock, CLOCK_MODE_REALTIME);
	strcpy(sa.sun_path, wire_path);
	wire = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_int_equal(connect(wire, (struct sockaddr *)&sa, sizeof(sa)), 0);
}

/* The loop's turn, and then the input that came of it. */
static void pump(void)
{
	struct input_point now = { 0, 0 };

	for (unsigned i = 0; i < 4; i++) {
		device_unlock(d.vm);
		loop_wake(d.vm);
		loop_iterate(d.vm);
		device_lock(d.vm);
		if (d.vm->clock.mode == CLOCK_MODE_VIRTUAL)
			input_log_deliver(d.vm, &now);
	}
}

static int setup(void **state)
{
	begin(false);
	return 0;
}

static int setup_realtime(void **state)
{
	begin(true);
	return 0;
}

static int teardown(void **state)
{
	close(wire);
	vdrv_end(&d);
	return 0;
}

static void start(uint64_t features, bool packed)
{
	pump();
	vdrv_start(&d, features, packed, 64);
	headers = vdrv_alloc(&d, 1 << 20);
}

/* ---- Frames ---------------------------------------------------------------- */

static void fill_frame(uint8_t *f, size_t len, uint8_t seed)
{
	static const uint8_t addresses[14] = { 0x02, 0x11, 0x22, 0x33, 0x44, 0x55, 2, 0, 0, 0, 0, 1,
					       0x88, 0xb5 };

	for (size_t i = 0; i < len; i++)
		f[i] = (uint8_t)(seed + i * 7);
	memcpy(f, addresses, sizeof(addresses));
}

static void wire_send(const uint8_t *f, size_t len)
{
	uint8_t prefix[4];

	store32(prefix, __builtin_bswap32((uint32_t)len));
	assert_int_equal(send(wire, prefix, 4, 0), 4);
	assert_int_equal(send(wire, f, len, 0), len);
}

/* 0: nothing there. */
static size_t wire_receive(uint8_t *f)
{
	uint8_t prefix[4];
	size_t len;

	if (recv(wire, prefix, 4, 0) != 4)
		return 0;
	len = __builtin_bswap32(load32(prefix));
	assert_true(len <= NET_FRAME_MAX);
	/* The rest of it may still be on its way. */
	for (size_t at = 0; at < len; ) {
		ssize_t n = recv(wire, f + at, len - at, 0);

		assert_true(n != 0);
		if (n < 0)
			pump();
		else
			at += (size_t)n;
	}
	return len;
}

static void transmit(unsigned q, const uint8_t header[12], const uint8_t *f, size_t len)
{
	vdrv_put(&d, headers, header, 12);
	vdrv_put(&d, headers + 4096, f, len);
	vdrv_add(&d, q, (struct vseg[]){ { headers, 12, false }, { headers + 4096, (uint32_t)len, false } },
		 2);
	vdrv_kick(&d, q);
	pump();
}

static const uint8_t plain[12];

/* ---- Configuration ---------------------------------------------------------- */

/* 5.1.4: MAC, status, pairs, MTU; 5.1.2: queues. */
static void configuration(void **state)
{
	static const uint8_t mac[6] = { 2, 0x11, 0x22, 0x33, 0x44, 0x55 };

	assert_int_equal(vdrv_config_read(&d, PCI_DEVICE_ID, 2), 0x1041);
	assert_int_equal(vdrv_get(&d, VC_QUEUES, 2), 5);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(vdrv_get(&d, V_CONFIG + i, 1), mac[i]);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 8, 2), 2);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 10, 2), 9000);
	assert_true(vdrv_features(&d) & NET_F_MQ);
	assert_true(vdrv_features(&d) & NET_F_MTU);
	/* The driver's writes change nothing (5.1.4.2). */
	vdrv_set(&d, V_CONFIG, 1, 0x42);
	assert_int_equal(vdrv_get(&d, V_CONFIG, 1), 2);
}

/* 5.1.4.2, 5.1.5: the link follows the wire, and the driver is told. */
static void link_status(void **state)
{
	unsigned before;

	start(0, false);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 6, 2), NET_S_LINK_UP);
	before = d.messages[0];
	shutdown(wire, SHUT_RDWR);
	pump();
	assert_int_equal(vdrv_get(&d, V_CONFIG + 6, 2), 0);
	assert_int_equal(d.messages[0], before + 1);
}

/* ---- Transmission ------------------------------------------------------------ */

static void one_out(bool packed)
{
	uint8_t f[1514], got[NET_FRAME_MAX];
	uint16_t id;
	uint32_t len;

	start(0, packed);
	fill_frame(f, sizeof(f), 1);
	transmit(1, plain, f, sizeof(f));
	assert_true(vdrv_used(&d, 1, &id, &len));
	assert_int_equal(len, 0);
	assert_int_equal(wire_receive(got), sizeof(f));
	assert_memory_equal(got, f, sizeof(f));
}

static void out_split(void **state) { one_out(false); }
static void out_packed(void **state) { one_out(true); }

/* 5.1.6.2: a checksum that the driver leaves to us. */
static void checksum(void **state)
{
	uint8_t h[12] = { NET_NEEDS_CSUM }, f[60], got[NET_FRAME_MAX];
	uint32_t sum = 0;

	start(0, false);
	fill_frame(f, sizeof(f), 9);
	store16(h + 6, 20);
	store16(h + 8, 6);
	store16(f + 26, 0);
	transmit(1, h, f, sizeof(f));
	assert_int_equal(wire_receive(got), sizeof(f));
	for (unsigned i = 20; i < 60; i += 2)
		sum += (uint32_t)(got[i] << 8 | got[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	assert_int_equal(sum, 0xffff);
	/* One that lies outside the frame: the buffer comes back, and nothing went out. */
	store16(h + 6, 50);
	store16(h + 8, 10);
	transmit(1, h, f, sizeof(f));
	assert_int_equal(wire_receive(got), 0);
	assert_false(vdrv_broken(&d));
}

/* An IPv4 TCP segment of so many bytes of payload. */
static size_t tcp_frame(uint8_t *f, size_t payload)
{
	memset(f, 0, 54);
	fill_frame(f, 14, 0);
	store16(f + 12, __builtin_bswap16(0x0800));
	f[14] = 0x45;
	store16(f + 16, __builtin_bswap16((uint16_t)(40 + payload)));
	store16(f + 18, __builtin_bswap16(0xfffe));
	f[22] = 64;
	f[23] = 6;
	memcpy(f + 26, "\x0a\0\2\x0f\x0a\0\2\2", 8);
	memcpy(f + 34, "\x12\x34\x56\x78", 4);
	store32(f + 38, __builtin_bswap32(0xfffffff0));
	f[46] = 5 << 4;
	f[47] = 0x01 | 0x08 | 0x10 | 0x80;	/* FIN PSH ACK CWR */
	for (size_t i = 0; i < payload; i++)
		f[54 + i] = (uint8_t)(i * 13);
	return 54 + payload;
}

static uint32_t be32(const uint8_t *p) { return __builtin_bswap32(load32(p)); }
static uint16_t be16(const uint8_t *p) { return __builtin_bswap16(load16(p)); }

static uint16_t sum_of(const uint8_t *p, size_t len, uint32_t sum)
{
	for (size_t i = 0; i < len; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* 5.1.6.2: a large segment is cut up, each piece a right one. */
static void segmentation(void **state)
{
	static uint8_t f[NET_FRAME_MAX], got[NET_FRAME_MAX];
	uint8_t h[12] = { NET_NEEDS_CSUM, NET_GSO_TCPV4 };
	size_t len = tcp_frame(f, 10000), at = 0, n;
	unsigned pieces = 0;

	start(0, false);
	store16(h + 4, 1448);
	store16(h + 6, 34);
	store16(h + 8, 16);
	transmit(1, h, f, len);
	while ((n = wire_receive(got))) {
		size_t payload = n - 54;

		assert_int_equal(be16(got + 16), 40 + payload);
		assert_int_equal(be16(got + 18), (uint16_t)(0xfffe + pieces));
		assert_int_equal(be32(got + 38), (uint32_t)(0xfffffff0 + at));
		assert_int_equal(sum_of(got + 14, 20, 0), 0xffff);
		assert_int_equal(sum_of(got + 34, n - 34, sum_of(got + 26, 8, 6 + 20 + (uint32_t)payload)),
				 0xffff);
		/* CWR in the first one, FIN and PSH in the last one. */
		assert_int_equal(got[47], 0x10 | (at ? 0 : 0x80) | (at + payload == 10000 ? 0x09 : 0));
		assert_memory_equal(got + 54, f + 54 + at, payload);
		at += payload;
		pieces++;
	}
	assert_int_equal(at, 10000);
	assert_int_equal(pieces, 7);
	/* What is no TCP, and a segment size of 0: nothing goes out. */
	f[23] = 17;
	transmit(1, h, f, len);
	store16(h + 4, 0);
	transmit(1, h, f, len);
	assert_int_equal(wire_receive(got), 0);
	assert_false(vdrv_broken(&d));
}

/* Buffers that hold no frame come back (5.1.6.2.2), whatever they look like. */
static void bad_buffers(void **state)
{
	static const uint32_t sizes[] = { 1, 11, 12, 25, 12 + NET_FRAME_MAX + 1, 1 << 20 };
	uint8_t got[NET_FRAME_MAX];
	uint16_t id;
	uint32_t len;

	start(0, false);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		vdrv_add(&d, 1, &(struct vseg){ headers, sizes[i], false }, 1);
		vdrv_kick(&d, 1);
		pump();
		assert_true(vdrv_used(&d, 1, &id, &len));
	}
	/* And one that is all writable. */
	vdrv_add(&d, 1, &(struct vseg){ headers, 2000, true }, 1);
	vdrv_kick(&d, 1);
	assert_true(vdrv_used(&d, 1, &id, &len));
	assert_int_equal(wire_receive(got), 0);
	assert_false(vdrv_broken(&d));
}

/* ---- Reception --------------------------------------------------------------- */

static uint64_t give_buffers(unsigned q, unsigned n, uint32_t size)
{
	uint64_t gpa = vdrv_alloc(&d, (size_t)n * size);

	for (unsigned i = 0; i < n; i++)
		vdrv_add(&d, q, &(struct vseg){ gpa + (uint64_t)i * size, size, true }, 1);
	vdrv_kick(&d, q);
	return gpa;
}

/* 5.1.6.4: a frame over as many buffers as it needs, num_buffers in the first. */
static void merged(bool packed)
{
	uint8_t f[5000], h[12], got[5012];
	uint64_t gpa;
	uint16_t id;
	uint32_t len;
	size_t at = 0;

	start(0, packed);
	gpa = give_buffers(0, 8, 1024);
	fill_frame(f, sizeof(f), 3);
	wire_send(f, sizeof(f));
	pump();
	for (unsigned i = 0; i < 5; i++) {
		assert_true(vdrv_used(&d, 0, &id, &len));
		assert_int_equal(len, MIN(5012 - at, 1024u));
		vdrv_take(&d, gpa + i * 1024, got + at, len);
		at += len;
	}
	assert_false(vdrv_used(&d, 0, &id, &len));
	memcpy(h, got, 12);
	assert_int_equal(load16(h + 10), 5);
	assert_memory_equal(got + 12, f, sizeof(f));
}

static void merged_split(void **state) { merged(false); }
static void merged_packed(void **state) { merged(true); }

/* 5.1.6.3.1: without mergeable buffers, one that is too small makes a frame lost, not the device. */
static void unmerged(void **state)
{
	uint8_t f[1000], got[1012];
	uint64_t gpa;
	uint16_t id;
	uint32_t len;

	start(vdrv_features(&d) & ~(NET_F_MRG_RXBUF | VIRTIO_F_RING_PACKED), false);
	gpa = give_buffers(0, 1, 1012);
	fill_frame(f, sizeof(f), 5);
	wire_send(f, sizeof(f));
	pump();
	assert_true(vdrv_used(&d, 0, &id, &len));
	assert_int_equal(len, 1012);
	vdrv_take(&d, gpa, got, sizeof(got));
	assert_int_equal(load16(got + 10), 1);
	assert_memory_equal(got + 12, f, sizeof(f));
	give_buffers(0, 1, 500);
	wire_send(f, sizeof(f));
	wire_send(f, 100);
	pump();
	assert_true(vdrv_used(&d, 0, &id, &len));
	assert_int_equal(len, 112);
	assert_false(vdrv_broken(&d));
}

/* Frames wait for buffers, in order, over a save and a restore; and the wire is held back. */
static void waiting(void **state)
{
	uint8_t f[200], got[212];
	uint64_t gpa;
	uint16_t id;
	uint32_t len;

	start(0, false);
	for (unsigned i = 0; i < 3 * NET_BACKLOG; i++) {
		fill_frame(f, sizeof(f), (uint8_t)i);
		wire_send(f, sizeof(f));
	}
	for (unsigned i = 0; i < 10; i++)
		pump();
	vdrv_save_restore(&d);
	for (unsigned i = 0; i < 3 * NET_BACKLOG; i++) {
		gpa = give_buffers(0, 1, 212);
		pump();
		assert_true(vdrv_used(&d, 0, &id, &len));
		vdrv_take(&d, gpa, got, sizeof(got));
		fill_frame(f, sizeof(f), (uint8_t)i);
		assert_memory_equal(got + 12, f, sizeof(f));
	}
	give_buffers(0, 1, 212);
	pump();
	assert_false(vdrv_used(&d, 0, &id, &len));
}

/* A receive buffer without room for the header breaks the device (5.1.6.3.1), and a reset mends it. */
static void tiny_buffer(void **state)
{
	uint8_t f[60];
	uint16_t id;
	uint32_t len;

	start(0, false);
	give_buffers(0, 60, 4);
	fill_frame(f, sizeof(f), 0);
	wire_send(f, sizeof(f));
	pump();
	assert_true(vdrv_broken(&d));
	start(0, false);
	give_buffers(0, 1, 2048);
	wire_send(f, sizeof(f));
	pump();
	assert_true(vdrv_used(&d, 0, &id, &len));
}

/* ---- Control ------------------------------------------------------------------ */

static uint8_t control(uint8_t class, uint8_t number, const void *data, uint32_t len)
{
	uint8_t head[2] = { class, number }, ack = 0x55;
	uint16_t id;
	uint32_t written;

	vdrv_put(&d, headers, head, 2);
	vdrv_put(&d, headers + 4096, data, len);
	vdrv_put(&d, headers + 8192, &ack, 1);
	vdrv_add(&d, CTRL, (struct vseg[]){ { headers, 2, false }, { headers + 4096, len, false },
					    { headers + 8192, 1, true } }, 3);
	vdrv_kick(&d, CTRL);
	assert_true(vdrv_used(&d, CTRL, &id, &written));
	assert_int_equal(written, 1);
	vdrv_take(&d, headers + 8192, &ack, 1);
	return ack;
}

/* Does a frame to this address, with this tag, arrive? */
static bool arrives(const char mac[6], int vlan)
{
	uint8_t f[100];
	uint16_t id;
	uint32_t len;

	fill_frame(f, sizeof(f), 0);
	memcpy(f, mac, 6);
	if (vlan >= 0) {
		store16(f + 12, __builtin_bswap16(0x8100));
		store16(f + 14, __builtin_bswap16((uint16_t)vlan));
	}
	wire_send(f, sizeof(f));
	pump();
	return vdrv_used(&d, 0, &id, &len);
}

#define OWN	"\x02\x11\x22\x33\x44\x55"
#define OTHER	"\x02\x99\x99\x99\x99\x99"
#define GROUP	"\x01\x00\x5e\x00\x00\x01"
#define ALL	"\xff\xff\xff\xff\xff\xff"

/* 5.1.6.5.1 and 5.1.6.5.2: modes and tables of addresses. */
static void filters(void **state)
{
	static const uint8_t zero, one = 1;
	uint8_t tables[4 + 6 + 4 + 6];

	start(0, false);
	give_buffers(0, 60, 2048);
	assert_true(arrives(OTHER, -1));	/* promiscuous until the driver says what it wants */
	assert_int_equal(control(0, 0, &zero, 1), 0);
	assert_false(arrives(OTHER, -1));
	assert_true(arrives(OWN, -1));
	assert_true(arrives(ALL, -1));
	assert_false(arrives(GROUP, -1));
	assert_int_equal(control(0, 1, &one, 1), 0);
	assert_true(arrives(GROUP, -1));
	assert_int_equal(control(0, 1, &zero, 1), 0);
	assert_int_equal(control(0, 5, &one, 1), 0);
	assert_false(arrives(ALL, -1));
	store32(tables, 1);
	memcpy(tables + 4, OTHER, 6);
	store32(tables + 10, 1);
	memcpy(tables + 14, GROUP, 6);
	assert_int_equal(control(1, 0, tables, sizeof(tables)), 0);
	assert_true(arrives(OTHER, -1));
	assert_true(arrives(GROUP, -1));
	/* A count that the buffer does not hold changes nothing. */
	store32(tables, 0xffffffff);
	assert_int_equal(control(1, 0, tables, sizeof(tables)), 1);
	store32(tables, 2);
	assert_int_equal(control(1, 0, tables, sizeof(tables)), 1);
	assert_true(arrives(OTHER, -1));
	/* 5.1.6.5.2: another address of its own. */
	assert_int_equal(control(1, 1, "\x02\x00\x00\x00\x00\x77", 6), 0);
	assert_true(arrives("\x02\x00\x00\x00\x00\x77", -1));
	assert_false(arrives(OWN, -1));
	assert_int_equal(vdrv_get(&d, V_CONFIG + 5, 1), 0x77);
	vdrv_save_restore(&d);
	assert_false(arrives(OWN, -1));
	assert_true(arrives(OTHER, -1));
}

/* 5.1.6.5.2: more addresses than there is room for: all of that kind are taken. */
static void overflow(void **state)
{
	static const uint8_t zero;
	static uint8_t tables[8 + 6 * 100];

	start(0, false);
	give_buffers(0, 20, 2048);
	store32(tables, 100);
	assert_int_equal(control(0, 0, &zero, 1), 0);
	assert_int_equal(control(1, 0, tables, sizeof(tables)), 0);
	assert_true(arrives(OTHER, -1));
	assert_false(arrives(GROUP, -1));
}

/* 5.1.6.5.3 */
static void vlans(void **state)
{
	static const uint8_t zero;

	start(0, false);
	give_buffers(0, 20, 2048);
	assert_int_equal(control(0, 0, &zero, 1), 0);
	assert_false(arrives(OWN, 100));
	assert_int_equal(control(2, 0, "\x64\x00", 2), 0);
	assert_true(arrives(OWN, 100));
	assert_false(arrives(OWN, 101));
	assert_int_equal(control(2, 1, "\x64\x00", 2), 0);
	assert_false(arrives(OWN, 100));
	assert_int_equal(control(2, 0, "\x00\x10", 2), 1);	/* 4096 */
}

/* 5.1.6.5.5: pairs, and frames of a flow come to the pair that it was sent from. */
static void pairs(void **state)
{
	static uint8_t f[NET_FRAME_MAX];
	size_t len = tcp_frame(f, 100);
	uint16_t id;
	uint32_t n;

	start(0, false);
	assert_int_equal(control(4, 0, "\x00\x00", 2), 1);
	assert_int_equal(control(4, 0, "\x03\x00", 2), 1);
	assert_int_equal(control(4, 0, "\x02\x00", 2), 0);
	give_buffers(0, 4, 2048);
	give_buffers(2, 4, 2048);
	wire_send(f, len);
	pump();
	assert_true(vdrv_used(&d, 0, &id, &n));
	transmit(3, plain, f, len);
	/* The other direction of the same flow. */
	memcpy(f + 26, "\x0a\0\2\2\x0a\0\2\x0f", 8);
	memcpy(f + 34, "\x56\x78\x12\x34", 4);
	wire_send(f, len);
	pump();
	assert_true(vdrv_used(&d, 2, &id, &n));
	assert_false(vdrv_used(&d, 0, &id, &n));
}

/* Commands that are unknown, too short, too long, or not negotiated: an error each, and no more. */
static void bad_commands(void **state)
{
	uint8_t data[64] = { 1 };

	start(0, false);
	for (unsigned class = 0; class < 256; class += class < 8 ? 1 : 60)
		for (unsigned number = 0; number < 16; number++)
			for (unsigned len = 1; len < 20; len++) {
				uint8_t ack = control((uint8_t)class, (uint8_t)number, data, len);

				assert_true(ack <= 1);
			}
	assert_int_equal(control(3, 0, data, 1), 1);	/* nothing to acknowledge */
	assert_false(vdrv_broken(&d));
	/* A command without a place for its status. */
	vdrv_add(&d, CTRL, &(struct vseg){ headers, 3, false }, 1);
	vdrv_kick(&d, CTRL);
	assert_true(vdrv_broken(&d));
}

/* ---- Pacing and saves ---------------------------------------------------------- */

/* The wire takes nothing: buffers stay in the ring, and none is lost or sent twice over a restore. */
static void backpressure(void **state)
{
	static uint8_t f[60000], got[NET_FRAME_MAX];
	unsigned sent = 0, came = 0;
	uint16_t id;
	uint32_t len;

	start(0, false);
	for (unsigned i = 0; i < 30; i++) {
		fill_frame(f, sizeof(f), (uint8_t)i);
		vdrv_put(&d, headers, plain, 12);
		{
			uint64_t gpa = vdrv_alloc(&d, sizeof(f));

			vdrv_put(&d, gpa, f, sizeof(f));
			vdrv_add(&d, 1, (struct vseg[]){ { headers, 12, false },
							 { gpa, sizeof(f), false } }, 2);
		}
	}
	vdrv_kick(&d, 1);
	pump();
	while (vdrv_used(&d, 1, &id, &len))
		sent++;
	assert_true(sent > 0 && sent < 30);
	/* A checkpoint: the device stands, and goes on. */
	d.v->pci.dev.type->quiesce(&d.v->pci.dev);
	d.v->pci.dev.type->resume(&d.v->pci.dev);
	for (unsigned turns = 0; came < 30 && turns < 1000; turns++) {
		size_t n;

		while ((n = wire_receive(got))) {
			fill_frame(f, sizeof(f), (uint8_t)came++);
			assert_int_equal(n, sizeof(f));
			assert_memory_equal(got, f, sizeof(f));
		}
		pump();
	}
	assert_int_equal(came, 30);
	while (vdrv_used(&d, 1, &id, &len))
		sent++;
	assert_int_equal(sent, 30);
}

/* 3.1 and 2.4: a reset gives back everything; a driver that never started can be saved. */
static void resets(void **state)
{
	uint8_t f[100], got[NET_FRAME_MAX];

	vdrv_save_restore(&d);
	start(0, false);
	control(1, 1, "\x02\x00\x00\x00\x00\x77", 6);
	fill_frame(f, sizeof(f), 0);
	wire_send(f, sizeof(f));
	pump();
	vdrv_set(&d, VC_STATUS, 1, 0);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 5, 1), 0x55);
	wire_send(f, sizeof(f));
	pump();		/* before DRIVER_OK nothing is received */
	start(0, true);
	transmit(1, plain, f, sizeof(f));
	assert_int_equal(wire_receive(got), sizeof(f));
	vdrv_save_restore(&d);
	transmit(1, plain, f, sizeof(f));
	assert_int_equal(wire_receive(got), sizeof(f));
}

/* A model that no device can be in is refused by naming what is wrong. */
static void refused(void **state)
{
	const struct state_record *r = &virtio_net_record;
	struct device *dev = &d.v->pci.dev;
	struct skep_error e = { .text = "" };
	void *m = calloc(1, r->model_size);

	start(0, false);
	dev->type->quiesce(dev);
	dev->type->export(dev, m);
	assert_int_equal(dev->type->validate(dev, m, &e), 0);
	/* Features that another version of the device offers. */
	((struct virtio_model *)m)->features ^= NET_F_MTU;
	assert_true(dev->type->validate(dev, m, &e) < 0);
	((struct virtio_model *)m)->features ^= NET_F_MTU;
	dev->type->resume(dev);
	state_free(r, m);
	free(m);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TR(f) cmocka_unit_test_setup_teardown(f, setup_realtime, teardown)

/* A frame may be cut into 60000: it takes the place of many, so that others get the device lock. */
static void many_segments(void **state)
{
	static const uint8_t header[12] = { 1, NET_GSO_TCPV4, 54, 0, 1, 0, 34, 0, 16, 0 };
	static uint8_t f[60054];
	uint16_t id;
	uint32_t len;
	unsigned n = 0;

	close(wire);
	wire = -1;
	start(NET_F_CSUM | NET_F_HOST_TSO4, false);
	fill_frame(f, sizeof(f), 1);
	memset(f + 12, 0, 42);
	f[12] = 8;		/* IPv4, its length, TCP and its header's length */
	f[14] = 0x45;
	f[16] = (sizeof(f) - 14) >> 8;
	f[17] = (uint8_t)(sizeof(f) - 14);
	f[23] = 6;
	f[46] = 5 << 4;
	vdrv_put(&d, headers, header, 12);
	vdrv_put(&d, headers + 4096, f, sizeof(f));
	for (unsigned i = 0; i < 8; i++)
		vdrv_add(&d, 1, (struct vseg[]){ { headers, 12, false }, { headers + 4096, sizeof(f), false } }, 2);
	vdrv_kick(&d, 1);
	device_unlock(d.vm);
	loop_wake(d.vm);
	loop_iterate(d.vm);
	device_lock(d.vm);
	while (vdrv_used(&d, 1, &id, &len))
		n++;
	assert_int_equal(n, 1);
	pump();
	pump();
	while (vdrv_used(&d, 1, &id, &len))
		n++;
	assert_int_equal(n, 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(configuration), T(link_status), T(out_split), T(out_packed), T(checksum),
		T(segmentation), TR(segmentation), T(bad_buffers), T(merged_split), T(merged_packed),
		TR(merged_split), T(unmerged), T(waiting), TR(waiting), T(tiny_buffer), T(filters),
		T(overflow), T(vlans), T(pairs), T(bad_commands), TR(backpressure), T(resets),
		TR(resets), T(refused), TR(many_segments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
