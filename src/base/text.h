/*
 * Text of unknown origin, for a person or for a program: what is not printable UTF-8, or would
 * steer a terminal or turn the direction of writing, is spelled out.
 */
#ifndef SKEP_BASE_TEXT_H
#define SKEP_BASE_TEXT_H

#include <stddef.h>
#include <stdio.h>

/* For a terminal: what must not reach it becomes \xNN, byte by byte. Any thread. */
void text_print(FILE *out, const void *text, size_t len);
/*
 * The same into buf (size bytes, always terminated; cut short at a whole character). keep_lines:
 * newlines stay.  Returns buf.
 */
char *text_escape(char *buf, size_t size, const void *text, size_t len, int keep_lines);
/* A JSON string with its quotes; bytes that are no UTF-8 are told as if they were Latin-1. */
void text_json(FILE *out, const void *text, size_t len);

#endif
