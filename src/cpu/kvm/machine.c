/*
 * The kernel's side of a machine.
 *
 * Memory comes before the interrupt controllers: a slot that is added later makes the kernel wait
 * for its readers, several milliseconds in all.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chipset/chipset.h"
#include "chipset/lapic.h"
#include "config/config.h"
#include "cpu/model.h"
#include "vm/vm.h"

#define IDENTITY_MAP	0xfeffc000ull	/* four pages that no device has: for processors that */
#define TSS_ADDRESS	0xfeffd000ull	/* cannot run real mode without them */
/* Quirks that are errors: a hypercall instruction that is written over in guest memory. */
#define QUIRKS_OFF	(1u << 5)	/* KVM_X86_QUIRK_FIX_HYPERCALL_INSN */
#define IOAPIC_PIN_COUNT 24

static const struct { int cap; const char *name; } needed[] = {
	{ KVM_CAP_USER_MEMORY, "memory slots" },
	{ KVM_CAP_SPLIT_IRQCHIP, "split interrupt controllers (since Linux 4.5)" },
	{ KVM_CAP_SIGNAL_MSI, "message-signalled interrupts" },
	{ KVM_CAP_IRQ_ROUTING, "interrupt routing" },
	{ KVM_CAP_IMMEDIATE_EXIT, "immediate exits" },
	{ KVM_CAP_MP_STATE, "the states of a processor" },
	{ KVM_CAP_VCPU_EVENTS, "a processor's events" },
	{ KVM_CAP_DEBUGREGS, "debug registers" },
	{ KVM_CAP_XSAVE, "XSAVE areas" },
	{ KVM_CAP_XCRS, "extended control registers" },
	{ KVM_CAP_READONLY_MEM, "read-only memory" },
	{ KVM_CAP_X2APIC_API, "x2APIC identifiers" },
	{ KVM_CAP_X86_USER_SPACE_MSR, "MSRs in user space (since Linux 5.10)" },
	{ KVM_CAP_X86_MSR_FILTER, "a filter of MSRs (since Linux 5.10)" },
};

static int open_failed(int err, struct skep_error *e)
{
	switch (err) {
	case ENOENT:
		return skep_fail(e, err, "backend=kvm: there is no /dev/kvm: load the module kvm_intel or "
				 "kvm_amd (virtualization may be off in the firmware, or this is a virtual machine "
				 "or container without it)");
	case EACCES:
	case EPERM:
		return skep_fail(e, err, "backend=kvm: /dev/kvm may not be opened: join the group that owns "
				 "it (adduser USER kvm), or give the container the device");
	default:
		return skep_fail(e, err, "backend=kvm: /dev/kvm: %s", strerror(err));
	}
}

int kvm_open(struct skep_error *e)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), version;

	if (fd < 0)
		return open_failed(errno, e);
	version = kvm_call(fd, KVM_GET_API_VERSION, NULL);
	if (version != KVM_API_VERSION) {
		close(fd);
		return skep_fail(e, ENOTSUP, "backend=kvm: /dev/kvm speaks version %d, not %d", version,
				 KVM_API_VERSION);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(needed); i++)
		if (kvm_call_value(fd, KVM_CHECK_EXTENSION, needed[i].cap) <= 0) {
			close(fd);
			return skep_fail(e, ENOTSUP, "backend=kvm: this kernel's KVM has no %s",
					 needed[i].name);
		}
	return fd;
}

static int enable(const struct kvm_machine *m, unsigned cap, uint64_t arg, const char *what,
		  struct skep_error *e)
{
	struct kvm_enable_cap c = { .cap = cap, .args = { arg } };
	int err = kvm_call(m->fd, KVM_ENABLE_CAP, &c);

	return err < 0 ? kvm_fail(e, err, what) : 0;
}

static int has(const struct kvm_machine *m, int cap)
{
	return kvm_call_value(m->fd, KVM_CHECK_EXTENSION, cap);
}

/* What some kernels have, and none needs. */
static void look_around(struct kvm_machine *m)
{
	int size = has(m, KVM_CAP_XSAVE2);

	m->xsave_size = size > (int)sizeof(struct kvm_xsave) ? (size_t)size : sizeof(struct kvm_xsave);
	m->sregs2 = has(m, KVM_CAP_SREGS2) > 0;
	m->tsc_control = has(m, KVM_CAP_TSC_CONTROL) > 0;
}

static int set_up(struct kvm_machine *m, struct skep_error *e)
{
	uint64_t identity = IDENTITY_MAP;
	int quirks = has(m, KVM_CAP_DISABLE_QUIRKS2), err;

	err = kvm_slots_update(m, e);
	if (err)
		return err;
	err = enable(m, KVM_CAP_SPLIT_IRQCHIP, IOAPIC_PIN_COUNT, "KVM_CAP_SPLIT_IRQCHIP", e);
	if (!err)
		err = enable(m, KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS |
			     KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, "KVM_CAP_X2APIC_API", e);
	if (!err)
		err = enable(m, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER |
			     KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL,
			     "KVM_CAP_X86_USER_SPACE_MSR", e);
	if (!err && quirks > 0 && quirks & QUIRKS_OFF)
		err = enable(m, KVM_CAP_DISABLE_QUIRKS2, QUIRKS_OFF, "KVM_CAP_DISABLE_QUIRKS2", e);
	if (!err)
		err = kvm_msrs_filter(m, e);
	if (err)
		return err;
	err = kvm_call(m->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (err < 0)
		return kvm_fail(e, err, "KVM_SET_IDENTITY_MAP_ADDR");
	err = kvm_call_value(m->fd, KVM_SET_TSS_ADDR, TSS_ADDRESS);
	return err < 0 ? kvm_fail(e, err, "KVM_SET_TSS_ADDR") : 0;
}

static void machine_free(struct kvm_machine *m)
{
	if (m->fd >= 0)
		close(m->fd);
	if (m->kvm >= 0)
		close(m->kvm);
	pthread_mutex_destroy(&m->slots_lock);
	free(m);
}

static int machine_create(struct kvm_machine *m, struct skep_error *e)
{
	const char *name = config_string(config_root(m->vm->config), "cpu.model");
	int size;

	if (m->vm->clock.mode == CLOCK_MODE_VIRTUAL)
		return skep_fail(e, EINVAL, "clock.mode=virtual counts instructions, which backend=kvm cannot "
				 "do; write backend=soft");
	m->model = cpu_model_find(name ? name : "skep-v2.1");
	if (!m->model)
		return skep_fail(e, EINVAL, "cpu.model: there is no CPU model \"%s\"", name);
	m->kvm = kvm_open(e);
	if (m->kvm < 0)
		return m->kvm;
	size = kvm_model_check(m->kvm, m->model, e);
	if (size < 0)
		return size;
	size = kvm_call_value(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run))
		return kvm_fail(e, size < 0 ? size : -EINVAL, "KVM_GET_VCPU_MMAP_SIZE");
	m->run_size = (size_t)size;
	m->fd = kvm_call_value(m->kvm, KVM_CREATE_VM, 0);
	if (m->fd < 0)
		return kvm_fail(e, m->fd, "KVM_CREATE_VM");
	look_around(m);
	/* The kernel notes what is written from the first save on (slots.c): that is the first to ask. */
	m->logging = m->vm->restored;
	size = kvm_kick_install(e);
	return size < 0 ? size : set_up(m, e);
}

struct kvm_machine *kvm_machine_join(struct vm *vm, struct skep_error *e)
{
	struct kvm_machine *m = vm->kvm;

	if (!m) {
		m = calloc(1, sizeof(*m));
		if (!m) {
			skep_fail(e, ENOMEM, "no memory for the machine");
			return NULL;
		}
		m->vm = vm;
		m->kvm = m->fd = -1;
		m->routes_stale = true;
		pthread_mutex_init(&m->slots_lock, NULL);
		if (machine_create(m, e) < 0) {
			machine_free(m);
			return NULL;
		}
		vm->kvm = m;
	}
	m->users++;
	return m;
}

void kvm_machine_leave(struct kvm_machine *m)
{
	if (--m->users)
		return;
	m->vm->kvm = NULL;
	machine_free(m);
}

/* ---- Routes -------------------------------------------------------------- */

/*
 * A processor comes out at the end of an interrupt (KVM_EXIT_IOAPIC_EOI) if a route of one of the
 * first 24 interrupts is a level-triggered message with its vector.
 */
static void fill_route(struct vm *vm, unsigned pin, struct kvm_irq_routing_entry *r)
{
	uint64_t rte = chipset_ioapic_entry(vm, pin);
	uint32_t dest = rte >> 56 | (rte >> 49 & 0x7f) << 8;

	*r = (struct kvm_irq_routing_entry){ .gsi = pin, .type = KVM_IRQ_ROUTING_MSI };
	r->u.msi.address_lo = LAPIC_BASE | (dest & 0xff) << 12 | (rte & BIT(11) ? BIT(2) : 0);
	r->u.msi.address_hi = dest & ~0xffu;
	r->u.msi.data = (uint32_t)(rte & 0x7ff) | (rte & BIT(15) ? BIT(14) | BIT(15) : 0);
}

void kvm_routes_changed(void *opaque)
{
	struct vm *vm = opaque;

	vm->kvm->routes_stale = true;
}

int kvm_routes_update(struct kvm_machine *m, struct skep_error *e)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry at[IOAPIC_PIN_COUNT];
	} table = { .head.nr = IOAPIC_PIN_COUNT };
	int err;

	if (!m->routes_stale)
		return 0;
	for (unsigned i = 0; i < IOAPIC_PIN_COUNT; i++)
		fill_route(m->vm, i, &table.at[i]);
	err = kvm_call(m->fd, KVM_SET_GSI_ROUTING, &table);
	if (err < 0)
		return kvm_fail(e, err, "KVM_SET_GSI_ROUTING");
	m->routes_stale = false;
	return 0;
}
