// What the TVM back end's code for processors without a system asks of a C library, for tests that have none.
#include <stddef.h>
#include <stdint.h>

__attribute__((no_builtin)) void *memset(void *to, int value, size_t size) {
    for (unsigned char *at = to; size; --size) *at++ = (unsigned char)value;
    return to;
}

__attribute__((no_builtin)) void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    const unsigned char *source = from;
    for (unsigned char *at = to; size; --size) *at++ = *source++;
    return to;
}

// Of numbers that an int32_t holds.
__attribute__((no_builtin)) float floorf(float x) {
    float whole = (float)(int32_t)x;
    return whole > x ? whole - 1 : whole;
}
