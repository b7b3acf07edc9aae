/*
 * ACPI fixed hardware (ACPI 6.4, 4.8.3 and 4.8.4), where the ICH9 has it (ICH9
 * data sheet, 13.8.3).  There is no SMI command port: ACPI mode is always on.
 */
#include "chipset/acpi_pm.h"

#include <errno.h>

#include "chipset/chipset.h"
#include "vm/vm.h"

#define PM1_STS		0x00
#define PM1_EN		0x02
#define GPE_BYTES	(GPE0_LEN / 2)
#define GPE0_STS	GPE0_OFFSET
#define GPE0_EN		(GPE0_OFFSET + GPE_BYTES)

#define STS_TMR		BIT(0)
#define STS_GBL		BIT(5)
#define STS_PWRBTN	BIT(8)
#define STS_RTC		BIT(10)
#define STS_BITS	(STS_TMR | STS_GBL | STS_PWRBTN | STS_RTC)
#define CNT_SCI_EN	BIT(0)
#define CNT_BM_RLD	BIT(1)
#define CNT_SLP_TYP	(7u << 10)
#define CNT_SLP_EN	BIT(13)
#define OVERFLOWS_MAX	((uint64_t)CLOCK_DUE_MAX / NSEC_PER_SEC * PM_TIMER_HZ >> 31)

struct acpi_pm_model {
	uint16_t pm1_sts, pm1_en, pm1_cnt;
	uint8_t gpe_sts[GPE_BYTES], gpe_en[GPE_BYTES];
	uint64_t overflows;	/* half turns of the PM timer that TMR_STS knows of */
};

struct acpi_pm {
	struct device dev;
	struct acpi_pm_model m;
	bool mapped;			/* where the LPC bridge's registers say, which are its state */
	uint16_t mapped_at;
	struct irq_line sci;
	struct vm_timer timer;
};

static uint64_t ticks_now(const struct acpi_pm *pm)
{
	return clock_ticks(clock_now(&pm->dev.vm->clock), PM_TIMER_HZ);
}

/* TMR_STS is set when the timer's most significant bit, 31 of 32, changes (4.8.3.1). */
static void work_out(struct acpi_pm_model *m, uint64_t ticks)
{
	if (ticks >> 31 == m->overflows)
		return;
	m->overflows = ticks >> 31;
	m->pm1_sts |= STS_TMR;
}

static void update_sci(struct acpi_pm *pm)
{
	const struct acpi_pm_model *m = &pm->m;
	bool level = m->pm1_sts & m->pm1_en & STS_BITS;

	for (unsigned i = 0; i < GPE_BYTES; i++)
		level |= m->gpe_sts[i] & m->gpe_en[i];
	irq_set(&pm->sci, level);
}

static void arm(struct acpi_pm *pm)
{
	if ((pm->m.pm1_en & STS_TMR) && !(pm->m.pm1_sts & STS_TMR))
		timer_arm(&pm->timer, clock_ticks_to_ns((pm->m.overflows + 1) << 31, PM_TIMER_HZ));
	else
		timer_disarm(&pm->timer);
}

static void changed(struct acpi_pm *pm)
{
	update_sci(pm);
	arm(pm);
}

static void fired(void *opaque)
{
	struct acpi_pm *pm = opaque;

	work_out(&pm->m, ticks_now(pm));
	changed(pm);
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
	pm->m.pm1_sts |= STS_PWRBTN;
	update_sci(pm);
}

void acpi_pm_rtc_alarm(struct acpi_pm *pm)
{
	pm->m.pm1_sts |= STS_RTC;
	update_sci(pm);
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned n)
{
	if (n >= 8 * GPE_BYTES)
		return;
	pm->m.gpe_sts[n / 8] |= 1u << n % 8;
	update_sci(pm);
}

/* Registers: bytes, put together by the caller, since every width is allowed. */

static uint8_t read_byte(const struct acpi_pm *pm, uint64_t offset, uint32_t timer)
{
	const struct acpi_pm_model *m = &pm->m;

	switch (offset) {
	case PM1_STS ... PM1_STS + 1:
		return (uint8_t)(m->pm1_sts >> 8 * (offset - PM1_STS));
	case PM1_EN ... PM1_EN + 1:
		return (uint8_t)(m->pm1_en >> 8 * (offset - PM1_EN));
	case PM1_CNT_OFFSET ... PM1_CNT_OFFSET + PM1_CNT_LEN - 1:
		return (uint8_t)(m->pm1_cnt >> 8 * (offset - PM1_CNT_OFFSET));
	case PM_TMR_OFFSET ... PM_TMR_OFFSET + PM_TMR_LEN - 1:
		return (uint8_t)(timer >> 8 * (offset - PM_TMR_OFFSET));
	case GPE0_STS ... GPE0_STS + GPE_BYTES - 1:
		return m->gpe_sts[offset - GPE0_STS];
	case GPE0_EN ... GPE0_EN + GPE_BYTES - 1:
		return m->gpe_en[offset - GPE0_EN];
	default:
		return 0;
	}
}

static void write_control(struct acpi_pm *pm, unsigned byte, uint8_t v)
{
	const uint16_t writable = CNT_BM_RLD | CNT_SLP_TYP;
	uint16_t mask = writable & 0xff << 8 * byte, value = v << 8 * byte;

	/* GBL_RLS and SLP_EN are commands and read as zero; SCI_EN cannot be cleared. */
	pm->m.pm1_cnt = (pm->m.pm1_cnt & ~mask) | (value & mask);
	if ((value & CNT_SLP_EN) && (pm->m.pm1_cnt & CNT_SLP_TYP) >> 10 == PM_SLP_TYP_S5)
		vm_request_exit(pm->dev.vm, VM_EXIT_POWEROFF);
}

static void write_byte(struct acpi_pm *pm, uint64_t offset, uint8_t v)
{
	struct acpi_pm_model *m = &pm->m;
	unsigned shift;

	switch (offset) {
	case PM1_STS ... PM1_STS + 1:		/* write one to clear */
		m->pm1_sts &= ~(v << 8 * (offset - PM1_STS));
		break;
	case PM1_EN ... PM1_EN + 1:
		shift = 8 * (offset - PM1_EN);
		m->pm1_en = (m->pm1_en & ~(0xff << shift)) | (v << shift & STS_BITS);
		break;
	case PM1_CNT_OFFSET ... PM1_CNT_OFFSET + PM1_CNT_LEN - 1:
		write_control(pm, offset - PM1_CNT_OFFSET, v);
		break;
	case GPE0_STS ... GPE0_STS + GPE_BYTES - 1:
		m->gpe_sts[offset - GPE0_STS] &= ~v;
		break;
	case GPE0_EN ... GPE0_EN + GPE_BYTES - 1:
		m->gpe_en[offset - GPE0_EN] = v;
		break;
	default:
		break;
	}
}

static uint64_t pm_read(void *opaque, uint64_t offset, unsigned size)
{
	struct acpi_pm *pm = opaque;
	uint64_t ticks = ticks_now(pm), v = 0;

	work_out(&pm->m, ticks);
	changed(pm);
	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)read_byte(pm, offset + i, (uint32_t)ticks) << 8 * i;
	return v;
}

static void pm_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct acpi_pm *pm = opaque;

	work_out(&pm->m, ticks_now(pm));
	for (unsigned i = 0; i < size; i++)
		write_byte(pm, offset + i, (uint8_t)(value >> 8 * i));
	changed(pm);
}

static const struct bus_ops ops = { pm_read, pm_write, 4 };

static void unmap(struct acpi_pm *pm)
{
	if (pm->mapped)
		bus_unmap(&pm->dev.vm->ports, pm->mapped_at);
	pm->mapped = false;
}

void acpi_pm_set_base(void *opaque, uint16_t base, bool enabled)
{
	struct acpi_pm *pm = opaque;
	struct skep_error e;

	base &= ~(PM_BLOCK_LEN - 1);
	if (pm->mapped && enabled && pm->mapped_at == base)
		return;
	unmap(pm);
	if (!enabled)
		return;
	/* The guest's choice: where the ports are taken it gets what real hardware would, nothing. */
	pm->mapped = bus_map(&pm->dev.vm->ports, base, PM_BLOCK_LEN, &ops, pm, pm->dev.name,
			     &e) == 0;
	pm->mapped_at = base;
}

void acpi_pm_connect_sci(struct acpi_pm *pm, struct irq_line sci)
{
	pm->sci = sci;
	update_sci(pm);
}

/* Hooks. */

static int acpi_pm_init(struct device *d, struct skep_error *e)
{
	struct acpi_pm *pm = container_of(d, struct acpi_pm, dev);

	timer_init(&pm->timer, d->vm, "acpi-pm", fired, pm);
	d->type->reset(d);
	return 0;
}

static void acpi_pm_finish(struct device *d)
{
	struct acpi_pm *pm = container_of(d, struct acpi_pm, dev);

	timer_disarm(&pm->timer);
	unmap(pm);
}

static void acpi_pm_reset(struct device *d)
{
	struct acpi_pm *pm = container_of(d, struct acpi_pm, dev);

	pm->m = (struct acpi_pm_model){
		.pm1_cnt = CNT_SCI_EN,
		.overflows = ticks_now(pm) >> 31,
	};
	changed(pm);
}

static void acpi_pm_export(const struct device *d, void *model)
{
	const struct acpi_pm *pm = container_of(d, const struct acpi_pm, dev);
	struct acpi_pm_model *m = model;

	*m = pm->m;
	/* An overflow whose interrupt is enabled has its timer armed and comes with that. */
	if (!(m->pm1_en & STS_TMR))
		work_out(m, ticks_now(pm));
}

static int acpi_pm_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct acpi_pm_model *m = model;

	if ((m->pm1_sts & ~STS_BITS) || (m->pm1_en & ~STS_BITS))
		return skep_fail(e, EINVAL, "%s: pm1_sts %#x or pm1_en %#x has bits that do not exist",
				 d->name, m->pm1_sts, m->pm1_en);
	if ((m->pm1_cnt & ~(CNT_BM_RLD | CNT_SLP_TYP)) != CNT_SCI_EN)
		return skep_fail(e, EINVAL, "%s: pm1_cnt %#x is not a PM1 control register", d->name,
				 m->pm1_cnt);
	return 0;
}

static void acpi_pm_commit(struct device *d, const void *model)
{
	struct acpi_pm *pm = container_of(d, struct acpi_pm, dev);

	pm->m = *(const struct acpi_pm_model *)model;
	arm(pm);
}

static const struct state_field fields[] = {
	STATE_U16(struct acpi_pm_model, pm1_sts, .max = STS_BITS),
	STATE_U16(struct acpi_pm_model, pm1_en, .max = STS_BITS),
	STATE_U16(struct acpi_pm_model, pm1_cnt, .max = CNT_SCI_EN | CNT_BM_RLD | CNT_SLP_TYP),
	STATE_ARRAY(struct acpi_pm_model, gpe_sts, STATE_T_U8),
	STATE_ARRAY(struct acpi_pm_model, gpe_en, STATE_T_U8),
	STATE_U64(struct acpi_pm_model, overflows, .max = OVERFLOWS_MAX),
};

const struct state_record acpi_pm_record = {
	.kind = "acpi-pm",
	.version = 1,
	.model_size = sizeof(struct acpi_pm_model),
	.fields = fields,
	.nfields = ARRAY_SIZE(fields),
};

static const struct config_schema no_keys;

const struct device_type acpi_pm_type = {
	.name = "acpi-pm",
	.help = "ACPI power management, power button and PM timer",
	.config = &no_keys,
	.state = &acpi_pm_record,
	.size = sizeof(struct acpi_pm),
	.init = acpi_pm_init,
	.finish = acpi_pm_finish,
	.reset = acpi_pm_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = acpi_pm_export,
	.validate = acpi_pm_validate,
	.commit = acpi_pm_commit,
};

struct acpi_pm *acpi_pm_create(struct vm *vm, struct skep_error *e)
{
	struct device *d = device_create(vm, &acpi_pm_type, "acpi-pm", NULL, e);

	return d ? container_of(d, struct acpi_pm, dev) : NULL;
}
