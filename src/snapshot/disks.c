#include "snapshot/disks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "block/block.h"
#include "block/overlay.h"
#include "config/config.h"
#include "vm/vm.h"

/* ---- Saving ---------------------------------------------------------------- */

int disks_can_take(struct vm *vm, struct skep_error *e)
{
	const struct block *b;

	for (b = vm->disks; b; b = block_next(b)) {
		const struct image *im = block_image(b);

		if (!im->read_only && !image_is_overlay(im))
			return skep_fail(e, ENOTSUP, "--disks: %s, %s, is written to as it is; only an "
					 "overlay can keep what it was: start the machine with %s.overlay=FILE",
					 block_owner(b), im->name, block_owner(b));
	}
	return 0;
}

static int describe_one(struct manifest_disk *d, const struct manifest *m, const struct block *b,
			bool take, const char *path, struct skep_error *e)
{
	struct image *im = block_image(b);
	struct image_identity id;
	int err = im->ops->identify(im, &id, e);

	if (err)
		return err;
	*d = (struct manifest_disk){ .size = id.size, .kind = (uint8_t)id.kind, .inode = id.inode,
				     .changed_ns = id.changed_ns, .sequence = id.sequence,
				     .read_only = im->read_only };
	snprintf(d->device, sizeof(d->device), "%s", block_owner(b));
	memcpy(d->id, id.id, sizeof(d->id));
	if (!take || im->read_only)
		return 0;
	d->has_snapshot = true;
	memcpy(d->snapshot, m->id, sizeof(d->snapshot));
	return overlay_take(im, m->id, path, e);
}

int disks_describe(struct manifest *m, struct vm *vm, bool take, const char *path,
		   struct skep_error *e)
{
	struct manifest_disk *d;
	const struct block *b;
	unsigned n = 0;
	int err = 0;

	for (b = vm->disks; b; b = block_next(b))
		n++;
	if (!n)
		return 0;
	d = calloc(n, sizeof(*d));
	if (!d)
		return skep_fail(e, ENOMEM, "no memory for the manifest");
	m->disks.items = d;
	for (b = vm->disks; b && !err; b = block_next(b)) {
		err = describe_one(&d[m->disks.count], m, b, take, path, e);
		m->disks.count += !err;
	}
	return err;
}

int disks_flush(struct vm *vm, struct skep_error *e)
{
	struct block *b;

	for (b = vm->disks; b; b = block_next(b)) {
		int err = block_image(b)->read_only ? 0 : block_sync(b);

		if (err)
			return skep_fail(e, -err, "%s: %s cannot be flushed, so that a snapshot would not fit it: "
					 "%s", block_owner(b), block_image(b)->name, strerror(-err));
	}
	return 0;
}

static struct block *find_disk(const struct vm *vm, const char *device)
{
	struct block *b;

	for (b = vm->disks; b; b = block_next(b))
		if (!strcmp(block_owner(b), device))
			return b;
	return NULL;
}

void disks_end(struct vm *vm, const struct manifest *m, const char *path, bool commit)
{
	const struct manifest_disk *d = m->disks.items;
	struct skep_error e = { "" };
	uint32_t i;

	for (i = 0; i < m->disks.count; i++) {
		struct block *b = d[i].has_snapshot ? find_disk(vm, d[i].device) : NULL;

		if (!b)
			continue;
		if (!commit)
			overlay_drop(block_image(b), d[i].snapshot, &e);
		else if (path)
			overlay_drop_label(block_image(b), path, d[i].snapshot);
	}
}

/* ---- Restoring -------------------------------------------------------------- */

/* What the snapshot's machine had under device.key; NULL: nothing. */
static const struct manifest_setting *saved_setting(const struct manifest *m, const char *device,
						    const char *key)
{
	const struct manifest_setting *s = m->config.items;
	size_t n = strlen(device);
	uint32_t i;

	for (i = 0; i < m->config.count; i++)
		if (!strncmp(s[i].key, device, n) && s[i].key[n] == '.' && !strcmp(s[i].key + n + 1, key) &&
		    s[i].value.len)
			return &s[i];
	return NULL;
}

static bool is_value(const struct manifest_setting *s, const char *value)
{
	return s && s->value.len == strlen(value) && !memcmp(s->value.data, value, s->value.len);
}

static int set_key(struct config *c, const char *device, const char *key, const char *value,
		   struct skep_error *e)
{
	char full[96];

	snprintf(full, sizeof(full), "%.40s.%s", device, key);
	return config_set_literal(c, full, value, "restore", e);
}

/* The overlay that was saved with, and the snapshot in it. */
static int set_from(struct config *c, const struct manifest_disk *d,
		    const struct manifest_setting *overlay, struct skep_error *e)
{
	char id[2 * IMAGE_ID_SIZE + 1], *text;
	int err;

	image_id_print(d->snapshot, id);
	text = malloc(overlay->value.len + sizeof(id) + 2);
	if (!text)
		return skep_fail(e, ENOMEM, "no memory for a restore");
	sprintf(text, "%.*s@%s", (int)overlay->value.len, (const char *)overlay->value.data, id);
	err = set_key(c, d->device, "from", text, e);
	free(text);
	return err;
}

static int configure_disk(struct config *c, struct config *final, const struct manifest *m,
			  const struct manifest_disk *d, bool clone, struct skep_error *e)
{
	const struct manifest_setting *was = saved_setting(m, d->device, "overlay");
	struct config_node *n = config_find(final, d->device);
	const char *overlay = n ? config_string(n, "overlay") : NULL;
	int err = 0;

	if (d->read_only)
		return 0;
	if (!overlay || !*overlay || is_value(was, overlay))
		return clone ? skep_fail(e, EBUSY, "%s: a clone may not write to the disk of another machine; "
					 "give each an overlay, as in -o %s.overlay=/tmp/%%(name).overlay",
					 d->device, d->device) : 0;
	/* Another overlay than it was: it begins here. */
	if (was && !d->has_snapshot)
		return skep_fail(e, EINVAL, "%s.overlay: the disk was saved without a snapshot of it, so that "
				 "nothing but its own overlay, %.*s, goes with the memory; save with --disks",
				 d->device, (int)was->value.len, (const char *)was->value.data);
	if (was)
		err = set_from(c, d, was, e);
	return err ? err : set_key(c, d->device, "fresh", "true", e);
}

int disks_configure(struct config *c, struct config *final, const struct manifest *m, bool clone,
		    struct skep_error *e)
{
	const struct manifest_disk *d = m->disks.items;
	uint32_t i;
	int err = 0;

	for (i = 0; i < m->disks.count && !err; i++)
		err = configure_disk(c, final, m, &d[i], clone, e);
	return err;
}

static int fail_changed(const struct manifest_disk *d, const struct image *im, const char *why,
			struct skep_error *e)
{
	return skep_fail(e, ESTALE, "%s: %s is not the disk as it was when the machine was saved: %s.  What "
			 "the guest remembers of it would be wrong and destroy its file systems; with "
			 "--disks=any it is restored all the same", d->device, im->name, why);
}

static int compare_disk(const struct manifest_disk *d, struct image *im, struct skep_error *e)
{
	struct image_identity was = { .kind = d->kind, .size = d->size, .inode = d->inode,
				      .changed_ns = d->changed_ns, .sequence = d->sequence }, is;
	struct skep_error why = { "" };
	int err = im->ops->identify(im, &is, e);

	if (err)
		return err;
	memcpy(was.id, d->id, sizeof(was.id));
	return image_compare(&was, &is, &why) < 0 ? fail_changed(d, im, why.text, e) : 0;
}

static int restore_disk(struct vm *vm, const struct manifest_disk *d, bool any, struct skep_error *e)
{
	struct block *b = find_disk(vm, d->device);
	struct config_node *n;
	struct image *im;

	if (!b)
		return skep_fail(e, EPROTO, "manifest: there is no disk %s in this machine", d->device);
	im = block_image(b);
	n = config_find(vm->config, d->device);
	/* A new overlay over what was saved: opening it has compared them. */
	if (config_bool(n, "fresh") && config_is_set(n, "from"))
		return 0;
	if (d->has_snapshot && image_is_overlay(im)) {
		struct skep_error why = { "" };
		int err = overlay_revert(im, d->snapshot, &why);

		return !err || any ? 0 : fail_changed(d, im, why.text, e);
	}
	if (any)
		return 0;
	if (!config_bool(n, "fresh"))
		return compare_disk(d, im, e);
	/* A new overlay over a disk that had none: that one must be as it was. */
	return compare_disk(d, overlay_under(im), e);
}

int disks_restore(struct vm *vm, const struct manifest *m, bool any, struct skep_error *e)
{
	const struct manifest_disk *d = m->disks.items;
	uint32_t i;
	int err = 0;

	for (i = 0; i < m->disks.count && !err; i++)
		err = restore_disk(vm, &d[i], any, e);
	return err;
}
