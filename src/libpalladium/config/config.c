/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The configuration as a whole: made, read, freed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/quiet.h"
#include "base/sys.h"
#include "config/conf_scan.h"
#include "config/vars.h"

struct pd_config *pd_config_new(void)
{
	struct pd_config *cfg = calloc(1, sizeof(*cfg));

	if (cfg)
		cfg->log_level = -1;
	return cfg;
}

void pd_config_free(struct pd_config *cfg)
{
	if (!cfg)
		return;
	for (uint32_t i = 0; i < cfg->group_count; i++) {
		free(cfg->groups[i].program);
		free(cfg->groups[i].id);
		free(cfg->groups[i].rules);
	}
	for (uint32_t i = 0; i < cfg->file_count; i++)
		free(cfg->files[i]);
	free(cfg->files);
	free(cfg->groups);
	free(cfg);
}

/*
 * Keep `name` for the places that will refer to it. Returns the copy, or NULL when there is no
 * memory.
 */
static const char *pd_config_add_file(struct pd_config *cfg, const char *name)
{
	char **grown = realloc(cfg->files, (cfg->file_count + 1) * sizeof(*grown));

	if (!grown)
		return NULL;
	cfg->files = grown;
	grown[cfg->file_count] = strdup(name);
	return grown[cfg->file_count] ? grown[cfg->file_count++] : NULL;
}

/* One reading of `text`, as a file or as PALLADIUM_PORTS. Returns 0 or -ENOMEM. */
static int pd_config_parse_as(struct pd_config *cfg, bool ports_form, const char *name,
			      const char *text, size_t len, pd_conf_message_fn message, void *ctx)
{
	struct pd_conf_parse *p = calloc(1, sizeof(*p));
	int ret;

	if (!p)
		return -ENOMEM;
	p->cfg = cfg;
	p->message = message;
	p->ctx = ctx;
	p->ports_form = ports_form;
	p->port = &p->scratch;
	p->file = pd_config_add_file(cfg, name);
	ret = p->file ? pd_conf_scan(p, text, len) : -ENOMEM;
	free(p);
	return ret;
}

int pd_config_parse(struct pd_config *cfg, const char *name, const char *text, size_t len,
		    pd_conf_message_fn message, void *ctx)
{
	return pd_config_parse_as(cfg, false, name, text, len, message, ctx);
}

int pd_config_parse_ports(struct pd_config *cfg, const char *name, const char *text, size_t len,
			  pd_conf_message_fn message, void *ctx)
{
	return pd_config_parse_as(cfg, true, name, text, len, message, ctx);
}

/*
 * Read `fd` to its end into new memory at *out (the caller's to free). Returns the number of bytes,
 * or -errno.
 */
static ssize_t pd_config_read_all(int fd, char **out)
{
	const size_t max = PD_CONF_FILE_BYTES_MAX + 1; /* that there is one more says enough */
	size_t len = 0, room = 0;
	char *text = NULL, *more;
	ssize_t n;

	do {
		if (len == room) {
			room = room ? pd_min(2 * room, max) : 4096;
			more = realloc(text, room);
			if (!more) {
				free(text);
				return -ENOMEM;
			}
			text = more;
		}
		n = pd_sys_read(fd, text + len, room - len);
		if (n > 0)
			len += (size_t)n;
	} while ((n > 0 && len < max) || n == -EINTR);
	if (n < 0 || len == max) {
		free(text);
		return n < 0 ? n : -EFBIG;
	}
	*out = text;
	return (ssize_t)len;
}

ssize_t pd_conf_read_text(const char *path, char **out)
{
	/* Without O_NONBLOCK a FIFO that nobody writes would stop the program. */
	int fd = pd_sys_open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0);
	ssize_t len;

	if (fd < 0)
		return fd;
	pd_sys_fcntl(fd, F_SETFL, 0);
	len = pd_config_read_all(fd, out);
	pd_sys_close(fd);
	return len;
}

int pd_config_read_file(struct pd_config *cfg, const char *path, pd_conf_message_fn message,
			void *ctx)
{
	char *text = NULL;
	ssize_t len = pd_conf_read_text(path, &text);
	int ret;

	if (len < 0)
		return (int)len;
	ret = pd_config_parse(cfg, path, text, (size_t)len, message, ctx);
	free(text);
	return ret;
}

int pd_config_read_either(struct pd_config *cfg, const char **path, const char *other,
			  pd_conf_message_fn message, void *ctx)
{
	int ret = pd_config_read_file(cfg, *path, message, ctx);

	if (ret != -ENOENT || !other || !strcmp(*path, other))
		return ret;
	*path = other;
	return pd_config_read_file(cfg, other, message, ctx);
}

/*
 * Mistakes of one source that are shown; a file that is no configuration at all has one in each
 * word.
 */
#define PD_CONFIG_SHOWN_MAX 20

/* How many messages a source has caused. */
struct pd_config_messages {
	unsigned shown, more;
};

/* Write a message to the log as file:line:column. `ctx` counts. */
static void pd_config_log_message(void *ctx, enum pd_conf_severity severity,
				  const struct pd_conf_place *place, const char *text)
{
	struct pd_config_messages *messages = ctx;
	static const enum pd_log_level levels[] = {[PD_CONF_ERROR] = PD_LOG_ERROR,
						   [PD_CONF_WARNING] = PD_LOG_WARN,
						   [PD_CONF_DETAIL] = PD_LOG_DETAILS};

	if (severity != PD_CONF_DETAIL && messages->shown >= PD_CONFIG_SHOWN_MAX) {
		messages->more++;
		return;
	}
	messages->shown += severity != PD_CONF_DETAIL;
	pd_log(levels[severity], "config", "%s:%u:%u: %s", place->file, place->line, place->column,
	       text);
}

/* A source is read: tell what was not shown, and count anew. */
static void pd_config_log_rest(struct pd_config_messages *messages, const char *name)
{
	if (messages->more)
		pd_err("config", "%s: %u more mistakes, which are not shown", name, messages->more);
	*messages = (struct pd_config_messages){0, 0};
}

/* Obey the file's `log` line where the environment says nothing. */
static void pd_config_apply_log(const struct pd_config *cfg)
{
	int ret;

	if (cfg->log_level >= 0 && !pd_vars_is_set(&pd_vars, &pd_vars.tracelevel))
		pd_log_set_level((enum pd_log_level)cfg->log_level);
	if (pd_vars_is_set(&pd_vars, &pd_vars.log_file))
		return;
	if (cfg->log_syslog) {
		ret = pd_log_set_syslog(NULL);
		if (ret < 0)
			pd_warn("config", "syslog at /dev/log: %s; the log stays where it is",
				pd_strerror(ret));
	} else if (*cfg->log_file) {
		ret = pd_log_set_file(cfg->log_file);
		if (ret < 0)
			pd_warn("config", "log file %s: %s", cfg->log_file, pd_quiet_strerror(ret));
	}
}

int pd_config_load(struct pd_config **out)
{
	struct pd_config_messages messages = {0, 0};
	struct pd_config *cfg = pd_config_new();
	bool named = pd_vars_is_set(&pd_vars, &pd_vars.config_file);
	const char *path = pd_vars.config_file;
	int ret = 0;

	if (!cfg)
		return -ENOMEM;
	if (*path)
		ret = pd_config_read_either(cfg, &path, named ? NULL : PD_CONF_ETC_FILE,
					    pd_config_log_message, &messages);
	pd_config_log_rest(&messages, path);
	if (ret == -ENOMEM)
		goto err_free;
	if (ret == -ENOENT && !named)
		pd_details("config", "%s does not exist", path);
	else if (ret < 0)
		pd_warn("config", "%s: %s", path, pd_strerror(ret));
	else if (*path)
		pd_details("config", "%s is read", path);
	ret = pd_config_parse_ports(cfg, "PALLADIUM_PORTS", pd_vars.ports, strlen(pd_vars.ports),
				    pd_config_log_message, &messages);
	pd_config_log_rest(&messages, "PALLADIUM_PORTS");
	if (ret < 0)
		goto err_free;
	pd_config_finish(cfg, pd_config_log_message, &messages);
	pd_config_log_rest(&messages, "ports and rules");
	pd_config_apply_log(cfg);
	*out = cfg;
	return 0;

err_free:
	pd_config_free(cfg);
	return ret;
}

const struct pd_port_config *pd_config_port(const struct pd_config *cfg, const char *name)
{
	return pd_conf_find_port((struct pd_config *)cfg,
				 (struct pd_conf_text){name, strlen(name)});
}

const char *pd_port_config_option(const struct pd_port_config *port, const char *key)
{
	for (uint32_t i = 0; i < port->option_count; i++)
		if (!strcmp(port->options[i].key, key))
			return port->options[i].text;
	return NULL;
}
