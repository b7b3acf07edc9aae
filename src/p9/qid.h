/*
 * qids: one number a file, whatever file system it is on.
 *
 * A path is (number << 48 | the low 48 bits of the inode), where the number stands for the pair of
 * device and high 16 bits of the inode, given out in the order in which they are met; 0 is the
 * exported directory's device with high bits of 0.  So no two files share one, and the table has
 * at most 65536 entries whatever a client makes.
 */
#ifndef SKEP_P9_QID_H
#define SKEP_P9_QID_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define P9_PREFIXES_MAX	65536u

struct p9_prefix {
	uint64_t dev;
	uint16_t high;		/* of the inode */
};

struct p9_qids {
	pthread_mutex_t lock;
	struct p9_prefix *prefix;
	uint32_t n, room;
	uint64_t root_dev;	/* prefix[0].dev, for a look without the lock */
};

int p9_qids_init(struct p9_qids *q, uint64_t root_dev);	/* 0 or -ENOMEM */
void p9_qids_finish(struct p9_qids *q);
/* -ENOSPC: the table is full. Any thread. */
int p9_qid_path(struct p9_qids *q, uint64_t dev, uint64_t ino, uint64_t *path);
/* Restoring: number i stands for this pair; those before it are known. */
int p9_qids_set(struct p9_qids *q, uint32_t i, const struct p9_prefix *p);

#endif
