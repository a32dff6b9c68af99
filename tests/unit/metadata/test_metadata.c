/* SPDX-License-Identifier: BSD-2-Clause */
/* metadata/: the table of dialects, names of flags, control messages, rendering within bounds. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include "metadata/control.h"
#include "metadata/fields.h"
#include "metadata/render.h"

/* 48 different bytes, every bit of which is used by one or another. */
static struct pd_sidecar every_byte(void)
{
	struct pd_sidecar s;

	for (int i = 0; i < PD_SIDECAR_BYTES; i++)
		s.bytes[i] = (uint8_t)(0xff - i * 5);
	return s;
}

static void test_table_of_dialects(void **state)
{
	uint64_t avip = pd_dialect_ops(PD_DIALECT_AVIP)->features_refused;

	for (int d = 0; d < PD_DIALECT_COUNT; d++)
		assert_int_equal(pd_dialect_parse(pd_dialect_ops((enum pd_dialect)d)->name), d);
	assert_true(pd_dialect_ops(PD_DIALECT_AVIP)->carries_sidecar);
	assert_false(pd_dialect_ops(PD_DIALECT_VIRTIO)->carries_sidecar);
	assert_int_equal(pd_dialect_parse("AVIP"), -EINVAL);
	assert_int_equal(pd_dialect_parse(""), -EINVAL);
	assert_true(avip & 1ull << VIRTIO_NET_F_CSUM);
	assert_true(avip & 1ull << VIRTIO_NET_F_HOST_ECN);
	assert_true(avip & 1ull << VIRTIO_NET_F_HASH_REPORT);
	assert_false(avip & 1ull << VIRTIO_F_RING_PACKED);
	assert_false(avip & 1ull << VIRTIO_NET_F_MRG_RXBUF);
	assert_false(avip & 1ull << VIRTIO_F_VERSION_1);
	assert_false(avip & 1ull << VIRTIO_F_ANY_LAYOUT);
}

static void test_names_of_flags(void **state)
{
	int named = 0;

	for (unsigned bit = 0; bit < 70; bit++) {
		const char *name = pd_sidecar_flag_name(bit);

		named += name != NULL;
		if (name)
			assert_true(pd_sidecar_flag_parse(name) == 1ull << bit);
	}
	assert_int_equal(named, 23);
	assert_true(PD_SIDECAR_KNOWN_FLAGS == 0x7fffff);
	assert_true(pd_sidecar_flag_parse("ifg") == 0);
}

static void test_control_messages_go_there_and_back(void **state)
{
	static const uint8_t map[MAX_PFC_QUEUES] = {1, 2, 4, 8, 16, 32, 64, 128};
	struct pd_sidecar s = every_byte();
	struct pd_control c;

	pd_control_build_port_id(&s, 0x01020304, 5, 6, 7);
	assert_int_equal(pd_control_parse(&s, &c), 0);
	assert_true(c.flags == PALLADIUM_PORT_ID);
	assert_int_equal(c.port_id.chassis_ip, 0x01020304);
	assert_int_equal(c.port_id.card, 5);
	assert_int_equal(c.port_id.port, 6);
	assert_int_equal(c.queues, 7);

	pd_control_build_line_speed(&s, 800000);
	assert_int_equal(pd_control_parse(&s, &c), 0);
	assert_true(c.flags == PALLADIUM_LINE_SPEED);
	assert_int_equal(c.line_speed, 800000);
	assert_int_equal(c.queues, 0);
	s.avip.pd_control.xtor_queues = 9;
	assert_int_equal(pd_control_parse(&s, &c), 0);
	assert_int_equal(c.queues, 9);

	pd_control_build_tx_duration(&s, 1, UINT64_MAX);
	assert_int_equal(pd_control_parse(&s, &c), 0);
	assert_true(c.tx_first_ts == 1 && c.tx_last_ts == UINT64_MAX);

	pd_control_build_time(&s, 1ull << 40);
	assert_int_equal(pd_control_parse(&s, &c), 0);
	assert_true(c.flags == PALLADIUM_ET && c.emulator_time == 1ull << 40);

	pd_control_build_new_config(&s, 2, 0xff, map);
	assert_int_equal(pd_control_parse(&s, &c), 0);
	assert_int_equal(c.flow_control_mode, 2);
	assert_int_equal(c.pfc_queues, 0xff);
	assert_memory_equal(c.pfc_map, map, sizeof(map));

	pd_control_build_event(&s, PALLADIUM_PORT_PAUSED | PALLADIUM_PORT_REMOVED | 1ull << 50);
	assert_int_equal(pd_control_parse(&s, &c), 0);
	assert_true(c.flags == (PALLADIUM_PORT_PAUSED | PALLADIUM_PORT_REMOVED | 1ull << 50));

	s.avip.generic_flags = 0;
	c.line_speed = 42;
	assert_int_equal(pd_control_parse(&s, &c), -ENOMSG);
	assert_int_equal(c.line_speed, 42);
}

static void test_port_name_of_16_bytes_and_of_17(void **state)
{
	struct pd_sidecar s = every_byte(), before = s;
	struct pd_control c;

	assert_int_equal(pd_control_build_port_name(&s, "0123456789abcdefg", 1), -ENAMETOOLONG);
	assert_memory_equal(&s, &before, sizeof(s));
	assert_int_equal(pd_control_build_port_name(&s, "0123456789abcdef", 3), 0);
	assert_memory_equal(s.bytes + 11, "0123456789abcdef", 16);
	assert_int_equal(pd_control_parse(&s, &c), 0);
	assert_string_equal(c.port_name, "0123456789abcdef");
	assert_int_equal(c.queues, 3);
	assert_int_equal(pd_control_build_port_name(&s, "", 0), 0);
	assert_int_equal(pd_control_parse(&s, &c), 0);
	assert_string_equal(c.port_name, "");
}

/*
 * Every size of the buffer: the result is the same, what fits is a prefix, nothing beyond is
 * touched.
 */
static void test_rendering_keeps_within_bounds(void **state)
{
	struct pd_sidecar s = every_byte();
	char whole[PD_RENDER_BYTES], cut[PD_RENDER_BYTES];

	for (int format = PD_RENDER_TEXT; format <= PD_RENDER_JSON; format++) {
		int n = pd_sidecar_render(&s, (enum pd_render_format)format, NULL, whole,
					  sizeof(whole));

		assert_in_range(n, 100, sizeof(whole) - 1);
		assert_int_equal(strlen(whole), n);
		assert_int_equal(
			pd_sidecar_render(&s, (enum pd_render_format)format, NULL, NULL, 0), n);
		for (int size = 1; size <= n + 1; size++) {
			memset(cut, 'Z', sizeof(cut));
			assert_int_equal(pd_sidecar_render(&s, (enum pd_render_format)format, NULL,
							   cut, (size_t)size),
					 n);
			assert_int_equal(strlen(cut), size - 1);
			assert_memory_equal(cut, whole, size - 1);
			assert_int_equal(cut[size], 'Z');
		}
	}
	assert_int_equal(pd_sidecar_render(&s, (enum pd_render_format)9, NULL, whole, 10), -EINVAL);
}

/* Random headers fit the size that palladium_extra.h promises. */
static void test_any_header_fits(void **state)
{
	char out[PD_RENDER_BYTES];
	uint64_t x = 88172645463325252ull;
	struct pd_sidecar s;

	for (int round = 0; round < 20000; round++) {
		for (int i = 0; i < PD_SIDECAR_BYTES; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			s.bytes[i] = round & 1 && i & 1 ? 0 : (uint8_t)(x >> 32);
		}
		assert_in_range(pd_sidecar_render(&s, PD_RENDER_TEXT, NULL, out, sizeof(out)), 1,
				sizeof(out) - 1);
		assert_in_range(pd_sidecar_render(&s, PD_RENDER_JSON, NULL, out, sizeof(out)), 1,
				sizeof(out) - 1);
	}
}

static void test_units(void **state)
{
	struct pd_units u = {{0}};
	char why[300], tiny[8];

	assert_int_equal(pd_units_parse(&u, "", why, sizeof(why)), 0);
	assert_int_equal(pd_units_parse(&u, "time=ns,ifg=bits", why, sizeof(why)), 0);
	assert_string_equal(pd_unit_words(PD_UNIT_TIME)[u.choice[PD_UNIT_TIME]], "ns");
	assert_string_equal(pd_unit_words(PD_UNIT_IFG)[u.choice[PD_UNIT_IFG]], "bits");
	assert_int_equal(u.choice[PD_UNIT_FCS], 0);
	assert_int_equal(pd_units_parse(&u, "fcs=big,time=", why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "time=ps|fs"));
	assert_int_equal(u.choice[PD_UNIT_FCS], 1);
	assert_int_equal(pd_units_parse(&u, "tim=ps", tiny, sizeof(tiny)), -EINVAL);
	assert_int_equal(pd_units_parse(&u, "tim=ps", NULL, 0), -EINVAL);
	assert_int_equal(pd_units_parse(&u, ",", NULL, 0), -EINVAL);
	for (int of = 0; of < PD_UNIT_COUNT; of++)
		assert_non_null(pd_unit_name((enum pd_unit_of)of));
}

/*
 * The helpers of palladium_extra.h: what is put is what is got, at any place in the control buffer.
 */
static void test_ancillary_data_helpers(void **state)
{
	struct pd_sidecar s = every_byte();
	union palladium_cmsg_buffer control;
	struct msghdr msg = {0};
	union {
		char bytes[CMSG_SPACE(4) + CMSG_SPACE(48)];
		struct cmsghdr align;
	} two = {{0}};
	struct cmsghdr *c = &two.align;

	assert_null(palladium_cmsg_get(&msg));
	palladium_cmsg_put(&msg, &control, &s.avip);
	assert_memory_equal(palladium_cmsg_get(&msg), &s, sizeof(s));
	control.align.cmsg_len--;
	assert_null(palladium_cmsg_get(&msg));

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = PALLADIUM_METADATA;
	c->cmsg_len = CMSG_LEN(4);
	msg.msg_control = &two;
	msg.msg_controllen = sizeof(two.bytes);
	c = CMSG_NXTHDR(&msg, c);
	c->cmsg_level = SOL_PALLADIUM;
	c->cmsg_type = PALLADIUM_METADATA;
	c->cmsg_len = CMSG_LEN(48);
	memcpy(CMSG_DATA(c), &s, sizeof(s));
	assert_memory_equal(palladium_cmsg_get(&msg), &s, sizeof(s));
	c->cmsg_type = PALLADIUM_METADATA + 1;
	assert_null(palladium_cmsg_get(&msg));
}

static void test_fields_are_set_by_name(void **state)
{
	static const struct {
		const char *name, *value;
		int ret;
	} wrong[] = {
		{"nothing", "1", -ENOENT},
		{"ifg", "", -EINVAL},
		{"ifg", "-1", -EINVAL},
		{"ifg", "0x", -EINVAL},
		{"ifg", "1f", -EINVAL},
		{"ifg", "18446744073709551616", -EINVAL},
		{"pfc_priority", "256", -EINVAL},
		{"fcs", "0x100000000", -EINVAL},
		{"flag", "NONSENSE", -EINVAL},
		{"preamble", "555", -EINVAL},
		{"preamble", "5g", -EINVAL},
		{"preamble", "555555555555555555", -EINVAL},
		{"port_name", "12345678901234567", -EINVAL},
	};
	struct pd_sidecar s = {.bytes = {0}}, before;

	assert_int_equal(pd_sidecar_set(&s, "ifg", "12"), 0);
	assert_int_equal(pd_sidecar_set(&s, "latency", "18446744073709551615"), 0);
	assert_int_equal(pd_sidecar_set(&s, "pfc_priority", "7"), 0);
	assert_int_equal(pd_sidecar_set(&s, "fcs", "0xDEADbeef"), 0);
	assert_int_equal(pd_sidecar_set(&s, "preamble", "55d5"), 0);
	assert_int_equal(pd_sidecar_set(&s, "flag", "CRC_ERROR"), 0);
	assert_int_equal(s.avip.pd.ifg, 12);
	assert_true(s.avip.pd.latency == UINT64_MAX);
	assert_int_equal(s.avip.pd.pfc_priority, 7);
	assert_int_equal(s.avip.pd.fcs, 0xdeadbeef);
	assert_int_equal(s.avip.pd.preamble_size, 2);
	assert_int_equal(s.avip.pd.preamble[1], 0xd5);
	assert_true(s.avip.pd.metadata_type == (PALLADIUM_IFG | PALLADIUM_LATENCY | PALLADIUM_FCS |
						PALLADIUM_PREAMBLE | PALLADIUM_CRC_ERROR));
	before = s;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(pd_sidecar_set(&s, wrong[i].name, wrong[i].value), wrong[i].ret);
		assert_memory_equal(&s, &before, sizeof(s));
	}
	memset(&s, 0, sizeof(s));
	assert_int_equal(pd_sidecar_set(&s, "generic_flags", "1"), 0);
	assert_int_equal(pd_sidecar_set(&s, "port_name", "1234567890123456"), 0);
	assert_true(pd_sidecar_is_control(&s));
	assert_memory_equal(s.avip.pd_control.port_name, "1234567890123456", 16);
	assert_true(s.avip.pd.metadata_type == PALLADIUM_PORT_NAME);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table_of_dialects),
		cmocka_unit_test(test_names_of_flags),
		cmocka_unit_test(test_control_messages_go_there_and_back),
		cmocka_unit_test(test_port_name_of_16_bytes_and_of_17),
		cmocka_unit_test(test_rendering_keeps_within_bounds),
		cmocka_unit_test(test_any_header_fits),
		cmocka_unit_test(test_fields_are_set_by_name),
		cmocka_unit_test(test_units),
		cmocka_unit_test(test_ancillary_data_helpers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
