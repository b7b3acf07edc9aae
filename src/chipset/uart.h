/*
 * 16550A, as National's PC16550D data sheet has it, at the four places where
 * a PC has them.
 *
 * The line is infinitely fast: a byte written is sent at once, and received
 * bytes are there as soon as the FIFO has room.  With clock=virtual nothing
 * that the guest sees depends on how fast the host takes output.
 */
#ifndef SKEP_CHIPSET_UART_H
#define SKEP_CHIPSET_UART_H

#include "vm/device.h"

#define UART_COUNT 4

extern const struct device_type uart_type;
extern const struct state_record uart_record;

/*
 * COM1 is index 0.  Configuration node lpc.comN; with no path the chip is
 * there and nothing is plugged in.  vm thread, before any vCPU, device lock.
 */
int uart_create(struct vm *vm, unsigned index, struct skep_error *e);
/* The same with a wire of the caller's; NULL with e set. */
struct device *uart_make(struct vm *vm, unsigned index, struct irq_line irq, struct skep_error *e);

#endif
