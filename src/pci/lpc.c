/*
 * The LPC bridge: Intel ICH9, 8086:2918, at 0:31.0 (Intel I/O Controller Hub 9
 * data sheet, section 13.1).  It says where the power management block lies
 * and keeps the interrupt routing that the guest chose.
 */
#include "pci/pci.h"

#include <errno.h>

#include "state/state.h"
#include "vm/vm.h"

#define LPC_PMBASE	0x40
#define LPC_ACPI_CNTL	0x44
#define LPC_GPIOBASE	0x48
#define LPC_PIRQA	0x60	/* A-D; E-H at 0x68 */
#define LPC_SIRQ_CNTL	0x64
#define LPC_PIRQE	0x68
#define LPC_RCBA	0xf0

#define PMBASE_MASK	0xff80u
#define ACPI_CNTL_EN	0x80	/* the SCI is wired to IRQ 9: bits 2:0 stay zero */
#define PIRQ_MASK	0x8f	/* bit 7: not routed to the 8259 */
#define RCBA_MASK	0xffffc001u
#define COMMAND_FIXED	0x0007
#define COMMAND_BITS	0x0140
#define STATUS_FIXED	0x0200	/* DEVSEL medium */

struct lpc {
	struct pci_device pci;
	void (*pm_set_base)(void *opaque, uint16_t base, bool enabled);
	void *pm_opaque;
};

struct lpc_model {
	uint16_t command;
	uint16_t pmbase;
	uint8_t acpi_cntl;
	uint8_t pirq[8];
	uint8_t sirq_cntl;
	uint32_t rcba;
};

static void update_pm(struct lpc *l)
{
	const uint8_t *c = l->pci.config;

	if (l->pm_set_base)
		l->pm_set_base(l->pm_opaque, load32(c + LPC_PMBASE) & PMBASE_MASK,
			       c[LPC_ACPI_CNTL] & ACPI_CNTL_EN);
}

void lpc_connect_pm(struct pci_device *p,
		    void (*set_base)(void *opaque, uint16_t base, bool enabled), void *opaque)
{
	struct lpc *l = container_of(p, struct lpc, pci);

	l->pm_set_base = set_base;
	l->pm_opaque = opaque;
	update_pm(l);
}

/* Of PIRQ n. */
static unsigned pirq_register(unsigned n)
{
	return n < 4 ? LPC_PIRQA + n : LPC_PIRQE + n - 4;
}

static void update_routes(struct lpc *l, bool restored)
{
	struct pci_device *p = &l->pci;

	for (unsigned n = 0; p->bus && n < PCI_PIRQS; n++)
		pci_route(p->bus, n, p->config[pirq_register(n)], restored);
}

static void lpc_written(struct pci_device *p, unsigned offset, unsigned size)
{
	if (pci_touches(offset, size, LPC_PIRQA, 4) || pci_touches(offset, size, LPC_PIRQE, 4))
		update_routes(container_of(p, struct lpc, pci), false);
	if (offset <= LPC_ACPI_CNTL && offset + size > LPC_PMBASE)
		update_pm(container_of(p, struct lpc, pci));
}

static int lpc_init(struct device *d, struct skep_error *e)
{
	struct pci_device *p = container_of(d, struct pci_device, dev);

	pci_init_header(p);
	store16(p->config + PCI_STATUS, STATUS_FIXED);
	store16(p->wmask + PCI_COMMAND, COMMAND_BITS);
	store32(p->wmask + LPC_PMBASE, PMBASE_MASK);
	p->wmask[LPC_ACPI_CNTL] = ACPI_CNTL_EN;
	memset(p->wmask + LPC_PIRQA, PIRQ_MASK, 4);
	memset(p->wmask + LPC_PIRQE, PIRQ_MASK, 4);
	p->wmask[LPC_SIRQ_CNTL] = 0xff;
	store32(p->wmask + LPC_RCBA, RCBA_MASK);
	/* No GPIO block: the base register reads as an I/O base of zero. */
	store32(p->config + LPC_GPIOBASE, 1);
	return 0;
}

static void load_model(struct lpc *l, const struct lpc_model *m, bool restored)
{
	uint8_t *c = l->pci.config;

	store16(c + PCI_COMMAND, m->command);
	store32(c + LPC_PMBASE, m->pmbase | 1);		/* bit 0: I/O space, always one */
	c[LPC_ACPI_CNTL] = m->acpi_cntl;
	memcpy(c + LPC_PIRQA, m->pirq, 4);
	memcpy(c + LPC_PIRQE, m->pirq + 4, 4);
	c[LPC_SIRQ_CNTL] = m->sirq_cntl;
	store32(c + LPC_RCBA, m->rcba);
	update_routes(l, restored);
	update_pm(l);
}

static void lpc_reset(struct device *d)
{
	static const struct lpc_model reset = {
		.command = COMMAND_FIXED,
		.pirq = { 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80 },
		.sirq_cntl = 0x10,
	};

	load_model(container_of(d, struct lpc, pci.dev), &reset, false);
}

static void lpc_export(const struct device *d, void *model)
{
	const struct pci_device *p = container_of(d, const struct pci_device, dev);
	const uint8_t *c = p->config;
	struct lpc_model *m = model;

	m->command = load16(c + PCI_COMMAND);
	m->pmbase = load32(c + LPC_PMBASE) & PMBASE_MASK;
	m->acpi_cntl = c[LPC_ACPI_CNTL];
	memcpy(m->pirq, c + LPC_PIRQA, 4);
	memcpy(m->pirq + 4, c + LPC_PIRQE, 4);
	m->sirq_cntl = c[LPC_SIRQ_CNTL];
	m->rcba = load32(c + LPC_RCBA);
}

static int lpc_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct lpc_model *m = model;

	if ((m->command & ~COMMAND_BITS) != COMMAND_FIXED || (m->pmbase & ~PMBASE_MASK) ||
	    (m->acpi_cntl & ~ACPI_CNTL_EN) || (m->rcba & ~RCBA_MASK))
		return skep_fail(e, EINVAL, "%s: a register has reserved bits set", d->name);
	for (unsigned i = 0; i < ARRAY_SIZE(m->pirq); i++)
		if (m->pirq[i] & ~PIRQ_MASK)
			return skep_fail(e, EINVAL, "%s: pirq[%u] is %#x, not a route", d->name, i,
					 m->pirq[i]);
	return 0;
}

static void lpc_commit(struct device *d, const void *model)
{
	load_model(container_of(d, struct lpc, pci.dev), model, true);
}

static const struct state_field lpc_fields[] = {
	STATE_U16(struct lpc_model, command, .max = COMMAND_FIXED | COMMAND_BITS),
	STATE_U16(struct lpc_model, pmbase, .max = PMBASE_MASK),
	STATE_U8(struct lpc_model, acpi_cntl, .max = ACPI_CNTL_EN),
	STATE_ARRAY(struct lpc_model, pirq, STATE_T_U8, .max = PIRQ_MASK),
	STATE_U8(struct lpc_model, sirq_cntl),
	STATE_U32(struct lpc_model, rcba, .max = RCBA_MASK),
};

const struct state_record lpc_record = {
	.kind = "lpc",
	.version = 1,
	.model_size = sizeof(struct lpc_model),
	.fields = lpc_fields,
	.nfields = ARRAY_SIZE(lpc_fields),
};

static const struct config_schema no_keys;

const struct pci_device_type lpc_type = {
	.device = {
		.name = "lpc",
		.help = "LPC bridge of the board (Intel ICH9), at 0:31.0",
		.config = &no_keys,
		.state = &lpc_record,
		.size = sizeof(struct lpc),
		.init = lpc_init,
		.finish = device_nop,
		.reset = lpc_reset,
		.quiesce = device_nop,
		.resume = device_nop,
		.export = lpc_export,
		.validate = lpc_validate,
		.commit = lpc_commit,
	},
	.vendor_id = 0x8086,
	.device_id = 0x2918,
	.subsys_vendor = 0x8086,
	.subsys_id = 0x2918,
	.class_code = 0x060100,
	.revision = 0x02,
	.header_type = PCI_HEADER_MULTI,
	.config_written = lpc_written,
};
