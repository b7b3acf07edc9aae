/* The last step: defaults, expansion, every key against its schema. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/internal.h"
#include "config/nearest.h"

static int fill_schema(struct config_node *at, const struct config_schema *s,
		       struct skep_error *e)
{
	for (size_t i = 0; s && i < s->nkeys; i++) {
		const struct config_key *k = &s->keys[i];
		struct config_node *n = tree_find(at, k->name);
		char path[CONFIG_PATH_MAX * 2];
		int ret;

		if (!k->def || (n && n->raw))
			continue;
		strcpy(path, at->path);
		if (*path)
			strcat(path, ".");
		strncat(path, k->name, CONFIG_PATH_MAX - 1);
		ret = tree_set(at->tree, path, k->def, "default", true, e);
		if (ret)
			return ret;
	}
	return 0;
}

/* The device that a slot holds decides about its keys: it is expanded before the rest. */
static int fill_places(struct config *c, struct skep_error *e)
{
	for (struct config_node *n = &c->root; n; n = tree_next(n)) {
		struct config_node *at;
		const struct config_place *p = schema_place(n, &at);
		int ret = 0;

		if (!p || at != n)
			continue;
		if (p->by_device) {
			struct config_node *dev = tree_find(n, "device");

			ret = dev ? expand_node(dev, e) : 0;
		}
		if (!ret)
			ret = fill_schema(n, p->schema, e);
		if (!ret)
			ret = fill_schema(n, schema_device(p, n), e);
		if (ret)
			return ret;
	}
	return 0;
}

struct near_keys {
	struct nearest near;
};

static void offer(void *opaque, const char *path)
{
	struct near_keys *k = opaque;

	nearest_offer(&k->near, path);
}

static int fail_unknown(struct config_node *n, struct skep_error *e)
{
	struct near_keys k;
	char hint[160];

	nearest_init(&k.near, n->path);
	schema_each_near(n, offer, &k);
	nearest_hint(&k.near, hint, sizeof(hint));
	return skep_fail(e, ENOENT, "unknown key \"%s\"%s", n->path,
			 *hint ? hint : "; `skep help keys` lists them all");
}

static bool same_value(const struct config_key *k, const char *a, const char *b)
{
	bool x, y;

	if (k && k->type == CONFIG_BOOL && !value_parse_bool(a, &x) && !value_parse_bool(b, &y))
		return x == y;
	return !strcmp(a, b);
}

static int check_node(struct config_node *n, struct skep_error *e)
{
	const struct config_key *k = schema_key(n);
	const struct config_limit *l = schema_limit(n->path);
	int ret;

	if (l && !l->only)
		return skep_fail(e, EOPNOTSUPP, "%s: %s", n->path, l->why);
	if (!k)
		return fail_unknown(n, e);
	ret = value_parse(k, n->path, n->value, &n->number, e);
	if (ret)
		return ret;
	if (l && !same_value(k, n->value, l->only))
		return skep_fail(e, EOPNOTSUPP, "%s=%s: %s", n->path, n->value, l->why);
	n->key = k;
	return 0;
}

static int with_origin(int ret, const struct config_node *n, struct skep_error *e)
{
	if (ret && n->origin && *n->origin && !n->is_default)
		skep_error_prefix(e, "%s", n->origin);
	return ret;
}

static int expand_all(struct config *c, struct skep_error *e)
{
	for (struct config_node *n = &c->root; n; n = tree_next(n)) {
		int ret = with_origin(expand_node(n, e), n, e);

		if (ret)
			return ret;
	}
	return 0;
}

static int check_all(struct config *c, struct skep_error *e)
{
	for (struct config_node *n = &c->root; n; n = tree_next(n)) {
		int ret = n->raw ? with_origin(check_node(n, e), n, e) : 0;

		if (ret)
			return ret;
	}
	return 0;
}

/* Whatever an earlier, refused freeze left behind. */
static void forget(struct config *c)
{
	for (struct config_node *n = &c->root; n; n = tree_next(n)) {
		n->mark = EXPAND_NOT;
		n->key = NULL;
		if (n->is_default) {
			free(n->raw);
			free(n->value);
			n->raw = n->value = NULL;
		}
	}
}

static int set_derived(struct config *c, const char *key, uint64_t v, struct skep_error *e)
{
	char text[24];
	int ret;

	if (config_is_set(&c->root, key))
		return 0;
	snprintf(text, sizeof(text), "%" PRIu64, v);
	ret = tree_set(c, key, text, "default", true, e);
	if (!ret)
		ret = expand_node(tree_find(&c->root, key), e);
	return ret ? ret : check_node(tree_find(&c->root, key), e);
}

static int check_whole(struct config *c, struct skep_error *e)
{
	uint64_t cpus = 0, sockets = 0;
	int ret = schema_check_name(c, e);

	if (!ret)
		ret = schema_check_backend(c, e);
	if (!ret)
		ret = schema_check_memory(c, e);
	if (!ret)
		ret = schema_check_clock(c, e);
	if (!ret)
		ret = schema_check_topology(c, &cpus, &sockets, e);
	if (!ret)
		ret = schema_check_domains(c, cpus, e);
	if (!ret)
		ret = set_derived(c, "cpus", cpus, e);
	return ret ? ret : set_derived(c, "sockets", sockets, e);
}

int config_freeze(struct config *c, struct skep_error *e)
{
	int ret;

	if (c->frozen)
		return 0;
	forget(c);
	ret = fill_schema(&c->root, &config_vm_schema, e);
	if (!ret)
		ret = fill_places(c, e);
	if (!ret)
		ret = expand_all(c, e);
	/* Before the keys: a device that does not exist is the better complaint. */
	if (!ret)
		ret = schema_check_places(c, e);
	if (!ret)
		ret = check_all(c, e);
	if (!ret)
		ret = check_whole(c, e);
	if (!ret)
		c->frozen = true;
	return ret;
}
