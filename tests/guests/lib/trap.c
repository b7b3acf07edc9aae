#include "guest.h"

#ifdef __x86_64__
struct gate { u16 lo, sel, attr, mid; u32 hi, zero; } __attribute__((packed));
#else
struct gate { u16 lo, sel, attr, mid; } __attribute__((packed));
#endif

extern const char trap_stubs[256][16];
extern ulong try_sp;
extern void try_unwind(int vec) __attribute__((noreturn));
void trap_c(struct frame *f);
void trap_init(void);

struct trap last;
volatile ulong trap_count[256];
ulong try_result;
struct tss tss;
static struct gate idt[256] __attribute__((aligned(16)));
static trap_fn handlers[256];
static u8 ring0_stack[16384] __attribute__((aligned(16)));

void on_trap(unsigned vec, trap_fn fn)
{
	handlers[vec] = fn;
}

void trap_c(struct frame *f)
{
	unsigned vec = f->vec & 0xff;

	trap_count[vec]++;
	if (handlers[vec]) {
		handlers[vec](f);
		return;
	}
	last.cr2 = get_cr2();
	last.dr6 = get_dr6();
	last.kernel_sp = (ulong)f;
	last.f = *f;
	if (!try_sp)
		die("trap %u, error code 0x%lx, ip 0x%lx, cs 0x%lx, cr2 0x%lx", vec, f->err, f->ip,
		    f->cs, last.cr2);
	try_unwind(vec);
}

const void *trap_stub(unsigned vec)
{
	return trap_stubs[vec];
}

void set_gate(unsigned vec, const void *target, u16 sel, unsigned type, unsigned dpl, unsigned ist)
{
	ulong t = (ulong)target;
	struct gate *g = &idt[vec];

	g->lo = t;
	g->sel = sel;
	g->attr = 0x8000 | dpl << 13 | type << 8 | ist;
	g->mid = t >> 16;
#ifdef __x86_64__
	g->hi = t >> 32;
	g->zero = 0;
#endif
}

/* attr is type, S, DPL, P in 7:0 and AVL, L, D in 14:12 (G follows from the limit). */
u64 segment(u32 base, u32 limit, u32 attr)
{
	if (limit > 0xfffff) {
		limit >>= 12;
		attr |= 0x8000;
	}
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)(attr & 0xf0ff) << 40 |
	       (u64)(limit >> 16 & 0xf) << 48 | (u64)(base >> 24) << 56;
}

void set_tss_descriptor(unsigned sel, const void *base, u32 limit)
{
	ulong b = (ulong)base;

	gdt[sel / 8] = segment(b, limit, 0x89);
#ifdef __x86_64__
	gdt[sel / 8 + 1] = b >> 32;
#endif
}

void trap_init(void)
{
	struct { u16 limit; ulong base; } __attribute__((packed)) idtr = {
		sizeof(idt) - 1, (ulong)idt
	};

	for (unsigned i = 0; i < 256; i++)
		set_gate(i, trap_stubs[i], KCODE, 0xe, i == VEC_RETURN ? 3 : 0, 0);
	asm volatile("lidt %0" :: "m"(idtr));
#ifdef __x86_64__
	tss.rsp[0] = (ulong)(ring0_stack + sizeof(ring0_stack));
#else
	tss.esp0 = (ulong)(ring0_stack + sizeof(ring0_stack));
	tss.ss0 = KDATA;
#endif
	tss.iomap = offsetof(struct tss, bitmap);
	memset(tss.bitmap, 0xff, sizeof(tss.bitmap));
	set_tss_descriptor(TSS_SEL, &tss, sizeof(tss) - 1);
	asm volatile("ltr %w0" :: "r"(TSS_SEL));
}
