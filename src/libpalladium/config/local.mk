# SPDX-License-Identifier: BSD-2-Clause
AM_YFLAGS = -d -Wno-yacc
BUILT_SOURCES += src/libpalladium/config/conf_parser.h
libpd_la_SOURCES += \
	src/libpalladium/config/conf.h \
	src/libpalladium/config/conf_access.c \
	src/libpalladium/config/conf_build.c \
	src/libpalladium/config/conf_check.c \
	src/libpalladium/config/conf_match.c \
	src/libpalladium/config/conf_parser.y \
	src/libpalladium/config/conf_port.c \
	src/libpalladium/config/conf_question.c \
	src/libpalladium/config/conf_scan.h \
	src/libpalladium/config/conf_scanner.l \
	src/libpalladium/config/config.c src/libpalladium/config/config.h \
	src/libpalladium/config/path.c src/libpalladium/config/path.h \
	src/libpalladium/config/text.c src/libpalladium/config/text.h \
	src/libpalladium/config/vars.c src/libpalladium/config/vars.h

# The example of the tree is what a machine begins with; one that is already there is the user's.
EXTRA_DIST += palladium.conf
install-data-local:
	$(MKDIR_P) '$(DESTDIR)$(sysconfdir)'
	test -e '$(DESTDIR)$(sysconfdir)/libpalladium.conf' || \
		$(INSTALL_DATA) '$(srcdir)/palladium.conf' '$(DESTDIR)$(sysconfdir)/libpalladium.conf'
uninstall-local:
	! cmp -s '$(srcdir)/palladium.conf' '$(DESTDIR)$(sysconfdir)/libpalladium.conf' || \
		rm -f '$(DESTDIR)$(sysconfdir)/libpalladium.conf'
