/* The one door through which devices reach guest memory. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "vm/memory_inside.h"
#include "vm/vm.h"

const struct mem_region *memory_region(const struct guest_memory *m, uint64_t gpa, uint64_t len)
{
	unsigned i;

	for (i = 0; i < m->nram; i++) {
		const struct mem_region *r = &m->ram[i];
		uint64_t offset = gpa - r->gpa;

		if (gpa >= r->gpa && offset < r->size && len <= r->size - offset)
			return r;
	}
	return NULL;
}

const struct mem_region *memory_dma_region(const struct guest_memory *m, uint64_t gpa,
					   uint64_t len)
{
	const struct mem_region *r = memory_region(m, gpa, len);

	/* Video memory lies over RAM, for devices as for processors. */
	if (r && gpa < PAM_BASE && gpa + len > HOLE_BASE)
		return NULL;
	return r;
}

/* Pages that bytes [gpa, gpa+len) touch. */
static size_t count_pages(uint64_t gpa, uint64_t len)
{
	return (size_t)((gpa + len - 1) / GUEST_PAGE_SIZE - gpa / GUEST_PAGE_SIZE + 1);
}

/* The bytes are there, and are about to be read. */
static void before_read(struct guest_memory *m, const struct mem_region *r, uint64_t gpa,
			uint64_t len)
{
	memory_present(m, region_page(r, gpa), count_pages(gpa, len));
}

static void before_write(struct guest_memory *m, const struct mem_region *r, uint64_t gpa,
			 uint64_t len)
{
	size_t first = region_page(r, gpa), n = count_pages(gpa, len), i;

	memory_present(m, first, n);
	for (i = 0; i < n; i++)
		memory_will_write(m, &m->page_flags[first + i]);
}

/*
 * The bytes of these pages have just been written.  The fence orders them before
 * the look at PAGE_CODE: a processor that decodes at the same time sets the
 * flag before it reads, so one of the two sees the other.
 */
static void after_write(struct guest_memory *m, const struct mem_region *r, uint64_t gpa,
			uint64_t len)
{
	size_t first = region_page(r, gpa), end = first + count_pages(gpa, len);

	atomic_thread_fence(memory_order_seq_cst);
	if (memory_find(m, first, end, PAGE_CODE | PAGE_TABLE, true) < end)
		vm_invalidate_code(m->vm, gpa, len);
}

bool dma_reaches(const struct guest_memory *m, uint64_t gpa, uint64_t len)
{
	return !len || memory_dma_region(m, gpa, len);
}

int dma_map(struct guest_memory *m, uint64_t gpa, size_t len, enum dma_dir dir,
	    struct dma_view *view)
{
	const struct mem_region *r;

	*view = (struct dma_view){ .gpa = gpa, .len = len, .dir = dir };
	if (!len)
		return 0;
	r = memory_dma_region(m, gpa, len);
	if (!r)
		return -EFAULT;
	view->host = r->host + (gpa - r->gpa);
	if (dir & DMA_TO_GUEST) {
		before_write(m, r, gpa, len);
		after_write(m, r, gpa, len);
	} else {
		before_read(m, r, gpa, len);
	}
	return 0;
}

void dma_unmap(struct guest_memory *m, struct dma_view *view)
{
	const struct mem_region *r;

	if (view->host && (view->dir & DMA_TO_GUEST)) {
		r = memory_dma_region(m, view->gpa, view->len);
		if (r) {
			before_write(m, r, view->gpa, view->len);
			after_write(m, r, view->gpa, view->len);
		}
	}
	view->host = NULL;
	view->len = 0;
}

int dma_read(struct guest_memory *m, uint64_t gpa, void *buf, size_t len)
{
	const struct mem_region *r;

	if (!len)
		return 0;
	r = memory_dma_region(m, gpa, len);
	if (!r)
		return -EFAULT;
	before_read(m, r, gpa, len);
	memcpy(buf, r->host + (gpa - r->gpa), len);
	return 0;
}

int dma_write(struct guest_memory *m, uint64_t gpa, const void *buf, size_t len)
{
	const struct mem_region *r;

	if (!len)
		return 0;
	r = memory_dma_region(m, gpa, len);
	if (!r)
		return -EFAULT;
	before_write(m, r, gpa, len);
	memcpy(r->host + (gpa - r->gpa), buf, len);
	after_write(m, r, gpa, len);
	return 0;
}

int dma_zero(struct guest_memory *m, uint64_t gpa, size_t len)
{
	const struct mem_region *r;

	if (!len)
		return 0;
	r = memory_dma_region(m, gpa, len);
	if (!r)
		return -EFAULT;
	before_write(m, r, gpa, len);
	memset(r->host + (gpa - r->gpa), 0, len);
	after_write(m, r, gpa, len);
	return 0;
}

int dma_load16(struct guest_memory *m, uint64_t gpa, uint16_t *v)
{
	const struct mem_region *r = memory_dma_region(m, gpa, 2);

	if (!r)
		return -EFAULT;
	if (gpa & 1)
		return -EINVAL;
	before_read(m, r, gpa, 2);
	*v = atomic_load_explicit((_Atomic uint16_t *)(r->host + (gpa - r->gpa)), memory_order_acquire);
	return 0;
}

int dma_store16(struct guest_memory *m, uint64_t gpa, uint16_t v)
{
	const struct mem_region *r = memory_dma_region(m, gpa, 2);

	if (!r)
		return -EFAULT;
	if (gpa & 1)
		return -EINVAL;
	before_write(m, r, gpa, 2);
	atomic_store_explicit((_Atomic uint16_t *)(r->host + (gpa - r->gpa)), v, memory_order_release);
	after_write(m, r, gpa, 2);
	return 0;
}

int memory_make_zero(struct guest_memory *m, const struct mem_region *r, uint64_t gpa,
		     uint64_t len)
{
	uint8_t *host = r->host + (gpa - r->gpa);

	/* On a private mapping of a file that would bring the file's bytes back. */
	if (!m->nmaps)
		return madvise(host, len, MADV_DONTNEED) < 0 ? -errno : 0;
	if (mmap(host, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		return -errno;
	madvise(host, len, MADV_DONTDUMP);
	return 0;
}

int memory_discard(struct guest_memory *m, uint64_t gpa, uint64_t len)
{
	const struct mem_region *r;
	size_t at, end;

	if (gpa % GUEST_PAGE_SIZE || len % GUEST_PAGE_SIZE)
		return -EINVAL;
	if (!len)
		return 0;
	r = memory_dma_region(m, gpa, len);
	if (!r)
		return -EFAULT;
	at = region_page(r, gpa);
	end = at + len / GUEST_PAGE_SIZE;
	before_read(m, r, gpa, len);
	/* What was never touched is zero already.  TOUCHED stays: a processor may write at any time. */
	while ((at = memory_find(m, at, end, PAGE_TOUCHED, true)) < end)
		memory_will_write(m, &m->page_flags[at++]);
	if (memory_make_zero(m, r, gpa, len) < 0)
		memset(r->host + (gpa - r->gpa), 0, len);
	after_write(m, r, gpa, len);
	return 0;
}

int memory_forget(struct guest_memory *m, uint64_t gpa, uint64_t len)
{
	int r = memory_discard(m, gpa, len);
	size_t at, end;

	if (r || !len)
		return r;
	at = region_page(memory_dma_region(m, gpa, len), gpa);
	end = at + len / GUEST_PAGE_SIZE;
	/* DIRTY stays: a delta tells that they are zero now. */
	while ((at = memory_find(m, at, end, PAGE_TOUCHED, true)) < end)
		atomic_fetch_and(&m->page_flags[at++], (uint8_t)~PAGE_TOUCHED);
	return 0;
}

int memory_load_file(struct guest_memory *m, uint64_t gpa, int fd, uint64_t offset, uint64_t len)
{
	const struct mem_region *r;
	uint64_t done = 0;
	int err = 0;

	if (!len)
		return 0;
	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return -ENODATA;
	r = memory_dma_region(m, gpa, len);
	if (!r)
		return -EFAULT;
	before_write(m, r, gpa, len);
	while (done < len && !err) {
		ssize_t n = pread(fd, r->host + (gpa - r->gpa) + done, len - done, (off_t)(offset + done));

		if (n > 0)
			done += (uint64_t)n;
		else if (!n)
			err = -ENODATA;
		else if (errno != EINTR)
			err = -errno;
	}
	after_write(m, r, gpa, len);
	return err;
}
