/* SPDX-License-Identifier: BSD-2-Clause */
/* The message table: every row is there, and the syntax checks accept nothing but its message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "transport/vhost/wire.h"

static void every_request_has_a_row(void **state)
{
	(void)state;
	for (uint32_t r = 1; r < PD_VHOST_REQUESTS; r++) {
		assert_non_null(pd_vhost_kinds[r].name);
		assert_string_equal(pd_vhost_request_name(r), pd_vhost_kinds[r].name);
	}
	/* The numbers are the specification's. */
	assert_string_equal(pd_vhost_request_name(5), "SET_MEM_TABLE");
	assert_string_equal(pd_vhost_request_name(11), "GET_VRING_BASE");
	assert_string_equal(pd_vhost_request_name(18), "SET_VRING_ENABLE");
	assert_string_equal(pd_vhost_request_name(34), "RESET_DEVICE");
	assert_string_equal(pd_vhost_request_name(40), "GET_STATUS");
	assert_string_equal(pd_vhost_request_name(0), "unknown");
	assert_string_equal(pd_vhost_request_name(41), "unknown");
}

static void headers(void **state)
{
	struct pd_vhost_header h = {PD_VHOST_SET_OWNER, PD_VHOST_VERSION, 0};

	(void)state;
	assert_null(pd_vhost_check_header(&h, 0));
	assert_non_null(pd_vhost_check_header(&h, 1));
	h.flags |= PD_VHOST_NEED_REPLY;
	assert_null(pd_vhost_check_header(&h, 0));
	h.flags |= PD_VHOST_REPLY;
	assert_non_null(pd_vhost_check_header(&h, 0));
	assert_null(pd_vhost_check_header(&h, 1));
	for (uint32_t version = 0; version < 4; version++) {
		h.flags = version;
		assert_int_equal(pd_vhost_check_header(&h, 0) == NULL, version == 1);
	}
	h.flags = PD_VHOST_VERSION;
	h.size = PD_VHOST_PAYLOAD_MAX;
	assert_null(pd_vhost_check_header(&h, 0));
	h.size++;
	assert_non_null(pd_vhost_check_header(&h, 0));
	h.size = UINT32_MAX;
	assert_non_null(pd_vhost_check_header(&h, 0));
	h.size = 0;
	h.request = 0;
	assert_non_null(pd_vhost_check_header(&h, 0));
	h.request = PD_VHOST_REQUESTS;
	assert_non_null(pd_vhost_check_header(&h, 0));
	h.request = UINT32_MAX;
	assert_non_null(pd_vhost_check_header(&h, 0));
}

/* Every request with every size: exactly the sizes it may have pass. */
static void sizes(void **state)
{
	static const uint32_t of[PD_VHOST_SIZES] = {
		[PD_VHOST_SIZE_U64] = 8,     [PD_VHOST_SIZE_STATE] = 8,  [PD_VHOST_SIZE_ADDR] = 40,
		[PD_VHOST_SIZE_REGION] = 40, [PD_VHOST_SIZE_IOTLB] = 32,
	};

	(void)state;
	for (uint32_t r = 1; r < PD_VHOST_REQUESTS; r++) {
		const struct pd_vhost_kind *kind = &pd_vhost_kinds[r];
		struct pd_vhost_msg m = {.hdr = {r, PD_VHOST_VERSION, 0}};

		m.n_fds = kind->fds == PD_VHOST_FDS_ONE || kind->fds == PD_VHOST_FDS_VRING;
		for (m.hdr.size = 0; m.hdr.size <= PD_VHOST_PAYLOAD_MAX; m.hdr.size++) {
			int want = kind->size == PD_VHOST_SIZE_ANY ? 1
				   : kind->size == PD_VHOST_SIZE_LOG
					   ? m.hdr.size == 8 || m.hdr.size == 16
				   : kind->size == PD_VHOST_SIZE_KEPT
					   ? m.hdr.size == 20 || m.hdr.size == 24
				   : kind->size == PD_VHOST_SIZE_MEMORY
					   ? m.hdr.size == 8 || m.hdr.size == 264
					   : m.hdr.size == of[kind->size];

			if ((pd_vhost_check_request(&m) == NULL) != want)
				fail_msg("%s of %u bytes", kind->name, m.hdr.size);
		}
	}
}

/* Every request with 0 to 8 descriptors. */
static void descriptors(void **state)
{
	(void)state;
	for (uint32_t r = 1; r < PD_VHOST_REQUESTS; r++) {
		const struct pd_vhost_kind *kind = &pd_vhost_kinds[r];
		struct pd_vhost_msg m = {.hdr = {r, PD_VHOST_VERSION, 0}};

		while (m.hdr.size < 264) {
			m.n_fds = kind->fds == PD_VHOST_FDS_ONE || kind->fds == PD_VHOST_FDS_VRING;
			if (!pd_vhost_check_request(&m))
				break;
			m.hdr.size++;
		}
		for (m.n_fds = 0; m.n_fds <= 8; m.n_fds++) {
			int want = kind->fds == PD_VHOST_FDS_ANY ? 1
				   : kind->fds == PD_VHOST_FDS_OPTIONAL
					   ? m.n_fds <= 1
					   : m.n_fds == (kind->fds == PD_VHOST_FDS_ONE ||
							 kind->fds == PD_VHOST_FDS_VRING);

			if ((pd_vhost_check_request(&m) == NULL) != want)
				fail_msg("%s with %u descriptors", kind->name, m.n_fds);
		}
	}
}

static void the_no_fd_bit_and_a_descriptor_exclude_each_other(void **state)
{
	struct pd_vhost_msg m = {.hdr = {PD_VHOST_SET_VRING_KICK, PD_VHOST_VERSION, 8}};

	(void)state;
	assert_non_null(pd_vhost_check_request(&m));
	m.n_fds = 1;
	assert_null(pd_vhost_check_request(&m));
	m.payload.u64 = PD_VHOST_VRING_NOFD;
	assert_non_null(pd_vhost_check_request(&m));
	m.n_fds = 0;
	assert_null(pd_vhost_check_request(&m));
}

static void memory_tables(void **state)
{
	struct pd_vhost_msg m = {.hdr = {PD_VHOST_SET_MEM_TABLE, PD_VHOST_VERSION, 0}};

	(void)state;
	for (uint32_t n = 0; n <= 8; n++) {
		m.payload.memory.n_regions = n;
		m.n_fds = n;
		m.hdr.size = 8 + 32 * n;
		assert_null(pd_vhost_check_request(&m));
		m.hdr.size = 264;
		assert_null(pd_vhost_check_request(&m));
		m.n_fds = n + 1;
		assert_non_null(pd_vhost_check_request(&m));
	}
	m.n_fds = 8;
	m.payload.memory.n_regions = 9;
	m.hdr.size = 8 + 32 * 9;
	assert_non_null(pd_vhost_check_request(&m));
	m.payload.memory.n_regions = UINT32_MAX;
	m.hdr.size = 264;
	assert_non_null(pd_vhost_check_request(&m));
}

static void replies(void **state)
{
	struct pd_vhost_msg m = {.hdr = {PD_VHOST_GET_FEATURES, 5, 8}};

	(void)state;
	assert_null(pd_vhost_check_reply(&m, PD_VHOST_GET_FEATURES));
	assert_non_null(pd_vhost_check_reply(&m, PD_VHOST_GET_STATUS));
	m.hdr.size = 4;
	assert_non_null(pd_vhost_check_reply(&m, PD_VHOST_GET_FEATURES));
	m.hdr.size = 8;
	m.n_fds = 1;
	assert_non_null(pd_vhost_check_reply(&m, PD_VHOST_GET_FEATURES));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_request_has_a_row),
		cmocka_unit_test(headers),
		cmocka_unit_test(sizes),
		cmocka_unit_test(descriptors),
		cmocka_unit_test(the_no_fd_bit_and_a_descriptor_exclude_each_other),
		cmocka_unit_test(memory_tables),
		cmocka_unit_test(replies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
