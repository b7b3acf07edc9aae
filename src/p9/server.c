/* A server's beginning and end: the directory, what the host must allow, the threads. */
#include "p9/server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FILES_SPARED	256	/* descriptors that are left for everything else */
#define FILES_DEFAULT	65536

/* ---- what passthrough wants -------------------------------------------- */

static const struct {
	unsigned number;
	const char *name;
} wanted[] = {
	{ CAP_CHOWN, "CAP_CHOWN" }, { CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE" },
	{ CAP_FOWNER, "CAP_FOWNER" }, { CAP_FSETID, "CAP_FSETID" },
	{ CAP_MKNOD, "CAP_MKNOD" },
};

/* They are the workers' alone, who have no others (pool.c calls this on each). */
int p9_keep_capabilities(const struct p9_server *s)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct have[2] = { 0 };

	if (s->o.security != P9_PASSTHROUGH)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		have[0].effective |= 1u << wanted[i].number;
	have[0].permitted = have[0].effective;
	return syscall(SYS_capset, &head, have) < 0 ? -errno : 0;
}

static int check_capabilities(const struct p9_server *s, struct skep_error *e)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct have[2] = { 0 };
	char missing[128] = "";

	if (s->o.security != P9_PASSTHROUGH)
		return 0;
	syscall(SYS_capget, &head, have);
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		if (!(have[0].effective >> wanted[i].number & 1)) {
			strcat(missing, *missing ? ", " : "");
			strcat(missing, wanted[i].name);
		}
	}
	return *missing ? skep_fail(e, EPERM, "%s: security=passthrough wants %s; run it with them, or use "
				    "security=mapped-xattr, which needs none", s->owner, missing) : 0;
}

/* ---- the directory ----------------------------------------------------- */

static int open_root(const struct p9_server *s, const char *path, struct skep_error *e)
{
	struct p9_fd_path name;
	char probe[40];
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return skep_fail(e, errno, "%s: cannot share '%s': %s", s->owner, path, strerror(errno));
	name = p9_fd_path(fd);
	snprintf(probe, sizeof(probe), "/proc/self/fd/%s", name.text);
	if (s->o.security == P9_MAPPED && getxattr(probe, "user.skep.meta", NULL, 0) < 0 &&
	    errno == EOPNOTSUPP) {
		close(fd);
		return skep_fail(e, EOPNOTSUPP, "%s: the file system of '%s' has no extended attributes, "
				 "which security=mapped-xattr needs; use security=none", s->owner, path);
	}
	return fd;
}

/* What the process may open, raised as far as it may be. */
static uint32_t files_of(const struct p9_options *o)
{
	uint32_t want = o->files ? o->files : FILES_DEFAULT;
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return FILES_SPARED;
	if (l.rlim_cur < l.rlim_max && l.rlim_cur < (rlim_t)want + FILES_SPARED) {
		l.rlim_cur = MIN(l.rlim_max, (rlim_t)want + FILES_SPARED);
		setrlimit(RLIMIT_NOFILE, &l);
		getrlimit(RLIMIT_NOFILE, &l);
	}
	if (l.rlim_cur == RLIM_INFINITY || l.rlim_cur > (rlim_t)want + FILES_SPARED)
		return want;
	return l.rlim_cur > 2 * FILES_SPARED ? (uint32_t)l.rlim_cur - FILES_SPARED : FILES_SPARED / 2;
}

static int start(struct p9_server *s, const char *path, struct skep_error *e)
{
	int err = check_capabilities(s, e), fd;

	if (err)
		return err;
	s->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (s->proc_fd < 0)
		return skep_fail(e, errno, "%s: a share needs /proc: %s", s->owner, strerror(errno));
	fd = open_root(s, path, e);
	if (fd < 0)
		return fd;
	err = p9_tree_init(&s->tree, fd, files_of(&s->o), e);
	if (err)
		return err;
	if (p9_qids_init(&s->qids, s->tree.root->ident.dev)) {
		p9_tree_finish(&s->tree);
		return skep_fail(e, ENOMEM, "%s: no memory for a share", s->owner);
	}
	for (unsigned i = 0; i < P9_META_LOCKS; i++)
		pthread_mutex_init(&s->meta_lock[i], NULL);
	pthread_mutex_init(&s->lock_lock, NULL);
	err = p9_pool_start(s, e);
	if (err) {
		p9_qids_finish(&s->qids);
		p9_tree_finish(&s->tree);
	}
	return err;
}

struct p9_server *p9_server_create(const struct p9_options *o, const char *owner,
				   struct skep_error *e)
{
	struct p9_server *s = calloc(1, sizeof(*s));

	if (!s) {
		skep_fail(e, ENOMEM, "%s: no memory for a share", owner);
		return NULL;
	}
	s->o = *o;
	s->o.path = NULL;
	snprintf(s->owner, sizeof(s->owner), "%s", owner);
	s->proc_fd = -1;
	if (start(s, o->path, e)) {
		if (s->proc_fd >= 0)
			close(s->proc_fd);
		free(s);
		return NULL;
	}
	return s;
}

void p9_server_destroy(struct p9_server *s)
{
	if (!s)
		return;
	p9_pool_stop(s);
	p9_qids_finish(&s->qids);
	p9_tree_finish(&s->tree);
	for (unsigned i = 0; i < P9_META_LOCKS; i++)
		pthread_mutex_destroy(&s->meta_lock[i]);
	pthread_mutex_destroy(&s->lock_lock);
	close(s->proc_fd);
	free(s);
}
