/*
 * Code that changes, as much and as nastily as it goes: for processors that keep what they have made
 * of it.  smc.c is the primer.  Where store and fetch use different linear addresses, something that
 * serializes stands between them (SDM vol. 3, 9.1.3).
 */
#include "lib/guest.h"

typedef ulong (*code_fn)(ulong a, ulong b);

static u64 random_state = 88172645463325252ull;

static u32 random_below(u32 n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (u32)((random_state >> 32) * n >> 32);
}

static void serialize(void)
{
	u32 a, b, c, d;

	cpuid(0, 0, &a, &b, &c, &d);
}

static ulong call(const void *p, ulong a, ulong b)
{
	return ((code_fn)(ulong)p)(a, b);
}

static u8 *put(u8 *p, const void *bytes, unsigned n)
{
	memcpy(p, bytes, n);
	return p + n;
}
#define PUT(p, s) put(p, s, sizeof(s) - 1)

static u8 *put32(u8 *p, u32 v)
{
	return put(p, &v, 4);
}

static u8 *put_call(u8 *p, u8 op, const u8 *to)
{
	*p++ = op;
	return put32(p, (u32)(to - (p + 4)));
}

static void emit_mov_ret(u8 *p, u32 imm)
{
	p[0] = 0xb8;
	memcpy(p + 1, &imm, 4);
	p[5] = 0xc3;
}

/* ---- A generator of functions, as JIT compilers are ----------------------------------- */

#define SLOT_SIZE	96u
#define SLOTS		512u

static u32 rol32(u32 v, unsigned n)
{
	return n ? v << n | v >> (32 - n) : v;
}

/*
 * Writes a function of edi at p: a few random operations on eax, then ret, or a jump to `next`; op
 * says what it computes, which apply() repeats.
 */
struct function {
	u8 *at;
	u8 n, kind[8];
	u32 imm[8];
	int next;		/* slot that it jumps or calls to, or -1 */
	bool calls;
};

static struct function function[SLOTS];

static u32 apply(u32 v, const struct function *f)
{
	for (unsigned i = 0; i < f->n; i++)
		switch (f->kind[i]) {
		case 0: v += f->imm[i]; break;
		case 1: v ^= f->imm[i]; break;
		case 2: v *= f->imm[i]; break;
		case 3: v = rol32(v, f->imm[i] & 31); break;
		case 4: v -= f->imm[i]; break;
		case 5: v = v & 1 ? v + f->imm[i] : v; break;
		default: v = ~v; break;
		}
	return v;
}

static u32 expect(unsigned slot, u32 v, unsigned depth)
{
	const struct function *f = &function[slot];

	v = apply(v, f);
	if (f->next < 0 || !depth)
		return v;
	v = expect((unsigned)f->next, v, depth - 1);
	return f->calls ? v + 1 : v;
}

static u8 *emit_op(u8 *p, unsigned kind, u32 imm)
{
	switch (kind) {
	case 0: *p++ = 0x05; return put32(p, imm);
	case 1: *p++ = 0x35; return put32(p, imm);
	case 2: p = PUT(p, "\x69\xc0"); return put32(p, imm);
	case 3: p = PUT(p, "\xc1\xc0"); *p++ = imm & 31; return p;
	case 4: *p++ = 0x2d; return put32(p, imm);
	case 5:		/* test $1, %al; jz over an addition */
		p = PUT(p, "\xa8\x01\x74\x05\x05");
		return put32(p, imm);
	default: return PUT(p, "\xf7\xd0");
	}
}

/* Functions lead on to later slots only, so that everything comes to an end. */
static void write_function(unsigned slot)
{
	struct function *f = &function[slot];
	u8 *p = f->at;

	f->n = (u8)(1 + random_below(6));
	f->next = slot + 1 < SLOTS && random_below(3) ? (int)(slot + 1 + random_below(SLOTS - slot - 1)) : -1;
	f->calls = random_below(2);
	for (unsigned i = 0; i < f->n; i++) {
		f->kind[i] = (u8)random_below(7);
		f->imm[i] = random_below(0xffffffff);
		p = emit_op(p, f->kind[i], f->imm[i]);
	}
	if (f->next >= 0 && f->calls)
		p = PUT(put_call(p, 0xe8, function[f->next].at), "\xff\xc0\xc3");
	else if (f->next >= 0)
		p = put_call(p, 0xe9, function[f->next].at);
	else
		*p++ = 0xc3;
}

/* mov %edi, %eax; jmp *%rsi */
SNIPPET(enter, "mov %edi, %eax\n jmp *%rsi");

/* Slots lie close, across page boundaries, so that each page holds what changes and what does not. */
static void generator(unsigned rounds)
{
	u8 *p = pages_alloc(SLOTS * SLOT_SIZE / 4096 + 1);
	unsigned wrong = 0;

	section("a generator of functions");
	for (unsigned i = 0; i < SLOTS; i++)
		function[i].at = p + i * SLOT_SIZE + random_below(16);
	for (unsigned i = SLOTS; i-- > 0;)
		write_function(i);
	for (unsigned i = 0; i < rounds; i++) {
		unsigned slot = random_below(SLOTS), v = random_below(0xffffffff);

		if (i % 3)
			write_function(slot);
		/* What has just changed, what leads to it, and what has nothing to do with it. */
		if (i % 2)
			slot = random_below(SLOTS);
		wrong += (u32)call(enter, v, (ulong)function[slot].at) != expect(slot, v, SLOTS);
	}
	check_eq(wrong, 0, "wrong results of %u", rounds);
}

/* A great many of them once, so that whatever keeps them must give some up; and again, changed. */
static void many_functions(void)
{
	unsigned n = 60000, wrong = 0;
	u8 *p = pages_alloc(n * 32 / 4096 + 1);

	section("more functions than anybody keeps");
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < n; i++)
			if (round != 1 || i % 5 == 0)
				emit_mov_ret(p + i * 32, i * 3 + round);
		for (unsigned i = 0; i < n; i++) {
			u32 want = i * 3 + (round == 1 && i % 5 ? 0 : round);

			wrong += (u32)call(p + i * 32, 0, 0) != want;
		}
	}
	check_eq(wrong, 0, "wrong results");
}

/* ---- The own block --------------------------------------------------------------------- */

/*
 * A loop that stores the low byte of its counter into the immediate of an addition, `gap` bytes
 * behind the store or before it.
 */
static u32 own_block(u8 *p, int gap, unsigned turns)
{
	u8 *at = p, *store, *add, *top;

	at = PUT(at, "\x31\xc0\x89\xf9");		/* xor eax,eax; mov ecx,edi */
	top = at;
	if (gap < 0) {
		add = at;
		at = PUT(at, "\x05\0\0\0\0");		/* add eax, imm32 */
		for (int i = gap; i < 0; i++)
			*at++ = 0x90;
		store = at;
		at = PUT(at, "\x88\x0d\0\0\0\0");	/* mov [rip+x], cl */
	} else {
		store = at;
		at = PUT(at, "\x88\x0d\0\0\0\0");
		for (int i = 0; i < gap; i++)
			*at++ = 0x90;
		add = at;
		at = PUT(at, "\x05\0\0\0\0");
	}
	put32(store + 2, (u32)(add + 1 - (store + 6)));
	at = PUT(at, "\xff\xc9\x0f\x85");		/* dec ecx; jnz top */
	at = put32(at, (u32)(top - (at + 4)));
	*at = 0xc3;
	return (u32)call(p, turns, 0);
}

static void own_blocks(void)
{
	u8 *p = pages_alloc(2);

	section("its own block");
	for (int gap = -120; gap <= 120; gap += gap > -20 && gap < 20 ? 1 : 10)
		for (unsigned at = 0; at < 4096; at += 4096 - 64) {
			u32 n = 50, sum = 0;

			for (u32 i = 1; i <= n; i++)
				sum += i;
			/* Before the store: each addition sees what the turn before it stored. */
			check_eq(own_block(p + at, gap, n), gap < 0 ? sum - 1 : sum, "gap %d at %u", gap, at);
		}
}

/* ---- REP MOVS and its kin over what comes next ------------------------------------------- */

SNIPPET(copy_over, "mov %rdi, %r8\n mov %rsi, %rcx\n lea 1f(%rip), %rdi\n mov %r8, %rsi\n cld\n rep movsb\n"
	"1: .skip 320, 0xcc\n ret");
SNIPPET(copy_over_down, "mov %rsi, %rcx\n lea -1(%rdi,%rcx), %rsi\n lea 1f-1(%rip), %rdi\n add %rcx, %rdi\n"
	"std\n rep movsb\n 1: .skip 320, 0xcc\n ret");
SNIPPET(copy_over_quads, "mov %rdi, %r8\n mov %rsi, %rcx\n shr $3, %rcx\n lea 1f(%rip), %rdi\n mov %r8, %rsi\n"
	"cld\n rep movsq\n 1: .skip 320, 0xcc\n ret");

static void copies(void)
{
	static const struct { const char *name, *code, *end; } how[] = {
		{ "up", copy_over, copy_over_end }, { "down", copy_over_down, copy_over_down_end },
		{ "by quadwords", copy_over_quads, copy_over_quads_end },
	};
	u8 *p = pages_alloc(3), *from = page_alloc();

	section("REP MOVS over what comes next");
	for (unsigned h = 0; h < ARRAY_SIZE(how); h++)
		for (unsigned n = 16; n <= 304; n += 8) {
			u8 *at = p + (n % 16 ? 4096 - 100 : 32);

			/* Adds one so often, then cld; mov; ret. */
			memset(from, 0x90, n);
			put32(PUT(from, "\xfc\xb8"), n * 7);
			for (unsigned i = 6; i + 3 <= n - 1 && i < 60; i += 2)
				PUT(from + i, "\xff\xc0");
			from[n - 1] = 0xc3;
			for (unsigned turn = 0; turn < 3; turn++) {
				unsigned incs = 0;

				memcpy(at, how[h].code, (size_t)(how[h].end - how[h].code));
				for (unsigned i = 6; i + 3 <= n - 1 && i < 60; i += 2)
					incs++;
				check_eq((u32)call(at, (ulong)from, n), n * 7 + incs, "%s, %u bytes",
					 how[h].name, n);
			}
		}
}

/* Each store of this kind writes eight bytes or more over the instruction after it. */
SNIPPET(by_xadd, "mov $0x0101, %ecx\n lock xadd %ecx, 1f+1(%rip)\n 1: mov $0x11, %eax\n ret");
SNIPPET(by_cmpxchg, "mov $0x11, %eax\n mov $0x77, %ecx\n lock cmpxchg %ecx, 1f+1(%rip)\n"
	"1: mov $0x11, %eax\n ret");
/* Aligned here as it is where it runs. */
asm(".pushsection .text\n .balign 16\n .popsection");
SNIPPET(by_cmpxchg16b, "push %rbx\n mov 1f(%rip), %rax\n mov 1f+8(%rip), %rdx\n"
	"mov 2f(%rip), %rbx\n mov 2f+8(%rip), %rcx\n jmp 3f\n .balign 16\n"
	"2: mov $0x99, %eax\n pop %rbx\n ret\n .balign 16, 0x90\n"
	"3: lock cmpxchg16b 1f(%rip)\n .balign 16, 0x90\n"
	"1: mov $0x11, %eax\n pop %rbx\n ret\n .balign 16, 0x90");
SNIPPET(by_bts, "lock btsl $9, 1f+1(%rip)\n 1: mov $0x11, %eax\n ret");
SNIPPET(by_setcc, "cmp %eax, %eax\n sete 1f+1(%rip)\n 1: mov $0x11, %eax\n ret");
SNIPPET(by_pop, "push $0x42\n popq 2f(%rip)\n .byte 0x48, 0xb8\n 2: .quad 0x11\n ret");
SNIPPET(by_stos, "lea 1f+1(%rip), %rdi\n mov $0x4321, %eax\n stosw\n 1: mov $0x11, %eax\n ret");
SNIPPET(by_fist, "fninit\n push $0x5678\n fildl (%rsp)\n pop %rax\n fistpl 1f+1(%rip)\n 1: mov $0x11, %eax\n ret");
SNIPPET(by_movnti, "mov $0x31415, %ecx\n movnti %ecx, 1f+1(%rip)\n 1: mov $0x11, %eax\n ret");
SNIPPET(by_shift, "shll $4, 1f+1(%rip)\n 1: mov $0x11, %eax\n ret");
SNIPPET(by_not, "notb 1f+1(%rip)\n 1: mov $0x11, %eax\n ret");

static void other_stores(void)
{
	u8 *p = pages_alloc(2);

	section("all kinds of stores into the next instruction");
#define RUN(name, want) \
	do { \
		for (unsigned i = 0; i < 4; i++) { \
			u8 *at = p + (i & 1 ? 16 : 2048); \
			memcpy(at, name, (size_t)(name##_end - name)); \
			check_eq(call(at, 0, 0) & 0xffffffff, want, #name " time %u", i); \
		} \
	} while (0)
	RUN(by_xadd, 0x112);
	RUN(by_cmpxchg, 0x77);
	RUN(by_cmpxchg16b, 0x99);
	RUN(by_bts, 0x211);
	RUN(by_setcc, 0x01);
	RUN(by_pop, 0x42);
	RUN(by_stos, 0x4321);
	RUN(by_fist, 0x5678);
	RUN(by_movnti, 0x31415);
	RUN(by_shift, 0x110);
	RUN(by_not, 0xee);
#undef RUN
}

/* ---- Blocks that lead to each other ----------------------------------------------------------- */

/* A chain of jumps through many pages; one link after the other changes. */
static void chain(void)
{
	enum { LINKS = 24 };
	u8 *p = pages_alloc(LINKS);
	u8 *at[LINKS];
	unsigned wrong = 0;
	u32 sum = 0, add[LINKS];

	section("a chain of blocks");
	for (unsigned i = 0; i < LINKS; i++) {
		at[i] = p + i * 4096 + (i * 1237 & 0xfc0);
		add[i] = i;
		sum += i;
	}
	for (unsigned i = 0; i < LINKS; i++) {
		u8 *q = at[i];

		*q++ = 0x05;
		q = put32(q, add[i]);
		if (i + 1 < LINKS)
			put_call(q, i & 1 ? 0xe9 : 0xe8, at[i + 1]), q[5] = 0xc3;
		else
			*q = 0xc3;
	}
	for (unsigned i = 0; i < 20000; i++) {
		unsigned k = random_below(LINKS);
		u32 v = random_below(1000);

		sum += v - add[k];
		add[k] = v;
		put32(at[k] + 1, v);
		wrong += (u32)call(enter, 0, (ulong)at[0]) != sum;
	}
	check_eq(wrong, 0, "wrong sums");
}

/* ---- Aliases, remapping, two pages --------------------------------------------------------------- */

static void aliases(void)
{
	ulong exec = 5ul << 40, write = 6ul << 40;
	u8 *p = pages_alloc(2);
	unsigned wrong = 0;

	section("written through another mapping");
	for (unsigned i = 0; i < 2; i++) {
		map(exec + i * 4096, (ulong)p + i * 4096, PTE_P, 1);
		map(write + i * 4096, (ulong)p + i * 4096, PTE_P | PTE_W | PTE_NX, 1);
	}
	for (unsigned i = 0; i < 20000; i++) {
		unsigned at = i & 1 ? 4091 + random_below(6) : random_below(8000);
		u32 v = random_below(0xffffffff);

		emit_mov_ret((u8 *)write + at, v);
		serialize();
		wrong += (u32)call((void *)(exec + at), 0, 0) != v;
		((u8 *)write)[at + 1 + (i & 3)] ^= 0x5a;
		serialize();
		wrong += (u32)call((void *)(exec + at), 0, 0) != (v ^ 0x5au << (i & 3) * 8);
	}
	check_eq(wrong, 0, "wrong results");
}

/* mov $n, %eax; ret, unless %edi is not 0: 64 bytes on, mov $10n, %eax; ret */
static void emit_fork(u8 *p, u32 n)
{
	emit_mov_ret(PUT(p, "\x85\xff\x75\x3c"), n);
	emit_mov_ret(p + 64, 10 * n);
}

/*
 * A page is mapped elsewhere, and the processor learns it piece by piece, as it may before INVLPG: what
 * it made of the two pages together meanwhile must not stay.
 */
static void half_remapped(void)
{
	ulong at = 9ul << 40, other = 10ul << 40;
	u8 *p = page_alloc(), *q = page_alloc(), *filler = page_alloc();
	unsigned wrong = 0;
	u64 *leaf;

	section("a page that is mapped elsewhere by and by");
	leaf = map(at, 0, 0, 1);
	map(other, (ulong)p, PTE_P, 1);
	/* What takes the place of `at` in a TLB for code, but not in a cache of jumps. */
	for (ulong way = 256 << 12; way < 1ul << 32; way <<= 1)
		map(at + way, (ulong)filler, PTE_P, 1);
	emit_mov_ret(filler + 2048, 5);
	for (unsigned i = 0; i < 50; i++) {
		unsigned offset = i * 65 % 1900;
		u32 v;

		emit_fork(p + offset, 1);
		emit_fork(q + offset, 2);
		*leaf = (ulong)p | PTE_P;
		invlpg(at);
		wrong += (u32)call((void *)(at + offset), 0, 0) != 1;
		*leaf = (ulong)q | PTE_P;
		for (ulong way = 256 << 12; way < 1ul << 32; way <<= 1)
			wrong += (u32)call((void *)(at + way + 2048), 0, 0) != 5;
		/* Either page will do, and one after the other. */
		for (unsigned n = 0; n < 40; n++) {
			v = (u32)call((void *)(at + offset), 1, 0);
			wrong += v != 10 && v != 20;
		}
		invlpg(at);
		wrong += (u32)call((void *)(other + offset), 1, 0) != 10;
		wrong += (u32)call((void *)(other + offset), 0, 0) != 1;
		wrong += (u32)call((void *)(at + offset), 1, 0) != 20;
		wrong += (u32)call((void *)(at + offset), 0, 0) != 2;
	}
	check_eq(wrong, 0, "wrong results");
}

/* What a cache of jump targets must not take for one that it knows. */
static void no_addresses(void)
{
	u8 *p = page_alloc();
	unsigned wrong = 0;

	section("jumps to what is no address");
	emit_mov_ret(p, 77);
	for (ulong i = 1; i < 0x10000; i += i < 0x400 ? 1 : 0x7f) {
		wrong += (u32)call(p, 0, 0) != 77;
		/* What was known of it before is of another time now, if it is still there. */
		if (i % 64 == 1)
			invlpg((ulong)p);
		wrong += try_call((void *)(i << 48), 0, 0, 0) != GP;
		wrong += try_call((void *)((ulong)p ^ i << 48), 0, 0, 0) != GP;
	}
	for (unsigned round = 0; round < 4; round++) {
		wrong += (u32)call(p, 0, 0) != 77;
		invlpg((ulong)p);
		for (ulong i = 1; i < 0x400; i++)
			wrong += try_call((void *)((ulong)p ^ i << 48), 0, 0, 0) != GP;
	}
	check_eq(wrong, 0, "wrong results");
}

/* A call through the very word that it pushes the return address to, for targets that nobody knows yet. */
SNIPPET(call_below, "mov %rdi, -8(%rsp)\n call *-8(%rsp)\n add $1, %eax\n ret");
SNIPPET(call_alias, "mov %rdi, (%rsi)\n call *(%rsi)\n add $1, %eax\n ret");

static void call_through_the_slot(void)
{
	ulong va = 8ul << 40;
	u8 *p = pages_alloc(200), *stack = page_alloc();
	unsigned wrong = 0;

	section("calls through the word that they push to");
	map(va, (ulong)stack, PTE_P | PTE_W, 1);
	for (unsigned i = 0; i < 200; i++) {
		u8 *f = p + i * 4096 + i * 16;

		emit_mov_ret(f, i);
		for (unsigned n = 0; n < 2; n++) {
			ulong slot;

			wrong += (u32)call(call_below, (ulong)f, 0) != i + 1;
			/* The same word by another address. */
			asm volatile("mov %%rsp, %%rbx\n mov %[stack], %%rsp\n mov %[alias], %%rsi\n"
				     "mov %[to], %%rdi\n call call_alias\n mov %%rbx, %%rsp\n"
				     : "=a"(slot)
				     : [stack] "r"(stack + 2048), [alias] "r"(va + 2048 - 16), [to] "r"(f)
				     : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc",
				       "memory");
			wrong += (u32)slot != i + 1;
		}
	}
	check_eq(wrong, 0, "wrong results");
}

/* Two accesses by one register that are as far apart as displacements let them be. */
static void far_apart(void)
{
	u8 *one = page_alloc(), *two = page_alloc(), *p = page_alloc();
	unsigned wrong = 0;

	section("far apart by one register");
	PUT(one, "\x48\x8b\x87\xf8\xff\xff\x3f\xc3");
	PUT(two, "\x48\x8b\x8f\0\0\0\xc0\x48\x8b\x87\xf8\xff\xff\x3f\xc3");
	for (unsigned i = 0; i < 100; i++) {
		ulong base = (ulong)p + (1ul << 30);
		int a = (int)try_call(one, base, 0, 0), b = (int)try_call(two, base, 0, 0);

		wrong += a != b;
	}
	check_eq(wrong, 0, "wrong results");
}

/*
 * A page that is mapped elsewhere, of which the processor may know the old and the new place at once until
 * it is told (SDM vol. 3, 4.10.4.3); but not afterwards.
 */
static void told_late(void)
{
	ulong va = 9ul << 40, others = 10ul << 40;
	u8 *p[2] = { page_alloc(), page_alloc() }, *data = page_alloc();
	unsigned wrong = 0;
	u64 *leaf;

	section("a page that is mapped elsewhere, and told later");
	leaf = map(va, (ulong)p[0], PTE_P | PTE_W, 1);
	for (unsigned i = 0; i < 2; i++) {
		PUT(p[i], "\xe9\x7b\0\0\0");			/* jmp to 0x80 */
		PUT(p[i] + 0x40, "\xe9\x3b\0\0\0");
		emit_mov_ret(p[i] + 0x80, i);
	}
	/* As many pages as push the old place of this one out of any TLB, of code or data. */
	data[0x204] = 0xc3;
	for (unsigned i = 0; i < 16384; i++)
		map(others + i * 4096ul, (ulong)data, PTE_P | PTE_W, 1);
	for (unsigned i = 0; i < 8; i++) {
		u32 new = ~i & 1;

		*leaf = (ulong)p[i & 1] | PTE_P | PTE_W;
		invlpg(va);
		wrong += (u32)call((void *)(va + 0x80), 0, 0) != (i & 1);
		*leaf = (ulong)p[new] | PTE_P | PTE_W;
		for (unsigned k = 0; k < 16384; k++)
			call((void *)(others + k * 4096ul + 0x204), 0, 0);
		call((void *)va, 0, 0);
		call((void *)(va + 0x40), 0, 0);
		invlpg(va);
		for (unsigned k = 0; k < 50; k++)
			wrong += (u32)call((void *)(va + (k & 1) * 0x40), 0, 0) != new;
	}
	check_eq(wrong, 0, "wrong results");
}

static void second_page(void)
{
	ulong va = 7ul << 40;
	u8 *p = page_alloc(), *q[4];
	u64 *leaf;
	unsigned wrong = 0, faults = 0;

	section("an instruction whose second page is another one");
	map(va, (ulong)p, PTE_P | PTE_W, 1);
	leaf = map(va + 4096, 0, 0, 1);
	p[4094] = 0xb8;
	p[4095] = 0x44;
	for (unsigned i = 0; i < 4; i++) {
		q[i] = page_alloc();
		PUT(q[i], "\0\0\0\xc3");
		q[i][0] = (u8)i;
	}
	for (unsigned i = 0; i < 8000; i++) {
		unsigned k = random_below(5);

		*leaf = k < 4 ? (ulong)q[k] | PTE_P | PTE_W : 0;
		invlpg(va + 4096);
		if (k < 4) {
			wrong += (u32)call((void *)(va + 4094), 0, 0) != (0x44 | k << 8);
			/* Changed there, and back. */
			q[k][1] = 7;
			serialize();
			wrong += (u32)call((void *)(va + 4094), 0, 0) != (0x70044 | k << 8);
			q[k][1] = 0;
		} else {
			wrong += try_call((void *)(va + 4094), 0, 0, 0) != PF || last.cr2 != va + 4096;
			faults++;
		}
	}
	check_eq(wrong, 0, "wrong results");
	check(faults > 100, "some of them faulted");
}

/* ---- Traps over code that changes ------------------------------------------------------------------ */

static u8 *trap_target;
static volatile u32 steps;

static void on_change(struct frame *f)
{
	/* What it returns to is another instruction now. */
	put32(trap_target + 1, (u32)++steps * 3);
}

static void iret_into_change(void)
{
	u8 *p = page_alloc(), *q = PUT(p, "\xcc");	/* int3 */
	unsigned wrong = 0;

	section("IRETQ into code that has changed");
	trap_target = q;
	on_trap(BP, on_change);
	for (unsigned i = 0; i < 3000; i++) {
		emit_mov_ret(q, 1);
		steps = i;
		wrong += (u32)call(p, 0, 0) != (i + 1) * 3;
	}
	on_trap(BP, NULL);
	check_eq(wrong, 0, "wrong results");
}

/* Each step writes the immediate of the next addition. */
static void on_step(struct frame *f)
{
	u8 *at = (u8 *)f->ip;

	steps++;
	if (at[0] == 0x83 && at[1] == 0xc0)
		at[2] = (u8)(steps & 63);
}

SNIPPET(stepped, "pushf\n orl $0x100, (%rsp)\n xor %eax, %eax\n popf\n"
	".rept 20\n add $1, %eax\n nop\n .endr\n"
	"pushf\n andl $~0x100, (%rsp)\n popf\n ret");

static void single_steps(void)
{
	u8 *p = page_alloc();
	u32 first = 0;

	section("single steps over code that changes");
	on_trap(DB, on_step);
	for (unsigned turn = 0; turn < 20; turn++) {
		u32 sum;

		steps = 0;
		memcpy(p, stepped, (size_t)(stepped_end - stepped));
		sum = (u32)call(p, 0, 0);
		if (!turn)
			first = sum;
		check_eq(sum, first, "the sum, time %u", turn);
		/* One trap after the POPF that set TF?  No: after the instruction behind it, and so on. */
		check_eq(steps, 43, "steps, time %u", turn);
		set_dr6(0);
	}
	/* 20 additions see the steps 0 (none), 2, 4 ...: the first one has had no trap before it. */
	check_eq(first, 1 + 2 * (19 * 20 / 2), "the sum of what the steps wrote");
	/* Without TF, the same bytes are the same code. */
	on_trap(DB, NULL);
	emit_mov_ret(p, 5);
	check_eq((u32)call(p, 0, 0), 5, "and without steps");
}

static volatile unsigned hits;

static void on_break(struct frame *f)
{
	hits++;
	f->flags |= FL_RF;
	set_dr6(0);
}

/* A breakpoint stays where it is, whatever the code there becomes. */
static void breakpoints(void)
{
	u8 *p = page_alloc();
	unsigned wrong = 0;

	section("breakpoints over code that changes");
	on_trap(DB, on_break);
	emit_mov_ret(p, 1);
	put_call(p + 64, 0xe9, p);
	for (unsigned i = 0; i < 200; i++)	/* it is well known by now */
		call(p + 64, 0, 0);
	set_dr0((ulong)p);
	set_dr7(0x402);
	hits = 0;
	for (unsigned i = 0; i < 300; i++) {
		emit_mov_ret(p, i);
		wrong += (u32)call(p + (i & 1 ? 64 : 0), 0, 0) != i;
	}
	set_dr7(0x400);
	check_eq(hits, 300, "hits of an instruction breakpoint");
	/* A watched byte of code: after the store, once each. */
	hits = 0;
	set_dr0((ulong)p + 1);
	set_dr7(0x402 | 1 << 16);
	for (unsigned i = 0; i < 300; i++) {
		*(volatile u8 *)(p + 1) = (u8)i;
		wrong += ((u32)call(p, 0, 0) & 0xff) != (i & 0xff);
	}
	set_dr7(0x400);
	on_trap(DB, NULL);
	check_eq(hits, 300, "hits of a data breakpoint in code");
	for (unsigned i = 0; i < 300; i++) {
		emit_mov_ret(p, i);
		wrong += (u32)call(p + 64, 0, 0) != i;
	}
	check_eq(hits, 300, "no more hits");
	check_eq(wrong, 0, "wrong results");
}

/* ---- One page, several lives --------------------------------------------------------------------------- */

/* Trampolines on the stack, as nested functions of GNU C make them, at ever other depths. */
static u32 trampoline(unsigned depth, u32 v)
{
	u8 code[16];
	u32 got;

	emit_mov_ret(code, v);
	got = (u32)call(code, 0, 0);
	emit_mov_ret(code, v + 1);
	got += (u32)call(code, 0, 0);
	return depth ? got + trampoline(depth - 1, v + 7) : got;
}

static void trampolines(void)
{
	unsigned wrong = 0;

	section("trampolines on the stack");
	for (unsigned i = 0; i < 4000; i++) {
		unsigned depth = i % 9;
		u32 want = 0;

		for (unsigned d = 0; d <= depth; d++)
			want += 2 * (i + 7 * d) + 1;
		wrong += trampoline(depth, i) != want;
	}
	check_eq(wrong, 0, "wrong results");
}

/* inc %eax twice as 32-bit code; a REX prefix and one of them as 64-bit code. */
SNIPPET(both_modes, "mov $16, %eax\n .byte 0x40\n .byte 0x40\n nop\n int $0x80");

/* The same bytes of the same page as kernel's and user's, as 64-bit and 32-bit code, and changing. */
static void modes(void)
{
	u8 *p = pages_alloc(2);
	unsigned wrong = 0;

	section("one page as code of several modes");
	*pte_of(0, 4) |= PTE_U;
	*pte_of(0, 3) |= PTE_U;
	*pte_of((ulong)p, 2) |= PTE_U;
	set_cr3(get_cr3());
	for (unsigned i = 0; i < 600; i++) {
		u32 v = random_below(0x10000000);
		ulong stack = (ulong)p + 8192 - 64;
		const void *how = i % 3 ? (const void *)enter_user32 : (const void *)enter_user;

		memcpy(p, both_modes, (size_t)(both_modes_end - both_modes));
		put32(p + 1, v);
		wrong += try_call(how, (ulong)p, stack, 2) != VEC_RETURN;
		wrong += (u32)last.f.ax != v + (i % 3 ? 2 : 0);
		/* As the kernel's, where INT 80h comes from CPL 0. */
		if (i % 4 == 0) {
			wrong += try_call(p, 0, 0, 0) != VEC_RETURN;
			wrong += (u32)last.f.ax != v;
		}
	}
	check_eq(wrong, 0, "wrong results");
}

/* Counters beside code that changes now and then. */
static void beside(void)
{
	u8 *p = page_alloc();
	volatile u64 *counter = (volatile u64 *)(p + 2048);
	unsigned wrong = 0;
	u64 want = 0;

	section("data that is busy beside code that changes");
	for (unsigned i = 0; i < 50000; i++) {
		if (i % 97 == 0)
			emit_mov_ret(p, i);
		*counter += call(p, 0, 0);
		want += i - i % 97;
		if (i % 5000 == 0)
			wrong += *counter != want;
	}
	check_eq(wrong, 0, "wrong counts");
	check_eq(*counter, want, "the count at the end");
}

void guest_main(void)
{
	own_blocks();
	copies();
	other_stores();
	chain();
	aliases();
	half_remapped();
	no_addresses();
	call_through_the_slot();
	far_apart();
	told_late();
	second_page();
	iret_into_change();
	single_steps();
	breakpoints();
	trampolines();
	modes();
	beside();
	many_functions();
	generator(guest_option("short") ? 5000 : 100000);
}
