#include "boot/place.h"

#include <errno.h>

#include "chipset/chipset.h"
#include "cpu/model.h"
#include "vm/vm.h"

uint64_t place_low_end(const struct vm *vm)
{
	const struct guest_memory *m = &vm->memory;

	return m->nram && m->ram[0].gpa == 0 ? m->ram[0].size : 0;
}

unsigned place_phys_bits(const struct vm *vm)
{
	const char *name = vm->config ? config_string(config_root(vm->config), "cpu.model") : NULL;
	const struct cpu_model *m = name ? cpu_model_find(name) : NULL;

	return m ? m->phys_bits : 36;
}

unsigned e820_build(const struct guest_memory *m, struct e820_entry *map)
{
	uint64_t low = m->nram ? m->ram[0].size : 0;
	uint64_t base = MIN(low, EBDA_BASE);
	unsigned n = 0;

	map[n++] = (struct e820_entry){ 0, base, E820_RAM };
	if (low > EBDA_BASE)
		map[n++] = (struct e820_entry){ EBDA_BASE, 0xa0000 - EBDA_BASE, E820_RESERVED };
	map[n++] = (struct e820_entry){ BIOS_BASE, 1 * MiB - BIOS_BASE, E820_RESERVED };
	if (low > 1 * MiB)
		map[n++] = (struct e820_entry){ 1 * MiB, low - 1 * MiB, E820_RAM };
	/* Linux uses ECAM only if firmware says that the range is not for RAM or BARs. */
	map[n++] = (struct e820_entry){ ECAM_BASE, ECAM_SIZE, E820_RESERVED };
	for (unsigned i = 1; i < m->nram; i++)
		map[n++] = (struct e820_entry){ m->ram[i].gpa, m->ram[i].size, E820_RAM };
	return n;
}

void place_init(struct placement *p, struct vm *vm)
{
	*p = (struct placement){ .vm = vm };
	p->nmap = e820_build(&vm->memory, p->map);
}

static const struct place_range *overlap(const struct placement *p, uint64_t base, uint64_t end)
{
	for (unsigned i = 0; i < p->nused; i++)
		if (base < p->used[i].end && p->used[i].base < end)
			return &p->used[i];
	return NULL;
}

int place_claim(struct placement *p, uint64_t base, uint64_t len)
{
	bool ram = false;

	for (unsigned i = 0; i < p->nmap && !ram; i++) {
		const struct e820_entry *r = &p->map[i];

		ram = r->type == E820_RAM && base >= r->base && len <= r->size &&
		      base - r->base <= r->size - len;
	}
	if (!ram)
		return -EFAULT;
	if (!len)
		return 0;
	if (overlap(p, base, base + len))
		return -EBUSY;
	if (p->nused == PLACE_MAX)
		return -ENOSPC;
	p->used[p->nused++] = (struct place_range){ base, base + len };
	return 0;
}

/* One stretch of RAM, from above: what overlaps sends the candidate below it. */
static bool find_top(struct placement *p, uint64_t len, uint64_t align, uint64_t min,
		     uint64_t max, uint64_t *base)
{
	while (max >= min && max - min >= len) {
		uint64_t at = (max - len) & ~(align - 1);
		const struct place_range *r;

		if (at < min)
			return false;
		r = overlap(p, at, at + len);
		if (!r) {
			*base = at;
			return true;
		}
		max = r->base;
	}
	return false;
}

static bool find_bottom(struct placement *p, uint64_t len, uint64_t align, uint64_t min,
			uint64_t max, uint64_t *base)
{
	uint64_t at = ALIGN_UP(min, align);

	while (at >= min && at <= max && max - at >= len) {
		const struct place_range *r = overlap(p, at, at + len);

		if (!r) {
			*base = at;
			return true;
		}
		at = ALIGN_UP(r->end, align);
	}
	return false;
}

bool place_find(struct placement *p, uint64_t len, uint64_t align, uint64_t min, uint64_t max,
		bool top, uint64_t *base)
{
	for (unsigned i = 0; i < p->nmap; i++) {
		const struct e820_entry *r = &p->map[top ? p->nmap - 1 - i : i];
		uint64_t lo = MAX(min, r->base), hi = MIN(max, r->base + r->size);

		if (r->type != E820_RAM || lo >= hi)
			continue;
		if (top ? find_top(p, len, align, lo, hi, base) :
			  find_bottom(p, len, align, lo, hi, base))
			return !place_claim(p, *base, len);
	}
	return false;
}

int place_low(struct placement *p, const void *data, size_t len, uint64_t align,
	      uint64_t *base, struct skep_error *e)
{
	/* The first page holds what a BIOS would keep there; kernels leave it alone. */
	if (!place_find(p, len, align, GUEST_PAGE_SIZE, EBDA_BASE, false, base))
		return skep_fail(e, ENOSPC, "boot.kernel: no room is left below 640 KiB for the %zu "
				 "bytes that the kernel is told: it occupies low memory itself", len);
	return place_write(p->vm, *base, data, len, e);
}

int place_write(struct vm *vm, uint64_t gpa, const void *data, size_t len, struct skep_error *e)
{
	if (dma_write(&vm->memory, gpa, data, len))
		return skep_fail(e, EFAULT, "memory.size: the machine has no RAM at %#llx, where the "
				 "kernel wants to lie: raise memory.size", (unsigned long long)gpa);
	return 0;
}

/* What memory_load_file answers, as a sentence. */
static int load_error(const struct boot_file *f, uint64_t gpa, uint64_t len, int r,
		      struct skep_error *e)
{
	if (r == -EFAULT)
		return skep_fail(e, EFAULT, "%s: '%s' needs RAM at %#llx-%#llx, which the machine does "
				 "not have: raise memory.size", f->key, f->path,
				 (unsigned long long)gpa, (unsigned long long)(gpa + len - 1));
	if (r == -ENODATA)
		return skep_fail(e, EIO, "%s: '%s' became shorter while the machine runs: put the file "
				 "back", f->key, f->path);
	return skep_fail(e, -r, "%s: cannot read '%s': %s", f->key, f->path, strerror(-r));
}

int place_file(struct vm *vm, uint64_t gpa, const struct boot_file *f, uint64_t offset,
	       uint64_t len, struct skep_error *e)
{
	struct dma_view v;
	int r;

	if (!len)
		return 0;
	if (f->fd >= 0) {
		r = memory_load_file(&vm->memory, gpa, f->fd, offset, len);
		return r ? load_error(f, gpa, len, r, e) : 0;
	}
	r = dma_map(&vm->memory, gpa, len, DMA_TO_GUEST, &v);
	if (r)
		return load_error(f, gpa, len, r, e);
	r = boot_file_read(f, offset, v.host, len, e);
	dma_unmap(&vm->memory, &v);
	return r;
}

/* The processor's first state. */

#define BOOT_CS	0x10
#define BOOT_DS	0x18
#define BOOT_TR	0x20

#define ATTR_CODE64	0xa09b	/* G, L, present, execute/read, accessed */
#define ATTR_CODE32	0xc09b	/* G, D */
#define ATTR_DATA	0xc093	/* G, B, read/write, accessed */
#define ATTR_TSS	0x008b	/* busy 32- or 64-bit TSS */

static uint64_t descriptor(uint16_t attr)
{
	/* Base 0, limit 0xfffff pages; attributes are bits 40-55, limit 19:16 in 48-51. */
	return 0xffffull | (uint64_t)(attr | 0x0f00) << 40;
}

static void set_segment(struct cpu_segment *s, uint16_t selector, uint16_t attr, uint32_t limit)
{
	*s = (struct cpu_segment){ .selector = selector, .attr = attr, .limit = limit };
}

/*
 * Memory types (SDM vol. 3, section 12.11): write-back, but for the legacy
 * video range, the BIOS area, and the PCI hole between 2 and 4 GiB.  Linux
 * takes registers that are off for a sign of a broken machine.
 */
static void set_memory_types(struct cpu_arch_state *s, unsigned phys_bits)
{
	enum { UC = 0, WP = 5, WB = 6, VALID = 0x800, ENABLE = 0xc00, VIDEO = 2, BIOS = 3 };
	const uint64_t every_byte = 0x0101010101010101ull;

	for (unsigned i = 0; i < ARRAY_SIZE(s->mtrr_fixed); i++)
		s->mtrr_fixed[i] = every_byte * (i < VIDEO ? WB : i < BIOS ? UC : WP);
	s->mtrr_var_base[0] = RAM_LOW_MAX | UC;
	s->mtrr_var_mask[0] = (BIT(phys_bits) - (RAM_HIGH_BASE - RAM_LOW_MAX)) | VALID;
	s->mtrr_def_type = ENABLE | WB;
}

/* Firmware has given all processors the same memory types. */
static int share_memory_types(struct vm *vm, const struct cpu_arch_state *boot,
			      struct skep_error *e)
{
	int r = 0;

	for (unsigned i = 1; i < vm->ncpus && !r; i++) {
		struct vcpu *v = vm->vcpus[i];
		struct cpu_arch_state s;

		v->ops->get_state(v, &s);
		memcpy(s.mtrr_fixed, boot->mtrr_fixed, sizeof(s.mtrr_fixed));
		memcpy(s.mtrr_var_base, boot->mtrr_var_base, sizeof(s.mtrr_var_base));
		memcpy(s.mtrr_var_mask, boot->mtrr_var_mask, sizeof(s.mtrr_var_mask));
		s.mtrr_def_type = boot->mtrr_def_type;
		r = v->ops->set_state(v, &s, e);
	}
	return r;
}

static int start_flat(struct placement *p, struct cpu_arch_state *s, bool long_mode,
		      struct skep_error *e)
{
	uint16_t code = long_mode ? ATTR_CODE64 : ATTR_CODE32;
	uint64_t gdt[] = { 0, 0, descriptor(code), descriptor(ATTR_DATA),
			   0x67ull | (uint64_t)ATTR_TSS << 40, 0 };
	uint64_t base;
	int r = place_low(p, gdt, sizeof(gdt), 16, &base, e);

	if (r)
		return r;
	s->gdtr = (struct cpu_table){ base, sizeof(gdt) - 1 };
	s->idtr = (struct cpu_table){ 0, 0 };
	set_segment(&s->seg[SEG_CS], BOOT_CS, code, 0xffffffff);
	for (int i = SEG_ES; i <= SEG_GS; i++)
		if (i != SEG_CS)
			set_segment(&s->seg[i], BOOT_DS, ATTR_DATA, 0xffffffff);
	set_segment(&s->seg[SEG_TR], BOOT_TR, ATTR_TSS, 0x67);
	set_segment(&s->seg[SEG_LDTR], 0, 0, 0);
	s->seg[SEG_LDTR].unusable = 1;
	s->rflags = 2;
	set_memory_types(s, place_phys_bits(p->vm));
	return 0;
}

/* PML4, one page-directory-pointer table, four directories of 2 MiB pages. */
static int identity_tables(struct placement *p, uint64_t *cr3, struct skep_error *e)
{
	enum { TABLES = 6, PRESENT_RW = 3, LARGE = 0x80 };
	uint64_t table[512], base;
	int r;

	if (!place_find(p, TABLES * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE, GUEST_PAGE_SIZE, EBDA_BASE,
			false, &base))
		return skep_fail(e, ENOSPC, "boot.kernel: no room is left below 640 KiB for page "
				 "tables");
	*cr3 = base;
	memset(table, 0, sizeof(table));
	table[0] = (base + GUEST_PAGE_SIZE) | PRESENT_RW;
	r = place_write(p->vm, base, table, sizeof(table), e);
	for (unsigned i = 0; i < 4; i++)
		table[i] = (base + (2 + i) * GUEST_PAGE_SIZE) | PRESENT_RW;
	if (!r)
		r = place_write(p->vm, base + GUEST_PAGE_SIZE, table, sizeof(table), e);
	for (unsigned i = 0; i < 4 && !r; i++) {
		for (unsigned k = 0; k < 512; k++)
			table[k] = (i * GiB + k * 2 * MiB) | PRESENT_RW | LARGE;
		r = place_write(p->vm, base + (2 + i) * GUEST_PAGE_SIZE, table, sizeof(table), e);
	}
	return r;
}

int entry_long_mode(struct placement *p, uint64_t rip, uint64_t rsi, struct skep_error *e)
{
	struct vcpu *v = p->vm->vcpus[0];
	struct cpu_arch_state s;
	int r;

	v->ops->get_state(v, &s);
	r = start_flat(p, &s, true, e);
	if (!r)
		r = identity_tables(p, &s.cr3, e);
	if (r)
		return r;
	memset(s.gpr, 0, sizeof(s.gpr));
	s.gpr[REG_RSI] = rsi;
	s.rip = rip;
	s.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
	s.cr4 = CR4_PAE;
	s.efer = EFER_LME | EFER_LMA;
	r = share_memory_types(p->vm, &s, e);
	return r ? r : v->ops->set_state(v, &s, e);
}

int entry_protected_mode(struct placement *p, uint32_t eip, uint32_t eax, uint32_t ebx,
			 struct skep_error *e)
{
	struct vcpu *v = p->vm->vcpus[0];
	struct cpu_arch_state s;
	int r;

	v->ops->get_state(v, &s);
	r = start_flat(p, &s, false, e);
	if (r)
		return r;
	memset(s.gpr, 0, sizeof(s.gpr));
	s.gpr[REG_RAX] = eax;
	s.gpr[REG_RBX] = ebx;
	s.rip = eip;
	s.cr0 = CR0_PE | CR0_ET;
	s.cr3 = 0;
	s.cr4 = 0;
	s.efer = 0;
	r = share_memory_types(p->vm, &s, e);
	return r ? r : v->ops->set_state(v, &s, e);
}
