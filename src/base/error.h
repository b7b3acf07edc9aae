/*
 * Errors: a negative errno for the program, a sentence for the person.
 *
 * A function that can fail for a reason a user can act on takes a
 * `struct skep_error *` (never NULL) and returns 0 or a negative errno.  The
 * sentence names the key, the value and the remedy; it has no trailing full
 * stop or newline, since the command adds its own prefix.
 */
#ifndef SKEP_BASE_ERROR_H
#define SKEP_BASE_ERROR_H

#define SKEP_ERROR_TEXT 512

struct skep_error {
	char text[SKEP_ERROR_TEXT];	/* empty when no error was reported */
};

/*
 * Writes the sentence (truncated if it is too long) and returns -err, so that
 * a caller can `return skep_fail(e, EINVAL, "boot.kernel: ...")`.
 * Any thread; touches nothing but *e.
 */
int skep_fail(struct skep_error *e, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "context: " before a sentence that is already there. */
void skep_error_prefix(struct skep_error *e, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
