/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vlan-access: a plug-in that makes frames shorter (palladium_plugin(7)).
 *
 *     cc -shared -fPIC -o plugins/vlan_access.so vlan_access.c
 *     VLAN_ACCESS=100 LD_PRELOAD=libpalladium.so PALLADIUM_PLUGIN_PATH=plugins ... program
 *
 *   plugin-input -> vlan-access -> plugin-output
 *                       `--------> error-drop       frames of other VLANs
 *
 * The program is in one VLAN, and knows nothing of it: frames of that VLAN lose their tag, those of
 * others are dropped, and those without a tag stay as they are.
 */
#include <errno.h>
#include <palladium_plugin.h>
#include <stdlib.h>
#include <string.h>

#define MACS_BYTES 12
#define TAG_BYTES 4
#define TYPE_VLAN 0x8100
#define VLAN_MASK 0xfff

enum { TAGGED, UNTAGGED, OTHER, COUNTERS };
static const char *const texts[COUNTERS] = {
	[TAGGED] = "of the VLAN (not an error)",
	[UNTAGGED] = "without a tag (not an error)",
	[OTHER] = "of another VLAN",
};

static unsigned vlan;

/* Take the tag away: the MAC addresses move behind it, and the frame begins there. */
static void pop(struct palladium_frame *f)
{
	uint8_t *head = palladium_frame_head(f);

	memmove(head + TAG_BYTES, head, MACS_BYTES);
	palladium_frame_pull(f, TAG_BYTES);
}

/* One frame: what is done with it, and where it goes. */
static uint16_t one(struct palladium_node_state *node, struct palladium_frame *f)
{
	const uint8_t *head = palladium_frame_head(f);

	if (palladium_frame_head_len(f) < MACS_BYTES + TAG_BYTES + 2 ||
	    (head[12] << 8 | head[13]) != TYPE_VLAN) {
		palladium_node_count(node, UNTAGGED, 1);
		return PALLADIUM_NEXT_ON;
	}
	if (((unsigned)head[14] << 8 | head[15]) % (VLAN_MASK + 1) != vlan)
		return palladium_frame_fail(f, OTHER);
	pop(f);
	palladium_node_count(node, TAGGED, 1);
	return PALLADIUM_NEXT_ON;
}

/* The work of vlan-access. */
static void vlan_access(struct palladium_node_state *node, struct palladium_frame *const *frames,
			uint16_t *next, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		next[i] = one(node, frames[i]);
}

static const struct palladium_node nodes[] = {
	{
		.name = "vlan-access",
		.work = vlan_access,
		.after = "plugin-input",
		.before = "plugin-output",
		.texts = texts,
		.text_count = COUNTERS,
	},
};

/* Read VLAN_ACCESS. Without a VLAN there the plug-in is not used. */
static int vlan_access_init(void)
{
	const char *text = getenv("VLAN_ACCESS");
	char *end = NULL;
	unsigned long id = text ? strtoul(text, &end, 10) : 0;

	if (!text || !*text || *end || !id || id >= VLAN_MASK) {
		palladium_log(PALLADIUM_LOG_ERROR, "VLAN_ACCESS is a VLAN, 1 to 4094, not %s",
			      text ? text : "unset");
		return -EINVAL;
	}
	vlan = (unsigned)id;
	return 0;
}

static const struct palladium_init inits[] = {{.name = "vlan_access_init", .fn = vlan_access_init}};

PALLADIUM_PLUGIN("vlan-access", nodes, 1, inits, 1);
