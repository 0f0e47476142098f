/* Convolutions over channels-last images: windows through the dot-product core, depthwise directly. */
#ifndef ES_CONV_H
#define ES_CONV_H

#include "matmul.h"

/* Windows of `tile_rows` (a multiple of 3) output pixels become a tile, then a matmul per group.
 * w: per group P(outputs / groups, kernel_h * kernel_w * channels / groups), one group after the other.
 * Scratch: ES_TILE_BYTES(tile_rows, kernel_h * kernel_w * channels / groups). bias is read in pairs: where outputs per
 * group are odd it has one value more than outputs. */
ES_INLINE void es_conv(
    const void *x, int bits, const es_window *g, int groups, es_matrix w, const int32_t *bias, int outputs,
    int16_t *tile, int tile_rows, const es_to_rows *to)
{
    const int depth = g->channels / groups, k = g->kernel_h * g->kernel_w * depth, n = outputs / groups;
    const int pixels = g->out_h * g->out_w;
    for (int first = 0; first < pixels; first += tile_rows) {
        int count = ES_MIN(tile_rows, pixels - first);
        for (int group = 0; group < groups; group++) {
            es_to_rows part = *to;
            part.out = (int8_t *)to->out + group * n * (to->bits / 8);
            part.scale.mult = to->scale.mult + group * n;
            for (int row = 0, oy = first / g->out_w, ox = first % g->out_w; row < count; row++) {
                int16_t *at = es_tile_row(tile, row, ES_UP(k, 4) / 4);
                es_tile_window(at, x, bits, g, oy, ox, group * depth, depth);
                if (++ox == g->out_w) {
                    ox = 0;
                    oy++;
                }
            }
            es_matrix block = w;
            block.rows += group * ((n + 1) / 2) * es_pair_bytes(w.code, k);
            es_matmul_of(tile, first, count, k, block, bias + group * n, n, es_store_rows, &part);
        }
    }
}

/* Whether tap (ky, kx) of the window at (top, left) lies within the image. */
ES_INLINE int es_tap_inside(const es_window *g, int top, int left, int ky, int kx)
{
    int y = top + ky * g->dilation_h, col = left + kx * g->dilation_w;
    return y >= 0 && y < g->height && col >= 0 && col < g->width;
}

/* Channels of one output pixel; `inside`: the whole window lies within the image, so that no tap is tested. */
ES_INLINE void es_depthwise_pixel(
    const void *x, int bits, const es_window *g, int top, int left, int inside, const int8_t *w, const int32_t *bias,
    const es_to_rows *to, int pixel)
{
    for (int c = 0; c < g->channels; c++) {
        int32_t acc = bias[c];
        for (int ky = 0; ky < g->kernel_h; ky++)
            for (int kx = 0; kx < g->kernel_w; kx++) {
                int at = ((top + ky * g->dilation_h) * g->width + left + kx * g->dilation_w) * g->channels + c;
                int32_t value = inside || es_tap_inside(g, top, left, ky, kx) ? es_get(x, bits, at) : g->zero;
                acc += value * w[(ky * g->kernel_w + kx) * g->channels + c];
            }
        es_put(to->out, to->bits, pixel * to->stride + c, es_value(&to->scale, acc, to->scale.mult[c]));
    }
}

/* The same for int8, four channels at once: a word of x and a word of w hold two pairs each. */
ES_INLINE void es_depthwise_quads(
    const int8_t *x, const es_window *g, int top, int left, int inside, const int8_t *w, const int32_t *bias,
    const es_to_rows *to, int pixel)
{
    for (int c = 0; c < g->channels; c += 4) {
        int32_t acc[4] = {bias[c], bias[c + 1], bias[c + 2], bias[c + 3]};
        for (int ky = 0; ky < g->kernel_h; ky++)
            for (int kx = 0; kx < g->kernel_w; kx++) {
                uint32_t a = 0x01010101u * (uint8_t)g->zero, b;
                int at = ((top + ky * g->dilation_h) * g->width + left + kx * g->dilation_w) * g->channels + c;
                if (inside || es_tap_inside(g, top, left, ky, kx))
                    __builtin_memcpy(&a, x + at, 4);
                __builtin_memcpy(&b, w + (ky * g->kernel_w + kx) * g->channels + c, 4);
                uint32_t a_even = es_even_bytes(a), a_odd = es_odd_bytes(a);
                uint32_t b_even = es_even_bytes(b), b_odd = es_odd_bytes(b);
                acc[0] = es_mla_low(a_even, b_even, acc[0]);
                acc[1] = es_mla_low(a_odd, b_odd, acc[1]);
                acc[2] = es_mla_high(a_even, b_even, acc[2]);
                acc[3] = es_mla_high(a_odd, b_odd, acc[3]);
            }
        for (int i = 0; i < 4; i++) {
            int32_t value = es_value(&to->scale, acc[i], to->scale.mult[c + i]);
            es_put(to->out, to->bits, pixel * to->stride + c + i, value);
        }
    }
}

/* One kernel per channel, w [kernel_h, kernel_w, channels]; bias, mult one per channel. */
ES_INLINE void es_depthwise(
    const void *x, int bits, const es_window *g, const int8_t *w, const int32_t *bias, const es_to_rows *to)
{
    const int quads = bits == 8 && g->channels % 4 == 0;
    for (int oy = 0, pixel = 0; oy < g->out_h; oy++)
        for (int ox = 0; ox < g->out_w; ox++, pixel++) {
            int top = oy * g->stride_h - g->pad_top, left = ox * g->stride_w - g->pad_left;
            int inside = top >= 0 && left >= 0 && top + (g->kernel_h - 1) * g->dilation_h < g->height
                         && left + (g->kernel_w - 1) * g->dilation_w < g->width;
            if (quads && inside)
                es_depthwise_quads((const int8_t *)x, g, top, left, 1, w, bias, to, pixel);
            else if (quads)
                es_depthwise_quads((const int8_t *)x, g, top, left, 0, w, bias, to, pixel);
            else
                es_depthwise_pixel(x, bits, g, top, left, inside, w, bias, to, pixel);
        }
}

#endif
