/*
 * ACPI Machine Language, written directly (ACPI 6.4, chapter 20): just the
 * operators that our tables use.
 *
 * Whatever has a PkgLength is opened by a function that returns its place and
 * closed by aml_end, innermost first.
 */
#ifndef SKEP_BOOT_AML_H
#define SKEP_BOOT_AML_H

#include <stddef.h>
#include <stdint.h>

#include "boot/blob.h"

/* Names: "\\_SB_.PCI0", "_CRS"; each segment has four characters, or is padded. */
void aml_path(struct blob *b, const char *path);

size_t aml_scope(struct blob *b, const char *path);
size_t aml_device(struct blob *b, const char *name);
/* args: how many, 0-7, with AML_SERIALIZED where it makes names of its own. */
#define AML_SERIALIZED 8
size_t aml_method(struct blob *b, const char *name, unsigned args);
size_t aml_package(struct blob *b, uint8_t elements);
size_t aml_if(struct blob *b);
size_t aml_else(struct blob *b);
void aml_end(struct blob *b, size_t open);

/* Name(name, ...): the object follows. */
void aml_name(struct blob *b, const char *name);
void aml_name_int(struct blob *b, const char *name, uint64_t v);
void aml_name_string(struct blob *b, const char *name, const char *text);
/* "PNP0A03", as the compressed integer. */
void aml_name_eisa(struct blob *b, const char *name, const char *id);
void aml_int(struct blob *b, uint64_t v);
void aml_string(struct blob *b, const char *text);
void aml_eisa(struct blob *b, const char *id);
/* A 32-bit integer in its full length; returns where its bytes are, to be patched. */
size_t aml_dword(struct blob *b, uint32_t v);
void aml_buffer(struct blob *b, const void *data, size_t len);

/* Expressions: prefix operators, operands follow. */
#define AML_LOCAL0	0x60
#define AML_ARG0	0x68
#define AML_STORE	0x70
#define AML_NOTIFY	0x86
#define AML_INDEX	0x88
#define AML_AND		0x7b
#define AML_OR		0x7d
#define AML_NOT		0x92	/* LNot */
#define AML_EQUAL	0x93
#define AML_RETURN	0xa4
void aml_op(struct blob *b, uint8_t op);
/* CreateDWordField(source, byte, name): source is AML_ARG0 + n or AML_LOCAL0 + n. */
void aml_dword_field(struct blob *b, uint8_t source, uint64_t byte, const char *name);

/* OperationRegion(name, space, offset, len), and Field(name, ByteAcc): entries follow. */
void aml_region(struct blob *b, const char *name, uint8_t space, uint64_t offset, uint64_t len);
size_t aml_field(struct blob *b, const char *region);
/* Of up to 63 bits; name NULL: nothing lies there. */
void aml_field_entry(struct blob *b, const char *name, uint8_t bits);

/* Resource descriptors (ACPI 6.4, section 6.4), put into a blob of their own. */
void aml_res_io(struct blob *r, uint16_t base, uint8_t len);
void aml_res_irq(struct blob *r, unsigned irq);
void aml_res_memory32(struct blob *r, uint32_t base, uint32_t len);
void aml_res_bus(struct blob *r, uint16_t first, uint16_t last);
void aml_res_io_window(struct blob *r, uint16_t first, uint16_t last);
void aml_res_memory_window32(struct blob *r, uint32_t first, uint32_t last);
void aml_res_memory_window64(struct blob *r, uint64_t first, uint64_t last);
/* Name(_CRS, Buffer) with the end tag; frees r. */
void aml_crs(struct blob *b, struct blob *r);

#endif
