/* XXH3, of the library that picks the widest vectors the host has. */
#include "snapshot/container.h"

#include <stdlib.h>
#include <xxh_x86dispatch.h>

#include "base/util.h"

struct snap_hash {
	XXH3_state_t *sum, *digest;
};

static const uint8_t zeroes[64 * 1024];

uint64_t snap_sum(const void *data, size_t len)
{
	return XXH3_64bits(data, len);
}

struct snap_hash *snap_hash_create(void)
{
	struct snap_hash *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->sum = XXH3_createState();
	h->digest = XXH3_createState();
	if (!h->sum || !h->digest) {
		snap_hash_free(h);
		return NULL;
	}
	return h;
}

void snap_hash_free(struct snap_hash *h)
{
	if (!h)
		return;
	XXH3_freeState(h->sum);
	XXH3_freeState(h->digest);
	free(h);
}

void snap_hash_begin(struct snap_hash *h)
{
	XXH3_64bits_reset(h->sum);
}

void snap_hash_update(struct snap_hash *h, const void *data, size_t len)
{
	XXH3_64bits_update(h->sum, data, len);
}

void snap_hash_zeroes(struct snap_hash *h, size_t len)
{
	while (len) {
		size_t n = MIN(len, sizeof(zeroes));

		XXH3_64bits_update(h->sum, zeroes, n);
		len -= n;
	}
}

uint64_t snap_hash_sum(struct snap_hash *h)
{
	return XXH3_64bits_digest(h->sum);
}

void snap_digest_begin(struct snap_hash *h)
{
	XXH3_128bits_reset(h->digest);
}

void snap_digest_update(struct snap_hash *h, const void *data, size_t len)
{
	XXH3_128bits_update(h->digest, data, len);
}

void snap_digest_end(struct snap_hash *h, uint8_t digest[SNAP_DIGEST_SIZE])
{
	XXH128_canonical_t c;

	XXH128_canonicalFromHash(&c, XXH3_128bits_digest(h->digest));
	memcpy(digest, c.digest, SNAP_DIGEST_SIZE);
}

bool snap_is_zero(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t v[8], any = 0;
	size_t i;
	int k;

	for (i = 0; i < len && !any; i += sizeof(v)) {
		memcpy(v, p + i, sizeof(v));
		for (k = 0; k < 8; k++)
			any |= v[k];
	}
	return !any;
}
