/* What the host's KVM is, asked without a machine. */
#ifndef SKEP_CPU_KVM_HOST_H
#define SKEP_CPU_KVM_HOST_H

#include "base/error.h"

struct cpu_model;

/* Opens /dev/kvm; a descriptor, or a negative errno with the reason and the remedy. */
int kvm_open(struct skep_error *e);
/* Can it be this CPU model?  Else e lists what is lacking. */
int kvm_model_check(int kvm, const struct cpu_model *model, struct skep_error *e);

#endif
