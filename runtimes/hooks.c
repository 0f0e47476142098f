/* Counting callbacks for the emulator: exact executions per basic block, by caller too where functions are shared, and,
 * in strict mode, every memory access. */
#include <stdint.h>

enum { WINDOWS = 2, OTHERS = 1024, REGIONS = 16, SUSPECTS = 256, RANGES = 64, CALLED = 8192 };

typedef struct {
    uint64_t base, span;         /* guest addresses covered: [base, base + span) */
    uint64_t *count;             /* executions of the block that starts at base + 2 * index */
    uint32_t *size;              /* its length in bytes, 0 before the first execution */
} Window;

typedef struct {
    uint64_t address, count;
    uint32_t size, unused;
} Block;

typedef struct {
    Window window[WINDOWS];
    Block other[OTHERS];         /* blocks outside all windows, or cut to another length than at first sight */
    uint64_t others, lost;
} Blocks;

typedef struct {
    uint64_t base, span, read, written;
} Traffic;

typedef struct {
    Traffic region[REGIONS];
    uint64_t regions;
    int (*register_read)(void *engine, int id, void *value);
    uint64_t program_counter;    /* the engine's number of that register */
    uint64_t suspects;
    uint64_t at[SUSPECTS], address[SUSPECTS];
} Accesses;

typedef struct {
    uint64_t site, address, count; /* the block that called, and one that ran for it */
    uint32_t size, unused;
} Called;

typedef struct {
    uint64_t low[RANGES], high[RANGES], ranges; /* the shared functions */
    uint64_t site;                 /* the last block outside them */
    uint64_t used, lost;
    Called called[CALLED];         /* open addressing by site, address and size */
} Callers;

static void count_other(Blocks *blocks, uint64_t address, uint32_t size) {
    for (uint64_t i = 0; i < blocks->others; i++) {
        Block *block = &blocks->other[i];
        if (block->address == address && block->size == size) { block->count++; return; }
    }
    if (blocks->others == OTHERS) { blocks->lost++; return; }
    blocks->other[blocks->others++] = (Block){address, 1, size, 0};
}

void on_block(void *engine, uint64_t address, uint32_t size, Blocks *blocks) {
    (void)engine;
    for (int i = 0; i < WINDOWS; i++) {
        Window *window = &blocks->window[i];
        uint64_t offset = address - window->base;
        if (offset >= window->span) continue;
        uint64_t index = offset >> 1;
        if (window->size[index] == size) { window->count[index]++; return; }
        if (window->size[index] == 0) { window->size[index] = size; window->count[index] = 1; return; }
        break;
    }
    count_other(blocks, address, size);
}

/* Blocks of shared functions, apart for each block outside from which they were entered; what they call is theirs. */
void on_shared_block(void *engine, uint64_t address, uint32_t size, Callers *callers) {
    (void)engine;
    int shared = 0;
    for (uint64_t i = 0; i < callers->ranges && !shared; i++)
        shared = address >= callers->low[i] && address < callers->high[i];
    if (!shared) { callers->site = address; return; }
    uint64_t at = (callers->site * 31 + address * 17 + size) >> 1;
    for (int tried = 0; tried < CALLED; tried++, at++) {
        Called *called = &callers->called[at % CALLED];
        if (called->count == 0) {
            *called = (Called){callers->site, address, 1, size, 0};
            callers->used++;
            return;
        }
        if (called->site == callers->site && called->address == address && called->size == size) {
            called->count++;
            return;
        }
    }
    callers->lost++;
}

/* Words that straddle an alignment boundary are noted with the instruction's address: the core allows that to plain
 * loads and stores, but not to LDRD, LDM and their kin, and the engine itself never faults on it. */
void on_access(void *engine, int kind, uint64_t address, int size, int64_t value, Accesses *accesses) {
    enum { WRITE = 17 };
    (void)value;
    for (uint64_t i = 0; i < accesses->regions; i++) {
        Traffic *region = &accesses->region[i];
        if (address - region->base >= region->span) continue;
        *(kind == WRITE ? &region->written : &region->read) += (uint64_t)size;
        break;
    }
    if (size != 4 || (address & 3) == 0 || accesses->suspects == SUSPECTS) return;
    uint32_t at = 0;
    accesses->register_read(engine, (int)accesses->program_counter, &at);
    for (uint64_t i = 0; i < accesses->suspects; i++)
        if (accesses->at[i] == at) return;
    accesses->at[accesses->suspects] = at;
    accesses->address[accesses->suspects++] = address;
}
