/* What calls have in common: names, ends of messages, data of answers. */
#include <errno.h>

#include "p9/server.h"

int p9_name(struct p9_text text, char name[P9_NAME_LEN + 1])
{
	if (text.len > P9_NAME_LEN)
		return -ENAMETOOLONG;
	if (!text.len || memchr(text.p, '/', text.len) || memchr(text.p, '\0', text.len))
		return -EINVAL;
	memcpy(name, text.p, text.len);
	name[text.len] = '\0';
	return !strcmp(name, ".") || !strcmp(name, "..") ? -EINVAL : 0;
}

int p9_end(const struct p9_call *c)
{
	return c->in.bad || c->in.left ? -EBADMSG : 0;
}

/* Whole pages, so that a client's large read stays aligned. */
uint32_t p9_iounit(const struct p9_call *c)
{
	uint32_t room = p9_session_msize(c->ss) - P9_WRITE_HEAD - 1;

	return room >= 4096 ? room & ~4095u : room;
}

bool p9_put_data(struct p9_request *r, const void *from, size_t n)
{
	size_t at = r->data;
	const uint8_t *p = from;

	for (unsigned i = 0; i < r->nrdata && n; i++) {
		size_t room = r->rdata[i].iov_len, now;

		if (at >= room) {
			at -= room;
			continue;
		}
		now = MIN(room - at, n);
		memcpy((uint8_t *)r->rdata[i].iov_base + at, p, now);
		at = 0;
		p += now;
		n -= now;
		r->data += (uint32_t)now;
	}
	return n == 0;
}
