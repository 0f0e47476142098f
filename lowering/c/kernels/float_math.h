/* Single-precision functions without a maths library: the same bits on every core (compile with -ffp-contract=off). */
#ifndef ES_FLOAT_MATH_H
#define ES_FLOAT_MATH_H

#include "core.h"

ES_INLINE float es_float_of(uint32_t bits)
{
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

ES_INLINE uint32_t es_bits_of(float value)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    return bits;
}

/* e^x, relative error below 3e-7: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial of degree 6, then 2^n by its bits. */
static inline float es_expf(float x)
{
    if (!(x > -87.0f))
        return 0.0f;
    if (x > 88.0f)
        x = 88.0f;
    float scaled = x * 1.44269504f;
    int n = (int)(scaled + (scaled < 0.0f ? -0.5f : 0.5f));
    float r = (x - (float)n * 0.693359375f) + (float)n * 2.12194440e-4f; /* ln 2 in two parts, the first exact */
    float p = 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * es_float_of((uint32_t)(n + 127) << 23);
}

/* 1 / sqrt(x) for normal x > 0: an estimate from the exponent, four Newton steps. */
static inline float es_rsqrtf(float x)
{
    float y = es_float_of(0x5F3759DFu - (es_bits_of(x) >> 1));
    for (int step = 0; step < 4; step++)
        y = y * (1.5f - 0.5f * x * y * y);
    return y;
}

/* sqrt(x), 0 for x <= 0: the estimate of the root, then one Newton step of its own. */
static inline float es_sqrtf(float x)
{
    if (!(x > 0.0f))
        return 0.0f;
    float r = es_rsqrtf(x), y = x * r;
    return y + 0.5f * r * (x - y * y);
}

/* ln x for normal x > 0, relative error below 3e-7: x = 2^n m, m in [sqrt 1/2, sqrt 2), an odd series in
 * (m - 1) / (m + 1). ln 0 is minus infinity; there is none below. */
static inline float es_logf(float x)
{
    if (!(x > 0.0f))
        return x < 0.0f ? __builtin_nanf("") : -__builtin_inff();
    uint32_t bits = es_bits_of(x) - 0x3F3504F3u;
    int n = (int32_t)bits >> 23;
    float m = es_float_of((bits & 0x7FFFFFu) + 0x3F3504F3u);
    float t = (m - 1.0f) / (m + 1.0f), s = t * t;
    float p = 1.0f / 9.0f;
    p = p * s + 1.0f / 7.0f;
    p = p * s + 1.0f / 5.0f;
    p = p * s + 1.0f / 3.0f;
    float small = 2.0f * t + 2.0f * t * s * p - (float)n * 2.12194440e-4f; /* ln 2 in two parts, as above */
    return small + (float)n * 0.693359375f;
}

/* x^y; of a negative x only whole powers exist. */
static inline float es_powf(float x, float y)
{
    if (y == 0.0f)
        return 1.0f;
    if (x == 0.0f)
        return y < 0.0f ? __builtin_inff() : 0.0f;
    int whole = y > -1e9f && y < 1e9f && y == (float)(int)y;
    if (x < 0.0f && !whole)
        return __builtin_nanf("");
    float power = es_expf(y * es_logf(x < 0.0f ? -x : x));
    return x < 0.0f && ((int)y & 1) ? -power : power;
}

/* erf, absolute error below 5e-7: Abramowitz and Stegun 7.1.26. */
static inline float es_erff(float x)
{
    float a = x < 0.0f ? -x : x;
    float t = 1.0f / (1.0f + 0.3275911f * a);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    float e = 1.0f - p * t * es_expf(-a * a);
    return x < 0.0f ? -e : e;
}

static inline float es_sigmoidf(float x)
{
    return 1.0f / (1.0f + es_expf(-x));
}

static inline float es_tanhf(float x)
{
    float a = x < 0.0f ? -x : x;
    float e = es_expf(-2.0f * a);
    float t = (1.0f - e) / (1.0f + e);
    return x < 0.0f ? -t : t;
}

static inline float es_geluf(float x)
{
    return 0.5f * x * (1.0f + es_erff(x * 0.707106781f));
}

static inline float es_gelu_tanhf(float x)
{
    return 0.5f * x * (1.0f + es_tanhf(0.797884561f * (x + 0.044715f * x * x * x)));
}

static inline float es_siluf(float x)
{
    return x * es_sigmoidf(x);
}

static inline float es_reluf(float x)
{
    return x > 0.0f ? x : 0.0f;
}

static inline float es_clampf(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

static inline float es_hardswishf(float x)
{
    return x * es_clampf(x * (1.0f / 6.0f) + 0.5f, 0.0f, 1.0f);
}

#endif
