/* Takes everything, says nothing. */
#include "char/backend.h"

static int null_open(struct char_backend *b, const char *arg, struct skep_error *e)
{
	return 0;	/* with no descriptor attached, output is discarded */
}

const struct char_ops char_null = {
	.name = "null",
	.help = "nothing: output is discarded, no input",
	.size = sizeof(struct char_backend),
	.open = null_open,
	.filter = char_filter_none,
	.gone = char_gone_for_good,
	.close = char_close_nothing,
};
