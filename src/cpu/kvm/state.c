/*
 * A processor's architectural state, from the kernel and to it.
 *
 * The order of setting.  CPUID came when the processor was made: it decides which values are allowed.
 * Special registers come first, for they hold modes on which others depend, and IA32_APIC_BASE, on
 * which the form of the local APIC's registers depends; then general registers, XCR0, the FPU (whose
 * components XCR0 allows), debug registers, MSRs, events, and whether it runs.  The local APIC follows
 * with kvm_thaw, and the TSC's deadline after that: set before it, the deadline would be lost.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "chipset/lapic.h"
#include "cpu/model.h"
#include "cpu/soft/system.h"
#include "vm/vm.h"

#define SETTLE_STEPS	128	/* instructions after which nothing is under way any more */
#define STEP_NS		200000
#define LINGER_NS	1000000
#define LINGERS		20
#define SHADOW_MOV_SS	KVM_X86_SHADOW_INT_MOV_SS
#define SHADOW_STI	KVM_X86_SHADOW_INT_STI

/* ---- Segments -------------------------------------------------------------- */

static void get_segment(struct cpu_segment *g, const struct kvm_segment *s, unsigned i,
			unsigned cpl)
{
	/* The kernel's emulator leaves a null selector as a segment that is not present. */
	bool unusable = s->unusable || (!s->present && i != SEG_CS && i != SEG_TR);
	bool based = i == SEG_FS || i == SEG_GS;
	unsigned type = s->type;

	if (unusable) {
		*g = (struct cpu_segment){
			.selector = s->selector, .unusable = 1, .base = based ? s->base : 0,
			.attr = i == SEG_SS ? (uint16_t)(cpl << 5) : 0,
		};
		return;
	}
	/* Loaded is accessed, and a task register busy: some processors do not keep these bits. */
	if (s->s)
		type |= 1;
	else if (i == SEG_TR)
		type |= 2;
	*g = (struct cpu_segment){
		.selector = s->selector, .limit = s->limit, .base = s->base,
		.attr = (uint16_t)(type | s->s << 4 | s->dpl << 5 | s->present << 7 | s->avl << 12 |
				   s->l << 13 | s->db << 14 | s->g << 15),
	};
}

static void put_segment(const struct cpu_segment *g, struct kvm_segment *s)
{
	*s = (struct kvm_segment){
		.base = g->base, .limit = g->limit, .selector = g->selector, .type = g->attr & 15,
		.s = g->attr >> 4 & 1, .dpl = g->attr >> 5 & 3, .present = g->attr >> 7 & 1,
		.avl = g->attr >> 12 & 1, .l = g->attr >> 13 & 1, .db = g->attr >> 14 & 1,
		.g = g->attr >> 15 & 1, .unusable = g->unusable,
	};
}

/* ---- Special registers -------------------------------------------------------- */

/* The two structures are alike up to the bitmap of interrupts. */
union sregs {
	struct kvm_sregs one;
	struct kvm_sregs2 two;
};

static int read_sregs(struct kvm_cpu *k, union sregs *r)
{
	memset(r, 0, sizeof(*r));
	return k->m->sregs2 ? kvm_call(k->fd, KVM_GET_SREGS2, &r->two) :
			      kvm_call(k->fd, KVM_GET_SREGS, &r->one);
}

static struct kvm_segment *segment_of(struct kvm_sregs *r, unsigned i)
{
	struct kvm_segment *const at[SEG_COUNT] = {
		[SEG_ES] = &r->es, [SEG_CS] = &r->cs, [SEG_SS] = &r->ss, [SEG_DS] = &r->ds,
		[SEG_FS] = &r->fs, [SEG_GS] = &r->gs, [SEG_LDTR] = &r->ldt, [SEG_TR] = &r->tr,
	};

	return at[i];
}

static void get_sregs(struct kvm_cpu *k, struct cpu_arch_state *s, union sregs *r)
{
	unsigned cpl = r->one.cr0 & CR0_PE ? r->one.ss.dpl : 0;

	for (unsigned i = 0; i < SEG_COUNT; i++)
		get_segment(&s->seg[i], segment_of(&r->one, i), i, cpl);
	s->gdtr = (struct cpu_table){ r->one.gdt.base, r->one.gdt.limit };
	s->idtr = (struct cpu_table){ r->one.idt.base, r->one.idt.limit };
	s->cr0 = r->one.cr0 | CR0_ET;
	s->cr2 = r->one.cr2;
	s->cr3 = r->one.cr3;
	s->cr4 = r->one.cr4;
	s->cr8 = r->one.cr8;
	s->efer = r->one.efer;
	s->apic_base = r->one.apic_base;
	memset(s->pdpte, 0, sizeof(s->pdpte));
	if (k->m->sregs2 && r->two.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID)
		for (unsigned i = 0; i < ARRAY_SIZE(s->pdpte); i++)
			s->pdpte[i] = r->two.pdptrs[i];
}

static bool pae_paging(const struct cpu_arch_state *s)
{
	return s->cr0 & CR0_PG && s->cr4 & CR4_PAE && !(s->efer & EFER_LMA);
}

static int put_sregs(struct kvm_cpu *k, const struct cpu_arch_state *s)
{
	union sregs r;

	memset(&r, 0, sizeof(r));
	for (unsigned i = 0; i < SEG_COUNT; i++)
		put_segment(&s->seg[i], segment_of(&r.one, i));
	r.one.gdt = (struct kvm_dtable){ .base = s->gdtr.base, .limit = s->gdtr.limit };
	r.one.idt = (struct kvm_dtable){ .base = s->idtr.base, .limit = s->idtr.limit };
	r.one.cr0 = s->cr0;
	r.one.cr2 = s->cr2;
	r.one.cr3 = s->cr3;
	r.one.cr4 = s->cr4;
	r.one.cr8 = s->cr8;
	r.one.efer = s->efer;
	r.one.apic_base = s->apic_base;
	if (!k->m->sregs2)
		return kvm_call(k->fd, KVM_SET_SREGS, &r.one);
	if (pae_paging(s)) {
		r.two.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
		for (unsigned i = 0; i < ARRAY_SIZE(s->pdpte); i++)
			r.two.pdptrs[i] = s->pdpte[i];
	}
	return kvm_call(k->fd, KVM_SET_SREGS2, &r.two);
}

/* ---- General registers ---------------------------------------------------------- */

static uint64_t *kvm_gpr(struct kvm_regs *r, unsigned i)
{
	uint64_t *const at[16] = {
		[REG_RAX] = (uint64_t *)&r->rax, [REG_RCX] = (uint64_t *)&r->rcx,
		[REG_RDX] = (uint64_t *)&r->rdx, [REG_RBX] = (uint64_t *)&r->rbx,
		[REG_RSP] = (uint64_t *)&r->rsp, [REG_RBP] = (uint64_t *)&r->rbp,
		[REG_RSI] = (uint64_t *)&r->rsi, [REG_RDI] = (uint64_t *)&r->rdi,
		[REG_R8] = (uint64_t *)&r->r8, [REG_R9] = (uint64_t *)&r->r9,
		[REG_R10] = (uint64_t *)&r->r10, [REG_R11] = (uint64_t *)&r->r11,
		[REG_R12] = (uint64_t *)&r->r12, [REG_R13] = (uint64_t *)&r->r13,
		[REG_R14] = (uint64_t *)&r->r14, [REG_R15] = (uint64_t *)&r->r15,
	};

	return at[i];
}

static int get_regs(struct kvm_cpu *k, struct cpu_arch_state *s)
{
	struct kvm_regs r;
	int err = kvm_call(k->fd, KVM_GET_REGS, &r);

	if (err < 0)
		return err;
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = *kvm_gpr(&r, i);
	s->rip = r.rip;
	s->rflags = r.rflags;
	return 0;
}

static int put_regs(struct kvm_cpu *k, const struct cpu_arch_state *s)
{
	struct kvm_regs r = { .rip = s->rip, .rflags = s->rflags };

	for (unsigned i = 0; i < 16; i++)
		*kvm_gpr(&r, i) = s->gpr[i];
	return kvm_call(k->fd, KVM_SET_REGS, &r);
}

/* ---- XCR0, debug registers --------------------------------------------------------- */

static int get_xcr0(struct kvm_cpu *k, struct cpu_arch_state *s)
{
	struct kvm_xcrs x;
	int err = kvm_call(k->fd, KVM_GET_XCRS, &x);

	s->xcr0 = XCR0_X87;
	for (unsigned i = 0; !err && i < x.nr_xcrs && i < KVM_MAX_XCRS; i++)
		if (x.xcrs[i].xcr == 0)
			s->xcr0 = x.xcrs[i].value;
	return err;
}

static int put_xcr0(struct kvm_cpu *k, const struct cpu_arch_state *s)
{
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs[0].value = s->xcr0 };

	return kvm_call(k->fd, KVM_SET_XCRS, &x);
}

static int get_debug(struct kvm_cpu *k, struct cpu_arch_state *s)
{
	struct kvm_debugregs d;
	int err = kvm_call(k->fd, KVM_GET_DEBUGREGS, &d);

	for (unsigned i = 0; !err && i < 4; i++)
		s->dr[i] = d.db[i];
	if (!err) {
		s->dr6 = d.dr6 | DR6_FIXED;
		s->dr7 = d.dr7 | DR7_FIXED;
	}
	return err;
}

static int put_debug(struct kvm_cpu *k, const struct cpu_arch_state *s)
{
	struct kvm_debugregs d = { .dr6 = s->dr6, .dr7 = s->dr7 };

	for (unsigned i = 0; i < 4; i++)
		d.db[i] = s->dr[i];
	return kvm_call(k->fd, KVM_SET_DEBUGREGS, &d);
}

/* ---- Events -------------------------------------------------------------------------- */

static int get_events(struct kvm_cpu *k, struct cpu_arch_state *s)
{
	struct kvm_vcpu_events ev;
	struct kvm_mp_state mp;
	int err = kvm_call(k->fd, KVM_GET_VCPU_EVENTS, &ev);

	if (!err)
		err = kvm_call(k->fd, KVM_GET_MP_STATE, &mp);
	if (err < 0)
		return err;
	/* STI is what casts it where both are said: an emulator may say so. */
	s->sti_shadow = !!(ev.interrupt.shadow & SHADOW_STI) && s->rflags & RFLAGS_IF;
	s->ss_shadow = !s->sti_shadow && ev.interrupt.shadow & SHADOW_MOV_SS;
	/* One that was on its way comes again, from the beginning (settle has left no other event). */
	s->nmi_pending = ev.nmi.pending || ev.nmi.injected;
	s->nmi_blocked = ev.nmi.masked && !ev.nmi.injected;
	s->halted = mp.mp_state == KVM_MP_STATE_HALTED;
	s->wait_sipi = mp.mp_state == KVM_MP_STATE_UNINITIALIZED ||
		       mp.mp_state == KVM_MP_STATE_INIT_RECEIVED;
	if (s->halted || s->wait_sipi)
		s->sti_shadow = s->ss_shadow = 0;
	s->init_pending = s->sipi_pending = s->sipi_vector = 0;
	s->pending_dbg = 0;
	return 0;
}

static int put_events(struct kvm_cpu *k, const struct cpu_arch_state *s)
{
	struct kvm_vcpu_events ev = {
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
		.interrupt.shadow = (s->sti_shadow ? SHADOW_STI : 0) | (s->ss_shadow ? SHADOW_MOV_SS : 0),
		.nmi.pending = s->nmi_pending,
		.nmi.masked = s->nmi_blocked,
	};
	/* INIT_RECEIVED is what a processor waits for its start in, whether an INIT came or none. */
	struct kvm_mp_state mp = {
		.mp_state = s->wait_sipi ? KVM_MP_STATE_INIT_RECEIVED :
			    s->halted ? KVM_MP_STATE_HALTED : KVM_MP_STATE_RUNNABLE,
	};
	int err = kvm_call(k->fd, KVM_SET_VCPU_EVENTS, &ev);

	return err < 0 ? err : kvm_call(k->fd, KVM_SET_MP_STATE, &mp);
}

/* ---- All of it ------------------------------------------------------------------------- */

int kvm_state_read(struct kvm_cpu *k, struct cpu_arch_state *s, struct skep_error *e)
{
	union sregs r;
	int err;

	memset(s, 0, sizeof(*s));
	err = read_sregs(k, &r);
	if (err < 0)
		return kvm_fail(e, err, "KVM_GET_SREGS");
	get_sregs(k, s, &r);
	err = get_regs(k, s);
	if (err < 0)
		return kvm_fail(e, err, "KVM_GET_REGS");
	err = get_xcr0(k, s);
	if (err < 0)
		return kvm_fail(e, err, "KVM_GET_XCRS");
	err = kvm_fpu_get(k, s, e);
	if (err < 0)
		return err;
	err = get_debug(k, s);
	if (err < 0)
		return kvm_fail(e, err, "KVM_GET_DEBUGREGS");
	err = kvm_msrs_get(k, s);
	if (err < 0)
		return kvm_fail(e, err, "KVM_GET_MSRS");
	err = get_events(k, s);
	return err < 0 ? kvm_fail(e, err, "KVM_GET_VCPU_EVENTS") : 0;
}

int kvm_registers_write(struct kvm_cpu *k, const struct cpu_arch_state *s, struct skep_error *e)
{
	int err = put_sregs(k, s);

	if (err < 0)
		return kvm_fail(e, err, "KVM_SET_SREGS");
	err = put_regs(k, s);
	if (err < 0)
		return kvm_fail(e, err, "KVM_SET_REGS");
	err = put_xcr0(k, s);
	if (err < 0)
		return kvm_fail(e, err, "KVM_SET_XCRS");
	err = kvm_fpu_set(k, s, e);
	if (err < 0)
		return err;
	err = put_debug(k, s);
	if (err < 0)
		return kvm_fail(e, err, "KVM_SET_DEBUGREGS");
	return kvm_msrs_set(k, s, e);
}

int kvm_state_write(struct kvm_cpu *k, const struct cpu_arch_state *s, struct skep_error *e)
{
	int err = kvm_registers_write(k, s, e);

	k->ready_known = false;
	k->ext_given = false;
	k->ended = false;
	if (err < 0)
		return err;
	err = put_events(k, s);
	return err < 0 ? kvm_fail(e, err, "KVM_SET_VCPU_EVENTS") : 0;
}

/* What an instruction does to events: shadows end, IRET lets NMIs in again. */
int kvm_events_after(struct kvm_cpu *k, const struct cpu_arch_state *s)
{
	struct kvm_vcpu_events ev;
	int err = kvm_call(k->fd, KVM_GET_VCPU_EVENTS, &ev);

	if (err < 0)
		return err;
	ev.flags = KVM_VCPUEVENT_VALID_SHADOW;
	ev.interrupt.shadow = (s->sti_shadow ? SHADOW_STI : 0) | (s->ss_shadow ? SHADOW_MOV_SS : 0);
	ev.nmi.masked = s->nmi_blocked;
	ev.exception.injected = ev.exception.pending = 0;
	return kvm_call(k->fd, KVM_SET_VCPU_EVENTS, &ev);
}

void kvm_get_state(struct vcpu *v, struct cpu_arch_state *s)
{
	struct kvm_cpu *k = kvm_cpu_of(v);
	struct skep_error e;

	/* All zeroes are no state of a processor, so that nobody saves them. */
	if (kvm_state_read(k, s, &e) < 0) {
		memset(s, 0, sizeof(*s));
		vm_request_error(v->vm, "%s", e.text);
		return;
	}
	s->nmi_pending |= !!(atomic_load(&v->requests) & VCPU_REQ_NMI);
	if (v->lapic && !k->out) {
		s->cr8 = lapic_get_tpr(v->lapic);
		s->apic_base = lapic_get_base(v->lapic);
	}
}

/* The rules are the architecture's, and what this host has not. */
int kvm_check_state(struct vcpu *v, const struct cpu_arch_state *s, struct skep_error *e)
{
	struct kvm_cpu *k = kvm_cpu_of(v);
	int err = soft_check_state(k->m->model, v, s, e);

	return err ? err : kvm_msrs_check(k, s, e);
}

/* INIT and SIPI that had come and were not looked at. */
static void apply_requests(struct vcpu *v, struct cpu_arch_state *s, const struct kvm_cpu *k)
{
	if (s->init_pending) {
		cpu_arch_reset(s, true, v->index == 0, cpu_model_leaf(k->m->model, 1, 0)->eax);
		s->init_pending = 0;
	}
	if (s->sipi_pending && s->wait_sipi) {
		s->seg[SEG_CS].selector = (uint16_t)(s->sipi_vector << 8);
		s->seg[SEG_CS].base = (uint64_t)s->sipi_vector << 12;
		s->rip = 0;
		s->wait_sipi = 0;
	}
	s->sipi_pending = s->sipi_vector = 0;
}

int kvm_set_state(struct vcpu *v, const struct cpu_arch_state *s, struct skep_error *e)
{
	struct kvm_cpu *k = kvm_cpu_of(v);
	struct cpu_arch_state now = *s;
	int err = kvm_check_state(v, s, e);

	if (err)
		return err;
	apply_requests(v, &now, k);
	err = kvm_state_write(k, &now, e);
	if (!err && v->lapic)
		lapic_set_tsc_adjust(v->lapic, s->tsc_adjust + k->m->tsc_skew);
	return err;
}

void kvm_describe(struct kvm_cpu *k, char *text, size_t size)
{
	struct kvm_regs r = { 0 };
	union sregs s;

	if (kvm_call(k->fd, KVM_GET_REGS, &r) < 0 || read_sregs(k, &s) < 0) {
		snprintf(text, size, "its state cannot be read");
		return;
	}
	snprintf(text, size, "cs %#x rip %#" PRIx64 " rsp %#" PRIx64 " rflags %#" PRIx64 " cr0 %#" PRIx64
		 " cr2 %#" PRIx64 " cr3 %#" PRIx64 " cr4 %#" PRIx64 " efer %#" PRIx64, s.one.cs.selector,
		 (uint64_t)r.rip, (uint64_t)r.rsp, (uint64_t)r.rflags, (uint64_t)s.one.cr0,
		 (uint64_t)s.one.cr2, (uint64_t)s.one.cr3, (uint64_t)s.one.cr4, (uint64_t)s.one.efer);
}

/* ---- Between instructions -------------------------------------------------------------- */

/*
 * Is something on its way into the guest that the record has no place for, and that is not simply
 * begun anew?  A fault comes again when its instruction does, an NMI is pending again, and a local
 * APIC's interrupt goes back to where it was requested (kvm_freeze).  Traps, software interrupts and
 * what the 8259 pair has acknowledged are carried through.
 */
static bool must_finish(struct kvm_cpu *k, const struct kvm_vcpu_events *ev)
{
	if (k->ext_given)
		return true;
	if (ev->exception.injected || ev->exception.pending)
		return ev->exception.nr == EXC_DB || ev->exception.nr == EXC_BP ||
		       ev->exception.nr == EXC_OF;
	if (ev->interrupt.injected)
		return ev->interrupt.soft || !kvm_in_service(k, ev->interrupt.nr);
	return false;
}

/* One instruction, or the first one of a handler. */
static int step(struct kvm_cpu *k)
{
	struct kvm_guest_debug on = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };
	struct kvm_guest_debug off = { .control = 0 };
	int err = kvm_call(k->fd, KVM_SET_GUEST_DEBUG, &on), ran;

	if (err < 0)
		return err;
	k->run->immediate_exit = 0;
	/* Not every host can stop after one instruction everywhere. */
	ran = kvm_run_for(k->fd, STEP_NS);
	if (ran != -EINTR)
		k->ext_given = false;
	err = kvm_call(k->fd, KVM_SET_GUEST_DEBUG, &off);
	return ran < 0 && ran != -EINTR ? ran : err;
}

/* What the kernel still has to do of the last exit: the second half of an IN, a read, RDMSR. */
static int complete_exit(struct kvm_cpu *k)
{
	int err;

	k->run->immediate_exit = 1;
	err = kvm_run_once(k->fd);
	return err == -EINTR || err == -EAGAIN ? 0 : err;
}

/* Goes on for a while, for something to happen. */
static int linger(struct kvm_cpu *k)
{
	int err;

	k->run->immediate_exit = 0;
	err = kvm_run_for(k->fd, LINGER_NS);
	if (err == -EINTR || err == -EAGAIN)
		return 0;
	return err;
}

int kvm_settle(struct kvm_cpu *k, struct skep_error *e)
{
	struct kvm_vcpu_events ev;
	enum vcpu_exit why;
	unsigned i, waited = 0;
	int err;

	for (i = 0; i < SETTLE_STEPS; i++) {
		err = complete_exit(k);
		if (!err)
			err = kvm_call(k->fd, KVM_GET_VCPU_EVENTS, &ev);
		if (err < 0)
			return kvm_fail(e, err, "stopping a processor");
		k->run->exit_reason = KVM_EXIT_INTR;
		if (must_finish(k, &ev)) {
			err = step(k);
		} else {
			err = kvm_timer_note(k, e);
			if (err <= 0 || waited++ == LINGERS)
				return MIN(err, 0);
			err = linger(k);
		}
		if (err < 0)
			return kvm_fail(e, err, "stopping a processor");
		/* The end of the run comes when it is next run. */
		if (kvm_exit_serve(k, &why)) {
			k->ended = true;
			k->why = why;
			return 0;
		}
	}
	return skep_fail(e, EIO, "backend=kvm: processor %u does not come to the end of an event",
			 k->v->index);
}
