/* Layer norm and RMS norm of one row to int16, straight into a tile or a plain row; twin of ir.integer_rows. */
#ifndef ES_NORM_H
#define ES_NORM_H

#include "core.h"

#if ES_HELIUM
#include <arm_mve.h>
#endif

/* ceil(log2(sqrt(width))), folded to a literal. */
ES_INLINE int es_root_bits(int width)
{
    int bits = 0;
    while ((1 << (2 * bits)) < width)
        bits++;
    return bits;
}

/* Row sums, exact: the mean's for a layer norm, the energy's for both. */
ES_INLINE uint64_t es_norm_energy(const void *x, int bits, int width, int centred, int32_t zero, int32_t *total)
{
    int32_t sum = 0;
    uint64_t squares = 0;
    uint32_t part = 0;
    for (int i = 0; i < width; i++) {
        int32_t value = es_get(x, bits, i) - zero;
        sum += value;
        if (bits == 8)
            part += (uint32_t)(value * value); /* 16384 * 255^2 < 2^30 */
        else
            squares += (uint64_t)((int64_t)value * value);
    }
    squares = (squares + part) * (uint64_t)width;
    *total = centred ? sum : 0;
    return squares - (uint64_t)((int64_t)*total * *total);
}

/* out = d / sqrt(energy + eps), d = width * (x - zero) - total, with 15 - root bits fraction bits.
 * centred: layer norm (zero = 0), else RMS norm. Element i goes to out[(i >> 2) * step + (i & 3)]: step 12 in a tile,
 * 4 in a plain row. Widths up to 1024 for int16, 16384 for int8. */
ES_INLINE void es_norm(
    const void *x, int bits, int width, int centred, int32_t zero, int64_t eps, int16_t *out, int step)
{
    int32_t total;
    uint64_t energy = es_norm_energy(x, bits, width, centred, zero, &total) + (uint64_t)eps;
    uint32_t upper = (uint32_t)(energy >> 32);
    int length = upper ? 64 - es_leading_zeros(upper) : 32 - es_leading_zeros((uint32_t)energy);
    int s = (length - 31) >> 1;
    uint32_t v = s >= 0 ? (uint32_t)(energy >> (2 * s)) : (uint32_t)energy << (-2 * s);
    int32_t root = es_rsqrt(v);
    int lift = 15 - s - es_root_bits(width);
    /* d << lift in one multiply-add; modulo 2^32, and the result fits. */
    uint32_t slope = (uint32_t)width << lift, shift = 0u - ((uint32_t)(total + width * zero) << lift);
    int i = 0;
#if ES_HELIUM
    for (; i + 4 <= width; i += 4, out += step) {
        const int32x4_t four = bits == 8 ? vldrbq_s32((const int8_t *)x + i) : vldrhq_s32((const int16_t *)x + i);
        const int32x4_t d = vmlaq_n_s32(vdupq_n_s32((int32_t)shift), four, (int32_t)slope);
        const int32x4_t high = vrmulhq_s32(d, vdupq_n_s32(root));
        const int16x8_t narrow = vqrshrnbq_n_s32(vreinterpretq_s16_s32(high), high, 14);
        vstrhq_s32(out, vreinterpretq_s32_s16(narrow));
    }
#endif
    ES_UNROLL_TWICE
    for (; i + 4 <= width; i += 4, out += step)
        for (int j = 0; j < 4; j++) {
            int32_t d = (int32_t)(slope * (uint32_t)es_get(x, bits, i + j) + shift);
            out[j] = (int16_t)es_narrow14(es_high_add(d, root, 8192));
        }
    for (int j = 0; i + j < width; j++) {
        int32_t d = (int32_t)(slope * (uint32_t)es_get(x, bits, i + j) + shift);
        out[j] = (int16_t)es_narrow14(es_high_add(d, root, 8192));
    }
}

/* Layer norm of `rows` rows into a tile; padding k become zero. */
ES_INLINE void es_norm_tile(
    const void *x, int bits, int rows, int stride, int width, int centred, int32_t zero, int64_t eps, int16_t *tile)
{
    const int quads = ES_UP(width, 4) / 4;
    for (int row = 0; row < rows; row++) {
        int16_t *out = tile + row / 3 * quads * 12 + row % 3 * 4;
        for (int k = width; k < 4 * quads; k++)
            out[(k >> 2) * 12 + (k & 3)] = 0;
        es_norm(es_at(x, bits, row * stride), bits, width, centred, zero, eps, out, 12);
    }
}

#endif
