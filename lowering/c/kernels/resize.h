/* Resizing channels-last images by precomputed taps; twin of ir.integer_ops. */
#ifndef ES_RESIZE_H
#define ES_RESIZE_H

#include "core.h"

/* rows[out_h], cols[out_w]: source indices. */
ES_INLINE void es_resize_nearest(
    const void *x, int bits, int width, int channels, const int16_t *rows, int out_h, const int16_t *cols, int out_w,
    void *out)
{
    for (int oy = 0, at = 0; oy < out_h; oy++)
        for (int ox = 0; ox < out_w; ox++)
            for (int c = 0; c < channels; c++, at++)
                es_put(out, bits, at, es_get(x, bits, (rows[oy] * width + cols[ox]) * channels + c));
}

/* rows[out_h][3], cols[out_w][3]: two source indices and the second's weight in 1/256. */
ES_INLINE void es_resize_bilinear(
    const void *x, int bits, int width, int channels, const int16_t *rows, int out_h, const int16_t *cols, int out_w,
    void *out)
{
    for (int oy = 0, at = 0; oy < out_h; oy++)
        for (int ox = 0; ox < out_w; ox++) {
            const int16_t *v = rows + 3 * oy, *h = cols + 3 * ox;
            int upper = v[0] * width, lower = v[1] * width;
            for (int c = 0; c < channels; c++, at++) {
                int32_t a = es_get(x, bits, (upper + h[0]) * channels + c);
                int32_t b = es_get(x, bits, (upper + h[1]) * channels + c);
                int32_t d = es_get(x, bits, (lower + h[0]) * channels + c);
                int32_t e = es_get(x, bits, (lower + h[1]) * channels + c);
                int32_t first = a * (256 - h[2]) + b * h[2], second = d * (256 - h[2]) + e * h[2];
                es_put(out, bits, at, (first * (256 - v[2]) + second * v[2] + 32768) >> 16);
            }
        }
}

#endif
