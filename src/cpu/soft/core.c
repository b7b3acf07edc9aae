/*
 * The run loop: between two blocks the processor looks at requests, interrupts,
 * exceptions and the clock; then it runs the next block.
 */
#include <errno.h>
#include <stdlib.h>
#include <xmmintrin.h>

#include "cpu/model.h"
#include "cpu/soft/cache.h"
#include "cpu/soft/host.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/shared.h"
#include "cpu/soft/soft.h"
#include "cpu/soft/specialise.h"
#include "cpu/soft/system.h"
#include "cpu/soft/vex_thunk.h"
#include "vm/virtual.h"
#include "vm/vm.h"

/* Host MXCSR at power-on: everything masked, round to nearest. */
#define HOST_MXCSR 0x1f80

/* Ranges that wait to be dropped; more than that, and everything is. */
#define WRITTEN_MAX 4096

/* Instructions between two looks at nothing in particular (realtime). */
#define REALTIME_BUDGET (1ll << 40)

/* ---- Ops that frame a block ------------------------------------------ */

const struct soft_op *op_head(struct soft_cpu *c, const struct soft_op *op)
{
	int64_t budget = c->budget - (int64_t)op->imm;

	if (unlikely(budget < 0 ||
		     atomic_load_explicit(&c->kick, memory_order_relaxed))) {
		c->rip = soft_op_rip(c, op);
		return NULL;
	}
	/* Often enough to be translated?  A block that never is begins with 0, and counts round and round. */
	uint32_t to_go = (uint32_t)op->disp - 1;

	((struct soft_op *)op)->disp = (int32_t)to_go;
	if (unlikely(!to_go) && c->jit && !c->test.on) {
		c->jit_wanted = op;
		c->rip = soft_op_rip(c, op);
		return NULL;
	}
	c->budget = budget;
	NEXT(c, op);
}

/* The block ends without a branch. */
const struct soft_op *op_end(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rip = soft_op_rip(c, op);
	const struct soft_op *head = soft_jump_find(c, rip);

	if (likely(head))
		ENTER_BLOCK(c, head, rip);
	c->rip = rip;
	return NULL;
}

/* The rest of this block was written over: leave before this instruction. */
const struct soft_op *op_stale(struct soft_cpu *c, const struct soft_op *op)
{
	c->budget += op->left + 1;
	c->rip = soft_op_rip(c, op);
	return NULL;
}

const struct soft_op *op_stale_head(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rip = soft_op_rip(c, op);
	const struct soft_op *head = soft_jump_find(c, rip);

	/* Links still lead here: on to the block that has taken its place. */
	if (head && head != op)
		GOTO_OP(c, head);
	/* Or the run loop would find this head again. */
	soft_jump_entry(c, rip)->key = 0;
	c->rip = rip;
	return NULL;
}

const struct soft_op *op_ud(struct soft_cpu *c, const struct soft_op *op)
{
	soft_raise(c, op, EXC_UD);
}

const struct soft_op *op_nm(struct soft_cpu *c, const struct soft_op *op)
{
	soft_raise(c, op, EXC_NM);
}

/* ---- Raising ---------------------------------------------------------- */

/* Back to the run loop, with the instruction that op belongs to not executed. */
static _Noreturn void unwind(struct soft_cpu *c, const struct soft_op *op)
{
	if (op) {
		c->rip = soft_op_rip(c, op);
		c->budget += op->left + 1;
	}
	siglongjmp(*c->jmp, 1);
}

_Noreturn void soft_raise(struct soft_cpu *c, const struct soft_op *op, unsigned vector)
{
	c->exc.vector = (uint8_t)vector;
	c->exc.kind = EXC_KIND_FAULT;
	c->exc.has_error = false;
	c->exc.error = 0;
	c->exc_raised = true;
	unwind(c, op);
}

_Noreturn void soft_raise_err(struct soft_cpu *c, const struct soft_op *op, unsigned vector,
			      uint32_t error)
{
	c->exc.vector = (uint8_t)vector;
	c->exc.kind = EXC_KIND_FAULT;
	c->exc.has_error = true;
	c->exc.error = error;
	c->exc_raised = true;
	unwind(c, op);
}

_Noreturn void soft_raise_after(struct soft_cpu *c, const struct soft_op *op, unsigned vector,
				unsigned kind)
{
	c->exc.vector = (uint8_t)vector;
	c->exc.kind = (uint8_t)kind;
	c->exc.has_error = false;
	c->exc.error = 0;
	c->exc_raised = true;
	c->rip = soft_next_rip(c, op);
	c->exc.insn_rip = soft_op_rip(c, op);
	c->budget += op->left;
	siglongjmp(*c->jmp, 1);
}

_Noreturn void soft_restart_alone(struct soft_cpu *c, const struct soft_op *op)
{
	c->step_once = true;
	unwind(c, op);
}

void soft_check_target(struct soft_cpu *c, const struct soft_op *op, uint64_t rip)
{
	if (c->mode & MODE_CS64 ? !soft_canonical(rip) : rip > c->s.seg[SEG_CS].limit)
		soft_raise_err(c, op, EXC_GP, 0);
}

/* ---- Instruction counts ----------------------------------------------- */

uint64_t soft_insns(const struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t used = c->budget_given - (uint64_t)c->budget;

	return c->insns_base + used - (op ? op->left + 1u : 0u);
}

void soft_sync_clock(struct soft_cpu *c, const struct soft_op *op)
{
	_Atomic uint64_t *count = c->vm->clock.mode == CLOCK_MODE_VIRTUAL || !c->v ?
				  &c->vm->clock.insns : &c->v->insns;

	atomic_store_explicit(count, soft_insns(c, op), memory_order_relaxed);
}

/* Gives the processor a new number of instructions to run. */
static void give_budget(struct soft_cpu *c)
{
	SOFT_COUNT(c, run_budget);
	soft_sync_clock(c, NULL);
	c->insns_base = soft_insns(c, NULL);
	if (c->vm->clock.mode == CLOCK_MODE_VIRTUAL) {
		uint64_t n = virtual_budget(c->vm);

		c->budget = n > (uint64_t)REALTIME_BUDGET ? REALTIME_BUDGET : (int64_t)n;
	} else {
		c->budget = REALTIME_BUDGET;
	}
	c->budget_given = (uint64_t)c->budget;
}

/* ---- Mode ------------------------------------------------------------- */

static bool segment_flat(const struct cpu_segment *s, bool write)
{
	if (s->unusable || !(s->attr & 0x80) || s->base || s->limit != 0xffffffff)
		return false;
	if (s->attr & 8)	/* code: readable, and never written */
		return !write && s->attr & 2;
	return !(s->attr & 4) && (!write || s->attr & 2);
}

void soft_update_mode(struct soft_cpu *c)
{
	const struct cpu_arch_state *s = &c->s;
	const struct cpu_segment *cs = &s->seg[SEG_CS];
	bool lma = s->efer & EFER_LMA;
	uint32_t mode = 0;

	if (lma)
		mode |= MODE_LMA;
	if (lma && cs->attr & BIT(13)) {
		mode |= MODE_CS64;
	} else {
		if (cs->attr & BIT(14))
			mode |= MODE_CS32;
		if (s->seg[SEG_SS].attr & BIT(14))
			mode |= MODE_SS32;
		if (segment_flat(cs, false) && segment_flat(&s->seg[SEG_SS], true) &&
		    segment_flat(&s->seg[SEG_DS], true) && segment_flat(&s->seg[SEG_ES], true))
			mode |= MODE_FLAT;
		if (cs->base || cs->limit != 0xffffffff)
			mode |= MODE_CSLIMIT;
	}
	if (s->cr0 & CR0_PE)
		mode |= MODE_PE;
	if (s->rflags & RFLAGS_VM)
		mode |= MODE_VM86;
	if (s->cr0 & (CR0_EM | CR0_TS))
		mode |= MODE_NOFPU | MODE_NOSSE;
	if (!(s->cr4 & CR4_OSFXSR))
		mode |= MODE_NOSSE;
	if (c->vex && (s->cr0 & CR0_TS || !(s->cr4 & CR4_OSXSAVE) ||
		       ~s->xcr0 & (XCR0_SSE | XCR0_AVX)))
		mode |= MODE_NOAVX;
	if (~s->fpu.mxcsr & 0x1f80)
		mode |= MODE_FPSTRICT;
	if (c->cpl == 3)
		mode |= MODE_USER;
	else if (s->rflags & RFLAGS_AC || !(s->cr4 & CR4_SMAP))
		mode |= MODE_AC;
	c->ip_mask = mode & MODE_CS64 ? UINT64_MAX : UINT32_MAX;

	bool ac = c->cpl == 3 && s->cr0 & CR0_AM && s->rflags & RFLAGS_AC;
	bool step = s->rflags & RFLAGS_TF || s->dr7 & 0xff;

	/*
	 * Alignment checks and data breakpoints are made where the TLB misses, so
	 * it must miss while they are on (step mode flushes for itself).
	 */
	if (ac != c->alignment_check) {
		c->alignment_check = ac;
		soft_tlb_flush(c, true);
	}
	c->stepping = step;
	c->mode = mode;
	soft_mmu_select(c);
}

void soft_set_rflags(struct soft_cpu *c, uint64_t f)
{
	uint64_t changed = (f ^ c->s.rflags) & (RFLAGS_VM | RFLAGS_AC | RFLAGS_TF);

	c->s.rflags = (f & ~(uint64_t)RFLAGS_STATUS) | 2;
	c->cc = soft_cc_from_rflags(f);
	if (changed)
		soft_update_mode(c);
}

void soft_set_seg_base(struct soft_cpu *c, unsigned seg, uint64_t base)
{
	c->s.seg[seg].base = base;
	if (seg == SEG_FS)
		c->r[SLOT_FS] = base;
	else if (seg == SEG_GS)
		c->r[SLOT_GS] = base;
}

void soft_set_segment(struct soft_cpu *c, unsigned seg, const struct cpu_segment *v)
{
	c->s.seg[seg] = *v;
	soft_set_seg_base(c, seg, v->base);
}

/* ---- Running ----------------------------------------------------------- */

/* Runs from op until something leaves. */
static void run_ops(struct soft_cpu *c, const struct soft_op *op)
{
	while (op)
		op = op->fn(c, op);
}

/* At most 15 bytes at the instruction pointer: copies them from one page. */
static void fetch_bytes(struct soft_cpu *c, uint64_t lin, uint8_t *to, unsigned n)
{
	struct soft_fetch f = soft_fetch(c, lin);

	if (f.host)
		memcpy(to, f.host + (lin & 0xfff), n);
	else
		memset(to, 0xff, n);	/* nothing there: an undefined opcode */
}

/* Decodes the instruction at c->rip; raises #PF and #GP of the fetch. */
static void decode_alone(struct soft_cpu *c, struct soft_op *ops)
{
	bool long64 = c->mode & MODE_CS64;
	uint64_t lin = soft_fetch_lin(c, c->rip);
	unsigned off = lin & 0xfff, room = 15, here, ninsns, nbytes;
	uint8_t bytes[16];
	struct block_bytes in = { .bytes = bytes, .page_offset = off };

	if (!long64) {
		soft_check_target(c, NULL, c->rip);
		room = (unsigned)MIN(15u, c->s.seg[SEG_CS].limit - c->rip + 1);
	}
	here = MIN(room, 4096 - off);
	fetch_bytes(c, lin, bytes, here);
	if (unlikely(!soft_vex_room(c->vex)))
		soft_cache_flush(c);
	in.avail = here;
	if (soft_decode_block(c, &in, 1, ops, &ninsns, &nbytes))
		return;
	if (here < room) {
		fetch_bytes(c, soft_fetch_lin(c, c->rip + here), bytes + here, room - here);
		in.avail = room;
		if (soft_decode_block(c, &in, 1, ops, &ninsns, &nbytes))
			return;
	}
	soft_raise_err(c, NULL, EXC_GP, 0);	/* it goes on beyond the limit of CS */
}

/* Decodes and runs exactly one instruction (one iteration of a REP). */
static void run_alone(struct soft_cpu *c)
{
	struct soft_op ops[BLOCK_MAX_OPS];
	int64_t rest;

	SOFT_COUNT(c, run_alone);
	decode_alone(c, ops);
	/* No budget but for this one: every block head leaves, a REP does one round. */
	rest = c->budget - 1;
	c->budget_given -= (uint64_t)rest;
	c->budget = 0;
	c->r[SLOT_IPBASE] = c->rip - ops[0].ip;
	c->step_rest = rest;
	c->alone = true;
	run_ops(c, ops + 1);
	c->alone = false;
	c->budget += c->step_rest;
	c->budget_given += (uint64_t)c->step_rest;
	c->step_rest = 0;
}

/* ---- Turns (clock=virtual, several processors) ------------------------- */

/* Waits for this processor's turn; false: it is to stop first. */
static bool await_turn(struct soft_cpu *c)
{
	if (!turn_wait(c->v))
		return false;
	c->turn = true;
	/* The count is the machine's: others have moved it on. */
	c->insns_base = atomic_load_explicit(&c->vm->clock.insns, memory_order_relaxed);
	c->budget = 0;
	c->budget_given = 0;
	soft_enter_guest(c);
	return true;
}

/* Lets the others run; the clock is up to date.  False: this processor is to stop. */
static bool pass_turn(struct soft_cpu *c)
{
	soft_leave_guest(c);
	c->turn = false;
	turn_pass(c->v);
	return await_turn(c);
}

/* In HLT the others have their turns; when all of them wait, time moves on. */
static bool wait_turns(struct soft_cpu *c)
{
	soft_sync_clock(c, NULL);
	soft_leave_guest(c);
	c->turn = false;
	if (!turn_pass(c->v) && !virtual_idle(c->vm))
		vcpu_wait(c->v);
	return await_turn(c);
}

/*
 * Waits in HLT, or to be started.  Returns true when run must return *why: to stop, or since nothing
 * can end it because every processor waits with interrupts off.
 */
static bool wait_halted(struct soft_cpu *c, enum vcpu_exit *why)
{
	bool deaf = c->s.wait_sipi || !(c->s.rflags & RFLAGS_IF);

	*why = VCPU_EXIT_HALTED;
	if (!vcpu_idle(c->v, deaf ? VCPU_IDLE_DEAF : VCPU_IDLE_HALT))
		return true;
	if (turns_taken(c->vm)) {
		*why = VCPU_EXIT_STOPPED;
		if (!wait_turns(c))
			return true;
		vcpu_idle(c->v, VCPU_IDLE_NOT);
		return false;
	}
	soft_leave_guest(c);
	if (c->vm->clock.mode == CLOCK_MODE_VIRTUAL) {
		soft_sync_clock(c, NULL);
		if (!virtual_idle(c->vm))
			vcpu_wait(c->v);
	} else {
		vcpu_wait(c->v);
	}
	SOFT_COUNT(c, run_halts);
	soft_enter_guest(c);
	vcpu_idle(c->v, VCPU_IDLE_NOT);
	return false;
}

/* What is not an interrupt: returns true when run must return *why. */
static bool serve_requests(struct soft_cpu *c, enum vcpu_exit *why)
{
	struct vcpu *v = c->v;
	uint32_t mine = VCPU_REQ_TLB | VCPU_REQ_CODE | VCPU_REQ_EVENT | VCPU_REQ_STOP;
	uint32_t r;

	SOFT_COUNT(c, run_requests);
	/* Cleared before looking, so that a later kick is seen. */
	atomic_store(&c->kick, 0);
	soft_shared_serve(c);
	r = atomic_fetch_and(&v->requests, ~mine);
	if (r & VCPU_REQ_TLB)
		soft_tlb_flush(c, true);
	if (r & VCPU_REQ_CODE)
		soft_drain_code(c);
	if (r & VCPU_REQ_EVENT && c->vm->clock.mode == CLOCK_MODE_VIRTUAL) {
		soft_sync_clock(c, NULL);
		virtual_run_due(c->vm);
		give_budget(c);
	}
	if (atomic_load(&v->stop_reasons)) {
		*why = VCPU_EXIT_STOPPED;
		return true;
	}
	return false;
}

/* See soft_cpu.test: nothing that is done here may be noticed. */
static void disturb(struct soft_cpu *c)
{
	/* No block leads to the next one by itself. */
	atomic_store_explicit(&c->kick, KICKED, memory_order_relaxed);
	c->step_once |= c->test.alone;
	if (c->test.forget && ++c->test.passed >= c->test.forget) {
		c->test.passed = 0;
		soft_tlb_flush(c, true);
		soft_cache_flush(c);
	}
}

static enum vcpu_exit soft_loop(struct soft_cpu *c)
{
	const struct soft_op *head;
	enum vcpu_exit why;

	for (;;) {
		if (unlikely(c->exc_raised)) {
			c->exc_raised = false;
			if (!soft_deliver(c))
				return VCPU_EXIT_TRIPLE_FAULT;
			/*
			 * A fault takes the time of the instruction that did not come to its
			 * end: a handler whose first instruction faults must not stop time.
			 */
			if (c->exc.kind == EXC_KIND_FAULT)
				c->budget--;
			/*
			 * An interrupt is taken after a look at the clock, and there is
			 * no second look before its first instruction: an instruction
			 * count is one point in time, for record and for replay.
			 */
			if (c->exc.kind != EXC_KIND_HARD)
				continue;
			goto execute;
		}
		if (atomic_load_explicit(&c->kick, memory_order_acquire) &&
		    serve_requests(c, &why))
			return why;
		if (unlikely(c->budget <= 0)) {
			soft_sync_clock(c, NULL);
			if (c->vm->clock.mode == CLOCK_MODE_VIRTUAL)
				virtual_run_due(c->vm);
			give_budget(c);
			if (c->budget <= 0)
				return VCPU_EXIT_LIMIT;
			if (turns_taken(c->vm) && !turn_left(c->vm)) {
				if (!pass_turn(c))
					return VCPU_EXIT_STOPPED;
				give_budget(c);
			}
			continue;	/* what has fallen due may have sent a request */
		}
		if (atomic_load_explicit(&c->v->requests, memory_order_relaxed) &&
		    soft_take_interrupt(c)) {
			c->exc_raised = true;
			continue;
		}
		if (unlikely(c->s.halted | c->s.wait_sipi)) {
			if (wait_halted(c, &why))
				return why;
			give_budget(c);
			continue;
		}
execute:
		if (unlikely(c->test.on))
			disturb(c);
		if (unlikely(c->stepping || c->step_once || c->s.sti_shadow || c->s.ss_shadow)) {
			bool hooks = c->stepping || c->s.pending_dbg;

			if (hooks && soft_before_insn(c)) {
				c->exc_raised = true;
				continue;
			}
			SOFT_COUNT(c, run_shadows);
			/* The shadow covers this instruction, which may cast its own. */
			c->s.sti_shadow = c->s.ss_shadow = 0;
			c->step_once = false;
			run_alone(c);
			if ((hooks || c->stepping || c->s.pending_dbg) && soft_after_insn(c))
				c->exc_raised = true;
			continue;
		}

		SOFT_COUNT(c, run_rounds);
		head = soft_jump_find(c, c->rip);
		if (!head)
			head = soft_cache_find(c);
		if (unlikely(c->jit_wanted)) {
			if (c->jit_wanted == head)
				soft_cache_translate(c);
			else
				((struct soft_op *)c->jit_wanted)->disp = 1;	/* next time */
			c->jit_wanted = NULL;
		}
		if (!head || c->budget < (int64_t)head->imm) {
			run_alone(c);
			continue;
		}
		c->r[SLOT_IPBASE] = c->rip - head->ip;
		if (unlikely(c->test.on) && head->fn == op_head) {
			/* Past the head, which would see the kick. */
			c->budget -= (int64_t)head->imm;
			head++;
		}
		run_ops(c, head);
	}
}

bool soft_once(struct soft_cpu *c)
{
	volatile bool alive = true;	/* delivery may come back to sigsetjmp with another exception */
	sigjmp_buf jmp;

	soft_mxcsr_load(c);
	atomic_store(&c->kick, 0);
	c->budget = c->budget_given = 1;
	c->jmp = &jmp;
	if (!sigsetjmp(jmp, 0)) {
		c->s.sti_shadow = c->s.ss_shadow = 0;
		run_alone(c);
	}
	c->alone = false;
	c->step_rest = 0;
	/* Delivering one exception may raise another, up to the third. */
	if (c->exc_raised) {
		c->exc_raised = false;
		alive = soft_deliver(c);
	}
	c->jmp = NULL;
	soft_mxcsr_sync(c);
	_mm_setcsr(HOST_MXCSR);
	return alive;
}

static enum vcpu_exit soft_run(struct vcpu *v)
{
	struct soft_cpu *c = v->backend;
	sigjmp_buf jmp;
	enum vcpu_exit why;

	if (turns_taken(c->vm)) {
		if (!await_turn(c))
			return VCPU_EXIT_STOPPED;
		vcpu_idle(v, VCPU_IDLE_NOT);
	} else {
		soft_enter_guest(c);
	}
	soft_mxcsr_load(c);
	if (c->jit)
		soft_jit_enter_thread(c);
	/*
	 * The processor may have been stopped where something falls due: before the first
	 * instruction, not after it.
	 */
	soft_sync_clock(c, NULL);
	if (c->vm->clock.mode == CLOCK_MODE_VIRTUAL)
		virtual_run_due(c->vm);
	give_budget(c);
	c->jmp = &jmp;
	if (sigsetjmp(jmp, 0)) {
		/* An instruction that ran alone, or inside translated code, was left half-way. */
		if (c->jit_inside)
			SOFT_COUNT(c, translator_exit_fault);
		c->jit_inside = false;
		c->alone = false;
		c->budget += c->step_rest;
		c->budget_given += (uint64_t)c->step_rest;
		c->step_rest = 0;
	}
	why = soft_loop(c);
	c->jmp = NULL;
	soft_leave_guest(c);
	if (c->turn || !turns_taken(c->vm))
		soft_sync_clock(c, NULL);
	soft_mxcsr_sync(c);
	_mm_setcsr(HOST_MXCSR);
	return why;
}

/* ---- vcpu_ops ----------------------------------------------------------- */

static void soft_destroy(struct vcpu *v)
{
	struct soft_cpu *c = v->backend;

	if (!c)
		return;
	soft_shared_leave(c);
	soft_cache_destroy(c->cache);
	soft_jit_destroy(c->jit);
	soft_mmu_destroy(c->mmu);
	soft_vex_destroy(c->vex);
	free(c->jumps);
	free(c->twins);
	free(c->written);
	free(c);
	v->backend = NULL;
}

static int soft_create(struct vcpu *v, struct skep_error *e)
{
	const char *name = config_string(config_root(v->vm->config), "cpu.model");
	struct soft_cpu *c = aligned_alloc(64, ALIGN_UP(sizeof *c, 64));

	if (!c)
		return skep_fail(e, ENOMEM, "not enough memory for a processor");
	memset(c, 0, sizeof *c);
	v->backend = c;
	c->v = v;
	c->vm = v->vm;
	pthread_mutex_init(&c->written_lock, NULL);
	c->model = cpu_model_find(name ? name : "skep-v2.1");
	if (!c->model) {
		soft_destroy(v);
		return skep_fail(e, EINVAL, "cpu.model: there is no CPU model \"%s\"", name);
	}
	if (soft_host_check(c->model, soft_host_features(), e) < 0) {
		soft_destroy(v);
		return -ENOTSUP;
	}
	if (c->model->v3) {
		c->vex = soft_vex_create(e);
		if (!c->vex) {
			soft_destroy(v);
			return -ENOMEM;
		}
	}
	c->mmu = soft_mmu_create(c->vm->clock.mode == CLOCK_MODE_VIRTUAL);
	c->cache = soft_cache_create(e);
	c->twins = soft_twins_create();
	c->jumps = calloc(JUMP_ENTRIES, sizeof *c->jumps);
	if (soft_jit_create(c, e)) {
		soft_destroy(v);
		return -ENOMEM;
	}
	if (!c->mmu || !c->cache || !c->jumps || !c->twins) {
		soft_destroy(v);
		return skep_fail(e, ENOMEM, "not enough memory for a processor");
	}
	if (soft_shared_join(c, e)) {
		soft_destroy(v);
		return -ENOMEM;
	}
	soft_reset(c, false);
	return 0;
}

static void soft_ops_reset(struct vcpu *v, bool init)
{
	struct soft_cpu *c = v->backend;

	c->exc_raised = c->step_once = false;
	soft_reset(c, init);
	soft_tlb_flush(c, true);
	soft_cache_flush(c);
	soft_update_mode(c);
}

static void soft_kick(struct vcpu *v)
{
	struct soft_cpu *c = v->backend;

	atomic_store(&c->kick, KICKED);
}

static void soft_ops_get_state(struct vcpu *v, struct cpu_arch_state *s)
{
	soft_get_state(v->backend, s);
}

static int soft_ops_check_state(struct vcpu *v, const struct cpu_arch_state *s,
				struct skep_error *e)
{
	return soft_validate_state(v->backend, s, e);
}

static int soft_ops_set_state(struct vcpu *v, const struct cpu_arch_state *s, struct skep_error *e)
{
	struct soft_cpu *c = v->backend;
	int err = soft_set_state(c, s, e);

	if (err)
		return err;
	c->exc_raised = c->step_once = false;
	soft_tlb_flush(c, true);
	soft_cache_flush(c);
	soft_update_mode(c);
	return 0;
}

/* A loop that writes beside code must not make the queue long: one page, one entry. */
static bool join_written(struct written *w, uint64_t gpa, uint64_t len)
{
	uint64_t from = MIN(w->gpa, gpa), to = MAX(w->gpa + w->len, gpa + len);

	if ((w->gpa ^ gpa) >> 12 || (from ^ (to - 1)) >> 12)
		return false;
	*w = (struct written){ from, to - from };
	return true;
}

/* Any thread: notes the range for the processor's own thread to act on. */
static void soft_invalidate_code(struct vcpu *v, uint64_t gpa, uint64_t len)
{
	struct soft_cpu *c = v->backend;

	if (!len)
		return;
	pthread_mutex_lock(&c->written_lock);
	if (c->written_all || (c->nwritten && join_written(&c->written[c->nwritten - 1], gpa, len))) {
		pthread_mutex_unlock(&c->written_lock);
		vcpu_request(v, VCPU_REQ_CODE);
		return;
	}
	if (c->nwritten == c->written_room && c->written_room < WRITTEN_MAX) {
		size_t room = c->written_room ? c->written_room * 2 : 64;
		struct written *w = realloc(c->written, room * sizeof *w);

		if (w) {
			c->written = w;
			c->written_room = room;
		}
	}
	if (c->nwritten < c->written_room)
		c->written[c->nwritten++] = (struct written){ gpa, len };
	else
		c->written_all = true;
	pthread_mutex_unlock(&c->written_lock);
	vcpu_request(v, VCPU_REQ_CODE);
}

void soft_drain_code(struct soft_cpu *c)
{
	pthread_mutex_lock(&c->written_lock);
	if (c->written_all) {
		soft_cache_flush(c);
		soft_tables_written(c, 0, UINT64_MAX);
	} else {
		for (size_t i = 0; i < c->nwritten; i++) {
			soft_code_written(c, c->written[i].gpa, c->written[i].len);
			soft_tables_written(c, c->written[i].gpa, c->written[i].len);
		}
	}
	c->nwritten = 0;
	c->written_all = false;
	pthread_mutex_unlock(&c->written_lock);
}

const struct vcpu_ops vcpu_soft_ops = {
	.name = "soft",
	.create = soft_create,
	.destroy = soft_destroy,
	.reset = soft_ops_reset,
	.run = soft_run,
	.kick = soft_kick,
	.get_state = soft_ops_get_state,
	.check_state = soft_ops_check_state,
	.set_state = soft_ops_set_state,
	.freeze = vcpu_nop,
	.thaw = vcpu_nop,
	.sync_dirty = vcpu_nop_sync,
	.live_cut = true,
	.invalidate_code = soft_invalidate_code,
	.stats = soft_stats_tell,
};
