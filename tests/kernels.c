/* Every kernel behind a plain function of integers and pointers, with sizes known only at run time: the hardest case. */
#include "kernels.h"
#include "memory.h"

#pragma GCC diagnostic ignored "-Wmissing-prototypes"

enum { TO_ROWS, TO_TILE, TO_PACKED, TO_TRANSPOSED, TO_RESIDUAL };

void t_dot(const int8_t *w, const int16_t *x, const int32_t *bias, int32_t *acc, int quads)
{
    es_dot(w, x, bias, acc, quads);
}

/* Sums of three rows with n weights in a code: accumulators [n up to 2][3]. */
void t_codes(const int16_t *tile, int k, const int8_t *w, int code, int n, int8_t *decoded, int32_t *sums)
{
    es_to_scores to = {sums, ES_UP(n, 2)};
    for (int each = ES_INT8; each <= ES_TERNARY; each++)
        if (code == each)
            es_matmul_of(tile, 16, 0, 3, k, (es_matrix){w, each, decoded}, NULL, n, es_store_scores, &to);
}

void t_rsqrt(const uint32_t *v, int count, int32_t *out)
{
    for (int i = 0; i < count; i++)
        out[i] = es_rsqrt(v[i]);
}

void t_inverse(const int32_t *total, int count, int32_t *out)
{
    for (int i = 0; i < count; i++)
        out[i] = es_inverse(total[i]);
}

/* kind: which store; table_kind: 0 none, 1 int8 -> int8, 2 int8 -> int16, 3 curve. */
void t_linear(
    const void *x, int bits_x, int rows, int k, const int8_t *w, const int32_t *bias, int n, int16_t *tile,
    int tile_rows, int kind, void *out, int bits, int stride, const int32_t *mult, int pre, int zero, int low, int high,
    int table_kind, const void *table, int ma, int mb, int c, int shift)
{
    es_scale scale = {mult, pre, zero, low, high, NULL, NULL, NULL};
    if (table_kind == 1)
        scale.table8 = (const int8_t *)table;
    if (table_kind == 2)
        scale.table16 = (const int16_t *)table;
    if (table_kind == 3)
        scale.curve = (const int16_t *)table;
    es_to_rows rows_to = {out, bits, stride, scale};
    es_to_tile tile_to = {(int16_t *)out, bits, stride, scale};
    es_to_packed packed_to = {(int8_t *)out, stride, scale};
    es_to_transposed transposed_to = {(int8_t *)out, stride, scale};
    es_to_sum residual_to = {out, out, bits, bits, stride, scale, ma, mb, c, shift, es_low(bits), -1 - es_low(bits)};
    if (kind == TO_ROWS)
        es_linear(x, bits_x, rows, k, k, w, bias, n, tile, tile_rows, es_store_rows, &rows_to);
    if (kind == TO_TILE)
        es_linear(x, bits_x, rows, k, k, w, bias, n, tile, tile_rows, es_store_tile, &tile_to);
    if (kind == TO_PACKED)
        es_linear(x, bits_x, rows, k, k, w, bias, n, tile, tile_rows, es_store_packed, &packed_to);
    if (kind == TO_TRANSPOSED)
        es_linear(x, bits_x, rows, k, k, w, bias, n, tile, tile_rows, es_store_transposed, &transposed_to);
    if (kind == TO_RESIDUAL)
        es_linear(x, bits_x, rows, k, k, w, bias, n, tile, tile_rows, es_store_sum, &residual_to);
}

void t_norm(const void *x, int bits, int rows, int width, int centred, int zero, int eps, int16_t *tile)
{
    es_norm_tile(x, bits, rows, width, width, centred, zero, eps, tile);
}

void t_attention(
    const int16_t *q, int rows, int d, const int8_t *keys, int m, const int8_t *values, int dv, const int16_t *table,
    int mz, int pre, const int16_t *bias, int with_bias, int bias_shift, const int32_t *mult, int zero, void *scratch,
    void *out, int bits)
{
    es_exponent x = {mz, pre, table, with_bias ? bias : NULL, bias_shift};
    for (int first = 0; first < rows; first += 3)
        es_attention(
            q + first * ES_UP(d, 4), first, ES_MIN(3, rows - first), d, keys, m, values, dv, &x, mult, zero, scratch,
            out, bits, dv);
}

void t_softmax(const int8_t *x, int rows, int width, const int16_t *table, int mult, int zero, int bits, void *out)
{
    es_softmax(x, rows, width, table, mult, zero, bits, out);
}

void t_table8(const int8_t *x, int count, const void *table, int bits, void *out)
{
    es_table8(x, count, table, bits, out);
}

void t_table16(const int16_t *x, int count, const int16_t *points, int16_t *out)
{
    es_table16(x, count, points, out);
}

void t_add(
    const void *a, int bits_a, const void *b, int bits_b, int count, int ma, int mb, int c, int shift, void *out,
    int bits)
{
    es_add(a, bits_a, b, bits_b, count, ma, mb, c, shift, es_low(bits), -1 - es_low(bits), out, bits);
}

void t_mul(
    const void *a, int bits_a, int zero_a, const void *b, int bits_b, int zero_b, int count, int period, int mult,
    int pre, int zero, void *out, int bits)
{
    es_mul(a, bits_a, zero_a, b, bits_b, zero_b, count, period, mult, pre, zero, es_low(bits), -1 - es_low(bits), out, bits);
}

void t_affine(
    const void *x, int bits_x, int rows, int channels, const int32_t *mult, const int32_t *bias, int lift, int zero,
    void *out, int bits)
{
    es_affine(x, bits_x, rows, channels, mult, bias, lift, zero, out, bits);
}

void t_rescale(
    const void *x, int bits_x, int rows, int count, int zero_x, int mult, int pre, int zero, void *out, int bits,
    int stride, int offset)
{
    es_rescale(x, bits_x, rows, count, zero_x, mult, pre, zero, es_low(bits), -1 - es_low(bits), (int8_t *)out + offset * (bits / 8), bits, stride);
}

void t_mean(
    const void *x, int bits_x, int rows, int channels, int bias, int mult, int pre, int zero, void *out, int bits)
{
    es_mean(x, bits_x, rows, channels, bias, mult, pre, zero, out, bits);
}

/* window: the 14 integers of es_window. */
static es_window window_of(const int32_t *w)
{
    es_window g = {w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12], w[13]};
    return g;
}

void t_conv(
    const void *x, int bits_x, const int32_t *window, int groups, const int8_t *w, const int32_t *bias, int outputs,
    int16_t *tile, int tile_rows, const int32_t *mult, int pre, int zero, int low, int high, void *out, int bits)
{
    es_window g = window_of(window);
    es_to_rows to = {out, bits, outputs, {mult, pre, zero, low, high, NULL, NULL, NULL}};
    es_conv(x, bits_x, &g, groups, (es_matrix){w, ES_INT8, NULL}, bias, outputs, tile, tile_rows, &to);
}

void t_depthwise(
    const void *x, int bits_x, const int32_t *window, const int8_t *w, const int32_t *bias, int16_t *planes, int rows,
    const int32_t *mult, int pre, int zero, int low, int high, void *out, int bits)
{
    es_window g = window_of(window);
    es_to_rows to = {out, bits, g.channels, {mult, pre, zero, low, high, NULL, NULL, NULL}};
    es_depthwise(x, bits_x, &g, w, bias, planes, rows, &to);
}

void t_maxpool(const void *x, int bits, const int32_t *window, void *out)
{
    es_window g = window_of(window);
    es_maxpool(x, bits, &g, out);
}

void t_avgpool(
    const void *x, int bits_x, const int32_t *window, int whole, const int32_t *mults, int pre, int zero, void *out,
    int bits)
{
    es_window g = window_of(window);
    es_avgpool(x, bits_x, &g, whole, mults, pre, zero, out, bits);
}

void t_resize(
    int linear, const void *x, int bits, int width, int channels, const int16_t *rows, int out_h, const int16_t *cols,
    int out_w, void *out)
{
    if (linear)
        es_resize_bilinear(x, bits, width, channels, rows, out_h, cols, out_w, out);
    else
        es_resize_nearest(x, bits, width, channels, rows, out_h, cols, out_w, out);
}

/* An image held by the test, handed out as the camera would, which has nothing outside. */
typedef struct {
    const int8_t *image;
    int height, line;
} held_image;

static void read_held(void *user, int y, int x, int count, int8_t *out)
{
    const held_image *held = (const held_image *)user;
    if (y < 0 || y >= held->height || x < 0 || count < 1 || x + count > held->line)
        __builtin_trap();
    for (int i = 0; i < count; i++)
        out[i] = held->image[y * held->line + x + i];
}

void t_patches(const int8_t *image, const int32_t *window, int8_t *scratch, int16_t *tile)
{
    es_window g = window_of(window);
    held_image held = {image, g.height, g.width * g.channels};
    for (int i = 0; i < g.out_h * g.out_w; i++) {
        int16_t *row = es_tile_row(tile, 8, i, ES_UP(g.kernel_h * g.kernel_w * g.channels, 4) / 4);
        es_tile_patch(row, read_held, &held, &g, i / g.out_w, i % g.out_w, scratch);
    }
}

void t_linear_f32(const float *x, int rows, int k, const float *w, const float *bias, int n, float *out)
{
    es_linear_f32(x, rows, k, k, w, k, 1, bias, n, out, n);
}

void t_conv_f32(
    const float *x, const int32_t *window, int groups, const float *w, const float *bias, int outputs, float *out)
{
    es_window g = window_of(window);
    es_conv_f32(x, &g, groups, w, bias, outputs, out, 1, g.out_h * g.out_w);
}

void t_norm_f32(const float *x, int rows, int width, int centred, const float *gamma, const float *beta, float *out)
{
    es_norm_f32(x, rows, width, centred, gamma, beta, 1e-5f, out);
}

void t_softmax_f32(const float *x, int rows, int width, float *out)
{
    es_softmax_f32(x, rows, width, 1, out);
}

void t_attention_f32(
    const float *q, int n, int d, const float *k, const float *v, int m, int dv, const float *bias, float *scratch,
    float *out)
{
    es_attention_f32(q, d, n, d, k, d, v, dv, m, dv, 0.25f, bias, m, 1, scratch, out, dv);
}

void t_pool_f32(const float *x, const int32_t *window, int average, int end_y, int end_x, float *out)
{
    es_window g = window_of(window);
    es_pool_f32(x, &g, average, end_y, end_x, out);
}

void t_map_f32(int which, const float *x, int count, float *out)
{
    float (*const functions[])(float) = {
        es_expf, es_erff, es_geluf, es_tanhf, es_sigmoidf, es_gelu_tanhf, es_siluf, es_hardswishf, es_reluf, es_logf,
        es_sqrtf,
    };
    for (int i = 0; i < count; i++)
        out[i] = functions[which](x[i]);
}

void t_pow_f32(const float *x, const float *y, int count, float *out)
{
    for (int i = 0; i < count; i++)
        out[i] = es_powf(x[i], y[i]);
}
