#include "cli/restored.h"

#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "config/config.h"
#include "snapshot/disks.h"
#include "snapshot/draft.h"
#include "snapshot/restore.h"

int restored_assign(struct restored_settings *s, const char *assignment, struct skep_error *e)
{
	if (s->nassignments == RESTORED_ASSIGNMENTS)
		return skep_fail(e, E2BIG, "-o: more than %d of them", RESTORED_ASSIGNMENTS);
	s->assignments[s->nassignments++] = assignment;
	return 0;
}

/* What the guest can see may be said again, but not changed. */
static bool as_saved(const struct snap_reader *r, const char *key, const char *value)
{
	const struct manifest_setting *s = r->manifest.config.items;
	uint32_t i;

	for (i = 0; i < r->manifest.config.count; i++)
		if (!strcmp(s[i].key, key) && s[i].value.len == strlen(value) &&
		    !memcmp(s[i].value.len ? (const char *)s[i].value.data : "", value, s[i].value.len))
			return true;
	return false;
}

static int remap(struct config *c, const struct snap_reader *r, const char *assignment,
		 struct skep_error *e)
{
	const char *equals = strchr(assignment, '=');
	size_t n = equals ? (size_t)(equals - assignment) : 0;
	char key[128];

	if (!n || n >= sizeof(key))
		return skep_fail(e, EINVAL, "-o: \"%s\" is not KEY=VALUE", assignment);
	memcpy(key, assignment, n);
	key[n] = '\0';
	if (restore_may_remap(key))
		return config_set_assignment(c, assignment, "-o", e);
	if (as_saved(r, key, equals + 1))
		return 0;
	return skep_fail(e, EINVAL, "-o %s: the guest has seen this machine as it was saved, and it cannot "
			 "be another one now; only host-side keys can change, such as name or "
			 "lpc.com1.path", key);
}

/* The settings, open; the caller's. */
static struct config *collect(const struct snap_reader *r, const struct restored_settings *s,
			      struct skep_error *e)
{
	struct config *c = restore_config(r, e);
	int err = c ? 0 : -EINVAL;
	unsigned i;

	for (i = 0; i < s->nassignments && !err; i++)
		err = remap(c, r, s->assignments[i], e);
	if (!err && s->clone)
		err = config_set(c, "clone", s->clone, "--clone", e);
	if (!err && s->name)
		err = config_set(c, "name", s->name, "the machine's name", e);
	if (!err)
		err = cli_choose_backend(c, e);
	if (!err)
		return c;
	if (c)
		config_destroy(c);
	return NULL;
}

static int freeze(struct config *c, const struct snap_reader *r, struct skep_error *e)
{
	return snap_draft_frozen(&r->manifest, config_freeze(c, e), e);
}

/* What the disks begin with depends on the settings as they are in the end. */
static int add_disks(struct config *c, const struct snap_reader *r,
		     const struct restored_settings *s, struct skep_error *e)
{
	struct config *final;
	int err;

	if (!r->manifest.disks.count)
		return 0;
	final = collect(r, s, e);
	err = final ? freeze(final, r, e) : -EINVAL;
	if (!err)
		err = disks_configure(c, final, &r->manifest, s->clone, e);
	config_destroy(final);
	return err;
}

struct config *restored_config(const struct snap_reader *r, const struct restored_settings *s,
			       struct skep_error *e)
{
	struct config *c = collect(r, s, e);
	int err = c ? add_disks(c, r, s, e) : -EINVAL;

	if (!err)
		err = freeze(c, r, e);
	if (!err)
		return c;
	config_destroy(c);
	return NULL;
}
