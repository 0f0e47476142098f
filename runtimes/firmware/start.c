/* The smallest firmware that runs a library on an emulated board: fills arena and stack with paint, calls the library
 * once, hands outputs, arena and stack to the computer through semihosting, and stops. Everything here lies in
 * `.es_harness`, which no count includes. */
#include <stdint.h>

#define HARNESS __attribute__((section(".es_harness")))

typedef struct {
    const char *file;
    const void *data;
    uint32_t size;
} es_dump;

/* Written for each library: calls it with its buffers, and lists what to hand over. */
int es_call(void);
extern es_dump es_dumps[];
extern uint32_t es_dump_count;
extern uint8_t *es_arena_bytes;
extern uint32_t es_arena_size;

/* Points to what is put into memory before the start. */
extern volatile uint32_t *es_paint;

extern uint8_t es_stack_low[], es_stack_high[];

HARNESS static uint32_t semihost(uint32_t operation, const void *block)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

HARNESS static void stop(uint32_t code)
{
    const uint32_t block[2] = {0x20026, code}; /* ADP_Stopped_ApplicationExit */
    for (;;)
        semihost(0x20, block);
}

HARNESS static void hand_over(const es_dump *dump)
{
    uint32_t length = 0;
    while (dump->file[length])
        length++;
    const uint32_t open[3] = {(uint32_t)dump->file, 5, length}; /* "wb" */
    uint32_t handle = semihost(1, open);
    const uint32_t write[3] = {handle, (uint32_t)dump->data, dump->size};
    if (handle == 0xFFFFFFFF || semihost(5, write))
        stop(3);
    semihost(2, &handle);
}

/* The paint of byte i; two paints that are complements differ everywhere. */
HARNESS static void paint(uint8_t *from, uint8_t *to)
{
    uint32_t state = 0x9E3779B9u;
    for (volatile uint8_t *at = from; at < to; at++) {
        state = state * 1664525u + 1013904223u;
        *at = (uint8_t)((state >> 24) ^ *es_paint);
    }
}

HARNESS static void fault(void)
{
    stop(4);
}

HARNESS void es_reset(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: floating point and Helium */
    __asm__ volatile("dsb\n isb");
    uint8_t *here;
    __asm__ volatile("mov %0, sp" : "=r"(here));
    paint(es_arena_bytes, es_arena_bytes + es_arena_size);
    paint(es_stack_low, here - 128); /* below this function and the one that paints */
    int failed = es_call();
    for (uint32_t i = 0; i < es_dump_count; i++)
        hand_over(&es_dumps[i]);
    stop(failed ? 2 : 0);
}

__attribute__((section(".es_vectors"), used)) static void *const vectors[16] = {
    es_stack_high, (void *)es_reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
