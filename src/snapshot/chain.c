/*
 * The parents of a delta.  Where a parent lies is a hint; its digest decides.
 */
#include "snapshot/reader_priv.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* The directory of child and a name, "" when it is too long. */
static void beside(char out[PATH_MAX], const char *child, const char *name, size_t len)
{
	const char *slash = strrchr(child, '/');
	int n = slash ? slash - child + 1 : 0;

	if (snprintf(out, PATH_MAX, "%.*s%.*s", n, child, (int)len, name) >= PATH_MAX)
		out[0] = '\0';
}

/* Places to look at: as the manifest says (a relative path: from the child on), and beside it. */
static unsigned candidates(char place[2][PATH_MAX], const struct snap_reader *r)
{
	const struct state_blob *p = &r->manifest.parent_path;
	const char *path = (const char *)p->data, *name;
	unsigned n = 0;

	if (!p->len || p->len >= PATH_MAX)
		return 0;
	if (path[0] == '/')
		snprintf(place[0], PATH_MAX, "%.*s", (int)p->len, path);
	else
		beside(place[0], r->path, path, p->len);
	n += place[0][0] != '\0';
	name = memrchr(path, '/', p->len);
	name = name ? name + 1 : path;
	if (name == path + p->len)
		return n;
	beside(place[n], r->path, name, p->len - (name - path));
	return n + (place[n][0] && (!n || strcmp(place[0], place[1])));
}

static struct snap_reader *try_parent(const struct snap_reader *r, const char *path,
				      struct skep_error *e)
{
	struct snap_reader *parent;
	int fd = snap_open_file(path, e);

	if (fd < 0)
		return NULL;
	parent = snap_open_one(fd, path, e);
	if (parent && memcmp(parent->digest, r->manifest.parent, SNAP_DIGEST_SIZE)) {
		snap_close(parent);
		skep_fail(e, EBADMSG, "is another snapshot");
		return NULL;
	}
	return parent;
}

static int find_parent(struct snap_reader *r, struct skep_error *e)
{
	char (*place)[PATH_MAX] = malloc(2 * PATH_MAX);
	struct skep_error why[2] = { 0 };
	unsigned n, i;
	int err = 0;

	if (!place)
		return skep_fail(e, ENOMEM, "%s: no memory left to find its parent", r->path);
	n = candidates(place, r);
	for (i = 0; i < n && !r->parent; i++)
		r->parent = try_parent(r, place[i], &why[i]);
	if (!r->parent && !n)
		err = skep_fail(e, ENOENT, "%s: is a delta, and does not say where its parent is",
				r->path);
	else if (!r->parent && n == 1)
		err = skep_fail(e, ENOENT, "%s: its parent is missing: '%s': %s", r->path, place[0],
				why[0].text);
	else if (!r->parent)
		err = skep_fail(e, ENOENT, "%s: its parent is missing: '%s': %s; '%s': %s", r->path,
				place[0], why[0].text, place[1], why[1].text);
	free(place);
	return err;
}

static int same_machine(const struct snap_reader *r, struct skep_error *e)
{
	const struct snap_reader *p = r->parent;
	const char *what = NULL;
	unsigned i;

	if (p->nregions != r->nregions)
		what = "RAM";
	for (i = 0; !what && i < r->nregions; i++)
		if (p->region[i].size != r->region[i].size)
			what = "RAM";
	if (p->manifest.cpus != r->manifest.cpus ||
	    strcmp(p->manifest.cpu_model, r->manifest.cpu_model))
		what = "processors";
	if (what)
		return skep_fail(e, EBADMSG, "%s: its parent '%s' is of a machine with other %s",
				 r->path, p->path, what);
	return 0;
}

int snap_open_chain(struct snap_reader *r, struct skep_error *e)
{
	struct snap_reader *f, *g;
	uint64_t notes = r->notes_len;
	unsigned depth = 1;
	int err;

	for (f = r; f->manifest.delta; f = f->parent) {
		for (g = r; ; g = g->parent) {
			if (!memcmp(g->digest, f->manifest.parent, SNAP_DIGEST_SIZE))
				return skep_fail(e, ELOOP, "%s: it is the parent of its own parent '%s'",
						 g->path, f->path);
			if (g == f)
				break;
		}
		if (++depth > SNAP_CHAIN_MAX)
			return skep_fail(e, ELOOP, "%s: has more than %d parents, of which '%s' is the "
					 "last: make a plain file of a nearer one with 'skep snapshot "
					 "flatten'", r->path, SNAP_CHAIN_MAX - 1, f->path);
		err = find_parent(f, e);
		if (!err)
			err = same_machine(f, e);
		if (err < 0)
			return err;
		notes += f->parent->notes_len;
		if (notes > SNAP_CHAIN_NOTES_MAX)
			return skep_fail(e, EFBIG, "%s: it and its parents have more than %llu MiB of "
					 "notes", r->path,
					 (unsigned long long)(SNAP_CHAIN_NOTES_MAX / MiB));
	}
	return 0;
}

/* ---- What a new delta would be based on --------------------------------- */

static bool same_file(const struct snap_reader *r, const struct stat *st)
{
	struct stat mine;

	return fstat(r->fd, &mine) == 0 && mine.st_dev == st->st_dev && mine.st_ino == st->st_ino;
}

static int check_base(const struct snap_reader *base, const uint8_t digest[SNAP_DIGEST_SIZE],
		      const char *target, struct skep_error *e)
{
	const struct snap_reader *r;
	unsigned depth = 0;
	struct stat st;
	bool there = target && stat(target, &st) == 0;

	if (memcmp(base->digest, digest, SNAP_DIGEST_SIZE))
		return skep_fail(e, EBADMSG, "%s: is another snapshot now", base->path);
	for (r = base; r; r = r->parent, depth++)
		if (there && same_file(r, &st))
			return skep_fail(e, EINVAL, "%s: is the file to write, too; choose another name", r->path);
	if (depth >= SNAP_CHAIN_MAX)
		return skep_fail(e, ELOOP, "%s: has %u parents already, which is the most",
				 base->path, depth - 1);
	return 0;
}

int snap_check_base(const char *path, const uint8_t digest[SNAP_DIGEST_SIZE], const char *target,
		    struct skep_error *e)
{
	struct snap_reader *base = snap_open(path, 0, e);
	int err;

	if (!base)
		return -errno;
	err = check_base(base, digest, target, e);
	snap_close(base);
	return err;
}
