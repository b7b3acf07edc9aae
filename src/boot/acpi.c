/*
 * ACPI tables (ACPI 6.4, chapter 5; MCFG: PCI Firmware 3.0, section 4.1.2; HPET).
 *
 * Pointers between tables are written as offsets into the blob; the loader
 * script adds the address at which the blob comes to lie, and sums up after.
 */
#include "base/util.h"
#include "boot/tables.h"
#include "chipset/chipset.h"
#include "config/config.h"
#include "vm/topology.h"
#include "vm/vm.h"

#define HEADER_LENGTH		4
#define HEADER_CHECKSUM		9
#define HEADER_SIZE		36

#define OEM_ID			"SKEP  "
#define CREATOR_ID		"SKEP"

#define FADT_SIZE		276
#define FADT_FIRMWARE_CTRL	36
#define FADT_DSDT		40
#define FADT_X_FIRMWARE_CTRL	132
#define FADT_X_DSDT		140

/* FADT, table 5.10: flags, and IA-PC boot architecture flags. */
#define FADT_WBINVD		BIT(0)
#define FADT_PROC_C1		BIT(2)
#define FADT_SLP_BUTTON		BIT(5)		/* not a fixed feature */
#define FADT_TMR_VAL_EXT	BIT(8)		/* 32-bit PM timer */
#define FADT_RESET_REG_SUP	BIT(10)
#define FADT_HEADLESS		BIT(12)
#define BOOT_LEGACY_DEVICES	BIT(0)		/* serial ports on the LPC bus */
#define BOOT_NO_VGA		BIT(2)

#define MADT_PCAT_COMPAT	1		/* there is an 8259 pair too */
#define MADT_ENABLED		1
#define SRAT_ENABLED		1
#define MPS_HIGH_LEVEL		0x000d
#define XAPIC_ID_LIMIT		255

static size_t table_begin(struct blob *t, const char *signature, uint8_t revision)
{
	size_t at;

	blob_align(t, 64);	/* FACS needs it; the others do not mind */
	at = blob_put(t, signature, 4);
	blob_u32(t, 0);				/* length */
	blob_u8(t, revision);
	blob_u8(t, 0);				/* checksum */
	blob_put(t, OEM_ID, 6);
	blob_put(t, "SKEP", 4);			/* OEM table id */
	blob_put(t, signature, 4);
	blob_u32(t, 1);
	blob_put(t, CREATOR_ID, 4);
	blob_u32(t, 1);
	return at;
}

/* Length, and a checksum to be made after every pointer before it in the script. */
static void table_end(struct blob *t, struct blob *script, size_t at)
{
	blob_patch32(t, at + HEADER_LENGTH, t->len - at);
	loader_add_checksum(script, FILE_ACPI_TABLES, at + HEADER_CHECKSUM, at, t->len - at);
}

static void link_table(struct blob *script, size_t field, uint8_t size)
{
	loader_add_pointer(script, FILE_ACPI_TABLES, field, size, FILE_ACPI_TABLES);
}

static size_t build_facs(struct blob *t)
{
	size_t at;

	blob_align(t, 64);
	at = blob_put(t, "FACS", 4);
	blob_u32(t, 64);
	blob_zero(t, 24);
	blob_u8(t, 2);		/* version, at offset 32 */
	blob_zero(t, 31);
	return at;
}

/* A page of its own for a device: the DSDT and the device are told where it lies. */
static void link_page(struct blob *script, size_t field, const char *file, const char *address)
{
	if (!field)
		return;
	loader_allocate(script, file, GUEST_PAGE_SIZE, LOADER_HIGH);
	loader_add_pointer(script, FILE_ACPI_TABLES, field, 4, file);
	loader_write_pointer(script, address, file);
}

static size_t build_dsdt(const struct vm *vm, unsigned phys_bits, struct blob *t,
			 struct blob *script)
{
	size_t at = table_begin(t, "DSDT", 2);	/* 2: integers are 64 bits wide */
	struct dsdt_pages pages = dsdt_build(vm, phys_bits, t);

	link_page(script, pages.vmgenid, FILE_VMGENID, FILE_VMGENID_ADDR);
	link_page(script, pages.vmclock, FILE_VMCLOCK, FILE_VMCLOCK_ADDR);
	table_end(t, script, at);
	return at;
}

/* Generic address structure, section 5.2.3.2; access size 0 is "undefined". */
static void put_gas_io(struct blob *t, uint8_t access, uint16_t port, uint8_t bytes)
{
	blob_u8(t, 1);		/* system I/O */
	blob_u8(t, bytes * 8);
	blob_u8(t, 0);
	blob_u8(t, access);
	blob_u64(t, port);
}

#define NO_GAS 12

static void fadt_legacy(struct blob *t)
{
	blob_u32(t, PM_BASE + PM1_EVT_OFFSET);
	blob_u32(t, 0);
	blob_u32(t, PM_BASE + PM1_CNT_OFFSET);
	blob_u32(t, 0);
	blob_u32(t, 0);				/* PM2_CNT */
	blob_u32(t, PM_BASE + PM_TMR_OFFSET);
	blob_u32(t, PM_BASE + GPE0_OFFSET);
	blob_u32(t, 0);
	blob_u8(t, PM1_EVT_LEN);
	blob_u8(t, PM1_CNT_LEN);
	blob_u8(t, 0);
	blob_u8(t, PM_TMR_LEN);
	blob_u8(t, GPE0_LEN);
	blob_zero(t, 3);			/* GPE1 length, base; CST_CNT */
	blob_u16(t, 0xfff);			/* C2, C3 latency: not supported */
	blob_u16(t, 0xfff);
	blob_zero(t, 8);			/* cache flush, duty cycle, RTC alarms */
	blob_u8(t, 0x32);			/* RTC's century register */
	blob_u16(t, BOOT_LEGACY_DEVICES | BOOT_NO_VGA);
	blob_u8(t, 0);
	blob_u32(t, FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_TMR_VAL_EXT |
		 FADT_RESET_REG_SUP | FADT_HEADLESS);
	put_gas_io(t, 1, RESET_PORT, 1);
	blob_u8(t, RESET_VALUE);
	blob_u16(t, 0);				/* ARM */
	blob_u8(t, 4);				/* minor version */
}

static size_t build_fadt(struct blob *t, struct blob *script, size_t facs, size_t dsdt)
{
	size_t at = table_begin(t, "FACP", 6);

	blob_u32(t, facs);
	blob_u32(t, dsdt);
	blob_u8(t, 0);
	blob_u8(t, 0);				/* power profile: unspecified */
	blob_u16(t, SCI_IRQ);
	blob_u32(t, 0);				/* no SMI command: ACPI mode always */
	blob_zero(t, 4);
	fadt_legacy(t);
	/*
	 * X_FIRMWARE_CTRL stays zero, since both fields set at once is an error
	 * (section 5.2.9); X_DSDT must agree with DSDT.
	 */
	blob_u64(t, 0);
	blob_u64(t, dsdt);
	put_gas_io(t, 2, PM_BASE + PM1_EVT_OFFSET, PM1_EVT_LEN);
	blob_zero(t, NO_GAS);
	put_gas_io(t, 2, PM_BASE + PM1_CNT_OFFSET, PM1_CNT_LEN);
	blob_zero(t, 2 * NO_GAS);		/* PM1b, PM2 */
	put_gas_io(t, 3, PM_BASE + PM_TMR_OFFSET, PM_TMR_LEN);
	put_gas_io(t, 1, PM_BASE + GPE0_OFFSET, GPE0_LEN);
	blob_zero(t, 3 * NO_GAS);		/* GPE1, sleep control, sleep status */
	blob_put(t, "skep\0\0\0", 8);		/* hypervisor vendor */
	link_table(script, at + FADT_FIRMWARE_CTRL, 4);
	link_table(script, at + FADT_DSDT, 4);
	link_table(script, at + FADT_X_DSDT, 8);
	table_end(t, script, at);
	return at;
}

static void madt_processor(struct blob *t, uint32_t uid, uint32_t id)
{
	if (uid < XAPIC_ID_LIMIT && id < XAPIC_ID_LIMIT) {
		blob_u8(t, 0);			/* local APIC */
		blob_u8(t, 8);
		blob_u8(t, uid);		/* _UID in the DSDT */
		blob_u8(t, id);
		blob_u32(t, MADT_ENABLED);
	} else {
		blob_u8(t, 9);			/* local x2APIC */
		blob_u8(t, 16);
		blob_u16(t, 0);
		blob_u32(t, id);
		blob_u32(t, MADT_ENABLED);
		blob_u32(t, uid);
	}
}

static void madt_override(struct blob *t, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	blob_u8(t, 2);
	blob_u8(t, 10);
	blob_u8(t, 0);				/* ISA */
	blob_u8(t, irq);
	blob_u32(t, gsi);
	blob_u16(t, flags);
}

static size_t build_madt(const struct vm *vm, struct blob *t, struct blob *script)
{
	size_t at = table_begin(t, "APIC", 5);

	blob_u32(t, LAPIC_BASE);
	blob_u32(t, MADT_PCAT_COMPAT);
	for (unsigned i = 0; i < vm->ncpus; i++)
		madt_processor(t, i, topology_apic_id(vm, i));
	blob_u8(t, 1);				/* I/O APIC */
	blob_u8(t, 12);
	blob_u8(t, IOAPIC_ID);
	blob_u8(t, 0);
	blob_u32(t, IOAPIC_BASE);
	blob_u32(t, 0);
	madt_override(t, 0, 2, 0);
	madt_override(t, SCI_IRQ, SCI_IRQ, MPS_HIGH_LEVEL);
	blob_u8(t, 4);				/* NMI at LINT1 of every processor */
	blob_u8(t, 6);
	blob_u8(t, 0xff);
	blob_u16(t, 0);
	blob_u8(t, 1);
	if (vm->ncpus > XAPIC_ID_LIMIT) {
		blob_u8(t, 10);			/* and of every x2APIC */
		blob_u8(t, 12);
		blob_u16(t, 0);
		blob_u32(t, UINT32_MAX);
		blob_u8(t, 1);
		blob_zero(t, 3);
	}
	table_end(t, script, at);
	return at;
}

/* Processor affinity, sections 5.2.16.1 and 5.2.16.3. */
static void srat_processor(struct blob *t, uint32_t domain, uint32_t id)
{
	if (id < XAPIC_ID_LIMIT) {
		blob_u8(t, 0);
		blob_u8(t, 16);
		blob_u8(t, domain);
		blob_u8(t, id);
		blob_u32(t, SRAT_ENABLED);
		blob_zero(t, 8);		/* SAPIC EID, the domain's other bits, clock domain */
	} else {
		blob_u8(t, 2);
		blob_u8(t, 24);
		blob_u16(t, 0);
		blob_u32(t, domain);
		blob_u32(t, id);
		blob_u32(t, SRAT_ENABLED);
		blob_zero(t, 8);
	}
}

static void srat_memory(struct blob *t, uint32_t domain, uint64_t gpa, uint64_t size)
{
	blob_u8(t, 1);
	blob_u8(t, 40);
	blob_u32(t, domain);
	blob_u16(t, 0);
	blob_u64(t, gpa);
	blob_u64(t, size);
	blob_u32(t, 0);
	blob_u32(t, SRAT_ENABLED);
	blob_u64(t, 0);
}

/* The system resource affinity table, section 5.2.16; 0: nobody asked for domains. */
static size_t build_srat(const struct vm *vm, struct blob *t, struct blob *script)
{
	struct config_domain domain[CONFIG_DOMAINS_MAX];
	unsigned n = vm->config ? config_domains(vm->config, domain) : 0, region = 0;
	uint64_t used = 0;			/* of the region */
	size_t at;

	if (!n)
		return 0;
	at = table_begin(t, "SRAT", 3);
	blob_u32(t, 1);
	blob_u64(t, 0);
	for (unsigned i = 0; i < vm->ncpus; i++)
		for (unsigned d = 0; d < n; d++)
			if (domain[d].cpus >> i & 1)
				srat_processor(t, d, topology_apic_id(vm, i));
	/* RAM is dealt out from the bottom up, around the hole below 4 GiB. */
	for (unsigned d = 0; d < n; d++)
		while (domain[d].size && region < vm->memory.nram) {
			const struct mem_region *r = &vm->memory.ram[region];
			uint64_t part = MIN(domain[d].size, r->size - used);

			srat_memory(t, d, r->gpa + used, part);
			domain[d].size -= part;
			used += part;
			if (used == r->size) {
				region++;
				used = 0;
			}
		}
	table_end(t, script, at);
	return at;
}

static size_t build_mcfg(struct blob *t, struct blob *script)
{
	size_t at = table_begin(t, "MCFG", 1);

	blob_u64(t, 0);
	blob_u64(t, ECAM_BASE);
	blob_u16(t, 0);				/* segment */
	blob_u8(t, 0);
	blob_u8(t, ECAM_SIZE / MiB - 1);	/* 1 MiB a bus */
	blob_u32(t, 0);
	table_end(t, script, at);
	return at;
}

/* IA-PC HPET specification 1.0a, section 3.2.4. */
static size_t build_hpet(struct blob *t, struct blob *script)
{
	size_t at = table_begin(t, "HPET", 1);

	blob_u32(t, HPET_ID);
	blob_u8(t, 0);				/* system memory */
	blob_u8(t, 64);
	blob_u8(t, 0);
	blob_u8(t, 0);
	blob_u64(t, HPET_BASE);
	blob_u8(t, 0);				/* the first, and only one */
	blob_u16(t, HPET_MIN_TICK);
	blob_u8(t, 1);				/* there is nothing else in its 4 KiB page */
	table_end(t, script, at);
	return at;
}

/* RSDT (size 4) or XSDT (size 8). */
static size_t build_root(struct blob *t, struct blob *script, const char *signature, uint8_t size,
			 const size_t *table, unsigned n)
{
	size_t at = table_begin(t, signature, 1);

	for (unsigned i = 0; i < n; i++) {
		size_t field = size == 4 ? blob_u32(t, table[i]) : blob_u64(t, table[i]);

		link_table(script, field, size);
	}
	table_end(t, script, at);
	return at;
}

static void build_rsdp(struct blob *r, struct blob *script, size_t rsdt, size_t xsdt)
{
	blob_put(r, "RSD PTR ", 8);
	blob_u8(r, 0);
	blob_put(r, OEM_ID, 6);
	blob_u8(r, 2);
	blob_u32(r, rsdt);
	blob_u32(r, 36);
	blob_u64(r, xsdt);
	blob_zero(r, 4);
	loader_add_pointer(script, FILE_ACPI_RSDP, 16, 4, FILE_ACPI_TABLES);
	loader_add_pointer(script, FILE_ACPI_RSDP, 24, 8, FILE_ACPI_TABLES);
	loader_add_checksum(script, FILE_ACPI_RSDP, 8, 0, 20);
	loader_add_checksum(script, FILE_ACPI_RSDP, 32, 0, 36);
}

void acpi_build(const struct vm *vm, unsigned phys_bits, struct blob *tables, struct blob *rsdp,
		struct blob *script)
{
	size_t facs, dsdt, table[5], rsdt, xsdt;
	unsigned n = 4;

	loader_allocate(script, FILE_ACPI_RSDP, 16, LOADER_FSEG);
	loader_allocate(script, FILE_ACPI_TABLES, 64, LOADER_HIGH);
	facs = build_facs(tables);
	dsdt = build_dsdt(vm, phys_bits, tables, script);
	table[0] = build_fadt(tables, script, facs, dsdt);
	table[1] = build_madt(vm, tables, script);
	table[2] = build_mcfg(tables, script);
	table[3] = build_hpet(tables, script);
	table[4] = build_srat(vm, tables, script);
	n += table[4] != 0;
	rsdt = build_root(tables, script, "RSDT", 4, table, n);
	xsdt = build_root(tables, script, "XSDT", 8, table, n);
	build_rsdp(rsdp, script, rsdt, xsdt);
}
