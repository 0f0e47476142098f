/* The dot-product core: two packed weight rows times three tile rows, six int32 accumulators held in registers.
 *
 * Per four k: one LDRD of weights, four SXTB16, three LDRD of activations, twelve SMLAD: 20 instructions for 24 MAC,
 * 80 bytes, written out for 64 k; other lengths jump into the middle.
 * That needs 14 registers: 6 accumulators, 4 for weights, 2 for activations, 2 pointers. Neither compiler keeps to it
 * without spilling, hence the assembly; every other core runs the C twin. */
#ifndef ES_DOT_H
#define ES_DOT_H

#include "codes.h"
#include "narrow.h"
#include "tile.h"

/* On small cores one step's five operands and six sums just fit: left alone, compilers load a quad ahead and spill.
 * The fence holds them to the order written, and costs nothing; kept apart, two pointers are not computed anew from one
 * index. A computer vectorises better without. */
#if defined(__x86_64__) || defined(__aarch64__)
#define ES_FENCE(s)
#define ES_APART(w, x)
#define ES_ONCE static inline
#else
#define ES_FENCE(s) \
    __asm__ volatile("" \
        : "+r"((s)[0]), "+r"((s)[1]), "+r"((s)[2]), "+r"((s)[3]), "+r"((s)[4]), "+r"((s)[5]) : : "memory")
#define ES_APART(w, x) __asm__("" : "+r"(w), "+r"(x))
#define ES_ONCE static __attribute__((noinline, unused))
#endif

/* Byte `at` of each weight quad goes with value k of each row. Sums are unsigned: padding rows hold anything, and may
 * wrap without meaning. */
ES_INLINE void es_dot_step(const int8_t *w, const int16_t *x, int at, int k, uint32_t *sum)
{
    int32_t w0 = w[at], w1 = w[4 + at];
    for (int r = 0; r < 3; r++) {
        int32_t value = x[4 * r + k];
        sum[r] += (uint32_t)(w0 * value);
        sum[3 + r] += (uint32_t)(w1 * value);
    }
    ES_FENCE(sum);
}

ES_INLINE void es_dot_quad(const int8_t *w, const int16_t *x, uint32_t *sum)
{
    es_dot_step(w, x, 0, 0, sum);
    es_dot_step(w, x, 1, 2, sum);
    es_dot_step(w, x, 2, 1, sum);
    es_dot_step(w, x, 3, 3, sum);
}

/* acc[3 n + r] = bias[n] + sum over k of w_n[k] * x_r[k], 4 * quads values of k, n < 2, r < 3.
 * w, x, bias and acc lie on word boundaries; quads >= 1. */

/* The same for the first row alone, a last one or the only: acc[0] and acc[3]. */
static __attribute__((noinline, unused)) void es_dot_row(
    const int8_t *w, const int16_t *x, const int32_t *bias, int32_t *acc, int quads)
{
#if ES_HELIUM
    es_row_words(w, x, bias, acc, quads);
#elif ES_DSP
    int32_t a = bias[0], b = bias[1];
    ES_UNROLL_TWICE
    for (; quads; quads--, w += 8, x += 12) {
        uint32_t words[2], pairs[2];
        __builtin_memcpy(words, __builtin_assume_aligned(w, 4), 8);
        __builtin_memcpy(pairs, __builtin_assume_aligned(x, 4), 8);
        a = es_mla_pairs(es_even_bytes(words[0]), pairs[0], a);
        b = es_mla_pairs(es_even_bytes(words[1]), pairs[0], b);
        a = es_mla_pairs(es_odd_bytes(words[0]), pairs[1], a);
        b = es_mla_pairs(es_odd_bytes(words[1]), pairs[1], b);
    }
    acc[0] = a;
    acc[3] = b;
#else
    uint32_t a = (uint32_t)bias[0], b = (uint32_t)bias[1];
    ES_UNROLL_TWICE
    for (; quads; quads--, w += 8, x += 12)
        for (int i = 0; i < 4; i++) {
            const int k = (i & 1) << 1 | i >> 1; /* of byte i */
            a += (uint32_t)(w[i] * (int32_t)x[k]);
            b += (uint32_t)(w[4 + i] * (int32_t)x[k]);
        }
    acc[0] = (int32_t)a;
    acc[3] = (int32_t)b;
#endif
}

#define ES_UNUSED __attribute__((unused))

/* The parameters look unused: gcc must not drop them, nor conclude that nothing is read or written. */
#if defined(__clang__)
#define ES_ASSEMBLY __attribute__((naked, noinline, unused))
#else
#define ES_ASSEMBLY __attribute__((naked, noinline, noipa, unused))
#endif

#if ES_HELIUM

ES_INLINE void es_dot(const int8_t *w, const int16_t *x, const int32_t *bias, int32_t *acc, int quads)
{
    es_dot_words(w, x, bias, acc, quads);
}

#elif ES_DSP

#define ES_QUAD_ROW(acc0, acc1)       \
    "ldrd  r12, lr, [r1], #8      \n" \
    "smlad " acc0 ", r10, r12, " acc0 "\n" \
    "smlad " acc1 ", r11, r12, " acc1 "\n" \
    "smlad " acc0 ", r8, lr, " acc0 "\n" \
    "smlad " acc1 ", r9, lr, " acc1 "\n"

#define ES_QUAD                       \
    "ldrd   r8, r9, [r0], #8      \n" \
    "sxtb16 r10, r8               \n" \
    "sxtb16 r11, r9               \n" \
    "sxtb16 r8, r8, ror #8        \n" \
    "sxtb16 r9, r9, ror #8        \n" \
    ES_QUAD_ROW("r2", "r5")           \
    ES_QUAD_ROW("r3", "r6")           \
    ES_QUAD_ROW("r4", "r7")

ES_ASSEMBLY static void es_dot(
    const int8_t *w ES_UNUSED, const int16_t *x ES_UNUSED, const int32_t *bias ES_UNUSED, int32_t *acc ES_UNUSED,
    int quads ES_UNUSED)
{
    __asm__ volatile(
        ".syntax unified              \n"
        "push  {r4-r11, lr}           \n"
        "ldr   r8, [sp, #36]          \n"
        "add   r12, r0, r8, lsl #3    \n"
        "push  {r3, r12}              \n" /* [sp] = acc, [sp + 4] = end of the weights */
        "ldrd  r4, r7, [r2]           \n"
        "mov   r2, r4                 \n"
        "mov   r3, r4                 \n"
        "mov   r5, r7                 \n"
        "mov   r6, r7                 \n"
        "rsb   r8, r8, #0             \n" /* quads to skip in the first round, of 80 bytes each */
        "and   r8, r8, #15            \n"
        "add   r8, r8, r8, lsl #2     \n"
        "lsl   r8, r8, #4             \n"
        "add   pc, r8                 \n"
        "nop                          \n" /* pc is two instructions ahead: with nothing to skip, at the next label */
        "1:                           \n"
        ES_QUAD ES_QUAD ES_QUAD ES_QUAD ES_QUAD ES_QUAD ES_QUAD ES_QUAD
        ES_QUAD ES_QUAD ES_QUAD ES_QUAD ES_QUAD ES_QUAD ES_QUAD ES_QUAD
        "ldr   r12, [sp, #4]          \n"
        "cmp   r0, r12                \n"
        "bne   1b                     \n"
        "pop   {r8, r12}              \n"
        "stm   r8, {r2-r7}            \n"
        "pop   {r4-r11, pc}           \n");
}

#elif ES_SMALL

/* Two values of a row, one word, with the weights of both outputs for each: r2 and r3, r4 and r5. */
#define ES_PAIR_ROW(at, acc0, acc1) \
    "ldr   r6, [r1, #" #at "]     \n" \
    "sxth  r7, r6                 \n" \
    "muls  r7, r2, r7             \n" \
    "add   " acc0 ", r7           \n" \
    "sxth  r7, r6                 \n" \
    "muls  r7, r3, r7             \n" \
    "add   " acc1 ", r7           \n" \
    "asrs  r7, r6, #16            \n" \
    "asrs  r6, r6, #16            \n" \
    "muls  r7, r4, r7             \n" \
    "add   " acc0 ", r7           \n" \
    "muls  r6, r5, r6             \n" \
    "add   " acc1 ", r6           \n"

#define ES_QUAD(w0, w1, k0, k1, k2, k3, k4, k5) \
    "ldr   r4, [r0, #" #w0 "]     \n" \
    "ldr   r5, [r0, #" #w1 "]     \n" \
    "sxtb  r2, r4                 \n" \
    "sxtb  r3, r5                 \n" \
    "asrs  r4, r4, #16            \n" \
    "asrs  r5, r5, #16            \n" \
    "sxtb  r4, r4                 \n" \
    "sxtb  r5, r5                 \n" \
    ES_PAIR_ROW(k0, "r8", "r11")      \
    ES_PAIR_ROW(k2, "r9", "r12")      \
    ES_PAIR_ROW(k4, "r10", "lr")      \
    "ldr   r4, [r0, #" #w0 "]     \n" \
    "ldr   r5, [r0, #" #w1 "]     \n" \
    "lsls  r2, r4, #16            \n" \
    "lsls  r3, r5, #16            \n" \
    "asrs  r2, r2, #24            \n" \
    "asrs  r3, r3, #24            \n" \
    "asrs  r4, r4, #24            \n" \
    "asrs  r5, r5, #24            \n" \
    ES_PAIR_ROW(k1, "r8", "r11")      \
    ES_PAIR_ROW(k3, "r9", "r12")      \
    ES_PAIR_ROW(k5, "r10", "lr")

/* Sums lie where products cannot be made. Per four k: 96 instructions for 24 MAC, 24 of them products and 24 sums. */
ES_ASSEMBLY static void es_dot(
    const int8_t *w ES_UNUSED, const int16_t *x ES_UNUSED, const int32_t *bias ES_UNUSED, int32_t *acc ES_UNUSED,
    int quads ES_UNUSED)
{
    __asm__ volatile(
        ".syntax unified              \n"
        "push  {r4-r7, lr}            \n"
        "mov   r4, r8                 \n"
        "mov   r5, r9                 \n"
        "mov   r6, r10                \n"
        "mov   r7, r11                \n"
        "push  {r3-r7}                \n"
        "ldr   r4, [r2, #0]           \n"
        "mov   r8, r4                 \n"
        "mov   r9, r4                 \n"
        "mov   r10, r4                \n"
        "ldr   r4, [r2, #4]           \n"
        "mov   r11, r4                \n"
        "mov   r12, r4                \n"
        "mov   lr, r4                 \n"
        "ldr   r4, [sp, #40]          \n"
        "lsls  r5, r4, #3             \n"
        "adds  r5, r0, r5             \n"
        "push  {r5}                   \n" /* [sp] = end of the weights, [sp + 4] = acc */
        "lsrs  r4, r4, #1             \n" /* an odd number begins with the second of a round's two */
        "bcc   1f                     \n"
        "subs  r0, #8                 \n"
        "subs  r1, #24                \n"
        "b     2f                     \n"
        "1:                           \n"
        ES_QUAD(0, 4, 0, 4, 8, 12, 16, 20)
        "2:                           \n"
        ES_QUAD(8, 12, 24, 28, 32, 36, 40, 44)
        "adds  r0, #16                \n"
        "adds  r1, #48                \n"
        "ldr   r2, [sp, #0]           \n"
        "cmp   r0, r2                 \n"
        "beq   3f                     \n"
        "b     1b                     \n"
        "3:                           \n"
        "pop   {r2, r3}               \n"
        "mov   r4, r8                 \n"
        "mov   r5, r9                 \n"
        "mov   r6, r10                \n"
        "stm   r3!, {r4-r6}           \n"
        "mov   r4, r11                \n"
        "mov   r5, r12                \n"
        "mov   r6, lr                 \n"
        "stm   r3!, {r4-r6}           \n"
        "pop   {r4-r7}                \n"
        "mov   r8, r4                 \n"
        "mov   r9, r5                 \n"
        "mov   r10, r6                \n"
        "mov   r11, r7                \n"
        "pop   {r4-r7, pc}            \n");
}

#else

#if !ES_MULTIPLIES

/* One weight, a power of two, times three rows: the exclusive or makes -v - 1 of v, and `minus` counts what lacks. */
ES_INLINE void es_shift_step(int32_t weight, const int16_t *x, uint32_t *sum, uint32_t *minus)
{
    if (weight & ES_NOTHING)
        return;
    uint32_t sign = (uint32_t)(weight >> 31);
    *minus -= sign;
    for (int r = 0; r < 3; r++)
        sum[r] += ((uint32_t)(int32_t)x[4 * r] << (weight & 31)) ^ sign;
    __asm__ volatile("" : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(*minus) : : "memory");
}

/* As es_dot, for weights decoded to shifts; one output at a time, as few registers as there are. */
static __attribute__((noinline, unused)) void es_dot_shift(
    const int8_t *w, const int16_t *x, const int32_t *bias, int32_t *acc, int quads)
{
    for (int n = 0; n < 2; n++) {
        uint32_t sum[3] = {(uint32_t)bias[n], (uint32_t)bias[n], (uint32_t)bias[n]}, minus = 0;
        const int16_t *at = x;
        for (const int8_t *quad = w + 4 * n; quad < w + 8 * quads; quad += 8, at += 12) {
            es_shift_step(quad[0], at, sum, &minus);
            es_shift_step(quad[1], at + 2, sum, &minus);
            es_shift_step(quad[2], at + 1, sum, &minus);
            es_shift_step(quad[3], at + 3, sum, &minus);
        }
        for (int r = 0; r < 3; r++)
            acc[3 * n + r] = (int32_t)(sum[r] + minus);
    }
}

#endif

ES_ONCE void es_dot(const int8_t *w, const int16_t *x, const int32_t *bias, int32_t *acc, int quads)
{
    uint32_t sum[6];
    for (int i = 0; i < 6; i++)
        sum[i] = (uint32_t)bias[i / 3];
    if (quads & 1) {
        es_dot_quad(w, x, sum);
        w += 8;
        x += 12;
    }
    for (quads >>= 1; quads; quads--) {
        es_dot_quad(w, x, sum);
        es_dot_quad(w + 8, x + 12, sum);
        w += 16;
        x += 24;
        ES_APART(w, x);
    }
    for (int i = 0; i < 6; i++)
        acc[i] = (int32_t)sum[i];
}

#endif

/* The core for a matrix of this code and `rows` rows of a tile of `bits`; sums of rows beyond mean nothing. */
ES_INLINE void es_dot_of(
    int code, const int8_t *pair, const int16_t *x, int bits, int rows, const int32_t *bias, int32_t *acc, int quads)
{
#if ES_HELIUM
    if (rows == 1 && ES_NARROW(bits, quads)) {
        es_row_bytes(pair, (const int8_t *)x, bias, acc, quads);
        return;
    }
#endif
    if (ES_NARROW(bits, quads)) {
        es_dot_bytes(pair, (const int8_t *)x, bias, acc, quads);
        return;
    }
#if !ES_MULTIPLIES
    if (code == ES_SHIFT || code == ES_TERNARY) {
        es_dot_shift(pair, x, bias, acc, quads);
        return;
    }
#endif
    (void)code;
    if (rows == 1) {
        es_dot_row(pair, x, bias, acc, quads);
        return;
    }
    es_dot(pair, x, bias, acc, quads);
}

#endif
