/* The tree as a file, and the schema as a table. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/internal.h"
#include "vm/device.h"

static void dump_value(FILE *out, const char *v)
{
	size_t len = strlen(v);

	/* The loader drops blanks at the ends. */
	if (len && isspace((unsigned char)v[0]))
		fputs("%()", out);
	for (; *v; v++) {
		if (*v == '%')
			fputc('%', out);
		fputc(*v, out);
	}
	if (len && isspace((unsigned char)v[-1]))
		fputs("%()", out);
}

void config_dump(const struct config *c, FILE *out)
{
	for (const struct config_node *n = &c->root; n; n = tree_next(n)) {
		/* Loading the dump starts the machine; it does not dump once more. */
		if (!n->raw || !strcmp(n->path, "config.dump"))
			continue;
		fprintf(out, "%s=", n->path);
		if (n->value)
			dump_value(out, n->value);
		else
			fputs(n->raw, out);
		fputc('\n', out);
	}
}

void config_each(const struct config *c,
		 void (*fn)(void *opaque, const char *key, const char *value, bool given),
		 void *opaque)
{
	for (const struct config_node *n = &c->root; n; n = tree_next(n))
		if (n->raw && n->value)
			fn(opaque, n->path, n->value, !n->is_default);
}

int config_set_literal(struct config *c, const char *key, const char *value, const char *origin,
		       struct skep_error *e)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int ret = -ENOMEM;

	if (f) {
		bool bad;

		dump_value(f, value);
		bad = ferror(f);
		/* Closing gives what is too much of the buffer back, and may lose all of it. */
		ret = fclose(f) || bad || !text ? -ENOMEM : 0;
	}
	if (ret)
		skep_fail(e, ENOMEM, "%s: no memory for its value", key);
	else
		ret = config_set(c, key, text, origin, e);
	free(text);
	return ret;
}

struct describe {
	FILE *out;
	bool json;
	bool first;
};

static void json_text(FILE *out, const char *s)
{
	fputc('"', out);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fprintf(out, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			fprintf(out, "\\u%04x", *s);
		else
			fputc(*s, out);
	}
	fputc('"', out);
}

static void json_member(FILE *out, const char *name, const char *value)
{
	if (!value)
		return;
	fprintf(out, ",\"%s\":", name);
	json_text(out, value);
}

static void describe_json(struct describe *d, const char *path, const struct config_key *k,
			  const char *device)
{
	const struct config_limit *l = schema_limit(path);

	fprintf(d->out, "%s\n{\"key\":", d->first ? "[" : ",");
	json_text(d->out, path);
	json_member(d->out, "type", value_type_name(k->type));
	json_member(d->out, "device", device);
	json_member(d->out, "default", k->def);
	json_member(d->out, "only", l ? l->only : NULL);
	if (k->min)
		fprintf(d->out, ",\"min\":%" PRIu64, k->min);
	if (k->max)
		fprintf(d->out, ",\"max\":%" PRIu64, k->max);
	if (k->type == CONFIG_SIZE)
		fprintf(d->out, ",\"unit\":%" PRIu64, k->unit ? k->unit : 1);
	if (k->type == CONFIG_CHOICE) {
		fputs(",\"choices\":[", d->out);
		for (const char *const *c = k->choices; *c; c++) {
			if (c != k->choices)
				fputc(',', d->out);
			json_text(d->out, *c);
		}
		fputc(']', d->out);
	}
	json_member(d->out, "help", k->help);
	fputc('}', d->out);
}

static void describe_text(struct describe *d, const char *path, const struct config_key *k,
			  const char *device)
{
	fprintf(d->out, "%-22s ", path);
	if (k->type == CONFIG_CHOICE)
		for (const char *const *c = k->choices; *c; c++)
			fprintf(d->out, "%s%s", c == k->choices ? "" : "|", *c);
	else
		fputs(value_type_name(k->type), d->out);
	if (k->def)
		fprintf(d->out, ", default %s", k->def);
	fprintf(d->out, "\n%-22s     %s", "", k->help ? k->help : "");
	if (device)
		fprintf(d->out, " (%s)", device);
	fputc('\n', d->out);
}

static void describe_schema(struct describe *d, const char *prefix,
			    const struct config_schema *s, const char *device)
{
	for (size_t i = 0; s && i < s->nkeys; i++) {
		char path[CONFIG_PATH_MAX * 2];

		snprintf(path, sizeof(path), "%s%s%s", prefix, *prefix ? "." : "",
			 s->keys[i].name);
		if (d->json)
			describe_json(d, path, &s->keys[i], device);
		else
			describe_text(d, path, &s->keys[i], device);
		d->first = false;
	}
}

/* "pci.#.#.#" reads "pci.B.S.F" to a person, "fwcfg.#" "fwcfg.N". */
static void place_title(const char *pattern, char *buf, size_t size)
{
	const char *letters = strstr(pattern, "#.#.#") ? "BSF" : "N";
	size_t i;

	for (i = 0; pattern[i] && i + 1 < size; i++)
		buf[i] = pattern[i] == '#' ? *letters++ : pattern[i];
	buf[i] = '\0';
}

static const struct config_schema *type_schema(const char *name)
{
	for (size_t i = 0; device_types[i]; i++)
		if (!strcmp(device_types[i]->name, name))
			return device_types[i]->config;
	return NULL;
}

void config_describe(FILE *out, bool json)
{
	struct describe d = { .out = out, .json = json, .first = true };

	describe_schema(&d, "", &config_vm_schema, NULL);
	for (const struct config_place *p = config_places; p->pattern; p++) {
		char title[64];

		place_title(p->pattern, title, sizeof(title));
		describe_schema(&d, title, p->schema, NULL);
		if (p->type)
			describe_schema(&d, title, type_schema(p->type), NULL);
		for (const struct config_slot_type *t = config_slot_types; p->by_device && t->name; t++)
			describe_schema(&d, title, type_schema(t->name), t->name);
	}
	if (json)
		fputs("\n]\n", out);
}
