/* Firmware that runs a library on a board for a computer at the other end of a serial line: `board_link.py` is its
 * partner, and docs/board.md tells the protocol. It touches no clock: all stays as reset leaves it. State lies in
 * sections that nothing initialises, so that no start-up code is needed. */
#include "uart.h"

#define STATE __attribute__((section(".es_arena.firmware"), aligned(8)))

typedef struct {
    uint8_t *data;
    uint32_t size;
} es_buffer;

/* Written for each library: its inputs and then its outputs, one inference on them, and what the board needs set. */
extern const es_buffer es_buffers[];
extern const uint32_t es_input_count, es_buffer_count;
extern const uint32_t es_setup[][3]; /* address, bits to clear, bits to set */
extern const uint32_t es_setup_count;
extern const char es_identity[]; /* the build and the board's name */
int es_call(void);

extern uint8_t es_stack_low[], es_stack_high[];

enum { LINE = 256, CHUNK = 64 };

#define ICIALLU 0xE000EF50u
#define DCISW 0xE000EF60u
#define CCSIDR 0xE000ED80u
#define CSSELR 0xE000ED84u
#define CCR 0xE000ED14u
#define CPUID 0xE000ED00u
#define VTOR 0xE000ED08u
#define AIRCR 0xE000ED0Cu
#define CFSR 0xE000ED28u
#define CPACR 0xE000ED88u
#define SYST_CSR 0xE000E010u
#define SYST_RVR 0xE000E014u
#define SYST_CVR 0xE000E018u
#define DEMCR 0xE000EDFCu
#define DWT_CTRL 0xE0001000u
#define DWT_CYCCNT 0xE0001004u
#define DWT_LAR 0xE0001FB0u

STATE static char line[LINE];
STATE static uint32_t sum; /* CRC of the line that is being sent */
STATE static volatile uint32_t wraps;
STATE static uint32_t rounds;

/* ---- the line ---- */

/* CRC-16 with polynomial 0x1021, beginning with 0xFFFF. */
ES_FIRMWARE static uint32_t crc(uint32_t state, uint8_t byte)
{
    state ^= (uint32_t)byte << 8;
    for (int bit = 0; bit < 8; bit++)
        state = (state << 1) ^ (state & 0x8000u ? 0x1021u : 0);
    return state & 0xFFFFu;
}

ES_FIRMWARE static void put(char letter)
{
    sum = crc(sum, (uint8_t)letter);
    es_uart_put((uint8_t)letter);
}

ES_FIRMWARE static void text(const char *letters)
{
    while (*letters)
        put(*letters++);
}

ES_FIRMWARE static void hex(uint32_t value, int digits)
{
    while (digits-- > 0) {
        uint32_t digit = value >> (4 * digits) & 15;
        put((char)(digit < 10 ? '0' + digit : 'a' + digit - 10));
    }
}

ES_FIRMWARE static void begin(const char *word)
{
    sum = 0xFFFF;
    text(word);
}

ES_FIRMWARE static void field(const char *name, uint32_t value)
{
    text(name);
    hex(value, 8);
}

ES_FIRMWARE static void end(void)
{
    uint32_t whole = sum;
    put('#');
    hex(whole, 4);
    put('\n');
}

ES_FIRMWARE static int digit(char letter)
{
    if (letter >= '0' && letter <= '9')
        return letter - '0';
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

/* The number at *at, behind which *at is left with the blanks skipped. */
ES_FIRMWARE static uint32_t number(const char **at)
{
    uint32_t value = 0;
    for (; digit(**at) >= 0; ++*at)
        value = value << 4 | (uint32_t)digit(**at);
    while (**at == ' ')
        ++*at;
    return value;
}

/* What follows the word, if the line begins with it. */
ES_FIRMWARE static const char *after(const char *word)
{
    const char *at = line;
    while (*word)
        if (*at++ != *word++)
            return 0;
    if (*at && *at != ' ')
        return 0;
    return *at ? at + 1 : at;
}

/* Wait for a line whose checksum fits; a bare PING needs none, so that a person at a terminal gets an answer too. */
ES_FIRMWARE static void receive(void)
{
    for (;;) {
        int length = 0, letter = 0;
        while (letter != '\n' && letter != '\r') {
            letter = es_uart_get();
            if (letter >= 0 && letter != '\n' && letter != '\r' && length < LINE)
                line[length++] = (char)letter;
        }
        if (length == LINE || length < 4)
            continue;
        line[length] = 0;
        if (length == 4 && after("PING"))
            return;
        if (length < 6 || line[length - 5] != '#')
            continue;
        const char *tail = line + length - 4;
        uint32_t state = 0xFFFF;
        for (int i = 0; i < length - 5; i++)
            state = crc(state, (uint8_t)line[i]);
        if (number(&tail) != state || tail != line + length)
            continue;
        line[length - 5] = 0;
        return;
    }
}

/* ---- the measurement ---- */

/* FNV-1a over some of the buffers. */
ES_FIRMWARE static uint32_t hash(uint32_t from, uint32_t to)
{
    uint32_t state = 0x811C9DC5u;
    for (; from < to; from++)
        for (uint32_t i = 0; i < es_buffers[from].size; i++)
            state = (state ^ es_buffers[from].data[i]) * 0x01000193u;
    return state;
}

ES_FIRMWARE static void tick(void)
{
    wraps++;
}

ES_FIRMWARE static void start_clocks(void)
{
    ES_REGISTER(SYST_CSR) = 0;
    wraps = 0;
    ES_REGISTER(SYST_RVR) = 0xFFFFFF;
    ES_REGISTER(SYST_CVR) = 0;
    ES_REGISTER(SYST_CSR) = 7; /* the core's clock, an interrupt at each wrap, on */
    while (!ES_REGISTER(SYST_CVR)) { /* it holds 0 until its first tick */
    }
#if __ARM_ARCH >= 7
    ES_REGISTER(DEMCR) |= 1u << 24;
    ES_REGISTER(DWT_LAR) = 0xC5ACCE55u;
    ES_REGISTER(DWT_CYCCNT) = 0;
    ES_REGISTER(DWT_CTRL) |= 1;
#endif
}

/* One inference; paints of successive rounds are complements, so that no byte hides behind its own paint twice. */
ES_FIRMWARE static __attribute__((noinline)) void run_round(uint32_t tag, uint32_t index)
{
    uint8_t *here, paint = rounds++ & 1 ? 0x5A : 0xA5;
    uint32_t cycles = 0;
    __asm__ volatile("mov %0, sp" : "=r"(here));
    for (volatile uint8_t *at = es_stack_low; at < here - 64; at++)
        *at = paint;
    start_clocks();
    int failed = es_call();
#if __ARM_ARCH >= 7
    cycles = ES_REGISTER(DWT_CYCCNT);
#endif
    uint32_t left, wrapped;
    do { /* until no wrap lies between the two */
        wrapped = wraps;
        left = ES_REGISTER(SYST_CVR);
    } while (wrapped != wraps);
    ES_REGISTER(SYST_CSR) = 0;
    const uint8_t *low = es_stack_low;
    while (low < here - 64 && *low == paint)
        low++;
    if (failed) {
        begin("ERR the library returned an error");
        end();
        return;
    }
    begin("RES ");
    hex(tag, 8);
    field(" ", index);
    field(" cyccnt=", cycles);
    field(" systick=", wrapped);
    field(":", 0xFFFFFFu - left);
    field(" hash=", hash(es_input_count, es_buffer_count));
    field(" in=", hash(0, es_input_count));
    field(" stack=", (uint32_t)(here - low));
    end();
}

/* ---- commands ---- */

ES_FIRMWARE static void write_bytes(const char *at)
{
    uint32_t buffer = number(&at), offset = number(&at), count = 0;
    if (buffer >= es_input_count)
        return;
    while (digit(at[0]) >= 0 && digit(at[1]) >= 0) {
        if (offset + count < es_buffers[buffer].size)
            es_buffers[buffer].data[offset + count] = (uint8_t)(digit(at[0]) << 4 | digit(at[1]));
        at += 2;
        count++;
    }
    begin("OK");
    field(" ", buffer);
    field(" ", offset);
    field(" ", count);
    end();
}

ES_FIRMWARE static void read_bytes(const char *at)
{
    uint32_t buffer = number(&at), offset = number(&at), count = number(&at);
    if (buffer >= es_buffer_count || count > CHUNK || offset > es_buffers[buffer].size)
        return;
    begin("DATA");
    field(" ", buffer);
    field(" ", offset);
    put(' ');
    for (; count && offset < es_buffers[buffer].size; count--)
        hex(es_buffers[buffer].data[offset++], 2);
    end();
}

ES_FIRMWARE static void obey(void)
{
    const char *at;
    if (after("PING")) {
        begin("PONG ");
        hex(ES_REGISTER(CPUID), 8);
        put(' ');
        text(es_identity);
        end();
    } else if ((at = after("PUT"))) {
        write_bytes(at);
    } else if ((at = after("GET"))) {
        read_bytes(at);
    } else if ((at = after("SUM"))) {
        uint32_t buffer = number(&at);
        if (buffer >= es_buffer_count)
            return;
        begin("SUM");
        field(" ", buffer);
        field(" ", hash(buffer, buffer + 1));
        end();
    } else if ((at = after("RUN"))) {
        uint32_t count = number(&at), tag = number(&at);
        begin("ACK");
        field(" ", tag);
        end();
        for (uint32_t i = 0; i < count; i++)
            run_round(tag, i);
        begin("END");
        field(" ", tag);
        end();
    }
}

/* ---- start ---- */

ES_FIRMWARE static void fault(void)
{
    begin("FAULT");
#if __ARM_ARCH >= 7
    field(" ", ES_REGISTER(CFSR));
#endif
    end();
    ES_REGISTER(AIRCR) = 0x05FA0004u; /* reset: the computer is told by the greeting */
    for (;;) {
    }
}

/* Caches are off after a reset; a Cortex-M7 without them is another processor. */
ES_FIRMWARE static void open_caches(void)
{
#if __ARM_ARCH >= 7
    if ((ES_REGISTER(CPUID) >> 4 & 0xFFF) != 0xC27)
        return;
    ES_REGISTER(ICIALLU) = 0;
    ES_REGISTER(CSSELR) = 0;
    __asm__ volatile("dsb\n isb");
    uint32_t size = ES_REGISTER(CCSIDR), sets = size >> 13 & 0x7FFF, ways = size >> 3 & 0x3FF;
    for (uint32_t set = 0; set <= sets; set++)
        for (uint32_t way = 0; way <= ways; way++)
            ES_REGISTER(DCISW) = set << 5 | way << 30;
    __asm__ volatile("dsb\n isb");
    ES_REGISTER(CCR) |= 3u << 16;
    __asm__ volatile("dsb\n isb");
#endif
}

__attribute__((section(".es_vectors"), used)) static void *const vectors[16];

ES_FIRMWARE void es_reset(void)
{
    ES_REGISTER(VTOR) = (uint32_t)vectors;
#if __ARM_ARCH >= 7
    ES_REGISTER(CPACR) |= 0xFu << 20; /* floating point and Helium */
#endif
    __asm__ volatile("dsb\n isb");
    open_caches();
    for (uint32_t i = 0; i < es_setup_count; i++)
        ES_REGISTER(es_setup[i][0]) = (ES_REGISTER(es_setup[i][0]) & ~es_setup[i][1]) | es_setup[i][2];
    for (uint32_t i = 0; i < es_buffer_count; i++)
        for (uint32_t j = 0; j < es_buffers[i].size; j++)
            ((volatile uint8_t *)es_buffers[i].data)[j] = 0;
    rounds = 0;
    es_uart_open();
    es_uart_put('\n');
    begin("BOOT ");
    text(es_identity);
    end();
    for (;;) {
        receive();
        obey();
    }
}

static void *const vectors[16] = {
    es_stack_high, (void *)es_reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
    0, 0, 0, 0, (void *)fault, 0, 0, (void *)fault, (void *)tick,
};
