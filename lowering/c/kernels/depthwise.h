/* Depthwise convolutions over channels-last images: by planes of four channels, or pixel by pixel. */
#ifndef ES_DEPTHWISE_H
#define ES_DEPTHWISE_H

#include "matmul.h"

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

/* sum + a.low * b.high. Volatile for the reason that core.h gives. */
ES_INLINE int32_t es_mla_low_high(uint32_t a, uint32_t b, int32_t sum)
{
#if ES_DSP
    __asm__ volatile("smlabt %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
#else
    return es_mla_low(a, b >> 16, sum);
#endif
}

/* Loops over outputs and taps, whose sums are to stay in registers. */
#if defined(__clang__)
#define ES_UNROLL_ALL _Pragma("clang loop unroll(full)")
#else
#define ES_UNROLL_ALL _Pragma("GCC unroll 16")
#endif

#define ES_ROW_TAPS 15 /* taps of a row at most */
#define ES_BLOCK 7 /* outputs side by side at most: their sums, a pair of pixels, a row of taps and pointers fit */

/* Outputs of a block, so that blocks of a row are equal and as few as can be. */
ES_INLINE int es_block_outputs(const es_window *g)
{
    const int blocks = ES_UP(g->out_w, ES_BLOCK) / ES_BLOCK;
    return ES_UP(g->out_w, blocks) / blocks;
}

/* Values in a row of a plane: what all blocks of the row read, in pairs. */
ES_INLINE int es_plane_pitch(const es_window *g)
{
    const int outputs = ES_UP(g->out_w, es_block_outputs(g));
    return ES_UP((outputs - 1) * g->stride_w + g->kernel_w, 2);
}

/* One row of taps over `outputs` pixels of a plane: acc[j] += sum over t of x[j * stride + t] * w[t]. A word holds two
 * pixels, and is read once for all outputs that see it. Rows of taps are even; what lies
 * behind a row of pixels may be read, and goes nowhere. */
ES_INLINE void es_taps(const int16_t *x, const int16_t *w, int taps, int stride, int outputs, int32_t *acc)
{
#if ES_DSP
    uint32_t pairs[ES_ROW_TAPS];
    ES_UNROLL_ALL
    for (int t = 0; t < ES_MAX(taps - 1, 1); t++)
        __builtin_memcpy(&pairs[t], w + t, 4);
    ES_UNROLL_ALL
    for (int m = 0; m < (outputs - 1) * stride + taps; m += 2) {
        uint32_t pixels;
        __builtin_memcpy(&pixels, x + m, 4);
        ES_UNROLL_ALL
        for (int j = 0; j < outputs; j++) {
            const int t = m - j * stride;
            if (t >= 0 && t < taps - 1)
                acc[j] = es_mla_pairs(pixels, pairs[t], acc[j]);
            else if (t > 0 && t < taps)
                acc[j] = es_mla_low_high(pixels, pairs[t - 1], acc[j]);
            else if (t == 0)
                acc[j] = es_mla_low(pixels, pairs[0], acc[j]);
            else if (t == -1)
                acc[j] = es_mla_low_high(pairs[0], pixels, acc[j]);
        }
    }
#else
    ES_UNROLL_ALL
    for (int m = 0; m < (outputs - 1) * stride + taps; m++) {
        const int32_t pixel = x[m];
        ES_UNROLL_ALL
        for (int j = 0; j < outputs; j++)
            if (m >= j * stride && m < j * stride + taps)
                acc[j] += pixel * w[m - j * stride];
    }
#endif
}

/* Four channels of `count` pixels side by side, a pixel `channels` values apart, to four planes `size` values apart. */
ES_INLINE void es_plane_row(const int8_t *x, int channels, int count, int16_t *plane, int size)
{
    int i = 0;
#if ES_DSP
    for (; i + 2 <= count; i += 2, x += 2 * channels, plane += 2) {
        uint32_t left, right, pair[4];
        __builtin_memcpy(&left, x, 4);
        __builtin_memcpy(&right, x + channels, 4);
        uint32_t even = es_even_bytes(left), odd = es_odd_bytes(left);
        uint32_t next_even = es_even_bytes(right), next_odd = es_odd_bytes(right);
        __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair[0]) : "r"(even), "r"(next_even));
        __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair[1]) : "r"(odd), "r"(next_odd));
        __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(pair[2]) : "r"(next_even), "r"(even));
        __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(pair[3]) : "r"(next_odd), "r"(odd));
        for (int c = 0; c < 4; c++)
            __builtin_memcpy(plane + c * size, &pair[c], 4);
    }
#endif
    for (; i < count; i++, x += channels, plane++)
        for (int c = 0; c < 4; c++)
            plane[c * size] = x[c];
}

/* Output rows [first, first + count) of channel c, from its plane. */
ES_INLINE void es_plane_convolve(
    const int16_t *plane, const int16_t *taps, const es_window *g, int32_t bias, int first, int count,
    const es_to_rows *to, int c)
{
    const int outputs = es_block_outputs(g), pitch = es_plane_pitch(g);
    const int32_t mult = to->scale.mult[c];
    for (int row = 0; row < count; row++, plane += g->stride_h * pitch)
        for (int col = 0; col < g->out_w; col += outputs) {
            int32_t acc[ES_BLOCK];
            ES_UNROLL_ALL
            for (int j = 0; j < outputs; j++)
                acc[j] = bias;
            for (int ky = 0; ky < g->kernel_h; ky++)
                es_taps(
                    plane + ky * pitch + col * g->stride_w, taps + ky * ES_UP(g->kernel_w, 2), g->kernel_w,
                    g->stride_w, outputs, acc);
            void *out = es_place(to->out, to->bits, ((first + row) * g->out_w + col) * to->stride + c);
            ES_UNROLL_ALL
            for (int j = 0; j < outputs; j++)
                if (g->out_w % outputs == 0 || col + j < g->out_w)
                    es_put(out, to->bits, j * to->stride, es_value(&to->scale, acc[j], mult));
        }
}

/* int8, channels in fours, no dilation, at most ES_ROW_TAPS taps in a row: four channels at a time become planes of
 * int16 with their border, over which a channel's taps then pass, for `rows` rows of output at a time.
 * Scratch: as ir.memory.scratch.planes_bytes has it: the four planes, and the taps of one channel behind them. With all
 * rows at a time out may be x, if their shapes agree: no pixel of a channel is read once one has been written. */
ES_INLINE void es_depthwise_planes(
    const int8_t *x, const es_window *g, const int8_t *w, const int32_t *bias, int16_t *planes, int rows,
    const es_to_rows *to)
{
    const int pitch = es_plane_pitch(g), size = ((rows - 1) * g->stride_h + g->kernel_h) * pitch;
    const int columns = ES_MIN(g->width, pitch - g->pad_left), row_taps = ES_UP(g->kernel_w, 2);
    int16_t *const taps = planes + 4 * size;
    for (int i = 0; i < g->kernel_h * row_taps; i++)
        taps[i] = 0;
    for (int first = 0; first < g->out_h; first += rows) {
        const int count = ES_MIN(rows, g->out_h - first), top = first * g->stride_h - g->pad_top;
        const int end = ES_MIN(top + (count - 1) * g->stride_h + g->kernel_h, g->height);
        for (int i = 0; i < 4 * size; i++) /* the border; what lies inside is written over for each four channels */
            planes[i] = (int16_t)g->zero;
        for (int c = 0; c < g->channels; c += 4) {
            for (int y = ES_MAX(top, 0); y < end; y++)
                es_plane_row(
                    x + y * g->width * g->channels + c, g->channels, columns,
                    planes + (y - top) * pitch + g->pad_left, size);
            for (int i = 0; i < 4; i++) {
                for (int ky = 0; ky < g->kernel_h; ky++)
                    for (int kx = 0; kx < g->kernel_w; kx++)
                        taps[ky * row_taps + kx] = w[(ky * g->kernel_w + kx) * g->channels + c + i];
                es_plane_convolve(planes + i * size, taps, g, bias[c + i], first, count, to, c + i);
            }
        }
    }
}

/* One kernel per channel, w [kernel_h, kernel_w, channels]; bias, mult one per channel. By planes for rows > 0. */
ES_INLINE void es_depthwise(
    const void *x, int bits, const es_window *g, const int8_t *w, const int32_t *bias, int16_t *planes, int rows,
    const es_to_rows *to)
{
    if (rows) {
        es_depthwise_planes((const int8_t *)x, g, w, bias, planes, rows, to);
        return;
    }
    for (int oy = 0, pixel = 0; oy < g->out_h; oy++)
        for (int ox = 0; ox < g->out_w; ox++, pixel++) {
            int top = oy * g->stride_h - g->pad_top, left = ox * g->stride_w - g->pad_left;
            int inside = top >= 0 && left >= 0 && top + (g->kernel_h - 1) * g->dilation_h < g->height
                         && left + (g->kernel_w - 1) * g->dilation_w < g->width;
            es_depthwise_pixel(x, bits, g, top, left, inside, w, bias, to, pixel);
        }
}

#endif
