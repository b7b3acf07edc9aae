/* The tree itself: nodes, their order, setting and looking up. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/internal.h"

struct config *config_create(void)
{
	struct config *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->root.tree = c;
	c->root.name = strdup("");
	c->root.path = strdup("");
	if (!c->root.name || !c->root.path) {
		config_destroy(c);
		return NULL;
	}
	return c;
}

static void node_finish(struct config_node *n)
{
	/* Depth is bounded by CONFIG_PATH_MAX. */
	for (struct config_node *child = n->first, *next; child; child = next) {
		next = child->next;
		node_finish(child);
		free(child);
	}
	free(n->name);
	free(n->path);
	free(n->raw);
	free(n->origin);
	free(n->value);
}

void config_destroy(struct config *c)
{
	if (!c)
		return;
	node_finish(&c->root);
	free(c);
}

/* Natural order: runs of digits by value, everything else by byte. */
static int natural_compare(const char *a, const char *b)
{
	const char *a0 = a, *b0 = b;

	while (*a && *b) {
		if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
			size_t la, lb;
			int d;

			a += strspn(a, "0");
			b += strspn(b, "0");
			la = strspn(a, "0123456789");
			lb = strspn(b, "0123456789");
			if (la != lb)
				return la < lb ? -1 : 1;
			d = strncmp(a, b, la);
			if (d)
				return d;
			a += la;
			b += lb;
		} else if (*a != *b) {
			return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
		} else {
			a++;
			b++;
		}
	}
	if (*a || *b)
		return *a ? 1 : -1;
	return strcmp(a0, b0);	/* "01" and "1" are two names */
}

static struct config_node *find_child(struct config_node *n, const char *name, size_t len)
{
	for (struct config_node *c = n->first; c; c = c->next)
		if (!strncmp(c->name, name, len) && c->name[len] == '\0')
			return c;
	return NULL;
}

static struct config_node *add_child(struct config_node *n, const char *name, size_t len)
{
	struct config_node *child = calloc(1, sizeof(*child)), **at = &n->first;
	size_t plen = strlen(n->path);

	if (!child)
		return NULL;
	child->tree = n->tree;
	child->parent = n;
	child->name = strndup(name, len);
	child->path = malloc(plen + len + 2);
	if (!child->name || !child->path) {
		node_finish(child);
		free(child);
		return NULL;
	}
	memcpy(child->path, n->path, plen);
	if (plen)
		child->path[plen++] = '.';
	memcpy(child->path + plen, child->name, len + 1);

	while (*at && natural_compare((*at)->name, child->name) < 0)
		at = &(*at)->next;
	child->next = *at;
	*at = child;
	return child;
}

struct config_node *tree_find(struct config_node *n, const char *path)
{
	while (n && *path) {
		size_t len = strcspn(path, ".");

		n = find_child(n, path, len);
		path += len;
		if (*path == '.')
			path++;
	}
	return n;
}

struct config_node *tree_next(const struct config_node *n)
{
	if (n->first)
		return n->first;
	while (n && !n->next)
		n = n->parent;
	return n ? n->next : NULL;
}

/* Dotted names of letters, digits, '_' and '-'. */
static int check_key(const char *key, struct skep_error *e)
{
	const char *p = key;

	if (strlen(key) >= CONFIG_PATH_MAX)
		return skep_fail(e, EINVAL, "a key of %zu characters is longer than %d: \"%.40s...\"",
				 strlen(key), CONFIG_PATH_MAX - 1, key);
	for (; *p; p++) {
		if (*p == '.' && (p == key || p[-1] == '.' || !p[1]))
			break;
		if (!isalnum((unsigned char)*p) && *p != '_' && *p != '-' && *p != '.')
			break;
	}
	if (*p || p == key)
		return skep_fail(e, EINVAL, "\"%s\" is not a key: keys are words of letters, digits, "
				 "_ and -, joined by single dots", key);
	return 0;
}

static int check_value(const char *key, const char *value, struct skep_error *e)
{
	if (strlen(value) > CONFIG_VALUE_MAX)
		return skep_fail(e, EINVAL, "%s: a value of %zu characters is longer than %d", key,
				 strlen(value), CONFIG_VALUE_MAX);
	if (strchr(value, '\n'))
		return skep_fail(e, EINVAL, "%s: a value cannot hold a line break", key);
	return 0;
}

static int set_value(struct config_node *n, const char *value, const char *origin,
		     bool is_default)
{
	char *raw = strdup(value), *from = strdup(origin ? origin : "");

	if (!raw || !from) {
		free(raw);
		free(from);
		return -ENOMEM;
	}
	free(n->raw);
	free(n->origin);
	free(n->value);
	n->raw = raw;
	n->origin = from;
	n->value = NULL;
	n->key = NULL;
	n->mark = EXPAND_NOT;
	n->is_default = is_default;
	return 0;
}

int tree_set(struct config *c, const char *key, const char *value, const char *origin,
	     bool is_default, struct skep_error *e)
{
	struct config_node *n = &c->root;

	for (const char *p = key; *p;) {
		size_t len = strcspn(p, ".");
		struct config_node *child = find_child(n, p, len);

		if (!child)
			child = add_child(n, p, len);
		if (!child)
			return skep_fail(e, ENOMEM, "%s: out of memory", key);
		n = child;
		p += len + (p[len] == '.');
	}
	if (set_value(n, value, origin, is_default))
		return skep_fail(e, ENOMEM, "%s: out of memory", key);
	return 0;
}

/* The type is checked at once where the place is fixed; a slot's device may come later. */
static int check_early(struct config *c, const char *key, const char *value,
		       struct skep_error *e)
{
	const struct config_key *k = NULL;

	for (size_t i = 0; i < config_vm_schema.nkeys; i++)
		if (!strcmp(config_vm_schema.keys[i].name, key))
			k = &config_vm_schema.keys[i];
	if (!k || strchr(value, '%'))
		return 0;
	return value_parse(k, key, value, NULL, e);
}

int config_set(struct config *c, const char *key, const char *value, const char *origin,
	       struct skep_error *e)
{
	int ret;

	if (c->frozen)
		return skep_fail(e, EPERM, "%s: the machine is made; its configuration cannot "
				 "change any more", key);
	ret = check_key(key, e);
	if (!ret)
		ret = check_value(key, value, e);
	if (!ret)
		ret = check_early(c, key, value, e);
	if (!ret)
		ret = tree_set(c, key, value, origin, false, e);
	if (ret && origin && *origin)
		skep_error_prefix(e, "%s", origin);
	return ret;
}

int config_set_assignment(struct config *c, const char *assignment, const char *origin,
			  struct skep_error *e)
{
	const char *eq = strchr(assignment, '=');
	char key[CONFIG_PATH_MAX];

	if (!eq) {
		int ret = skep_fail(e, EINVAL, "\"%s\" is not an assignment; write %s=VALUE",
				    assignment, assignment);

		if (origin && *origin)
			skep_error_prefix(e, "%s", origin);
		return ret;
	}
	if ((size_t)(eq - assignment) >= sizeof(key))
		return skep_fail(e, EINVAL, "a key is longer than %d characters: \"%.40s...\"",
				 CONFIG_PATH_MAX - 1, assignment);
	memcpy(key, assignment, eq - assignment);
	key[eq - assignment] = '\0';
	return config_set(c, key, eq + 1, origin, e);
}

struct config_node *config_find(struct config *c, const char *path)
{
	return tree_find(&c->root, path);
}

struct config_node *config_root(struct config *c)
{
	return &c->root;
}

struct config_node *config_first(struct config_node *n)
{
	return n ? n->first : NULL;
}

struct config_node *config_next(struct config_node *n)
{
	return n->next;
}

const char *config_name(const struct config_node *n)
{
	return n->name;
}

const char *config_path(const struct config_node *n)
{
	return n->path;
}

const char *config_string(struct config_node *n, const char *key)
{
	n = n ? tree_find(n, key) : NULL;
	if (!n)
		return NULL;
	return n->value ? n->value : n->raw;
}

bool config_is_set(struct config_node *n, const char *key)
{
	return config_string(n, key) != NULL;
}

bool config_bool(struct config_node *n, const char *key)
{
	const char *text = config_string(n, key);
	bool v = false;

	return text && !value_parse_bool(text, &v) && v;
}

uint64_t config_uint(struct config_node *n, const char *key)
{
	uint64_t v = 0;

	n = n ? tree_find(n, key) : NULL;
	if (!n || !n->raw)
		return 0;
	if (n->key)
		return n->number;
	/* Not frozen yet: the unit of a bare number is known where the key is. */
	if (value_parse_size(n->raw, schema_key(n) ? schema_key(n)->unit : 0, &v))
		return 0;
	return v;
}

bool config_uuid(struct config_node *n, const char *key, uint8_t out[16])
{
	const char *text = config_string(n, key);

	return text && !value_parse_uuid(text, out);
}
