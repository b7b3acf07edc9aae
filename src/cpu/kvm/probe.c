#include "cpu/kvm/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "cpu/kvm/call.h"
#include "cpu/kvm/host.h"
#include "cpu/kvm/probe_guest.h"
#include "skep/version.h"

#define CACHE_NAME	"kvm-probe"
#define CACHE_FORMAT	3
#define TIMEOUT_MS	2000

static const char *const stages[PROBE_STAGES] = {
	[PROBE_START] = "its first instruction", [PROBE_LOOP] = "integers",
	[PROBE_SSE2] = "SSE2", [PROBE_CX16] = "cmpxchg16b", [PROBE_INT3] = "int3",
	[PROBE_XSAVE] = "xsave",
};

/* ---- Running it ----------------------------------------------------------- */

/* A grandchild: nobody waits for its end, and a guest that hangs dies of the alarm. */
static void run_child(int kvm, int to)
{
	struct probe_result r;
	pid_t pid = fork();

	if (pid)
		_exit(pid < 0);
	signal(SIGALRM, SIG_DFL);
	alarm(TIMEOUT_MS / 1000 + 1);
	probe_guest_run(kvm, &r);
	if (write(to, &r, sizeof(r)) < 0)
		_exit(1);
	_exit(0);
}

static bool measure(int kvm, struct probe_result *r)
{
	struct pollfd p = { .events = POLLIN };
	int ends[2], status;
	bool done = false;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	pid = fork();
	if (pid == 0)
		run_child(kvm, ends[1]);
	close(ends[1]);
	p.fd = ends[0];
	if (pid > 0) {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		done = poll(&p, 1, TIMEOUT_MS) == 1 && read(ends[0], r, sizeof(*r)) == sizeof(*r);
	}
	close(ends[0]);
	return done;
}

static void judge(struct kvm_verdict *v, const struct probe_result *r)
{
	size_t len = 0;

	v->kips = r->kips;
	v->us = r->us;
	v->tsc_khz = r->tsc_khz;
	for (int i = PROBE_LOOP; i <= r->stage; i++)
		len += (size_t)snprintf(v->passed + len, sizeof(v->passed) - len, "%s%s", len ? ", " : "",
					stages[i]);
	if (r->stage < 0 && r->error)
		snprintf(v->why, sizeof(v->why), "KVM does not run a guest: %s", strerror(-r->error));
	else if (r->stage == PROBE_INT3 && !r->xsave)
		snprintf(v->why, sizeof(v->why), "KVM gives guests no XSAVE (%.1f MIPS in kernel mode)",
			 r->kips / 1000.0);
	else if (r->stage + 1 < PROBE_STAGES)
		snprintf(v->why, sizeof(v->why), "KVM fails at %s in kernel mode, which it runs at %.1f "
			 "MIPS", stages[r->stage + 1], r->kips / 1000.0);
	else if (r->kips < KVM_PROBE_MIPS * 1000)
		snprintf(v->why, sizeof(v->why), "KVM runs kernel mode at %.1f MIPS only",
			 r->kips / 1000.0);
	else
		v->usable = true;
}

static void probe(struct kvm_verdict *v)
{
	struct probe_result r;
	struct skep_error e;
	int kvm = kvm_open(&e);
	const char *text;

	v->fresh = true;
	if (kvm < 0) {
		text = !strncmp(e.text, "backend=kvm: ", 13) ? e.text + 13 : e.text;
		snprintf(v->why, sizeof(v->why), "%.190s", text);
		return;
	}
	v->opens = true;
	v->tsc_control = kvm_call_value(kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;
	if (measure(kvm, &r))
		judge(v, &r);
	else
		snprintf(v->why, sizeof(v->why), "KVM does not run a guest of a few instructions to its "
			 "end within %d s", TIMEOUT_MS / 1000);
	close(kvm);
}

/* ---- What is kept ------------------------------------------------------------ */

static void read_line(const char *path, char *text, size_t size)
{
	FILE *f = fopen(path, "re");

	text[0] = '\0';
	if (!f)
		return;
	if (!fgets(text, (int)size, f))
		text[0] = '\0';
	fclose(f);
	text[strcspn(text, "\n")] = '\0';
}

bool kvm_modules(char *text, size_t size)
{
	static const char *const names[] = { "kvm_intel", "kvm_amd", "kvm_pvm" };
	char path[80], version[64];
	struct stat st;
	size_t len = 0;

	text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "/sys/module/%s", names[i]);
		if (stat(path, &st) < 0)
			continue;
		snprintf(path, sizeof(path), "/sys/module/%s/srcversion", names[i]);
		read_line(path, version, sizeof(version));
		len += (size_t)snprintf(text + len, size - len, "%s%s%s%s", len ? ", " : "", names[i],
					version[0] ? " " : "", version);
		if (len >= size)
			return true;
	}
	return len != 0;
}

/* All that a verdict depends on. */
static void make_key(char *key, size_t size)
{
	char boot[64], modules[200];
	struct utsname u = { .release = "?" };

	uname(&u);
	read_line("/proc/sys/kernel/random/boot_id", boot, sizeof(boot));
	kvm_modules(modules, sizeof(modules));
	snprintf(key, size, "%d %s %s %s / %s / %s", CACHE_FORMAT, SKEP_VERSION, boot, u.release,
		 u.version, modules);
}

static bool same_line(FILE *f, const char *key)
{
	char line[1024];

	if (!fgets(line, sizeof(line), f))
		return false;
	line[strcspn(line, "\n")] = '\0';
	return !strcmp(line, key);
}

static bool parse(FILE *f, struct kvm_verdict *v)
{
	char line[256];
	int usable, control;

	if (!fgets(line, sizeof(line), f) ||
	    sscanf(line, "%d %" SCNu32 " %" SCNu32 " %" SCNu32 " %d", &usable, &v->kips, &v->us,
		   &v->tsc_khz, &control) != 5)
		return false;
	v->usable = usable == 1;
	v->tsc_control = control == 1;
	v->opens = true;
	if (!fgets(v->passed, sizeof(v->passed), f) || !fgets(v->why, sizeof(v->why), f))
		return false;
	v->passed[strcspn(v->passed, "\n")] = '\0';
	v->why[strcspn(v->why, "\n")] = '\0';
	return true;
}

static bool recall(int dir, const char *key, struct kvm_verdict *v)
{
	int fd = openat(dir, CACHE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	bool good;

	if (!f) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	good = same_line(f, key) && parse(f, v);
	fclose(f);
	if (!good)
		*v = (struct kvm_verdict){ .usable = false };
	return good;
}

static void keep(int dir, const char *key, const struct kvm_verdict *v)
{
	char text[2048], name[48];
	int len = snprintf(text, sizeof(text), "%s\n%d %u %u %u %d\n%s\n%s\n", key, v->usable, v->kips,
			   v->us, v->tsc_khz, v->tsc_control, v->passed, v->why);
	int fd;

	snprintf(name, sizeof(name), CACHE_NAME ".%d", (int)getpid());
	fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return;
	/* What cannot be kept is measured again. */
	if (len >= (int)sizeof(text) || write(fd, text, (size_t)len) != len ||
	    renameat(dir, name, dir, CACHE_NAME) < 0)
		unlinkat(dir, name, 0);
	close(fd);
}

void kvm_probe(struct kvm_verdict *v, int dir, bool again)
{
	char key[1000];

	*v = (struct kvm_verdict){ .usable = false };
	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		probe(v);		/* it says why; that costs nothing */
		return;
	}
	make_key(key, sizeof(key));
	if (dir >= 0 && !again && recall(dir, key, v))
		return;
	probe(v);
	if (dir >= 0)
		keep(dir, key, v);
}

int kvm_probe_model(const struct cpu_model *model, struct skep_error *e)
{
	int kvm = kvm_open(e), err;

	if (kvm < 0)
		return kvm;
	err = kvm_model_check(kvm, model, e);
	close(kvm);
	return err;
}
