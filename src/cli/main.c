/* The skep command: which of its commands is meant. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "base/util.h"
#include "cli/cli.h"
#include "config/nearest.h"

struct command {
	const char *name;
	int (*run)(int argc, char **argv, const struct cli_start *start);
	const char *help;
};

static bool asks_for_help(int argc, char **argv)
{
	return argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
}

static int run_version(int argc, char **argv, const struct cli_start *start)
{
	if (asks_for_help(argc, argv)) {
		puts("usage: skep version [--json]");
		return 0;
	}
	return cli_version(argc, argv);
}

static int run_help(int argc, char **argv, const struct cli_start *start);

static const struct command commands[] = {
	{ "run", cli_run, "start a machine" },
	{ "save", cli_save, "save a running machine to a file" },
	{ "restore", cli_restore, "start the machine that a file holds" },
	{ "clone", cli_clone, "start several machines from one file" },
	{ "list", cli_list, "show the machines that run" },
	{ "status", cli_status, "tell how a running machine is" },
	{ "stats", cli_stats, "show what a running machine counts" },
	{ "pause", cli_pause, "make a running machine stand" },
	{ "resume", cli_pause, "let it go on" },
	{ "stop", cli_stop, "press a machine's power button, reset or end it" },
	{ "ctl", cli_ctl, "send a command of the control protocol" },
	{ "demo", cli_demo, "save, kill and restore the guest that is built in" },
	{ "inspect", cli_inspect, "show what a snapshot holds" },
	{ "verify", cli_verify, "tell whether a snapshot is whole and would be restored" },
	{ "diff", cli_diff, "tell how two snapshots differ" },
	{ "snapshot", cli_snapshot, "flatten a chain of deltas, or list it" },
	{ "profile", cli_profile, "generations of snapshots: list, show, check" },
	{ "9pserve", cli_9pserve, "share a directory with 9P clients on a socket" },
	{ "check-host", cli_check_host, "tell what this host offers to a machine, and what is missing" },
	{ "help", run_help, "explain a command, or a topic: keys, devices" },
	{ "version", run_version, "print the version" },
};

/* `skep help save` is `skep save --help`. */
static int run_help(int argc, char **argv, const struct cli_start *start)
{
	char flag[] = "--help";
	char *args[] = { argc == 2 ? argv[1] : NULL, flag, NULL };

	if (asks_for_help(argc, argv))
		return cli_help(0, NULL);
	for (size_t i = 0; argc == 2 && i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, argv[1]))
			return commands[i].run(2, args, start);
	return cli_help(argc, argv);
}

void cli_complain(const char *fmt, ...)
{
	char raw[2 * SKEP_ERROR_TEXT], text[sizeof(raw)];
	const char *line = text;
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	vsnprintf(raw, sizeof(raw), fmt, ap);
	va_end(ap);
	/* It may quote a file: that must be no more than text, and not look like another sentence. */
	text_escape(text, sizeof(text), raw, strlen(raw), 1);
	do {
		n = strcspn(line, "\n");
		fprintf(stderr, "%s%.*s\n", line == text ? "skep: " : "      ", (int)n, line);
		line += n + (line[n] == '\n');
	} while (*line);
}

static int unknown_command(const char *word)
{
	struct nearest near;
	char hint[160];

	nearest_init(&near, word);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		nearest_offer(&near, commands[i].name);
	nearest_hint(&near, hint, sizeof(hint));
	cli_complain("there is no command \"%s\"%s", word, *hint ? hint : "; `skep help` lists them");
	return CLI_ERROR;
}

/* When the process started: now, less the processor time that exec and the loader took. */
static void note_start(struct cli_start *s)
{
	struct timespec cpu = { 0 };

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	s->monotonic_ns = cli_monotonic_ns() - (cpu.tv_sec * NSEC_PER_SEC + cpu.tv_nsec);
}

/*
 * A closed standard descriptor would be given to the next file that is opened, such
 * as guest memory, and the console or an error message would go there.  Put
 * in its place what fails in the same way: nothing to read, nothing to write.
 */
static void fill_standard_descriptors(void)
{
	static const int mode[] = { O_WRONLY, O_RDONLY, O_RDONLY };

	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", mode[fd]) != fd)
			_exit(CLI_ERROR);	/* the lowest free number is always taken */
}

int main(int argc, char **argv)
{
	struct cli_start start;
	const char *self = argc > 0 ? strrchr(argv[0], '/') : NULL;

	note_start(&start);
	fill_standard_descriptors();
	self = self ? self + 1 : argc > 0 ? argv[0] : "skep";
	/* Wrapper scripts for bhyve run through links by its name. */
	if (!strcmp(self, "bhyve"))
		return cli_run(argc, argv, &start);
	if (!strcmp(self, "bhyvectl"))
		return cli_bhyvectl(argc, argv, &start);
	if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return cli_help(0, NULL);
	if (!strcmp(argv[1], "--version"))
		return cli_version(0, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, argv[1]))
			return commands[i].run(argc - 1, argv + 1, &start);
	return unknown_command(argv[1]);
}
