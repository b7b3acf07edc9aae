/*
 * Restoring: decode all, validate all, commit, in that order; until the last step nothing
 * has happened that destroying the new machine does not undo.
 */
#include "snapshot/restore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "base/say.h"
#include "base/text.h"
#include "clock/vmgenid.h"
#include "config/config.h"
#include "snapshot/contents.h"
#include "snapshot/disks.h"
#include "snapshot/draft.h"
#include "state/codec.h"
#include "vm/machine.h"
#include "vm/vm.h"

/* Mappings of stored stretches; beyond that, stretches with holes between them become one. */
#define MAPPINGS_MAX	4096
/* Keys that are not known: so many are told by name. */
#define SKIPPED_TOLD	8

/* ---- Configuration ----------------------------------------------------- */

static int take_setting(struct config *c, const struct manifest_setting *s, struct skep_error *e)
{
	char *text = malloc((size_t)s->value.len + 1);
	int err;

	if (!text)
		return skep_fail(e, ENOMEM, "no memory for the configuration");
	if (s->value.len)
		memcpy(text, s->value.data, s->value.len);
	text[s->value.len] = '\0';
	err = strlen(text) == s->value.len ? config_set_literal(c, s->key, text, "snapshot", e) :
	      skep_fail(e, EINVAL, "manifest: the value of %s has a NUL in it", s->key);
	free(text);
	return err;
}

struct config *restore_config(const struct snap_reader *r, struct skep_error *e)
{
	const struct manifest_setting *s = r->manifest.config.items;
	struct config *c = config_create();
	uint32_t i;
	int err = 0;

	if (!c) {
		skep_fail(e, ENOMEM, "no memory for the configuration");
		return NULL;
	}
	for (i = 0; i < r->manifest.config.count && !err; i++) {
		/* What executes it is this host's to say. */
		if (!strcmp(s[i].key, "backend"))
			continue;
		err = setting_kind(s[i].key) == SETTING_RUN ?
		      skep_fail(e, EINVAL, "manifest: the setting %s belongs to a run and not to a "
				"machine", s[i].key) : take_setting(c, &s[i], e);
	}
	if (!err)
		return c;
	config_destroy(c);
	return NULL;
}

bool restore_may_remap(const char *key)
{
	return setting_kind(key) != SETTING_MACHINE;
}

/* ---- Checks before anything is made ------------------------------------ */

static int check_options(const struct manifest *m, const struct restore_options *o,
			 struct skep_error *e)
{
	if (o->exact && o->time == RESTORE_TIME_ADVANCE)
		return skep_fail(e, EINVAL, "--exact changes nothing that the guest can see, and "
				 "--time=advance moves its clocks: choose one");
	if (o->exact && o->clone)
		return skep_fail(e, EINVAL, "a clone is another machine and cannot be restored --exact");
	if (m->virtual_clock && o->time == RESTORE_TIME_ADVANCE)
		return skep_fail(e, EINVAL, "--time=advance: the machine has clock.mode=virtual, whose time "
				 "is not the host's; leave it out");
	return 0;
}

/* The manifest and the machine that the configuration makes must be one. */
static int check_machine(const struct manifest *m, const struct vm *vm, struct skep_error *e)
{
	const struct manifest_region *r = m->regions.items;
	unsigned i;

	if (m->cpus != vm->ncpus)
		return skep_fail(e, EINVAL, "manifest: %" PRIu32 " processors, but the configuration makes "
				 "%u", m->cpus, vm->ncpus);
	if (m->regions.count != vm->memory.nram)
		return skep_fail(e, EINVAL, "manifest: %" PRIu32 " regions of RAM, but memory.size makes %u",
				 m->regions.count, vm->memory.nram);
	for (i = 0; i < vm->memory.nram; i++)
		if (r[i].gpa != vm->memory.ram[i].gpa || r[i].size != vm->memory.ram[i].size)
			return skep_fail(e, EINVAL, "manifest: RAM of %#" PRIx64 " bytes at %#" PRIx64
					 ", but memory.size makes %#" PRIx64 " at %#" PRIx64, r[i].size,
					 r[i].gpa, vm->memory.ram[i].size, vm->memory.ram[i].gpa);
	if (m->tsc_khz != vm->clock.tsc_khz)
		return skep_fail(e, EINVAL, "manifest: a TSC of %" PRIu32 " kHz, but clock.tsc_khz is %"
				 PRIu32, m->tsc_khz, vm->clock.tsc_khz);
	if (m->insn_ps != vm->clock.insn_ps ||
	    m->virtual_clock != (vm->clock.mode == CLOCK_MODE_VIRTUAL))
		return skep_fail(e, EINVAL, "manifest: its clock is not the one of the configuration");
	return 0;
}

/* ---- Records ----------------------------------------------------------- */

/* A file may have very many of them. */
static void tell_skipped(void *opaque, const char *name, const char *key)
{
	unsigned *told = opaque;
	char text[4 * 64 + 1];

	if (*told == SKIPPED_TOLD)
		skep_say("skep: and more that is not known to this release, and optional\n");
	if ((*told)++ >= SKIPPED_TOLD)
		return;
	text_escape(text, sizeof(text), key, strlen(key), 0);
	skep_say("skep: %s: \"%s\" is not known to this release, and optional: skipped\n", name, text);
}

static int decode_record(struct machine_state *ms, const struct snap_record *rec, unsigned *skipped,
			 struct skep_error *e)
{
	struct machine_part *p;
	struct state_head head;
	int err = state_peek(rec->data, rec->len, &head, e);

	if (err)
		return err;
	p = machine_state_find(ms, head.name);
	if (!p)
		return skep_fail(e, EPROTO, "%s: the snapshot has a record of the kind %s by that name, "
				 "and this machine has no such part", head.name, head.kind);
	if (p->filled)
		return skep_fail(e, EINVAL, "%s: there are two records by that name", head.name);
	err = state_decode(p->record, p->name, rec->data, rec->len, p->model, tell_skipped,
			   skipped, e);
	p->filled = !err;
	return err;
}

static int decode_records(const struct snap_reader *r, struct machine_state *ms,
			  struct skep_error *e)
{
	unsigned skipped = 0;
	size_t i;
	int err = 0;

	for (i = 0; i < r->nrecords && !err; i++)
		err = decode_record(ms, &r->records[i], &skipped, e);
	for (i = 0; i < ms->nparts && !err; i++)
		if (!ms->parts[i].filled)
			err = skep_fail(e, EPROTO, "%s: the snapshot has no record of it (%s)",
					ms->parts[i].name, ms->parts[i].record->kind);
	return snap_draft_changed(&r->manifest, err, e);
}

static int import_state(struct vm *vm, const struct snap_reader *r, struct skep_error *e)
{
	struct machine_state *ms = machine_state_blank(vm, e);
	int err = ms ? decode_records(r, ms, e) : -ENOMEM;

	if (!err)
		err = machine_state_validate(vm, ms, e);
	if (!err)
		machine_state_commit(vm, ms);
	machine_state_free(ms);
	return err;
}

/* ---- RAM --------------------------------------------------------------- */

static int load_chunk(void *opaque, uint64_t gpa, uint8_t *host, size_t len, struct skep_error *e)
{
	return snap_load_chunk(opaque, gpa, host, len, e);
}

static void release_nothing(void *opaque)
{
}

static const struct snap_reader *root_of(const struct snap_reader *r)
{
	while (r->parent)
		r = r->parent;
	return r;
}

/* A stretch of chunks that are treated alike. */
enum stretch { STRETCH_ZERO, STRETCH_MAPPED, STRETCH_PENDING };

struct layer {
	struct vm *vm;
	const struct snap_reader *r, *root;
	bool check;
	uint8_t *changed;	/* a bit a chunk of root: a delta has something to say about it */
	unsigned mappings;
	struct skep_error *e;
};

static size_t chunk_index(const struct snap_region *g, uint64_t gpa)
{
	return g->first_chunk + (gpa - g->gpa) / RAM_CHUNK;
}

static void note_changes(struct layer *l, const struct snap_reader *r)
{
	size_t i;
	unsigned k;

	for (; r->parent; r = r->parent)
		for (i = 0; i < r->nruns; i++)
			for (k = 0; k < l->root->nregions; k++) {
				const struct snap_region *g = &l->root->region[k];

				if (r->runs[i].gpa - g->gpa < g->size) {
					size_t n = chunk_index(g, r->runs[i].gpa);

					l->changed[n / 8] |= (uint8_t)(1u << n % 8);
				}
			}
}

static enum stretch chunk_kind(const struct layer *l, const struct snap_region *g, uint64_t gpa)
{
	size_t n = chunk_index(g, gpa);

	if (l->changed[n / 8] >> n % 8 & 1)
		return STRETCH_PENDING;
	if (!snap_chunk_stored(l->root, gpa))
		return STRETCH_ZERO;
	return l->check || !l->root->checksums ? STRETCH_PENDING : STRETCH_MAPPED;
}

static int lay_stretch(struct layer *l, const struct snap_region *g, enum stretch kind,
		       uint64_t gpa, uint64_t end)
{
	if (kind == STRETCH_PENDING)
		memory_set_pending(&l->vm->memory, gpa, end - gpa);
	if (kind != STRETCH_MAPPED)
		return 0;
	l->mappings++;
	return memory_map_file(&l->vm->memory, gpa, end - gpa, l->root->fd,
			       g->offset + (gpa - g->gpa), l->e);
}

static int lay_region(struct layer *l, const struct snap_region *g)
{
	uint64_t end = g->gpa + g->size, from = g->gpa, at;
	enum stretch kind = chunk_kind(l, g, from);
	int err = 0;

	for (at = g->gpa + RAM_CHUNK; at < end && !err; at += RAM_CHUNK) {
		enum stretch next = chunk_kind(l, g, at);

		/* Too many holes: the rest of them is mapped with what is around. */
		if (l->mappings >= MAPPINGS_MAX && next == STRETCH_ZERO && kind == STRETCH_MAPPED)
			next = STRETCH_MAPPED;
		if (next == kind)
			continue;
		err = lay_stretch(l, g, kind, from, at);
		kind = next;
		from = at;
	}
	return err ? err : lay_stretch(l, g, kind, from, end);
}

/* What the guest had written last, it will write again.  The list is a hint from a hostile file. */
static int prefetch(struct vm *vm, const struct state_blob *written, struct skep_error *e)
{
	uint64_t page, n, end = 0;
	uint32_t at;
	int err = 0;

	for (at = 0; at + 8 <= written->len && !err; at += 8, end = page + n) {
		page = load32(written->data + at);
		n = load32(written->data + at + 4);
		/* Rising, so that no page costs twice. */
		err = page < end ? skep_fail(e, EINVAL, "page %#" PRIx64 " comes again", page) :
		      memory_prefault(&vm->memory, page * GUEST_PAGE_SIZE, n * GUEST_PAGE_SIZE, true, e);
	}
	if (err)
		skep_error_prefix(e, "manifest: written");
	return err;
}

static int lay_ram(struct vm *vm, struct snap_reader *r, const struct restore_options *o,
		   struct skep_error *e)
{
	struct memory_source source = { load_chunk, release_nothing, r };
	struct layer l = { .vm = vm, .r = r, .root = root_of(r), .check = o->check_ram, .e = e };
	size_t nchunks = 0;
	unsigned i;
	int err;

	for (i = 0; i < l.root->nregions; i++)
		nchunks += (size_t)(ALIGN_UP(l.root->region[i].size, RAM_CHUNK) / RAM_CHUNK);
	l.changed = calloc(1, nchunks / 8 + 1);
	if (!l.changed)
		return skep_fail(e, ENOMEM, "no memory for a restore");
	note_changes(&l, r);
	err = memory_set_source(&vm->memory, &source, e);
	for (i = 0; i < l.root->nregions && !err; i++)
		err = lay_region(&l, &l.root->region[i]);
	free(l.changed);
	for (i = 0; i < vm->memory.nram && !err && o->prefault; i++)
		err = memory_prefault(&vm->memory, vm->memory.ram[i].gpa, vm->memory.ram[i].size,
				      false, e);
	return !err && o->prefetch ? prefetch(vm, &r->manifest.written, e) : err;
}

/* ---- Time -------------------------------------------------------------- */

/* Guest time stands, at what was saved. */
static void advance_time(struct vm *vm, const struct manifest *m)
{
	struct timespec t;
	int64_t now, gap;

	clock_gettime(CLOCK_REALTIME, &t);
	now = t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
	if (__builtin_sub_overflow(now, m->host_wall_ns, &gap) || gap < 0) {
		skep_say("skep: --time=advance: the host's clock is behind the one that the machine was saved "
			 "by; guest time goes on without a gap\n");
		return;
	}
	device_lock(vm);
	clock_advance(&vm->clock, gap);
	device_unlock(vm);
}

/* The guest is told, after all of its state is there, that it is not the only one with this past. */
static void renew_generation(struct vm *vm, const struct restore_options *o)
{
	device_lock(vm);
	if (o->exact)
		vm_generation_keep(vm);
	else
		vm_generation_renew(vm, o->clone);
	device_unlock(vm);
}

/* Pages of paravirtual clocks in guest memory, and that the machine stood. */
static void tell_guest(struct vm *vm)
{
	device_lock(vm);
	paravirt_restored(vm);
	device_unlock(vm);
}

/* ---- The machine ------------------------------------------------------- */

static void close_reader(void *opaque)
{
	snap_close(opaque);
}

static int set_origin(struct vm *vm, struct snap_reader *r, struct skep_error *e)
{
	char *path = realpath(r->path, NULL);

	if (!path)
		path = strdup(r->path);
	if (!path)
		return skep_fail(e, ENOMEM, "no memory for a restore");
	vm->origin.path = path;
	memcpy(vm->origin.digest, r->digest, sizeof(vm->origin.digest));
	vm->origin.known = true;
	return 0;
}

/* A device that had no memory for its state, or RAM that could not be read, has ended the machine. */
static int check_unbroken(struct vm *vm, struct skep_error *e)
{
	int err = 0;

	pthread_mutex_lock(&vm->exit_lock);
	if (vm->exiting)
		err = skep_fail(e, EIO, "%s", vm->exit_error.text);
	pthread_mutex_unlock(&vm->exit_lock);
	return err;
}

static int fill_machine(struct vm *vm, struct snap_reader *r, const struct restore_options *o,
			struct skep_error *e)
{
	int err = check_machine(&r->manifest, vm, e);

	if (!err)
		err = lay_ram(vm, r, o, e);
	if (!err)
		err = disks_restore(vm, &r->manifest, o->any_disks, e);
	if (!err)
		err = import_state(vm, r, e);
	if (!err)
		err = set_origin(vm, r, e);
	if (!err && o->time == RESTORE_TIME_ADVANCE)
		advance_time(vm, &r->manifest);
	if (!err)
		renew_generation(vm, o);
	if (!err && !o->exact)
		tell_guest(vm);
	return err ? err : check_unbroken(vm, e);
}

struct vm *restore_vm(struct snap_reader *r, struct config *c, const struct restore_options *o,
		      struct skep_error *e)
{
	struct vm *vm;

	if (check_options(&r->manifest, o, e) < 0 || manifest_check_cpu(&r->manifest, e) < 0)
		return NULL;
	vm = vm_create_restored(c, e);
	if (!vm)
		return NULL;
	if (fill_machine(vm, r, o, e) < 0) {
		vm_destroy(vm);
		return NULL;
	}
	vm->origin.held = r;
	vm->origin.release = close_reader;
	return vm;
}
