/* CMSIS-NN behind flat functions, so that a harness can call it with addresses alone. Everything here lies in the
 * harness's section and is not counted but memcpy and memset, which every C library has and its kernels call. */
#include "arm_nnfunctions.h"

#undef memcpy
#undef memset

#define ES_ADAPTER __attribute__((section(".es_harness"), noinline, used))

/* A library's copy: words where there are any, four at a time. The empty assembly keeps the compiler from seeing a
 * call to the function itself. */
void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    typedef struct { uint32_t words[4]; } __attribute__((packed)) block;
    uint8_t *out = to;
    const uint8_t *in = from;
    for (; count >= 16; count -= 16, out += 16, in += 16) {
        *(block *)out = *(const block *)in;
        __asm__ volatile("" ::: "memory");
    }
    for (; count; count--) {
        *out++ = *in++;
        __asm__ volatile("" ::: "memory");
    }
    return to;
}

void *memset(void *to, int value, size_t count)
{
    typedef struct { uint32_t words[4]; } __attribute__((packed)) block;
    const uint32_t word = (uint8_t)value * 0x01010101u;
    uint8_t *out = to;
    for (; count >= 16; count -= 16, out += 16) {
        *(block *)out = (block){{word, word, word, word}};
        __asm__ volatile("" ::: "memory");
    }
    for (; count; count--) {
        *out++ = (uint8_t)value;
        __asm__ volatile("" ::: "memory");
    }
    return to;
}

/* The same under the names that the ARM run-time ABI gives them. */
void __aeabi_memcpy(void *restrict to, const void *restrict from, size_t count)
{
    memcpy(to, from, count);
}

void __aeabi_memset(void *to, size_t count, int value)
{
    memset(to, value, count);
}

void __aeabi_memclr(void *to, size_t count)
{
    memset(to, 0, count);
}

/* sizes: height, width, channels, kernel_h, kernel_w, out_h, out_w, outputs, stride, padding, zero of x. */
ES_ADAPTER int peer_conv(
    const int32_t *sizes, const int8_t *x, const int8_t *w, const int32_t *bias, int32_t *mult, int32_t *shift,
    int8_t *scratch, int8_t *out)
{
    cmsis_nn_dims in = {1, sizes[0], sizes[1], sizes[2]}, filter = {sizes[7], sizes[3], sizes[4], sizes[2]};
    cmsis_nn_dims made = {1, sizes[5], sizes[6], sizes[7]}, biases = {1, 1, 1, sizes[7]};
    cmsis_nn_conv_params how = {
        -sizes[10], 0, {sizes[8], sizes[8]}, {sizes[9], sizes[9]}, {1, 1}, {-128, 127}};
    cmsis_nn_per_channel_quant_params scale = {mult, shift};
    cmsis_nn_context context = {scratch, arm_convolve_wrapper_s8_get_buffer_size(&how, &in, &filter, &made)};
    return arm_convolve_wrapper_s8(&context, &how, &scale, &in, x, &filter, w, &biases, bias, &made, out);
}

ES_ADAPTER int peer_depthwise(
    const int32_t *sizes, const int8_t *x, const int8_t *w, const int32_t *bias, int32_t *mult, int32_t *shift,
    int8_t *scratch, int8_t *out)
{
    cmsis_nn_dims in = {1, sizes[0], sizes[1], sizes[2]}, filter = {1, sizes[3], sizes[4], sizes[2]};
    cmsis_nn_dims made = {1, sizes[5], sizes[6], sizes[2]}, biases = {1, 1, 1, sizes[2]};
    cmsis_nn_dw_conv_params how = {
        -sizes[10], 0, 1, {sizes[8], sizes[8]}, {sizes[9], sizes[9]}, {1, 1}, {-128, 127}};
    cmsis_nn_per_channel_quant_params scale = {mult, shift};
    cmsis_nn_context context = {scratch, arm_depthwise_conv_wrapper_s8_get_buffer_size(&how, &in, &filter, &made)};
    return arm_depthwise_conv_wrapper_s8(&context, &how, &scale, &in, x, &filter, w, &biases, bias, &made, out);
}

/* A fully connected layer over rows, as TFLite Micro runs linear layers. sizes: rows, depth, outputs, zero of x. */
ES_ADAPTER int peer_linear(
    const int32_t *sizes, const int8_t *x, const int8_t *w, const int32_t *bias, int32_t *mult, int32_t *shift,
    int8_t *scratch, int8_t *out)
{
    cmsis_nn_dims in = {sizes[0], 1, 1, sizes[1]}, filter = {sizes[1], 1, 1, sizes[2]};
    cmsis_nn_dims made = {sizes[0], 1, 1, sizes[2]}, biases = {1, 1, 1, sizes[2]};
    cmsis_nn_fc_params how = {-sizes[3], 0, 0, {-128, 127}};
    cmsis_nn_per_channel_quant_params scale = {mult, shift};
    cmsis_nn_context context = {scratch, 0};
    return arm_fully_connected_per_channel_s8(
        &context, &how, &scale, &in, x, &filter, w, &biases, bias, &made, out);
}

/* Both sides in RAM, the right one transposed already. sizes: rows, depth, columns, multiplier, shift. */
ES_ADAPTER int peer_scores(const int32_t *sizes, const int8_t *x, const int8_t *y, int8_t *scratch, int8_t *out)
{
    cmsis_nn_dims left = {1, 1, sizes[0], sizes[1]}, right = {1, 1, sizes[2], sizes[1]};
    cmsis_nn_dims made = {1, 1, sizes[0], sizes[2]};
    cmsis_nn_bmm_params how = {false, false, {0, 0, 0, {-128, 127}}};
    cmsis_nn_per_tensor_quant_params scale = {sizes[3], sizes[4]};
    cmsis_nn_context context = {scratch, 0};
    return arm_batch_matmul_s8(&context, &how, &scale, &left, x, &right, y, &made, out);
}

/* One row; a multiplier of 2^30 and shift 22 make exp(x / 16) of the differences x, none of which is skipped. */
ES_ADAPTER void peer_softmax(const int8_t *x, int32_t count, int8_t *out)
{
    arm_softmax_s8(x, 1, count, 1 << 30, 23, -256, out);
}

/* (x + y) / 2. */
ES_ADAPTER int peer_add(const int8_t *x, const int8_t *y, int32_t count, int8_t *out)
{
    return arm_elementwise_add_s8(
        x, y, 0, 1 << 30, 0, 0, 1 << 30, 0, 20, out, 0, 1 << 30, -19, -128, 127, count);
}

/* What compilers for Arm call instead where they know the alignment. */
void __aeabi_memcpy4(void *to, const void *from, size_t count);
void __aeabi_memclr4(void *to, size_t count);

void __aeabi_memcpy4(void *to, const void *from, size_t count)
{
    for (size_t i = 0; i < count / 4; i++)
        ((volatile uint32_t *)to)[i] = ((const uint32_t *)from)[i];
    for (size_t i = count & ~(size_t)3; i < count; i++)
        ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
}

void __aeabi_memclr4(void *to, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ((volatile uint8_t *)to)[i] = 0;
}
