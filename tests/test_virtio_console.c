/* virtio-console with its rings driven by hand (VIRTIO 1.2, 5.3), its ports Unix sockets that we hold. */
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "virtio_helper.h"
#include "virtio/console.h"
#include "vm/inputlog.h"
#include "vm/loop.h"

#define MULTIPORT	BIT(1)

static struct vdrv d;
static int port0, port2;
static uint64_t room;

static int dial(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(sa.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
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

static void begin(bool realtime)
{
	char a[64], b[64], spec[2][80];
	const char *const keys[][2] = {
		{ "port.0.path", spec[0] }, { "port.2.path", spec[1] }, { "port.2.name", "org.skep.two" },
	};

	snprintf(a, sizeof(a), "/tmp/skep-test-port0-%d", getpid());
	snprintf(b, sizeof(b), "/tmp/skep-test-port2-%d", getpid());
	snprintf(spec[0], sizeof(spec[0]), "unix=%s", a);
	snprintf(spec[1], sizeof(spec[1]), "unix=%s", b);
	vdrv_begin(&d, &virtio_console_type, keys, ARRAY_SIZE(keys));
	if (realtime)
		clock_init(&d.vm->clock, CLOCK_MODE_REALTIME);
	port0 = dial(a);
	port2 = dial(b);
	pump();
}

static int setup(void **state)
{
	begin(true);
	return 0;
}

static int setup_virtual(void **state)
{
	begin(false);
	return 0;
}

static int teardown(void **state)
{
	close(port0);
	close(port2);
	vdrv_end(&d);
	return 0;
}

static void start(uint64_t features, bool packed)
{
	vdrv_start(&d, features, packed, 16);
	room = vdrv_alloc(&d, 1 << 20);
}

static void tell(uint32_t id, uint16_t event, uint16_t value)
{
	uint64_t gpa = vdrv_alloc(&d, 8);
	uint8_t m[8];
	uint16_t i;
	uint32_t n;

	store32(m, id);
	store16(m + 4, event);
	store16(m + 6, value);
	vdrv_put(&d, gpa, m, 8);
	vdrv_add(&d, 3, &(struct vseg){ gpa, 8, false }, 1);
	vdrv_kick(&d, 3);
	assert_true(vdrv_used(&d, 3, &i, &n));
}

/* The next control message must be this one. */
static void heard(uint32_t id, uint16_t event, const char *text)
{
	uint8_t m[72] = { 0 };
	uint64_t gpa = vdrv_alloc(&d, sizeof(m));
	uint16_t i;
	uint32_t n;

	vdrv_add(&d, 2, &(struct vseg){ gpa, sizeof(m), true }, 1);
	vdrv_kick(&d, 2);
	assert_true(vdrv_used(&d, 2, &i, &n));
	assert_int_equal(n, 8 + strlen(text));
	vdrv_take(&d, gpa, m, n);
	assert_int_equal(load32(m), id);
	assert_int_equal(load16(m + 4), event);
	assert_int_equal(load16(m + 6), 1);
	assert_memory_equal(m + 8, text, strlen(text));
}

static void send_from(unsigned q, const void *data, uint32_t len)
{
	uint64_t gpa = vdrv_alloc(&d, len);

	vdrv_put(&d, gpa, data, len);
	vdrv_add(&d, q, &(struct vseg){ gpa, len, false }, 1);
	vdrv_kick(&d, q);
	pump();
}

static void expect(int fd, const char *text)
{
	char got[100] = "";

	assert_int_equal(recv(fd, got, sizeof(got), 0), strlen(text));
	assert_string_equal(got, text);
}

/* 5.3.4 */
static void configuration(void **state)
{
	assert_int_equal(vdrv_config_read(&d, PCI_DEVICE_ID, 2), 0x1043);
	assert_int_equal(vdrv_get(&d, VC_QUEUES, 2), 8);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 4, 4), 3);
	/* 5.3.6: a character before there are queues. */
	vdrv_set(&d, V_CONFIG + 8, 4, '!');
	pump();
	expect(port0, "!");
}

/* 5.3.6.2: what the device says, and in which order. */
static void control(bool packed)
{
	start(0, packed);
	tell(0, 0, 1);		/* DEVICE_READY */
	heard(0, 1, "");	/* PORT_ADD */
	heard(2, 1, "");
	tell(2, 3, 1);		/* PORT_READY */
	heard(2, 7, "org.skep.two");
	heard(2, 6, "");	/* PORT_OPEN */
	tell(0, 3, 1);
	heard(0, 4, "");	/* CONSOLE_PORT */
	vdrv_save_restore(&d);
	heard(0, 6, "");
	/* Ports that are not there, and events that are none. */
	tell(1, 3, 1);
	tell(77, 6, 1);
	tell(0xffffffff, 3, 1);
	tell(0, 999, 1);
	assert_false(vdrv_broken(&d));
}

static void control_split(void **state) { control(false); }
static void control_packed(void **state) { control(true); }

/* 5.3.6: bytes both ways, on the queues of 5.3.2. */
static void bytes(void **state)
{
	uint16_t id;
	uint32_t n;
	char got[16];

	start(0, false);
	tell(0, 6, 1);
	tell(2, 6, 1);
	send_from(1, "to zero", 7);
	expect(port0, "to zero");
	send_from(7, "to two", 6);
	expect(port2, "to two");
	vdrv_add(&d, 6, &(struct vseg){ room, 16, true }, 1);
	vdrv_kick(&d, 6);
	assert_int_equal(send(port2, "from two", 8, 0), 8);
	pump();
	assert_true(vdrv_used(&d, 6, &id, &n));
	assert_int_equal(n, 8);
	vdrv_take(&d, room, got, 8);
	assert_memory_equal(got, "from two", 8);
	/* The port in between has queues, and nobody behind them. */
	send_from(5, "nobody", 6);
	assert_false(vdrv_used(&d, 5, &id, &n));
}

/* What comes before the guest has opened a port waits for it, over a save and a restore. */
static void closed_port(void **state)
{
	uint16_t id;
	uint32_t n;

	start(0, false);
	vdrv_add(&d, 6, &(struct vseg){ room, 16, true }, 1);
	vdrv_kick(&d, 6);
	assert_int_equal(send(port2, "early", 5, 0), 5);
	pump();
	assert_false(vdrv_used(&d, 6, &id, &n));
	vdrv_save_restore(&d);
	tell(2, 6, 1);
	assert_true(vdrv_used(&d, 6, &id, &n));
	assert_int_equal(n, 5);
}

/* 5.3.3: a driver without MULTIPORT has one port, which is always open. */
static void single(void **state)
{
	uint16_t id;
	uint32_t n;

	start(vdrv_features(&d) & ~(MULTIPORT | VIRTIO_F_RING_PACKED), false);
	vdrv_add(&d, 0, &(struct vseg){ room, 16, true }, 1);
	vdrv_kick(&d, 0);
	assert_int_equal(send(port0, "x", 1, 0), 1);
	pump();
	assert_true(vdrv_used(&d, 0, &id, &n));
	send_from(1, "y", 1);
	expect(port0, "y");
	send_from(3, "\0\0\0\0\0\0\1\0", 8);
	assert_false(vdrv_used(&d, 3, &id, &n));
}

/* The host reads nothing: a long buffer goes out in part, stays, and goes on where it stood. */
static void backpressure(void **state)
{
	static uint8_t data[1 << 20], got[1 << 20];
	uint16_t id;
	uint32_t n;
	size_t at = 0;

	start(0, false);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + (i >> 12));
	vdrv_put(&d, room, data, sizeof(data));
	vdrv_add(&d, 7, &(struct vseg){ room, sizeof(data), false }, 1);
	vdrv_kick(&d, 7);
	pump();
	assert_false(vdrv_used(&d, 7, &id, &n));
	d.v->pci.dev.type->quiesce(&d.v->pci.dev);
	d.v->pci.dev.type->resume(&d.v->pci.dev);
	for (unsigned i = 0; i < 10000 && at < sizeof(got); i++) {
		ssize_t k = recv(port2, got + at, sizeof(got) - at, 0);

		at += k > 0 ? (size_t)k : 0;
		pump();
	}
	assert_int_equal(at, sizeof(got));
	assert_memory_equal(got, data, sizeof(data));
	assert_true(vdrv_used(&d, 7, &id, &n));
}

/* Buffers of no use break the device or come back; none does harm. */
static void bad_buffers(void **state)
{
	uint16_t id;
	uint32_t n;

	start(0, false);
	tell(2, 6, 1);
	send_from(3, "abc", 3);		/* less than a message */
	assert_true(vdrv_used(&d, 3, &id, &n));
	vdrv_add(&d, 7, &(struct vseg){ room, 100, true }, 1);
	vdrv_kick(&d, 7);
	assert_true(vdrv_used(&d, 7, &id, &n));
	assert_false(vdrv_broken(&d));
	vdrv_add(&d, 6, &(struct vseg){ room, 100, false }, 1);
	vdrv_kick(&d, 6);
	assert_int_equal(send(port2, "x", 1, 0), 1);
	pump();
	assert_true(vdrv_broken(&d));
	/* A control message that does not fit. */
	start(0, false);
	vdrv_add(&d, 2, &(struct vseg){ room, 7, true }, 1);
	vdrv_kick(&d, 2);
	tell(0, 0, 1);
	assert_true(vdrv_broken(&d));
}

/* Never negotiated, reset, saved: all of it is fine. */
static void resets(void **state)
{
	vdrv_save_restore(&d);
	start(0, false);
	tell(0, 0, 1);
	vdrv_set(&d, VC_STATUS, 1, 0);
	vdrv_save_restore(&d);
	start(0, true);
	tell(0, 0, 1);
	heard(0, 1, "");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TV(f) cmocka_unit_test_setup_teardown(f, setup_virtual, teardown)

/* Buffers may be as large as the guest likes, and nobody may be there who would slow it down. */
static void much_at_once(void **state)
{
	struct vseg s[16];
	uint16_t id;
	uint32_t len;
	unsigned turns = 0;

	start(0, false);
	close(port0);
	pump();
	for (unsigned i = 0; i < ARRAY_SIZE(s); i++)
		s[i] = (struct vseg){ 1 * MiB, 4 * MiB, false };
	vdrv_add(&d, 1, s, ARRAY_SIZE(s));
	vdrv_kick(&d, 1);
	/* The device lock was for others in between. */
	while (!vdrv_used(&d, 1, &id, &len) && turns++ < 1000)
		pump();
	assert_in_range(turns, 2, 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(configuration), T(control_split), T(control_packed), T(bytes), TV(bytes),
		T(closed_port), TV(closed_port), T(single), T(backpressure), T(bad_buffers), T(resets),
		T(much_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
