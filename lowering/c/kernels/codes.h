/* Weights in fewer than eight bits: a pair of rows becomes packed int8 just before the tile that reads it.
 *
 * Every code stands for int8 weights, exactly: sums, and hence all bits of a result, are those of a matrix stored in
 * int8. A pair is decoded once per tile, so that its cost is shared by the tile's rows. Twin of ir.integer_codes. */
#ifndef ES_CODES_H
#define ES_CODES_H

#include "core.h"

enum { ES_INT8, ES_INT4, ES_SHIFT, ES_TERNARY };

/* A packed matrix, the code of its bytes (a literal), and room for one decoded pair where they have to be decoded. */
typedef struct {
    const int8_t *rows;
    int code;
    int8_t *decoded; /* 2 * (K up to 4) bytes on a word boundary */
} es_matrix;

/* On a core without a multiplier, weights that are powers of two become how far to shift, with the sign bit of a
 * subtraction; and a bit for nothing at all. */
#define ES_MINUS(shift) ((int8_t)(0x80 | (shift)))
#define ES_NOTHING 0x40

#define ES_GROUP 32 /* weights of a row that share an int4 multiplier */

/* Bytes of one coded pair of rows. */
ES_INLINE int es_pair_bytes(int code, int k)
{
    const int quads = ES_UP(k, 4) / 4;
    if (code == ES_INT4)
        return ES_UP(ES_UP(k, ES_GROUP) / ES_GROUP, 4) + 4 * quads;
    return quads * (code == ES_INT8 ? 8 : code == ES_SHIFT ? 4 : 2);
}

/* a - b in each byte, without a borrow between them. */
ES_INLINE uint32_t es_sub_bytes(uint32_t a, uint32_t b)
{
#if ES_DSP
    uint32_t difference;
    __asm__("ssub8 %0, %1, %2" : "=r"(difference) : "r"(a), "r"(b));
    return difference;
#else
    return ((a | 0x80808080u) - (b & 0x7F7F7F7Fu)) ^ ((a ^ ~b) & 0x80808080u);
#endif
}

/* Four nibbles q + 8 to four bytes m * q; m <= 15, so that no product leaves its byte. */
ES_INLINE uint32_t es_nibbles(uint32_t four, uint32_t m)
{
    uint32_t bytes = (four | four << 8) & 0x00FF00FFu;
    bytes = (bytes | bytes << 4) & 0x0F0F0F0Fu;
    return es_sub_bytes(bytes * m, m * 0x08080808u);
}

/* Four fields of two bits, t + 1, to four bytes t. */
ES_INLINE uint32_t es_trits(uint32_t four)
{
    uint32_t bytes = (four | four << 12) & 0x000F000Fu;
    bytes = (bytes | bytes << 6) & 0x03030303u;
    return es_sub_bytes(bytes, 0x01010101u);
}

ES_INLINE void es_decode_int4(const uint8_t *pair, int k, int8_t *out)
{
    const int quads = ES_UP(k, 4) / 4;
    const uint8_t *codes = pair + ES_UP(ES_UP(k, ES_GROUP) / ES_GROUP, 4);
    for (int first = 0; first < quads; first += ES_GROUP / 4, pair++)
        for (int quad = first; quad < ES_MIN(quads, first + ES_GROUP / 4); quad++) {
            uint32_t word, two[2];
            __builtin_memcpy(&word, __builtin_assume_aligned(codes + 4 * quad, 4), 4);
            two[0] = es_nibbles(word & 0xFFFFu, *pair & 15u);
            two[1] = es_nibbles(word >> 16, (uint32_t)*pair >> 4);
            __builtin_memcpy(__builtin_assume_aligned(out + 8 * quad, 4), two, 8);
        }
}

/* A nibble is a sign and an exponent: 0, then 2^0 to 2^6. Without a multiplier, the exponent is what is wanted. */
ES_INLINE void es_decode_shift(const uint8_t *pair, int k, int8_t *out)
{
#if ES_MULTIPLIES
    static const int8_t values[16] = {0, 1, 2, 4, 8, 16, 32, 64, 0, -1, -2, -4, -8, -16, -32, -64};
#else
    static const int8_t values[16] = {ES_NOTHING, 0, 1, 2, 3, 4, 5, 6, ES_NOTHING, ES_MINUS(0), ES_MINUS(1),
        ES_MINUS(2), ES_MINUS(3), ES_MINUS(4), ES_MINUS(5), ES_MINUS(6)};
#endif
    for (int i = 0; i < ES_UP(k, 4); i++) {
        out[2 * i] = values[pair[i] & 15];
        out[2 * i + 1] = values[pair[i] >> 4];
    }
}

ES_INLINE void es_decode_ternary(const uint8_t *pair, int k, int8_t *out)
{
#if ES_MULTIPLIES
    for (int quad = 0; quad < ES_UP(k, 4) / 4; quad++) {
        uint32_t two[2] = {es_trits(pair[2 * quad]), es_trits(pair[2 * quad + 1])};
        __builtin_memcpy(__builtin_assume_aligned(out + 8 * quad, 4), two, 8);
    }
#else
    static const int8_t values[4] = {ES_MINUS(0), ES_NOTHING, 0, ES_NOTHING};
    for (int i = 0; i < 2 * ES_UP(k, 4); i++)
        out[i] = values[pair[i >> 2] >> (i & 3) * 2 & 3];
#endif
}

/* The pair that begins at `pair`, as the dot-product core reads it. */
ES_INLINE const int8_t *es_decoded(const es_matrix *w, const int8_t *pair, int k)
{
    if (w->code == ES_INT8)
        return pair;
    if (w->code == ES_INT4)
        es_decode_int4((const uint8_t *)pair, k, w->decoded);
    else if (w->code == ES_SHIFT)
        es_decode_shift((const uint8_t *)pair, k, w->decoded);
    else
        es_decode_ternary((const uint8_t *)pair, k, w->decoded);
    return w->decoded;
}

#endif
