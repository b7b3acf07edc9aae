#include "chipset/rtc_time.h"

#define DAY 86400

/*
 * Days since 1970-01-01.  The year is taken to start in March, so that the leap
 * day is its last one and months have the lengths that (153 m + 2) / 5 sums up.
 */
static int64_t to_days(int64_t year, unsigned month, unsigned day)
{
	int64_t era, yoe, doy;

	year -= month <= 2;
	era = (year >= 0 ? year : year - 399) / 400;
	yoe = year - era * 400;
	doy = (153 * (int64_t)(month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

int64_t rtc_to_seconds(const struct rtc_time *t)
{
	/* A month that does not exist (0, or more than 12) counts from January. */
	unsigned month = t->month ? (t->month - 1) % 12 + 1 : 1;
	int64_t days = to_days(t->year, month, 1) + (int64_t)t->day - 1;

	return days * DAY + t->hour * 3600ll + t->min * 60ll + t->sec;
}

void rtc_from_seconds(int64_t seconds, struct rtc_time *t)
{
	int64_t days = seconds / DAY, rest = seconds % DAY, era, doe, yoe, doy, m;

	if (rest < 0) {
		rest += DAY;
		days--;
	}
	t->hour = (unsigned)(rest / 3600);
	t->min = (unsigned)(rest / 60 % 60);
	t->sec = (unsigned)(rest % 60);
	t->weekday = (unsigned)(((days + 4) % 7 + 7) % 7);	/* the Epoch was a Thursday */

	days += 719468;
	era = (days >= 0 ? days : days - 146096) / 146097;
	doe = days - era * 146097;
	yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	m = (5 * doy + 2) / 153;
	t->day = (unsigned)(doy - (153 * m + 2) / 5 + 1);
	t->month = (unsigned)(m < 10 ? m + 3 : m - 9);
	t->year = (unsigned)(yoe + era * 400 + (t->month <= 2)) % 10000;
}

uint8_t rtc_encode(unsigned v, bool binary)
{
	v %= 100;
	return (uint8_t)(binary ? v : v / 10 << 4 | v % 10);
}

unsigned rtc_decode(uint8_t v, bool binary)
{
	return binary ? v : (v >> 4) * 10u + (v & 15);
}

uint8_t rtc_encode_hour(unsigned hour, bool binary, bool h24)
{
	unsigned h = hour % 12;

	if (h24)
		return rtc_encode(hour, binary);
	return rtc_encode(h ? h : 12, binary) | (hour >= 12 ? 0x80 : 0);
}

unsigned rtc_decode_hour(uint8_t v, bool binary, bool h24)
{
	if (h24)
		return rtc_decode(v, binary);
	return rtc_decode(v & 0x7f, binary) % 12 + (v & 0x80 ? 12 : 0);
}
