/* Calendar arithmetic of the real-time clock: proleptic Gregorian, no leap seconds. */
#ifndef SKEP_CHIPSET_RTC_TIME_H
#define SKEP_CHIPSET_RTC_TIME_H

#include <stdbool.h>
#include <stdint.h>

struct rtc_time {
	unsigned sec, min, hour;	/* hour 0-23 */
	unsigned day, month;		/* from 1 */
	unsigned year;			/* 0-9999 */
	unsigned weekday;		/* 0 is Sunday */
};

/* Seconds since the Epoch, both ways.  Fields out of range carry over (31 February is 3 March). */
int64_t rtc_to_seconds(const struct rtc_time *t);
void rtc_from_seconds(int64_t seconds, struct rtc_time *t);

/* Register encodings: B bit 2 binary, bit 1 24-hour.  Hours carry PM in bit 7. */
uint8_t rtc_encode(unsigned v, bool binary);
unsigned rtc_decode(uint8_t v, bool binary);
uint8_t rtc_encode_hour(unsigned hour, bool binary, bool h24);
unsigned rtc_decode_hour(uint8_t v, bool binary, bool h24);

#endif
