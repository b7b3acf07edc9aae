#include "cpu/soft/code_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *map(int fd, size_t size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

int code_memory_create(struct code_memory *m, size_t size, struct skep_error *e)
{
	int fd = memfd_create("skep-code", MFD_CLOEXEC), err;

	*m = (struct code_memory){ .size = size };
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		goto fail;
	m->write = map(fd, size, PROT_READ | PROT_WRITE);
	m->run = m->write ? map(fd, size, PROT_READ | PROT_EXEC) : NULL;
	if (!m->run)
		goto fail;
	close(fd);
	return 0;
fail:
	err = -errno;
	if (fd >= 0)
		close(fd);
	code_memory_destroy(m);
	return skep_fail(e, -err, "this host gives no memory for translated code: %s; soft.tier=interpreter "
			 "needs none", strerror(-err));
}

void code_memory_destroy(struct code_memory *m)
{
	if (m->write)
		munmap(m->write, m->size);
	if (m->run)
		munmap(m->run, m->size);
	memset(m, 0, sizeof(*m));
}
