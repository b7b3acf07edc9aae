/*
 * skep clone: several machines from one snapshot, each a process of its own, which share what
 * they do not write.  A clone has a name, a socket and a generation identity of its own; what the
 * guest has read already (UUID, addresses) stays.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/restored.h"
#include "config/config.h"
#include "snapshot/reader.h"

#define CLONES_MAX 1000

static const char help[] =
	"usage: skep clone [-n COUNT] [options] FILE [NAME]\n"
	"\n"
	"Starts COUNT machines (1 if left out) from the snapshot FILE and waits for them.  They are\n"
	"named NAME-1, NAME-2 and so on, after the saved machine if NAME is left out.\n"
	"\n"
	"  -n COUNT             how many\n"
	"  -o KEY=VALUE         as in skep restore; %(clone) stands for the clone's number\n"
	"  --time=continue|advance, --check=ram, --prefault, --prefetch   as in skep restore\n"
	"\n"
	"What only one machine can have (a terminal, a socket, a file) has to differ in each.\n"
	"\n"
	"Examples:\n"
	"  skep clone -n 20 -o lpc.com1.path=/tmp/web-%(clone).log web.skep\n"
	"  skep clone -n 3 -o lpc.com1.path=pty web.skep\n";

struct clone_command {
	unsigned count;
	const char *pass[16];	/* options for each restore */
	unsigned npass;
	struct restored_settings settings;
	const char *file;
};

struct clone {
	pid_t pid;		/* 0: not started, or over */
	char name[64], number[12];
};

/* ---- Arguments --------------------------------------------------------- */

static const struct option options[] = {
	{ "time", required_argument, NULL, 't' },
	{ "check", required_argument, NULL, 'c' },
	{ "prefault", no_argument, NULL, 'f' },
	{ "prefetch", no_argument, NULL, 'p' },
	{ "exact", no_argument, NULL, 'x' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static int pass_on(struct clone_command *k, char **argv, struct skep_error *e)
{
	unsigned n = optarg && optarg == argv[optind - 1] ? 2 : 1;

	if (k->npass + n > ARRAY_SIZE(k->pass))
		return skep_fail(e, E2BIG, "too many options");
	for (unsigned i = n; i; i--)
		k->pass[k->npass++] = argv[optind - (int)i];
	return 0;
}

static int parse_count(struct clone_command *k, struct skep_error *e)
{
	char *end;
	unsigned long n = strtoul(optarg, &end, 10);

	if (*end || *optarg < '0' || *optarg > '9' || !n || n > CLONES_MAX)
		return skep_fail(e, EINVAL, "-n: \"%s\" is not a number from 1 to %d", optarg, CLONES_MAX);
	k->count = (unsigned)n;
	return 0;
}

/* 1: help was asked for. */
static int parse(int argc, char **argv, struct clone_command *k, struct skep_error *e)
{
	int got, err = 0;

	optind = 0;
	opterr = 0;
	while (!err && (got = getopt_long(argc, argv, ":n:o:h", options, NULL)) != -1) {
		if (got == 'h')
			return 1;
		if (got == 'x')
			return skep_fail(e, EINVAL, "a clone is another machine and cannot be restored "
					 "--exact");
		if (got == '?' || got == ':')
			return skep_fail(e, EINVAL, got == ':' ? "%s needs a value" : "there is no option "
					 "%s; `skep clone --help` lists them", argv[optind - 1]);
		err = got == 'n' ? parse_count(k, e) :
		      got == 'o' ? restored_assign(&k->settings, optarg, e) : pass_on(k, argv, e);
	}
	if (err)
		return err;
	if (argc - optind < 1 || argc - optind > 2)
		return skep_fail(e, EINVAL, "want a snapshot, and a name for the machines if they should "
				 "have another: skep clone [options] FILE [NAME]");
	k->file = argv[optind];
	k->settings.name = argv[optind + 1];
	return 0;
}

/* ---- What clones cannot share ------------------------------------------ */

struct comparison {
	struct config *other;
	struct skep_error *e;
	int err;
};

/* Is it a key whose value one machine alone can have?  Disks have rules of their own. */
static bool is_exclusive(struct config *c, const char *key, const char *dot)
{
	bool path = !strcmp(dot, ".path");
	char device[128];
	const char *type;

	if (strncmp(key, "pci.", 4))
		return path && !strncmp(key, "lpc.com", 7);
	if (!strcmp(dot, ".backend") || !strcmp(dot, ".hostfwd"))
		return true;
	snprintf(device, sizeof(device), "%.*s.device", (int)(dot - key), key);
	type = config_string(config_root(c), device);
	return path && (strstr(key, ".port.") || (type && !strcmp(type, "virtio-vsock")));
}

static void compare(void *opaque, const char *key, const char *value, bool given)
{
	struct comparison *x = opaque;
	const char *other = config_string(config_root(x->other), key);
	static const char *const shared[] = { "", "pty", "null", "/dev/null", "slirp" };
	const char *dot = strrchr(key, '.');

	if (x->err || !dot || !other || strcmp(value, other) || !is_exclusive(x->other, key, dot))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(shared); i++)
		if (!strcmp(value, shared[i]))
			return;
	if (!strcmp(dot, ".path"))
		x->err = skep_fail(x->e, EBUSY, "%s: every clone would have \"%s\"; give each its own, as "
				   "in -o %s=/tmp/%%(name).log, or -o %s=%s", key, value, key, key,
				   strstr(key, ".port.") || key[0] == 'l' ? "pty" : "null");
	else
		x->err = skep_fail(x->e, EBUSY, "%s: every clone would have \"%s\"; give each its own, with "
				   "%%(clone) in it, or -o %s=%s", key, value, key,
				   strcmp(dot, ".backend") ? "" : "slirp");
}

/* Names and settings of clone number n; the config only if asked for. */
static int describe(const struct clone_command *k, const struct snap_reader *r, unsigned n,
		    struct clone *c, struct config **config, struct skep_error *e)
{
	struct restored_settings s = k->settings;

	snprintf(c->number, sizeof(c->number), "%u", n);
	if ((size_t)snprintf(c->name, sizeof(c->name), "%s-%u", s.name ? s.name : r->manifest.name, n) >=
	    sizeof(c->name))
		return skep_fail(e, ENAMETOOLONG, "the machine's name is too long for clones");
	s.name = c->name;
	s.clone = c->number;
	if (!config)
		return 0;
	*config = restored_config(r, &s, e);
	return *config ? 0 : -EINVAL;
}

static int check_sharing(const struct clone_command *k, const struct snap_reader *r,
			 struct skep_error *e)
{
	struct config *a = NULL, *b = NULL;
	struct comparison x = { .e = e };
	struct clone scratch = { 0 };
	int err = describe(k, r, 1, &scratch, &a, e);

	if (!err)
		err = describe(k, r, 2, &scratch, &b, e);
	if (!err && k->count > 1) {
		x.other = b;
		config_each(a, compare, &x);
		err = x.err;
	}
	config_destroy(b);
	config_destroy(a);
	return err;
}

/* ---- Processes --------------------------------------------------------- */

static void become(const struct clone_command *k, const struct clone *c)
{
	const char *argv[8 + ARRAY_SIZE(k->pass) + 2 * RESTORED_ASSIGNMENTS];
	unsigned n = 0, i;

	/* Who supervises them may be killed: nobody would know of them any more. */
	prctl(PR_SET_PDEATHSIG, SIGQUIT);
	argv[n++] = "skep";
	argv[n++] = "restore";
	argv[n++] = "--clone";
	argv[n++] = c->number;
	for (i = 0; i < k->npass; i++)
		argv[n++] = k->pass[i];
	for (i = 0; i < k->settings.nassignments; i++) {
		argv[n++] = "-o";
		argv[n++] = k->settings.assignments[i];
	}
	argv[n++] = k->file;
	argv[n++] = c->name;
	argv[n] = NULL;
	execv("/proc/self/exe", (char **)argv);
	cli_complain("%s: cannot start: %s", c->name, strerror(errno));
	_exit(CLI_ERROR);
}

static void report(const struct clone *c, int status)
{
	static const char *const why[] = { "asked for a reboot", "powered off", "halted",
					   "took a triple fault", "ended in an error", "was suspended" };

	if (WIFSIGNALED(status))
		printf("%s was killed: %s\n", c->name, strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) < (int)ARRAY_SIZE(why))
		printf("%s %s\n", c->name, why[WEXITSTATUS(status)]);
	else
		printf("%s ended with %d\n", c->name, WEXITSTATUS(status));
	fflush(stdout);
}

/* Returns how many are over now; bad is set when one of them ended in an error. */
static unsigned reap(struct clone *clones, unsigned n, bool *bad)
{
	unsigned over = 0, i;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (i = 0; i < n; i++)
			if (clones[i].pid == pid) {
				clones[i].pid = 0;
				over++;
				*bad |= !WIFEXITED(status) || WEXITSTATUS(status) == CLI_ERROR;
				report(&clones[i], status);
			}
	return over;
}

static void pass_signal(const struct clone *clones, unsigned n, int sig)
{
	for (unsigned i = 0; i < n; i++)
		if (clones[i].pid)
			kill(clones[i].pid, sig);
}

/* Waits for all of them; signals that end machines are passed on. */
static int wait_for(struct clone *clones, unsigned n, int signals)
{
	unsigned left = n;
	bool bad = false;

	while ((left -= reap(clones, n, &bad)) > 0) {
		struct signalfd_siginfo info;

		if (read(signals, &info, sizeof(info)) != sizeof(info)) {
			if (errno == EINTR)
				continue;
			return CLI_ERROR;
		}
		/* What the terminal sends, it sends to all of its processes. */
		if (info.ssi_signo != SIGCHLD && info.ssi_code != SI_KERNEL)
			pass_signal(clones, n, (int)info.ssi_signo);
	}
	return bad ? CLI_ERROR : 0;
}

static int start_all(const struct clone_command *k, const struct snap_reader *r,
		     struct clone *clones, struct skep_error *e)
{
	sigset_t set, before;
	int signals, code = CLI_ERROR;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, &before);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (signals < 0) {
		skep_fail(e, errno, "cannot wait for signals: %s", strerror(errno));
		return code;
	}
	for (unsigned i = 0; i < k->count; i++) {
		if (describe(k, r, i + 1, &clones[i], NULL, e) < 0)
			break;
		clones[i].pid = fork();
		if (!clones[i].pid) {
			sigprocmask(SIG_SETMASK, &before, NULL);
			become(k, &clones[i]);
		}
		if (clones[i].pid < 0) {
			clones[i].pid = 0;
			skep_fail(e, errno, "cannot start clone %u: %s", i + 1, strerror(errno));
			pass_signal(clones, i, SIGKILL);
			wait_for(clones, i, signals);
			close(signals);
			return code;
		}
	}
	code = wait_for(clones, k->count, signals);
	close(signals);
	return code;
}

static int clone_all(const struct clone_command *k, struct skep_error *e)
{
	struct snap_reader *r = snap_open(k->file, 0, e);
	struct clone *clones = NULL;
	int code = CLI_ERROR;

	if (!r)
		return code;
	if (check_sharing(k, r, e) < 0)
		goto done;
	clones = calloc(k->count, sizeof(*clones));
	if (!clones)
		skep_fail(e, ENOMEM, "no memory for %u clones", k->count);
	else
		code = start_all(k, r, clones, e);
done:
	free(clones);
	snap_close(r);
	return code;
}

int cli_clone(int argc, char **argv, const struct cli_start *start)
{
	struct clone_command k = { .count = 1 };
	struct skep_error e = { "" };
	int code = CLI_ERROR, got = parse(argc, argv, &k, &e);

	if (got > 0) {
		fputs(help, stdout);
		return 0;
	}
	if (!got)
		code = clone_all(&k, &e);
	if (e.text[0])
		cli_complain("%s", e.text);
	return code;
}
