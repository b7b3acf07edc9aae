/* virtio-blk (VIRTIO 1.2, section 5.2): what blk.c and blk_state.c share. */
#ifndef SKEP_VIRTIO_BLK_H
#define SKEP_VIRTIO_BLK_H

#include "block/block.h"
#include "virtio/virtio.h"
#include "vm/event.h"

#define BLK_QUEUES_MAX	16u
#define BLK_QUEUE_SIZE	256u
#define BLK_SERIAL	20u		/* bytes, 5.2.6 */
#define BLK_SEGS	64u		/* ranges of a discard or write-zeroes request */
#define BLK_RANGE_MAX	(1u << 21)	/* sectors of such a range: 1 GiB */
#define BLK_SIZE_MAX	(1u << 20)	/* bytes of a segment */
#define BLK_IOV		(VIRTQ_SIZE_MAX + 1)

/* Feature bits, 5.2.3. */
#define VIRTIO_BLK_F_SIZE_MAX		BIT(1)
#define VIRTIO_BLK_F_SEG_MAX		BIT(2)
#define VIRTIO_BLK_F_RO			BIT(5)
#define VIRTIO_BLK_F_BLK_SIZE		BIT(6)
#define VIRTIO_BLK_F_FLUSH		BIT(9)
#define VIRTIO_BLK_F_TOPOLOGY		BIT(10)
#define VIRTIO_BLK_F_CONFIG_WCE		BIT(11)
#define VIRTIO_BLK_F_MQ			BIT(12)
#define VIRTIO_BLK_F_DISCARD		BIT(13)
#define VIRTIO_BLK_F_WRITE_ZEROES	BIT(14)

/* Requests and answers, 5.2.6. */
#define VIRTIO_BLK_T_IN			0
#define VIRTIO_BLK_T_OUT		1
#define VIRTIO_BLK_T_FLUSH		4
#define VIRTIO_BLK_T_GET_ID		8
#define VIRTIO_BLK_T_DISCARD		11
#define VIRTIO_BLK_T_WRITE_ZEROES	13

#define VIRTIO_BLK_S_OK			0
#define VIRTIO_BLK_S_IOERR		1
#define VIRTIO_BLK_S_UNSUPP		2

struct blk_header {
	uint32_t type, reserved;
	uint64_t sector;
};

struct blk_range {		/* of a discard or write-zeroes request */
	uint64_t sector;
	uint32_t sectors, flags;
};

/* The configuration as the driver reads it, 5.2.4: little-endian and without gaps. */
struct blk_config {
	uint64_t capacity;		/* in 512-byte sectors */
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
	uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__((packed));
_Static_assert(sizeof(struct blk_config) == 60, "the layout of 5.2.4");

/* Where a request is. */
enum blk_stage {
	BLK_DISK,	/* with the backend */
	BLK_HELD,	/* given back by it while the machine stands: goes there again at resume */
	BLK_ENDED,	/* clock=virtual: done, and to be seen by the guest at `due` */
};

struct blk_request {
	struct block_request r;
	struct blk *b;
	struct blk_request *next;	/* in one of the lists */
	uint16_t queue;
	enum blk_stage stage;
	uint32_t type;			/* VIRTIO_BLK_T_ */
	uint64_t sector;
	bool flushing;			/* the flush that follows a write in write-through mode */
	uint8_t status;			/* VIRTIO_BLK_S_ */
	unsigned nranges, at;		/* discard, write-zeroes */
	int64_t due;			/* guest ns; BLK_ENDED */
	uint64_t order;			/* of submission: breaks ties of due */
	struct virtq_chain chain;
	struct iovec iov[BLK_IOV];
	struct blk_range range[BLK_SEGS];
};

struct blk {
	struct virtio v;		/* first */
	struct block *disk;
	bool writeback;			/* what the driver chose; CONFIG_WCE */
	uint64_t capacity;		/* sectors, as the driver knows it */
	uint32_t blk_size;
	uint8_t physical_exp;
	char serial[BLK_SERIAL];
	uint64_t signal;		/* queues that have something to tell, a bit each */
	bool dropping;			/* reset: what comes back is forgotten */
	uint64_t orders;
	struct vm_timer timer;		/* clock=virtual: the next that ends */
	struct blk_request *held;	/* in order of submission */
	struct blk_request *ended;	/* by due and order */
	struct blk_request *spare;
};

/* A request that goes on (resume, restore): from its chain, as it was popped. Device lock. */
void blk_start(struct blk *b, struct blk_request *rq);
/* Puts it where its due time says, and sees to the timer. */
void blk_await(struct blk *b, struct blk_request *rq);
struct blk_request *blk_request_get(struct blk *b);
void blk_request_put(struct blk *b, struct blk_request *rq);

/* blk_state.c: what a save carries. */
void blk_export(const struct virtio *v, void *model);
int blk_validate(const struct virtio *v, const void *model, struct skep_error *e);
void blk_commit(struct virtio *v, const void *model);

#endif
