/*
 * The host bridge: Intel 82Q35 MCH, 8086:29c0, at 0:0.0 (Intel 3 Series
 * Express Chipset Family data sheet, section 5.1).  No SMM: SMRAM is fixed at
 * its reset value.
 */
#include "pci/pci.h"

#include <errno.h>

#include "state/state.h"
#include "vm/vm.h"

#define MCH_PCIEXBAR	0x60
#define MCH_PAM0	0x90
#define MCH_PAM_COUNT	7
#define MCH_SMRAM	0x9d

#define PCIEXBAR_ENABLE	BIT(0)
#define PCIEXBAR_LENGTH	(BIT(1) | BIT(2))	/* 0: 256 MiB, 1: 128 MiB, 2: 64 MiB */
#define PCIEXBAR_MASK	(0xffc000000ull | PCIEXBAR_LENGTH | PCIEXBAR_ENABLE)

#define PAM_BITS	0x33
#define COMMAND_FIXED	0x0006			/* memory space and bus master are always on */
#define COMMAND_BITS	0x0140			/* SERR and parity error enable */

struct hostbridge_model {
	uint16_t command;
	uint64_t pciexbar;
	uint8_t pam[MCH_PAM_COUNT];
};

static void update_ecam(struct pci_device *p)
{
	uint64_t reg = load64(p->config + MCH_PCIEXBAR);
	unsigned length = (reg & PCIEXBAR_LENGTH) >> 1;
	uint64_t size = (256 * MiB) >> length;

	if (!p->bus)
		return;
	/* Length 3 is reserved: decode nothing rather than guess. */
	if (!(reg & PCIEXBAR_ENABLE) || length == 3)
		size = 0;
	/* Address bits below the length are ignored (PCIEXBAR bits 27:26, ADMSK). */
	pci_set_ecam(p->bus, size ? reg & 0xfffffffffull & ~(size - 1) : 0, size);
}

/*
 * PAM0 bits 5:4 are 0xf0000-0xfffff (four 16 KiB segments at once); PAM1-6
 * hold two segments each from 0xc0000 up, the lower one in bits 1:0.
 */
static void update_pam(struct pci_device *p, unsigned n)
{
	struct guest_memory *m = &p->dev.vm->memory;
	uint8_t reg = p->config[MCH_PAM0 + n];
	uint8_t low = reg & (PAM_READ | PAM_WRITE), high = reg >> 4 & (PAM_READ | PAM_WRITE);

	if (n == 0) {
		for (unsigned segment = 12; segment < 16; segment++)
			memory_set_pam(m, segment, high);
	} else {
		memory_set_pam(m, 2 * (n - 1), low);
		memory_set_pam(m, 2 * (n - 1) + 1, high);
	}
}

static void hostbridge_written(struct pci_device *p, unsigned offset, unsigned size)
{
	if (offset < MCH_PCIEXBAR + 8 && offset + size > MCH_PCIEXBAR)
		update_ecam(p);
	for (unsigned i = 0; i < MCH_PAM_COUNT; i++)
		if (offset <= MCH_PAM0 + i && MCH_PAM0 + i < offset + size)
			update_pam(p, i);
}

static void update_all(struct pci_device *p)
{
	update_ecam(p);
	for (unsigned i = 0; i < MCH_PAM_COUNT; i++)
		update_pam(p, i);
}

static int hostbridge_init(struct device *d, struct skep_error *e)
{
	struct pci_device *p = container_of(d, struct pci_device, dev);

	pci_init_header(p);
	store16(p->wmask + PCI_COMMAND, COMMAND_BITS);
	store64(p->wmask + MCH_PCIEXBAR, PCIEXBAR_MASK);
	p->wmask[MCH_PAM0] = PAM_BITS & 0xf0;
	memset(p->wmask + MCH_PAM0 + 1, PAM_BITS, MCH_PAM_COUNT - 1);
	p->config[MCH_SMRAM] = 0x02;
	return 0;
}

static void hostbridge_reset(struct device *d)
{
	struct pci_device *p = container_of(d, struct pci_device, dev);

	store16(p->config + PCI_COMMAND, COMMAND_FIXED);
	store64(p->config + MCH_PCIEXBAR, 0xe0000000);	/* disabled */
	memset(p->config + MCH_PAM0, 0, MCH_PAM_COUNT);
	update_all(p);
}

static void hostbridge_export(const struct device *d, void *model)
{
	const struct pci_device *p = container_of(d, const struct pci_device, dev);
	struct hostbridge_model *m = model;

	m->command = load16(p->config + PCI_COMMAND);
	m->pciexbar = load64(p->config + MCH_PCIEXBAR);
	memcpy(m->pam, p->config + MCH_PAM0, sizeof(m->pam));
}

static int hostbridge_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct hostbridge_model *m = model;
	uint8_t pam = m->pam[0] & 0x0f;

	for (unsigned i = 0; i < MCH_PAM_COUNT; i++)
		pam |= m->pam[i] & ~PAM_BITS;
	if (pam)
		return skep_fail(e, EINVAL, "%s: a PAM register has reserved bits set", d->name);
	if ((m->command & ~COMMAND_BITS) != COMMAND_FIXED)
		return skep_fail(e, EINVAL, "%s: command %#x is not a value of this bridge", d->name,
				 m->command);
	if (m->pciexbar & ~PCIEXBAR_MASK)
		return skep_fail(e, EINVAL, "%s: pciexbar %#llx has reserved bits set", d->name,
				 (unsigned long long)m->pciexbar);
	return 0;
}

static void hostbridge_commit(struct device *d, const void *model)
{
	struct pci_device *p = container_of(d, struct pci_device, dev);
	const struct hostbridge_model *m = model;

	store16(p->config + PCI_COMMAND, m->command);
	store64(p->config + MCH_PCIEXBAR, m->pciexbar);
	memcpy(p->config + MCH_PAM0, m->pam, sizeof(m->pam));
	update_all(p);
}

static const struct state_field hostbridge_fields[] = {
	STATE_U16(struct hostbridge_model, command, .max = COMMAND_FIXED | COMMAND_BITS),
	STATE_U64(struct hostbridge_model, pciexbar, .max = PCIEXBAR_MASK),
	STATE_ARRAY(struct hostbridge_model, pam, STATE_T_U8, .max = PAM_BITS),
};

const struct state_record hostbridge_record = {
	.kind = "hostbridge",
	.version = 1,
	.model_size = sizeof(struct hostbridge_model),
	.fields = hostbridge_fields,
	.nfields = ARRAY_SIZE(hostbridge_fields),
};

static const struct config_schema no_keys;

const struct pci_device_type hostbridge_type = {
	.device = {
		.name = "hostbridge",
		.help = "host bridge of the board (Intel Q35), at 0:0.0",
		.config = &no_keys,
		.state = &hostbridge_record,
		.size = sizeof(struct pci_device),
		.init = hostbridge_init,
		.finish = device_nop,
		.reset = hostbridge_reset,
		.quiesce = device_nop,
		.resume = device_nop,
		.export = hostbridge_export,
		.validate = hostbridge_validate,
		.commit = hostbridge_commit,
	},
	.vendor_id = 0x8086,
	.device_id = 0x29c0,
	.subsys_vendor = 0x8086,
	.subsys_id = 0x29c0,
	.class_code = 0x060000,
	.revision = 0x02,
	.config_written = hostbridge_written,
};
