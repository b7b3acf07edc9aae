#include "snapshot/draft.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "state/item.h"

static void append(unsigned generation, struct skep_error *e)
{
	char hint[160];
	size_t room = sizeof(e->text), n = strlen(e->text);
	int len = snprintf(hint, sizeof(hint), "; the snapshot is of a draft of generation %u, which has "
			   "changed since: only a release of that time restores it", generation);

	/* A long sentence is cut, the hint is not. */
	if (n + (size_t)len >= room)
		n = room - (size_t)len - 1;
	memcpy(e->text + n, hint, (size_t)len + 1);
}

int snap_draft_changed(const struct manifest *m, int err, struct skep_error *e)
{
	if (err == -EPROTO && m->draft)
		append(m->generation, e);
	return err;
}

int snap_draft_frozen(const struct manifest *m, int err, struct skep_error *e)
{
	snap_draft_changed(m, err == -ENOENT ? -EPROTO : 0, e);
	return err;
}

/* What the map that follows says of a draft; nothing where it is no such map. */
static void look_into(struct item_reader *in, bool *draft, unsigned *generation)
{
	struct skep_error ignored;
	struct item map, key, value;
	uint64_t i;

	if (item_next_strict(in, &map, &ignored) || map.type != ITEM_MAP)
		return;
	for (i = 0; i < map.value; i++) {
		struct item_reader at;

		if (item_next_strict(in, &key, &ignored) || key.type != ITEM_TEXT)
			return;
		at = *in;
		if (item_skip(in, 1, &ignored) || item_next_strict(&at, &value, &ignored))
			return;
		if (key.value == 5 && !memcmp(key.data, "draft", 5))
			*draft = value.type == ITEM_BOOL && value.value;
		if (key.value == 10 && !memcmp(key.data, "generation", 10) && value.type == ITEM_UINT)
			*generation = (unsigned)value.value;
	}
}

int snap_draft_manifest_changed(const struct snap_record *note, int err, struct skep_error *e)
{
	struct item_reader in = { note->data, note->len, 0 };
	struct skep_error ignored;
	unsigned generation = 1;
	bool draft = false;
	struct item it;

	/* The head of a record: a map, "opt" and its map, "req" and its map. */
	if (err == -EPROTO && !item_next_strict(&in, &it, &ignored) &&
	    !item_next_strict(&in, &it, &ignored) && !item_skip(&in, 1, &ignored) &&
	    !item_next_strict(&in, &it, &ignored))
		look_into(&in, &draft, &generation);
	if (draft)
		append(generation, e);
	return err;
}
