/*
 * Saves that a client asks for.  The save runs on its own thread and leaves word here; the control
 * thread passes it on.  The client that asked must be there to the end: it puts the file into its
 * place, and only its commit makes the save count.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/internal.h"
#include "vm/vm.h"

#define TELL_NS		100000000ll	/* between two progress events */
#define GRACE_NS	2000000000ll	/* for a commit, when the machine has ended */

/* ---- On the save's thread --------------------------------------------- */

static void on_progress(void *opaque, const struct save_progress *p)
{
	struct control *c = opaque;
	struct saving *s = &c->saving;
	int64_t now = control_now();
	bool tell;

	pthread_mutex_lock(&s->lock);
	s->progress = *p;
	s->fresh = true;
	tell = now - s->told_at >= TELL_NS;
	if (tell)
		s->told_at = now;
	pthread_mutex_unlock(&s->lock);
	if (tell)
		control_wake(c);
}

static void on_done(void *opaque, const struct save_result *r, const struct skep_error *error)
{
	struct control *c = opaque;
	struct saving *s = &c->saving;

	pthread_mutex_lock(&s->lock);
	s->done = true;
	s->failed = error != NULL;
	if (error)
		s->error = *error;
	else
		s->result = *r;
	pthread_mutex_unlock(&s->lock);
	control_wake(c);
}

/* ---- Commands ------------------------------------------------------------ */

static int check_file(int fd, struct skep_error *e)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fstat(fd, &st) < 0)
		return skep_fail(e, errno, "save: the descriptor: %s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return skep_fail(e, EINVAL, "save: the descriptor is not a regular file's");
	if ((flags & O_ACCMODE) != O_RDWR || (flags & O_APPEND))
		return skep_fail(e, EINVAL, "save: the descriptor is to be open for reading and writing, "
				 "and not for appending");
	return 0;
}

/* path is borrowed from args. */
static int take_options(json_t *args, struct save_options *o, struct skep_error *e)
{
	json_int_t level = json_integer_value(json_object_get(args, "zstd_level"));
	json_int_t generation = json_integer_value(json_object_get(args, "generation"));

	if (level < 0 || level > 19)
		return skep_fail(e, EINVAL, "save: zstd_level goes from 0 (not compressed) to 19");
	if (generation < 0 || generation > 65535)
		return skep_fail(e, EINVAL, "save: there is no generation %lld",
				 (long long)generation);
	*o = (struct save_options){
		.suspend = json_is_true(json_object_get(args, "suspend")),
		.live = json_is_true(json_object_get(args, "live")),
		.disks = json_is_true(json_object_get(args, "disks")),
		.delta = json_is_true(json_object_get(args, "delta")),
		.zstd_level = level,
		.generation = generation,
		.no_sync = json_is_true(json_object_get(args, "no_sync")),
		.path = json_string_value(json_object_get(args, "path")),
	};
	return 0;
}

static void reset(struct saving *s)
{
	json_decref(s->id);
	free(s->path);
	s->state = SAVING_NONE;
	s->save = NULL;
	s->owner = NULL;
	s->id = NULL;
	s->path = NULL;
	pthread_mutex_lock(&s->lock);
	s->done = s->failed = s->fresh = false;
	s->told_at = 0;
	s->progress = (struct save_progress){ 0 };
	pthread_mutex_unlock(&s->lock);
}

int saving_start(struct connection *n, json_t *args, json_t *id, json_t **ret,
		 struct skep_error *e)
{
	struct control *c = n->control;
	struct saving *s = &c->saving;
	const struct save_callbacks cb = { on_progress, on_done, c };
	struct save_options o;
	int err, fd = n->passed;

	/* Whatever comes of it, the descriptor belongs to this request. */
	n->passed = -1;
	if (fd < 0)
		return skep_fail(e, EBADF, "save: the open file is to come with the request "
				 "(SCM_RIGHTS)");
	err = s->state != SAVING_NONE ?
	      skep_fail(e, EBUSY, "save: the machine is being saved already; wait for that one") :
	      c->stop_at ? skep_fail(e, ESHUTDOWN, "save: the machine has ended") : 0;
	if (!err)
		err = check_file(fd, e);
	if (!err)
		err = take_options(args, &o, e);
	if (!err)
		err = save_preflight(c->vm, &o, e);
	if (err) {
		close(fd);
		return err;
	}
	reset(s);
	s->path = o.path ? strdup(o.path) : NULL;
	o.path = s->path;	/* the save may look at it as long as it lives */
	s->save = save_start(c->vm, fd, &o, &cb, e);
	if (!s->save) {
		reset(s);
		return -EIO;
	}
	s->state = SAVING_RUNS;
	s->owner = n;
	s->id = json_incref(id);
	s->suspend = o.suspend;
	return 1;
}

static int check_owner(struct connection *n, struct skep_error *e)
{
	if (n->control->saving.state == SAVING_NONE)
		return skep_fail(e, ENOENT, "there is no save");
	if (n->control->saving.owner != n)
		return skep_fail(e, EPERM, "the save belongs to another connection");
	return 0;
}

static void end(struct control *c, bool commit)
{
	save_end(c->saving.save, commit);
	reset(&c->saving);
}

int saving_commit(struct connection *n, json_t *args, json_t *id, json_t **ret,
		  struct skep_error *e)
{
	struct saving *s = &n->control->saving;
	int err = check_owner(n, e);
	json_t *event;

	if (err)
		return err;
	if (s->state != SAVING_WRITTEN)
		return skep_fail(e, EBUSY, "save-commit: the save is not complete yet");
	event = json_pack("{s:s,s:o,s:b}", "event", "saved", "path",
			  s->path ? control_text(s->path) : json_null(), "suspended", s->suspend);
	end(n->control, true);
	control_event(n->control, event);
	return 0;
}

int saving_abort(struct connection *n, json_t *args, json_t *id, json_t **ret,
		 struct skep_error *e)
{
	struct control *c = n->control;
	int err = check_owner(n, e);

	if (err)
		return err;
	if (c->saving.state == SAVING_WRITTEN)
		end(c, false);
	else
		save_cancel(c->saving.save);	/* its reply says so */
	return 0;
}

/* ---- News from the save's thread ------------------------------------------- */

static json_t *hex(const uint8_t *p, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	char text[2 * 64 + 1];

	for (size_t i = 0; i < len && i < 64; i++) {
		text[2 * i] = digits[p[i] >> 4];
		text[2 * i + 1] = digits[p[i] & 15];
		text[2 * i + 2] = '\0';
	}
	return json_string(text);
}

static json_t *result_json(const struct save_result *r)
{
	return json_pack("{s:I,s:I,s:I,s:I,s:o,s:o}", "bytes", (json_int_t)r->bytes,
			 "ram_bytes", (json_int_t)r->ram_bytes, "pause_ns", (json_int_t)r->pause_ns,
			 "elapsed_ns", (json_int_t)r->elapsed_ns,
			 "digest", hex(r->digest, sizeof(r->digest)), "id", hex(r->id, sizeof(r->id)));
}

static void tell_progress(struct saving *s)
{
	struct save_progress p;
	bool fresh;

	pthread_mutex_lock(&s->lock);
	p = s->progress;
	fresh = s->fresh;
	s->fresh = false;
	pthread_mutex_unlock(&s->lock);
	/* One that is slow to read misses some, and keeps its save. */
	if (fresh && s->owner && !connection_busy(s->owner))
		connection_send(s->owner, json_pack("{s:s,s:I,s:I,s:I}", "event", "save-progress",
						    "done", (json_int_t)p.done,
						    "total", (json_int_t)p.total,
						    "elapsed_ns", (json_int_t)p.elapsed_ns));
}

void saving_news(struct control *c)
{
	struct saving *s = &c->saving;
	struct connection *owner = s->owner;
	json_t *result;
	bool done;

	if (s->state != SAVING_RUNS)
		return;
	tell_progress(s);
	pthread_mutex_lock(&s->lock);
	done = s->done;
	pthread_mutex_unlock(&s->lock);
	if (!done)
		return;
	/* The save's thread is done with result and error. */
	result = owner && !s->failed ? result_json(&s->result) : NULL;
	if (result) {
		s->state = SAVING_WRITTEN;
		connection_reply(owner, s->id, result);
		return;
	}
	if (owner && !s->failed)
		connection_fail(owner, s->id, ENOMEM, "no memory to tell what was saved");
	else if (owner)
		connection_fail(owner, s->id, EIO, s->error.text);
	end(c, false);
}

void saving_forget(struct control *c, struct connection *n)
{
	struct saving *s = &c->saving;

	if (s->state == SAVING_NONE || s->owner != n)
		return;
	s->owner = NULL;
	if (s->state == SAVING_WRITTEN)
		end(c, false);
	else
		save_cancel(s->save);
}

bool saving_finish(struct control *c)
{
	struct saving *s = &c->saving;

	if (s->state == SAVING_RUNS)
		save_cancel(s->save);
	else if (s->state == SAVING_WRITTEN && control_now() - c->stop_at > GRACE_NS)
		end(c, false);
	return s->state == SAVING_NONE;
}

json_t *saving_status(struct control *c)
{
	struct saving *s = &c->saving;
	struct save_progress p;

	if (s->state == SAVING_NONE)
		return json_null();
	pthread_mutex_lock(&s->lock);
	p = s->progress;
	pthread_mutex_unlock(&s->lock);
	return json_pack("{s:b,s:I,s:I,s:I,s:b}", "suspend", s->suspend, "done", (json_int_t)p.done,
			 "total", (json_int_t)p.total, "elapsed_ns", (json_int_t)p.elapsed_ns,
			 "written", s->state == SAVING_WRITTEN);
}
