/* Helium's dot-product cores: two packed weight rows times three tile rows, of bytes or of int16, sixteen k at a time.
 *
 * Sums stay in the even registers that VMLADAVA wants; compilers left alone keep some of them in memory. VLD2 takes the
 * words of two outputs apart. */
#ifndef ES_HELIUM_H
#define ES_HELIUM_H

#include "core.h"

#if ES_HELIUM

#include <arm_mve.h>

/* Eleven instructions a round of 96 products. */
#define ES_NARROW_ROUND \
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

/* Half of a round of int16: two values of each of four quads as one word of each lane, those of the even bytes of the
 * weights' words or of the odd. */
#define ES_WIDE_HALF(a, b, first, second, third) \
    "vldrw.u32   q4, [%q[at], " first "\n" \
    "vmladava.s16 %[a0], q4, " a "\n" \
    "vldrw.u32   q5, [%q[at], " second "]\n" \
    "vmladava.s16 %[b0], q4, " b "\n" \
    "vldrw.u32   q4, [%q[at], " third "]\n" \
    "vmladava.s16 %[a1], q5, " a "\n" \
    "vmladava.s16 %[b1], q5, " b "\n" \
    "vmladava.s16 %[a2], q4, " a "\n" \
    "vmladava.s16 %[b2], q4, " b "\n"

/* Twenty-four; `at` holds the addresses of four quads, one round behind. */
#define ES_WIDE_ROUND \
    "vld20.32    {q0, q1}, [%[w]]\n" \
    "vld21.32    {q0, q1}, [%[w]]!\n" \
    "vmovlb.s8   q2, q0\n" \
    "vmovlt.s8   q0, q0\n" \
    "vmovlb.s8   q3, q1\n" \
    "vmovlt.s8   q1, q1\n" \
    ES_WIDE_HALF("q2", "q3", "#96]!", "#8", "#16") \
    ES_WIDE_HALF("q0", "q1", "#4]", "#12", "#20")

/* At least one turn of a low-overhead loop. */
#define ES_TURNS(times, body, where, ...) { \
        register int32_t turns __asm__("lr") = times; \
        __asm__ volatile("dls lr, lr\n 1:\n" body "le lr, 1b\n" \
            : [a0] "+Te"(a0), [a1] "+Te"(a1), [a2] "+Te"(a2), [b0] "+Te"(b0), [b1] "+Te"(b1), [b2] "+Te"(b2), \
              [w] "+r"(w), where, "+r"(turns) \
            : : __VA_ARGS__, "memory"); \
    }

#define ES_NARROW_TURNS(times, body) ES_TURNS(times, body, [x] "+r"(x), "q0", "q1", "q2", "q3")
#define ES_WIDE_TURNS(times, body) ES_TURNS(times, body, [at] "+w"(at), "q0", "q1", "q2", "q3", "q4", "q5")

/* The words of two outputs in the last one to three quads; of the others zero. */
ES_INLINE int8x16x2_t es_last_weights(const int8_t *w, mve_pred16_t left)
{
    const uint32x4_t at = vidupq_n_u32(0, 8);
    const int32_t *words = (const int32_t *)(const void *)w;
    const int32x4_t a = vldrwq_gather_offset_z_s32(words, at, left);
    const int32x4_t b = vldrwq_gather_offset_z_s32(words + 1, at, left);
    return (int8x16x2_t){{vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)}};
}

ES_INLINE int8x16_t es_last_bytes(const int8_t *x, mve_pred16_t left)
{
    return vreinterpretq_s8_s32(vldrwq_z_s32((const int32_t *)(const void *)x, left));
}

/* acc[3 n + r] = bias[n] + sum over k of w_n[k] * x_r[k] of a narrow tile, 4 * quads values of k, n < 2, r < 3. */
ES_INLINE void es_dot_bytes(const int8_t *w, const int8_t *x, const int32_t *bias, int32_t *acc, int quads)
{
    int32_t a0 = bias[0], a1 = a0, a2 = a0, b0 = bias[1], b1 = b0, b2 = b0;
    if (quads & 4)
        ES_NARROW_TURNS(quads >> 2, ES_NARROW_ROUND)
    else if (quads >= 8)
        ES_NARROW_TURNS(quads >> 3, ES_NARROW_ROUND ES_NARROW_ROUND)
    if (quads & 3) {
        const mve_pred16_t left = vctp32q((uint32_t)quads & 3);
        const int8x16x2_t two = es_last_weights(w, left);
        const int8x16_t wa = two.val[0], wb = two.val[1];
        const int8x16_t v0 = es_last_bytes(x, left), v1 = es_last_bytes(x + 16, left), v2 = es_last_bytes(x + 32, left);
        a0 = vmladavaq_s8(a0, v0, wa);
        a1 = vmladavaq_s8(a1, v1, wa);
        a2 = vmladavaq_s8(a2, v2, wa);
        b0 = vmladavaq_s8(b0, v0, wb);
        b1 = vmladavaq_s8(b1, v1, wb);
        b2 = vmladavaq_s8(b2, v2, wb);
    }
    const int32_t sums[6] = {a0, a1, a2, b0, b1, b2};
    for (int i = 0; i < 6; i++)
        acc[i] = sums[i];
}

/* One row's part of the last quads: `bytes` behind the begin of each, where `left` says that there is one. */
#define ES_LAST(sum_a, sum_b, w_a, w_b, bytes) { \
        int16x8_t row = vreinterpretq_s16_u32(vldrwq_gather_base_z_u32(last, bytes, left)); \
        sum_a = vmladavaq_s16(sum_a, w_a, row); \
        sum_b = vmladavaq_s16(sum_b, w_b, row); \
    }

/* The same of a tile of int16. */
ES_INLINE void es_dot_words(const int8_t *w, const int16_t *x, const int32_t *bias, int32_t *acc, int quads)
{
    static const uint32_t before[4] = {-96u, -72u, -48u, -24u};
    int32_t a0 = bias[0], a1 = a0, a2 = a0, b0 = bias[1], b1 = b0, b2 = b0;
    uint32x4_t at = vaddq_n_u32(vld1q_u32(before), (uint32_t)(uintptr_t)x);
    if (quads & 4)
        ES_WIDE_TURNS(quads >> 2, ES_WIDE_ROUND)
    else if (quads >= 8)
        ES_WIDE_TURNS(quads >> 3, ES_WIDE_ROUND ES_WIDE_ROUND)
    if (quads & 3) {
        const mve_pred16_t left = vctp32q((uint32_t)quads & 3);
        const uint32x4_t last = vaddq_n_u32(at, 96);
        const int8x16x2_t two = es_last_weights(w, left);
        const int8x16_t a = two.val[0], b = two.val[1];
        int16x8_t a_even = vmovlbq_s8(a), b_even = vmovlbq_s8(b), a_odd = vmovltq_s8(a), b_odd = vmovltq_s8(b);
        ES_LAST(a0, b0, a_even, b_even, 0)
        ES_LAST(a1, b1, a_even, b_even, 8)
        ES_LAST(a2, b2, a_even, b_even, 16)
        ES_LAST(a0, b0, a_odd, b_odd, 4)
        ES_LAST(a1, b1, a_odd, b_odd, 12)
        ES_LAST(a2, b2, a_odd, b_odd, 20)
    }
    const int32_t sums[6] = {a0, a1, a2, b0, b1, b2};
    for (int i = 0; i < 6; i++)
        acc[i] = sums[i];
}

/* Both for the first row alone, a last one or the only: acc[0] and acc[3]. */
static __attribute__((noinline, unused)) void es_row_bytes(
    const int8_t *w, const int8_t *x, const int32_t *bias, int32_t *acc, int quads)
{
    int32_t a = bias[0], b = bias[1];
    for (; quads >= 4; quads -= 4, w += 32, x += 48) {
        const uint32x4x2_t two = vld2q_u32((const uint32_t *)(const void *)w);
        const int8x16_t row = vld1q_s8(x);
        a = vmladavaq_s8(a, vreinterpretq_s8_u32(two.val[0]), row);
        b = vmladavaq_s8(b, vreinterpretq_s8_u32(two.val[1]), row);
    }
    if (quads) {
        const mve_pred16_t left = vctp32q((uint32_t)quads);
        const int8x16x2_t two = es_last_weights(w, left);
        const int8x16_t row = es_last_bytes(x, left);
        a = vmladavaq_s8(a, two.val[0], row);
        b = vmladavaq_s8(b, two.val[1], row);
    }
    acc[0] = a;
    acc[3] = b;
}

/* Two quads a step: eight values of the row as they lie, the bytes of each output's quads in the same order. */
ES_INLINE void es_row_words(const int8_t *w, const int16_t *x, const int32_t *bias, int32_t *acc, int quads)
{
    static const uint16_t in_order[8] = {0, 2, 1, 3, 8, 10, 9, 11}, along[8] = {0, 1, 2, 3, 12, 13, 14, 15};
    const uint16x8_t bytes = vld1q_u16(in_order), words = vld1q_u16(along);
    int32_t a = bias[0], b = bias[1];
    for (; quads > 0; quads -= 2, w += 16, x += 24) {
        const mve_pred16_t left = vctp16q(4 * (uint32_t)quads);
        const int16x8_t row = vldrhq_gather_shifted_offset_z_s16(x, words, left);
        a = vmladavaq_s16(a, vldrbq_gather_offset_z_s16(w, bytes, left), row);
        b = vmladavaq_s16(b, vldrbq_gather_offset_z_s16(w + 4, bytes, left), row);
    }
    acc[0] = a;
    acc[3] = b;
}

#endif

#endif
