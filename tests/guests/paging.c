/*
 * Paging in long mode: every combination of permissions at three page sizes,
 * accessed and dirty bits, reserved bits, what must be seen after a flush,
 * PCIDs.  SDM vol. 3, chapter 4.
 */
#include "lib/guest.h"

#define CR0_WP BIT(16)
#define CR4_PGE BIT(7)
#define CR4_PCIDE BIT(17)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define EFER 0xc0000080
#define EFER_NXE BIT(11)

#define ERR_P 1u
#define ERR_W 2u
#define ERR_U 4u
#define ERR_RSVD 8u
#define ERR_I 16u

enum kind { READ, WRITE, EXEC };

SNIPPET(k_read, "push %rsi\n popfq\n mov (%rdi), %rax\n ret");
SNIPPET(k_write, "push %rsi\n popfq\n mov %rdx, 8(%rdi)\n ret");
SNIPPET(k_exec, "push %rsi\n popfq\n call *%rdi\n ret");
SNIPPET(u_access,
	"movabs $0x8000200000, %rbx\n"	/* USER_DATA: address, kind */
	"mov (%rbx), %rdi\n mov 8(%rbx), %rsi\n"
	"cmp $1, %rsi\n je 1f\n cmp $2, %rsi\n je 2f\n"
	"mov (%rdi), %rax\n int $0x80\n"
	"1: mov %rax, 8(%rdi)\n int $0x80\n"
	"2: call *%rdi\n int $0x80\n");

static const char *const kinds[] = { "read", "write", "execute" };
static u8 *scratch;		/* begins with a RET */
static u64 *user_data;		/* our view of USER_DATA */
static ulong user_ip;

/* Makes one access and returns the vector that it ended in, or -1. */
static int access(ulong va, enum kind kind, unsigned cpl, bool ac)
{
	static const void *const fns[] = { k_read, k_write, k_exec };
	ulong flags = 2 | (ac ? FL_AC : 0);
	int vec;

	if (cpl == 0)
		return try_call(fns[kind], va, flags, 0x55);
	user_data[0] = va;
	user_data[1] = kind;
	vec = try_call(enter_user, user_ip, USER_STACK, 2);
	return vec == VEC_RETURN ? -1 : vec;
}

struct setting {
	bool u, w, nx;		/* effective */
	bool wp, smep, smap, ac;
};

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

/* The three places where the same scratch page is seen, by level. */
static ulong window(unsigned level)
{
	ulong base = (ulong)level << 40, pa = (ulong)scratch;

	return base + (level == 1 ? 0 : level == 2 ? pa & 0x1fffff : pa & 0x3fffffff);
}

static u64 frame_of(unsigned level)
{
	return (ulong)scratch & ~((1ul << (12 + 9 * (level - 1))) - 1);
}

static u64 leaf_flags(unsigned bits)
{
	return PTE_P | (bits & 1 ? PTE_U : 0) | (bits & 2 ? PTE_W : 0) | (bits & 4 ? PTE_NX : 0);
}

static void check_access(const struct setting *s, ulong va, enum kind kind, unsigned cpl,
			 const char *what)
{
	int vec = access(va, kind, cpl, s->ac);
	unsigned err = ERR_P | (kind == WRITE ? ERR_W : 0) | (cpl ? ERR_U : 0) |
		       (kind == EXEC ? ERR_I : 0);

	if (allowed(s, kind, cpl)) {
		check(vec == -1, "%s: %s at CPL %u, u%u w%u nx%u wp%u smep%u smap%u ac%u: "
		      "vector %d error 0x%lx", what, kinds[kind], cpl, s->u, s->w, s->nx, s->wp,
		      s->smep, s->smap, s->ac, vec, last.f.err);
		return;
	}
	check(vec == PF && last.f.err == err && last.cr2 == va + (kind == WRITE ? 8 : 0),
	      "%s: %s at CPL %u, u%u w%u nx%u wp%u smep%u smap%u ac%u: vector %d, error 0x%lx "
	      "want 0x%x, cr2 0x%lx want 0x%lx", what, kinds[kind], cpl, s->u, s->w, s->nx, s->wp,
	      s->smep, s->smap, s->ac, vec, last.f.err, err, last.cr2, va);
}

static void set_controls(const struct setting *s)
{
	set_cr0((get_cr0() & ~CR0_WP) | (s->wp ? CR0_WP : 0));
	set_cr4((get_cr4() & ~(CR4_SMEP | CR4_SMAP)) | (s->smep ? CR4_SMEP : 0) |
		(s->smap ? CR4_SMAP : 0));
}

static void all_accesses(struct setting *s, ulong va, const char *what)
{
	for (unsigned kind = READ; kind <= EXEC; kind++)
		for (unsigned cpl = 0; cpl <= 3; cpl += 3)
			check_access(s, va, kind, cpl, what);
}

/* Every leaf, every way in which an upper entry restricts it, every control. */
static void permissions(unsigned level, unsigned upper)
{
	static const char *const names[] = { "", "4 KiB", "2 MiB", "1 GiB" };
	ulong va = window(level);
	u64 *leaf = map(va, frame_of(level), PTE_P, level);
	u64 *up = pte_of(va, upper);
	u64 table = *up & 0x000ffffffffff000ull;
	unsigned modes = upper == 4 ? 16 : 1;

	for (unsigned mode = 0; mode < modes; mode++) {
		struct setting s = { .wp = !(mode & 1), .smep = mode & 2, .smap = mode & 4,
				     .ac = mode & 8 };

		if ((s.smep && !HAS_SMEP) || (s.smap && !HAS_SMAP))
			continue;
		set_controls(&s);
		for (unsigned l = 0; l < 8; l++) {
			for (unsigned u = 0; u < 8; u++) {
				*leaf = frame_of(level) | leaf_flags(l) | (level > 1 ? PTE_PS : 0);
				*up = table | leaf_flags(u);
				invlpg(va);
				s.u = l & u & 1;
				s.w = l & u & 2;
				s.nx = (l | u) & 4;
				all_accesses(&s, va, names[level]);
			}
		}
	}
	*up = table | PTE_P | PTE_W | PTE_U;
	set_controls(&(struct setting){ .wp = true });
	set_cr3(get_cr3());
}

static void permission_tests(void)
{
	section("permissions, 4 KiB");
	for (unsigned upper = 4; upper >= 2; upper--)
		permissions(1, upper);
	section("permissions, 2 MiB");
	for (unsigned upper = 4; upper >= 3; upper--)
		permissions(2, upper);
	section("permissions, 1 GiB");
	if (HAS_1G)
		permissions(3, 4);
	else
		skip("no 1 GiB pages");
}

static void not_present(void)
{
	ulong va = window(1);
	u64 *leaf = map(va, (ulong)scratch, 0, 1);

	section("not present");
	invlpg(va);
	for (unsigned kind = READ; kind <= EXEC; kind++) {
		for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
			check_eq(access(va, kind, cpl, false), PF, "%s at CPL %u", kinds[kind], cpl);
			check_eq(last.f.err, (kind == WRITE ? ERR_W : 0) | (cpl ? ERR_U : 0) |
				 (kind == EXEC ? ERR_I : 0), "its error code");
			check_eq(last.cr2, va + (kind == WRITE ? 8 : 0), "its cr2");
		}
	}
	/* Not-present entries are never cached: no flush is needed (4.10.2.3). */
	*leaf = (ulong)scratch | PTE_P | PTE_W | PTE_U;
	check_eq(access(va, READ, 0, false), -1, "made present, without a flush");
	check_eq(access(0xffff123400000000ul - (1ul << 63), READ, 0, false), GP, "not canonical");
	check_eq(last.f.err, 0, "its error code");
}

static void crossing(void)
{
	ulong va = 5ul << 40;
	u8 *page = page_alloc();
	u64 *second;

	section("accesses across two pages");
	map(va, (ulong)page, PTE_P | PTE_W, 1);
	second = map(va + 4096, (ulong)scratch, 0, 1);
	memset(page, 0x11, 4096);
	check_eq(try_call(k_read, va + 4092, 2, 0), PF, "read into a page not present");
	check_eq(last.cr2, va + 4096, "cr2 is where the second page starts");
	check_eq(try_call(k_write, va + 4092 - 8, 2, -1), PF, "write into a page not present");
	check_eq(last.cr2, va + 4096, "cr2 is where the second page starts");
	check_eq(last.f.err, ERR_W, "error code");
	check_eq(page[4092], 0x11, "nothing was written to the first page");
	*second = (ulong)scratch | PTE_P;
	check_eq(try_call(k_write, va + 4092 - 8, 2, -1), PF, "write into a read-only page");
	check_eq(last.f.err, ERR_W | ERR_P, "error code");
	check_eq(page[4092], 0x11, "nothing was written to the first page");
}

static void accessed_dirty(unsigned level)
{
	ulong va = window(level);
	u64 base = frame_of(level) | PTE_P | PTE_W | PTE_U | (level > 1 ? PTE_PS : 0);
	u64 *leaf = map(va, frame_of(level), PTE_P | PTE_W | PTE_U, level);

	*leaf = base;
	for (unsigned l = 4; l > level; l--)
		*pte_of(va, l) &= ~PTE_A;
	set_cr3(get_cr3());
	check_eq(access(va, READ, 0, false), -1, "read");
	check_eq(*leaf, base | PTE_A, "read sets accessed only, level %u", level);
	for (unsigned l = 4; l > level; l--)
		check(*pte_of(va, l) & PTE_A, "and in the entry of level %u", l);
	check_eq(access(va, WRITE, 0, false), -1, "write");
	check_eq(*leaf, base | PTE_A | PTE_D, "write after read sets dirty, level %u", level);
	*leaf = base;
	invlpg(va);
	check_eq(access(va, EXEC, 3, false), -1, "execute");
	check_eq(*leaf, base | PTE_A, "execute sets accessed, level %u", level);
	*leaf = base & ~PTE_W;
	invlpg(va);
	check_eq(access(va, WRITE, 0, false), PF, "refused write");
	check_eq(*leaf & PTE_D, 0, "a refused write does not set dirty");
}

static void reserved(const char *what, u64 *entry, u64 bits, ulong va)
{
	u64 old = *entry;
	u64 present = on_tcg ? 0 : ERR_P;	/* TCG leaves it out; 4.7 says it must be set */

	*entry = old | bits;
	set_cr3(get_cr3());
	check_eq(access(va, READ, 0, false), PF, "%s", what);
	check_eq(last.f.err, present | ERR_RSVD, "%s: error code", what);
	check_eq(access(va, WRITE, 3, false), PF, "%s, write at CPL 3", what);
	check_eq(last.f.err, present | ERR_RSVD | ERR_W | ERR_U, "%s: error code", what);
	*entry = old;
	set_cr3(get_cr3());
}

static void reserved_bits(void)
{
	ulong va1 = window(1), va2 = window(2), va3 = window(3);
	u32 a, b, c, d, phys;

	section("reserved bits");
	cpuid(0x80000008, 0, &a, &b, &c, &d);
	phys = a & 0xff;
	map(va1, (ulong)scratch, PTE_P | PTE_W | PTE_U, 1);
	map(va2, frame_of(2), PTE_P | PTE_W | PTE_U, 2);
	if (phys < 52)
		for (unsigned l = 1; l <= 4; l++)
			reserved("address bit above MAXPHYADDR", pte_of(va1, l), BIT(phys), va1);
	else
		skip("all physical address bits exist");
	reserved("2 MiB page, bit 13", pte_of(va2, 2), BIT(13), va2);
	reserved("2 MiB page, bit 20", pte_of(va2, 2), BIT(20), va2);
	reserved("PS in a PML4 entry", pte_of(va1, 4), PTE_PS, va1);
	if (HAS_1G) {
		map(va3, frame_of(3), PTE_P | PTE_W | PTE_U, 3);
		reserved("1 GiB page, bit 13", pte_of(va3, 3), BIT(13), va3);
		reserved("1 GiB page, bit 29", pte_of(va3, 3), BIT(29), va3);
	} else {
		reserved("PS in a PDPT entry", pte_of(va1, 3), PTE_PS, va1);
	}
	wrmsr(EFER, rdmsr(EFER) & ~EFER_NXE);
	reserved("bit 63 without NXE", pte_of(va1, 1), PTE_NX, va1);
	*pte_of(va1, 1) = 0;
	invlpg(va1);
	check_eq(access(va1, EXEC, 0, false), PF, "fetch without NXE");
	check_eq(last.f.err, 0, "has no instruction bit in its error code");
	wrmsr(EFER, rdmsr(EFER) | EFER_NXE);
}

/* What must be visible after each way of flushing; staleness before it is never checked. */
static void flushes(u64 global)
{
	ulong va = 6ul << 40;
	u64 *one = page_alloc(), *two = page_alloc(), *leaf;
	u64 flags = PTE_P | PTE_W | global;

	*one = 1;
	*two = 2;
	leaf = map(va, (ulong)one, flags, 1);
	invlpg(va);
	check_eq(*(volatile u64 *)va, 1, "first mapping");
	*leaf = (ulong)two | flags;
	invlpg(va + 123);
	check_eq(*(volatile u64 *)va, 2, "after INVLPG");
	*leaf = (ulong)one | flags;
	if (global) {
		set_cr4(get_cr4() ^ CR4_PGE);
		set_cr4(get_cr4() ^ CR4_PGE);
	} else {
		set_cr3(get_cr3());
	}
	check_eq(*(volatile u64 *)va, 1, global ? "after CR4.PGE" : "after CR3");
	*leaf = (ulong)two | flags;
	set_cr0(get_cr0() & ~CR0_WP);
	invlpg(va);
	set_cr0(get_cr0() | CR0_WP);
	check_eq(*(volatile u64 *)va, 2, "after INVLPG with WP clear");
	*leaf = 0;
	invlpg(va);
}

SNIPPET(w_cr0, "mov %rdi, %cr0\n ret");
SNIPPET(w_cr3, "mov %rdi, %cr3\n ret");
SNIPPET(w_cr4, "mov %rdi, %cr4\n ret");
SNIPPET(w_msr, "mov %edi, %ecx\n mov %esi, %eax\n mov %rsi, %rdx\n shr $32, %rdx\n wrmsr\n ret");

static void control_registers(void)
{
	ulong cr0 = get_cr0(), cr4 = get_cr4();

	section("control registers");
	if (on_tcg) {
		skip("TCG checks none of them");
	} else {
		check_eq(try_call(w_cr0, cr0 & ~BIT(0), 0, 0), GP, "PG without PE");
		check_eq(try_call(w_cr0, (cr0 | BIT(29)) & ~BIT(30), 0, 0), GP, "NW without CD");
		check_eq(try_call(w_cr0, cr0 | BIT(32), 0, 0), GP, "CR0 bit 32");
		check_eq(try_call(w_cr3, get_cr3() | BIT(62), 0, 0), GP, "CR3 bit 62");
		check_eq(try_call(w_cr3, get_cr3() | BIT(63), 0, 0), GP, "CR3 bit 63 without PCIDs");
		check_eq(try_call(w_cr0, cr0 & ~BIT(31), 0, 0), GP, "PG clear in 64-bit code");
		check_eq(try_call(w_cr4, cr4 & ~BIT(5), 0, 0), GP, "PAE clear in long mode");
		check_eq(try_call(w_cr4, cr4 | BIT(15), 0, 0), GP, "CR4 reserved bit");
		check_eq(try_call(w_msr, EFER, rdmsr(EFER) & ~BIT(8), 0), GP, "LME clear with paging");
		check_eq(try_call(w_msr, EFER, rdmsr(EFER) | BIT(9), 0), GP, "EFER reserved bit");
	}
	check_eq(get_cr0(), cr0, "CR0 as it was");
	check_eq(get_cr4(), cr4, "CR4 as it was");
}

SNIPPET(k_invpcid, "invpcid (%rsi), %rdi\n ret");

static int invpcid(u64 type, u64 pcid, u64 va)
{
	u64 desc[2] = { pcid, va };

	return try_call(k_invpcid, type, (ulong)desc, 0);
}

static void invpcid_tests(u64 *leaf, ulong va, u64 *one, u64 *two)
{
	for (unsigned type = 0; type < 4; type++) {
		*leaf = (ulong)one | PTE_P | PTE_W;
		invlpg(va);
		check_eq(*(volatile u64 *)va, 1, "before INVPCID %u", type);
		*leaf = (ulong)two | PTE_P | PTE_W;
		check_eq(invpcid(type, 1, type == 0 ? va : 0), -1, "INVPCID %u", type);
		check_eq(*(volatile u64 *)va, 2, "after INVPCID %u", type);
	}
	check_eq(invpcid(4, 0, 0), GP, "INVPCID 4");
	check_eq(invpcid(1, 0x1000, 0), GP, "INVPCID with reserved bits");
	check_eq(invpcid(0, 1, 1ul << 63), GP, "INVPCID of an address that is not canonical");
}

static void pcid_tests(void)
{
	ulong va = 7ul << 40, base = get_cr3(), second;
	u64 *one = page_alloc(), *two = page_alloc(), *leaf, *other;

	section("PCID");
	if (!HAS_PCID) {
		skip("no PCID");
		return;
	}
	*one = 1;
	*two = 2;
	leaf = map(va, (ulong)one, PTE_P | PTE_W, 1);
	/* A second top table, in which va is another page. */
	second = (ulong)page_alloc();
	memcpy((void *)second, (void *)base, 4096);
	((u64 *)second)[va >> 39 & 511] = 0;
	set_cr3(second);
	map(va, (ulong)two, PTE_P | PTE_W, 1);
	set_cr3(base | 8);
	check_eq(try_call(w_cr4, get_cr4() | CR4_PCIDE, 0, 0), GP, "PCIDE with CR3 11:0 set");
	set_cr3(base);
	set_cr4(get_cr4() | CR4_PCIDE);
	set_cr3(base | 1);
	check_eq(*(volatile u64 *)va, 1, "PCID 1");
	set_cr3(second | 2);
	check_eq(*(volatile u64 *)va, 2, "PCID 2");
	set_cr3(base | 1 | BIT(63));
	check_eq(*(volatile u64 *)va, 1, "PCID 1 again, not flushed");
	check_eq(get_cr3(), base | 1, "CR3 reads without bit 63");
	set_cr3(second | 2 | BIT(63));
	check_eq(*(volatile u64 *)va, 2, "PCID 2 again, not flushed");
	other = pte_of(va, 1);
	check(other != leaf, "two tables");
	*leaf = (ulong)two | PTE_P | PTE_W;
	set_cr3(base | 1);
	check_eq(*(volatile u64 *)va, 2, "PCID 1 flushed by CR3 without bit 63");
	check_eq(try_call(w_cr0, get_cr0() & ~BIT(31), 0, 0), GP, "PG clear with PCIDE");
	if (HAS_INVPCID)
		invpcid_tests(leaf, va, one, two);
	else
		skip("no INVPCID");
	set_cr3(base);
	set_cr4(get_cr4() & ~CR4_PCIDE);
}

/* A table that is changed through a mapping of itself, and a new table in use at once. */
static void table_changes(void)
{
	ulong va = 8ul << 40;
	u64 *pages[4];

	section("tables that change");
	for (unsigned i = 0; i < 4; i++) {
		pages[i] = page_alloc();
		*pages[i] = i;
	}
	for (unsigned i = 0; i < 400; i++) {
		u64 *leaf = map(va, (ulong)pages[i & 3], PTE_P, 1);

		invlpg(va);
		check_eq(*(volatile u64 *)va, i & 3, "mapping %u", i);
		*leaf = 0;
	}
	/* 2 MiB page split into 4 KiB pages and back. */
	map(va + (1ul << 30), frame_of(2), PTE_P | PTE_W, 2);
	check_eq(*(volatile u8 *)(va + (1ul << 30) + ((ulong)scratch & 0x1fffff)), 0xc3, "large");
	*pte_of(va + (1ul << 30), 2) = 0;
	invlpg(va + (1ul << 30));
	map(va + (1ul << 30) + ((ulong)scratch & 0x1ff000), (ulong)pages[3], PTE_P, 1);
	check_eq(*(volatile u64 *)(va + (1ul << 30) + ((ulong)scratch & 0x1ff000)), 3, "small");
}

void guest_main(void)
{
	scratch = page_alloc();
	scratch[0] = 0xc3;
	user_ip = user_code(u_access, u_access_end);
	user_data = (u64 *)(*pte_of(USER_DATA, 1) & 0x000ffffffffff000ull);

	permission_tests();
	not_present();
	crossing();
	section("accessed and dirty");
	for (unsigned level = 1; level <= (HAS_1G ? 3 : 2); level++)
		accessed_dirty(level);
	reserved_bits();
	section("flushes");
	flushes(0);
	set_cr4(get_cr4() | CR4_PGE);
	flushes(PTE_G);
	control_registers();
	pcid_tests();
	table_changes();
}
