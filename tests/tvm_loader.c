// Runs the kernels of a library that the TVM back end wrote, in the order of a plan, without TVM's runtime.
//
// loader LIBRARY PLAN. Lines of the plan: "b ELEMENTS CODE BITS FILE" makes the next buffer, from a file unless that is
// "-"; "c SYMBOL COUNT BUFFERS..." calls a kernel; "o BUFFER FILE" writes a buffer. CODE is DLPack's: 0 int, 1 uint, 2
// float. The types are those of DLPack and of TVM's C interface, as far as kernels see them.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct { int32_t kind, id; } Device;
typedef struct { uint8_t code, bits; uint16_t lanes; } Numbers;
typedef struct {
    void *data;
    Device device;
    int32_t rank;
    Numbers numbers;
    int64_t *shape, *strides;
    uint64_t offset;
} Tensor;
typedef struct { int32_t kind, padding; Tensor *tensor; } Any;
typedef int Kernel(void *self, const Any *arguments, int32_t count, Any *result);

enum { TENSOR = 7, CPU = 1, MOST = 512 };
static Tensor tensors[MOST];
static int64_t shapes[MOST];

// What kernels call: an error ends the program, scratch memory is the C library's.
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
    fprintf(stderr, "%s: ", kind);
    for (int32_t i = 0; i < count; ++i) fputs(parts[i], stderr);
    fputc('\n', stderr);
    exit(3);
}
static void *take(int device, int id, uint64_t size, int code, int bits) {
    return aligned_alloc(64, (size + 63) / 64 * 64);
}
static int leave(int device, int id, void *memory) { return free(memory), 0; }

static void move(int at, const char *path, int out) {
    size_t size = (size_t)shapes[at] * tensors[at].numbers.bits / 8;
    FILE *file = fopen(path, out ? "wb" : "rb");
    size_t moved = !file ? 0 : out ? fwrite(tensors[at].data, 1, size, file) : fread(tensors[at].data, 1, size, file);
    if (moved != size) perror(path), exit(4);
    fclose(file);
}

int main(int count, char **arguments) {
    void *library = count == 3 ? dlopen(arguments[1], RTLD_NOW) : NULL;
    FILE *plan = count == 3 ? fopen(arguments[2], "r") : NULL;
    if (!library || !plan) return fprintf(stderr, "%s\n", library ? "no plan" : dlerror()), 2;
    void **hook = dlsym(library, "__TVMBackendAllocWorkspace"), **other = dlsym(library, "__TVMBackendFreeWorkspace");
    if (hook) *hook = (void *)take;
    if (other) *other = (void *)leave;
    char line, text[1024];
    int made = 0, code, bits, operands;
    while (fscanf(plan, " %c", &line) == 1) {
        if (line == 'b') {
            if (fscanf(plan, "%ld %d %d %1023s", (long *)&shapes[made], &code, &bits, text) != 4) return 5;
            tensors[made] = (Tensor){take(CPU, 0, (uint64_t)shapes[made] * bits / 8, 0, 0), {CPU, 0}, 1,
                                     {(uint8_t)code, (uint8_t)bits, 1}, &shapes[made], NULL, 0};
            if (text[0] != '-') move(made, text, 0);
            ++made;
        } else if (line == 'c') {
            Any given[32], result = {0};
            if (fscanf(plan, "%1023s %d", text, &operands) != 2 || operands > 32) return 5;
            for (int i = 0; i < operands; ++i) {
                int at;
                if (fscanf(plan, "%d", &at) != 1) return 5;
                given[i] = (Any){TENSOR, 0, &tensors[at]};
            }
            Kernel *kernel = (Kernel *)dlsym(library, text);
            if (!kernel || kernel(NULL, given, operands, &result)) return fprintf(stderr, "%s failed\n", text), 6;
        } else {
            if (fscanf(plan, "%d %1023s", &operands, text) != 2) return 5;
            move(operands, text, 1);
        }
    }
    return 0;
}
