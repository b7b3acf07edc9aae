/*
 * backend=kvm: each of the kernel's calls fails once, and the machine says so and leaves nothing
 * behind; states that no processor can be in, and those that this host cannot be in, are refused
 * before anything has changed; what the probe says.
 *
 *	test_kvm GUEST			(tests/guests/counter)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cpu/kvm/probe.h"
#include "cpu/model.h"
#include "vm/machine.h"
#include "vm/vm.h"

static const char *guest;

/* ---- Calls that fail ----------------------------------------------------------- */

int __real_ioctl(int fd, unsigned long request, unsigned long arg);
int __wrap_ioctl(int fd, unsigned long request, unsigned long arg);

static _Atomic unsigned calls, fail_at;		/* of the kernel's KVM since arm(); 0: none fails */
static unsigned long failed;			/* the request that did */
static int fail_with;

int __wrap_ioctl(int fd, unsigned long request, unsigned long arg)
{
	if (_IOC_TYPE(request) == KVMIO && fail_at && ++calls == fail_at) {
		failed = request;
		errno = fail_with;
		return -1;
	}
	return __real_ioctl(fd, request, arg);
}

static void arm(unsigned n, int error)
{
	calls = 0;
	failed = 0;
	fail_with = error;
	fail_at = n;
}

static unsigned count(const char *directory)
{
	DIR *d = opendir(directory);
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

/* ---- A machine ------------------------------------------------------------------ */

struct machine {
	struct config *config;
	struct vm *vm;
	pthread_t thread;
	bool runs;
	int code;
	struct skep_error e, run_error;
};

static void set(struct config *c, const char *key, const char *value)
{
	struct skep_error e = { "" };

	assert_int_equal(config_set(c, key, value, "test", &e), 0);
}

/* key: one more setting, or NULL.  m->vm is NULL where it cannot be made. */
static void make(struct machine *m, const struct machine *like, const char *key, const char *value)
{
	char khz[16];

	*m = (struct machine){ .e.text = "" };
	m->config = config_create();
	set(m->config, "memory.size", "16M");
	set(m->config, "cpu.model", "skep-v1.1");
	set(m->config, "backend", "kvm");
	set(m->config, "cpus", "2");
	set(m->config, "boot.kernel", guest);
	if (like) {
		snprintf(khz, sizeof(khz), "%u", like->vm->clock.tsc_khz);
		set(m->config, "clock.tsc_khz", khz);
	}
	if (key)
		set(m->config, key, value);
	assert_int_equal(config_freeze(m->config, &m->e), 0);
	m->vm = like ? vm_create_restored(m->config, &m->e) : vm_create(m->config, &m->e);
}

static void *run(void *opaque)
{
	struct machine *m = opaque;

	m->code = vm_run(m->vm, &m->run_error);
	return NULL;
}

static void start(struct machine *m)
{
	m->runs = true;
	pthread_create(&m->thread, NULL, run, m);
}

/* The end; its error, or none. */
static void end(struct machine *m)
{
	if (m->runs) {
		vm_request_exit(m->vm, VM_EXIT_POWEROFF);
		pthread_join(m->thread, NULL);
	}
	vm_destroy(m->vm);
	config_destroy(m->config);
}

static bool no_kvm(void)
{
	if (access("/dev/kvm", R_OK | W_OK) == 0)
		return false;
	print_message("SKIP: there is no /dev/kvm, or it may not be opened\n");
	return true;
}

/* ---- Faults ----------------------------------------------------------------------- */

static const int errors[] = { ENOMEM, EINVAL };

static void creation_fails(void **state)
{
	struct machine m;
	unsigned n, refused = 0, fds;

	if (no_kvm())
		skip();
	make(&m, NULL, NULL, NULL);
	assert_non_null(m.vm);
	end(&m);
	fds = count("/proc/self/fd");
	for (n = 1; n < 1000; n++) {
		arm(n, errors[n % 2]);
		make(&m, NULL, NULL, NULL);
		fail_at = 0;
		if (!m.vm) {
			assert_true(strlen(m.e.text) > 10);
			refused++;
		}
		end(&m);
		assert_int_equal(count("/proc/self/fd"), fds);
		if (!failed)
			break;
	}
	print_message("# %u calls in making a machine, %u of them needed\n", n - 1, refused);
	assert_true(refused > 15);
}

/* From the start over a stop, an export and a second start to the end. */
static void life(struct machine *m)
{
	struct machine_state *ms;
	struct skep_error e = { "" };

	start(m);
	usleep(3000);
	vm_pause(m->vm, STOP_SAVE);
	if (!vm_exiting(m->vm)) {
		ms = machine_state_export(m->vm, &e);
		assert_true(ms || strlen(e.text) > 10);
		machine_state_free(ms);
		m->vm->vcpus[0]->ops->sync_dirty(m->vm->vcpus[0], &e);
	}
	vm_resume(m->vm, STOP_SAVE);
	usleep(3000);
	vm_request_exit(m->vm, VM_EXIT_POWEROFF);
	pthread_join(m->thread, NULL);
	m->runs = false;
}

static void running_fails(void **state)
{
	struct machine m;
	unsigned n, ended = 0, fds = count("/proc/self/fd"), threads = count("/proc/self/task");

	if (no_kvm())
		skip();
	/* The count of KVM_RUN is the host's; what comes before it is what matters. */
	for (n = 1; n < 120; n++) {
		make(&m, NULL, NULL, NULL);
		assert_non_null(m.vm);
		arm(n, errors[n % 2]);
		life(&m);
		fail_at = 0;
		if (m.code == VM_EXIT_ERROR) {
			assert_true(strlen(m.run_error.text) > 10);
			ended++;
		} else {
			assert_int_equal(m.code, VM_EXIT_POWEROFF);
		}
		end(&m);
		assert_int_equal(count("/proc/self/fd"), fds);
		assert_int_equal(count("/proc/self/task"), threads);
		if (!failed)
			break;
	}
	print_message("# %u calls while it ran, %u of them ended it with a sentence\n", n - 1, ended);
	assert_true(ended > 15);
}

/* ---- Refusals ---------------------------------------------------------------------- */

struct change {
	const char *words;		/* of the refusal */
	void (*make)(struct cpu_arch_state *s);
};

static void paging_alone(struct cpu_arch_state *s) { s->cr0 = (s->cr0 | CR0_PG) & ~CR0_PE; }
static void lma_alone(struct cpu_arch_state *s) { s->efer ^= EFER_LMA; }
static void no_pae(struct cpu_arch_state *s) { s->cr4 &= ~CR4_PAE; }
static void smep(struct cpu_arch_state *s) { s->cr4 |= CR4_SMEP; }
static void fs_base(struct cpu_arch_state *s) { s->seg[SEG_FS].base = 0x800000000000ull; }
static void idtr_base(struct cpu_arch_state *s) { s->idtr.base = 0x800000000000ull; }
static void lstar(struct cpu_arch_state *s) { s->lstar = 0x800000000000ull; }
static void xcr0_zero(struct cpu_arch_state *s) { s->xcr0 = 0; }
static void xcr0_avx(struct cpu_arch_state *s) { s->xcr0 = 7; }
static void mxcsr(struct cpu_arch_state *s) { s->fpu.mxcsr = 0x10000; }
static void cr3_wide(struct cpu_arch_state *s) { s->cr3 = 1ull << 45; }
static void dr7_wide(struct cpu_arch_state *s) { s->dr7 = 1ull << 40; }
static void pat(struct cpu_arch_state *s) { s->pat = 2; }
static void apic_base(struct cpu_arch_state *s) { s->apic_base = 0xfee00400; }
static void rflags(struct cpu_arch_state *s) { s->rflags = 0; }
static void halted_in_user(struct cpu_arch_state *s) { s->sti_shadow = s->ss_shadow = 1; }
static void spec_ctrl(struct cpu_arch_state *s) { s->spec_ctrl = 0xff00; }

static const struct change changes[] = {
	{ "cr0", paging_alone }, { "efer", lma_alone }, { "cr4", no_pae }, { "cr4", smep },
	{ "fs", fs_base }, { "idtr", idtr_base }, { "lstar", lstar }, { "xcr0", xcr0_zero },
	{ "xcr0", xcr0_avx }, { "mxcsr", mxcsr }, { "cr3", cr3_wide }, { "dr7", dr7_wide },
	{ "pat", pat }, { "apic_base", apic_base }, { "rflags", rflags }, { "", halted_in_user },
	{ "spec_ctrl", spec_ctrl },
};

static void states_refused(void **state)
{
	struct cpu_arch_state s, bad, after;
	struct machine m;
	struct vcpu *v;
	unsigned i;

	if (no_kvm())
		skip();
	make(&m, NULL, NULL, NULL);
	assert_non_null(m.vm);
	start(&m);
	v = m.vm->vcpus[0];
	for (i = 0; i < 500; i++) {
		usleep(10000);
		vm_pause(m.vm, STOP_SAVE);
		v->ops->get_state(v, &s);
		if (s.efer & EFER_LMA && s.cr0 & CR0_PG)
			break;
		vm_resume(m.vm, STOP_SAVE);
	}
	device_lock(m.vm);
	assert_true(s.efer & EFER_LMA);
	assert_int_equal(v->ops->check_state(v, &s, &m.e), 0);
	for (i = 0; i < ARRAY_SIZE(changes); i++) {
		bad = s;
		changes[i].make(&bad);
		m.e.text[0] = '\0';
		assert_true(v->ops->check_state(v, &bad, &m.e) < 0);
		if (!strstr(m.e.text, changes[i].words))
			fail_msg("%u: \"%s\" does not name %s", i, m.e.text, changes[i].words);
		assert_true(v->ops->set_state(v, &bad, &m.e) < 0);
		v->ops->get_state(v, &after);
		assert_memory_equal(&after, &s, sizeof(s));
	}
	/* What the processor says of itself it takes. */
	assert_int_equal(v->ops->set_state(v, &s, &m.e), 0);
	v->ops->get_state(v, &after);
	assert_memory_equal(&after, &s, sizeof(s));
	device_unlock(m.vm);
	vm_resume(m.vm, STOP_SAVE);
	usleep(10000);
	assert_false(vm_exiting(m.vm));
	end(&m);
}

static void machines_refused(void **state)
{
	const struct cpu_model *v3 = cpu_model_find("skep-v3.1");
	struct skep_error e = { "" };
	struct kvm_verdict v;
	struct machine m;

	if (no_kvm())
		skip();
	if (kvm_probe_model(v3, &e) < 0) {
		assert_non_null(strstr(e.text, "lacks"));
		make(&m, NULL, "cpu.model", "skep-v3.1");
		assert_null(m.vm);
		assert_string_equal(m.e.text, e.text);
		end(&m);
	}
	kvm_probe(&v, -1, false);
	assert_true(v.opens);
	if (!v.tsc_control) {
		make(&m, NULL, "clock.tsc_khz", "123456");
		assert_null(m.vm);
		assert_non_null(strstr(m.e.text, "cannot be scaled"));
		end(&m);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(machines_refused),
		cmocka_unit_test(states_refused),
		cmocka_unit_test(creation_fails),
		cmocka_unit_test(running_fails),
	};

	if (argc != 2) {
		fprintf(stderr, "usage: test_kvm GUEST\n");
		return 2;
	}
	guest = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
