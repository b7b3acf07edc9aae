/*
 * The order of a save, on its own thread:
 *
 *	pause, export every record and encode it, cut RAM
 *	(live: the guest goes on)
 *	write RAM
 *	(checkpoint: the guest goes on)
 *	write the notes and headers, fsync
 *	done: whoever asked links the file into place, and says so (save_end)
 *	(suspend: the machine ends)
 */
#include "snapshot/save.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "snapshot/container.h"
#include "snapshot/contents.h"
#include "snapshot/disks.h"
#include "snapshot/reader.h"
#include "snapshot/writer.h"
#include "state/codec.h"
#include "state/generation.h"
#include "vm/cut.h"
#include "vm/machine.h"
#include "vm/vm.h"

#define PROGRESS_NS	(100 * 1000000ll)

struct save {
	struct vm *vm;
	int fd;
	struct save_options o;
	char *path;			/* o.path, owned */
	struct save_callbacks cb;
	const struct state_generation *generation;
	pthread_t thread;
	_Atomic bool cancelled;

	int64_t begun, stood;		/* host ns; when the guest was stopped */
	bool paused;			/* by us, until resume */
	struct ram_cut *cut;
	struct machine_state *state;
	struct manifest manifest;
	struct save_result result;
	struct skep_error error;
	bool complete;			/* the file is */
};

static int64_t host_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* ---- Preflight --------------------------------------------------------- */

/* Adds a sentence on a line of its own: a person wants to see all obstacles at once. */
static void obstacle(struct skep_error *e, const char *text)
{
	size_t len = strlen(e->text);

	snprintf(e->text + len, sizeof(e->text) - len, "%s%s", len ? "\n" : "", text);
}

/* A save that is just ending on another thread changes it. */
static struct vm_origin copy_origin(struct vm *vm)
{
	struct vm_origin o;

	pthread_mutex_lock(&vm->lock);
	o = vm->origin;
	o.path = o.known && o.path ? strdup(o.path) : NULL;
	pthread_mutex_unlock(&vm->lock);
	return o;
}

/* A delta that could not be restored is worse than none. */
static void check_delta(struct vm *vm, const struct save_options *o, struct skep_error *e)
{
	struct vm_origin from = copy_origin(vm);
	struct skep_error why = { "" };
	char text[SKEP_ERROR_TEXT];
	int err = 0;

	if (!from.known)
		obstacle(e, "--delta: the machine has no earlier snapshot to be based on; save it once "
			 "without");
	if (from.path)
		err = snap_check_base(from.path, from.digest, o->path, &why);
	free(from.path);
	if (!err)
		return;
	snprintf(text, sizeof(text), "--delta: the snapshot that it would be based on: %.400s; a "
		 "save without --delta needs none", why.text);
	obstacle(e, text);
}

static void check_options(struct vm *vm, const struct save_options *o, struct skep_error *e)
{
	struct skep_error why = { "" };

	if (o->suspend && o->live)
		obstacle(e, "--suspend stops the guest and --live does not: choose one");
	if (o->delta)
		check_delta(vm, o, e);
	if (o->disks && disks_can_take(vm, &why) < 0)
		obstacle(e, why.text);
	if (o->zstd_level < 0 || o->zstd_level > 19)
		obstacle(e, "--compress: the level is 1 to 19");
}

int save_preflight(struct vm *vm, const struct save_options *o, struct skep_error *e)
{
	struct skep_error why = { "" };

	e->text[0] = '\0';
	check_options(vm, o, e);
	if (!state_generation_find(o->generation, &why))
		obstacle(e, why.text);
	if (memory_lost(&vm->memory, &why) < 0)
		obstacle(e, why.text);
	if (vm_exiting(vm))
		obstacle(e, "the machine has ended");
	return e->text[0] ? -EINVAL : 0;
}

/* ---- Steps ------------------------------------------------------------- */

static void go_on(struct save *s)
{
	if (!s->paused)
		return;
	s->paused = false;
	s->result.pause_ns += host_ns() - s->stood;
	vm_resume(s->vm, STOP_SAVE);
}

/* The guest writes faster than is saved, and its processors wait: its time stands with them. */
static void mind_writers(struct save *s)
{
	int64_t since = ram_cut_braked(s->cut);

	if (!since) {
		go_on(s);
	} else if (!s->paused) {
		s->stood = since;
		vm_pause(s->vm, STOP_SAVE);
		s->paused = true;
	}
}

static int encode_part(struct state_buf *b, const struct save *s, const struct machine_part *p,
		       struct skep_error *e)
{
	uint16_t version = state_generation_version(s->generation, p->record);

	if (!version)
		return skep_fail(e, ENOTSUP, "%s: generation %u has no records of the kind %s; leave "
				 "--generation out, or the device", p->name, s->generation->number,
				 p->record->kind);
	return state_encode(p->record, p->name, p->model, version, b, e);
}

/* What has to be done while the guest stands: a moment. */
static int take(struct save *s, struct skep_error *e)
{
	unsigned flags = (s->o.live ? CUT_LIVE : 0) | (s->o.delta ? CUT_DELTA : 0);
	int err;

	s->state = machine_state_export(s->vm, e);
	if (!s->state)
		return -ENOMEM;
	err = manifest_fill(&s->manifest, s->vm, s->generation->number, s->generation->draft, e);
	if (!err)
		err = disks_describe(&s->manifest, s->vm, s->o.disks, s->o.path ? s->o.path : "", e);
	if (err)
		return err;
	s->cut = memory_cut(&s->vm->memory, flags, e);
	return s->cut ? 0 : -ENOMEM;
}

static int add_parent(struct save *s, struct skep_error *e)
{
	const struct vm_origin *from = &s->vm->origin;
	struct manifest *m = &s->manifest;

	if (!s->o.delta)
		return 0;
	m->delta = true;
	memcpy(m->parent, from->digest, sizeof(m->parent));
	if (!from->path)
		return 0;
	m->parent_path.data = (uint8_t *)strdup(from->path);
	if (!m->parent_path.data)
		return skep_fail(e, ENOMEM, "no memory for the manifest");
	m->parent_path.len = (uint32_t)strlen(from->path);
	return 0;
}

static int write_cpu(struct snap_writer *w, const struct cpu_arch_state *c, struct skep_error *e)
{
	struct snap_regs r = {
		.rip = c->rip, .rflags = c->rflags,
		.fs_base = c->seg[SEG_FS].base, .gs_base = c->seg[SEG_GS].base,
		.cs = c->seg[SEG_CS].selector, .ss = c->seg[SEG_SS].selector,
		.ds = c->seg[SEG_DS].selector, .es = c->seg[SEG_ES].selector,
		.fs = c->seg[SEG_FS].selector, .gs = c->seg[SEG_GS].selector,
	};

	memcpy(r.gpr, c->gpr, sizeof(r.gpr));
	return snap_writer_cpu(w, &r, e);
}

struct written {
	uint32_t (*runs)[2];
	size_t n, max;
	bool full;
};

static void add_written(void *opaque, uint64_t gpa, uint64_t npages)
{
	struct written *w = opaque;

	if (w->n == w->max) {
		w->full = true;
		return;
	}
	w->runs[w->n][0] = (uint32_t)(gpa / GUEST_PAGE_SIZE);
	w->runs[w->n++][1] = (uint32_t)npages;
}

/* What a restore of this file may fetch early.  It only serves speed: without memory there is none. */
static void note_written(struct save *s)
{
	struct written w = { .max = MANIFEST_WRITTEN_MAX / sizeof(*w.runs) };

	/* Before the first snapshot that would be all of RAM. */
	if (!s->vm->origin.known)
		return;
	w.runs = malloc(MANIFEST_WRITTEN_MAX);
	if (w.runs)
		ram_cut_written(s->cut, add_written, &w);
	if (!w.n || w.full) {
		free(w.runs);
		return;
	}
	s->manifest.written.data = (uint8_t *)w.runs;
	s->manifest.written.len = (uint32_t)(w.n * sizeof(*w.runs));
}

static int write_notes(struct save *s, struct snap_writer *w, struct skep_error *e)
{
	struct state_buf b = { 0 };
	size_t i;
	int err = add_parent(s, e);

	note_written(s);
	if (!err)
		err = state_encode(&manifest_record, "manifest", &s->manifest,
				   state_generation_version(s->generation, &manifest_record), &b, e);
	if (!err)
		err = snap_writer_note(w, SNAP_NOTE_MANIFEST, b.data, b.len, e);
	for (i = 0; i < s->state->nparts && !err; i++) {
		const struct machine_part *p = &s->state->parts[i];

		b.len = 0;
		err = encode_part(&b, s, p, e);
		if (!err)
			err = snap_writer_note(w, SNAP_NOTE_RECORD, b.data, b.len, e);
		if (!err && p->record == &cpu_arch_record)
			err = write_cpu(w, p->model, e);
	}
	state_buf_free(&b);
	return err;
}

static void tell_progress(struct save *s, uint64_t done, int64_t *last)
{
	struct save_progress p = { .done = done, .total = ram_cut_pages(s->cut) * GUEST_PAGE_SIZE };
	int64_t now = host_ns();

	if (!s->cb.progress || now - *last < PROGRESS_NS)
		return;
	*last = now;
	p.elapsed_ns = now - s->begun;
	s->cb.progress(s->cb.opaque, &p);
}

static int fail_ended(struct skep_error *e)
{
	return skep_fail(e, ESHUTDOWN, "the machine has ended, and its save with it");
}

static int fail_cancelled(struct save *s, struct skep_error *e)
{
	return vm_exiting(s->vm) ? fail_ended(e) : skep_fail(e, ECANCELED, "the save was cancelled");
}

static int write_ram(struct save *s, struct snap_writer *w, struct skep_error *e)
{
	struct ram_chunk chunk;
	int64_t last = s->begun;
	uint64_t done = 0;
	int got, err = 0;

	while (!err && (got = ram_cut_next(s->cut, &chunk, e)) != 0) {
		if (got < 0)
			return got;
		if (atomic_load(&s->cancelled))
			return fail_cancelled(s, e);
		err = snap_writer_ram(w, &chunk, e);
		if (s->o.live)
			mind_writers(s);
		done += (uint64_t)chunk.nthere * GUEST_PAGE_SIZE;
		tell_progress(s, done, &last);
	}
	s->result.ram_bytes = done;
	return err;
}

static struct snap_writer *make_writer(struct save *s, struct skep_error *e)
{
	const struct guest_memory *m = &s->vm->memory;
	struct snap_layout l = {
		.nregions = m->nram, .runs = s->o.delta || s->o.zstd_level, .whole = !s->o.delta,
		.zstd_level = s->o.zstd_level,
	};
	unsigned i;

	for (i = 0; i < m->nram; i++) {
		l.region[i].gpa = m->ram[i].gpa;
		l.region[i].size = m->ram[i].size;
	}
	return snap_writer_create(s->fd, &l, e);
}

static int write_file(struct save *s, struct snap_writer *w, struct skep_error *e)
{
	int err = write_ram(s, w, e);

	if (!err && !s->o.suspend)
		go_on(s);
	/* Before the file is there: what it says of the disks must be true whatever happens then. */
	if (!err)
		err = disks_flush(s->vm, e);
	if (!err)
		err = write_notes(s, w, e);
	if (!err)
		err = snap_writer_finish(w, s->result.digest, e);
	if (!err)
		err = memory_lost(&s->vm->memory, e);
	if (!err && !s->o.no_sync && fsync(s->fd) < 0)
		err = skep_fail(e, errno, "the snapshot cannot be made durable: fsync: %s%s",
				strerror(errno), snap_remedy(errno));
	s->result.bytes = snap_writer_bytes(w);
	return err;
}

static int run_save(struct save *s, struct skep_error *e)
{
	struct snap_writer *w = make_writer(s, e);
	int err;

	if (!w)
		return -EIO;
	s->stood = host_ns();
	vm_pause(s->vm, STOP_SAVE);
	s->paused = true;
	err = vm_exiting(s->vm) ? fail_ended(e) : take(s, e);
	if (!err && s->o.live)
		go_on(s);
	if (!err)
		err = write_file(s, w, e);
	snap_writer_destroy(w);
	return err;
}

static void *save_main(void *opaque)
{
	struct save *s = opaque;
	int err;

	pthread_setname_np(pthread_self(), "save");
	err = run_save(s, &s->error);
	s->complete = !err;
	/* Nobody should wait for a guest whose save has failed. */
	if (err)
		go_on(s);
	if (s->paused)
		s->result.pause_ns += host_ns() - s->stood;
	s->result.elapsed_ns = host_ns() - s->begun;
	memcpy(s->result.id, s->manifest.id, sizeof(s->result.id));
	s->cb.done(s->cb.opaque, &s->result, err ? &s->error : NULL);
	return NULL;
}

/* ---- The caller's side ------------------------------------------------- */

static void save_free(struct save *s)
{
	machine_state_free(s->state);
	state_free(&manifest_record, &s->manifest);
	if (s->fd >= 0)
		close(s->fd);
	free(s->path);
	free(s);
}

static int begin(struct save *s, struct skep_error *e)
{
	int err = save_preflight(s->vm, &s->o, e);

	if (err)
		return err;
	s->generation = state_generation_find(s->o.generation, e);
	if (s->o.path && !s->path)
		return skep_fail(e, ENOMEM, "no memory for a save");
	err = thread_start(&s->thread, save_main, s);
	return err ? skep_fail(e, -err, "no thread for a save: %s", strerror(-err)) : 0;
}

struct save *save_start(struct vm *vm, int fd, const struct save_options *o,
			const struct save_callbacks *cb, struct skep_error *e)
{
	struct save *s;

	if (atomic_exchange(&vm->saving, true)) {
		skep_fail(e, EBUSY, "the machine is being saved already; wait for that to end");
		close(fd);
		return NULL;
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		skep_fail(e, ENOMEM, "no memory for a save");
		atomic_store(&vm->saving, false);
		close(fd);
		return NULL;
	}
	s->vm = vm;
	s->fd = fd;
	s->o = *o;
	s->path = o->path ? strdup(o->path) : NULL;
	s->cb = *cb;
	s->begun = host_ns();
	if (begin(s, e) < 0) {
		save_free(s);
		atomic_store(&vm->saving, false);
		return NULL;
	}
	return s;
}

void save_cancel(struct save *s)
{
	atomic_store(&s->cancelled, true);
}

static void set_origin(struct save *s)
{
	struct vm_origin *o = &s->vm->origin;
	char *old = o->path;

	pthread_mutex_lock(&s->vm->lock);
	o->path = s->path;
	memcpy(o->digest, s->result.digest, sizeof(o->digest));
	o->known = true;
	pthread_mutex_unlock(&s->vm->lock);
	s->path = NULL;
	free(old);
}

void save_end(struct save *s, bool commit)
{
	struct vm *vm = s->vm;

	pthread_join(s->thread, NULL);
	commit = commit && s->complete;
	if (s->cut && commit)
		ram_cut_commit(s->cut);
	else
		ram_cut_abort(s->cut);
	disks_end(vm, &s->manifest, s->path, commit);
	if (commit)
		set_origin(s);
	/* Before it may go on: not one instruction is executed after what was saved. */
	if (commit && s->o.suspend)
		vm_request_exit(vm, VM_EXIT_SUSPENDED);
	go_on(s);
	save_free(s);
	atomic_store(&vm->saving, false);
}
