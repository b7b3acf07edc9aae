#include "snapshot/schedule.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "snapshot/save.h"
#include "snapshot/target.h"
#include "vm/vm.h"

struct save_schedule {
	struct vm *vm;
	const struct save_point *points;
	size_t n, next;			/* next: the one that is waited for; thread */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool reached, ending, done;	/* lock */
	struct skep_error error;	/* of the save, when it failed */
};

/* vCPU thread, which stands from now on. */
static void reached(void *opaque)
{
	struct save_schedule *s = opaque;

	pthread_mutex_lock(&s->lock);
	s->reached = true;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

static void set_point(struct save_schedule *s)
{
	s->vm->stop_point = (struct vm_stop_point){
		.at = s->next < s->n ? s->points[s->next].at : 0, .reached = reached, .opaque = s,
	};
}

static void save_done(void *opaque, const struct save_result *r, const struct skep_error *error)
{
	struct save_schedule *s = opaque;

	pthread_mutex_lock(&s->lock);
	s->done = true;
	if (error)
		s->error = *error;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

/* A client's save may be under way: the machine stands here until that is over. */
static struct save *start_save(struct save_schedule *s, int target, const struct save_options *o,
			       struct skep_error *e)
{
	struct save_callbacks cb = { .done = save_done, .opaque = s };
	struct timespec moment = { .tv_nsec = 1000000 };
	struct save *save;
	int fd;

	for (;;) {
		fd = dup(target);
		if (fd < 0) {
			skep_fail(e, errno, "no descriptor: %s", strerror(errno));
			return NULL;
		}
		save = save_start(s->vm, fd, o, &cb, e);
		if (save || !atomic_load(&s->vm->saving) || vm_exiting(s->vm))
			return save;
		nanosleep(&moment, NULL);
	}
}

/* A later delta may lie elsewhere and names this one. */
static char *absolute(const char *path)
{
	char *dir = path[0] == '/' ? NULL : realpath(".", NULL), *whole = NULL;

	if (!dir || asprintf(&whole, "%s/%s", dir, path) < 0)
		whole = strdup(path);
	free(dir);
	return whole;
}

static int save_into(struct save_schedule *s, struct snap_target *t, const char *path,
		     struct skep_error *e)
{
	char *whole = absolute(path);
	struct save_options o = { .no_sync = true, .path = whole };
	struct save *save;
	int err;

	s->done = false;
	save = start_save(s, t->fd, &o, e);
	if (!save) {
		free(whole);
		return -EIO;
	}
	pthread_mutex_lock(&s->lock);
	while (!s->done)
		pthread_cond_wait(&s->cond, &s->lock);
	*e = s->error;
	pthread_mutex_unlock(&s->lock);
	err = e->text[0] ? -EIO : snap_target_commit(t, false, e);
	save_end(save, !err);
	free(whole);
	return err;
}

/* The machine stands at the point, whatever other saves do, until it has been saved there. */
static void save_point(struct save_schedule *s)
{
	const struct save_point *p = &s->points[s->next++];
	struct snap_target t = { 0 };
	struct skep_error e = { "" };
	int err;

	vm_pause(s->vm, STOP_POINT);
	set_point(s);
	err = snap_target_open(&t, p->path, &e);
	if (!err) {
		err = save_into(s, &t, p->path, &e);
		snap_target_abort(&t);
	}
	if (err)
		vm_request_error(s->vm, "--save-at %" PRIu64 ": %s", p->at, e.text);
	vm_resume(s->vm, STOP_POINT);
}

static void *schedule_main(void *opaque)
{
	struct save_schedule *s = opaque;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		while (!s->reached && !s->ending)
			pthread_cond_wait(&s->cond, &s->lock);
		/* One that was reached is saved even if the machine ends meanwhile. */
		if (!s->reached || s->next == s->n)
			break;
		s->reached = false;
		pthread_mutex_unlock(&s->lock);
		save_point(s);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static int check_points(struct vm *vm, const struct save_point *p, size_t n, struct skep_error *e)
{
	size_t i;

	if (vm->clock.mode != CLOCK_MODE_VIRTUAL)
		return skep_fail(e, EINVAL, "--save-at counts instructions and needs clock.mode=virtual");
	for (i = 0; i < n; i++)
		if (p[i].at <= (i ? p[i - 1].at : atomic_load(&vm->clock.insns)))
			return skep_fail(e, EINVAL, "--save-at %" PRIu64 ": the counts must rise, and lie "
					 "ahead of the machine", p[i].at);
	return 0;
}

struct save_schedule *save_schedule_start(struct vm *vm, const struct save_point *points, size_t n,
					  struct skep_error *e)
{
	struct save_schedule *s;
	int err;

	if (check_points(vm, points, n, e) < 0)
		return NULL;
	s = calloc(1, sizeof(*s));
	if (!s) {
		skep_fail(e, ENOMEM, "no memory for --save-at");
		return NULL;
	}
	s->vm = vm;
	s->points = points;
	s->n = n;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	set_point(s);
	err = thread_start(&s->thread, schedule_main, s);
	if (!err)
		return s;
	skep_fail(e, -err, "no thread for --save-at: %s", strerror(-err));
	vm->stop_point.at = 0;
	free(s);
	return NULL;
}

int save_schedule_stop(struct save_schedule *s, struct skep_error *e)
{
	int err = 0;

	if (!s)
		return 0;
	pthread_mutex_lock(&s->lock);
	s->ending = true;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	if (s->next < s->n && !s->error.text[0])
		err = skep_fail(e, EINVAL, "--save-at %" PRIu64 ": the machine ended before it, at %" PRIu64,
				s->points[s->next].at, atomic_load(&s->vm->clock.insns));
	s->vm->stop_point.at = 0;
	pthread_cond_destroy(&s->cond);
	pthread_mutex_destroy(&s->lock);
	free(s);
	return err;
}
