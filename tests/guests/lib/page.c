#include "guest.h"

extern char guest_end[];
static ulong next_page;

void *pages_alloc(unsigned n)
{
	void *p;

	if (!next_page)
		next_page = (ulong)guest_end;
	p = (void *)next_page;
	next_page += n * 4096ul;
	memset(p, 0, n * 4096ul);
	return p;
}

void *page_alloc(void)
{
	return pages_alloc(1);
}

#ifdef __x86_64__
static unsigned index_of(ulong va, unsigned level)
{
	return va >> (12 + 9 * (level - 1)) & 511;
}

static u64 *walk(ulong va, unsigned level, bool make)
{
	u64 *table = (u64 *)(get_cr3() & ~0xffful);

	for (unsigned l = 4; l > level; l--) {
		u64 *e = &table[index_of(va, l)];

		if (!(*e & PTE_P)) {
			if (!make)
				return NULL;
			*e = (ulong)page_alloc() | PTE_P | PTE_W | PTE_U;
		}
		table = (u64 *)(*e & 0x000ffffffffff000ull);
	}
	return &table[index_of(va, level)];
}

u64 *map(ulong va, u64 pa, u64 flags, unsigned level)
{
	u64 *e = walk(va, level, true);

	*e = pa | flags | (level > 1 ? PTE_PS : 0);
	return e;
}

u64 *pte_of(ulong va, unsigned level)
{
	return walk(va, level, false);
}

ulong user_code(const void *code, const void *end)
{
	size_t len = (const char *)end - (const char *)code;
	u8 *p = pages_alloc(len / 4096 + 1);
	u64 *e;

	memcpy(p, code, len);
	for (ulong i = 0; i <= len / 4096; i++)
		map(USER_BASE + i * 4096, (ulong)p + i * 4096, PTE_P | PTE_W | PTE_U, 1);
	e = pte_of(USER_STACK - 1, 1);
	if (!e || !*e)
		map(USER_STACK - 4096, (ulong)page_alloc(), PTE_P | PTE_W | PTE_U, 1);
	e = pte_of(USER_DATA, 1);
	if (!e || !*e)
		map(USER_DATA, (ulong)page_alloc(), PTE_P | PTE_W | PTE_U, 1);
	set_cr3(get_cr3());
	return USER_BASE;
}
#endif
