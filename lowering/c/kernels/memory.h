/* memcpy and memset, which compilers call unasked, for programs without a C library (-ffreestanding): weak, so that
 * others win over them. Include in one file only. */
#ifndef ES_MEMORY_H
#define ES_MEMORY_H

#if !__STDC_HOSTED__

#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memset(void *to, int value, size_t count);

/* The empty assembly keeps the compiler from recognising the loop and calling the function from itself. */
#define ES_OPAQUE() __asm__ volatile("" ::: "memory")

__attribute__((weak)) void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    uint8_t *out = (uint8_t *)to;
    const uint8_t *in = (const uint8_t *)from;
    for (; count; count--) {
        *out++ = *in++;
        ES_OPAQUE();
    }
    return to;
}

__attribute__((weak)) void *memset(void *to, int value, size_t count)
{
    uint8_t *out = (uint8_t *)to;
    for (; count; count--) {
        *out++ = (uint8_t)value;
        ES_OPAQUE();
    }
    return to;
}

#endif

#endif
