/* The commands that talk to running machines: list, status, stats, pause, resume, stop, ctl. */
#include "cli/control.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

#define ANSWER_MS 5000	/* a machine that is well answers within milliseconds */

/* ---- Arguments --------------------------------------------------------- */

int control_options(int argc, char **argv, const char *help, const struct option *options,
		    int (*apply)(void *opaque, int got, struct skep_error *e), void *opaque,
		    struct skep_error *e)
{
	int got, err = 0;

	optind = 0;
	opterr = 0;
	while (!err && (got = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		if (got == 'h') {
			fputs(help, stdout);
			return 1;
		}
		if (got == '?')
			return skep_fail(e, EINVAL, "there is no option %.80s; `skep %s --help` lists them",
					 argv[optind - 1], argv[0]);
		if (got == ':')
			return skep_fail(e, EINVAL, "%.80s needs a value", argv[optind - 1]);
		err = apply ? apply(opaque, got, e) : 0;
	}
	return err;
}

/* One machine's name and nothing after it. */
static const char *take_name(int argc, char **argv, struct skep_error *e)
{
	if (argc - optind == 1)
		return argv[optind];
	if (argc == optind)
		skep_fail(e, EINVAL, "want the machine's name: skep %s NAME; `skep list` shows those "
			  "that run", argv[0]);
	else
		skep_fail(e, EINVAL, "\"%.80s\" comes after the machine's name \"%.80s\"",
			  argv[optind + 1], argv[optind]);
	return NULL;
}

static int finish(const struct skep_error *e)
{
	if (!e->text[0])
		return 0;
	cli_complain("%s", e->text);
	return CLI_ERROR;
}

/* Connects, calls, disconnects. */
static json_t *call(const char *name, const char *command, json_t *args, struct skep_error *e)
{
	struct control_client *c = control_connect(name, e);
	json_t *reply = NULL;

	if (c) {
		control_set_timeout(c, ANSWER_MS);
		reply = control_call(c, command, args, -1, NULL, NULL, e);
	}
	control_close(c);
	return reply;
}

/* ---- Text ------------------------------------------------------------------ */

static const char *text_of(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "-";
}

static json_int_t integer_of(json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static const char *size_text(json_int_t bytes, char buf[24])
{
	double v = bytes;

	if (v >= GiB)
		snprintf(buf, 24, "%.4gG", v / GiB);
	else if (v >= MiB)
		snprintf(buf, 24, "%.4gM", v / MiB);
	else
		snprintf(buf, 24, "%.4gK", v / KiB);
	return buf;
}

static const char *time_text(json_int_t ns, char buf[32])
{
	json_int_t s = ns / NSEC_PER_SEC;

	if (s < 60)
		snprintf(buf, 32, "%.1f s", ns / 1e9);
	else if (s < 3600)
		snprintf(buf, 32, "%d:%02d min", (int)(s / 60), (int)(s % 60));
	else if (s < 86400)
		snprintf(buf, 32, "%d:%02d h", (int)(s / 3600), (int)(s / 60 % 60));
	else
		snprintf(buf, 32, "%lld d %02d h", (long long)(s / 86400), (int)(s / 3600 % 24));
	return buf;
}

static void print_json(json_t *j)
{
	json_dumpf(j, stdout, JSON_INDENT(1) | JSON_ENCODE_ANY);
	putchar('\n');
}

/* ---- list ------------------------------------------------------------------- */

static const char list_help[] =
	"usage: skep list [--json]\n"
	"\n"
	"Lists the machines of yours that run.  A machine that does not answer is shown as such.\n";

static int apply_flag(void *opaque, int got, struct skep_error *e)
{
	*(bool *)opaque = true;
	return 0;
}

static json_t *list_entry(const char *name)
{
	struct skep_error e = { "" };
	json_t *status = call(name, "status", NULL, &e);

	if (status)
		return status;
	status = json_pack("{s:s}", "state", "silent");
	json_object_set_new(status, "name", json_string(name));
	json_object_set_new(status, "error", json_string(e.text));
	return status;
}

static void list_line(json_t *s)
{
	char memory[24], touched[24], up[32];

	if (!json_object_get(s, "pid")) {
		printf("%-16s %8s %-9s\n", text_of(s, "name"), "?", text_of(s, "state"));
		return;
	}
	printf("%-16s %8lld %-9s %4lld %8s %8s %10s\n", text_of(s, "name"),
	       (long long)integer_of(s, "pid"), text_of(s, "state"),
	       (long long)integer_of(s, "cpus"), size_text(integer_of(s, "memory_bytes"), memory),
	       size_text(integer_of(s, "touched_bytes"), touched),
	       time_text(integer_of(s, "uptime_ns"), up));
}

static json_t *list_all(struct skep_error *e)
{
	char **names = control_names(e);
	json_t *all = json_array();

	for (char **p = names; p && *p; p++)
		json_array_append_new(all, list_entry(*p));
	control_free_names(names);
	return all;
}

int cli_list(int argc, char **argv, const struct cli_start *start)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, 'h' }, { 0 } };
	struct skep_error e = { "" };
	bool json = false;
	json_t *all;
	size_t i;
	int ret = control_options(argc, argv, list_help, options, apply_flag, &json, &e);

	if (ret)
		return ret > 0 ? 0 : finish(&e);
	if (optind < argc) {
		skep_fail(&e, EINVAL, "list takes no \"%.80s\"; `skep status NAME` tells about one "
			  "machine", argv[optind]);
		return finish(&e);
	}
	all = list_all(&e);
	if (!e.text[0] && json) {
		print_json(all);
	} else if (!e.text[0]) {
		if (json_array_size(all))
			printf("%-16s %8s %-9s %4s %8s %8s %10s\n", "NAME", "PID", "STATE", "CPUS",
			       "MEMORY", "TOUCHED", "UPTIME");
		for (i = 0; i < json_array_size(all); i++)
			list_line(json_array_get(all, i));
	}
	json_decref(all);
	return finish(&e);
}

/* ---- status -------------------------------------------------------------------- */

static const char status_help[] =
	"usage: skep status [--json] NAME\n"
	"\n"
	"Tells how the running machine NAME is.  --json gives all that there is to know.\n";

static void show_save(json_t *s)
{
	double total = integer_of(s, "total");

	if (json_is_object(s))
		printf("save        %s, %.0f %%%s\n", json_is_true(json_object_get(s, "suspend")) ?
		       "suspend" : "checkpoint",
		       total > 0 ? 100 * integer_of(s, "done") / total : 0.0,
		       json_is_true(json_object_get(s, "written")) ? ", to be put in its place" : "");
}

static void show_status(json_t *s)
{
	json_t *why = json_object_get(s, "stopped_for");
	char memory[24], touched[24], text[32];
	size_t i;

	printf("name        %s\nstate       %s", text_of(s, "name"), text_of(s, "state"));
	for (i = 0; i < json_array_size(why); i++)
		printf("%s%s", i ? ", " : " (for ", json_string_value(json_array_get(why, i)));
	printf("%s\npid         %lld\nuuid        %s\n", json_array_size(why) ? ")" : "",
	       (long long)integer_of(s, "pid"), text_of(s, "uuid"));
	printf("cpus        %lld, %s, on %s\n", (long long)integer_of(s, "cpus"),
	       text_of(s, "cpu_model"), text_of(s, "backend"));
	printf("memory      %s, %s of it touched\n", size_text(integer_of(s, "memory_bytes"), memory),
	       size_text(integer_of(s, "touched_bytes"), touched));
	printf("guest time  %.3f s (%s)\n", integer_of(s, "guest_ns") / 1e9, text_of(s, "clock"));
	printf("uptime      %s\n", time_text(integer_of(s, "uptime_ns"), text));
	show_save(json_object_get(s, "save"));
	if (json_is_string(json_object_get(s, "restored_from")))
		printf("restored    from %s\n", text_of(s, "restored_from"));
	if (json_is_string(json_object_get(s, "last_snapshot")))
		printf("snapshot    %s\n", text_of(s, "last_snapshot"));
}

int cli_status(int argc, char **argv, const struct cli_start *start)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, 'h' }, { 0 } };
	struct skep_error e = { "" };
	bool json = false;
	const char *name;
	json_t *status;
	int ret = control_options(argc, argv, status_help, options, apply_flag, &json, &e);

	if (ret)
		return ret > 0 ? 0 : finish(&e);
	name = take_name(argc, argv, &e);
	status = name ? call(name, "status", NULL, &e) : NULL;
	if (status && json)
		print_json(status);
	else if (status)
		show_status(status);
	json_decref(status);
	return finish(&e);
}

/* ---- stats --------------------------------------------------------------------- */

static const char stats_help[] =
	"usage: skep stats [--json] NAME\n"
	"\n"
	"Shows what the processors of the running machine NAME have counted since it started:\n"
	"exceptions, interrupts, TLB misses, blocks of code, and what is not zero besides.  --json\n"
	"gives the zeroes, too.\n";

static void show_stats(json_t *s)
{
	json_t *cpu, *section, *value;
	const char *title, *name;
	size_t i;

	printf("instructions  %lld\n", (long long)integer_of(s, "insns"));
	json_array_foreach(json_object_get(s, "vcpus"), i, cpu) {
		printf("\nvcpu %zu\n", i);
		json_object_foreach(cpu, title, section) {
			json_object_foreach(section, name, value)
				if (json_integer_value(value))
					printf("  %-12s %-18s %14lld\n", title, name,
					       (long long)json_integer_value(value));
		}
	}
}

int cli_stats(int argc, char **argv, const struct cli_start *start)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, 'h' }, { 0 } };
	struct skep_error e = { "" };
	bool json = false;
	const char *name;
	json_t *stats;
	int ret = control_options(argc, argv, stats_help, options, apply_flag, &json, &e);

	if (ret)
		return ret > 0 ? 0 : finish(&e);
	name = take_name(argc, argv, &e);
	stats = name ? call(name, "stats", NULL, &e) : NULL;
	if (stats && json)
		print_json(stats);
	else if (stats)
		show_stats(stats);
	json_decref(stats);
	return finish(&e);
}

/* ---- pause, resume --------------------------------------------------------------- */

static const char pause_help[] =
	"usage: skep pause NAME\n"
	"       skep resume [--time=continue|--time=advance] NAME\n"
	"\n"
	"Makes the machine NAME stand, and go on.  Guest time stands with it.  A machine that\n"
	"stands can be saved, and a save does not make it go on.\n"
	"\n"
	"  --time=continue   guest time goes on where it stood (default)\n"
	"  --time=advance    guest time moves on by as long as the machine stood\n";

static int apply_pause(void *opaque, int got, struct skep_error *e)
{
	const char **time = opaque;

	*time = optarg;
	return 0;
}

int cli_pause(int argc, char **argv, const struct cli_start *start)
{
	static const struct option pause_options[] = { { "help", no_argument, NULL, 'h' }, { 0 } };
	static const struct option resume_options[] = {
		{ "time", required_argument, NULL, 't' }, { "help", no_argument, NULL, 'h' }, { 0 } };
	bool resume = !strcmp(argv[0], "resume");
	const char *name, *time = NULL;
	struct skep_error e = { "" };
	int ret = control_options(argc, argv, pause_help, resume ? resume_options : pause_options,
				  apply_pause, &time, &e);
	json_t *args;

	if (ret)
		return ret > 0 ? 0 : finish(&e);
	name = take_name(argc, argv, &e);
	args = time ? json_pack("{s:s}", "time", time) : NULL;
	if (name && time && !args)
		skep_fail(&e, ENOMEM, "no memory, or --time is not text");
	else if (name)
		json_decref(call(name, argv[0], args, &e));
	json_decref(args);
	return finish(&e);
}

/* ---- NMI ------------------------------------------------------------------------------ */

int control_nmi(const char *name, struct skep_error *e)
{
	json_t *reply = call(name, "nmi", NULL, e);
	int err = reply ? 0 : -EIO;

	json_decref(reply);
	return err;
}

/* ---- stop --------------------------------------------------------------------------- */

static const char stop_help[] =
	"usage: skep stop [options] NAME\n"
	"\n"
	"Presses the power button of the machine NAME, which a guest that knows ACPI answers by\n"
	"shutting down.\n"
	"\n"
	"  --force           end the machine at once, as if its plug were pulled\n"
	"  --reset           reset it; its process ends with 0, or starts the guest again where\n"
	"                    on_reboot=restart\n"
	"  --wait[=SECONDS]  wait until its process has ended; 4 if it has not by then\n"
	"\n"
	"Example: skep stop --wait=60 web || skep stop --force --wait web\n";

struct stop {
	const char *mode;
	bool wait;
	int ms;		/* -1: for ever */
};

static int parse_seconds(const char *text, int *ms, struct skep_error *e)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end || !(v >= 0 && v <= 1e6))
		return skep_fail(e, EINVAL, "--wait: \"%.40s\" is not a number of seconds", text);
	*ms = (int)(v * 1000);
	return 0;
}

static int apply_stop(void *opaque, int got, struct skep_error *e)
{
	struct stop *s = opaque;

	if (got == 'w') {
		s->wait = true;
		s->ms = -1;
		return optarg ? parse_seconds(optarg, &s->ms, e) : 0;
	}
	if (s->mode)
		return skep_fail(e, EINVAL, "--force ends the machine and --reset does not: choose one");
	s->mode = got == 'f' ? "poweroff" : "reset";
	return 0;
}

int control_stop_machine(const char *name, const char *mode, bool wait, int ms, struct skep_error *e)
{
	struct control_client *c = control_connect(name, e);
	json_t *args = json_pack("{s:s}", "mode", mode), *reply = NULL;
	int err = -EIO;

	if (c) {
		control_set_timeout(c, ANSWER_MS);
		reply = control_call(c, "stop", args, -1, NULL, NULL, e);
	}
	if (reply && !strcmp(mode, "powerbutton") && !strcmp(text_of(reply, "state"), "paused"))
		fprintf(stderr, "skep: \"%s\" is paused and sees its power button after `skep resume %s`\n",
			name, name);
	if (reply)
		err = wait ? control_wait(c, ms, NULL, NULL, e) : 0;
	json_decref(reply);
	json_decref(args);
	control_close(c);
	return err;
}

int cli_stop(int argc, char **argv, const struct cli_start *start)
{
	static const struct option options[] = {
		{ "force", no_argument, NULL, 'f' }, { "reset", no_argument, NULL, 'r' },
		{ "wait", optional_argument, NULL, 'w' }, { "help", no_argument, NULL, 'h' }, { 0 } };
	struct skep_error e = { "" };
	struct stop s = { 0 };
	const char *name;
	int ret = control_options(argc, argv, stop_help, options, apply_stop, &s, &e);

	if (ret)
		return ret > 0 ? 0 : finish(&e);
	name = take_name(argc, argv, &e);
	if (name)
		control_stop_machine(name, s.mode ? s.mode : "powerbutton", s.wait, s.ms, &e);
	return finish(&e);
}

/* ---- ctl ------------------------------------------------------------------------------ */

static const char ctl_help[] =
	"usage: skep ctl NAME COMMAND [JSON]\n"
	"\n"
	"Sends a command of the control protocol (skep-control(7)) to the machine NAME, with JSON\n"
	"as its arguments, and prints what it returns.  `skep ctl NAME help` lists the commands.\n"
	"After subscribe, events are printed, one a line, until the machine ends.\n"
	"\n"
	"Example: skep ctl web stop '{\"mode\": \"poweroff\"}'\n";

static void print_event(void *opaque, json_t *event)
{
	json_dumpf(event, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
}

static int run_ctl(const char *name, const char *command, const char *text, struct skep_error *e)
{
	struct control_client *c;
	json_error_t je = { .text = "" };
	json_t *args = text ? json_loads(text, JSON_REJECT_DUPLICATES, &je) : NULL, *reply;

	if (text && !json_is_object(args)) {
		json_decref(args);
		return skep_fail(e, EINVAL, "the arguments are to be one JSON object%s%s",
				 *je.text ? ": " : "", je.text);
	}
	c = control_connect(name, e);
	reply = c ? control_call(c, command, args, -1, print_event, NULL, e) : NULL;
	if (reply && !strcmp(command, "subscribe"))
		control_wait(c, -1, print_event, NULL, e);
	else if (reply)
		print_json(reply);
	json_decref(reply);
	json_decref(args);
	control_close(c);
	return 0;
}

int cli_ctl(int argc, char **argv, const struct cli_start *start)
{
	static const struct option options[] = { { "help", no_argument, NULL, 'h' }, { 0 } };
	struct skep_error e = { "" };
	int ret = control_options(argc, argv, ctl_help, options, NULL, NULL, &e);

	if (ret)
		return ret > 0 ? 0 : finish(&e);
	if (argc - optind < 2 || argc - optind > 3)
		skep_fail(&e, EINVAL, "want a machine's name and a command: skep ctl NAME COMMAND "
			  "[JSON]");
	else
		run_ctl(argv[optind], argv[optind + 1], argc - optind == 3 ? argv[optind + 2] : NULL,
			&e);
	return finish(&e);
}
