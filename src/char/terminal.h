/*
 * The process's terminal, made raw and put back on every way out: close,
 * exit(), and signals that kill or stop us.  A terminal belongs to the
 * process and not to a machine, which is why this is the one place in this
 * room with state of its own.
 */
#ifndef SKEP_CHAR_TERMINAL_H
#define SKEP_CHAR_TERMINAL_H

/* Makes fd raw; -EBUSY if it is ours already, or a negative errno. vm thread. */
int terminal_raw(int fd);
/* Puts it back and forgets it. vm thread. */
void terminal_restore(void);
/* Puts it back.  Async-signal-safe, any thread. */
void terminal_restore_signal_safe(void);

/*
 * SIGPIPE is ignored from now on, if nobody handles it.  It stands here because
 * <signal.h> and cpu/arch.h cannot be included together. vm thread.
 */
void char_ignore_sigpipe(void);

#endif
