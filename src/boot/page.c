#include "boot/page.h"

#include "boot/fwcfg.h"
#include "vm/vm.h"

int shared_page_init(struct shared_page *p, struct vm *vm, const char *file,
		     const char *address_file, void (*placed)(void *opaque), void *opaque,
		     struct skep_error *e)
{
	static const uint8_t zero[SHARED_PAGE_SIZE];
	struct fwcfg *f = fwcfg_of(vm);
	int r = fwcfg_set_file(f, file, zero, sizeof(zero), false, e);

	*p = (struct shared_page){ .vm = vm, .file = file, .address_file = address_file };
	if (!r)
		r = fwcfg_set_file(f, address_file, zero, 8, true, e);
	return r ? r : fwcfg_on_write(f, address_file, placed, opaque, e);
}

/* Guest-physical, as the guest wrote it; 0: not placed. */
static uint64_t address(const struct shared_page *p)
{
	size_t len;
	const uint8_t *data = fwcfg_get_file(fwcfg_of(p->vm), p->address_file, &len);

	return data && len == 8 ? load64(data) : 0;
}

void shared_page_reset(struct shared_page *p)
{
	static const uint8_t nowhere[8];

	fwcfg_update_file(fwcfg_of(p->vm), p->address_file, 0, nowhere, sizeof(nowhere));
}

void shared_page_set(struct shared_page *p, size_t offset, const void *data, size_t len)
{
	fwcfg_update_file(fwcfg_of(p->vm), p->file, offset, data, len);
}

void shared_page_write(struct shared_page *p, size_t offset, const void *data, size_t len)
{
	uint64_t at = address(p);

	if (at && at <= UINT64_MAX - SHARED_PAGE_SIZE)
		(void)dma_write(&p->vm->memory, at + offset, data, len);
}
