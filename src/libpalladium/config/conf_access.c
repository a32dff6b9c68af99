/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who may reach the socket of a port: the keys socket_mode, socket_owner, socket_group and peer_uid
 * of a port, and the variables that stand for them at ports without.
 *
 * A mistake never lets anybody in: a mode that is none leaves 0600, an owner or a group that is
 * none takes the mode back to that of the user alone, and of users that are none the user of the
 * program is left.
 *
 * Names are looked up in /etc/passwd and /etc/group, and nowhere else: libc's way would load
 * modules of the name service into the program. Who comes from elsewhere is written as a number.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "config/conf.h"
#include "config/text.h"
#include "config/vars.h"

/* Read `text` as a number that a user or a group can have. */
static bool pd_conf_id_number(struct pd_conf_text text, uint32_t *id)
{
	int64_t number;

	/* The highest number means "nobody" to the kernel's calls. */
	if (pd_text_number(text.s, text.len, &number) || number < 0 || number >= UINT32_MAX)
		return false;
	*id = (uint32_t)number;
	return true;
}

/* Look for the line of `name` in a file like /etc/passwd, whose third field is the number. */
static bool pd_conf_id_named(const char *path, struct pd_conf_text name, uint32_t *id)
{
	char *text = NULL, *line, *end;
	ssize_t len = pd_conf_read_text(path, &text);
	bool found = false;

	if (len < 0)
		return false;
	for (line = text; !found && line < text + len; line = end + 1) {
		char *second, *third, *fourth;

		end = memchr(line, '\n', (size_t)(text + len - line));
		if (!end)
			end = text + len;
		second = memchr(line, ':', (size_t)(end - line));
		if (!second || (size_t)(second - line) != name.len ||
		    memcmp(line, name.s, name.len))
			continue;
		third = memchr(second + 1, ':', (size_t)(end - second - 1));
		if (!third)
			continue;
		third++;
		fourth = memchr(third, ':', (size_t)(end - third));
		if (!fourth)
			fourth = end;
		found = pd_conf_id_number((struct pd_conf_text){third, (size_t)(fourth - third)},
					  id);
	}
	free(text);
	return found;
}

/* Read a user or a group, as a number or by its name in `path`. */
static bool pd_conf_id(struct pd_conf_text text, const char *path, uint32_t *id)
{
	return text.len && (pd_conf_id_number(text, id) || pd_conf_id_named(path, text, id));
}

/* Read an octal mode. */
static bool pd_conf_mode_bits(struct pd_conf_text text, uint16_t *mode)
{
	unsigned bits = 0;

	if (text.len < 3 || text.len > 4)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (text.s[i] < '0' || text.s[i] > '7')
			return false;
		bits = bits << 3 | (unsigned)(text.s[i] - '0');
	}
	*mode = (uint16_t)bits;
	return bits && bits <= 0777;
}

/* Read users parted by ',', ':' or '+'; false when one of them is none, with the others read. */
static bool pd_conf_peers(struct pd_conf_access *access, struct pd_conf_text text)
{
	bool good = text.len > 0;

	access->peer_count = 0;
	access->peer_self = false;
	for (size_t at = 0; at < text.len;) {
		struct pd_conf_text word = {text.s + at, 0};

		while (at + word.len < text.len && !memchr(",:+", word.s[word.len], 3))
			word.len++;
		at += word.len + 1;
		if (pd_text_is(word.s, word.len, "self"))
			access->peer_self = true;
		else if (access->peer_count < PD_CONF_PEERS_MAX &&
			 pd_conf_id(word, "/etc/passwd", &access->peers[access->peer_count]))
			access->peer_count++;
		else
			good = false;
	}
	if (!good && !access->peer_count)
		access->peer_self = true; /* not everybody */
	return good;
}

const char *pd_conf_access_read(struct pd_conf_access *access, enum pd_conf_access_key key,
				struct pd_conf_text text)
{
	uint16_t mode;

	access->given |= (uint8_t)(1u << key);
	switch (key) {
	case PD_CONF_ACCESS_MODE:
		access->mode = 0;
		if (!pd_conf_mode_bits(text, &mode))
			return "an octal mode like 0660";
		access->mode = mode;
		return NULL;
	case PD_CONF_ACCESS_OWNER:
		access->has_owner = pd_conf_id(text, "/etc/passwd", &access->owner);
		access->narrowed |= !access->has_owner;
		return access->has_owner ? NULL : "a user of /etc/passwd, or a number";
	case PD_CONF_ACCESS_GROUP:
		access->has_group = pd_conf_id(text, "/etc/group", &access->group);
		access->narrowed |= !access->has_group;
		return access->has_group ? NULL : "a group of /etc/group, or a number";
	default:
		if (pd_conf_peers(access, text))
			return NULL;
		return "self, users of /etc/passwd or their numbers, at most 8, parted by ':'";
	}
}

void pd_conf_access_show(const struct pd_conf_access *access, enum pd_conf_access_key key,
			 char *out, size_t size)
{
	size_t n = 0;

	*out = 0;
	if (key != PD_CONF_ACCESS_PEERS) {
		snprintf(out, size, "%s%04o",
			 key == PD_CONF_ACCESS_MODE ? "" : "none, and socket_mode=",
			 pd_conf_access_mode(access));
		return;
	}
	if (access->peer_self)
		n = (size_t)snprintf(out, size, "self");
	for (uint32_t i = 0; i < access->peer_count && n < size; i++)
		n += (size_t)snprintf(out + n, size - n, "%s%u", n ? ":" : "", access->peers[i]);
}

/* The variable that stands for each key, and its field. */
static const struct {
	const char *name;
	const char *const *text;
} pd_conf_access_vars[PD_CONF_ACCESS_KEYS] = {
	[PD_CONF_ACCESS_MODE] = {"PALLADIUM_SOCKET_MODE", &pd_vars.socket_mode},
	[PD_CONF_ACCESS_OWNER] = {"PALLADIUM_SOCKET_OWNER", &pd_vars.socket_owner},
	[PD_CONF_ACCESS_GROUP] = {"PALLADIUM_SOCKET_GROUP", &pd_vars.socket_group},
	[PD_CONF_ACCESS_PEERS] = {"PALLADIUM_PEER_UID", &pd_vars.peer_uid},
};

void pd_conf_access_finish(struct pd_config *cfg, pd_conf_message_fn message, void *ctx)
{
	uint8_t told = 0;

	for (uint32_t i = 0; i < cfg->port_count; i++) {
		struct pd_conf_access *access = &cfg->ports[i].access;

		for (unsigned k = 0; k < PD_CONF_ACCESS_KEYS; k++) {
			struct pd_conf_text text = {*pd_conf_access_vars[k].text,
						    strlen(*pd_conf_access_vars[k].text)};
			struct pd_conf_place place = {pd_conf_access_vars[k].name, 1, 1};
			char stands[200];
			const char *expected;

			if (access->given & 1u << k || !text.len || !*cfg->ports[i].path)
				continue;
			expected = pd_conf_access_read(access, (enum pd_conf_access_key)k, text);
			if (!expected || told & 1u << k)
				continue;
			told |= (uint8_t)(1u << k);
			pd_conf_access_show(access, (enum pd_conf_access_key)k, stands,
					    sizeof(stands));
			pd_conf_say(cfg, message, ctx, PD_CONF_ERROR, &place,
				    "expected %s, not \"%.*s\"; using %s", expected,
				    PD_CONF_SHOWN(text), stands);
		}
		if (access->narrowed)
			access->mode = 0;
	}
}
