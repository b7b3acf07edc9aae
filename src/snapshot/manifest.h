/* The manifest: what a snapshot is, as a record like the others (state/state.h). */
#ifndef SKEP_SNAPSHOT_MANIFEST_H
#define SKEP_SNAPSHOT_MANIFEST_H

#include "snapshot/format.h"
#include "state/state.h"

#define MANIFEST_TEXT	64
#define MANIFEST_WRITTEN_MAX (512u * 1024)	/* bytes */

struct manifest_region {	/* a region of RAM */
	uint64_t gpa, size;
};

struct manifest_setting {	/* one setting of the configuration tree */
	char key[128];
	struct state_blob value;	/* text without a NUL */
};

struct manifest_leaf {		/* what CPUID answers; sub 0xffffffff: no sub-leaves */
	uint32_t leaf, sub, eax, ebx, ecx, edx;
};

/* How a disk is known again (block/image.h: image_identity), as it was at the moment of the save. */
struct manifest_disk {
	char device[32];		/* "pci.0.3.0" */
	uint64_t size;			/* bytes */
	uint8_t kind;			/* enum image_kind */
	bool read_only;
	uint64_t inode;			/* of a file */
	int64_t changed_ns;		/* a file's time of its last change, since the Epoch */
	uint8_t id[16];			/* of an overlay */
	uint64_t sequence;		/* an overlay's count of changes */
	bool has_snapshot;		/* the overlay keeps the disk as it was, under this id: */
	uint8_t snapshot[16];
};

struct manifest {
	uint32_t format;		/* SNAP_FORMAT */
	uint32_t generation;
	bool draft;			/* of a generation that may still change */
	char writer[MANIFEST_TEXT];	/* "skep 0.1.0" */
	char name[MANIFEST_TEXT];	/* of the machine */
	uint8_t id[16];			/* random; host */
	bool delta;
	uint8_t parent[SNAP_DIGEST_SIZE];	/* delta: the digest in the parent's end mark */
	struct state_blob parent_path;	/* where the parent was found; host */
	int64_t host_wall_ns;		/* host's CLOCK_REALTIME at the cut, since the Epoch; host */
	int64_t guest_ns, guest_wall_ns;	/* guest time and wall clock at the cut */
	uint32_t tsc_khz;
	uint32_t insn_ps;
	bool virtual_clock;
	char cpu_model[MANIFEST_TEXT];
	struct state_list cpuid;	/* of struct manifest_leaf */
	uint32_t cpus;
	struct state_list regions;	/* of struct manifest_region */
	struct state_list config;	/* of struct manifest_setting */
	struct state_list disks;	/* of struct manifest_disk */
	/*
	 * Pages written between the snapshot before (or the restore) and this one, what the guest
	 * is likely to touch first: pairs of u32, page number and count, rising. May be empty.
	 */
	struct state_blob written;
};

extern const struct state_record manifest_record;

#endif
