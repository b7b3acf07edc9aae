#include "cpu/soft/vex_thunk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/soft/code_memory.h"

#define MAX_THUNKS	8192u
#define CODE_SIZE	(768u * 1024)
#define HASH_SIZE	4096u
#define BLOCK_INSNS	64u	/* no block or translation is longer */
/* Four vector registers in and two out, each in halves, and less than 100 bytes of the rest. */
#define MAX_CODE	224u

struct soft_vex {
	struct code_memory code;
	size_t used;
	unsigned n;
	uint16_t hash[HASH_SIZE];		/* number of a thunk plus one */
	struct vex_thunk thunk[MAX_THUNKS];
};

struct soft_vex *soft_vex_create(struct skep_error *e)
{
	struct soft_vex *v = calloc(1, sizeof *v);
	int err;

	if (!v) {
		skep_fail(e, ENOMEM, "not enough memory for a processor");
		return NULL;
	}
	err = -code_memory_create(&v->code, CODE_SIZE, e);
	if (err) {
		free(v);
		skep_fail(e, err, "cpu.model=skep-v3.1: this host gives no memory for code that is written "
			  "by programs (%s); skep-v2.1 needs none", strerror(err));
		return NULL;
	}
	return v;
}

void soft_vex_destroy(struct soft_vex *v)
{
	if (!v)
		return;
	code_memory_destroy(&v->code);
	free(v);
}

bool soft_vex_room(const struct soft_vex *v)
{
	return !v || (v->n + BLOCK_INSNS <= MAX_THUNKS &&
		      v->used + BLOCK_INSNS * MAX_CODE <= CODE_SIZE);
}

void soft_vex_flush(struct soft_vex *v)
{
	if (!v)
		return;
	v->n = 0;
	v->used = 0;
	memset(v->hash, 0, sizeof v->hash);
}

/* ---- Host code -------------------------------------------------------------- */

enum { RAX = 0, RSI = 6, RDI = 7, R8 = 8, R9 = 9, R10 = 10 };

struct code {
	uint8_t b[MAX_CODE];
	unsigned n;
};

static void byte(struct code *k, unsigned v)
{
	k->b[k->n++] = (uint8_t)v;
}

static void bytes(struct code *k, const char *s, unsigned n)
{
	memcpy(k->b + k->n, s, n);
	k->n += n;
}

/* ModRM and displacement of [rdi + at], a place in struct soft_cpu. */
static void place(struct code *k, unsigned reg, size_t at)
{
	int32_t disp = (int32_t)at;

	byte(k, 0x80 | (reg & 7) << 3 | RDI);
	memcpy(k->b + k->n, &disp, 4);
	k->n += 4;
}

#define XMM_AT(n) (offsetof(struct soft_cpu, s.fpu.xmm) + 16 * (size_t)(n))
#define YMMH_AT(n) (offsetof(struct soft_cpu, s.fpu.ymmh) + 16 * (size_t)(n))
#define GPR_AT(n) (offsetof(struct soft_cpu, r) + 8 * (size_t)(n))

/* VMOVAPS between the low half and the state; opcode 28 loads, 29 stores. */
static void low_half(struct code *k, unsigned opcode, unsigned n)
{
	byte(k, 0xc5);
	byte(k, n < 8 ? 0xf8 : 0x78);
	byte(k, opcode);
	place(k, n, XMM_AT(n));
}

static void load_vector(struct code *k, unsigned n, bool wide)
{
	low_half(k, 0x28, n);
	if (!wide)
		return;
	/* vinsertf128 $1, place, n, n */
	byte(k, 0xc4);
	byte(k, n < 8 ? 0xe3 : 0x63);
	byte(k, (~n & 15) << 3 | 5);
	byte(k, 0x18);
	place(k, n, YMMH_AT(n));
	byte(k, 1);
}

/* Both halves: what writes 128 bits clears the upper one. */
static void store_vector(struct code *k, unsigned n)
{
	low_half(k, 0x29, n);
	/* vextractf128 $1, n, place */
	byte(k, 0xc4);
	byte(k, n < 8 ? 0xe3 : 0x63);
	byte(k, 0x7d);
	byte(k, 0x19);
	place(k, n, YMMH_AT(n));
	byte(k, 1);
}

/* MOV of 64 bits between host register `host` and the state; opcode 8b loads, 89 stores. */
static void move_general(struct code *k, unsigned opcode, unsigned host, unsigned guest)
{
	byte(k, 0x48 | (host >= 8 ? 4 : 0));
	byte(k, opcode);
	place(k, host, GPR_AT(guest));
}

static void load_field(struct code *k, const struct vex_operand *o, unsigned host)
{
	if (o->file == VEX_GENERAL && o->read)
		move_general(k, 0x8b, host, o->number);
}

static void store_field(struct code *k, const struct vex_operand *o, unsigned host)
{
	if (o->file == VEX_GENERAL && o->write)
		move_general(k, 0x89, host, o->number);
}

static void load_all(struct code *k, const struct vex_insn *i)
{
	if (i->writes_flags && !i->avx) {
		/* Those that it leaves undefined may be what they were. */
		bytes(k, "\x0f\xb7", 2);			/* movzwl cc, %eax */
		place(k, RAX, offsetof(struct soft_cpu, cc));
		bytes(k, "\x04\x7f\x9e", 3);			/* addb $127, %al; sahf */
	}
	load_field(k, &i->reg, R8);
	load_field(k, &i->rm, R9);
	load_field(k, &i->vvvv, R10);
	for (unsigned n = 0; n < 16; n++) {
		if (i->implicit_read >> n & 1)
			move_general(k, 0x8b, n, n);
		if (i->vec_read >> n & 1)
			load_vector(k, n, i->vec_read_wide >> n & 1);
	}
}

static void store_all(struct code *k, const struct vex_insn *i)
{
	/* MULX with one register for both halves: the upper one, in reg, is written last. */
	store_field(k, &i->vvvv, R10);
	store_field(k, &i->rm, R9);
	store_field(k, &i->reg, R8);
	for (unsigned n = 0; n < 16; n++) {
		if (i->implicit_write >> n & 1)
			move_general(k, 0x89, n, n);
		if (i->vec_write >> n & 1)
			store_vector(k, n);
	}
	if (i->writes_flags) {
		bytes(k, "\x9f\x0f\x90\xc0\x66\x89", 6);	/* lahf; seto %al; movw %ax, cc */
		place(k, RAX, offsetof(struct soft_cpu, cc));
	}
}

static void make(struct code *k, const struct vex_insn *i)
{
	struct vex_insn on_host = *i;

	k->n = 0;
	if (i->reg.file == VEX_GENERAL)
		on_host.reg.number = R8;
	if (i->rm.file == VEX_GENERAL)
		on_host.rm.number = R9;
	if (i->vvvv.file == VEX_GENERAL)
		on_host.vvvv.number = R10;
	load_all(k, i);
	k->n += vex_encode(&on_host, RSI, 0, k->b + k->n);
	store_all(k, i);
	if (i->avx)
		bytes(k, "\xc5\xf8\x77", 3);			/* vzeroupper */
	byte(k, 0xc3);
}

/* ---- The thunks --------------------------------------------------------------- */

static uint32_t hash_of(const struct code *k)
{
	uint32_t h = 0x811c9dc5;

	for (unsigned i = 0; i < k->n; i++)
		h = (h ^ k->b[i]) * 0x01000193;
	return h;
}

const struct vex_thunk *soft_vex_thunk(struct soft_vex *v, const struct vex_insn *i)
{
	struct vex_thunk *t;
	struct code k;
	uint16_t *at;
	uint32_t hash;

	make(&k, i);
	hash = hash_of(&k);
	for (at = &v->hash[hash % HASH_SIZE]; *at; at = &t->next) {
		t = &v->thunk[*at - 1];
		if (t->hash == hash && t->len == k.n &&
		    !memcmp(v->code.write + ((uint8_t *)(uintptr_t)t->run - v->code.run), k.b, k.n))
			return t;
	}
	t = &v->thunk[v->n++];
	*t = (struct vex_thunk){ .insn = *i, .hash = hash, .len = (uint16_t)k.n };
	memcpy(v->code.write + v->used, k.b, k.n);
	t->run = (void (*)(struct soft_cpu *, void *))(uintptr_t)(v->code.run + v->used);
	v->used += k.n;
	*at = (uint16_t)v->n;
	return t;
}
