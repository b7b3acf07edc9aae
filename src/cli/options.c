/* The arguments of run: one table says what every flag means. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "config/config.h"
#include "config/nearest.h"
#include "cli/cli.h"
#include "snapshot/schedule.h"

struct flag {
	int letter;		/* of bhyve(8); 0: none */
	const char *name;	/* long; NULL: none */
	const char *metavar;	/* NULL: takes no argument */
	const char *key, *value;	/* what it sets; value NULL: the argument */
	int (*parse)(struct config *c, const char *arg, struct skep_error *e);
	const char *refuse;	/* why it is not there */
	const char *help;	/* NULL: not shown */
};

static int parse_file(struct config *c, const char *arg, struct skep_error *e)
{
	return config_load_file(c, arg, e);
}

static int parse_assignment(struct config *c, const char *arg, struct skep_error *e)
{
	return config_set_assignment(c, arg, "-o", e);
}

/* Flags with neither key, parse nor refuse are what the machine always does. */
static const struct flag flags[] = {
	{ 'c', NULL, "CPUS", .parse = cpus_parse,
	  .help = "processors: -c 2, -c 4,sockets=1,cores=4,threads=1" },
	{ 'm', NULL, "SIZE", .key = "memory.size", .help = "memory: -m 512 (MiB), -m 2G" },
	{ 'n', NULL, "DOMAIN", .parse = domain_parse,
	  .help = "NUMA domain: -n id=0,size=1G,cpus=0-1" },
	{ 's', NULL, "SLOT,DEVICE", .parse = slot_parse,
	  .help = "PCI device: -s 31,lpc; -s help lists them" },
	{ 'l', NULL, "DEVICE,VALUE", .parse = lpc_parse,
	  .help = "LPC device: -l com1,stdio; -l help lists them" },
	{ 0, "kernel", "FILE", .key = "boot.kernel",
	  .help = "Linux bzImage, PVH or multiboot ELF to start" },
	{ 0, "initrd", "FILE", .key = "boot.initrd", .help = "its initial RAM disk" },
	{ 0, "append", "TEXT", .key = "boot.cmdline", .help = "its command line" },
	{ 'k', NULL, "FILE", .parse = parse_file, .help = "configuration file, key=value a line" },
	{ 'o', NULL, "KEY=VALUE", .parse = parse_assignment,
	  .help = "any key: -o clock.mode=virtual; -o help lists them" },
	{ 'f', NULL, "NAME,string=|file=", .parse = fwcfg_parse,
	  .help = "file in the guest's fw_cfg directory" },
	{ 'U', NULL, "UUID", .key = "uuid", .help = "SMBIOS UUID" },
	{ 0, "backend", "NAME", .key = "backend", .help = "what executes the guest: auto, soft, kvm" },
	{ 0, "dump-state", "FILE", .help = "at the end, write the machine's state as text" },
	{ 0, "stats", "FILE", .help = "at the end, write figures as JSON" },
	{ 0, "save-at", "COUNT:FILE", .help = "clock.mode=virtual: save at exactly this instruction; "
	  "may be repeated" },
	{ 'h', "help", NULL, .help = "this text" },
	{ 'u', NULL, NULL, .key = "rtc.use_localtime", .value = "false",
	  .help = "the real-time clock keeps UTC (always so)" },
	{ 'A', NULL, NULL, .key = "acpi_tables", .value = "true", .help = "ACPI tables (always there)" },
	{ 'H', NULL, NULL, .key = "x86.vmexit_on_hlt", .value = "true",
	  .help = "HLT yields the host's processor (always so)" },
	{ 'P', NULL, NULL, .key = "x86.vmexit_on_pause", .value = "true",
	  .help = "PAUSE is seen by the host (always so)" },
	{ 'D', NULL, NULL, .key = "destroy_on_poweroff", .value = "true",
	  .help = "the machine ends with its process (always so)" },
	{ 'Y', NULL, NULL, .key = "x86.mptable", .value = "false", .help = "no MP table (always so)" },
	{ 'x', NULL, NULL, .key = "x86.x2apic", .value = "true",
	  .help = "the local APIC offers x2APIC (always so)" },
	{ 'a', NULL, NULL, .help = "the local APIC starts in xAPIC mode (always so)" },
	{ 'w', NULL, NULL, .key = "x86.strictmsr", .value = "false" },
	{ 'e', NULL, NULL, .key = "x86.strictio", .value = "true" },
	{ 'S', NULL, NULL, .key = "memory.wired", .value = "true" },
	{ 'C', NULL, NULL, .key = "memory.guest_in_core", .value = "true" },
	{ 'W', NULL, NULL, .key = "virtio_msix", .value = "false" },
	{ 'G', NULL, "PORT", .key = "gdb.port" },
	{ 'K', NULL, "LAYOUT", .key = "keyboard.layout" },
	{ 'M', NULL, NULL, .key = "monitor_mode", .value = "true" },
	{ 'p', NULL, "VCPU:CPU", .refuse = "pinning processors is not built yet; use taskset(1) for the "
	  "whole command" },
	{ 'r', NULL, "FILE", .refuse = "`skep restore FILE` starts a saved machine, and "
	  "needs no other flags" },
};

/* What getopt_long returns for a flag: its index, above every letter. */
#define FLAG_BASE 1000

struct tables {
	char letters[3 + 2 * ARRAY_SIZE(flags)];
	struct option options[1 + ARRAY_SIZE(flags)];
};

static void make_tables(struct tables *t)
{
	char *l = t->letters;
	struct option *o = t->options;

	/* ':' first: a missing argument is told apart from an unknown flag. */
	*l++ = ':';
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		const struct flag *f = &flags[i];

		if (f->letter) {
			*l++ = f->letter;
			if (f->metavar)
				*l++ = ':';
		}
		if (f->name)
			*o++ = (struct option){ f->name, f->metavar ? required_argument : no_argument,
						NULL, FLAG_BASE + i };
	}
	*l = '\0';
	*o = (struct option){ 0 };
}

static const struct flag *find_flag(int got)
{
	if (got >= FLAG_BASE)
		return &flags[got - FLAG_BASE];
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (flags[i].letter == got)
			return &flags[i];
	return NULL;
}

static void flag_title(const struct flag *f, char buf[32])
{
	if (f->letter)
		snprintf(buf, 32, "-%c", f->letter);
	else
		snprintf(buf, 32, "--%s", f->name);
}

/* getopt_long leaves optind after the word it could not make out. */
static int fail_option(int why, char **argv, struct skep_error *e)
{
	const char *word = argv[optind - 1];
	struct nearest near;
	char hint[160];

	if (why == ':') {
		char title[32] = "";
		const struct flag *f = find_flag(optopt);

		if (f)
			flag_title(f, title);
		return skep_fail(e, EINVAL, "%s needs an argument: %s %s", f ? title : word,
				 f ? title : word, f ? f->metavar : "VALUE");
	}
	if (optopt && optopt < FLAG_BASE)
		return skep_fail(e, EINVAL, "there is no flag -%c; `skep run --help` lists them", optopt);
	if (optopt)
		return skep_fail(e, EINVAL, "%s takes no argument", word);
	nearest_init(&near, word);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		char full[40];

		snprintf(full, sizeof(full), "--%s", flags[i].name ? flags[i].name : "");
		if (flags[i].name)
			nearest_offer(&near, full);
	}
	nearest_hint(&near, hint, sizeof(hint));
	return skep_fail(e, EINVAL, "there is no option %.60s%s", word,
			 *hint ? hint : "; `skep run --help` lists them");
}

static bool wants_help(const struct flag *f, struct run_options *o)
{
	if (f->letter == 'h') {
		o->topic = RUN_HELP;
		return true;
	}
	if (!optarg || strcmp(optarg, "help"))
		return false;
	switch (f->letter) {
	case 's': o->topic = RUN_HELP_SLOTS; return true;
	case 'l': o->topic = RUN_HELP_LPC; return true;
	case 'o': o->topic = RUN_HELP_KEYS; return true;
	default: return false;
	}
}

static int apply(const struct flag *f, struct config *c, struct run_options *o,
		 struct skep_error *e)
{
	char title[32];

	flag_title(f, title);
	if (f->refuse)
		return skep_fail(e, EOPNOTSUPP, "%s: %s", title, f->refuse);
	if (f->parse)
		return f->parse(c, optarg, e);
	if (f->key)
		return config_set(c, f->key, f->value ? f->value : optarg, title, e);
	if (f->name && !strcmp(f->name, "dump-state"))
		o->dump_state = optarg;
	else if (f->name && !strcmp(f->name, "stats"))
		o->stats = optarg;
	else if (f->name && !strcmp(f->name, "save-at"))
		return run_options_save_at(o, optarg, e);
	return 0;
}

int run_options_save_at(struct run_options *o, char *arg, struct skep_error *e)
{
	char *colon = strchr(arg, ':'), *end = NULL;
	struct save_point *p;
	uint64_t at;

	errno = 0;
	at = strtoull(arg, &end, 10);
	if (errno || !colon || end != colon || arg[0] < '0' || arg[0] > '9' || !colon[1])
		return skep_fail(e, EINVAL, "--save-at: want COUNT:FILE, as in 1000000:boot.skep, and not "
				 "\"%s\"", arg);
	p = realloc(o->save_at, (o->nsave_at + 1) * sizeof(*p));
	if (!p)
		return skep_fail(e, ENOMEM, "--save-at: no memory left");
	o->save_at = p;
	p[o->nsave_at++] = (struct save_point){ .at = at, .path = colon + 1 };
	return 0;
}

void run_options_free(struct run_options *o)
{
	free(o->save_at);
	o->save_at = NULL;
	o->nsave_at = 0;
}

int run_options_parse(int argc, char **argv, struct config *c, struct run_options *o,
		      struct skep_error *e)
{
	struct tables t = { 0 };
	int got, ret;

	make_tables(&t);
	optind = 0;	/* start anew, also when one process parses twice */
	opterr = 0;
	while ((got = getopt_long(argc, argv, t.letters, t.options, NULL)) != -1) {
		const struct flag *f;

		if (got == '?' || got == ':')
			return fail_option(got, argv, e);
		f = find_flag(got);
		if (wants_help(f, o))
			return 0;
		ret = apply(f, c, o, e);
		if (ret)
			return ret;
	}
	if (optind < argc) {
		ret = config_set(c, "name", argv[optind], "the machine's name", e);
		if (ret)
			return ret;
		optind++;
	}
	if (optind < argc)
		return skep_fail(e, EINVAL, "\"%s\" comes after the machine's name \"%s\"; flags come "
				 "first, the name last", argv[optind], argv[optind - 1]);
	return 0;
}

static void show_flag(FILE *out, const struct flag *f)
{
	char left[64];

	if (f->letter && f->name)
		snprintf(left, sizeof(left), "-%c, --%s", f->letter, f->name);
	else if (f->letter)
		snprintf(left, sizeof(left), "-%c %s", f->letter, f->metavar ? f->metavar : "");
	else
		snprintf(left, sizeof(left), "--%s %s", f->name, f->metavar ? f->metavar : "");
	fprintf(out, "  %-24s %s\n", left, f->help);
}

void run_options_help(FILE *out)
{
	fputs("usage: skep run [flags] [NAME]\n\n"
	      "Starts a machine.  The flags are bhyve's; NAME comes last (\"skep\" if left out).\n\n",
	      out);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (flags[i].help)
			show_flag(out, &flags[i]);
	fputs("\nbhyve's other flags are refused with a sentence.\n"
	      "\nExamples:\n"
	      "  skep run -m 512M -l com1,stdio --kernel vmlinuz --initrd initrd.gz \\\n"
	      "           --append console=ttyS0 debian\n"
	      "  skep run -c 1 -m 1G -s 0,hostbridge -s 31,lpc -l com1,tcp=127.0.0.1:4000 \\\n"
	      "           -k vm.conf vm1\n"
	      "  skep run -k vm.conf -o config.dump=true\n"
	      "\nExit code: 0 reboot, 1 powered off, 2 halted, 3 triple fault, 4 error, 5 suspended.\n"
	      "SIGTERM presses the power button; a second one stops at once.\n", out);
}
