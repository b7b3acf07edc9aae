/* NUMA: domains.N.size and domains.N.cpus divide memory and processors among them. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "config/internal.h"

#define MAX_CPUS 64

/* One number, not beyond what a processor's can be; moves *s behind it. */
static bool number(const char **s, unsigned *v)
{
	char *end;
	unsigned long n;

	if (**s < '0' || **s > '9')
		return false;
	n = strtoul(*s, &end, 10);
	*s = end;
	*v = (unsigned)n;
	return n < MAX_CPUS;
}

/* "0-3,5" as bits. */
static bool parse_cpus(const char *s, uint64_t *cpus)
{
	unsigned from, to;

	*cpus = 0;
	for (;;) {
		if (!number(&s, &from))
			return false;
		to = from;
		if (*s == '-') {
			s++;
			if (!number(&s, &to) || to < from)
				return false;
		}
		for (; from <= to; from++)
			*cpus |= 1ull << from;
		if (!*s)
			return true;
		if (*s++ != ',')
			return false;
	}
}

/* One node of the tree; *sum and *all are of those before it. */
static int check_domain(struct config_node *n, unsigned number, uint64_t ncpus, uint64_t *sum,
			uint64_t *all, struct skep_error *e)
{
	const char *text = config_string(n, "cpus");
	uint64_t size = config_uint(n, "size"), cpus;
	char want[16];

	snprintf(want, sizeof(want), "%u", number);
	if (number >= CONFIG_DOMAINS_MAX || strcmp(n->name, want))
		return skep_fail(e, EINVAL, "%s: NUMA domains are numbered from 0 on, without gaps, and there "
				 "are at most %d", n->path, CONFIG_DOMAINS_MAX);
	if (!size || !text)
		return skep_fail(e, EINVAL, "%s: a NUMA domain has both a size and cpus", n->path);
	if (!parse_cpus(text, &cpus) || (ncpus < MAX_CPUS && cpus >> ncpus))
		return skep_fail(e, EINVAL, "%s.cpus=%s: write processors of this machine, from 0 to %" PRIu64
				 ", as in 0-1,3", n->path, text, ncpus - 1);
	if (cpus & *all)
		return skep_fail(e, EINVAL, "%s.cpus=%s: processor %d is in another domain already", n->path, text,
				 __builtin_ctzll(cpus & *all));
	if (__builtin_add_overflow(*sum, size, sum))
		return skep_fail(e, EINVAL, "%s.size: that is more than there can be", n->path);
	*all |= cpus;
	return 0;
}

int schema_check_domains(struct config *c, uint64_t ncpus, struct skep_error *e)
{
	struct config_node *domains = config_find(c, "domains"), *n;
	uint64_t sum = 0, all = 0, memory = config_uint(&c->root, "memory.size");
	uint64_t every = ncpus < MAX_CPUS ? (1ull << ncpus) - 1 : UINT64_MAX;
	unsigned i = 0;
	int ret = 0;

	if (!domains || !config_first(domains))
		return 0;
	for (n = config_first(domains); n && !ret; n = config_next(n))
		ret = check_domain(n, i++, ncpus, &sum, &all, e);
	if (ret)
		return ret;
	if (sum != memory)
		return skep_fail(e, EINVAL, "domains: their sizes add up to %" PRIu64 " MiB, and memory.size is %"
				 PRIu64 " MiB; make them equal", sum >> 20, memory >> 20);
	if (all != every)
		return skep_fail(e, EINVAL, "domains: processor %d is in none of them",
				 __builtin_ctzll(every & ~all));
	return 0;
}

unsigned config_domains(struct config *c, struct config_domain d[static CONFIG_DOMAINS_MAX])
{
	struct config_node *domains = config_find(c, "domains"), *n;
	unsigned i = 0;

	for (n = domains ? config_first(domains) : NULL; n && i < CONFIG_DOMAINS_MAX; n = config_next(n), i++) {
		d[i].size = config_uint(n, "size");
		parse_cpus(config_string(n, "cpus"), &d[i].cpus);
	}
	return i;
}
