/*
 * Ethernet addresses.  bhyve makes one from the first bytes of the MD5 digest (RFC 1321) of
 * "slot-function-name"; who brings a machine from there keeps its address, and its lease.
 */
#include <errno.h>
#include <stdio.h>

#include "base/util.h"
#include "net/net.h"
#include "vm/vm.h"

static uint32_t rol(uint32_t v, unsigned n)
{
	return v << n | v >> (32 - n);
}

static void md5_block(uint32_t h[4], const uint8_t *block)
{
	static const uint8_t turns[4][4] = {
		{ 7, 12, 17, 22 }, { 5, 9, 14, 20 }, { 4, 11, 16, 23 }, { 6, 10, 15, 21 },
	};
	/* RFC 1321, 3.4: the integer part of 2^32 times |sin(i + 1)|. */
	static const uint32_t k[64] = {
		0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a,
		0xa8304613, 0xfd469501, 0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be,
		0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340,
		0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
		0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8,
		0x676f02d9, 0x8d2a4c8a, 0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c,
		0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70, 0x289b7ec6, 0xeaa127fa,
		0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
		0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92,
		0xffeff47d, 0x85845dd1, 0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1,
		0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
	};
	uint32_t a = h[0], b = h[1], c = h[2], d = h[3];

	for (unsigned i = 0; i < 64; i++) {
		uint32_t f, g, next;

		switch (i / 16) {
		case 0: f = (b & c) | (~b & d); g = i; break;
		case 1: f = (d & b) | (~d & c); g = (5 * i + 1) % 16; break;
		case 2: f = b ^ c ^ d; g = (3 * i + 5) % 16; break;
		default: f = c ^ (b | ~d); g = 7 * i % 16; break;
		}
		next = b + rol(a + f + k[i] + load32(block + 4 * g), turns[i / 16][i % 4]);
		a = d;
		d = c;
		c = b;
		b = next;
	}
	h[0] += a;
	h[1] += b;
	h[2] += c;
	h[3] += d;
}

/* The first four bytes of the digest of a text of at most 118 bytes. */
static uint32_t md5_start(const char *text)
{
	uint32_t h[4] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476 };
	size_t len = strlen(text), blocks = (len + 8) / 64 + 1;
	uint8_t data[128] = { 0 };

	memcpy(data, text, len);
	data[len] = 0x80;
	store64(data + blocks * 64 - 8, len * 8);
	for (size_t i = 0; i < blocks; i++)
		md5_block(h, data + 64 * i);
	return h[0];
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse(const char *s, uint8_t mac[6])
{
	for (unsigned i = 0; i < 6; i++, s += 3) {
		int hi = hex(s[0]), lo = hi < 0 ? -1 : hex(s[1]);

		if (lo < 0 || s[2] != (i < 5 ? ':' : '\0'))
			return false;
		mac[i] = (uint8_t)(hi << 4 | lo);
	}
	return true;
}

static const uint8_t nobody[6];

int net_mac(struct vm *vm, const char *owner, struct config_node *config, uint8_t mac[6],
	    struct skep_error *e)
{
	const char *given = config_string(config, "mac");
	unsigned bus = 0, slot = 0, function = 0;
	char text[119];
	uint32_t h;

	if (given) {
		if (!parse(given, mac))
			return skep_fail(e, EINVAL, "%s.mac: \"%s\" is not an Ethernet address; write "
					 "xx:xx:xx:xx:xx:xx", owner, given);
		if ((mac[0] & 1) || !memcmp(mac, nobody, 6))
			return skep_fail(e, EINVAL, "%s.mac: \"%s\" is not the address of one station: the "
					 "lowest bit of its first byte says a group, and it is not all "
					 "zeroes", owner, given);
		return 0;
	}
	sscanf(owner, "pci.%u.%u.%u", &bus, &slot, &function);
	snprintf(text, sizeof(text), "%u-%u-%s", slot, function, vm->name);
	h = md5_start(text);
	mac[0] = 0x58;
	mac[1] = 0x9c;
	mac[2] = 0xfc;
	mac[3] = (uint8_t)h;
	mac[4] = (uint8_t)(h >> 8);
	mac[5] = (uint8_t)(h >> 16);
	return 0;
}
