#include "clock/vmgenid.h"

#include <string.h>
#include <xxhash.h>

#include "boot/page.h"
#include "boot/tables.h"
#include "chipset/chipset.h"
#include "clock/vmclock.h"
#include "vm/vm.h"

struct vmgenid_model {
	uint8_t guid[16];
};

struct vmgenid {
	struct device dev;
	struct vmgenid_model m;
	struct shared_page page;
};

/* Firmware's copy is made before it says where: there is nothing to do then. */
static void placed(void *opaque)
{
}

static void set_guid(struct vmgenid *g, const uint64_t word[2])
{
	store64(g->m.guid, word[0]);
	store64(g->m.guid + 8, word[1]);
	shared_page_set(&g->page, VMGENID_OFFSET, g->m.guid, sizeof(g->m.guid));
}

/* ---- Going on from a snapshot ------------------------------------------ */

void vm_generation_renew(struct vm *vm, bool clone)
{
	struct vmgenid *g = vmgenid_of(vm);
	struct vmclock *c = vmclock_of(vm);
	uint64_t word[4];

	vm->renewed = true;
	for (unsigned i = 0; i < ARRAY_SIZE(word); i++)
		word[i] = vm_entropy(vm);
	/* Clones of a seeded machine draw the same words, and each must get its own. */
	for (unsigned i = 0; i < ARRAY_SIZE(word) && clone && vm->seeded; i++)
		word[i] ^= XXH3_64bits_withSeed(vm->name, strlen(vm->name), i);
	if (g) {
		set_guid(g, word);
		shared_page_write(&g->page, VMGENID_OFFSET, g->m.guid, sizeof(g->m.guid));
		chipset_gpe(vm, VMGENID_GPE);
	}
	if (c)
		vmclock_renew(c, word[2], word[3]);
}

void vm_generation_keep(struct vm *vm)
{
	struct vmclock *c = vmclock_of(vm);

	if (c)
		vmclock_keep(c);
}

/* ---- Hooks ------------------------------------------------------------- */

static int vmgenid_init(struct device *d, struct skep_error *e)
{
	struct vmgenid *g = container_of(d, struct vmgenid, dev);
	uint64_t word[2] = { vm_entropy(d->vm), vm_entropy(d->vm) };
	int r = shared_page_init(&g->page, d->vm, FILE_VMGENID, FILE_VMGENID_ADDR, placed, g, e);

	if (!r)
		set_guid(g, word);
	return r;
}

/* A reboot is the same generation (Microsoft's table of scenarios). */
static void vmgenid_reset(struct device *d)
{
	shared_page_reset(&container_of(d, struct vmgenid, dev)->page);
}

static void vmgenid_export(const struct device *d, void *model)
{
	*(struct vmgenid_model *)model = container_of(d, const struct vmgenid, dev)->m;
}

static void vmgenid_commit(struct device *d, const void *model)
{
	container_of(d, struct vmgenid, dev)->m = *(const struct vmgenid_model *)model;
}

static const struct state_field fields[] = {
	STATE_BYTES(struct vmgenid_model, guid),
};

const struct state_record vmgenid_record = {
	.kind = "vmgenid",
	.version = 1,
	.model_size = sizeof(struct vmgenid_model),
	.fields = fields,
	.nfields = ARRAY_SIZE(fields),
};

static const struct config_schema no_keys;

const struct device_type vmgenid_type = {
	.name = "vmgenid",
	.help = "VM Generation ID: tells a guest that it was restored or cloned",
	.config = &no_keys,
	.state = &vmgenid_record,
	.size = sizeof(struct vmgenid),
	.init = vmgenid_init,
	.finish = device_nop,
	.reset = vmgenid_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = vmgenid_export,
	.validate = device_validate_nothing,
	.commit = vmgenid_commit,
};

struct vmgenid *vmgenid_create(struct vm *vm, struct skep_error *e)
{
	struct device *d = device_create(vm, &vmgenid_type, "vmgenid", NULL, e);

	return d ? container_of(d, struct vmgenid, dev) : NULL;
}

struct vmgenid *vmgenid_of(const struct vm *vm)
{
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->type == &vmgenid_type)
			return container_of(d, struct vmgenid, dev);
	return NULL;
}
