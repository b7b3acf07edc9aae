/* virtio-vsock with its rings driven by hand (VIRTIO 1.2, 5.10), the host's sockets held by the test. */
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "virtio_helper.h"
#include "virtio/vsock.h"
#include "vm/inputlog.h"
#include "vm/loop.h"

#define CID	7u
#define ALLOC	(64u * 1024)

static struct vdrv d;
static char path[64];
static int listener = -1;

static int listen_at(const char *at)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(sa.sun_path, at);
	unlink(at);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 200), 0);
	return fd;
}

static int dial(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(sa.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void pump(void)
{
	struct input_point now = { 0, 0 };

	for (unsigned i = 0; i < 4; i++) {
		device_unlock(d.vm);
		loop_wake(d.vm);
		loop_iterate(d.vm);
		device_lock(d.vm);
		input_log_deliver(d.vm, &now);
	}
}

static int setup(void **state)
{
	const char *const keys[][2] = { { "path", path }, { "cid", "7" } };
	char at[80];

	snprintf(path, sizeof(path), "/tmp/skep-test-vsock-%d", getpid());
	snprintf(at, sizeof(at), "%s_80", path);
	listener = listen_at(at);
	vdrv_begin(&d, &virtio_vsock_type, keys, ARRAY_SIZE(keys));
	return 0;
}

static int teardown(void **state)
{
	struct stat st;
	char at[80];

	snprintf(at, sizeof(at), "%s_80", path);
	unlink(at);
	close(listener);
	vdrv_end(&d);
	assert_int_equal(lstat(path, &st), -1);
	return 0;
}

struct packet {
	uint64_t src, dst;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

/* Buffers come back in the order in which they were given. */
static uint64_t rx[1024];
static unsigned rx_given, rx_heard;

static void give_buffers(unsigned n)
{
	while (n--) {
		uint64_t at = rx[rx_given++ % 1024] = vdrv_alloc(&d, 8192);

		vdrv_add(&d, 0, (struct vseg[]){ { at, 44, true }, { at + 4096, 4096, true } }, 2);
	}
	vdrv_kick(&d, 0);
}

static void start(bool packed, unsigned buffers)
{
	vdrv_start(&d, 0, packed, 128);
	rx_given = rx_heard = 0;
	give_buffers(buffers);
}

/* A packet from the guest. */
static void say(struct packet p, const void *data)
{
	uint64_t gpa = vdrv_alloc(&d, 44 + (p.len < 1 << 20 ? p.len : 0));
	uint16_t id;
	uint32_t n;

	p.type = p.type ? p.type : 1;
	p.src = p.src ? p.src : CID;
	p.dst = p.dst ? p.dst : 2;
	p.buf_alloc = ALLOC;
	vdrv_put(&d, gpa, &p, 44);
	if (data)
		vdrv_put(&d, gpa + 44, data, p.len);
	vdrv_add(&d, 1, &(struct vseg){ gpa, 44 + (data ? p.len : 0), false }, 1);
	vdrv_kick(&d, 1);
	assert_true(vdrv_used(&d, 1, &id, &n));
	pump();
}

/* The next packet for the guest; false: there is none. */
static bool hear(struct packet *p, void *data)
{
	uint16_t id;
	uint32_t n;
	uint64_t at;

	if (!vdrv_used(&d, 0, &id, &n))
		return false;
	at = rx[rx_heard++ % 1024];
	vdrv_take(&d, at, p, 44);
	assert_int_equal(n, 44 + p->len);
	assert_int_equal(p->src, 2);
	assert_int_equal(p->dst, CID);
	if (p->len)
		vdrv_take(&d, at + 4096, data, p->len);
	return true;
}

static void expect(enum vsock_op op, uint32_t host, uint32_t guest, struct packet *p)
{
	static uint8_t data[4096];

	if (!hear(p, data))
		fail_msg("no packet where operation %d was due", op);
	assert_int_equal(p->op, op);
	assert_int_equal(p->src_port, host);
	assert_int_equal(p->dst_port, guest);
}

/* 5.10.4 and 5.10.2 */
static void configuration(void **state)
{
	assert_int_equal(vdrv_config_read(&d, PCI_DEVICE_ID, 2), 0x1053);
	assert_int_equal(vdrv_get(&d, VC_QUEUES, 2), 3);
	assert_int_equal(vdrv_get(&d, V_CONFIG, 4), CID);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 4, 4), 0);
}

static int guest_connects(uint32_t port)
{
	struct packet p;
	int fd;

	say((struct packet){ .src_port = port, .dst_port = 80, .op = VSOCK_REQUEST }, NULL);
	expect(VSOCK_RESPONSE, 80, port, &p);
	assert_true(p.buf_alloc > 0);
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	assert_true(fd >= 0);
	return fd;
}

/* 5.10.6.5: from the guest to the host; data both ways; 5.10.6.6: the end. */
static void from_guest(bool packed)
{
	struct packet p;
	char got[16];
	int fd;

	start(packed, 20);
	fd = guest_connects(1000);
	say((struct packet){ .src_port = 1000, .dst_port = 80, .op = VSOCK_RW, .len = 5 }, "hello");
	assert_int_equal(recv(fd, got, sizeof(got), 0), 5);
	assert_memory_equal(got, "hello", 5);
	assert_int_equal(send(fd, "world", 5, 0), 5);
	pump();
	expect(VSOCK_RW, 80, 1000, &p);
	assert_int_equal(p.len, 5);
	assert_int_equal(p.fwd_cnt, 5);
	say((struct packet){ .src_port = 1000, .dst_port = 80, .op = VSOCK_SHUTDOWN, .flags = 3 }, NULL);
	expect(VSOCK_RST, 80, 1000, &p);
	assert_int_equal(recv(fd, got, sizeof(got), 0), 0);
	assert_false(hear(&p, NULL));
	close(fd);
}

static void from_guest_split(void **state) { from_guest(false); }
static void from_guest_packed(void **state) { from_guest(true); }

/* "CONNECT port": the host's way in. */
static void from_host(void **state)
{
	struct packet p;
	char got[64] = "", want[64];
	uint32_t port;
	int fd = dial(), left = -1;

	start(false, 20);
	assert_int_equal(send(fd, "CONN", 4, 0), 4);
	pump();
	/* It is taken, or the loop would be told of it again and again. */
	assert_int_equal(ioctl(fd, SIOCOUTQ, &left), 0);
	assert_int_equal(left, 0);
	assert_int_equal(send(fd, "ECT 22\nearly", 12, 0), 12);
	pump();
	assert_true(hear(&p, NULL));
	assert_int_equal(p.op, VSOCK_REQUEST);
	assert_int_equal(p.dst_port, 22);
	port = p.src_port;
	say((struct packet){ .src_port = 22, .dst_port = port, .op = VSOCK_RESPONSE }, NULL);
	snprintf(want, sizeof(want), "OK %u\n", port);
	assert_int_equal(recv(fd, got, sizeof(got), 0), strlen(want));
	assert_string_equal(got, want);
	expect(VSOCK_RW, port, 22, &p);
	assert_int_equal(p.len, 5);
	/* The host sends no more, and then nothing at all. */
	shutdown(fd, SHUT_WR);
	pump();
	expect(VSOCK_SHUTDOWN, port, 22, &p);
	assert_int_equal(p.flags, VSOCK_NO_SEND);
	say((struct packet){ .src_port = 22, .dst_port = port, .op = VSOCK_RW, .len = 3 }, "bye");
	assert_int_equal(recv(fd, got, sizeof(got), 0), 3);
	say((struct packet){ .src_port = 22, .dst_port = port, .op = VSOCK_RST }, NULL);
	assert_int_equal(recv(fd, got, sizeof(got), 0), 0);
	close(fd);
}

/* A refusal, and lines that say no port. */
static void refused(void **state)
{
	static const char *const lines[] = { "HELLO\n", "CONNECT \n", "CONNECT x\n", "CONNECT 1 2\n",
		"CONNECT 99999999999\n", "CONNECT -1\n", "CONNECT 000000000000000000000000000000001\n" };
	struct packet p;
	char c;
	int fd;

	start(false, 20);
	for (unsigned i = 0; i < ARRAY_SIZE(lines); i++) {
		fd = dial();
		pump();
		assert_true(send(fd, lines[i], strlen(lines[i]), 0) > 0);
		pump();
		/* What it did not read makes it a reset and not an end. */
		errno = 0;
		assert_true(recv(fd, &c, 1, 0) <= 0 && errno != EAGAIN);
		assert_false(hear(&p, NULL));
		close(fd);
	}
	fd = dial();
	assert_true(send(fd, "CONNECT 5\n", 10, 0) > 0);
	pump();
	assert_true(hear(&p, NULL));
	say((struct packet){ .src_port = 5, .dst_port = p.src_port, .op = VSOCK_RST }, NULL);
	assert_int_equal(recv(fd, &c, 1, 0), 0);
	close(fd);
	/* Nobody listens there. */
	say((struct packet){ .src_port = 1, .dst_port = 81, .op = VSOCK_REQUEST }, NULL);
	expect(VSOCK_RST, 81, 1, &p);
}

/* 5.10.6: what belongs to no connection is refused, what is not ours is dropped. */
static void strays(void **state)
{
	struct packet p;

	start(false, 40);
	for (uint16_t op = 0; op < 20; op++) {
		if (op == VSOCK_REQUEST || op == VSOCK_RST)
			continue;
		say((struct packet){ .src_port = 9, .dst_port = 80, .op = op }, NULL);
		expect(VSOCK_RST, 80, 9, &p);
	}
	say((struct packet){ .src_port = 9, .dst_port = 80, .op = VSOCK_RST }, NULL);
	say((struct packet){ .src_port = 9, .dst_port = 80, .op = VSOCK_REQUEST, .type = 2 }, NULL);
	expect(VSOCK_RST, 80, 9, &p);
	say((struct packet){ .src = 99, .src_port = 9, .dst_port = 80, .op = VSOCK_RW }, NULL);
	say((struct packet){ .dst = 99, .src_port = 9, .dst_port = 80, .op = VSOCK_RW }, NULL);
	say((struct packet){ .src_port = 9, .dst_port = 80, .op = VSOCK_RW, .len = 100 }, NULL);
	say((struct packet){ .src_port = 9, .dst_port = 80, .op = VSOCK_RW, .len = 0xffffffff }, NULL);
	assert_false(hear(&p, NULL));
	assert_false(vdrv_broken(&d));
}

/* 5.10.6.3: neither side sends more than the other has room for; a guest that does is cut off. */
static void credit(void **state)
{
	static uint8_t data[65536], junk[1 << 20];
	struct packet p;
	size_t came = 0, sent = 0;
	int fd, again;

	start(false, 40);
	fd = guest_connects(1);
	/* The guest has told 64 KiB, and reads nothing: no more than that comes. */
	while (sent < 200000) {
		ssize_t n = send(fd, junk, 50000, 0);

		sent += n > 0 ? (size_t)n : 0;
		pump();
		if (n < 0)
			break;
	}
	while (hear(&p, data))
		came += p.len;
	assert_int_equal(came, ALLOC);
	close(fd);
	say((struct packet){ .src_port = 1, .dst_port = 80, .op = VSOCK_RST }, NULL);
	/* The host reads nothing: what the guest sends beyond its credit ends the connection. */
	give_buffers(30);
	again = guest_connects(2);
	for (unsigned i = 0; i < 20; i++)
		say((struct packet){ .src_port = 2, .dst_port = 80, .op = VSOCK_RW, .len = 65536 }, data);
	do
		assert_true(hear(&p, data));
	while (p.op == VSOCK_CREDIT_UPDATE);
	assert_int_equal(p.op, VSOCK_RST);
	close(again);
}

/* 5.10.6.3: a credit request is answered. */
static void credit_request(void **state)
{
	struct packet p;
	int fd;

	start(false, 10);
	fd = guest_connects(1);
	say((struct packet){ .src_port = 1, .dst_port = 80, .op = VSOCK_CREDIT_REQUEST }, NULL);
	expect(VSOCK_CREDIT_UPDATE, 80, 1, &p);
	assert_true(p.buf_alloc >= 65536);
	close(fd);
}

/* A guest that opens connections without end gets so many, and we stay alive. */
static void flood(void **state)
{
	struct packet p;
	unsigned accepted = 0, refusals = 0;

	start(false, 60);
	for (uint32_t i = 0; i < 400; i++) {
		int fd;

		say((struct packet){ .src_port = 5000 + i, .dst_port = 80, .op = VSOCK_REQUEST }, NULL);
		for (; hear(&p, NULL); give_buffers(1)) {
			accepted += p.op == VSOCK_RESPONSE;
			refusals += p.op == VSOCK_RST;
		}
		fd = accept4(listener, NULL, NULL, 0);
		if (fd >= 0)
			close(fd);
	}
	assert_int_equal(accepted + refusals, 400);
	assert_true(accepted >= 100 && refusals >= 100);
}

/* 5.10.6.1: without receive buffers the guest's own packets wait, and nothing is lost. */
static void no_buffers(void **state)
{
	unsigned taken = 0, answered = 0;
	struct packet p = { CID, 2, 1, 81, 0, 1, VSOCK_REQUEST, 0, ALLOC, 0 };
	uint16_t id;
	uint32_t n;

	start(false, 0);
	for (unsigned i = 0; i < 100; i++) {
		uint64_t gpa = vdrv_alloc(&d, 44);

		p.src_port = i;
		vdrv_put(&d, gpa, &p, 44);
		vdrv_add(&d, 1, &(struct vseg){ gpa, 44, false }, 1);
		vdrv_kick(&d, 1);
		pump();
	}
	while (vdrv_used(&d, 1, &id, &n))
		taken++;
	assert_true(taken < 100);
	vdrv_save_restore(&d);
	for (unsigned i = 0; i < 10; i++) {
		give_buffers(10);
		pump();
		while (hear(&p, NULL)) {
			assert_int_equal(p.op, VSOCK_RST);
			assert_int_equal(p.dst_port, answered++);
		}
	}
	assert_int_equal(answered, 100);
}

/* A buffer smaller than the packet takes a part of it; one without room for a header is a fault. */
static void small_buffers(void **state)
{
	uint8_t got[60];
	struct packet p;
	uint64_t gpa;
	uint16_t id;
	uint32_t n;
	int fd;

	start(false, 1);
	fd = guest_connects(1);
	gpa = vdrv_alloc(&d, 4096);
	for (unsigned i = 0; i < 3; i++)
		vdrv_add(&d, 0, &(struct vseg){ gpa + 60 * i, 60, true }, 1);
	vdrv_kick(&d, 0);
	assert_int_equal(send(fd, "0123456789abcdefghijklmnopqrstuvwxyz", 36, 0), 36);
	pump();
	for (unsigned i = 0; i < 3; i++) {
		assert_true(vdrv_used(&d, 0, &id, &n));
		assert_int_equal(n, i < 2 ? 60 : 48);
		vdrv_take(&d, gpa + 60 * i, got, n);
		memcpy(&p, got, 44);
		assert_int_equal(p.len, n - 44);
		assert_memory_equal(got + 44, &"0123456789abcdefghijklmnopqrstuvwxyz"[16 * i], p.len);
	}
	vdrv_add(&d, 0, &(struct vseg){ gpa, 43, true }, 1);
	vdrv_kick(&d, 0);
	assert_int_equal(send(fd, "x", 1, 0), 1);
	pump();
	assert_true(vdrv_broken(&d));
	close(fd);
}

/* 5.10.6.7: a restored machine has no connections, and its driver hears of it; a checkpoint changes nothing. */
static void transport_reset(void **state)
{
	struct packet p;
	uint64_t gpa;
	uint32_t event = 77, n;
	uint16_t id;
	char got[8];
	int fd;

	start(false, 20);
	gpa = vdrv_alloc(&d, 4);
	vdrv_add(&d, 2, &(struct vseg){ gpa, 4, true }, 1);
	vdrv_kick(&d, 2);
	vdrv_save_restore(&d);
	assert_false(vdrv_used(&d, 2, &id, &n));	/* there was nothing to lose */
	fd = guest_connects(1);
	d.v->pci.dev.type->quiesce(&d.v->pci.dev);
	assert_int_equal(send(fd, "x", 1, 0), 1);
	pump();
	assert_false(hear(&p, NULL));
	d.v->pci.dev.type->resume(&d.v->pci.dev);
	pump();
	expect(VSOCK_RW, 80, 1, &p);
	/* Now in another process: the export says that there was a connection, the commit has none. */
	{
		const struct state_record *r = d.v->pci.dev.type->state;
		void *m = calloc(1, r->model_size);
		struct device *dev = &d.v->pci.dev;

		dev->type->quiesce(dev);
		dev->type->export(dev, m);
		dev->type->reset(dev);
		dev->type->commit(dev, m);
		dev->type->resume(dev);
		state_free(r, m);
		free(m);
	}
	assert_true(vdrv_used(&d, 2, &id, &n));
	assert_int_equal(n, 4);
	vdrv_take(&d, gpa, &event, 4);
	assert_int_equal(event, 0);
	assert_int_equal(recv(fd, got, sizeof(got), 0), 0);
	close(fd);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(configuration), T(from_guest_split), T(from_guest_packed), T(from_host), T(refused),
		T(strays), T(credit), T(credit_request), T(flood), T(no_buffers), T(small_buffers),
		T(transport_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
