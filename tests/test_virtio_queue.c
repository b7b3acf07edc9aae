/* Virtqueues, split and packed, driven directly: VIRTIO 1.2, sections 2.7 and 2.8. */
#include "virtio_helper.h"

#include "vm/loop.h"

#define QUEUES	2
#define ROOM	300

/* A device that copies what it may read to where it may write, or keeps what it gets. */
struct echo {
	struct virtio v;
	bool hold, endless;
	unsigned notified, nheld, popped;
	struct virtq_chain held[8];
	struct virtq_chain last;
};

struct echo_model {
	struct virtio_model virtio;
};

static struct vdrv d;

static struct echo *echo(void)
{
	return container_of(d.v, struct echo, v);
}

static int echo_init(struct virtio *v, struct skep_error *e)
{
	for (unsigned i = 0; i < QUEUES; i++)
		if (virtio_add_queue(v, 256, e))
			return -1;
	return 0;
}

static void answer(struct virtqueue *q, const struct virtq_chain *c)
{
	uint8_t buf[ROOM];
	size_t n = virtq_read(q, c, 0, buf, sizeof(buf));

	virtq_fill(q, c, (uint32_t)virtq_write(q, c, 0, buf, n));
}

static void echo_notify(struct virtio *v, struct virtqueue *q)
{
	struct echo *t = container_of(v, struct echo, v);
	struct virtq_chain c;

	t->notified++;
	while (virtq_pop(q, &c) > 0) {
		t->last = c;
		if (t->hold) {
			assert_true(t->nheld < ARRAY_SIZE(t->held));
			t->held[t->nheld++] = t->last;
			continue;
		}
		answer(q, &t->last);
		virtq_flush(q);
		if (t->endless)
			vdrv_add(&d, 0, &(struct vseg){ VDRV_HEAP, 8, true }, 1);
		t->popped++;
	}
	virtq_signal(q);
}

static void echo_queue_reset(struct virtio *v, struct virtqueue *q)
{
}

static const struct state_field echo_fields[] = { VIRTIO_STATE(struct echo_model) };
static const struct state_record echo_record = {
	.kind = "echo", .version = 1, .model_size = sizeof(struct echo_model),
	.fields = echo_fields, .nfields = ARRAY_SIZE(echo_fields),
};
static const struct config_schema no_keys;
static const struct virtio_type echo_type = {
	VIRTIO_DEVICE("echo", "copies", 63, 0x00ff00, struct echo, no_keys, echo_record),
	.init = echo_init,
	.notify = echo_notify,
	.queue_reset = echo_queue_reset,
};

static int begin(void **state)
{
	vdrv_begin(&d, &echo_type, NULL, 0);
	return 0;
}

static int end(void **state)
{
	vdrv_end(&d);
	return 0;
}

static void start(bool packed, uint16_t places)
{
	vdrv_start(&d, 0, packed, places);
}

/* One buffer there and back. */
static void exchange(unsigned n, uint8_t with, bool indirect)
{
	uint64_t from = vdrv_alloc(&d, 256), to = vdrv_alloc(&d, 256);
	struct vseg s[] = { { from, 100, false }, { from + 100, 100, false }, { to, 50, true },
			    { to + 50, 200, true } };
	uint8_t text[200], got[250];
	uint16_t id, want;
	uint32_t len;

	memset(text, with, sizeof(text));
	vdrv_put(&d, from, text, sizeof(text));
	want = indirect ? vdrv_add_indirect(&d, n, s, 4) : vdrv_add(&d, n, s, 4);
	vdrv_kick(&d, n);
	assert_false(vdrv_broken(&d));
	assert_true(vdrv_used(&d, n, &id, &len));
	assert_int_equal(id, want);
	assert_int_equal(len, 200);
	vdrv_take(&d, to, got, sizeof(got));
	assert_memory_equal(got, text, 200);
	for (unsigned i = 200; i < 250; i++)
		assert_int_equal(got[i], 0);
	assert_false(vdrv_used(&d, n, &id, &len));
	d.heap = VDRV_HEAP + 0x100000;	/* used again */
}

static void round_and_round(bool packed, uint16_t places)
{
	start(packed, places);
	d.heap = VDRV_HEAP + 0x100000;
	for (unsigned i = 0; i < 3 * 256u; i++) {
		exchange(i % QUEUES, (uint8_t)i, i % 3 == 0);
		if (i % 61 == 0)
			vdrv_save_restore(&d);
	}
}

static void split_goes_round(void **state) { round_and_round(false, 16); }
static void packed_goes_round(void **state) { round_and_round(true, 16); }
static void packed_sizes_are_any(void **state) { round_and_round(true, 7); }
static void whole_size(void **state) { round_and_round(false, 256); }

/* 2.7.13, 2.8.9: the index passes 65535. */
static void index_wraps(void **state)
{
	uint64_t from;
	uint16_t id;
	uint32_t len;

	start(false, 4);
	from = vdrv_alloc(&d, 16);
	for (unsigned i = 0; i < 70000; i++) {
		vdrv_add(&d, 0, &(struct vseg){ from, 16, true }, 1);
		if (i % 3 == 2)
			vdrv_kick(&d, 0);
		while (vdrv_used(&d, 0, &id, &len))
			;
	}
	assert_false(vdrv_broken(&d));
	assert_true(d.v->queue[0].avail > 4000 && d.v->queue[0].avail < 5000);
}

/* ---- Malformed chains ---------------------------------------------------- */

/* The device asked for a reset, says so by interrupt, gives nothing back, and works after a reset. */
static void breaks(unsigned n)
{
	bool packed = d.packed;
	unsigned messages = d.messages[0];
	uint16_t id, size = d.q[n].size;
	uint32_t len;

	vdrv_kick(&d, n);
	assert_true(vdrv_broken(&d));
	assert_int_equal(d.messages[0], messages + 1);
	assert_false(vdrv_used(&d, n, &id, &len));
	vdrv_kick(&d, n);
	assert_false(vdrv_used(&d, n, &id, &len));
	/* The state of a broken device can be saved. */
	vdrv_save_restore(&d);
	assert_true(vdrv_broken(&d));
	start(packed, size);
	exchange(n, 0x5a, false);
}

static const struct { uint64_t gpa; uint32_t len; } bad_places[] = {
	{ TEST_RAM, 1 },			/* behind RAM */
	{ TEST_RAM - 1, 2 },			/* across its end */
	{ 0x9ffff, 2 },				/* into video memory */
	{ 0xa0000, 4096 },
	{ UINT64_MAX, 1 }, { UINT64_MAX - 5, 6 }, { UINT64_MAX - 5, 0xffffffff },
	{ 0xffff0000, 16 },			/* where ROM would be */
	{ 0xc0000000, 4 },			/* a BAR: of the device itself */
	{ 0, 0xffffffff }, { 0x100000, 0x80000000 },
};

static void addresses(bool packed)
{
	for (unsigned i = 0; i < ARRAY_SIZE(bad_places); i++)
		for (unsigned indirect = 0; indirect < 2; indirect++)
			for (unsigned write = 0; write < 2; write++) {
				struct vseg s[2];

				d.heap = VDRV_HEAP;
				start(packed, 8);
				s[0] = (struct vseg){ vdrv_alloc(&d, 64), 64, false };
				s[1] = (struct vseg){ bad_places[i].gpa, bad_places[i].len, write };
				if (indirect)
					vdrv_add_indirect(&d, 0, s, 2);
				else
					vdrv_add(&d, 0, s, 2);
				breaks(0);
			}
}

static void split_addresses(void **state) { addresses(false); }
static void packed_addresses(void **state) { addresses(true); }

/* 2.7.4.2, 2.8: a readable part behind a writable one. */
static void order(bool packed)
{
	struct vseg s[2];

	start(packed, 8);
	s[0] = (struct vseg){ vdrv_alloc(&d, 64), 64, true };
	s[1] = (struct vseg){ vdrv_alloc(&d, 64), 64, false };
	vdrv_add(&d, 0, s, 2);
	breaks(0);
}

static void split_order(void **state) { order(false); }
static void packed_order(void **state) { order(true); }

/* As many segments as there are places, 3.75 GiB of them: this is allowed. */
static void much(bool packed)
{
	static struct vseg s[VIRTQ_SIZE_MAX];
	uint16_t id;
	uint32_t len;

	start(packed, 256);
	for (unsigned i = 0; i < 256; i++)
		s[i] = (struct vseg){ 1 * MiB, 15 * MiB, false };
	vdrv_add(&d, 0, s, 256);
	vdrv_kick(&d, 0);
	assert_false(vdrv_broken(&d));
	assert_int_equal(echo()->last.nreadable, 256);
	assert_int_equal(echo()->last.readable, 256 * 15 * MiB);
	assert_true(vdrv_used(&d, 0, &id, &len));
}

static void split_much(void **state) { much(false); }
static void packed_much(void **state) { much(true); }

/* A driver that makes a place available again before the device has used it: no more than there are. */
static void more_than_there_are(bool packed)
{
	struct vseg s = { VDRV_HEAP, 8, true };

	start(packed, 8);
	echo()->hold = true;
	for (unsigned i = 0; i < 8; i++) {
		vdrv_add(&d, 0, &s, 1);
		vdrv_kick(&d, 0);
	}
	assert_int_equal(echo()->nheld, 8);
	assert_false(vdrv_broken(&d));
	vdrv_add(&d, 0, &s, 1);
	vdrv_kick(&d, 0);
	assert_int_equal(echo()->nheld, 8);
	assert_true(vdrv_broken(&d));
}

static void split_more_than_there_are(void **state) { more_than_there_are(false); }
static void packed_more_than_there_are(void **state) { more_than_there_are(true); }

/* Nothing in them, wherever they point: they count as places, not as segments. */
static void empty_segments(bool packed)
{
	uint16_t id;
	uint32_t len;
	struct vseg s[3];

	start(packed, 8);
	s[0] = (struct vseg){ UINT64_MAX, 0, false };
	s[1] = (struct vseg){ vdrv_alloc(&d, 64), 64, false };
	s[2] = (struct vseg){ 0xa0000, 0, true };
	vdrv_add(&d, 0, s, 3);
	vdrv_kick(&d, 0);
	assert_false(vdrv_broken(&d));
	assert_int_equal(echo()->last.nreadable, 1);
	assert_int_equal(echo()->last.nwritable, 0);
	assert_true(vdrv_used(&d, 0, &id, &len));
	assert_int_equal(len, 0);
}

static void split_empty(void **state) { empty_segments(false); }
static void packed_empty(void **state) { empty_segments(true); }

/* 2.7.5.3.1 and friends. */
static void split_loops(void **state)
{
	uint64_t page;

	for (unsigned length = 1; length <= 8; length++) {
		d.heap = VDRV_HEAP;
		start(false, 8);
		page = vdrv_alloc(&d, 64);
		for (unsigned i = 0; i < length; i++)
			vdrv_desc(&d, 0, i, page, 4, DESC_NEXT, (uint16_t)((i + 1) % length));
		vdrv_offer(&d, 0, 0);
		breaks(0);
	}
}

static void split_next_is_outside(void **state)
{
	static const uint16_t outside[] = { 8, 9, 255, 256, 0x7fff, 0xffff };
	uint64_t page;

	for (unsigned i = 0; i < ARRAY_SIZE(outside); i++) {
		d.heap = VDRV_HEAP;
		start(false, 8);
		page = vdrv_alloc(&d, 64);
		vdrv_desc(&d, 0, 0, page, 4, DESC_NEXT, outside[i]);
		vdrv_offer(&d, 0, 0);
		breaks(0);
		vdrv_set(&d, VC_STATUS, 1, 0);
		d.heap = VDRV_HEAP;
		start(false, 8);
		vdrv_offer(&d, 0, outside[i]);
		breaks(0);
	}
}

/* The index of available buffers jumps: more of them than the queue has places. */
static void split_index_jumps(void **state)
{
	static const uint16_t jump[] = { 9, 10, 256, 0x7fff, 0x8000, 0xffff };

	for (unsigned i = 0; i < ARRAY_SIZE(jump); i++) {
		d.heap = VDRV_HEAP;
		start(false, 8);
		vdrv_put16(&d, d.q[0].driver + 2, jump[i]);
		breaks(0);
	}
	/* With some in flight there is room for fewer. */
	start(false, 8);
	echo()->hold = true;
	for (unsigned i = 0; i < 4; i++)
		vdrv_add(&d, 0, &(struct vseg){ 0x100000, 4, false }, 1);
	vdrv_kick(&d, 0);
	assert_int_equal(echo()->nheld, 4);
	vdrv_put16(&d, d.q[0].driver + 2, 4 + 5);
	vdrv_kick(&d, 0);
	assert_true(vdrv_broken(&d));
}

struct table_case {
	uint32_t len;
	uint16_t flags;
	bool good;
};

/* 2.7.5.3, 2.8.7. */
static void tables(bool packed)
{
	const struct table_case cases[] = {
		{ 16, DESC_INDIRECT, true },
		{ 32, DESC_INDIRECT, true },
		{ 16, DESC_INDIRECT | DESC_WRITE, true },	/* the flag is ignored there */
		{ 16, DESC_INDIRECT | DESC_NEXT, false },
		{ 0, DESC_INDIRECT, false },
		{ 15, DESC_INDIRECT, false },
		{ 17, DESC_INDIRECT, false },
		{ 0xfffffff0, DESC_INDIRECT, false },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t table;
		struct packed_desc e = { VDRV_HEAP + 0x80000, 4, 0, 0 };

		d.heap = VDRV_HEAP;
		start(packed, 8);
		table = vdrv_alloc(&d, 64);
		vdrv_put(&d, table, packed ? (void *)&e : (void *)&(struct split_desc){ e.gpa, 4, 0, 0 }, 16);
		vdrv_put(&d, table + 16, packed ? (void *)&e : (void *)&(struct split_desc){ e.gpa, 4, 0, 0 }, 16);
		if (packed) {
			vdrv_place(&d, 0, d.q[0].avail, (struct packed_desc){ table, cases[i].len, 0,
									     cases[i].flags });
			d.q[0].avail = vdrv_advance(&d.q[0], d.q[0].avail, 1);
			d.q[0].places[0] = 1;
		} else {
			vdrv_desc(&d, 0, 0, table, cases[i].len, cases[i].flags, 1);
			vdrv_offer(&d, 0, 0);
		}
		if (!cases[i].good) {
			breaks(0);
			continue;
		}
		vdrv_kick(&d, 0);
		assert_false(vdrv_broken(&d));
	}
}

static void split_tables(void **state) { tables(false); }
static void packed_tables(void **state) { tables(true); }

/* A table in a table; one where none was agreed on; one that is no RAM. */
static void table_rules(bool packed)
{
	uint16_t flags = DESC_INDIRECT;
	uint64_t table;

	for (unsigned kind = 0; kind < 3; kind++) {
		struct packed_desc p;
		struct split_desc s;

		d.heap = VDRV_HEAP;
		vdrv_start(&d, kind == 1 ? VIRTIO_F_VERSION_1 : 0, packed, 8);
		table = kind == 2 ? 0xa0000 : vdrv_alloc(&d, 64);
		p = (struct packed_desc){ table, 16, 0, kind ? 0 : flags };
		s = (struct split_desc){ table, 16, kind ? 0 : flags, 0 };
		if (kind != 2)
			vdrv_put(&d, table, packed ? (void *)&p : (void *)&s, 16);
		if (packed)
			vdrv_place(&d, 0, d.q[0].avail, (struct packed_desc){ table, 16, 0, flags });
		else
			vdrv_desc(&d, 0, 0, table, 16, flags, 0);
		if (!packed)
			vdrv_offer(&d, 0, 0);
		breaks(0);
	}
}

static void split_table_rules(void **state) { table_rules(false); }
static void packed_table_rules(void **state) { table_rules(true); }

/* A table may be longer than the ring; a chain of it may not (2.7.5.3.1, 2.8.7). */
static void long_tables(bool packed)
{
	static struct vseg s[40];
	uint16_t id;
	uint32_t len;

	start(packed, 16);
	for (unsigned i = 0; i < 40; i++)
		s[i] = (struct vseg){ VDRV_HEAP, 4, false };
	vdrv_add_indirect(&d, 0, s, 16);
	vdrv_kick(&d, 0);
	assert_false(vdrv_broken(&d));
	assert_int_equal(echo()->last.nreadable, 16);
	assert_true(vdrv_used(&d, 0, &id, &len));
	vdrv_add_indirect(&d, 0, s, 40);
	breaks(0);
}

static void split_long_table(void **state) { long_tables(false); }
static void packed_long_table(void **state) { long_tables(true); }

/* 2.8: a chain that never ends goes once around the ring. */
static void packed_endless(void **state)
{
	start(true, 8);
	for (unsigned i = 0; i < 8; i++)
		vdrv_place(&d, 0, vdrv_advance(&d.q[0], d.q[0].avail, i),
			   (struct packed_desc){ VDRV_HEAP, 4, 0, DESC_NEXT });
	breaks(0);
}

/* ---- Where rings may lie -------------------------------------------------- */

static void ring_addresses(void **state)
{
	static const uint64_t bad[] = { TEST_RAM, TEST_RAM - 16, 0xa0000, 0x9fff0, 0xffffffff0,
					UINT64_MAX & ~15ull, VDRV_HEAP + 1, VDRV_HEAP + 2 };

	for (unsigned packed = 0; packed < 2; packed++)
		for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
			for (unsigned part = 0; part < 3; part++) {
				uint64_t *at[3] = { &d.q[0].desc, &d.q[0].driver, &d.q[0].device };
				/* 2 bytes are enough for the available ring (2.7). */
				bool good = part == 1 && !packed && bad[i] == VDRV_HEAP + 2;
				/* The event areas of a packed ring have four bytes (2.8.14). */
				good |= part && packed && (bad[i] == TEST_RAM - 16 || bad[i] == 0x9fff0);

				d.heap = VDRV_HEAP + 0x1000;
				assert_true(vdrv_negotiate(&d, VIRTIO_F_VERSION_1 |
							   (packed ? VIRTIO_F_RING_PACKED : 0)));
				d.q[0] = (struct vdrv_queue){ 64, vdrv_alloc(&d, 4096), vdrv_alloc(&d, 4096),
							      vdrv_alloc(&d, 4096), 0, 0, 0, { 0 } };
				*at[part] = bad[i];
				vdrv_queue_addresses(&d, 0);
				vdrv_set(&d, VC_ENABLE, 2, 1);
				assert_int_equal(vdrv_get(&d, VC_ENABLE, 2), good);
				assert_int_equal(vdrv_broken(&d), !good);
			}
}

/* ---- Notifications -------------------------------------------------------- */

static void interrupts(bool packed)
{
	uint64_t page;

	/* Without event index: one flag. */
	vdrv_start(&d, VIRTIO_F_VERSION_1, packed, 8);
	page = vdrv_alloc(&d, 64);
	for (unsigned off = 0; off < 2; off++) {
		unsigned before = d.messages[1];
		uint16_t id;
		uint32_t len;

		vdrv_put16(&d, d.q[0].driver + (packed ? 2 : 0), (uint16_t)off);
		vdrv_add(&d, 0, &(struct vseg){ page, 8, true }, 1);
		vdrv_kick(&d, 0);
		assert_int_equal(d.messages[1], before + !off);
		assert_true(vdrv_used(&d, 0, &id, &len));
	}
}

static void split_interrupts(void **state) { interrupts(false); }
static void packed_interrupts(void **state) { interrupts(true); }

/* 2.7.10 and 2.8.14: an interrupt when the event index is passed, and never otherwise. */
static void event_index(bool packed)
{
	uint64_t page;
	unsigned total = 0;

	start(packed, 8);
	page = vdrv_alloc(&d, 64);
	for (unsigned i = 0; i < 200; i++) {
		struct vdrv_queue *q = &d.q[0];
		unsigned batch = 1 + i % 3, event = i % 5, before = d.messages[1];
		uint16_t id;
		uint32_t len;

		/* When `event` more buffers than now were used. */
		if (packed) {
			vdrv_put16(&d, q->driver, vdrv_advance(q, q->used, event));
			vdrv_put16(&d, q->driver + 2, 2);
		} else {
			vdrv_put16(&d, q->driver + 4 + 2u * q->size, (uint16_t)(q->used + event));
		}
		for (unsigned n = 0; n < batch; n++)
			vdrv_add(&d, 0, &(struct vseg){ page, 8, true }, 1);
		vdrv_kick(&d, 0);
		assert_int_equal(d.messages[1] - before, event < batch);
		total += event < batch;
		while (vdrv_used(&d, 0, &id, &len))
			;
		if (i % 37 == 0)
			vdrv_save_restore(&d);
	}
	assert_int_equal(d.messages[1], total);
}

static void split_event_index(void **state) { event_index(false); }
static void packed_event_index(void **state) { event_index(true); }

/* The device asks for a kick at the next buffer (2.7.10). */
static void split_avail_event(void **state)
{
	uint64_t page;

	start(false, 8);
	page = vdrv_alloc(&d, 64);
	for (unsigned i = 1; i < 20; i++) {
		uint16_t id;
		uint32_t len;

		vdrv_add(&d, 0, &(struct vseg){ page, 8, true }, 1);
		vdrv_kick(&d, 0);
		assert_int_equal(vdrv_take16(&d, d.q[0].device + 4 + 8u * 8), i);
		vdrv_used(&d, 0, &id, &len);
	}
	virtq_want_kicks(&d.v->queue[0], false);
	virtq_want_kicks(&d.v->queue[0], true);
	vdrv_start(&d, VIRTIO_F_VERSION_1, false, 8);
	virtq_want_kicks(&d.v->queue[0], false);
	assert_int_equal(vdrv_take16(&d, d.q[0].device), 1);
	virtq_want_kicks(&d.v->queue[0], true);
	assert_int_equal(vdrv_take16(&d, d.q[0].device), 0);
}

/* ---- Chains in flight ---------------------------------------------------- */

static void out_of_order(bool packed)
{
	struct virtqueue *q;
	uint64_t page;
	uint16_t id, want[8];
	uint32_t len;

	start(packed, 8);
	page = vdrv_alloc(&d, 64);
	q = &d.v->queue[0];
	echo()->hold = true;
	for (unsigned lap = 0; lap < 10; lap++) {
		echo()->nheld = 0;
		for (unsigned i = 0; i < 3; i++)
			want[i] = vdrv_add(&d, 0, (struct vseg[]){ { page, 8, false }, { page, 8, true } }, 1 + i % 2);
		vdrv_kick(&d, 0);
		assert_int_equal(echo()->nheld, 3);
		for (unsigned i = 3; i-- > 0; ) {
			virtq_push(q, &echo()->held[i], 0);
			assert_true(vdrv_used(&d, 0, &id, &len));
			assert_int_equal(id, want[i]);
		}
		assert_false(vdrv_used(&d, 0, &id, &len));
	}
}

static void split_out_of_order(void **state) { out_of_order(false); }
static void packed_out_of_order(void **state) { out_of_order(true); }

/* A reset makes chains stale: nothing of them reaches the new driver's memory. */
static void stale(bool packed)
{
	struct virtqueue *q;
	struct iovec iov[4];
	uint64_t page;
	uint16_t id;
	uint32_t len;

	for (unsigned whole = 0; whole < 2; whole++) {
		d.heap = VDRV_HEAP;
		start(packed, 8);
		page = vdrv_alloc(&d, 64);
		q = &d.v->queue[0];
		echo()->hold = true;
		echo()->nheld = 0;
		vdrv_add(&d, 0, (struct vseg[]){ { page, 8, false }, { page, 8, true } }, 2);
		vdrv_kick(&d, 0);
		assert_int_equal(echo()->nheld, 1);
		assert_int_equal(virtq_iov(q, &echo()->held[0], true, 0, 8, iov, 4), 1);
		if (whole) {
			vdrv_set(&d, VC_STATUS, 1, 0);
		} else {
			vdrv_set(&d, VC_SELECT, 2, 0);
			vdrv_set(&d, VC_RESET, 2, 1);
			assert_int_equal(vdrv_get(&d, VC_RESET, 2), 0);
			assert_int_equal(vdrv_get(&d, VC_ENABLE, 2), 0);
			assert_int_equal(vdrv_get(&d, VC_SIZE, 2), 256);
		}
		if (whole)
			start(packed, 8);
		else
			vdrv_queue(&d, 0, 8);
		assert_false(virtq_current(q, &echo()->held[0]));
		assert_int_equal(virtq_iov(q, &echo()->held[0], true, 0, 8, iov, 4), -ESTALE);
		assert_int_equal(virtq_write(q, &echo()->held[0], 0, "abc", 3), 0);
		virtq_push(q, &echo()->held[0], 8);
		virtq_unpop(q, &echo()->held[0]);
		virtq_signal(q);
		assert_false(vdrv_used(&d, 0, &id, &len));
		assert_int_equal(q->in_flight, 0);
		echo()->hold = false;
		exchange(0, 7, false);
	}
}

static void split_stale(void **state) { stale(false); }
static void packed_stale(void **state) { stale(true); }

/* A save with a request in flight is refused by name; unpopped, it is saved and comes again. */
static void in_flight(bool packed)
{
	struct device *dev = &d.v->pci.dev;
	struct skep_error e = { .text = "" };
	struct echo_model m = { 0 };
	struct virtqueue *q;
	uint16_t id;
	uint32_t len;

	start(packed, 8);
	q = &d.v->queue[1];
	echo()->hold = true;
	vdrv_add(&d, 1, (struct vseg[]){ { VDRV_HEAP, 8, false }, { VDRV_HEAP, 8, true } }, 2);
	vdrv_kick(&d, 1);
	dev->type->export(dev, &m);
	assert_true(dev->type->validate(dev, &m, &e) < 0);
	assert_non_null(strstr(e.text, "in flight"));
	state_free(dev->type->state, &m);
	virtq_unpop(q, &echo()->held[0]);
	q->kicked = true;
	echo()->hold = false;
	/* The kick that was pending is replayed. */
	vdrv_save_restore(&d);
	assert_true(vdrv_used(&d, 1, &id, &len));
	assert_int_equal(len, 8);
	exchange(1, 1, false);
}

static void split_in_flight(void **state) { in_flight(false); }
static void packed_in_flight(void **state) { in_flight(true); }

/* Several buffers are seen at once, or not at all. */
static void at_once(bool packed)
{
	struct virtqueue *q;
	struct virtq_mark mark;
	struct virtq_chain c;
	uint16_t id;
	uint32_t len;

	start(packed, 8);
	q = &d.v->queue[0];
	for (unsigned lap = 0; lap < 20; lap++) {
		for (unsigned i = 0; i < 3; i++)
			vdrv_add(&d, 0, (struct vseg[]){ { VDRV_HEAP, 8, true }, { VDRV_HEAP, 8, true } }, 1 + i % 2);
		mark = virtq_mark(q);
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(virtq_pop(q, &c), 1);
			virtq_fill(q, &c, 4);
			assert_false(vdrv_used(&d, 0, &id, &len));
		}
		virtq_rewind(q, &mark);
		assert_int_equal(q->in_flight, 0);
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(virtq_pop(q, &c), 1);
			virtq_fill(q, &c, 5);
			assert_false(vdrv_used(&d, 0, &id, &len));
		}
		virtq_flush(q);
		for (unsigned i = 0; i < 3; i++) {
			assert_true(vdrv_used(&d, 0, &id, &len));
			assert_int_equal(len, 5);
		}
	}
}

static void split_at_once(void **state) { at_once(false); }
static void packed_at_once(void **state) { at_once(true); }

static void copies(void **state)
{
	uint64_t a, b;
	struct virtqueue *q;
	struct virtq_chain c;
	struct iovec iov[4];
	uint8_t buf[64];

	start(false, 8);
	a = vdrv_alloc(&d, 64);
	b = vdrv_alloc(&d, 64);
	q = &d.v->queue[0];
	vdrv_put(&d, a, "0123456789", 10);
	vdrv_add(&d, 0, (struct vseg[]){ { a, 3, false }, { a + 3, 7, false }, { b, 5, true }, { b + 5, 6, true } }, 4);
	assert_int_equal(virtq_pop(q, &c), 1);
	assert_int_equal(c.readable, 10);
	assert_int_equal(c.writable, 11);
	assert_int_equal(virtq_read(q, &c, 2, buf, 4), 4);
	assert_memory_equal(buf, "2345", 4);
	assert_int_equal(virtq_read(q, &c, 8, buf, 64), 2);
	assert_int_equal(virtq_read(q, &c, 10, buf, 64), 0);
	assert_int_equal(virtq_read(q, &c, SIZE_MAX, buf, 64), 0);
	assert_int_equal(virtq_write(q, &c, 4, "abcdefghijk", 11), 7);
	vdrv_take(&d, b, buf, 11);
	assert_memory_equal(buf, "\0\0\0\0abcdefg", 11);
	assert_int_equal(virtq_zero(q, &c, 5, 2), 2);
	vdrv_take(&d, b, buf, 11);
	assert_memory_equal(buf, "\0\0\0\0a\0\0defg", 11);
	assert_int_equal(virtq_iov(q, &c, false, 0, 10, iov, 4), 2);
	assert_int_equal(iov[0].iov_len, 3);
	assert_memory_equal(iov[1].iov_base, "3456789", 7);
	assert_int_equal(virtq_iov(q, &c, true, 1, 10, iov, 4), 2);
	assert_int_equal(virtq_iov(q, &c, true, 1, 10, iov, 1), -E2BIG);
	assert_int_equal(virtq_iov(q, &c, true, 2, 10, iov, 4), -ERANGE);
	assert_int_equal(virtq_iov(q, &c, true, SIZE_MAX, 2, iov, 4), -ERANGE);
	assert_int_equal(virtq_iov(q, &c, true, 11, 0, iov, 4), 0);
	virtq_iov_done(q, &c, 1, 10);
	/* A length that is longer than what can be written is not told. */
	virtq_push(q, &c, 100);
	vdrv_take(&d, d.q[0].device + 4, buf, 8);
	assert_int_equal(load32(buf + 4), 11);
}

/* Memory does not change under a driver that took the bus away; what waits goes on when it is back. */
static void bus_master(bool packed)
{
	unsigned notified;
	uint16_t id;
	uint32_t len;

	start(packed, 8);
	echo()->hold = true;
	vdrv_add(&d, 0, &(struct vseg){ VDRV_HEAP, 8, true }, 1);
	vdrv_kick(&d, 0);
	vdrv_config_write(&d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(virtq_write(&d.v->queue[0], &echo()->held[0], 0, "abc", 3), 0);
	virtq_push(&d.v->queue[0], &echo()->held[0], 0);
	assert_false(vdrv_used(&d, 0, &id, &len));
	echo()->hold = false;
	notified = echo()->notified;
	vdrv_add(&d, 1, &(struct vseg){ VDRV_HEAP, 8, true }, 1);
	vdrv_kick(&d, 1);
	assert_int_equal(echo()->notified, notified);
	vdrv_config_write(&d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	assert_int_equal(echo()->notified, notified + 1);
	assert_true(vdrv_used(&d, 1, &id, &len));
}

static void split_bus_master(void **state) { bus_master(false); }
static void packed_bus_master(void **state) { bus_master(true); }

/* A guest that fills the queue as fast as it is emptied does not hold the device lock for ever. */
static void endless(bool packed)
{
	unsigned before;

	start(packed, 16);
	d.vm->clock.mode = CLOCK_MODE_REALTIME;
	echo()->endless = true;
	vdrv_add(&d, 0, &(struct vseg){ VDRV_HEAP, 8, true }, 1);
	vdrv_kick(&d, 0);
	before = echo()->popped;
	assert_true(before > 256 && before < 100000);
	assert_int_equal(echo()->notified, 1);
	/* It goes on from the loop, and ends when the guest does. */
	device_unlock(d.vm);
	loop_iterate(d.vm);
	device_lock(d.vm);
	assert_int_equal(echo()->notified, 2);
	assert_int_equal(echo()->popped, 2 * before);
	echo()->endless = false;
	device_unlock(d.vm);
	loop_iterate(d.vm);
	device_lock(d.vm);
	assert_int_equal(echo()->popped, 2 * before + 1);
	assert_false(d.v->queue[0].kicked);
	d.vm->clock.mode = CLOCK_MODE_VIRTUAL;
}

static void split_endless(void **state) { endless(false); }
static void packed_endless_kicks(void **state) { endless(true); }

/* Whatever stands in the rings: no crash, and a reset brings the device back. */
static void noise(bool packed)
{
	uint64_t x = 88172645463325252ull + packed;

	for (unsigned lap = 0; lap < 300; lap++) {
		d.heap = VDRV_HEAP;
		start(packed, packed ? 13 : 16);
		for (unsigned i = 0; i < 200; i++) {
			uint64_t at[3] = { d.q[0].desc + x % 256, d.q[0].driver + x % 40, d.q[0].device + x % 140 };
			uint16_t v;

			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			v = (uint16_t)(x >> 40 & 1 ? x >> 20 : x >> 20 & 7);
			vdrv_put16(&d, at[x >> 10 & 1], v);
			if ((x >> 50) % 8 == 0)
				vdrv_kick(&d, 0);
			if ((x >> 50) % 97 == 0)
				vdrv_save_restore(&d);
		}
	}
	d.heap = VDRV_HEAP;
	start(packed, 8);
	exchange(0, 3, false);
}

static void split_noise(void **state) { noise(false); }
static void packed_noise(void **state) { noise(true); }

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
#define BOTH(f) T(split_##f), T(packed_##f)
	const struct CMUnitTest tests[] = {
		BOTH(goes_round), T(packed_sizes_are_any), T(whole_size), T(index_wraps),
		BOTH(addresses), BOTH(order), BOTH(much), BOTH(empty), T(split_loops),
		T(split_next_is_outside), T(split_index_jumps), BOTH(tables), BOTH(table_rules),
		BOTH(long_table), T(packed_endless), T(ring_addresses),
		BOTH(interrupts), BOTH(event_index), T(split_avail_event),
		BOTH(out_of_order), BOTH(stale), BOTH(in_flight), BOTH(at_once), T(copies),
		BOTH(more_than_there_are), BOTH(bus_master), T(split_endless), T(packed_endless_kicks), BOTH(noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
