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
#if defined(__riscv)
    register uint32_t a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = block;
    /* The three together, none of them compressed, are the call; they lie in one page. */
    __asm__ volatile(".option push\n .option norvc\n .balign 16\n slli x0, x0, 0x1f\n ebreak\n srai x0, x0, 7\n"
                     ".option pop" : "+r"(a0) : "r"(a1) : "memory");
    return a0;
#else
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
#endif
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

/* The paint of byte i; two paints that are complements differ everywhere. By shifts: a product could be a function that
 * the library calls too. */
HARNESS static void paint(uint8_t *from, uint8_t *to)
{
    uint32_t state = 0x9E3779B9u;
    for (volatile uint8_t *at = from; at < to; at++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *at = (uint8_t)((state >> 24) ^ *es_paint);
    }
}

HARNESS __attribute__((aligned(4), used)) static void fault(void)
{
    stop(4);
}

HARNESS void es_reset(void)
{
    uint8_t *here;
#if defined(__riscv)
    __asm__ volatile("mv %0, sp" : "=r"(here));
#else
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: floating point and Helium */
    __asm__ volatile("dsb\n isb\n mov %0, sp" : "=r"(here));
#endif
    paint(es_arena_bytes, es_arena_bytes + es_arena_size);
    paint(es_stack_low, here - 128); /* below this function and the one that paints */
    int failed = es_call();
    for (uint32_t i = 0; i < es_dump_count; i++)
        hand_over(&es_dumps[i]);
    stop(failed ? 2 : 0);
}

#if defined(__riscv)

/* The machine starts at the harness's first byte. */
__asm__(".section .es_vectors, \"ax\"\n .option push\n .option arch, +zicsr\n"
        "la sp, es_stack_high\n la t0, fault\n csrw mtvec, t0\n j es_reset\n .option pop\n .text");

#else

__attribute__((section(".es_vectors"), used)) static void *const vectors[16] = {
    es_stack_high, (void *)es_reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};

#endif
