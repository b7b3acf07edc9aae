/* The board: makes the chips and connects them. */
#include "chipset/chipset.h"

#include <errno.h>
#include <stdlib.h>

#include "boot/fwcfg.h"
#include "chipset/acpi_pm.h"
#include "chipset/debug_exit.h"
#include "chipset/hpet.h"
#include "chipset/i8254.h"
#include "chipset/i8259.h"
#include "chipset/ioapic.h"
#include "chipset/lapic.h"
#include "chipset/mc146818.h"
#include "chipset/reset.h"
#include "chipset/uart.h"
#include "chipset/wires.h"
#include "clock/vmclock.h"
#include "clock/vmgenid.h"
#include "pci/pci.h"
#include "vm/vm.h"

#define IRQ_TIMER	0
#define IRQ_RTC		8
#define PCI_DEVFN_LPC	PCI_DEVFN(31, 0)

struct chipset {
	struct vm *vm;
	struct wires *wires;
	struct i8259 *pic;
	struct ioapic *ioapic;
	struct mc146818 *rtc;
	struct acpi_pm *pm;
	struct pci_bus *pci;
};

/* INTR of the 8259 pair goes to LINT0 of every processor. */
static void intr_changed(void *opaque, bool level)
{
	struct chipset *cs = opaque;

	for (unsigned i = 0; i < cs->vm->ncpus; i++)
		if (cs->vm->vcpus[i] && cs->vm->vcpus[i]->lapic)
			lapic_lint(cs->vm->vcpus[i]->lapic, 0, level);
}

/* What firmware notes in the battery-backed memory for those who ask there: how much RAM. */
static void describe_memory(struct vm *vm, struct mc146818 *rtc)
{
	uint64_t low = 0, high = 0, over16;

	for (unsigned i = 0; i < vm->memory.nram; i++) {
		if (vm->memory.ram[i].gpa == 0)
			low = vm->memory.ram[i].size;
		else
			high = vm->memory.ram[i].size;
	}
	over16 = low > 16 * MiB ? (low - 16 * MiB) / (64 * KiB) : 0;
	mc146818_set_ram(rtc, 0x15, 640 & 0xff);
	mc146818_set_ram(rtc, 0x16, 640 >> 8);
	mc146818_set_ram(rtc, 0x34, (uint8_t)over16);
	mc146818_set_ram(rtc, 0x35, (uint8_t)(over16 >> 8));
	for (unsigned i = 0; i < 3; i++)
		mc146818_set_ram(rtc, 0x5b + i, (uint8_t)(high / (64 * KiB) >> 8 * i));
	mc146818_set_ram(rtc, 0x5f, (uint8_t)(vm->ncpus - 1));
}

/* The interrupt controllers, and the board's wires to them. */
static int create_interrupts(struct chipset *cs, struct skep_error *e)
{
	cs->wires = wires_create(cs->vm, e);
	if (!cs->wires)
		return -ENOMEM;
	cs->pic = i8259_create(cs->vm, e);
	if (!cs->pic)
		return -ENOMEM;
	cs->ioapic = ioapic_create(cs->vm, e);
	if (!cs->ioapic)
		return -ENOMEM;
	i8259_connect_intr(cs->pic, intr_changed, cs);
	ioapic_connect(cs->ioapic, lapic_deliver);
	wires_connect(cs->wires, cs->pic, cs->ioapic);
	return 0;
}

static void replace_legacy(void *opaque, bool on, bool restored)
{
	wires_replace(opaque, on, restored);
}

static int create_hpet(struct chipset *cs, struct skep_error *e)
{
	struct hpet *h = hpet_create(cs->vm, e);

	if (!h)
		return -ENOMEM;
	hpet_connect_legacy(h, 0, chipset_gsi(cs->vm, IRQ_TIMER));
	hpet_connect_legacy(h, 1, chipset_gsi(cs->vm, IRQ_RTC));
	for (unsigned n = 0; n < HPET_TIMERS; n++)
		for (unsigned pin = 0; pin < HPET_PINS; pin++)
			if (HPET_ROUTES(n) >> pin & 1)
				hpet_connect_pin(h, n, pin, chipset_gsi(cs->vm, pin));
	hpet_connect_msi(h, chipset_msi);
	hpet_connect_replace(h, replace_legacy, cs->wires);
	return 0;
}

static int create_clocks(struct chipset *cs, struct skep_error *e)
{
	struct i8254 *pit = i8254_create(cs->vm, e);

	if (!pit)
		return -ENOMEM;
	i8254_connect_irq(pit, wires_add_replaceable(cs->wires, IRQ_TIMER));
	cs->rtc = mc146818_create(cs->vm, e);
	if (!cs->rtc)
		return -ENOMEM;
	mc146818_connect_irq(cs->rtc, wires_add_replaceable(cs->wires, IRQ_RTC));
	describe_memory(cs->vm, cs->rtc);
	return create_hpet(cs, e);
}

static void rtc_alarm(void *opaque)
{
	acpi_pm_rtc_alarm(opaque);
}

/* PIRQs go to the I/O APIC, and to the 8259s as the LPC bridge routes them. */
static void connect_pci(struct chipset *cs)
{
	struct irq_line gsi[PCI_PIRQS], isa[16];

	for (unsigned n = 0; n < PCI_PIRQS; n++)
		gsi[n] = chipset_gsi(cs->vm, 16 + n);
	for (unsigned n = 0; n < 16; n++)
		isa[n] = chipset_gsi(cs->vm, n);
	pci_connect_interrupts(cs->pci, gsi, isa, chipset_msi);
}

/* PCI, and what its bridge decodes for other chips. */
static int create_pci(struct chipset *cs, struct skep_error *e)
{
	struct reset *reset;
	struct pci_bus *pci;
	struct pci_device *lpc;

	reset = reset_create(cs->vm, e);
	if (!reset)
		return -ENOMEM;
	cs->pm = acpi_pm_create(cs->vm, e);
	if (!cs->pm)
		return -ENOMEM;
	mc146818_connect_alarm(cs->rtc, rtc_alarm, cs->pm);
	acpi_pm_connect_sci(cs->pm, chipset_gsi(cs->vm, SCI_IRQ));
	pci = pci_create(cs->vm, e);
	if (!pci)
		return -ENOMEM;
	cs->pci = pci;
	connect_pci(cs);
	pci_connect_reset_control(pci, &reset_control_ops, reset);
	lpc = pci_find(pci, PCI_DEVFN_LPC);
	if (lpc)
		lpc_connect_pm(lpc, acpi_pm_set_base, cs->pm);
	return 0;
}

/* fw_cfg, and what firmware places by its means. */
static int create_firmware(struct vm *vm, struct skep_error *e)
{
	return fwcfg_create(vm, e) && vmgenid_create(vm, e) && vmclock_create(vm, e) ? 0 : -ENOMEM;
}

int chipset_create(struct vm *vm, struct skep_error *e)
{
	struct chipset *cs = calloc(1, sizeof(*cs));
	int r;

	if (!cs)
		return skep_fail(e, ENOMEM, "no memory for the board");
	cs->vm = vm;
	vm->chipset = cs;
	r = create_interrupts(cs, e);
	if (!r)
		r = create_clocks(cs, e);
	if (!r)
		r = create_pci(cs, e);
	for (unsigned i = 0; !r && i < UART_COUNT; i++)
		r = uart_create(vm, i, e);
	if (!r)
		r = debug_exit_create(vm, e);
	if (!r)
		r = create_firmware(vm, e);
	if (!r)
		r = pci_create_devices(cs->pci, e);
	return r;
}

void chipset_destroy(struct vm *vm)
{
	free(vm->chipset);
	vm->chipset = NULL;
}

struct irq_line chipset_gsi(struct vm *vm, unsigned gsi)
{
	return wires_add(vm->chipset->wires, gsi);
}

void chipset_eoi(struct vm *vm, uint8_t vector)
{
	if (vm->chipset && vm->chipset->ioapic)
		ioapic_eoi(vm->chipset->ioapic, vector);
}

void chipset_watch_ioapic(struct vm *vm, void (*fn)(void *opaque), void *opaque)
{
	ioapic_connect_changed(vm->chipset->ioapic, fn, opaque);
}

uint64_t chipset_ioapic_entry(struct vm *vm, unsigned pin)
{
	return ioapic_entry(vm->chipset->ioapic, pin);
}

/*
 * SDM vol. 3, 11.11: where the address says, what the data says.  Trigger mode level with the level
 * bit clear is the end of an assertion, which no APIC wants to hear of.
 */
void chipset_msi(struct vm *vm, uint64_t address, uint32_t data)
{
	bool logical = address & BIT(2), level = data & BIT(15);
	uint32_t dest = address >> 12 & 0xff;

	if (address >> 20 != LAPIC_BASE >> 20 || (level && !(data & BIT(14))))
		return;
	if (identity_wide_destinations(vm))
		dest |= (address >> 5 & 0x7f) << 8;
	lapic_deliver(vm, dest, logical, data >> 8 & 7, (uint8_t)data, level);
}

bool chipset_pic_intr(struct vm *vm)
{
	return vm->chipset && vm->chipset->pic && i8259_intr(vm->chipset->pic);
}

int chipset_pic_ack(struct vm *vm)
{
	return vm->chipset && vm->chipset->pic ? i8259_ack(vm->chipset->pic) : -1;
}

void chipset_power_button(struct vm *vm)
{
	if (vm->chipset && vm->chipset->pm)
		acpi_pm_power_button(vm->chipset->pm);
}

void chipset_gpe(struct vm *vm, unsigned n)
{
	if (vm->chipset && vm->chipset->pm)
		acpi_pm_gpe(vm->chipset->pm, n);
}

void chipset_nmi(struct vm *vm)
{
	if (vm->chipset && vm->chipset->rtc && mc146818_nmi_masked(vm->chipset->rtc))
		return;
	for (unsigned i = 0; i < vm->ncpus; i++)
		if (vm->vcpus[i] && vm->vcpus[i]->lapic) {
			lapic_lint(vm->vcpus[i]->lapic, 1, true);
			lapic_lint(vm->vcpus[i]->lapic, 1, false);
		}
}
