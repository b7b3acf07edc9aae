/*
 * The runtime directory: where sockets and locks of machines that run lie.  It is ours alone, so
 * that whoever reaches a socket in it is us (or root).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "control/client.h"
#include "control/internal.h"

static bool own_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

int control_directory(char *buf, size_t size, struct skep_error *e)
{
	const char *dir = getenv("SKEP_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
	uid_t uid = geteuid();
	int len;

	/*
	 * Root's machines lie in one place, whatever the environment that su or sudo left; and a
	 * login's directory counts only while it is there.
	 */
	if (dir && *dir)
		len = snprintf(buf, size, "%s", dir);
	else if (uid == 0)
		len = snprintf(buf, size, "/run/skep");
	else if (xdg && *xdg && own_directory(xdg))
		len = snprintf(buf, size, "%s/skep", xdg);
	else
		len = snprintf(buf, size, "/tmp/skep-%u", (unsigned)uid);
	if (len < 0 || (size_t)len >= size)
		return skep_fail(e, ENAMETOOLONG, "the runtime directory's name is longer than %zu "
				 "bytes; set SKEP_RUNTIME_DIR to a shorter one", size - 1);
	return 0;
}

static int check_directory(int fd, const char *path, bool make, struct skep_error *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return skep_fail(e, errno, "the runtime directory \"%s\": %s", path, strerror(errno));
	/* Root may look into another user's. */
	if (!make && geteuid() == 0)
		return 0;
	if (st.st_uid != geteuid())
		return skep_fail(e, EPERM, "the runtime directory \"%s\" belongs to user %u and not to "
				 "us; set SKEP_RUNTIME_DIR to a directory of your own", path,
				 (unsigned)st.st_uid);
	if (st.st_mode & 077)
		return skep_fail(e, EPERM, "the runtime directory \"%s\" is open to others (mode %03o); "
				 "chmod 700 it, or set SKEP_RUNTIME_DIR to another one", path,
				 (unsigned)st.st_mode & 0777);
	return 0;
}

int control_open_directory(bool make, char path[PATH_MAX], struct skep_error *e)
{
	int fd, err = control_directory(path, PATH_MAX, e);

	if (err)
		return err;
	if (make && mkdir(path, 0700) < 0 && errno != EEXIST)
		return skep_fail(e, errno, "the runtime directory \"%s\" cannot be made: %s; set "
				 "SKEP_RUNTIME_DIR to another one", path, strerror(errno));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return skep_fail(e, errno, "the runtime directory \"%s\" cannot be opened: %s", path,
				 errno == ELOOP || errno == ENOTDIR ? "it is not a directory" :
				 strerror(errno));
	err = check_directory(fd, path, make, e);
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

int control_check_name(const char *name, struct skep_error *e)
{
	/* As config/schema.c has it; a name comes here from people, too. */
	if (!*name || strlen(name) > 63 || strchr(name, '/') || *name == '.')
		return skep_fail(e, EINVAL, "\"%.80s\" cannot be a machine's name: it has 1 to 63 "
				 "characters, no slash, and not a dot first", name);
	return 0;
}

int control_address(int dir, const char *path, const char *name, struct sockaddr_un *sa,
		    struct skep_error *e)
{
	size_t size = sizeof(sa->sun_path);
	int len;

	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	len = snprintf(sa->sun_path, size, "%s/%s.sock", path, name);
	if (len < 0 || (size_t)len >= size)	/* by the descriptor that is open already */
		len = snprintf(sa->sun_path, size, "/proc/self/fd/%d/%s.sock", dir, name);
	if (len < 0 || (size_t)len >= size)
		return skep_fail(e, ENAMETOOLONG, "the socket of \"%s\" in \"%s\" has too long a name",
				 name, path);
	return 0;
}

int64_t control_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

json_t *control_text(const char *s)
{
	json_t *j = json_string(s);
	char *ascii, *p;

	if (j)
		return j;
	ascii = strdup(s);
	for (p = ascii; p && *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	j = json_string(ascii ? ascii : "?");
	free(ascii);
	return j;
}
