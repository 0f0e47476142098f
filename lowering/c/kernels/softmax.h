/* Softmax of int8 rows to int8 or int16; twin of ir.integer_rows.softmax. */
#ifndef ES_SOFTMAX_H
#define ES_SOFTMAX_H

#include "core.h"

/* table[g]: exponential of -g steps below the row's maximum, 256 entries. out may be x when bits is 8. */
ES_INLINE void es_softmax(
    const int8_t *x, int rows, int width, const int16_t *table, int32_t mult, int32_t zero, int bits, void *out)
{
    for (int row = 0; row < rows; row++, x += width) {
        int32_t largest = -128, sum = 0;
        for (int i = 0; i < width; i++)
            largest = ES_MAX(largest, x[i]);
        for (int i = 0; i < width; i++)
            sum += table[largest - x[i]];
        int32_t inverse = es_inverse(sum);
        for (int i = 0; i < width; i++) {
            int32_t share = es_high(table[largest - x[i]] << 15, inverse);
            es_put(out, bits, row * width + i, es_saturate(es_requant(share, mult, 0, zero), bits));
        }
    }
}

#endif
