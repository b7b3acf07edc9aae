/*
 * Paging in 32-bit mode: two levels with 4 KiB and 4 MiB pages, and PAE with
 * NX.  SDM vol. 3, 4.3 and 4.4.
 */
#include "lib/guest.h"

#define CR0_WP BIT(16)
#define CR0_PG BIT(31)
#define CR4_PSE BIT(4)
#define CR4_PAE BIT(5)
#define CR4_PGE BIT(7)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define EFER 0xc0000080
#define EFER_NXE BIT(11)

enum kind { READ, WRITE, EXEC };

#define WINDOW	0x40000000ul	/* where the tested page is seen */
#define USERS	0x50000000ul	/* user code, stack above it */

SNIPPET(k_read, "mov 4(%esp), %edx\n push 8(%esp)\n popfl\n mov (%edx), %eax\n ret");
SNIPPET(k_write, "mov 4(%esp), %edx\n push 8(%esp)\n popfl\n mov %eax, 8(%edx)\n ret");
SNIPPET(k_exec, "mov 4(%esp), %edx\n push 8(%esp)\n popfl\n call *%edx\n ret");
SNIPPET(u_access, "mov (%esp), %edi\n mov 4(%esp), %esi\n cmp $1, %esi\n je 1f\n cmp $2, %esi\n je 2f\n"
	"mov (%edi), %eax\n int $0x80\n 1: mov %eax, 8(%edi)\n int $0x80\n 2: call *%edi\n int $0x80\n");

static const char *const kinds[] = { "read", "write", "execute" };
static bool pae;
static void *top;		/* page directory, or directory pointers */
static u8 *scratch;
static u32 *user_stack;		/* our view: the last words are arguments */

/* The entry for va at level 1 or 2, made on the way. */
static u32 *entry32(ulong va, unsigned level)
{
	u32 *pd = top;
	u32 *pde = &pd[va >> 22];

	if (level == 2)
		return pde;
	if (!(*pde & PTE_P))
		*pde = (ulong)page_alloc() | 7;
	return &((u32 *)(*pde & ~0xffful))[va >> 12 & 1023];
}

static u64 *entry64(ulong va, unsigned level)
{
	u64 *pdpt = top;
	u64 *pd, *pde;

	if (!(pdpt[va >> 30] & PTE_P))
		pdpt[va >> 30] = (ulong)page_alloc() | 1;
	pd = (u64 *)(ulong)(pdpt[va >> 30] & ~0xfffull);
	pde = &pd[va >> 21 & 511];
	if (level == 2)
		return pde;
	if (!(*pde & PTE_P))
		*pde = (ulong)page_alloc() | 7;
	return &((u64 *)(ulong)(*pde & ~0xfffull))[va >> 12 & 511];
}

static void set_entry(ulong va, unsigned level, u64 v)
{
	if (pae)
		*entry64(va, level) = v;
	else
		*entry32(va, level) = v;
}

static u64 get_entry(ulong va, unsigned level)
{
	return pae ? *entry64(va, level) : *entry32(va, level);
}

static unsigned large_shift(void)
{
	return pae ? 21 : 22;
}

static int access(ulong va, enum kind kind, unsigned cpl, bool ac)
{
	static const void *const fns[] = { k_read, k_write, k_exec };
	int vec;

	if (!cpl)
		return try_call(fns[kind], va, 2 | (ac ? FL_AC : 0), 0);
	user_stack[0] = va;
	user_stack[1] = kind;
	vec = try_call(enter_user, USERS, USERS + 0x2000 - 8, 2);
	return vec == VEC_RETURN ? -1 : vec;
}

struct setting { bool u, w, nx, wp, smep, smap, ac; };

static bool allowed(const struct setting *s, enum kind kind, unsigned cpl)
{
	if (cpl == 3)
		return s->u && (kind == READ || (kind == WRITE ? s->w : !s->nx));
	if (kind == EXEC)
		return !s->nx && !(s->u && s->smep);
	if (s->u && s->smap && !s->ac)
		return false;
	return kind == READ || s->w || !s->wp;
}

static void check_access(const struct setting *s, ulong va, enum kind kind, unsigned cpl)
{
	int vec = access(va, kind, cpl, s->ac);
	/* The instruction bit exists with SMEP, or with PAE and NXE. */
	unsigned err = 1 | (kind == WRITE) << 1 | (cpl ? 4 : 0) |
		       (kind == EXEC && (pae || s->smep) ? 16 : 0);

	if (allowed(s, kind, cpl))
		check(vec == -1, "%s at CPL %u, u%u w%u nx%u wp%u smep%u smap%u ac%u: vector %d",
		      kinds[kind], cpl, s->u, s->w, s->nx, s->wp, s->smep, s->smap, s->ac, vec);
	else
		check(vec == PF && last.f.err == err && last.cr2 == va + (kind == WRITE ? 8 : 0),
		      "%s at CPL %u, u%u w%u nx%u wp%u smep%u smap%u ac%u: vector %d error 0x%lx want "
		      "0x%x cr2 0x%lx", kinds[kind], cpl, s->u, s->w, s->nx, s->wp, s->smep, s->smap,
		      s->ac, vec, last.f.err, err, last.cr2);
}

static u64 bits(unsigned b)
{
	return PTE_P | (b & 1 ? PTE_U : 0) | (b & 2 ? PTE_W : 0) | (b & 4 ? PTE_NX : 0);
}

static void permissions(unsigned level)
{
	ulong pa = (ulong)scratch, va = WINDOW + (level == 2 ? pa & ((1ul << large_shift()) - 1) : 0);
	u64 frame = level == 2 ? pa & ~((1ul << large_shift()) - 1) : pa;
	unsigned combos = pae ? 8 : 4;
	u64 table;

	set_entry(va, 2, 0);
	table = level == 1 ? (get_entry(va, 1), get_entry(va, 2) & 0xfffffffffffff000ull) : 0;
	for (unsigned mode = 0; mode < 16; mode++) {
		struct setting s = { .wp = !(mode & 1), .smep = mode & 2, .smap = mode & 4,
				     .ac = mode & 8 };

		if ((s.smep && !HAS_SMEP) || (s.smap && !HAS_SMAP))
			continue;
		set_cr0((get_cr0() & ~CR0_WP) | (s.wp ? CR0_WP : 0));
		set_cr4((get_cr4() & ~(CR4_SMEP | CR4_SMAP)) | (s.smep ? CR4_SMEP : 0) |
			(s.smap ? CR4_SMAP : 0));
		for (unsigned l = 0; l < combos; l++) {
			for (unsigned u = 0; u < (level == 1 ? combos : 1); u++) {
				unsigned both = level == 1 ? (l & u & 3) | ((l | u) & 4) : l;

				if (level == 1) {
					set_entry(va, 2, table | bits(u));
					set_entry(va, 1, frame | bits(l));
				} else {
					set_entry(va, 2, frame | bits(l) | PTE_PS);
				}
				invlpg(va);
				s.u = both & 1;
				s.w = both & 2;
				s.nx = both & 4;
				for (unsigned kind = READ; kind <= EXEC; kind++)
					for (unsigned cpl = 0; cpl <= 3; cpl += 3)
						check_access(&s, va, kind, cpl);
			}
		}
	}
	set_cr0(get_cr0() | CR0_WP);
	set_cr4(get_cr4() & ~(CR4_SMEP | CR4_SMAP));
	/* Accessed and dirty. */
	set_entry(va, 2, level == 1 ? table | 7 : (frame | PTE_PS | 7));
	if (level == 1)
		set_entry(va, 1, frame | 7);
	set_cr3(get_cr3());
	access(va, READ, 0, false);
	check_eq(get_entry(va, level) & (PTE_A | PTE_D), PTE_A, "read sets accessed");
	access(va, WRITE, 0, false);
	check_eq(get_entry(va, level) & (PTE_A | PTE_D), PTE_A | PTE_D, "write sets dirty");
	check(get_entry(va, 2) & PTE_A, "accessed in the directory");
	set_entry(va, 2, 0);
	invlpg(va);
	check_eq(access(va, WRITE, 3, false), PF, "not present");
	check_eq(last.f.err, 6, "error code");
}

static void common_map(void)
{
	ulong code = (ulong)page_alloc();

	user_stack = page_alloc();
	memcpy((void *)code, u_access, u_access_end - u_access);
	/* The low 256 MiB and the devices, for the supervisor. */
	for (ulong va = 0; va < 0x10000000; va += 1ul << large_shift())
		set_entry(va, 2, va | PTE_P | PTE_W | PTE_PS);
	set_entry(USERS, 1, code | 7);
	set_entry(USERS + 0x1000, 1, (ulong)user_stack | 7);
	user_stack += 1022;
}

static void switch_on(void)
{
	set_cr3((ulong)top);
	set_cr0(get_cr0() | CR0_PG);
}

static void switch_off(void)
{
	set_cr0(get_cr0() & ~CR0_PG);
}

static void reserved(const char *what, ulong va, unsigned level, u64 bit)
{
	u64 old = get_entry(va, level);

	set_entry(va, level, old | bit);
	set_cr3(get_cr3());
	check_eq(access(va, READ, 0, false), PF, "%s", what);
	check_eq(last.f.err | (on_tcg ? 1 : 0), 9, "%s: error code", what);
	set_entry(va, level, old);
	set_cr3(get_cr3());
}

static void two_levels(void)
{
	section("two levels, 4 KiB");
	pae = false;
	top = page_alloc();
	set_cr4((get_cr4() & ~CR4_PAE) | CR4_PSE);
	common_map();
	switch_on();
	permissions(1);
	section("two levels, 4 MiB");
	permissions(2);
	/* Without PSE the bit means nothing. */
	section("CR4.PSE");
	ulong table = (ulong)page_alloc();
	set_entry(WINDOW, 2, table | 7);
	set_entry(WINDOW, 1, (ulong)scratch | 7);
	set_cr3(get_cr3());
	check_eq(access(WINDOW, READ, 0, false), -1, "a table");
	set_entry(WINDOW, 2, 0 | 7 | PTE_PS | 1 << 21);
	set_cr3(get_cr3());
	if (!on_tcg) {
		check_eq(access(WINDOW, READ, 0, false), PF, "4 MiB page, bit 21 reserved");
		check_eq(last.f.err, 9, "its error code");
	}
	set_entry(WINDOW, 2, 0);
	set_cr3(get_cr3());

	switch_off();
}

SNIPPET(w_cr3, "mov 4(%esp), %eax\n mov %eax, %cr3\n ret");

static void three_levels(void)
{
	section("PAE, 4 KiB");
	pae = true;
	top = page_alloc();
	set_cr4(get_cr4() | CR4_PAE);
	wrmsr(EFER, rdmsr(EFER) | EFER_NXE);
	common_map();
	entry64(WINDOW, 2);
	switch_on();
	permissions(1);
	section("PAE, 2 MiB");
	permissions(2);

	section("PAE reserved bits");
	set_entry(WINDOW, 2, 0);
	set_entry(WINDOW, 1, (ulong)scratch | 7);
	invlpg(WINDOW);
	reserved("page table entry, bit 62", WINDOW, 1, BIT(62));
	reserved("directory entry, bit 52", WINDOW, 2, BIT(52));
	wrmsr(EFER, rdmsr(EFER) & ~EFER_NXE);
	reserved("bit 63 without NXE", WINDOW, 1, PTE_NX);
	wrmsr(EFER, rdmsr(EFER) | EFER_NXE);

	section("PAE directory pointers");
	u64 *pdpt = top;
	u64 saved = pdpt[1];
	/* They are loaded with CR3, and only then (4.4.1). */
	pdpt[1] = 0;
	invlpg(WINDOW);
	if (!on_tcg)
		check_eq(access(WINDOW, READ, 0, false), -1, "a change is not seen before CR3 is written");
	set_cr3(get_cr3());
	check_eq(access(WINDOW, READ, 0, false), PF, "but afterwards");
	pdpt[1] = saved | PTE_W;		/* bit 1 is reserved here */
	if (!on_tcg)
		check_eq(try_call(w_cr3, get_cr3(), 0, 0), GP, "reserved bit in a pointer");
	pdpt[1] = saved;
	set_cr3(get_cr3());
	check_eq(access(WINDOW, READ, 0, false), -1, "as before");
	/* CR3 5:11 select the table within a page. */
	u64 *shifted = (u64 *)((ulong)page_alloc() + 0x20);
	memcpy(shifted, top, 32);
	set_cr3((ulong)shifted);
	check_eq(access(WINDOW, READ, 0, false), -1, "pointers at an offset of 32");
	switch_off();
	set_cr4(get_cr4() & ~CR4_PAE);
}

void guest_main(void)
{
	scratch = page_alloc();
	scratch[0] = 0xc3;
	two_levels();
	three_levels();
}
