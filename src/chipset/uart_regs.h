/* Registers of the PC16550D, by the names in its data sheet (table II). */
#ifndef SKEP_CHIPSET_UART_REGS_H
#define SKEP_CHIPSET_UART_REGS_H

enum { UART_RBR = 0, UART_THR = 0, UART_DLL = 0, UART_IER = 1, UART_DLM = 1, UART_IIR = 2,
       UART_FCR = 2, UART_LCR = 3, UART_MCR = 4, UART_LSR = 5, UART_MSR = 6, UART_SCR = 7 };

#define IER_RX		0x01	/* received data available, and character timeout */
#define IER_THRE	0x02
#define IER_LINE	0x04	/* receiver line status */
#define IER_MODEM	0x08
#define IER_MASK	0x0f

#define IIR_MODEM	0x00
#define IIR_NONE	0x01
#define IIR_THRE	0x02
#define IIR_RX		0x04
#define IIR_LINE	0x06
#define IIR_TIMEOUT	0x0c
#define IIR_FIFOS	0xc0	/* FIFOs are enabled */

#define FCR_ENABLE	0x01
#define FCR_RX_RESET	0x02
#define FCR_TX_RESET	0x04
#define FCR_DMA		0x08
#define FCR_TRIGGER	0xc0
#define FCR_KEPT	(FCR_ENABLE | FCR_DMA | FCR_TRIGGER)

#define LCR_WLS		0x03
#define LCR_STB		0x04
#define LCR_PEN		0x08
#define LCR_BREAK	0x40
#define LCR_DLAB	0x80

#define MCR_DTR		0x01
#define MCR_RTS		0x02
#define MCR_OUT1	0x04
#define MCR_OUT2	0x08	/* on a PC: enables the interrupt line */
#define MCR_LOOP	0x10
#define MCR_MASK	0x1f

#define LSR_DR		0x01
#define LSR_OE		0x02
#define LSR_PE		0x04
#define LSR_FE		0x08
#define LSR_BI		0x10
#define LSR_THRE	0x20
#define LSR_TEMT	0x40
#define LSR_FIFO_ERROR	0x80
#define LSR_CHAR_ERRORS	(LSR_PE | LSR_FE | LSR_BI)

#define MSR_DCTS	0x01
#define MSR_DDSR	0x02
#define MSR_TERI	0x04
#define MSR_DDCD	0x08
#define MSR_DELTAS	0x0f
#define MSR_CTS		0x10
#define MSR_DSR		0x20
#define MSR_RI		0x40
#define MSR_DCD		0x80

#define UART_FIFO	16
#define UART_CLOCK_HZ	1843200		/* divided by 16 and the divisor: baud */
#define UART_DEFAULT_DIVISOR 12		/* 9600; the data sheet leaves it undefined */

#endif
