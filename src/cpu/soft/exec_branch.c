/*
 * Near branches.  A direct branch within its page is linked: the op's imm
 * holds the head of the target's block once it is known.  That is safe because
 * both are blocks of the same page of RAM, so that whoever runs this one has the other
 * mapped, and a block that dies turns its head into op_stale_head.  All others go through
 * the jump cache.
 */
#include "cpu/soft/cache.h"
#include "cpu/soft/exec.h"

/* Target of a direct branch: disp is its offset from the start of this page. */
static inline uint64_t direct_target(const struct soft_cpu *c, const struct soft_op *op)
{
	return (c->r[SLOT_IPBASE] + (uint64_t)(int64_t)op->disp) & c->ip_mask;
}

/* Goes to rip, which has been checked; the budget has been given back. */
static inline const struct soft_op *go(struct soft_cpu *c, uint64_t rip)
{
	const struct soft_op *head = soft_jump_find(c, rip);

	if (likely(head))
		ENTER_BLOCK(c, head, rip);
	c->rip = rip;
	return NULL;
}

/* First time through a link: makes it when the target has been decoded. */
static __attribute__((noinline)) const struct soft_op *link_and_go(struct soft_cpu *c,
								   const struct soft_op *op)
{
	uint64_t rip = direct_target(c, op);
	const struct soft_op *head = soft_jump_find(c, rip);

	if (head) {
		/* Not if the page is mapped elsewhere by now, and only some of it has been noticed. */
		if (!head->dst && soft_cache_same_page(c, op, head))
			((struct soft_op *)op)->imm = (uint64_t)head;
		c->r[SLOT_IPBASE] = rip - head->ip;
		return head;
	}
	c->rip = rip;
	return NULL;
}

#define FOLLOW(c, op)								\
	do {									\
		const struct soft_op *to_ = (const struct soft_op *)(op)->imm;	\
		if (likely(to_))						\
			GOTO_OP(c, to_);					\
		return link_and_go(c, op);					\
	} while (0)

#define JCC(n)									\
static const struct soft_op *jcc##n(struct soft_cpu *c, const struct soft_op *op) \
{										\
	if (exec_cond(c->cc, n)) {						\
		c->budget += op->left;						\
		FOLLOW(c, op);							\
	}									\
	NEXT(c, op);								\
}										\
static const struct soft_op *jcc_far##n(struct soft_cpu *c, const struct soft_op *op) \
{										\
	if (exec_cond(c->cc, n)) {						\
		uint64_t rip = direct_target(c, op);				\
		const struct soft_op *head = soft_jump_find(c, rip);		\
		if (unlikely(!head))						\
			soft_check_target(c, op, rip);				\
		c->budget += op->left;						\
		if (likely(head))						\
			ENTER_BLOCK(c, head, rip);				\
		c->rip = rip;							\
		return NULL;							\
	}									\
	NEXT(c, op);								\
}
JCC(0) JCC(1) JCC(2) JCC(3) JCC(4) JCC(5) JCC(6) JCC(7)
JCC(8) JCC(9) JCC(10) JCC(11) JCC(12) JCC(13) JCC(14) JCC(15)
#define ROW(p) { p##0, p##1, p##2, p##3, p##4, p##5, p##6, p##7, \
		 p##8, p##9, p##10, p##11, p##12, p##13, p##14, p##15 }
op_fn *const exec_jcc[16] = ROW(jcc);
op_fn *const exec_jcc_far[16] = ROW(jcc_far);

const struct soft_op *op_jmp(struct soft_cpu *c, const struct soft_op *op)
{
	FOLLOW(c, op);
}

const struct soft_op *op_jmp_far(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rip = direct_target(c, op);
	const struct soft_op *head = soft_jump_find(c, rip);

	if (likely(head))
		ENTER_BLOCK(c, head, rip);
	soft_check_target(c, op, rip);
	c->rip = rip;
	return NULL;
}

static const struct soft_op *jump_indirect(struct soft_cpu *c, const struct soft_op *op,
					   uint64_t rip)
{
	soft_check_target(c, op, rip);
	c->rip = rip;
	return NULL;
}

const struct soft_op *op_jmp_r(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rip = R64(c, op->dst);
	const struct soft_op *head = soft_jump_find(c, rip);

	if (likely(head))
		ENTER_BLOCK(c, head, rip);
	return jump_indirect(c, op, rip);
}

COLD jmp_m_slow(struct soft_cpu *c, const struct soft_op *op)
{
	return jump_indirect(c, op, soft_load_slow(c, op, soft_ea(c, op), 8));
}

const struct soft_op *op_jmp_m(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t lin = soft_ea(c, op), rip;
	const struct soft_op *head;

	HOT_LOAD(64, rip, lin, jmp_m_slow);
	head = soft_jump_find(c, rip);
	if (likely(head))
		ENTER_BLOCK(c, head, rip);
	return jump_indirect(c, op, rip);
}

/* ---- CALL and RET in 64-bit mode ---------------------------------------- */

static __attribute__((noinline)) const struct soft_op *call_slow(struct soft_cpu *c,
								 const struct soft_op *op,
								 uint64_t rip)
{
	uint64_t rsp = c->r[REG_RSP];

	/* A wrong target is found when the return address is in memory, as on real processors. */
	soft_push(c, op, 8, soft_next_rip(c, op));
	if (unlikely(!soft_jump_find(c, rip))) {
		uint64_t pushed = c->r[REG_RSP];

		c->r[REG_RSP] = rsp;
		soft_check_target(c, op, rip);
		c->r[REG_RSP] = pushed;
	}
	return go(c, rip);
}

#define PUSH_RETURN(c, op, rip)								\
	do {										\
		uint64_t lin_ = c->r[REG_RSP] - 8;					\
		const struct tlb_entry *t_ = TLB_ENTRY(c, lin_);			\
		if (unlikely(lin_ - t_->wtag > 4096 - 8))				\
			return call_slow(c, op, rip);					\
		store64((void *)(lin_ + t_->addend), c->r[SLOT_IPBASE] + op->ip + op->len); \
		c->r[REG_RSP] = lin_;							\
	} while (0)

const struct soft_op *op_call(struct soft_cpu *c, const struct soft_op *op)
{
	PUSH_RETURN(c, op, direct_target(c, op));
	FOLLOW(c, op);
}

const struct soft_op *op_call_far(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rip = direct_target(c, op);
	const struct soft_op *head = soft_jump_find(c, rip);

	if (unlikely(!head))
		return call_slow(c, op, rip);
	PUSH_RETURN(c, op, rip);
	ENTER_BLOCK(c, head, rip);
}

static inline const struct soft_op *call_to(struct soft_cpu *c, const struct soft_op *op,
					    uint64_t rip)
{
	const struct soft_op *head = soft_jump_find(c, rip);

	if (unlikely(!head))
		return call_slow(c, op, rip);
	PUSH_RETURN(c, op, rip);
	ENTER_BLOCK(c, head, rip);
}

const struct soft_op *op_call_r(struct soft_cpu *c, const struct soft_op *op)
{
	return call_to(c, op, R64(c, op->dst));
}

COLD call_m_slow(struct soft_cpu *c, const struct soft_op *op)
{
	return call_slow(c, op, soft_load_slow(c, op, soft_ea(c, op), 8));
}

const struct soft_op *op_call_m(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t lin = soft_ea(c, op), rip;

	HOT_LOAD(64, rip, lin, call_m_slow);
	return call_to(c, op, rip);
}

/* op->imm: bytes to release after the return address. */
COLD ret_slow(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rip = soft_load(c, op, c->r[REG_RSP], 8);

	soft_check_target(c, op, rip);
	c->r[REG_RSP] += 8 + op->imm;
	return go(c, rip);
}

const struct soft_op *op_ret(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t lin = c->r[REG_RSP], rip;
	const struct soft_op *head;

	HOT_LOAD(64, rip, lin, ret_slow);
	head = soft_jump_find(c, rip);
	if (unlikely(!head))
		return ret_slow(c, op);
	c->r[REG_RSP] = lin + 8 + op->imm;
	ENTER_BLOCK(c, head, rip);
}

/* ---- Legacy modes and unusual operand sizes ------------------------------ */

/* Operand size 2 truncates the target; op->imm is the displacement. */
static uint64_t legacy_target(const struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rip = c->r[SLOT_IPBASE] + op->ip + op->len + op->imm;

	return op->size == 2 ? rip & 0xffff : rip & c->ip_mask;
}

const struct soft_op *op_jmp_legacy(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rip = legacy_target(c, op);

	soft_check_target(c, op, rip);
	c->budget += op->left;
	return go(c, rip);
}

/* op->dst is the condition. */
const struct soft_op *op_jcc_legacy(struct soft_cpu *c, const struct soft_op *op)
{
	if (exec_cond(c->cc, op->dst))
		return op_jmp_legacy(c, op);
	return op + 1;
}

const struct soft_op *op_call_legacy(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rip = legacy_target(c, op);

	soft_check_target(c, op, rip);
	soft_push(c, op, op->size, soft_next_rip(c, op));
	return go(c, rip);
}

const struct soft_op *op_ret_legacy(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rsp = c->r[REG_RSP];
	uint64_t rip = soft_pop(c, op, op->size);

	if (c->mode & MODE_CS64 ? !soft_canonical(rip) : rip > c->s.seg[SEG_CS].limit) {
		c->r[REG_RSP] = rsp;
		soft_raise_err(c, op, EXC_GP, 0);
	}
	if (c->mode & MODE_CS64)
		c->r[REG_RSP] += op->imm;
	else if (c->mode & MODE_SS32)
		W32(c, SLOT(REG_RSP), c->r[REG_RSP] + op->imm);
	else
		R16(c, SLOT(REG_RSP)) += (uint16_t)op->imm;
	return go(c, rip);
}

static uint64_t indirect_target(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rip = op->flags & OPF_MEM ? soft_load(c, op, soft_ea(c, op), op->size)
					   : soft_reg_get(c, op->dst, op->size);

	soft_check_target(c, op, rip);
	return rip;
}

const struct soft_op *op_jmp_ind_legacy(struct soft_cpu *c, const struct soft_op *op)
{
	return go(c, indirect_target(c, op));
}

const struct soft_op *op_call_ind_legacy(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rip = indirect_target(c, op);

	soft_push(c, op, op->size, soft_next_rip(c, op));
	return go(c, rip);
}

/* LOOPNE LOOPE LOOP JrCXZ as op->dst 0-3; op->src is the size of the counter. */
const struct soft_op *op_loop(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t count = soft_reg_get(c, SLOT(REG_RCX), op->src);
	uint64_t mask = op->src == 8 ? UINT64_MAX : op->src == 4 ? UINT32_MAX : 0xffff;
	uint64_t rip = legacy_target(c, op);
	bool taken;

	if (op->dst != 3)
		count = (count - 1) & mask;
	switch (op->dst) {
	case 0: taken = count && !(c->cc & CC_ZF); break;
	case 1: taken = count && c->cc & CC_ZF; break;
	case 2: taken = count; break;
	default: taken = !count; break;
	}
	if (taken)
		soft_check_target(c, op, rip);
	if (op->dst != 3)
		soft_reg_set(c, SLOT(REG_RCX), op->src, count);
	if (!taken)
		return op + 1;
	c->budget += op->left;
	return go(c, rip);
}
