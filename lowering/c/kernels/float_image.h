/* Images in single precision, channels first as the model has them: convolutions, pools, resizing.
 *
 * Without a dot-product instruction channels last wins nothing: a value is one load wherever it lies, and the model's
 * own order spares a second copy of every image.
 */
#ifndef ES_FLOAT_IMAGE_H
#define ES_FLOAT_IMAGE_H

#include "tile.h"

/* Of the taps at pixels at, at + dilation, ..., the first that lies inside, and the first behind the last that does. */
ES_INLINE int es_first_tap(int at, int dilation)
{
    return at < 0 ? (dilation - 1 - at) / dilation : 0;
}

ES_INLINE int es_end_tap(int at, int size, int kernel, int dilation)
{
    return ES_MIN(kernel, (size - at + dilation - 1) / dilation);
}

/* Taps [first_y, end_y) x [first_x, end_x) of a window whose very first would lie at x[origin], over `depth` planes, by
 * the weights [kernel_h, kernel_w, depth] of two outputs. */
ES_INLINE void es_taps_f32(
    const float *x, int origin, const es_window *g, int first_y, int end_y, int first_x, int end_x, int depth,
    const float *w0, const float *w1, float *s0, float *s1)
{
    for (int ky = first_y; ky < end_y; ky++)
        for (int kx = first_x; kx < end_x; kx++) {
            const float *a = x + (origin + ky * g->dilation_h * g->width + kx * g->dilation_w);
            const int at = (ky * g->kernel_w + kx) * depth;
            for (int c = 0; c < depth; c++) {
                *s0 += a[c * g->height * g->width] * w0[at + c];
                *s1 += a[c * g->height * g->width] * w1[at + c];
            }
        }
}

/* The window of output pixel (oy, ox); one that lies inside the image has literal bounds, and its loops unroll. */
ES_INLINE void es_window_f32(
    const float *x, const es_window *g, int oy, int ox, int depth, const float *w0, const float *w1, float *s0,
    float *s1)
{
    const int top = oy * g->stride_h - g->pad_top, left = ox * g->stride_w - g->pad_left;
    const int bottom = top + (g->kernel_h - 1) * g->dilation_h, right = left + (g->kernel_w - 1) * g->dilation_w;
    const int origin = top * g->width + left;
    if (top >= 0 && left >= 0 && bottom < g->height && right < g->width)
        es_taps_f32(x, origin, g, 0, g->kernel_h, 0, g->kernel_w, depth, w0, w1, s0, s1);
    else
        es_taps_f32(
            x, origin, g, es_first_tap(top, g->dilation_h), es_end_tap(top, g->height, g->kernel_h, g->dilation_h),
            es_first_tap(left, g->dilation_w), es_end_tap(left, g->width, g->kernel_w, g->dilation_w), depth, w0, w1,
            s0, s1);
}

/* x [channels, height, width], w [outputs, kernel_h, kernel_w, channels / groups], two outputs at a time; padding is
 * zero, bias may be NULL. out holds pixel p of output o at p * pixel + o * plane: images (1, pixels), tokens
 * (outputs, 1). */
ES_INLINE void es_conv_f32(
    const float *x, const es_window *g, int groups, const float *w, const float *bias, int outputs, float *out,
    int pixel, int plane)
{
    const int depth = g->channels / groups, per_group = outputs / groups;
    const int size = g->kernel_h * g->kernel_w * depth, step = per_group > 1 ? 2 : 1;
    for (int group = 0; group < groups; group++)
        for (int i = 0; i < per_group; i += step) {
            const int o = group * per_group + i, next = i + 1 < per_group ? o + 1 : o;
            for (int oy = 0; oy < g->out_h; oy++)
                for (int ox = 0; ox < g->out_w; ox++) {
                    float s0 = bias ? bias[o] : 0.0f, s1 = bias ? bias[next] : 0.0f;
                    const float *a = x + group * depth * g->height * g->width;
                    es_window_f32(a, g, oy, ox, depth, w + o * size, w + next * size, &s0, &s1);
                    float *to = out + (oy * g->out_w + ox) * pixel;
                    to[o * plane] = s0;
                    to[next * plane] = s1;
                }
        }
}

/* Max pool (average = 0), or average pool over the pixels inside the image (1), or over those inside its border, which
 * ends at `end_y` and `end_x` (2). Padding never wins and adds nothing. */
ES_INLINE void es_pool_f32(const float *x, const es_window *g, int average, int end_y, int end_x, float *out)
{
    for (int c = 0; c < g->channels; c++, x += g->height * g->width)
        for (int oy = 0; oy < g->out_h; oy++)
            for (int ox = 0; ox < g->out_w; ox++) {
                const int top = oy * g->stride_h - g->pad_top, left = ox * g->stride_w - g->pad_left;
                const int y0 = ES_MAX(top, 0), y1 = ES_MIN(top + g->kernel_h, g->height);
                const int x0 = ES_MAX(left, 0), x1 = ES_MIN(left + g->kernel_w, g->width);
                float sum = 0.0f, largest = -__builtin_inff();
                for (int y = y0; y < y1; y++)
                    for (int col = x0; col < x1; col++) {
                        const float value = x[y * g->width + col];
                        sum += value;
                        largest = ES_MAX(largest, value);
                    }
                int count = (y1 - y0) * (x1 - x0);
                if (average == 2)
                    count = (ES_MIN(top + g->kernel_h, end_y) - top) * (ES_MIN(left + g->kernel_w, end_x) - left);
                *out++ = average ? sum / (float)count : largest;
            }
}

/* Pixel (rows[i], cols[j]) of each plane [height, width]. */
ES_INLINE void es_pick_f32(
    const float *x, int planes, int height, int width, const int32_t *rows, int out_h, const int32_t *cols, int out_w,
    float *out)
{
    for (int c = 0; c < planes; c++, x += height * width)
        for (int i = 0; i < out_h; i++)
            for (int j = 0; j < out_w; j++)
                *out++ = x[rows[i] * width + cols[j]];
}

/* The same between a pixel and the one after it: `down[i]` and `right[j]` are the shares of the latter. */
ES_INLINE void es_blend_f32(
    const float *x, int planes, int height, int width, const int32_t *rows, const float *down, int out_h,
    const int32_t *cols, const float *right, int out_w, float *out)
{
    for (int c = 0; c < planes; c++, x += height * width)
        for (int i = 0; i < out_h; i++) {
            const float *upper = x + rows[i] * width, *lower = x + ES_MIN(rows[i] + 1, height - 1) * width;
            for (int j = 0; j < out_w; j++) {
                const int col = cols[j], next = ES_MIN(col + 1, width - 1);
                const float near = upper[col] * (1.0f - down[i]) + lower[col] * down[i];
                const float far = upper[next] * (1.0f - down[i]) + lower[next] * down[i];
                *out++ = near * (1.0f - right[j]) + far * right[j];
            }
        }
}

#endif
