/* Types and single-value arithmetic that every other kernel stands on: saturation, high products, typed access. */
#ifndef ES_CORE_H
#define ES_CORE_H

#include <stddef.h>
#include <stdint.h>

/* Kernels take sizes as arguments; inlined into a wrapper that names them, the sizes become literals. */
#define ES_INLINE static inline __attribute__((always_inline))

#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && !defined(ES_PORTABLE)
#define ES_DSP 1
#else
#define ES_DSP 0
#endif

/* Armv6-M: eight registers that all instructions take, and five more to add to. */
#if defined(__ARM_ARCH_6M__) && !defined(ES_PORTABLE)
#define ES_SMALL 1
#else
#define ES_SMALL 0
#endif

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1) && !defined(ES_PORTABLE)
#define ES_HELIUM 1
#else
#define ES_HELIUM 0
#endif

/* Where it does not, a product of weights and activations is a function of a hundred instructions. */
#if defined(__riscv) && !defined(__riscv_mul)
#define ES_MULTIPLIES 0
#else
#define ES_MULTIPLIES 1
#endif

/* Loops over quads are unrolled twice and no more: their bodies are long and instantiated for every shape. */
#if defined(__clang__)
#define ES_UNROLL_TWICE _Pragma("clang loop unroll_count(2)")
#else
#define ES_UNROLL_TWICE _Pragma("GCC unroll 2")
#endif

#define ES_UP(n, to) (((n) + (to) - 1) / (to) * (to))
#define ES_MIN(a, b) ((a) < (b) ? (a) : (b))
#define ES_MAX(a, b) ((a) > (b) ? (a) : (b))

/* (a * b + 2^31) >> 32. */
ES_INLINE int32_t es_high(int32_t a, int32_t b)
{
#if ES_DSP
    int32_t high;
    __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(a), "r"(b));
    return high;
#else
    return (int32_t)(((int64_t)a * b + 0x80000000LL) >> 32);
#endif
}

/* add + ((a * b + 2^31) >> 32). */
ES_INLINE int32_t es_high_add(int32_t a, int32_t b, int32_t add)
{
#if ES_DSP
    if (__builtin_constant_p(add) && add == 0)
        return es_high(a, b);
    int32_t sum;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(add));
    return sum;
#else
    return add + es_high(a, b);
#endif
}

/* High word of an unsigned product. */
ES_INLINE uint32_t es_high_unsigned(uint32_t a, uint32_t b)
{
    return (uint32_t)(((uint64_t)a * b) >> 32);
}

/* Shift left of a signed value that is known to fit. */
ES_INLINE int32_t es_lift(int32_t value, int by)
{
    return (int32_t)((uint32_t)value << by);
}

/* Clamp; the full ranges of int8 and int16 are one SSAT. */
ES_INLINE int32_t es_clamp(int32_t value, int32_t low, int32_t high)
{
#if ES_DSP
    int32_t clamped;
    if (low == -128 && high == 127) {
        __asm__("ssat %0, #8, %1" : "=r"(clamped) : "r"(value));
        return clamped;
    }
    if (low == -32768 && high == 32767) {
        __asm__("ssat %0, #16, %1" : "=r"(clamped) : "r"(value));
        return clamped;
    }
#endif
    return value < low ? low : value > high ? high : value;
}

ES_INLINE int32_t es_low(int bits)
{
    return bits == 8 ? -128 : -32768;
}

ES_INLINE int32_t es_saturate(int32_t value, int bits)
{
    return es_clamp(value, es_low(bits), -1 - es_low(bits));
}

/* sat16(value >> 14): one SSAT. */
ES_INLINE int32_t es_narrow14(int32_t value)
{
#if ES_DSP
    int32_t narrow;
    __asm__("ssat %0, #16, %1, asr #14" : "=r"(narrow) : "r"(value));
    return narrow;
#else
    return es_saturate(value >> 14, 16);
#endif
}

/* sum + a + b, where pair = a | b << 16 holds two int16. */
ES_INLINE int32_t es_add_pair(uint32_t pair, int32_t sum)
{
#if ES_DSP
    __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(pair), "r"(0x00010001));
    return sum;
#else
    return sum + (int16_t)(pair & 0xFFFFu) + (int16_t)(pair >> 16);
#endif
}

/* zero + (((acc << pre) * mult + 2^31) >> 32), not yet clamped. */
ES_INLINE int32_t es_requant(int32_t acc, int32_t mult, int pre, int32_t zero)
{
    return es_high_add(es_lift(acc, pre), mult, zero);
}

/* Element i of an array of int8 or int16, by a literal width. */
ES_INLINE int32_t es_get(const void *array, int bits, int i)
{
    return bits == 8 ? ((const int8_t *)array)[i] : ((const int16_t *)array)[i];
}

ES_INLINE void es_put(void *array, int bits, int i, int32_t value)
{
    if (bits == 8)
        ((int8_t *)array)[i] = (int8_t)value;
    else
        ((int16_t *)array)[i] = (int16_t)value;
}

/* Address of element i, by the same literal width. */
ES_INLINE const void *es_at(const void *array, int bits, int i)
{
    return (const int8_t *)array + (ptrdiff_t)i * (bits / 8);
}

ES_INLINE void *es_place(void *array, int bits, int i)
{
    return (int8_t *)array + (ptrdiff_t)i * (bits / 8);
}

/* Bytes 0 and 2, or 1 and 3, of four int8 as two int16. */
ES_INLINE uint32_t es_even_bytes(uint32_t word)
{
#if ES_DSP
    uint32_t pair;
    __asm__ volatile("sxtb16 %0, %1" : "=r"(pair) : "r"(word));
    return pair;
#else
    return (uint16_t)(int8_t)word | (uint32_t)(int8_t)(word >> 16) << 16;
#endif
}

ES_INLINE uint32_t es_odd_bytes(uint32_t word)
{
#if ES_DSP
    uint32_t pair;
    __asm__ volatile("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
#else
    return es_even_bytes(word >> 8);
#endif
}

/* Four int8 (any address) to four int16 (on a word boundary). */
ES_INLINE void es_widen4(const int8_t *x, int16_t *out)
{
#if ES_DSP
    uint32_t word, pair[2];
    __builtin_memcpy(&word, x, 4);
    uint32_t even = es_even_bytes(word), odd = es_odd_bytes(word);
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair[0]) : "r"(even), "r"(odd));
    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(pair[1]) : "r"(odd), "r"(even));
    __builtin_memcpy(__builtin_assume_aligned(out, 4), pair, 8);
#else
    for (int i = 0; i < 4; i++)
        out[i] = x[i];
#endif
}

/* sum + a.low * b.low and sum + a.high * b.high of pairs of int16. Volatile like the bytes above: kept in the order
 * written, the unrolled taps of a window need no more registers than there are. */
ES_INLINE int32_t es_mla_low(uint32_t a, uint32_t b, int32_t sum)
{
#if ES_DSP
    __asm__ volatile("smlabb %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
#else
    return sum + (int16_t)a * (int16_t)b;
#endif
}

ES_INLINE int32_t es_mla_high(uint32_t a, uint32_t b, int32_t sum)
{
#if ES_DSP
    __asm__ volatile("smlatt %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
#else
    return es_mla_low(a >> 16, b >> 16, sum);
#endif
}

/* sum + both products. */
ES_INLINE int32_t es_mla_pairs(uint32_t a, uint32_t b, int32_t sum)
{
#if ES_DSP
    __asm__ volatile("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
#else
    return es_mla_high(a, b, es_mla_low(a, b, sum));
#endif
}

/* Leading zeros of a non-zero value. */
ES_INLINE int es_leading_zeros(uint32_t value)
{
#if defined(__ARM_FEATURE_CLZ) || defined(__x86_64__) || defined(__aarch64__)
    return __builtin_clz(value);
#else
    int zeros = 0;
    while (!(value & 0x80000000u)) {
        value <<= 1;
        zeros++;
    }
    return zeros;
#endif
}

/* 2^44 / total for total in (2^13, 2^24): one division of 32 bits. Twin of ir.integer_rows.inverse. */
ES_INLINE int32_t es_inverse(int32_t total)
{
    int zeros = es_leading_zeros((uint32_t)total);
    uint32_t normal = (uint32_t)total << zeros;
    uint32_t divisor = (normal >> 16) + ((normal >> 15) & 1u);
    return (int32_t)((0xFFFFFFFFu / divisor) << (zeros - 4));
}

/* 2^46 / sqrt(v) for v in [2^30, 2^32): a line and four Newton steps. Twin of ir.integer_rows.rsqrt. */
ES_INLINE int32_t es_rsqrt(uint32_t v)
{
    uint32_t y = 2290044389u - es_high_unsigned(1308601373u, v);
    for (int step = 0; step < 4; step++) {
        uint32_t product = es_high_unsigned(es_high_unsigned(y, y), v);
        y = (uint32_t)(((uint64_t)y * ((3u << 28) - product)) >> 29);
    }
    return (int32_t)ES_MIN(y, 0x7FFFFFFFu);
}

#endif
