#include "snapshot/contents.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "config/config.h"
#include "cpu/model.h"
#include "skep/version.h"
#include "vm/vm.h"

/* ---- Settings ---------------------------------------------------------- */

/* lpc.comN.path */
static bool is_console_path(const char *key)
{
	static const char prefix[] = "lpc.com";
	const char *last = strrchr(key, '.');

	return !strncmp(key, prefix, strlen(prefix)) && last > key + strlen(prefix) && !strcmp(last, ".path");
}

/* pci.B.S.F.KEY: the host's end of a disk, a network interface or a port is nothing to the guest. */
static enum setting_kind slot_key_kind(const char *key)
{
	static const char *const host[] = { "path", "overlay", "nocache", "direct", "sync", "aio", "retry",
					    "backend", "hostfwd", "open" };
	static const char *const run[] = { "from", "fresh" };
	const char *last = strrchr(key, '.');
	size_t i;

	if (strncmp(key, "pci.", 4) || !last)
		return SETTING_MACHINE;
	for (i = 0; i < ARRAY_SIZE(host); i++)
		if (!strcmp(last + 1, host[i]))
			return SETTING_HOST;
	for (i = 0; i < ARRAY_SIZE(run); i++)
		if (!strcmp(last + 1, run[i]))
			return SETTING_RUN;
	return SETTING_MACHINE;
}

enum setting_kind setting_kind(const char *key)
{
	static const char *const run[] = {
		"config.dump", "clock.limit", "input.record", "input.replay", "clone", "soft.tier",
	};
	static const char *const host[] = {
		"name", "backend", "boot.kernel", "boot.initrd", "boot.demo", "on_reboot",
		"x86.triple_fault", "destroy_on_poweroff", "memory.wired", "control", "kvm.help",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(run); i++)
		if (!strcmp(key, run[i]))
			return SETTING_RUN;
	for (i = 0; i < ARRAY_SIZE(host); i++)
		if (!strcmp(key, host[i]))
			return SETTING_HOST;
	return is_console_path(key) ? SETTING_HOST : slot_key_kind(key);
}

struct settings {
	struct state_list *list;
	size_t room;
	struct skep_error *e;
	int err;
};

static void add_setting(void *opaque, const char *key, const char *value, bool given)
{
	struct settings *s = opaque;
	struct manifest_setting *items = s->list->items, *item;
	size_t len = strlen(value);

	if (s->err || setting_kind(key) == SETTING_RUN)
		return;
	if (strlen(key) >= sizeof(item->key)) {
		s->err = skep_fail(s->e, ENAMETOOLONG, "%s: a key has at most %zu characters in a "
				   "snapshot", key, sizeof(item->key) - 1);
		return;
	}
	if (s->list->count == s->room) {
		size_t room = s->room ? 2 * s->room : 64;
		void *more = realloc(items, room * sizeof(*items));

		if (!more) {
			s->err = skep_fail(s->e, ENOMEM, "no memory for the manifest");
			return;
		}
		s->list->items = items = more;
		s->room = room;
	}
	item = &items[s->list->count];
	*item = (struct manifest_setting){ 0 };
	strcpy(item->key, key);
	if (len) {
		item->value.data = malloc(len);
		if (!item->value.data) {
			s->err = skep_fail(s->e, ENOMEM, "no memory for the manifest");
			return;
		}
		memcpy(item->value.data, value, len);
		item->value.len = (uint32_t)len;
	}
	s->list->count++;
}

/* ---- The processor's contract ------------------------------------------ */

static int fill_cpuid(struct manifest *m, const struct cpu_model *model, struct skep_error *e)
{
	struct manifest_leaf *leaf = calloc(model->nleaves, sizeof(*leaf));
	unsigned i;

	if (!leaf)
		return skep_fail(e, ENOMEM, "no memory for the manifest");
	for (i = 0; i < model->nleaves; i++) {
		const struct cpuid_leaf *l = &model->leaves[i];

		leaf[i] = (struct manifest_leaf){ l->leaf, l->sub, l->eax, l->ebx, l->ecx, l->edx };
	}
	m->cpuid.items = leaf;
	m->cpuid.count = model->nleaves;
	return 0;
}

int manifest_check_cpu(const struct manifest *m, struct skep_error *e)
{
	const struct cpu_model *model = cpu_model_find(m->cpu_model);
	const struct manifest_leaf *leaf = m->cpuid.items;
	unsigned i;

	if (!model)
		return skep_fail(e, ENOTSUP, "cpu.model: this release has no processor model \"%s\", which "
				 "the machine was saved with; restore it with the release that wrote it (%s)",
				 m->cpu_model, m->writer);
	if (m->cpuid.count != model->nleaves)
		return skep_fail(e, EINVAL, "cpu.model: \"%s\" has %u CPUID leaves here and %u in the "
				 "snapshot", m->cpu_model, model->nleaves, m->cpuid.count);
	for (i = 0; i < model->nleaves; i++) {
		const struct cpuid_leaf *l = &model->leaves[i];
		const struct manifest_leaf *s = &leaf[i];

		if (l->leaf != s->leaf || l->sub != s->sub || l->eax != s->eax || l->ebx != s->ebx ||
		    l->ecx != s->ecx || l->edx != s->edx)
			return skep_fail(e, EINVAL, "cpu.model: \"%s\" answers CPUID leaf %#" PRIx32
					 " otherwise than in the snapshot: the guest would see another "
					 "processor", m->cpu_model, s->leaf);
	}
	return 0;
}

/* ---- The manifest ------------------------------------------------------ */

static int64_t host_wall(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

static int fill_regions(struct manifest *m, const struct guest_memory *mem, struct skep_error *e)
{
	struct manifest_region *r = calloc(mem->nram, sizeof(*r));
	unsigned i;

	if (!r)
		return skep_fail(e, ENOMEM, "no memory for the manifest");
	for (i = 0; i < mem->nram; i++)
		r[i] = (struct manifest_region){ mem->ram[i].gpa, mem->ram[i].size };
	m->regions.items = r;
	m->regions.count = mem->nram;
	return 0;
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct manifest_setting *)a)->key, ((const struct manifest_setting *)b)->key);
}

int manifest_fill(struct manifest *m, struct vm *vm, unsigned generation, bool draft,
		  struct skep_error *e)
{
	const char *name = config_string(config_root(vm->config), "cpu.model");
	const struct cpu_model *model = cpu_model_find(name ? name : "");
	struct settings s = { .list = &m->config, .e = e };
	char khz[16];
	int err;

	memset(m, 0, sizeof(*m));
	if (!model)
		return skep_fail(e, EINVAL, "cpu.model: there is no model \"%s\"", name ? name : "");
	m->format = SNAP_FORMAT;
	m->generation = generation;
	m->draft = draft;
	snprintf(m->writer, sizeof(m->writer), "skep %s", SKEP_VERSION);
	snprintf(m->name, sizeof(m->name), "%s", vm->name);
	snprintf(m->cpu_model, sizeof(m->cpu_model), "%s", model->name);
	if (getrandom(m->id, sizeof(m->id), 0) != sizeof(m->id))
		return skep_fail(e, errno, "the host gives no random bytes: %s", strerror(errno));
	m->host_wall_ns = host_wall();
	m->guest_ns = clock_now(&vm->clock);
	m->guest_wall_ns = clock_wall(&vm->clock);
	m->tsc_khz = vm->clock.tsc_khz;
	m->insn_ps = vm->clock.insn_ps;
	m->virtual_clock = vm->clock.mode == CLOCK_MODE_VIRTUAL;
	m->cpus = vm->ncpus;
	err = fill_cpuid(m, model, e);
	if (!err)
		err = fill_regions(m, &vm->memory, e);
	if (!err) {
		config_each(vm->config, add_setting, &s);
		/* The host's, if no key said another: a setting of the machine from now on. */
		if (!config_is_set(config_root(vm->config), "clock.tsc_khz")) {
			snprintf(khz, sizeof(khz), "%" PRIu32, vm->clock.tsc_khz);
			add_setting(&s, "clock.tsc_khz", khz, false);
		}
		/* In one order, however they came: two saves of one machine are the same bytes. */
		if (m->config.count)
			qsort(m->config.items, m->config.count, sizeof(struct manifest_setting), by_key);
		err = s.err;
	}
	if (err)
		state_free(&manifest_record, m);
	return err;
}
