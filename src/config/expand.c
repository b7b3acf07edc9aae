/* "%(key)" stands for the value of another key, "%%" for a percent sign, "%()" for nothing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "config/internal.h"
#include "config/nearest.h"

/* A name that refers to a name that ...: bounds the recursion. */
#define EXPAND_DEPTH 32

struct text {
	char *p;
	size_t len, room;
};

static int text_add(struct text *t, const char *p, size_t len)
{
	if (t->len + len >= t->room) {
		size_t room = (t->len + len + 64) * 2;
		char *grown = realloc(t->p, room);

		if (!grown)
			return -ENOMEM;
		t->p = grown;
		t->room = room;
	}
	memcpy(t->p + t->len, p, len);
	t->len += len;
	t->p[t->len] = '\0';
	return 0;
}

static int fail_unset(struct config_node *n, const char *name, struct skep_error *e)
{
	struct nearest near;
	char hint[160];

	nearest_init(&near, name);
	for (struct config_node *m = &n->tree->root; m; m = tree_next(m))
		if (m->raw)
			nearest_offer(&near, m->path);
	return skep_fail(e, EINVAL, "%s: %%(%s) names a key that is not set%s", n->path, name,
			 nearest_hint(&near, hint, sizeof(hint)));
}

static int expand(struct config_node *n, unsigned depth, struct skep_error *e);

/* p is just after "%("; *end is set to the character after ")". */
static int expand_name(struct config_node *n, const char *p, const char **end, struct text *t,
		       unsigned depth, struct skep_error *e)
{
	char name[CONFIG_PATH_MAX];
	size_t len = strcspn(p, ")");
	struct config_node *other;
	int ret;

	if (p[len] != ')')
		return skep_fail(e, EINVAL, "%s: \"%%(\" without a closing \")\"", n->path);
	if (len >= sizeof(name))
		return skep_fail(e, EINVAL, "%s: the name in \"%%(%.40s...)\" is too long", n->path,
				 p);
	*end = p + len + 1;
	if (!len)
		return 0;
	memcpy(name, p, len);
	name[len] = '\0';
	other = tree_find(&n->tree->root, name);
	if (!other || !other->raw)
		return fail_unset(n, name, e);
	ret = expand(other, depth + 1, e);
	return ret ? ret : text_add(t, other->value, strlen(other->value));
}

static int expand_into(struct config_node *n, struct text *t, unsigned depth,
		       struct skep_error *e)
{
	const char *p = n->raw;

	while (*p) {
		size_t len = strcspn(p, "%");
		int ret = text_add(t, p, len);

		p += len;
		if (!ret && p[0] == '%' && p[1] == '%') {
			ret = text_add(t, "%", 1);
			p += 2;
		} else if (!ret && p[0] == '%' && p[1] == '(') {
			ret = expand_name(n, p + 2, &p, t, depth, e);
		} else if (!ret && *p) {
			return skep_fail(e, EINVAL, "%s: a lone \"%%\" in \"%.60s\"; write %%%% for a "
					 "percent sign, %%(key) for another key's value", n->path,
					 n->raw);
		}
		if (ret == -ENOMEM)
			return skep_fail(e, ENOMEM, "%s: out of memory", n->path);
		if (ret)
			return ret;
		if (t->len > CONFIG_VALUE_MAX)
			return skep_fail(e, E2BIG, "%s: the value expands to more than %d characters",
					 n->path, CONFIG_VALUE_MAX);
	}
	return 0;
}

static int expand(struct config_node *n, unsigned depth, struct skep_error *e)
{
	struct text t = { 0 };
	int ret;

	if (n->mark == EXPAND_DONE)
		return 0;
	if (n->mark == EXPAND_NOW)
		return skep_fail(e, ELOOP, "%s: \"%.60s\" leads back to itself", n->path, n->raw);
	if (depth > EXPAND_DEPTH)
		return skep_fail(e, ELOOP, "%s: more than %d values refer to each other in a row",
				 n->path, EXPAND_DEPTH);
	n->mark = EXPAND_NOW;
	ret = text_add(&t, "", 0);
	if (ret)
		ret = skep_fail(e, ENOMEM, "%s: out of memory", n->path);
	else
		ret = expand_into(n, &t, depth, e);
	if (ret) {
		n->mark = EXPAND_NOT;
		free(t.p);
		return ret;
	}
	free(n->value);
	n->value = t.p;
	n->mark = EXPAND_DONE;
	return 0;
}

int expand_node(struct config_node *n, struct skep_error *e)
{
	return n->raw ? expand(n, 0, e) : 0;
}
