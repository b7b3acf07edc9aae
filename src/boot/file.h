/*
 * A kernel or initrd.
 *
 * A regular file stays open and is read straight into guest memory at every
 * reset: no copy of our own, and a file that somebody cuts short gives a
 * sentence, not a signal.  A pipe is read to its end once, and an image that
 * was built in is borrowed.
 */
#ifndef SKEP_BOOT_FILE_H
#define SKEP_BOOT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct boot_file {
	const char *key;	/* "boot.kernel", for sentences; borrowed */
	char *path;		/* owned */
	uint64_t size;		/* bytes */
	int fd;			/* -1: the bytes are in data */
	uint8_t *data;		/* owned unless borrowed */
	bool borrowed;
};

/* limit: a pipe that gives more bytes than this is refused. */
int boot_file_open(struct boot_file *f, const char *key, const char *path, uint64_t limit,
		   struct skep_error *e);
int boot_file_borrow(struct boot_file *f, const char *key, const char *path,
		     const uint8_t *data, size_t size, struct skep_error *e);
/* A zeroed boot_file is fine. */
void boot_file_close(struct boot_file *f);
/* All of [offset, offset + len), or an error sentence. */
int boot_file_read(const struct boot_file *f, uint64_t offset, void *buf, size_t len,
		   struct skep_error *e);

#endif
