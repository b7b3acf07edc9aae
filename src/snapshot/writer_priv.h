/* The writer's inside, in two files: writer.c and writer_ram.c. */
#ifndef SKEP_SNAPSHOT_WRITER_PRIV_H
#define SKEP_SNAPSHOT_WRITER_PRIV_H

#include "base/util.h"
#include "snapshot/container.h"
#include "snapshot/writer.h"

struct snap_notes {
	uint8_t *data;
	size_t len, cap;
};

struct snap_ram_batch;

struct snap_writer {
	int fd;			/* borrowed */
	bool runs_wanted, whole;
	struct snap_region region[SNAP_REGIONS_MAX];
	unsigned nregions, ncpus;
	uint64_t end;		/* plain: end of RAM; else where the next run is stored */
	uint64_t next_gpa;	/* chunks come by rising address */
	uint64_t bytes;
	struct snap_hash *hash;
	struct snap_notes core, skep;

	uint64_t *sums;		/* plain */
	size_t nchunks;
	struct snap_run *runs;	/* not plain */
	size_t nruns, runs_cap;
	struct snap_ram_batch *batch;
};

/* A note of others: before ours, in this order. */
int snap_writer_foreign(struct snap_writer *w, const char *name, uint32_t type, const void *data,
			size_t len, struct skep_error *e);
int snap_writer_ram_init(struct snap_writer *w, const struct snap_layout *l);	/* -ENOMEM */
void snap_writer_ram_finish(struct snap_writer *w);

#endif
