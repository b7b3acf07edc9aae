/*
 * soft_exact [--ways CHARACTERS] KERNEL[,INITRD] COUNT...
 *
 * The virtual clock is exact: how the soft processor cuts code into blocks, what its
 * caches and TLBs know, and whether it runs an instruction by itself must not show.  Runs
 * the guest up to each instruction count in every one of these ways, and compares the
 * whole state of the machine, byte for byte.  Status 0: all the same.  --ways chooses some
 * of them: a whole Debian boot is long for one instruction at a time.  Status 77: only ways that
 * are not there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "cpu/soft/soft.h"
#include "vm/vm.h"

struct way {
	const char *name, *tier;
	unsigned block_insns, forget;
	bool on, alone;
};

static const struct way ways[] = {
	{ "as ever", "interpreter", 0, 0, false, false },
	{ "blocks that do not lead on", "interpreter", 0, 0, true, false },
	{ "blocks of one instruction", "interpreter", 1, 0, false, false },
	{ "blocks of two instructions", "interpreter", 2, 0, false, false },
	{ "blocks of seven instructions", "interpreter", 7, 0, true, false },
	{ "one instruction at a time", "interpreter", 0, 0, true, true },
	{ "caches emptied every 97 blocks", "interpreter", 0, 97, true, false },
	{ "caches emptied every 1009 blocks of three instructions", "interpreter", 3, 1009, true, false },
	{ "translated", "translator", 0, 0, false, false },
	{ "translated, caches emptied every 97 blocks", "translator", 0, 97, true, false },
};

static void die(const char *what, const struct skep_error *e)
{
	fprintf(stderr, "soft_exact: %s%s%s\n", what, e ? ": " : "", e ? e->text : "");
	exit(2);
}

static void set(struct config *c, const char *key, const char *value)
{
	struct skep_error e = { "" };

	if (config_set(c, key, value, NULL, &e))
		die(key, &e);
}

static struct config *configure(char *guest, const char *count, const char *tier)
{
	struct config *c = config_create();
	struct skep_error e = { "" };
	char *initrd = strchr(guest, ',');

	if (!c)
		die("out of memory", NULL);
	set(c, "name", "exact");
	set(c, "memory.size", initrd ? "256M" : "64M");
	set(c, "clock.mode", "virtual");
	set(c, "clock.limit", count);
	set(c, "soft.tier", tier);
	set(c, "lpc.debug_exit", "true");
	if (initrd) {
		*initrd = '\0';
		set(c, "boot.initrd", initrd + 1);
		set(c, "boot.cmdline", "console=ttyS0");
	}
	set(c, "boot.kernel", guest);
	if (initrd)
		*initrd = ',';
	if (config_freeze(c, &e))
		die("configuration", &e);
	return c;
}

/* The state at the end, as text, which the caller frees; NULL: there is no such way. */
static char *run(char *guest, const char *count, const struct way *w)
{
	struct config *c = configure(guest, count, w->tier);
	struct skep_error e = { "" };
	struct vm *vm = vm_create(c, &e);
	struct soft_cpu *cpu;
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!vm && strstr(e.text, "gives no memory for translated code")) {
		printf("%s\n", e.text);
		fclose(out);
		free(text);
		config_destroy(c);
		return NULL;
	}
	if (!vm || !out)
		die("no machine", &e);
	cpu = vm->vcpus[0]->backend;
	cpu->test.on = w->on;
	cpu->test.alone = w->alone;
	cpu->test.block_insns = (uint8_t)w->block_insns;
	cpu->test.forget = w->forget;
	if (vm_run(vm, &e) == VM_EXIT_ERROR)
		die(w->name, &e);
	vm_dump_state(vm, out);
	fclose(out);
	vm_destroy(vm);
	config_destroy(c);
	return text;
}

/* Says in which lines two states differ. */
static void show_difference(char *a, char *b)
{
	unsigned shown = 0;

	while (*a && *b && shown < 8) {
		size_t la = strcspn(a, "\n"), lb = strcspn(b, "\n");

		if (la != lb || memcmp(a, b, la)) {
			printf("    %.*s\n    %.*s\n", (int)la, a, (int)lb, b);
			shown++;
		}
		a += la + !!a[la];
		b += lb + !!b[lb];
	}
}

int main(int argc, char **argv)
{
	const char *chosen = "1234567";
	unsigned failed = 0, tried = 0;

	if (argc > 2 && !strcmp(argv[1], "--ways")) {
		chosen = argv[2];
		argc -= 2;
		argv += 2;
	}
	if (argc < 3) {
		fprintf(stderr, "usage: soft_exact [--ways CHARACTERS] KERNEL[,INITRD] COUNT...\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		char *want = run(argv[1], argv[i], &ways[0]);

		for (unsigned n = 1; n < ARRAY_SIZE(ways); n++) {
			if (!strchr(chosen, '0' + (int)n))
				continue;
			char *got = run(argv[1], argv[i], &ways[n]);

			if (!got)
				continue;
			tried++;
			if (strcmp(want, got)) {
				printf("%s at %s, %s:\n", argv[1], argv[i], ways[n].name);
				show_difference(want, got);
				failed++;
			}
			free(got);
		}
		free(want);
	}
	if (!tried)
		return 77;
	printf("%s: %d counts, ways %s, %u differ\n", argv[1], argc - 2, chosen, failed);
	return failed != 0;
}
