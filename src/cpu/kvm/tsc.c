/*
 * The guest's TSC: guest time at the machine's frequency, on every processor alike, but for what the
 * guest has added (IA32_TSC_ADJUST).
 *
 * One offset for all processors: it is worked out when the first goes on, and given to each.  Then the
 * counter is read: some kernels take an offset and do nothing with it.  What the counter shows beyond
 * guest time, the *skew*, is told once, and everything of ours that speaks of the TSC (deadlines,
 * paravirtual clocks) is set right by it; the guest's own RDTSC cannot be.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/ioctl.h>

#include "base/say.h"
#include "chipset/lapic.h"
#include "config/config.h"
#include "cpu/soft/msr.h"
#include "vm/vm.h"

#define SKEW_NS	1000000		/* beyond that the offset had no effect */
#define TOLERANCE_PPM 250	/* of frequencies that count as one, as for the kernel */

static bool near(uint32_t a, uint32_t b)
{
	uint64_t diff = a > b ? a - b : b - a;

	return diff * 1000000 <= (uint64_t)b * TOLERANCE_PPM;
}

static int scale(struct kvm_cpu *k, uint32_t khz, struct skep_error *e)
{
	int err = kvm_call_value(k->fd, KVM_SET_TSC_KHZ, khz);

	if (err >= 0)
		return 0;
	return skep_fail(e, ENOTSUP, "clock.tsc_khz=%" PRIu32 ": this host's TSC has %" PRIu32 " kHz, and it "
			 "cannot be scaled here; leave the key out%s", khz, k->m->host_tsc_khz,
			 k->m->vm->restored ? ", or restore with backend=soft" : "");
}

int kvm_tsc_init(struct kvm_cpu *k, struct skep_error *e)
{
	struct vm *vm = k->m->vm;
	int khz = kvm_call_value(k->fd, KVM_GET_TSC_KHZ, 0);

	if (khz <= 0)
		return kvm_fail(e, khz < 0 ? khz : -EIO, "KVM_GET_TSC_KHZ");
	k->m->host_tsc_khz = (uint32_t)khz;
	/* The host's own, unless somebody says otherwise: before anything is derived from it. */
	if (!vm->restored && !config_is_set(config_root(vm->config), "clock.tsc_khz"))
		vm->clock.tsc_khz = (uint32_t)khz;
	if (vm->clock.tsc_khz == (uint32_t)khz)
		return 0;
	if (!k->m->tsc_control && !near(vm->clock.tsc_khz, (uint32_t)khz))
		return skep_fail(e, ENOTSUP, "clock.tsc_khz=%" PRIu32 ": this host's TSC has %d kHz, and it "
				 "cannot be scaled here; leave the key out%s", vm->clock.tsc_khz, khz,
				 vm->restored ? ", or restore with backend=soft" : "");
	return scale(k, vm->clock.tsc_khz, e);
}

static int offset_call(struct kvm_cpu *k, unsigned long request, uint64_t *offset)
{
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};

	return kvm_call(k->fd, request, &attr);
}

/* Guest time as the TSC shows it, less what the counter shows. */
static int64_t behind(struct kvm_cpu *k, uint64_t adjust, int *err)
{
	uint64_t shown, want;

	*err = kvm_msr_get(k, MSR_TSC, &shown);
	want = clock_tsc(&k->m->vm->clock) + adjust;
	return (int64_t)(want - shown);
}

static void note_skew(struct kvm_cpu *k, int64_t left)
{
	const struct guest_clock *c = &k->m->vm->clock;
	uint64_t skew = -(uint64_t)left;

	if (clock_tsc_to_ns(c, left < 0 ? skew : (uint64_t)left) < SKEW_NS)
		skew = 0;
	k->m->tsc_skew = skew;
	if (!skew || k->m->tsc_told)
		return;
	k->m->tsc_told = true;
	skep_say("skep: this host's KVM takes a TSC offset and does not apply it: the guest's TSC is the "
		 "host's, and jumps when the machine is restored; timers and paravirtual clocks are right\n");
}

int kvm_tsc_thaw(struct kvm_cpu *k, struct skep_error *e)
{
	uint64_t adjust, before = k->m->tsc_skew, offset;
	int err = kvm_msr_get(k, MSR_TSC_ADJUST, &adjust);
	int64_t left;

	if (err < 0)
		return kvm_fail(e, err, "IA32_TSC_ADJUST");
	if (k->v->index == 0) {
		err = offset_call(k, KVM_GET_DEVICE_ATTR, &offset);
		left = err < 0 ? 0 : behind(k, adjust, &err);
		if (err < 0)
			return kvm_fail(e, err, "reading the TSC");
		k->m->tsc_offset = offset + (uint64_t)left - adjust;
	}
	offset = k->m->tsc_offset + adjust;
	err = offset_call(k, KVM_SET_DEVICE_ATTR, &offset);
	if (err < 0)
		return kvm_fail(e, err, "setting the TSC's offset");
	if (k->v->index == 0) {
		left = behind(k, adjust, &err);
		if (err < 0)
			return kvm_fail(e, err, "reading the TSC");
		note_skew(k, left);
	}
	/* A page in guest memory tells of it: only where the host leaves a skew. */
	if (k->m->tsc_skew || before) {
		lapic_set_tsc_adjust(k->v->lapic, adjust + k->m->tsc_skew);
		paravirt_tsc_moved(k->v);
	}
	return 0;
}
