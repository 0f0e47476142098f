/* Operators in single precision, channels last: the plain float back end and the yardstick of the integer one. */
#ifndef ES_FLOAT_H
#define ES_FLOAT_H

#include "float_math.h"
#include "tile.h"

typedef float es_unary_f32(float x);

/* out[row][n] = bias[n] + x[row] . w[n], w [n][k]; bias may be NULL; two rows by two outputs at a time. */
ES_INLINE void es_linear_f32(
    const float *x, int rows, int stride_x, int k, const float *w, const float *bias, int n, float *out, int stride)
{
    for (int col = 0; col < n; col += 2)
        for (int row = 0; row < rows; row += 2) {
            int next_col = col + 1 < n ? col + 1 : col, next_row = row + 1 < rows ? row + 1 : row;
            const float *a0 = x + row * stride_x, *a1 = x + next_row * stride_x;
            const float *w0 = w + col * k, *w1 = w + next_col * k;
            float s00 = bias ? bias[col] : 0.0f, s10 = s00, s01 = bias ? bias[next_col] : 0.0f, s11 = s01;
            for (int i = 0; i < k; i++) {
                s00 += a0[i] * w0[i];
                s01 += a0[i] * w1[i];
                s10 += a1[i] * w0[i];
                s11 += a1[i] * w1[i];
            }
            out[row * stride + col] = s00;
            out[row * stride + next_col] = s01;
            out[next_row * stride + col] = s10;
            out[next_row * stride + next_col] = s11;
        }
}

/* x [height, width, channels], w [outputs, kernel_h, kernel_w, channels / groups]; padding is zero. Depthwise is
 * groups = outputs = channels. */
ES_INLINE void es_conv_f32(
    const float *x, const es_window *g, int groups, const float *w, const float *bias, int outputs, float *out)
{
    const int depth = g->channels / groups, per_group = outputs / groups;
    for (int oy = 0, at = 0; oy < g->out_h; oy++)
        for (int ox = 0; ox < g->out_w; ox++)
            for (int o = 0; o < outputs; o++, at++) {
                float sum = bias ? bias[o] : 0.0f;
                for (int ky = 0; ky < g->kernel_h; ky++)
                    for (int kx = 0; kx < g->kernel_w; kx++) {
                        int y = oy * g->stride_h - g->pad_top + ky * g->dilation_h;
                        int col = ox * g->stride_w - g->pad_left + kx * g->dilation_w;
                        if (y < 0 || y >= g->height || col < 0 || col >= g->width)
                            continue;
                        const float *a = x + (y * g->width + col) * g->channels + o / per_group * depth;
                        const float *b = w + ((o * g->kernel_h + ky) * g->kernel_w + kx) * depth;
                        for (int c = 0; c < depth; c++)
                            sum += a[c] * b[c];
                    }
                out[at] = sum;
            }
}

/* Layer norm (centred) or RMS norm of rows; gamma and beta may be NULL; out may be x. */
ES_INLINE void es_norm_f32(
    const float *x, int rows, int width, int centred, const float *gamma, const float *beta, float eps, float *out)
{
    for (int row = 0; row < rows; row++, x += width, out += width) {
        float mean = 0.0f, energy = 0.0f;
        for (int i = 0; centred && i < width; i++)
            mean += x[i];
        mean /= (float)width;
        for (int i = 0; i < width; i++)
            energy += (x[i] - mean) * (x[i] - mean);
        float root = es_rsqrtf(energy / (float)width + eps);
        for (int i = 0; i < width; i++)
            out[i] = (x[i] - mean) * root * (gamma ? gamma[i] : 1.0f) + (beta ? beta[i] : 0.0f);
    }
}

/* Softmax of rows; out may be x. */
ES_INLINE void es_softmax_f32(const float *x, int rows, int width, float *out)
{
    for (int row = 0; row < rows; row++, x += width, out += width) {
        float largest = x[0], sum = 0.0f;
        for (int i = 1; i < width; i++)
            largest = ES_MAX(largest, x[i]);
        for (int i = 0; i < width; i++)
            sum += out[i] = es_expf(x[i] - largest);
        for (int i = 0; i < width; i++)
            out[i] /= sum;
    }
}

/* One head, row by row: no n x m map. q [n], k [m], v [m] rows `stride_*` apart; bias [n][m] or NULL.
 * Scratch: m floats. out may be q when dv = d and the strides agree. */
ES_INLINE void es_attention_f32(
    const float *q, int stride_q, int n, int d, const float *k, int stride_k, const float *v, int stride_v, int m,
    int dv, float scale, const float *bias, float *scratch, float *out, int stride)
{
    for (int row = 0; row < n; row++) {
        for (int j = 0; j < m; j++) {
            float score = 0.0f;
            for (int c = 0; c < d; c++)
                score += q[row * stride_q + c] * k[j * stride_k + c];
            scratch[j] = score * scale + (bias ? bias[row * m + j] : 0.0f);
        }
        es_softmax_f32(scratch, 1, m, scratch);
        for (int c = 0; c < dv; c++) {
            float sum = 0.0f;
            for (int j = 0; j < m; j++)
                sum += scratch[j] * v[j * stride_v + c];
            out[row * stride + c] = sum;
        }
    }
}

/* Any unary function, passed by name; out may be x. */
ES_INLINE void es_map_f32(const float *x, int count, es_unary_f32 *function, float *out)
{
    for (int i = 0; i < count; i++)
        out[i] = function(x[i]);
}

/* out = a + b and a * b; b has `period` values and repeats, or count. */
ES_INLINE void es_add_f32(const float *a, const float *b, int count, int period, float *out)
{
    for (int i = 0; i < count;)
        for (int j = 0; j < period; i++, j++)
            out[i] = a[i] + b[j];
}

ES_INLINE void es_mul_f32(const float *a, const float *b, int count, int period, float *out)
{
    for (int i = 0; i < count;)
        for (int j = 0; j < period; i++, j++)
            out[i] = a[i] * b[j];
}

/* Per channel x * scale + shift: batch norm, rep norm, layer scale. */
ES_INLINE void es_affine_f32(const float *x, int rows, int channels, const float *scale, const float *shift, float *out)
{
    for (int row = 0, i = 0; row < rows; row++)
        for (int c = 0; c < channels; c++, i++)
            out[i] = x[i] * scale[c] + shift[c];
}

/* Mean over rows. */
ES_INLINE void es_mean_f32(const float *x, int rows, int channels, float *out)
{
    for (int c = 0; c < channels; c++) {
        float sum = 0.0f;
        for (int row = 0; row < rows; row++)
            sum += x[row * channels + c];
        out[c] = sum / (float)rows;
    }
}

/* Max pool (average = 0), or average pool over the values inside (1) or over the whole window (2). */
ES_INLINE void es_pool_f32(const float *x, const es_window *g, int average, float *out)
{
    for (int oy = 0, at = 0; oy < g->out_h; oy++)
        for (int ox = 0; ox < g->out_w; ox++)
            for (int c = 0; c < g->channels; c++, at++) {
                float sum = 0.0f, largest = -3.402823466e38f;
                int inside = 0;
                for (int ky = 0; ky < g->kernel_h; ky++)
                    for (int kx = 0; kx < g->kernel_w; kx++) {
                        int y = oy * g->stride_h - g->pad_top + ky * g->dilation_h;
                        int col = ox * g->stride_w - g->pad_left + kx * g->dilation_w;
                        if (y < 0 || y >= g->height || col < 0 || col >= g->width)
                            continue;
                        float value = x[(y * g->width + col) * g->channels + c];
                        sum += value;
                        largest = ES_MAX(largest, value);
                        inside++;
                    }
                int count = average == 2 ? g->kernel_h * g->kernel_w : inside;
                out[at] = average ? sum / (float)count : largest;
            }
}

#endif
