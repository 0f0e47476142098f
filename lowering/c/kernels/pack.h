/* Packing activations as the second operand of the dot-product core, where no linear layer writes them packed. */
#ifndef ES_PACK_H
#define ES_PACK_H

#include "core.h"

/* P(n, k) of x, whose element (row, i) lies at row * stride_n + i * stride_k. Padding becomes zero. */
ES_INLINE void es_pack(int8_t *packed, const int8_t *x, int n, int k, int stride_n, int stride_k)
{
    for (int pair = 0; pair < n; pair += 2)
        for (int quad = 0; quad < k; quad += 4, packed += 8)
            for (int i = 0; i < 8; i++) {
                int row = pair + (i >> 2), at = quad + ((i & 1) << 1) + ((i >> 1) & 1);
                packed[i] = (int8_t)(row < n && at < k ? x[row * stride_n + at * stride_k] : 0);
            }
}

#endif
