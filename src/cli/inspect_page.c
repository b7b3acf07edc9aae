/* The page that skep inspect shows. */
#include "cli/inspect.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "base/util.h"
#include "cpu/arch.h"
#include "snapshot/restore.h"
#include "vm/machine.h"
#include "vm/machine_record.h"

/* ---- Parts of it ------------------------------------------------------- */

const struct machine_model *inspect_machine(const struct inspected *s)
{
	size_t i;

	for (i = 0; i < s->models.count; i++)
		if (s->models.items[i].model && s->models.items[i].table == &machine_record)
			return s->models.items[i].model;
	return NULL;
}

const struct cpu_arch_state *inspect_cpu(const struct snap_model *m)
{
	return m->model && m->table == &cpu_arch_record ? m->model : NULL;
}

#define ATTR_L		0x2000	/* as in cpu/arch.h */
#define ATTR_DB		0x4000

const char *inspect_mode(const struct cpu_arch_state *c)
{
	uint16_t cs = c->seg[SEG_CS].attr;

	if (!(c->cr0 & CR0_PE))
		return "real mode";
	if (c->rflags & RFLAGS_VM)
		return "virtual-8086 mode";
	if (c->efer & EFER_LMA)
		return cs & ATTR_L ? "64-bit mode" : "compatibility mode";
	return cs & ATTR_DB ? "32-bit protected mode" : "16-bit protected mode";
}

unsigned inspect_cpl(const struct cpu_arch_state *c)
{
	if (!(c->cr0 & CR0_PE))
		return 0;
	return c->rflags & RFLAGS_VM ? 3 : c->seg[SEG_SS].attr >> 5 & 3;
}

const char *inspect_activity(const struct cpu_arch_state *c)
{
	return c->wait_sipi ? "waits to be started" : c->halted ? "halted" : "running";
}

void inspect_uuid(FILE *out, const uint8_t uuid[16])
{
	int i;

	for (i = 0; i < 16; i++)
		fprintf(out, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

static void row(const char *name)
{
	printf("  %-14s", name);
}

/* ---- Machine ----------------------------------------------------------- */

static void show_memory(const struct inspected *s)
{
	const struct snap_reader *r = s->reader;
	char a[32], b[32];
	unsigned i;

	row("memory");
	printf("%s", look_size(s->file.ram, a));
	for (i = 0; i < r->nregions && r->nregions > 1; i++)
		printf("%s %s at %#" PRIx64, i ? "," : ":", look_size(r->region[i].size, a),
		       r->region[i].gpa);
	if (r->manifest.delta)
		printf("; %s of it, which differ from the parent's, in %s here",
		       look_size(s->file.told, a), look_size(s->file.stored, b));
	else
		printf("; stored in %s", look_size(s->file.stored, a));
	putchar('\n');
}

static void show_machine(const struct inspected *s)
{
	const struct manifest *m = &s->reader->manifest;
	const struct machine_model *machine = inspect_machine(s);

	puts("Machine");
	if (machine) {
		row("uuid");
		inspect_uuid(stdout, machine->uuid);
		putchar('\n');
	}
	row("processors");
	printf("%" PRIu32 ", model ", m->cpus);
	look_text(m->cpu_model);
	putchar('\n');
	show_memory(s);
	row("clock");
	if (m->virtual_clock)
		printf("virtual, %" PRIu32 " ps an instruction", m->insn_ps);
	else
		printf("realtime");
	printf("; TSC at %.9g MHz\n", m->tsc_khz / 1000.0);
	if (m->disks.count) {
		row("disks");
		printf("%" PRIu32 "\n", m->disks.count);
	}
}

/* ---- When -------------------------------------------------------------- */

static int64_t host_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* a - b, as far as that goes. */
static int64_t difference(int64_t a, int64_t b)
{
	int64_t d;

	return __builtin_sub_overflow(a, b, &d) ? (a < b ? INT64_MIN : INT64_MAX) : d;
}

static void show_when(const struct manifest *m)
{
	int64_t age = difference(host_now(), m->host_wall_ns);
	int64_t lag = difference(m->host_wall_ns, m->guest_wall_ns);
	char a[48], b[48];

	puts("When");
	row("saved");
	printf("%s, %s %s\n", look_date(m->host_wall_ns, a), look_span(age, b),
	       age < 0 ? "after the host's clock now" : "ago");
	row("guest time");
	printf("%s since it was switched on\n", look_span(m->guest_ns, a));
	row("guest clock");
	printf("%s", look_date(m->guest_wall_ns, a));
	if (m->virtual_clock)
		puts(", a clock of its own");
	else if (lag < 1000000 && lag > -1000000)
		puts(", as the host's");
	else
		printf(", %s %s the host's\n", look_span(lag, b), lag > 0 ? "behind" : "before");
}

/* ---- File -------------------------------------------------------------- */

static void show_parents(const struct inspected *s)
{
	const struct manifest *m = &s->reader->manifest;
	const struct snap_reader *p;
	char text[512];

	for (p = s->reader->parent; p; p = p->parent) {
		struct look_file f;

		look_file(p, &f);
		row(p == s->reader->parent ? "parent" : "and its");
		look_text(p->path);
		printf(" (%s, %s)\n", f.kind, look_size(f.allocated, text));
	}
	if (!m->delta || s->reader->parent)
		return;
	row("parent");
	text_print(stdout, m->parent_path.data, m->parent_path.len);
	printf(", digest ");
	look_hex(stdout, m->parent, sizeof(m->parent));
	putchar('\n');
	row("");
	printf("cannot be opened: %s\n", text_escape(text, sizeof(text), s->chain.text,
						       strlen(s->chain.text), 0));
}

static void show_file(const struct inspected *s)
{
	const struct manifest *m = &s->reader->manifest;
	char a[32], b[32];

	puts("File");
	row("written by");
	look_text(m->writer);
	printf(", generation %" PRIu32 "%s\n", m->generation,
	       m->draft ? ", a draft: later releases may refuse it" : "");
	row("size");
	printf("%s, %s on the disk\n", look_size(s->file.size, a), look_size(s->file.allocated, b));
	show_parents(s);
	row("digest");
	look_hex(stdout, s->reader->digest, SNAP_DIGEST_SIZE);
	putchar('\n');
	row("id");
	look_hex(stdout, m->id, sizeof(m->id));
	putchar('\n');
}

/* ---- Settings ---------------------------------------------------------- */

static void show_settings(const struct inspected *s)
{
	const struct manifest_setting *c = s->reader->manifest.config.items;
	uint32_t i, n = s->reader->manifest.config.count, others = 0;

	puts("Settings that skep restore -o may change");
	for (i = 0; i < n; i++) {
		if (!restore_may_remap(c[i].key)) {
			others++;
			continue;
		}
		printf("  ");
		look_text(c[i].key);
		printf("=");
		text_print(stdout, c[i].value.data, c[i].value.len);
		putchar('\n');
	}
	printf("  and %" PRIu32 " that the guest can see: skep inspect manifest ", others);
	look_text(s->path);
	putchar('\n');
}

/* ---- Records ----------------------------------------------------------- */

#define GIST		72	/* characters */
#define GIST_VALUE	18

static void show_cpu(const struct snap_model *m, const struct cpu_arch_state *c)
{
	row(m->head.name);
	printf("%s, ring %u, %s, interrupts %s%s%s; rip %#" PRIx64 "\n", inspect_mode(c),
	       inspect_cpl(c), inspect_activity(c), c->rflags & RFLAGS_IF ? "on" : "off",
	       c->nmi_pending ? ", NMI waits" : "", c->init_pending ? ", INIT waits" : "", c->rip);
}

/* The first of its fields that are not zero, as many as fit. */
static void show_gist(const struct snap_model *m)
{
	size_t len = 0, room = GIST, prefix = strlen(m->head.name) + 1;
	char *text = NULL, *line, *next;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return;
	state_dump(f, m->head.name, m->table, m->model);
	if (fclose(f)) {
		free(text);
		return;
	}
	for (line = text; *line && room; line = next) {
		size_t end = strcspn(line, "\n"), name, value;
		char *equals = memmem(line, end, " = ", 3);

		next = line + end + (line[end] == '\n');
		if (!equals || (size_t)(equals - line) < prefix)
			continue;
		name = (size_t)(equals - line) - prefix;
		value = end - (size_t)(equals + 3 - line);
		/* What is zero, or no scalar, tells nothing in a line. */
		if (value == strspn(equals + 3, "0x") || value > GIST_VALUE || memchr(equals + 3, ' ', value))
			continue;
		if (name + value + 3 > room) {
			printf(" ...");
			break;
		}
		room -= name + value + 2;
		putchar(' ');
		text_print(stdout, line + prefix, name);
		putchar('=');
		text_print(stdout, equals + 3, value);
	}
	free(text);
}

static void show_record(const struct snap_model *m, size_t index)
{
	char text[1024];

	if (!m->head.name[0]) {
		printf("  record %zu: ", index);
		puts(text_escape(text, sizeof(text), m->why->text, strlen(m->why->text), 0));
		return;
	}
	printf("  ");
	look_text(m->head.name);
	printf("%*s ", (int)(15 - MIN(strlen(m->head.name), 15ul)), "");
	look_text(m->head.kind);
	printf("%*s v%-2u %6zu ", (int)(12 - MIN(strlen(m->head.kind), 12ul)), "", m->head.version,
	       m->raw->len);
	if (m->model)
		show_gist(m);
	if (m->skipped)
		printf(", %u optional fields unknown to this release", m->skipped);
	if (m->why)
		printf(": not readable: %s", text_escape(text, sizeof(text), m->why->text,
							   strlen(m->why->text), 0));
	putchar('\n');
}

static void show_records(const struct inspected *s)
{
	size_t i;

	puts("Processors");
	for (i = 0; i < s->models.count; i++) {
		const struct cpu_arch_state *c = inspect_cpu(&s->models.items[i]);

		if (c)
			show_cpu(&s->models.items[i], c);
	}
	puts("\nRecords (name, kind, version, bytes, the first fields that are not zero)");
	for (i = 0; i < s->models.count; i++)
		if (!inspect_cpu(&s->models.items[i]))
			show_record(&s->models.items[i], i);
}

void inspect_page(const struct inspected *s)
{
	look_text(s->path);
	printf(": a %s snapshot of the machine \"", s->file.kind);
	look_text(s->reader->manifest.name);
	printf("\"\n\n");
	show_machine(s);
	putchar('\n');
	show_when(&s->reader->manifest);
	putchar('\n');
	show_file(s);
	putchar('\n');
	show_settings(s);
	putchar('\n');
	show_records(s);
}
