/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the packet generator cannot know of itself: the names of the ports, and the fields of the
 * sidecar (vlib/generator.h).
 */
#include <errno.h>

#include "metadata/fields.h"
#include "sock/layer.h"
#include "transport/transport.h"
#include "vlib/generator.h"

/* The index of the port `name`, or -ENOENT. */
static int pd_stream_port(void *arg, const char *name)
{
	const struct pd_port *port = pd_port_by_name(name);

	(void)arg;
	return port ? port->index : -ENOENT;
}

/* pd_sidecar_set, on the bytes of a buffer. */
static int pd_stream_sidecar(void *arg, const char *field, const char *value,
			     uint8_t sidecar[PD_BUFFER_SIDECAR_BYTES])
{
	(void)arg;
	return pd_sidecar_set((struct pd_sidecar *)sidecar, field, value);
}

const struct pd_stream_names pd_sock_stream_names = {.port = pd_stream_port,
						     .sidecar = pd_stream_sidecar};
