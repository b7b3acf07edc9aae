/*
 * Shuffles with an immediate become byte shuffles with a mask: the decoder puts
 * the mask's address into the op, so that one handler serves all immediates.
 */
#include "cpu/soft/simd_special.h"

#define X4(M, i)   M(i), M((i) + 1), M((i) + 2), M((i) + 3)
#define X16(M, i)  X4(M, i), X4(M, (i) + 4), X4(M, (i) + 8), X4(M, (i) + 12)
#define X64(M, i)  X16(M, i), X16(M, (i) + 16), X16(M, (i) + 32), X16(M, (i) + 48)
#define X256(M)    X64(M, 0), X64(M, 64), X64(M, 128), X64(M, 192)
#define Z4         0x80, 0x80, 0x80, 0x80
#define Z16        Z4, Z4, Z4, Z4
#define SEL(i, k)  ((i) >> 2 * (k) & 3)
#define DW(i, k)   4 * SEL(i, k), 4 * SEL(i, k) + 1, 4 * SEL(i, k) + 2, 4 * SEL(i, k) + 3
#define W(base, i, k) (base) + 2 * SEL(i, k), (base) + 2 * SEL(i, k) + 1
#define W4(base, i)   W(base, i, 0), W(base, i, 1), W(base, i, 2), W(base, i, 3)

#define PSHUFD(i)  { DW(i, 0), DW(i, 1), DW(i, 2), DW(i, 3) }
#define PSHUFLW(i) { W4(0, i), 8, 9, 10, 11, 12, 13, 14, 15 }
#define PSHUFHW(i) { 0, 1, 2, 3, 4, 5, 6, 7, W4(8, i) }
#define SHUFPS(i)  { { DW(i, 0), DW(i, 1), Z4, Z4 }, { Z4, Z4, DW(i, 2), DW(i, 3) } }
#define ON(i, k)   ((i) >> (k) & 1 ? 0xff : 0), ((i) >> (k) & 1 ? 0xff : 0)
#define BLENDW(i)  { ON(i, 0), ON(i, 1), ON(i, 2), ON(i, 3), \
		     ON(i, 4), ON(i, 5), ON(i, 6), ON(i, 7) }

const uint8_t simd_pshufd[256][16] = { X256(PSHUFD) };
const uint8_t simd_pshuflw[256][16] = { X256(PSHUFLW) };
const uint8_t simd_pshufhw[256][16] = { X256(PSHUFHW) };
const uint8_t simd_shufps[256][2][16] = { X256(SHUFPS) };
const uint8_t simd_blendw[256][16] = { X256(BLENDW) };
const uint8_t simd_slide[80] = {
	Z16, Z16,
	0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
	Z16, Z16,
};
