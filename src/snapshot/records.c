#include "snapshot/records.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/draft.h"
#include "vm/machine.h"

static const struct state_record *find_table(const char *kind)
{
	const struct state_record *const *r;

	for (r = machine_records; *r; r++)
		if (!strcmp((*r)->kind, kind))
			return *r;
	return NULL;
}

static void count_skipped(void *opaque, const char *name, const char *key)
{
	(*(unsigned *)opaque)++;
}

/* RAM is known from the manifest: what a table says of addresses in it can be checked. */
static bool is_ram(void *opaque, uint64_t gpa, uint64_t len)
{
	const struct snap_reader *r = opaque;
	unsigned i;

	for (i = 0; i < r->nregions; i++)
		if (gpa >= r->region[i].gpa && gpa - r->region[i].gpa <= r->region[i].size &&
		    len <= r->region[i].size - (gpa - r->region[i].gpa))
			return true;
	return false;
}

/* 0, or why the record has no model: in e. */
static int decode(struct snap_model *m, const struct snap_reader *r, struct skep_error *e)
{
	const struct state_context context = { is_ram, (void *)r };
	int err = state_peek(m->raw->data, m->raw->len, &m->head, e);

	if (err < 0) {
		memset(&m->head, 0, sizeof(m->head));
		return err;
	}
	m->table = find_table(m->head.kind);
	if (!m->table)
		return skep_fail(e, EPROTO, "%s: this release knows no records of the kind \"%s\"",
				 m->head.name, m->head.kind);
	m->model = calloc(1, m->table->model_size);
	if (!m->model)
		return skep_fail(e, ENOMEM, "no memory for the records");
	err = state_decode(m->table, m->head.name, m->raw->data, m->raw->len, m->model, count_skipped,
			   &m->skipped, e);
	if (!err) {
		err = state_check(m->table, m->head.name, m->model, &context, e);
		if (err < 0)
			state_free(m->table, m->model);
	}
	if (err < 0) {
		free(m->model);
		m->model = NULL;
	}
	return err;
}

int snap_models_read(struct snap_models *m, const struct snap_reader *r, struct skep_error *e)
{
	struct skep_error why;
	size_t i;
	int err;

	memset(m, 0, sizeof(*m));
	m->items = calloc(r->nrecords + 1, sizeof(*m->items));
	if (!m->items)
		return skep_fail(e, ENOMEM, "no memory for the records");
	for (i = 0; i < r->nrecords; i++) {
		struct snap_model *it = &m->items[m->count++];

		it->raw = &r->records[i];
		err = snap_draft_changed(&r->manifest, decode(it, r, &why), &why);
		if (!err)
			continue;
		it->why = err == -ENOMEM ? NULL : malloc(sizeof(*it->why));
		if (!it->why) {
			snap_models_free(m);
			return skep_fail(e, ENOMEM, "no memory for the records");
		}
		*it->why = why;
	}
	return 0;
}

void snap_models_free(struct snap_models *m)
{
	size_t i;

	for (i = 0; i < m->count; i++) {
		if (m->items[i].model)
			state_free(m->items[i].table, m->items[i].model);
		free(m->items[i].model);
		free(m->items[i].why);
	}
	free(m->items);
	memset(m, 0, sizeof(*m));
}

const struct snap_model *snap_models_find(const struct snap_models *m, const char *name)
{
	size_t i;

	for (i = 0; i < m->count; i++)
		if (m->items[i].head.name[0] && !strcmp(m->items[i].head.name, name))
			return &m->items[i];
	return NULL;
}

int snap_models_check(const struct snap_models *m, struct skep_error *e)
{
	size_t i;

	for (i = 0; i < m->count; i++) {
		const struct snap_model *it = &m->items[i];

		if (it->why) {
			*e = *it->why;
			if (!it->head.name[0])
				skep_error_prefix(e, "record %zu, %zu bytes at %#llx", i, it->raw->len,
						  (unsigned long long)it->raw->offset);
			return -EBADMSG;
		}
		if (snap_models_find(m, it->head.name) != it)
			return skep_fail(e, EBADMSG, "%s: there are two records by that name",
					 it->head.name);
	}
	return 0;
}
