/* The USART of STM32 F1, F2, F4 and L1: one status and one data register. */
#include "uart.h"

enum { SR = 0x00, DR = 0x04, BRR = 0x08, CR1 = 0x0C };
enum { RXNE = 1 << 5, TXE = 1 << 7, RE = 1 << 2, TE = 1 << 3, UE = 1 << 13 };

ES_FIRMWARE void es_uart_open(void)
{
    ES_UART(BRR) = (ES_UART_CLOCK + ES_UART_BAUD / 2) / ES_UART_BAUD;
    ES_UART(CR1) = UE | TE | RE;
}

/* Reading the data after the status clears an overrun as well. */
ES_FIRMWARE int es_uart_get(void)
{
    return ES_UART(SR) & RXNE ? (int)(ES_UART(DR) & 0xFF) : -1;
}

ES_FIRMWARE void es_uart_put(uint8_t byte)
{
    while (!(ES_UART(SR) & TXE)) {
    }
    ES_UART(DR) = byte;
}
