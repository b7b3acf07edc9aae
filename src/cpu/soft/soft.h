/*
 * The soft processor: an x86-64 processor in C.
 *
 * How it runs.  Zydis decodes guest code once into *blocks* of `struct soft_op`.
 * An op is a handler and its operands; a handler does its work and goes on to
 * the next op by a tail call (NEXT) or by returning it, which is slower but
 * means the same: the run loop is `while (op) op = op->fn(c, op)`.  A handler
 * that has address-taken locals must `return op + 1`, because the compiler does
 * not make a tail call of it.  NULL leaves the block; c->rip then says where to
 * go on.
 *
 * A block covers bytes of one physical page (or ends with one instruction that
 * crosses into a second) and is found by physical address and *mode*: the
 * decode-relevant part of the processor's state (MODE_*).  It knows no linear
 * address: an op holds its offset from the start of the page, and the slot
 * SLOT_IPBASE holds the instruction pointer that offset 0 has, so that the same
 * block serves every mapping of its page.
 *
 * Precise faults.  A handler changes nothing that the guest can see before its
 * last faulting access.  soft_raise() takes the op, so that the instruction
 * pointer and the instruction count are known, and longjmps to the run loop.
 * No lock may be held across anything that can raise.
 *
 * Flags.  The six status flags are kept as LAHF and SETO leave them in AX
 * (`cc`): AH = SF ZF 0 AF 0 PF 1 CF, AL = OF.  The handler's own host
 * instruction computes them, so they are exact, undefined ones included; they
 * are put together as RFLAGS only where somebody reads it.
 *
 * Everything in struct soft_cpu is owned by the vCPU's thread, but for `kick`; other processors
 * read `in_guest` and `seen` (shared.h).
 */
#ifndef SKEP_CPU_SOFT_SOFT_H
#define SKEP_CPU_SOFT_SOFT_H

#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"
#include "cpu/arch.h"
#include "cpu/soft/stats.h"
#include "cpu/vcpu.h"
#include "vm/irq.h"
#include "vm/memory.h"

struct soft_cpu;
struct soft_jit;
struct soft_op;
struct soft_cache;
struct cpu_model;

typedef const struct soft_op *op_fn(struct soft_cpu *c, const struct soft_op *op);

/*
 * Register slots.  Operand fields of an op are *byte offsets* into c->r, so that
 * AH, CH, DH and BH are 1, 9, 17 and 25.
 */
enum {
	SLOT_ZERO = 16,		/* always 0 */
	SLOT_IPBASE,		/* RIP (EIP, IP) minus offset in the linear page */
	SLOT_FS, SLOT_GS,	/* copies of the two segment bases */
	SLOT_EA,		/* linear address left by an address op */
	SLOT_T0, SLOT_T1,
	SLOT_COUNT,
};
#define SLOT(n) ((uint8_t)((n) * 8))

struct soft_op {
	op_fn *fn;
	uint8_t dst, src;	/* register operands: byte offsets into r[], or numbers of XMM/ST/segment/... */
	uint8_t base, index;	/* memory operand: r[base] + (r[index] << scale) + disp, linear */
	uint8_t scale;
	uint8_t len;		/* instruction length in bytes */
	uint16_t ip;		/* offset of the instruction in its linear page */
	int32_t disp;
	uint8_t flags;		/* OPF_* */
	uint8_t size;		/* operand size in bytes where the handler wants it */
	uint8_t seg;		/* SEG_* of the memory operand (for #SS against #GP, and legacy checks) */
	uint8_t left;		/* instructions of the block after this one */
	uint64_t imm;		/* immediate, or the link of a direct jump */
};

#define OPF_FIRST	0x01	/* first op of its instruction */
#define OPF_REP		0x02	/* F3 */
#define OPF_REPNE	0x04	/* F2 */
#define OPF_LOCK	0x08
#define OPF_ADDR32	0x10	/* address size: neither = 64 */
#define OPF_ADDR16	0x20
#define OPF_WRITE	0x40	/* the memory operand is written (address ops) */
#define OPF_MEM		0x80	/* has a memory operand */

/* What decoding depends on.  Blocks are keyed by it; see soft_update_mode(). */
#define MODE_CS32	0x0001	/* 32-bit code */
#define MODE_CS64	0x0002	/* 64-bit code (neither: 16-bit) */
#define MODE_SS32	0x0004	/* SS.B (legacy) */
#define MODE_FLAT	0x0008	/* CS DS ES SS: base 0, limit 4 GiB, readable (writable) */
#define MODE_NOSSE	0x0010	/* SSE raises: CR0.TS, CR0.EM or !CR4.OSFXSR */
#define MODE_NOFPU	0x0020	/* x87/MMX raises: CR0.TS or CR0.EM */
#define MODE_FPSTRICT	0x0040	/* MXCSR unmasks something */
#define MODE_CSLIMIT	0x0080	/* CS is not flat: no direct links, no jump entries */
#define MODE_PE		0x0100	/* CR0.PE */
#define MODE_VM86	0x0200	/* RFLAGS.VM */
#define MODE_LMA	0x0400	/* EFER.LMA (compatibility or 64-bit mode) */
#define MODE_USER	0x0800	/* CPL 3 */
#define MODE_AC		0x1000	/* supervisor access to user pages allowed (EFLAGS.AC or no SMAP) */
#define MODE_NOAVX	0x2000	/* the model has AVX, and it raises: CR0.TS, !CR4.OSXSAVE, XCR0 */

/*
 * TLB.  tag is the page's linear address, or that of a page which another entry
 * serves (TLB_INVALID), so that no address at all matches it here; one compare
 * (lin - tag <= 4096 - size) covers a miss and a page crossing.  host = lin +
 * addend; page is the host address of the page that the tags which are valid name,
 * so that lin - tag + page is the same: code that has the difference at hand needs
 * no second copy of lin.  A write tag is present only while the page is dirty
 * already, holds no code and may be written by this privilege.
 */
#define TLB_BITS	13
#define TLB_SIZE	(1u << TLB_BITS)
#define TLB_INVALID(lin) (((lin) & ~0xfffull) ^ 0x1000)	/* for the entry of lin */

struct tlb_entry {
	uint64_t rtag, wtag;
	uintptr_t addend;
	uintptr_t page;
};

#define KICKED INT64_MAX
#define JIT_JUMPS 16384u		/* entries of translated code's jump cache */
#define JIT_FRONTS 4
#define JIT_SPANS 3

/* Access contexts, each with its own TLB. */
enum { TLB_KERNEL, TLB_KERNEL_AC, TLB_USER, TLB_CONTEXTS };

struct soft_cpu {
	/* Hot: in the order of use. */
	uint64_t r[SLOT_COUNT];
	uint16_t cc;			/* status flags, see above */
	uint32_t mode;			/* MODE_* */
	/*
	 * Somebody wants the run loop's attention: KICKED, or 0.  Larger than any budget, so that
	 * translated code asks for both by one comparison.
	 */
	_Atomic int64_t kick;
	int64_t budget;			/* instructions that may still be executed */
	struct tlb_entry *tlb;		/* of the current access context */
	uint64_t ip_mask;		/* 2^64-1 or 2^32-1 */
	uint64_t jump_key;		/* address space and mode, see struct jump_entry */
	struct jump_entry *jumps;	/* cache of linear targets */

	/*
	 * Everything cold.  Authoritative but for gpr (r[]), the status bits of
	 * rflags (cc), rip while a block runs, and the sticky flags of MXCSR while
	 * they are in the host's register (soft_mxcsr_sync).
	 * FS and GS bases are in s.seg and copied to their slots (soft_set_seg_base).
	 */
	_Alignas(16) struct cpu_arch_state s;

	uint64_t rip;			/* valid between blocks */
	bool stepping;			/* TF or a breakpoint is on: one instruction at a time */
	bool step_once;			/* the next instruction runs alone */
	bool alone;			/* an instruction runs alone */
	bool alignment_check;		/* CR0.AM, EFLAGS.AC and CPL 3 */
	uint8_t cpl;
	struct vcpu *v;
	struct vm *vm;
	const struct cpu_model *model;
	struct soft_cache *cache;	/* decoded blocks */
	struct soft_mmu *mmu;		/* TLBs */
	struct soft_twins *twins;	/* faster twins of handlers: specialise.h */
	struct soft_vex *vex;		/* host code of VEX instructions (vex.h); NULL: the model has none */
	uint64_t budget_given;		/* see soft_insns() */
	uint64_t insns_base;

	int64_t step_rest;		/* budget put aside while one instruction runs alone */

	/*
	 * The translator (jit/jit.h); NULL: there is none.  jit_wanted: head of the block that
	 * is to be translated next.  The rest is what translated code uses, by its offset.
	 */
	struct soft_jit *jit;
	const struct soft_op *jit_wanted;
	struct soft_cpu *jit_self;
	uint64_t jit_target;		/* between the two halves of a call */
	uint64_t jit_stream[2];		/* host addresses of a group that has two */
	/* Copies of TLB entries, jit/inside.h. */
	struct { uint64_t tag; uintptr_t page; } jit_front[JIT_FRONTS];
	_Alignas(16) uint64_t jit_front_end[JIT_FRONTS][JIT_SPANS];
	uint8_t jit_xmm;		/* 1: XMM0-15 are in the host's registers; 2: YMM0-15 */
	bool jit_inside;		/* a handler was called by translated code */

	/* With other processors: shared.h.  NULL: there are none. */
	struct soft_shared *shared;
	_Atomic bool in_guest;		/* may touch guest memory now */
	bool exclusive;			/* nobody else is in the guest until the run loop says so */
	bool turn;			/* clock=virtual: it is this processor's turn */
	_Atomic uint64_t seen;		/* tickets up to which its write tags are dropped */
	uint64_t asked, answered;	/* its own last ticket; the last that everybody has seen */
	unsigned pauses;

	/* Code written by devices and other processors, for this thread to drop. */
	pthread_mutex_t written_lock;
	struct written { uint64_t gpa, len; } *written;
	size_t nwritten, written_room;
	bool written_all;

	/* The exception being raised: set by soft_raise. */
	sigjmp_buf *jmp;
	bool exc_raised;
	struct {
		uint8_t vector;
		uint8_t kind;		/* EXC_KIND_* */
		bool has_error;
		uint32_t error;
		uint64_t insn_rip;	/* TRAP, SOFT: of the instruction itself */
		uint64_t dr6;		/* #DB: bits to set */
	} exc;

	/*
	 * What the system side remembers between and during deliveries
	 * (exception.c, intr.c).  Dead or derivable between instructions.
	 */
	struct {
		bool delivering;	/* soft_deliver has begun and not ended */
		uint8_t first;		/* class of the event that it delivers */
		uint8_t ext;		/* EXT bit of error codes raised meanwhile */
		bool step;		/* TF as it was before this instruction */
		bool intr_held;		/* a maskable interrupt may wait for IF */
		uint64_t dr6;		/* DR6 bits of the #DB being raised */
	} sys;

	struct soft_stats stats;

	/* Save area of the strict floating point wrapper ops. */
	_Alignas(16) uint8_t fp_save[64];
	/* An operand that did not lie in one readable page; dead between instructions. */
	_Alignas(32) uint8_t fp_tmp[32];
	/* FERR# of x87 with CR0.NE = 0: IRQ 13, connected when first used (device lock). */
	struct irq_line ferr;

	/*
	 * Other ways to run, none of which the guest may notice; tests set them before
	 * the processor's first instruction (tests/soft_exact.c).  All zero: the usual way.
	 */
	struct {
		bool on;
		bool alone;		/* every instruction by itself */
		uint8_t block_insns;	/* so many instructions in a block at most; 0: as ever */
		unsigned forget;	/* caches and TLBs are emptied every so many blocks; 0: never */
		unsigned passed;	/* blocks since then */
	} test;

	/* Jump cache of translated code: linear target, jump_key (0: free), code. */
	uint64_t jit_rips[JIT_JUMPS], jit_keys[JIT_JUMPS];
	const uint8_t *jit_codes[JIT_JUMPS];
};

/* ---- Registers ------------------------------------------------------- */

#define R64(c, off) (*(uint64_t *)((char *)(c)->r + (off)))
#define R32(c, off) (*(uint32_t *)((char *)(c)->r + (off)))
#define R16(c, off) (*(uint16_t *)((char *)(c)->r + (off)))
#define R8(c, off)  (*(uint8_t *)((char *)(c)->r + (off)))
/* Writing a 32-bit register clears its upper half. */
#define W32(c, off, v) (R64(c, off) = (uint32_t)(v))

/* Reads or writes a register operand of 1, 2, 4 or 8 bytes (cold code). */
static inline uint64_t soft_reg_get(struct soft_cpu *c, uint8_t off, unsigned size)
{
	switch (size) {
	case 1: return R8(c, off);
	case 2: return R16(c, off);
	case 4: return R32(c, off);
	default: return R64(c, off);
	}
}

static inline void soft_reg_set(struct soft_cpu *c, uint8_t off, unsigned size, uint64_t v)
{
	switch (size) {
	case 1: R8(c, off) = (uint8_t)v; break;
	case 2: R16(c, off) = (uint16_t)v; break;
	case 4: W32(c, off, v); break;
	default: R64(c, off) = v; break;
	}
}

/* ---- Flags ----------------------------------------------------------- */

#define CC_OF	0x0001
#define CC_CF	0x0100
#define CC_ONE	0x0200
#define CC_PF	0x0400
#define CC_AF	0x1000
#define CC_ZF	0x4000
#define CC_SF	0x8000

static inline uint16_t soft_cc_from_rflags(uint64_t f)
{
	return (uint16_t)((f & 0xd5) << 8 | CC_ONE | (f >> 11 & 1));
}

static inline uint64_t soft_status_flags(const struct soft_cpu *c)
{
	return (uint64_t)(c->cc >> 8 & 0xd5) | (uint64_t)(c->cc & 1) << 11;
}

/* The whole RFLAGS as the guest would push it (RF as stored). */
static inline uint64_t soft_rflags(const struct soft_cpu *c)
{
	return (c->s.rflags & ~(uint64_t)RFLAGS_STATUS) | soft_status_flags(c) | 2;
}

/* Sets everything; the caller has checked what may change.  Updates the mode when VM, AC, TF, IF changed. */
void soft_set_rflags(struct soft_cpu *c, uint64_t f);

/* ---- Leaving and going on -------------------------------------------- */

/*
 * NEXT: a tail call in optimised builds.  Sanitizer builds do not make tail
 * calls, and take the run loop's way.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
#define NEXT(c, op) return (op) + 1
#define GOTO_OP(c, op) return (op)
#else
#define NEXT(c, op) return (op)[1].fn((c), (op) + 1)
#define GOTO_OP(c, op) return (op)->fn((c), (op))
#endif

/* The guest's instruction pointer at this op, and after its instruction. */
static inline uint64_t soft_op_rip(const struct soft_cpu *c, const struct soft_op *op)
{
	return (c->r[SLOT_IPBASE] + op->ip) & c->ip_mask;
}

static inline uint64_t soft_next_rip(const struct soft_cpu *c, const struct soft_op *op)
{
	return (c->r[SLOT_IPBASE] + op->ip + op->len) & c->ip_mask;
}

/*
 * Ends the block after this instruction: `return soft_leave(c, op, rip)`.  Gives
 * the budget of the instructions not executed back.  Every instruction that
 * changes the mode, the interrupt flag, paging or the flow of control that is
 * not a plain near branch ends its block with this.
 */
static inline const struct soft_op *soft_leave(struct soft_cpu *c, const struct soft_op *op,
					       uint64_t rip)
{
	c->budget += op->left;
	c->rip = rip;
	return NULL;
}

/*
 * Cache of jump targets by linear address.  An entry whose key is not the current
 * address space and mode misses; a block that was thrown away still stands here
 * and leads back to the run loop by itself (op_stale).
 */
struct jump_entry {
	uint64_t rip, key;
	const struct soft_op *head;
};

#define JUMP_ENTRIES	16384

static inline struct jump_entry *soft_jump_entry(struct soft_cpu *c, uint64_t rip)
{
	return &c->jumps[(rip ^ rip >> 10 ^ rip >> 20) & (JUMP_ENTRIES - 1)];
}

/* The block at rip if it is known, with SLOT_IPBASE *not* yet set; else NULL. */
static inline const struct soft_op *soft_jump_find(struct soft_cpu *c, uint64_t rip)
{
	const struct jump_entry *e = soft_jump_entry(c, rip);

	return likely(e->rip == rip && e->key == c->jump_key) ? e->head : NULL;
}

/* Enters a block found by soft_jump_find. */
#define ENTER_BLOCK(c, head, target_rip)			\
	do {							\
		const struct soft_op *h_ = (head);		\
		(c)->r[SLOT_IPBASE] = (target_rip) - h_->ip;	\
		GOTO_OP((c), h_);				\
	} while (0)

/* A near branch target: #GP(0) at op when not canonical or beyond the limit of CS. */
void soft_check_target(struct soft_cpu *c, const struct soft_op *op, uint64_t rip);

enum {
	EXC_KIND_FAULT,		/* an exception: RIP of the instruction; CPU-generated */
	EXC_KIND_TRAP,		/* #DB traps, #BP #OF by int3/into: RIP after it */
	EXC_KIND_SOFT,		/* INT n: RIP after it, DPL checked */
	EXC_KIND_HARD,		/* external interrupt or NMI */
};

/*
 * Raise a fault at op's instruction: RIP and the instruction count go back to
 * it, then longjmp to the run loop, which delivers.
 */
_Noreturn void soft_raise(struct soft_cpu *c, const struct soft_op *op, unsigned vector);
_Noreturn void soft_raise_err(struct soft_cpu *c, const struct soft_op *op, unsigned vector,
			      uint32_t error);
/* A trap or INT n, complete: RIP is after it. kind TRAP or SOFT. */
_Noreturn void soft_raise_after(struct soft_cpu *c, const struct soft_op *op, unsigned vector,
				unsigned kind);

/* Instructions retired by this processor up to, not including, op. */
uint64_t soft_insns(const struct soft_cpu *c, const struct soft_op *op);
/*
 * Makes clock and counters exact before anything outside the processor looks
 * (port and memory-mapped I/O, RDTSC, interrupt controllers).  Core.
 */
void soft_sync_clock(struct soft_cpu *c, const struct soft_op *op);

/* ---- Memory ---------------------------------------------------------- */

/* The linear address of the memory operand. */
static inline uint64_t soft_ea(const struct soft_cpu *c, const struct soft_op *op)
{
	return R64(c, op->base) + (R64(c, op->index) << op->scale) + (uint64_t)(int64_t)op->disp;
}

/*
 * Slow paths: TLB miss, page crossing, memory-mapped I/O, pages with code,
 * pages not dirty yet.  They raise #PF, #GP or #SS (non-canonical), #AC.
 * size 1-8 for the scalar ones, any up to 4096 for the block ones.
 */
uint64_t soft_load_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size);
void soft_store_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
		     uint64_t v);
void soft_load_bytes(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, void *buf,
		     unsigned size);
/* Faults before it writes anything, also across a page boundary. */
void soft_store_bytes(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
		      const void *buf, unsigned size);
/* Raises what a write of size bytes would raise, and writes nothing. */
void soft_check_write(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size);

#define TLB_ENTRY(c, lin) (&(c)->tlb[((lin) >> 12) & (TLB_SIZE - 1)])

#define SOFT_DEFINE_MEM(bits, type)							\
static inline type soft_ld##bits(struct soft_cpu *c, const struct soft_op *op, uint64_t lin) \
{											\
	const struct tlb_entry *t = TLB_ENTRY(c, lin);					\
	if (likely(lin - t->rtag <= 4096 - sizeof(type))) {				\
		type v_;								\
		memcpy(&v_, (void *)(lin + t->addend), sizeof v_);			\
		return v_;								\
	}										\
	return (type)soft_load_slow(c, op, lin, sizeof(type));				\
}											\
static inline void soft_st##bits(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, \
				 type v)						\
{											\
	const struct tlb_entry *t = TLB_ENTRY(c, lin);					\
	if (likely(lin - t->wtag <= 4096 - sizeof(type)))				\
		memcpy((void *)(lin + t->addend), &v, sizeof v);			\
	else										\
		soft_store_slow(c, op, lin, sizeof(type), v);				\
}
SOFT_DEFINE_MEM(8, uint8_t)
SOFT_DEFINE_MEM(16, uint16_t)
SOFT_DEFINE_MEM(32, uint32_t)
SOFT_DEFINE_MEM(64, uint64_t)

/* By size 1, 2, 4, 8 (cold code). */
uint64_t soft_load(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size);
void soft_store(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
		uint64_t v);

/*
 * Host address of [lin, lin+size) if it is RAM, lies in one page and may be
 * written right now (dirty, no code) or read; NULL otherwise.  Raises nothing
 * and may fill the TLB.  For 16-byte operands, atomics and bulk strings.
 */
static inline void *soft_host_read(struct soft_cpu *c, uint64_t lin, unsigned size)
{
	const struct tlb_entry *t = TLB_ENTRY(c, lin);

	return likely(lin - t->rtag <= 4096 - (uint64_t)size) ? (void *)(lin + t->addend) : NULL;
}

static inline void *soft_host_write(struct soft_cpu *c, uint64_t lin, unsigned size)
{
	const struct tlb_entry *t = TLB_ENTRY(c, lin);

	return likely(lin - t->wtag <= 4096 - (uint64_t)size) ? (void *)(lin + t->addend) : NULL;
}

/*
 * Implicit supervisor accesses (descriptor tables, TSS, stacks of inner rings
 * while delivering): as CPL 0, SMAP not overridden by AC.  op may be NULL
 * during delivery: then the fault is raised at c->rip.
 */
uint64_t soft_sys_load(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size);
void soft_sys_store(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
		    uint64_t v);
/* A supervisor write to come: raises what it would raise. */
void soft_sys_check_write(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
			  unsigned size);

/*
 * Linear address of [off, off+size) in a segment after all checks of the mode
 * (limit, type, null, canonical); raises #GP(0) or #SS(0).  Legacy and 64-bit.
 */
uint64_t soft_seg_lin(struct soft_cpu *c, const struct soft_op *op, unsigned seg, uint64_t off,
		      unsigned size, bool write);

/* PUSH and POP of 2, 4 or 8 bytes by the rules of the current stack; RSP changes last. */
void soft_push(struct soft_cpu *c, const struct soft_op *op, unsigned size, uint64_t v);
uint64_t soft_pop(struct soft_cpu *c, const struct soft_op *op, unsigned size);

/*
 * For bulk strings: raises what an access to [lin, lin+size) of one page would
 * raise, then its host address, or NULL where it must go piece by piece
 * (memory-mapped I/O, writes to code, watched pages).  The address stays good
 * for this instruction whatever the TLB forgets.
 */
void *soft_bulk_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
		     bool write);

/*
 * For read-modify-write: raises what a write would raise, then the host address,
 * or NULL where load, compute and store must be separate (memory-mapped I/O,
 * code, a page crossing).
 */
void *soft_rmw_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size);

static inline void *soft_rmw(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
			     unsigned size)
{
	void *p = soft_host_write(c, lin, size);

	return likely(p) ? p : soft_rmw_slow(c, op, lin, size);
}

/*
 * LOCK where soft_rmw gave nothing to the host's own lock (a cache line is crossed, or the access
 * goes the slow way): from here to the end of the block no other processor touches memory.
 * Raises what a write would raise.
 */
void soft_exclusive(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size);

/* PAUSE with other processors about: lets somebody else run now and then. */
const struct soft_op *soft_pause(struct soft_cpu *c, const struct soft_op *op);

static inline bool soft_canonical(uint64_t a)
{
	return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

/* ---- State changes (core) -------------------------------------------- */

/*
 * After any change of CR0, CR4, EFER, CS, SS, DS, ES, CPL, RFLAGS.VM/AC, MXCSR
 * masks or debug registers: works c->mode, c->tlb, c->ip_mask out again.  The
 * instruction that calls it ends its block.
 */
void soft_update_mode(struct soft_cpu *c);
/* Writes s.seg[seg] whole (CPL is the caller's: c->cpl) and the base slot. */
void soft_set_segment(struct soft_cpu *c, unsigned seg, const struct cpu_segment *v);
void soft_set_seg_base(struct soft_cpu *c, unsigned seg, uint64_t base);

void soft_tlb_flush(struct soft_cpu *c, bool global_too);
void soft_tlb_flush_page(struct soft_cpu *c, uint64_t lin);	/* INVLPG */
/* INVPCID types 0-3; checks are the caller's. */
void soft_tlb_invpcid(struct soft_cpu *c, unsigned type, uint16_t pcid, uint64_t lin);
/* CR3 was written; keep says bit 63 with PCIDE. */
void soft_tlb_set_cr3(struct soft_cpu *c, uint64_t cr3, bool keep);
/* MOV CR3 with PAE paging: loads the PDPTEs, raises #GP(0) on reserved bits. (H calls it before committing) */
void soft_load_pdptes(struct soft_cpu *c, const struct soft_op *op, uint64_t cr3);

/* MXCSR: brings the host's sticky flags into s.fpu.mxcsr; loads the host's from it. */
void soft_mxcsr_sync(struct soft_cpu *c);
void soft_mxcsr_load(struct soft_cpu *c);

/* Acts on what soft_invalidate_code noted. */
void soft_drain_code(struct soft_cpu *c);

/* ---- The other files of this folder ----------------------------------- */

/* What a decoder of an instruction family gets: decode.h. */
struct soft_decode;
/*
 * Each fills op->fn (and whatever fields are its own; memory operand fields,
 * len, ip, flags are filled already) and returns true, or returns false: not
 * its mnemonic.  It may set d->ends_block.
 */
bool soft_decode_int(struct soft_decode *d, struct soft_op *op);	/* decode_int.c */
bool soft_decode_sse(struct soft_decode *d, struct soft_op *op);	/* decode_sse.c */
bool soft_decode_x87(struct soft_decode *d, struct soft_op *op);	/* decode_x87.c, MMX too */
bool soft_decode_sys(struct soft_decode *d, struct soft_op *op);	/* decode_sys.c */
bool soft_decode_vex(struct soft_decode *d, struct soft_op *op);	/* decode_vex.c, not legacy */
/* Of an instruction with a memory operand: does its handler work the address out? */
bool soft_vex_own_address(const struct soft_decode *d);

/*
 * Delivers c->exc (exception.c): pushes the frame and enters the handler, in every
 * mode.  May raise again (longjmp); the run loop then calls soft_deliver with
 * the new exception and soft_deliver itself knows how the two combine (#DF).
 * Returns false on triple fault.
 */
bool soft_deliver(struct soft_cpu *c);
/* External interrupt with this vector: same, kind HARD. */

/* CPUID of the CPU model with the live bits (OSXSAVE, APIC id, ...) (cpuid.c). */
void soft_cpuid(struct soft_cpu *c, uint32_t leaf, uint32_t sub, uint32_t out[4]);
/* INIT and power-on values of everything (reset.c). */
void soft_reset(struct soft_cpu *c, bool init);
/* Architectural consistency of a state to be loaded (validate.c): SDM vol. 3; */
/* of a processor that is not a soft one, too. */
int soft_check_state(const struct cpu_model *model, struct vcpu *v, const struct cpu_arch_state *s,
		     struct skep_error *e);
int soft_validate_state(const struct soft_cpu *c, const struct cpu_arch_state *s,
			struct skep_error *e);

/*
 * Executes the instruction at the processor's RIP, or delivers the exception that it raises, and
 * nothing else: for another backend that cannot.  False: triple fault.  On a thread that runs no
 * other soft processor, without the device lock (core.c).
 */
bool soft_once(struct soft_cpu *c);

/* Handlers that others need. */
op_fn op_ud;		/* raises #UD */
op_fn op_nm;		/* raises #NM */

#endif
