/* Pools over channels-last images. */
#ifndef ES_POOL_H
#define ES_POOL_H

#include "tile.h"

/* Largest value of each window; padding never wins. */
ES_INLINE void es_maxpool(const void *x, int bits, const es_window *g, void *out)
{
    for (int oy = 0, at = 0; oy < g->out_h; oy++)
        for (int ox = 0; ox < g->out_w; ox++)
            for (int c = 0; c < g->channels; c++, at++) {
                int32_t largest = es_low(bits);
                for (int ky = 0; ky < g->kernel_h; ky++)
                    for (int kx = 0; kx < g->kernel_w; kx++) {
                        int y = oy * g->stride_h - g->pad_top + ky * g->dilation_h;
                        int col = ox * g->stride_w - g->pad_left + kx * g->dilation_w;
                        if (y < 0 || y >= g->height || col < 0 || col >= g->width)
                            continue;
                        largest = ES_MAX(largest, es_get(x, bits, (y * g->width + col) * g->channels + c));
                    }
                es_put(out, bits, at, largest);
            }
}

/* requant(sum over the window of (x - g->zero), mults[n]); n counts the values inside, or the whole window when
 * `whole` is set (padding counts as real zero). */
ES_INLINE void es_avgpool(
    const void *x, int bits_x, const es_window *g, int whole, const int32_t *mults, int pre, int32_t zero, void *out,
    int bits)
{
    for (int oy = 0, at = 0; oy < g->out_h; oy++)
        for (int ox = 0; ox < g->out_w; ox++) {
            int top = oy * g->stride_h - g->pad_top, left = ox * g->stride_w - g->pad_left;
            int y0 = ES_MAX(top, 0), y1 = ES_MIN(top + g->kernel_h, g->height);
            int x0 = ES_MAX(left, 0), x1 = ES_MIN(left + g->kernel_w, g->width);
            int inside = (y1 - y0) * (x1 - x0);
            int32_t mult = mults[whole ? g->kernel_h * g->kernel_w : inside];
            for (int c = 0; c < g->channels; c++, at++) {
                int32_t sum = -inside * g->zero;
                for (int y = y0; y < y1; y++)
                    for (int col = x0; col < x1; col++)
                        sum += es_get(x, bits_x, (y * g->width + col) * g->channels + c);
                es_put(out, bits, at, es_saturate(es_requant(sum, mult, pre, zero), bits));
            }
        }
}

#endif
