/* Kernels with literal sizes, as the generator emits them, for counting on an emulated core. */
#include "kernels.h"
#include "memory.h"

void bench_matmul(int8_t *x, int8_t *w, int32_t *bias, int32_t *mult, int16_t *tile, int8_t *out);
void bench_scores(int16_t *q, int8_t *keys, int32_t *scores);
int bench_softmax(int32_t *scores, int16_t *table, int32_t mz, int16_t *out);
void bench_attention(
    int16_t *q, int8_t *keys, int8_t *values, int16_t *table, int32_t mz, int32_t *mult, int32_t *scratch, int8_t *out);
void bench_add8(int8_t *x, int8_t *y);
void bench_add16(int8_t *a, int16_t *x);
void bench_layernorm8(int8_t *x, int16_t *tile);
void bench_layernorm16(int16_t *x, int16_t *tile);
void bench_depthwise(int8_t *x, int8_t *w, int32_t *bias, int32_t *mult, int16_t *planes, int8_t *out);

/* 197 x 192 -> 576, int8 rows in and out, tiles of 12 rows filled on the way. */
void bench_matmul(int8_t *x, int8_t *w, int32_t *bias, int32_t *mult, int16_t *tile, int8_t *out)
{
    es_to_rows to = {out, 8, 576, {mult, 0, 0, -128, 127, NULL, NULL, NULL}};
    es_linear(x, 8, 197, 192, 192, w, bias, 576, tile, 12, es_store_rows, &to);
}

/* One head, all 197 rows: scores of 197 queries and 197 keys of 64 channels; q is a tile of 198 rows. */
void bench_scores(int16_t *q, int8_t *keys, int32_t *scores)
{
    es_to_scores to = {scores, 200};
    for (int first = 0; first < 198; first += 3)
        es_matmul(q + first * 64, 0, 3, 64, keys, NULL, 197, es_store_scores, &to);
}

/* Exponentials of 197 scores, maximum and sum included. */
int bench_softmax(int32_t *scores, int16_t *table, int32_t mz, int16_t *out)
{
    es_exponent x = {mz, 0, table, NULL, 0};
    return es_exponentials((es_score *)scores, 197, &x, NULL, out);
}

void bench_attention(
    int16_t *q, int8_t *keys, int8_t *values, int16_t *table, int32_t mz, int32_t *mult, int32_t *scratch, int8_t *out)
{
    es_exponent x = {mz, 0, table, NULL, 0};
    for (int first = 0; first < 197; first += 3)
        es_attention(
            q + first * 64, first, ES_MIN(3, 197 - first), 64, keys, 197, values, 64, &x, mult, 0, scratch, out, 8, 64);
}

void bench_add8(int8_t *x, int8_t *y)
{
    es_add(x, 8, y, 8, 197 * 192, 16000, 17000, 16384, 15, -128, 127, x, 8);
}

void bench_add16(int8_t *a, int16_t *x)
{
    es_add(a, 8, x, 16, 197 * 192, 16000, 16384, 8192, 14, -32768, 32767, x, 16);
}

void bench_layernorm8(int8_t *x, int16_t *tile)
{
    es_norm_tile(x, 8, 12, 192, 192, 1, 0, 37, tile);
}

void bench_layernorm16(int16_t *x, int16_t *tile)
{
    es_norm_tile(x, 16, 12, 192, 192, 1, 0, 37, tile);
}

void bench_depthwise(int8_t *x, int8_t *w, int32_t *bias, int32_t *mult, int16_t *planes, int8_t *out)
{
    static const es_window g = {14, 14, 64, 3, 3, 1, 1, 1, 1, 1, 1, 14, 14, 5};
    es_to_rows to = {out, 8, 64, {mult, 0, 0, -128, 127, NULL, NULL, NULL}};
    es_depthwise(x, 8, &g, w, bias, planes, 14, &to);
}
