/*
 * A gzip initrd is checked while the machine starts: this takes far longer
 * than the first guest instruction may, and far less than a kernel needs to
 * come to unpacking it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "boot/image.h"
#include "vm/vm.h"

#define IN_SIZE		(64 * KiB)
#define OUT_SIZE	(256 * KiB)

struct buffers {
	uint8_t in[IN_SIZE], out[OUT_SIZE];
};

/* Fills the input; the end of the file comes too early here. */
static int refill(struct inflate_check *c, z_stream *z, struct buffers *b, struct skep_error *e)
{
	size_t len = MIN(c->file->size - c->at, (uint64_t)IN_SIZE);
	int r;

	if (!len)
		return skep_fail(e, ENOEXEC, "%s: '%s' is truncated: its gzip stream goes on after "
				 "byte %llu, where the file ends: build it again", c->file->key,
				 c->file->path, (unsigned long long)c->file->size);
	r = boot_file_read(c->file, c->at, b->in, len, e);
	if (r)
		return r;
	c->at += len;
	z->next_in = b->in;
	z->avail_in = len;
	return 0;
}

static int inflate_all(struct inflate_check *c, z_stream *z, struct buffers *b,
		       struct skep_error *e)
{
	int r;

	do {
		if (atomic_load(&c->stop))
			return 0;
		if (!z->avail_in) {
			r = refill(c, z, b, e);
			if (r)
				return r;
		}
		z->next_out = b->out;
		z->avail_out = OUT_SIZE;
		r = inflate(z, Z_NO_FLUSH);
		if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
			return skep_fail(e, ENOEXEC, "%s: '%s' is damaged before byte %llu (gzip: %s): build "
					 "it again", c->file->key, c->file->path,
					 (unsigned long long)(c->at - z->avail_in),
					 z->msg ? z->msg : "no memory left");
	} while (r != Z_STREAM_END);
	return 0;
}

/* One stream: what follows it is the kernel's business. */
static int check(struct inflate_check *c, struct skep_error *e)
{
	struct buffers *b = malloc(sizeof(*b));
	z_stream z = { 0 };
	int r = -ENOMEM;

	/* 16 + 15: gzip header, the largest window. */
	if (b && inflateInit2(&z, 16 + 15) == Z_OK) {
		r = inflate_all(c, &z, b, e);
		inflateEnd(&z);
	} else {
		skep_fail(e, ENOMEM, "%s: no memory left to check '%s'", c->file->key, c->file->path);
	}
	free(b);
	return r;
}

static void *inflate_thread(void *opaque)
{
	struct inflate_check *c = opaque;
	struct skep_error e = { .text = "" };

	if (check(c, &e))
		vm_request_error(c->vm, "%s", e.text);
	return NULL;
}

int inflate_start(struct inflate_check *c, struct vm *vm, const struct boot_file *f, uint64_t at,
		  struct skep_error *e)
{
	int r;

	c->vm = vm;
	c->file = f;
	c->at = at;
	r = pthread_create(&c->thread, NULL, inflate_thread, c);
	if (r)
		return skep_fail(e, r, "%s: cannot start a thread to check '%s': %s", f->key, f->path,
				 strerror(r));
	c->started = true;
	return 0;
}

void inflate_stop(struct inflate_check *c)
{
	if (!c->started)
		return;
	atomic_store(&c->stop, true);
	pthread_join(c->thread, NULL);
	c->started = false;
}
