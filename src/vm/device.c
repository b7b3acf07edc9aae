#include "vm/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vm/vm.h"

int device_init_nothing(struct device *d, struct skep_error *e)
{
	return 0;
}

void device_nop(struct device *d)
{
}

void device_export_nothing(const struct device *d, void *model)
{
}

int device_validate_nothing(const struct device *d, const void *model, struct skep_error *e)
{
	return 0;
}

void device_commit_nothing(struct device *d, const void *model)
{
}

struct device *device_create(struct vm *vm, const struct device_type *type, const char *name,
			     struct config_node *config, struct skep_error *e)
{
	struct device *d, **p;

	for (d = vm->devices; d; d = d->next)
		if (!strcmp(d->name, name)) {
			skep_fail(e, EEXIST, "%s: there is such a device already (%s)", name,
				  d->type->name);
			return NULL;
		}
	d = calloc(1, type->size);
	if (!d) {
		skep_fail(e, ENOMEM, "%s: no memory for a device of type %s", name, type->name);
		return NULL;
	}
	if (strlen(name) >= sizeof(d->name)) {
		skep_fail(e, ENAMETOOLONG, "%s: a device name has at most %zu characters", name,
			  sizeof(d->name) - 1);
		free(d);
		return NULL;
	}
	d->type = type;
	d->vm = vm;
	d->config = config;
	strcpy(d->name, name);

	if (type->init(d, e) < 0) {
		free(d);
		return NULL;
	}
	/* init may have made devices of its own: the end is looked up now. */
	for (p = &vm->devices; *p; p = &(*p)->next)
		;
	*p = d;
	return d;
}

void device_destroy(struct device *d)
{
	struct device **p;

	if (!d)
		return;
	for (p = &d->vm->devices; *p; p = &(*p)->next)
		if (*p == d) {
			*p = d->next;
			break;
		}
	d->type->finish(d);
	free(d);
}

static int type_check(const struct device_type *t, struct skep_error *e)
{
	const char *missing = !t->name ? "name" : !t->help ? "help" : !t->config ? "config" :
		!t->state ? "state" : !t->init ? "init" : !t->finish ? "finish" :
		!t->reset ? "reset" : !t->quiesce ? "quiesce" : !t->resume ? "resume" :
		!t->export ? "export" : !t->validate ? "validate" : !t->commit ? "commit" : NULL;

	if (missing)
		return skep_fail(e, EINVAL, "device type %s has no %s", t->name ? t->name : "?",
				 missing);
	if (t->size < sizeof(struct device))
		return skep_fail(e, EINVAL, "device type %s is smaller than a device", t->name);
	if (t->state != &STATE_NONE &&
	    (t->export == device_export_nothing || t->commit == device_commit_nothing))
		return skep_fail(e, EINVAL, "device type %s has state but does not carry it",
				 t->name);
	return state_record_check(t->state, e);
}

int device_types_check(struct skep_error *e)
{
	const struct device_type *const *p, *const *q;

	for (p = device_types; *p; p++) {
		if (type_check(*p, e) < 0)
			return -EINVAL;
		for (q = device_types; q != p; q++)
			if (!strcmp((*p)->name, (*q)->name))
				return skep_fail(e, EINVAL, "two device types have the name %s",
						 (*p)->name);
	}
	return 0;
}
