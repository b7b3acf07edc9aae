/* backend=auto: which of the two a machine gets on this host. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "config/config.h"
#include "control/client.h"
#include "cpu/kvm/probe.h"
#include "cpu/model.h"

static const char *text_of(struct config *c, const char *key, const char *def)
{
	const char *s = config_string(config_root(c), key);

	return s ? s : def;
}

/* Can KVM be this machine?  Else e says why not. */
static int suits(struct config *c, const struct kvm_verdict *v, struct skep_error *e)
{
	const struct cpu_model *model = cpu_model_find(text_of(c, "cpu.model", "skep-v2.1"));
	const char *khz = text_of(c, "clock.tsc_khz", NULL);
	char host[16];

	if (!model)
		return 0;		/* which config_freeze refuses by its name */
	snprintf(host, sizeof(host), "%u", v->tsc_khz);
	if (khz && strcmp(khz, host) && !v->tsc_control)
		return skep_fail(e, ENOTSUP, "clock.tsc_khz=%s: this host's TSC has %s kHz, and cannot be "
				 "scaled", khz, host);
	return kvm_probe_model(model, e);
}

void cli_probe(struct kvm_verdict *v, bool again)
{
	char path[PATH_MAX];
	struct skep_error e;
	int dir = control_open_directory(true, path, &e);

	kvm_probe(v, dir, again);
	if (dir >= 0)
		close(dir);
}

int cli_choose_backend(struct config *c, struct skep_error *e)
{
	struct skep_error why = { "" };
	struct kvm_verdict v;

	if (strcmp(text_of(c, "backend", "auto"), "auto") ||
	    !strcmp(text_of(c, "clock.mode", "realtime"), "virtual"))
		return 0;
	cli_probe(&v, false);
	if (v.usable && suits(c, &v, &why) == 0)
		return config_set(c, "backend", "kvm", "the probe of /dev/kvm", e);
	if (v.opens && v.fresh && isatty(STDERR_FILENO))
		fprintf(stderr, "skep: backend=soft: %s (skep check-host tells more)\n",
			why.text[0] ? why.text : v.why);
	return 0;
}
