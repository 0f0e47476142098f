/* The UART of Arm's Cortex-M System Design Kit, as on MPS2 boards and in QEMU. */
#include "uart.h"

enum { DATA = 0x00, STATE = 0x04, CTRL = 0x08, BAUDDIV = 0x10 };
enum { TX_FULL = 1, RX_FULL = 2, TX_OVERRUN = 4, RX_OVERRUN = 8, TX_ENABLE = 1, RX_ENABLE = 2 };

ES_FIRMWARE void es_uart_open(void)
{
    ES_UART(BAUDDIV) = ES_UART_CLOCK / ES_UART_BAUD;
    ES_UART(CTRL) = TX_ENABLE | RX_ENABLE;
}

ES_FIRMWARE int es_uart_get(void)
{
    if (ES_UART(STATE) & RX_OVERRUN)
        ES_UART(STATE) = RX_OVERRUN;
    return ES_UART(STATE) & RX_FULL ? (int)(ES_UART(DATA) & 0xFF) : -1;
}

ES_FIRMWARE void es_uart_put(uint8_t byte)
{
    while (ES_UART(STATE) & TX_FULL) {
    }
    ES_UART(DATA) = byte;
}
