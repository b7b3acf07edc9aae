/*
 * What the kernel's emulator cannot execute, the soft processor does: one instruction, on the same
 * state, with faults and all; then the kernel goes on.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>

int kvm_help(struct kvm_cpu *k, enum vcpu_exit *why, struct skep_error *e)
{
	return skep_fail(e, ENOTSUP, "KVM cannot execute an instruction");
}

void kvm_help_end(struct kvm_cpu *k)
{
}
