/* The UART of nRF51 and nRF52 (the one without DMA); its pins are registers of its own, written by the target's setup.
 * Written from the product specification; no board or emulator here has it, so it never ran. */
#include "uart.h"

enum { STARTRX = 0x000, STARTTX = 0x008, RXDRDY = 0x108, TXDRDY = 0x11C, ENABLE = 0x500, RXD = 0x518, TXD = 0x51C };
enum { BAUDRATE = 0x524 };

ES_FIRMWARE void es_uart_open(void)
{
    /* baud * 2^32 / 16 MHz, rounded to the upper 20 bits as the table of the specification has it */
    ES_UART(BAUDRATE) = (uint32_t)((((uint64_t)ES_UART_BAUD << 32) / 16000000u + 0x800u) & 0xFFFFF000u);
    ES_UART(ENABLE) = 4;
    ES_UART(STARTRX) = 1;
    ES_UART(STARTTX) = 1;
}

ES_FIRMWARE int es_uart_get(void)
{
    if (!ES_UART(RXDRDY))
        return -1;
    ES_UART(RXDRDY) = 0;
    return (int)(ES_UART(RXD) & 0xFF);
}

ES_FIRMWARE void es_uart_put(uint8_t byte)
{
    ES_UART(TXDRDY) = 0;
    ES_UART(TXD) = byte;
    while (!ES_UART(TXDRDY)) {
    }
}
