/*
 * Writes a snapshot into a file.  RAM first, by rising address, then notes, then the headers.
 * One thread; blocking.  Everything that fails names its cause, and the file is worthless then.
 */
#ifndef SKEP_SNAPSHOT_WRITER_H
#define SKEP_SNAPSHOT_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "snapshot/format.h"
#include "vm/cut.h"

struct snap_layout {
	struct { uint64_t gpa, size; } region[2];
	unsigned nregions;
	bool runs;		/* a page table: compressed, or a delta */
	/*
	 * runs: all of RAM, not a delta.  What is not there is zero then, and many small runs of
	 * a chunk may become one.  Left false, each run is written as it is there.
	 */
	bool whole;
	int zstd_level;		/* 0: not compressed */
};

struct snap_regs {		/* of one processor, for NT_PRSTATUS (SysV ABI's user_regs order inside) */
	uint64_t gpr[16];	/* REG_RAX ... REG_R15 */
	uint64_t rip, rflags, fs_base, gs_base;
	uint16_t cs, ss, ds, es, fs, gs;
};

struct snap_writer;

/* fd: an empty regular file, open for reading and writing; borrowed. */
struct snap_writer *snap_writer_create(int fd, const struct snap_layout *l, struct skep_error *e);
/* The next chunk.  Of a plain file: what is not there is a hole. */
int snap_writer_ram(struct snap_writer *w, const struct ram_chunk *c, struct skep_error *e);
/* The manifest first, then the records, in this order in the file; copied. */
int snap_writer_note(struct snap_writer *w, enum snap_note type, const void *data, size_t len,
		     struct skep_error *e);
int snap_writer_cpu(struct snap_writer *w, const struct snap_regs *r, struct skep_error *e);
/* VMCOREINFO as the guest gave it. */
int snap_writer_vmcoreinfo(struct snap_writer *w, const void *data, size_t len,
			   struct skep_error *e);
/* Writes tables, notes, end mark and headers; digest gets the end mark's.  No fsync. */
int snap_writer_finish(struct snap_writer *w, uint8_t digest[SNAP_DIGEST_SIZE],
		       struct skep_error *e);
uint64_t snap_writer_bytes(const struct snap_writer *w);	/* written so far, without holes */
void snap_writer_destroy(struct snap_writer *w);	/* NULL is fine */

#endif
