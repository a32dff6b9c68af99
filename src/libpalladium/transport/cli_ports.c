/* SPDX-License-Identifier: BSD-2-Clause */
/* show ports: what palladium_stats shows of them, in short. */
#include <string.h>

#include "cli/cli.h"
#include "cli/table.h"
#include "counters/counters.h"
#include "transport/transport.h"

static const struct pd_cli_column columns[] = {
	{"Port", "name", PD_CLI_TEXT, -10},
	{"State", "state", PD_CLI_TEXT, -8},
	{"Transport", "transport", PD_CLI_TEXT, -11},
	{"MTU", "mtu", PD_CLI_NUMBER, 6},
	{"Lanes", "lanes", PD_CLI_NUMBER, 6},
	{"Rx frames", "rx_frames", PD_CLI_NUMBER, 14},
	{NULL, "rx_bytes", PD_CLI_NUMBER, 0},
	{"Rx drops", "rx_drops", PD_CLI_NUMBER, 10},
	{"Tx frames", "tx_frames", PD_CLI_NUMBER, 14},
	{NULL, "tx_bytes", PD_CLI_NUMBER, 0},
	{"Tx drops", "tx_drops", PD_CLI_NUMBER, 10},
	{"Reason", "reason", PD_CLI_TEXT, -1},
	{NULL, "last_error", PD_CLI_TEXT, 0},
};

/* What a port's counters come to, with those of its lanes. */
struct sums {
	uint64_t rx_frames, rx_bytes, rx_drops, tx_frames, tx_bytes, tx_drops;
};

/* Add up the counters of the group `group` in the block `b`. */
#define ADD(group)                                                                 \
	do {                                                                       \
		s->rx_frames += pd_ctr_get(b, PD_CTR_##group##_RX_FRAMES);         \
		s->rx_bytes += pd_ctr_get(b, PD_CTR_##group##_RX_BYTES);           \
		s->rx_drops += pd_ctr_get(b, PD_CTR_##group##_RX_DROP_NO_SOCKET) + \
			       pd_ctr_get(b, PD_CTR_##group##_RX_DROP_FILTERED) +  \
			       pd_ctr_get(b, PD_CTR_##group##_RX_DROP_TOO_LONG) +  \
			       pd_ctr_get(b, PD_CTR_##group##_RX_DROP_MALFORMED) + \
			       pd_ctr_get(b, PD_CTR_##group##_RX_DROP_NO_BUFFER);  \
		s->tx_frames += pd_ctr_get(b, PD_CTR_##group##_TX_FRAMES);         \
		s->tx_bytes += pd_ctr_get(b, PD_CTR_##group##_TX_BYTES);           \
		s->tx_drops += pd_ctr_get(b, PD_CTR_##group##_TX_DROP_PORT_DOWN) + \
			       pd_ctr_get(b, PD_CTR_##group##_TX_DROP_TOO_LONG);   \
	} while (0)

/* Add a port's own. */
static void add_port(struct sums *s, struct pd_ctr_block *b)
{
	ADD(PORT);
}

/* Add a lane's; both sides count in one block. */
static void add_lane(struct sums *s, struct pd_ctr_block *b)
{
	ADD(LANE);
}

/* Print one port. pd_control held: its texts and lanes change under it. */
static void print_port(struct pd_cli *cli, struct pd_cli_table *t, const struct pd_port *port)
{
	struct pd_ctr_block *b = port->ctr;
	struct sums s = {0};

	if (b)
		add_port(&s, b);
	for (unsigned i = 0; i < port->n_lanes; i++)
		if (port->lanes[i])
			add_lane(&s, port->lanes[i]->side[PD_RX].ctr);
	const union pd_cli_cell cells[] = {
		{.text = port->name},
		{.text = b && port->state != PD_PORT_CLOSED ? b->state : "closed"},
		{.text = port->transport->name},
		{.number = port->mtu},
		{.number = port->n_lanes},
		{.number = s.rx_frames},
		{.number = s.rx_bytes},
		{.number = s.rx_drops},
		{.number = s.tx_frames},
		{.number = s.tx_bytes},
		{.number = s.tx_drops},
		{.text = b ? b->reason : "not used yet"},
		{.text = b ? b->last_error : ""},
	};
	_Static_assert(PD_ARRAY_SIZE(cells) == PD_ARRAY_SIZE(columns), "one per column");
	pd_cli_table_row(cli, t, cells);
}

/* show ports */
static int show_ports(struct pd_cli *cli)
{
	struct pd_cli_table t;

	pd_cli_table_begin(cli, &t, columns, PD_ARRAY_SIZE(columns), "ports", "", true);
	for (unsigned i = 0; i < pd_port_count; i++)
		print_port(cli, &t, &pd_ports[i]);
	pd_cli_table_end(cli, &t);
	return 0;
}

PD_CLI_COMMAND(show_ports) = {
	.path = "show ports",
	.help = "The ports: state, why, frames and drops.",
	.json = true,
	.fn = show_ports,
};
