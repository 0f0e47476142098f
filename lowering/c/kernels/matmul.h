/* Tile times packed matrix, and the places its results can go (epilogues).
 *
 * es_matmul walks pairs of outputs, then triples of rows: weights are read once per tile, from wherever they lie. An
 * epilogue is an es_store: given six accumulators and where they belong, it scales, clamps and stores them. Epilogues
 * are passed by name and inlined; their parameters are structs of literals.
 *
 * bias and mult hold N values rounded up to 2. */
#ifndef ES_MATMUL_H
#define ES_MATMUL_H

#include "dot.h"
#include "scale.h"
#include "tile.h"

typedef void es_store(const void *to, es_block at, const int32_t *acc);

/* `bits`: of the tile's values; `first`: number of its first row among all rows, for stores by row. bias: or NULL. */
ES_INLINE void es_matmul_of(
    const int16_t *tile, int bits, int first, int rows, int k, es_matrix w, const int32_t *bias, int n,
    es_store *store, const void *to)
{
    static const int32_t no_bias[2] = {0, 0};
    const int quads = ES_UP(k, 4) / 4, pitch = es_tile_pitch(ES_NARROW(bits, quads), quads);
    const int whole = rows / 3, left = rows % 3;
    for (int col = 0; col < n; col += 2, w.rows += es_pair_bytes(w.code, k)) {
        const int8_t *pair = es_decoded(&w, w.rows, k);
        const int16_t *x = tile;
        for (int triple = 0; triple < whole; triple++, x += pitch) {
            int32_t acc[6];
            es_block at = {first + 3 * triple, triple, 3, col, 2};
            es_dot_of(w.code, pair, x, bits, 3, bias ? bias + col : no_bias, acc, quads);
            if (col + 2 > n)
                at.cols = 1;
            store(to, at, acc);
        }
        if (left) {
            int32_t acc[6];
            es_block at = {first + 3 * whole, whole, left, col, col + 2 > n ? 1 : 2};
            es_dot_of(w.code, pair, x, bits, at.rows, bias ? bias + col : no_bias, acc, quads);
            store(to, at, acc);
        }
    }
}

/* The same for int16 and a matrix in int8, such as keys that were packed at run time. */
ES_INLINE void es_matmul(
    const int16_t *tile, int first, int rows, int k, const int8_t *w, const int32_t *bias, int n, es_store *store,
    const void *to)
{
    es_matrix matrix = {w, ES_INT8, NULL};
    es_matmul_of(tile, 16, first, rows, k, matrix, bias, n, store, to);
}

/* Rows of int8 or int16, `stride` elements apart. */
typedef struct {
    void *out;
    int bits, stride;
    es_scale scale;
} es_to_rows;

ES_INLINE void es_store_rows(const void *to, es_block at, const int32_t *acc)
{
    const es_to_rows *t = (const es_to_rows *)to;
    void *out = es_place(t->out, t->bits, at.row * t->stride + at.col);
#if ES_HELIUM
    if (ES_WHOLE(at, t->stride)) {
        es_put_values(out, t->bits, ES_PLACES(t->stride, 1), es_values(&t->scale, at, acc, t->bits));
        return;
    }
#endif
    for (int c = 0; c < at.cols; c++) {
        int32_t mult = t->scale.mult[at.col + c];
        for (int r = 0; r < at.rows; r++)
            es_put(out, t->bits, r * t->stride + c, es_value(&t->scale, acc[3 * c + r], mult));
    }
}

/* The tile of the next matmul, whose K is this one's N. Clear it once when N is not a multiple of 4. */
typedef struct {
    int16_t *tile;
    int bits, quads; /* of the next tile: N up to 4, / 4 */
    es_scale scale;
} es_to_tile;

ES_INLINE void es_store_tile(const void *to, es_block at, const int32_t *acc)
{
    const es_to_tile *t = (const es_to_tile *)to;
    int16_t *out = es_tile_row(t->tile, t->bits, 3 * at.triple, t->quads);
    const int narrow = ES_NARROW(t->bits, t->quads);
#if ES_HELIUM
    if (ES_WHOLE(at, 0)) {
        const int16x8_t values = es_values(&t->scale, at, acc, narrow ? 8 : 16);
        if (narrow)
            es_put_values((int8_t *)out + es_tile_byte(at.col), 8, ES_PLACES(16, 2), values);
        else
            es_put_values(out + es_tile_word(at.col), 16, ES_PLACES(4, 1), values);
        return;
    }
#endif
    for (int c = 0; c < at.cols; c++) {
        int32_t mult = t->scale.mult[at.col + c];
        for (int r = 0; r < at.rows; r++)
            es_tile_put(out + r * (narrow ? 8 : 4), narrow, at.col + c, es_value(&t->scale, acc[3 * c + r], mult));
    }
}

/* Packed P(rows, N), int8: keys. Clear it once when N is not a multiple of 4. */
typedef struct {
    int8_t *packed;
    int quads; /* N up to 4, / 4 */
    es_scale scale;
} es_to_packed;

ES_INLINE void es_store_packed(const void *to, es_block at, const int32_t *acc)
{
    const es_to_packed *t = (const es_to_packed *)to;
    int8_t *out = t->packed + (at.col >> 2) * 8 + ((at.col >> 1) & 1);
#if ES_HELIUM
    const int pair = t->quads * 8;
    if (ES_WHOLE(at, pair)) {
        const uint16x8_t even = ES_EACH(0, 4, pair, 2), odd = ES_EACH(4, pair, pair + 4, 2);
        const uint16x8_t places = at.row & 1 ? odd : even;
        es_put_values(out + (at.row >> 1) * pair, 8, places, es_values(&t->scale, at, acc, 8));
        return;
    }
#endif
    for (int r = 0; r < at.rows; r++) {
        int row = at.row + r;
        int8_t *place = out + (row >> 1) * t->quads * 8 + (row & 1) * 4;
        for (int c = 0; c < at.cols; c++)
            place[2 * c] = (int8_t)es_value(&t->scale, acc[3 * c + r], t->scale.mult[at.col + c]);
    }
}

/* Packed P(N, rows), int8: values, transposed. Padding rows need no clearing: their factors are zero. */
typedef struct {
    int8_t *packed;
    int quads; /* rows up to 4, / 4 */
    es_scale scale;
} es_to_transposed;

ES_INLINE void es_store_transposed(const void *to, es_block at, const int32_t *acc)
{
    const es_to_transposed *t = (const es_to_transposed *)to;
    int8_t *out = t->packed + (at.col >> 1) * t->quads * 8;
#if ES_HELIUM
    if (ES_WHOLE(at, 0)) {
        static const uint16_t places[4][8] = {
            ES_EACH(0, 2, 1, 4), ES_EACH(2, 1, 3, 4), ES_EACH(1, 3, 8, 4), ES_EACH(3, 8, 10, 4)};
        es_put_values(
            out + (at.row >> 2) * 8, 8, vld1q_u16(places[at.row & 3]), es_values(&t->scale, at, acc, 8));
        return;
    }
#endif
    for (int r = 0; r < at.rows; r++) {
        int row = at.row + r;
        int8_t *place = out + (row >> 2) * 8 + ((row & 1) << 1) + ((row >> 1) & 1);
        for (int c = 0; c < at.cols; c++)
            place[4 * c] = (int8_t)es_value(&t->scale, acc[3 * c + r], t->scale.mult[at.col + c]);
    }
}

/* Added to another operand, the residual stream or a table: out = clamp((value * ma + other * mb + c) >> shift);
 * out may be other. */
typedef struct {
    void *out;
    const void *other;
    int bits, other_bits, stride;
    es_scale scale;
    int32_t ma, mb, c;
    int shift;
    int32_t low, high;
} es_to_sum;

ES_INLINE void es_store_sum(const void *to, es_block at, const int32_t *acc)
{
    const es_to_sum *t = (const es_to_sum *)to;
    const int first = at.row * t->stride + at.col;
    void *out = es_place(t->out, t->bits, first);
    const void *other = es_at(t->other, t->other_bits, first);
#if ES_HELIUM
    if (ES_WHOLE(at, t->stride)) {
        const uint16x8_t places = ES_PLACES(t->stride, 1);
        const int16x8_t values = es_values(&t->scale, at, acc, 16);
        const int16x8_t others = es_get_values(other, t->other_bits, places);
        int32x4_t even = vmlaq_n_s32(vdupq_n_s32(t->c), vmovlbq_s16(values), t->ma);
        int32x4_t odd = vmlaq_n_s32(vdupq_n_s32(t->c), vmovltq_s16(values), t->ma);
        even = vshlq_r_s32(vmlaq_n_s32(even, vmovlbq_s16(others), t->mb), -t->shift);
        odd = vshlq_r_s32(vmlaq_n_s32(odd, vmovltq_s16(others), t->mb), -t->shift);
        const int16x8_t narrow = es_narrowed((es_sums){even, odd});
        es_put_values(out, t->bits, places, es_clamped(narrow, t->low, t->high, t->bits));
        return;
    }
#endif
    for (int c = 0; c < at.cols; c++) {
        int32_t mult = t->scale.mult[at.col + c];
        for (int r = 0; r < at.rows; r++) {
            int i = r * t->stride + c;
            int32_t value = es_value(&t->scale, acc[3 * c + r], mult);
            int32_t sum = value * t->ma + es_get(other, t->other_bits, i) * t->mb + t->c;
            es_put(out, t->bits, i, es_clamp(sum >> t->shift, t->low, t->high));
        }
    }
}

/* A whole linear layer: rows of int8|int16 through a tile of `tile_rows` (a multiple of 3) rows.
 * Scratch: ES_TILE_BYTES(tile_rows, k). */
ES_INLINE void es_linear(
    const void *x, int bits, int rows, int stride, int k, const int8_t *w, const int32_t *bias, int n, int16_t *tile,
    int tile_rows, es_store *store, const void *to)
{
    const es_matrix matrix = {w, ES_INT8, NULL};
    for (int first = 0; first < rows; first += tile_rows) {
        int count = ES_MIN(tile_rows, rows - first);
        es_tile_rows(tile, es_at(x, bits, first * stride), bits, count, stride, k);
        es_matmul_of(tile, bits, first, count, k, matrix, bias, n, store, to);
    }
}

#endif
