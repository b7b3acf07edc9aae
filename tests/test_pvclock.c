/*
 * identity=: what CPUID says, kvmclock and Hyper-V's clocks without a processor that runs; their
 * pages in guest memory, at every moment of guest time, over a restore, and states that lie.
 */
#include "vm_helper.h"

#include <string.h>

#include "chipset/lapic.h"
#include "clock/hyperv.h"
#include "clock/pvclock.h"
#include "config/config.h"
#include "fields.h"
#include "vm/machine.h"
#include "vm/timer.h"

#define TIME	0x10040ull
#define WALL	0x11ffcull		/* over the end of a page */
#define END	(32 * MiB)
#define PAGE	GUEST_PAGE_SIZE

/* ---- A machine that stands ---------------------------------------------- */

static struct config *config;
static struct vm *vm;
static struct vcpu *cpu;

static void set(const char *text)
{
	struct skep_error e = { .text = "" };

	if (config_set_assignment(config, text, "test", &e) < 0)
		fail_msg("%s", e.text);
}

static void make(const char *identity, const char *mode, const char *khz)
{
	struct skep_error e = { .text = "" };
	char text[64];

	config = config_create();
	set("memory.size=32");
	set("boot.demo=true");
	snprintf(text, sizeof(text), "identity=%s", identity);
	set(text);
	snprintf(text, sizeof(text), "clock.mode=%s", mode);
	set(text);
	snprintf(text, sizeof(text), "clock.tsc_khz=%s", khz);
	set(text);
	if (config_freeze(config, &e) < 0)
		fail_msg("%s", e.text);
	vm = vm_create(config, &e);
	if (!vm)
		fail_msg("%s", e.text);
	cpu = vm->vcpus[0];
	vm->has_state = true;
	device_lock(vm);
	for (struct device *d = vm->devices; d; d = d->next)
		d->type->reset(d);
	cpu->ops->reset(cpu, false);
}

static void end(void)
{
	device_unlock(vm);
	vm_destroy(vm);
	config_destroy(config);
}

static bool wr(uint32_t msr, uint64_t v)
{
	return paravirt_owns(vm, msr) && paravirt_msr_write(cpu, msr, v);
}

static bool rd(uint32_t msr, uint64_t *v)
{
	*v = 0x5a5a;
	return paravirt_owns(vm, msr) && paravirt_msr_read(cpu, msr, v);
}

static uint64_t value(uint32_t msr)
{
	uint64_t v;

	assert_true(rd(msr, &v));
	return v;
}

static uint64_t peek(uint64_t gpa, unsigned size)
{
	uint64_t v = 0;

	assert_int_equal(dma_read(&vm->memory, gpa, &v, size), 0);
	return v;
}

static void poke(uint64_t gpa, uint64_t v, unsigned size)
{
	assert_int_equal(dma_write(&vm->memory, gpa, &v, size), 0);
}

static uint64_t tsc(void)
{
	return clock_tsc(&vm->clock) + lapic_get_tsc_adjust(cpu->lapic);
}

static void adjust(uint64_t v)
{
	lapic_set_tsc_adjust(cpu->lapic, v);
	paravirt_tsc_moved(cpu);
}

/* What a guest makes of the two pages. */
static uint64_t kvm_time(void)
{
	struct pvclock_scale s = { (uint32_t)peek(TIME + 24, 4), (int8_t)peek(TIME + 28, 1) };

	assert_int_equal(peek(TIME, 4) & 1, 0);
	return peek(TIME + 16, 8) + pvclock_ns(s, tsc() - peek(TIME + 8, 8));
}

static uint64_t hv_time(uint64_t gpa)
{
	return (uint64_t)((unsigned __int128)tsc() * peek(gpa + 8, 8) >> 64) + peek(gpa + 16, 8);
}

/* ---- CPUID --------------------------------------------------------------- */

static void names(void **state)
{
	static const struct { const char *name, *signature; uint32_t last; } all[] = {
		{ "none", "skepskepskep", 0x40000010 }, { "bhyve", "bhyve bhyve ", 0x40000010 },
		{ "kvm", "KVMKVMKVM\0\0\0", 0x40000010 }, { "hyperv", "Microsoft Hv", 0x40000006 },
	};
	uint32_t out[4];
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(all); i++) {
		make(all[i].name, "virtual", "2000000");
		assert_int_equal(vm->identity, i);
		assert_true(identity_cpuid(vm, 0x40000000, out));
		assert_int_equal(out[0], all[i].last);
		assert_memory_equal(out + 1, all[i].signature, 12);
		assert_false(identity_cpuid(vm, 0x3fffffff, out));
		assert_false(identity_cpuid(vm, all[i].last + 1, out));
		if (all[i].last == 0x40000010) {
			assert_true(identity_cpuid(vm, 0x40000010, out));
			assert_int_equal(out[0], 2000000);
			assert_int_equal(out[1], 1000000);
		}
		device_unlock(vm);
		assert_int_equal(identity_invariant_tsc(vm), i != IDENTITY_HYPERV);
		device_lock(vm);
		end();
	}
}

static void nothing_unannounced(void **state)
{
	static const uint32_t kvm[] = { 0x11, 0x12, 0x4b564d00, 0x4b564d01 };
	uint64_t v;
	uint32_t msr;
	unsigned i;

	for (i = 0; i < 2; i++) {
		make(i ? "bhyve" : "none", "virtual", "1000000");
		for (unsigned k = 0; k < ARRAY_SIZE(kvm); k++)
			assert_false(paravirt_owns(vm, kvm[k]));
		for (msr = 0x40000000; msr < 0x40000200; msr++)
			assert_false(paravirt_owns(vm, msr));
		end();
	}
	make("kvm", "virtual", "1000000");
	for (msr = 0x4b564d02; msr < 0x4b564e00; msr++)
		assert_false(rd(msr, &v) || wr(msr, 0));
	assert_false(paravirt_owns(vm, HV_MSR_GUEST_OS_ID));
	end();
	make("hyperv", "virtual", "1000000");
	assert_false(paravirt_owns(vm, MSR_KVM_SYSTEM_TIME));
	/* Reset, VP run time, SynIC, synthetic timers, crash: not announced. */
	assert_false(rd(0x40000003, &v) || rd(0x40000010, &v) || wr(0x40000080, 1));
	assert_false(rd(0x400000b0, &v) || rd(0x40000100, &v) || rd(0x40000fff, &v));
	/* Some can only be read, one only written. */
	assert_false(wr(HV_MSR_VP_INDEX, 0) || wr(HV_MSR_TIME_REF_COUNT, 0));
	assert_false(wr(HV_MSR_TSC_FREQUENCY, 0) || wr(HV_MSR_APIC_FREQUENCY, 0));
	assert_false(rd(HV_MSR_EOI, &v));
	end();
}

/* ---- Scales --------------------------------------------------------------- */

static const uint32_t khz[] = { 1000, 1001, 8192, 10000, 10001, 999999, 1000000, 1000001, 1234567,
				2000000, 2399998, 3000000, 4000000, 9999999, 10000000 };

static void scales(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(khz); i++) {
		struct pvclock_scale s = pvclock_scale(khz[i]);
		uint64_t scale = hyperv_tsc_scale(khz[i]);
		bool exact = khz[i] == 1000000 || khz[i] == 2000000 || khz[i] == 4000000;

		assert_true(s.mul >> 31);
		assert_int_equal(!scale, khz[i] <= 10000);
		for (int64_t ns = 1; ns < INT64_MAX / 1000; ns = ns * 3 + 7) {
			uint64_t t = (uint64_t)((__int128)ns * khz[i] / 1000000);
			uint64_t real = (uint64_t)((__int128)t * 1000000 / khz[i]);
			int64_t off = (int64_t)(pvclock_ns(s, t) - real);
			int64_t hv = (int64_t)((uint64_t)((unsigned __int128)t * scale >> 64) -
					       real / HV_TICK_NS);

			if (off < 0)
				off = -off;
			assert_true(off <= (exact ? 0 : (ns >> 32) + 10));
			assert_true(!scale || hv == 0 || hv == 1);
			if (khz[i] == 1000000)
				assert_int_equal(hv, 0);
		}
	}
}

/* All of them at any moment, through every kind of TSC. */
static void agreement(void **state)
{
	static const uint64_t adjusts[] = { 0, 1000, (uint64_t)-12345678, 1ull << 62, 1ull << 63 };

	for (unsigned k = 0; k < 3; k++) {
		make("kvm", "virtual", k == 0 ? "1000000" : k == 1 ? "2399998" : "12345");
		assert_true(wr(MSR_KVM_SYSTEM_TIME, TIME | 1));
		for (unsigned i = 0; i < 60; i++) {
			int64_t off;

			clock_skip_to(&vm->clock, clock_now(&vm->clock) * 5 / 4 + 1237);
			adjust(adjusts[i % ARRAY_SIZE(adjusts)]);
			off = (int64_t)kvm_time() - clock_now(&vm->clock);
			assert_in_range(off + 1000, k == 2 ? 900 : 997, 1001);
		}
		end();
		make("hyperv", "virtual", k == 0 ? "1000000" : k == 1 ? "2399998" : "12345");
		assert_true(wr(HV_MSR_REFERENCE_TSC, 0x20000 | 1));
		for (unsigned i = 0; i < 60; i++) {
			clock_skip_to(&vm->clock, clock_now(&vm->clock) * 5 / 4 + 1237);
			adjust(adjusts[i % ARRAY_SIZE(adjusts)]);
			/* A TSC before its zero is in no page: the counter tells. */
			if (tsc() > UINT64_MAX / 4 * 3)
				assert_int_equal(peek(0x20000, 4), 0);
			else
				assert_in_range(hv_time(0x20000) + 2
						- value(HV_MSR_TIME_REF_COUNT), 0, 3);
			assert_int_equal(value(HV_MSR_TIME_REF_COUNT),
					 clock_now(&vm->clock) / HV_TICK_NS);
		}
		end();
	}
}

/* ---- kvmclock -------------------------------------------------------------- */

static void time_page(void **state)
{
	static const uint32_t msrs[] = { MSR_KVM_SYSTEM_TIME_OLD, MSR_KVM_SYSTEM_TIME };

	make("kvm", "virtual", "1000000");
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(value(msrs[i]), 0);
		/* Garbage is no flag, and no version goes back. */
		memset(memory_page(&vm->memory, TIME).write + TIME % PAGE, 0xff, 32);
		poke(TIME, 0x77777777, 4);
		assert_true(wr(msrs[i], TIME | 1));
		assert_int_equal(value(msrs[!i]), TIME | 1);
		assert_int_equal(peek(TIME, 4), 0x7777777a);
		assert_int_equal(peek(TIME + 4, 4), 0);
		assert_int_equal(peek(TIME + 16, 8), 0);
		assert_int_equal(peek(TIME + 29, 1), PVCLOCK_TSC_STABLE);
		assert_int_equal(peek(TIME + 30, 2), 0);
		adjust(-77ull);
		assert_int_equal(peek(TIME, 4), 0x7777777c);
		assert_int_equal(peek(TIME + 8, 8), -77ull);
		adjust(0);
		assert_true(wr(msrs[i], 0));
		poke(TIME, 1, 4);
		adjust(5);
		assert_int_equal(peek(TIME, 4), 1);	/* off: no longer ours */
		adjust(0);
	}
	end();
}

static void refused_addresses(void **state)
{
	static const uint64_t bad[] = { END, END - 31 + 3, ~0ull << 1, 1ull << 40, TIME | 2,
					0xa0000, 0x9fff0, 0xfee00000 };

	make("kvm", "virtual", "1000000");
	assert_true(wr(MSR_KVM_SYSTEM_TIME, TIME | 1));
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_false(wr(MSR_KVM_SYSTEM_TIME, bad[i] | 1));
		assert_int_equal(value(MSR_KVM_SYSTEM_TIME), TIME | 1);
		/* Off is off, whatever stands above. */
		assert_true(wr(MSR_KVM_SYSTEM_TIME_OLD, bad[i]));
		assert_int_equal(value(MSR_KVM_SYSTEM_TIME), 0);
		assert_true(wr(MSR_KVM_SYSTEM_TIME, TIME | 1));
	}
	assert_true(wr(MSR_KVM_SYSTEM_TIME, (END - 32) | 1));
	assert_false(wr(MSR_KVM_WALL_CLOCK, END - 8));
	assert_false(wr(MSR_KVM_WALL_CLOCK, WALL + 1));
	assert_int_equal(value(MSR_KVM_WALL_CLOCK_OLD), 0);
	end();
}

static void wall_clock(void **state)
{
	make("kvm", "virtual", "1000000");
	vm->clock.wall_base = 1234567890123456789;
	assert_true(wr(MSR_KVM_WALL_CLOCK_OLD, WALL));
	assert_int_equal(value(MSR_KVM_WALL_CLOCK), WALL);
	assert_int_equal(peek(WALL, 4), 2);
	assert_int_equal(peek(WALL + 4, 4), 1234567890);
	assert_int_equal(peek(WALL + 8, 4), 123456789);
	clock_skip_to(&vm->clock, 5000000000);
	vm->clock.wall_base = -1;
	assert_true(wr(MSR_KVM_WALL_CLOCK, WALL));
	assert_int_equal(peek(WALL, 4), 4);
	assert_int_equal(peek(WALL + 4, 4), UINT32_MAX);
	assert_int_equal(peek(WALL + 8, 4), 999999999);
	assert_true(wr(MSR_KVM_WALL_CLOCK, 0));
	assert_int_equal(peek(WALL, 4), 4);
	end();
}

static void init_ends_it(void **state)
{
	make("kvm", "virtual", "1000000");
	assert_true(wr(MSR_KVM_SYSTEM_TIME, TIME | 1));
	paravirt_init_cpu(cpu);
	assert_int_equal(value(MSR_KVM_SYSTEM_TIME), 0);
	end();
	make("hyperv", "virtual", "1000000");
	assert_true(wr(HV_MSR_VP_ASSIST, 0x20000 | 1));
	assert_true(wr(HV_MSR_REFERENCE_TSC, 0x21000 | 1));
	paravirt_init_cpu(cpu);
	assert_int_equal(value(HV_MSR_VP_ASSIST), 0);
	assert_int_equal(value(HV_MSR_REFERENCE_TSC), 0x21001);
	end();
}

/* A pause by somebody is told; a save is not, nor anything while time is virtual. */
static void stopped_flag(void **state)
{
	make("kvm", "realtime", "1000000");
	assert_true(wr(MSR_KVM_SYSTEM_TIME, TIME | 1));
	memory_clear_dirty(&vm->memory);
	device_unlock(vm);
	vm_resume(vm, STOP_PAUSE);
	vm_pause(vm, STOP_SAVE);
	vm_resume(vm, STOP_SAVE);
	assert_int_equal(peek(TIME + 29, 1), PVCLOCK_TSC_STABLE);
	assert_int_equal(memory_count_dirty(&vm->memory), 0);
	vm_pause(vm, STOP_USER);
	vm_pause(vm, STOP_SAVE);
	vm_resume(vm, STOP_USER);
	assert_int_equal(peek(TIME + 29, 1), PVCLOCK_TSC_STABLE);
	vm_resume(vm, STOP_SAVE);
	assert_int_equal(peek(TIME + 29, 1), PVCLOCK_TSC_STABLE | PVCLOCK_GUEST_STOPPED);
	assert_int_equal(memory_count_dirty(&vm->memory), 1);
	device_lock(vm);
	/* It stays until the guest takes it back. */
	adjust(3);
	assert_int_equal(peek(TIME + 29, 1), PVCLOCK_TSC_STABLE | PVCLOCK_GUEST_STOPPED);
	poke(TIME + 29, PVCLOCK_TSC_STABLE, 1);
	adjust(4);
	assert_int_equal(peek(TIME + 29, 1), PVCLOCK_TSC_STABLE);
	paravirt_restored(vm);
	assert_int_equal(peek(TIME + 29, 1), PVCLOCK_TSC_STABLE | PVCLOCK_GUEST_STOPPED);
	device_unlock(vm);
	vm_pause(vm, STOP_PAUSE);
	device_lock(vm);
	end();
	make("kvm", "virtual", "1000000");
	assert_true(wr(MSR_KVM_SYSTEM_TIME, TIME | 1));
	paravirt_stood(vm);
	assert_int_equal(peek(TIME + 29, 1), PVCLOCK_TSC_STABLE);
	end();
}

/* ---- Hyper-V ---------------------------------------------------------------- */

static bool call(unsigned cpl, uint64_t *result)
{
	bool ok;

	device_unlock(vm);
	ok = paravirt_hypercall(cpu, cpl, result);
	device_lock(vm);
	return ok;
}

static void hypercalls(void **state)
{
	uint64_t r;

	make("hyperv", "virtual", "1000000");
	assert_false(call(0, &r));
	/* Nobody has said who asks. */
	assert_true(wr(HV_MSR_HYPERCALL, 0x20001));
	assert_int_equal(value(HV_MSR_HYPERCALL), 0);
	assert_true(wr(HV_MSR_GUEST_OS_ID, 0x8100000000000001));
	assert_false(wr(HV_MSR_HYPERCALL, END | 1));
	assert_true(wr(HV_MSR_HYPERCALL, 0x20001));
	assert_int_equal(peek(0x20000, 4), 0xc3c1010f);
	assert_true(call(0, &r));
	assert_int_equal(r, HV_INVALID_HYPERCALL_CODE);
	assert_false(call(3, &r));
	assert_true(wr(HV_MSR_GUEST_OS_ID, 0));
	assert_int_equal(value(HV_MSR_HYPERCALL), 0);
	assert_false(call(0, &r));
	/* Locked: neither moved nor ended before a reset. */
	assert_true(wr(HV_MSR_GUEST_OS_ID, 1));
	assert_true(wr(HV_MSR_HYPERCALL, 0x21003));
	assert_true(wr(HV_MSR_HYPERCALL, 0x22001));
	assert_true(wr(HV_MSR_GUEST_OS_ID, 0));
	assert_int_equal(value(HV_MSR_HYPERCALL), 0x21003);
	assert_int_equal(peek(0x22000, 4), 0);
	vm->paravirt->type->reset(vm->paravirt);
	assert_int_equal(value(HV_MSR_HYPERCALL), 0);
	end();
	make("kvm", "virtual", "1000000");
	assert_true(call(0, &r));
	assert_int_equal(r, -1000ull);
	assert_true(call(3, &r));
	assert_int_equal(r, -1ull);
	end();
	make("none", "virtual", "1000000");
	assert_false(call(0, &r));
	end();
}

static void tsc_page(void **state)
{
	make("hyperv", "virtual", "3000000");
	assert_false(wr(HV_MSR_REFERENCE_TSC, END | 1));
	assert_true(wr(HV_MSR_REFERENCE_TSC, 0x20001));
	assert_int_equal(peek(0x20000, 4), 1);
	assert_int_equal(peek(0x20008, 8), hyperv_tsc_scale(3000000));
	assert_int_equal(peek(0x20010, 8), 0);
	paravirt_restored(vm);
	assert_int_equal(peek(0x20000, 4), 2);
	/* A page that is asked for again is another one. */
	assert_true(wr(HV_MSR_REFERENCE_TSC, 0));
	paravirt_restored(vm);
	assert_int_equal(peek(0x20000, 4), 2);
	assert_true(wr(HV_MSR_REFERENCE_TSC, 0x21001));
	assert_int_equal(peek(0x21000, 4), 3);
	end();
	/* Too slow a TSC: the counter is read instead. */
	make("hyperv", "virtual", "10000");
	assert_true(wr(HV_MSR_REFERENCE_TSC, 0x20001));
	assert_int_equal(peek(0x20000, 4), 0);
	end();
}

static void other_registers(void **state)
{
	make("hyperv", "virtual", "2500000");
	assert_int_equal(value(HV_MSR_VP_INDEX), 0);
	assert_int_equal(value(HV_MSR_TSC_FREQUENCY), 2500000000);
	assert_int_equal(value(HV_MSR_APIC_FREQUENCY), 1000000000);
	assert_false(wr(HV_MSR_TSC_INVARIANT, 2));
	assert_true(wr(HV_MSR_TSC_INVARIANT, 1));
	device_unlock(vm);
	assert_true(identity_invariant_tsc(vm));
	device_lock(vm);
	/* The APIC, in both of its modes. */
	for (unsigned x2 = 0; x2 < 2; x2++) {
		if (x2)
			assert_true(lapic_set_base(cpu->lapic, lapic_get_base(cpu->lapic) | 0xc00));
		assert_false(wr(HV_MSR_TPR, 0x100));
		assert_true(wr(HV_MSR_TPR, 0x50 + x2 * 16));
		assert_int_equal(value(HV_MSR_TPR), 0x50 + x2 * 16);
		assert_int_equal(lapic_get_tpr(cpu->lapic), 5 + x2);
		assert_true(wr(HV_MSR_EOI, 0));
		assert_true(wr(HV_MSR_ICR, 0x40));	/* physical, to itself */
		assert_int_equal(value(HV_MSR_ICR), 0x40);
	}
	poke(0x20000, 1, 8);
	assert_true(wr(HV_MSR_VP_ASSIST, 0x20001));
	assert_int_equal(peek(0x20000, 8), 0);
	assert_false(wr(HV_MSR_VP_ASSIST, END | 1));
	assert_int_equal(value(HV_MSR_VP_ASSIST), 0x20001);
	end();
}

/* ---- State ------------------------------------------------------------------- */

static struct machine_state *export(void)
{
	struct skep_error e = { .text = "" };
	struct machine_state *ms;

	device_unlock(vm);
	ms = machine_state_export(vm, &e);
	device_lock(vm);
	if (!ms)
		fail_msg("%s", e.text);
	return ms;
}

static bool valid(struct machine_state *ms, struct skep_error *e)
{
	int err;

	device_unlock(vm);
	err = machine_state_validate(vm, ms, e);
	device_lock(vm);
	return !err;
}

/* One field of one record changed: refused by that record's name, and put back. */
static void lie(struct machine_state *ms, const char *part, const char *field, uint64_t v)
{
	struct machine_part *p = machine_state_find(ms, part);
	struct skep_error e = { .text = "" };
	struct field_place f;
	uint64_t old = 0;

	assert_non_null(p);
	f = field_find(p->record, p->model, field);
	assert_non_null(f.p);
	memcpy(&old, f.p, f.size);
	memcpy(f.p, &v, f.size);
	if (valid(ms, &e))
		fail_msg("%s.%s = %#llx was taken", part, field, (unsigned long long)v);
	if (!strstr(e.text, part))
		fail_msg("%s.%s: \"%s\" does not name the record", part, field, e.text);
	memcpy(f.p, &old, f.size);
	assert_true(valid(ms, &e));
}

static void states(void **state)
{
	struct machine_state *ms;

	make("kvm", "virtual", "1000000");
	assert_true(wr(MSR_KVM_SYSTEM_TIME, TIME | 1));
	assert_true(wr(MSR_KVM_WALL_CLOCK, WALL));
	ms = export();
	lie(ms, "pv.0", "time_on", 0);
	lie(ms, "pv.0", "time_on", 2);
	lie(ms, "pv.0", "time", END - 16);
	lie(ms, "pv.0", "time", TIME + 1);
	lie(ms, "pv.0", "time", 0xa0000);
	lie(ms, "pv.0", "time", ~0ull);
	lie(ms, "pv.0", "wall", END);
	lie(ms, "pv.0", "wall", WALL + 2);
	memory_clear_dirty(&vm->memory);
	assert_true(wr(MSR_KVM_WALL_CLOCK, 0));
	assert_true(wr(MSR_KVM_SYSTEM_TIME, 0));
	device_unlock(vm);
	machine_state_commit(vm, ms);
	device_lock(vm);
	/* A commit touches no memory: that comes with the snapshot. */
	assert_int_equal(memory_count_dirty(&vm->memory), 0);
	assert_int_equal(value(MSR_KVM_SYSTEM_TIME_OLD), TIME | 1);
	assert_int_equal(value(MSR_KVM_WALL_CLOCK), WALL);
	machine_state_free(ms);
	end();

	make("hyperv", "virtual", "1000000");
	assert_true(wr(HV_MSR_GUEST_OS_ID, 7));
	assert_true(wr(HV_MSR_HYPERCALL, 0x20001));
	assert_true(wr(HV_MSR_REFERENCE_TSC, 0x21001));
	assert_true(wr(HV_MSR_VP_ASSIST, 0x22001));
	assert_true(wr(HV_MSR_TSC_INVARIANT, 1));
	ms = export();
	lie(ms, "hyperv", "guest_os_id", 0);
	lie(ms, "hyperv", "hypercall_on", 0);
	lie(ms, "hyperv", "hypercall_page", 0x20004);
	lie(ms, "hyperv", "tsc_on", 0);
	lie(ms, "hyperv", "tsc_page", END);
	lie(ms, "hyperv", "tsc_sequence", UINT32_MAX);
	lie(ms, "hyperv", "tsc_invariant", 3);
	lie(ms, "hv.0", "assist_on", 0);
	lie(ms, "hv.0", "assist_page", END - 4);
	vm->paravirt->type->reset(vm->paravirt);
	cpu->paravirt->type->reset(cpu->paravirt);
	device_unlock(vm);
	machine_state_commit(vm, ms);
	device_lock(vm);
	assert_int_equal(value(HV_MSR_HYPERCALL), 0x20001);
	assert_int_equal(value(HV_MSR_REFERENCE_TSC), 0x21001);
	assert_int_equal(value(HV_MSR_VP_ASSIST), 0x22001);
	assert_int_equal(value(HV_MSR_TSC_INVARIANT), 1);
	assert_int_equal(peek(0x21000, 4), 1);
	paravirt_restored(vm);
	assert_int_equal(peek(0x21000, 4), 2);
	/* The last number is not all ones, and the one after it not zero. */
	*(uint32_t *)field_find(&hyperv_record, machine_state_find(ms, "hyperv")->model,
				"tsc_sequence").p = UINT32_MAX - 1;
	device_unlock(vm);
	machine_state_commit(vm, ms);
	device_lock(vm);
	paravirt_restored(vm);
	assert_int_equal(peek(0x21000, 4), 1);
	machine_state_free(ms);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(nothing_unannounced),
		cmocka_unit_test(scales),
		cmocka_unit_test(agreement),
		cmocka_unit_test(time_page),
		cmocka_unit_test(refused_addresses),
		cmocka_unit_test(wall_clock),
		cmocka_unit_test(init_ends_it),
		cmocka_unit_test(stopped_flag),
		cmocka_unit_test(hypercalls),
		cmocka_unit_test(tsc_page),
		cmocka_unit_test(other_registers),
		cmocka_unit_test(states),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
