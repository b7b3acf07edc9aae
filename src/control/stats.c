/* What a machine counts about itself, as JSON: the command stats and --stats. */
#include <jansson.h>
#include <stdatomic.h>

#include "control/stats.h"
#include "vm/vm.h"

static void tell(void *opaque, const char *section, const char *name, uint64_t value)
{
	json_t *in = json_object_get(opaque, section);

	if (!in) {
		in = json_object();
		json_object_set_new(opaque, section, in);
	}
	json_object_set_new(in, name, json_integer((json_int_t)value));
}

json_t *control_stats(struct vm *vm)
{
	json_t *cpus = json_array();

	for (unsigned i = 0; i < vm->ncpus; i++) {
		struct vcpu *v = vm->vcpus[i];
		json_t *o = json_object();

		v->ops->stats(v, tell, o);
		json_array_append_new(cpus, o);
	}
	return json_pack("{s:I,s:o}", "insns", (json_int_t)atomic_load(&vm->clock.insns),
			 "vcpus", cpus);
}
