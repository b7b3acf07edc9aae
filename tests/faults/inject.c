#include "faults/inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

/* The allocator is called before a sanitizer has set itself up. */
#define EARLY __attribute__((no_sanitize("address", "undefined")))
#define COPIES (2 * 1024 * 1024)	/* what a cut asks for at once */

#ifdef __SANITIZE_ADDRESS__
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif
extern void *REAL(malloc)(size_t);
extern void *REAL(calloc)(size_t, size_t);
extern void *REAL(realloc)(void *, size_t);
extern void *REAL(memalign)(size_t, size_t);
extern void REAL(free)(void *);

const char *const fault_names[FAULT_KINDS] = {
	"malloc", "mmap of the guest", "open", "read", "write", "fsync", "link", "rename", "unlink",
	"stat", "lock", "access", "mmap", "madvise", "thread", "random", "epoll_ctl", "sigaction", "ioctl",
	"send", "receive",
};

static struct {
	bool on, stays, fired, everywhere;
	enum fault_kind kind;
	unsigned n;
	int error;
	unsigned calls[FAULT_KINDS];
	long blocks, mapped;
	unsigned era;		/* a mark of an earlier one is none */
} plan;

static __thread unsigned mark;
static __thread bool spared;
static __thread bool begun;	/* a sanitizer's part of a new thread is over */

/* ---- The plan ---------------------------------------------------------- */

void fault_arm(enum fault_kind kind, unsigned n, int error, bool stays)
{
	plan.kind = kind;
	plan.n = n;
	plan.error = error;
	plan.stays = stays;
	plan.fired = false;
	memset(plan.calls, 0, sizeof(plan.calls));
	begun = true;
	mark = __atomic_add_fetch(&plan.era, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&plan.on, true, __ATOMIC_SEQ_CST);
}

bool fault_disarm(void)
{
	__atomic_store_n(&plan.on, false, __ATOMIC_SEQ_CST);
	mark = 0;
	return __atomic_load_n(&plan.fired, __ATOMIC_SEQ_CST);
}

unsigned fault_calls(enum fault_kind kind) { return plan.calls[kind]; }
long fault_blocks(void) { return __atomic_load_n(&plan.blocks, __ATOMIC_SEQ_CST); }
long fault_mapped(void) { return __atomic_load_n(&plan.mapped, __ATOMIC_SEQ_CST); }

void fault_everywhere(bool on) { plan.everywhere = on; }
void fault_spare_me(void) { spared = true; }

EARLY static bool marked(void)
{
	if (!__atomic_load_n(&plan.on, __ATOMIC_ACQUIRE))
		return false;
	return plan.everywhere ? begun && !spared : mark && mark == __atomic_load_n(&plan.era, __ATOMIC_RELAXED);
}

/* Counts a call; should it fail? */
EARLY static bool count(enum fault_kind kind)
{
	unsigned n = __atomic_add_fetch(&plan.calls[kind], 1, __ATOMIC_SEQ_CST);

	if (kind != plan.kind || (plan.stays ? n < plan.n : n != plan.n))
		return false;
	__atomic_store_n(&plan.fired, true, __ATOMIC_SEQ_CST);
	return true;
}

/* errno is set when it should. */
EARLY static bool fails(enum fault_kind kind)
{
	if (!marked() || !count(kind))
		return false;
	errno = plan.error;
	return true;
}

static bool falls_short(void)
{
	return plan.error == FAULT_SHORT;
}

/* ---- Memory ------------------------------------------------------------ */

EARLY static void *got(void *p)
{
	if (p)
		__atomic_add_fetch(&plan.blocks, 1, __ATOMIC_RELAXED);
	return p;
}

static bool no_copy(size_t size)
{
	return size == COPIES && __atomic_load_n(&plan.on, __ATOMIC_ACQUIRE) && !marked() &&
	       count(FAULT_COPY);
}

EARLY static bool no_memory(void)
{
	if (!fails(FAULT_MEMORY))
		return false;
	errno = ENOMEM;
	return true;
}

EARLY void *malloc(size_t size)
{
	return no_memory() ? NULL : got(REAL(malloc)(size));
}

EARLY void *calloc(size_t n, size_t size)
{
	return no_memory() ? NULL : got(REAL(calloc)(n, size));
}

EARLY void *realloc(void *p, size_t size)
{
	void *q;

	if (size && no_memory())
		return NULL;
	q = REAL(realloc)(p, size);
	if (!p)
		return got(q);
	if (!q && !size)
		__atomic_sub_fetch(&plan.blocks, 1, __ATOMIC_RELAXED);
	return q;
}

EARLY void *aligned_alloc(size_t align, size_t size)
{
	return no_memory() ? NULL : got(REAL(memalign)(align, size));
}

EARLY void free(void *p)
{
	if (p)
		__atomic_sub_fetch(&plan.blocks, 1, __ATOMIC_RELAXED);
	REAL(free)(p);
}

static char *copy_text(const char *s, size_t len)
{
	char *copy = malloc(len + 1);

	if (!copy)
		return NULL;
	memcpy(copy, s, len);
	copy[len] = '\0';
	return copy;
}

char *strndup(const char *s, size_t max)
{
	return copy_text(s, strnlen(s, max));
}

char *strdup(const char *s)
{
	return copy_text(s, strlen(s));
}

/* Fixed ones lie over something that is mapped already. */
void *mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *p;

	if (fails(FAULT_MMAP))
		return MAP_FAILED;
	if (no_copy(len)) {
		errno = plan.error;
		return MAP_FAILED;
	}
	p = (void *)syscall(SYS_mmap, at, len, prot, flags, fd, offset);
	if (p != MAP_FAILED && !(flags & MAP_FIXED))
		__atomic_add_fetch(&plan.mapped, (long)len, __ATOMIC_SEQ_CST);
	return p;
}

int munmap(void *at, size_t len)
{
	int err = (int)syscall(SYS_munmap, at, len);

	if (!err)
		__atomic_sub_fetch(&plan.mapped, (long)len, __ATOMIC_SEQ_CST);
	return err;
}

int madvise(void *at, size_t len, int advice)
{
	return fails(FAULT_MADVISE) ? -1 : (int)syscall(SYS_madvise, at, len, advice);
}

/* ---- Descriptors and files --------------------------------------------- */

int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, int) : 0;
	va_end(ap);
	return fails(FAULT_OPEN) ? -1 : (int)syscall(SYS_openat, dir, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, int) : 0;
	va_end(ap);
	return openat(AT_FDCWD, path, flags, mode);
}

FILE *fopen(const char *path, const char *mode)
{
	static FILE *(*real)(const char *, const char *);

	if (fails(FAULT_OPEN))
		return NULL;
	if (!real)
		real = dlsym(RTLD_NEXT, "fopen");
	return real(path, mode);
}

int dup(int fd) { return fails(FAULT_OPEN) ? -1 : (int)syscall(SYS_dup, fd); }
int eventfd(unsigned n, int flags)
{
	return fails(FAULT_OPEN) ? -1 : (int)syscall(SYS_eventfd2, n, flags);
}
int epoll_create1(int flags)
{
	return fails(FAULT_OPEN) ? -1 : (int)syscall(SYS_epoll_create1, flags);
}
int timerfd_create(int clock, int flags)
{
	return fails(FAULT_OPEN) ? -1 : (int)syscall(SYS_timerfd_create, clock, flags);
}
int memfd_create(const char *name, unsigned flags)
{
	return fails(FAULT_OPEN) ? -1 : (int)syscall(SYS_memfd_create, name, flags);
}
int socket(int domain, int type, int protocol)
{
	return fails(FAULT_OPEN) ? -1 : (int)syscall(SYS_socket, domain, type, protocol);
}
int accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	return fails(FAULT_OPEN) ? -1 : (int)syscall(SYS_accept4, fd, sa, len, flags);
}

int inotify_init1(int flags)
{
	return fails(FAULT_OPEN) ? -1 : (int)syscall(SYS_inotify_init1, flags);
}
int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
	return fails(FAULT_WATCH) ? -1 : (int)syscall(SYS_inotify_add_watch, fd, path, mask);
}

int epoll_ctl(int epoll, int op, int fd, struct epoll_event *ev)
{
	return fails(FAULT_WATCH) ? -1 : (int)syscall(SYS_epoll_ctl, epoll, op, fd, ev);
}

ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
	if (fails(FAULT_READ)) {
		if (!falls_short())
			return -1;
		len /= 2;
	}
	return syscall(SYS_pread64, fd, buf, len, offset);
}

/* Half of the first piece; of one byte nothing, which is a short write, too. */
ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	if (fails(FAULT_WRITE))
		return !falls_short() ? -1 :
			syscall(SYS_pwrite64, fd, iov->iov_base, iov->iov_len / 2, offset);
	return syscall(SYS_pwritev, fd, iov, n, offset, 0);
}

int fsync(int fd)
{
	return fails(FAULT_FSYNC) ? -1 : 0;
}

int linkat(int from, const char *a, int to, const char *b, int flags)
{
	return fails(FAULT_LINK) ? -1 : (int)syscall(SYS_linkat, from, a, to, b, flags);
}

int renameat(int from, const char *a, int to, const char *b)
{
	return fails(FAULT_RENAME) ? -1 : (int)syscall(SYS_renameat, from, a, to, b);
}

int unlinkat(int dir, const char *path, int flags)
{
	return fails(FAULT_UNLINK) ? -1 : (int)syscall(SYS_unlinkat, dir, path, flags);
}

int fstat(int fd, struct stat *st)
{
	return fails(FAULT_STAT) ? -1 : (int)syscall(SYS_fstat, fd, st);
}

int fstatat(int dir, const char *path, struct stat *st, int flags)
{
	return fails(FAULT_STAT) ? -1 : (int)syscall(SYS_newfstatat, dir, path, st, flags);
}

int stat(const char *path, struct stat *st)
{
	return fstatat(AT_FDCWD, path, st, 0);
}

int flock(int fd, int how)
{
	return fails(FAULT_LOCK) ? -1 : (int)syscall(SYS_flock, fd, how);
}

int faccessat(int dir, const char *path, int mode, int flags)
{
	return fails(FAULT_ACCESS) ? -1 : (int)syscall(SYS_faccessat, dir, path, mode);
}

int access(const char *path, int mode)
{
	return faccessat(AT_FDCWD, path, mode, 0);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	return fails(FAULT_IOCTL) ? -1 : (int)syscall(SYS_ioctl, fd, request, arg);
}

/* ---- The rest ---------------------------------------------------------- */

ssize_t getrandom(void *buf, size_t len, unsigned flags)
{
	return fails(FAULT_RANDOM) ? -1 : syscall(SYS_getrandom, buf, len, flags);
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	if (fails(FAULT_SEND)) {
		if (!falls_short())
			return -1;
		len = (len + 1) / 2;
	}
	return syscall(SYS_sendto, fd, buf, len, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	if (fails(FAULT_SEND) && !falls_short())
		return -1;
	return syscall(SYS_sendmsg, fd, msg, flags);
}

ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	if (fails(FAULT_RECEIVE)) {
		if (!falls_short())
			return -1;
		len = 1;
	}
	return syscall(SYS_recvfrom, fd, buf, len, flags, NULL, NULL);
}

ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	if (fails(FAULT_RECEIVE) && !falls_short())
		return -1;
	return syscall(SYS_recvmsg, fd, msg, flags);
}

int sigaction(int sig, const struct sigaction *new, struct sigaction *old)
{
	static int (*real)(int, const struct sigaction *, struct sigaction *);

	if (fails(FAULT_SIGNAL))
		return -1;
	if (!real)
		real = dlsym(RTLD_NEXT, "sigaction");
	return real(sig, new, old);
}

struct start {
	void *(*fn)(void *);
	void *arg;
	unsigned mark;
	bool spared;
};

/* The mark is handed down. */
static void *start(void *opaque)
{
	struct start s = *(struct start *)opaque;

	REAL(free)(opaque);
	mark = s.mark;
	spared = s.spared;
	begun = true;
	return s.fn(s.arg);
}

int pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	struct start *s;
	int err;

	if (fails(FAULT_THREAD))
		return plan.error;
	if (!real)
		real = dlsym(RTLD_NEXT, "pthread_create");
	s = REAL(malloc)(sizeof(*s));
	if (!s)
		return EAGAIN;
	*s = (struct start){ fn, arg, mark, spared };
	err = real(t, attr, start, s);
	if (err)
		REAL(free)(s);
	return err;
}
