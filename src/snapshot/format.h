/*
 * The snapshot file: an ELF64 core file.  doc/skep-snapshot.5 is the reference, from which
 * another implementation could be written; this header names its constants.
 *
 *	ELF header, program headers				at 0
 *	RAM							from RAM_CHUNK on (plain), or from 4 KiB on
 *	notes (one PT_NOTE)					after RAM
 *
 * A plain file has one PT_LOAD a RAM region, at a 2 MiB-aligned offset, with holes for what is
 * zero.  In any other file (compressed, delta, or both) RAM lies in runs that the page table
 * note describes, and no PT_LOAD claims it.
 */
#ifndef SKEP_SNAPSHOT_FORMAT_H
#define SKEP_SNAPSHOT_FORMAT_H

#include <stdint.h>

#define SNAP_FORMAT	1		/* version of the container, in the manifest */
#define SNAP_NOTE_NAME	"SKEP"

/*
 * Types of these notes, in their order in the file.  Not small numbers: readers of core files
 * take a note of type 2 for floating-point registers, whatever its name.
 */
enum snap_note {
	SNAP_NOTE_MANIFEST = 0x534b4501, /* the first one: CBOR record "manifest" */
	SNAP_NOTE_RECORD = 0x534b4502,	/* CBOR record, one a note */
	/* plain: 8 bytes a chunk, XXH3_64bits of its bytes; 0: all zero; a sum of 0 counts as 1 */
	SNAP_NOTE_CHECKSUMS = 0x534b4503,
	SNAP_NOTE_PAGES = 0x534b4504,	/* not plain: struct snap_run, by rising gpa */
	SNAP_NOTE_END = 0x534b4505,	/* the last one: struct snap_end */
};

/* Little-endian, as everything here. */
struct snap_run {
	uint64_t gpa, len;		/* page aligned; within one chunk */
	uint64_t offset, stored;	/* where its bytes lie in the file, and how many */
	uint32_t encoding;		/* enum snap_encoding */
	uint32_t reserved;		/* 0 */
	uint64_t checksum;		/* XXH3_64bits of the len bytes of RAM; zero runs: 0 */
};

enum snap_encoding {
	SNAP_RAW = 0,			/* page aligned in the file */
	SNAP_ZSTD = 1,			/* one frame, shorter than the run */
	SNAP_ZERO = 2,			/* in a delta only; nothing stored: offset, stored are 0 */
};

#define SNAP_DIGEST_SIZE 16
#define SNAP_CHAIN_MAX	32		/* files in a chain of deltas */

struct snap_end {
	uint8_t digest[SNAP_DIGEST_SIZE];	/* XXH3_128bits, canonical, over headers and notes before */
};

#endif
