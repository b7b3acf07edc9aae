#include "config/nearest.h"

#include <stdio.h>
#include <string.h>

#include "base/util.h"

#define WORD_MAX 63

unsigned nearest_distance(const char *a, const char *b)
{
	/* Optimal string alignment: three rows are enough for a swap of neighbours. */
	unsigned rows[3][WORD_MAX + 1];
	size_t la = strlen(a), lb = strlen(b);

	if (la > WORD_MAX || lb > WORD_MAX)
		return UINT_MAX;
	for (size_t j = 0; j <= lb; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= la; i++) {
		unsigned *row = rows[i % 3], *prev = rows[(i + 2) % 3], *prev2 = rows[(i + 1) % 3];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			unsigned d = prev[j - 1] + (a[i - 1] != b[j - 1]);

			d = MIN(d, prev[j] + 1);
			d = MIN(d, row[j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d = MIN(d, prev2[j - 2] + 1);
			row[j] = d;
		}
	}
	return rows[la % 3][lb];
}

void nearest_init(struct nearest *n, const char *word)
{
	size_t len = strlen(word);

	n->word = word;
	/* A third of the word may be wrong; one letter of a short one. */
	n->best = MAX(len / 3, (size_t)1) + 1;
	n->text[0] = '\0';
}

void nearest_offer(struct nearest *n, const char *candidate)
{
	const char *dot = strrchr(candidate, '.');
	size_t len = strlen(n->word);
	unsigned d = nearest_distance(n->word, candidate);

	if (strlen(candidate) >= sizeof(n->text) || len == 0)
		return;
	/* "kernel" for "boot.kernel", "memory" for "memory.size": half a path is a near miss. */
	if (dot && !strcmp(dot + 1, n->word))
		d = MIN(d, 1u);
	else if (!strncmp(candidate, n->word, len) && candidate[len] == '.')
		d = MIN(d, 1u);
	if (d < n->best) {
		n->best = d;
		strcpy(n->text, candidate);
	}
}

const char *nearest_hint(const struct nearest *n, char *buf, unsigned size)
{
	buf[0] = '\0';
	if (n->text[0])
		snprintf(buf, size, "; did you mean \"%s\"?", n->text);
	return buf;
}
