/*
 * The integer handlers, as tables that decode_int.c chooses from.  Sizes are
 * indexed 0-3 for 1, 2, 4 and 8 bytes.
 */
#ifndef SKEP_CPU_SOFT_EXEC_H
#define SKEP_CPU_SOFT_EXEC_H

#include "cpu/soft/soft.h"

/* ADD OR ADC SBB AND SUB XOR CMP as in the opcode map, then TEST. */
enum { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP, ALU_TEST, ALU_OPS };
/* Destination, source: register, memory, immediate.  LOCKED forms write memory. */
enum { FORM_RR, FORM_RI, FORM_RM, FORM_MR, FORM_MI, FORM_LOCK_MR, FORM_LOCK_MI, FORMS };
extern op_fn *const exec_alu[ALU_OPS][FORMS][4];

enum { UNARY_INC, UNARY_DEC, UNARY_NOT, UNARY_NEG, UNARY_OPS };
enum { UFORM_R, UFORM_M, UFORM_LOCK, UFORMS };
extern op_fn *const exec_unary[UNARY_OPS][UFORMS][4];

/* ROL ROR RCL RCR SHL SHR SAR; count: immediate or CL. */
enum { SHIFT_ROL, SHIFT_ROR, SHIFT_RCL, SHIFT_RCR, SHIFT_SHL, SHIFT_SHR, SHIFT_SAR, SHIFT_OPS };
enum { SFORM_RI, SFORM_RC, SFORM_MI, SFORM_MC, SFORMS };
extern op_fn *const exec_shift[SHIFT_OPS][SFORMS][4];
/* SHLD, SHRD: [left/right][form][size - 1] */
extern op_fn *const exec_shiftd[2][SFORMS][3];

/* BT BTS BTR BTC: register index or immediate, size 2, 4, 8. */
enum { BIT_BT, BIT_BTS, BIT_BTR, BIT_BTC, BIT_OPS };
extern op_fn *const exec_bit[BIT_OPS][FORMS][4];

/* MUL IMUL DIV IDIV, one operand (in dst or memory). */
enum { MUL_MUL, MUL_IMUL, MUL_DIV, MUL_IDIV, MUL_OPS };
extern op_fn *const exec_mul[MUL_OPS][2][4];	/* register, memory */
/* IMUL r, r/m and IMUL r, r/m, imm (imm already there: form RI/MI). */
extern op_fn *const exec_imul2[2][3];		/* [mem][size-1] */
extern op_fn *const exec_imul3[2][3];

/* MOV: [form][size]; forms RR RI RM MR MI. */
extern op_fn *const exec_mov[5][4];
/* MOVZX, MOVSX: [signed][mem][source size 0-2][destination size 0-3] */
extern op_fn *const exec_movx[2][2][3][4];
extern op_fn *const exec_cmov[16][2][3];	/* [condition][mem][size - 1] */
extern op_fn *const exec_setcc[16][2];		/* [condition][mem] */
extern op_fn *const exec_lea[3];		/* destination size 2, 4, 8 */
/* XCHG, XADD, CMPXCHG: [mem][size]; memory forms are always atomic for XCHG. */
extern op_fn *const exec_xchg[2][4];
extern op_fn *const exec_xadd[2][4];
extern op_fn *const exec_cmpxchg[2][4];
extern op_fn *const exec_movbe[2][3];		/* [store][size - 1] */
extern op_fn *const exec_bsf[2][2][3];		/* [reverse][mem][size - 1] */
extern op_fn *const exec_popcnt[2][3];
extern op_fn *const exec_lzcnt[2][3], *const exec_tzcnt[2][3];
extern op_fn *const exec_crc32[2][4];
extern op_fn op_cmpxchg8b, op_cmpxchg16b;
extern op_fn op_bswap32, op_bswap64, op_bswap16;

/* Branches. */
extern op_fn *const exec_jcc[16];		/* direct, same page, linked */
extern op_fn *const exec_jcc_far[16];		/* direct, any target */
/* CMP/TEST r,r and r,imm followed by Jcc: [cmp/test][imm][size 4/8][condition] */
extern op_fn *const exec_cmp_jcc[2][2][2][16];
extern op_fn op_jmp, op_jmp_far, op_jmp_r, op_jmp_m;
extern op_fn op_call, op_call_far, op_call_r, op_call_m, op_ret, op_ret_imm;
/* The same in legacy modes and with unusual operand sizes. */
extern op_fn op_jmp_legacy, op_jcc_legacy, op_call_legacy, op_ret_legacy;
extern op_fn op_jmp_ind_legacy, op_call_ind_legacy;
extern op_fn op_loop;				/* LOOP LOOPE LOOPNE JRCXZ */

/* Stack. */
extern op_fn op_push64_r, op_push64_i, op_pop64_r;
extern op_fn op_push_r, op_push_i, op_push_m, op_pop_r, op_pop_m;
extern op_fn op_pusha, op_popa, op_enter, op_leave, op_leave64;

/* Strings; op->size is the element's, and whether there is a REP is in the op's flags. */
extern op_fn op_movs, op_stos, op_lods, op_scas, op_cmps;

/* The rest. */
extern op_fn op_nop, op_pause, op_fence, op_cbw, op_cwde, op_cdqe, op_cwd, op_cdq, op_cqo;
extern op_fn op_lahf, op_sahf, op_clc, op_stc, op_cmc, op_cld, op_std, op_salc, op_xlat;
extern op_fn op_aaa, op_aas, op_aam, op_aad, op_daa, op_das;
extern op_fn op_ea_seg, op_ea_flat32, op_ea_noseg, op_ea_fsgs, op_ea_bits;

/* ---- Memory in hot handlers -------------------------------------------- */

/*
 * A hot handler with a memory operand has a twin for the case that the TLB
 * does not have the page, and tail-calls it: so the fast path needs no stack
 * frame.  These leave the handler for the twin `slow`.
 */
#define COLD static __attribute__((noinline, cold)) const struct soft_op *
#define HOT_LOAD(bits, v, lin, slow)						\
	do {									\
		const struct tlb_entry *t_ = TLB_ENTRY(c, lin);			\
		if (unlikely((lin) - t_->rtag > 4096 - (bits) / 8))		\
			return slow(c, op);					\
		memcpy(&(v), (void *)((lin) + t_->addend), (bits) / 8);		\
	} while (0)
/* The host address for writing. */
#define HOT_WRITE(bits, p, lin, slow)						\
	do {									\
		const struct tlb_entry *t_ = TLB_ENTRY(c, lin);			\
		if (unlikely((lin) - t_->wtag > 4096 - (bits) / 8))		\
			return slow(c, op);					\
		(p) = (void *)((lin) + t_->addend);				\
	} while (0)

/*
 * Most addresses are a base and a displacement.  A hot handler NAME has a twin
 * NAME_b for them, which leaves the index out; EXEC_PAIR registers the two, in
 * a section of the program that decode.c reads as an array.
 */
struct exec_pair { op_fn *any, *base_only; };
#define EXEC_PAIR(name)								\
	static const struct exec_pair name##_pair				\
	__attribute__((section("exec_pairs"), used)) = { name, name##_b }
/* Defines both: DEF(arguments..., suffix, how the address is computed). */
#define BOTH_EA(DEF, ...) DEF(__VA_ARGS__, , soft_ea) DEF(__VA_ARGS__, _b, soft_ea_base)

/*
 * A register handler NAME has a twin NAME_nf where the flags that it computes
 * are overwritten before anybody can see them (decode.c works that out).
 */
struct exec_flagless { op_fn *any, *flagless; };
#define EXEC_FLAGLESS(name)							\
	static const struct exec_flagless name##_flagless			\
	__attribute__((section("exec_flagless"), used)) = { name, name##_nf }

/*
 * Two handlers in a row with the same destination register (and, if same_memory,
 * the same memory operand) that one handler can do: exec_sse_pairs.c.
 */
struct exec_fused { op_fn *first, *second, *both, *both_base_only; bool same_memory; };
extern const struct exec_fused exec_fused[];
extern const unsigned exec_fused_count;

static inline uint64_t soft_ea_base(const struct soft_cpu *c, const struct soft_op *op)
{
	return R64(c, op->base) + (uint64_t)(int64_t)op->disp;
}

/* ---- Conditions ------------------------------------------------------ */

/* Condition n of Jcc, SETcc, CMOVcc from the flags as LAHF and SETO leave them. */
static inline bool exec_cond(uint16_t cc, unsigned n)
{
	bool v;

	switch (n >> 1) {
	case 0: v = cc & CC_OF; break;
	case 1: v = cc & CC_CF; break;
	case 2: v = cc & CC_ZF; break;
	case 3: v = cc & (CC_CF | CC_ZF); break;
	case 4: v = cc & CC_SF; break;
	case 5: v = cc & CC_PF; break;
	case 6: v = (cc >> 15 ^ cc) & 1; break;
	default: v = (cc & CC_ZF) || ((cc >> 15 ^ cc) & 1); break;
	}
	return v ^ (n & 1);
}

/* Brings the guest's flags (in AX) into the host's, and back. */
#define FLAGS_IN	"addb $127, %%al\n\tsahf\n\t"
#define FLAGS_OUT	"\n\tlahf\n\tseto %%al"

#endif
