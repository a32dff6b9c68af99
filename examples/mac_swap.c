/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mac-swap: a plug-in of two nodes, which palladium_plugin(7) walks through.
 *
 *     cc -shared -fPIC -o plugins/mac_swap.so mac_swap.c
 *     LD_PRELOAD=libpalladium.so PALLADIUM_PLUGIN_PATH=plugins PALLADIUM_PORTS=... program
 *
 *   plugin-input -> mac-swap -> plugin-output
 *                      |  `---> error-drop       frames that are too short for an Ethernet header
 *                      `------> mac-swap-arp     ARP stays as it is: it goes to the program at once
 *
 * Every frame that a port receives has its two MAC addresses exchanged, so a program that sends
 * back what it gets answers the sender; what comes is counted by EtherType. With MAC_SWAP=off in
 * the environment it counts alone.
 */
#include <errno.h>
#include <palladium_plugin.h>
#include <stdlib.h>
#include <string.h>

#define MAC_BYTES 6
#define ETHERNET_BYTES 14
#define TYPE_IPV4 0x0800
#define TYPE_ARP 0x0806
#define TYPE_IPV6 0x86dd

/* What mac-swap counts, and the texts that show errors and palladium_ctl know it by. */
enum { IPV4, IPV6, OTHER, CONTROL, SHORT, COUNTERS };
static const char *const texts[COUNTERS] = {
	[IPV4] = "IPv4 (not an error)",
	[IPV6] = "IPv6 (not an error)",
	[OTHER] = "another EtherType (not an error)",
	[CONTROL] = "control message (not an error)",
	[SHORT] = "shorter than an Ethernet header",
};

/* Its own next. */
enum { NEXT_ARP = PALLADIUM_NEXT_OWN };
static const char *const nexts[] = {"mac-swap-arp"};

static int swaps = 1;

/* Exchange destination and source. */
static void swap(uint8_t *frame)
{
	uint8_t macs[2 * MAC_BYTES];

	memcpy(macs, frame, sizeof(macs));
	memcpy(frame, macs + MAC_BYTES, MAC_BYTES);
	memcpy(frame + MAC_BYTES, macs, MAC_BYTES);
}

/* One frame: what is done with it, and where it goes. */
static uint16_t one(struct palladium_node_state *node, struct palladium_frame *f)
{
	uint8_t *head = palladium_frame_head(f);
	unsigned type;

	if (palladium_frame_is_control(f)) {
		palladium_node_count(node, CONTROL, 1);
		return PALLADIUM_NEXT_ON;
	}
	if (palladium_frame_head_len(f) < ETHERNET_BYTES)
		return palladium_frame_fail(f, SHORT);
	type = (unsigned)head[12] << 8 | head[13];
	if (type == TYPE_ARP)
		return NEXT_ARP;
	palladium_node_count(node, type == TYPE_IPV4 ? IPV4 : type == TYPE_IPV6 ? IPV6 : OTHER, 1);
	if (swaps)
		swap(head);
	return PALLADIUM_NEXT_ON;
}

/* The work of mac-swap. */
static void mac_swap(struct palladium_node_state *node, struct palladium_frame *const *frames,
		     uint16_t *next, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		next[i] = one(node, frames[i]);
}

/* The work of mac-swap-arp: count; frames go where PALLADIUM_NEXT_ON leads. */
static void mac_swap_arp(struct palladium_node_state *node, struct palladium_frame *const *frames,
			 uint16_t *next, unsigned n)
{
	(void)frames;
	(void)next;
	palladium_node_count(node, 0, n);
}

static const char *const arp_texts[] = {"ARP (not an error)"};

static const struct palladium_node nodes[] = {
	{
		.name = "mac-swap",
		.work = mac_swap,
		.after = "plugin-input",
		.before = "plugin-output",
		.nexts = nexts,
		.next_count = 1,
		.texts = texts,
		.text_count = COUNTERS,
	},
	{
		.name = "mac-swap-arp",
		.work = mac_swap_arp,
		.texts = arp_texts,
		.text_count = 1,
	},
};

/* Look at MAC_SWAP once. Anything but on and off is a mistake, and the plug-in is not used. */
static int mac_swap_init(void)
{
	const char *how = getenv("MAC_SWAP");

	if (how && strcmp(how, "on") && strcmp(how, "off")) {
		palladium_log(PALLADIUM_LOG_ERROR, "MAC_SWAP is on or off, not %s", how);
		return -EINVAL;
	}
	swaps = !how || !strcmp(how, "on");
	palladium_log(PALLADIUM_LOG_INFO, "MAC addresses are %s",
		      swaps ? "exchanged" : "left alone");
	return 0;
}

static const struct palladium_init inits[] = {{.name = "mac_swap_init", .fn = mac_swap_init}};

PALLADIUM_PLUGIN("mac-swap", nodes, 2, inits, 1);
