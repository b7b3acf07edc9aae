#include "guest.h"

#define COM1 0x3f8

bool on_tcg;
static unsigned checks, failures, skipped;
static const char *current = "start";

void putch(char c)
{
	if (c == '\n')
		putch('\r');
	while (!(inb(COM1 + 5) & 0x20))
		;
	outb(COM1, c);
}

static void print_number(u64 v, bool negative, unsigned base, unsigned width, char pad)
{
	char buf[24];
	unsigned n = 0;

	/* Decimal numbers are 32 bits: no 64-bit division in 32-bit guests. */
	do {
		unsigned d = base == 16 ? v & 15 : (u32)v % 10;

		buf[n++] = "0123456789abcdef"[d];
		v = base == 16 ? v >> 4 : (u32)v / 10;
	} while (v);
	if (negative)
		buf[n++] = '-';
	while (n < width && n < sizeof(buf))
		buf[n++] = pad;
	while (n)
		putch(buf[--n]);
}

void vprint(const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		unsigned width = 0, longs = 0;
		char pad = ' ';
		u64 v;

		if (*fmt != '%') {
			putch(*fmt);
			continue;
		}
		fmt++;
		if (*fmt == '0')
			pad = '0';
		while (*fmt >= '0' && *fmt <= '9')
			width = width * 10 + *fmt++ - '0';
		while (*fmt == 'l') {
			longs++;
			fmt++;
		}
		switch (*fmt) {
		case 's':
			for (const char *s = va_arg(ap, const char *); *s; s++)
				putch(*s);
			break;
		case 'c':
			putch(va_arg(ap, int));
			break;
		case 'd':
		case 'u':
		case 'x':
			v = longs == 2 ? va_arg(ap, u64) : longs ? va_arg(ap, ulong) :
			    va_arg(ap, unsigned);
			if (*fmt == 'd' && (int)v < 0)
				print_number(-(int)v, true, 10, width, pad);
			else
				print_number(v, false, *fmt == 'x' ? 16 : 10, width, pad);
			break;
		default:
			putch(*fmt);
		}
	}
}

void print(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
}

void section(const char *name)
{
	current = name;
	print("%s (from check %u)\n", name, checks + 1);
}

static void fail_line(const char *fmt, va_list ap)
{
	failures++;
	print("FAIL %u %s: ", checks, current);
	vprint(fmt, ap);
}

bool check(bool ok, const char *fmt, ...)
{
	va_list ap;

	checks++;
	if (ok)
		return true;
	va_start(ap, fmt);
	fail_line(fmt, ap);
	va_end(ap);
	print("\n");
	return false;
}

bool check_eq(u64 got, u64 want, const char *fmt, ...)
{
	va_list ap;

	checks++;
	if (got == want)
		return true;
	va_start(ap, fmt);
	fail_line(fmt, ap);
	va_end(ap);
	print(": got 0x%llx, want 0x%llx\n", (unsigned long long)got, (unsigned long long)want);
	return false;
}

void skip(const char *why)
{
	skipped++;
	print("skip %s: %s\n", current, why);
}

static void end(u8 code)
{
	outb(0xf4, code);
	for (;;)
		asm volatile("cli; hlt");
}

void finish(void)
{
	print("%s: %u checks, %u failed, %u skipped\n", failures ? "FAILED" : "PASSED", checks,
	      failures, skipped);
	end(failures != 0);
	__builtin_unreachable();
}

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	checks++;
	fail_line(fmt, ap);
	va_end(ap);
	print("\n");
	finish();
}

void *memcpy(void *d, const void *s, size_t n)
{
	void *ret = d;

	asm volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) :: "memory");
	return ret;
}

void *memset(void *d, int c, size_t n)
{
	void *ret = d;

	asm volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return ret;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *p = a, *q = b;

	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}

extern u32 multiboot_magic, multiboot_info;

bool guest_option(const char *word)
{
	const u32 *info = (const u32 *)(ulong)multiboot_info;
	const char *s;

	if (multiboot_magic != 0x2badb002 || !(info[0] & 4))
		return false;
	for (s = (const char *)(ulong)info[4]; *s; s++) {
		unsigned i = 0;

		while (word[i] && s[i] == word[i])
			i++;
		if (!word[i])
			return true;
	}
	return false;
}

static u32 leaf(u32 l, unsigned reg)
{
	u32 r[4], max;

	cpuid(l & 0x80000000, 0, &max, &r[1], &r[2], &r[3]);
	if (max < l)
		return 0;
	cpuid(l, 0, &r[0], &r[1], &r[2], &r[3]);
	return r[reg];
}

bool has_leaf1_ecx(unsigned bit) { return leaf(1, 2) >> bit & 1; }
bool has_leaf1_edx(unsigned bit) { return leaf(1, 3) >> bit & 1; }
bool has_leaf7_ebx(unsigned bit) { return leaf(7, 1) >> bit & 1; }
bool has_leaf7_ecx(unsigned bit) { return leaf(7, 2) >> bit & 1; }
bool has_ext_edx(unsigned bit) { return leaf(0x80000001, 3) >> bit & 1; }

bool hypervisor_is(const char name[static 12])
{
	u32 max, is[3];

	cpuid(0x40000000, 0, &max, &is[0], &is[1], &is[2]);
	return has_leaf1_ecx(31) && !memcmp(is, name, sizeof(is));
}

void trap_init(void);

void guest_start(void)
{
	outb(COM1 + 1, 0);		/* no interrupts */
	outb(COM1 + 3, 0x80);
	outb(COM1, 1);			/* 115200 */
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3);		/* 8N1 */
	outb(COM1 + 4, 3);
	on_tcg = hypervisor_is("TCGTCGTCGTCG");
	trap_init();
	guest_main();
	finish();
}
