/* The way into the kernel, and how a processor is called back from the guest. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cpu/kvm/call.h"

/* Below the C library's own; nothing else in the process uses it. */
#define KICK	(SIGRTMIN + 2)
#define KERNEL_SIGSET_SIZE 8

int kvm_call_value(int fd, unsigned long request, unsigned long arg)
{
	int r;

	do {
		r = ioctl(fd, request, arg);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

int kvm_call(int fd, unsigned long request, void *arg)
{
	return kvm_call_value(fd, request, (unsigned long)arg);
}

int kvm_fail(struct skep_error *e, int err, const char *what)
{
	return skep_fail(e, -err, "backend=kvm: %s: %s", what, strerror(-err));
}

int kvm_run_once(int fd)
{
	return ioctl(fd, KVM_RUN, 0) < 0 ? -errno : 0;
}

/* All that it has to do is to interrupt the call; immediate_exit has been set before. */
static void on_kick(int sig)
{
}

int kvm_kick_install(struct skep_error *e)
{
	struct sigaction sa = { .sa_handler = on_kick };

	return sigaction(KICK, &sa, NULL) < 0 ? kvm_fail(e, -errno, "sigaction") : 0;
}

void kvm_kick_accept(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, KICK);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void kvm_kick_thread(pthread_t thread)
{
	pthread_kill(thread, KICK);
}

int kvm_run_for(int fd, long ns)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KICK,
			       ._sigev_un._tid = gettid() };
	const struct itimerspec due = { .it_value.tv_nsec = ns, .it_interval.tv_nsec = ns };
	timer_t timer;
	int err;

	if (timer_create(CLOCK_MONOTONIC, &ev, &timer) < 0)
		return -errno;
	timer_settime(timer, 0, &due, NULL);
	err = kvm_run_once(fd);
	timer_delete(timer);
	return err;
}

/*
 * A signal that is blocked here and not in KVM_RUN is pending when the call begins: the kernel looks
 * at what is due, as it does before and after each stay in the guest, and comes back before the guest
 * executes anything.
 */
int kvm_run_signalled(int fd)
{
	struct {
		struct kvm_signal_mask head;
		uint8_t set[KERNEL_SIGSET_SIZE];
	} inside = { .head.len = KERNEL_SIGSET_SIZE };
	struct timespec none = { 0 };
	sigset_t kick, old, open;
	int err;

	sigemptyset(&kick);
	sigaddset(&kick, KICK);
	pthread_sigmask(SIG_BLOCK, &kick, &old);
	open = old;
	sigdelset(&open, KICK);
	memcpy(inside.set, &open, sizeof(inside.set));
	err = kvm_call(fd, KVM_SET_SIGNAL_MASK, &inside);
	if (!err) {
		pthread_kill(pthread_self(), KICK);
		err = kvm_run_once(fd);
		kvm_call(fd, KVM_SET_SIGNAL_MASK, NULL);
	}
	while (sigtimedwait(&kick, NULL, &none) == KICK)
		;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}
