/* What a serial driver offers the firmware: one byte at a time, polled. ES_UART_BASE, ES_UART_CLOCK (hertz that feed
 * it) and ES_UART_BAUD come from the target's file. */
#ifndef ES_UART_H
#define ES_UART_H

#include <stdint.h>

#define ES_FIRMWARE __attribute__((section(".es_harness")))
#define ES_REGISTER(address) (*(volatile uint32_t *)(address))
#define ES_UART(offset) ES_REGISTER(ES_UART_BASE + (offset))

void es_uart_open(void);

/* The next byte received, or -1. */
int es_uart_get(void);

/* Wait until there is room, and send. */
void es_uart_put(uint8_t byte);

#endif
