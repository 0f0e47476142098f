/* The dot-product core for narrow tiles: bytes times bytes, sixteen of each of two outputs and three rows at a time. */
#ifndef ES_NARROW_H
#define ES_NARROW_H

#include "core.h"

#if ES_HELIUM

#include <arm_mve.h>

#define ES_ROUND \
    "vld20.32    {q0, q1}, [%[w]]\n" \
    "vld21.32    {q0, q1}, [%[w]]!\n" \
    "vldrb.8     q2, [%[x]], #48\n" \
    "vmladava.s8 %[a0], q2, q0\n" \
    "vldrb.8     q3, [%[x], #-32]\n" \
    "vmladava.s8 %[b0], q2, q1\n" \
    "vldrb.8     q2, [%[x], #-16]\n" \
    "vmladava.s8 %[a1], q3, q0\n" \
    "vmladava.s8 %[b1], q3, q1\n" \
    "vmladava.s8 %[a2], q2, q0\n" \
    "vmladava.s8 %[b2], q2, q1\n"

/* At least one turn of a low-overhead loop. */
#define ES_ROUNDS(times, body) { \
        register int32_t turns __asm__("lr") = times; \
        __asm__ volatile("dls lr, lr\n 1:\n" body "le lr, 1b\n" \
            : [a0] "+Te"(a0), [a1] "+Te"(a1), [a2] "+Te"(a2), [b0] "+Te"(b0), [b1] "+Te"(b1), [b2] "+Te"(b2), \
              [w] "+r"(w), [x] "+r"(x), "+r"(turns) \
            : : "q0", "q1", "q2", "q3", "memory"); \
    }

/* acc[3 n + r] = bias[n] + sum over k of w_n[k] * x_r[k], as es_dot has it, of a narrow tile.
 *
 * Eleven instructions a round of 96 products: VLD2 takes the words of two outputs apart, and sums stay in the even
 * registers that VMLADAVA wants. Compilers left alone keep some of them in memory. */
ES_INLINE void es_dot_narrow(const int8_t *w, const int8_t *x, const int32_t *bias, int32_t *acc, int quads)
{
    int32_t a0 = bias[0], a1 = a0, a2 = a0, b0 = bias[1], b1 = b0, b2 = b0;
    if (quads & 4)
        ES_ROUNDS(quads >> 2, ES_ROUND)
    else if (quads >= 8)
        ES_ROUNDS(quads >> 3, ES_ROUND ES_ROUND)
    if (quads & 3) {
        const mve_pred16_t left = vctp32q((uint32_t)quads & 3);
        const uint32x4_t at = vidupq_n_u32(0, 8);
        const int32_t *words = (const int32_t *)(const void *)w;
        int8x16_t wa = vreinterpretq_s8_s32(vldrwq_gather_offset_z_s32(words, at, left));
        int8x16_t wb = vreinterpretq_s8_s32(vldrwq_gather_offset_z_s32(words + 1, at, left));
        int8x16_t v0 = vreinterpretq_s8_s32(vldrwq_z_s32((const int32_t *)(const void *)x, left));
        int8x16_t v1 = vreinterpretq_s8_s32(vldrwq_z_s32((const int32_t *)(const void *)(x + 16), left));
        int8x16_t v2 = vreinterpretq_s8_s32(vldrwq_z_s32((const int32_t *)(const void *)(x + 32), left));
        a0 = vmladavaq_s8(a0, v0, wa);
        a1 = vmladavaq_s8(a1, v1, wa);
        a2 = vmladavaq_s8(a2, v2, wa);
        b0 = vmladavaq_s8(b0, v0, wb);
        b1 = vmladavaq_s8(b1, v1, wb);
        b2 = vmladavaq_s8(b2, v2, wb);
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = b0;
    acc[4] = b1;
    acc[5] = b2;
}

#else

ES_INLINE void es_dot_narrow(const int8_t *w, const int8_t *x, const int32_t *bias, int32_t *acc, int quads)
{
    for (int i = 0; i < 6; i++) {
        uint32_t sum = (uint32_t)bias[i / 3]; /* of rows beyond the last it may wrap, and means nothing */
        for (int k = 0; k < 4 * quads; k++)
            sum += (uint32_t)(w[(k >> 2) * 8 + i / 3 * 4 + (k & 3)] * x[(k >> 4) * 48 + i % 3 * 16 + (k & 15)]);
        acc[i] = (int32_t)sum;
    }
}

#endif

#endif
