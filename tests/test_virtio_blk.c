/*
 * virtio-blk by its rings, without a processor; what VIRTIO 1.2 section 5.2 says of it, by clause.
 * clock=virtual: an answer is seen when guest time has come to it, which the tests move by hand.
 */
#include "virtio_helper.h"

#include <fcntl.h>
#include <unistd.h>

#include "virtio/blk.h"
#include "vm/timer.h"

#define SIZE	(4u * MiB)
#define SECTORS	(SIZE / 512)

static char file[64];

static int setup(void **state)
{
	uint64_t at;
	int fd;

	strcpy(file, access("/dev/shm", W_OK) ? "/tmp/skep-blk-XXXXXX" : "/dev/shm/skep-blk-XXXXXX");
	fd = mkstemp(file);
	if (fd < 0 || ftruncate(fd, SIZE))
		return -1;
	for (at = 0; at < SECTORS; at++)
		if (pwrite(fd, &at, 8, (off_t)at * 512) != 8)
			return -1;
	return close(fd);
}

static int teardown(void **state)
{
	return unlink(file);
}

static void begin(struct vdrv *d, const char *key, const char *value)
{
	const char *keys[3][2] = { { "path", file }, { "aio", "threads" }, { key, value } };

	vdrv_begin(d, &virtio_blk_type, keys, key ? 3 : 2);
}

static struct blk *blk(struct vdrv *d)
{
	return container_of(d->v, struct blk, v);
}

/* Guest time comes to the next answer, if one waits. */
static void let_pass(struct vdrv *d)
{
	int64_t due = timers_next_due(d->vm);

	if (due == INT64_MAX)
		return;
	clock_skip_to(&d->vm->clock, due);
	timers_run(d->vm, due);
}

struct request {
	uint16_t id;
	uint64_t data, status;
	uint32_t len;
};

/* A request as drivers make it (5.2.6): header, data, status. */
static struct request submit(struct vdrv *d, unsigned queue, uint32_t type, uint64_t sector, uint32_t len,
			     bool in, bool indirect)
{
	struct blk_header h = { .type = type, .sector = sector };
	uint64_t header = vdrv_alloc(d, sizeof(h));
	struct request r = { .data = vdrv_alloc(d, len ? len : 1), .status = vdrv_alloc(d, 1), .len = len };
	struct vseg s[3] = { { header, sizeof(h), false }, { r.data, len, in }, { r.status, 1, true } };

	if (!len)
		s[1] = s[2];
	vdrv_put(d, header, &h, sizeof(h));
	vdrv_put(d, r.status, "\xff", 1);
	r.id = indirect ? vdrv_add_indirect(d, queue, s, len ? 3 : 2) : vdrv_add(d, queue, s, len ? 3 : 2);
	return r;
}

static uint8_t status_of(struct vdrv *d, const struct request *r)
{
	uint8_t s;

	vdrv_take(d, r->status, &s, 1);
	return s;
}

/* It came back, with this status. */
static void expect(struct vdrv *d, unsigned queue, const struct request *r, uint8_t status, uint32_t used)
{
	uint16_t id;
	uint32_t len;

	assert_true(vdrv_used(d, queue, &id, &len));
	assert_int_equal(id, r->id);
	assert_int_equal(len, used);
	assert_int_equal(status_of(d, r), status);
}

static uint8_t simple(struct vdrv *d, uint32_t type, uint64_t sector, const void *data, uint32_t len)
{
	struct request r = submit(d, 0, type, sector, len, false, false);
	uint16_t id;
	uint32_t n;

	if (len)
		vdrv_put(d, r.data, data, len);
	vdrv_kick(d, 0);
	let_pass(d);
	assert_true(vdrv_used(d, 0, &id, &n));
	assert_int_equal(n, 1);
	return status_of(d, &r);
}

static uint64_t on_disk(uint64_t sector)
{
	uint64_t v;
	int fd = open(file, O_RDONLY);

	assert_int_equal(pread(fd, &v, 8, (off_t)sector * 512), 8);
	close(fd);
	return v;
}

/* 5.2.3, 5.2.4, 5.2.5: what is offered, and the layout. */
static void test_config(void **state)
{
	struct vdrv d;
	uint64_t f;

	begin(&d, "sectorsize", "512/4096");
	f = vdrv_features(&d);
	assert_true(f & VIRTIO_BLK_F_FLUSH && f & VIRTIO_BLK_F_DISCARD && f & VIRTIO_BLK_F_WRITE_ZEROES);
	assert_true(f & VIRTIO_BLK_F_BLK_SIZE && f & VIRTIO_BLK_F_TOPOLOGY && f & VIRTIO_BLK_F_CONFIG_WCE);
	assert_false(f & (VIRTIO_BLK_F_RO | VIRTIO_BLK_F_MQ));
	vdrv_start(&d, 0, false, 16);
	assert_int_equal(vdrv_get(&d, V_CONFIG, 4) | vdrv_get(&d, V_CONFIG + 4, 4) << 32, SECTORS);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 8, 4), BLK_SIZE_MAX);
	assert_true(vdrv_get(&d, V_CONFIG + 12, 4) <= VIRTQ_SIZE_MAX - 2);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 20, 4), 512);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 24, 1), 3);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 32, 1), 1);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 34, 2), 1);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 36, 4), BLK_RANGE_MAX);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 56, 1), 1);
	/* Only `writeback` can be written. */
	vdrv_set(&d, V_CONFIG, 4, 77);
	vdrv_set(&d, V_CONFIG + 32, 1, 0);
	assert_int_equal(vdrv_get(&d, V_CONFIG, 4), SECTORS);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 32, 1), 0);
	/* 5.2.5.2: writeback again after a reset. */
	vdrv_set(&d, VC_STATUS, 1, 0);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 32, 1), 1);
	vdrv_end(&d);
	begin(&d, "nodelete", "true");
	assert_false(vdrv_features(&d) & VIRTIO_BLK_F_DISCARD);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 56, 1), 0);
	vdrv_end(&d);
	begin(&d, "queues", "4");
	assert_true(vdrv_features(&d) & VIRTIO_BLK_F_MQ);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 34, 2), 4);
	vdrv_end(&d);
}

static void io_with(bool packed, bool indirect, const char *key, const char *value)
{
	struct vdrv d;
	struct request r[6];
	uint64_t v[64] = { 0xabcdef };
	int64_t due;
	uint16_t id;
	uint32_t n;

	begin(&d, key, value);
	vdrv_start(&d, 0, packed, 32);
	r[0] = submit(&d, 0, VIRTIO_BLK_T_IN, 5, 1024, true, indirect);
	vdrv_kick(&d, 0);
	/* It is there, and the guest does not see it before its time, which the request alone decides. */
	assert_false(vdrv_used(&d, 0, &id, &n));
	due = timers_next_due(d.vm) - clock_now(&d.vm->clock);
	let_pass(&d);
	expect(&d, 0, &r[0], VIRTIO_BLK_S_OK, 1025);
	assert_int_equal(d.messages[1], 1);
	vdrv_take(&d, r[0].data + 512, v, 8);
	assert_int_equal(v[0], 6);
	r[0] = submit(&d, 0, VIRTIO_BLK_T_IN, 900, 1024, true, indirect);
	vdrv_kick(&d, 0);
	assert_int_equal(timers_next_due(d.vm) - clock_now(&d.vm->clock), due);
	let_pass(&d);
	expect(&d, 0, &r[0], VIRTIO_BLK_S_OK, 1025);
	/* Several at once come back in order of their due times: the shorter first. */
	r[1] = submit(&d, 0, VIRTIO_BLK_T_OUT, 8, 8192, false, indirect);
	r[2] = submit(&d, 0, VIRTIO_BLK_T_OUT, 100, 512, false, indirect);
	r[3] = submit(&d, 0, VIRTIO_BLK_T_FLUSH, 0, 0, false, indirect);
	v[0] = 0xfeed;
	vdrv_put(&d, r[2].data, v, 512);
	vdrv_kick(&d, 0);
	assert_int_equal(on_disk(100), 0xfeed);
	let_pass(&d);
	expect(&d, 0, &r[2], VIRTIO_BLK_S_OK, 1);
	assert_false(vdrv_used(&d, 0, &id, &n));
	let_pass(&d);
	expect(&d, 0, &r[1], VIRTIO_BLK_S_OK, 1);
	let_pass(&d);
	expect(&d, 0, &r[3], VIRTIO_BLK_S_OK, 1);
	assert_int_equal(on_disk(9), 0);
	assert_int_equal(timers_next_due(d.vm), INT64_MAX);
	vdrv_end(&d);
}

static void test_io(void **state)
{
	io_with(false, false, NULL, NULL);
	io_with(false, true, "nocache", "true");
	io_with(true, false, "aio", "io_uring");
	io_with(true, true, "aio", "auto");
}

/* 5.2.6.1, 5.2.6.2: what a device answers to what it cannot do. */
static void test_refusals(void **state)
{
	struct blk_range g[2] = { { 0, 8, 0 }, { 16, 8, 0 } };
	uint8_t data[1024] = { 0 };
	struct vdrv d;
	struct request r;

	begin(&d, NULL, NULL);
	vdrv_start(&d, 0, false, 64);
	assert_int_equal(simple(&d, 77, 0, NULL, 0), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_OUT, SECTORS, data, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_OUT, SECTORS - 1, data, 1024), VIRTIO_BLK_S_IOERR);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_OUT, UINT64_MAX, data, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_OUT, UINT64_MAX / 512, data, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_OUT, 0, data, 100), VIRTIO_BLK_S_IOERR);
	/* Discard: no flag may be set; write zeroes: unmap only; both within the disk and their limits. */
	assert_int_equal(simple(&d, VIRTIO_BLK_T_DISCARD, 0, g, 32), VIRTIO_BLK_S_OK);
	g[1].flags = 1;
	assert_int_equal(simple(&d, VIRTIO_BLK_T_DISCARD, 0, g, 32), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_WRITE_ZEROES, 0, g, 32), VIRTIO_BLK_S_OK);
	assert_int_equal(on_disk(17), 0);
	assert_int_equal(on_disk(24), 24);
	g[1].flags = 2;
	assert_int_equal(simple(&d, VIRTIO_BLK_T_WRITE_ZEROES, 0, g, 32), VIRTIO_BLK_S_UNSUPP);
	g[1] = (struct blk_range){ SECTORS - 4, 8, 0 };
	assert_int_equal(simple(&d, VIRTIO_BLK_T_WRITE_ZEROES, 0, g, 32), VIRTIO_BLK_S_IOERR);
	g[1] = (struct blk_range){ 0, UINT32_MAX, 0 };
	assert_int_equal(simple(&d, VIRTIO_BLK_T_WRITE_ZEROES, 0, g, 32), VIRTIO_BLK_S_IOERR);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_WRITE_ZEROES, 0, g, 31), VIRTIO_BLK_S_IOERR);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_WRITE_ZEROES, 0, NULL, 0), VIRTIO_BLK_S_IOERR);
	assert_false(vdrv_broken(&d));
	/* A header that is cut short has room for an answer and gets one. */
	r.status = vdrv_alloc(&d, 1);
	r.id = vdrv_add(&d, 0, (struct vseg[]){ { vdrv_alloc(&d, 16), 15, false }, { r.status, 1, true } }, 2);
	vdrv_kick(&d, 0);
	let_pass(&d);
	expect(&d, 0, &r, VIRTIO_BLK_S_IOERR, 1);
	/* Without room for one there is no way but 2.1.2: the device asks for a reset. */
	vdrv_add(&d, 0, (struct vseg[]){ { vdrv_alloc(&d, 16), 16, false } }, 1);
	d.v->complained = true;
	vdrv_kick(&d, 0);
	assert_true(vdrv_broken(&d));
	vdrv_save_restore(&d);
	assert_true(vdrv_broken(&d));
	vdrv_end(&d);
	/* What was not negotiated is not there. */
	begin(&d, NULL, NULL);
	vdrv_start(&d, VIRTIO_BLK_F_FLUSH, false, 64);
	g[1] = g[0];
	assert_int_equal(simple(&d, VIRTIO_BLK_T_DISCARD, 0, g, 32), VIRTIO_BLK_S_UNSUPP);
	vdrv_end(&d);
	begin(&d, "ro", "true");
	assert_true(vdrv_features(&d) & VIRTIO_BLK_F_RO);
	vdrv_start(&d, 0, false, 64);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_OUT, 0, data, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_OK);
	vdrv_end(&d);
}

static void test_id(void **state)
{
	struct vdrv d;
	struct request r;
	char id[BLK_SERIAL + 1] = "";

	begin(&d, "ser", "12345678901234567890");
	vdrv_start(&d, 0, false, 16);
	r = submit(&d, 0, VIRTIO_BLK_T_GET_ID, 0, BLK_SERIAL, true, false);
	vdrv_kick(&d, 0);
	let_pass(&d);
	expect(&d, 0, &r, VIRTIO_BLK_S_OK, BLK_SERIAL + 1);
	vdrv_take(&d, r.data, id, BLK_SERIAL);
	assert_string_equal(id, "12345678901234567890");
	r = submit(&d, 0, VIRTIO_BLK_T_GET_ID, 0, 4, true, false);
	vdrv_kick(&d, 0);
	let_pass(&d);
	expect(&d, 0, &r, VIRTIO_BLK_S_OK, 5);
	vdrv_end(&d);
}

/* ---- A host that fails ---------------------------------------------------------- */

static struct {
	struct image_ops ops;
	const struct image_ops *real;
	int fail;		/* what every write and flush gives */
	unsigned flushes, writes;
} bad;

static int bad_write(struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset)
{
	bad.writes++;
	return bad.fail ? bad.fail : bad.real->write(im, iov, niov, offset);
}

static int bad_flush(struct image *im)
{
	bad.flushes++;
	return bad.fail ? bad.fail : bad.real->flush(im);
}

static void spoil(struct vdrv *d)
{
	struct image *im = block_image(blk(d)->disk);

	memset(&bad, 0, sizeof(bad));
	bad.real = im->ops;
	bad.ops = *im->ops;
	bad.ops.write = bad_write;
	bad.ops.flush = bad_flush;
	im->ops = &bad.ops;
}

static void test_errors(void **state)
{
	uint8_t data[512] = { 0 };
	struct vdrv d;
	struct request r;

	begin(&d, NULL, NULL);
	spoil(&d);
	vdrv_start(&d, 0, false, 64);
	bad.fail = -ENOSPC;
	assert_int_equal(simple(&d, VIRTIO_BLK_T_OUT, 0, data, 512), VIRTIO_BLK_S_IOERR);
	bad.fail = 0;
	assert_int_equal(simple(&d, VIRTIO_BLK_T_OUT, 0, data, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_OK);
	/* After a flush that failed nobody may be told that his data is safe. */
	bad.fail = -EIO;
	assert_int_equal(simple(&d, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_IOERR);
	bad.fail = 0;
	assert_int_equal(simple(&d, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_IOERR);
	/* A file that became shorter under us: an error, not old bytes. */
	assert_int_equal(truncate(file, 4096), 0);
	r = submit(&d, 0, VIRTIO_BLK_T_IN, 7, 1024, true, false);
	vdrv_kick(&d, 0);
	let_pass(&d);
	expect(&d, 0, &r, VIRTIO_BLK_S_IOERR, 1);
	vdrv_end(&d);
	assert_int_equal(truncate(file, SIZE), 0);
}

/* 5.2.6.2: without a write cache that the driver knows of, a write is durable when it is answered. */
static void test_write_through(void **state)
{
	uint8_t data[512] = { 0 };
	struct vdrv d;

	begin(&d, NULL, NULL);
	spoil(&d);
	vdrv_start(&d, VIRTIO_BLK_F_BLK_SIZE, false, 64);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_OUT, 0, data, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(bad.flushes, 1);
	vdrv_start(&d, VIRTIO_BLK_F_FLUSH, false, 64);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_OUT, 0, data, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(bad.flushes, 1);
	vdrv_start(&d, VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_CONFIG_WCE, false, 64);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_OUT, 0, data, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(bad.flushes, 1);
	vdrv_set(&d, V_CONFIG + 32, 1, 0);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_OUT, 0, data, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(bad.flushes, 2);
	vdrv_end(&d);
}

/* ---- Saves ------------------------------------------------------------------------ */

static void carry(bool packed)
{
	struct request r[4];
	struct vdrv d;
	uint64_t v[64] = { 1 };
	unsigned i;
	uint16_t id;
	uint32_t n;

	/* clock=virtual: answers that wait for their time are carried, each with its own. */
	begin(&d, "queues", "2");
	vdrv_start(&d, 0, packed, 8);
	r[0] = submit(&d, 0, VIRTIO_BLK_T_IN, 1, 4096, true, false);
	r[1] = submit(&d, 1, VIRTIO_BLK_T_OUT, 300, 512, false, true);
	r[2] = submit(&d, 0, VIRTIO_BLK_T_IN, 2, 512, true, false);
	vdrv_kick(&d, 0);
	vdrv_kick(&d, 1);
	vdrv_save_restore(&d);
	let_pass(&d);
	expect(&d, 0, &r[2], VIRTIO_BLK_S_OK, 513);
	expect(&d, 1, &r[1], VIRTIO_BLK_S_OK, 1);
	assert_false(vdrv_used(&d, 0, &id, &n));
	vdrv_save_restore(&d);
	let_pass(&d);
	expect(&d, 0, &r[0], VIRTIO_BLK_S_OK, 4097);
	vdrv_take(&d, r[0].data + 512, v, 8);
	assert_int_equal(v[0], 2);
	assert_int_equal(timers_next_due(d.vm), INT64_MAX);
	/* A kick that came before the save and found no time is not forgotten; the rings go on. */
	for (i = 0; i < 20; i++)
		assert_int_equal(simple(&d, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_OK);
	vdrv_end(&d);

	/* A server that is gone: what it did not do is carried, and done once, after the restore. */
	begin(&d, NULL, NULL);
	d.vm->clock.mode = CLOCK_MODE_REALTIME;
	spoil(&d);
	vdrv_start(&d, 0, packed, 8);
	bad.fail = -ECANCELED;
	for (i = 0; i < 3; i++) {
		v[0] = 700 + 10 * i + packed;
		r[i] = submit(&d, 0, VIRTIO_BLK_T_OUT, 40 + i, 512, false, i == 1);
		vdrv_put(&d, r[i].data, v, 512);
		vdrv_kick(&d, 0);
	}
	d.v->pci.dev.type->quiesce(&d.v->pci.dev);
	assert_false(vdrv_used(&d, 0, &id, &n));
	assert_int_not_equal(on_disk(40), 700 + packed);
	assert_non_null(blk(&d)->held);
	d.v->quiesced = false;
	bad.writes = 0;
	bad.fail = 0;
	vdrv_save_restore(&d);
	d.v->pci.dev.type->quiesce(&d.v->pci.dev);
	assert_int_equal(bad.writes, 3);
	for (i = 0; i < 3; i++) {
		assert_true(vdrv_used(&d, 0, &id, &n));
		assert_int_equal(status_of(&d, &r[i]), VIRTIO_BLK_S_OK);
		assert_int_equal(on_disk(40 + i), 700 + 10 * i + packed);
	}
	assert_false(vdrv_used(&d, 0, &id, &n));
	vdrv_end(&d);
}

static void test_carry(void **state)
{
	carry(false);
	carry(true);
}

static void drop_message(struct vm *vm, uint64_t address, uint32_t data)
{
}

/* What a hostile file says of requests that wait. */
static void test_hostile_state(void **state)
{
	const struct state_record *rec = &virtio_blk_record;
	struct skep_error e = { "" };
	struct state_buf b = { 0 };
	struct vdrv d;
	struct device *dev;
	unsigned refused = 0;
	struct irq_line none[16] = { { NULL, NULL, 0 } };
	void *m;
	size_t i;

	begin(&d, NULL, NULL);
	/* Its messages go anywhere. */
	pci_connect_interrupts(d.pci, none, none, drop_message);
	vdrv_start(&d, 0, false, 8);
	submit(&d, 0, VIRTIO_BLK_T_IN, 1, 4096, true, false);
	submit(&d, 0, VIRTIO_BLK_T_IN, 1, 512, true, false);
	vdrv_kick(&d, 0);
	dev = &d.v->pci.dev;
	m = calloc(1, rec->model_size);
	dev->type->quiesce(dev);
	dev->type->export(dev, m);
	assert_int_equal(state_encode(rec, dev->name, m, rec->version, &b, &e), 0);
	state_free(rec, m);
	for (i = 0; i < b.len * 8; i++) {
		memset(m, 0, rec->model_size);
		b.data[i / 8] ^= (uint8_t)(1u << i % 8);
		if (state_decode(rec, dev->name, b.data, b.len, m, NULL, NULL, &e) == 0 &&
		    state_check(rec, dev->name, m, NULL, &e) == 0 &&
		    dev->type->validate(dev, m, &e) == 0) {
			dev->type->reset(dev);
			dev->type->commit(dev, m);
			dev->type->resume(dev);
			let_pass(&d);
			let_pass(&d);
			dev->type->quiesce(dev);
		} else {
			refused++;
		}
		b.data[i / 8] ^= (uint8_t)(1u << i % 8);
		state_free(rec, m);
	}
	assert_true(refused > 1000);
	free(m);
	state_buf_free(&b);
	vdrv_end(&d);
}

/* 2.1.2, 2.6.1: after a reset nothing of before comes back. */
static void test_reset(void **state)
{
	struct request r;
	struct vdrv d;
	uint16_t id;
	uint32_t n;

	begin(&d, NULL, NULL);
	vdrv_start(&d, 0, false, 8);
	r = submit(&d, 0, VIRTIO_BLK_T_IN, 1, 4096, true, false);
	vdrv_kick(&d, 0);
	vdrv_set(&d, VC_SELECT, 2, 0);
	vdrv_set(&d, VC_RESET, 2, 1);
	let_pass(&d);
	assert_int_equal(status_of(&d, &r), 0xff);
	vdrv_queue(&d, 0, 8);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_OK);
	submit(&d, 0, VIRTIO_BLK_T_IN, 1, 4096, true, false);
	vdrv_kick(&d, 0);
	vdrv_set(&d, VC_STATUS, 1, 0);
	assert_int_equal(timers_next_due(d.vm), INT64_MAX);
	assert_false(vdrv_used(&d, 0, &id, &n));
	vdrv_start(&d, 0, false, 8);
	assert_int_equal(simple(&d, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_OK);
	vdrv_end(&d);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_config), T(test_io), T(test_refusals), T(test_id), T(test_errors),
		T(test_write_through), T(test_carry), T(test_hostile_state), T(test_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
