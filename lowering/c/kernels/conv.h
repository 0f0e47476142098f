/* Convolutions over channels-last images: windows through the dot-product core. */
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
                int16_t *at = es_tile_row(tile, bits, row, ES_UP(k, 4) / 4);
                es_tile_window(at, x, bits, g, oy, ox, group * depth, depth);
                if (++ox == g->out_w) {
                    ox = 0;
                    oy++;
                }
            }
            es_matrix block = w;
            block.rows += group * ((n + 1) / 2) * es_pair_bytes(w.code, k);
            es_matmul_of(tile, bits, first, count, k, block, bias + group * n, n, es_store_rows, &part);
        }
    }
}

#endif
