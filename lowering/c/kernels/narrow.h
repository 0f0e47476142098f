/* The dot-product core for narrow tiles: bytes times bytes, sixteen of each of two outputs and three rows at a time. */
#ifndef ES_NARROW_H
#define ES_NARROW_H

#include "helium.h"

#if !ES_HELIUM

/* The twin of Helium's. */
ES_INLINE void es_dot_bytes(const int8_t *w, const int8_t *x, const int32_t *bias, int32_t *acc, int quads)
{
    for (int i = 0; i < 6; i++) {
        uint32_t sum = (uint32_t)bias[i / 3]; /* of rows beyond the last it may wrap, and means nothing */
        for (int k = 0; k < 4 * quads; k++)
            sum += (uint32_t)(w[(k >> 2) * 8 + i / 3 * 4 + (k & 3)] * x[(k >> 4) * 48 + i % 3 * 16 + (k & 15)]);
        acc[i] = (int32_t)sum;
    }
}

#endif

#endif
