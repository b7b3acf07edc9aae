/*
 * Message-signalled interrupts: MSI with per-vector masking (PCI Local Bus 3.0, section 6.8.1) and
 * MSI-X (6.8.2), its table and pending bits in a memory BAR.
 */
#include "pci/pci.h"

#include <errno.h>
#include <stdlib.h>

#include "vm/vm.h"

#define CAP_MSI			0x05
#define MSI_SIZE		0x18
#define MSI_CONTROL		0x02
#define MSI_ADDRESS		0x04
#define MSI_DATA		0x0c
#define MSI_MASK		0x10
#define MSI_PENDING		0x14
#define MSI_ENABLE		0x0001
#define MSI_MULTIPLE(c)		((c) >> 4 & 7)	/* vectors that the guest gives, as a power of two */
#define MSI_MULTIPLE_BITS	0x0070
#define MSI_64_AND_MASKS	0x0180

#define CAP_MSIX		0x11
#define MSIX_SIZE		0x0c
#define MSIX_CONTROL		0x02
#define MSIX_ENABLE		0x8000
#define MSIX_MASK_ALL		0x4000
#define MSIX_BITS		(MSIX_ENABLE | MSIX_MASK_ALL)
#define ENTRY_SIZE		16
#define ENTRY_MASKED		1u	/* vector control */
#define BAR_SIZE		0x1000u
#define PBA_OFFSET		0x800u	/* behind a table of PCI_VECTORS_MAX */

_Static_assert(PCI_VECTORS_MAX * ENTRY_SIZE <= PBA_OFFSET, "the table ends where the PBA begins");

bool pci_msix_enabled(const struct pci_device *p)
{
	return p->msix && load16(p->config + p->msix + MSIX_CONTROL) & MSIX_ENABLE;
}

bool pci_msi_enabled(const struct pci_device *p)
{
	return p->msi && load16(p->config + p->msi + MSI_CONTROL) & MSI_ENABLE;
}

/* ---- Sending ------------------------------------------------------------- */

static bool msix_held(const struct pci_device *p, const struct pci_vector *v)
{
	return v->masked || load16(p->config + p->msix + MSIX_CONTROL) & MSIX_MASK_ALL ||
	       !pci_bus_master(p);
}

static void msix_message(struct pci_device *p, unsigned n)
{
	struct pci_vector *v;

	if (n >= p->nvectors)
		return;
	v = &p->vector[n];
	v->pending = msix_held(p, v);
	if (!v->pending)
		pci_send(p->bus, v->address, v->data);
}

/* A vector number replaces as many low bits of the data as the guest gave vectors for. */
static void msi_message(struct pci_device *p, unsigned n)
{
	uint8_t *c = p->config + p->msi;
	unsigned given = 1u << MIN(MSI_MULTIPLE(load16(c + MSI_CONTROL)), 5);
	uint32_t pending = load32(c + MSI_PENDING), bit;

	n &= given - 1;
	bit = 1u << n;
	if (load32(c + MSI_MASK) & bit || !pci_bus_master(p)) {
		store32(c + MSI_PENDING, pending | bit);
		return;
	}
	store32(c + MSI_PENDING, pending & ~bit);
	pci_send(p->bus, load64(c + MSI_ADDRESS), (load16(c + MSI_DATA) & ~(given - 1)) | n);
}

void pci_message(struct pci_device *p, unsigned v)
{
	if (pci_msix_enabled(p))
		msix_message(p, v);
	else if (pci_msi_enabled(p))
		msi_message(p, v);
}

void pci_update_interrupts(struct pci_device *p)
{
	if (pci_msix_enabled(p)) {
		for (unsigned n = 0; n < p->nvectors; n++)
			if (p->vector[n].pending)
				msix_message(p, n);
	} else if (pci_msi_enabled(p)) {
		uint32_t pending = load32(p->config + p->msi + MSI_PENDING);

		for (unsigned n = 0; n < 32; n++)
			if (pending >> n & 1)
				msi_message(p, n);
	}
}

void pci_msi_written(struct pci_device *p, unsigned offset, unsigned size)
{
	if ((p->msi && pci_touches(offset, size, p->msi, MSI_SIZE)) ||
	    (p->msix && pci_touches(offset, size, p->msix, MSIX_SIZE))) {
		pci_set_intx(p, p->intx);
		pci_update_interrupts(p);
	}
}

/* ---- The table of MSI-X -------------------------------------------------- */

static uint32_t entry_read(const struct pci_vector *v, unsigned word)
{
	switch (word) {
	case 0:
		return (uint32_t)v->address;
	case 1:
		return (uint32_t)(v->address >> 32);
	case 2:
		return v->data;
	default:
		return v->masked ? ENTRY_MASKED : 0;
	}
}

static void entry_write(struct pci_vector *v, unsigned word, uint32_t value)
{
	switch (word) {
	case 0:
		v->address = (v->address & ~0xffffffffull) | (value & ~3u);
		break;
	case 1:
		v->address = (v->address & 0xffffffffull) | (uint64_t)value << 32;
		break;
	case 2:
		v->data = value;
		break;
	default:
		v->masked = value & ENTRY_MASKED;
		break;
	}
}

static uint32_t table_word(const struct pci_device *p, uint64_t offset)
{
	uint32_t bits = 0;

	if (offset < p->nvectors * ENTRY_SIZE)
		return entry_read(&p->vector[offset / ENTRY_SIZE], offset / 4 % 4);
	if (offset < PBA_OFFSET)
		return 0;
	for (uint64_t i = 0, n = (offset - PBA_OFFSET) * 8; i < 32 && n + i < p->nvectors; i++)
		bits |= (uint32_t)p->vector[n + i].pending << i;
	return bits;
}

/* Software uses whole words (6.8.2); narrower reads are answered all the same. */
static uint64_t table_read(void *opaque, uint64_t offset, unsigned size)
{
	return table_word(opaque, offset & ~3ull) >> 8 * (offset & 3);
}

static void table_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct pci_device *p = opaque;

	if (size != 4 || offset & 3 || offset >= p->nvectors * ENTRY_SIZE)
		return;
	entry_write(&p->vector[offset / ENTRY_SIZE], offset / 4 % 4, (uint32_t)value);
	pci_update_interrupts(p);
}

static const struct bus_ops table_ops = {
	.read = table_read,
	.write = table_write,
	.max_size = 4,
};

int pci_add_msix(struct pci_device *p, unsigned bar, unsigned n, struct skep_error *e)
{
	unsigned at;

	if (!n || n > PCI_VECTORS_MAX)
		return skep_fail(e, EINVAL, "%s: %u message vectors; a function has 1 to %u", p->dev.name, n,
				 PCI_VECTORS_MAX);
	p->vector = calloc(n, sizeof(*p->vector));
	if (!p->vector)
		return skep_fail(e, ENOMEM, "%s: no memory for %u message vectors", p->dev.name, n);
	p->nvectors = n;
	at = pci_add_capability(p, CAP_MSIX, MSIX_SIZE);
	store16(p->config + at + MSIX_CONTROL, (uint16_t)(n - 1));
	store16(p->wmask + at + MSIX_CONTROL, MSIX_BITS);
	store32(p->config + at + 4, bar);
	store32(p->config + at + 8, PBA_OFFSET | bar);
	p->msix = (uint8_t)at;
	pci_add_bar(p, bar, BAR_SIZE, PCI_BAR_MEM32, &table_ops, p);
	pci_msi_reset(p);
	return 0;
}

void pci_add_msi(struct pci_device *p, unsigned n)
{
	unsigned at = pci_add_capability(p, CAP_MSI, MSI_SIZE);

	store16(p->config + at + MSI_CONTROL, (uint16_t)(MSI_64_AND_MASKS | __builtin_ctz(n) << 1));
	store16(p->wmask + at + MSI_CONTROL, MSI_ENABLE | MSI_MULTIPLE_BITS);
	store64(p->wmask + at + MSI_ADDRESS, ~3ull);
	store16(p->wmask + at + MSI_DATA, 0xffff);
	store32(p->wmask + at + MSI_MASK, (uint32_t)(BIT(n) - 1));
	p->msi = (uint8_t)at;
}

/* ---- Reset and state ----------------------------------------------------- */

/* Every vector of the table is masked (6.8.2.9). */
void pci_msi_reset(struct pci_device *p)
{
	for (unsigned n = 0; n < p->nvectors; n++)
		p->vector[n] = (struct pci_vector){ .masked = true };
}

void pci_msi_export(const struct pci_device *p, struct pci_model *m)
{
	const uint8_t *c = p->config;

	if (p->msi) {
		m->msi_control = load16(c + p->msi + MSI_CONTROL) & load16(p->wmask + p->msi + MSI_CONTROL);
		m->msi_address = load64(c + p->msi + MSI_ADDRESS);
		m->msi_data = load16(c + p->msi + MSI_DATA);
		m->msi_mask = load32(c + p->msi + MSI_MASK);
		m->msi_pending = load32(c + p->msi + MSI_PENDING);
	}
	if (!p->msix)
		return;
	m->msix_control = load16(c + p->msix + MSIX_CONTROL) & MSIX_BITS;
	m->msix.items = calloc(p->nvectors, sizeof(*p->vector));
	if (m->msix.items) {
		memcpy(m->msix.items, p->vector, p->nvectors * sizeof(*p->vector));
		m->msix.count = p->nvectors;
	}
}

static int validate_msi(const struct pci_device *p, const struct pci_model *m, struct skep_error *e)
{
	const uint8_t *w = p->wmask + p->msi;
	bool bad;

	if (!p->msi)
		bad = m->msi_control || m->msi_address || m->msi_data || m->msi_mask || m->msi_pending;
	else
		bad = m->msi_control & ~load16(w + MSI_CONTROL) || m->msi_address & 3 ||
		      m->msi_mask & ~load32(w + MSI_MASK) || m->msi_pending & ~load32(w + MSI_MASK);
	if (bad)
		return skep_fail(e, EINVAL, "%s: its MSI registers hold what they cannot", p->dev.name);
	return 0;
}

int pci_msi_validate(const struct pci_device *p, const struct pci_model *m, struct skep_error *e)
{
	const struct pci_vector *v = m->msix.items;

	if (validate_msi(p, m, e))
		return -EINVAL;
	if (m->msix.count != p->nvectors)
		return skep_fail(e, EINVAL, "%s: %u message vectors, and the device has %u", p->dev.name,
				 m->msix.count, p->nvectors);
	if (m->msix_control & ~(p->msix ? MSIX_BITS : 0))
		return skep_fail(e, EINVAL, "%s: msix_control %#x has reserved bits set", p->dev.name,
				 m->msix_control);
	for (unsigned n = 0; n < m->msix.count; n++)
		if (v[n].address & 3)
			return skep_fail(e, EINVAL, "%s: message vector %u has the address %#llx, which is not "
					 "aligned", p->dev.name, n, (unsigned long long)v[n].address);
	return 0;
}

/* A list that is not there (a reset) leaves the table alone. */
void pci_msi_commit(struct pci_device *p, const struct pci_model *m)
{
	const struct pci_vector *v = m->msix.items;
	uint8_t *c = p->config;

	if (p->msi) {
		uint8_t *control = c + p->msi + MSI_CONTROL;

		store16(control, (load16(control) & ~load16(p->wmask + p->msi + MSI_CONTROL)) |
				 m->msi_control);
		store64(c + p->msi + MSI_ADDRESS, m->msi_address);
		store16(c + p->msi + MSI_DATA, m->msi_data);
		store32(c + p->msi + MSI_MASK, m->msi_mask);
		store32(c + p->msi + MSI_PENDING, m->msi_pending);
	}
	if (!p->msix)
		return;
	store16(c + p->msix + MSIX_CONTROL, (uint16_t)((p->nvectors - 1) | m->msix_control));
	for (unsigned n = 0; n < m->msix.count && n < p->nvectors; n++)
		p->vector[n] = v[n];
}
