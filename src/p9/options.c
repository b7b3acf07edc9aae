/* Options of a share, as text: the same for a device's keys and for `skep 9pserve`. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "p9/server.h"

void p9_options_init(struct p9_options *o)
{
	*o = (struct p9_options){ .cache = true, .msize = 1024 * 1024, .fids = 262144, .files = 0,
				  .requests = 1024, .workers = 4 };
}

/* Decimal digits up to one of `ends` or the end of the text. */
static bool number(const char **text, const char *ends, uint32_t *out)
{
	char *end;
	unsigned long long v;

	if (**text < '0' || **text > '9')
		return false;
	errno = 0;
	v = strtoull(*text, &end, 10);
	if (errno || v >= UINT32_MAX || (*end && !strchr(ends, *end)))
		return false;
	*out = (uint32_t)v;
	*text = end;
	return true;
}

/* host:guest:count, several with '+' between them. */
static int set_map(struct p9_options *o, const char *text, struct skep_error *e)
{
	const char *p = text;

	o->nmap = 0;
	for (;;) {
		struct p9_idmap m;
		bool good = number(&p, ":", &m.host) && *p++ == ':' && number(&p, ":", &m.guest) &&
			*p++ == ':' && number(&p, "+", &m.count);

		if (!good || !m.count || m.count > UINT32_MAX - MAX(m.host, m.guest))
			return skep_fail(e, EINVAL, "map: want HOST:GUEST:COUNT, as in 1000:0:1, several with "
					 "+ between them, and not \"%s\"", text);
		if (o->nmap == P9_MAPS_MAX)
			return skep_fail(e, EINVAL, "map: at most %d of them", P9_MAPS_MAX);
		o->map[o->nmap++] = m;
		if (!*p)
			return 0;
		p++;
	}
}

static int set_squash(struct p9_options *o, const char *text, struct skep_error *e)
{
	const char *p = text;

	if (!number(&p, ":", &o->squash_uid) ||
	    (*p == ':' && (p++, !number(&p, "", &o->squash_gid))))
		return skep_fail(e, EINVAL, "squash: want UID:GID, and not \"%s\"", text);
	if (!strchr(text, ':'))
		o->squash_gid = o->squash_uid;
	o->squash = true;
	return 0;
}

static int set_choice(const char *key, const char *value, const char *const *names, unsigned *out,
		      struct skep_error *e)
{
	for (unsigned i = 0; names[i]; i++) {
		if (!strcmp(names[i], value)) {
			*out = i;
			return 0;
		}
	}
	return skep_fail(e, EINVAL, "%s: want %s, %s%s%s, and not \"%s\"", key, names[0], names[1],
			 names[2] ? " or " : "", names[2] ? names[2] : "", value);
}

static int set_number(const char *key, const char *value, uint32_t min, uint32_t max, uint32_t *out,
		      struct skep_error *e)
{
	const char *p = value;
	uint32_t v;

	if (!number(&p, "", &v) || v < min || v > max)
		return skep_fail(e, EINVAL, "%s: want a number from %u to %u, and not \"%s\"", key, min, max,
				 value);
	*out = v;
	return 0;
}

int p9_option_set(struct p9_options *o, const char *key, const char *value, struct skep_error *e)
{
	static const char *const security[] = { "mapped-xattr", "passthrough", "none", NULL };
	static const char *const multidevs[] = { "remap", "forbid", "warn", NULL };
	static const char *const yes[] = { "false", "true", NULL };
	static const char *const cache[] = { "none", "auto", NULL };
	unsigned choice = 0;
	int err;

	value = value ? value : "";
	if (!strcmp(key, "ro")) {
		err = set_choice(key, *value ? value : "true", yes, &choice, e);
		o->ro = choice;
	} else if (!strcmp(key, "security")) {
		err = set_choice(key, !strcmp(value, "mapped") ? "mapped-xattr" : value, security, &choice,
				 e);
		o->security = choice;
	} else if (!strcmp(key, "multidevs")) {
		err = set_choice(key, value, multidevs, &choice, e);
		o->multidevs = choice;
	} else if (!strcmp(key, "cache")) {
		err = set_choice(key, value, cache, &choice, e);
		o->cache = choice;
	} else if (!strcmp(key, "squash")) {
		err = set_squash(o, value, e);
	} else if (!strcmp(key, "map")) {
		err = set_map(o, value, e);
	} else if (!strcmp(key, "msize")) {
		err = set_number(key, value, P9_MSIZE_MIN, 16 * 1024 * 1024, &o->msize, e);
	} else if (!strcmp(key, "fids")) {
		err = set_number(key, value, 16, 1u << 24, &o->fids, e);
	} else if (!strcmp(key, "files")) {
		err = set_number(key, value, 16, 1u << 24, &o->files, e);
	} else if (!strcmp(key, "workers")) {
		err = set_number(key, value, 1, P9_WORKERS_MAX, &o->workers, e);
	} else {
		err = skep_fail(e, ENOENT, "there is no option \"%s\" of a share; there are ro, security, "
				"multidevs, cache, squash, map, msize, fids, files and workers", key);
	}
	return err;
}
