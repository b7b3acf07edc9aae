/*
 * Guest-physical memory: RAM, ROM, and the one door through which devices
 * reach it.
 *
 * RAM is anonymous memory, after a restore with private mappings of the snapshot over it; nothing
 * relies on which.  Its first part lies at guest-physical 0 up to at most
 * RAM_LOW_MAX, the rest at 4 GiB and above.  0xa0000-0xbffff is never RAM to
 * the guest; 0xc0000-0xfffff follows the PAM registers (memory_set_pam).
 * Firmware ROM lies below 4 GiB and is aliased under the PAM window.
 *
 * Every page of RAM has a flag byte.  Whoever writes to RAM, by whatever way, calls
 * memory_will_write before the first byte changes, and afterwards, if PAGE_CODE or
 * PAGE_TABLE is set, makes the processors throw away what they made from it.
 *
 * The way to a byte of RAM is memory_page or the DMA view below: they fetch what is still
 * in a snapshot.  A cut (cut.h) is the third who reads RAM, and does the same.
 */
#ifndef SKEP_VM_MEMORY_H
#define SKEP_VM_MEMORY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "vm/sigbus.h"

#define GUEST_PAGE_SIZE	4096ull
#define RAM_LOW_MAX	0x80000000ull	/* 2 GiB: below it lies the PCI hole */
#define RAM_HIGH_BASE	0x100000000ull
#define RAM_SIZE_MIN	0x100000ull	/* 1 MiB: the PAM window lies over RAM */
#define RAM_SIZE_MAX	0x8000000000ull	/* 512 GiB: within 40 physical address bits */

/* Per-page flags, atomic bytes; see struct guest_memory.page_flags. */
#define PAGE_DIRTY	0x01	/* written since the flag was last cleared */
#define PAGE_CODE	0x02	/* a processor holds code decoded from it */
#define PAGE_TABLE	0x04	/* a processor holds translations made from it (clock=virtual) */
#define PAGE_TOUCHED	0x08	/* may not be zero: written, or stored where RAM came from; stays */
#define PAGE_FROZEN	0x10	/* a live cut has not copied it: copy it before the first write */

#define RAM_CHUNK	0x200000ull	/* 2 MiB: what is checked, loaded and compressed at a time; a large page */

struct vm;
struct ram_cut;
struct loop_watch;

struct mem_region {
	uint64_t gpa;		/* page aligned */
	uint64_t size;		/* bytes, page aligned */
	uint8_t *host;		/* start of the mapping in this process */
	size_t first_page;	/* index of its first page in page_flags */
};

/*
 * Where RAM is fetched from, chunk by chunk, when it is first looked at: compressed and delta
 * files, and files whose RAM is to be checked (restore --check=ram).
 */
struct memory_source {
	/*
	 * Fills a chunk (len bytes, zeroes so far) that lies at gpa.  Any thread, one call at a
	 * time.  A failure stops the machine with that sentence.
	 */
	int (*load)(void *opaque, uint64_t gpa, uint8_t *host, size_t len, struct skep_error *e);
	void (*release)(void *opaque);		/* at memory_finish, or when all has been loaded */
	void *opaque;
};

struct guest_memory {
	struct vm *vm;
	uint64_t size;		/* bytes of RAM in all */
	struct mem_region ram[2];	/* low, high */
	unsigned nram;
	_Atomic uint8_t *page_flags;	/* one byte a RAM page, both regions in turn */
	size_t npages;

	uint8_t *rom;		/* firmware image, NULL on direct boot */
	uint64_t rom_gpa, rom_size;

	/*
	 * RAM that is still to be fetched: a bit a chunk, by first_page; NULL without a source.
	 * The count is what everybody looks at; it is 0 in a machine that was not restored so.
	 */
	_Atomic size_t npending;
	_Atomic uint64_t *pending;
	struct memory_source source;	/* load_lock */
	bool has_source;		/* load_lock */
	pthread_mutex_t load_lock;	/* one chunk at a time; taken with any lock held */
	bool has_lock;
	struct skep_error load_error;	/* load_lock: of the first chunk that could not be fetched */
	_Atomic bool load_failed;

	/* Private mappings of files (memory_map_file). */
	struct sigbus_sink lost;	/* where they have been truncated */
	struct loop_watch *lost_watch;
	struct {		/* where they have been written to; fd -1: nobody can tell */
		int fd;			/* inotify's */
		int file;		/* the one that was watched last */
		struct loop_watch *watch;
		_Atomic bool seen;
	} changed;
	unsigned nmaps, max_maps;	/* pieces that they cut RAM into; what the host allows */
	struct { uint64_t gpa, offset; int fd; } map_end;	/* of the last one */

	_Atomic(struct ram_cut *) cut;	/* the live one that writers give copies to */
	_Atomic unsigned copiers;	/* writers that are about it now */
	_Atomic bool cutting;		/* there is a cut, live or not */

	/* PAM: for each 16 KiB of 0xc0000-0xfffff, PAM_READ | PAM_WRITE; both at first. */
	uint8_t pam[16];
};

#define PAM_READ	1	/* reads go to RAM, else to ROM (or all ones) */
#define PAM_WRITE	2	/* writes go to RAM, else are dropped */

/* What one guest-physical page is to a processor. */
struct mem_page {
	uint8_t *read;		/* NULL: not memory, go to the bus */
	uint8_t *write;		/* NULL: writes go to the bus (or are dropped for ROM) */
	_Atomic uint8_t *flags;	/* NULL for ROM */
	bool rom;		/* writes are dropped silently */
};

/*
 * Sizes in bytes; size must be a multiple of 4 KiB.  vm thread, before any vCPU.
 */
int memory_init(struct guest_memory *m, struct vm *vm, uint64_t size, struct skep_error *e);
void memory_finish(struct guest_memory *m);
/*
 * Firmware: size bytes from malloc, owned by the memory from now on, shown at
 * gpa (below 4 GiB); its last 128 KiB also below 1 MiB where PAM does not read
 * RAM.  vm thread, before any vCPU.
 */
int memory_set_rom(struct guest_memory *m, uint8_t *image, uint64_t gpa, uint64_t size,
		   struct skep_error *e);

/*
 * Looks one page up (gpa is rounded down), for reading.  Lock-free but where RAM is still to be
 * fetched from a snapshot (memory_source).  Any thread.
 */
struct mem_page memory_page(struct guest_memory *m, uint64_t gpa);
/*
 * Before the first write to a page through a TLB entry or a view: gives a live cut its copy and
 * sets PAGE_DIRTY and PAGE_TOUCHED.  Returns the flags as they were.  Any thread.
 */
uint8_t memory_will_write(struct guest_memory *m, _Atomic uint8_t *flags);

/* ---- RAM that comes from a snapshot ------------------------------------ */

/*
 * A stretch of a file that RAM is a private mapping of; page aligned.  Its pages count as
 * TOUCHED.  The file may be truncated or written to under us: the machine stops with a sentence
 * then, and what is saved meanwhile is refused.  The descriptor may be closed afterwards. Before any vCPU.
 */
int memory_map_file(struct guest_memory *m, uint64_t gpa, uint64_t len, int fd, uint64_t offset,
		    struct skep_error *e);
/*
 * The chunk at gpa is fetched from the source when it is first needed; and the source itself
 * (owned by the memory from now on, whatever is returned). Before any vCPU.
 */
int memory_set_source(struct guest_memory *m, const struct memory_source *s, struct skep_error *e);
void memory_set_pending(struct guest_memory *m, uint64_t gpa, uint64_t len);
/* Fetches what is pending in [gpa, gpa+len). Any thread. */
int memory_need(struct guest_memory *m, uint64_t gpa, uint64_t len, struct skep_error *e);
/*
 * Reads RAM in before it is needed (restore --prefault); own: and gives each page that may not be
 * zero a copy of its own, as the first write to it would (--prefetch). Any thread.
 */
int memory_prefault(struct guest_memory *m, uint64_t gpa, uint64_t len, bool own,
		    struct skep_error *e);
/* Has RAM been lost (a file that changed, a chunk that cannot be fetched)? e says how. Any thread. */
int memory_lost(struct guest_memory *m, struct skep_error *e);

/* PAM segment attribute change: bumps the processors' view (vm_flush_tlbs). Device lock. */
void memory_set_pam(struct guest_memory *m, unsigned segment, uint8_t attr);

/* Clears PAGE_DIRTY everywhere and makes the processors notice the next write. vCPUs stopped. */
void memory_clear_dirty(struct guest_memory *m);
uint64_t memory_count_dirty(const struct guest_memory *m);
/* Bytes of RAM in pages that have been written or are stored in the snapshot. Any thread. */
uint64_t memory_touched(const struct guest_memory *m);
/*
 * Calls fn for every stretch of RAM that may not be zero (whole pages that are TOUCHED, by
 * rising address); what lies between is zero, and is not looked at.  What is pending is
 * fetched.  vCPUs stopped.
 */
void memory_each_extent(struct guest_memory *m,
			void (*fn)(void *opaque, uint64_t gpa, const uint8_t *host, uint64_t len),
			void *opaque);

/*
 * The checked DMA view.  A view is one contiguous stretch of RAM; a request
 * that leaves RAM, wraps, or spans two regions is refused with -EFAULT and
 * the device reports it in its own way.  An empty view is valid and has no
 * host address.  DMA sees RAM under the PAM window regardless of PAM, as on
 * the real chip set, and never what lies under 0xa0000-0xbffff.  What is checked is first
 * copied out of guest memory (dma_read): views carry payload only.
 */
enum dma_dir { DMA_FROM_GUEST = 1, DMA_TO_GUEST = 2, DMA_BOTH = 3 };

struct dma_view {
	void *host;
	uint64_t gpa;
	size_t len;
	enum dma_dir dir;
};

/* Would such a view be given? Fetches nothing. Any thread. */
bool dma_reaches(const struct guest_memory *m, uint64_t gpa, uint64_t len);
int dma_map(struct guest_memory *m, uint64_t gpa, size_t len, enum dma_dir dir,
	    struct dma_view *view);
/*
 * Marks the pages of a writable view dirty (again) and invalidates code in them.  No writable
 * view stays mapped while the machine is quiesced: a live cut would not see its writes.
 */
void dma_unmap(struct guest_memory *m, struct dma_view *view);
/* Copies; 0 or -EFAULT with nothing copied (regions never touch each other). Any thread. */
int dma_read(struct guest_memory *m, uint64_t gpa, void *buf, size_t len);
int dma_write(struct guest_memory *m, uint64_t gpa, const void *buf, size_t len);
int dma_zero(struct guest_memory *m, uint64_t gpa, size_t len);
/*
 * One aligned word that a processor may look at or change meanwhile: what is read after the load was
 * written before the store that it saw, and the other way round. -EINVAL: not aligned. Any thread.
 */
int dma_load16(struct guest_memory *m, uint64_t gpa, uint16_t *v);
int dma_store16(struct guest_memory *m, uint64_t gpa, uint16_t v);

/*
 * Makes [gpa, gpa+len), whole pages, zero and gives the host's memory back.  The pages count as
 * written, for a delta.  -EFAULT as above, -EINVAL: not whole pages. Any thread.
 */
int memory_discard(struct guest_memory *m, uint64_t gpa, uint64_t len);
/*
 * The same for pages that the guest gives away (a balloon): they are not TOUCHED any more either,
 * so that no save looks at them until they are written again.  A processor may still hold a write
 * tag: the caller calls vm_flush_tlbs before the guest is told that its pages were taken, since only
 * from then on what it writes must be kept. Any thread.
 */
int memory_forget(struct guest_memory *m, uint64_t gpa, uint64_t len);

/*
 * Fills RAM from a regular file without a copy through this process: at start-up
 * the time goes into page faults otherwise.  0, -EFAULT as above, -ENODATA if
 * the file is too short (RAM is partly filled then), or what reading it gave.
 * vCPUs stopped.
 */
int memory_load_file(struct guest_memory *m, uint64_t gpa, int fd, uint64_t offset, uint64_t len);

#endif
