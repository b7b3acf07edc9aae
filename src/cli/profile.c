/* skep profile: the generations of the snapshot format that this release knows. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "cli/cli.h"
#include "config/nearest.h"
#include "snapshot/manifest.h"
#include "state/generation.h"
#include "vm/machine.h"

#define RECORDS_MAX	128
#define SCHEMA_MAX	(4 * MiB)	/* bytes of a file that could be a schema */

static const char usage[] =
	"skep profile list [--json]          the generations, and the versions of their records\n"
	"skep profile show [N]               the schema of one in CDDL (RFC 8610); the newest one\n"
	"skep profile check [FILE|DIR] [--json]\n"
	"                                    are the tables sound, and is this genN.cddl, or are all\n"
	"                                    in this directory, what this release writes?\n";

struct profile {
	const struct state_record *records[RECORDS_MAX + 1];	/* the manifest, then the machine's */
	bool json;
};

static int collect(struct profile *p, struct skep_error *e)
{
	size_t n = 0;

	p->records[n++] = &manifest_record;
	for (size_t i = 0; machine_records[i]; i++) {
		if (n == RECORDS_MAX)
			return skep_fail(e, EINVAL, "more than %d kinds of records", RECORDS_MAX);
		p->records[n++] = machine_records[i];
	}
	return state_generations_check(state_generations, p->records, e);
}

/* ---- list ------------------------------------------------------------- */

static void list_json(const struct profile *p, const struct state_generation *g)
{
	const char *comma = "";

	printf("{\"generation\": %u, \"draft\": %s, \"records\": [", g->number,
	       g->draft ? "true" : "false");
	for (const struct state_record *const *r = p->records; *r; r++) {
		uint16_t version = state_generation_version(g, *r);

		if (version)
			printf("%s{\"kind\": \"%s\", \"version\": %u}", comma, (*r)->kind, version);
		comma = version ? ", " : comma;
	}
	printf("]}");
}

static int list(const struct profile *p)
{
	const struct state_generation *g = state_generations;

	if (p->json)
		putchar('[');
	for (; g->number; g++) {
		if (p->json) {
			printf("%s", g == state_generations ? "" : ",\n ");
			list_json(p, g);
			continue;
		}
		printf("generation %u%s%s\n", g->number, g[1].number ? "" : ", the newest",
		       g->draft ? ", a draft: it may still change" : "");
		for (const struct state_record *const *r = p->records; *r; r++)
			if (state_generation_version(g, *r))
				printf("  %-16s version %u\n", (*r)->kind,
				       state_generation_version(g, *r));
	}
	if (p->json)
		puts("]");
	return 0;
}

/* ---- show ------------------------------------------------------------- */

/* Only decimal digits; 0 is none. */
static unsigned number_of(const char *text)
{
	size_t n = strspn(text, "0123456789");

	return n && n < 7 && !text[n] ? (unsigned)strtoul(text, NULL, 10) : 0;
}

static int show(const struct profile *p, const char *which, struct skep_error *e)
{
	unsigned number = which ? number_of(which) : 0;
	const struct state_generation *g;

	if (which && !number)
		return skep_fail(e, EINVAL, "\"%s\" is not the number of a generation", which);
	g = state_generation_find(number, e);
	return g ? state_generation_cddl(stdout, g, p->records, e) : -ENOENT;
}

/* ---- check ------------------------------------------------------------ */

/* The schema as text from malloc; NULL with e set. */
static char *schema(const struct profile *p, const struct state_generation *g,
		    struct skep_error *e)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	int err;

	if (!f) {
		skep_fail(e, ENOMEM, "no memory for a schema");
		return NULL;
	}
	err = state_generation_cddl(f, g, p->records, e);
	if (fclose(f) && err == 0)
		err = skep_fail(e, ENOMEM, "no memory for a schema");
	if (err == 0)
		return text;
	free(text);
	return NULL;
}

/* The file's text from malloc; NULL with e set. */
static char *file_text(const char *path, struct skep_error *e)
{
	FILE *f = fopen(path, "re");
	char *text = f ? malloc(SCHEMA_MAX + 1) : NULL;
	size_t n;

	if (!f || !text) {
		skep_fail(e, f ? ENOMEM : errno, "%s: %s", path, strerror(f ? ENOMEM : errno));
		goto out;
	}
	n = fread(text, 1, SCHEMA_MAX + 1, f);
	if (ferror(f) || n > SCHEMA_MAX || memchr(text, '\0', n)) {
		skep_fail(e, EINVAL, "%s: it is no schema", path);
		free(text);
		text = NULL;
		goto out;
	}
	text[n] = '\0';
out:
	if (f)
		fclose(f);
	return text;
}

/* The line at which two texts part; their pointers are moved to its start. */
static unsigned first_difference(const char **a, const char **b)
{
	unsigned line = 1;

	for (;;) {
		size_t na = strcspn(*a, "\n"), nb = strcspn(*b, "\n");

		if (na != nb || memcmp(*a, *b, na) || (*a)[na] != (*b)[nb] || !(*a)[na])
			return line;
		*a += na + 1;
		*b += nb + 1;
		line++;
	}
}

static int compare(const struct profile *p, const char *path, const struct state_generation *g,
		   struct skep_error *e)
{
	char *due = schema(p, g, e), *is = due ? file_text(path, e) : NULL;
	const char *a = is, *b = due;
	unsigned line;
	int err = is ? 0 : -EINVAL;

	if (is && strcmp(is, due)) {
		line = first_difference(&a, &b);
		err = skep_fail(e, EINVAL, "%s:%u: \"%.*s\" is not what this release writes, \"%.*s\"; "
				"`skep profile show %u` prints it", path, line,
				(int)MIN(strcspn(a, "\n"), (size_t)80), a,
				(int)MIN(strcspn(b, "\n"), (size_t)80), b, g->number);
	}
	free(due);
	free(is);
	return err;
}

static int check_file(const struct profile *p, const char *path, struct skep_error *e)
{
	const char *name = strrchr(path, '/');
	char digits[8] = "";
	int end = 0;

	name = name ? name + 1 : path;
	if (sscanf(name, "gen%7[0-9].cddl%n", digits, &end) != 1 || !end || name[end] ||
	    !number_of(digits))
		return skep_fail(e, EINVAL, "%s: a schema is called genN.cddl, by its generation", path);

	const struct state_generation *g = state_generation_find(number_of(digits), e);

	if (!g) {
		skep_error_prefix(e, "%s", path);
		return -ENOENT;
	}
	return compare(p, path, g, e);
}

static int check(const struct profile *p, const char *path, struct skep_error *e)
{
	const struct state_generation *g = state_generations;
	struct stat st;
	char file[4096];
	int err = 0;

	if (path && stat(path, &st) < 0)
		return skep_fail(e, errno, "%s: %s", path, strerror(errno));
	if (path && !S_ISDIR(st.st_mode)) {
		err = check_file(p, path, e);
		goto done;
	}
	for (; g->number && err == 0; g++) {
		char *text = path ? NULL : schema(p, g, e);

		if (path && (size_t)snprintf(file, sizeof(file), "%s/gen%u.cddl", path, g->number) >=
		    sizeof(file))
			return skep_fail(e, ENAMETOOLONG, "%s: too long a path", path);
		err = path ? compare(p, file, g, e) : text ? 0 : -EINVAL;
		free(text);
	}
done:
	if (err == 0 && p->json)
		puts("{\"ok\": true}");
	else if (err == 0 && path)
		printf("%s: what this release writes\n", path);
	else if (err == 0)
		puts("the tables are sound");
	return err;
}

/* ---- The command ------------------------------------------------------ */

static int unknown_word(const char *word, struct skep_error *e)
{
	static const char *const words[] = { "list", "show", "check" };
	struct nearest near;
	char hint[160];

	nearest_init(&near, word);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		nearest_offer(&near, words[i]);
	nearest_hint(&near, hint, sizeof(hint));
	return skep_fail(e, EINVAL, "there is no \"%s\"%s", word,
			 *hint ? hint : "; there are list, show and check");
}

static int profile(struct profile *p, const char *word, const char *arg, struct skep_error *e)
{
	int err = collect(p, e);

	if (err < 0)
		return err;
	if (!strcmp(word, "show") && !p->json)
		return show(p, arg, e);
	if (!strcmp(word, "check"))
		return check(p, arg, e);
	if (!strcmp(word, "show"))
		return skep_fail(e, EINVAL, "show prints CDDL, not JSON");
	if (strcmp(word, "list"))
		return unknown_word(word, e);
	return arg ? skep_fail(e, EINVAL, "list takes no \"%s\"", arg) : list(p);
}

int cli_profile(int argc, char **argv, const struct cli_start *start)
{
	struct profile p = { .json = false };
	const char *word[2] = { NULL, NULL };
	struct skep_error e = { .text = "" };
	int n = 0;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(usage, stdout);
			return 0;
		}
		if (!strcmp(argv[i], "--json")) {
			p.json = true;
		} else if (argv[i][0] == '-' || n == 2) {
			cli_complain("profile: there is no place for \"%s\"; `skep profile --help`", argv[i]);
			return CLI_ERROR;
		} else {
			word[n++] = argv[i];
		}
	}
	if (!n) {
		cli_complain("profile: list, show or check? `skep profile --help` tells more");
		return CLI_ERROR;
	}
	if (profile(&p, word[0], word[1], &e) == 0 && fflush(stdout) == 0)
		return 0;
	cli_complain("profile: %s", e.text[0] ? e.text : "the output cannot be written");
	return CLI_ERROR;
}
