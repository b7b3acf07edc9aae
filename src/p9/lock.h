/*
 * Record locks, among the clients of a server: POSIX's, by file, client and process.  They are not
 * taken on the host, whose own processes do not see them.
 */
#ifndef SKEP_P9_LOCK_H
#define SKEP_P9_LOCK_H

#include "p9/server.h"

struct p9_owner {
	const struct p9_session *ss;
	uint32_t process;
	uint8_t len;
	char client[P9_LOCK_CLIENT];
};

struct p9_lock {
	struct p9_lock *next;
	struct p9_ident file;
	struct p9_owner owner;
	uint32_t fid;
	bool write;
	uint64_t start, end;	/* end included; UINT64_MAX: to the end of the file */
};

/* lock_lock held.  Takes [l->start, l->end] for l's owner, or gives it up (unlock). -ENOLCK, -ENOMEM. */
int p9_lock_set(struct p9_server *s, const struct p9_lock *l, bool unlock);
/* The first that is in l's way; NULL: none. */
const struct p9_lock *p9_lock_conflict(const struct p9_server *s, const struct p9_lock *l);

#endif
