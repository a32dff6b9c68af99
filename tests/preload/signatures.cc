/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compiles when every signature of defs/intercepts.def is libc's own. In C++ the headers declare plain
 * pointers where C has transparent unions, so the types compare exactly.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "defs/calls.h"

#undef epoll_pwait2

/* libc's headers do not declare what only the compiler or libc itself calls. */
extern "C" {
ssize_t __read_chk(int fd, void *buf, size_t n, size_t size);
ssize_t __recv_chk(int fd, void *buf, size_t n, size_t size, int flags);
ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t size, int flags, struct sockaddr *addr,
		       socklen_t *len);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
		size_t size);
void __res_iclose(struct __res_state *state, bool free_addr);
}

struct libc_calls {
#define PD_CALL(early, ret, name, params, args) ret(*name) params;
#include "defs/intercepts.def"
};

/* siginterrupt is told to be old-fashioned; programs call it. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
extern const libc_calls calls;
const libc_calls calls = {
#define PD_CALL(early, ret, name, params, args) ::name,
#include "defs/intercepts.def"
};
