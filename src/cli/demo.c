/*
 * skep demo: what skep is for, in twenty seconds and without a download.  Starts the guest that is
 * built in, saves it while it runs, kills its process, verifies the file, restores it in a new
 * process, and looks whether the guest noticed.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"

#define TICKS		4		/* seconds that the guest is watched, before and after */
#define PATIENCE_MS	30000

static const char help[] =
	"usage: skep demo              save, kill, verify and restore the built-in guest\n"
	"       skep demo --run [flags] only start it, on this terminal; the flags are those of\n"
	"                              `skep run`\n";

struct guest {
	pid_t pid;
	int out;		/* its console */
	char line[256];
	size_t len;
	/* The last tick that it told: its number, its uptime, and the errors it has found. */
	unsigned long tick, errors;
	double up;
};

/* ---- The guest's process and its console ------------------------------- */

static int start(struct guest *g, char *const argv[], struct skep_error *e)
{
	int fds[2];

	if (pipe(fds) < 0)
		return skep_fail(e, errno, "no pipe for the guest's console: %s", strerror(errno));
	fflush(stdout);
	g->pid = fork();
	if (!g->pid) {
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		execv("/proc/self/exe", argv);
		_exit(CLI_ERROR);
	}
	close(fds[1]);
	g->out = fds[0];
	g->len = 0;
	if (g->pid > 0)
		return 0;
	close(g->out);
	g->out = -1;
	g->pid = 0;
	return skep_fail(e, errno, "cannot start a process for the guest: %s", strerror(errno));
}

static void end(struct guest *g)
{
	if (g->pid > 0) {
		kill(g->pid, SIGKILL);
		waitpid(g->pid, NULL, 0);
	}
	if (g->out >= 0)
		close(g->out);
	g->pid = 0;
	g->out = -1;
}

/* "tick 3: up 3.009 s, 2026-01-01 00:00:03, 4 MiB checked 3 times, 0 errors" */
static bool take_tick(struct guest *g, const char *line)
{
	const char *errors = strrchr(line, ',');

	if (sscanf(line, "tick %lu: up %lf s", &g->tick, &g->up) != 2 || !errors)
		return false;
	return sscanf(errors, ", %lu errors", &g->errors) == 1;
}

/* Shows the guest's next line; 1: it was a tick, 0: it was not, negative: it has ended. */
static int next_line(struct guest *g, struct skep_error *e)
{
	struct pollfd p = { .fd = g->out, .events = POLLIN };
	char c;

	for (;;) {
		if (poll(&p, 1, PATIENCE_MS) == 0)
			return skep_fail(e, ETIMEDOUT, "the guest says nothing any more");
		if (read(g->out, &c, 1) != 1)
			return skep_fail(e, EPIPE, "the guest's process ended");
		if (c == '\n')
			break;
		if (c != '\r' && g->len + 1 < sizeof(g->line))
			g->line[g->len++] = c;
	}
	g->line[g->len] = '\0';
	if (g->len)
		printf("    | %s\n", g->line);
	fflush(stdout);
	g->len = 0;
	return take_tick(g, g->line);
}

static int watch(struct guest *g, unsigned ticks, struct skep_error *e)
{
	while (ticks) {
		int got = next_line(g, e);

		if (got < 0)
			return got;
		ticks -= (unsigned)got;
	}
	return 0;
}

/* ---- The story --------------------------------------------------------- */

struct demo {
	char dir[32], file[48], name[32];
	struct guest guest;
	const struct cli_start *start;
};

static int begin(struct demo *d, struct skep_error *e)
{
	char *argv[] = { "skep", "run", "-o", "boot.demo=true", "-l", "com1,stdio", "-m", "16M", d->name,
			 NULL };

	strcpy(d->dir, "/tmp/skep-demo-XXXXXX");
	if (!mkdtemp(d->dir))
		return skep_fail(e, errno, "no directory for the snapshot: %s: %s", d->dir,
				 strerror(errno));
	snprintf(d->file, sizeof(d->file), "%s/demo.skep", d->dir);
	snprintf(d->name, sizeof(d->name), "demo-%d", (int)getpid());
	printf("1. A guest starts.  It counts seconds and checks 4 MiB of memory.\n");
	return start(&d->guest, argv, e);
}

static int save(struct demo *d, struct skep_error *e)
{
	char *argv[] = { "save", d->name, d->file, NULL };

	printf("2. It is saved while it runs.\n    ");
	fflush(stdout);
	if (cli_save(3, argv, d->start))
		return skep_fail(e, EIO, "the save failed");
	printf("3. Its process (%d) is killed.\n", (int)d->guest.pid);
	end(&d->guest);
	return 0;
}

static int verify(struct demo *d, struct skep_error *e)
{
	char *argv[] = { "verify", d->file, NULL };

	printf("4. The file is verified, every byte of it.\n    ");
	fflush(stdout);
	return cli_verify(2, argv, d->start) ? skep_fail(e, EIO, "the file is damaged") : 0;
}

static int restore(struct demo *d, struct skep_error *e)
{
	char *argv[] = { "skep", "restore", d->file, NULL };
	unsigned long tick = d->guest.tick, i;
	double up = d->guest.up;

	printf("5. It is restored in a new process.\n");
	if (start(&d->guest, argv, e) < 0)
		return -EIO;
	for (i = 1; i <= TICKS; i++) {
		if (watch(&d->guest, 1, e) < 0)
			return -EIO;
		if (d->guest.tick != tick + i)
			return skep_fail(e, EIO, "after tick %lu came tick %lu", tick + i - 1,
					 d->guest.tick);
		if (d->guest.up - up < 0.5 || d->guest.up - up > 1.9)
			return skep_fail(e, EIO, "between two ticks the guest's uptime went from %.3f to "
					 "%.3f s", up, d->guest.up);
		up = d->guest.up;
		if (d->guest.errors)
			return skep_fail(e, EIO, "the guest found %lu words of its memory changed",
					 d->guest.errors);
	}
	return 0;
}

static int story(struct demo *d, struct skep_error *e)
{
	int err = begin(d, e);

	if (!err)
		err = watch(&d->guest, TICKS, e);
	if (!err)
		err = save(d, e);
	if (!err)
		err = verify(d, e);
	if (!err)
		err = restore(d, e);
	end(&d->guest);
	if (!err)
		printf("The guest noticed nothing: it counted to %lu without a gap, and all of its memory "
		       "is right.\n", d->guest.tick);
	unlink(d->file);
	rmdir(d->dir);
	return err;
}

int cli_demo(int argc, char **argv, const struct cli_start *start)
{
	struct demo d = { .start = start, .guest.out = -1 };
	struct skep_error e = { "" };

	if (argc > 1 && !strcmp(argv[1], "--run"))
		return cli_run_demo(argc - 1, argv + 1, start);
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(help, stdout);
		return 0;
	}
	if (argc > 1) {
		cli_complain("demo takes no \"%s\"; `skep demo --run` starts the guest with flags", argv[1]);
		return CLI_ERROR;
	}
	if (!story(&d, &e))
		return 0;
	cli_complain("%s", e.text);
	return CLI_ERROR;
}
