/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Inside config/: the door to the scanner and the parser.
 */
#ifndef PD_CONFIG_CONF_SCAN_H
#define PD_CONFIG_CONF_SCAN_H

#include "config/conf.h"

/*
 * Read `text` (any bytes) for `p`, of which cfg, file, message, ctx and ports_form are set. Returns
 * 0 or -ENOMEM; mistakes in the text go to p->message.
 */
int pd_conf_scan(struct pd_conf_parse *p, const char *text, size_t len);

#endif /* PD_CONFIG_CONF_SCAN_H */
