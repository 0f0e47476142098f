/* Rows in single precision: products, norms, softmax, attention. */
#ifndef ES_FLOAT_H
#define ES_FLOAT_H

#include "float_math.h"

/* out[row][n] = bias[n] + sum over k of x[row][k] w[n][k], neighbours of w `step_n` and `step_k` apart: a weight as it
 * is, or the right side of a matrix product. bias may be NULL; two rows by two outputs at a time. */
ES_INLINE void es_linear_f32(
    const float *x, int rows, int stride_x, int k, const float *w, int step_n, int step_k, const float *bias, int n,
    float *out, int stride)
{
    for (int col = 0; col < n; col += 2)
        for (int row = 0; row < rows; row += 2) {
            const int next_col = col + 1 < n ? col + 1 : col, next_row = row + 1 < rows ? row + 1 : row;
            const float *a0 = x + row * stride_x, *a1 = x + next_row * stride_x;
            const float *w0 = w + col * step_n, *w1 = w + next_col * step_n;
            float s00 = bias ? bias[col] : 0.0f, s10 = s00, s01 = bias ? bias[next_col] : 0.0f, s11 = s01;
            for (int i = 0; i < k; i++) {
                s00 += a0[i] * w0[i * step_k];
                s01 += a0[i] * w1[i * step_k];
                s10 += a1[i] * w0[i * step_k];
                s11 += a1[i] * w1[i * step_k];
            }
            out[row * stride + col] = s00;
            out[row * stride + next_col] = s01;
            out[next_row * stride + col] = s10;
            out[next_row * stride + next_col] = s11;
        }
}

/* Sum of (x - centre) or of its square in blocks: an image has 10^5 values, too many for one single-precision sum. */
ES_INLINE float es_sum_f32(const float *x, int count, float centre, int squared)
{
    float sum = 0.0f;
    for (int i = 0; i < count;) {
        const int end = ES_MIN(i + 256, count);
        float part = 0.0f;
        for (; i < end; i++)
            part += squared ? (x[i] - centre) * (x[i] - centre) : x[i] - centre;
        sum += part;
    }
    return sum;
}

/* Layer norm (centred) or RMS norm of rows; gamma and beta may be NULL; out may be x. */
ES_INLINE void es_norm_f32(
    const float *x, int rows, int width, int centred, const float *gamma, const float *beta, float eps, float *out)
{
    for (int row = 0; row < rows; row++, x += width, out += width) {
        const float mean = centred ? es_sum_f32(x, width, 0.0f, 0) / (float)width : 0.0f;
        const float root = es_rsqrtf(es_sum_f32(x, width, mean, 1) / (float)width + eps);
        for (int i = 0; i < width; i++)
            out[i] = (x[i] - mean) * root * (gamma ? gamma[i] : 1.0f) + (beta ? beta[i] : 0.0f);
    }
}

/* Softmax of rows of `width` values, `step` apart; out may be x. */
ES_INLINE void es_softmax_f32(const float *x, int rows, int width, int step, float *out)
{
    for (int row = 0; row < rows; row++) {
        const int first = row / step * step * width + row % step, end = first + width * step;
        float largest = x[first], sum = 0.0f;
        for (int i = first; i < end; i += step)
            largest = ES_MAX(largest, x[i]);
        for (int i = first; i < end; i += step)
            sum += out[i] = es_expf(x[i] - largest);
        for (int i = first; i < end; i += step)
            out[i] /= sum;
    }
}

/* One head, row by row: no n x m map. q [n], k [m], v [m] rows `stride_*` apart; bias or NULL, its
 * neighbours `step_n` and `step_m` apart. Scratch: m floats. out may be q when dv = d and the strides agree. */
ES_INLINE void es_attention_f32(
    const float *q, int stride_q, int n, int d, const float *k, int stride_k, const float *v, int stride_v, int m,
    int dv, float scale, const float *bias, int step_n, int step_m, float *scratch, float *out, int stride)
{
    for (int row = 0; row < n; row++, q += stride_q, out += stride) {
        es_linear_f32(q, 1, stride_q, d, k, stride_k, 1, NULL, m, scratch, m);
        for (int j = 0; j < m; j++)
            scratch[j] = scratch[j] * scale + (bias ? bias[row * step_n + j * step_m] : 0.0f);
        es_softmax_f32(scratch, 1, m, 1, scratch);
        es_linear_f32(scratch, 1, m, m, v, 1, stride_v, NULL, dv, out, stride);
    }
}

#endif
