/* Filling tiles: rows of int8 or int16 become the interleaved int16 that the dot-product core reads.
 *
 * Tile of R rows (R a multiple of 3) by K: for each three rows and each four k twelve int16, four per row.
 * Bytes: ES_TILE_BYTES(R, K) = 2 * R up to 3 * K up to 4. Padding k are zero; rows past the end stay as they were.
 *
 * Where the core multiplies bytes, values of 8 bits stay what they are: a narrow tile has for each three rows and each
 * sixteen k 48 bytes, 16 per row, those of a quad in the order of a packed matrix. It lies in the room of the other. */
#ifndef ES_TILE_H
#define ES_TILE_H

#include "core.h"

#if ES_HELIUM
#include <arm_mve.h>
#endif

#define ES_TILE_BYTES(rows, k) (2 * ES_UP(rows, 3) * ES_UP(k, 4))

/* Whether rows of so many quads of values this wide make a narrow tile; a single quad would take more room than it has.
 * ES_TILE8 may be set for any core: the C twin runs then. */
#ifndef ES_TILE8
#define ES_TILE8 ES_HELIUM
#endif
#define ES_NARROW(bits, quads) (ES_TILE8 && (bits) == 8 && (quads) > 1)

/* int16 from three rows to the next three. */
ES_INLINE int es_tile_pitch(int narrow, int quads)
{
    return narrow ? ES_UP(quads, 4) * 6 : quads * 12;
}

/* Start of row `row`: its element k is what es_tile_put says. */
ES_INLINE int16_t *es_tile_row(int16_t *tile, int bits, int row, int quads)
{
    const int narrow = ES_NARROW(bits, quads);
    return tile + row / 3 * es_tile_pitch(narrow, quads) + row % 3 * (narrow ? 8 : 4);
}

/* Where element k lies in its row: in a narrow tile, and in one of int16. */
ES_INLINE int es_tile_byte(int k)
{
    return (k >> 4) * 48 + (k & 12) + (k & 1) * 2 + (k >> 1 & 1);
}

ES_INLINE int es_tile_word(int k)
{
    return (k >> 2) * 12 + (k & 3);
}

/* Element k of the row that begins at `row`. */
ES_INLINE void es_tile_put(int16_t *row, int narrow, int k, int32_t value)
{
    if (narrow)
        ((int8_t *)row)[es_tile_byte(k)] = (int8_t)value;
    else
        row[es_tile_word(k)] = (int16_t)value;
}

/* One row of k values into quads `step` apart: 12 in a tile, 4 for a plain row of k up to 4. */
ES_INLINE void es_tile_fill_row(int16_t *to, int step, const void *x, int bits, int k)
{
    int i = 0;
    ES_UNROLL_TWICE
    for (; i + 4 <= k; i += 4, to += step)
        if (bits == 8)
            es_widen4((const int8_t *)x + i, to);
        else
            for (int j = 0; j < 4; j++)
                to[j] = ((const int16_t *)x)[i + j];
    if (i < k)
        for (int j = 0; j < 4; j++)
            to[j] = (int16_t)(i + j < k ? es_get(x, bits, i + j) : 0);
}

/* `count` values from element k on, a multiple of 4, of the row that begins at `row`; a last quad is padded. */
ES_INLINE void es_tile_fill(int16_t *row, int narrow, int k, const void *x, int bits, int count)
{
    if (!narrow) {
        es_tile_fill_row(row + 3 * k, 12, x, bits, count);
        return;
    }
    int i = 0;
#if ES_HELIUM
    static const uint8_t swapped[16] = {0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15};
    const uint8x16_t order = vld1q_u8(swapped);
    for (; !(k & 15) && i + 16 <= count; i += 16)
        vst1q_s8((int8_t *)row + (k + i) * 3, vldrbq_gather_offset_s8((const int8_t *)x + i, order));
#endif
    for (; i < ES_UP(count, 4); i++)
        es_tile_put(row, narrow, k + i, i < count ? ((const int8_t *)x)[i] : 0);
}

/* `rows` rows of k values, `stride` elements apart. */
ES_INLINE void es_tile_rows(int16_t *tile, const void *x, int bits, int rows, int stride, int k)
{
    const int quads = ES_UP(k, 4) / 4;
    for (int row = 0; row < rows; row++)
        es_tile_fill(
            es_tile_row(tile, bits, row, quads), ES_NARROW(bits, quads), 0, es_at(x, bits, row * stride), bits, k);
}

/* The same into a tile of int16 whatever the values, for products that want one. */
ES_INLINE void es_tile_rows_wide(int16_t *tile, const void *x, int bits, int rows, int stride, int k)
{
    for (int row = 0; row < rows; row++)
        es_tile_fill_row(es_tile_row(tile, 16, row, ES_UP(k, 4) / 4), 12, es_at(x, bits, row * stride), bits, k);
}

/* Geometry of a window over a channels-last image; the border holds `zero`, x's zero point. */
typedef struct {
    int height, width, channels;       /* of x */
    int kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
    int out_h, out_w, zero;
} es_window;

/* One window of `depth` channels from `first` on: kernel_h * kernel_w * depth values in that order. */
ES_INLINE void es_tile_window(
    int16_t *to, const void *x, int bits, const es_window *g, int oy, int ox, int first, int depth)
{
    const int narrow = ES_NARROW(bits, ES_UP(g->kernel_h * g->kernel_w * depth, 4) / 4);
    int k = 0;
    for (int ky = 0; ky < g->kernel_h; ky++)
        for (int kx = 0; kx < g->kernel_w; kx++) {
            int y = oy * g->stride_h - g->pad_top + ky * g->dilation_h;
            int col = ox * g->stride_w - g->pad_left + kx * g->dilation_w;
            int inside = y >= 0 && y < g->height && col >= 0 && col < g->width;
            int at = (y * g->width + col) * g->channels + first;
            if (depth % 4 == 0 && inside) {
                es_tile_fill(to, narrow, k, es_at(x, bits, at), bits, depth);
                k += depth;
                continue;
            }
            for (int c = 0; c < depth; c++, k++)
                es_tile_put(to, narrow, k, inside ? es_get(x, bits, at + c) : g->zero);
        }
    for (; k & 3; k++)
        es_tile_put(to, narrow, k, 0);
}

/* Pixels on demand, for an image that is never held whole: `count` int8 values of image row y from value x on. */
typedef void es_pixels(void *user, int y, int x, int count, int8_t *out);

/* One patch read through a callback, `line` = scratch of kernel_w * channels bytes. Where the grid reaches beyond the
 * image only what lies inside is asked for; the rest holds g->zero. A grid that does not costs no test. */
ES_INLINE void es_tile_patch(
    int16_t *to, es_pixels *pixels, void *user, const es_window *g, int oy, int ox, int8_t *line)
{
    const int values = g->kernel_w * g->channels, narrow = ES_NARROW(8, ES_UP(g->kernel_h * values, 4) / 4);
    const int padded = g->pad_top || g->pad_left || g->out_h * g->stride_h > g->height
                       || g->out_w * g->stride_w > g->width;
    const int top = oy * g->stride_h - g->pad_top, left = ox * g->stride_w - g->pad_left;
    int first = 0, end = values, k = 0;
    if (padded) {
        first = ES_MAX(-left, 0) * g->channels;
        end = ES_MIN(g->width - left, g->kernel_w) * g->channels;
    }
    for (int y = top; y < top + g->kernel_h; y++) {
        const int inside = !padded || (y >= 0 && y < g->height && first < end);
        if (padded) {
            for (int i = 0; i < (inside ? first : values); i++)
                line[i] = (int8_t)g->zero;
            for (int i = inside ? end : values; i < values; i++)
                line[i] = (int8_t)g->zero;
        }
        if (inside)
            pixels(user, y, left * g->channels + first, end - first, line + first);
        for (int i = 0; i < values; i++, k++)
            es_tile_put(to, narrow, k, line[i]);
    }
    for (; k & 3; k++)
        es_tile_put(to, narrow, k, 0);
}

#endif
