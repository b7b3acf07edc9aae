/* The DSDT: what the board holds, for the guest's ACPI interpreter. */
#include <stdio.h>

#include "boot/aml.h"
#include "boot/prt.h"
#include "boot/tables.h"
#include "chipset/chipset.h"
#include "clock/vmclock.h"
#include "clock/vmgenid.h"
#include "vm/vm.h"

#define PCI_HOLE_FIRST	((uint32_t)(ECAM_BASE + ECAM_SIZE))
#define PCI_HOLE_LAST	0xfebfffffu
#define PCI_HIGH_SIZE	(64 * GiB)

static void device_begin(struct blob *b, size_t *open, const char *name, const char *hid,
			 unsigned uid)
{
	*open = aml_device(b, name);
	aml_name_eisa(b, "_HID", hid);
	aml_name_int(b, "_UID", uid);
}

/* The 64-bit window lies above all RAM; none if the processor cannot address it. */
static void high_window(const struct vm *vm, unsigned phys_bits, struct blob *r)
{
	uint64_t end = RAM_HIGH_BASE, limit = BIT(phys_bits), first;

	for (unsigned i = 0; i < vm->memory.nram; i++)
		end = MAX(end, vm->memory.ram[i].gpa + vm->memory.ram[i].size);
	first = ALIGN_UP(end, PCI_HIGH_SIZE);
	if (first < limit && limit - first >= PCI_HIGH_SIZE)
		aml_res_memory_window64(r, first, first + PCI_HIGH_SIZE - 1);
}

static void root_resources(const struct vm *vm, unsigned phys_bits, struct blob *b)
{
	struct blob r = { 0 };

	aml_res_bus(&r, 0, 255);
	aml_res_io(&r, 0xcf8, 8);
	aml_res_io_window(&r, 0x0000, 0x0cf7);
	aml_res_io_window(&r, 0x0d00, 0xffff);
	aml_res_memory_window32(&r, PCI_HOLE_FIRST, PCI_HOLE_LAST);
	high_window(vm, phys_bits, &r);
	aml_crs(b, &r);
}

static void store_bits(struct blob *b, uint8_t op, const char *name, uint64_t bits)
{
	aml_op(b, op);
	aml_path(b, name);
	aml_int(b, bits);
	aml_path(b, name);
}

/*
 * _OSC (ACPI 6.4, section 6.2.11; PCI Firmware 3.0, section 4.5): there is no
 * firmware that would want PCI Express features for itself, so the guest gets
 * all of them but SHPC hot-plug.
 */
static void root_osc(struct blob *b)
{
	static const uint8_t pci_uuid[16] = {
		0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40,
		0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66,
	};
	size_t method = aml_method(b, "_OSC", 4), open;

	aml_dword_field(b, AML_ARG0 + 3, 0, "CDW1");
	open = aml_if(b);
	aml_op(b, AML_EQUAL);
	aml_op(b, AML_ARG0);
	aml_buffer(b, pci_uuid, sizeof(pci_uuid));
	aml_dword_field(b, AML_ARG0 + 3, 8, "CDW3");
	aml_op(b, AML_AND);
	aml_path(b, "CDW3");
	aml_int(b, 0x1d);
	aml_op(b, AML_LOCAL0);
	{
		size_t revision = aml_if(b);

		aml_op(b, AML_NOT);
		aml_op(b, AML_EQUAL);
		aml_op(b, AML_ARG0 + 1);
		aml_int(b, 1);
		store_bits(b, AML_OR, "CDW1", 0x08);	/* unknown revision */
		aml_end(b, revision);
	}
	{
		size_t masked = aml_if(b);

		aml_op(b, AML_NOT);
		aml_op(b, AML_EQUAL);
		aml_path(b, "CDW3");
		aml_op(b, AML_LOCAL0);
		store_bits(b, AML_OR, "CDW1", 0x10);	/* bits were taken away */
		aml_end(b, masked);
	}
	aml_op(b, AML_STORE);
	aml_op(b, AML_LOCAL0);
	aml_path(b, "CDW3");
	aml_end(b, open);
	open = aml_else(b);
	store_bits(b, AML_OR, "CDW1", 0x04);		/* unknown UUID */
	aml_end(b, open);
	aml_op(b, AML_RETURN);
	aml_op(b, AML_ARG0 + 3);
	aml_end(b, method);
}

static void com_ports(struct blob *b)
{
	static const struct { const char *name; uint16_t base; uint8_t irq; } com[] = {
		{ "COM1", 0x3f8, 4 }, { "COM2", 0x2f8, 3 },
		{ "COM3", 0x3e8, 4 }, { "COM4", 0x2e8, 3 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(com); i++) {
		struct blob r = { 0 };
		size_t open;

		device_begin(b, &open, com[i].name, "PNP0501", i + 1);
		aml_name_int(b, "_STA", 0x0f);
		aml_res_io(&r, com[i].base, 8);
		aml_res_irq(&r, com[i].irq);
		aml_crs(b, &r);
		aml_end(b, open);
	}
}

static void chip(struct blob *b, const char *name, const char *hid, const uint16_t (*io)[2],
		 unsigned nio, int irq)
{
	struct blob r = { 0 };
	size_t open = aml_device(b, name);

	aml_name_eisa(b, "_HID", hid);
	for (unsigned i = 0; i < nio; i++)
		aml_res_io(&r, io[i][0], io[i][1]);
	if (irq >= 0)
		aml_res_irq(&r, irq);
	aml_crs(b, &r);
	aml_end(b, open);
}

/* What lies behind the LPC bridge. */
static void isa_devices(struct blob *b)
{
	static const uint16_t rtc[][2] = { { 0x70, 2 } };
	static const uint16_t pit[][2] = { { 0x40, 4 } };
	static const uint16_t pic[][2] = { { 0x20, 2 }, { 0xa0, 2 }, { 0x4d0, 2 } };
	size_t open = aml_device(b, "ISA_");

	aml_name_int(b, "_ADR", 0x001f0000);
	prt_registers(b);
	chip(b, "RTC_", "PNP0B00", rtc, ARRAY_SIZE(rtc), 8);
	chip(b, "PIT_", "PNP0100", pit, ARRAY_SIZE(pit), 0);
	chip(b, "PIC_", "PNP0000", pic, ARRAY_SIZE(pic), 2);
	com_ports(b);
	aml_end(b, open);
}

/*
 * Address ranges that are not for anything else.  Linux believes MCFG only if
 * ECAM is named here.
 */
static void motherboard(struct blob *b)
{
	struct blob r = { 0 };
	size_t open;

	device_begin(b, &open, "MBRD", "PNP0C02", 0);
	aml_res_memory32(&r, ECAM_BASE, ECAM_SIZE);
	aml_res_memory32(&r, LAPIC_BASE, 0x1000);
	aml_crs(b, &r);
	aml_end(b, open);
}

static void hpet(struct blob *b)
{
	struct blob r = { 0 };
	size_t open;

	device_begin(b, &open, "HPET", "PNP0103", 0);
	aml_res_memory32(&r, HPET_BASE, HPET_SIZE);
	aml_crs(b, &r);
	aml_end(b, open);
}

static void fw_cfg(struct blob *b)
{
	struct blob r = { 0 };
	size_t open = aml_device(b, "FWCF");

	aml_name_string(b, "_HID", "QEMU0002");
	aml_name_int(b, "_STA", 0x0b);	/* present and working, not for the user to see */
	aml_res_io(&r, FWCFG_BASE, 12);
	aml_crs(b, &r);
	aml_end(b, open);
}

static void processors(const struct vm *vm, struct blob *b)
{
	for (unsigned i = 0; i < vm->ncpus; i++) {
		char name[5];
		size_t open;

		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		open = aml_device(b, name);
		aml_name_string(b, "_HID", "ACPI0007");
		aml_name_int(b, "_UID", i);
		aml_end(b, open);
	}
}

/* Power off: the sleep type that the power management block takes for S5. */
static void sleep_states(struct blob *b)
{
	size_t open;

	aml_name(b, "\\_S5_");
	open = aml_package(b, 4);
	aml_int(b, PM_SLP_TYP_S5);
	for (int i = 0; i < 3; i++)
		aml_int(b, 0);
	aml_end(b, open);
}

/*
 * VM Generation ID (Microsoft, "Virtual Machine Generation ID"): a guest finds it by its
 * compatible id, and asks ADDR for the address, low and high half.
 */
static void vmgenid(struct blob *b)
{
	size_t open = aml_device(b, "VGEN"), method, package;

	aml_name_string(b, "_HID", "SKEP0001");
	aml_name_string(b, "_CID", "VM_Gen_Counter");
	aml_name_string(b, "_DDN", "VM_Gen_Counter");
	aml_name_int(b, "_STA", 0x0f);
	method = aml_method(b, "ADDR", 0);
	aml_op(b, AML_STORE);
	package = aml_package(b, 2);
	aml_int(b, 0);
	aml_int(b, 0);
	aml_end(b, package);
	aml_op(b, AML_LOCAL0);
	aml_op(b, AML_STORE);
	aml_path(b, "\\VGIA");
	aml_op(b, AML_INDEX);
	aml_op(b, AML_LOCAL0);
	aml_int(b, 0);
	aml_op(b, 0);			/* no target */
	aml_op(b, AML_RETURN);
	aml_op(b, AML_LOCAL0);
	aml_end(b, method);
	aml_end(b, open);
}

/* VMClock (UAPI.13): the page is a resource. */
static void vmclock(struct blob *b)
{
	static const uint8_t crs[] = {
		0x86, 9, 0, 0,		/* Memory32Fixed, read-only: base, length */
		0, 0, 0, 0, 0x00, 0x10, 0, 0,
		0x79, 0,
	};
	size_t open = aml_device(b, "VCLK"), method;

	aml_name_string(b, "_HID", "AMZNC10C");
	aml_name_string(b, "_CID", "VMCLOCK");
	aml_name_string(b, "_DDN", "VMCLOCK");
	aml_name_int(b, "_STA", 0x0f);
	method = aml_method(b, "_CRS", AML_SERIALIZED);
	aml_op(b, AML_STORE);
	aml_buffer(b, crs, sizeof(crs));
	aml_op(b, AML_LOCAL0);
	aml_dword_field(b, AML_LOCAL0, 4, "BASE");
	aml_op(b, AML_STORE);
	aml_path(b, "\\VCIA");
	aml_path(b, "BASE");
	aml_op(b, AML_RETURN);
	aml_op(b, AML_LOCAL0);
	aml_end(b, method);
	aml_end(b, open);
}

/* An edge: the status bit is cleared before the method runs, so that none is lost. */
static void event(struct blob *b, const char *method, const char *device)
{
	size_t open = aml_method(b, method, 0);

	aml_op(b, AML_NOTIFY);
	aml_path(b, device);
	aml_int(b, 0x80);
	aml_end(b, open);
}

static void events(struct blob *b, const struct dsdt_pages *p)
{
	size_t open = aml_scope(b, "\\_GPE");

	if (p->vmgenid)
		event(b, "_E05", "\\_SB_.VGEN");
	if (p->vmclock)
		event(b, "_E08", "\\_SB_.VCLK");
	aml_end(b, open);
}

/* In no scope, where nothing that follows moves them: addresses that the loader adds. */
static struct dsdt_pages page_names(const struct vm *vm, struct blob *b)
{
	struct dsdt_pages p = { 0 };

	if (vmgenid_of(vm)) {
		aml_name(b, "VGIA");
		p.vmgenid = aml_dword(b, VMGENID_OFFSET);
	}
	if (vmclock_of(vm)) {
		aml_name(b, "VCIA");
		p.vmclock = aml_dword(b, 0);
	}
	return p;
}

struct dsdt_pages dsdt_build(const struct vm *vm, unsigned phys_bits, struct blob *b)
{
	struct dsdt_pages pages = page_names(vm, b);
	size_t sb = aml_scope(b, "\\_SB_"), root = aml_device(b, "PCI0");

	aml_name_eisa(b, "_HID", "PNP0A08");
	aml_name_eisa(b, "_CID", "PNP0A03");
	aml_name_int(b, "_UID", 0);
	aml_name_int(b, "_SEG", 0);
	aml_name_int(b, "_BBN", 0);
	root_resources(vm, phys_bits, b);
	prt_build(b);
	root_osc(b);
	isa_devices(b);
	aml_end(b, root);
	prt_links(b);
	motherboard(b);
	hpet(b);
	fw_cfg(b);
	if (pages.vmgenid)
		vmgenid(b);
	if (pages.vmclock)
		vmclock(b);
	processors(vm, b);
	aml_end(b, sb);
	events(b, &pages);
	prt_pic(b);
	sleep_states(b);
	return pages;
}
