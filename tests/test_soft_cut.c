/*
 * A live cut while the soft processor writes: with paging on, by every kind of store, and by
 * the walks, which set A and D in the tables.
 */
#include "soft_helper.h"

#include <unistd.h>

#include "vm/cut.h"

enum { PD = 0x100000, PT = 0x101000, BASE = 0x200000, END = 0x240000, STRINGS = 0x300000 };

static const uint8_t program[] = {
	0xbb, BASE & 0xff, BASE >> 8 & 0xff, BASE >> 16, 0,	/* outer: mov ebx, BASE */
	0xba, 0x00, 0x18, 0x10, 0,		/* mov edx, PT + BASE / 4096 * 4 */
	0x81, 0x22, 0x9f, 0xff, 0xff, 0xff,	/* inner: and dword [edx], ~0x60 */
	0x0f, 0x01, 0x3b,			/* invlpg [ebx] */
	0xff, 0x03,				/* inc dword [ebx] */
	0xf0, 0xff, 0x43, 0x08,			/* lock inc dword [ebx + 8] */
	0x81, 0xc3, 0x00, 0x10, 0, 0,		/* add ebx, 4096 */
	0x83, 0xc2, 0x04,			/* add edx, 4 */
	0x81, 0xfb, END & 0xff, END >> 8 & 0xff, END >> 16, 0,	/* cmp ebx, END */
	0x72, 0xe0,				/* jb inner */
	0xbf, 0x00, 0x00, 0x30, 0,		/* mov edi, STRINGS */
	0xb9, 0x00, 0x20, 0, 0,			/* mov ecx, 8192 */
	0x40,					/* inc eax */
	0xf3, 0xab,				/* rep stosd */
	0xa3, 0xf0, 0x00, 0x01, 0,		/* mov [CODE + 0xf0], eax: a page with code */
	0x60, 0x61,				/* pusha; popa */
	0xe9, 0xbd, 0xff, 0xff, 0xff,		/* jmp outer */
};

static void start(void)
{
	struct skep_error e = { .text = "" };
	struct cpu_arch_state s;
	unsigned i;

	protected_mode(0);
	/* As devices write, so that what is there is marked. */
	assert_int_equal(dma_zero(&machine->memory, 0, 0x30000), 0);
	tables();
	for (i = 0; i < 1024; i++)
		store32(ram + PT + i * 4, i << 12 | 3);
	store32(ram + PD, PT | 3);
	assert_int_equal(dma_write(&machine->memory, PD, ram + PD, 0x2000), 0);
	assert_int_equal(dma_write(&machine->memory, CODE, program, sizeof(program)), 0);
	soft_get_state(cpu, &s);
	s.cr3 = PD;
	s.cr0 |= CR0_PG | CR0_WP;
	if (soft_set_state(cpu, &s, &e) < 0)
		fail_msg("%s", e.text);
	cpu->v->stop_reasons = STOP_SAVE;
	assert_int_equal(vcpu_start(cpu->v, &e), 0);
}

static void stand(void)
{
	vcpu_stop(cpu->v, STOP_SAVE);
	vcpu_wait_stopped(cpu->v);
}

/* Lays what the cut says over image. */
static unsigned read_cut(struct ram_cut *c, uint8_t *image)
{
	struct skep_error e = { .text = "" };
	struct ram_chunk k;
	unsigned n = 0, i;

	while (ram_cut_next(c, &k, &e) > 0)
		for (i = 0; i < k.npages; i++)
			if (k.there[i / 64] >> i % 64 & 1) {
				memcpy(image + k.gpa + i * 4096, k.data + i * 4096, 4096);
				n++;
			}
	assert_string_equal(e.text, "");
	return n;
}

static void compare(const uint8_t *image, const uint8_t *want, unsigned round)
{
	unsigned i;

	for (i = 0; i < TEST_RAM; i += 4096)
		if (memcmp(image + i, want + i, 4096))
			fail_msg("round %u: page %#x is not what it was at the cut", round, i);
}

static void cut_while_it_runs(void **state)
{
	unsigned rounds = getenv("SKEP_TEST_LONG") ? 3000 : 60, round;
	uint8_t *want = malloc(TEST_RAM), *image = calloc(1, TEST_RAM);
	struct skep_error e = { .text = "" };
	uint32_t before = 0;

	assert_true(want && image);
	start();
	for (round = 0; round < rounds; round++) {
		unsigned flags = round ? CUT_LIVE | CUT_DELTA : CUT_LIVE;
		struct ram_cut *c;

		vcpu_go(cpu->v, STOP_SAVE);
		usleep(300 + round * 37 % 1000);
		stand();
		memcpy(want, ram, TEST_RAM);
		c = memory_cut(&machine->memory, flags, &e);
		assert_non_null(c);
		vcpu_go(cpu->v, STOP_SAVE);
		if (round % 3)
			usleep(round * 91 % 700);
		read_cut(c, image);
		compare(image, want, round);
		ram_cut_commit(c);
		stand();
		assert_false(vm_exiting(machine));
	}
	/* It did run, and it set A and D. */
	memcpy(&before, want + BASE, 4);
	assert_true(before > rounds);
	assert_int_equal((want[PT + 0x201 * 4] | want[PT + 0x202 * 4]) & 0x60, 0x60);
	free(want);
	free(image);
}

static int setup_realtime(void **state)
{
	int err = soft_setup(state);

	machine->clock.mode = CLOCK_MODE_REALTIME;
	return err;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(cut_while_it_runs, setup_realtime, soft_teardown),
		cmocka_unit_test_setup_teardown(cut_while_it_runs, soft_setup, soft_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
