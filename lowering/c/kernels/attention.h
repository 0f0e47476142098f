/* Attention of up to three query rows of one head: scores, exponentials, weighted values; no N x M map.
 *
 * Scratch: ES_ATTENTION_BYTES(m) = 14 * (m up to 4), on a word boundary. It starts with the tile of exponentials
 * (6 bytes per key) which overlays the int32 scores of row 0 (they begin 2 bytes per key in): rows are turned into
 * exponentials in order, and the tile's write position never passes row 0's read position.
 *
 * keys: packed P(m, d); values: packed P(dv, m). Twin of ir.integer_rows.attention. */
#ifndef ES_ATTENTION_H
#define ES_ATTENTION_H

#include "matmul.h"

#define ES_ATTENTION_BYTES(m) (14 * ES_UP(m, 4))

/* Scores and exponentials share memory. */
typedef int32_t __attribute__((may_alias)) es_score;
typedef int16_t __attribute__((may_alias)) es_weight;
typedef uint32_t __attribute__((may_alias)) es_weight_pair; /* little-endian: the first weight in the low half */

typedef struct {
    es_score *scores;
    int stride;
} es_to_scores;

ES_INLINE void es_store_scores(const void *to, es_block at, const int32_t *acc)
{
    const es_to_scores *t = (const es_to_scores *)to;
    for (int c = 0; c < at.cols; c++)
        for (int r = 0; r < at.rows; r++)
            t->scores[r * t->stride + at.col + c] = acc[3 * c + r];
}

/* Weighted sums over their row's total, as int8|int16 rows. */
typedef struct {
    void *out;
    int bits, stride;
    const int32_t *inverse, *mult;
    int32_t zero;
} es_to_mean;

ES_INLINE void es_store_mean(const void *to, es_block at, const int32_t *acc)
{
    const es_to_mean *t = (const es_to_mean *)to;
#if ES_HELIUM
    if (ES_WHOLE(at, t->stride)) {
        const int32_t *i = t->inverse;
        const int32x4_t first = {i[0], i[0], i[1], i[1]}, second = vdupq_n_s32(i[2]);
        es_sums sums = es_sums_of(acc);
        sums = (es_sums){vrmulhq_s32(sums.upper, first), vrmulhq_s32(sums.lower, second)};
        const int16x8_t means = es_narrowed(es_requants(sums, t->mult + at.col, 0, t->zero));
        void *out = es_place(t->out, t->bits, at.row * t->stride + at.col);
        es_put_values(
            out, t->bits, ES_PLACES(t->stride, 1), es_clamped(means, es_low(t->bits), -1 - es_low(t->bits), t->bits));
        return;
    }
#endif
    for (int c = 0; c < at.cols; c++)
        for (int r = 0; r < at.rows; r++) {
            int32_t mean = es_high(acc[3 * c + r], t->inverse[r]);
            int32_t value = es_saturate(es_requant(mean, t->mult[at.col + c], 0, t->zero), t->bits);
            es_put(t->out, t->bits, (at.row + r) * t->stride + at.col + c, value);
        }
}

/* What the score of a head becomes: exponent multiplier, its shift, one octave of 2^-x, an optional bias. */
typedef struct {
    int32_t mz;
    int pre;
    const int16_t *table;
    const int16_t *bias; /* [queries, m] of this head, or NULL */
    int bias_shift;
} es_exponent;

ES_INLINE uint32_t es_exponential(int32_t gap, const es_exponent *x)
{
    int32_t z = es_high(es_lift(gap, x->pre), x->mz);
#if ES_DSP
    __asm__("usat %0, #12, %1" : "=r"(z) : "r"(z));
#else
    z = ES_MIN(z, 4095);
#endif
    return (uint32_t)x->table[z & 255] >> (z >> 8);
}

#if ES_HELIUM

ES_INLINE uint32x4_t es_exponentials4(int32x4_t gap, const es_exponent *x)
{
    const int32x4_t z = vrmulhq_s32(vshlq_r_s32(gap, x->pre), vdupq_n_s32(x->mz));
    const int32x4_t steps = vminq_s32(z, vdupq_n_s32(4095));
    const uint32x4_t at = vandq_u32(vreinterpretq_u32_s32(steps), vdupq_n_u32(255));
    const uint32x4_t e = vldrhq_gather_shifted_offset_u32((const uint16_t *)x->table, at);
    return vshlq_u32(e, vnegq_s32(vshrq_n_s32(steps, 8)));
}

#endif

/* One row of m scores to exponentials in quads 12 apart, padded with zeros; returns their sum. */
ES_INLINE int32_t es_exponentials(es_score *scores, int m, const es_exponent *x, const int16_t *bias, es_weight *out)
{
    int32_t largest = INT32_MIN, sum = 0;
    int j = 0;
    if (bias)
        for (int i = 0; i < m; i++)
            scores[i] += es_lift(bias[i], x->bias_shift);
#if ES_HELIUM
    for (; j + 4 <= m; j += 4)
        largest = vmaxvq_s32(largest, vld1q_s32((const int32_t *)scores + j));
#endif
    for (; j + 4 <= m; j += 4) {
        int32_t s0 = scores[j], s1 = scores[j + 1], s2 = scores[j + 2], s3 = scores[j + 3];
        largest = ES_MAX(largest, s0);
        largest = ES_MAX(largest, s1);
        largest = ES_MAX(largest, s2);
        largest = ES_MAX(largest, s3);
    }
    for (; j < m; j++)
        largest = ES_MAX(largest, scores[j]);
    j = 0;
#if ES_HELIUM
    for (; j + 4 <= m; j += 4, out += 12) {
        const int32x4_t gap = vsubq_s32(vdupq_n_s32(largest), vld1q_s32((const int32_t *)scores + j));
        const uint32x4_t e = es_exponentials4(gap, x);
        sum = (int32_t)vaddvaq_u32((uint32_t)sum, e);
        vstrhq_u32((uint16_t *)out, e);
    }
#endif
    for (; j + 4 <= m; j += 4, out += 12) {
        int32_t s0 = scores[j], s1 = scores[j + 1], s2 = scores[j + 2], s3 = scores[j + 3];
        uint32_t e0 = es_exponential(largest - s0, x), e1 = es_exponential(largest - s1, x);
        uint32_t e2 = es_exponential(largest - s2, x), e3 = es_exponential(largest - s3, x);
        uint32_t first = e0 | e1 << 16, second = e2 | e3 << 16;
        sum = es_add_pair(second, es_add_pair(first, sum));
        ((es_weight_pair *)out)[0] = first;
        ((es_weight_pair *)out)[1] = second;
    }
    if (j < m) {
        uint32_t e[4] = {0, 0, 0, 0};
        for (int i = 0; i < m - j; i++) {
            e[i] = es_exponential(largest - scores[j + i], x);
            sum += (int32_t)e[i];
        }
        for (int i = 0; i < 4; i++)
            out[i] = (es_weight)e[i];
    }
    return sum;
}

/* q: tile of three rows by d; `rows` of them count. Row r of the result goes to row first + r of `out`. */
ES_INLINE void es_attention(
    const int16_t *q, int first, int rows, int d, const int8_t *keys, int m, const int8_t *values, int dv,
    const es_exponent *x, const int32_t *mult, int32_t zero, void *scratch, void *out, int bits, int stride)
{
    const int width = ES_UP(m, 4);
    es_weight *weights = (es_weight *)scratch;
    es_score *scores = (es_score *)(weights + width);
    es_to_scores to_scores = {scores, width};
    int32_t inverse[3] = {0, 0, 0};
    es_matmul(q, 0, 3, d, keys, NULL, m, es_store_scores, &to_scores);
    for (int r = 0; r < rows; r++) {
        const int16_t *bias = x->bias ? x->bias + (first + r) * m : NULL;
        inverse[r] = es_inverse(es_exponentials(scores + r * width, m, x, bias, weights + 4 * r));
    }
    es_to_mean to_mean = {out, bits, stride, inverse, mult, zero};
    es_matmul((const int16_t *)weights, first, rows, m, values, NULL, dv, es_store_mean, &to_mean);
}

#endif
