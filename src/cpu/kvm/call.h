/*
 * Calls of the kernel, for files that may not see cpu/arch.h (its register names are
 * <signal.h>'s).  kvm.h has the rest.
 */
#ifndef SKEP_CPU_KVM_CALL_H
#define SKEP_CPU_KVM_CALL_H

#include <linux/kvm.h>
#include <pthread.h>

#include "base/error.h"

/* ioctl: what it returned, or a negative errno; begins again after a signal. */
int kvm_call(int fd, unsigned long request, void *arg);
int kvm_call_value(int fd, unsigned long request, unsigned long arg);
/* The sentence for one that failed: returns err. */
int kvm_fail(struct skep_error *e, int err, const char *what);
/* KVM_RUN; 0 or a negative errno, -EINTR for a kick. */
int kvm_run_once(int fd);
/* The same, for at most about so many ns (less than a second). */
int kvm_run_for(int fd, long ns);
/* The same, but it comes back at once, with what the kernel had due done. */
int kvm_run_signalled(int fd);

/* The signal that ends KVM_RUN: its handler, once a process or more often. */
int kvm_kick_install(struct skep_error *e);
/* This thread takes it. */
void kvm_kick_accept(void);
void kvm_kick_thread(pthread_t thread);

#endif
