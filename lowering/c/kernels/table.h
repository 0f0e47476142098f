/* Unary functions by table: 256 entries for int8, 257 points with linear interpolation for int16. */
#ifndef ES_TABLE_H
#define ES_TABLE_H

#include "core.h"

/* t[i] + (((t[i+1] - t[i]) * f + 128) >> 8), i = (x >> 8) + 128, f = x & 255. */
ES_INLINE int32_t es_curve(int32_t x, const int16_t *points)
{
    const int16_t *at = points + (x >> 8) + 128;
    return at[0] + (((at[1] - at[0]) * (x & 255) + 128) >> 8);
}

/* int8 -> int8|int16; out may be x when the widths agree. */
ES_INLINE void es_table8(const int8_t *x, int count, const void *table, int bits, void *out)
{
    for (int i = 0; i < count; i++)
        es_put(out, bits, i, es_get(table, bits, x[i] + 128));
}

/* int16 -> int16; out may be x. */
ES_INLINE void es_table16(const int16_t *x, int count, const int16_t *points, int16_t *out)
{
    for (int i = 0; i < count; i++)
        out[i] = (int16_t)es_curve(x[i], points);
}

#endif
