#include "net/slirp_library.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"

int slirp_library_load(struct slirp_library *l, const char *owner, struct skep_error *e)
{
	const struct {
		const char *name;
		void *to;
	} functions[] = {
		{ "slirp_new", &l->create },
		{ "slirp_cleanup", &l->cleanup },
		{ "slirp_pollfds_fill", &l->pollfds_fill },
		{ "slirp_pollfds_poll", &l->pollfds_poll },
		{ "slirp_input", &l->input },
		{ "slirp_handle_timer", &l->handle_timer },
		{ "slirp_add_hostfwd", &l->add_hostfwd },
	};
	void *lib = dlopen("libslirp.so.0", RTLD_NOW | RTLD_LOCAL);

	if (!lib)
		return skep_fail(e, ENOENT, "%s.backend: slirp needs libslirp, which is not installed "
				 "(apt-get install libslirp0): %s", owner, dlerror());
	for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
		void *f = dlsym(lib, functions[i].name);

		if (!f)
			return skep_fail(e, ENOENT, "%s.backend: libslirp is too old, it has no %s; 4.7 or "
					 "newer is needed", owner, functions[i].name);
		memcpy(functions[i].to, &f, sizeof(f));
	}
	return 0;
}
