"""A peer's address: its bytes, its text."""

from libc.stdint cimport uint8_t
from libc.stdio cimport snprintf

from relay.native.posix cimport (
    AF_INET, AF_INET6, inet_ntop, ntohs, sockaddr_in, sockaddr_in6, sockaddr_storage,
)

cdef extern from *:
    """
    #include <string.h>
    static inline int relay_is_mapped(const unsigned char *address) {
        static const unsigned char prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
        return memcmp(address, prefix, sizeof(prefix)) == 0;
    }
    """
    bint relay_is_mapped(const unsigned char *address) noexcept nogil


cdef inline const uint8_t *address_bytes(const sockaddr_storage *address, size_t *size) noexcept nogil:
    """Where its bytes are, 4 or 16; an IPv4 address that came in as IPv6 has 4 (RFC 4291, 2.5.5.2). Else none."""
    cdef const sockaddr_in *four = <const sockaddr_in *> address
    cdef const sockaddr_in6 *six = <const sockaddr_in6 *> address
    if address.ss_family == AF_INET:
        size[0] = 4
        return <const uint8_t *> &four.sin_addr
    if address.ss_family != AF_INET6:
        size[0] = 0
        return NULL
    if relay_is_mapped(six.sin6_addr.s6_addr):
        size[0] = 4
        return six.sin6_addr.s6_addr + 12
    size[0] = 16
    return six.sin6_addr.s6_addr


cdef inline void address_text(const sockaddr_storage *address, char *text, size_t size) noexcept nogil:
    """Address and port, IPv6 in brackets; an IPv4 address that came in as IPv6 is written as IPv4."""
    cdef char host[46]         # INET6_ADDRSTRLEN
    cdef size_t count
    cdef const uint8_t *bytes = address_bytes(address, &count)
    # The port stands at the same place in both.
    cdef unsigned int port = ntohs((<const sockaddr_in *> address).sin_port)
    host[0] = 0
    if count == 0:
        snprintf(text, size, "unknown")
        return
    inet_ntop(AF_INET if count == 4 else AF_INET6, bytes, host, sizeof(host))
    snprintf(text, size, "%s:%u" if count == 4 else "[%s]:%u", host, port)
