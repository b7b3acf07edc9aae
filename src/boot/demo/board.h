/* The demonstration guest's side of the board. */
#ifndef DEMO_BOARD_H
#define DEMO_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame {
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

struct wall_time {
	unsigned year, month, day, hour, minute, second;
};

/* What multiboot left, start.S. */
extern uint32_t boot_magic, boot_info;

/* board.c */
#define PIT_HZ 100
#define APIC_HZ 10

extern volatile uint64_t pit_ticks, apic_ticks;
extern uint64_t tsc_hz;

void board_init(void);		/* interrupts are on afterwards, all clocks run */
int board_key(void);		/* -1: none */
struct wall_time board_wall_time(void);
bool board_power_button(void);	/* pressed since the last call */
void board_power_off(void);
void board_reset(void);
static inline uint64_t read_tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return lo | (uint64_t)hi << 32;
}

/* console.c: %s %c %u %x, l for 64 bits, width and zero padding */
void console_init(void);
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static inline void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" :: "a"(v), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

#endif
