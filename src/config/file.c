/* bhyve_config(5): one key=value a line. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "config/internal.h"

#define LINE_ROOM (CONFIG_VALUE_MAX + CONFIG_PATH_MAX + 64)

static char *trim(char *p)
{
	size_t len;

	while (isspace((unsigned char)*p))
		p++;
	len = strlen(p);
	while (len && isspace((unsigned char)p[len - 1]))
		p[--len] = '\0';
	return p;
}

static int load_line(struct config *c, char *line, const char *origin, struct skep_error *e)
{
	char *key = trim(line), *eq = strchr(key, '=');

	if (!*key || *key == '#')
		return 0;
	if (!eq) {
		skep_fail(e, EINVAL, "\"%.80s\" is neither key=value nor a # comment", key);
		skep_error_prefix(e, "%s", origin);
		return -EINVAL;
	}
	*eq = '\0';
	return config_set(c, trim(key), trim(eq + 1), origin, e);
}

static int load_stream(struct config *c, FILE *f, const char *path, struct skep_error *e)
{
	char *line = malloc(LINE_ROOM);
	int ret = 0;

	if (!line)
		return skep_fail(e, ENOMEM, "%s: out of memory", path);
	for (unsigned n = 1; !ret && fgets(line, LINE_ROOM, f); n++) {
		char origin[512];
		size_t len = strlen(line);

		snprintf(origin, sizeof(origin), "%.480s:%u", path, n);
		if (len + 1 == LINE_ROOM && line[len - 1] != '\n')
			ret = skep_fail(e, E2BIG, "%s: the line is longer than %d characters",
					origin, LINE_ROOM - 2);
		else
			ret = load_line(c, line, origin, e);
	}
	if (!ret && ferror(f))
		ret = skep_fail(e, errno, "%s: %s", path, strerror(errno));
	free(line);
	return ret;
}

int config_load_file(struct config *c, const char *path, struct skep_error *e)
{
	FILE *f = fopen(path, "re");
	struct stat st;
	int ret;

	if (!f)
		return skep_fail(e, errno, "cannot read the configuration file \"%s\": %s", path,
				 strerror(errno));
	if (!fstat(fileno(f), &st) && S_ISDIR(st.st_mode))
		ret = skep_fail(e, EISDIR, "\"%s\" is a directory, not a configuration file", path);
	else
		ret = load_stream(c, f, path, e);
	fclose(f);
	return ret;
}
