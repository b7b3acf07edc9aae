/*
 * How PCI's INTA-INTD reach interrupt controllers, for the guest's ACPI interpreter (ACPI 6.4,
 * section 6.2.13; PCI Firmware 3.0, section 4.3): straight to GSI 16-23 for who says by \_PIC
 * that it uses the I/O APIC, and through eight link devices, which are the routing registers of the
 * LPC bridge, for who uses the 8259s.
 */
#include <stdio.h>

#include "boot/aml.h"
#include "boot/prt.h"
#include "base/util.h"
#include "pci/pci.h"

#define PCI_CONFIG_SPACE	2
#define PIRQ_REGISTERS		0x60	/* A-D; four others; E-H */
#define PIRQ_REGISTERS_LEN	12
#define ROUTE_OFF		0x80
#define IRQ_OFFSET		5	/* of the number in an extended interrupt descriptor */

/* Interrupts that nothing of the board uses. */
static const uint8_t choices[] = { 5, 10, 11 };

static void link_name(char name[5], unsigned n)
{
	snprintf(name, 5, "LNK%c", 'A' + n % PCI_PIRQS);
}

static void register_name(char name[5], unsigned n)
{
	snprintf(name, 5, "PRQ%c", 'A' + n % PCI_PIRQS);
}

/* Name(name, Package): an entry for each slot and pin. */
static void table(struct blob *b, const char *name, bool links)
{
	size_t prt;

	aml_name(b, name);
	prt = aml_package(b, 32 * 4);
	for (unsigned slot = 0; slot < 32; slot++)
		for (unsigned pin = 0; pin < 4; pin++) {
			size_t entry = aml_package(b, 4);
			unsigned gsi = pci_intx_gsi(slot, pin);
			char link[5];

			aml_int(b, slot << 16 | 0xffff);
			aml_int(b, pin);
			if (links) {
				link_name(link, gsi - 16);
				aml_path(b, link);
				aml_int(b, 0);
			} else {
				aml_int(b, 0);
				aml_int(b, gsi);
			}
			aml_end(b, entry);
		}
	aml_end(b, prt);
}

void prt_build(struct blob *b)
{
	size_t method, choice;

	table(b, "PRTA", false);
	table(b, "PRTP", true);
	method = aml_method(b, "_PRT", 0);
	choice = aml_if(b);
	aml_path(b, "\\PICF");
	aml_op(b, AML_RETURN);
	aml_path(b, "PRTA");
	aml_end(b, choice);
	aml_op(b, AML_RETURN);
	aml_path(b, "PRTP");
	aml_end(b, method);
}

void prt_pic(struct blob *b)
{
	size_t method;

	aml_name_int(b, "\\PICF", 0);
	method = aml_method(b, "\\_PIC", 1);
	aml_op(b, AML_STORE);
	aml_op(b, AML_ARG0);
	aml_path(b, "\\PICF");
	aml_end(b, method);
}

void prt_registers(struct blob *b)
{
	size_t field;
	char name[5];

	aml_region(b, "PIRQ", PCI_CONFIG_SPACE, PIRQ_REGISTERS, PIRQ_REGISTERS_LEN);
	field = aml_field(b, "PIRQ");
	for (unsigned n = 0; n < PCI_PIRQS; n++) {
		if (n == 4)
			aml_field_entry(b, NULL, 32);
		register_name(name, n);
		aml_field_entry(b, name, 8);
	}
	aml_end(b, field);
}

/* An extended interrupt descriptor: level, active low, shared, of a consumer; and the end tag. */
static size_t descriptor(uint8_t *d, const uint8_t *irq, unsigned n)
{
	size_t len = 0;

	d[len++] = 0x89;
	store16(d + len, (uint16_t)(2 + 4 * n));
	len += 2;
	d[len++] = 0x0d;
	d[len++] = (uint8_t)n;
	for (unsigned i = 0; i < n; i++, len += 4)
		store32(d + len, irq[i]);
	d[len++] = 0x79;
	d[len++] = 0;
	return len;
}

/* _STA: present, and enabled if the register routes it anywhere. */
static void link_status(struct blob *b, const char *reg)
{
	size_t method = aml_method(b, "_STA", 0), off;

	off = aml_if(b);
	aml_op(b, AML_AND);
	aml_path(b, reg);
	aml_int(b, ROUTE_OFF);
	aml_op(b, 0);			/* no target */
	aml_op(b, AML_RETURN);
	aml_int(b, 0x09);
	aml_end(b, off);
	aml_op(b, AML_RETURN);
	aml_int(b, 0x0b);
	aml_end(b, method);
}

static void link_disable(struct blob *b, const char *reg)
{
	size_t method = aml_method(b, "_DIS", 0);

	aml_op(b, AML_OR);
	aml_path(b, reg);
	aml_int(b, ROUTE_OFF);
	aml_path(b, reg);
	aml_end(b, method);
}

static void link_current(struct blob *b, const char *reg)
{
	static const uint8_t none[] = { 0 };
	uint8_t d[16];
	size_t len = descriptor(d, none, 1), method = aml_method(b, "_CRS", AML_SERIALIZED);

	aml_op(b, AML_STORE);
	aml_buffer(b, d, len);
	aml_op(b, AML_LOCAL0);
	aml_dword_field(b, AML_LOCAL0, IRQ_OFFSET, "INTN");
	aml_op(b, AML_AND);
	aml_path(b, reg);
	aml_int(b, 0x0f);
	aml_path(b, "INTN");
	aml_op(b, AML_RETURN);
	aml_op(b, AML_LOCAL0);
	aml_end(b, method);
}

static void link_set(struct blob *b, const char *reg)
{
	size_t method = aml_method(b, "_SRS", 1 | AML_SERIALIZED);

	aml_dword_field(b, AML_ARG0, IRQ_OFFSET, "INTN");
	aml_op(b, AML_STORE);
	aml_path(b, "INTN");
	aml_path(b, reg);
	aml_end(b, method);
}

void prt_links(struct blob *b)
{
	uint8_t d[32];
	size_t len = descriptor(d, choices, ARRAY_SIZE(choices));

	for (unsigned n = 0; n < PCI_PIRQS; n++) {
		char name[5], reg[5], path[32];
		size_t open;

		link_name(name, n);
		register_name(reg, n);
		snprintf(path, sizeof(path), "\\_SB_.PCI0.ISA_.%s", reg);
		open = aml_device(b, name);
		aml_name_eisa(b, "_HID", "PNP0C0F");
		aml_name_int(b, "_UID", n);
		aml_name(b, "_PRS");
		aml_buffer(b, d, len);
		link_status(b, path);
		link_disable(b, path);
		link_current(b, path);
		link_set(b, path);
		aml_end(b, open);
	}
}
