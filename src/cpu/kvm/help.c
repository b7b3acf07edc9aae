/*
 * What the kernel's emulator cannot execute, the soft processor does: one instruction, on the same
 * state, with its exception if it raises one; then the kernel goes on.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "config/config.h"
#include "cpu/soft/soft.h"
#include "vm/vm.h"

static int need_helper(struct kvm_cpu *k, struct skep_error *e)
{
	if (!config_bool(config_root(k->m->vm->config), "kvm.help"))
		return skep_fail(e, ENOTSUP, "KVM cannot execute an instruction (kvm.help=true lets the soft "
				 "processor do it)");
	if (!k->helper)
		k->helper = vcpu_create(k->m->vm, k->v->index, &vcpu_soft_ops, e);
	return k->helper ? 0 : -ENOMEM;
}

/* It is nobody's processor between two instructions: what it knows of memory and code is old. */
static int help_once(struct kvm_cpu *k, struct cpu_arch_state *s, bool *alive, struct skep_error *e)
{
	struct vcpu *h = k->helper;
	int err = h->ops->set_state(h, s, e);

	if (err)
		return err;
	*alive = soft_once(h->backend);
	h->ops->get_state(h, s);
	return 0;
}

int kvm_help(struct kvm_cpu *k, enum vcpu_exit *why, struct skep_error *e)
{
	struct cpu_arch_state s, before;
	bool alive = true;
	int err = need_helper(k, e);

	if (!err)
		err = kvm_state_read(k, &s, e);
	if (err)
		return err;
	before = s;
	err = help_once(k, &s, &alive, e);
	if (err) {
		skep_error_prefix(e, "KVM cannot execute an instruction, and the soft processor does not take "
				  "its state");
		return err;
	}
	KVM_COUNT(k, helped);
	if (!alive) {
		*why = VCPU_EXIT_TRIPLE_FAULT;
		return 1;
	}
	/* The kernel's own, which the instruction cannot have changed. */
	s.cr8 = before.cr8;
	s.apic_base = before.apic_base;
	s.tsc_adjust = before.tsc_adjust;
	err = kvm_registers_write(k, &s, e);
	if (!err && (err = kvm_events_after(k, &s)) < 0)
		kvm_fail(e, err, "KVM_SET_VCPU_EVENTS");
	return err;
}

void kvm_help_end(struct kvm_cpu *k)
{
	vcpu_destroy(k->helper);
	k->helper = NULL;
}
