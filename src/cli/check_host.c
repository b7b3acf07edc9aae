/* skep check-host: what this host offers, what is missing, and how to get it. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/cli.h"
#include "cpu/kvm/probe.h"
#include "cpu/model.h"
#include "cpu/soft/host.h"

static const char usage[] =
	"usage: skep check-host [--json] [--again]\n"
	"Tells what this host offers to a machine: its KVM, as a probe guest finds it, and which CPU\n"
	"models each backend can be.  --again measures anew; else the verdict of this boot is told.\n"
	"The exit code is 0, whatever the host offers.\n";

struct answer {
	struct kvm_verdict v;
	char modules[200];
	bool have_modules;
};

/* NULL: it can be; else what it lacks. */
static const char *lacks(const struct cpu_model *m, const struct answer *a, bool kvm,
			 struct skep_error *e)
{
	if (kvm && !a->v.opens)
		return a->v.why;
	if (kvm)
		return kvm_probe_model(m, e) < 0 ? e->text : NULL;
	return soft_host_check(m, soft_host_features(), e) < 0 ? e->text : NULL;
}

static json_t *models_json(const struct answer *a, bool kvm)
{
	json_t *all = json_object();

	for (unsigned i = 0; cpu_models[i]; i++) {
		struct skep_error e = { "" };
		const char *why = lacks(cpu_models[i], a, kvm, &e);

		json_object_set_new(all, cpu_models[i]->name, why ? json_string(why) : json_true());
	}
	return all;
}

static int print_json(const struct answer *a)
{
	const struct kvm_verdict *v = &a->v;
	json_t *o = json_pack(
		"{s:s, s:{s:b, s:b, s:s, s:s, s:i, s:i, s:i, s:b, s:s, s:b, s:o}, s:{s:b, s:o}}",
		"backend", v->usable ? "kvm" : "soft",
		"kvm",
		"usable", v->usable, "opens", v->opens, "modules", a->modules, "executes", v->passed,
		"kernel_kips", (int)v->kips, "probe_us", (int)v->us, "tsc_khz", (int)v->tsc_khz,
		"tsc_scaling", v->tsc_control, "why_not", v->why, "measured_now", v->fresh,
		"cpu_models", models_json(a, true),
		"soft", "usable", 1, "cpu_models", models_json(a, false));
	char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;

	json_decref(o);
	if (!text) {
		cli_complain("out of memory");
		return CLI_ERROR;
	}
	puts(text);
	free(text);
	return 0;
}

static void print_models(const struct answer *a, bool kvm)
{
	for (unsigned i = 0; cpu_models[i]; i++) {
		struct skep_error e = { "" };
		const char *why = lacks(cpu_models[i], a, kvm, &e);
		const char *list = why ? strstr(why, "lacks ") : NULL;
		size_t len;

		why = list ? list : why;
		len = why ? strcspn(why, ";") : 0;
		printf("  %-10s %s%.*s\n", cpu_models[i]->name, why ? "no: " : "yes", (int)len,
		       why ? why : "");
	}
}

static int print_text(const struct answer *a)
{
	const struct kvm_verdict *v = &a->v;

	printf("backend=auto takes %s.\n\n", v->usable ? "kvm" : "soft");
	printf("KVM: %s", v->usable ? "usable" : "not usable: ");
	printf("%s\n", v->usable ? "" : v->why);
	printf("  module     %s\n", a->have_modules ? a->modules : "none is loaded");
	if (v->opens) {
		printf("  executes   %s in kernel mode, at %.1f million instructions a second\n",
		       v->passed[0] ? v->passed : "nothing", v->kips / 1000.0);
		printf("  probe      %u us, %s\n", v->us, v->fresh ? "measured now" :
		       "measured earlier in this boot (--again measures anew)");
		printf("  TSC        %u kHz%s\n", v->tsc_khz,
		       v->tsc_control ? ", other frequencies by scaling" : ", no other frequency");
		puts("  CPU models of backend=kvm:");
		print_models(a, true);
	}
	puts("\nSoft processor: usable\n  CPU models of backend=soft:");
	print_models(a, false);
	return 0;
}

int cli_check_host(int argc, char **argv, const struct cli_start *start)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "again", no_argument, NULL, 'a' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	bool json = false, again = false;
	struct answer a;
	int got;

	optind = 0;
	opterr = 0;
	while ((got = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (got == 'h') {
			fputs(usage, stdout);
			return 0;
		}
		if (got == '?') {
			cli_complain("check-host: there is no option %.60s; see skep check-host --help",
				     argv[optind - 1]);
			return CLI_ERROR;
		}
		json |= got == 'j';
		again |= got == 'a';
	}
	if (optind < argc) {
		cli_complain("check-host takes no argument \"%.60s\"; see skep check-host --help",
			     argv[optind]);
		return CLI_ERROR;
	}
	cli_probe(&a.v, again);
	a.have_modules = kvm_modules(a.modules, sizeof(a.modules));
	return json ? print_json(&a) : print_text(&a);
}
