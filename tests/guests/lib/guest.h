/*
 * A small freestanding world for tests of a processor and its board: numbered
 * checks on COM1, exceptions caught and compared, user mode, page tables.
 * The process ends through isa-debug-exit: 0 passed, 1 failed (exit codes
 * 1 and 3).
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned long ulong;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n) (1ull << (n))

/* --- output and checks (check.c) --- */

extern bool on_tcg;	/* QEMU's TCG: some of its behaviour is known to be wrong */

void putch(char c);
/* %s %c %d %u %x %lx %llx, with 0 and width */
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void vprint(const char *fmt, va_list ap);
/* Starts a group of checks. */
void section(const char *name);
bool check_eq(u64 got, u64 want, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool check(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Not checked here, and why: said once a reason. */
void skip(const char *why);
void finish(void) __attribute__((noreturn));
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* A word of the command line that the loader gave. */
bool guest_option(const char *word);

/* Is this what CPUID calls the hypervisor?  Twelve characters, with zeroes where it is shorter. */
bool hypervisor_is(const char name[static 12]);

/* The test itself; finish() follows. */
void guest_main(void);

void *memcpy(void *d, const void *s, size_t n);
void *memset(void *d, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* --- traps (trap.c) --- */

struct frame {
#ifdef __x86_64__
	ulong r15, r14, r13, r12, r11, r10, r9, r8;
#endif
	ulong bp, di, si, dx, cx, bx, ax;
	ulong vec, err;
	ulong ip, cs, flags;
	ulong sp, ss;		/* 32-bit: only if the privilege changed */
};

struct trap {
	struct frame f;
	ulong cr2;
	ulong dr6;
	ulong kernel_sp;	/* where the frame was pushed */
};

extern struct trap last;	/* the last trap that ended try_call */
extern volatile ulong trap_count[256];

/* Called instead of ending try_call; what it leaves in the frame is returned to. */
typedef void (*trap_fn)(struct frame *f);
void on_trap(unsigned vec, trap_fn fn);

/*
 * Calls fn(a, b, c) and returns -1, or the vector of the trap that ended it
 * (`last` tells all).  Flags and callee-saved registers are put back.
 */
int try_call(const void *fn, ulong a, ulong b, ulong c);
extern ulong try_result;	/* what fn returned */

/* A gate: type 0xe interrupt, 0xf trap, 0x5 task; ist is for long mode. */
void set_gate(unsigned vec, const void *target, u16 sel, unsigned type, unsigned dpl,
	      unsigned ist);
const void *trap_stub(unsigned vec);	/* the ordinary target of a vector */

#ifdef __x86_64__
struct tss {
	u32 reserved0;
	u64 rsp[3];
	u64 reserved1;
	u64 ist[7];
	u64 reserved2;
	u16 reserved3, iomap;
	u8 bitmap[8192 + 1];
} __attribute__((packed));
#else
struct tss {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp,
	    esi, edi, es, cs, ss, ds, fs, gs, ldt;
	u16 trap, iomap;
	u8 bitmap[8192 + 1];
} __attribute__((packed));
#endif
extern struct tss tss;
extern u64 gdt[GDT_ENTRIES];
void set_tss_descriptor(unsigned sel, const void *base, u32 limit);
u64 segment(u32 base, u32 limit, u32 attr);	/* attr: bits 40-55 shifted down, G from limit */

/*
 * Runs code at CPL 3 until it traps; `int $0x80` is the good end.  Used as
 * try_call(enter_user, ip, sp, flags): 64-bit code; enter_user32: 32-bit code.
 */
void enter_user(ulong ip, ulong sp, ulong flags);
void enter_user32(ulong ip, ulong sp, ulong flags);

/* --- the processor --- */

static inline void outb(u16 p, u8 v) { asm volatile("outb %0, %1" :: "a"(v), "Nd"(p)); }
static inline void outw(u16 p, u16 v) { asm volatile("outw %0, %1" :: "a"(v), "Nd"(p)); }
static inline void outl(u16 p, u32 v) { asm volatile("outl %0, %1" :: "a"(v), "Nd"(p)); }
static inline u8 inb(u16 p) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline u16 inw(u16 p) { u16 v; asm volatile("inw %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline u32 inl(u16 p) { u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"(p)); return v; }

#define CONTROL_REGISTER(n) \
	static inline ulong get_##n(void) \
	{ ulong v; asm volatile("mov %%" #n ", %0" : "=r"(v) :: "memory"); return v; } \
	static inline void set_##n(ulong v) \
	{ asm volatile("mov %0, %%" #n :: "r"(v) : "memory"); }
CONTROL_REGISTER(cr0)
CONTROL_REGISTER(cr2)
CONTROL_REGISTER(cr3)
CONTROL_REGISTER(cr4)
CONTROL_REGISTER(dr0)
CONTROL_REGISTER(dr1)
CONTROL_REGISTER(dr2)
CONTROL_REGISTER(dr3)
CONTROL_REGISTER(dr6)
CONTROL_REGISTER(dr7)

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;
	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return lo | (u64)hi << 32;
}

static inline void wrmsr(u32 msr, u64 v)
{
	asm volatile("wrmsr" :: "c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}

static inline u64 rdtsc(void)
{
	u32 lo, hi;
	asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return lo | (u64)hi << 32;
}

static inline void cpuid(u32 leaf, u32 sub, u32 *a, u32 *b, u32 *c, u32 *d)
{
	asm volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "a"(leaf), "c"(sub));
}

static inline void invlpg(ulong va) { asm volatile("invlpg (%0)" :: "r"(va) : "memory"); }
static inline ulong get_flags(void) { ulong f; asm volatile("pushf; pop %0" : "=r"(f)); return f; }
static inline void cli(void) { asm volatile("cli" ::: "memory"); }
static inline void sti(void) { asm volatile("sti" ::: "memory"); }

/* Feature bits by the register of the CPUID leaf. */
bool has_leaf1_ecx(unsigned bit);
bool has_leaf1_edx(unsigned bit);
bool has_leaf7_ebx(unsigned bit);
bool has_leaf7_ecx(unsigned bit);
bool has_ext_edx(unsigned bit);	/* leaf 0x80000001 */

#define HAS_PCID	has_leaf1_ecx(17)
#define HAS_X2APIC	has_leaf1_ecx(21)
#define HAS_DEADLINE	has_leaf1_ecx(24)
#define HAS_XSAVE	has_leaf1_ecx(26)
#define HAS_FSGSBASE	has_leaf7_ebx(0)
#define HAS_SMEP	has_leaf7_ebx(7)
#define HAS_INVPCID	has_leaf7_ebx(10)
#define HAS_SMAP	has_leaf7_ebx(20)
#define HAS_UMIP	has_leaf7_ecx(2)
#define HAS_SYSCALL	has_ext_edx(11)
#define HAS_NX		has_ext_edx(20)
#define HAS_1G		has_ext_edx(26)

#define FL_CF 0x1u
#define FL_PF 0x4u
#define FL_ZF 0x40u
#define FL_TF 0x100u
#define FL_IF 0x200u
#define FL_DF 0x400u
#define FL_OF 0x800u
#define FL_NT 0x4000u
#define FL_RF 0x10000u
#define FL_VM 0x20000u
#define FL_AC 0x40000u

enum { DE = 0, DB = 1, NMI = 2, BP = 3, OF = 4, BR = 5, UD = 6, NM = 7, DF = 8, TS = 10, NP = 11,
       SS = 12, GP = 13, PF = 14, MF = 16, AC = 17, XM = 19 };

/* --- memory (page.c) --- */

#define PTE_P	BIT(0)
#define PTE_W	BIT(1)
#define PTE_U	BIT(2)
#define PTE_A	BIT(5)
#define PTE_D	BIT(6)
#define PTE_PS	BIT(7)
#define PTE_G	BIT(8)
#define PTE_NX	BIT(63)

/* A zeroed page, one to one mapped, never given back. */
void *page_alloc(void);
void *pages_alloc(unsigned n);

#ifdef __x86_64__
extern u64 boot_pml4[512], boot_pdpt[512], boot_pd[2048];
/*
 * Maps va to pa in the tables of cr3 with the flags at the leaf, at level 1
 * (4 KiB), 2 (2 MiB) or 3 (1 GiB); upper levels get present, writable, user.
 * Returns the leaf entry.  Nothing is flushed.
 */
u64 *map(ulong va, u64 pa, u64 flags, unsigned level);
/* The entry for va at a level, as tables stand. */
u64 *pte_of(ulong va, unsigned level);

/* A code and a stack page for user mode; copies [code, end) there, returns its address. */
#define USER_BASE	0x8000000000ul
#define USER_STACK	(USER_BASE + 0x100000)	/* top */
#define USER_DATA	(USER_BASE + 0x200000)	/* one page */
ulong user_code(const void *code, const void *end);
#endif

/* Code between NAME and NAME_end, in assembly. */
#define SNIPPET(name, text) \
	extern const char name[], name##_end[]; \
	asm(".pushsection .text\n" #name ":\n" text "\n" #name "_end:\n.popsection\n")

#endif
