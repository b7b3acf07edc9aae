/* A wire: handed to a device when it is made.  Device lock held for all of it. */
#ifndef SKEP_VM_IRQ_H
#define SKEP_VM_IRQ_H

struct irq_line {
	void (*set)(void *opaque, int n, int level);	/* NULL: not connected */
	void *opaque;
	int n;
};

static inline void irq_set(const struct irq_line *l, int level)
{
	if (l->set)
		l->set(l->opaque, l->n, level);
}

/* One edge-triggered pulse. */
static inline void irq_pulse(const struct irq_line *l)
{
	irq_set(l, 1);
	irq_set(l, 0);
}

#endif
