/*
 * A page of guest RAM in which a device tells the guest something.
 *
 * Where it lies is firmware's choice, or on direct boot ours: the loader script allocates fw_cfg's
 * FILE, which is copied there, and writes the address to FILE's address file (tables.h).
 * Device lock held for everything.
 */
#ifndef SKEP_BOOT_PAGE_H
#define SKEP_BOOT_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define SHARED_PAGE_SIZE 4096

struct vm;

struct shared_page {
	struct vm *vm;
	const char *file, *address_file;	/* in fw_cfg; static */
};

/*
 * Makes both files, the page's full of zeroes; fw_cfg exists.  placed is called whenever the address
 * file was written, by the guest or by the loader: not for one that comes with a restored state.
 */
int shared_page_init(struct shared_page *p, struct vm *vm, const char *file,
		     const char *address_file, void (*placed)(void *opaque), void *opaque,
		     struct skep_error *e);
/* The machine was reset: it lies nowhere. */
void shared_page_reset(struct shared_page *p);
/* What is copied to where firmware will place it. [offset, offset+len) lies in the page. */
void shared_page_set(struct shared_page *p, size_t offset, const void *data, size_t len);
/*
 * Writes to guest memory, if it lies anywhere; a guest that said it lies where no RAM is gets
 * nothing.
 */
void shared_page_write(struct shared_page *p, size_t offset, const void *data, size_t len);

#endif
