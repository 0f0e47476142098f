/* An epilogue that adds a stream: out = sat((value * ma + other * mb + c) >> shift); out may be other. */
#ifndef ES_SUM_H
#define ES_SUM_H

#include "matmul.h"

typedef struct {
    void *out;
    const void *other;
    int bits, other_bits, stride;
    es_scale scale;
    int32_t ma, mb, c;
    int shift;
} es_to_sum;

ES_INLINE void es_store_sum(const void *to, es_block at, const int32_t *acc)
{
    const es_to_sum *t = (const es_to_sum *)to;
    for (int c = 0; c < at.cols; c++) {
        int32_t mult = t->scale.mult[at.col + c];
        for (int r = 0; r < at.rows; r++) {
            int i = (at.row + r) * t->stride + at.col + c;
            int32_t value = es_value(&t->scale, acc[3 * c + r], mult);
            int32_t sum = value * t->ma + es_get(t->other, t->other_bits, i) * t->mb + t->c;
            es_put(t->out, t->bits, i, es_saturate(sum >> t->shift, t->bits));
        }
    }
}

#endif
