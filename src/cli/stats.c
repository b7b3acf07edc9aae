/* The figures of a run, as JSON. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include "cli/cli.h"
#include "control/stats.h"
#include "vm/vm.h"

int64_t cli_monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

static double cpu_seconds(const struct rusage *u)
{
	return u->ru_utime.tv_sec + u->ru_stime.tv_sec +
	       (u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

static void number(FILE *out, const char *name, int64_t v)
{
	/* What nobody measured is null and not a guess. */
	if (v < 0)
		fprintf(out, ",\n \"%s\": null", name);
	else
		fprintf(out, ",\n \"%s\": %" PRId64, name, v);
}

/* The counters of the processors, which skep stats shows while it runs. */
static void processors(FILE *out, struct vm *vm)
{
	json_t *all = control_stats(vm);

	fprintf(out, ",\n \"vcpus\": ");
	json_dumpf(json_object_get(all, "vcpus"), out, JSON_COMPACT | JSON_ENCODE_ANY);
	json_decref(all);
}

/* Bytes of the host's memory that guest RAM has: more than was touched where its pages are large. */
static int64_t ram_resident(const struct guest_memory *m)
{
	int64_t pages = 0;

	for (unsigned i = 0; i < m->nram; i++) {
		size_t n = m->ram[i].size / GUEST_PAGE_SIZE;
		unsigned char *in = malloc(n);

		if (!in || mincore(m->ram[i].host, m->ram[i].size, in) < 0)
			pages = INT64_MIN;
		for (size_t k = 0; k < n && pages >= 0; k++)
			pages += in[k] & 1;
		free(in);
	}
	return pages < 0 ? -1 : pages * (int64_t)GUEST_PAGE_SIZE;
}

/* What the process has besides, now.  Shared memory is the translator's code, which is mapped twice. */
static int64_t own_rss(const struct guest_memory *m)
{
	int64_t rss = -1, shared = -1, ram = ram_resident(m);
	FILE *f = fopen("/proc/self/status", "re");
	char line[128];

	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "VmRSS: %" SCNd64, &rss);
		sscanf(line, "RssShmem: %" SCNd64, &shared);
	}
	if (f)
		fclose(f);
	return rss < 0 || shared < 0 || ram < 0 ? -1 : MAX((rss - shared / 2) * 1024 - ram, (int64_t)0);
}

void stats_write(FILE *out, struct vm *vm, const struct run_stats *s)
{
	struct rusage u = { 0 };
	uint64_t insns = atomic_load(&vm->clock.insns);
	int64_t touched = (int64_t)memory_touched(&vm->memory), peak, first;

	getrusage(RUSAGE_SELF, &u);
	peak = (int64_t)u.ru_maxrss * 1024;
	fprintf(out, "{\"exit_code\": %d", s->exit_code);
	number(out, "run_us", (s->run_ns - s->start->monotonic_ns) / 1000);
	first = atomic_load(&vm->first_run_ns);
	number(out, "first_insn_us", first ? (first - s->start->monotonic_ns) / 1000 : -1);
	fprintf(out, ",\n \"wall_seconds\": %.6f", (s->end_ns - s->start->monotonic_ns) / 1e9);
	fprintf(out, ",\n \"cpu_seconds\": %.6f", cpu_seconds(&u));
	number(out, "cpus", vm->ncpus);
	for (unsigned i = 0; i < vm->ncpus; i++)
		insns += atomic_load(&vm->vcpus[i]->insns);	/* clock=realtime */
	number(out, "insns", insns);
	number(out, "guest_ns", clock_now(&vm->clock));
	number(out, "ram_bytes", vm->memory.size);
	number(out, "ram_touched_bytes", touched);
	number(out, "peak_rss_bytes", peak);
	number(out, "own_rss_bytes", own_rss(&vm->memory));
	processors(out, vm);
	fputs("}\n", out);
}
