/* From accumulators to values: requantise, clamp, at most one table; one at a time, or a block's six together. */
#ifndef ES_SCALE_H
#define ES_SCALE_H

#include "table.h"

#if ES_HELIUM
#include <arm_mve.h>
#endif

/* Accumulators acc[3 c + r] belong to output col + c, row `row` + r = first + 3 * triple + r. */
typedef struct {
    int row, triple, rows, col, cols;
} es_block;

/* From accumulator to value: requantise, clamp to [low, high], then at most one table (the others NULL). */
typedef struct {
    const int32_t *mult; /* one per output */
    int pre;
    int32_t zero, low, high;
    const int8_t *table8;   /* int8 -> int8, 256 entries */
    const int16_t *table16; /* int8 -> int16, 256 entries */
    const int16_t *curve;   /* int16 -> int16, 257 points */
} es_scale;

ES_INLINE int32_t es_tabled(const es_scale *s, int32_t value)
{
    if (s->table8)
        return s->table8[value + 128];
    if (s->table16)
        return s->table16[value + 128];
    return s->curve ? es_curve(value, s->curve) : value;
}

ES_INLINE int32_t es_value(const es_scale *s, int32_t acc, int32_t mult)
{
    return es_tabled(s, es_clamp(es_requant(acc, mult, s->pre, s->zero), s->low, s->high));
}

#if ES_HELIUM

/* A whole block in two vectors of int32, by row and output: 00 01 10 11, and 20 21 twice. Narrowed into the bottom and
 * the top halves of one vector of int16, they lie as ES_EACH has the places of three rows; what is there twice is
 * stored twice. */
typedef struct {
    int32x4_t upper, lower;
} es_sums;

#define ES_EACH(first, second, third, col) \
    {(first), (third), (first) + (col), (third) + (col), (second), (third), (second) + (col), (third) + (col)}
#define ES_PLACES(row, col) (uint16x8_t)ES_EACH(0, row, 2 * (row), col)

/* Whether a block fills its vectors, and whether their offsets, 16 bits wide, reach its last row. */
#define ES_WHOLE(at, stride) ((at).rows == 3 && (at).cols == 2 && (stride) < 32767)

ES_INLINE es_sums es_sums_of(const int32_t *acc)
{
    return (es_sums){{acc[0], acc[3], acc[1], acc[4]}, {acc[2], acc[5], acc[2], acc[5]}};
}

ES_INLINE int16x8_t es_narrowed(es_sums sums)
{
    return vqmovntq_s32(vqmovnbq_s32(vreinterpretq_s16_s32(sums.upper), sums.upper), sums.lower);
}

/* What es_requant does, with the multipliers of outputs col and col + 1. */
ES_INLINE es_sums es_requants(es_sums sums, const int32_t *mult, int pre, int32_t zero)
{
    const int32x4_t by = {mult[0], mult[1], mult[0], mult[1]};
    if (!__builtin_constant_p(pre) || pre)
        sums = (es_sums){vshlq_r_s32(sums.upper, pre), vshlq_r_s32(sums.lower, pre)};
    sums = (es_sums){vrmulhq_s32(sums.upper, by), vrmulhq_s32(sums.lower, by)};
    if (!__builtin_constant_p(zero) || zero)
        sums = (es_sums){vaddq_n_s32(sums.upper, zero), vaddq_n_s32(sums.lower, zero)};
    return sums;
}

/* Clamp what is int16 already; `stored` as bytes, the full range of int8 needs no more than their own saturation. */
ES_INLINE int16x8_t es_clamped(int16x8_t values, int32_t low, int32_t high, int stored)
{
    if (low == -128 && high == 127) {
        const int8x16_t bytes = vqmovnbq_s16(vreinterpretq_s8_s16(values), values);
        return stored == 8 ? vreinterpretq_s16_s8(bytes) : vmovlbq_s8(bytes);
    }
    if (low > -32768)
        values = vmaxq_s16(values, vdupq_n_s16((int16_t)low));
    return high < 32767 ? vminq_s16(values, vdupq_n_s16((int16_t)high)) : values;
}

/* es_curve of eight values: the slope's product has 25 bits, its quotient 17, of which the sum needs 16. */
ES_INLINE int16x8_t es_curves(int16x8_t x, const int16_t *points)
{
    const uint16x8_t at = vreinterpretq_u16_s16(vaddq_n_s16(vshrq_n_s16(x, 8), 128));
    const int16x8_t part = vandq_s16(x, vdupq_n_s16(255));
    const int16x8_t from = vldrhq_gather_shifted_offset_s16(points, at);
    const int16x8_t to = vldrhq_gather_shifted_offset_s16(points + 1, at);
    const int32x4_t even = vsubq_s32(vmullbq_int_s16(to, part), vmullbq_int_s16(from, part));
    const int32x4_t odd = vsubq_s32(vmulltq_int_s16(to, part), vmulltq_int_s16(from, part));
    return vaddq_s16(from, vrshrntq_n_s32(vrshrnbq_n_s32(part, even, 8), odd, 8));
}

/* The values of a whole block; of those to be stored as bytes only the lower halves. */
ES_INLINE int16x8_t es_values(const es_scale *s, es_block at, const int32_t *acc, int stored)
{
    const int16x8_t sums = es_narrowed(es_requants(es_sums_of(acc), s->mult + at.col, s->pre, s->zero));
    const int16x8_t values = es_clamped(sums, s->low, s->high, s->table8 || s->table16 ? 16 : stored);
    const uint16x8_t place = vreinterpretq_u16_s16(vaddq_n_s16(values, 128));
    if (s->table8)
        return vldrbq_gather_offset_s16(s->table8, place);
    if (s->table16)
        return vldrhq_gather_shifted_offset_s16(s->table16, place);
    return s->curve ? es_curves(values, s->curve) : values;
}

/* Store them, `bits` wide, at their places from `out` on. */
ES_INLINE void es_put_values(void *out, int bits, uint16x8_t places, int16x8_t values)
{
    if (bits == 8)
        vstrbq_scatter_offset_s16((int8_t *)out, places, values);
    else
        vstrhq_scatter_shifted_offset_s16((int16_t *)out, places, values);
}

ES_INLINE int16x8_t es_get_values(const void *x, int bits, uint16x8_t places)
{
    return bits == 8 ? vldrbq_gather_offset_s16((const int8_t *)x, places)
                     : vldrhq_gather_shifted_offset_s16((const int16_t *)x, places);
}

#endif

#endif
