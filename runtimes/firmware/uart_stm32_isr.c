/* The USART of STM32 F0, F3, F7, G0, G4, H5, H7, L4, L5, U5 and WB: data registers by direction, flags to be cleared.
 * Written from the reference manuals; no board or emulator here has it, so it never ran. */
#include "uart.h"

enum { CR1 = 0x00, BRR = 0x0C, ISR = 0x1C, ICR = 0x20, RDR = 0x24, TDR = 0x28 };
enum { ORE = 1 << 3, RXNE = 1 << 5, TXE = 1 << 7, UE = 1 << 0, RE = 1 << 2, TE = 1 << 3 };

ES_FIRMWARE void es_uart_open(void)
{
    ES_UART(CR1) = 0; /* the divisor is locked while it is enabled */
    ES_UART(BRR) = (ES_UART_CLOCK + ES_UART_BAUD / 2) / ES_UART_BAUD;
    ES_UART(CR1) = UE | TE | RE;
}

ES_FIRMWARE int es_uart_get(void)
{
    uint32_t state = ES_UART(ISR);
    if (state & ORE)
        ES_UART(ICR) = ORE;
    return state & RXNE ? (int)(ES_UART(RDR) & 0xFF) : -1;
}

ES_FIRMWARE void es_uart_put(uint8_t byte)
{
    while (!(ES_UART(ISR) & TXE)) {
    }
    ES_UART(TDR) = byte;
}
