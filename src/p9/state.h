/*
 * What is saved of a session: which places its fids stand for, by their names below the export and by
 * what identifies the files there; open files and how they were opened; locks; the numbers of
 * qids.  No contents.
 *
 * A restore opens all of it again by name, and looks whether it is the same: inode, birth, the file
 * system's handle (which has the inode's generation; it is compared, never opened), and where a
 * file system tells neither birth nor handle, the change time.  What is not the same answers ESTALE for
 * good, and is said by name.  A file that is the same but has been changed since is said, too.
 */
#ifndef SKEP_P9_STATE_H
#define SKEP_P9_STATE_H

#include "p9/p9.h"
#include "state/state.h"

struct p9_session_model {
	bool agreed;
	uint32_t msize;
	struct state_list prefixes, nodes, fids, locks;	/* state.c has what they hold */
	bool failed;			/* not in the record: no memory while it was taken */
};

extern const struct state_record p9_session_record;

/* The session stands (drained).  What cannot be carried is said, by name, on standard error. */
void p9_session_export(struct p9_session *ss, struct p9_session_model *m);
int p9_session_validate(const struct p9_session *ss, const struct p9_session_model *m,
			struct skep_error *e);
/* The session is empty (reset).  Cannot fail: see above. */
void p9_session_commit(struct p9_session *ss, const struct p9_session_model *m);

#endif
