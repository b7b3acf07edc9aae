/* The whole architectural state as text: what "the same state" means. */
#include <inttypes.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "state/state.h"
#include "vm/machine.h"
#include "vm/machine_record.h"
#include "vm/vm.h"

static void dump_machine(struct vm *vm, FILE *out)
{
	struct machine_model m = { 0 };
	struct skep_error e = { .text = "" };

	if (machine_model_export(vm, &m, &e) < 0)
		fprintf(out, "machine = %s\n", e.text);
	else
		state_dump(out, "machine", &machine_record, &m);
	state_free(&machine_record, &m);
}

static void dump_cpus(struct vm *vm, FILE *out)
{
	struct cpu_arch_state *s = aligned_alloc(_Alignof(struct cpu_arch_state), sizeof(*s));
	char name[16];
	unsigned i;

	for (i = 0; s && i < vm->ncpus; i++) {
		memset(s, 0, sizeof(*s));
		vm->vcpus[i]->ops->get_state(vm->vcpus[i], s);
		snprintf(name, sizeof(name), "cpu.%u", i);
		state_dump(out, name, &cpu_arch_record, s);
	}
	if (!s)
		fprintf(out, "cpu = no memory to show it\n");
	free(s);
}

/* The dump is the guest's state: what the host's side holds is left out. */
static void forget_host_side(const struct state_record *r, void *model)
{
	for (size_t k = 0; k < r->nfields; k++) {
		const struct state_field *f = &r->fields[k];
		uint8_t *p = (uint8_t *)model + f->offset;

		if (!f->host)
			continue;
		if (f->type == STATE_T_BLOB)
			free(((struct state_blob *)p)->data);
		memset(p, 0, (size_t)f->size * f->count);
	}
}

static void dump_devices(struct vm *vm, FILE *out)
{
	struct device *d;

	for (d = vm->devices; d; d = d->next) {
		const struct state_record *r = d->type->state;
		void *model;

		if (r == &STATE_NONE)
			continue;
		model = calloc(1, r->model_size);
		if (!model) {
			fprintf(out, "%s = no memory to show it\n", d->name);
			continue;
		}
		d->type->export(d, model);
		forget_host_side(r, model);
		state_dump(out, d->name, r, model);
		state_free(r, model);
		free(model);
	}
}

static bool page_is_zero(const uint8_t *p)
{
	/* Shifted by a word onto itself: all words equal the first one. */
	return !load64(p) && !memcmp(p, p + 8, GUEST_PAGE_SIZE - 8);
}

struct digest {
	XXH3_state_t *hash;
	uint64_t pages;
};

static void digest_extent(void *opaque, uint64_t gpa, const uint8_t *host, uint64_t len)
{
	struct digest *d = opaque;
	uint8_t address[8];
	uint64_t at;

	for (at = 0; at < len; at += GUEST_PAGE_SIZE) {
		if (page_is_zero(host + at))
			continue;
		store64(address, gpa + at);
		XXH3_128bits_update(d->hash, address, sizeof(address));
		XXH3_128bits_update(d->hash, host + at, GUEST_PAGE_SIZE);
		d->pages++;
	}
}

static void dump_ram(struct vm *vm, FILE *out)
{
	XXH3_state_t hash;
	struct digest d = { .hash = &hash };
	XXH128_hash_t h;

	XXH3_128bits_reset(&hash);
	memory_each_extent(&vm->memory, digest_extent, &d);
	h = XXH3_128bits_digest(&hash);
	fprintf(out, "ram.size = %" PRIu64 "\n", vm->memory.size);
	fprintf(out, "ram.nonzero_pages = %" PRIu64 "\n", d.pages);
	fprintf(out, "ram.xxh3_128 = %016" PRIx64 "%016" PRIx64 "\n", (uint64_t)h.high64,
		(uint64_t)h.low64);
}

void vm_dump_state(struct vm *vm, FILE *out)
{
	device_lock(vm);
	dump_machine(vm, out);
	dump_cpus(vm, out);
	dump_devices(vm, out);
	dump_ram(vm, out);
	device_unlock(vm);
}
