/*
 * RAM that comes from a snapshot: private mappings of its file, and chunks that a source fills
 * in when they are first looked at.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vm/memory_inside.h"
#include "vm/vm.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* Mappings that the process needs for other things: threads, libraries, the heap. */
#define MAPS_SPARE	2048u
#define MAPS_DEFAULT	65530u

#define LOST_TEXT "RAM at %#" PRIx64 " is gone: the snapshot file was truncated or cannot be " \
	"read while the machine runs from it; restore from a whole copy"
#define CHANGED_TEXT "RAM is gone: the snapshot file was truncated or written to while the machine " \
	"runs from it; restore from a whole copy"

static void touch_pages(struct guest_memory *m, size_t first, size_t n)
{
	size_t i = first, end = first + n;

	for (; i < end && i % 8; i++)
		atomic_fetch_or_explicit(&m->page_flags[i], PAGE_TOUCHED, memory_order_relaxed);
	/* No processor runs yet: half a million pages in no time. */
	for (; i + 8 <= end; i += 8) {
		_Atomic uint64_t *w = &flags_words(m)[i / 8];

		atomic_store_explicit(w, atomic_load_explicit(w, memory_order_relaxed) |
				      EVERY(PAGE_TOUCHED), memory_order_relaxed);
	}
	for (; i < end; i++)
		atomic_fetch_or_explicit(&m->page_flags[i], PAGE_TOUCHED, memory_order_relaxed);
}

/* ---- Mappings ---------------------------------------------------------- */

/* vm thread, device lock. */
static void tell_lost(void *opaque, uint32_t events)
{
	struct guest_memory *m = opaque;
	struct skep_error e;
	uint64_t count;

	if (read(m->lost.eventfd, &count, sizeof(count)) < 0)
		return;
	if (memory_lost(m, &e) < 0)
		vm_request_error(m->vm, "%s", e.text);
}

/* Before the first mapping. */
static int watch_losses(struct guest_memory *m, struct skep_error *e)
{
	unsigned i;
	int err = 0;

	if (m->lost.eventfd >= 0)
		return 0;
	m->lost.eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->lost.eventfd < 0)
		return skep_fail(e, errno, "RAM cannot be watched: eventfd: %s", strerror(errno));
	if (m->vm->loop) {
		m->lost_watch = loop_watch(m->vm, m->lost.eventfd, EPOLLIN, tell_lost, m, e);
		if (!m->lost_watch)
			return -ENOMEM;
	}
	for (i = 0; i < m->nram && !err; i++)
		err = sigbus_watch(m->ram[i].host, m->ram[i].size, m->ram[i].gpa, &m->lost);
	if (err == -ENOSPC)
		return skep_fail(e, ENOSPC, "too many restored machines in this process; end some, or "
				 "start another skep");
	if (err)
		return skep_fail(e, -err, "SIGBUS cannot be caught: %s", strerror(-err));
	return 0;
}

/* vm thread, device lock. */
static void tell_changed(void *opaque, uint32_t events)
{
	struct guest_memory *m = opaque;
	struct skep_error e;

	/* The event stays in its queue, for memory_lost. */
	loop_set_events(m->changed.watch, 0);
	if (memory_lost(m, &e) < 0)
		vm_request_error(m->vm, "%s", e.text);
}

/*
 * Bytes that were written over in place raise no signal, and are taken for RAM where the guest has not
 * looked yet; with truncation, which cp begins with, also where it has written.  The kernel tells
 * who asks.  Where it cannot, only what lies beyond the file's end is noticed.
 */
static void watch_changes(struct guest_memory *m, int file)
{
	struct skep_error ignored;
	char path[64];

	if (m->changed.file == file)
		return;
	if (m->changed.fd < 0) {
		m->changed.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		if (m->changed.fd < 0)
			return;
		if (m->vm->loop)
			m->changed.watch = loop_watch(m->vm, m->changed.fd, EPOLLIN, tell_changed, m,
						      &ignored);
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	if (inotify_add_watch(m->changed.fd, path, IN_MODIFY) >= 0)
		m->changed.file = file;
}

static bool has_changed(struct guest_memory *m)
{
	struct pollfd p = { .fd = m->changed.fd, .events = POLLIN };

	if (p.fd >= 0 && !atomic_load(&m->changed.seen) && poll(&p, 1, 0) > 0)
		atomic_store(&m->changed.seen, true);
	return atomic_load(&m->changed.seen);
}

/* In one read, and without a stream: the kernel gives the number once, however short the buffer. */
static unsigned read_max_maps(void)
{
	int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
	char text[32] = "";
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	unsigned long maps = n > 0 ? strtoul(text, NULL, 10) : 0;

	if (fd >= 0)
		close(fd);
	return maps && maps <= UINT_MAX ? (unsigned)maps : MAPS_DEFAULT;
}

/* The kernel has a limit, and a process that meets it cannot even make a thread any more. */
static int count_mapping(struct guest_memory *m, uint64_t gpa, int fd, uint64_t offset,
			 struct skep_error *e)
{
	bool beside = m->nmaps && m->map_end.gpa == gpa;
	bool same = beside && m->map_end.fd == fd && m->map_end.offset == offset;
	unsigned more = same ? 0 : beside ? 1 : 2;

	if (!m->max_maps)
		m->max_maps = read_max_maps();
	if (m->nmaps + more + MAPS_SPARE > m->max_maps)
		return skep_fail(e, ENOMEM, "the snapshot's RAM lies in more pieces than this host maps "
				 "(vm.max_map_count is %u); raise that, or flatten the snapshot",
				 m->max_maps);
	m->nmaps += more;
	return 0;
}

static int check_mapping(const struct guest_memory *m, uint64_t gpa, uint64_t len, int fd,
			 uint64_t offset, struct skep_error *e)
{
	struct stat st;

	if ((gpa | len | offset) % GUEST_PAGE_SIZE || !memory_region(m, gpa, len) ||
	    offset > INT64_MAX - len)
		return skep_fail(e, EINVAL, "RAM at %#" PRIx64 ", %" PRIu64 " bytes, cannot be mapped "
				 "from offset %" PRIu64 " of the snapshot", gpa, len, offset);
	if (fstat(fd, &st) < 0)
		return skep_fail(e, errno, "the snapshot file: %s", strerror(errno));
	if (S_ISREG(st.st_mode) && offset + len > ALIGN_UP((uint64_t)st.st_size, GUEST_PAGE_SIZE))
		return skep_fail(e, ENODATA, "the snapshot file ends at %lld, before the RAM at %#"
				 PRIx64 " that it should hold", (long long)st.st_size, gpa);
	return 0;
}

int memory_map_file(struct guest_memory *m, uint64_t gpa, uint64_t len, int fd, uint64_t offset,
		    struct skep_error *e)
{
	const struct mem_region *r;
	uint8_t *host;
	int err;

	if (!len)
		return 0;
	err = check_mapping(m, gpa, len, fd, offset, e);
	if (!err)
		err = watch_losses(m, e);
	if (!err)
		err = count_mapping(m, gpa, fd, offset, e);
	if (err)
		return err;
	watch_changes(m, fd);
	r = memory_region(m, gpa, len);
	host = r->host + (gpa - r->gpa);
	if (mmap(host, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
		 (off_t)offset) == MAP_FAILED)
		return skep_fail(e, errno, "RAM at %#" PRIx64 " cannot be mapped from the snapshot: %s",
				 gpa, strerror(errno));
	madvise(host, len, MADV_DONTDUMP);
	m->map_end.gpa = gpa + len;
	m->map_end.fd = fd;
	m->map_end.offset = offset + len;
	touch_pages(m, region_page(r, gpa), len / GUEST_PAGE_SIZE);
	return 0;
}

/* ---- Chunks that are pending ------------------------------------------- */

int memory_set_source(struct guest_memory *m, const struct memory_source *s, struct skep_error *e)
{
	size_t nchunks = (m->npages + CHUNK_PAGES - 1) / CHUNK_PAGES;

	if (m->pending) {
		s->release(s->opaque);
		return skep_fail(e, EINVAL, "this RAM has a source already");
	}
	m->pending = calloc((nchunks + 63) / 64, sizeof(*m->pending));
	if (!m->pending) {
		s->release(s->opaque);
		return skep_fail(e, ENOMEM, "no memory for a restore");
	}
	m->source = *s;
	m->has_source = true;
	return 0;
}

void memory_set_pending(struct guest_memory *m, uint64_t gpa, uint64_t len)
{
	const struct mem_region *r = len ? memory_region(m, gpa, len) : NULL;
	size_t n, last;

	if (!r || !m->has_source)
		return;
	n = region_page(r, gpa) / CHUNK_PAGES;
	last = region_page(r, gpa + len - 1) / CHUNK_PAGES;
	for (; n <= last; n++) {
		size_t first = n * CHUNK_PAGES, end = r->first_page + r->size / GUEST_PAGE_SIZE;

		if (atomic_fetch_or(&m->pending[n / 64], BIT(n % 64)) & BIT(n % 64))
			continue;
		atomic_fetch_add(&m->npending, 1);
		touch_pages(m, first, MIN(end - first, CHUNK_PAGES));
	}
}

/* load_lock */
static void release_source(struct guest_memory *m)
{
	if (m->has_source)
		m->source.release(m->source.opaque);
	m->has_source = false;
}

static bool is_pending(struct guest_memory *m, size_t chunk)
{
	/* Acquire: who cleared it has filled the chunk. */
	return atomic_load_explicit(&m->pending[chunk / 64], memory_order_acquire) &
	       BIT(chunk % 64);
}

/* Nobody looks at the chunk before its bit is clear, so it may be filled in place. load_lock. */
static int load_chunk(struct guest_memory *m, size_t chunk, struct skep_error *e)
{
	size_t first = chunk * CHUNK_PAGES;
	const struct mem_region *r = page_region(m, first);
	uint64_t gpa = page_gpa(m, first), len = MIN(RAM_CHUNK, r->size - (gpa - r->gpa));
	uint8_t *host = page_host(m, first);
	int err;

	e->text[0] = '\0';
	err = m->source.load(m->source.opaque, gpa, host, len, e);
	if (err < 0) {
		/* Nothing that was not checked is seen. */
		if (memory_make_zero(m, r, gpa, len) < 0)
			memset(host, 0, len);
		skep_error_prefix(e, "RAM at %#" PRIx64 " is gone", gpa);
		if (!atomic_load(&m->load_failed))
			m->load_error = *e;
		atomic_store(&m->load_failed, true);
	}
	atomic_fetch_and_explicit(&m->pending[chunk / 64], ~BIT(chunk % 64), memory_order_release);
	if (atomic_fetch_sub(&m->npending, 1) == 1)
		release_source(m);
	return MIN(err, 0);
}

int memory_fetch(struct guest_memory *m, size_t page, size_t npages, struct skep_error *e)
{
	size_t n = page / CHUNK_PAGES, last = (page + npages - 1) / CHUNK_PAGES;
	int failed = 0;

	for (; n <= last && atomic_load_explicit(&m->npending, memory_order_acquire); n++) {
		struct skep_error why;
		int err = 0;

		if (!is_pending(m, n))
			continue;
		pthread_mutex_lock(&m->load_lock);
		if (is_pending(m, n))
			err = load_chunk(m, n, &why);
		pthread_mutex_unlock(&m->load_lock);
		if (err) {
			vm_request_error(m->vm, "%s", why.text);
			if (!failed)
				*e = why;
			failed = failed ? failed : err;
		}
	}
	return failed;
}

int memory_need(struct guest_memory *m, uint64_t gpa, uint64_t len, struct skep_error *e)
{
	const struct mem_region *r = len ? memory_region(m, gpa, len) : NULL;

	if (!len)
		return 0;
	if (!r)
		return skep_fail(e, EFAULT, "there is no RAM at %#" PRIx64 ", %" PRIu64 " bytes", gpa,
				 len);
	return memory_fetch(m, region_page(r, gpa),
			    region_page(r, gpa + len - 1) - region_page(r, gpa) + 1, e);
}

/* ---- All of it now ----------------------------------------------------- */

static int populate(struct guest_memory *m, size_t first, size_t n, bool own)
{
	uint8_t *host = page_host(m, first);
	size_t i;

	if (!madvise(host, n * GUEST_PAGE_SIZE, own ? MADV_POPULATE_WRITE : MADV_POPULATE_READ))
		return 0;
	if (errno == EFAULT || errno == EHWPOISON)
		return -EIO;
	/* A kernel that cannot: a look at every page does the same. */
	for (i = 0; i < n; i++)
		(void)*(volatile uint8_t *)(host + i * GUEST_PAGE_SIZE);
	return 0;
}

int memory_prefault(struct guest_memory *m, uint64_t gpa, uint64_t len, bool own,
		    struct skep_error *e)
{
	int err = memory_need(m, gpa, len, e);
	const struct mem_region *r;
	size_t at, end, stop;

	if (err || !len)
		return err;
	r = memory_region(m, gpa, len);
	end = region_page(r, gpa + len - 1) + 1;
	for (at = region_page(r, gpa);; at = stop) {
		at = memory_find(m, at, end, PAGE_TOUCHED, true);
		if (at == end)
			return memory_lost(m, e);
		stop = memory_find(m, at, end, PAGE_TOUCHED, false);
		if (populate(m, at, stop - at, own) < 0)
			return skep_fail(e, EIO, LOST_TEXT, page_gpa(m, at));
	}
}

/* ---- What is lost ------------------------------------------------------ */

int memory_lost(struct guest_memory *m, struct skep_error *e)
{
	uint64_t where = atomic_load(&m->lost.where);

	if (where)
		return skep_fail(e, EIO, LOST_TEXT, where & ~(uint64_t)1);
	if (has_changed(m))
		return skep_fail(e, EIO, CHANGED_TEXT);
	if (!atomic_load(&m->load_failed))
		return 0;
	pthread_mutex_lock(&m->load_lock);
	*e = m->load_error;
	pthread_mutex_unlock(&m->load_lock);
	return -EIO;
}

void memory_lazy_finish(struct guest_memory *m)
{
	release_source(m);
	free((void *)m->pending);
	m->pending = NULL;
	atomic_store(&m->npending, 0);
	sigbus_unwatch(&m->lost);
	/* The loop frees its watches when it ends first. */
	if (m->vm && m->vm->loop) {
		loop_unwatch(m->lost_watch);
		loop_unwatch(m->changed.watch);
	}
	m->lost_watch = m->changed.watch = NULL;
	if (m->changed.fd >= 0)
		close(m->changed.fd);
	m->changed.fd = m->changed.file = -1;
	if (m->lost.eventfd >= 0)
		close(m->lost.eventfd);
	m->lost.eventfd = -1;
	m->nmaps = 0;
}
