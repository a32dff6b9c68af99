/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Words -> statements.
 *
 * Actions call the builders of conf.h and keep nothing themselves: values point into the text, so
 * there is nothing to free when a line is given up. After a mistake the parser goes on at the next
 * key of a port, or at the end of the line.
 */
%define api.prefix {pd_conf_yy}
%define api.pure full
%define parse.error custom
%define lr.default-reduction consistent
%locations
%param {void *scanner}
%parse-param {struct pd_conf_parse *p}

%code requires {
#include "config/conf.h"
}

%code provides {
int pd_conf_yylex(PD_CONF_YYSTYPE *value, PD_CONF_YYLTYPE *loc, void *scanner);
}

%code {
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/text.h"

/* The grammar is left-recursive, so its stack stays shallow: it never needs to allocate. */
#define YYMAXDEPTH YYINITDEPTH

static void pd_conf_yyerror(PD_CONF_YYLTYPE *loc, void *scanner, struct pd_conf_parse *p,
			    const char *text);
}

%union {
	struct pd_conf_text text;
	struct pd_conf_pattern pattern;
	struct pd_conf_address net;
	int number;
}

%token START_FILE "a file" START_PORTS "a list of ports"
%token EOL "the end of the line"
%token <text> APPLICATION_ID "application-id" USE "use" PORT "port" LOG_LINE "log"
%token <text> PALLADIUM "palladium" OS "os"
%token <text> TCP_SERVER "tcp_server" TCP_CLIENT "tcp_client" UDP_SENDER "udp_sender"
%token <text> UDP_RECEIVER "udp_receiver" UDP_CONNECT "udp_connect" PACKET "packet"
%token <text> MIN_LEVEL "min-level" DESTINATION "destination" STDERR "stderr" SYSLOG "syslog"
%token <text> LOG_FILE "file"
%token <text> WORD "a word" KEY "key=value" NUMBER "a number" ADDRESS "an address"
%token <text> UNKNOWN "an unknown word" OPEN_QUOTE "an open quotation"
%token <text> BARE_IPV6 "an IPv6 address without brackets"

%type <number> use role ip_port
%type <pattern> pattern
%type <net> net

%%

input:
	START_FILE lines
|	START_PORTS entries
;

lines:
	%empty
|	lines EOL
|	lines statement EOL		{ yyerrok; pd_conf_end_port(p, true); }
|	lines error EOL		{ yyerrok; pd_conf_end_port(p, true); }
;

statement:
	APPLICATION_ID WORD WORD	{ pd_conf_add_group(p, $2, $3, pd_conf_at(p, @1)); }
|	USE { p->rule_bad = false; } rule
|	PORT WORD WORD
		{ pd_conf_begin_port(p, $2, $3, pd_conf_at(p, @2), pd_conf_at(p, @3)); }
	keys
|	LOG_LINE log_settings
;

rule:
	use role pattern
		{ pd_conf_add_rule(p, $1, $2, $3, NULL, pd_conf_at(p, @1)); }
|	use role pattern ':' pattern
		{ pd_conf_add_rule(p, $1, $2, $3, &$5, pd_conf_at(p, @1)); }
|	use PACKET WORD
		{ pd_conf_add_packet_rule(p, $1, $3, pd_conf_at(p, @1), pd_conf_at(p, @3)); }
;

use:
	PALLADIUM	{ $$ = PD_USE_PALLADIUM; }
|	OS		{ $$ = PD_USE_OS; }
;

role:
	TCP_SERVER	{ $$ = PD_ROLE_TCP_SERVER; }
|	TCP_CLIENT	{ $$ = PD_ROLE_TCP_CLIENT; }
|	UDP_SENDER	{ $$ = PD_ROLE_UDP_SENDER; }
|	UDP_RECEIVER	{ $$ = PD_ROLE_UDP_RECEIVER; }
|	UDP_CONNECT	{ $$ = PD_ROLE_UDP_CONNECT; }
;

pattern:
	net ':' '*'
		{ $$ = (struct pd_conf_pattern){$1, 0, UINT16_MAX}; }
|	net ':' ip_port
		{ $$ = (struct pd_conf_pattern){$1, (uint16_t)$3, (uint16_t)$3}; }
|	net ':' ip_port '-' ip_port
		{
			$$.net = $1;
			pd_conf_port_range(p, &$$, (uint16_t)$3, (uint16_t)$5, pd_conf_at(p, @3));
		}
;

ip_port:
	NUMBER		{ $$ = pd_conf_port_number(p, $1, pd_conf_at(p, @1)); }
;

net:
	'*'
		{ $$ = (struct pd_conf_address){0}; }
|	ADDRESS
		{ $$ = pd_conf_net(p, $1, NULL, pd_conf_at(p, @1), pd_conf_at(p, @1)); }
|	ADDRESS '/' NUMBER
		{ $$ = pd_conf_net(p, $1, &$3, pd_conf_at(p, @1), pd_conf_at(p, @3)); }
;

log_settings:
	log_setting
|	log_settings log_setting
;

log_setting:
	MIN_LEVEL WORD			{ pd_conf_log_level(p, $2, pd_conf_at(p, @2)); }
|	DESTINATION STDERR		{ p->cfg->log_file[0] = 0; p->cfg->log_syslog = false; }
|	DESTINATION LOG_FILE WORD	{ pd_conf_log_file(p, $3, pd_conf_at(p, @3)); }
|	DESTINATION SYSLOG		{ p->cfg->log_file[0] = 0; p->cfg->log_syslog = true; }
;

keys:
	%empty
|	keys key
|	keys error
;

key:
	KEY '=' WORD
		{
			pd_conf_port_key(p, $1, $3, pd_conf_at(p, @1), pd_conf_at(p, @3));
			yyerrok;
		}
;

entries:
	%empty
|	entries EOL
|	entries entry EOL	{ pd_conf_end_port(p, true); }
|	entries error EOL	{ yyerrok; pd_conf_end_port(p, false); }
;

entry:
	begin_entry entry_keys
|	begin_entry ':' WORD
		{ pd_conf_port_argument(p, $3, pd_conf_at(p, @3)); }
	entry_keys
;

begin_entry:
	WORD '=' WORD
		{ pd_conf_begin_port(p, $1, $3, pd_conf_at(p, @1), pd_conf_at(p, @3)); }
;

entry_keys:
	%empty
|	entry_keys ',' key
|	entry_keys ',' error
;

%%

/* Called by bison when its stack is too small, which the grammar rules out; the rest is ours to say. */
static void pd_conf_yyerror(PD_CONF_YYLTYPE *loc, void *scanner, struct pd_conf_parse *p,
			    const char *text)
{
	pd_conf_error(p, &pd_conf_at(p, *loc), "%s", text);
}

/* What was found instead, for the end of a message. */
static void pd_conf_found(const struct pd_conf_parse *p, yysymbol_kind_t found, char *out,
			  size_t size)
{
	switch (found) {
	case YYSYMBOL_EOL:
	case YYSYMBOL_YYEOF:
		snprintf(out, size, "the end of the %s", p->ports_form ? "entry" : "line");
		break;
	case YYSYMBOL_OPEN_QUOTE:
		snprintf(out, size, "a quotation without its end");
		break;
	case YYSYMBOL_BARE_IPV6:
		snprintf(out, size, "%.*s (an IPv6 address stands in brackets: [fd00::1]:80)",
			 PD_CONF_SHOWN(p->last));
		break;
	default:
		snprintf(out, size, "\"%.*s\"", PD_CONF_SHOWN(p->last));
	}
}

/* Say what the grammar expected, what it found, and which word may have been meant. */
static int yyreport_syntax_error(const yypcontext_t *context, void *scanner,
				 struct pd_conf_parse *p)
{
	enum { expected_max = 12 };
	yysymbol_kind_t expected[expected_max];
	char list[300] = "", found[160], hint[80] = "";
	struct pd_text_nearest nearest;
	const char *best;
	size_t n = 0, best_len;
	int count = yypcontext_expected_tokens(context, expected, expected_max), kept = 0;

	/* The end of the file, or of a line where a word was wrong, would be right too but helps nobody. */
	for (int i = 0; i < count; i++)
		if (expected[i] != YYSYMBOL_YYEOF &&
		    (expected[i] != YYSYMBOL_EOL ||
		     yypcontext_token(context) != YYSYMBOL_UNKNOWN || count == 1))
			expected[kept++] = expected[i];
	pd_text_nearest_begin(&nearest, p->last.s, p->last.len);
	for (int i = 0; i < kept; i++) {
		const char *name = yysymbol_name(expected[i]);

		if (expected[i] == YYSYMBOL_EOL && p->ports_form)
			name = "';'";
		n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s",
				      !n ? "" : i == kept - 1 ? " or " : ", ", name);
		n = n < sizeof(list) ? n : sizeof(list) - 1;
		pd_text_nearest_offer(&nearest, name, strlen(name));
	}
	pd_conf_found(p, yypcontext_token(context), found, sizeof(found));
	best = yypcontext_token(context) == YYSYMBOL_UNKNOWN ?
		       pd_text_nearest_end(&nearest, &best_len) : NULL;
	if (best)
		snprintf(hint, sizeof(hint), "; did you mean %.*s?", (int)best_len, best);
	pd_conf_error(p, &pd_conf_at(p, *yypcontext_location(context)), "expected %s, not %s%s", list,
		      found, hint);
	return 0;
}
