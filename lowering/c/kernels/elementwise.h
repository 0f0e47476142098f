/* Element by element: sums, products, per-channel affine maps, changes of scale, means. In place where widths agree. */
#ifndef ES_ELEMENTWISE_H
#define ES_ELEMENTWISE_H

#include "core.h"

/* out = clamp((a * ma + b * mb + c) >> shift). */
ES_INLINE void es_add(
    const void *a, int bits_a, const void *b, int bits_b, int count, int32_t ma, int32_t mb, int32_t c, int shift,
    int32_t low, int32_t high, void *out, int bits)
{
    for (int i = 0; i < count; i++) {
        int32_t sum = es_get(a, bits_a, i) * ma + es_get(b, bits_b, i) * mb + c;
        es_put(out, bits, i, es_clamp(sum >> shift, low, high));
    }
}

/* out = requant((a - zero_a) * (b - zero_b)); b has `period` values and repeats (a gate per channel), or count. */
ES_INLINE void es_mul(
    const void *a, int bits_a, int32_t zero_a, const void *b, int bits_b, int32_t zero_b, int count, int period,
    int32_t mult, int pre, int32_t zero, int32_t low, int32_t high, void *out, int bits)
{
    for (int i = 0; i < count;)
        for (int j = 0; j < period; i++, j++) {
            int32_t product = (es_get(a, bits_a, i) - zero_a) * (es_get(b, bits_b, j) - zero_b);
            es_put(out, bits, i, es_clamp(es_requant(product, mult, pre, zero), low, high));
        }
}

/* Per channel: out = requant((x << lift) + bias[c], mult[c]). */
ES_INLINE void es_affine(
    const void *x, int bits_x, int rows, int channels, const int32_t *mult, const int32_t *bias, int lift,
    int32_t zero, void *out, int bits)
{
    for (int row = 0, i = 0; row < rows; row++)
        for (int c = 0; c < channels; c++, i++) {
            int32_t acc = es_lift(es_get(x, bits_x, i), lift) + bias[c];
            es_put(out, bits, i, es_saturate(es_requant(acc, mult[c], 0, zero), bits));
        }
}

/* Rows of `count` values to another scale and another row stride: one operand of a concat, or a plain requantise. */
ES_INLINE void es_rescale(
    const void *x, int bits_x, int rows, int count, int32_t zero_x, int32_t mult, int pre, int32_t zero, int32_t low,
    int32_t high, void *out, int bits, int stride)
{
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < count; i++) {
            int32_t acc = es_get(x, bits_x, row * count + i) - zero_x;
            es_put(out, bits, row * stride + i, es_clamp(es_requant(acc, mult, pre, zero), low, high));
        }
}

/* The same without a change of scale: copies of `bytes` bytes per row. */
ES_INLINE void es_copy(const void *x, int rows, int bytes, int stride_x, void *out, int stride)
{
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < bytes; i++)
            ((int8_t *)out)[row * stride + i] = ((const int8_t *)x)[row * stride_x + i];
}

/* Mean over rows: out[c] = requant(sum over rows of x[row][c] + bias). */
ES_INLINE void es_mean(
    const void *x, int bits_x, int rows, int channels, int32_t bias, int32_t mult, int pre, int32_t zero, void *out,
    int bits)
{
    for (int c = 0; c < channels; c++) {
        int32_t acc = bias;
        for (int row = 0; row < rows; row++)
            acc += es_get(x, bits_x, row * channels + c);
        es_put(out, bits, c, es_saturate(es_requant(acc, mult, pre, zero), bits));
    }
}

/* Zeros, in words: what padded packed buffers start from. */
ES_INLINE void es_clear(void *buffer, int bytes)
{
    for (int i = 0; i < bytes; i++)
        ((int8_t *)buffer)[i] = 0;
}

#endif
