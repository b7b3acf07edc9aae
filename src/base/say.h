/* Notes to the person at the terminal, from a machine that runs. */
#ifndef SKEP_BASE_SAY_H
#define SKEP_BASE_SAY_H

/*
 * Writes to standard error what it takes at once, and drops the note otherwise:
 * who reads standard error may have stopped, and no thread of a machine may
 * wait for that.  Any thread, any lock state.
 */
void skep_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
