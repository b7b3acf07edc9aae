/* skep inspect: the command (inspect.c) and its page (inspect_page.c). */
#ifndef SKEP_CLI_INSPECT_H
#define SKEP_CLI_INSPECT_H

#include "cli/look.h"
#include "snapshot/records.h"

struct inspected {
	const char *path;
	struct snap_reader *reader;
	struct snap_models models;
	struct look_file file;
	struct skep_error chain;	/* why its parents could not be opened, or empty */
};

/* The machine's record and processor n's model, or NULL where they cannot be read. */
struct machine_model;
struct cpu_arch_state;
const struct machine_model *inspect_machine(const struct inspected *s);
const struct cpu_arch_state *inspect_cpu(const struct snap_model *m);

/* What a processor is about: "64-bit", "real mode" ...; its privilege level. */
const char *inspect_mode(const struct cpu_arch_state *c);
unsigned inspect_cpl(const struct cpu_arch_state *c);
const char *inspect_activity(const struct cpu_arch_state *c);

void inspect_uuid(FILE *out, const uint8_t uuid[16]);
void inspect_page(const struct inspected *s);

#endif
